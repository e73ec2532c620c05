//! Segments whose pages a peer has not made. Whoever mapped and read them would make them, out of its own memory: a few
//! descriptors would cost a node gigabytes.

#[path = "support/raw.rs"]
mod raw_peer;
mod support;

use std::os::fd::AsFd;
use std::sync::Arc;

use nix::libc;
use ringbus::internals::frame::{Control, PortUp, Role, Strings};
use ringbus::internals::ring::{Blob, BlobHeader, CursorSegment, LogHeader, LogLayout};
use ringbus::internals::segment::Sealed;
use ringbus::internals::sys::memfd::is_whole;
use ringbus::internals::sys::timerfd;
use ringbus::{Node, Subscriber};

use raw_peer::Raw;
use support::{DEADLINE, Dir, eventually};

const PORT: u64 = 1;
/// Bytes of the largest log whose pages its writer makes at once.
const CAPACITY: u64 = 1 << 20;
const BLOB: usize = 64 << 20;

/// A node with a subscriber, a peer that means harm, and one that does not.
struct Scene {
    dir: Dir,
    node: Node,
    subscriber: Subscriber<u32>,
    raw: Raw,
}

impl Scene {
    fn new() -> Self {
        let dir = Dir::new();
        let node = dir.join("victim");
        let subscriber = node.subscriber::<u32>("t").unwrap();
        let raw = Raw::join(&dir, &node);
        Self { dir, node, subscriber, raw }
    }

    /// It is cut off for that, and others go on.
    #[track_caller]
    fn ends(mut self) {
        eventually("it is cut off", || !self.node.refused().is_empty());
        let refused = self.node.refused();
        assert!(refused.iter().all(|one| one.why.to_string().contains("pages are missing")), "{refused:?}");
        let other = self.dir.join("other");
        other.publisher("t").unwrap().publish(&7_u32).unwrap();
        assert_eq!(*self.subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), 7);
    }

    /// Announces a port.
    fn open(&self, role: Role, fds: &[std::os::fd::BorrowedFd<'_>]) {
        let (filters, capacity) = (Strings::from_slice(&["t"]), Some(CAPACITY));
        let capacity = capacity.filter(|_| role == Role::Publisher);
        let up = PortUp { port: PORT, role, filters, flags: 0, priority: 128, capacity, version: None };
        self.raw.send(&Control::PortsDone, &[]); // first: the other may be its last word
        self.raw.send(&Control::PortUp(up), fds);
    }

    /// Has a log of the announced port read.
    fn attach(&self, whole: bool) -> Sealed {
        let reader_port = loop {
            match Control::decode(&self.raw.receive().0) {
                Ok(Control::PortUp(up)) if up.role == Role::Subscriber => break up.port,
                _ => {}
            }
        };
        let layout = LogLayout::new(CAPACITY).unwrap();
        let log = Sealed::create("ringbus-log", layout.segment_size(), whole).unwrap();
        layout.initialise(&log, &LogHeader { log: 1, node: self.raw.id, port: PORT });
        let bell = timerfd::create().unwrap();
        self.raw.attach(1, [PORT, reader_port], CAPACITY, &[log.fd(), bell.as_fd()]);
        log
    }
}

#[test]
fn cursors_without_their_pages_are_refused() {
    let scene = Scene::new();
    let cursors = Sealed::create("ringbus-cursors", 65_536, false).unwrap();
    CursorSegment::of_size(65_536).initialise(&cursors, scene.raw.id, PORT, 0);
    let bell = timerfd::create().unwrap();
    scene.open(Role::Subscriber, &[cursors.fd(), bell.as_fd()]);
    scene.ends();
}

#[test]
fn a_log_without_its_pages_is_refused() {
    let scene = Scene::new();
    scene.open(Role::Publisher, &[]);
    let _log = scene.attach(false);
    scene.ends();
}

#[test]
fn a_blob_without_its_pages_is_refused() {
    let scene = Scene::new();
    scene.open(Role::Publisher, &[]);
    let _log = scene.attach(true);
    let memory = Arc::new(Sealed::create("ringbus-blob", BLOB, false).unwrap());
    let _blob = Blob::new(memory.clone(), &BlobHeader { log: 1, node: scene.raw.id, blob: 1 });
    let blob = Control::Blob { log: 1, reader_number: 1, blob: 1, size: BLOB as u64 };
    scene.raw.send(&blob, &[memory.fd()]);
    scene.ends();
}

/// Pages that nobody has written, but for zeros, are worth nothing to a kernel that is short of memory, unless it is told.
#[test]
fn the_pages_of_a_segment_stay_made_when_the_kernel_wants_memory() {
    let segment = Sealed::create("ringbus-asked", 1 << 18, true).unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.contains("/memfd:ringbus-asked ")).unwrap();
    let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
    let [start, end] = [start, end].map(|at| usize::from_str_radix(at, 16).unwrap());
    // SAFETY: pages that are given up are made again when they are touched.
    let advised = unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_PAGEOUT) };
    assert_eq!(advised, 0, "{}", std::io::Error::last_os_error());
    assert!(is_whole(segment.fd()).unwrap());
}
