//! What a reading port and the control thread share, and the logs that the port reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::Release, Ordering::SeqCst, fence};

use parking_lot::Mutex;

use super::client::Routes;
use super::log::OutletShared;
use super::peer::NodeInfo;
use super::server::Pair;
use super::stats::Counters;
use super::topic::{Carries, Filter};
use crate::control::{NodeId, PortCard};
use crate::frame::Role;
use crate::ring::{self, CursorSegment, Look, layout};
use crate::segment::{Memory, PeerSegment, Sealed, page_size};
use crate::wake::Bell;

/// Names a log on the whole bus, as one reader was attached to it: a node that was lost and found again
/// attaches the same reader anew, under another number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LogKey {
    pub(super) node: NodeId,
    pub(super) log: u64,
    /// The reader's number.
    pub(super) number: u16,
}

/// Whose log it is, and what is in it.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) node: NodeInfo,
    pub(super) log: u64,
    /// The log's one topic; `None` where each frame says its own.
    pub(super) topic: Option<Arc<str>>,
    /// What those topics are under; `None` where there is one topic, or none.
    pub(super) pattern: Option<Filter>,
    pub(super) carries: Carries,
    /// The writing port's.
    pub(super) priority: u8,
    /// The node that reads it: this one.
    pub(super) reader: NodeInfo,
    /// Frames that have no place in it.
    pub(super) misplaced: Recurrence,
}

/// Counts what a peer may do as often as it likes, so that not every time is a line in the log.
#[derive(Debug, Default)]
pub(super) struct Recurrence(AtomicU64);

impl Recurrence {
    /// Once more: how often it was, if that is to be told: the first time, the second, the fourth, and so on.
    #[cold]
    pub(super) fn again(&self) -> Option<u64> {
        let count = self.0.fetch_add(1, Relaxed) + 1;
        count.is_power_of_two().then_some(count)
    }
}

/// One log that the port reads.
pub(super) struct Source {
    pub(super) key: LogKey,
    /// The log that this one continues, which is to be read first.
    pub(super) predecessor: Option<u64>,
    /// The number of its writer's first message that this port has not had, while there was no room for the log.
    pub(super) due: Option<u64>,
    /// The number of the message that would be next, if none were missed where this log continues another: until one has
    /// come, nobody has told.
    pub(super) untold: Option<u64>,
    /// In a client's port: the number of the route that it answers for.
    pub(super) route: Option<u32>,
    pub(super) reader: ring::Reader<Arc<PeerSegment>, Arc<Sealed>>,
    /// Wakes the writer when it waits for room.
    pub(super) writer: Bell,
    pub(super) origin: Arc<Origin>,
    /// Payloads may be looked at in place.
    pub(super) lend: bool,
    /// The last topic of a log that has many: the next message often has the same.
    pub(super) last_topic: Option<Arc<str>>,
    /// The writer is gone: what is in the log is all there will be.
    pub(super) ended: bool,
    /// Where the answers go, if this is a client's log.
    pub(super) reply: Option<Reply>,
    pub(super) manner: Manner,
}

impl Source {
    /// Whether what was missed before its first message is not known, since that has not come.
    pub(super) fn is_loss_untold(&self) -> bool {
        self.untold.is_some() && self.reader.expected() == self.untold
    }

    pub(super) fn rests(&self) -> bool {
        self.manner == Manner::Resting
    }

    /// Its writer no longer waits for it: what it reads from now on may be overwritten.
    pub(super) fn lose_gate(&mut self) {
        if self.manner == Manner::Gated {
            self.reader.lose_gate();
            self.manner = Manner::Ungated;
        }
    }

    /// Its turn; unless in full, one load if no record has come.
    #[inline(always)]
    pub(super) fn look(&mut self, full: bool) -> Option<Look> {
        if !full && !self.ended && self.reader.quiet() {
            if self.manner == Manner::Gated {
                self.reader.tell();
            }
            return None;
        }
        let found = match self.manner {
            Manner::Gated => self.reader.look(),
            _ => self.look_aside(),
        };
        if self.reader.take_ring_due() {
            self.writer.ring();
        }
        match found {
            Look::Empty if !self.ended => None,
            found => Some(found),
        }
    }

    /// A look at a log that is not read as most are.
    #[cold]
    fn look_aside(&mut self) -> Look {
        match self.manner {
            Manner::Resting if !self.ended => Look::Empty,
            Manner::Ungated => self.reader.look_ungated(),
            _ => self.reader.look(),
        }
    }
}

/// How the port looks at a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// For records that stay until they are released.
    Gated,
    /// For copies.
    Ungated,
    /// Not for now: its answers have no room.
    Resting,
}

/// The other log of a pair: first as the control thread has made it, then as the server writes it.
pub(super) enum Reply {
    Made(Arc<OutletShared>),
    Open(Arc<Pair>),
}

/// What the control thread tells the port.
pub(super) enum Change {
    Add(Box<Source>),
    /// The writer is gone, or cut off: nothing from this position on is read, and what comes before it with care unless it
    /// is `gated`: then no writer overwrites it.
    End {
        key: LogKey,
        until: u64,
        gated: bool,
    },
    /// A log has a new blob, which may be one that could not be mapped.
    Blob {
        key: LogKey,
        blob: u64,
        memory: Option<Arc<PeerSegment>>,
    },
    /// No record names it any more.
    BlobGone {
        key: LogKey,
        blob: u64,
    },
    /// The port was cut off at the end of this log, and nobody is left to attach it again.
    Abandoned {
        key: LogKey,
    },
    /// This process is short of something: a log of this node is not read.
    Failed {
        node: NodeInfo,
        reason: String,
    },
}

/// What a reading port is for.
pub(super) enum Purpose {
    /// Reads the logs of matching publishers; if it is lossy, without gates.
    Subscriber { lossy: bool },
    /// Reads what is sent to its node's name.
    Inbox,
    /// Reads the answers of the servers it has called; the control thread tells it which there are.
    Client(Arc<Routes>),
    /// Reads the requests of its clients, and writes each a log of `capacity` bytes.
    Server { capacity: u64, version: Option<String> },
}

/// What the port and the control thread share of a reading port.
pub(super) struct InletShared {
    pub(super) port: u64,
    pub(super) purpose: Purpose,
    /// What it subscribes to; of a client or server, the service.
    pub(super) filters: Arc<[Filter]>,
    /// Of what a client or server writes.
    pub(super) priority: u8,
    pub(super) bell: Bell,
    /// The first segment: holds `parked` and the first cursors.
    pub(super) segment: Arc<Sealed>,
    pub(super) counters: Counters,
    pub(super) changes: Mutex<Vec<Change>>,
    /// Counts changes: what the port looks at instead of the lock.
    pub(super) generation: AtomicU64,
}

impl InletShared {
    /// Called by the control thread.
    pub(super) fn change(&self, change: Change) {
        let mut changes = self.changes.lock();
        changes.push(change);
        // Release pairs with the Acquire in `Inlet::is_ready`; the bell rung below covers a port that
        // looked just before.
        self.generation.store(self.generation.load(Relaxed) + 1, Release);
        drop(changes);
        self.bell.ring();
    }

    /// Called by whoever has dropped a record that was lent: a port that sleeps has to look, or its cursor, and
    /// with it a writer that waits for room, would stay.
    pub(super) fn nudge(&self) {
        fence(SeqCst); // pairs with the fence in `ring::Waiter::arm`, after which the port looks at its lends
        if self.segment.load(layout::PARKED, Relaxed) & 1 == 1 {
            self.bell.ring();
        }
    }

    /// Whether it reads without gates.
    pub(super) fn is_lossy(&self) -> bool {
        matches!(self.purpose, Purpose::Subscriber { lossy: true })
    }

    pub(super) fn role(&self) -> Role {
        match self.purpose {
            Purpose::Subscriber { .. } => Role::Subscriber,
            Purpose::Inbox => Role::Inbox,
            Purpose::Client(_) => Role::Client,
            Purpose::Server { .. } => Role::Server,
        }
    }

    pub(super) fn card(&self) -> PortCard {
        let version = match &self.purpose {
            Purpose::Server { version, .. } => version.clone(),
            _ => None,
        };
        PortCard {
            id: self.port,
            role: self.role(),
            filters: self.filters.iter().map(|filter| filter.as_str().to_owned()).collect(),
            pattern: false,
            denied: false,
            lossy: self.is_lossy(),
            priority: self.priority,
            capacity: None,
            version,
        }
    }
}

/// Makes the `index`-th cursor segment of a port; later ones are larger.
pub(super) fn new_cursor_segment(
    node: [u8; 16],
    port: u64,
    index: u32,
) -> Result<Sealed, crate::segment::SegmentError> {
    let size = page_size() << index.min(4);
    let segment = Sealed::create("ringbus-cursors", size, true)?;
    CursorSegment::of_size(size).initialise(&segment, node, port, index);
    Ok(segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_recurs_a_million_times_is_told_twenty_times() {
        let misplaced = Recurrence::default();
        let told: Vec<u64> = (0..1_000_000).filter_map(|_| misplaced.again()).collect();
        assert_eq!(told, (0..20).map(|power| 1 << power).collect::<Vec<_>>());
    }
}
