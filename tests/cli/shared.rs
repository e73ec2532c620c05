//! Buses that users share: where they are, and what their members are told of access lists.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::unistd::geteuid;

use super::*;

const GROUP: u32 = 54_321;
const OTHER: u32 = 12_345;

/// A place whose directory others can enter; `None` where nobody can play them.
fn shared(test: &str) -> Option<Place> {
    if !geteuid().is_root() {
        eprintln!("{test}: not shown: only root can play other users");
        return None;
    }
    let place = Place::new();
    std::fs::set_permissions(place.dir(), Permissions::from_mode(0o755)).expect("chmod");
    Some(place)
}

/// A command of another user in the group.
fn of_other(place: &Place, args: &[&str]) -> Command {
    let mut command = place.command(args);
    command.args(["--group", &GROUP.to_string()]).gid(GROUP).uid(OTHER);
    command
}

#[test]
fn what_another_users_node_refuses_is_told() {
    let Some(place) = shared("what_another_users_node_refuses_is_told") else { return };
    let bus = Bus::builder("default").dir(place.dir()).group(GROUP.to_string());
    let bus = bus.allow("publish open/* to uid 12345".parse().expect("a rule")).open().expect("a bus");
    let node = bus.join("home").expect("to join");
    let mut open = node.subscriber::<u64>("open/a").expect("a port");
    let _closed = [(); 2].map(|()| node.subscriber::<u64>("closed").expect("a port"));
    let publish = |topic: &str, allowed: &str| {
        let allow = format!("subscribe {allowed} to uid 0");
        let output = Running::start(of_other(&place, &["pub", "--allow", &allow, topic, "7"])).output();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let refused = publish("closed", "**");
    assert_eq!(refused.lines().count(), 1, "{refused}");
    assert!(refused.contains("1 node") && refused.contains("allow publish closed to uid 12345"), "{refused}");
    // The other way round: the command's own list.
    let here = publish("open/a", "other");
    assert!(here.contains("--allow 'subscribe open/a to uid UID'"), "{here}");
    assert!(open.try_recv().expect("the port").is_none());
    assert_eq!(publish("open/a", "open/*"), "");
    assert_eq!(*open.recv_timeout(DEADLINE).expect("the port").expect("a message"), 7);

    // Also to whoever waits in vain.
    let args = ["pub", "open/a", "7", "--wait", "1", "--timeout", "300ms"];
    let output = Running::start(of_other(&place, &args)).output();
    let waited = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{waited}");
    assert!(waited.contains("subscribe open/a to uid UID") && waited.contains("0 of 1"), "{waited}");
}

#[test]
fn a_subscriber_is_told_who_may_not_publish_to_it_and_who_refuses_it() {
    let Some(place) = shared("a_subscriber_is_told_who_may_not_publish_to_it_and_who_refuses_it") else {
        return;
    };
    let told = |allowed: &str, expected: &str| {
        let bus = Bus::builder("default").dir(place.dir()).group(GROUP.to_string());
        let bus = bus.allow(allowed.parse().expect("a rule")).open().expect("a bus");
        let node = bus.join("home").expect("to join");
        let _publisher = node.publisher::<u64>("closed").expect("a port");
        let line = Running::start(of_other(&place, &["sub", "closed"])).errors().next();
        assert!(line.contains("home") && line.contains(expected), "{line}");
    };
    told("allow subscribe other to uid 12345", "`allow subscribe closed to uid 12345`");
    told("allow subscribe closed to uid 12345", "--allow 'publish closed to uid 0'");
}

#[test]
fn a_group_wants_a_directory_that_its_members_reach() {
    let place = Place::new();
    let group = nix::unistd::getegid().to_string();
    let mut nowhere = place.command(&["pub", "a", "1", "--group", &group]);
    nowhere.env_remove("RINGBUS_DIR");
    let output = Running::start(nowhere).output();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("--dir") && said.contains("install -d"), "{said}");

    // One that is missing is made for them.
    let shared = place.dir().join("of/a/group");
    let dir = shared.to_str().expect("UTF-8");
    let _running = place.start(&["sub", "a", "--group", &group, "--dir", dir]);
    eventually("a directory", || shared.join("default").exists());
    for (made, mode) in [(&shared, 0o1770), (&place.dir().join("of"), 0o750)] {
        let found = made.metadata().expect("made");
        assert_eq!((found.mode() & 0o7777, found.gid().to_string()), (mode, group.clone()));
    }
    let doctor = place.succeed(&["doctor", "--group", &group, "--dir", dir]);
    assert!(!doctor.contains("cannot read and enter"), "{doctor}");
    // One that is there may not let the group in.
    for mode in [0o700, 0o710, 0o711] {
        std::fs::set_permissions(&shared, Permissions::from_mode(mode)).expect("chmod");
        let doctor = place.succeed(&["doctor", "--group", &group, "--dir", dir]);
        assert!(doctor.contains("warn  directory") && doctor.contains("cannot read and enter"), "{doctor}");
    }
    std::fs::set_permissions(&shared, Permissions::from_mode(0o705)).expect("chmod");
    assert!(!place.succeed(&["doctor", "--group", &group, "--dir", dir]).contains("cannot read and enter"));
}

#[test]
fn the_default_directory_depends_on_nothing_that_is_empty_or_relative() {
    let place = Place::new();
    let expected = format!("/tmp/ringbus-{}", geteuid());
    for (name, value) in [("RINGBUS_DIR", ""), ("XDG_RUNTIME_DIR", "run"), ("XDG_RUNTIME_DIR", "")] {
        let mut command = place.command(&["ls", "--bus", "nobody-has-this-name"]);
        command.env_remove("RINGBUS_DIR").env_remove("XDG_RUNTIME_DIR").env(name, value);
        command.env("RINGBUS_BUS", "").current_dir(place.dir());
        let output = Running::start(command).output();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success() && said.contains(&expected), "{name}={value}: {said}");
        assert!(!place.dir().join("run").exists());
    }
}

#[test]
fn only_directories_of_buses_are_listed() {
    let place = Place::new();
    let _node = Bus::builder("agents").dir(place.dir()).open().expect("a bus").join("one").expect("to join");
    std::fs::create_dir(place.dir().join("target")).expect("a directory");
    std::fs::set_permissions(place.dir().join("target"), Permissions::from_mode(0o755)).expect("chmod");
    let listing = json(&place.succeed(&["ls", "--json"]));
    assert_eq!(listing["other_buses"], serde_json::json!(["agents"]));
    let missing = place.dir().join("missing");
    let said = place.succeed(&["ls", "--dir", missing.to_str().expect("UTF-8")]);
    assert!(said.contains("there is no directory") && !missing.exists(), "{said}");
}
