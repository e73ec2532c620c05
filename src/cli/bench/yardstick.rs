//! The bare ring as a yardstick: it waits in several ways in turn, and the fastest counts. A slow yardstick would
//! flatter what is held against it.

use super::super::Outcome;
use super::Bench;
use super::figures::{RoundTrips, median_of};
use super::host::{Around, Counted, Part, around};
use super::pair::{Flowed, Pair, bounce, flow};
use super::protocol::{BareFlow, BareLine, FlowKind, LineKind, Spin};

const WAYS: [Spin; 3] = [Spin::Tight, Spin::Paused, Spin::Ahead];

/// What each way has measured, in each repetition.
pub(super) struct Yardstick<T>([Vec<Part<T>>; WAYS.len()]);

impl<T> Yardstick<T> {
    pub(super) fn new() -> Self {
        Self([const { Vec::new() }; WAYS.len()])
    }

    /// What the host was like around them, way by way.
    pub(super) fn around(&self) -> [Vec<Around>; WAYS.len()] {
        self.0.each_ref().map(|parts| around(parts))
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

    /// The medians of the fastest way, of the parts that count: p50 and p99.
    pub(super) fn best(self, counted: &Counted) -> (f64, f64) {
        let medians = self.0.map(|parts| counted.of(parts)).map(|times| {
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

    /// The median of the fastest way, of the parts that count, in messages received a second.
    pub(super) fn best(self, counted: &Counted) -> f64 {
        let rates = self.0.map(|parts| median_of(&counted.of(parts), |flow| flow.received_per_s));
        rates.into_iter().fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::Glance;
    use super::*;

    /// Of four parts, of which the second does not count: the host has moved its CPUs meanwhile.
    fn parts<T>(measured: [T; 4]) -> Vec<Part<T>> {
        let part = |(after, measured)| Part {
            measured,
            around: [1.0, after].map(|line| Glance { line, work: [1.0; 2] }),
        };
        [1.0, 3.0, 1.0, 1.0].into_iter().zip(measured).map(part).collect()
    }

    #[test]
    fn the_fastest_way_counts() {
        let times = |p50| RoundTrips { count: 1, min: p50, mean: 0.0, p50, p99: p50 + 1, p99_9: 0 };
        for ways in
            [[[5, 1, 9, 7], [6, 90, 8, 20], [9, 9, 9, 1]], [[8, 8, 6, 20], [7, 1, 5, 9], [30, 1, 30, 30]]]
        {
            let yardstick = Yardstick(ways.map(|way| parts(way.map(times))));
            let counted = Counted::among(yardstick.around());
            assert_eq!(yardstick.best(&counted), (7.0, 8.0));
        }
        let flow = |received_per_s| Flowed { sent: 1, sent_per_s: 0.0, received_per_s, lost: 0 };
        let rates = [1.0, 3.0, 2.0].map(|rate| [rate - 1.0, 9.0, rate, rate + 1.0]);
        let yardstick = Yardstick(rates.map(|way| parts(way.map(flow))));
        let counted = Counted::among(yardstick.around());
        assert_eq!(yardstick.best(&counted), 3.0);
    }
}
