//! Those who are not let in at all.

use std::fs::{Permissions, set_permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;

use nix::unistd::{Uid, seteuid, setfsuid};
use ringbus::internals::frame::{Control, Hello};
use ringbus::internals::sys::seqpacket::Socket;
use ringbus::{Access, AccessError, Bus, BusError, DirectoryError, Refusal};

use crate::guest::become_user;
use crate::support::{Child, Dir, Parent, eventually, is_root};

const STRANGER: u32 = 12_345;
const GROUP: u32 = 54_321;

/// The directory keeps strangers out; this one comes with the file rights of root, as through a socket that was
/// handed on.
#[test]
fn a_stranger_that_gets_at_a_socket_is_refused_by_its_user_id() {
    if !is_root("a_stranger_that_gets_at_a_socket_is_refused_by_its_user_id") {
        return; // nobody else to be
    }
    for (group, why) in [
        (None, Refusal::OtherUser { uid: STRANGER }),
        (Some(GROUP), Refusal::NotInGroup { uid: STRANGER, group: GROUP }),
    ] {
        let dir = Dir::new();
        let builder = Bus::builder("bus").dir(dir.path());
        let bus = match group {
            Some(group) => builder.group(group.to_string()).open().unwrap(),
            None => builder.open().unwrap(),
        };
        let node = bus.join("node").unwrap();
        let socket = dir.path().join(format!("bus/{}.sock", node.info().id()));
        let stranger = Child::start("gets at the socket", &[socket.to_str().unwrap()]);
        stranger.finish();
        eventually("it is refused", || !node.refused().is_empty());
        assert!(node.refused().iter().all(|refused| refused.why == why), "{:?}", node.refused());
        assert!(node.peers().is_empty());
        let _other = bus.join("other").unwrap();
        assert_eq!(node.peers().len(), 1);
    }
}

pub fn gets_at_the_socket(_: &mut Parent, args: &[&str]) {
    seteuid(Uid::from_raw(STRANGER)).unwrap();
    setfsuid(Uid::from_raw(0));
    let socket = Socket::connect(args[0].as_ref()).unwrap();
    let (id, name) = ([9; 16], "stranger");
    let hello = Hello { major: 1, minor: 0, id, name, started_unix_ms: 0, capabilities: 0 };
    let mut bytes = vec![0; 256];
    let len = Control::Hello(hello).encode(&mut bytes).unwrap();
    let _ = socket.send(&bytes[..len], &[]); // it may be closed already
    eventually("it is closed without a word", || match socket.recv(&mut bytes) {
        Ok(received) => {
            assert!(received.is_end());
            true
        }
        Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    });
}

/// A member comes into the directory, and is known; a user outside of the group does not get that far.
#[test]
fn members_of_the_group_get_in_and_nobody_else() {
    if !is_root("members_of_the_group_get_in_and_nobody_else") {
        return; // nobody else to be
    }
    let dir = Dir::new();
    set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let node =
        Bus::builder("bus").dir(dir.path()).group(GROUP.to_string()).open().unwrap().join("node").unwrap();
    for (groups, is_let_in) in [("54321", true), ("7,54321", true), ("7,8", false)] {
        let mut child = Child::start("joins as a member", &[dir.arg(), groups]);
        child.expect(if is_let_in { "in" } else { "out" });
        if is_let_in {
            let peers = node.peers();
            assert_eq!(peers.len(), 1, "{groups}: {:?}", node.refused());
            assert_eq!((peers[0].uid(), peers[0].name()), (STRANGER, "member"));
        }
        child.finish();
        eventually("it has left", || node.peers().is_empty());
    }
    assert!(node.refused().is_empty(), "{:?}", node.refused());
}

pub fn joins_as_a_member(parent: &mut Parent, args: &[&str]) {
    let groups: Vec<u32> = args[1].split(',').map(|gid| gid.parse().unwrap()).collect();
    become_user(STRANGER, &groups);
    match Bus::builder("bus").dir(args[0]).group(GROUP.to_string()).open() {
        Ok(bus) => {
            let node = bus.join("member").unwrap();
            assert_eq!(node.peers().len(), 1);
            parent.say("in");
            parent.stay();
        }
        Err(BusError::Directory(error)) => {
            assert!(matches!(error, DirectoryError::NotLetIn { uid: STRANGER, group: GROUP, .. }), "{error}");
            parent.say("out");
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_list_that_means_nothing_is_refused() {
    let dir = Dir::new();
    let builder = || Bus::builder("bus").dir(dir.path());
    let refused = |builder: ringbus::BusBuilder| match builder.open() {
        Err(BusError::Access(error)) => error,
        other => panic!("{other:?}"),
    };
    let error = refused(builder().allow(Access::publish("**").to_uid(1)));
    assert!(matches!(error, AccessError::NoGroup) && error.to_string().contains("--group"));
    let group = nix::unistd::getegid().to_string();
    let error = refused(builder().group(&group).allow(Access::publish("a//b").to_uid(1)));
    assert!(matches!(error, AccessError::Pattern(_)), "{error}");
    let error = refused(builder().group(&group).allow(Access::call("a").to_user("no-such-user")));
    assert!(matches!(error, AccessError::User { .. }), "{error}");
    builder().group(&group).allow(Access::none()).open().unwrap();
}
