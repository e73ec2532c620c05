//! A bus that is shared with a group, and what its other members may do.
//!
//! ```sh
//! cargo run --example access
//! ```
//!
//! It plays one user, who may do everything to its own nodes; other users of the group would get through what the
//! rules say, where the directory is one that they can reach.

use ringbus::{Access, Bus};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // All members have to reach and write the directory: mode 1770, and the group's.
    let dir = tempfile::tempdir()?;
    let group = nix::unistd::getegid().as_raw();

    // What no rule names is refused. Rules are for users by `to_uid` or `to_user`, for groups by `to_gid` or `to_group`.
    let camera = Access::publish("sensor/camera/**").to_uid(1001);
    let members = Access::subscribe("map/**").to_gid(group).and(Access::call("planner").to_gid(group));
    // The same as text, as it may stand in a file for `Access::read`, or after `--allow` of the command.
    let text = "# who may do what to this node\nallow publish sensor/camera/** to uid 1001\n";
    assert_eq!(camera, text.parse()?);

    let builder = Bus::builder("robots").dir(dir.path()).group(group.to_string()); // or a name: group("robots")
    let bus = builder.allow(camera).allow(members).open()?;
    let planner = bus.join("planner")?;
    let mut images = planner.raw_subscriber("sensor/**")?;

    let driver = bus.join("driver")?; // of the same user: no rule is needed
    driver.raw_publisher("sensor/camera/front")?.publish(b"an image")?;
    let image = images.recv()?;
    println!(
        "{} bytes on {} from {}, user {}",
        image.len(),
        image.topic(),
        image.source(),
        image.source().uid()
    );

    // Who was refused something, here or by others, is told.
    for denial in planner.denials().latest {
        println!("{} may not {:?} {}", denial.node, denial.action, denial.topic);
    }
    Ok(())
}
