//! Both ends against a model: a queue, and a reader that may be replaced by another at any time.

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;

use super::ends::{CURSOR_SIZE, ReadEnd, WriteEnd, initialise};
use super::{TryRead, WriteError};
use crate::ring::LogLayout;
use crate::segment::Heap;

const CAPACITY: u64 = 4096;

#[derive(Debug, Clone)]
enum Step {
    /// A message of this many bytes, eight at least.
    Write(usize),
    Read(u8),
    /// The reader is dropped, and another opens the pipe.
    Follow,
    /// The reader is killed, and another opens the pipe.
    Replace,
    /// The writer waits for room.
    Wait(bool),
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (8..1009_usize).prop_map(Step::Write),
        8 => (8..60_usize).prop_map(Step::Write),
        6 => (1..20_u8).prop_map(Step::Read),
        1 => Just(Step::Follow),
        1 => Just(Step::Replace),
        1 => any::<bool>().prop_map(Step::Wait),
        1 => Just(Step::Close),
    ]
}

fn content(number: u64, len: usize) -> Vec<u8> {
    number.to_le_bytes().into_iter().chain((8..len as u64).map(|at| (number * 31 + at) as u8)).collect()
}

/// Bytes that a message takes in the ring.
fn taken(len: usize) -> u64 {
    (16 + len as u64).next_multiple_of(16)
}

proptest! {
    #[test]
    fn messages_come_once_and_in_order_and_again_only_after_a_death(
        steps in prop::collection::vec(step(), 1..200)
    ) {
        let layout = LogLayout::new(CAPACITY).unwrap();
        let data = Arc::new(Heap::new(layout.segment_size()));
        let cursors = Arc::new(Heap::new(CURSOR_SIZE));
        initialise(&*data, &*cursors, layout, [7; 16]);
        let open = || ReadEnd::open(data.clone(), cursors.clone()).unwrap();
        let mut writer = WriteEnd::new(data.clone(), cursors.clone(), layout);
        let mut reader = open();

        // Every message that was written, by its length; how many were read.
        let mut written: Vec<usize> = Vec::new();
        let mut read = 0;
        let mut closed = false;
        let mut bytes = Vec::new();
        // A second, naive account of what lies in the ring.
        let mut unread: VecDeque<u64> = VecDeque::new();
        for step in steps {
            match step {
                Step::Write(_) if closed => {}
                Step::Write(len) => {
                    let message = content(written.len() as u64, len);
                    if writer.try_write(&message).unwrap() {
                        written.push(len);
                        unread.push_back(taken(len));
                        prop_assert!(unread.iter().sum::<u64>() <= CAPACITY);
                    } else {
                        // The record, what the reader has not told of yet, and padding at the end of the
                        // ring.
                        let needed = unread.iter().sum::<u64>() + taken(len) + CAPACITY / 8 + CAPACITY / 4;
                        prop_assert!(needed > CAPACITY, "{needed} bytes of {CAPACITY}");
                    }
                }
                Step::Read(count) => for _ in 0..count {
                    let before = bytes.clone();
                    match reader.try_read(&mut bytes).unwrap() {
                        TryRead::Message => {
                            prop_assert_eq!(&bytes, &content(read as u64, written[read]));
                            read += 1;
                            unread.pop_front();
                        }
                        found => {
                            prop_assert_eq!(read, written.len());
                            prop_assert_eq!(found == TryRead::End, closed);
                            prop_assert_eq!(&bytes, &before);
                        }
                    }
                },
                Step::Follow => {
                    reader.flush();
                    reader = open();
                }
                Step::Replace => {
                    reader = open();
                    // It begins where the last one did, or before that by less than an eighth.
                    let first = match reader.try_read(&mut bytes).unwrap() {
                        TryRead::Message => u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize,
                        _ => written.len(),
                    };
                    prop_assert!(first <= read);
                    let again = written[first..read].iter().map(|&len| taken(len)).sum::<u64>();
                    prop_assert!(again < CAPACITY / 8, "{again} bytes again");
                    if first < written.len() {
                        prop_assert_eq!(&bytes, &content(first as u64, written[first]));
                    }
                    read = written.len().min(first + 1);
                    unread = written[read..].iter().map(|&len| taken(len)).collect();
                }
                Step::Wait(true) => writer.arm(),
                Step::Wait(false) => writer.disarm(),
                Step::Close => {
                    writer.close();
                    closed = true;
                }
            }
        }
    }
}

#[test]
fn a_pipe_does_without_its_reader_until_it_is_full_and_no_longer() {
    let layout = LogLayout::new(CAPACITY).unwrap();
    let data = Arc::new(Heap::new(layout.segment_size()));
    let cursors = Arc::new(Heap::new(CURSOR_SIZE));
    initialise(&*data, &*cursors, layout, [7; 16]);
    let mut writer = WriteEnd::new(data.clone(), cursors.clone(), layout);
    for number in 0..CAPACITY / 64 {
        assert!(writer.try_write(&content(number, 48)).unwrap());
    }
    assert!(!writer.try_write(&[]).unwrap());
    let too_large = writer.try_write(&vec![0; 1009]);
    assert!(matches!(too_large, Err(WriteError::TooLarge { size: 1009, limit: 1008 })));
    let mut reader = ReadEnd::open(data, cursors).unwrap();
    let mut bytes = Vec::new();
    for number in 0..CAPACITY / 64 {
        assert_eq!(reader.try_read(&mut bytes).unwrap(), TryRead::Message);
        assert_eq!(bytes, content(number, 48));
    }
    assert_eq!(reader.try_read(&mut bytes).unwrap(), TryRead::Nothing);
}
