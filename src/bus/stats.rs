//! What ports count, and how nodes report it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::peer::NodeInfo;
use crate::control::PortReport;

/// What one port has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PortStats {
    /// Messages published or received.
    pub messages: u64,
    /// Payload bytes published or received.
    pub bytes: u64,
    /// Messages dropped (publisher) or missed (subscriber); requests and answers that were dropped (client,
    /// server: see [`Server::stats`](crate::Server::stats)).
    pub dropped: u64,
    /// How often a publisher has cut a subscriber off ([`Overflow::Evict`](crate::Overflow::Evict)); 0 of nodes that
    /// do not tell.
    pub evicted: u64,
    /// Time spent waiting for a slow reader.
    pub blocked: Duration,
    /// Bytes in logs that are not read yet: by the slowest reader, or by this one. A message too large for its log
    /// counts as its record there, 48 bytes. Cursors are stored lazily, so a publisher may see up to an eighth of its
    /// capacity more than is true.
    pub lag: u64,
    /// Subscribers, or publishers, at the other end.
    pub peers: usize,
}

/// A port of another node, as that node reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReportedPort {
    /// The port's number within its node.
    pub id: u64,
    /// `publisher`, `subscriber`, …
    pub role: &'static str,
    /// Its topic, pattern or first filter.
    pub name: String,
    /// What it has counted.
    pub stats: PortStats,
}

/// A node's answer to [`Node::survey`](crate::Node::survey).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStats {
    /// The node.
    pub node: NodeInfo,
    /// Time since it joined.
    pub uptime: Duration,
    /// When it counted, on the host's monotonic clock: two surveys give rates.
    pub taken: Duration,
    /// Its ports.
    pub ports: Vec<ReportedPort>,
}

/// The counters of one port. Written by the port's thread alone: plain loads and stores, no locked
/// instruction; read by the control thread.
#[derive(Debug, Default)]
pub(super) struct Counters {
    messages: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    evicted: AtomicU64,
    blocked_ns: AtomicU64,
    /// Of the dropped, answers that gave way to a status.
    unsent: AtomicU64,
}

impl Counters {
    #[inline(always)]
    pub(super) fn message(&self, bytes: usize) {
        add(&self.messages, 1);
        add(&self.bytes, bytes as u64);
    }

    pub(super) fn drop(&self, messages: u64) {
        self.dropped.fetch_add(messages, Relaxed); // a server's by any of its threads
    }

    pub(super) fn evict(&self, readers: u64) {
        add(&self.evicted, readers);
    }

    pub(super) fn unsent(&self) {
        self.drop(1);
        self.unsent.fetch_add(1, Relaxed);
    }

    pub(super) fn count_unsent(&self) -> u64 {
        self.unsent.load(Relaxed)
    }

    pub(super) fn blocked(&self, time: Duration) {
        add(&self.blocked_ns, time.as_nanos() as u64);
    }

    /// The same counts for another log of the port, by its thread.
    pub(super) fn carried_on(&self) -> Self {
        let copy = |counter: &AtomicU64| AtomicU64::new(counter.load(Relaxed));
        Self {
            messages: copy(&self.messages),
            bytes: copy(&self.bytes),
            dropped: copy(&self.dropped),
            evicted: copy(&self.evicted),
            blocked_ns: copy(&self.blocked_ns),
            unsent: copy(&self.unsent),
        }
    }

    pub(super) fn stats(&self, lag: u64, peers: usize) -> PortStats {
        PortStats {
            messages: self.messages.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            evicted: self.evicted.load(Relaxed),
            blocked: Duration::from_nanos(self.blocked_ns.load(Relaxed)),
            lag,
            peers,
        }
    }
}

#[inline(always)]
fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

impl From<PortReport> for ReportedPort {
    fn from(report: PortReport) -> Self {
        Self {
            id: report.port,
            role: super::peer::role_name(report.role),
            name: report.name,
            stats: PortStats {
                messages: report.messages,
                bytes: report.bytes,
                dropped: report.dropped,
                evicted: report.evicted,
                blocked: Duration::from_nanos(report.blocked_ns),
                lag: report.lag,
                peers: usize::try_from(report.peers).unwrap_or(usize::MAX),
            },
        }
    }
}
