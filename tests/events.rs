//! Every message published arrives, whole, once and in order, across processes.
//!
//! Sized for a debug build on two cores, where each of the two takes about five seconds.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

mod support;
use support::{Child, DEADLINE, Dir, Parent};

const WRITERS: u64 = 3;
const READERS: usize = 3;

/// Not a test of its own but the second process of those here: does nothing unless one of them started it.
#[test]
fn child() {
    support::play(&[
        ("writer", writer),
        ("reader", reader),
        ("typed writer", typed_writer),
        ("typed reader", typed_reader),
    ]);
}

/// Bytes that any process can tell from `(writer, counter)`: both numbers as far as they fit, then a
/// stretch of noise, 0 to 6 KiB in all, mostly short.
struct Content {
    noise: Vec<u8>,
}

impl Content {
    fn new() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15;
        let noise = std::iter::repeat_with(|| {
            state = scramble(state);
            state as u8
        });
        Self { noise: noise.take(64 * 1024).collect() }
    }

    fn fill(&self, writer: u64, counter: u64, into: &mut Vec<u8>) {
        let random = scramble(writer << 56 ^ counter);
        let len = match random % 16 {
            0 => random >> 8 & 0x17ff,
            1..4 => random >> 8 & 0x1ff,
            _ => random >> 8 & 0x3f,
        };
        let start = (random >> 32) as usize % (self.noise.len() - 0x1800);
        into.clear();
        into.extend_from_slice(&writer.to_le_bytes());
        into.extend_from_slice(&counter.to_le_bytes());
        into.extend_from_slice(&self.noise[start..start + len as usize]);
        into.truncate(len as usize);
    }
}

/// One round of splitmix64.
fn scramble(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn a_million_messages_of_three_writers_reach_three_readers_exactly() {
    exchange("reader", "writer", 1_000_000 / WRITERS + 1);
}

#[test]
fn typed_messages_of_three_writers_reach_three_readers_exactly() {
    exchange("typed reader", "typed writer", 20_000);
}

/// Readers open first, so nothing may be missing; the writers all write at once.
fn exchange(reader: &str, writer: &str, messages: u64) {
    let dir = Dir::new();
    let messages = messages.to_string();
    let mut readers: Vec<_> = (0..READERS).map(|_| Child::start(reader, &[dir.arg(), &messages])).collect();
    readers.iter_mut().for_each(|reader| reader.expect("open"));
    let mut writers: Vec<_> = (0..WRITERS)
        .map(|number| Child::start(writer, &[dir.arg(), &messages, &number.to_string()]))
        .collect();
    writers.iter_mut().for_each(|writer| writer.expect("open"));
    writers.iter_mut().for_each(|writer| writer.tell("go"));
    for writer in &mut writers {
        assert_eq!(writer.line_within(4 * DEADLINE), "done");
    }
    readers.into_iter().for_each(Child::finish);
    writers.into_iter().for_each(Child::finish);
}

fn writer(parent: &mut Parent, args: &[&str]) {
    let (messages, number) = (args[1].parse().unwrap(), args[2].parse().unwrap());
    let node = support::bus(args[0]).join(&format!("writer-{number}")).unwrap();
    let overflow = ringbus::Overflow::Block { timeout: DEADLINE };
    let mut port = node.publisher_builder(&format!("bytes/{number}")).overflow(overflow).open_raw().unwrap();
    parent.say("open");
    parent.hear("go");
    let (content, mut bytes) = (Content::new(), Vec::new());
    for counter in 0..messages {
        content.fill(number, counter, &mut bytes);
        if counter % 8 == 0 {
            let mut loan = port.loan(bytes.len()).unwrap();
            loan.copy_from_slice(&bytes);
            loan.send().unwrap();
        } else {
            port.publish(&bytes).unwrap();
        }
    }
    parent.say("done");
    parent.stay();
}

fn reader(parent: &mut Parent, args: &[&str]) {
    let messages: u64 = args[1].parse().unwrap();
    let node = support::bus(args[0]).join("reader").unwrap();
    let mut port = node.raw_subscriber("bytes/*").unwrap();
    parent.say("open");
    let (content, mut expected) = (Content::new(), Vec::new());
    let mut due: HashMap<u64, u64> = HashMap::new();
    for _ in 0..messages * WRITERS {
        let sample = port.recv_timeout(DEADLINE).unwrap().expect("another message");
        let writer = sample.topic().strip_prefix("bytes/").unwrap().parse().unwrap();
        let counter = due.entry(writer).or_default();
        assert_eq!(sample.sequence(), *counter);
        content.fill(writer, *counter, &mut expected);
        assert!(*sample == *expected, "message {counter} of writer {writer} differs");
        *counter += 1;
    }
    assert_eq!(due, (0..WRITERS).map(|writer| (writer, messages)).collect());
    assert!(port.recv_timeout(Duration::from_millis(1)).unwrap().is_none(), "one message too many");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Progress {
    writer: u64,
    counter: u64,
    label: String,
    parts: Vec<Option<f64>>,
    nested: Option<Box<Progress>>,
}

impl Progress {
    fn new(writer: u64, counter: u64) -> Self {
        let random = scramble(writer << 56 ^ counter);
        let part = |index: u64| (!index.is_multiple_of(3)).then_some(index as f64 / 7.0);
        Self {
            writer,
            counter,
            label: "µ".repeat(random as usize % 200),
            parts: (0..random >> 16 & 0x1f).map(part).collect(),
            nested: (random.is_multiple_of(5) && counter > 0)
                .then(|| Box::new(Self::new(writer, counter / 2))),
        }
    }
}

fn typed_writer(parent: &mut Parent, args: &[&str]) {
    let (messages, number) = (args[1].parse().unwrap(), args[2].parse().unwrap());
    let node = support::bus(args[0]).join(&format!("writer-{number}")).unwrap();
    let overflow = ringbus::Overflow::Block { timeout: DEADLINE };
    // A small log, so that it is full again and again.
    let builder = node.publisher_builder("value/**").capacity(32 * 1024).overflow(overflow);
    let mut port = builder.open::<Progress>().unwrap();
    parent.say("open");
    parent.hear("go");
    for counter in 0..messages {
        port.publish_to(&format!("value/{number}"), &Progress::new(number, counter)).unwrap();
    }
    parent.say("done");
    parent.stay();
}

fn typed_reader(parent: &mut Parent, args: &[&str]) {
    let messages: u64 = args[1].parse().unwrap();
    let node = support::bus(args[0]).join("reader").unwrap();
    let mut port = node.subscriber::<Progress>("value/*").unwrap();
    parent.say("open");
    let mut due: HashMap<u64, u64> = HashMap::new();
    for _ in 0..messages * WRITERS {
        let message = port.recv_timeout(DEADLINE).unwrap().expect("another message");
        let writer = message.topic().strip_prefix("value/").unwrap().parse().unwrap();
        let counter = due.entry(writer).or_default();
        assert_eq!(message.sequence(), *counter);
        assert_eq!(message.source().name(), format!("writer-{writer}"));
        assert_eq!(*message, Progress::new(writer, *counter));
        *counter += 1;
    }
    assert_eq!(due, (0..WRITERS).map(|writer| (writer, messages)).collect());
    assert!(port.recv_timeout(Duration::from_millis(1)).unwrap().is_none(), "one message too many");
}
