//! What `ringbus sub` takes in memory.

use super::*;

/// Many times as large when each value is an object in memory.
const NILS: usize = 24_000_000;

/// A `sub` with so many MiB of address space.
fn limited_sub(place: &Place, mib: usize) -> Running {
    let bare = place.command(&["sub", "--count", "2", "t"]);
    let mut command = Command::new("sh");
    command.args(["-c", &format!(r#"ulimit -v {}; exec "$0" "$@""#, mib << 10)]);
    command.arg(bare.get_program()).args(bare.get_args()).env("RINGBUS_DIR", place.dir());
    // Else each thread reserves 64 MiB of address space.
    command.env("MALLOC_ARENA_MAX", "1").env_remove("RUST_LOG").env_remove("RINGBUS_BUS");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::start(command)
}

#[test]
fn a_huge_array_of_nothing_is_printed_or_told_to_be_too_large() {
    let place = Place::new();
    let node = place.join("publisher");
    let many = vec![(); NILS];
    let mut publisher = node.publisher::<Vec<()>>("t").unwrap();
    // The program takes up to 27 MiB, and the mapped message 32; a copy takes 23 more.
    for (mib, is_room) in [(160, true), (65, false)] {
        let mut sub = limited_sub(&place, mib);
        let (lines, errors) = (sub.lines(), sub.errors());
        publisher.wait_for_subscribers(1, DEADLINE).unwrap();
        publisher.publish(&many).unwrap();
        if is_room {
            let line = lines.next();
            assert_eq!(line.len(), "t []".len() + NILS * "null,".len() - 1, "{:?}", errors.rest());
        } else {
            let told = errors.next();
            assert!(told.contains("too large for this process's memory"), "{told}");
        }
        for _ in 0..2 {
            publisher.publish(&vec![(); 2]).unwrap();
        }
        assert_eq!(lines.next(), "t [null,null]", "it goes on");
        drop(lines);
        assert!(sub.wait().success());
        eventually("its end", || publisher.stats().peers == 0);
    }
}
