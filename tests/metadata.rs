//! What comes along with a message.

use std::collections::HashSet;
use std::time::SystemTime;

use ringbus::{Bus, Headers, PublishError};

mod support;
use support::{Child, DEADLINE, Dir, Parent};

/// Not a test of its own but the second process of those here: does nothing unless one of them started it.
#[test]
fn child() {
    support::play(&[("tells ids", tells_ids)]);
}

#[test]
fn every_reader_in_every_process_sees_the_same_ids_and_none_twice() {
    let dir = Dir::new();
    let node = dir.join("node");
    let mut subscriber = node.raw_subscriber("t").unwrap();
    let mut other = Child::start("tells ids", &[dir.arg()]);
    other.expect("open");
    let writers = [dir.join("writer"), dir.join("writer"), node.clone(), node.clone()];
    let mut ports: Vec<_> = writers.iter().map(|node| node.raw_publisher("t").unwrap()).collect();
    for _ in 0..5 {
        ports.iter_mut().for_each(|port| port.publish(b"").unwrap());
    }
    let mut ids = HashSet::new();
    for _ in 0..5 * ports.len() {
        let sample = subscriber.recv_timeout(DEADLINE).unwrap().expect("another message");
        let id = sample.id();
        assert!(id.to_string().starts_with(&sample.source().id().to_string()), "{id}");
        ids.insert(id);
    }
    assert_eq!(ids.len(), 5 * ports.len());
    let (seen, told): (HashSet<_>, HashSet<_>) = ids.iter().map(|id| (id.to_string(), other.line())).unzip();
    assert_eq!((seen.len(), &seen), (ids.len(), &told));
    other.finish();
}

fn tells_ids(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("other").unwrap();
    let mut subscriber = node.subscriber_builder("t").open_raw().unwrap();
    parent.say("open");
    for _ in 0..20 {
        let id = subscriber.recv_timeout(DEADLINE).unwrap().expect("another message").id();
        parent.say(&id.to_string());
    }
    parent.stay();
}

#[test]
fn the_time_comes_along_where_it_was_asked_for() {
    let node = Bus::private().unwrap().join("node").unwrap();
    let mut subscriber = node.raw_subscriber("*").unwrap();
    let mut timed = node.publisher_builder("timed").timestamps().open::<u32>().unwrap();
    let mut timed_raw = node.publisher_builder("raw").timestamps().open_raw().unwrap();
    let mut usual = node.publisher::<u32>("usual").unwrap();
    let mut usual_raw = node.raw_publisher("usual").unwrap();
    let before = SystemTime::now();
    let mut told = |has_time: bool| {
        let sample = subscriber.recv_timeout(DEADLINE).unwrap().expect("the message");
        assert_eq!(sample.timestamp().is_some(), has_time);
        assert!(sample.timestamp().is_none_or(|time| before <= time && time <= SystemTime::now()));
        assert_eq!((sample.headers(), sample.headers().len()), (&Headers::default(), 0));
    };
    timed.publish(&1).unwrap();
    told(true);
    timed.publish_to("timed", &1).unwrap();
    told(true);
    timed.message(&1).send().unwrap();
    told(true);
    timed_raw.publish(b"1").unwrap();
    told(true);
    timed_raw.publish_to("raw", b"1").unwrap();
    told(true);
    timed_raw.message(b"1").send().unwrap();
    told(true);
    timed_raw.loan(1).unwrap().send().unwrap();
    told(true);
    usual.publish(&1).unwrap();
    told(false);
    usual.message(&1).timestamp().send().unwrap();
    told(true);
    usual_raw.loan(1).unwrap().send().unwrap();
    told(false);
    usual_raw.message(b"1").timestamp().send().unwrap();
    told(true);
}

#[test]
fn what_is_lent_has_headers_as_any_message() {
    let node = Bus::private().unwrap().join("node").unwrap();
    let mut subscriber = node.raw_subscriber("frame/*").unwrap();
    let mut publisher = node.raw_publisher("frame/*").unwrap();
    for (number, len) in (0_u64..).zip([0, 1, 100, 511, 5000, 20_000, 2 << 20, 3]) {
        let (shape, topic) = (format!("1x{len}"), format!("frame/{len}"));
        drop(publisher.outgoing().topic(&topic).header("never", "sent").loan(len).unwrap());
        let outgoing = publisher.outgoing().topic(&topic).header("shape", &shape).header("unit", "lux");
        let mut loan = outgoing.correlation("trip").timestamp().loan(len).unwrap();
        assert_eq!((loan.len(), loan.as_ptr().addr() % 64), (len, 0));
        loan.fill(number as u8);
        loan.send().unwrap();
        let sample = subscriber.recv_timeout(DEADLINE).unwrap().expect("the message");
        assert_eq!(
            (sample.topic(), sample.sequence(), sample.correlation()),
            (&*topic, number, Some("trip"))
        );
        let headers: Vec<_> = sample.headers().iter().collect();
        assert_eq!(headers, [("shape", &*shape), ("unit", "lux")]);
        assert!(
            sample.timestamp().is_some()
                && sample.len() == len
                && sample.iter().all(|byte| *byte == number as u8)
        );
    }
    for (name, value) in [("@own", "x"), ("long", &*"x".repeat(70_000))] {
        let refused =
            publisher.outgoing().topic("frame/1").header(name, value).loan(10).map(drop).unwrap_err();
        assert!(matches!(refused, PublishError::Headers { .. }), "{refused}");
    }
    assert!(publisher.outgoing().loan(1).is_err(), "a pattern is no topic");
    publisher.outgoing().topic("frame/1").loan(1).unwrap().send().unwrap();
    let sample = subscriber.recv_timeout(DEADLINE).unwrap().expect("the message");
    assert_eq!((sample.sequence(), sample.headers().len(), sample.timestamp()), (8, 0, None));
}

#[test]
fn a_correlation_is_handed_over_beside_the_headers() {
    let node = Bus::private().unwrap().join("node").unwrap();
    let mut subscriber = node.subscriber::<u32>("t").unwrap();
    let mut publisher = node.publisher::<u32>("t").unwrap();
    publisher.message(&1).header("a", "b").correlation("task 7").header("time", "is ours").send().unwrap();
    let message = subscriber.recv_timeout(DEADLINE).unwrap().expect("the message");
    assert_eq!(message.correlation(), Some("task 7"));
    assert_eq!(message.headers().iter().collect::<Vec<_>>(), [("a", "b"), ("time", "is ours")]);
    assert_eq!((message.headers().get("@correlation"), message.timestamp()), (None, None));
    publisher.publish(&2).unwrap();
    assert_eq!(subscriber.recv_timeout(DEADLINE).unwrap().expect("the message").correlation(), None);
}

#[test]
fn headers_that_are_the_buss_own_are_refused() {
    let node = Bus::private().unwrap().join("node").unwrap();
    let mut subscriber = node.raw_subscriber("t").unwrap();
    let mut publisher = node.publisher::<u32>("t").unwrap();
    for name in ["@time", "@correlation", "@else"] {
        match publisher.message(&1).header(name, "1").send() {
            Err(PublishError::Headers { reason }) => assert!(reason.contains("reserved"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(subscriber.try_recv().unwrap().is_none(), "nothing was published");
    assert_eq!(publisher.stats().messages, 0);
}
