//! What holds the writer back, and what does not.

use super::fixture::{FENCE, Log, TestGates, bytes, filling};
use crate::ring::sync::Arc;
use crate::ring::writer::ClaimError;
use crate::ring::{Corrupt, Gates, HEADER, LateGate, Next};
use crate::segment::Heap;

const CAPACITY: u64 = 256;

#[test]
fn nobody_holds_back_a_writer_without_readers() {
    let mut log = Log::new(CAPACITY);
    for seed in 0..100 {
        log.write(&filling(48, seed)).unwrap();
    }
    assert!(log.writer.slowest().is_none());
}

#[test]
fn the_lowest_gate_is_the_limit() {
    let mut log = Log::new(CAPACITY);
    let (mut fast, mut slow) = (log.reader(1), log.reader(2));
    for _ in 0..4 {
        log.write(&filling(64, 0)).unwrap();
        fast.take();
    }
    assert_eq!(log.write(&[]), Err(ClaimError::Full));
    let slowest = log.writer.slowest().unwrap();
    assert_eq!((slowest.info, slowest.number(), slowest.position()), (2, slow.number, 0));
    slow.take();
    log.write(&filling(64, 1)).unwrap();
    assert_eq!(log.write(&[]), Err(ClaimError::Full));
    assert_eq!(log.writer.slowest().unwrap().position(), 64);
    for _ in 0..4 {
        slow.take();
    }
    assert_eq!(log.write(&[]), Ok(()));
    assert_eq!(log.writer.slowest().unwrap().info, 1, "the fast one has not taken the last two");
}

#[test]
fn a_reader_whose_cursor_is_not_known_yet_holds_its_position() {
    let mut log = Log::new(CAPACITY);
    let mut deaf = log.deaf_reader(1);
    for seed in 0..4 {
        log.write(&filling(64, seed)).unwrap();
        assert_eq!(deaf.take(), filling(64, seed));
    }
    assert_eq!(deaf.next(), Next::Empty);
    assert_eq!(log.write(&[]), Err(ClaimError::Full));
    assert_eq!(log.writer.slowest().unwrap().position(), 0);
    deaf.follow(&log);
    for seed in 0..4 {
        log.write(&filling(64, seed)).unwrap();
    }
}

#[test]
fn a_late_reader_gets_everything_from_its_gate_on() {
    let mut log = Log::new(CAPACITY);
    for seed in 0..10 {
        log.write(&filling(48, seed)).unwrap();
    }
    let tail = log.tail();
    let mut end = log.late_reader(1);
    assert_eq!(end.stored(), tail);
    assert_eq!(end.next(), Next::Empty);
    let written = (0..100).take_while(|seed| log.write(&filling(48, *seed)).is_ok()).count() as u64;
    // At its offset the ring holds five, or four and padding.
    assert!((4..=5).contains(&written));
    for seed in 0..written {
        assert_eq!(end.take(), filling(48, seed));
    }
    assert_eq!(end.next(), Next::Empty);
}

#[test]
fn a_late_gate_stands_where_the_writer_met_it_if_it_was_first() {
    let mut log = Log::new(CAPACITY);
    log.write(b"before").unwrap();
    let LateGate { gate, position, .. } = log.gates.add_late(&log.memory, Heap::new(512), 1, FENCE).unwrap();
    assert_eq!((gate.position(), position), (32, 32));
    log.write(b"after").unwrap();
    assert_eq!(gate.position(), 32, "set once");
}

#[test]
fn a_gate_that_is_removed_holds_nobody_back() {
    let mut log = Log::new(CAPACITY);
    let (one, two) = (log.reader(1), log.reader(2));
    for _ in 0..4 {
        log.write(&filling(64, 0)).unwrap();
    }
    assert_eq!(log.write(&[]), Err(ClaimError::Full));
    assert_eq!(log.gates.remove(one.number).unwrap().info, 1);
    assert!(log.gates.remove(one.number).is_none());
    assert_eq!(log.write(&[]), Err(ClaimError::Full), "the other one is still there");
    assert_eq!(log.writer.slowest().unwrap().number(), two.number);
    log.gates.remove(two.number).unwrap();
    for seed in 0..100 {
        log.write(&filling(64, seed)).unwrap();
    }
    assert_eq!(log.gates.len(), 0);
    assert!(!log.gates.follow(one.number, one.memory.clone(), one.at));
}

#[test]
fn numbers_are_never_reused_and_run_out() {
    let gates: TestGates = Arc::new(Gates::new());
    let memory = Heap::new(512);
    for number in 1..=u16::MAX {
        let gate = gates.add_first(memory.clone(), 0).expect("65 535 numbers");
        assert_eq!(gate.number(), number);
        gates.remove(number).unwrap();
    }
    let log = Log::new(CAPACITY);
    for _ in 0..3 {
        assert!(gates.add_first(memory.clone(), 0).is_none());
        assert!(gates.add_late(&log.memory, memory.clone(), 0, FENCE).is_none());
    }
    assert_eq!(gates.len(), 0);
}

#[test]
fn lag_is_told_by_the_cursors_not_by_the_stale_gates() {
    let mut log = Log::new(CAPACITY);
    let (mut one, mut two) = (log.reader(1), log.reader(2));
    assert_eq!(log.gates.lag(0), 0);
    let size = 64;
    log.write(&filling(size, 0)).unwrap();
    one.take();
    assert_eq!(log.gates.lag(size), size, "the slowest counts");
    two.take();
    assert_eq!(log.gates.lag(size), 0);
}

#[test]
fn an_impossible_cursor_costs_its_reader_the_gate() {
    for forged in [0, 16, 63, 64 * 4 + 16, 1 << 40, u64::MAX] {
        let mut log = Log::new(CAPACITY);
        let (mut hostile, mut honest) = (log.reader(1), log.reader(2));
        for seed in 0..4 {
            log.write(&filling(64, seed)).unwrap();
        }
        hostile.take();
        assert_eq!(log.write(&[]), Err(ClaimError::Full));
        assert!(!log.writer.has_corrupt());
        hostile.forge(forged);
        assert_eq!(log.write(&[]), Err(ClaimError::Full), "the honest reader is in the way still");
        assert!(log.writer.has_corrupt());
        let why = Corrupt::Cursor { cursor: forged, gate: 64, tail: 256 };
        assert_eq!(log.writer.take_corrupt(), [(hostile.number, why)]);
        assert!(!log.writer.has_corrupt());
        for seed in 0..20 {
            assert_eq!(honest.take(), filling(64, seed), "forged {forged}");
            log.write(&filling(64, seed + 4)).unwrap();
        }
        assert!(log.writer.take_corrupt().is_empty(), "told once");
    }
}

#[test]
fn a_cursor_within_bounds_harms_only_its_reader() {
    let mut log = Log::new(CAPACITY);
    let (hostile, mut honest) = (log.reader(1), log.reader(2));
    for seed in 0..200 {
        let tail = log.tail();
        // Unaligned, and ahead of what it has read.
        hostile.forge(tail.saturating_sub(seed % 7));
        let frame = bytes(seed, (seed % 48) as usize);
        log.write(&frame).unwrap();
        assert_eq!(honest.take(), frame);
        log.writer.claim_window();
        assert_eq!(log.writer.body_mut().len() as u64 % HEADER, 0);
        assert!(log.writer.take_corrupt().is_empty());
    }
}

#[test]
fn an_unaligned_cursor_leaves_windows_aligned() {
    let (mut log, hostile) = Log::with_reader(CAPACITY);
    for seed in 0..4 {
        log.write(&filling(64, seed)).unwrap();
    }
    for cursor in 0..64 {
        hostile.forge(cursor);
        log.writer.claim_window();
        let room = log.writer.body_mut().len() as u64;
        assert_eq!(room, (cursor & !15).saturating_sub(HEADER));
    }
}
