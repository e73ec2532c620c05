//! Writers and readers that are killed, and forks.

use ringbus::{Overflow, PublishError, RecvError};

use crate::support::{self, Child, DEADLINE, Dir, Parent, eventually};
use crate::{MIB, content};

/// Publishes, and is killed right after.
pub fn victim(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("victim").unwrap();
    let mut publisher = node.raw_publisher("t").unwrap();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    for seed in 0..args[1].parse().unwrap() {
        publisher.publish(&content(seed, MIB / 2 + seed as usize)).unwrap();
    }
    parent.say("published");
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
}

#[test]
fn what_was_published_arrives_though_the_writer_is_killed() {
    let dir = Dir::new();
    let reader = dir.join("reader");
    for count in [1, 2, 20] {
        let mut subscriber = reader.raw_subscriber("t").unwrap();
        let mut child = Child::start("victim", &[dir.arg(), &count.to_string()]);
        child.expect("published");
        child.ends_by_kill();
        for seed in 0..count {
            let sample = subscriber.recv_timeout(DEADLINE).unwrap().expect("what was published");
            assert!(sample.sequence() == seed && *sample == content(seed, MIB / 2 + seed as usize));
        }
        eventually("the log is over", || {
            assert!(subscriber.try_recv().unwrap().is_none());
            subscriber.stats().peers == 0
        });
    }
}

/// Takes a message, and keeps it.
pub fn holder(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("holder").unwrap();
    let mut subscriber = node.raw_subscriber("t").unwrap();
    parent.say("open");
    let sample = subscriber.recv_timeout(DEADLINE).unwrap().expect("a message");
    parent.say(&format!("holds {}", sample.len()));
    parent.stay();
}

#[test]
fn blobs_come_back_from_a_reader_that_is_killed() {
    let dir = Dir::new();
    let writer = dir.join("writer");
    let builder = writer.publisher_builder("t").blob_memory(4 * MIB as u64);
    let mut publisher = builder.overflow(Overflow::Block { timeout: DEADLINE }).open_raw().unwrap();
    for _ in 0..3 {
        let mut child = Child::start("holder", &[dir.arg()]);
        child.expect("open");
        publisher.wait_for_subscribers(1, DEADLINE).unwrap();
        for seed in 0..4 {
            publisher.publish(&content(seed, MIB)).unwrap();
        }
        child.expect(&format!("holds {MIB}"));
        child.kill();
        for seed in 0..10 {
            publisher.publish(&content(seed, MIB)).unwrap(); // waits until the reader is known to be dead
        }
        eventually("it has gone", || writer.peers().is_empty());
    }
}

#[test]
fn a_forked_child_finds_none_of_it() {
    let dir = Dir::new();
    let node = dir.join("parent");
    let mut subscriber = node.raw_subscriber("t").unwrap();
    let mut publisher = node.raw_publisher("t").unwrap();
    publisher.publish(&content(0, MIB)).unwrap();
    publisher.publish(&content(1, MIB)).unwrap();
    let sample = subscriber.recv().unwrap();
    assert_eq!(sample.len(), MIB);
    let mut loan = publisher.loan(MIB).unwrap();
    let lent = support::Forked::run(move || {
        assert!(sample.is_empty() && loan.is_empty() && loan.first_mut().is_none());
        assert!(matches!(loan.send(), Err(PublishError::Forked)));
        drop(sample);
    });
    lent.passes();
    let ports = support::Forked::run(|| {
        assert!(matches!(publisher.publish(&[0; 100_000]), Err(PublishError::Forked)));
        assert!(matches!(publisher.loan(100_000), Err(PublishError::Forked)));
        assert!(matches!(subscriber.try_recv(), Err(RecvError::Forked)));
    });
    ports.passes();
    publisher.publish(&content(2, MIB)).unwrap();
    for seed in 1..3 {
        assert!(*subscriber.recv().unwrap() == content(seed, MIB));
    }
}
