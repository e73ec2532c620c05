//! `ringbus doctor --fix`: what is provably dead is removed, and nothing else.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::SystemTime;

use nix::sys::signal::Signal;

use super::*;

/// A place whose commands make private buses in it, too.
fn place() -> Place {
    let place = Place::new();
    fs::create_dir(place.dir().join("tmp")).unwrap();
    place
}

fn doctor(place: &Place, args: &[&str]) -> Output {
    let mut command = place.command(&["doctor"]);
    command.args(args).env("TMPDIR", place.dir().join("tmp"));
    Running::start(command).output()
}

fn diagnosis(place: &Place, args: &[&str]) -> (Option<i32>, Value) {
    let output = doctor(place, args);
    (output.status.code(), json(&text(&output.stdout)))
}

/// A `ringbus sub` that has joined, and its socket.
fn joined(place: &Place) -> (Running, PathBuf) {
    let before = sockets(place);
    let sub = place.start(&["sub", "t"]);
    let mut new = None;
    eventually("its socket", || {
        new = sockets(place).into_iter().find(|path| !before.contains(path));
        new.is_some()
    });
    (sub, new.expect("a socket"))
}

fn sockets(place: &Place) -> Vec<PathBuf> {
    let entries = fs::read_dir(place.bus_dir()).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "sock"))
        .collect()
}

/// What a killed process has left.
fn leftover(place: &Place) -> PathBuf {
    let (mut sub, socket) = joined(place);
    sub.signal(Signal::SIGKILL);
    sub.wait();
    socket
}

fn why<'a>(diagnosis: &'a Value, kind: &str, path: &Path) -> Option<&'a str> {
    let things = diagnosis[kind].as_array().unwrap_or_else(|| panic!("{kind}: {diagnosis}"));
    things.iter().find(|thing| thing["path"] == path.to_str().unwrap())?["why"].as_str()
}

#[test]
fn doctor_fixes_what_is_dead_and_leaves_the_rest() {
    let place = place();
    let (stopped, of_stopped) = joined(&place);
    stopped.signal(Signal::SIGSTOP); // or it would clean up
    let dead = leftover(&place);
    let dir = place.bus_dir();
    let foreign = ["notes.txt", "0123456789abcdef0123456789abcdef.sock"].map(|name| dir.join(name));
    fs::write(&foreign[0], "mine").unwrap();
    fs::write(&foreign[1], "no socket").unwrap();
    let link = dir.join(format!("{:032x}.sock", 7));
    symlink(&dead, &link).unwrap();
    let other_socket = dir.join("other.socket");
    drop(UnixListener::bind(&other_socket).unwrap());
    let temporary = |id: u128| dir.join(format!(".{id:032x}.tmp"));
    let (young, old, editors) = (temporary(1), temporary(2), dir.join(".editor.tmp"));
    bind_old(&editors);
    drop(UnixListener::bind(&young).unwrap());
    bind_old(&old);

    let (code, looked) = diagnosis(&place, &["--json"]);
    assert_eq!((code, &looked["fixed"]), (Some(0), &serde_json::json!([])));
    for path in [&dead, &old] {
        assert!(why(&looked, "fixable", path).is_some() && path.exists(), "{looked}");
    }
    let said = text(&doctor(&place, &[]).stdout);
    assert!(said.contains(&format!("would remove {}: ", dead.display())), "{said}");

    let said = text(&doctor(&place, &["--fix"]).stdout);
    assert!(said.contains(&format!("removed {}: nobody listens there", dead.display())), "{said}");
    assert!(said.contains(&format!("removed {}: ", old.display())), "{said}");
    assert!(fs::symlink_metadata(&dead).is_err() && fs::symlink_metadata(&old).is_err());
    let line = format!("left {}: its process, {}, is stopped", of_stopped.display(), stopped.pid());
    assert!(said.contains(&line), "{said}");

    let again = leftover(&place);
    let (code, fixed) = diagnosis(&place, &["--fix", "--json"]);
    assert_eq!((code, &fixed["fixable"]), (Some(0), &serde_json::json!([])));
    assert_eq!(fixed["fixed"].as_array().unwrap().len(), 1, "{fixed}");
    assert!(why(&fixed, "fixed", &again).unwrap().contains("dead") && !again.exists());
    for (path, reason) in [
        (&of_stopped, "stopped"),
        (&foreign[0], "no socket of the bus"),
        (&foreign[1], "no socket of the bus"),
        (&link, "no socket of the bus"),
        (&other_socket, "no socket of the bus"),
        (&editors, "no socket of the bus"),
        (&young, "joins right now"),
    ] {
        assert!(why(&fixed, "left", path).is_some_and(|why| why.contains(reason)), "{path:?}: {fixed}");
        assert!(fs::symlink_metadata(path).is_ok(), "{path:?}");
    }

    let (_living, of_living) = joined(&place);
    let (_, fixed) = diagnosis(&place, &["--fix", "--json"]);
    assert!(why(&fixed, "left", &of_living).is_some_and(|why| why.ends_with("lives")), "{fixed}");

    // The stopped one is still on the bus, where it was.
    let node = place.join("publisher");
    let publisher = node.raw_publisher("t").unwrap();
    stopped.signal(Signal::SIGCONT);
    publisher.wait_for_subscribers(2, DEADLINE).unwrap();
    assert!(fs::metadata(&of_stopped).unwrap().file_type().is_socket());
}

/// A socket under a temporary name that refuses, and is older than any that somebody is placing.
fn bind_old(path: &Path) {
    drop(UnixListener::bind(path).unwrap());
    let time = SystemTime::now() - Duration::from_secs(3600);
    let time = nix::sys::time::TimeSpec::from_duration(time.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    let flags = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
    nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, flags).unwrap();
}

#[test]
fn doctor_fixes_private_buses_of_the_dead_alone() {
    let place = place();
    let tmp = place.dir().join("tmp");
    let start = || {
        let before: Vec<_> = fs::read_dir(&tmp).unwrap().flatten().map(|entry| entry.path()).collect();
        let mut command = place.command(&["demo", "--seconds", "600"]);
        command.env("TMPDIR", &tmp);
        let mut demo = Running::start(command);
        let lines = demo.lines();
        // What it is, a heading, and then what all have done: who is killed while it joins is seen to be dead a minute later.
        (0..3).for_each(|_| drop(lines.next()));
        let mut entries = fs::read_dir(&tmp).unwrap().flatten().map(|entry| entry.path());
        (demo, entries.find(|path| !before.contains(path)).expect("a private bus"))
    };
    // In this order, since each private bus removes what it finds dead.
    let (mut killed, dead) = start();
    let (stopped, of_stopped) = start();
    stopped.signal(Signal::SIGSTOP);
    killed.signal(Signal::SIGKILL);
    killed.wait();
    let foreign = tmp.join("ringbus-private-file");
    fs::write(&foreign, "no directory").unwrap();

    // Its children die with it, or soon after.
    eventually("the dead one's to be fixable", || {
        let (_, looked) = diagnosis(&place, &["--json"]);
        why(&looked, "fixable", &dead).is_some() && dead.exists()
    });
    // One whose owner is dead, and whose other process is not.
    let inhabited = tmp.join("ringbus-private-0123456789abcdef");
    fs::create_dir(&inhabited).unwrap();
    fs::set_permissions(&inhabited, fs::Permissions::from_mode(0o700)).unwrap();
    let bus = ringbus::Bus::builder("private").dir(&inhabited).open().unwrap();
    let _living = bus.join("living").unwrap();
    let (code, fixed) = diagnosis(&place, &["--fix", "--json"]);
    assert_eq!(code, Some(0));
    assert!(why(&fixed, "fixed", &dead).is_some_and(|why| why.contains("lock")) && !dead.exists(), "{fixed}");
    assert!(of_stopped.is_dir() && foreign.is_file());
    assert_eq!(fs::read_dir(inhabited.join("private")).unwrap().count(), 1);
    assert_eq!(fixed["fixed"].as_array().unwrap().len(), 1, "{fixed}");
}

#[test]
fn doctor_fixes_nothing_of_other_users() {
    if !nix::unistd::geteuid().is_root() {
        let _ = writeln!(
            std::io::stderr(),
            "doctor_fixes_nothing_of_other_users: only root can play other users"
        );
        return;
    }
    const STRANGER: u32 = 65_534;
    let place = place();
    let of_other = leftover(&place);
    std::os::unix::fs::lchown(&of_other, Some(STRANGER), None).unwrap();
    let (code, fixed) = diagnosis(&place, &["--fix", "--json"]);
    let why = why(&fixed, "left", &of_other);
    assert!(code == Some(0) && why.is_some_and(|why| why.contains("belongs to user 65534")), "{fixed}");
    assert!(of_other.exists());

    // All of the directory.
    let dead = leftover(&place);
    std::os::unix::fs::chown(place.bus_dir(), Some(STRANGER), None).unwrap();
    let (code, fixed) = diagnosis(&place, &["--fix", "--json"]);
    assert_eq!(
        (code, &fixed["fixed"], &fixed["left"]),
        (Some(1), &serde_json::json!([]), &serde_json::json!([]))
    );
    assert!(dead.exists());
}
