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
    /// Sent to the killed worker or its place, and neither received by a word that is known nor lost.
    direct_unknown: u64,
    broadcasts: u64,
    /// The same of broadcasts, which each process of the cast should get.
    broadcasts_unknown: u64,
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
    #[serde(skip)]
    lost_direct: u64,
    #[serde(skip)]
    lost_broadcasts: u64,
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
            direct_unknown: sent.direct.saturating_sub(
                received.direct + per_process.iter().map(|account| account.lost_direct).sum::<u64>(),
            ),
            broadcasts: sent.broadcast,
            broadcasts_unknown: (sent.broadcast * CAST.len() as u64).saturating_sub(
                received.broadcast + per_process.iter().map(|account| account.lost_broadcasts).sum::<u64>(),
            ),
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
    let (mut lost_direct, mut lost_broadcasts) = (0, 0);
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
            let sent = all.direct.get(*name).copied().unwrap_or(0);
            lost_direct = direct.lost(sent, came_late);
            received.direct = take(direct, sent, came_late);
        }
        if let Some(broadcasts) = broadcasts {
            lost_broadcasts = broadcasts.lost(all.broadcasts, came_late);
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
    Account {
        name,
        role,
        pid: *pid,
        killed,
        sent,
        received,
        lost,
        lost_direct,
        lost_broadcasts,
        out_of_order,
    }
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

#[cfg(test)]
mod tests {
    use super::super::ledger::Stream;
    use super::super::protocol::Stopped;
    use super::*;

    fn stream(first: u64, next: u64) -> Stream {
        Stream { first: Some(first), next, received: next - first, out_of_order: 0 }
    }

    fn part(at: usize, fate: Fate, stopped: Option<Stopped>, finished: Option<Finished>) -> Part {
        let (name, role) = CAST[at % CAST.len()];
        let sent = stopped.as_ref().map(|stopped| stopped.sent).unwrap_or_default();
        let (node, published) = (Some(format!("{name} {fate:?}")), sent.event);
        let told = Told { node, published, sent, stopped, finished, ..Told::default() };
        Part { name, role, pid: 1, fate, told }
    }

    fn worker(at: usize, fate: Fate, events: u64, direct: Stream, broadcasts: Stream, requests: u64) -> Part {
        let sent = Kinds { event: events, ..Kinds::default() };
        let (stopped, direct) = (Stopped { sent, ..Stopped::default() }, Some(direct));
        let finished = Finished { direct, broadcasts: Some(broadcasts), requests, ..Finished::default() };
        part(at, fate, Some(stopped), Some(finished))
    }

    /// A demo in which all went well: parts in the order of the cast, and the replacement.
    fn all_well() -> Vec<Part> {
        let events = [("worker-1 Stays", 100), ("worker-2 Killed", 50), ("worker-2 Replaces", 40)];
        let events = events.map(|(node, events)| (node.to_owned(), stream(0, events))).into();
        let watched = Finished { events, broadcasts: Some(stream(0, 4)), ..Finished::default() };
        let answered = [("worker-1 Stays", 6), ("worker-2 Killed", 2), ("worker-2 Replaces", 1)];
        let calls = Calls {
            made: 10,
            answered: answered.map(|(node, count)| (node.to_owned(), count)).into(),
            unavailable: 1,
            ..Calls::default()
        };
        let sent = Kinds { request: 10, direct: 8, broadcast: 4, ..Kinds::default() };
        let direct = [("worker-1".to_owned(), 5), ("worker-2".to_owned(), 3)].into();
        let seen = Some(Seen { deaths: 1, ..Seen::default() });
        let mut killed = part(1, Fate::Killed, None, None);
        killed.told.published = 48; // and two more, which it did not live to tell
        vec![
            worker(0, Fate::Stays, 100, stream(0, 5), stream(0, 4), 6),
            killed,
            part(2, Fate::Stays, Some(Stopped { sent, direct, calls }), Some(watched.clone())),
            part(3, Fate::Stays, None, Some(Finished { seen, ..watched })),
            worker(1, Fate::Replaces, 40, stream(2, 3), stream(3, 4), 1),
        ]
    }

    /// What the verdict is when something is changed.
    #[track_caller]
    fn verdict(change: impl FnOnce(&mut [Part])) -> String {
        let mut parts = all_well();
        change(&mut parts);
        match Summary::new(&parts, 1.0).verdict() {
            Ok(()) => String::new(),
            Err(Failure::Error(reason)) => reason,
            Err(other) => panic!("{other:?}"),
        }
    }

    fn finished(part: &mut Part) -> &mut Finished {
        part.told.finished.as_mut().expect("it has finished")
    }

    fn calls(parts: &mut [Part]) -> &mut Calls {
        &mut parts[2].told.stopped.as_mut().expect("the planner has stopped").calls
    }

    fn events<'a>(part: &'a mut Part, node: &str) -> &'a mut Stream {
        finished(part).events.get_mut(node).expect("a stream")
    }

    #[test]
    fn all_kinds_are_added_up() {
        let summary = Summary::new(&all_well(), 1.0);
        let sent = Kinds { event: 190, request: 10, response: 9, direct: 8, broadcast: 4, heartbeat: 0 };
        let received = Kinds { event: 380, request: 9, response: 9, direct: 6, broadcast: 13, heartbeat: 0 };
        assert_eq!((summary.sent, summary.received), (sent, received));
        assert_eq!((summary.lost, summary.out_of_order, summary.calls_unavailable), (0, 0, 1));
        assert_eq!((summary.direct_unknown, summary.broadcasts_unknown), (2, 3));
        let mut parts = all_well();
        (finished(&mut parts[0]).direct, finished(&mut parts[3]).broadcasts) =
            (Some(stream(1, 5)), Some(stream(0, 3)));
        let summary = Summary::new(&parts, 1.0);
        assert_eq!((summary.direct_unknown, summary.broadcasts_unknown), (2, 3), "what is lost is known");
        assert_eq!(verdict(|_| {}), "");
    }

    #[test]
    fn what_is_missing_fails_the_demo() {
        let lost = |count| format!("{count} messages were lost and 0 out of order");
        assert_eq!(verdict(|parts| events(&mut parts[2], "worker-1 Stays").received -= 1), lost(1));
        assert_eq!(
            verdict(|parts| finished(&mut parts[3]).events.retain(|node, _| node != "worker-2 Replaces")),
            lost(40)
        );
        assert_eq!(verdict(|parts| finished(&mut parts[0]).direct = Some(stream(1, 5))), lost(1));
        assert_eq!(verdict(|parts| finished(&mut parts[4]).direct = Some(stream(1, 2))), lost(1));
        assert_eq!(verdict(|parts| finished(&mut parts[3]).broadcasts = Some(stream(0, 3))), lost(1));
        assert_eq!(
            verdict(|parts| events(&mut parts[3], "worker-1 Stays").out_of_order = 2),
            "0 messages were lost and 2 out of order"
        );
    }

    #[test]
    fn the_killed_workers_word_counts_and_so_does_what_the_other_subscriber_got() {
        assert_eq!(verdict(|parts| parts[1].told.published = 51), "2 messages were lost and 0 out of order");
        let fewer = verdict(|parts| *events(&mut parts[2], "worker-2 Killed") = stream(0, 49));
        assert_eq!(fewer, "1 messages were lost and 0 out of order");
        let fewer = |part: &mut Part| *events(part, "worker-2 Killed") = stream(0, 48);
        assert_eq!(verdict(|parts| parts[2..4].iter_mut().for_each(fewer)), "", "it had told of 48");
    }

    #[test]
    fn each_call_ends_once() {
        assert_eq!(verdict(|parts| calls(parts).made = 11), "of 11 calls 10 ended: each has to end once");
        let failed = verdict(|parts| {
            let calls = calls(parts);
            (calls.made, calls.failed, calls.failure) = (11, 1, Some("internal error".into()));
        });
        assert_eq!(failed, "1 calls failed, the first with: internal error");
        let twice = verdict(|parts| finished(&mut parts[0]).requests = 7);
        assert_eq!(twice, "worker-1 answered 7 calls, and 6 answers arrived");
    }

    #[test]
    fn the_monitor_has_to_see_each_death_and_no_other() {
        for deaths in [0, 2] {
            let seen = Some(Seen { deaths, ..Seen::default() });
            let verdict = verdict(|parts| finished(&mut parts[3]).seen = seen);
            assert_eq!(verdict, format!("the monitor saw {deaths} deaths, and 1 happened"));
        }
    }

    #[test]
    fn a_demo_that_showed_nothing_fails() {
        let nothing = |parts: &mut [Part]| parts.iter_mut().for_each(|part| part.told = Told::default());
        assert!(verdict(nothing).contains("nothing was sent"));
    }
}
