//! In one process.

use proptest::prelude::*;
use ringbus::{Bus, PublishError, RawPublisher};

use super::*;

/// A writer and `readers` subscribers of it, on nodes of their own, the first one lossy.
struct Local {
    subscribers: Vec<(RawSubscriber, Account)>,
    publisher: RawPublisher,
    published: u64,
    _nodes: Vec<Node>,
}

impl Local {
    fn new(readers: usize, timeout: Duration) -> Self {
        let bus = Bus::private().unwrap();
        let mut nodes: Vec<Node> = (0..readers).map(|_| bus.join("reader").unwrap()).collect();
        let subscribers = nodes.iter().enumerate().map(|(at, node)| {
            let builder = node.subscriber_builder("t");
            let builder = if at == 0 { builder.lossy() } else { builder };
            (builder.open_raw().unwrap(), Account::default())
        });
        let subscribers = subscribers.collect();
        let node = bus.join("writer").unwrap();
        let publisher = evicting(&node, "t", timeout).blob_memory(1 << 20).open_raw().unwrap();
        nodes.push(node);
        Self { subscribers, publisher, published: 0, _nodes: nodes }
    }

    #[track_caller]
    fn publish(&mut self, len: usize) {
        self.publisher.publish(&content(self.published, len)).unwrap();
        self.published += 1;
    }

    #[track_caller]
    fn read(&mut self, reader: usize) -> bool {
        let (subscriber, account) = &mut self.subscribers[reader];
        account.take(subscriber, Duration::ZERO)
    }

    /// It has something to read, or will have: it is given the next log by a thread of its own.
    #[track_caller]
    fn must_read(&mut self, reader: usize) {
        let (subscriber, account) = &mut self.subscribers[reader];
        assert!(account.take(subscriber, support::DEADLINE), "{account:?}");
    }

    /// Reads until all have been told of everything.
    #[track_caller]
    fn settle(&mut self) {
        let deadline = Instant::now() + support::DEADLINE;
        while self.subscribers.iter().any(|(_, account)| account.told() < self.published) {
            for (subscriber, account) in &mut self.subscribers {
                account.take_all(subscriber);
            }
            let told: Vec<_> = self.subscribers.iter().map(|(_, account)| account.told()).collect();
            assert!(Instant::now() < deadline, "{told:?} of {}", self.published);
        }
    }
}

#[test]
fn one_that_does_not_read_gets_its_log_then_a_number_and_then_what_follows() {
    let mut local = Local::new(3, SOON);
    for _ in 0..200 {
        local.publish(100);
        local.must_read(1);
        local.must_read(0);
    }
    assert_eq!(local.publisher.stats().peers, 2, "one is cut off");
    assert_eq!(local.publisher.stats().evicted, 1);
    let blocked = local.publisher.stats().blocked;
    assert!(blocked >= SOON && blocked < Duration::from_secs(2), "waited once: {blocked:?}");
    local.settle();
    let (subscriber, account) = &local.subscribers[2];
    let (first, missed) = account.gaps[0];
    assert!(first >= 25, "{first}: it gets the whole log");
    assert_eq!((account.gaps.len(), first + missed), (1, 200), "{:?}", account.gaps);
    assert_eq!(subscriber.stats().dropped, missed);
    assert_eq!((local.subscribers[0].1.missed, local.subscribers[1].1.missed), (0, 0));
    assert_eq!(local.publisher.stats().messages, 200);
    support::eventually("it is attached again", || local.publisher.stats().peers == 3);
    for _ in 0..10 {
        local.publish(100);
    }
    local.settle();
    assert_eq!(local.subscribers[2].1.gaps.len(), 1);
    assert_eq!(local.publisher.stats().evicted, 1, "counted on in the next log");
    assert!(local.subscribers.iter().all(|(subscriber, _)| subscriber.stats().peers == 1));
}

#[test]
fn blobs_loans_batches_and_patterns_go_on_in_the_next_log() {
    let mut local = Local::new(3, SOON);
    for round in 0..40 {
        local.publish(10_000 + round * 100); // in blobs
        local.must_read(1);
        let mut loan = local.publisher.loan(300).unwrap();
        loan.copy_from_slice(&content(local.published, 300));
        loan.send().unwrap();
        let batch: Vec<_> = (1..9).map(|at| content(local.published + at, 90)).collect();
        assert_eq!(local.publisher.publish_batch(batch.iter().map(Vec::as_slice)).unwrap(), 8);
        local.published += 9;
        (0..9).for_each(|_| local.must_read(1));
    }
    local.settle();
    assert_eq!((local.subscribers[1].1.missed, local.subscribers[2].1.gaps.len()), (0, 1));
}

#[test]
fn with_all_blobs_out_whoever_has_them_is_in_the_way() {
    let mut local = Local::new(3, SOON);
    for _ in 0..20 {
        local.publish(200_000); // four in 1 MiB
        local.must_read(1);
    }
    local.settle();
    let [_, (_, healthy), (_, slow)] = &local.subscribers[..] else { panic!("three") };
    assert_eq!((healthy.missed, slow.gaps.len()), (0, 1));
    assert!((3..6).contains(&slow.gaps[0].0), "{:?}", slow.gaps);
}

#[test]
fn topics_under_a_pattern_are_told_in_the_next_log_too() {
    let bus = Bus::private().unwrap();
    let (node, reader) = (bus.join("writer").unwrap(), bus.join("reader").unwrap());
    let mut healthy = reader.subscriber::<u64>("a/*").unwrap();
    let mut other = reader.subscriber::<u64>("a/odd").unwrap();
    let mut slow = reader.subscriber::<u64>("a/**").unwrap();
    let mut publisher = evicting(&node, "a/**", SOON).open::<u64>().unwrap();
    for number in 0..1000 {
        let topic = if number % 2 == 0 { "a/even" } else { "a/odd" };
        publisher.publish_to(topic, &number).unwrap();
        let message = healthy.recv().unwrap();
        assert_eq!((message.topic(), *message), (topic, number));
        if number % 2 == 1 {
            assert_eq!(*other.recv().unwrap(), number);
        }
    }
    let mut number = 0;
    let missed = loop {
        match slow.recv() {
            Ok(message) => {
                assert_eq!(*message, number);
                number += 1;
            }
            Err(RecvError::Lagged { missed, topic: None, .. }) => break missed,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(number + missed, 1000);
}

#[test]
fn a_publisher_that_closes_tells_those_it_has_evicted_how_much_they_missed() {
    let mut local = Local::new(3, SOON);
    for _ in 0..300 {
        local.publish(50);
        local.must_read(1);
    }
    let Local { mut subscribers, publisher, published, _nodes: nodes } = local;
    drop((publisher, nodes));
    for (subscriber, account) in &mut subscribers {
        support::eventually("told of all", || {
            account.take_all(subscriber);
            account.told() == published
        });
    }
    assert_eq!((subscribers[2].1.gaps.len(), subscribers[1].1.missed), (1, 0));
}

#[test]
fn a_message_that_is_too_large_or_a_log_that_nobody_fills_evicts_nobody() {
    let mut local = Local::new(2, SOON);
    let error = local.publisher.publish(&vec![0; 2 << 20]).unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { .. }), "{error}");
    for _ in 0..100 {
        local.publish(1000);
        local.must_read(1);
    }
    local.settle();
    assert_eq!(local.subscribers[1].1.missed, 0);
    assert_eq!(local.publisher.stats().peers, 2);
}

#[test]
fn one_that_comes_during_the_evictions_misses_nothing_from_then_on() {
    let mut local = Local::new(3, SOON);
    let late = local._nodes[1].clone();
    let mut latecomers: Vec<(RawSubscriber, u64)> = Vec::new();
    for round in 0..400 {
        local.publish(60);
        local.must_read(1);
        if round % 40 == 0 {
            latecomers.push((late.raw_subscriber("t").unwrap(), 0));
        }
        for (subscriber, due) in &mut latecomers {
            // Where it begins is the control threads' business; then it keeps up.
            while *due < local.published {
                let wait = if *due == 0 { SOON / 10 } else { support::DEADLINE };
                let Some(sample) = subscriber.recv_timeout(wait).unwrap() else { break };
                assert!(*due == 0 || *due == sample.sequence());
                *due = sample.sequence() + 1;
            }
            assert!(*due == 0 || *due == local.published);
        }
        if round % 130 == 0 {
            while local.read(2) {}
        }
    }
    assert!(latecomers.iter().all(|(_, due)| *due == 400));
}

#[derive(Debug, Clone)]
enum Step {
    Publish(usize, usize),
    Read(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let len = prop_oneof![8 => 0..900usize, 1 => 2000..90_000usize];
    let publish = (1..20usize, len).prop_map(|(times, len)| Step::Publish(times, len));
    let read = (0..4usize, 0..60usize).prop_map(|(reader, times)| Step::Read(reader, times));
    prop::collection::vec(prop_oneof![publish, read], 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn every_message_is_received_or_missed_once_in_order(steps in steps()) {
        let mut local = Local::new(4, Duration::ZERO);
        for step in steps {
            match step {
                Step::Publish(times, len) => (0..times).for_each(|_| local.publish(len)),
                Step::Read(reader, times) => (0..times).for_each(|_| {
                    local.read(reader);
                }),
            }
        }
        local.settle();
    }
}
