//! What went wrong once, each named after it.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use super::fixture::{FENCE, Log, filling};
use crate::ring::lossy::{LossyNext, LossyReader};
use crate::ring::writer::ClaimError;
use crate::ring::{FrameCopy, HEADER, Kind, LateGate, Next, Reader};
use crate::segment::{Heap, Memory};

#[test]
fn a_gate_lost_to_a_corrupt_cursor_came_back_with_the_next_change_of_the_gates() {
    let mut log = Log::new(256);
    let (hostile, mut honest) = (log.reader(1), log.reader(2));
    hostile.forge(1 << 40);
    for seed in 0..16 {
        log.write(&filling(64, seed)).unwrap();
        assert_eq!(honest.take(), filling(64, seed));
    }
    assert_eq!(log.writer.take_corrupt().len(), 1);
    for seed in 0..4 {
        log.write(&filling(64, seed)).unwrap();
    }
    // A valid-looking cursor by now, and a new generation: the old gate is more than a ring behind.
    hostile.forge(256);
    let late = log.late_reader(3);
    log.writer.claim_window(); // underflowed: room without end
    assert_eq!(log.writer.body_mut().len(), 0);
    assert_eq!(log.write(&[]), Err(ClaimError::Full));
    assert_eq!(log.writer.slowest().unwrap().number(), honest.number);
    for seed in 0..4 {
        assert_eq!(honest.take(), filling(64, seed));
    }
    log.write(b"room again").unwrap();
    assert!(log.writer.take_corrupt().is_empty());
    log.gates.remove(hostile.number);
    log.gates.remove(late.number);
    log.write(b"and on").unwrap();
}

/// The log as the control thread sees it while the writer goes on between two of its steps.
struct Meanwhile<F>(Heap, F);

impl<F: Fn()> Memory for Meanwhile<F> {
    fn size(&self) -> usize {
        self.0.size()
    }

    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.1();
        self.0.load(at, order)
    }

    fn copy(&self, at: usize, into: &mut [u8]) {
        self.0.copy(at, into);
    }

    unsafe fn slice(&self, at: usize, len: usize) -> &[u8] {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.0.slice(at, len) }
    }
}

#[test]
fn a_late_gate_met_in_a_batch_stood_beyond_the_published_tail() {
    let log = RefCell::new(Log::new(1024));
    log.borrow_mut().write(b"published").unwrap();
    log.borrow_mut().commit(b"batched", 0).unwrap();
    let (gates, memory, layout) = {
        let log = log.borrow();
        (log.gates.clone(), log.memory.clone(), log.layout)
    };
    // The gate is listed and unset when the writer claims again.
    let meanwhile = Meanwhile(memory.clone(), || log.borrow_mut().commit(b"batched too", 0).unwrap());
    let cursors = Heap::new(512);
    let LateGate { gate, position, .. } = gates.add_late(&meanwhile, cursors.clone(), 1, FENCE).unwrap();
    let mut reader = Reader::new(memory, layout, cursors, 256, gate.number(), position, None).unwrap();
    assert_eq!(reader.next(), Ok(Next::Empty));
    log.borrow_mut().writer.publish();
    for sequence in 1..3 {
        assert!(matches!(reader.next(), Ok(Next::Record(record)) if record.sequence == sequence));
    }
    assert_eq!(reader.next(), Ok(Next::Empty));
}

#[test]
fn a_batch_outgrew_what_one_publish_may_claim() {
    for size in (16..=256).step_by(16) {
        let mut log = Log::new(1024);
        let mut tail = 0;
        for seed in 0..200 {
            log.commit(&filling(size, seed), 0).unwrap();
            let contiguous = log.layout.contiguous(tail);
            tail += if size > contiguous { contiguous + size } else { size };
            assert!(tail - log.tail() <= log.layout.largest_claim(), "record {seed} of {size} bytes");
        }
        for _ in 0..200 {
            log.writer.claim_window();
            let room = log.writer.body_mut().len();
            log.writer.commit(Kind::Frame, 0, 0, room);
            tail += HEADER + room as u64;
            assert!(tail - log.tail() <= log.layout.largest_claim(), "windows");
        }
        log.writer.publish();
        assert_eq!(log.tail(), tail);
    }
}

#[test]
fn a_drop_after_an_unpublished_record_counted_the_record_as_lost() {
    let (mut log, mut end) = Log::with_reader(256);
    log.commit(b"batched", 0).unwrap();
    log.writer.skip();
    assert_eq!(end.take(), b"batched");
    assert_eq!(end.next(), Next::Lagged(1));
    log.writer.publish();
    assert_eq!(end.next(), Next::Empty);
}

#[test]
fn a_log_closed_with_an_unpublished_record_looked_corrupt() {
    let (mut log, mut end) = Log::with_reader(256);
    log.commit(b"batched", 0).unwrap();
    log.writer.close();
    assert_eq!(end.take(), b"batched");
    assert_eq!(end.next(), Next::Closed(0));
}

#[test]
fn an_ungated_reader_that_was_overrun_before_the_end_was_never_told() {
    let mut log = Log::new(256);
    let mut reader = LossyReader::at_tail(log.memory.clone(), log.layout);
    let mut frame = FrameCopy::default();
    log.write(b"seen").unwrap();
    assert_eq!(reader.next(&mut frame), Ok(LossyNext::Frame(0)));
    for seed in 0..20 {
        log.write(&filling(64, seed)).unwrap();
    }
    log.writer.close();
    let mut missed = 0;
    loop {
        match reader.next(&mut frame).unwrap() {
            LossyNext::Lagged(count) => missed += count,
            LossyNext::Empty => {}
            LossyNext::Closed(_) => break,
            LossyNext::Frame(sequence) => panic!("{sequence} was overwritten"),
        }
    }
    assert_eq!(missed, 20);
}

#[test]
fn an_ungated_reader_took_a_record_for_another_for_a_loss() {
    let mut log = Log::new(1024);
    let mut reader = LossyReader::at_tail(log.memory.clone(), log.layout);
    let mut frame = FrameCopy::default();
    log.write(b"0").unwrap();
    log.write_to(7, b"1").unwrap();
    log.write(b"2").unwrap();
    log.write_to(7, b"3").unwrap();
    log.writer.skip();
    log.write(b"5").unwrap();
    let mut found = Vec::new();
    loop {
        match reader.next(&mut frame).unwrap() {
            LossyNext::Empty => break,
            other => found.push(other),
        }
    }
    let expected = [LossyNext::Frame(0), LossyNext::Frame(2), LossyNext::Lagged(1), LossyNext::Frame(5)];
    assert_eq!(found, expected);
}

#[test]
fn a_record_in_hand_kept_the_reader_ready_for_ever() {
    let (mut log, mut end) = Log::with_reader(256);
    log.write(b"in hand").unwrap();
    end.record();
    assert!(!end.reader.is_ready());
    log.write(b"another").unwrap();
    assert!(end.reader.is_ready());
}

#[test]
#[should_panic(expected = "commit stays within what was claimed")]
fn an_empty_record_was_committed_where_there_was_no_room() {
    let (mut log, _end) = Log::with_reader(256);
    for seed in 0..4 {
        log.write(&filling(64, seed)).unwrap();
    }
    log.writer.claim_window();
    log.writer.commit(Kind::Frame, 0, 0, 0);
}

#[test]
#[should_panic(expected = "commit stays within what was claimed")]
fn a_record_was_committed_twice_and_moved_the_tail_back() {
    let (mut log, _end) = Log::with_reader(256);
    log.write(b"once, and more than a header long").unwrap();
    log.writer.commit(Kind::Frame, 0, 0, 0);
}
