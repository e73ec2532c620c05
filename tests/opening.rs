//! What a subscriber gets that opened before, while or after a publisher did, and that ports leave nothing
//! behind.

use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use ringbus::{Node, Overflow, Subscriber};

mod support;
use support::{Child, DEADLINE, Dir, Parent, eventually, resources};

const MESSAGES: u64 = 1000;

/// Not a test of its own but the second process of those here: does nothing unless one of them started it.
#[test]
fn child() {
    support::play(&[
        ("publishing node", publishing_node),
        ("rejoining publisher", rejoining_publisher),
        ("publisher for ever", publisher_for_ever),
        ("publishers", publishers),
        ("churns", churns),
        ("stands by", stands_by),
    ]);
}

/// Opens a publisher, in odd rounds one whose log is smaller than what it publishes, and publishes 0, 1, …
fn publish_all(node: &Node, round: u64) {
    let topic = format!("round/{round}");
    let capacity = if round % 2 == 1 { 4096 } else { 256 * 1024 };
    let overflow = Overflow::Block { timeout: DEADLINE };
    let builder = node.publisher_builder(&topic).capacity(capacity).overflow(overflow);
    let mut publisher = builder.open::<u64>().unwrap();
    for value in 0..MESSAGES {
        publisher.publish(&value).unwrap();
    }
}

/// All messages, from position 0, and no other.
#[track_caller]
fn receive_all(subscriber: &mut Subscriber<u64>) {
    for value in 0..MESSAGES {
        let message = subscriber.recv_timeout(DEADLINE).unwrap();
        let message = message.unwrap_or_else(|| panic!("{value} of {MESSAGES} messages arrived"));
        assert_eq!((*message, message.sequence()), (value, value));
    }
    assert!(subscriber.try_recv().unwrap().is_none());
}

#[test]
fn a_publisher_opened_after_a_subscriber_reaches_it_from_its_first_message() {
    let dir = Dir::new();
    let mut publisher = Child::start("publishing node", &[dir.arg()]);
    publisher.expect("joined");
    let node = dir.join("subscriber");
    for round in 0..200 {
        let mut subscriber = node.subscriber(&format!("round/{round}")).unwrap();
        publisher.tell(&round.to_string()); // from now on it may open
        receive_all(&mut subscriber);
    }
    publisher.finish();
}

fn publishing_node(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("publisher").unwrap();
    parent.say("joined");
    while let Some(round) = parent.listen() {
        publish_all(&node, round.parse().unwrap());
    }
}

#[test]
fn a_node_that_joins_after_a_subscriber_opened_reaches_it_from_its_first_message() {
    let dir = Dir::new();
    let node = dir.join("subscriber");
    let mut publisher = Child::start("rejoining publisher", &[dir.arg()]);
    for round in 0..200 {
        let mut subscriber = node.subscriber(&format!("round/{round}")).unwrap();
        publisher.tell(&round.to_string()); // from now on it may join
        receive_all(&mut subscriber);
    }
    publisher.finish();
}

#[test]
fn a_process_that_starts_after_a_subscriber_opened_reaches_it_from_its_first_message() {
    let dir = Dir::new();
    let node = dir.join("subscriber");
    for round in 0..200 {
        let mut subscriber = node.subscriber(&format!("round/{round}")).unwrap();
        let mut publisher = Child::start("rejoining publisher", &[dir.arg()]);
        publisher.tell(&round.to_string());
        receive_all(&mut subscriber);
        publisher.finish();
    }
}

/// Joins, publishes and leaves at once, again and again.
fn rejoining_publisher(parent: &mut Parent, args: &[&str]) {
    while let Some(round) = parent.listen() {
        let node = support::bus(args[0]).join("publisher").unwrap();
        publish_all(&node, round.parse().unwrap());
    }
}

#[test]
fn a_late_subscriber_gets_everything_from_its_attach_on_and_what_came_before_is_no_error() {
    let dir = Dir::new();
    let (one, other) = (dir.join("publisher"), dir.join("subscriber"));
    let mut publisher = one.publisher::<u64>("t").unwrap();
    for value in 0..100 {
        publisher.publish(&value).unwrap();
    }
    let mut subscriber = other.subscriber::<u64>("t").unwrap();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    for value in 100..200 {
        publisher.publish(&value).unwrap();
    }
    for value in 100..200 {
        let message = subscriber.recv_timeout(DEADLINE).unwrap().expect("a message");
        assert_eq!((*message, message.sequence()), (value, value));
    }
    assert!(subscriber.try_recv().unwrap().is_none());
}

#[test]
fn subscribers_that_open_while_a_publisher_publishes_see_no_gap() {
    let dir = Dir::new();
    let mut publisher = Child::start("publisher for ever", &[dir.arg()]);
    publisher.expect("open");
    let node = dir.join("subscriber");
    let open_again_and_again = || {
        let mut end = 0;
        for _ in 0..100 {
            let mut subscriber = node.subscriber::<u64>("t").unwrap();
            let start = *subscriber.recv_timeout(DEADLINE).unwrap().expect("a message");
            assert!(start >= end, "{start} is from before {end}, when it was not open");
            end = start + 500;
            for value in start + 1..end {
                let message = subscriber.recv_timeout(DEADLINE).unwrap().expect("a message");
                assert_eq!((*message, message.sequence()), (value, value));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(open_again_and_again);
        }
    });
    publisher.tell("stop");
    publisher.finish();
}

fn publisher_for_ever(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("publisher").unwrap();
    let overflow = Overflow::Block { timeout: DEADLINE };
    let mut port = node.publisher_builder("t").capacity(16 * 1024).overflow(overflow).open().unwrap();
    parent.say("open");
    let over = std::thread::spawn({
        let mut parent = std::mem::replace(parent, Parent::new());
        move || parent.stay()
    });
    let mut value = 0_u64;
    while !over.is_finished() {
        port.publish(&value).unwrap();
        value += 1;
    }
}

#[test]
fn one_subscriber_reads_a_hundred_publishers() {
    const PUBLISHERS: u64 = 100; // more than one cursor segment has slots
    let dir = Dir::new();
    let node = dir.join("subscriber");
    let mut subscriber = node.subscriber::<(u64, u64)>("many/*").unwrap();
    let mut publishers = Child::start("publishers", &[dir.arg(), &PUBLISHERS.to_string()]);
    // A second time, over: slots are used again.
    for _ in 0..2 {
        publishers.tell("open and publish");
        let mut due = vec![0; PUBLISHERS as usize];
        for _ in 0..PUBLISHERS * 50 {
            let message = subscriber.recv_timeout(DEADLINE).unwrap().expect("a message");
            let (publisher, value) = *message;
            assert_eq!(message.topic(), format!("many/{publisher}"));
            assert_eq!(value, due[publisher as usize]);
            due[publisher as usize] += 1;
        }
        assert_eq!(subscriber.stats().peers as u64, PUBLISHERS);
        publishers.tell("close");
        eventually("closed logs are let go", || {
            assert!(subscriber.try_recv().unwrap().is_none());
            subscriber.stats().peers == 0
        });
    }
    publishers.finish();
}

fn publishers(parent: &mut Parent, args: &[&str]) {
    let count: u64 = args[1].parse().unwrap();
    let node = support::bus(args[0]).join("publishers").unwrap();
    while parent.listen().is_some() {
        let mut ports: Vec<_> = (0..count)
            .map(|number| node.publisher_builder(&format!("many/{number}")).capacity(4096).open().unwrap())
            .collect();
        for value in 0..50_u64 {
            for (number, port) in (0_u64..).zip(&mut ports) {
                port.publish(&(number, value)).unwrap();
            }
        }
        parent.hear("close");
    }
}

#[test]
fn ports_opened_and_dropped_a_thousand_times_leave_nothing_behind() {
    let dir = Dir::new();
    // Each process counts its own: the one whose ports come and go, and the one that they attach to.
    let mut stands_by = Child::start("stands by", &[dir.arg()]);
    let mut churns = Child::start("churns", &[dir.arg()]);
    for child in [&mut stands_by, &mut churns] {
        child.expect("joined");
    }
    // The first time, for what is made at first use. Then by twenties: a port that is far behind reads many logs at a time,
    // for whose cursors it makes more room and keeps it.
    for times in std::iter::once(1).chain([20; 50]) {
        churns.tell(&times.to_string());
        churns.expect("done");
        stands_by.tell(&times.to_string());
        churns.tell("count");
        for child in [&mut stands_by, &mut churns] {
            child.expect("counted");
        }
    }
    churns.finish();
    stands_by.finish();
}

/// Opens and drops, each time, a publisher that every subscriber of `churn/**` is attached to, and a
/// subscriber of everybody's `news`.
fn churns(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("churns").unwrap();
    eventually("the other node is there", || node.peers().iter().any(|peer| peer.ports().len() == 2));
    let mut own_news = node.raw_publisher("news").unwrap();
    parent.say("joined");
    let mut before = None;
    while let Some(line) = parent.listen() {
        if line == "count" {
            count(&mut before, || own_news.stats().peers == 0);
            parent.say("counted");
            continue;
        }
        for _ in 0..line.parse().unwrap() {
            let mut late = node.raw_subscriber("news").unwrap();
            own_news.wait_for_subscribers(1, DEADLINE).unwrap();
            own_news.publish(b"news").unwrap();
            assert!(late.recv_timeout(DEADLINE).unwrap().is_some());
            let mut publisher = node.raw_publisher("churn/x").unwrap();
            publisher.publish(b"fresh").unwrap();
        }
        parent.say("done");
    }
}

fn stands_by(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("stands-by").unwrap();
    let mut subscriber = node.raw_subscriber("churn/**").unwrap();
    let news = node.raw_publisher("news").unwrap();
    parent.say("joined");
    let (lines, heard) = std::sync::mpsc::channel();
    std::thread::spawn({
        let mut parent = Parent::new();
        move || while parent.listen().is_some_and(|line| lines.send(line).is_ok()) {}
    });
    let (mut before, mut received, mut wanted) = (None, 0, 0);
    loop {
        match heard.recv_timeout(Duration::ZERO) {
            Ok(times) => {
                wanted += times.parse::<u32>().unwrap();
                count(&mut before, || {
                    while subscriber.try_recv().unwrap().is_some() {
                        received += 1;
                    }
                    received == wanted && subscriber.stats().peers == 0 && news.stats().peers == 0
                });
                parent.say("counted");
            }
            Err(RecvTimeoutError::Timeout) => {
                let message = subscriber.recv_timeout(Duration::from_millis(1)).unwrap();
                received += u32::from(message.is_some());
            }
            Err(RecvTimeoutError::Disconnected) => return assert_eq!((received, wanted), (1001, 1001)),
        }
    }
}

/// Compares with the count before, once all ports that come and go are `gone`.
fn count(before: &mut Option<(usize, usize)>, mut gone: impl FnMut() -> bool) {
    let mut now = resources();
    let expected = *before;
    eventually(&format!("{expected:?} fds and mappings as before"), || {
        let gone = gone();
        now = resources();
        gone && expected.is_none_or(|(fds, maps)| now.0 <= fds && now.1 <= maps)
    });
    *before = Some(now);
}
