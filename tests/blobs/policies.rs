//! Limits, what happens when all memory is in use, and loans.

use std::time::Duration;

use ringbus::{Bus, Node, Overflow, PublishError, RawPublisher, RawSubscriber, RecvError, Wait};

use crate::support::stopwatch::Stopwatch;
use crate::support::{DEADLINE, Dir, eventually};
use crate::{MIB, content};

/// A subscriber of another node, whose log and cursor are known at both ends.
fn attached(publisher: &RawPublisher, from: &Node, node: &Node) -> RawSubscriber {
    let mut subscriber = node.raw_subscriber("t").unwrap();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    eventually("the log is attached", || {
        assert!(subscriber.try_recv().unwrap().is_none());
        subscriber.stats().peers == 1
    });
    // Each of them handles what has arrived before it answers: first the one sends, then the other receives.
    assert_eq!((node.peers().len(), from.peers().len()), (1, 1));
    subscriber
}

#[test]
fn too_large_is_said_with_the_limit() {
    let node = Bus::private().unwrap().join("n").unwrap();
    let limit = |publisher: &mut RawPublisher, size: usize| match publisher.publish(&vec![0; size]) {
        Err(error @ PublishError::TooLarge { size: told, limit }) => {
            assert!(told == size && error.to_string().contains("`max_message`"), "{error}");
            limit
        }
        other => panic!("{other:?}"),
    };
    let builder = || node.publisher_builder("t");
    assert_eq!(limit(&mut builder().open_raw().unwrap(), 64 * MIB + 1), 64 * MIB);
    let mut small = builder().max_message(300_000).open_raw().unwrap();
    assert_eq!(limit(&mut small, 300_001), 300_000);
    small.publish(&vec![0; 300_000]).unwrap();
    let mut tight = builder().blob_memory(3 * MIB as u64).open_raw().unwrap();
    assert_eq!(limit(&mut tight, 2 * MIB + 1), 2 * MIB);
    tight.publish(&vec![0; 2 * MIB]).unwrap();
    let mut none = builder().capacity(4096).blob_memory(1000).open_raw().unwrap();
    assert!((900..1024).contains(&limit(&mut none, 1024)));
    assert!(matches!(none.loan(1000), Err(PublishError::TooLarge { .. })));
    // Nor with a blob at hand that has the room, beside its class.
    let mut one = builder().blob_memory(64 << 10).open_raw().unwrap();
    for lent in [65_000, 64 << 10] {
        assert!(matches!(one.loan(68_000), Err(PublishError::TooLarge { size: 68_000, limit: 65_536 })));
        drop(one.loan(lent).unwrap());
    }
    assert!(matches!(one.loan(65_537), Err(PublishError::TooLarge { size: 65_537, limit: 65_536 })));
    // Nor behind a head for which there is no room before the payload.
    let bytes = vec![0; 65_536];
    for header in [10, 3000, 4000, 5000, 16_000] {
        let value = "v".repeat(header);
        let mut send = |len: usize| one.message(&bytes[..len]).header("k", &value).send();
        let limit = match send(65_536) {
            Ok(()) => continue,
            Err(PublishError::TooLarge { size: 65_536, limit }) => limit,
            Err(error) => panic!("{error}"),
        };
        assert!(header > 3900 && limit < 65_536 && limit + header > 65_536, "{limit} beside {header}");
        send(limit).unwrap();
        assert!(matches!(send(limit + 1), Err(PublishError::TooLarge { limit: told, .. }) if told == limit));
    }
}

#[test]
fn a_stalled_reader_is_waited_for_or_not_as_the_policy_says() {
    let dir = Dir::new();
    let (writer, slow) = (dir.join("writer"), dir.join("slow"));
    let timeout = Duration::from_millis(200);
    for overflow in [Overflow::Fail, Overflow::Block { timeout }, Overflow::DropNewest] {
        let builder = writer.publisher_builder("t").blob_memory(8 * MIB as u64).overflow(overflow);
        let mut publisher = builder.open_raw().unwrap();
        let mut subscriber = attached(&publisher, &writer, &slow);
        for seed in 0..8 {
            publisher.publish(&content(seed, MIB)).unwrap();
        }
        let start = Stopwatch::start();
        match (overflow, publisher.publish(&content(8, MIB))) {
            (Overflow::DropNewest, Ok(())) => assert_eq!(publisher.stats().dropped, 1),
            (Overflow::DropNewest, other) => panic!("{other:?}"),
            (_, Err(error @ PublishError::Full { .. })) => {
                let PublishError::Full { reader, lag, waited } = &error else { unreachable!() };
                assert!(reader.starts_with("slow (pid ") && *lag > 8 * MIB as u64, "{error}");
                assert!(error.to_string().contains("`blob_memory`"), "{error}");
                let least = if overflow == Overflow::Fail { Duration::ZERO } else { timeout };
                assert!(*waited >= least, "{waited:?}");
                start.within(least + Duration::from_secs(1));
            }
            (_, other) => panic!("{other:?}"),
        }
        // Small ones go on.
        publisher.publish(b"small").unwrap();
        for seed in 0..8 {
            let sample = subscriber.recv_timeout(DEADLINE).unwrap().expect("what was published");
            assert!(*sample == content(seed, MIB), "{seed}");
        }
        if overflow == Overflow::DropNewest {
            assert!(matches!(subscriber.recv_timeout(DEADLINE), Err(RecvError::Lagged { missed: 1, .. })));
        }
        assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("the small one"), *b"small");
        publisher.publish(&content(9, MIB)).unwrap();
        assert!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("the next") == content(9, MIB));
    }
}

#[test]
fn a_writer_that_waits_goes_on_as_soon_as_a_blob_is_back() {
    let dir = Dir::new();
    let (writer, reader) = (dir.join("writer"), dir.join("reader"));
    for wait in [Wait::Spin, Wait::Adaptive, Wait::Park] {
        let builder = writer.publisher_builder("t").blob_memory(2 * MIB as u64).wait(wait);
        let mut subscriber = reader.subscriber_builder("t").wait(wait).open_raw().unwrap();
        let mut publisher = builder.overflow(Overflow::Block { timeout: DEADLINE }).open_raw().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for seed in 0..100u64 {
                    let mut loan = publisher.loan(MIB).unwrap();
                    loan[..8].copy_from_slice(&seed.to_le_bytes());
                    loan.send().unwrap();
                }
            });
            for seed in 0..100u64 {
                let sample = subscriber.recv_timeout(DEADLINE).unwrap().expect("the next");
                assert_eq!((sample.sequence(), &sample[..8]), (seed, &seed.to_le_bytes()[..]));
            }
        });
        assert!(publisher.stats().blocked < DEADLINE);
    }
}

#[test]
fn sizes_that_take_turns_share_the_memory() {
    let dir = Dir::new();
    let (writer, reader) = (dir.join("writer"), dir.join("reader"));
    let mut subscriber = reader.raw_subscriber("t").unwrap();
    let mut publisher = writer.publisher_builder("t").blob_memory(4 * MIB as u64).open_raw().unwrap();
    for (seed, size) in (0..60).zip([4 * MIB, 100_000, MIB, 65_537, 2 * MIB].into_iter().cycle()) {
        publisher.publish(&content(seed, size)).unwrap();
        assert!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("the next") == content(seed, size));
    }
}

#[test]
fn a_loan_that_is_not_sent_leaves_no_trace() {
    let node = Bus::private().unwrap().join("n").unwrap();
    let mut subscriber = node.raw_subscriber("t").unwrap();
    let mut publisher = node.publisher_builder("t").blob_memory(MIB as u64).open_raw().unwrap();
    for round in 0..10 {
        publisher.loan(MIB).unwrap().fill(0xee);
        publisher.loan(100).unwrap().fill(0xdd);
        publisher.publish(&content(3 * round, MIB)).unwrap();
        assert!(*subscriber.recv().unwrap() == content(3 * round, MIB));
        drop(publisher.loan(MIB).unwrap());
        publisher.publish(b"small").unwrap();
        let sample = subscriber.recv().unwrap();
        assert_eq!((&*sample, sample.sequence()), (&b"small"[..], 3 * round + 1));
        drop(sample);
        drop(publisher.loan(MIB).unwrap());
        let mut small = publisher.loan(100).unwrap();
        small.fill(0xcc);
        small.send().unwrap();
        let sample = subscriber.recv().unwrap();
        assert_eq!((&*sample, sample.sequence()), (&[0xcc; 100][..], 3 * round + 2));
    }
}
