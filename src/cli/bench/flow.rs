//! One way: one side sends numbered payloads as fast as there is room, the other reads every byte of them.

use std::hint::black_box;

use super::super::Outcome;
use super::child::Side;
use super::line::{STOP, WARM_UP, get, put};
use super::protocol::Measured;
use crate::sys::clock::monotonic_ns;

/// Between two readings of the clock, at least this many bytes are sent, or [`MESSAGES`].
const BYTES: usize = 64 * 1024;
const MESSAGES: usize = 256;

/// The sending end, of one or several logs.
pub(super) trait Source {
    /// Sends a message that carries this number; in turn, over the logs.
    fn send(&mut self, number: u64) -> Outcome;
    /// Sends [`STOP`] over each log.
    fn stop(&mut self) -> Outcome;
}

/// The receiving end.
pub(super) trait Sink {
    /// Waits for the next message and reads it.
    fn receive(&mut self, tally: &mut Tally) -> Outcome;
}

/// What was received.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) count: u64,
    /// Sum of the numbers.
    numbers: u64,
    /// Sum of all words, so that every byte is read.
    words: u64,
    pub(super) stops: usize,
}

impl Tally {
    /// Reads a payload.
    #[inline(always)]
    pub(super) fn read(&mut self, payload: &[u8]) {
        self.add(get(payload), sum(payload));
    }

    #[inline(always)]
    pub(super) fn add(&mut self, number: u64, words: u64) {
        if number == STOP {
            self.stops += 1;
            return;
        }
        self.count += 1;
        self.numbers = self.numbers.wrapping_add(number);
        self.words = self.words.wrapping_add(words);
    }
}

/// Payloads from this length on are read by one and the same code, whoever received them.
const LONG: usize = 512;

/// Adds up a payload's words.
#[inline(always)]
pub(super) fn sum(payload: &[u8]) -> u64 {
    if payload.len() < LONG { sum_words(payload) } else { sum_long(payload) }
}

#[inline(always)]
fn sum_words(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks();
    let sum = words.iter().fold(0_u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}

/// Not inlined, and by two cache lines a turn: a loop of four instructions may take one cycle a turn or two, by where in
/// the executable it happens to stand. In that, subject and yardstick would differ.
#[inline(never)]
fn sum_long(payload: &[u8]) -> u64 {
    let (blocks, rest) = payload.as_chunks::<128>();
    let mut sums = [0_u64; 16];
    for block in blocks {
        for (sum, word) in sums.iter_mut().zip(block.as_chunks().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    sums.iter().fold(sum_words(rest), |all, sum| all.wrapping_add(*sum))
}

/// Sends for a while to warm up, then to be timed. What of the former is still on its way when the latter begins
/// counts into its time: one log full, which is a thousandth of it or so.
pub(super) fn send(source: &mut impl Source, payload: usize, seconds: f64) -> Outcome<Measured> {
    let mut sent = Sent::default();
    sent.go_on(source, payload, seconds * WARM_UP)?;
    let (before, start_ns) = (sent.count, monotonic_ns());
    sent.go_on(source, payload, seconds)?;
    source.stop()?;
    let Sent { count, numbers } = sent;
    Ok(Measured::Sent { count, numbers, timed: count - before, start_ns })
}

#[derive(Default)]
struct Sent {
    count: u64,
    numbers: u64,
}

impl Sent {
    fn go_on(&mut self, source: &mut impl Source, payload: usize, seconds: f64) -> Outcome {
        // The largest number that fits and is not taken for the end.
        let mask = if payload < 8 { (1 << (8 * payload - 1)) - 1 } else { STOP >> 1 };
        let burst = (BYTES / payload).clamp(1, MESSAGES) as u64;
        let end = monotonic_ns() + (seconds * 1e9) as u64;
        loop {
            for number in self.count..self.count + burst {
                let number = number & mask;
                source.send(number)?;
                self.numbers = self.numbers.wrapping_add(number);
            }
            self.count += burst;
            if monotonic_ns() >= end {
                return Ok(());
            }
        }
    }
}

/// Receives until each of so many logs has stopped.
pub(super) fn receive(sink: &mut impl Sink, logs: usize) -> Outcome<Measured> {
    let mut tally = Tally::default();
    while tally.stops < logs {
        sink.receive(&mut tally)?;
    }
    black_box(tally.words);
    let Tally { count, numbers, .. } = tally;
    Ok(Measured::Received { count, numbers, end_ns: monotonic_ns() })
}

/// The yardstick within one process: each payload is copied into a ring of `ring` bytes, and read there.
pub(super) fn copy(payload: usize, seconds: f64, side: Side<'_>) -> Outcome<Measured> {
    side.ready(None)?;
    let mut from = vec![7; payload];
    let slots = (super::capacity(payload) as usize / payload).max(1);
    let mut ring = vec![0; slots * payload];
    let mut sums = 0_u64;
    let mut copy_for = |seconds: f64| {
        let burst = (BYTES / payload).clamp(1, MESSAGES);
        let start = monotonic_ns();
        let end = start + (seconds * 1e9) as u64;
        let (mut count, mut slot) = (0, 0);
        loop {
            for _ in 0..burst {
                put(&mut from, count);
                let to = &mut ring[slot * payload..(slot + 1) * payload];
                to.copy_from_slice(black_box(&from));
                sums = sums.wrapping_add(sum(black_box(to)));
                slot = if slot + 1 == slots { 0 } else { slot + 1 };
                count += 1;
            }
            let now = monotonic_ns();
            if now >= end {
                return (count * payload as u64) as f64 / ((now - start) as f64 / 1e9);
            }
        }
    };
    copy_for(seconds * WARM_UP);
    let rate = copy_for(seconds);
    black_box(sums);
    Ok(Measured::BytesPerSecond(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        for len in (1..40).chain([LONG, LONG + 7, LONG + 127, 2 * LONG + 9]) {
            let mut payload = vec![0; len];
            for at in 0..len {
                payload[at] = 1;
                assert_eq!(sum(&payload), 1 << (8 * if at < len / 8 * 8 { at % 8 } else { 0 }));
                payload[at] = 0;
            }
        }
    }

    /// Loses one number in a hundred; what is sent is received at once.
    #[derive(Default)]
    struct Pipe {
        payloads: std::collections::VecDeque<Vec<u8>>,
        loses: bool,
    }

    impl Source for Pipe {
        fn send(&mut self, number: u64) -> Outcome {
            if !self.loses || number % 100 != 50 {
                let mut payload = vec![0; 16];
                put(&mut payload, number);
                self.payloads.push_back(payload);
            }
            Ok(())
        }

        fn stop(&mut self) -> Outcome {
            self.payloads.push_back(vec![0xff; 16]);
            Ok(())
        }
    }

    impl Sink for Pipe {
        fn receive(&mut self, tally: &mut Tally) -> Outcome {
            tally.read(&self.payloads.pop_front().expect("it was sent"));
            Ok(())
        }
    }

    #[test]
    fn what_is_lost_is_missing_in_the_tally() {
        for loses in [false, true] {
            let mut pipe = Pipe { loses, ..Pipe::default() };
            let Ok(Measured::Sent { count: sent, numbers: sent_numbers, timed, .. }) =
                send(&mut pipe, 16, 0.0001)
            else {
                panic!("sending fails")
            };
            let Ok(Measured::Received { count, numbers, .. }) = receive(&mut pipe, 1) else {
                panic!("receiving fails")
            };
            assert!(timed >= 256 && sent >= timed + 256, "{timed} of {sent}");
            assert_eq!((count == sent, numbers == sent_numbers), (!loses, !loses));
        }
    }
}
