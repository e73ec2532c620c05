//! Exact positions of head and tail: empty, full, wrapping, closed.

use super::fixture::{End, Log, bytes, filling};
use crate::ring::record::Header;
use crate::ring::writer::ClaimError;
use crate::ring::{HEADER, Kind, Next};

#[test]
fn an_empty_log_has_nothing() {
    let (log, mut end) = Log::with_reader(256);
    assert_eq!(end.next(), Next::Empty);
    assert!(!end.reader.is_ready());
    assert_eq!((end.reader.lag(), end.stored(), log.tail()), (0, 0, 0));
    assert!(log.is_open());
}

#[test]
fn one_record_is_found_once() {
    let (mut log, mut end) = Log::with_reader(256);
    log.commit(b"hello", 0).unwrap();
    assert_eq!(end.next(), Next::Empty, "committed is not published");
    log.writer.publish();
    assert!(end.reader.is_ready());
    assert_eq!(end.reader.lag(), 32);
    let record = end.record();
    assert_eq!((record.kind, record.frame, record.len, record.sequence), (Kind::Frame, 16, 5, 0));
    assert_eq!(end.lent(), b"hello");
    assert_eq!(end.next(), Next::Empty);
    assert!(!end.reader.is_ready());
    assert_eq!(end.reader.lag(), 0);
}

#[test]
fn a_reader_is_quiet_until_a_record_comes_and_again_once_it_is_released() {
    let (mut log, mut end) = Log::with_reader(256);
    assert!(end.reader.quiet());
    log.write(b"one").unwrap();
    log.write(b"two").unwrap();
    assert!(!end.reader.quiet());
    end.record();
    assert!(!end.reader.quiet(), "the second is known of");
    end.record();
    assert!(!end.reader.quiet(), "it is in hand");
    end.reader.release();
    assert!(end.reader.quiet());
    log.writer.skip();
    log.writer.close();
    assert!(end.reader.quiet() && end.reader.is_ready(), "no record, but something to tell");
    assert_eq!([end.next(), end.next()], [Next::Lagged(1), Next::Closed(0)]);
}

#[test]
fn records_of_every_size_take_whole_headers() {
    for len in 0..=48 {
        let (mut log, mut end) = Log::with_reader(256);
        log.write(&bytes(1, len)).unwrap();
        assert_eq!(log.tail(), (16 + len as u64).next_multiple_of(16));
        assert_eq!(end.take(), bytes(1, len));
        assert_eq!(end.next(), Next::Empty);
    }
}

#[test]
fn a_ring_filled_to_its_end_needs_no_padding() {
    let (mut log, mut end) = Log::with_reader(256);
    for seed in 0..4 {
        log.write(&filling(64, seed)).unwrap();
    }
    assert_eq!(log.tail(), 256);
    assert_eq!(log.write(&[]), Err(ClaimError::Full));
    assert_eq!(log.tail(), 256);
    assert_eq!(end.reader.lag(), 256);
    assert_eq!(end.take(), filling(64, 0));
    log.write(&filling(64, 4)).unwrap();
    assert_eq!(log.write(&[]), Err(ClaimError::Full));
    for seed in 1..5 {
        assert_eq!(end.take(), filling(64, seed));
    }
    assert_eq!(end.next(), Next::Empty);
    assert_eq!(log.tail(), 320);
}

#[test]
fn padding_of_every_size_is_passed_over() {
    const CAPACITY: u64 = 512;
    for left in (HEADER..CAPACITY / 4).step_by(16) {
        for size in (left + 16..=CAPACITY / 4).step_by(16) {
            let start = CAPACITY - left;
            let (mut log, mut end) = Log::at(CAPACITY, start);
            log.write(&filling(size, left)).unwrap();
            assert_eq!(log.tail(), CAPACITY + size);
            let padding =
                Header { len: (left - HEADER) as u32, kind: Kind::Padding, filler: 0, addressee: 0 };
            assert_eq!(log.header(start), padding.pack());
            let record = end.record();
            assert_eq!(record.frame, CAPACITY + HEADER);
            assert_eq!(record.sequence, start / 16, "padding has no number of its own");
            assert_eq!(end.lent(), filling(size, left));
            assert_eq!(end.next(), Next::Empty);
        }
    }
}

#[test]
fn a_record_that_fits_the_end_exactly_is_not_padded() {
    for size in (16..=128).step_by(16) {
        let (mut log, mut end) = Log::at(512, 512 - size);
        log.write(&filling(size, 7)).unwrap();
        assert_eq!(log.tail(), 512);
        assert_eq!(end.record().frame, 512 - size + HEADER);
        log.write(b"next").unwrap();
        assert_eq!(end.record().frame, 512 + HEADER);
    }
}

#[test]
fn the_largest_record_fits_at_every_offset() {
    for capacity in [64, 128, 1024] {
        for offset in (0..2 * capacity).step_by(16) {
            let (mut log, mut end) = Log::at(capacity, offset);
            let largest = log.writer.largest_body() as usize;
            assert_eq!(largest as u64, capacity / 4 - HEADER);
            log.write(&bytes(offset, largest)).unwrap();
            assert!(log.tail() - offset <= log.layout.largest_claim());
            assert_eq!(end.take(), bytes(offset, largest));
            assert_eq!(end.next(), Next::Empty);
        }
    }
}

#[test]
fn a_record_is_claimed_to_the_last_free_byte_and_not_one_further() {
    const CAPACITY: u64 = 512;
    for offset in (0..CAPACITY).step_by(16) {
        for unread in (0..=CAPACITY).step_by(16) {
            let (mut log, mut end) = Log::at(CAPACITY, offset);
            for _ in 0..unread / 16 {
                log.write(&[]).unwrap();
            }
            let (tail, free) = (log.tail(), CAPACITY - unread);
            for size in (16..=CAPACITY / 4).step_by(16) {
                let contiguous = log.layout.contiguous(tail);
                let needed = if size > contiguous { contiguous + size } else { size };
                let fits = log.writer.claim(size - HEADER);
                assert_eq!(fits.is_ok(), needed <= free, "{size} at {tail} with {free} free");
                assert_eq!(log.tail(), tail, "a claim publishes nothing");
            }
            for _ in 0..unread / 16 {
                assert!(end.take().is_empty());
            }
            assert_eq!(end.next(), Next::Empty);
        }
    }
}

#[test]
fn what_can_never_fit_says_how_much_can() {
    let (mut log, mut end) = Log::with_reader(256);
    for body in [49, 64, 1 << 32, u64::MAX] {
        assert_eq!(log.writer.claim(body), Err(ClaimError::TooLarge { limit: 48 }));
    }
    assert_eq!(log.writer.sequence(), 0);
    assert_eq!(end.next(), Next::Empty);
}

#[test]
fn a_window_is_what_is_free_in_one_piece() {
    const CAPACITY: u64 = 512;
    for offset in (0..CAPACITY).step_by(16) {
        for unread in (0..=CAPACITY).step_by(16) {
            let (mut log, _end) = Log::at(CAPACITY, offset);
            for _ in 0..unread / 16 {
                log.write(&[]).unwrap();
            }
            let tail = log.tail();
            let most = (CAPACITY / 4).min(log.layout.contiguous(tail)).min(CAPACITY - unread);
            log.writer.claim_window();
            assert_eq!(log.writer.body_mut().len() as u64, most.saturating_sub(HEADER));
            assert_eq!(log.writer.body_offset(), log.layout.offset(tail) + HEADER as usize);
        }
    }
}

#[test]
fn a_window_is_committed_as_far_as_it_was_used() {
    for offset in (0..512).step_by(16) {
        let (mut log, mut end) = Log::at(512, offset);
        log.writer.claim_window();
        let room = log.writer.body_mut().len();
        for used in [0, 1, room / 2, room] {
            log.writer.claim_window();
            let used = used.min(log.writer.body_mut().len());
            log.writer.body_mut()[..used].copy_from_slice(&bytes(offset, used));
            let before = log.tail();
            log.writer.commit(Kind::Frame, 0, 0, used);
            log.writer.publish();
            assert_eq!(log.tail(), before + (HEADER + used as u64).next_multiple_of(16));
            assert_eq!(end.take(), bytes(offset, used));
        }
    }
}

#[test]
fn a_claim_replaces_a_window_that_proved_too_small() {
    let (mut log, mut end) = Log::at(256, 240);
    log.writer.claim_window();
    assert_eq!(log.writer.body_mut().len(), 0, "exactly a header is left");
    log.write(b"wraps").unwrap();
    assert_eq!(end.record().frame, 256 + HEADER);
}

#[test]
fn filler_stands_before_the_frame() {
    for filler in 0..=63u8 {
        let (mut log, mut end) = Log::at(1024, 48);
        let frame = bytes(9, 100);
        let all = usize::from(filler) + frame.len();
        log.writer.claim(all as u64).unwrap();
        log.writer.body_mut()[usize::from(filler)..all].copy_from_slice(&frame);
        log.writer.commit(Kind::Frame, 0, filler, frame.len());
        log.writer.publish();
        let record = end.record();
        assert_eq!((record.frame, record.len), (48 + HEADER + u64::from(filler), 100));
        assert_eq!(end.lent(), frame);
        assert_eq!(end.next(), Next::Empty);
    }
}

#[test]
fn records_for_others_are_passed_over_and_keep_their_numbers() {
    let mut log = Log::new(1024);
    let (mut one, mut two) = (log.reader(1), log.reader(2));
    log.write_to(two.number, b"two").unwrap();
    log.write(b"all").unwrap();
    log.write_to(one.number, b"one").unwrap();
    log.write_to(two.number, b"last").unwrap();
    log.write_to(9, b"nobody").unwrap();
    let taken = |end: &mut End| {
        let mut taken = Vec::new();
        while let Next::Record(record) = end.next() {
            taken.push((record.sequence, end.lent().to_vec()));
        }
        assert_eq!(end.next(), Next::Empty, "nothing is missed");
        taken
    };
    assert_eq!(taken(&mut one), [(1, b"all".to_vec()), (2, b"one".to_vec())]);
    assert_eq!(taken(&mut two), [(0, b"two".to_vec()), (1, b"all".to_vec()), (3, b"last".to_vec())]);
    assert_eq!((one.stored(), two.stored()), (log.tail(), log.tail()));
}

#[test]
fn a_drop_is_told_to_a_reader_that_has_caught_up() {
    let (mut log, mut end) = Log::with_reader(256);
    log.writer.skip();
    assert_eq!((log.next_sequence(), log.tail()), (1, 0));
    assert!(end.reader.is_ready());
    assert_eq!(end.next(), Next::Lagged(1));
    assert!(!end.reader.is_ready());
    assert_eq!(end.next(), Next::Empty);
    log.write(b"next").unwrap();
    assert_eq!(end.record().sequence, 1);
    assert_eq!(end.next(), Next::Empty);
}

#[test]
fn drops_are_told_between_the_records_where_they_happened() {
    let (mut log, mut end) = Log::with_reader(1024);
    log.write(b"0").unwrap();
    for _ in 1..4 {
        log.writer.skip();
    }
    log.write(b"4").unwrap();
    log.write(b"5").unwrap();
    log.writer.skip();
    log.writer.skip();
    assert_eq!(end.record().sequence, 0);
    assert_eq!(end.next(), Next::Lagged(3));
    assert_eq!(end.record().sequence, 4);
    assert_eq!(end.record().sequence, 5);
    assert_eq!(end.next(), Next::Lagged(2));
    assert_eq!(end.next(), Next::Empty);
    log.writer.skip();
    assert_eq!(end.next(), Next::Lagged(1));
    log.write(b"9").unwrap();
    assert_eq!(end.record().sequence, 9);
}

#[test]
fn drops_before_the_end_are_told_before_it() {
    let (mut log, mut end) = Log::with_reader(256);
    log.write(b"0").unwrap();
    log.writer.skip();
    log.writer.skip();
    log.writer.close();
    assert_eq!(end.record().sequence, 0);
    assert_eq!(end.next(), Next::Lagged(2));
    assert_eq!(end.next(), Next::Closed(0));
    assert_eq!(end.next(), Next::Closed(0), "the end stays");
}

#[test]
fn a_reader_that_does_not_know_the_number_learns_it_from_the_first_record() {
    let mut log = Log::new(256);
    log.write(b"0").unwrap();
    log.writer.skip();
    let mut end = log.late_reader(0);
    assert_eq!(end.next(), Next::Empty, "what was dropped before it came is not its loss");
    log.write(b"2").unwrap();
    assert_eq!(end.record().sequence, 2);
    log.writer.skip();
    assert_eq!(end.next(), Next::Lagged(1));
}

#[test]
fn the_end_is_told_after_everything_was_read() {
    for records in 0..4 {
        let (mut log, mut end) = Log::with_reader(256);
        for seed in 0..records {
            log.write(&filling(64, seed)).unwrap();
        }
        log.writer.close();
        assert!(end.reader.is_ready());
        for seed in 0..records {
            assert_eq!(end.take(), filling(64, seed));
        }
        assert_eq!(end.next(), Next::Closed(0));
        assert_eq!(end.stored(), log.tail());
    }
}

#[test]
fn the_end_is_told_to_a_reader_that_had_drained() {
    let (mut log, mut end) = Log::with_reader(256);
    log.write(b"0").unwrap();
    end.take();
    assert_eq!(end.next(), Next::Empty);
    log.writer.close();
    assert!(end.reader.is_ready());
    assert_eq!(end.next(), Next::Closed(0));
}
