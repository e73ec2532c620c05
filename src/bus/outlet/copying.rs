//! Which way large payloads are copied to their readers.
//!
//! Through the caches is fast where the lines are still the writer's: a copy of 64 KiB takes a microsecond or two then. It is
//! slow where a reader has read all of them, as most readers do: ten, or thirty where the two processors share no cache
//! (AMD, Zen 4). Past the caches it takes two in any case, but then the reader fetches them from memory. Which it is depends on
//! the processors, on where the two processes run, and on what the reader does with what it gets; so both ways are tried now
//! and then, and the clock decides.

use std::time::Instant;

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
const DETOUR_OF_BYTES: u64 = 60;
const DETOUR_OF_VALUES: u64 = 120;

/// Bytes of the smallest payload that is timed.
const LEAST: usize = 1024;

/// Sizes that are tried apart: up to 8 KiB, 32 KiB, and so on by fours.
const SIZES: usize = 8;

/// What is known of payloads of about one size.
#[derive(Debug, Clone, Copy)]
struct Trial {
    /// Messages since the last trial began.
    turn: u16,
    /// Messages from that to the next one.
    cycle: u16,
    best: Via,
    /// The shortest times in this trial, in nanoseconds a KiB.
    through: Option<u64>,
    past: Option<u64>,
}

/// How one payload is copied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub(super) via: Via,
    /// When it began, if that counts.
    started: Option<Instant>,
    /// What it has to gain.
    detour: u64,
}

/// Of one port.
#[derive(Debug)]
pub(super) struct Copying {
    trials: [Trial; SIZES],
    /// Bytes of the last one.
    last: usize,
}

impl Default for Copying {
    fn default() -> Self {
        let trial = Trial::new(SOON, Via::Caches);
        Self { trials: [trial; SIZES], last: 0 }
    }
}

impl Copying {
    /// A payload of so many bytes is about to be copied, or, where that is not known, of as many as the last one; it is a
    /// value's, or just bytes.
    pub(super) fn begin(&self, bytes: Option<usize>, is_value: bool) -> Turn {
        let (via, counts) = self.trials[size(bytes.unwrap_or(self.last))].next();
        let detour = if is_value { DETOUR_OF_VALUES } else { DETOUR_OF_BYTES };
        Turn { via, started: counts.then(Instant::now), detour }
    }

    /// It was copied; that were so many bytes. Of fewer than [`LEAST`], as those behind a long head may be, the time says
    /// nothing.
    pub(super) fn end(&mut self, turn: Turn, bytes: usize) {
        self.last = bytes;
        if bytes < LEAST {
            return;
        }
        let trial = &mut self.trials[size(bytes)];
        // Where the size was guessed wrongly, it may have gone another way than was due, or untimed: a turn that says nothing.
        let counts = trial.next() == (turn.via, true);
        let took = turn.started.filter(|_| counts).map(|started| started.elapsed().as_nanos() as u64);
        trial.note(turn.via, took.map(|nanos| nanos * 1024 / bytes as u64), turn.detour);
    }
}

fn size(bytes: usize) -> usize {
    let power = (bytes >> 13).checked_ilog2().map_or(0, |power| power / 2 + 1);
    (power as usize).min(SIZES - 1)
}

impl Trial {
    fn new(cycle: u16, best: Via) -> Self {
        Self { turn: 0, cycle, best, through: None, past: None }
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
    fn note(&mut self, via: Via, took: Option<u64>, detour: u64) {
        if let Some(took) = took {
            let shortest = if via == Via::Caches { &mut self.through } else { &mut self.past };
            *shortest = Some(shortest.map_or(took, |shortest| shortest.min(took)));
        }
        self.turn += 1;
        if self.turn == TRIAL {
            if let (Some(through), Some(past)) = (self.through, self.past) {
                self.best = if past + detour < through { Via::Memory } else { Via::Caches };
            }
        } else if self.turn == self.cycle {
            *self = Self::new(LATER.min(2 * self.cycle), self.best);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes through one cycle where copies take so long a KiB; which way most of it goes, and how many go the other one.
    fn cycle(trial: &mut Trial, through: u64, past: u64) -> (Via, usize) {
        let ways = (0..trial.cycle).map(|_| {
            let (via, counts) = trial.next();
            let took = if via == Via::Caches { through } else { past };
            trial.note(via, counts.then_some(took), DETOUR_OF_BYTES);
            via
        });
        let ways: Vec<_> = ways.collect();
        let last = *ways.last().unwrap();
        (last, ways.iter().filter(|via| **via != last).count())
    }

    #[test]
    fn the_clock_decides_and_is_asked_again() {
        let mut trial = Copying::default().trials[0];
        assert_eq!(cycle(&mut trial, 20, 30), (Via::Caches, (TRIAL - THROUGH).into()));
        assert_eq!(cycle(&mut trial, 30 + DETOUR_OF_BYTES, 30), (Via::Caches, (TRIAL - THROUGH).into()));
        assert_eq!(cycle(&mut trial, 31 + DETOUR_OF_BYTES, 30), (Via::Memory, THROUGH.into()));
        assert_eq!(cycle(&mut trial, 20, 30), (Via::Caches, (TRIAL - THROUGH).into()));
        (0..3).for_each(|_| _ = cycle(&mut trial, 20, 30));
        assert_eq!(trial.cycle, LATER);
    }

    #[test]
    fn one_that_was_interrupted_does_not_count() {
        let mut trial = Copying::default().trials[0];
        for turn in 0..TRIAL {
            let (via, counts) = trial.next();
            let took = if via == Via::Caches && turn % 2 == 1 { 1_000_000 } else { 20 };
            trial.note(via, counts.then_some(took), DETOUR_OF_BYTES);
        }
        assert_eq!(trial.next(), (Via::Caches, false));
    }

    #[test]
    fn sizes_are_tried_apart() {
        let sizes = [0, 2048, 8191, 8192, 32767, 32768, 1 << 17, 1 << 19, 1 << 21, 1 << 23, 1 << 25, 1 << 40];
        assert_eq!(sizes.map(size), [0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 7]);
        let mut copying = Copying::default();
        copying.end(copying.begin(Some(9000), false), 9000);
        copying.end(copying.begin(Some(LEAST - 1), false), LEAST - 1); // says nothing
        assert_eq!([0, 1, 2].map(|size| copying.trials[size].turn), [0, 1, 0]);
    }

    #[test]
    fn sizes_that_are_guessed_wrongly_do_not_keep_a_trial_from_its_end() {
        let mut copying = Copying::default();
        for bytes in [9000, 70000].repeat(SOON.into()) {
            copying.end(copying.begin(None, true), bytes);
        }
        assert_eq!([1, 2].map(|size| copying.trials[size].cycle), [2 * SOON; 2]);
    }

    #[test]
    fn what_was_not_timed_both_ways_changes_nothing() {
        for best in [Via::Caches, Via::Memory] {
            let mut trial = Trial::new(SOON, best);
            for turn in 0..TRIAL {
                trial.note(trial.next().0, (turn >= THROUGH).then_some(20), DETOUR_OF_BYTES);
            }
            assert_eq!(trial.next(), (best, false));
        }
    }
}
