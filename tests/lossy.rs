//! Lossy subscribers: they hold nobody up, get whole messages only, and are told of each that they have lost.
//!
//! `RINGBUS_LOSSY_BYTES=1000000000 cargo test --release --test lossy overrun` checks as many bytes beside a writer that
//! overruns its reader; the suite checks 20 million.

use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use ringbus::{Overflow, RawPublisher, RawSubscriber, RecvError, Wait};
use std::os::fd::AsFd;

mod support;
use support::{Child, DEADLINE, Dir, Parent, eventually};

const SMALL: u64 = 4096;
const MIB: usize = 1 << 20;

#[test]
fn child() {
    support::play(&[("counts", counts), ("checks", checks), ("publishes", publishes), ("watches", watches)]);
}

/// The bytes of a message, which tell its sequence number and their place in it: different at each place from those of
/// the messages around it.
fn content(sequence: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    let mut word = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while bytes.len() < len {
        bytes.extend_from_slice(&word.to_le_bytes());
        word = word.wrapping_add(0x0101_0101_0101_0101);
    }
    bytes.truncate(len);
    bytes
}

fn is_whole(sequence: u64, bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut word = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    words.iter().all(|found| {
        let same = u64::from_le_bytes(*found) == word;
        word = word.wrapping_add(0x0101_0101_0101_0101);
        same
    }) && word.to_le_bytes().starts_with(rest)
}

/// What a reader has been told so far: each sequence number once, in order.
#[derive(Debug, Default)]
struct Account {
    received: u64,
    missed: u64,
    bytes: u64,
}

impl Account {
    fn told(&self) -> u64 {
        self.received + self.missed
    }

    /// Takes what is there; whether anything was.
    fn take(&mut self, subscriber: &mut RawSubscriber, timeout: Duration) -> bool {
        match subscriber.recv_timeout(timeout) {
            Ok(Some(sample)) => {
                assert_eq!(sample.sequence(), self.told());
                assert!(is_whole(sample.sequence(), &sample), "message {} is torn", sample.sequence());
                self.received += 1;
                self.bytes += sample.len() as u64;
                true
            }
            Ok(None) => false,
            Err(RecvError::Lagged { missed, source_node, topic }) => {
                assert_eq!((source_node.name(), topic.as_deref()), ("writer", Some("t")));
                assert!(missed > 0);
                self.missed += missed;
                true
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads until told of as many messages as its second argument says.
fn counts(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("reader").unwrap();
    let mut subscriber = node.subscriber_builder("t").lossy().open_raw().unwrap();
    parent.say("open");
    parent.hear("read");
    let mut account = Account::default();
    while account.told() < args[1].parse().unwrap() {
        assert!(account.take(&mut subscriber, DEADLINE), "{account:?}");
    }
    assert!(!account.take(&mut subscriber, Duration::ZERO));
    assert_eq!(subscriber.stats().dropped, account.missed);
    parent.say(&format!("{} {}", account.received, account.missed));
}

fn numbers(line: &str) -> Vec<u64> {
    line.split(' ').map(|number| number.parse().expect("a number")).collect()
}

#[test]
fn a_stopped_one_delays_nobody_and_is_told_how_much_it_has_missed() {
    const MESSAGES: u64 = 10_000;
    for (size, overflow) in [
        (500, Overflow::Fail),
        (500, Overflow::Block { timeout: DEADLINE }),
        (500, Overflow::DropNewest),
        (10_000, Overflow::Fail), // in blobs
    ] {
        let dir = Dir::new();
        let mut child = Child::start("counts", &[dir.arg(), &MESSAGES.to_string()]);
        child.expect("open");
        let node = dir.join("writer");
        let mut publisher =
            node.publisher_builder("t").capacity(SMALL).overflow(overflow).open_raw().unwrap();
        assert_eq!(publisher.stats().peers, 1);
        child.signal(Signal::SIGSTOP);
        for sequence in 0..MESSAGES {
            publisher.publish(&content(sequence, size)).unwrap();
        }
        let stats = publisher.stats();
        assert_eq!((stats.dropped, stats.blocked, stats.lag), (0, Duration::ZERO, 0), "{overflow:?}");
        child.signal(Signal::SIGCONT);
        child.tell("read");
        let [received, missed] = numbers(&child.line())[..] else { panic!("two numbers") };
        assert_eq!(received + missed, MESSAGES);
        assert!(missed >= MESSAGES - SMALL / size as u64, "{missed}");
        child.finish();
    }
}

#[test]
fn a_stopped_one_delays_no_large_message_that_needs_fresh_memory() {
    let sizes = (0..12).map(|order| (64 << 10) << (order % 10)).chain([64 << 10; 10]);
    let sizes: Vec<usize> = sizes.collect();
    let dir = Dir::new();
    let mut child = Child::start("counts", &[dir.arg(), &sizes.len().to_string()]);
    child.expect("open");
    let node = dir.join("writer");
    let mut publisher = node.publisher_builder("t").overflow(Overflow::Fail).open_raw().unwrap();
    child.signal(Signal::SIGSTOP);
    for (sequence, size) in (0..).zip(&sizes) {
        publisher.publish(&content(sequence, *size)).unwrap();
    }
    child.signal(Signal::SIGCONT);
    child.tell("read");
    let told = numbers(&child.line());
    assert_eq!(told.iter().sum::<u64>(), sizes.len() as u64);
    assert!(told[0] > 0, "the last one is still there");
    child.finish();
}

#[test]
fn one_that_keeps_up_misses_nothing_of_any_size() {
    let dir = Dir::new();
    let mut subscriber = dir.join("reader").subscriber_builder("t").lossy().open_raw().unwrap();
    let node = dir.join("writer");
    let mut publisher = node.publisher_builder("t").capacity(SMALL).open_raw().unwrap();
    let mut account = Account::default();
    for sequence in 0..2000 {
        let size =
            if sequence % 50 == 0 { sequence as usize * 997 % (4 * MIB) } else { sequence as usize % 900 };
        publisher.publish(&content(sequence, size)).unwrap();
        assert!(account.take(&mut subscriber, DEADLINE));
    }
    assert_eq!((account.received, account.missed), (2000, 0));
}

/// Publishes messages of many sizes until told to stop; so do those that write as fast as they can.
fn flood(publisher: &mut RawPublisher, sequence: u64) {
    let small = 1 + (sequence.wrapping_mul(0x9e37_79b9) >> 7) as usize % 2000;
    let size = if sequence.is_multiple_of(257) { 70_000 + small * 50 } else { small };
    publisher.publish(&content(sequence, size)).unwrap();
}

/// Reads and checks as many bytes as its second argument says, then until it has been told of all messages.
fn checks(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("reader").unwrap();
    let wait = if args[2] == "park" { Wait::Park } else { Wait::default() };
    let mut subscriber = node.subscriber_builder("t").lossy().wait(wait).open_raw().unwrap();
    parent.say("open");
    let mut account = Account::default();
    let mut until = 0;
    while account.bytes < args[1].parse().unwrap() {
        assert!(account.take(&mut subscriber, DEADLINE), "{account:?}");
        if account.received == until {
            // The writer is to overrun it: it does something else for a while.
            until += 1000;
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(1) {}
        }
    }
    parent.say(&account.bytes.to_string());
    let all: u64 = parent.listen().unwrap().parse().unwrap();
    while account.told() < all {
        assert!(account.take(&mut subscriber, DEADLINE), "{account:?} of {all}");
    }
    parent.say(&format!("{} {}", account.received, account.missed));
}

#[test]
fn nothing_torn_beside_a_writer_that_overruns() {
    let bytes =
        std::env::var("RINGBUS_LOSSY_BYTES").map_or(10_000_000, |bytes| bytes.parse().expect("a number"));
    for wait in ["adaptive", "park"] {
        let dir = Dir::new();
        let mut child = Child::start("checks", &[dir.arg(), &(bytes / 2).max(1).to_string(), wait]);
        child.expect("open");
        let node = dir.join("writer");
        let mut publisher = node.publisher_builder("t").capacity(1 << 16).open_raw().unwrap();
        let (over, told) = std::sync::mpsc::channel();
        let (all, checked) = std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                let mut sequence = 0;
                while told.try_recv().is_err() {
                    flood(&mut publisher, sequence);
                    sequence += 1;
                }
                (sequence, publisher)
            });
            let checked = child.line_within(Duration::from_secs(280));
            over.send(()).unwrap();
            let (all, publisher) = writer.join().unwrap();
            assert_eq!(publisher.stats().blocked, Duration::ZERO);
            // The last losses are known although nothing follows.
            child.tell(&all.to_string());
            (all, checked)
        });
        let [received, missed] = numbers(&child.line())[..] else { panic!("two numbers") };
        println!("{checked} bytes of {received} messages checked, {missed} of {all} missed, {wait}");
        assert_eq!(received + missed, all);
        assert!(missed > 0, "it was not overrun");
        child.finish();
    }
}

#[test]
fn one_that_joins_late_counts_from_its_attachment() {
    let dir = Dir::new();
    let (reader, writer) = (dir.join("reader"), dir.join("writer"));
    let mut publisher = writer.publisher_builder("t").capacity(SMALL).open_raw().unwrap();
    for sequence in 0..100 {
        publisher.publish(&content(sequence, 500)).unwrap();
    }
    let mut subscriber = reader.subscriber_builder("t").lossy().open_raw().unwrap();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    for sequence in 100..1100 {
        publisher.publish(&content(sequence, 500)).unwrap();
    }
    let mut account = Account { missed: 100, ..Account::default() };
    while account.told() < 1100 {
        assert!(account.take(&mut subscriber, DEADLINE));
    }
    assert!(account.missed > 1000 - SMALL / 500, "{account:?}");
}

#[test]
fn beside_it_a_gated_subscriber_of_the_same_node_gets_everything() {
    let dir = Dir::new();
    let (reader, writer) = (dir.join("reader"), dir.join("writer"));
    let mut lossy = reader.subscriber_builder("t").lossy().open_raw().unwrap();
    let mut gated = reader.raw_subscriber("t").unwrap();
    let mut publisher = writer.publisher_builder("t").capacity(SMALL).open_raw().unwrap();
    assert_eq!(publisher.stats().peers, 2);
    let (mut account, mut all) = (Account::default(), Account::default());
    for sequence in 0..1000 {
        publisher.publish(&content(sequence, 300)).unwrap();
        assert!(all.take(&mut gated, DEADLINE));
        if sequence % 100 >= 95 {
            while account.told() <= sequence {
                assert!(account.take(&mut lossy, DEADLINE));
            }
        }
    }
    assert_eq!((all.received, all.missed), (1000, 0));
    assert!(account.missed > 0 && account.received > 0, "{account:?}");
}

/// Publishes many messages, and is killed.
fn publishes(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("writer").unwrap();
    let mut publisher = node.publisher_builder("t").capacity(SMALL).open_raw().unwrap();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    for sequence in 0..1000 {
        publisher.publish(&content(sequence, 300)).unwrap();
    }
    if args[1] == "closes" {
        drop(publisher);
    }
    parent.say("published");
    parent.stay();
}

#[test]
fn what_a_writer_that_is_gone_has_overwritten_is_told_too() {
    for end in ["closes", "is killed"] {
        let dir = Dir::new();
        let node = dir.join("reader");
        let mut subscriber = node.subscriber_builder("t").lossy().open_raw().unwrap();
        let mut child = Child::start("publishes", &[dir.arg(), end]);
        child.expect("published");
        if end == "is killed" {
            child.kill();
            eventually("it is gone", || node.peers().is_empty());
        }
        let mut account = Account::default();
        while account.told() < 1000 {
            assert!(account.take(&mut subscriber, DEADLINE), "{end}: {account:?}");
        }
        assert!(account.missed > 0 && !account.take(&mut subscriber, Duration::ZERO));
        eventually("the log is let go of", || {
            assert!(subscriber.try_recv().unwrap().is_none());
            subscriber.stats().peers == 0
        });
    }
}

#[test]
fn it_is_a_subscriber_like_any_other() {
    let dir = Dir::new();
    let (reader, writer) = (dir.join("reader"), dir.join("writer"));
    let builder = reader.subscriber_builder("task/*").filter("other").lossy();
    let mut updates = builder.wait(Wait::Park).open::<String>().unwrap();
    assert_eq!(updates.filters(), ["task/*", "other"]);
    let mut any = writer.publisher::<String>("task/**").unwrap();
    let mut urgent = writer.publisher_builder("other").priority(200).open::<String>().unwrap();
    assert_eq!((any.stats().peers, urgent.stats().peers), (1, 1));

    eventually("both logs are attached", || {
        assert!(updates.try_recv().unwrap().is_none());
        updates.stats().peers == 2
    });
    assert!(updates.arm().unwrap());
    any.publish_to("task/1", &"a".to_owned()).unwrap();
    let mut fds = [PollFd::new(updates.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(10_000u16)), Ok(1));
    assert!(!updates.arm().unwrap(), "there is something");
    let update = updates.try_recv().unwrap().expect("it was announced");
    assert_eq!((&**update, update.topic(), update.sequence()), ("a", "task/1", 0));

    any.publish_to("task/1/2", &"none of its topics".to_owned()).unwrap();
    let value = "b".to_owned();
    any.message(&value).topic("task/2").header("k", "v").correlation("c").send().unwrap();
    urgent.publish(&"first".to_owned()).unwrap();
    let update = updates.recv_timeout(DEADLINE).unwrap().unwrap();
    assert_eq!((&**update, update.topic(), update.source().name()), ("first", "other", "writer"));
    let update = updates.recv_timeout(DEADLINE).unwrap().unwrap();
    assert_eq!((&**update, update.sequence(), update.headers().get("k")), ("b", 2, Some("v")));
    assert_eq!(update.correlation(), Some("c"));
    assert!(updates.recv_timeout(Duration::from_millis(1)).unwrap().is_none());
    assert_eq!((updates.stats().messages, updates.stats().peers), (3, 2));

    let peers = writer.peers();
    let ports = peers[0].ports();
    assert!(ports.len() == 1 && ports[0].lossy && ports[0].role == "subscriber", "{ports:?}");
    drop(updates);
    eventually("its publishers know", || any.stats().peers == 0 && urgent.stats().peers == 0);
}

/// Waits on a sleeping port, so that only a bell wakes it.
fn watches(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("reader").unwrap();
    let mut subscriber = node.subscriber_builder("t").lossy().wait(Wait::Park).open_raw().unwrap();
    parent.say("open");
    for sequence in 0..1000 {
        let sample = subscriber.recv_timeout(DEADLINE).unwrap().expect("it was woken");
        assert!(sample.sequence() == sequence && is_whole(sequence, &sample));
        parent.say("next");
    }
}

#[test]
fn a_sleeping_one_is_woken_by_each_message() {
    let dir = Dir::new();
    let mut child = Child::start("watches", &[dir.arg()]);
    child.expect("open");
    let mut publisher = dir.join("writer").raw_publisher("t").unwrap();
    for sequence in 0..1000 {
        publisher.publish(&content(sequence, 64)).unwrap();
        child.expect("next");
    }
    child.finish();
}
