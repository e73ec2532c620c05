//! Which directories a bus is opened in, and who is let onto it.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use nix::sys::socket::{
    self, AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, sockopt::ReceiveTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{Gid, Uid, getegid, geteuid, setgid, setuid};
use ringbus::{Access, Bus, BusError, DirectoryError, Node, Refusal};

mod support;
use support::{Child, DEADLINE, Dir, Parent, eventually};

/// Not a test of its own but the second process of those here: does nothing unless one of them started it.
#[test]
fn child() {
    support::play(&[("says where it is", says_where_it_is), ("another user", another_user)]);
}

fn open(dir: &Path) -> Result<Bus, BusError> {
    Bus::builder("bus").dir(dir).open()
}

#[track_caller]
fn refused(dir: &Path) -> DirectoryError {
    match open(dir) {
        Err(BusError::Directory(error)) => error,
        other => panic!("not refused: {other:?}"),
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_bus_makes_its_directory_for_its_user_alone() {
    let dir = Dir::new();
    let deep = dir.path().join("not/yet");
    let bus = open(&deep).unwrap();
    assert_eq!(mode(&deep.join("bus")), 0o700);
    let node = bus.join("node").unwrap();
    let socket = deep.join(format!("bus/{}.sock", node.info().id()));
    assert_eq!(mode(&socket), 0o600);
    drop(node);
    assert!(!socket.exists());
    assert_eq!(bus.siblings(), ["bus"]);
}

#[test]
fn a_directory_that_others_can_reach_into_is_refused() {
    let dir = Dir::new();
    let path = dir.path().join("bus");
    fs::create_dir(&path).unwrap();
    for found in [0o755, 0o777, 0o710, 0o1770, 0o500] {
        set_mode(&path, found);
        let error = refused(dir.path());
        assert!(matches!(error, DirectoryError::TooOpen { mode, .. } if mode == found), "{error}");
        assert!(error.to_string().contains("chmod 0700"), "{error}");
    }
    set_mode(&path, 0o700);
    let bus = open(dir.path()).unwrap();
    // It is looked at again at each join.
    set_mode(&path, 0o777);
    assert!(bus.join("node").is_err());
    set_mode(&path, 0o700);
    bus.join("node").unwrap();

    // Whoever can rename in its parent can put another in its place; unless the parent is sticky.
    set_mode(dir.path(), 0o777);
    let error = refused(dir.path());
    assert!(matches!(error, DirectoryError::TooOpen { mode: 0o777, expected: 0o755, .. }), "{error}");
    set_mode(dir.path(), 0o1777);
    open(dir.path()).unwrap();
}

#[test]
fn somebody_elses_directory_is_refused() {
    let (uid, dir) = (geteuid().as_raw(), Dir::new());
    if support::is_root("somebody_elses_directory_is_refused") {
        fs::create_dir(dir.path().join("bus")).unwrap();
        set_mode(&dir.path().join("bus"), 0o700);
        for path in [dir.path().join("bus"), dir.path().to_owned()] {
            chown(&path, Some(12_345), None).unwrap();
            let error = refused(dir.path());
            let not_ours = DirectoryError::NotOurs { path: path.clone(), owner: 12_345, uid };
            assert_eq!(error.to_string(), not_ours.to_string());
            chown(&path, Some(uid), None).unwrap();
        }
        open(dir.path()).unwrap();
    } else {
        // Root's, then; there is such a one on every host.
        let Err(BusError::Directory(error)) = Bus::builder("usr").dir("/").open() else { panic!("opened") };
        assert!(matches!(error, DirectoryError::NotOurs { owner: 0, uid: found, .. } if found == uid));
    }
}

#[test]
fn what_is_no_directory_of_its_own_is_refused() {
    let (dir, elsewhere) = (Dir::new(), Dir::new());
    let path = dir.path().join("bus");
    symlink(elsewhere.path(), &path).unwrap();
    assert!(matches!(refused(dir.path()), DirectoryError::NotADirectory { .. }));
    fs::remove_file(&path).unwrap();
    symlink("nowhere", &path).unwrap();
    assert!(matches!(refused(dir.path()), DirectoryError::NotADirectory { .. }));
    fs::remove_file(&path).unwrap();
    fs::write(&path, "").unwrap();
    assert!(matches!(refused(dir.path()), DirectoryError::NotADirectory { .. }));
    // The parent: neither.
    let link = dir.path().join("link");
    symlink(elsewhere.path(), &link).unwrap();
    assert!(matches!(refused(&link), DirectoryError::NotADirectory { .. }));
    refused(&path);
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn a_path_too_long_for_a_socket_is_refused_and_the_longest_works() {
    let dir = Dir::new();
    let error = refused(&dir.path().join("x".repeat(70)));
    let DirectoryError::TooLong { limit, .. } = error else { panic!("{error}") };
    let room = limit - dir.path().as_os_str().len() - "//bus".len();
    assert!(matches!(refused(&dir.path().join("x".repeat(room + 1))), DirectoryError::TooLong { .. }));
    let bus = open(&dir.path().join("x".repeat(room))).unwrap();
    let nodes = ["one", "other"].map(|name| bus.join(name).unwrap());
    assert_eq!(nodes.each_ref().map(|node| node.peers().len()), [1, 1]);
}

#[test]
fn the_environment_says_where_buses_are_and_which_is_the_default() {
    let (one, other) = (Dir::new(), Dir::new());
    let (one, other) = (one.arg(), other.arg());
    let uid = geteuid().as_raw();
    let unset = "RINGBUS_DIR XDG_RUNTIME_DIR RINGBUS_BUS".split(' ').map(|name| (name, None));
    for (set, place, name) in [
        (vec![("RINGBUS_DIR", one), ("XDG_RUNTIME_DIR", other)], one.to_owned(), "default"),
        (vec![("XDG_RUNTIME_DIR", other)], format!("{other}/ringbus"), "default"),
        (
            vec![("RINGBUS_DIR", ""), ("XDG_RUNTIME_DIR", other), ("RINGBUS_BUS", "")],
            format!("{other}/ringbus"),
            "default",
        ),
        (vec![("RINGBUS_DIR", one), ("RINGBUS_BUS", "agents")], one.to_owned(), "agents"),
        (vec![], format!("/tmp/ringbus-{uid}"), "default"),
    ] {
        let set = set.into_iter().map(|(name, value)| (name, Some(value)));
        let env: Vec<_> = unset.clone().chain(set).collect();
        let mut child = Child::start_with_env("says where it is", &[], &env);
        child.expect(&place);
        child.expect(name);
        child.finish();
    }
    // Gone if nobody uses it; only an empty directory can be removed.
    for path in ["default", ""] {
        let _ = fs::remove_dir(Path::new(&format!("/tmp/ringbus-{uid}")).join(path));
    }
}

fn says_where_it_is(parent: &mut Parent, _: &[&str]) {
    let bus = Bus::from_env().unwrap();
    assert_eq!(Bus::default_name(), bus.name());
    assert!(bus.dir().join(bus.name()).is_dir());
    parent.say(bus.dir().to_str().unwrap());
    parent.say(bus.name());
}

#[test]
fn a_group_shares_a_bus_between_its_users() {
    let dir = Dir::new();
    let root = support::is_root("a_group_shares_a_bus_between_its_users");
    // Root can try it with another user; whoever else tests tries it with the one user and group there is.
    let gid = if root { 54_321 } else { getegid().as_raw() };
    set_mode(dir.path(), 0o755);
    let builder = Bus::builder("bus").dir(dir.path()).group(gid.to_string());
    let bus = builder.allow(Access::publish("t").to_gid(gid)).open().unwrap();
    assert_eq!(mode(&dir.path().join("bus")), 0o1770);
    let node = bus.join("one").unwrap();
    let mut subscriber = node.subscriber::<u32>("t").unwrap();
    let mut other = Child::start("another user", &[dir.arg(), &gid.to_string()]);
    other.expect("published");
    let message = subscriber.recv_timeout(DEADLINE).unwrap().expect("a message");
    let expected = if root { 12_345 } else { geteuid().as_raw() };
    assert_eq!((*message, message.source().uid(), node.peers()[0].uid()), (7, expected, expected));
    other.finish();

    let unknown = Bus::builder("bus").dir(dir.path()).group("no such group").open();
    assert!(matches!(unknown, Err(BusError::Group { .. })), "{unknown:?}");
    let another = Bus::builder("bus").dir(dir.path()).group((gid + 1).to_string()).open();
    assert!(matches!(another, Err(BusError::Directory(DirectoryError::OtherGroup { .. }))), "{another:?}");
}

fn another_user(parent: &mut Parent, args: &[&str]) {
    if geteuid().is_root() {
        setgid(Gid::from_raw(args[1].parse().unwrap())).unwrap();
        setuid(Uid::from_raw(12_345)).unwrap();
    }
    let builder = Bus::builder("bus").dir(args[0]).group(args[1]);
    let node = builder.allow(Access::subscribe("t").to_uid(0)).open().unwrap().join("other").unwrap();
    node.publisher("t").unwrap().publish(&7_u32).unwrap();
    parent.say("published");
    parent.stay();
}

/// A node's socket spoken to, or for, by hand.
struct Raw(OwnedFd);

impl Raw {
    fn new() -> Self {
        let fd =
            socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        Self(fd).patient()
    }

    fn patient(self) -> Self {
        let limit = TimeVal::milliseconds(DEADLINE.as_millis() as i64);
        socket::setsockopt(&self.0, ReceiveTimeout, &limit).unwrap();
        self
    }

    fn dial(dir: &Dir, node: &Node) -> Self {
        let raw = Self::new();
        let path = dir.path().join(format!("bus/{}.sock", node.info().id()));
        socket::connect(raw.0.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        raw
    }

    fn listen(dir: &Dir, id: [u8; 16]) -> Self {
        let raw = Self::new();
        let path = dir.path().join(format!("bus/{:032x}.sock", u128::from_be_bytes(id)));
        socket::bind(raw.0.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        socket::listen(&raw.0, Backlog::new(8).unwrap()).unwrap();
        raw
    }

    fn accept(&self) -> Self {
        use std::os::fd::FromRawFd;
        let fd = socket::accept(self.0.as_raw_fd()).unwrap();
        // SAFETY: accept(2) has just made it, and nobody else knows of it.
        Self(unsafe { OwnedFd::from_raw_fd(fd) }).patient()
    }

    fn send(&self, datagram: &[u8]) {
        socket::send(self.0.as_raw_fd(), datagram, MsgFlags::MSG_NOSIGNAL).unwrap();
    }

    /// The next datagram; `None` at the end of the connection.
    fn receive(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 65_536];
        match socket::recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::empty()).map_err(std::io::Error::from) {
            Ok(0) => None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Ok(len) => Some(bytes[..len].to_owned()),
            Err(error) => panic!("{error}"),
        }
    }
}

const HELLO: u8 = 0;
const HELLO_ACK: u8 = 1;
/// `[5, 2, major, minor]`: control, incompatible, of this version and of the next.
const INCOMPATIBLE_1: [u8; 5] = [0x94, 5, 2, 1, 0];
const INCOMPATIBLE_2: [u8; 5] = [0x94, 5, 2, 2, 0];

/// `[5, op, major, minor, id, name, started, capabilities]`.
fn greeting(op: u8, major: u8, id: [u8; 16]) -> Vec<u8> {
    let mut bytes = vec![0x98, 5, op, major, 0, 0xc4, 16];
    bytes.extend_from_slice(&id);
    bytes.extend_from_slice(b"\xa6strang\x00\x00");
    bytes
}

/// That two nodes with a stranger on their bus reach each other.
fn reach_each_other(dir: &Dir, node: &Node) {
    let other = dir.join("other");
    let mut subscriber = other.subscriber::<u32>("t").unwrap();
    node.publisher("t").unwrap().publish(&1).unwrap();
    assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), 1);
}

#[track_caller]
fn is_incompatible(node: &Node, id: [u8; 16]) {
    eventually("it is refused", || !node.refused().is_empty());
    let refused = node.refused();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].id.map(|id| *id.as_bytes()), Some(id));
    assert_eq!(refused[0].why, Refusal::Incompatible { theirs: (2, 0), ours: (1, 0) });
    assert!(refused[0].why.to_string().contains("same major version"));
}

#[test]
fn a_node_of_another_major_version_that_dials_is_refused_and_told() {
    let dir = Dir::new();
    let node = dir.join("node");
    let stranger = Raw::dial(&dir, &node);
    stranger.send(&greeting(HELLO, 2, [9; 16]));
    assert_eq!(stranger.receive().as_deref(), Some(&INCOMPATIBLE_1[..]));
    assert_eq!(stranger.receive(), None);
    is_incompatible(&node, [9; 16]);
    reach_each_other(&dir, &node);
    assert!(node.peers().is_empty() || node.peers()[0].name() == "other");
}

#[test]
fn a_node_of_another_major_version_that_is_dialled_is_refused() {
    for answer in [INCOMPATIBLE_2.to_vec(), greeting(HELLO_ACK, 2, [9; 16])] {
        let dir = Dir::new();
        drop(dir.bus());
        let stranger = Raw::listen(&dir, [9; 16]);
        let node = dir.join("node");
        let session = stranger.accept();
        let hello = session.receive().expect("a hello");
        assert_eq!(hello[..5], [0x98, 5, HELLO, 1, 0]);
        session.send(&answer);
        assert_eq!(session.receive(), None);
        is_incompatible(&node, [9; 16]);
        reach_each_other(&dir, &node);
    }
}

#[test]
fn what_does_not_speak_the_protocol_is_refused_and_harms_nobody() {
    let dir = Dir::new();
    let node = dir.join("node");
    let long = vec![0x98; 60_000];
    let early = [0x95, 5, 5, 0]; // no hello before it
    for datagram in [&b"GET / HTTP/1.1\r\n"[..], &[0xc1], &long, &early, &greeting(HELLO, 1, [9; 16])[..12]] {
        let before = node.refused().len();
        let stranger = Raw::dial(&dir, &node);
        stranger.send(datagram);
        assert_eq!(stranger.receive(), None, "{:?}", &datagram[..datagram.len().min(16)]);
        eventually("it is refused", || node.refused().len() == before + 1);
        let why = node.refused().pop().unwrap().why;
        assert!(matches!(why, Refusal::Protocol { .. }), "{why}");
    }
    // One that says nothing at all is let go, in time.
    let silent = Raw::dial(&dir, &node);
    reach_each_other(&dir, &node);
    assert_eq!(silent.receive(), None);
}

#[test]
fn a_node_whose_socket_was_removed_is_found_again() {
    let dir = Dir::new();
    let node = dir.join("node");
    for socket in dir.sockets() {
        fs::remove_file(dir.path().join("bus").join(socket)).unwrap();
    }
    eventually("it has placed its socket again", || dir.sockets().len() == 1);
    reach_each_other(&dir, &node);
}

/// A deaf socket in its place hid a node for as long as it was there.
#[test]
fn a_node_whose_socket_was_replaced_is_found_again() {
    let dir = Dir::new();
    let node = dir.join("node");
    let socket = dir.path().join("bus").join(&dir.sockets()[0]);
    let deaf = std::os::unix::net::UnixListener::bind(dir.path().join("deaf")).unwrap();
    fs::rename(dir.path().join("deaf"), &socket).unwrap();
    // Of another type than the impostor's: it takes no streams.
    let ours = |path: &Path| std::os::unix::net::UnixStream::connect(path).is_err();
    assert!(!ours(&socket));
    eventually("it has placed its socket again", || ours(&socket));
    reach_each_other(&dir, &node);
    drop(deaf);
}

#[test]
fn nodes_that_join_at_the_same_time_find_each_other() {
    const NODES: usize = 12;
    let dir = Dir::new();
    let bus = dir.bus();
    for _ in 0..5 {
        let nodes: Vec<Node> = std::thread::scope(|scope| {
            let joining: Vec<_> = (0..NODES).map(|_| scope.spawn(|| bus.join("node").unwrap())).collect();
            joining.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        eventually("all see all", || nodes.iter().all(|node| node.peers().len() == NODES - 1));
        assert!(nodes.iter().all(|node| node.refused().is_empty()));
    }
}
