//! Messages that are published together.

use ringbus::{Bus, Overflow, PublishError};
use serde::{Deserialize, Serialize};

mod support;
use support::DEADLINE;

#[test]
fn batches_of_any_size_arrive_in_order_and_whole() {
    let bus = Bus::private().unwrap();
    let (from, to) = (bus.join("from").unwrap(), bus.join("to").unwrap());
    let mut subscriber = to.subscriber::<(u32, Vec<u8>)>("batch").unwrap();
    let overflow = Overflow::Block { timeout: DEADLINE };
    let mut publisher = from.publisher_builder("batch").capacity(4096).overflow(overflow).open().unwrap();
    let sizes = [0usize, 1, 3, 100, 1000, 7];
    // Small ones; some that are too long to be made apart; some that do not fit the log.
    let len = |number: u32| [10, 10, 10, 700, 10, 20_000][number as usize % 6];
    let reader = std::thread::spawn(move || {
        for number in 0..sizes.iter().sum::<usize>() as u32 {
            let message = subscriber.recv_timeout(DEADLINE).unwrap().expect("another message");
            assert_eq!((message.0, message.1.len()), (number, len(number)));
            assert_eq!(message.sequence(), u64::from(number));
        }
        assert!(subscriber.try_recv().unwrap().is_none());
    });
    let mut next = 0;
    for size in sizes {
        let values: Vec<_> =
            (next..next + size as u32).map(|number| (number, vec![1; len(number)])).collect();
        assert_eq!(publisher.publish_batch(&values).unwrap(), size);
        next += size as u32;
    }
    reader.join().unwrap();
    assert_eq!(publisher.stats().messages, u64::from(next));
}

#[test]
fn what_was_written_before_one_that_fails_arrives_and_nothing_after_it() {
    #[derive(Deserialize, Debug, PartialEq)]
    struct Picky(u32);
    impl Serialize for Picky {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if self.0 == 3 {
                return Err(serde::ser::Error::custom("three"));
            }
            serializer.serialize_newtype_struct("Picky", &self.0)
        }
    }
    let node = Bus::private().unwrap().join("node").unwrap();
    let mut subscriber = node.subscriber::<Picky>("batch").unwrap();
    let mut publisher = node.publisher::<Picky>("batch").unwrap();
    let refused = publisher.publish_batch(&[Picky(1), Picky(2), Picky(3), Picky(4)]).unwrap_err();
    assert!(matches!(&refused, PublishError::Encode { reason } if reason.contains("three")), "{refused}");
    let got: Vec<_> =
        std::iter::from_fn(|| subscriber.try_recv().unwrap()).map(|m| m.into_inner().0).collect();
    assert_eq!(got, [1, 2]);
    // A full log: those that fit are there.
    let mut full =
        node.publisher_builder("batch").capacity(4096).overflow(Overflow::Fail).open_raw().unwrap();
    let message: &[u8] = &[7; 500];
    let refused = full.publish_batch(std::iter::repeat_n(message, 100)).unwrap_err();
    assert!(matches!(refused, PublishError::Full { .. }), "{refused}");
    assert_eq!(full.stats().messages, 7, "of 528 bytes each, in 4096");
}

#[test]
fn a_batch_wakes_those_that_sleep_and_says_its_times_and_topics_if_it_has_any() {
    let bus = Bus::private().unwrap();
    let node = bus.join("node").unwrap();
    let mut subscriber = node.subscriber::<u32>("batch").unwrap();
    let mut publisher = node.publisher_builder("batch").timestamps().open::<u32>().unwrap();
    let mut plain = node.publisher::<u32>("batch").unwrap();
    let reader = std::thread::spawn(move || {
        for value in [1, 2] {
            let message = subscriber.recv_timeout(DEADLINE).unwrap().expect("woken");
            assert_eq!((*message, message.timestamp()), (value, None));
        }
        subscriber
    });
    plain.publish_batch(&[1, 2]).unwrap();
    let mut subscriber = reader.join().unwrap();
    assert_eq!(publisher.publish_batch(&[3, 4]).unwrap(), 2);
    for value in [3, 4] {
        let message = subscriber.recv_timeout(DEADLINE).unwrap().expect("there");
        assert!(*message == value && message.timestamp().is_some());
    }
    let mut any = node.publisher::<u32>("any/**").unwrap();
    assert!(matches!(any.publish_batch(&[1]), Err(PublishError::NeedsTopic { .. })));
    assert_eq!(any.publish_batch(&[]).unwrap(), 0);
}
