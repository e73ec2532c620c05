//! Where the host has the two CPUs: on one core, on two that share a cache, or on two that share none. A cache line between
//! them tells, and some hosts move virtual CPUs every second or two. Rows are compared in one place, the commonest.

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

/// A word on lines of its own: processors fetch pairs of them.
#[derive(Default)]
#[repr(align(128))]
struct Word(AtomicU64);

/// Nanoseconds that a cache line takes from the first CPU to the second and back, just now.
pub fn glance([first, second]: [usize; 2]) -> Result<f64> {
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
            bound
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
            batches.sort_unstable_by(f64::total_cmp);
            bound.map(|()| batches[batches.len() / 2])
        });
        let panicked = |_| "timing a cache line has panicked";
        echo.join().map_err(panicked)??;
        ping.join().map_err(panicked)?
    })
}

/// Where a run was, by the cache line before and after it; `None` if the host moved the CPUs meanwhile.
pub fn stayed(before: f64, after: f64) -> Option<f64> {
    (before.max(after) <= before.min(after) * ALIKE).then_some((before + after) / 2.0)
}

/// The shortest time of a cache line in the place where most of these runs were as a whole.
pub fn commonest(places: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let places: Vec<f64> = places.flatten().collect();
    let count = |least: f64| places.iter().filter(|place| is_there(Some(**place), Some(least))).count();
    places.iter().rev().copied().max_by_key(|place| count(*place))
}

/// Whether a run was there as a whole: none of the others is further from it than [`ALIKE`].
pub fn is_there(run: Option<f64>, least: Option<f64>) -> bool {
    matches!((run, least), (Some(run), Some(least)) if (least..=least * ALIKE).contains(&run))
}
