//! What a full log, a large message, a loan and an undecodable payload do.

use std::collections::BTreeMap;
use std::time::Duration;

use ringbus::{Encoding, Node, Overflow, PublishError, RawPublisher, RawSubscriber, RecvError, Wait};

mod support;
use support::stopwatch::Stopwatch;
use support::{DEADLINE, Dir, eventually};

/// Of the smallest log, a quarter of which is the largest record.
const SMALL: u64 = 4096;
const MESSAGE: [u8; 500] = [1; 500];

struct Pair {
    _dir: Dir,
    publisher: Node,
    subscriber: Node,
}

fn pair() -> Pair {
    let dir = Dir::new();
    let (publisher, subscriber) = (dir.join("publisher"), dir.join("slow"));
    Pair { _dir: dir, publisher, subscriber }
}

fn small(node: &Node, overflow: Overflow) -> RawPublisher {
    node.publisher_builder("t").capacity(SMALL).overflow(overflow).open_raw().unwrap()
}

/// A subscriber whose log and cursor are known at both ends: what is published is there at once, and what
/// is read makes room at once.
fn attached(nodes: &Pair, publisher: &RawPublisher) -> RawSubscriber {
    let mut subscriber = nodes.subscriber.raw_subscriber("t").unwrap();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    eventually("the log is attached", || {
        assert!(subscriber.try_recv().unwrap().is_none());
        subscriber.stats().peers == 1
    });
    // Each of them handles what has arrived before it answers: first the one sends, then the other receives.
    assert_eq!((nodes.subscriber.peers().len(), nodes.publisher.peers().len()), (1, 1));
    subscriber
}

/// Publishes until the log is full; how many went in, and the refusal.
fn fill(publisher: &mut RawPublisher) -> (u64, PublishError) {
    for count in 0.. {
        if let Err(error) = publisher.publish(&MESSAGE) {
            return (count, error);
        }
    }
    unreachable!()
}

#[test]
fn block_waits_for_its_timeout_then_names_the_slow_reader() {
    let nodes = pair();
    for wait in [Wait::Spin, Wait::Adaptive, Wait::Park] {
        let mut slow = nodes.subscriber.raw_subscriber("t").unwrap();
        let mut quick = nodes.publisher.raw_subscriber("t").unwrap();
        let timeout = Duration::from_millis(200);
        let most = timeout + Duration::from_secs(1);
        let builder = nodes.publisher.publisher_builder("t").capacity(SMALL).wait(wait);
        let mut publisher = builder.overflow(Overflow::Block { timeout }).open_raw().unwrap();
        let mut count = 0;
        let (error, start) = loop {
            let start = Stopwatch::start();
            match publisher.publish(&MESSAGE) {
                Ok(()) => assert_eq!(*quick.recv().unwrap(), MESSAGE),
                Err(error) => break (error, start),
            }
            count += 1;
        };
        assert!(count >= SMALL / 1024, "{count} messages fit");
        let PublishError::Full { reader, lag, waited } = &error else { panic!("{error}") };
        assert!(reader.starts_with("slow (pid "), "{reader}");
        assert!((SMALL / 2..=SMALL).contains(lag), "{lag}");
        start.within(most);
        assert!(*waited >= timeout && start.less_stolen(*waited, most) <= most, "{waited:?}");
        assert!(error.to_string().contains("slow (pid ") && error.to_string().contains("`capacity`"));
        assert!(publisher.stats().blocked >= timeout);

        // Nothing of the refused message is there, and room is used as it comes.
        for sequence in 0..count {
            assert_eq!(slow.recv().unwrap().sequence(), sequence);
        }
        assert!(slow.try_recv().unwrap().is_none());
        publisher.publish(b"next").unwrap();
        let next = slow.recv().unwrap();
        assert_eq!((&*next, next.sequence()), (&b"next"[..], count));
    }
}

#[test]
fn block_goes_on_as_soon_as_there_is_room() {
    let nodes = pair();
    for wait in [Wait::Spin, Wait::Adaptive, Wait::Park] {
        let mut subscriber = nodes.subscriber.subscriber_builder("t").wait(wait).open_raw().unwrap();
        let builder = nodes.publisher.publisher_builder("t").capacity(SMALL).wait(wait);
        let mut publisher = builder.overflow(Overflow::Block { timeout: DEADLINE }).open_raw().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..1000).for_each(|_| publisher.publish(&MESSAGE).unwrap()));
            for sequence in 0..1000 {
                assert_eq!(subscriber.recv_timeout(DEADLINE).unwrap().unwrap().sequence(), sequence);
            }
        });
        assert!(publisher.stats().blocked < DEADLINE);
    }
}

#[test]
fn fail_returns_full_at_once() {
    let nodes = pair();
    let mut publisher = small(&nodes.publisher, Overflow::Fail);
    let mut subscriber = attached(&nodes, &publisher);
    let start = Stopwatch::start();
    let (count, error) = fill(&mut publisher);
    let PublishError::Full { reader, waited, .. } = error else { panic!("{error}") };
    let most = Duration::from_millis(100);
    assert!(reader.starts_with("slow (pid ") && start.less_stolen(waited, most) <= most, "{waited:?}");
    assert!(matches!(publisher.loan(MESSAGE.len()), Err(PublishError::Full { .. })));
    for sequence in 0..count {
        assert_eq!(subscriber.recv().unwrap().sequence(), sequence);
    }
    assert!(subscriber.try_recv().unwrap().is_none());
    assert_eq!((publisher.stats().messages, publisher.stats().dropped), (count, 0));
}

#[test]
fn without_a_subscriber_no_log_is_ever_full() {
    let nodes = pair();
    let mut publisher = small(&nodes.publisher, Overflow::Fail);
    for _ in 0..1000 {
        publisher.publish(&MESSAGE).unwrap();
    }
}

/// The next error, which has to be `Lagged`: how many are missed.
#[track_caller]
fn lagged<T: std::fmt::Debug>(result: Result<T, RecvError>) -> u64 {
    match result {
        Err(RecvError::Lagged { missed, source_node, topic }) => {
            assert_eq!((source_node.name(), topic.as_deref()), ("publisher", Some("t")));
            missed
        }
        other => panic!("no Lagged: {other:?}"),
    }
}

#[test]
fn drop_newest_tells_how_many_were_dropped_once_the_reader_has_caught_up() {
    let nodes = pair();
    let mut publisher = small(&nodes.publisher, Overflow::DropNewest);
    let mut subscriber = attached(&nodes, &publisher);
    for round in 0..10 {
        let dropped = publisher.stats().dropped;
        for _ in 0..100 {
            publisher.publish(&MESSAGE).unwrap();
        }
        let dropped = publisher.stats().dropped - dropped;
        assert!((80..100).contains(&dropped), "{dropped}");
        for sequence in 0..100 - dropped {
            assert_eq!(subscriber.try_recv().unwrap().unwrap().sequence(), 100 * round + sequence);
        }
        // Nothing more was published.
        assert_eq!(lagged(subscriber.try_recv()), dropped);
        assert!(subscriber.try_recv().unwrap().is_none());
    }
}

#[test]
fn drop_newest_counts_every_message_as_received_or_missed() {
    let nodes = pair();
    let mut publisher = small(&nodes.publisher, Overflow::DropNewest);
    let mut subscriber = attached(&nodes, &publisher);
    let (mut received, mut missed) = (0, 0);
    for round in 1..=50 {
        for _ in 0..round {
            publisher.publish(&MESSAGE).unwrap();
        }
        // Reads a few only, so that drops end up between records, too.
        for _ in 0..round % 7 {
            match subscriber.try_recv() {
                Ok(Some(sample)) => {
                    assert_eq!(sample.sequence(), received + missed);
                    received += 1;
                }
                Ok(None) => break,
                lost => missed += lagged(lost),
            }
        }
    }
    loop {
        match subscriber.try_recv() {
            Ok(Some(sample)) => {
                assert_eq!(sample.sequence(), received + missed);
                received += 1;
            }
            Ok(None) => break,
            lost => missed += lagged(lost),
        }
    }
    let (published, dropped) = (publisher.stats().messages, publisher.stats().dropped);
    assert_eq!((received, missed), (published, dropped));
    assert_eq!(received + missed, (1..=50).sum::<u64>());
    assert!(missed > 0 && subscriber.stats().dropped == missed);
}

#[test]
fn drop_newest_wakes_a_parked_reader_that_has_nothing_to_read() {
    let nodes = pair();
    let mut parked = nodes.subscriber.subscriber_builder("t").wait(Wait::Park).open_raw().unwrap();
    let _stalled = nodes.publisher.raw_subscriber("t").unwrap();
    let mut publisher = small(&nodes.publisher, Overflow::DropNewest);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut received, mut missed) = (0, 0);
            while received + missed < 100 {
                match parked.recv_timeout(DEADLINE) {
                    Ok(Some(sample)) => {
                        assert_eq!(sample.sequence(), received + missed);
                        received += 1;
                    }
                    Ok(None) => panic!("{received} received, {missed} missed, then nothing"),
                    lost => missed += lagged(lost),
                }
            }
            (received, missed)
        });
        for _ in 0..100 {
            publisher.publish(&MESSAGE).unwrap();
        }
        let stats = publisher.stats();
        assert_eq!(reader.join().unwrap(), (stats.messages, stats.dropped));
        assert!(stats.dropped > 80, "the stalled reader is in the way: {stats:?}");
    });
}

#[test]
fn a_message_up_to_the_limit_fits_and_one_byte_more_is_too_large() {
    let nodes = pair();
    for capacity in [SMALL, 64 * 1024, 1 << 20] {
        let builder = || nodes.publisher.publisher_builder("t/**").capacity(capacity).max_message(0);
        let mut subscriber = nodes.subscriber.raw_subscriber("t/**").unwrap();
        let mut publisher = builder().open_raw().unwrap();
        let huge = vec![7; capacity as usize];
        // Known sizes, sizes known once encoded, and loans have limits of their own; each is exact.
        let limit = limit_of(publisher.publish_to("t/x", &huge), huge.len());
        assert!(limit > capacity as usize / 4 - 128 && limit < capacity as usize / 4, "{limit}");
        for _ in 0..10 {
            publisher.publish_to("t/x", &huge[..limit]).unwrap();
            assert_eq!(*subscriber.recv().unwrap(), huge[..limit]);
            assert_eq!(limit_of(publisher.publish_to("t/x", &huge[..=limit]), limit + 1), limit);
        }
        let limit = limit_of(publisher.loan_to("t/x", huge.len()).map(|_| ()), huge.len());
        publisher.loan_to("t/x", limit).unwrap().send().unwrap();
        assert_eq!(subscriber.recv().unwrap().len(), limit);
        assert_eq!(limit_of(publisher.loan_to("t/x", limit + 1).map(|_| ()), limit + 1), limit);
        drop(publisher);

        let mut publisher = builder().open::<str>().unwrap();
        let text = "x".repeat(capacity as usize);
        let Err(PublishError::TooLarge { size, limit }) = publisher.publish_to("t/x", &text) else {
            panic!("fits");
        };
        let fits = limit - (size - text.len()); // what encoding adds, where the length takes as many bytes
        let fits = if fits < 1 << 16 && text.len() >= 1 << 16 { fits + 2 } else { fits };
        for _ in 0..10 {
            publisher.publish_to("t/x", &text[..fits]).unwrap();
            assert_eq!(subscriber.recv().unwrap().len(), limit);
            assert_eq!(limit_of(publisher.publish_to("t/x", &text[..=fits]), limit + 1), limit);
        }
    }
}

#[track_caller]
fn limit_of(result: Result<(), PublishError>, expected: usize) -> usize {
    match result {
        Err(error @ PublishError::TooLarge { size, limit }) => {
            assert_eq!(size, expected);
            assert!(error.to_string().contains("raise `max_message`"));
            limit
        }
        other => panic!("not too large: {other:?}"),
    }
}

#[test]
fn capacities_that_no_log_can_have_are_refused() {
    let nodes = pair();
    for capacity in [0, 1, 2048, 4095, 4097, 3 << 20, 8 << 30, u64::MAX] {
        let opened = nodes.publisher.publisher_builder("t").capacity(capacity).open_raw();
        let Err(ringbus::OpenError::Capacity { capacity: named }) = opened else { panic!("{opened:?}") };
        assert_eq!(named, capacity);
    }
}

#[test]
fn loans_are_aligned_to_64_bytes_at_both_ends() {
    let nodes = pair();
    let mut subscriber = nodes.subscriber.raw_subscriber("t/**").unwrap();
    let mut one = nodes.publisher.publisher_builder("t/one").capacity(64 * 1024).open_raw().unwrap();
    let mut many = nodes.publisher.publisher_builder("t/many/*").capacity(64 * 1024).open_raw().unwrap();
    for len in (0..300).chain([1000, 4096, 16_000]) {
        // A message in between, so that the next loan begins anywhere.
        one.publish(&MESSAGE[..len % 61]).unwrap();
        assert_eq!(subscriber.recv().unwrap().len(), len % 61);
        for index in 0..2 {
            let mut loan =
                if index == 0 { one.loan(len).unwrap() } else { many.loan_to("t/many/x", len).unwrap() };
            assert_eq!((loan.len(), loan.as_ptr() as usize % 64), (len, 0));
            loan.fill(len as u8);
            loan.send().unwrap();
            let sample = subscriber.recv().unwrap();
            assert_eq!(sample.as_ptr() as usize % 64, 0);
            assert!(sample.len() == len && sample.iter().all(|byte| *byte == len as u8));
            assert_eq!((sample.topic(), sample.encoding()), (["t/one", "t/many/x"][index], Encoding::Raw));
        }
    }
}

#[test]
fn a_loan_that_is_not_sent_leaves_no_trace() {
    let nodes = pair();
    let mut publisher = small(&nodes.publisher, Overflow::Fail);
    let mut subscriber = attached(&nodes, &publisher);
    for sequence in 0..100_u64 {
        for len in [0, 100, 900] {
            publisher.loan(len).unwrap().fill(0xee);
        }
        assert!(subscriber.try_recv().unwrap().is_none());
        publisher.publish(&sequence.to_le_bytes()).unwrap();
        let sample = subscriber.recv().unwrap();
        assert_eq!((&*sample, sample.sequence()), (&sequence.to_le_bytes()[..], sequence));
    }
    assert_eq!(publisher.stats().messages, 100);
}

#[test]
fn headers_arrive_in_order_up_to_their_limits() {
    let nodes = pair();
    let mut subscriber = nodes.subscriber.subscriber::<u32>("t").unwrap();
    let mut publisher = nodes.publisher.publisher::<u32>("t").unwrap();

    publisher
        .message(&1)
        .header("traceparent", "00-4bf9")
        .header("a", "")
        .header("a", "second")
        .send()
        .unwrap();
    let message = subscriber.recv().unwrap();
    let headers: Vec<_> = message.headers().iter().collect();
    assert_eq!(headers, [("traceparent", "00-4bf9"), ("a", ""), ("a", "second")]);
    assert_eq!((message.headers().get("a"), message.headers().get("b")), (Some(""), None));

    let names: Vec<String> = (0..65).map(|number| format!("name-{number}")).collect();
    let mut send = |count: usize| {
        names[..count].iter().fold(publisher.message(&2), |message, name| message.header(name, "x")).send()
    };
    send(64).unwrap();
    assert!(matches!(send(65), Err(PublishError::Headers { .. })));
    let message = subscriber.recv().unwrap();
    assert_eq!((*message, message.headers().len()), (2, 64));

    let value = "v".repeat(16 * 1024);
    publisher.message(&3).header("key", &value[3..]).send().unwrap();
    let one_more = publisher.message(&4).header("key", &value[2..]).send();
    assert!(matches!(one_more, Err(PublishError::Headers { .. })), "{one_more:?}");
    let message = subscriber.recv().unwrap();
    assert_eq!((*message, message.headers().get("key")), (3, Some(&value[3..])));
    assert!(subscriber.try_recv().unwrap().is_none());
}

#[test]
fn an_undecodable_payload_is_told_with_its_source_and_the_stream_goes_on() {
    let nodes = pair();
    let mut subscriber = nodes.subscriber.subscriber::<BTreeMap<String, u32>>("t").unwrap();
    let mut text = nodes.publisher.publisher::<str>("t").unwrap();
    let mut raw = nodes.publisher.raw_publisher("t").unwrap();
    let mut good = nodes.publisher.publisher::<BTreeMap<&str, u32>>("t").unwrap();
    for round in 0..3 {
        text.publish("no map").unwrap();
        raw.publish(b"no MessagePack").unwrap();
        good.publish(&BTreeMap::from([("round", round)])).unwrap();
        let (mut reasons, mut values) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            match subscriber.recv_timeout(DEADLINE) {
                Ok(message) => values.push(message.expect("a message").into_inner()["round"]),
                Err(RecvError::Decode { topic, source_node, sequence, reason }) => {
                    assert_eq!((&*topic, source_node.name(), sequence), ("t", "publisher", u64::from(round)));
                    reasons.push(reason);
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(values, [round]);
        assert!(
            reasons.iter().any(|reason| reason.contains("Raw, not MessagePack: use a raw port")),
            "{reasons:?}"
        );
    }
}

#[test]
fn a_raw_subscriber_sees_typed_messages_as_they_are_encoded() {
    let nodes = pair();
    let mut subscriber = nodes.subscriber.raw_subscriber("t").unwrap();
    let mut typed = nodes.publisher.publisher::<(u8, &str)>("t").unwrap();
    let mut raw = nodes.publisher.raw_publisher("t").unwrap();
    typed.publish(&(7, "x")).unwrap();
    {
        let sample = subscriber.recv().unwrap();
        assert_eq!((&*sample, sample.encoding()), (&[0x92, 7, 0xa1, b'x'][..], Encoding::MessagePack));
    }
    raw.publish(&[0x92]).unwrap();
    let sample = subscriber.recv().unwrap();
    assert_eq!((&*sample, sample.encoding()), (&[0x92][..], Encoding::Raw));
}

#[test]
fn a_sample_is_not_overwritten_while_it_is_held() {
    let nodes = pair();
    let mut publisher = small(&nodes.publisher, Overflow::Fail);
    let mut subscriber = attached(&nodes, &publisher);
    publisher.publish(&[5; 500]).unwrap();
    let sample = subscriber.recv().unwrap();
    let (count, _) = fill(&mut publisher);
    assert!(count > 0 && sample.iter().all(|byte| *byte == 5));
    drop(sample);
    eventually("there is room again", || {
        let received = subscriber.try_recv().unwrap().is_some();
        received && publisher.publish(&MESSAGE).is_ok()
    });
}
