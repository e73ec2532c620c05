//! The bare ring as a yardstick: it spins with PAUSE and without in turn, and the faster way counts. A slow
//! yardstick would flatter what is held against it.

use super::super::Outcome;
use super::Bench;
use super::figures::{RoundTrips, median_of};
use super::latency::bounce;
use super::pair::{Flowed, Pair, flow};
use super::protocol::{BareFlow, BareLine, FlowKind, LineKind};

const WAYS: [bool; 2] = [false, true];

/// What both ways have measured, in each repetition.
pub(super) struct Yardstick<T>([Vec<T>; 2]);

impl<T> Yardstick<T> {
    pub(super) fn new() -> Self {
        Self([Vec::new(), Vec::new()])
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
        for (paused, times) in WAYS.into_iter().zip(&mut self.0) {
            times.push(bounce(bench, pair, LineKind::Bare(BareLine { payload, loan, paused }))?);
        }
        Ok(())
    }

    /// The medians of the faster way: p50 and p99.
    pub(super) fn best(&self) -> (f64, f64) {
        let p50 = |times: &Vec<RoundTrips>| median_of(times, |times| times.p50 as f64);
        let [tight, paused] = &self.0;
        let best = if p50(tight) <= p50(paused) { tight } else { paused };
        (p50(best), median_of(best, |times| times.p99 as f64))
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
        for (paused, flows) in WAYS.into_iter().zip(&mut self.0) {
            let kind = FlowKind::Bare(BareFlow { payload, loan, readers, paused });
            flows.push(flow(pair, kind, &[kind], bench.seconds)?);
        }
        Ok(())
    }

    /// The median of the faster way, in messages received a second.
    pub(super) fn best(&self) -> f64 {
        let rates = self.0.each_ref().map(|flows| median_of(flows, |flow| flow.received_per_s));
        rates[0].max(rates[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_faster_way_counts() {
        let times = |p50| RoundTrips { count: 1, min: p50, mean: 0.0, p50, p99: p50 + 1, p99_9: 0 };
        for ways in [[[5, 9, 7], [6, 8, 20]], [[8, 6, 20], [7, 5, 9]]] {
            let yardstick = Yardstick(ways.map(|way| way.map(times).into()));
            assert_eq!(yardstick.best(), (7.0, 8.0));
        }
        let flow = |received_per_s| Flowed { sent: 1, sent_per_s: 0.0, received_per_s, lost: 0 };
        let yardstick = Yardstick([vec![flow(1.0)], vec![flow(3.0)]]);
        assert_eq!(yardstick.best(), 3.0);
    }
}
