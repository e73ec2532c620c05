//! From measurements to figures: quantiles of one repetition, medians over repetitions, rounding.

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use super::super::grouped;

/// Times below this many nanoseconds are counted exactly.
const EXACT: usize = 1 << 16;
/// Longer ones in this many steps for each doubling: within half a per cent.
const STEPS: usize = 256;
/// Doublings that are told apart: up to 2^40 ns.
const DOUBLINGS: usize = 24;

/// How often each time was measured. Adding to it touches one counter, mostly the same few: it must not cost
/// what is measured its cache.
pub(super) struct Histogram {
    counts: Vec<u32>,
    total: u64,
    sum: u64,
    least: u64,
}

impl Histogram {
    pub(super) fn new() -> Self {
        let counts = vec![0; EXACT + STEPS * DOUBLINGS];
        Self { counts, total: 0, sum: 0, least: u64::MAX }
    }

    #[inline]
    pub(super) fn add(&mut self, ns: u64) {
        self.counts[slot(ns)] += 1;
        self.total += 1;
        self.sum += ns;
        self.least = self.least.min(ns);
    }

    pub(super) fn round_trips(&self) -> RoundTrips {
        RoundTrips {
            count: self.total,
            min: if self.total == 0 { 0 } else { self.least },
            mean: self.sum as f64 / self.total.max(1) as f64,
            p50: self.quantile(0.5),
            p99: self.quantile(0.99),
            p99_9: self.quantile(0.999),
        }
    }

    /// The least time that this share of all does not exceed.
    fn quantile(&self, share: f64) -> u64 {
        let rank = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (slot, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank && seen > 0 {
                return lowest(slot).max(self.least);
            }
        }
        0
    }
}

fn slot(ns: u64) -> usize {
    let Ok(exact @ 0..EXACT) = usize::try_from(ns) else {
        let doubling = ns.ilog2() as usize;
        let step = (ns >> (doubling - STEPS.ilog2() as usize)) as usize & (STEPS - 1);
        let coarse = (doubling - EXACT.ilog2() as usize) * STEPS + step;
        return EXACT + coarse.min(STEPS * DOUBLINGS - 1);
    };
    exact
}

/// The lowest time that is counted there.
fn lowest(slot: usize) -> u64 {
    let Some(coarse) = slot.checked_sub(EXACT) else { return slot as u64 };
    let (doubling, step) = (coarse / STEPS + EXACT.ilog2() as usize, coarse % STEPS);
    ((STEPS + step) as u64) << (doubling - STEPS.ilog2() as usize)
}

/// What one repetition's round trips took, in nanoseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct RoundTrips {
    pub(super) count: u64,
    pub(super) min: u64,
    pub(super) mean: f64,
    pub(super) p50: u64,
    pub(super) p99: u64,
    pub(super) p99_9: u64,
}

/// The median over repetitions; of an even number, the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => 0.0,
        len if len % 2 == 1 => values[half],
        _ => (values[half - 1] + values[half]) / 2.0,
    }
}

/// The median of what `figure` takes from each repetition.
pub(super) fn median_of<T>(repetitions: &[T], figure: impl Fn(&T) -> f64) -> f64 {
    median(repetitions.iter().map(figure).collect())
}

/// Named figures of one measurement, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures(Vec<(&'static str, Value)>);

impl Figures {
    /// Nanoseconds, milliseconds: to a tenth, or closer if they are small.
    pub(super) fn time(self, name: &'static str, value: f64) -> Self {
        self.with(name, number(value, if value.abs() < 10.0 { 3 } else { 1 }))
    }

    pub(super) fn ratio(self, name: &'static str, value: f64) -> Self {
        self.with(name, number(value, 3))
    }

    /// Counts and rates.
    pub(super) fn whole(self, name: &'static str, value: f64) -> Self {
        self.with(name, (value.max(0.0).round() as u64).into())
    }

    pub(super) fn text(self, name: &'static str, value: impl Into<String>) -> Self {
        self.with(name, Value::String(value.into()))
    }

    fn with(mut self, name: &'static str, value: Value) -> Self {
        self.0.push((name, value));
        self
    }

    pub(super) fn number(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| *known == name)?.1.as_f64()
    }

    /// Names and values as people read them.
    pub(super) fn rows(&self) -> Vec<[String; 2]> {
        let row = |(name, value): &(&'static str, Value)| {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => match number.as_u64() {
                    Some(whole) => grouped(whole),
                    None => readable(number.as_f64().unwrap_or_default()),
                },
                other => other.to_string(),
            };
            [(*name).to_owned(), value]
        };
        self.0.iter().map(row).collect()
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// For people: thousands grouped, small numbers with what they have behind the point.
pub(super) fn readable(value: f64) -> String {
    match value {
        value if value.is_nan() => "?".into(),
        value if value.abs() >= 1000.0 => grouped(value.round() as u64),
        value => value.to_string(),
    }
}

/// Rounded to so many digits behind the point; what is small keeps three that tell something.
fn number(value: f64, digits: i32) -> Value {
    let telling = if value == 0.0 { 0 } else { 2 - value.abs().log10().floor() as i32 };
    let unit = 10_f64.powi(digits.max(telling));
    let rounded = (value * unit).round() / unit;
    // Not a number: a repetition measured nothing; never hidden as a zero.
    Number::from_f64(rounded).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact_for_short_times_and_close_for_long_ones() {
        let mut histogram = Histogram::new();
        for ns in 1..=1000 {
            histogram.add(ns);
        }
        let found = histogram.round_trips();
        assert_eq!((found.count, found.min, found.p50, found.p99), (1000, 1, 500, 990));
        assert_eq!((found.p99_9, found.mean), (999, 500.5));

        for ns in [EXACT as u64, 100_000, 12_345_678, 1 << 39, 1 << 50] {
            let mut histogram = Histogram::new();
            histogram.add(1);
            histogram.add(ns);
            let (found, ns) = (histogram.round_trips().p99 as f64, ns.min((1 << 40) - 1) as f64);
            assert!((found - ns).abs() / ns < 0.005, "{found} for {ns}");
        }
        assert_eq!(Histogram::new().round_trips().p50, 0);
    }

    #[test]
    fn medians_of_odd_and_even_numbers() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median_of(&["a", "bbb", "cc"], |text| text.len() as f64), 2.0);
    }

    #[test]
    fn figures_keep_their_order_and_are_rounded() {
        let figures = Figures::default()
            .time("b_ns", 12.345)
            .ratio("a_ratio", 1.23456)
            .ratio("c_ratio", 0.000_123_456)
            .whole("lost", 0.0)
            .text("placement", "CPU 0");
        assert_eq!(figures.number("a_ratio"), Some(1.235));
        assert_eq!(
            serde_json::to_string(&figures).unwrap(),
            r#"{"b_ns":12.3,"a_ratio":1.235,"c_ratio":0.000123,"lost":0,"placement":"CPU 0"}"#
        );
    }
}
