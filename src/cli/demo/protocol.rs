//! What the demo's processes say to each other: on the bus, and beside it as JSON lines through pipes.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

pub(super) use super::super::lines::{orders, tell, write_line};
use super::ledger::Stream;

/// An event: how far a task is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) task: u32,
    pub(super) step: String,
    pub(super) done: u32,
    pub(super) total: u32,
    /// How many messages of this worker came before; what the subscribers check beside the sequence.
    pub(super) counter: u64,
}

/// What a call of `estimate` returns: its own argument, so that no answer is taken for another's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Estimate {
    pub(super) number: u64,
    pub(super) minutes: u32,
}

/// A direct message to a worker, numbered by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Assignment {
    pub(super) number: u64,
    pub(super) task: String,
}

/// A broadcast.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Notice {
    pub(super) number: u64,
    /// The last one: the work is over.
    pub(super) end: bool,
}

/// Messages by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kinds {
    pub(super) event: u64,
    pub(super) request: u64,
    pub(super) response: u64,
    pub(super) direct: u64,
    pub(super) broadcast: u64,
    pub(super) heartbeat: u64,
}

impl Kinds {
    pub(super) fn total(&self) -> u64 {
        let Self { event, request, response, direct, broadcast, heartbeat } = self;
        event + request + response + direct + broadcast + heartbeat
    }
}

impl AddAssign for Kinds {
    fn add_assign(&mut self, other: Self) {
        self.event += other.event;
        self.request += other.request;
        self.response += other.response;
        self.direct += other.direct;
        self.broadcast += other.broadcast;
        self.heartbeat += other.heartbeat;
    }
}

/// What became of the planner's calls: each is counted once.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Calls {
    pub(super) made: u64,
    /// Answered as they should be, by the id of the node that did.
    pub(super) answered: BTreeMap<String, u64>,
    /// Ended by the death of their server.
    pub(super) unavailable: u64,
    /// Ended in any other way, which none should.
    pub(super) failed: u64,
    /// How the first of those ended.
    pub(super) failure: Option<String>,
    /// Half of the calls took less, in microseconds.
    pub(super) p50_us: f64,
}

impl Calls {
    pub(super) fn answered(&self) -> u64 {
        self.answered.values().sum()
    }
}

/// All that was sent, when nobody sends any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AllSent {
    /// Events by node; those of the killed one as far as it told.
    pub(super) events: BTreeMap<String, u64>,
    /// Direct messages by name.
    pub(super) direct: BTreeMap<String, u64>,
    pub(super) broadcasts: u64,
}

/// From the first process to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// To a worker: publish. To the planner: call and send.
    Start,
    /// To the planner: call and send no more, and tell everybody on the bus.
    Stop,
    /// This is what was sent; report what arrived of it.
    Finish(AllSent),
}

/// From another process to the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Report {
    /// Its ports are open, and it sees the ports that it needs; with the id of its node.
    Ready { node: String },
    /// A worker's word that so many calls of `publish` have succeeded: these events have to arrive, whatever
    /// becomes of it.
    Published { events: u64 },
    /// What it has sent and received so far, and how many other nodes it sees.
    Count { sent: Kinds, received: Kinds, peers: usize },
    /// It sends no more.
    Stopped(Stopped),
    /// Its last word.
    Finished(Finished),
    /// It has to give up.
    Failed { reason: String },
}

/// What a worker or the planner has sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Stopped {
    pub(super) sent: Kinds,
    /// The planner's direct messages by name, and its calls.
    pub(super) direct: BTreeMap<String, u64>,
    pub(super) calls: Calls,
}

/// What a process has received.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Finished {
    /// Events by the id of the node that published them.
    pub(super) events: BTreeMap<String, Stream>,
    /// A worker's direct messages.
    pub(super) direct: Option<Stream>,
    pub(super) broadcasts: Option<Stream>,
    /// Requests that a worker has answered.
    pub(super) requests: u64,
    /// What the monitor has seen.
    pub(super) seen: Option<Seen>,
}

/// What the monitor has seen of the others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Processes that died.
    pub(super) deaths: u64,
    /// Heartbeats that each node has sent by its own count, and how many of all were seen.
    pub(super) beats: BTreeMap<String, u64>,
    pub(super) beats_seen: u64,
}
