//! What the processes say to each other: on the bus, and beside it as JSON lines through pipes.

use serde::{Deserialize, Serialize};

pub(super) use super::super::lines::{orders, tell, write_line};

/// Values in one `publish_batch`, at most.
pub(super) const BATCH: u64 = 8;
/// What the servers serve.
pub(super) const SERVICE: &str = "chaos";

/// Messages that a publishing process numbers by themselves, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) enum Stream {
    /// Bytes: published, or lent and sent.
    Raw,
    /// Values: published, some in batches.
    Typed,
    Broadcast,
    /// Direct messages to the subscriber of this number.
    Direct(u8),
}

impl Stream {
    /// How many messages may have been published without the word that they were, when a process is killed.
    pub(super) fn in_flight(self) -> u64 {
        if self == Self::Typed { BATCH } else { 1 }
    }
}

/// A value on the bus; the process that sends it is known by its life, which no other one has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) life: u64,
    pub(super) number: u64,
    pub(super) text: String,
}

/// Messages of one stream that a subscriber got one after the other, numbered without a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) life: u64,
    pub(super) stream: Stream,
    pub(super) first: u64,
    pub(super) end: u64,
}

/// What a subscriber was told of another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Sight {
    Joined,
    Stalled,
    Recovered,
    Goodbye,
    Died,
    Unread,
    Cut(String),
}

/// What became of a client's calls: each is counted once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Calls {
    pub(super) made: u64,
    pub(super) answered: u64,
    /// Their server died or left.
    pub(super) unavailable: u64,
    /// There was no server.
    pub(super) not_found: u64,
    /// The server was stopped, or too slow.
    pub(super) late: u64,
    /// The server had too much to do.
    pub(super) exhausted: u64,
}

impl Calls {
    pub(super) fn ended(&self) -> u64 {
        self.answered + self.unavailable + self.not_found + self.late + self.exhausted
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.made += other.made;
        self.answered += other.answered;
        self.unavailable += other.unavailable;
        self.not_found += other.not_found;
        self.late += other.late;
        self.exhausted += other.exhausted;
    }
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Footprint {
    pub(super) fds: usize,
    /// Mappings of the bus's memory.
    pub(super) maps: usize,
}

/// From the first process to another one. At the end of its stdin it leaves the bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// Pause so long at each message or call, for that time.
    Slow { pause_us: u64, ms: u64 },
    /// Publish and call no more, but stay.
    Stop,
    /// Tell the footprint.
    Measure,
}

/// From another process to the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// Its ports are open; with the id of its node.
    Ready {
        node: String,
    },
    /// So many messages of the stream were published, or sent, by the word of the call that did it.
    Accepted(Stream, u64),
    /// What arrived since the last such report, in its order.
    Arrived(Vec<Run>),
    /// What was told of a node, by its id.
    Presence(String, Sight),
    /// How its calls have ended so far.
    Calls(Calls),
    /// Nothing new, but it lives.
    Here,
    /// It publishes and calls no more; all that it did was told before.
    Stopped,
    Footprint(Footprint),
    /// Something that must not be.
    Wrong {
        what: String,
    },
    /// It has to give up.
    Failed {
        reason: String,
    },
}
