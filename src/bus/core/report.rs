//! Asking every node what its ports have counted.

use std::collections::HashMap;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use super::super::peer::NodeInfo;
use super::super::stats::{NodeStats, PortStats, ReportedPort};
use super::Core;
use super::waiting::{Waiting, WaitingOn};
use crate::control::{NodeId, PortReport};
use crate::frame::{Control, PortStatsList, Role};
use crate::ring::layout;
use crate::segment::Memory;
use crate::sys::clock;

/// Ports in one datagram: their names may have 255 bytes each, and it must stay under 64 KiB.
const PORTS_A_DATAGRAM: usize = 128;
/// Ports that one node's answer may have, in all its datagrams.
const MOST_PORTS: usize = 1 << 16;

/// One question to all, until all have answered.
pub(super) struct Survey {
    request: u64,
    /// Nodes that have not answered (in full).
    pending: HashMap<NodeId, NodeStats>,
    answers: Vec<NodeStats>,
    asker: SyncSender<Vec<NodeStats>>,
}

impl Survey {
    pub(super) fn is_complete(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn reply(mut self) -> bool {
        self.answers[1..].sort_by(|a, b| (a.node.name(), a.node.id()).cmp(&(b.node.name(), b.node.id())));
        self.asker.send(self.answers).is_ok()
    }
}

impl Core {
    pub(super) fn start_survey(&mut self, timeout: Duration, asker: SyncSender<Vec<NodeStats>>) {
        self.driver.sweep();
        self.handle_events();
        self.surveys += 1;
        let request = self.surveys;
        let me = self.me.id();
        let others = self.peers.values().filter(|peer| peer.node.id() != me);
        let pending: HashMap<_, _> =
            others.map(|peer| (peer.node.id(), unanswered(peer.node.clone()))).collect();
        for node in pending.keys() {
            self.driver.send(*node, &Control::Stats { request }, &[]);
        }
        let own = NodeStats {
            uptime: self.started.elapsed(),
            taken: Duration::from_nanos(clock::monotonic_ns()),
            ports: self.reports().into_iter().map(ReportedPort::from).collect(),
            ..unanswered(self.me.clone())
        };
        let on = WaitingOn::Survey(Survey { request, pending, answers: vec![own], asker });
        // A timeout beyond the clock's range: a day is as good as for ever.
        let deadline = Instant::now() + timeout.min(Duration::from_secs(86_400));
        self.waiting.push(Waiting { deadline, on });
    }

    pub(super) fn answer_survey(&mut self, from: NodeId, request: u64) {
        let reports = self.reports();
        let ports: Vec<_> = reports.iter().map(PortReport::as_frame).collect();
        let (taken_ns, uptime_ms) = (clock::monotonic_ns(), self.started.elapsed().as_millis() as u64);
        let mut chunks = ports.chunks(PORTS_A_DATAGRAM).peekable();
        loop {
            let ports = PortStatsList::from_slice(chunks.next().unwrap_or_default());
            let more = chunks.peek().is_some();
            self.send(from, &Control::StatsReply { request, taken_ns, uptime_ms, more, ports }, &[]);
            if !more {
                return;
            }
        }
    }

    pub(super) fn take_report(
        &mut self,
        from: NodeId,
        request: u64,
        taken_ns: u64,
        uptime_ms: u64,
        more: bool,
        ports: Vec<PortReport>,
    ) {
        let surveys = self.waiting.iter_mut().filter_map(|waiting| match &mut waiting.on {
            WaitingOn::Survey(survey) if survey.request == request => Some(survey),
            _ => None,
        });
        for survey in surveys {
            let Some(answer) = survey.pending.get_mut(&from) else { continue };
            answer.taken = Duration::from_nanos(taken_ns);
            answer.uptime = Duration::from_millis(uptime_ms);
            let room = MOST_PORTS - answer.ports.len();
            answer.ports.extend(ports.iter().take(room).cloned().map(ReportedPort::from));
            if !more && let Some(answer) = survey.pending.remove(&from) {
                survey.answers.push(answer);
            }
        }
    }

    /// Bytes in logs that a reading port has not told to have read, and how many logs it reads.
    fn unread(&self, port: u64) -> (u64, usize) {
        let Some(inlet) = self.inlets.get(&port) else { return (0, 0) };
        let sources =
            self.sources.iter().filter(|((reader, _), source)| *reader == port && !source.is_done());
        sources.fold((0, 0), |(lag, count), (_, source)| {
            let cursor = inlet.at(source.slot).map_or(0, |(segment, offset)| layout::cursor(segment, offset));
            // A peer's tail may say anything; no honest one is more than the log ahead.
            let unread = layout::tail(&source.log).saturating_sub(cursor).min(source.log.size() as u64);
            (lag + unread, count + 1)
        })
    }

    fn reports(&self) -> Vec<PortReport> {
        let outlets = self.publishers().map(|outlet| {
            let shared = &outlet.shared;
            report(shared.port, Role::Publisher, shared.filter.as_str(), &shared.stats())
        });
        let inlets = self.inlets.values().map(|inlet| {
            let shared = &inlet.shared;
            let (lag, peers) = self.unread(shared.port);
            let name = shared.filters.first().map_or("", |filter| filter.as_str());
            report(shared.port, shared.role(), name, &shared.counters.stats(lag, peers))
        });
        let mut reports: Vec<_> = outlets.chain(inlets).collect();
        reports.sort_by_key(|report| report.port);
        reports
    }
}

fn unanswered(node: NodeInfo) -> NodeStats {
    NodeStats { node, uptime: Duration::ZERO, taken: Duration::ZERO, ports: Vec::new() }
}

fn report(port: u64, role: Role, name: &str, stats: &PortStats) -> PortReport {
    PortReport {
        port,
        role: Some(role),
        name: name.to_owned(),
        messages: stats.messages,
        bytes: stats.bytes,
        dropped: stats.dropped,
        evicted: stats.evicted,
        blocked_ns: stats.blocked.as_nanos() as u64,
        lag: stats.lag,
        peers: stats.peers as u64,
    }
}
