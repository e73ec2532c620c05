//! To and fro: one side sends a number and waits for it to come back, the other sends back what it gets.
//!
//! The bus and its yardsticks are driven by the same two loops. The clock is read once a round trip: the end of
//! one is the beginning of the next.

use super::super::Outcome;
use super::figures::Histogram;
use super::protocol::Measured;
use crate::sys::clock::monotonic_ns;

/// Bytes of a payload that are written and read where its header is all that is touched.
pub(super) const HEADER: usize = 64;
/// The number that ends it; no other is as large.
pub(super) const STOP: u64 = u64::MAX;

/// One side's end of what is measured.
pub(super) trait Line {
    /// Sends a message that carries this number.
    fn send(&mut self, number: u64) -> Outcome;
    /// Waits for the next message; its number.
    fn receive(&mut self) -> Outcome<u64>;
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Ping { seconds: f64 },
    Echo,
}

pub(super) fn play(part: Part, mut line: impl Line) -> Outcome<Measured> {
    match part {
        Part::Ping { seconds } => ping(&mut line, seconds),
        Part::Echo => echo(&mut line),
    }
}

fn ping(line: &mut impl Line, seconds: f64) -> Outcome<Measured> {
    let mut number = 0;
    bounce(line, &mut number, seconds * WARM_UP)?;
    let times = bounce(line, &mut number, seconds)?;
    line.send(STOP)?;
    line.receive()?;
    Ok(Measured::RoundTrips(times.round_trips()))
}

/// What is done before, for caches, page tables and branch predictors, as a share of the time.
pub(super) const WARM_UP: f64 = 0.1;

/// `number` is the one that was sent last: no two in a row are the same, since that is how a bare word in memory
/// shows that something was sent.
fn bounce(line: &mut impl Line, number: &mut u64, seconds: f64) -> Outcome<Histogram> {
    let mut times = Histogram::new();
    let mut last = monotonic_ns();
    let end = last + (seconds * 1e9) as u64;
    while last < end {
        // Fits the shortest payload, and is never taken for the end.
        *number = (*number + 1) & 0x7f;
        line.send(*number)?;
        let back = line.receive()?;
        if back != *number {
            return Err(format!("number {number} came back as {back}").into());
        }
        let now = monotonic_ns();
        times.add(now - last);
        last = now;
    }
    Ok(times)
}

fn echo(line: &mut impl Line) -> Outcome<Measured> {
    loop {
        let number = line.receive()?;
        line.send(number)?;
        if number == STOP {
            return Ok(Measured::Nothing);
        }
    }
}

/// Writes a number into a payload's first bytes, as many of them as there are.
#[inline(always)]
pub(super) fn put(payload: &mut [u8], number: u64) {
    let bytes = number.to_le_bytes();
    match payload.first_chunk_mut() {
        Some(chunk) => *chunk = bytes,
        None => payload.copy_from_slice(&bytes[..payload.len()]),
    }
}

/// The number in a payload.
#[inline(always)]
pub(super) fn get(payload: &[u8]) -> u64 {
    match payload.first_chunk() {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None if payload.iter().all(|byte| *byte == 0xff) => STOP,
        None => payload.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_in_payloads_of_any_length() {
        for len in 1..=9 {
            let mut payload = vec![0; len];
            for number in [0, 1, 0x7f, STOP] {
                put(&mut payload, number);
                assert_eq!(get(&payload), number, "in {len} bytes");
            }
        }
    }

    /// Sends to itself, slowly; one number may get lost.
    #[derive(Default)]
    struct Own {
        sent: Vec<u64>,
        loses: Option<u64>,
    }

    impl Line for Own {
        fn send(&mut self, number: u64) -> Outcome {
            self.sent.push(number);
            Ok(())
        }

        fn receive(&mut self) -> Outcome<u64> {
            let last = self.sent.last().copied().unwrap_or_default();
            std::thread::sleep(std::time::Duration::from_micros(50)); // a slow host: one round trip to warm up
            Ok(if self.loses == Some(last) { last + 1 } else { last })
        }
    }

    #[test]
    fn an_answer_to_something_else_is_an_error() {
        let mut line = Own { loses: Some(3), ..Own::default() };
        assert!(ping(&mut line, 10.0).is_err());
        assert_eq!(line.sent, [1, 2, 3]);
    }

    #[test]
    fn no_two_numbers_in_a_row_are_the_same() {
        for _ in 0..10 {
            let mut line = Own::default();
            ping(&mut line, 0.0001).unwrap();
            assert!(line.sent.windows(2).all(|pair| pair[0] != pair[1]), "{:?}", line.sent);
            assert_eq!(line.sent.last(), Some(&STOP));
        }
    }
}
