//! Every segment that a peer is given, and every way in which it could try to write it.

use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{getegid, geteuid};
use ringbus::internals::frame::{Control, PortUp, Role, Strings};
use ringbus::internals::ring::CursorSegment;
use ringbus::internals::segment::Sealed;
use ringbus::internals::sys::{memfd, timerfd};

use crate::guest::{become_user, join};
use crate::raw_peer::Raw;
use crate::support::{Child, DEADLINE, Dir, Parent, eventually, is_root};

const GROUP: u32 = 54_321;
const OTHER: u32 = 12_345;

#[test]
fn nobody_but_its_owner_can_write_a_segment() {
    let mut users = vec![(geteuid().as_raw(), getegid().as_raw())];
    if is_root("nobody_but_its_owner_can_write_a_segment") {
        users = vec![(0, GROUP), (OTHER, GROUP)];
    }
    for (uid, group) in users {
        let dir = Dir::new();
        super::matrix::open_to_all(&dir);
        let rules = format!("allow publish,subscribe ** to uid {OTHER}");
        let node = join(dir.arg(), &group.to_string(), &rules, "owner");
        let mut publisher = node.publisher_builder("t").blob_memory(1 << 20).open::<Vec<u8>>().unwrap();
        let mut subscriber = node.subscriber::<Vec<u8>>("t").unwrap();
        let socket = dir.path().join(format!("bus/{}.sock", node.info().id()));
        let (uid, group, owner) = (uid.to_string(), group.to_string(), std::process::id().to_string());
        let mut child = Child::start("would write", &[socket.to_str().unwrap(), &uid, &group, &owner]);
        child.expect("attached");
        let large = vec![7; 200_000];
        publisher.publish(&large).unwrap();
        child.expect("not let");
        assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), large);
        publisher.publish(&vec![8]).unwrap();
        assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), [8]);
        assert_eq!(node.refused(), []);
        child.finish();
    }
}

/// `args`: a node's socket, the user and group to be, the node's process id. Reads as a peer, and tries to write
/// whatever it is given.
pub fn would_write(parent: &mut Parent, args: &[&str]) {
    let [socket, uid, group, owner] = *args else { panic!("{args:?}") };
    become_user(uid.parse().unwrap(), &[group.parse().unwrap()]);
    let raw = Raw::connect(socket.as_ref());
    let cursors = Sealed::create("ringbus-cursors", 4096, true).unwrap();
    CursorSegment::of_size(4096).initialise(&cursors, raw.id, 1, 0);
    let bell = timerfd::create().unwrap();
    let (role, filters) = (Role::Subscriber, Strings::from_slice(&["t"]));
    let up = PortUp { port: 1, role, filters, flags: 0, priority: 128, capacity: None, version: None };
    raw.send(&Control::PortsDone, &[]);
    raw.send(&Control::PortUp(up), &[cursors.fd(), bell.as_fd()]);
    // One of each kind: heartbeats, cursors, a log, a blob.
    let [mut heartbeats, mut readers, mut logs, mut blobs] = [const { Vec::<OwnedFd>::new() }; 4];
    while [&heartbeats, &readers, &logs, &blobs].iter().any(|kind| kind.is_empty()) {
        let (datagram, fds) = raw.receive();
        let first = fds.into_iter().next();
        match Control::decode(&datagram) {
            Ok(Control::Heartbeat { .. }) => heartbeats.extend(first),
            Ok(Control::PortUp(up)) if up.role == Role::Subscriber => readers.extend(first),
            Ok(Control::Attach(_)) => {
                logs.extend(first);
                raw.send(&Control::Ack { count: 4 }, &[]);
                parent.say("attached");
            }
            Ok(Control::Blob { .. }) => blobs.extend(first),
            _ => {}
        }
    }
    for segment in [heartbeats, readers, logs, blobs].into_iter().flatten() {
        cannot_write(segment);
    }
    cannot_write_the_owners(owner, uid);
    parent.say("not let");
    parent.stay();
}

/// What the owner holds itself: through its descriptors another user does not get at all.
fn cannot_write_the_owners(owner: &str, uid: &str) {
    let list = std::fs::read_dir(format!("/proc/{owner}/fd"));
    if uid != "0" && is_other_user(owner) {
        assert!(list.is_err(), "another user's descriptors are listed");
        return;
    }
    for entry in list.unwrap().map(Result::unwrap) {
        let is_ours = |target: std::path::PathBuf| target.to_string_lossy().contains("memfd:ringbus");
        if std::fs::read_link(entry.path()).is_ok_and(is_ours) {
            // It may have been closed meanwhile.
            if let Ok(file) = OpenOptions::new().read(true).write(true).open(entry.path()) {
                // Another test's thread may be making it: it is sealed before anybody is given it.
                let is_sealed = || memfd::seals(&file).unwrap() & memfd::REQUIRED == memfd::REQUIRED;
                eventually("it is sealed", is_sealed);
                cannot_write(file.into());
            }
        }
    }
}

fn is_other_user(owner: &str) -> bool {
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{owner}")).unwrap());
    owner != geteuid().as_raw()
}

/// Every way there is: each has to be refused, as it came and opened again.
fn cannot_write(segment: OwnedFd) {
    let path = format!("/proc/self/fd/{}", segment.as_raw_fd());
    let reopened = OpenOptions::new().read(true).write(true).open(&path).expect("opens, sealed as before");
    let truncated = OpenOptions::new().write(true).truncate(true).open(&path);
    is_refused("O_TRUNC", truncated.map(drop));
    for mut file in [File::from(segment), reopened] {
        let len = memfd::size(&file).unwrap();
        is_refused("write", file.rewind().and_then(|()| file.write(&[1; 8]).map(drop)));
        is_refused("pwrite", file.write_at(&[1; 8], 0).map(drop));
        for resized in [0, len / 2, len * 2] {
            is_refused("ftruncate", file.set_len(resized));
        }
        is_refused("sealing", memfd::seal(&file));
        let fd = file.as_raw_fd();
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        for mode in [punch, libc::FALLOC_FL_ZERO_RANGE, libc::FALLOC_FL_COLLAPSE_RANGE] {
            // SAFETY: takes integers.
            is_refused("fallocate", called(unsafe { libc::fallocate(fd, mode, 0, 4096) }.into()));
        }
        let source = memfd::create("ringbus-test", 4096).unwrap();
        // SAFETY: the offset is null: the file's own.
        is_refused(
            "sendfile",
            called(unsafe { libc::sendfile(fd, source.as_raw_fd(), ptr::null_mut(), 8) } as i64),
        );
        maps_for_reading_only(&file, len as usize);
    }
}

fn maps_for_reading_only(file: &File, len: usize) {
    let map = |protection| {
        // SAFETY: a fresh mapping at an address of the kernel's choice, which is looked at by the kernel alone.
        let at =
            unsafe { libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED { Err(std::io::Error::last_os_error()) } else { Ok(at) }
    };
    is_refused("mmap", map(libc::PROT_WRITE).map(drop));
    is_refused("mmap", map(libc::PROT_READ | libc::PROT_WRITE).map(drop));
    let at = map(libc::PROT_READ).unwrap();
    // SAFETY: all three act on the mapping made above, of which there is no reference.
    unsafe {
        let writable = libc::PROT_READ | libc::PROT_WRITE;
        is_refused("mprotect", called(libc::mprotect(at, len, writable).into()));
        is_refused("MADV_REMOVE", called(libc::madvise(at, len, libc::MADV_REMOVE).into()));
        libc::munmap(at, len);
    }
}

fn called(result: i64) -> std::io::Result<()> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

#[track_caller]
fn is_refused(what: &str, result: std::io::Result<()>) {
    let errno = result.expect_err(what).raw_os_error().map(Errno::from_raw);
    let refusals = [Errno::EPERM, Errno::EACCES, Errno::EOPNOTSUPP];
    assert!(errno.is_some_and(|errno| refusals.contains(&errno)), "{what}: {errno:?}");
}
