//! Writers that are kept from going on.

use super::fixture::{FENCE, Log};
use crate::ring::layout::ask_for_cursors;
use crate::ring::writer::ClaimError;

#[test]
fn a_halted_writer_claims_nothing_more() {
    let (mut log, mut end) = Log::with_reader(4096);
    log.write(b"before").unwrap();
    assert!(!log.writer.is_halted());
    log.gates.halt(FENCE);
    assert_eq!(log.write(b"after"), Err(ClaimError::Full));
    assert!(log.writer.is_halted());
    assert_eq!(log.writer.append(b"after"), Err(ClaimError::Full));
    log.writer.claim_window();
    assert!(log.writer.body_mut().is_empty());
    end.take();
    assert_eq!(log.write(b"after"), Err(ClaimError::Full), "nor for any room that is made");
    assert_eq!(end.next(), crate::ring::Next::Empty);
}

#[test]
fn what_was_claimed_before_is_published_and_told() {
    let (mut log, mut end) = Log::with_reader(4096);
    log.commit(b"under way", 0).unwrap();
    assert!(log.writer.ring(|_| true, |_| ()));
    log.gates.halt(FENCE);
    log.writer.publish();
    assert!(!log.writer.ring(|_| true, |_| ()));
    assert!(!log.writer.ring(|_| true, |_| ()), "asked again");
    end.take();
    log.writer.claim_window(); // with the limit behind the tail
    assert!(log.writer.body_mut().is_empty());
}

#[test]
fn readers_tell_of_each_step_when_asked() {
    let (mut log, mut end) = Log::with_reader(1 << 16);
    let other = log.reader(7);
    (0..3).for_each(|_| log.write(b"one of three").unwrap());
    let lags = |log: &Log| {
        let behind = log.gates.behind(log.tail());
        behind.into_iter().map(|(gate, lag)| (gate.info, lag)).collect::<Vec<_>>()
    };
    let all = log.tail();
    end.take();
    assert_eq!(lags(&log), [(0, all), (7, all)], "told lazily");
    ask_for_cursors(&log.memory);
    ask_for_cursors(&log.memory);
    assert_eq!(log.waiting(), 1);
    end.take();
    assert_eq!(lags(&log), [(0, all / 3), (7, all)]);
    end.take();
    assert_eq!(lags(&log), [(7, all)]);
    drop(other);
}
