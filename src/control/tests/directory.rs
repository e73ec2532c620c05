//! The directory: who may come in, what is refused, and what is cleaned up.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setresgid, setresuid};
use tempfile::TempDir;

use super::net::id;
use crate::control::{Directory, DirectoryError, Location, NodeId};
use crate::sys::credentials;
use crate::sys::seqpacket::Listener;
use crate::sys::testing::{is_root, passes_in_child};

const NOBODY: u32 = 65534;

fn base() -> (TempDir, Location) {
    let dir = tempfile::tempdir().expect("a directory");
    let location = Location::new(Some(dir.path().to_owned()), None);
    (dir, location)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("exists").mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

/// Becomes an ordinary user, where this is root. Only in a child.
fn become_nobody() {
    if credentials::euid() == 0 {
        setresgid(Gid::from_raw(NOBODY), Gid::from_raw(NOBODY), Gid::from_raw(NOBODY)).expect("setresgid");
        setresuid(Uid::from_raw(NOBODY), Uid::from_raw(NOBODY), Uid::from_raw(NOBODY)).expect("setresuid");
    }
}

/// A left-over of a killed process: bound, and nobody listens.
fn leave_dead_socket(path: &Path) {
    drop(Listener::bind(path, 1).expect("bind"));
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).expect("list");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[test]
fn everything_is_private_whatever_the_umask() {
    for mask in [0, 0o022, 0o777] {
        let (dir, _) = base();
        set_mode(dir.path(), 0o1777);
        // The umask belongs to the whole process.
        passes_in_child(|| {
            become_nobody();
            umask(Mode::from_bits_truncate(mask));
            let location = Location::new(Some(dir.path().join("runtime/ringbus")), None);
            let bus = Directory::open(&location, "agents").expect("opens");
            let _listener = bus.listen(id(0)).expect("listens");
            assert_eq!(mode(&dir.path().join("runtime")), 0o700);
            assert_eq!(mode(location.base()), 0o700);
            assert_eq!(mode(bus.path()), 0o700);
            let socket = bus.path().join(format!("{}.sock", id(0)));
            assert_eq!(mode(&socket), 0o600);
            assert!(fs::symlink_metadata(&socket).expect("exists").file_type().is_socket());
            assert_eq!(names(bus.path()).len(), 1, "nothing but the socket");
            Directory::open(&location, "agents").expect("opens again");

            let group = Some(credentials::egid());
            let location = Location::new(Some(dir.path().join("runtime/ringbus")), group);
            let bus = Directory::open(&location, "shared").expect("opens");
            let _listener = bus.listen(id(0)).expect("listens");
            assert_eq!(mode(bus.path()), 0o1770);
            assert_eq!(mode(&bus.path().join(format!("{}.sock", id(0)))), 0o660);
        });
    }
}

/// Whoever may make a directory in one of the group's, with the setgid bit, has it given the group.
#[test]
fn a_groups_bus_that_an_outsider_made_is_refused() {
    if !is_root("a_groups_bus_that_an_outsider_made_is_refused") {
        return; // cannot give files away
    }
    let (dir, _) = base();
    let location = Location::new(Some(dir.path().to_owned()), Some(12_345));
    let bus = Directory::open(&location, "agents").expect("opens");
    chown(bus.path(), Some(NOBODY), None).expect("chown");
    let refused = Directory::open(&location, "agents");
    let Err(DirectoryError::OutsideGroup { owner: NOBODY, group: 12_345, .. }) = &refused else {
        panic!("{refused:?}")
    };
    assert!(refused.expect_err("refused").to_string().contains("install -d -m 1770 -g 12345"));
    // Those whom the user database has in the group may have made it.
    let location = Location::new(Some(dir.path().to_owned()), Some(NOBODY));
    chown(bus.path(), None, Some(NOBODY)).expect("chown");
    set_mode(bus.path(), 0o1770);
    Directory::open(&location, "agents").expect("opens");
}

#[test]
fn what_has_a_sockets_name_and_is_none_is_passed_over() {
    let (_dir, location) = base();
    let bus = Directory::open(&location, "agents").expect("opens");
    let _listener = bus.listen(id(0)).expect("listens");
    let socket = |node| bus.path().join(format!("{}.sock", id(node)));
    fs::write(socket(1), b"").expect("write");
    symlink(socket(0), socket(2)).expect("symlink");
    fs::create_dir(socket(3)).expect("mkdir");
    assert_eq!(bus.nodes().expect("lists"), [id(0)]);
    assert_eq!(names(bus.path()).len(), 4, "and left as it is");
}

#[test]
fn a_groups_bus_is_sticky_and_its_sockets_the_groups() {
    let (dir, _) = base();
    let location = Location::new(Some(dir.path().to_owned()), Some(credentials::egid()));
    let bus = Directory::open(&location, "agents").expect("opens");
    assert_eq!(mode(bus.path()), 0o1770);
    let _listener = bus.listen(id(0)).expect("listens");
    assert_eq!(mode(&bus.path().join(format!("{}.sock", id(0)))), 0o660);
    Directory::open(&location, "agents").expect("opens again");

    set_mode(bus.path(), 0o770);
    let refused = Directory::open(&location, "agents");
    assert!(matches!(refused, Err(DirectoryError::TooOpen { mode: 0o770, expected: 0o1770, .. })));
}

#[test]
fn a_group_of_another_is_created_for_it_and_others_are_refused() {
    if !is_root("a_group_of_another_is_created_for_it_and_others_are_refused") {
        return; // cannot give files away
    }
    let (dir, private) = base();
    let shared = Location::new(Some(dir.path().to_owned()), Some(NOBODY));
    let bus = Directory::open(&shared, "agents").expect("opens");
    let _listener = bus.listen(id(0)).expect("listens");
    assert_eq!(fs::metadata(bus.path()).expect("exists").gid(), NOBODY);
    assert_eq!(fs::metadata(bus.path().join(format!("{}.sock", id(0)))).expect("exists").gid(), NOBODY);

    let other = Location::new(Some(dir.path().to_owned()), Some(NOBODY - 1));
    let refused = Directory::open(&other, "agents");
    assert!(
        matches!(refused, Err(DirectoryError::OtherGroup { found: NOBODY, expected, .. }) if expected == NOBODY - 1)
    );
    let refused = Directory::open(&private, "agents");
    assert!(matches!(refused, Err(DirectoryError::TooOpen { mode: 0o1770, expected: 0o700, .. })));
}

/// Nobody meets a directory that has its name, but not yet its mode and group.
#[test]
fn nodes_that_create_a_groups_bus_together_all_get_in() {
    for _ in 0..50 {
        let (dir, _) = base();
        let location = Location::new(Some(dir.path().to_owned()), Some(credentials::egid()));
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    barrier.wait();
                    Directory::open(&location, "agents").expect("opens");
                });
            }
        });
        assert_eq!(names(dir.path()), ["agents"], "and nothing is left over");
    }
}

#[test]
fn what_is_no_directory_of_its_own_is_refused() {
    let (dir, location) = base();
    fs::create_dir(dir.path().join("real")).expect("mkdir");
    set_mode(&dir.path().join("real"), 0o700);
    symlink(dir.path().join("real"), dir.path().join("link")).expect("symlink");
    symlink(dir.path().join("nowhere"), dir.path().join("dangling")).expect("symlink");
    fs::write(dir.path().join("file"), b"").expect("write");
    leave_dead_socket(&dir.path().join("socket"));
    Directory::open(&location, "real").expect("opens");
    for name in ["link", "dangling", "file", "socket"] {
        let refused = Directory::open(&location, name);
        assert!(matches!(refused, Err(DirectoryError::NotADirectory { .. })), "{name}: {refused:?}");
    }
    assert_eq!(names(dir.path()), ["dangling", "file", "link", "real", "socket"], "all left as it was");

    symlink(dir.path(), dir.path().join("real/base")).expect("symlink");
    let refused = Directory::open(&Location::new(Some(dir.path().join("real/base")), None), "agents");
    assert!(matches!(refused, Err(DirectoryError::NotADirectory { .. })), "{refused:?}");
}

#[test]
fn a_directory_that_lets_others_in_is_refused() {
    let (_dir, location) = base();
    let bus = Directory::open(&location, "agents").expect("opens");
    for wrong in [0o755, 0o770, 0o701, 0o1700, 0o2700] {
        set_mode(bus.path(), wrong);
        let refused = Directory::open(&location, "agents");
        assert!(
            matches!(refused, Err(DirectoryError::TooOpen { mode, expected: 0o700, .. }) if mode == wrong),
            "{wrong:o}: {refused:?}"
        );
        assert_eq!(mode(bus.path()), wrong, "left as it was");
    }
}

#[test]
fn a_directory_of_another_user_is_refused() {
    if !is_root("a_directory_of_another_user_is_refused") {
        return; // cannot give files away
    }
    let (dir, location) = base();
    let bus = Directory::open(&location, "agents").expect("opens");
    chown(bus.path(), Some(NOBODY), None).expect("chown");
    let refused = Directory::open(&location, "agents");
    assert!(matches!(refused, Err(DirectoryError::NotOurs { owner: NOBODY, uid: 0, .. })), "{refused:?}");
    chown(bus.path(), Some(0), None).expect("chown");
    chown(dir.path(), Some(NOBODY), None).expect("chown");
    let refused = Directory::open(&location, "agents");
    assert!(matches!(refused, Err(DirectoryError::NotOurs { owner: NOBODY, .. })), "{refused:?}");

    // Not even to be opened: told as whose it is all the same.
    let (dir, location) = base();
    set_mode(dir.path(), 0o1777);
    let _bus = Directory::open(&location, "agents").expect("opens");
    passes_in_child(|| {
        become_nobody();
        let refused = Directory::open(&location, "agents");
        assert!(matches!(refused, Err(DirectoryError::NotOurs { owner: 0, uid: NOBODY, .. })), "{refused:?}");
    });
}

#[test]
fn a_base_that_others_can_write_is_refused_unless_it_is_sticky() {
    for (mode, expected) in [(0o777, 0o755), (0o770, 0o750), (0o702, 0o700)] {
        let (dir, location) = base();
        set_mode(dir.path(), mode);
        let refused = Directory::open(&location, "agents");
        assert!(
            matches!(refused, Err(DirectoryError::TooOpen { expected: found, .. }) if found == expected),
            "{mode:o}: {refused:?}"
        );
        assert_eq!(names(dir.path()), Vec::<String>::new());
        set_mode(dir.path(), mode | 0o1000);
        Directory::open(&location, "agents").expect("opens");
    }
    for mode in [0o700, 0o755] {
        let (dir, location) = base();
        set_mode(dir.path(), mode);
        Directory::open(&location, "agents").expect("opens");
    }
}

#[test]
fn the_longest_path_that_a_socket_fits_into_is_permitted() {
    let (dir, location) = base();
    // A socket's path has at most 107 bytes (unix(7)); `/`, 32 digits and `.sock` come on top of this.
    let longest = 107 - 38 - dir.path().as_os_str().len() - 1;
    let bus = Directory::open(&location, &"b".repeat(longest)).expect("opens");
    assert_eq!(bus.path().as_os_str().len(), 69);
    let _listener = bus.listen(id(0)).expect("listens");
    bus.dial(id(0)).expect("connects");

    let refused = Directory::open(&location, &"b".repeat(longest + 1));
    assert!(matches!(&refused, Err(DirectoryError::TooLong { limit: 69, .. })), "{refused:?}");
    let text = refused.expect_err("too long").to_string();
    assert!(text.contains("70 bytes") && text.contains("at most 69"), "{text}");
    assert_eq!(names(dir.path()).len(), 1, "nothing was created");
}

#[test]
fn listing_finds_sockets_of_nodes_and_passes_over_the_rest() {
    let (_dir, location) = base();
    let bus = Directory::open(&location, "agents").expect("opens");
    let placed = [0, 1].map(|node| bus.listen(id(node)).expect("listens"));
    let digits = "0123456789abcdef0123456789abcdef";
    for garbage in [
        "README".to_owned(),
        ".hidden".into(),
        ".sock".into(),
        "node.sock".into(),
        digits.into(),
        format!("{digits}.SOCK"),
        format!("{}.sock", digits.to_uppercase()),
        format!("{}.sock", &digits[1..]),
        format!("0{digits}.sock"),
        format!("+{}.sock", &digits[1..]),
        format!("{digits}.sock~"),
    ] {
        fs::write(bus.path().join(garbage), b"").expect("write");
    }
    let not_utf8 = bus.path().join(OsStr::from_bytes(b"\xff.sock"));
    fs::write(&not_utf8, b"").expect("write");
    let mut nodes = bus.nodes().expect("lists");
    nodes.sort();
    assert_eq!(nodes, [id(0), id(1)]);
    assert_eq!(fs::read_dir(bus.path()).expect("list").count(), 14, "none is removed");
    let [file, other] = placed.each_ref().map(|placed| placed.file);
    assert!(bus.holds(id(0), file) && !bus.holds(id(7), file));
    assert!(!bus.holds(id(0), other), "another file of that name");
    bus.remove(id(0));
    assert!(!bus.holds(id(0), file));
}

#[test]
fn temporary_sockets_are_removed_once_they_are_old_and_refuse() {
    let (_dir, location) = base();
    let bus = Directory::open(&location, "agents").expect("opens");
    let path = |name: &str| -> PathBuf { bus.path().join(format!(".{name}.tmp")) };
    let [young, old, ancient, alive] = [1, 2, 3, 4].map(|n| id(n).to_string());
    let foreign = String::from("editor");
    let age = |path: &Path, age: u64| {
        let then = SystemTime::now() - Duration::from_secs(age);
        nix::sys::stat::utimensat(
            nix::fcntl::AT_FDCWD,
            path,
            &time_spec(then),
            &time_spec(then),
            nix::sys::stat::UtimensatFlags::NoFollowSymlink,
        )
        .expect("utimensat");
    };
    for name in [&young, &old, &ancient, &foreign] {
        leave_dead_socket(&path(name));
    }
    let _alive = Listener::bind(&path(&alive), 1).expect("bind");
    for (name, seconds) in
        [(&young, 50), (&old, 70), (&ancient, 1_000_000), (&alive, 1_000_000), (&foreign, 1_000_000)]
    {
        age(&path(name), seconds);
    }
    assert!(bus.nodes().expect("lists").is_empty());
    let left = [&young, &alive, &foreign].map(|name| format!(".{name}.tmp"));
    assert_eq!(names(bus.path()), left);
}

/// Whose wall clock has jumped takes a new temporary socket for an old one.
#[test]
fn a_socket_is_placed_although_its_temporary_one_is_removed() {
    let (_dir, location) = base();
    let bus = Directory::open(&location, "agents").expect("opens");
    let over = AtomicBool::new(false);
    let removed = std::thread::scope(|scope| {
        let remover = scope.spawn(|| {
            // Each node's first one alone: nobody's clock jumps all the time.
            let mut removed = BTreeSet::new();
            while !over.load(Relaxed) {
                for name in names(bus.path()).into_iter().filter(|name| name.ends_with(".tmp")) {
                    if !removed.contains(&name) && fs::remove_file(bus.path().join(&name)).is_ok() {
                        removed.insert(name);
                    }
                }
            }
            removed
        });
        for node in 1..=2_000_u128 {
            let id = NodeId(node.to_ne_bytes());
            let placed = bus.listen(id).map(|placed| bus.holds(id, placed.file));
            over.store(node == 2_000 || !matches!(placed, Ok(true)), Relaxed);
            assert!(placed.expect("a socket"));
            bus.remove(id);
        }
        remover.join().expect("removes")
    });
    assert!(!removed.is_empty(), "or this shows nothing");
}

fn time_spec(time: SystemTime) -> nix::sys::time::TimeSpec {
    time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").into()
}

#[test]
fn buses_are_listed_by_name() {
    let (dir, location) = base();
    for bus in ["robots", "agents"] {
        Directory::open(&location, bus).expect("opens");
    }
    fs::write(dir.path().join("file"), b"").expect("write");
    fs::create_dir(dir.path().join(".created.tmp")).expect("mkdir");
    assert_eq!(location.buses(), ["agents", "robots"]);
    assert_eq!(Location::new(Some("/nowhere/at/all".into()), None).buses(), Vec::<String>::new());
}

#[test]
fn an_id_is_32_lower_case_hexadecimal_digits() {
    assert_eq!(NodeId::parse(&id(9).to_string()), Some(id(9)));
    assert_eq!(NodeId([0; 16]).to_string(), "0".repeat(32));
    for text in ["", "0", &"0".repeat(31), &"0".repeat(33), &"G".repeat(32), &"A".repeat(32)] {
        assert_eq!(NodeId::parse(text), None, "{text}");
    }
}
