//! Which parts of a measurement count. What is held against each other is to have been measured on the same host:
//!
//! - A host may have its virtual CPUs on one core now, a second later on two that share a cache, and then on two that share
//!   none: a cache line takes 90, 150 or 540 ns there and back.
//! - Its neighbours may compute on the other halves of the same cores, for a tenth of a second or for minutes: what a
//!   processor computes then takes up to half as long again, what it waits for no longer.
//!
//! So both are looked at before and after each part, by means that know nothing of what is measured, and those parts count
//! that were in the commonest place, and had the CPUs to themselves as far as any had.

use std::hint::black_box;
use std::ops::RangeInclusive;

use super::super::Outcome;
use super::figures::median;
use crate::sys::clock::monotonic_ns;

/// Times of a cache line that are further apart than this are of different places.
const ALIKE: f64 = 1.4;
/// A calculation that takes no more than this many times what it takes at best was not disturbed.
const UNDISTURBED: f64 = 1.08;
/// What it takes at best: one glance in so many saw less. (A processor may run faster for a moment than it mostly can.)
const BEST: usize = 10;
/// Of each kind of part so many count though they were disturbed, if others were no less: the median is to be of a few.
const FEWEST: usize = 5;

/// What the host was like at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Glance {
    /// What a cache line took between the first two processes, there and back, in nanoseconds; of one process alone, 0.
    pub(super) line: f64,
    /// What a calculation, always the same, took on the CPU of each, in nanoseconds.
    pub(super) work: [f64; 2],
}

/// What was measured, and around what.
pub(super) struct Part<T> {
    pub(super) measured: T,
    pub(super) around: Around,
}

impl<T> Part<T> {
    pub(super) fn and_then<U>(self, read: impl FnOnce(T) -> Outcome<U>) -> Outcome<Part<U>> {
        Ok(Part { measured: read(self.measured)?, around: self.around })
    }
}

/// What the host was like right before a part, and right after it.
pub(super) type Around = [Glance; 2];

/// What the host was like around all parts of a kind.
pub(super) fn around<T>(parts: &[Part<T>]) -> Vec<Around> {
    parts.iter().map(|part| part.around).collect()
}

/// Which parts count, of all kinds that are held against each other.
pub(super) struct Counted {
    place: Option<RangeInclusive<f64>>,
    best: [f64; 2],
    /// How many times that is borne with.
    bound: f64,
}

impl Counted {
    /// Of these kinds of parts; one that was not measured at all has no say.
    pub(super) fn among(kinds: impl IntoIterator<Item = Vec<Around>>) -> Self {
        let mut kinds: Vec<_> = kinds.into_iter().filter(|kind| !kind.is_empty()).collect();
        let mut counted = Self { place: commonest(&kinds), best: [0.0; 2], bound: UNDISTURBED };
        kinds.iter_mut().for_each(|kind| kind.retain(|around| counted.is_there(around)));
        counted.best = [0, 1].map(|cpu| {
            let all = sorted(kinds.iter().flatten().flatten().map(|glance| glance.work[cpu]));
            all.get(all.len() / BEST).copied().unwrap_or_default()
        });
        for kind in &kinds {
            let all = sorted(kind.iter().map(|around| counted.disturbance(around)));
            counted.bound = all.iter().take(FEWEST).copied().fold(counted.bound, f64::max);
        }
        counted
    }

    /// Those that were disturbed count as well: for what sleeps, and waits until the host wakes it. Computing is little of
    /// that, in the subject and in its yardsticks alike, and a median of many tells more.
    pub(super) fn though_disturbed(self) -> Self {
        Self { bound: f64::INFINITY, ..self }
    }

    fn is_there(&self, around: &Around) -> bool {
        self.place.as_ref().is_none_or(|place| line(around).is_some_and(|line| place.contains(&line)))
    }

    /// How many times what it takes at best the calculation took.
    fn disturbance(&self, around: &Around) -> f64 {
        let times = around.iter().flat_map(|glance| glance.work.into_iter().zip(self.best));
        times.map(|(work, best)| work / best).fold(0.0, f64::max)
    }

    /// What those have measured that count.
    pub(super) fn of<T>(&self, parts: Vec<Part<T>>) -> Vec<T> {
        let counts =
            |part: &Part<T>| self.is_there(&part.around) && self.disturbance(&part.around) <= self.bound;
        parts.into_iter().filter(counts).map(|part| part.measured).collect()
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// What a cache line took around a part; `None` if that has changed within it.
fn line(around: &Around) -> Option<f64> {
    let [before, after] = around.map(|glance| glance.line);
    (before.max(after) <= before.min(after) * ALIKE).then_some((before + after) / 2.0)
}

/// The place where most parts were of the kind that has the fewest there; `None` if there is none with parts of each.
fn commonest(kinds: &[Vec<Around>]) -> Option<RangeInclusive<f64>> {
    let lines: Vec<Vec<_>> = kinds.iter().map(|kind| kind.iter().filter_map(line).collect()).collect();
    // From each time on upwards: no two of those that count are further apart, whatever lies between two places.
    let places = lines.iter().flatten().map(|least| *least..=least * ALIKE);
    let parts = |place: &RangeInclusive<f64>| {
        let parts = lines.iter().map(|kind| kind.iter().filter(|line| place.contains(line)).count());
        parts.clone().min().map(|fewest| (fewest, parts.sum::<usize>())).unwrap_or_default()
    };
    places.max_by_key(parts).filter(|place| parts(place).0 > 0)
}

/// Calculations, and rounds of each: a third of a millisecond.
const CALCULATIONS: usize = 15;
const ROUNDS: u64 = 16_000;

/// What a calculation takes on this CPU now, in nanoseconds: the median of a few.
pub(super) fn calculate() -> f64 {
    let times = (0..CALCULATIONS).map(|_| {
        let start = monotonic_ns();
        black_box(calculation(black_box(ROUNDS)));
        (monotonic_ns() - start) as f64
    });
    median(times.collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts that were nowhere else, and in no other state, from beginning to end.
    fn parts(glances: &[(f64, f64)]) -> Vec<Part<usize>> {
        let glance = |(line, work)| Glance { line, work: [work, 7.0] };
        let part = |(at, both): (usize, &(f64, f64))| Part { measured: at, around: [glance(*both); 2] };
        glances.iter().enumerate().map(part).collect()
    }

    /// In these places, undisturbed.
    fn in_places(lines: &[f64]) -> Vec<Part<usize>> {
        parts(&lines.iter().map(|line| (*line, 1.0)).collect::<Vec<_>>())
    }

    /// Of each kind, those that count.
    fn counted<const N: usize>(kinds: [Vec<Part<usize>>; N]) -> [Vec<usize>; N] {
        let counted = Counted::among(kinds.iter().map(|parts| around(parts)));
        kinds.map(|parts| counted.of(parts))
    }

    #[test]
    fn those_count_that_were_in_the_commonest_place_from_beginning_to_end() {
        let mut moved = in_places(&[150.0, 530.0, 160.0, 150.0, 170.0]);
        moved[3].around[1].line = 540.0;
        assert_eq!(counted([moved]), [[0, 2, 4]]);
        assert_eq!(counted([in_places(&[530.0, 150.0, 540.0])]), [[0, 2]]);
    }

    #[test]
    fn what_lies_between_two_places_does_not_make_them_one() {
        let lines = [90.0, 150.0, 115.0, 90.0, 150.0, 90.0, 150.0, 90.0];
        assert_eq!(counted([in_places(&lines)]), [[0, 2, 3, 5, 7]]);
    }

    #[test]
    fn a_place_counts_where_each_kind_has_been() {
        let (subject, yardstick) = (in_places(&[90.0, 90.0, 90.0, 150.0]), in_places(&[150.0, 150.0, 540.0]));
        assert_eq!(counted([subject, yardstick]), [vec![3], vec![0, 1]]);
        let apart = [in_places(&[150.0, 150.0]), in_places(&[540.0]), in_places(&[])];
        assert_eq!(counted(apart), [vec![0, 1], vec![0], vec![]], "all, where there is none");
        assert_eq!(counted([in_places(&[0.0])]), [[0]], "a line that could not be timed");
    }

    /// In one place, disturbed by so much.
    fn disturbed(work: &[f64]) -> Vec<Part<usize>> {
        parts(&work.iter().map(|work| (150.0, *work)).collect::<Vec<_>>())
    }

    #[test]
    fn what_was_disturbed_does_not_count() {
        let mut parts = disturbed(&[1.0, 1.3, 1.05, 1.0, 1.0, 1.0, 1.0]);
        parts[3].around[1].work[1] = 9.0; // the other CPU, and at its end
        let counted_though = Counted::among([around(&parts)]).though_disturbed();
        assert_eq!(counted_though.of(disturbed(&[1.0, 1.3])), [0, 1]);
        assert_eq!(counted([parts]), [[0, 2, 4, 5, 6]]);
    }

    #[test]
    fn what_is_faster_for_a_moment_is_not_the_best() {
        let mut parts = disturbed(&[1.0, 1.0, 1.2, 1.0, 1.0, 1.0, 1.0]);
        parts[0].around[0].work[0] = 0.9;
        assert_eq!(counted([parts]), [[0, 1, 3, 4, 5, 6]]);
    }

    #[test]
    fn where_nearly_all_were_disturbed_those_count_that_were_the_least() {
        let subject = disturbed(&[1.5, 1.2, 1.4, 1.2, 1.6, 1.5, 1.8, 1.7]);
        let yardstick = disturbed(&[1.0, 1.3, 1.6, 1.7]);
        let counts = [vec![0, 1, 2, 3, 4, 5, 7], vec![0, 1, 2, 3]];
        assert_eq!(counted([subject, yardstick]), counts, "five of each, or all, by one bound");
    }

    #[test]
    fn each_place_has_its_own_pace() {
        // Two halves of one core are slower, both of them.
        let (near, far) = ([(90.0, 1.5); 8], [(150.0, 1.0); 4]);
        let parts = parts(&[&near[..], &[(90.0, 1.9), (90.0, 1.55)], &far].concat());
        assert_eq!(counted([parts]), [[0, 1, 2, 3, 4, 5, 6, 7, 9]]);
    }

    #[test]
    fn a_calculation_takes_a_while() {
        assert!((1_000.0..100_000_000.0).contains(&calculate()));
    }
}
