//! The bare ring as a yardstick: it waits in several ways in turn, and the fastest counts. A slow yardstick would
//! flatter what is held against it.

use super::super::Outcome;
use super::Bench;
use super::figures::{RoundTrips, median_of};
use super::pair::{Flowed, Pair, bounce, flow};
use super::place::Kept;
use super::protocol::{BareFlow, BareLine, FlowKind, LineKind, Spin};

const WAYS: [Spin; 3] = [Spin::Tight, Spin::Paused, Spin::Ahead];

/// What each way has measured, in each repetition.
pub(super) struct Yardstick<T>([Vec<T>; WAYS.len()]);

impl<T> Yardstick<T> {
    pub(super) fn new() -> Self {
        Self([const { Vec::new() }; WAYS.len()])
    }
}

impl Yardstick<RoundTrips> {
    /// One repetition.
    pub(super) fn bounce(
        &mut self,
        bench: &Bench,
        pair: &mut Pair<'_>,
        payload: usize,
        loan: bool,
    ) -> Outcome {
        for (spin, times) in WAYS.into_iter().zip(&mut self.0) {
            let line = LineKind::Bare(BareLine { payload, loan, spin });
            times.push(bounce(pair, line, bench.seconds)?);
        }
        Ok(())
    }

    /// The medians of the fastest way, of the repetitions that count: p50 and p99.
    pub(super) fn best(self, kept: &Kept) -> (f64, f64) {
        let medians = self.0.map(|times| kept.of(times)).map(|times| {
            (median_of(&times, |times| times.p50 as f64), median_of(&times, |times| times.p99 as f64))
        });
        medians.into_iter().fold(
            (f64::INFINITY, f64::INFINITY),
            |best, way| {
                if way.0 < best.0 { way } else { best }
            },
        )
    }
}

impl Yardstick<Flowed> {
    /// One repetition.
    pub(super) fn flow(
        &mut self,
        bench: &Bench,
        pair: &mut Pair<'_>,
        payload: usize,
        loan: bool,
        readers: usize,
    ) -> Outcome {
        for (spin, flows) in WAYS.into_iter().zip(&mut self.0) {
            let kind = FlowKind::Bare(BareFlow { payload, loan, readers, spin });
            flows.push(flow(pair, kind, &[kind], bench.seconds)?);
        }
        Ok(())
    }

    /// The median of the fastest way, of the repetitions that count, in messages received a second.
    pub(super) fn best(self, kept: &Kept) -> f64 {
        let rates = self.0.map(|flows| median_of(&kept.of(flows), |flow| flow.received_per_s));
        rates.into_iter().fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::super::place::Places;
    use super::*;

    #[test]
    fn the_fastest_way_counts() {
        // The second repetition does not.
        let mut places = Places::default();
        [[1.0, 1.0], [1.0, 3.0], [1.0, 1.0], [1.0, 1.0]].iter().for_each(|lines| places.note(lines));
        let kept = places.commonest();
        let times = |p50| RoundTrips { count: 1, min: p50, mean: 0.0, p50, p99: p50 + 1, p99_9: 0 };
        for ways in
            [[[5, 1, 9, 7], [6, 90, 8, 20], [9, 9, 9, 1]], [[8, 8, 6, 20], [7, 1, 5, 9], [30, 1, 30, 30]]]
        {
            let yardstick = Yardstick(ways.map(|way| way.map(times).into()));
            assert_eq!(yardstick.best(&kept), (7.0, 8.0));
        }
        let flow = |received_per_s| Flowed { sent: 1, sent_per_s: 0.0, received_per_s, lost: 0 };
        let yardstick =
            Yardstick([1.0, 3.0, 2.0].map(|rate| [rate - 1.0, 9.0, rate, rate + 1.0].map(flow).into()));
        assert_eq!(yardstick.best(&kept), 3.0);
    }
}
