//! Processes that are killed, stopped or gone: nothing published is lost, nobody else is harmed, and
//! nothing is left over.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, raise};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::unistd::gettid;
use ringbus::{Overflow, PublishError, Wait};

mod support;
use support::stopwatch::Stopwatch;
use support::{Child, DEADLINE, Dir, Forked, Parent, eventually, resources};

/// Not a test of its own but the second process of those here: does nothing unless one of them started it.
#[test]
fn child() {
    support::play(&[
        ("publishes and is killed", publishes_and_is_killed),
        ("forks and is killed", forks_and_is_killed),
        ("reads when told", reads_when_told),
        ("opens and closes", opens_and_closes),
        ("crashes", crashes),
        ("survives", survives),
        ("is silent", is_silent),
    ]);
}

#[test]
fn what_was_published_before_a_kill_reaches_a_spinning_reader() {
    what_was_published_before_a_kill_arrives(Wait::Spin);
}

#[test]
fn what_was_published_before_a_kill_reaches_a_parked_reader() {
    what_was_published_before_a_kill_arrives(Wait::Park);
}

fn what_was_published_before_a_kill_arrives(wait: Wait) {
    let dir = Dir::new();
    let node = dir.join("reader");
    let mut subscriber = node.subscriber_builder("last/*").wait(wait).open::<u32>().unwrap();
    for round in 0..50 {
        let writer = Child::start("publishes and is killed", &[dir.arg(), &round.to_string()]);
        let message = subscriber.recv_timeout(DEADLINE).unwrap().expect("the last word");
        assert_eq!((message.topic(), *message), (&*format!("last/{round}"), round));
        writer.ends_by_kill();
    }
    eventually("the dead are gone", || node.peers().is_empty());
}

fn publishes_and_is_killed(_: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("writer").unwrap();
    let round = args[1].parse().unwrap();
    let mut publisher = node.publisher::<u32>(&format!("last/{round}")).unwrap();
    // A join goes on without nodes that have not answered after 200 ms, as where others have all processors.
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    publisher.publish(&round).unwrap();
    raise(Signal::SIGKILL).unwrap();
}

#[test]
fn a_killed_node_is_gone_although_a_forked_child_holds_its_sockets() {
    let dir = Dir::new();
    let node = dir.join("survivor");
    let mut parent = Child::start("forks and is killed", &[dir.arg()]);
    parent.expect("forked");
    assert_eq!(node.peers().len(), 1);
    parent.signal(Signal::SIGKILL);
    eventually("the killed node is gone", || node.peers().is_empty());
    // Only now: the forked child stays for as long as its stdin is open.
    parent.tell("still there?");
    parent.expect("still there");
}

fn forks_and_is_killed(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("parent").unwrap();
    let _port = node.raw_publisher("t").unwrap();
    let _forked = Forked::run(|| {
        let mut parent = Parent::new();
        parent.hear("still there?");
        parent.say("still there");
        parent.stay();
    });
    parent.say("forked");
    loop {
        std::thread::park();
    }
}

#[test]
fn a_publisher_goes_on_when_the_reader_it_waits_for_ends_by_kill() {
    const MESSAGES: u32 = 100;
    let dir = Dir::new();
    let node = dir.join("publisher");
    let mut reader = Child::start("reads when told", &[dir.arg()]);
    reader.expect("open");
    // Far beyond this test's deadline: if it was waited for, the test fails.
    let overflow = Overflow::Block { timeout: 10 * DEADLINE };
    let mut publisher =
        node.publisher_builder("t").capacity(4096).overflow(overflow).wait(Wait::Park).open_raw().unwrap();
    let (thread, published) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            thread.store(gettid().as_raw() as u32, Relaxed);
            for _ in 0..MESSAGES {
                publisher.publish(&[7; 512]).unwrap();
                published.fetch_add(1, Relaxed);
            }
        });
        eventually("the publisher is blocked", || {
            published.load(Relaxed) >= 4 && is_asleep(thread.load(Relaxed))
        });
        assert!(published.load(Relaxed) < MESSAGES);
        reader.kill();
        eventually("all is published", || published.load(Relaxed) == MESSAGES);
    });
}

/// Whether a thread of this process sleeps in the kernel.
fn is_asleep(thread: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
    stat.is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" S")))
}

#[test]
fn a_stopped_reader_is_not_taken_for_dead_and_later_receives_everything() {
    let dir = Dir::new();
    let node = dir.join("publisher");
    let mut reader = Child::start("reads when told", &[dir.arg()]);
    reader.expect("open");
    let overflow = Overflow::Block { timeout: Duration::from_secs(3) };
    let builder = node.publisher_builder("t").capacity(4096).overflow(overflow);
    let mut publisher = builder.open_raw().unwrap();
    publisher.publish(&[0]).unwrap();
    reader.tell("read");
    reader.expect("0");

    reader.signal(Signal::SIGSTOP);
    // Seven fit; for one more the publisher waits longer than any handshake or heartbeat takes.
    for message in 1..8 {
        publisher.publish(&[message; 512]).unwrap();
    }
    let Err(PublishError::Full { reader: slow, waited, .. }) = publisher.publish(&[9; 512]) else {
        panic!("there was room");
    };
    assert!(slow.starts_with("reader") && waited >= Duration::from_secs(3), "{slow} {waited:?}");
    assert_eq!(node.peers().len(), 1, "a stopped node is not gone");
    assert_eq!(publisher.stats().peers, 1);
    reader.signal(Signal::SIGCONT);
    for message in 1..8 {
        reader.tell("read");
        reader.expect(&message.to_string());
    }
    publisher.publish(&[8]).unwrap();
    reader.tell("read");
    reader.expect("8");
    reader.finish();
}

/// Subscribes; each time it is told to read, it says the next message's first byte.
fn reads_when_told(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("reader").unwrap();
    let mut subscriber = node.subscriber_builder("t").wait(Wait::Park).open_raw().unwrap();
    parent.say("open");
    while parent.listen().is_some() {
        parent.say(&subscriber.recv_timeout(DEADLINE).unwrap().expect("a message")[0].to_string());
    }
}

#[test]
fn peers_hear_of_ports_and_nodes_that_open_and_close() {
    let dir = Dir::new();
    let node = dir.join("watcher");
    let mut subscriber = node.raw_subscriber("theirs").unwrap();
    let publisher = node.raw_publisher("ours").unwrap();
    let mut other = Child::start("opens and closes", &[dir.arg()]);

    other.expect("joined");
    assert!(node.peers().iter().any(|peer| peer.name() == "other" && peer.pid() == other.pid()));
    assert!(node.peers()[0].ports().is_empty());
    assert!(publisher.wait_for_subscribers(1, Duration::ZERO).is_err());

    for _ in 0..3 {
        other.tell("open");
        other.expect("opened");
        publisher.wait_for_subscribers(1, DEADLINE).unwrap();
        assert_eq!(publisher.stats().peers, 1);
        eventually("the log is attached", || {
            assert!(subscriber.try_recv().unwrap().is_none());
            subscriber.stats().peers == 1
        });
        let ports: Vec<_> =
            node.peers()[0].ports().iter().map(|port| (port.role, port.filters.join(" "))).collect();
        assert_eq!(ports, [("subscriber", "ours".to_owned()), ("publisher", "theirs".to_owned())]);

        other.tell("close");
        other.expect("closed");
        eventually("the ports are gone", || {
            assert!(subscriber.try_recv().unwrap().is_none());
            node.peers()[0].ports().is_empty()
                && (publisher.stats().peers, subscriber.stats().peers) == (0, 0)
        });
    }
    other.finish(); // leaves, then ends
    eventually("the node is gone", || node.peers().is_empty());
}

fn opens_and_closes(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("other").unwrap();
    parent.say("joined");
    while parent.listen().is_some() {
        let ports = (node.raw_subscriber("ours").unwrap(), node.raw_publisher("theirs").unwrap());
        parent.say("opened");
        parent.hear("close");
        drop(ports);
        parent.say("closed");
    }
}

#[test]
fn crashes_leave_no_file_fd_or_mapping_behind() {
    let dir = Dir::new();
    let mut survivor = Child::start("survives", &[dir.arg()]);
    survivor.expect("open");
    // The first time for what the survivor keeps for so many at once.
    for crashes in [50, 50] {
        for _ in 0..crashes {
            Child::start("crashes", &[dir.arg()]).ends_by_kill();
        }
        survivor.tell(&crashes.to_string());
        survivor.expect("counted");
        assert_eq!(dir.sockets().len(), 1, "the survivor's own");
    }
    survivor.finish();
    assert_eq!(dir.sockets().len(), 0);
}

/// Joins, attaches in both directions, and dies at a moment of its own choice.
fn crashes(_: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("crashes").unwrap();
    let subscriber = node.raw_subscriber("survivor").unwrap();
    let mut publisher = node.raw_publisher("crash/x").unwrap();
    if std::process::id().is_multiple_of(2) {
        publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    }
    publisher.publish(b"not lost").unwrap();
    let _unsent = publisher.loan(100).unwrap();
    raise(Signal::SIGKILL).unwrap();
    drop(subscriber);
}

fn survives(parent: &mut Parent, args: &[&str]) {
    let dir = args[0];
    let node = support::bus(dir).join("survivor").unwrap();
    let mut subscriber = node.raw_subscriber("crash/*").unwrap();
    let mut publisher = node.raw_publisher("survivor").unwrap();
    parent.say("open");
    let mut before = None;
    while let Some(crashes) = parent.listen() {
        for _ in 0..crashes.parse().unwrap() {
            let sample = subscriber.recv_timeout(DEADLINE).unwrap().expect("what was published");
            assert_eq!(*sample, *b"not lost");
        }
        eventually("nothing of the dead is left", || {
            // Each port lets go of the dead when it is used next.
            publisher.publish(b"alive").unwrap();
            assert!(subscriber.try_recv().unwrap().is_none());
            let sockets = std::fs::read_dir(format!("{dir}/bus")).unwrap().count();
            let now = resources();
            let gone = node.peers().is_empty()
                && sockets == 1
                && (subscriber.stats().peers, publisher.stats().peers) == (0, 0)
                && before.is_none_or(|(fds, maps)| now.0 <= fds && now.1 <= maps);
            if gone {
                before = Some(now);
            }
            gone
        });
        parent.say("counted");
    }
}

/// A socket that looks like a node's, and is never accepted from.
fn silent_node(dir: &Path, id: u128) -> OwnedFd {
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let path = dir.join(format!("bus/{id:032x}.sock"));
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &UnixAddr::new(&path).unwrap()).unwrap();
    listen(&fd, Backlog::new(16).unwrap()).unwrap();
    fd
}

/// A hundred such sockets, in a process that forks none: it would have them, too, until it is another program.
fn is_silent(parent: &mut Parent, args: &[&str]) {
    let _silent: Vec<_> = (0..100).map(|id| silent_node(args[0].as_ref(), id)).collect();
    parent.say("there");
    parent.stay();
}

#[test]
fn a_node_that_never_answers_delays_a_join_by_a_fifth_of_a_second() {
    let dir = Dir::new();
    let other = dir.join("other");
    let _silent = [1, u128::MAX].map(|id| silent_node(dir.path(), id));
    let start = Stopwatch::start();
    let node = dir.join("joins");
    start.within(Duration::from_secs(1));
    // Those that answer are there.
    assert_eq!(node.peers().len(), 1);
    let mut subscriber = node.subscriber::<u32>("t").unwrap();
    other.publisher("t").unwrap().publish(&1).unwrap();
    assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), 1);
}

#[test]
fn sockets_of_the_dead_do_not_delay_a_join_and_are_removed() {
    let dir = Dir::new();
    drop(dir.bus());
    // The best of a few: others run at the same time.
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let mut silent = Child::start("is silent", &[dir.arg()]);
        silent.expect("there");
        silent.kill();
        // Not a socket at all: nobody's business.
        File::create(dir.path().join("bus/README")).unwrap();
        let start = Instant::now();
        let node = dir.join("joins");
        best = best.min(start.elapsed());
        assert_eq!(dir.sockets().len(), 1);
        assert!(node.peers().is_empty());
    }
    assert!(best < Duration::from_millis(200), "{best:?}");
    assert!(dir.path().join("bus/README").exists());
}
