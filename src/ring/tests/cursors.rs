//! When a reader stores its cursor, and when it rings a writer that waits for room.

use super::fixture::{Log, filling};
use crate::ring::Next;
use crate::ring::writer::ClaimError;

const CAPACITY: u64 = 1024;

#[test]
fn the_cursor_is_stored_every_eighth_of_the_ring() {
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    for _ in 0..CAPACITY / 16 {
        log.write(&[]).unwrap();
    }
    for read in (16..=CAPACITY).step_by(16) {
        end.take();
        assert_eq!(end.stored(), read / (CAPACITY / 8) * (CAPACITY / 8));
        assert!(!end.reader.take_ring_due());
    }
}

#[test]
fn the_cursor_is_stored_on_empty_and_on_flush() {
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    log.write(&[]).unwrap();
    end.take();
    assert_eq!(end.stored(), 0);
    end.reader.flush();
    assert_eq!(end.stored(), 16);
    log.write(&[]).unwrap();
    end.take();
    assert_eq!(end.next(), Next::Empty);
    assert_eq!(end.stored(), 32);
}

#[test]
fn a_record_in_hand_is_not_behind_the_cursor() {
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    log.write(&filling(CAPACITY / 4, 1)).unwrap();
    end.record();
    end.reader.flush();
    assert_eq!(end.stored(), 0);
    for _ in 0..3 {
        log.write(&filling(CAPACITY / 4, 2)).unwrap();
    }
    assert_eq!(log.write(&[]), Err(ClaimError::Full));
    assert_eq!(end.lent(), filling(CAPACITY / 4, 1));
    end.reader.release();
    assert_eq!(end.stored(), CAPACITY / 4);
    log.write(&[]).unwrap();
}

#[test]
fn the_cursor_is_stored_at_once_while_the_writer_waits() {
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    for _ in 0..4 {
        log.write(&[]).unwrap();
    }
    end.take();
    assert_eq!(end.stored(), 0);
    log.writer.arm();
    assert_eq!(log.waiting(), 1);
    end.take();
    assert_eq!(end.stored(), 32);
    log.writer.disarm();
    assert_eq!(log.waiting(), 2);
    end.take();
    assert_eq!(end.stored(), 32, "back to every eighth");
}

#[test]
fn records_for_others_free_room_too() {
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    log.write_to(99, &filling(CAPACITY / 8, 0)).unwrap();
    log.write_to(99, &[]).unwrap();
    log.write(&[]).unwrap();
    end.record();
    assert_eq!(end.stored(), CAPACITY / 8);
}

#[test]
fn a_waiting_writer_is_rung_once_a_wait() {
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    for _ in 0..CAPACITY / 16 {
        log.write(&[]).unwrap();
    }
    for round in 0..4 {
        log.writer.arm();
        assert_eq!(log.waiting() & 1, 1);
        end.take();
        assert!(end.reader.take_ring_due(), "round {round}");
        assert!(!end.reader.take_ring_due(), "taken");
        end.take();
        assert!(!end.reader.take_ring_due(), "rung for this wait already");
        log.writer.arm(); // it looked, and sleeps again without having been awake
        end.take();
        assert!(end.reader.take_ring_due());
        log.writer.disarm();
        assert_eq!(log.waiting() & 1, 0);
        end.take();
        assert!(!end.reader.take_ring_due(), "nobody waits");
    }
}

#[test]
fn a_flush_rings_a_waiting_writer() {
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    log.write(&[]).unwrap();
    end.take();
    log.writer.arm();
    end.reader.flush();
    assert!(end.reader.take_ring_due());
    end.reader.flush();
    assert!(!end.reader.take_ring_due(), "nothing new to tell");
}

#[test]
fn a_reader_that_has_caught_up_is_never_in_the_way_of_the_largest_claim() {
    // What `Reader::at_end` relies on when it stores the cursor without looking whether somebody waits.
    for offset in (0..CAPACITY).step_by(16) {
        let (mut log, mut end) = Log::at(CAPACITY, offset);
        for _ in 0..7 {
            log.write(&[]).unwrap();
            end.take();
        }
        assert!(log.tail() - end.stored() < CAPACITY / 8);
        log.writer.claim(log.writer.largest_body()).unwrap();
    }
}
