//! Records lent beyond the next read: what the cursor does, whom it rings, and threads that borrow.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::fixture::{End, Log, TestReader, bytes, filling};
use crate::ring::layout::TAIL;
use crate::ring::sync::Ordering::Relaxed;
use crate::ring::writer::ClaimError;
use crate::ring::{Corrupt, Kind, Lent, Next};
use crate::segment::{Heap, MemoryMut};

const CAPACITY: u64 = 1024;

/// Takes the next record and lends it.
#[track_caller]
fn lend(end: &mut End) -> Lent<Heap> {
    end.record();
    end.reader.lend().expect("a record is in hand")
}

#[track_caller]
fn is_empty(end: &mut End) {
    assert_eq!(end.next(), Next::Empty);
}

#[test]
fn the_cursor_stays_at_the_oldest_record_that_is_lent() {
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    for seed in 0..4 {
        log.write(&filling(128, seed)).unwrap();
    }
    assert_eq!(end.take(), filling(128, 0));
    let (one, two) = (lend(&mut end), lend(&mut end));
    assert_eq!(end.take(), filling(128, 3));
    is_empty(&mut end);
    assert_eq!((end.stored(), end.reader.lag()), (128, 384));
    assert_eq!((&*one, &*two), (&filling(128, 1)[..], &filling(128, 2)[..]));

    drop(two);
    is_empty(&mut end);
    assert_eq!((end.stored(), end.reader.lag()), (128, 384), "the older one holds it");
    drop(one);
    assert_eq!((end.stored(), end.reader.lag()), (128, 0), "told at the next look, counted at once");
    is_empty(&mut end);
    assert_eq!(end.stored(), 512);
}

#[test]
fn every_way_to_store_the_cursor_stops_at_a_lent_record() {
    type Way = fn(&mut TestReader);
    let ways: [Way; 4] = [TestReader::release, TestReader::flush, |r| _ = r.lends_over(), |r| _ = r.next()];
    for way in ways {
        for waits in [false, true] {
            let (mut log, mut end) = Log::with_reader(CAPACITY);
            for seed in 0..8 {
                log.write(&filling(128, seed)).unwrap();
            }
            if waits {
                log.writer.arm();
            }
            let lent = lend(&mut end);
            while end.next() != Next::Empty {
                way(&mut end.reader);
                assert_eq!(end.stored(), 0);
            }
            assert_eq!(log.write(&[]), Err(ClaimError::Full));
            assert_eq!(*lent, filling(128, 0)[..]);
            drop(lent);
            end.reader.flush();
            assert_eq!(end.stored(), CAPACITY);
            assert_eq!(end.reader.take_ring_due(), waits);
        }
    }
}

#[test]
fn without_a_record_in_hand_nothing_is_lent() {
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    assert!(end.reader.lend().is_none());
    log.write(b"one").unwrap();
    end.take();
    assert!(end.reader.lend().is_none(), "released");
    log.write(b"two").unwrap();
    let lent = lend(&mut end);
    assert!(end.reader.lend().is_none(), "lent already");
    assert!(end.reader.frame().is_empty());
    assert_eq!(&*lent, b"two");
}

#[test]
fn frames_of_every_place_are_lent_as_they_are() {
    for start in (0..512).step_by(16) {
        let (mut log, mut end) = Log::at(512, start);
        log.writer.claim(48 + 5).unwrap();
        log.writer.body_mut()[48..53].copy_from_slice(b"frame");
        log.writer.commit(Kind::Frame, 0, 48, 5);
        log.write(&[]).unwrap();
        let (frame, empty) = (lend(&mut end), lend(&mut end));
        assert_eq!((&*frame, &*empty), (&b"frame"[..], &b""[..]));
        is_empty(&mut end);
        assert!(end.stored() >= start && !end.reader.lends_over(), "padding is passed, the record is not");
    }
}

#[test]
fn a_waiting_writer_is_rung_for_the_little_room_that_one_of_many_lends_gives() {
    // Less than an eighth of the log each: without lends that need not be told to a waiting writer at once.
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    for seed in 0..CAPACITY / 16 {
        log.write(&bytes(seed, 0)).unwrap();
    }
    let mut lent: Vec<_> = (0..CAPACITY / 16).map(|_| lend(&mut end)).collect();
    is_empty(&mut end);
    for round in 0..4 {
        assert_eq!(log.write(&[]), Err(ClaimError::Full));
        log.writer.arm();
        assert_eq!(log.write(&[]), Err(ClaimError::Full));
        is_empty(&mut end);
        assert!(!end.reader.take_ring_due() && !end.reader.is_ready(), "nothing to tell");
        drop(lent.remove(0));
        assert!(end.reader.is_ready());
        is_empty(&mut end);
        assert!(end.reader.take_ring_due(), "round {round}");
        assert!(!end.reader.is_ready());
        log.writer.disarm();
        log.write(&[]).unwrap();
        lent.push(lend(&mut end));
    }
}

#[test]
fn a_cursor_stored_without_a_fence_is_stored_with_one_once_a_lend_holds_it() {
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    log.write(&[]).unwrap();
    end.take();
    is_empty(&mut end);
    assert_eq!(end.stored(), 16, "no fence: the reader has caught up");
    log.write(&[]).unwrap();
    let _lent = lend(&mut end);
    for _ in 0..16 {
        log.write(&filling(48, 0)).unwrap();
        end.take();
    }
    // As if the writer had missed that store, and needed what it told.
    log.writer.arm();
    is_empty(&mut end);
    assert!(end.reader.take_ring_due());
    is_empty(&mut end);
    assert!(!end.reader.take_ring_due(), "told");
}

#[test]
fn the_layer_above_learns_when_a_log_may_be_detached() {
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    assert!(!end.reader.has_lent() && end.reader.lends_over());
    log.write(b"one").unwrap();
    log.write(b"two").unwrap();
    let (one, two) = (lend(&mut end), lend(&mut end));
    assert!(end.reader.has_lent() && !end.reader.lends_over());
    log.writer.close();
    assert_eq!(end.next(), Next::Closed(0), "an end is told though records are lent");
    drop(one);
    assert!(end.reader.has_lent() && !end.reader.lends_over());
    drop(two);
    assert!(end.reader.has_lent(), "it has not looked");
    assert!(end.reader.lends_over() && !end.reader.has_lent());
    assert_eq!(end.stored(), log.tail());
}

#[test]
fn a_lent_record_outlives_its_reader_and_stops_the_writer() {
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    log.write(&filling(256, 1)).unwrap();
    let lent = lend(&mut end);
    let reader = end.reader;
    drop(reader);
    while log.write(&filling(64, 2)).is_ok() {}
    assert_eq!(log.tail(), CAPACITY);
    assert_eq!(*lent, filling(256, 1)[..]);
    drop(lent);
    assert_eq!(log.write(&[]), Err(ClaimError::Full), "nobody stores the cursor any more");
}

#[test]
fn reading_ends_where_it_is_told_to_though_records_are_lent() {
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    for seed in 0..4 {
        log.write(&filling(64, seed)).unwrap();
    }
    let lent = lend(&mut end);
    end.reader.end_at(0);
    is_empty(&mut end);
    assert_eq!(*lent, filling(64, 0)[..]);
    drop(lent);
    assert!(end.reader.lends_over());
    assert_eq!(end.stored(), 64);
}

#[test]
fn a_tail_that_overwrites_what_is_lent_is_refused() {
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    log.write(&filling(64, 0)).unwrap();
    log.write(&filling(64, 1)).unwrap();
    end.take();
    let lent = lend(&mut end);
    let forge = |tail| log.memory.store(TAIL, tail, Relaxed);
    forge(64 + CAPACITY + 16);
    let refused = Corrupt::Tail { tail: 64 + CAPACITY + 16, position: 64, capacity: CAPACITY };
    assert_eq!(end.reader.next(), Err(refused));
    forge(64);
    let refused = Corrupt::Tail { tail: 64, position: 128, capacity: CAPACITY };
    assert_eq!(end.reader.next(), Err(refused));
    forge(64 + CAPACITY);
    assert!(!matches!(end.reader.next(), Err(Corrupt::Tail { .. })), "what the gate allows");
    drop(lent);
}

#[test]
fn borrowers_on_other_threads_see_their_records_whole() {
    const RECORDS: u64 = 200_000;
    const BORROWERS: usize = 3;
    let len = |sequence: u64| (sequence * 37 % (CAPACITY / 4 - 16)) as usize;
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    thread::scope(|scope| {
        let (mut lenders, mut borrowers) = (Vec::new(), Vec::new());
        for _ in 0..BORROWERS {
            let (lender, lends) = mpsc::channel::<(u64, Lent<Heap>)>();
            lenders.push(lender);
            borrowers.push(scope.spawn(move || {
                let check = |(sequence, lent): (u64, Lent<Heap>)| {
                    assert!(*lent == bytes(sequence, len(sequence)), "record {sequence}");
                };
                let (mut held, mut checked) = (Vec::new(), 0);
                while let Ok(first) = lends.recv() {
                    // What has come by now, the youngest first: so lends end out of order.
                    held.push(first);
                    held.extend(lends.try_iter());
                    checked += held.len() as u64;
                    held.drain(..).rev().for_each(check);
                }
                checked
            }));
        }
        scope.spawn(move || {
            for sequence in 0..RECORDS {
                let frame = bytes(sequence, len(sequence));
                while log.write(&frame).is_err() {
                    assert!(Instant::now() < deadline, "record {sequence} never had room");
                    thread::yield_now();
                }
            }
            log.writer.close();
        });
        let mut due = 0;
        loop {
            match end.next() {
                Next::Record(record) => {
                    assert_eq!(record.sequence, due);
                    let to = &lenders[due as usize % BORROWERS];
                    to.send((due, end.reader.lend().expect("a record is in hand"))).expect("it listens");
                    due += 1;
                }
                Next::Empty => thread::yield_now(),
                Next::Lagged(count) => panic!("{count} lost before {due}"),
                Next::Closed(_) => break,
            }
        }
        assert_eq!(due, RECORDS);
        drop(lenders);
        let checked: u64 = borrowers.into_iter().map(|borrower| borrower.join().expect("it checks")).sum();
        assert_eq!(checked, RECORDS);
        assert!(end.reader.lends_over());
    });
}
