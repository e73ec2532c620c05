//! What the demo prints: a line a second, and the account at the end.

use std::fmt;

use serde::Serialize;

use super::super::{Failure, Outcome, grouped, table};
use super::crew::{Fate, Member, Told};
use super::protocol::{AllSent, Calls, Finished, Kinds, Seen};
use super::{CAST, Role};

const WIDTH: usize = 12;

pub(super) fn live_heading() -> String {
    let columns = ["messages", "events", "calls", "direct", "broadcasts"];
    let columns: String = columns.iter().map(|name| format!("{name:>WIDTH$}")).collect();
    format!("second{columns}   peers")
}

/// The total, and what was sent in the last second.
pub(super) fn live_line(second: u32, before: &Kinds, now: &Kinds, peers: usize) -> String {
    let rate = |before: u64, now: u64| format!("{}/s", grouped(now.saturating_sub(before)));
    let columns = [
        grouped(now.total()),
        rate(before.event, now.event),
        rate(before.request, now.request),
        rate(before.direct, now.direct),
        rate(before.broadcast, now.broadcast),
    ];
    let columns: String = columns.iter().map(|column| format!("{column:>WIDTH$}")).collect();
    format!("{second:>6}{columns}   {peers:>5}")
}

/// One process, as it is known from outside.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) role: Role,
    pub(super) pid: u32,
    pub(super) fate: Fate,
    pub(super) told: Told,
}

impl From<&Member> for Part {
    fn from(member: &Member) -> Self {
        let Member { name, role, fate, told, .. } = member;
        Self { name, role: *role, pid: member.pid(), fate: *fate, told: told.clone() }
    }
}

/// What all have sent, by their own word; nobody sends any more.
pub(super) fn all_sent(parts: &[Part]) -> AllSent {
    let stopped = || parts.iter().filter_map(|part| part.told.stopped.as_ref());
    AllSent {
        events: parts
            .iter()
            .filter(|part| matches!(part.role, Role::Worker { .. }))
            .filter_map(|part| Some((part.told.node.clone()?, part.told.published)))
            .collect(),
        direct: stopped().flat_map(|stopped| stopped.direct.clone()).collect(),
        broadcasts: stopped().map(|stopped| stopped.sent.broadcast).sum(),
    }
}

/// What became of every message.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    processes: usize,
    sent: Kinds,
    received: Kinds,
    lost: u64,
    out_of_order: u64,
    calls: u64,
    calls_unavailable: u64,
    call_p50_us: f64,
    direct: u64,
    broadcasts: u64,
    deaths_seen: u64,
    seconds: f64,
    per_process: Vec<Account>,
    /// What is wrong beside messages that are missing.
    #[serde(skip)]
    faults: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Account {
    name: &'static str,
    role: &'static str,
    pid: u32,
    killed: bool,
    sent: Kinds,
    received: Kinds,
    lost: u64,
    out_of_order: u64,
}

impl Summary {
    pub(super) fn new(parts: &[Part], seconds: f64) -> Self {
        let mut all = all_sent(parts);
        // What one subscriber has got of the killed worker was published, so the other has to have it, too.
        for (node, stream) in
            parts.iter().filter_map(|part| part.told.finished.as_ref()).flat_map(|f| &f.events)
        {
            let events = all.events.entry(node.clone()).or_default();
            if parts.iter().any(|part| part.fate == Fate::Killed && part.told.node.as_ref() == Some(node)) {
                *events = (*events).max(stream.received);
            }
        }
        let planner = parts.iter().find(|part| matches!(part.role, Role::Planner));
        let calls = planner.and_then(|planner| Some(planner.told.stopped.as_ref()?.calls.clone()));
        let calls = calls.unwrap_or_default();
        let seen =
            parts.iter().find_map(|part| part.told.finished.as_ref()?.seen.clone()).unwrap_or_default();
        let per_process: Vec<_> = parts.iter().map(|part| account(part, &all, &calls, &seen)).collect();
        let (mut sent, mut received) = (Kinds::default(), Kinds::default());
        for account in &per_process {
            sent += account.sent;
            received += account.received;
        }
        Self {
            processes: CAST.len(),
            sent,
            received,
            lost: per_process.iter().map(|account| account.lost).sum(),
            out_of_order: per_process.iter().map(|account| account.out_of_order).sum(),
            calls: calls.made,
            calls_unavailable: calls.unavailable,
            call_p50_us: calls.p50_us,
            direct: sent.direct,
            broadcasts: sent.broadcast,
            deaths_seen: seen.deaths,
            seconds,
            faults: faults(parts, &calls, &seen, sent.event),
            per_process,
        }
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Fails if something is missing or otherwise wrong, or the demo showed nothing.
    pub(super) fn verdict(&self) -> Outcome {
        let Self { lost, out_of_order, faults, .. } = self;
        let mut faults = faults.clone();
        if *lost > 0 || *out_of_order > 0 {
            faults.insert(0, format!("{lost} messages were lost and {out_of_order} out of order"));
        }
        if faults.is_empty() { Ok(()) } else { Err(Failure::Error(faults.join("; "))) }
    }
}

fn account(part: &Part, all: &AllSent, calls: &Calls, seen: &Seen) -> Account {
    let Part { name, role, pid, fate, told } = part;
    let node = told.node.clone().unwrap_or_default();
    let (mut sent, mut received) = (told.sent, told.received);
    let (mut lost, mut out_of_order) = (0, 0);
    sent.heartbeat = seen.beats.get(&node).copied().unwrap_or(0);
    if let Role::Worker { .. } = role {
        sent.event = all.events.get(&node).copied().unwrap_or(0);
        // The killed one had no time to tell of the last answers.
        let answered = calls.answered.get(&node).copied().unwrap_or(0);
        sent.response = sent.response.max(answered);
        received.request = received.request.max(answered);
    }
    if let Some(finished) = &told.finished {
        let came_late = *fate == Fate::Replaces;
        let Finished { events, direct, broadcasts, requests, seen } = finished;
        let mut take = |stream: &super::ledger::Stream, sent: u64, came_late: bool| {
            lost += stream.lost(sent, came_late);
            out_of_order += stream.out_of_order;
            stream.received
        };
        if !matches!(role, Role::Worker { .. }) {
            let nothing = Default::default();
            received.event = all
                .events
                .iter()
                .map(|(node, sent)| take(events.get(node).unwrap_or(&nothing), *sent, false))
                .sum();
        }
        if let Some(direct) = direct {
            received.direct = take(direct, all.direct.get(*name).copied().unwrap_or(0), came_late);
        }
        if let Some(broadcasts) = broadcasts {
            received.broadcast = take(broadcasts, all.broadcasts, came_late);
        }
        received.request = *requests;
        received.heartbeat = seen.as_ref().map_or(0, |seen| seen.beats_seen);
    }
    if let Role::Planner = role {
        received.response = calls.answered();
    }
    let role = match role {
        Role::Worker { .. } => "worker",
        Role::Planner => "planner",
        Role::Monitor => "monitor",
    };
    let killed = *fate == Fate::Killed;
    Account { name, role, pid: *pid, killed, sent, received, lost, out_of_order }
}

/// What went wrong, other than with messages that are counted as lost.
fn faults(parts: &[Part], calls: &Calls, seen: &Seen, events: u64) -> Vec<String> {
    let Calls { made, answered, unavailable, failed, failure, .. } = calls;
    let mut faults = Vec::new();
    let killed = parts.iter().filter(|part| part.fate == Fate::Killed).count() as u64;
    let ended = calls.answered() + unavailable + failed;
    if ended != *made {
        faults.push(format!("of {made} calls {ended} ended: each has to end once"));
    }
    if *failed > 0 {
        let first = failure.as_deref().unwrap_or_default();
        faults.push(format!("{failed} calls failed, the first with: {first}"));
    }
    if *unavailable > 0 && killed == 0 {
        faults.push(format!("{unavailable} calls found their server dead, though none was killed"));
    }
    for part in parts.iter().filter(|part| part.fate != Fate::Killed) {
        if let (Role::Worker { .. }, Some(node), Some(finished)) =
            (part.role, &part.told.node, &part.told.finished)
        {
            let arrived = answered.get(node).copied().unwrap_or(0);
            if finished.requests != arrived {
                let (name, requests) = (part.name, finished.requests);
                faults.push(format!("{name} answered {requests} calls, and {arrived} answers arrived"));
            }
        }
    }
    if seen.deaths != killed {
        faults.push(format!("the monitor saw {} deaths, and {killed} happened", seen.deaths));
    }
    if events == 0 {
        faults.push("nothing was sent: the workers had no time".to_owned());
    }
    faults
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading = [
            "process",
            "pid",
            "events out",
            "events in",
            "calls",
            "direct",
            "broadcasts",
            "lost",
            "out of order",
        ];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        let number = |number: u64| if number == 0 { String::new() } else { grouped(number) };
        for account in &self.per_process {
            let Account { name, pid, killed, sent, received, out_of_order, .. } = account;
            let lost = |count: &u64| if *killed { String::new() } else { grouped(*count) };
            rows.push(vec![
                format!("{name}{}", if *killed { ", killed" } else { "" }),
                pid.to_string(),
                number(sent.event),
                number(received.event),
                number(sent.request + received.request),
                number(sent.direct + received.direct),
                number(received.broadcast),
                lost(&account.lost),
                lost(out_of_order),
            ]);
        }
        f.write_str(&table(&rows, &[false, true, true, true, true, true, true, true, true]))?;
        let Self { sent, received, lost, out_of_order, seconds, calls, calls_unavailable, .. } = self;
        let Self { call_p50_us, direct, broadcasts, deaths_seen, .. } = self;
        let unavailable = grouped(*calls_unavailable);
        writeln!(
            f,
            "\n{} calls, half of them within {call_p50_us:.0} µs; {unavailable} ended with their server's death",
            grouped(*calls),
        )?;
        writeln!(
            f,
            "{} direct messages, {} broadcasts, {} heartbeats seen; deaths seen: {deaths_seen}",
            grouped(*direct),
            grouped(*broadcasts),
            grouped(received.heartbeat),
        )?;
        let (sent, received) = (grouped(sent.event), grouped(received.event));
        write!(f, "{sent} events sent in {seconds:.1} s, {received} received: ")?;
        match (lost, out_of_order) {
            (0, 0) => f.write_str("every subscriber got every message, in order"),
            _ => write!(f, "{lost} lost, {out_of_order} out of order"),
        }
    }
}
