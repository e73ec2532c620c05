//! Whatever a peer's memory holds, and however it changes between two loads, the checks and readers end
//! with an error or with something that lies within the log, after a bounded number of loads.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::fixture::{Log, bytes};
use crate::ring::layout::{CLOSED, DATA, NEXT_SEQUENCE, TAIL, WAITING};
use crate::ring::lossy::{LossyNext, LossyReader};
use crate::ring::{Corrupt, CursorSegment, FrameCopy, HEADER, LogHeader, LogLayout, Next, Reader};
use crate::segment::{Heap, Memory, MemoryMut};

/// Memory that answers each load from a function, and counts them.
#[derive(Clone)]
struct Double(Rc<Answers>);

struct Answers {
    size: usize,
    loads: Cell<usize>,
    answer: RefCell<Box<dyn FnMut(usize) -> u64>>,
    lent: Box<[u8]>,
}

impl Double {
    fn new(size: usize, answer: impl FnMut(usize) -> u64 + 'static) -> Self {
        let lent = vec![0; size].into();
        Self(Rc::new(Answers { size, loads: Cell::new(0), answer: RefCell::new(Box::new(answer)), lent }))
    }

    fn take_loads(&self) -> usize {
        self.0.loads.take()
    }
}

impl Memory for Double {
    fn size(&self) -> usize {
        self.0.size
    }

    fn load(&self, at: usize, _order: Ordering) -> u64 {
        assert!(at.is_multiple_of(8) && at < self.0.size, "load at {at}");
        self.0.loads.set(self.0.loads.get() + 1);
        (self.0.answer.borrow_mut())(at)
    }

    fn copy(&self, at: usize, into: &mut [u8]) {
        into.copy_from_slice(&self.0.lent[at..at + into.len()]);
        self.0.loads.set(self.0.loads.get() + into.len() / 8);
    }

    unsafe fn slice(&self, at: usize, len: usize) -> &[u8] {
        &self.0.lent[at..at + len]
    }
}

/// xorshift64*: what a test sees follows from its seed.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Loads that one call of `next` may take: no more than a few for each header that a capacity, looked at
/// twice, can hold, and one for each word of a frame.
fn bound(layout: LogLayout) -> usize {
    16 + 8 * (layout.capacity() / HEADER) as usize + layout.capacity() as usize / 8
}

/// Calls `next` until the log is refused or closed, `calls` times at most; records lie within the log.
fn drain_gated(log: &Double, layout: LogLayout, position: u64, calls: usize) -> Option<Corrupt> {
    let cursors = Heap::new(512);
    let mut reader = Reader::new(log.clone(), layout, cursors, 256, 1, position, Some(0)).unwrap();
    let mut lent = VecDeque::new();
    for _ in 0..calls {
        log.take_loads();
        let found = reader.next();
        assert!(log.take_loads() <= bound(layout));
        match found {
            Ok(Next::Record(record)) => {
                // The double refuses what does not lie within; the reader must not even ask for it.
                let at = layout.offset(record.frame);
                assert!(at >= DATA && at + record.len as usize <= layout.segment_size());
                assert_eq!(reader.frame().len(), record.len as usize);
                reader.copy(0, &mut vec![0; record.len.min(64) as usize]);
                if record.sequence % 3 == 0 {
                    lent.extend(reader.lend());
                    assert_eq!(lent.back().unwrap().len(), record.len as usize);
                    lent.drain(..lent.len().saturating_sub(4));
                }
            }
            Ok(Next::Lagged(count)) => assert_ne!(count, 0),
            Ok(Next::Empty) => _ = (reader.is_ready(), reader.lag()),
            Ok(Next::Closed(_)) => return None,
            Err(corrupt) => return Some(corrupt),
        }
    }
    None
}

fn drain_lossy(log: &Double, layout: LogLayout, calls: usize) -> Option<Corrupt> {
    let mut reader = LossyReader::at_tail(log.clone(), layout);
    let mut frame = FrameCopy::default();
    for _ in 0..calls {
        log.take_loads();
        let found = reader.next(&mut frame);
        assert!(log.take_loads() <= bound(layout));
        match found {
            Ok(LossyNext::Frame(_)) => assert!(frame.len() as u64 <= layout.capacity()),
            Ok(LossyNext::Lagged(count)) => assert_ne!(count, 0),
            Ok(LossyNext::Empty) => {}
            Ok(LossyNext::Closed(_)) => return None,
            Err(corrupt) => return Some(corrupt),
        }
    }
    None
}

/// A peer that mostly writes what it should: `near` follows where it is read, so that tails are close, and
/// numbers mostly follow each other; so that readers go on until they meet what is wrong.
struct Peer {
    random: Random,
    capacity: u64,
    near: u64,
    sequence: u64,
}

impl Peer {
    fn new(capacity: u64, seed: u64) -> Self {
        Self { random: Random::new(seed), capacity, near: 0, sequence: 0 }
    }

    fn word(&mut self, at: usize) -> u64 {
        if at >= DATA {
            // Headers are looked at in ascending order: a lower offset is a lap further on.
            let offset = (at - DATA) as u64 & !15;
            let lap = if offset < self.near % self.capacity { self.capacity } else { 0 };
            self.near = (self.near & !(self.capacity - 1)) + offset + lap;
        }
        match (at, self.random.below(100)) {
            (_, 0) => self.random.next(),
            (_, 1) => [0, 1, u64::MAX, u64::MAX - 15, 1 << 63, u64::MAX / 2][self.random.below(6) as usize],
            (TAIL, 2) => self.near + self.random.below(self.capacity),
            (TAIL, 3..50) => self.near + self.random.below(self.capacity / 32 + 1) * 16,
            (TAIL, _) => self.near + self.random.below(self.capacity / 16 + 1) * 16,
            (CLOSED, 2..5) => self.near,
            (CLOSED, _) => u64::MAX,
            (WAITING, _) => self.random.below(4),
            (NEXT_SEQUENCE, _) => self.sequence,
            (_, choice) if at % 16 == 8 => {
                self.sequence += u64::from(choice < 5);
                self.sequence += 1;
                self.sequence - 1
            }
            (_, choice) => self.header(at, choice),
        }
    }

    fn header(&mut self, at: usize, choice: u64) -> u64 {
        let left = self.capacity - ((at - DATA) as u64 & (self.capacity - 1)) - HEADER;
        let (len, kind) = match choice {
            2..5 => (self.random.below(self.capacity), self.random.below(4)),
            5..40 => (left, self.random.below(3)),
            _ => (self.random.below(self.capacity / 8).min(left), 2 * self.random.below(2)),
        };
        let filler = if choice.is_multiple_of(11) { self.random.below(70) } else { 0 };
        len | kind << 32 | filler << 40 | self.random.below(3) << 48
    }
}

/// A log whose every load gives another word.
fn shifting(layout: LogLayout, seed: u64) -> Double {
    let mut peer = Peer::new(layout.capacity(), seed);
    Double::new(layout.segment_size(), move |at| peer.word(at))
}

proptest! {
    #[test]
    fn words_that_change_between_loads_do_no_harm(seed: u64, order in 6u32..13) {
        let layout = LogLayout::new(1 << order).unwrap();
        for run in 0..8 {
            drain_gated(&shifting(layout, seed ^ run << 32), layout, 0, 200);
            drain_lossy(&shifting(layout, seed ^ run << 32), layout, 200);
        }
    }

    #[test]
    fn random_words_do_no_harm(seed: u64, order in 6u32..13, position: u64) {
        let layout = LogLayout::new(1 << order).unwrap();
        let mut random = Random::new(seed);
        let log = Double::new(layout.segment_size(), move |_| random.next());
        drain_gated(&log, layout, position >> 1 & !15, 50);
        drain_lossy(&log, layout, 50);
    }

    /// A log that a writer made, some of whose bytes were then changed.
    #[test]
    fn mutated_logs_do_no_harm(
        records in prop::collection::vec((0..200usize, 0..3u16, any::<bool>()), 1..40),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..64u32, any::<u64>()), 0..6),
        closed: bool,
    ) {
        let mut log = Log::new(4096);
        for (seed, (len, addressee, skip)) in records.into_iter().enumerate() {
            log.commit(&bytes(seed as u64, len), addressee).unwrap();
            log.writer.publish();
            if skip {
                log.writer.skip();
            }
        }
        if closed {
            log.writer.close();
        }
        let unharmed = changes.is_empty();
        for (at, bit, word) in changes {
            // Control words as often as record bytes.
            let data = DATA / 8 + at.index(log.tail().clamp(1, 4096) as usize / 8 + 1).min(511);
            let at = if bit % 2 == 0 { [0, 1, 2, 16, 17, 32, 48, 49][at.index(8)] } else { data } * 8;
            let old = log.memory.load(at, Ordering::Relaxed);
            log.memory.store(at, if bit < 48 { old ^ 1 << bit } else { word }, Ordering::Relaxed);
        }
        let memory = log.memory.clone();
        let double = Double::new(memory.size(), move |at| memory.load(at, Ordering::Relaxed));
        match LogLayout::check(&double) {
            Ok((layout, header)) => {
                prop_assert_eq!((layout, header), (log.layout, LogHeader { log: 1, node: [2; 16], port: 3 }));
            }
            Err(corrupt) => assert!(matches!(corrupt, Corrupt::Header { .. })),
        }
        let found = drain_gated(&double, log.layout, 0, 200);
        prop_assert!(found.is_none() || !unharmed || log.tail() > 4096, "{:?}", found);
        drain_lossy(&double, log.layout, 200);
    }

    #[test]
    fn headers_of_segments_are_checked(
        size in (0..40usize).prop_map(|words| words * 128 + 8),
        words in prop::collection::vec(any::<u64>(), 64),
        right in any::<u8>(),
    ) {
        // Some fields as they should be, so that the later checks are reached.
        let magic = |name: &[u8; 8]| u64::from_le_bytes(*name);
        for (name, offset) in [(b"RBUSLOG1", DATA as u64), (b"RBUSCUR1", 128)] {
            let mut words = words.clone();
            if right & 1 == 0 { words[0] = magic(name) }
            if right & 2 == 0 { words[1] = 1 | offset << 32 }
            if right & 4 == 0 { words[2] = 1 << (words[2] % 64) }
            if right & 8 == 0 { words[2] = (size as u64).saturating_sub(256) / 128 }
            let double = Double::new(size, move |at| words[at / 8 % 64]);
            if let Ok((layout, _)) = LogLayout::check(&double) {
                prop_assert_eq!(layout.segment_size(), size);
            }
            if let Ok(layout) = CursorSegment::check(&double) {
                let last = layout.cursor(layout.slots() - 1).unwrap();
                prop_assert!(last + 8 <= size && layout.cursor(layout.slots()).is_none());
            }
            prop_assert!(double.take_loads() <= 16);
        }
    }
}

#[test]
fn every_field_of_a_log_header_is_checked_alone() {
    let log = Log::new(4096);
    assert_eq!(LogLayout::check(&log.memory).unwrap().0, log.layout);
    for at in [0, 8, 16] {
        for bit in 0..64 {
            let word = log.memory.load(at, Ordering::Relaxed);
            log.memory.store(at, word ^ 1 << bit, Ordering::Relaxed);
            assert!(matches!(LogLayout::check(&log.memory), Err(Corrupt::Header { .. })), "{at}, bit {bit}");
            log.memory.store(at, word, Ordering::Relaxed);
        }
    }
    let small = Log::new(2048);
    assert!(LogLayout::check(&small.memory).is_err(), "a peer's log is 4 KiB at least");
    assert!(LogLayout::check(&Heap::new(8)).is_err());
}

#[test]
fn every_field_of_a_cursor_segment_header_is_checked_alone() {
    let segment = Heap::new(4096);
    let layout = CursorSegment::of_size(4096);
    layout.initialise(&segment, [1; 16], 2, 0);
    assert_eq!(layout.slots(), 30);
    assert_eq!(CursorSegment::check(&segment), Ok(layout));
    for at in [0, 8, 16] {
        for bit in 0..64 {
            let word = segment.load(at, Ordering::Relaxed);
            segment.store(at, word ^ 1 << bit, Ordering::Relaxed);
            assert!(CursorSegment::check(&segment).is_err(), "{at}, bit {bit}");
            segment.store(at, word, Ordering::Relaxed);
        }
    }
    for size in [8, 256, 376] {
        assert!(CursorSegment::check(&Heap::new(size)).is_err());
    }
}

#[test]
fn an_ungated_reader_was_led_on_by_a_tail_that_moved_with_it() {
    let layout = LogLayout::new(4096).unwrap();
    let (mut looked, mut position) = (0, 0);
    let log = Double::new(layout.segment_size(), move |at| match at {
        CLOSED => u64::MAX,
        NEXT_SEQUENCE => 0,
        TAIL => {
            looked += 1;
            // Nothing when it joins; then very far, so that there is much to read; then always near.
            [0, 1 << 40].get(looked - 1).copied().unwrap_or(position)
        }
        _ if at % 16 == 8 => 0,
        _ => {
            position += 16;
            1 << 32 // padding of one header
        }
    });
    drain_lossy(&log, layout, 10);
}

#[test]
fn a_reader_cannot_be_led_on_by_a_tail_that_moves_with_it() {
    let layout = LogLayout::new(4096).unwrap();
    let (mut position, mut sequence) = (0, 0);
    let log = Double::new(layout.segment_size(), move |at| match at {
        CLOSED => u64::MAX,
        NEXT_SEQUENCE | WAITING => 0,
        TAIL => position + 16,
        _ if at % 16 == 8 => {
            (position, sequence) = (position + 16, sequence + 1);
            sequence - 1
        }
        _ => 9 << 48, // an empty frame for somebody else
    });
    assert_eq!(drain_gated(&log, layout, 0, 1000), None);
}

#[test]
fn no_reader_stands_at_an_impossible_position() {
    let log = Log::new(4096);
    for position in [1, 8, 15, u64::MAX, u64::MAX - 15, u64::MAX / 2 + 1] {
        let reader = Reader::new(log.memory.clone(), log.layout, Heap::new(512), 256, 1, position, None);
        assert!(matches!(reader.err(), Some(Corrupt::Tail { .. })), "{position}");
    }
}
