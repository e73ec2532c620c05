//! Large values, bytes, direct messages and broadcasts, with readers that come and go.

use proptest::collection::vec;
use proptest::prelude::*;
use ringbus::{Bus, Trust};

use crate::support::{self, Child, DEADLINE, Dir, Parent};
use crate::{Cloud, MIB, cloud, content};

/// Says what it gets: the length, the alignment, and whether the bytes are those of the sequence number.
pub fn reader(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("reader").unwrap();
    let mut subscriber = node.raw_subscriber(args[1]).unwrap();
    parent.say("open");
    loop {
        let sample = match subscriber.recv_timeout(DEADLINE) {
            Ok(Some(sample)) => sample,
            Ok(None) => panic!("nothing came"),
            Err(error) => {
                parent.say(&format!("{error:?}"));
                continue;
            }
        };
        if sample.is_empty() {
            return;
        }
        assert!(
            sample.to_owned() == content(sample.sequence(), sample.len()),
            "message {}",
            sample.sequence()
        );
        parent.say(&format!("{} {} {}", sample.sequence(), sample.len(), sample.as_ptr().addr() % 64));
    }
}

#[test]
fn raw_messages_of_any_size_arrive_in_place_and_aligned() {
    let dir = Dir::new();
    let mut child = Child::start("reader", &[dir.arg(), "frames/*"]);
    child.expect("open");
    let node = dir.join("writer");
    let mut frames = node.raw_publisher("frames/front").unwrap();
    let sizes = [1, 65_000, 65_536, MIB, 100_000, MIB + 1, 3 * MIB, 64 * MIB, 17, 2 * MIB];
    for (sequence, size) in (0..).zip(sizes) {
        if sequence % 2 == 0 {
            frames.publish(&content(sequence, size)).unwrap();
            assert!(child.line().starts_with(&format!("{sequence} {size} ")));
        } else {
            let mut loan = frames.loan(size).unwrap();
            assert_eq!((loan.len(), loan.as_ptr().addr() % 64), (size, 0));
            loan.copy_from_slice(&content(sequence, size));
            loan.send().unwrap();
            child.expect(&format!("{sequence} {size} 0"));
        }
    }
    frames.publish(&[]).unwrap();
    child.finish();
    assert_eq!(frames.stats().messages, sizes.len() as u64 + 1);
}

#[test]
fn loans_of_every_small_size_are_aligned_at_both_ends() {
    const MOST: usize = 700;
    let dir = Dir::new();
    let (writer, reader) = (dir.join("writer"), dir.join("reader"));
    let mut frames = reader.raw_subscriber("frames/**").unwrap();
    let one = writer.raw_publisher("frames/front").unwrap();
    let builder = writer.publisher_builder("frames/side/*").capacity(4096).timestamps();
    for mut publisher in [one, builder.open_raw().unwrap()] {
        let topic = |size: usize| match publisher.topic() {
            "frames/front" => "frames/front".to_owned(),
            _ => format!("frames/side/{}", "n".repeat(1 + size % 67)), // moves the payload's place
        };
        let topics: Vec<_> = (0..MOST).map(topic).collect();
        for (size, topic) in topics.iter().enumerate() {
            publisher.loan_to(topic, size).unwrap().fill(0xee); // not sent
            let mut loan = publisher.loan_to(topic, size).unwrap();
            assert_eq!((loan.len(), loan.as_ptr().addr() % 64), (size, 0));
            loan.copy_from_slice(&content(size as u64, size));
            assert!(*loan == content(size as u64, size));
            loan.send().unwrap();
            publisher.publish_to(topic, &size.to_le_bytes()).unwrap(); // another, from the same memory
            let sample = frames.recv_timeout(DEADLINE).unwrap().expect("the loan");
            assert_eq!((sample.topic(), sample.as_ptr().addr() % 64), (&**topic, 0), "{size}");
            assert!(*sample == content(size as u64, size), "{size}");
            drop(sample);
            let sample = frames.recv_timeout(DEADLINE).unwrap().expect("the other");
            assert!(*sample == size.to_le_bytes(), "{size}");
        }
        assert_eq!(publisher.stats().messages, 2 * MOST as u64);
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Lend,
    LendInVain,
    Publish,
    PublishStamped,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// The publisher begins the next loan as the last one, before it knows what comes next.
    #[test]
    fn loans_of_the_same_size_arrive_whatever_comes_between(
        steps in vec(
            (
                prop_oneof![
                    4 => Just(Step::Lend),
                    1 => Just(Step::LendInVain),
                    1 => Just(Step::Publish),
                    1 => Just(Step::PublishStamped),
                ],
                prop_oneof![3 => Just(70_000usize), 1 => Just(65_536), 1 => Just(300_000), 1 => Just(900)],
                any::<bool>(),
            ),
            1..40,
        ),
        lossy in any::<bool>(),
    ) {
        let dir = Dir::new();
        let (writer, reader) = (dir.join("writer"), dir.join("reader"));
        let builder = reader.subscriber_builder("frames");
        let mut frames = if lossy { builder.lossy() } else { builder }.open_raw().unwrap();
        let mut publisher = writer.raw_publisher("frames").unwrap();
        publisher.wait_for_subscribers(1, DEADLINE).unwrap();
        let (mut sent, mut unread) = (0, 0);
        let mut due = std::collections::VecDeque::new();
        let last = steps.len() - 1;
        for (index, (step, size, read)) in steps.into_iter().enumerate() {
            let bytes = content(sent, size);
            match step {
                Step::Lend => {
                    let mut loan = publisher.loan(size).unwrap();
                    prop_assert_eq!((loan.len(), loan.as_ptr().addr() % 64), (size, 0));
                    loan.copy_from_slice(&bytes);
                    prop_assert!(*loan == *bytes);
                    loan.send().unwrap();
                }
                Step::LendInVain => {
                    publisher.loan(size).unwrap().fill(0xee);
                    if index < last {
                        continue;
                    }
                    publisher.publish(&bytes).unwrap();
                }
                Step::Publish => publisher.publish(&bytes).unwrap(),
                Step::PublishStamped => publisher.message(&bytes).timestamp().send().unwrap(),
            }
            due.push_back((sent, size, matches!(step, Step::PublishStamped)));
            (sent, unread) = (sent + 1, unread + 1);
            // One that may lose messages reads each at once.
            if read || lossy || unread > 1 || index == last {
                for (sequence, size, stamped) in due.drain(..) {
                    let sample = frames.recv_timeout(DEADLINE).unwrap().expect("a message");
                    prop_assert_eq!((sample.sequence(), sample.len()), (sequence, size));
                    prop_assert_eq!(sample.timestamp().is_some(), stamped);
                    prop_assert!(*sample == *content(sequence, size), "message {}", sequence);
                }
                unread = 0;
            }
        }
    }
}

/// Made in private memory, of up to 2 KiB, or not; in a log whose largest record is smaller than that, and in one whose
/// is not.
#[test]
fn messages_of_every_small_size_arrive() {
    small_messages_arrive(4096, (0..960).step_by(31).chain(960..1040).chain((1040..4000).step_by(31)));
    small_messages_arrive(65_536, 1950..2100);
}

fn small_messages_arrive(capacity: u64, sizes: impl Iterator<Item = usize>) {
    let dir = Dir::new();
    let (writer, reader) = (dir.join("writer"), dir.join("reader"));
    let mut raw = reader.raw_subscriber("raw").unwrap();
    let mut values = reader.subscriber::<String>("values").unwrap();
    let mut raw_publisher = writer.publisher_builder("raw").capacity(capacity).open_raw().unwrap();
    let mut publisher = writer.publisher_builder("values").capacity(capacity).open::<String>().unwrap();
    let mut arrives = |bytes: &[u8]| {
        let sample = raw.recv_timeout(DEADLINE).unwrap().expect("the bytes");
        assert!(*sample == *bytes, "{}", bytes.len());
    };
    for size in sizes {
        let bytes = content(size as u64, size);
        raw_publisher.publish(&bytes).unwrap();
        arrives(&bytes);
        raw_publisher.message(&bytes).header("k", "v").timestamp().send().unwrap();
        arrives(&bytes);
        assert_eq!(raw_publisher.publish_batch([&bytes[..]; 2]).unwrap(), 2);
        arrives(&bytes);
        arrives(&bytes);
        let text: String = bytes.iter().map(|byte| char::from(byte & 0x7f)).collect();
        publisher.publish(&text).unwrap();
        assert_eq!(*values.recv_timeout(DEADLINE).unwrap().expect("the value"), text);
    }
}

#[test]
fn values_of_any_size_arrive() {
    let dir = Dir::new();
    let (writer, reader) = (dir.join("writer"), dir.join("reader"));
    let mut clouds = reader.subscriber::<Cloud>("cloud").unwrap();
    let mut publisher = writer.publisher::<Cloud>("cloud").unwrap();
    for (frame, points) in (0..).zip([0, 5_000, 10_000, 100_000, 3, 400_000]) {
        let cloud = cloud(frame, points);
        publisher.publish(&cloud).unwrap();
        let received = clouds.recv_timeout(DEADLINE).unwrap().expect("the cloud");
        assert!(*received == cloud && received.sequence() == 3 * frame, "{points}");
        let value = "v".repeat(4000);
        let message = publisher.message(&cloud).header("k", &value);
        message.timestamp().correlation("c").send().unwrap();
        let received = clouds.recv_timeout(DEADLINE).unwrap().expect("the cloud");
        assert!(*received == cloud && received.correlation() == Some("c"), "{points}");
        assert!(received.headers().get("k").is_some_and(|value| value.len() == 4000));
        // The sequence goes on for both.
        publisher.publish(&self::cloud(frame, 1)).unwrap();
        clouds.recv_timeout(DEADLINE).unwrap().expect("a small one");
    }
}

#[test]
fn a_publisher_over_a_pattern_sends_large_ones_to_whoever_wants_the_topic() {
    let dir = Dir::new();
    let (writer, one, all) = (dir.join("writer"), dir.join("one"), dir.join("all"));
    let mut one = one.raw_subscriber("camera/1").unwrap();
    let mut all = all.raw_subscriber("camera/**").unwrap();
    let mut cameras = writer.raw_publisher("camera/*").unwrap();
    for round in 0..10 {
        for camera in ["camera/1", "camera/2"] {
            let mut loan = cameras.loan_to(camera, MIB).unwrap();
            loan.fill(round);
            loan.send().unwrap();
        }
        let sample = one.recv_timeout(DEADLINE).unwrap().expect("the frame");
        assert_eq!((sample.topic(), sample.len(), sample[MIB - 1]), ("camera/1", MIB, round));
        for camera in ["camera/1", "camera/2"] {
            let sample = all.recv_timeout(DEADLINE).unwrap().expect("the frame");
            assert_eq!((sample.topic(), sample.len(), sample[0]), (camera, MIB, round));
        }
    }
}

#[test]
fn direct_messages_and_broadcasts_may_be_large() {
    let dir = Dir::new();
    let (writer, critic) = (dir.join("writer"), dir.join("critic"));
    let mut inbox = critic.raw_inbox().unwrap();
    let mut all = critic.raw_broadcasts().unwrap();
    for seed in 0..5 {
        let bytes = content(seed, MIB + seed as usize * 1000);
        writer.raw_message_to("critic", &bytes).send().unwrap();
        writer.raw_message_to_all(&bytes).send().unwrap();
        assert!(*inbox.recv_timeout(DEADLINE).unwrap().expect("the letter") == bytes);
        assert!(*all.recv_timeout(DEADLINE).unwrap().expect("the broadcast") == bytes);
    }
}

#[test]
fn what_is_not_trusted_is_copied() {
    let dir = Dir::new();
    let bus = Bus::builder("bus").dir(dir.path()).trust(Trust::Copy).open().unwrap();
    let (writer, reader) = (dir.join("writer"), bus.join("reader").unwrap());
    let mut subscriber = reader.raw_subscriber("t").unwrap();
    let mut publisher = writer.publisher_builder("t").blob_memory(4 * MIB as u64).open_raw().unwrap();
    for seed in 0..20 {
        publisher.publish(&content(seed, 3 * MIB)).unwrap();
        assert!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("the bytes") == content(seed, 3 * MIB));
    }
}

#[test]
fn readers_that_come_and_go_miss_nothing_from_their_beginning_on() {
    let dir = Dir::new();
    let writer = dir.join("writer");
    let mut publisher = writer.raw_publisher("t").unwrap();
    let mut steady = dir.join("steady").raw_subscriber("t").unwrap();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    std::thread::scope(|scope| {
        let late = scope.spawn(|| {
            for _ in 0..20 {
                let mut late = dir.join("late").raw_subscriber("t").unwrap();
                let mut due = None;
                for _ in 0..5 {
                    let sample = late.recv_timeout(DEADLINE).unwrap().expect("the next");
                    assert_eq!(sample.sequence(), due.unwrap_or(sample.sequence()));
                    assert!(*sample == content(sample.sequence(), sample.len()));
                    due = Some(sample.sequence() + 1);
                }
            }
        });
        let mut seed = 0;
        while !late.is_finished() {
            publisher.publish(&content(seed, 70_000 + seed as usize % 5 * 60_000)).unwrap();
            let sample = steady.recv_timeout(DEADLINE).unwrap().expect("the next");
            assert_eq!(sample.sequence(), seed);
            seed += 1;
        }
    });
}

pub fn large_writer(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("writer").unwrap();
    let mut publisher = node.raw_publisher("t").unwrap();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    for seed in 0..200 {
        publisher.publish(&content(seed, 100_000)).unwrap();
    }
    parent.say("done");
    parent.stay();
}

#[test]
fn many_large_ones_from_several_processes_arrive_in_order() {
    let dir = Dir::new();
    let reader = dir.join("reader");
    let mut subscriber = reader.raw_subscriber("t").unwrap();
    let mut children: Vec<_> = (0..2).map(|_| Child::start("large writer", &[dir.arg()])).collect();
    let mut due = std::collections::HashMap::new();
    for _ in 0..400 {
        let sample = subscriber.recv_timeout(DEADLINE).unwrap().expect("the next");
        let due = due.entry(sample.source().id()).or_insert(0);
        assert!(sample.sequence() == *due && *sample == content(*due, 100_000));
        *due += 1;
    }
    children.iter_mut().for_each(|child| child.expect("done"));
    children.into_iter().for_each(Child::finish);
}
