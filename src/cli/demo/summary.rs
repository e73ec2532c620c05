//! What the demo prints: a line a second, and the account at the end.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::super::{Failure, Outcome, grouped, table};
use super::Role;
use super::protocol::Report;

const WIDTH: usize = 12;

pub(super) fn live_heading(cast: &[(&str, Role)]) -> String {
    let names: String = cast.iter().map(|(name, _)| format!("{name:>WIDTH$}")).collect();
    format!("second{:>WIDTH$}{names}   peers", "messages")
}

pub(super) fn live_line(second: u32, before: &[u64], now: &[u64], peers: usize) -> String {
    let rate = |(before, now): (&u64, &u64)| format!("{}/s", grouped(now.saturating_sub(*before)));
    let rates: String = before.iter().zip(now).map(rate).map(|rate| format!("{rate:>WIDTH$}")).collect();
    let total = grouped(now.iter().sum());
    format!("{second:>6}{total:>WIDTH$}{rates}   {peers:>5}")
}

/// One process, as it is known from outside.
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) role: Role,
    pub(super) pid: u32,
    pub(super) counted: u64,
}

/// What became of every message.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    processes: usize,
    sent: u64,
    received: u64,
    lost: u64,
    out_of_order: u64,
    seconds: f64,
    per_process: Vec<Account>,
}

#[derive(Debug, Serialize)]
struct Account {
    name: &'static str,
    role: &'static str,
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<u64>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    reception: Option<Reception>,
}

#[derive(Debug, Serialize)]
struct Reception {
    received: u64,
    lost: u64,
    out_of_order: u64,
}

impl Summary {
    /// `sent` is what each task's worker has published.
    pub(super) fn new(parts: Vec<(Part, Option<Report>)>, sent: &BTreeMap<u32, u64>, seconds: f64) -> Self {
        let accounts = parts.into_iter().map(|(part, report)| {
            let Part { name, role, pid, counted } = part;
            match (role, report) {
                (Role::Watcher, Some(Report::Received { by_task, out_of_order })) => {
                    let missing = |(task, sent): (&u32, &u64)| {
                        sent.saturating_sub(by_task.get(task).copied().unwrap_or(0))
                    };
                    let lost = sent.iter().map(missing).sum();
                    let reception = Some(Reception { received: counted, lost, out_of_order });
                    Account { name, role: "subscriber", pid, sent: None, reception }
                }
                _ => Account { name, role: "publisher", pid, sent: Some(counted), reception: None },
            }
        });
        let per_process: Vec<Account> = accounts.collect();
        let receptions = || per_process.iter().filter_map(|account| account.reception.as_ref());
        Self {
            processes: per_process.len(),
            sent: per_process.iter().filter_map(|account| account.sent).sum(),
            received: receptions().map(|reception| reception.received).sum(),
            lost: receptions().map(|reception| reception.lost).sum(),
            out_of_order: receptions().map(|reception| reception.out_of_order).sum(),
            seconds,
            per_process,
        }
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Fails if something is missing, or the demo showed nothing.
    pub(super) fn verdict(&self) -> Outcome {
        let Self { lost, out_of_order, sent, .. } = self;
        if *lost > 0 || *out_of_order > 0 {
            return Err(format!("{lost} messages were lost and {out_of_order} out of order").into());
        }
        if *sent == 0 {
            return Err(Failure::Error("nothing was sent: the workers had no time".into()));
        }
        Ok(())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading = ["process", "role", "pid", "sent", "received", "a second", "lost", "out of order"];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        for Account { name, role, pid, sent, reception } in &self.per_process {
            let number = |number: Option<u64>| number.map_or_else(String::new, grouped);
            let received = reception.as_ref().map(|reception| reception.received);
            let rate = sent.or(received).unwrap_or(0) as f64 / self.seconds;
            rows.push(vec![
                (*name).to_owned(),
                (*role).to_owned(),
                pid.to_string(),
                number(*sent),
                number(received),
                grouped(rate as u64),
                number(reception.as_ref().map(|reception| reception.lost)),
                number(reception.as_ref().map(|reception| reception.out_of_order)),
            ]);
        }
        f.write_str(&table(&rows, &[false, false, true, true, true, true, true, true]))?;
        let Self { sent, received, lost, out_of_order, seconds, .. } = self;
        let (sent, received) = (grouped(*sent), grouped(*received));
        write!(f, "\n{sent} sent in {seconds:.1} s, {received} received: ")?;
        match (lost, out_of_order) {
            (0, 0) => f.write_str("every subscriber got every message, in order"),
            _ => write!(f, "{lost} lost, {out_of_order} out of order"),
        }
    }
}
