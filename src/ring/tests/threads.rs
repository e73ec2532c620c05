//! A writer, a gated reader and one without a gate, each on a thread of its own, at full speed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::fixture::{End, Log};
use super::hostile::Random;
use crate::ring::lossy::{LossyNext, LossyReader};
use crate::ring::{FrameCopy, HEADER, Kind, LogLayout, Next};
use crate::segment::Heap;

const CAPACITY: u64 = 64 * 1024;
const RECORDS: u64 = 1_000_000;

/// Every frame is a piece of the same random bytes, which its number chooses.
struct Frames {
    bytes: Vec<u8>,
    largest: u64,
}

impl Frames {
    fn new() -> Self {
        let mut random = Random::new(0x72_69_6e_67);
        let bytes = (0..CAPACITY / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        Self { bytes, largest: CAPACITY / 4 - HEADER }
    }

    /// The sizes 0 to the largest, the small ones more often.
    fn frame(&self, sequence: u64) -> &[u8] {
        let mut random = Random::new(sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (order, from) = (random.below(15), random.below(CAPACITY / 2));
        let len = match random.below(64) {
            0 => self.largest,
            _ => random.below((1 << order) + 1).min(self.largest),
        };
        &self.bytes[from as usize..(from + len) as usize]
    }
}

/// Three threads share two cores here, and a lone spinner would hold one for its whole time slice.
fn idle(turns: &mut u32) {
    *turns += 1;
    if turns.is_multiple_of(64) { thread::yield_now() } else { std::hint::spin_loop() }
}

fn write(log: &mut Log, frames: &Frames) {
    let mut turns = 0;
    for sequence in 0..RECORDS {
        let frame = frames.frame(sequence);
        // By turns into a window, if it fits, and into an exact claim. An empty window does not say
        // whether a header fits.
        log.writer.claim_window();
        if sequence % 2 == 0 || frame.is_empty() || log.writer.body_mut().len() < frame.len() {
            while log.writer.claim(frame.len() as u64).is_err() {
                idle(&mut turns);
            }
        }
        log.writer.body_mut()[..frame.len()].copy_from_slice(frame);
        log.writer.commit(Kind::Frame, 0, 0, frame.len());
        log.writer.publish();
    }
    log.writer.close();
}

fn read(mut end: End, frames: &Frames) {
    let (mut due, mut bytes, mut turns) = (0, 0, 0);
    loop {
        match end.next() {
            Next::Record(record) => {
                assert_eq!(record.sequence, due);
                let frame = end.lent();
                assert!(frame == frames.frame(due), "record {due} has other bytes");
                bytes += frame.len();
                due += 1;
            }
            Next::Empty => idle(&mut turns),
            Next::Lagged(count) => panic!("{count} lost before {due}"),
            Next::Closed(_) => break,
        }
    }
    assert_eq!(due, RECORDS);
    assert_eq!(bytes, (0..RECORDS).map(|sequence| frames.frame(sequence).len()).sum::<usize>());
}

/// Reads what it can; what it gets is whole, and what it does not get is counted.
fn glance(memory: Heap, layout: LogLayout, frames: &Frames, begun: &AtomicBool) {
    let mut reader = LossyReader::at_tail(memory, layout);
    begun.store(true, Ordering::Release);
    let (mut frame, mut first, mut seen, mut missed, mut turns) = (FrameCopy::default(), None, 0, 0, 0);
    loop {
        match reader.next(&mut frame).unwrap() {
            LossyNext::Frame(sequence) => {
                assert!(*frame == *frames.frame(sequence), "record {sequence} is torn");
                // What was overwritten before its first record it cannot know.
                let first = *first.get_or_insert(sequence);
                assert_eq!(sequence, first + seen + missed, "gaps are told, and told exactly");
                seen += 1;
            }
            LossyNext::Lagged(count) => missed += count,
            LossyNext::Empty => idle(&mut turns),
            LossyNext::Closed(_) => {
                assert!(first.is_none_or(|first| first + seen + missed == RECORDS), "to the last");
                return;
            }
        }
    }
}

#[test]
fn a_million_records_arrive_whole_and_in_order() {
    let frames = Frames::new();
    let (mut log, end) = Log::with_reader(CAPACITY);
    thread::scope(|scope| {
        scope.spawn(|| read(end, &frames));
        write(&mut log, &frames);
    });
}

#[test]
fn an_ungated_reader_beside_them_accepts_nothing_torn() {
    let frames = Frames::new();
    let (mut log, end) = Log::with_reader(CAPACITY);
    let (memory, layout, begun) = (log.memory.clone(), log.layout, AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| glance(memory, layout, &frames, &begun));
        scope.spawn(|| read(end, &frames));
        while !begun.load(Ordering::Acquire) {
            thread::yield_now();
        }
        write(&mut log, &frames);
    });
}
