//! Which way large payloads are copied to their readers.
//!
//! Through the caches is fast where the lines are still the writer's: a copy of 64 KiB takes a microsecond or two then. It is
//! slow where a reader has read all of them, as most readers do: ten, or thirty where the two processors share no cache
//! (AMD, Zen 4). Past the caches it takes two in any case, but then the reader fetches them from memory. Which it is depends on
//! the processors, on where the two processes run, and on what the reader does with what it gets; so both ways are tried now
//! and then, and the clock decides.

use std::time::Instant;

use crate::frame::Encoding;
use crate::segment::Via;

/// Messages from one trial to the next: at first, while the memory is new and nobody has read it, and at most; twice as many
/// each time.
const SOON: u16 = 128;
const LATER: u16 = 2048;

/// Messages of a trial: those that find the lines as the other way has left them, and do not count; then those that go
/// through the caches, and those that go past them. Blobs are mostly that few; of a log, which has room for more, all find
/// what the other way has left.
const UNCOUNTED: u16 = 10;
const THROUGH: u16 = UNCOUNTED + 6;
const TRIAL: u16 = THROUGH + 4;

/// Nanoseconds a KiB that a copy past the caches has to gain: its reader may need longer for what it fetches from memory and
/// not from the writer's cache. Measured, of 4 KiB and more: where the processors share a cache, the writer gains 40 to 110,
/// and its reader loses 60 to 90; where they do not, the writer gains 350 to 420, and its reader loses nothing. Bytes are
/// read in place, mostly faster than they are copied in; values are decoded, which then takes longer than encoding them did.
const DETOUR_OF_BYTES: u32 = 60;
const DETOUR_OF_VALUES: u32 = 120;

/// Bytes of the smallest payload that is timed.
const LEAST: usize = 1024;

/// Sizes that are tried apart: up to 8 KiB, 32 KiB, and so on by fours; and one more, of whatever sizes.
const SIZES: usize = 8;
const ANY_SIZE: usize = SIZES;

/// What is known of payloads of one kind and about one size.
#[derive(Debug, Clone, Copy)]
struct Trial {
    /// Messages since the last trial began.
    turn: u16,
    /// Messages from that to the next one.
    cycle: u16,
    /// What a copy past the caches has to gain.
    detour: u32,
    best: Via,
    /// The shortest times in this trial, in nanoseconds a KiB.
    through: Option<u32>,
    past: Option<u32>,
}

/// What is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload {
    /// So many bytes, which are mostly read in place.
    Bytes(usize),
    /// A value that takes so many bytes.
    Value(usize),
    /// A value that is still to be encoded: one trial for all sizes, so that each turn ends in the one in which it began.
    ValueOfAnySize,
}

impl Payload {
    pub(super) fn of(encoding: Encoding, bytes: usize) -> Self {
        if encoding == Encoding::Raw { Self::Bytes(bytes) } else { Self::Value(bytes) }
    }
}

/// How one payload is copied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub(super) via: Via,
    payload: Payload,
    /// When it began, if that counts.
    started: Option<Instant>,
}

/// Of one port.
#[derive(Debug)]
pub(super) struct Copying {
    bytes: [Trial; SIZES],
    values: [Trial; SIZES + 1],
}

impl Default for Copying {
    fn default() -> Self {
        let [bytes, values] =
            [DETOUR_OF_BYTES, DETOUR_OF_VALUES].map(|detour| Trial::new(SOON, Via::Caches, detour));
        Self { bytes: [bytes; _], values: [values; _] }
    }
}

impl Copying {
    pub(super) fn begin(&mut self, payload: Payload) -> Turn {
        let (via, counts) = self.trial(payload).next();
        Turn { via, payload, started: counts.then(Instant::now) }
    }

    /// It was copied; that were so many bytes. Of fewer than [`LEAST`], as those behind a long head may be, the time says
    /// nothing.
    pub(super) fn end(&mut self, turn: Turn, bytes: usize) {
        if bytes < LEAST {
            return;
        }
        let took = turn.started.map(|started| {
            let nanos = started.elapsed().as_nanos() * 1024 / bytes as u128;
            u32::try_from(nanos).unwrap_or(u32::MAX)
        });
        self.trial(turn.payload).note(turn.via, took);
    }

    fn trial(&mut self, payload: Payload) -> &mut Trial {
        match payload {
            Payload::Bytes(bytes) => &mut self.bytes[size(bytes)],
            Payload::Value(bytes) => &mut self.values[size(bytes)],
            Payload::ValueOfAnySize => &mut self.values[ANY_SIZE],
        }
    }
}

fn size(bytes: usize) -> usize {
    let power = (bytes >> 13).checked_ilog2().map_or(0, |power| power / 2 + 1);
    (power as usize).min(SIZES - 1)
}

impl Trial {
    fn new(cycle: u16, best: Via, detour: u32) -> Self {
        Self { turn: 0, cycle, detour, best, through: None, past: None }
    }

    /// How the next one is copied, and whether its time counts.
    fn next(&self) -> (Via, bool) {
        match self.turn {
            ..UNCOUNTED => (Via::Caches, false),
            UNCOUNTED..THROUGH => (Via::Caches, true),
            THROUGH..TRIAL => (Via::Memory, true),
            _ => (self.best, false),
        }
    }

    /// One was copied, and took so long a KiB, if that counts.
    fn note(&mut self, via: Via, took: Option<u32>) {
        if let Some(took) = took {
            let shortest = if via == Via::Caches { &mut self.through } else { &mut self.past };
            *shortest = Some(shortest.map_or(took, |shortest| shortest.min(took)));
        }
        self.turn += 1;
        if self.turn == TRIAL {
            if let (Some(through), Some(past)) = (self.through, self.past) {
                self.best =
                    if past.saturating_add(self.detour) < through { Via::Memory } else { Via::Caches };
            }
        } else if self.turn == self.cycle {
            *self = Self::new(LATER.min(2 * self.cycle), self.best, self.detour);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes through one cycle where copies take so long a KiB; which way most of it goes, and how many go the other one.
    fn cycle(trial: &mut Trial, through: u32, past: u32) -> (Via, usize) {
        let ways = (0..trial.cycle).map(|_| {
            let (via, counts) = trial.next();
            let took = if via == Via::Caches { through } else { past };
            trial.note(via, counts.then_some(took));
            via
        });
        let ways: Vec<_> = ways.collect();
        let last = *ways.last().unwrap();
        (last, ways.iter().filter(|via| **via != last).count())
    }

    #[test]
    fn the_clock_decides_and_is_asked_again() {
        let mut trial = Copying::default().bytes[0];
        assert_eq!(cycle(&mut trial, 20, 30), (Via::Caches, (TRIAL - THROUGH).into()));
        assert_eq!(cycle(&mut trial, 30 + DETOUR_OF_BYTES, 30), (Via::Caches, (TRIAL - THROUGH).into()));
        assert_eq!(cycle(&mut trial, 31 + DETOUR_OF_BYTES, 30), (Via::Memory, THROUGH.into()));
        assert_eq!(cycle(&mut trial, 20, 30), (Via::Caches, (TRIAL - THROUGH).into()));
        (0..3).for_each(|_| _ = cycle(&mut trial, 20, 30));
        assert_eq!(trial.cycle, LATER);
    }

    #[test]
    fn one_that_was_interrupted_does_not_count() {
        let mut trial = Copying::default().bytes[0];
        for turn in 0..TRIAL {
            let (via, counts) = trial.next();
            let took = if via == Via::Caches && turn % 2 == 1 { 1_000_000 } else { 20 };
            trial.note(via, counts.then_some(took));
        }
        assert_eq!(trial.next(), (Via::Caches, false));
    }

    #[test]
    fn kinds_and_sizes_are_tried_apart() {
        let sizes = [0, 2048, 8191, 8192, 32767, 32768, 1 << 17, 1 << 19, 1 << 21, 1 << 23, 1 << 25, 1 << 40];
        assert_eq!(sizes.map(size), [0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 7]);
        let mut copying = Copying::default();
        for (payload, bytes) in [
            (Payload::Bytes(9000), 9000),
            (Payload::Bytes(9000), LEAST - 1), // says nothing
            (Payload::Value(70000), 70000),
            (Payload::ValueOfAnySize, 70000),
            (Payload::ValueOfAnySize, 2000),
        ] {
            let turn = copying.begin(payload);
            copying.end(turn, bytes);
        }
        assert_eq!(copying.bytes.map(|trial| trial.turn), [0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(copying.values.map(|trial| trial.turn), [0, 0, 1, 0, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn values_have_to_gain_more_than_bytes() {
        let Copying { bytes: [mut bytes, ..], values: [mut values, ..] } = Copying::default();
        assert_eq!(cycle(&mut bytes, 200, 110).0, Via::Memory);
        assert_eq!(cycle(&mut values, 200, 110).0, Via::Caches);
        assert_eq!(cycle(&mut values, 300, 110).0, Via::Memory);
    }

    #[test]
    fn what_was_not_timed_both_ways_changes_nothing() {
        for best in [Via::Caches, Via::Memory] {
            let mut trial = Trial::new(SOON, best, DETOUR_OF_BYTES);
            for turn in 0..TRIAL {
                trial.note(trial.next().0, (turn >= THROUGH).then_some(20));
            }
            assert_eq!(trial.next(), (best, false));
        }
    }
}
