//! Each single thing that a writer must not have written, alone in an otherwise good log, and the error
//! that names it.

use std::sync::atomic::Ordering::Relaxed;

use super::fixture::{End, Log};
use crate::ring::layout::{CLOSED, NEXT_SEQUENCE, TAIL};
use crate::ring::lossy::{LossyNext, LossyReader};
use crate::ring::record::Header;
use crate::ring::{Corrupt, FrameCopy, Kind, Next};
use crate::segment::{Heap, Memory, MemoryMut};

const CAPACITY: u64 = 4096;
const FILLED: u64 = 1024;

/// Readers at `position`, which is also the sequence number, with `FILLED` bytes before the tail.
struct Readers {
    log: Log,
    gated: End,
    lossy: LossyReader<Heap>,
    position: u64,
}

impl Readers {
    fn at(position: u64) -> Self {
        let (log, gated) = Log::at(CAPACITY, position);
        let lossy = LossyReader::at_tail(log.memory.clone(), log.layout);
        log.memory.store(TAIL, position + FILLED, Relaxed);
        Self { log, gated, lossy, position }
    }

    fn put(&self, word: u64, sequence: u64) {
        let at = self.log.layout.offset(self.position);
        self.log.memory.store(at, word, Relaxed);
        self.log.memory.store(at + 8, sequence, Relaxed);
    }

    /// What both make of it.
    fn look(&mut self) -> (Result<Next, Corrupt>, Result<LossyNext, Corrupt>) {
        (self.gated.reader.next(), self.lossy.next(&mut FrameCopy::default()))
    }

    #[track_caller]
    fn refuse_record(&mut self, word: u64) {
        let position = self.position;
        self.put(word, position / 16);
        let refused = Corrupt::Record { position, word };
        assert_eq!(self.look(), (Err(refused), Err(refused)), "{word:#x} at {position}");
    }
}

fn header(len: u64, kind: Kind, filler: u8) -> u64 {
    Header { len: len as u32, kind, filler, addressee: 0 }.pack()
}

#[test]
fn a_good_record_is_accepted() {
    // Up to the tail, and up to the end of the ring.
    for (position, len) in [(0, FILLED - 16), (CAPACITY - 64, 48), (CAPACITY - 16, 0)] {
        let mut readers = Readers::at(position);
        readers.put(header(len, Kind::Frame, 0), position / 16);
        let (gated, lossy) = readers.look();
        assert!(matches!(gated, Ok(Next::Record(record)) if u64::from(record.len) == len), "{gated:?}");
        assert_eq!(lossy, Ok(LossyNext::Frame(position / 16)));
    }
}

#[test]
fn a_record_beyond_the_tail_is_refused() {
    for kind in [Kind::Frame, Kind::Blob, Kind::Padding] {
        for (len, filler) in
            [(FILLED - 15, 0), (FILLED, 0), (FILLED - 16, 1), (FILLED - 70, 63), (u32::MAX.into(), 63)]
        {
            Readers::at(0).refuse_record(header(len, kind, filler));
        }
    }
}

#[test]
fn a_record_beyond_the_end_of_the_ring_is_refused() {
    for kind in [Kind::Frame, Kind::Blob, Kind::Padding] {
        for (left, len, filler) in
            [(16, 1, 0), (16, 0, 1), (64, 49, 0), (64, 64, 0), (512, 500, 0), (512, 496, 63)]
        {
            Readers::at(CAPACITY - left).refuse_record(header(len, kind, filler));
        }
    }
}

#[test]
fn kinds_and_flags_of_no_version_are_refused() {
    for kind in 3..=255 {
        Readers::at(0).refuse_record(kind << 32);
    }
    for flags in 64..=255 {
        Readers::at(0).refuse_record(flags << 40);
    }
}

#[test]
fn padding_that_does_not_reach_the_end_is_refused() {
    let mut readers = Readers::at(CAPACITY - 64);
    let word = header(16, Kind::Padding, 0);
    readers.put(word, 0);
    let position = readers.position;
    assert_eq!(readers.look().0, Err(Corrupt::Record { position, word }));
}

#[test]
fn a_number_that_goes_backwards_or_is_the_last_of_all_is_refused() {
    // One record, so that either reader knows what is due.
    for sequence in [0, 3, 4, u64::MAX] {
        let mut readers = Readers::at(64);
        readers.put(header(0, Kind::Frame, 0), 4);
        assert!(matches!(readers.look(), (Ok(Next::Record(_)), Ok(LossyNext::Frame(4)))));
        readers.position = 80;
        readers.put(header(0, Kind::Frame, 0), sequence);
        let refused = Corrupt::Sequence { position: 80, sequence, expected: 5 };
        assert_eq!(readers.look(), (Err(refused), Err(refused)));
    }
    // The first record of all may not have the last number either.
    let mut readers = Readers::at(0);
    readers.put(header(0, Kind::Frame, 0), u64::MAX);
    let (gated, lossy) = readers.look();
    assert!(matches!(gated, Err(Corrupt::Sequence { .. })) && matches!(lossy, Err(Corrupt::Sequence { .. })));
}

#[test]
fn an_impossible_tail_is_refused() {
    let position = 64;
    for tail in [0, 48, 65, 72, 79, 1 << 63, u64::MAX, u64::MAX - 15] {
        let mut readers = Readers::at(position);
        readers.log.memory.store(TAIL, tail, Relaxed);
        let refused = Corrupt::Tail { tail, position, capacity: CAPACITY };
        assert_eq!(readers.look(), (Err(refused), Err(refused)));
    }
    // Too far for a reader that holds the writer back; the other one was just slow.
    let mut readers = Readers::at(position);
    let tail = position + CAPACITY + 16;
    readers.log.memory.store(TAIL, tail, Relaxed);
    let (gated, lossy) = readers.look();
    assert_eq!(gated, Err(Corrupt::Tail { tail, position, capacity: CAPACITY }));
    assert_eq!(lossy, Ok(LossyNext::Empty));
}

#[test]
fn an_end_that_is_not_the_tail_is_refused() {
    for closed in [0, 48, 80, 1 << 40, u64::MAX - 1] {
        let mut readers = Readers::at(64);
        readers.log.memory.store(TAIL, 64, Relaxed);
        readers.log.memory.store(CLOSED, closed, Relaxed);
        assert!(readers.gated.reader.is_ready());
        let refused = Corrupt::Closed { closed, tail: 64 };
        assert_eq!(readers.look(), (Err(refused), Err(refused)));
    }
}

#[test]
fn a_count_of_drops_that_then_shrinks_is_refused() {
    let mut readers = Readers::at(64);
    readers.log.memory.store(TAIL, 64, Relaxed);
    readers.log.memory.store(NEXT_SEQUENCE, u64::MAX, Relaxed);
    assert_eq!(readers.look().0, Ok(Next::Lagged(u64::MAX - 4)));
    readers.log.memory.store(NEXT_SEQUENCE, 5, Relaxed);
    assert_eq!(readers.look().0, Ok(Next::Empty));
    readers.log.memory.store(TAIL, 80, Relaxed);
    readers.put(header(0, Kind::Frame, 0), 5);
    let refused = Corrupt::Sequence { position: 64, sequence: 5, expected: u64::MAX };
    assert_eq!(readers.look().0, Err(refused));
}

#[test]
fn a_tail_that_was_refused_was_believed_at_the_next_call() {
    for tail in [48, 65, 1 << 40] {
        let mut readers = Readers::at(64);
        readers.put(header(0, Kind::Frame, 0), 4);
        readers.log.memory.store(TAIL, tail, Relaxed);
        let refused = Corrupt::Tail { tail, position: 64, capacity: CAPACITY };
        assert_eq!(readers.look().0, Err(refused));
        assert_eq!(readers.look().0, Err(refused));
        readers.log.memory.store(TAIL, 80, Relaxed);
        assert!(matches!(readers.look().0, Ok(Next::Record(_))), "it was a passing madness");
    }
}

#[test]
fn what_is_refused_stays_refused() {
    let mut readers = Readers::at(0);
    readers.refuse_record(u64::MAX);
    readers.refuse_record(u64::MAX);
    assert_eq!(readers.gated.stored(), 0);
    assert_eq!(readers.log.memory.load(TAIL, Relaxed), FILLED);
}
