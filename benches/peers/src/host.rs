//! What the host was like around a run. Where it had the two CPUs: on one core, on two that share a cache, or on two that
//! share none; a cache line between them tells, and some hosts move virtual CPUs every second or two. And whether neighbours
//! computed on the same cores: a calculation tells, always the same. Rows are compared in one place, the commonest, by the runs
//! that were disturbed least. (`ringbus bench` does as much.)

use std::hint::black_box;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread;
use std::time::{Duration, Instant};

use crate::control::bind;
use crate::job::Result;

/// Times of a cache line that are further apart than this are of different places. (No clock is in them, which would make
/// them look more alike.)
const ALIKE: f64 = 1.5;
/// For so long the line is timed, before a run and after it.
const GLANCE: Duration = Duration::from_millis(2);
/// Round trips between two readings of the clock.
const BATCH: u64 = 100;
/// Calculations, and rounds of each: some 15 us.
const CALCULATIONS: usize = 15;
const ROUNDS: u64 = 16_000;
/// A calculation that takes no more than this many times what it takes at best was not disturbed.
const UNDISTURBED: f64 = 1.08;
/// What it takes at best: one glance in so many saw less.
const BEST: usize = 10;
/// Of each row so many runs count though they were disturbed, if others were no less.
const FEWEST: usize = 5;

/// What the host was like at a moment, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Glance {
    /// What a cache line took from the first CPU to the second and back.
    line: f64,
    /// What the calculation took on each.
    work: [f64; 2],
}

/// Right before a run, and right after it.
pub type Around = [Glance; 2];

/// A word on lines of its own: processors fetch pairs of them.
#[derive(Default)]
#[repr(align(128))]
struct Word(AtomicU64);

pub fn glance([first, second]: [usize; 2]) -> Result<Glance> {
    let (there, back) = (Word::default(), Word::default());
    const STOP: u64 = u64::MAX;
    thread::scope(|scope| {
        let echo = scope.spawn(|| {
            let bound = bind(second);
            let mut seen = 0;
            while seen != STOP {
                let word = there.0.load(Acquire);
                if word != seen {
                    seen = word;
                    back.0.store(word, Release);
                }
            }
            bound.map(|()| calculate())
        });
        let ping = scope.spawn(|| {
            let bound = bind(first);
            let (start, mut sent, mut batches) = (Instant::now(), 0, Vec::new());
            while batches.is_empty() || start.elapsed() < GLANCE {
                let begun = Instant::now();
                for _ in 0..BATCH {
                    sent += 1;
                    there.0.store(sent, Release);
                    while back.0.load(Acquire) != sent {}
                }
                batches.push(begun.elapsed().as_nanos() as f64 / BATCH as f64);
            }
            there.0.store(STOP, Release);
            bound.map(|()| (middle(batches), calculate()))
        });
        let panicked = |_| "looking at the host has panicked";
        let theirs = echo.join().map_err(panicked)??;
        let (line, ours) = ping.join().map_err(panicked)??;
        Ok(Glance { line, work: [ours, theirs] })
    })
}

fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// Of what was timed at least once.
fn middle(times: Vec<f64>) -> f64 {
    let middle = times.len() / 2;
    sorted(times)[middle]
}

/// What the calculation takes on this CPU now.
fn calculate() -> f64 {
    let times = (0..CALCULATIONS).map(|_| {
        let start = Instant::now();
        black_box(calculation(black_box(ROUNDS)));
        start.elapsed().as_nanos() as f64
    });
    middle(times.collect())
}

/// Several sums side by side, which take what a core has: who shares it shows.
fn calculation(rounds: u64) -> u64 {
    let [mut a, mut b, mut c, mut d, mut e, mut f] = black_box([1_u64, 2, 3, 4, 5, 6]);
    for round in 0..rounds {
        a = a.wrapping_add(b ^ round);
        b = b.wrapping_add(c) ^ f;
        c ^= a >> 3;
        d = d.wrapping_add(e.wrapping_mul(3));
        e ^= d;
        f = f.wrapping_add(round);
    }
    a ^ b ^ c ^ d ^ e ^ f
}

/// By what the runs of a cell are chosen that count.
pub struct Counted {
    /// The commonest place: the shortest time of a cache line there.
    place: Option<f64>,
    /// What the calculation takes there at best, on each CPU.
    best: [f64; 2],
}

impl Counted {
    /// Of these rows' runs.
    pub fn among(rows: &[Vec<Around>]) -> Self {
        let runs = || rows.iter().flatten();
        let mut counted = Self { place: commonest(runs().filter_map(line).collect()), best: [0.0; 2] };
        counted.best = [0, 1].map(|cpu| {
            let there = runs().filter(|around| counted.is_there(around)).flatten();
            let all = sorted(there.map(|glance| glance.work[cpu]));
            all.get(all.len() / BEST).copied().unwrap_or_default()
        });
        counted
    }

    /// Whether each run of a row counts; none does, if none was there.
    pub fn of(&self, runs: &[Around]) -> Vec<bool> {
        let there = runs.iter().filter(|around| self.is_there(around));
        let least = sorted(there.map(|around| self.disturbance(around)));
        let bound = least.into_iter().take(FEWEST).fold(UNDISTURBED, f64::max);
        runs.iter().map(|around| self.is_there(around) && self.disturbance(around) <= bound).collect()
    }

    fn is_there(&self, around: &Around) -> bool {
        matches!((line(around), self.place), (Some(line), Some(least)) if (least..=least * ALIKE).contains(&line))
    }

    /// How many times what it takes at best the calculation took.
    fn disturbance(&self, around: &Around) -> f64 {
        let times = around.iter().flat_map(|glance| glance.work.into_iter().zip(self.best));
        times.map(|(work, best)| work / best).fold(0.0, f64::max)
    }
}

/// What a cache line took around a run; `None` if the host moved the CPUs meanwhile.
fn line(around: &Around) -> Option<f64> {
    let [before, after] = around.map(|glance| glance.line);
    (before.max(after) <= before.min(after) * ALIKE).then_some((before + after) / 2.0)
}

/// From each time on upwards, so that none of those that count is further from another than [`ALIKE`].
fn commonest(lines: Vec<f64>) -> Option<f64> {
    let count = |least: f64| lines.iter().filter(|line| (least..=least * ALIKE).contains(line)).count();
    lines.iter().rev().copied().max_by_key(|least| count(*least))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: [f64; 2], work: f64) -> Around {
        line.map(|line| Glance { line, work: [7.0, work] })
    }

    #[test]
    fn those_count_that_were_in_the_commonest_place_from_beginning_to_end() {
        let [near, far, moved] = [[90.0; 2], [150.0; 2], [90.0, 150.0]].map(|line| run(line, 1.0));
        let rows =
            [vec![near, far, near, moved], vec![far, near, near, run([115.0; 2], 1.0)], vec![far, moved]];
        let counted = Counted::among(&rows);
        let counts = rows.map(|row| counted.of(&row));
        assert_eq!(counts[0], [true, false, true, false]);
        assert_eq!(
            counts[1],
            [false, true, true, true],
            "what lies between two places makes them no one place"
        );
        assert_eq!(counts[2], [false, false]);
    }

    #[test]
    fn of_those_in_one_place_the_undisturbed_count_or_the_five_least_disturbed() {
        let row = |work: &[f64]| -> Vec<_> { work.iter().map(|work| run([150.0; 2], *work)).collect() };
        let quiet = row(&[1.0, 1.2, 1.05, 1.0, 1.0, 1.0, 1.0]);
        let busy = row(&[1.5, 1.6, 1.3, 1.2, 1.4, 1.7]);
        let few = row(&[1.9]);
        let rows = [quiet, busy, few];
        let counted = Counted::among(&rows);
        let [quiet, busy, few] = rows.map(|row| counted.of(&row));
        assert_eq!(quiet, [true, false, true, true, true, true, true]);
        assert_eq!(busy, [true, true, true, true, true, false]);
        assert_eq!(few, [true]);
    }
}
