//! What is printed: a line a second, and the account at the end.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::super::{Failure, Outcome, grouped};

#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Summary {
    pub(super) violations: u64,
    pub(super) first_violations: Vec<String>,
    pub(super) seed: u64,
    pub(super) seconds: f64,
    pub(super) processes: u64,
    pub(super) kills: u64,
    pub(super) stops: u64,
    pub(super) restarts: u64,
    pub(super) slowdowns: u64,
    pub(super) published: u64,
    pub(super) received: u64,
    pub(super) calls: u64,
    pub(super) answers: u64,
    pub(super) unavailable: u64,
    pub(super) not_found: u64,
    pub(super) late: u64,
    pub(super) exhausted: u64,
    pub(super) deaths_told: u64,
    pub(super) slowest_death_word_ms: f64,
    pub(super) starved_seconds: f64,
}

const WIDTH: usize = 11;

pub(super) fn live_heading() -> String {
    let columns = ["published", "received", "calls", "kills", "stops", "restarts", "slow", "violations"];
    let columns: String = columns.iter().map(|name| format!("{name:>WIDTH$}")).collect();
    format!("second  alive{columns}")
}

/// What was sent in the last second, and what has happened so far.
pub(super) fn live_line(second: u32, before: &Summary, now: &Summary, alive: usize) -> String {
    let rate = |before: u64, now: u64| format!("{}/s", grouped(now.saturating_sub(before)));
    let columns = [
        rate(before.published, now.published),
        rate(before.received, now.received),
        rate(before.calls, now.calls),
        grouped(now.kills),
        grouped(now.stops),
        grouped(now.restarts),
        grouped(now.slowdowns),
        grouped(now.violations),
    ];
    let columns: String = columns.iter().map(|column| format!("{column:>WIDTH$}")).collect();
    format!("{second:>6}  {alive:>5}{columns}")
}

impl Summary {
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Fails if anything was wrong, or nothing was shown.
    pub(super) fn verdict(&self) -> Outcome {
        match (self.violations, self.first_violations.first()) {
            (0, _) if self.published == 0 || self.received == 0 => Err(Failure::Error(
                "nothing was published, or nothing received: is the host overloaded?".into(),
            )),
            (0, _) => Ok(()),
            (1, Some(first)) => Err(Failure::Error(first.clone())),
            (count, first) => {
                let first = first.map_or("", String::as_str);
                Err(Failure::Error(format!("{count} violations, the first: {first}")))
            }
        }
    }

    pub(super) fn set_word(&mut self, slowest: Duration) {
        self.slowest_death_word_ms = (slowest.as_secs_f64() * 10_000.0).round() / 10.0;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, stops, restarts, slowdowns, processes, seconds, .. } = self;
        writeln!(
            f,
            "{kills} kills, {stops} stops, {restarts} restarts, {slowdowns} slow-downs in {seconds:.1} s; {processes} processes"
        )?;
        writeln!(f, "{} messages published, {} received", grouped(self.published), grouped(self.received))?;
        writeln!(
            f,
            "{} calls: {} answered, {} unavailable, {} not found, {} late, {} exhausted",
            grouped(self.calls),
            grouped(self.answers),
            grouped(self.unavailable),
            grouped(self.not_found),
            grouped(self.late),
            grouped(self.exhausted)
        )?;
        let (deaths, slowest) = (grouped(self.deaths_told), self.slowest_death_word_ms);
        writeln!(f, "{deaths} words of a death, the slowest after {slowest} ms")?;
        if self.starved_seconds > 0.0 {
            writeln!(f, "no processor for {} s, for which deadlines waited", self.starved_seconds)?;
        }
        for violation in &self.first_violations {
            writeln!(f, "violation: {violation}")?;
        }
        write!(f, "{} violations; seed {}", self.violations, self.seed)
    }
}
