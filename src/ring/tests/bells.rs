//! Which parked readers a publish rings.

use super::fixture::{Log, filling};

const CAPACITY: u64 = 1024;

#[test]
fn a_parked_reader_is_rung_once_a_sleep() {
    let (mut log, end) = Log::with_reader(CAPACITY);
    log.write(&[]).unwrap();
    assert!(log.ring(|_| true).is_empty(), "it never slept");
    for sleep in [1, 3, 9] {
        end.park(sleep);
        log.write(&[]).unwrap();
        assert_eq!(log.ring(|_| true), [0]);
        log.write(&[]).unwrap();
        assert!(log.ring(|_| true).is_empty(), "rung for this sleep already");
        end.park(sleep + 1);
        log.write(&[]).unwrap();
        assert!(log.ring(|_| true).is_empty(), "awake");
    }
}

#[test]
fn drops_and_the_end_ring_too() {
    let (mut log, end) = Log::with_reader(CAPACITY);
    log.write(&[]).unwrap();
    end.park(1);
    log.writer.skip();
    assert_eq!(log.ring(|_| true), [0]);
    end.park(3);
    log.writer.close();
    assert_eq!(log.ring(|_| true), [0]);
}

#[test]
fn every_parked_reader_is_rung_for_itself() {
    let mut log = Log::new(CAPACITY);
    let ends: Vec<_> = (0..4).map(|info| log.reader(info)).collect();
    log.write(&[]).unwrap();
    ends[1].park(1);
    ends[3].park(5);
    assert_eq!(log.ring(|_| true), [1, 3]);
    ends[0].park(1);
    ends[3].park(7);
    assert_eq!(log.ring(|_| true), [0, 3]);
    ends[2].park(1);
    assert!(log.ring(|info| info != 2).is_empty());
    assert_eq!(log.ring(|info| info == 2), [2], "not wanted before, so not rung before");
}

#[test]
fn what_was_rung_survives_a_change_of_the_gates() {
    let (mut log, end) = Log::with_reader(CAPACITY);
    log.write(&[]).unwrap();
    end.park(1);
    assert_eq!(log.ring(|_| true), [0]);
    let _late = log.late_reader(1);
    log.gates.remove(log.late_reader(2).number);
    log.write(&[]).unwrap();
    assert!(log.ring(|_| true).is_empty());
}

#[test]
fn a_reader_that_wants_nothing_is_rung_when_half_the_log_is_unread() {
    let (mut log, end) = Log::with_reader(CAPACITY);
    end.park(1);
    while log.tail() < CAPACITY / 2 - 64 {
        log.write(&filling(64, 0)).unwrap();
        assert!(log.ring(|_| false).is_empty(), "at {}", log.tail());
    }
    log.write(&filling(64, 0)).unwrap();
    assert_eq!(log.ring(|_| false), [0]);
    log.write(&filling(64, 0)).unwrap();
    assert!(log.ring(|_| false).is_empty(), "once a sleep");
    end.park(3);
    assert_eq!(log.ring(|_| false), [0]);
}

#[test]
fn a_stale_gate_rings_nobody_who_has_read() {
    // The writer reads cursors only when its cached limit is used up: until then the gate stands at 0.
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    for sleep in 0..200 {
        log.write(&filling(64, 0)).unwrap();
        end.take();
        end.reader.flush();
        end.park(2 * sleep + 1);
        assert!(log.ring(|_| false).is_empty());
    }
}

#[test]
fn a_laggard_that_cannot_say_how_far_it_is_is_rung() {
    let mut log = Log::new(CAPACITY);
    let (deaf, mut quick) = (log.deaf_reader(1), log.reader(2));
    deaf.park(1);
    quick.park(1);
    for _ in 0..CAPACITY / 2 / 64 {
        log.write(&filling(64, 0)).unwrap();
        quick.take();
        quick.reader.flush();
    }
    assert_eq!(log.ring(|_| false), [1]);
}

#[test]
fn a_laggard_with_an_impossible_cursor_is_not_rung_but_reported() {
    let (mut log, end) = Log::with_reader(CAPACITY);
    for _ in 0..CAPACITY / 2 / 64 {
        log.write(&filling(64, 0)).unwrap();
    }
    end.park(1);
    end.forge(u64::MAX);
    assert!(log.ring(|_| false).is_empty());
    assert_eq!(log.writer.take_corrupt().len(), 1);
}

#[test]
fn a_waiting_writer_counts_its_sleeps() {
    let mut log = Log::new(CAPACITY);
    let mut seen = vec![log.waiting()];
    for _ in 0..3 {
        log.writer.arm();
        seen.push(log.waiting());
        log.writer.arm();
        seen.push(log.waiting());
        log.writer.disarm();
        seen.push(log.waiting());
        log.writer.disarm();
        assert_eq!(seen.last(), Some(&log.waiting()), "nothing to take back");
    }
    assert_eq!(seen, [0, 1, 3, 4, 5, 7, 8, 9, 11, 12]);
}
