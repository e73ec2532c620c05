//! Bells in the hands of a peer that means harm: a process of the same user that joins the bus, is given the bells of
//! other nodes' ports, and does to them what it can.

#[path = "support/raw.rs"]
mod raw_peer;
mod support;

use std::fs::File;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use ringbus::internals::frame::{Attach, Control, PortUp, Role, Strings};
use ringbus::internals::ring::{CursorSegment, LogHeader, LogLayout};
use ringbus::internals::segment::Sealed;
use ringbus::internals::sys::{memfd, timerfd};
use ringbus::{Node, Overflow, Wait};

use raw_peer::Raw;
use support::{Child, DEADLINE, Dir, Parent, eventually};

/// The longest sleep of a port whose bell is kept silent.
const BACK_STOP: Duration = Duration::from_secs(1);
/// What a busy machine may add to it.
const SLACK: Duration = Duration::from_secs(4);
const PORT: u64 = 1;

#[test]
fn child() {
    support::play(&[("holder of a bell", holder)]);
}

/// What a holder does to a bell that it shares, all the time, after it has cleared `O_NONBLOCK`.
const DEEDS: [&str; 3] = ["drains", "rings", "reads"];

/// `args`: a node's socket; whose bell, a reader's or a writer's; what it does to it.
fn holder(parent: &mut Parent, args: &[&str]) {
    let [socket, whose, deed] = *args else { panic!("{args:?}") };
    let raw = Raw::connect(socket.as_ref());
    let bell = match whose {
        "reader" => readers_bell(&raw),
        _ => writers_bell(&raw),
    };
    fcntl(&bell, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    let deed = deed.to_owned();
    thread::spawn(move || {
        loop {
            match &*deed {
                "drains" => timerfd::drain(bell.as_fd()).unwrap(),
                "rings" => timerfd::ring(bell.as_fd()).unwrap(),
                _ => drop(nix::unistd::read(&bell, &mut [0; 8])),
            }
        }
    });
    parent.say("at it");
    parent.stay();
}

/// The bell of the node's subscriber, which comes with its announcement.
fn readers_bell(raw: &Raw) -> OwnedFd {
    raw.send(&Control::PortsDone, &[]);
    loop {
        let (datagram, mut fds) = raw.receive();
        if matches!(Control::decode(&datagram), Ok(Control::PortUp(up)) if up.role == Role::Subscriber) {
            return fds.pop().unwrap();
        }
    }
}

/// The bell of the node's publisher, which comes with its log; of the log itself it lets go.
fn writers_bell(raw: &Raw) -> OwnedFd {
    let (_cursors, _bell) = subscribe(raw, &timerfd::create().unwrap());
    loop {
        let (datagram, mut fds) = raw.receive();
        if let Ok(Control::Attach(Attach { log, reader_number, .. })) = Control::decode(&datagram) {
            raw.send(&Control::Ack { count: 1 }, &[]);
            raw.send(&Control::Detach { log, reader_number }, &[]);
            return fds.pop().unwrap();
        }
    }
}

/// Announces a subscriber with this bell; what has to be kept.
fn subscribe(raw: &Raw, bell: &OwnedFd) -> (Sealed, OwnedFd) {
    let cursors = Sealed::create("ringbus-cursors", 4096, true).unwrap();
    CursorSegment::of_size(4096).initialise(&cursors, raw.id, PORT, 0);
    raw.send(&Control::PortsDone, &[]);
    raw.send(&port_up(Role::Subscriber), &[cursors.fd(), bell.as_fd()]);
    (cursors, bell.try_clone().unwrap())
}

fn port_up(role: Role) -> Control<'static> {
    let filters = Strings::from_slice(&["t"]);
    let capacity = (role == Role::Publisher).then_some(4096);
    Control::PortUp(PortUp { port: PORT, role, filters, flags: 0, priority: 128, capacity, version: None })
}

fn start_holder(dir: &Dir, node: &Node, whose: &str, deed: &str) -> Child {
    let socket: PathBuf = dir.path().join(format!("bus/{}.sock", node.info().id()));
    let mut child = Child::start("holder of a bell", &[socket.to_str().unwrap(), whose, deed]);
    child.expect("at it");
    child
}

/// Reads numbers on `t`, asleep between them, and passes them on.
fn reads_asleep(node: &Node) -> Receiver<u32> {
    let mut subscriber = node.subscriber_builder("t").wait(Wait::Park).open::<u32>().unwrap();
    let (tell, told) = channel();
    thread::spawn(move || {
        while let Ok(number) = subscriber.recv() {
            if tell.send(*number).is_err() {
                return;
            }
        }
    });
    told
}

/// A ring that is lost costs the back-stop, whoever has taken it; nothing costs more.
#[test]
fn whoever_holds_a_readers_bell_cannot_hold_up_its_writers_or_keep_it_asleep() {
    for deed in DEEDS {
        let dir = Dir::new();
        let (node, other) = (dir.join("victim"), dir.join("other"));
        let told = reads_asleep(&node);
        let child = start_holder(&dir, &node, "reader", deed);
        let mut publisher = other.publisher_builder("t").open::<u32>().unwrap();
        publisher.wait_for_subscribers(1, DEADLINE).unwrap();
        for number in 0..4 {
            let start = Instant::now();
            publisher.publish(&number).unwrap();
            assert!(start.elapsed() < SLACK, "{deed}: published after {:?}", start.elapsed());
            assert_eq!(told.recv_timeout(DEADLINE), Ok(number), "{deed}");
            assert!(start.elapsed() < BACK_STOP + SLACK, "{deed}: received after {:?}", start.elapsed());
        }
        assert_eq!(node.refused(), [], "{deed}");
        child.kill();
    }
}

#[test]
fn whoever_holds_a_writers_bell_cannot_hold_up_its_readers_or_keep_it_asleep() {
    for deed in DEEDS {
        let dir = Dir::new();
        let (node, other) = (dir.join("victim"), dir.join("other"));
        let builder = node.publisher_builder("t").capacity(4096).wait(Wait::Park);
        let builder = builder.overflow(Overflow::Block { timeout: DEADLINE });
        let mut publisher = builder.open::<(u32, Vec<u32>)>().unwrap();
        let child = start_holder(&dir, &node, "writer", deed);
        eventually("it has let go", || publisher.stats().peers == 0);
        let mut subscriber = other.subscriber::<(u32, Vec<u32>)>("t").unwrap();
        // By its own word: one that the publisher counts may be the other, not yet let go.
        eventually("it is attached", || {
            subscriber.try_recv().unwrap().is_none() && subscriber.stats().peers == 1
        });
        let reader = thread::spawn(move || {
            for expected in 0..12 {
                // Late enough for the writer to sleep.
                thread::sleep(Duration::from_millis(20));
                assert_eq!(subscriber.recv_timeout(DEADLINE).unwrap().expect("a message").0, expected);
            }
        });
        for number in 0..12 {
            let start = Instant::now();
            publisher.publish(&(number, vec![7; 900])).unwrap_or_else(|error| panic!("{deed}: {error}"));
            assert!(start.elapsed() < BACK_STOP + SLACK, "{deed}: published after {:?}", start.elapsed());
        }
        reader.join().unwrap();
        assert!(publisher.stats().blocked > Duration::ZERO);
        child.kill();
    }
}

/// What a peer may pass off as a bell.
fn no_bells() -> Vec<OwnedFd> {
    // SAFETY: takes two integers; the kernel has just created the fd it returns for us alone.
    let eventfd = |flags| unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, flags)) };
    vec![
        eventfd(0),
        eventfd(libc::EFD_NONBLOCK),
        nix::unistd::pipe().unwrap().1,
        UnixStream::pair().unwrap().0.into(),
        File::open("/dev/null").unwrap().into(),
        memfd::create("ringbus-bell", 4096).unwrap(),
    ]
}

#[track_caller]
fn is_cut(node: &Node, why: &str) {
    eventually("it is cut off", || !node.refused().is_empty() && node.peers().len() == 1);
    let refused = node.refused();
    assert!(refused.iter().all(|refused| refused.why.to_string().contains(why)), "{refused:?}");
}

#[test]
fn a_reader_whose_bell_is_none_is_cut_off() {
    for fd in no_bells() {
        let dir = Dir::new();
        let (node, _other) = (dir.join("victim"), dir.join("other"));
        let _publisher = node.publisher::<u32>("t").unwrap();
        let raw = Raw::join(&dir, &node);
        let _kept = subscribe(&raw, &fd);
        is_cut(&node, "expected a timerfd");
    }
}

#[test]
fn a_writer_whose_bell_is_none_is_cut_off() {
    for fd in no_bells() {
        let dir = Dir::new();
        let (node, other) = (dir.join("victim"), dir.join("other"));
        let mut subscriber = node.subscriber::<u32>("t").unwrap();
        let raw = Raw::join(&dir, &node);
        raw.send(&port_up(Role::Publisher), &[]);
        raw.send(&Control::PortsDone, &[]);
        let reader_port = loop {
            match Control::decode(&raw.receive().0) {
                Ok(Control::PortUp(up)) if up.role == Role::Subscriber => break up.port,
                _ => {}
            }
        };
        let layout = LogLayout::new(4096).unwrap();
        let log = Sealed::create("ringbus-log", layout.segment_size(), true).unwrap();
        layout.initialise(&log, &LogHeader { log: 1, node: raw.id, port: PORT });
        raw.attach(1, [PORT, reader_port], 4096, &[log.fd(), fd.as_fd()]);
        is_cut(&node, "expected a timerfd");
        other.publisher("t").unwrap().publish(&7_u32).unwrap();
        assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), 7);
    }
}
