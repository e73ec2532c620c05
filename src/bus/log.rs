//! What a writing port and the control thread share of one log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::{Condvar, Mutex};

use super::error::OpenError;
use super::peer::NodeInfo;
use super::stats::{Counters, PortStats};
use super::topic::Filter;
use crate::control::{NodeId, PortCard};
use crate::frame::Role;
use crate::ring::{self, LogHeader, LogLayout};
use crate::segment::{PeerSegment, Sealed};
use crate::wake::Bell;

/// Logs up to this size get all their pages when they are made: a page fault costs more than a message.
pub(super) const PREFAULT: usize = 1 << 20;

/// Whether a log's segment of this size has all its pages from the first on. Its readers refuse one that has not.
pub(super) fn is_made_at_once(size: usize) -> bool {
    size <= PREFAULT + ring::layout::DATA
}

/// What a writer keeps about a reader of its log.
pub(super) struct Reader {
    pub(super) node: NodeInfo,
    pub(super) bell: Bell,
    pub(super) filters: Arc<[Filter]>,
}

pub(super) type Gates = ring::Gates<Arc<PeerSegment>, Reader>;

/// What the port and the control thread share of a writing port.
pub(super) struct OutletShared {
    pub(super) port: u64,
    pub(super) log: u64,
    /// Number of its first message.
    pub(super) first: u64,
    /// The topic, or the pattern; of a pair, the service.
    pub(super) filter: Filter,
    /// The one port that reads the log of a client–server pair; else whoever's filters match.
    pub(super) only: Option<(NodeId, u64)>,
    pub(super) priority: u8,
    pub(super) layout: LogLayout,
    pub(super) segment: Arc<Sealed>,
    /// Wakes the port when a cursor has moved while it waits for room.
    pub(super) bell: Bell,
    pub(super) gates: Arc<Gates>,
    pub(super) counters: Counters,
    /// Readers that have a gate, for [`Outlet::wait_for_readers`].
    pub(super) audience: Mutex<usize>,
    pub(super) audience_changed: Condvar,
    /// The node's, to be set when the last gate has gone.
    unread: Arc<AtomicBool>,
}

/// A log about to be made.
pub(super) struct NewLog {
    pub(super) node: NodeId,
    pub(super) port: u64,
    pub(super) log: u64,
    pub(super) filter: Filter,
    pub(super) capacity: u64,
    pub(super) priority: u8,
    pub(super) gates: Gates,
    pub(super) unread: Arc<AtomicBool>,
    /// Of a pair: the bell of the port's own reading end, so that it goes on reading while it waits for room;
    /// and the port that reads the log.
    pub(super) pair: Option<(Bell, (NodeId, u64))>,
}

impl OutletShared {
    /// Makes the log.
    pub(super) fn create(new: NewLog) -> Result<Self, OpenError> {
        let NewLog { node, port, log, filter, capacity, priority, gates, unread, pair } = new;
        let layout = check_capacity(capacity)?;
        let segment = make(layout, LogHeader { log, node: *node.as_bytes(), port })?;
        let (bell, only) = match pair {
            Some((bell, reader)) => (bell, Some(reader)),
            None => (Bell::new().map_err(|error| OpenError::Memory { reason: error.to_string() })?, None),
        };
        Ok(Self {
            port,
            log,
            first: 0,
            filter,
            only,
            priority,
            layout,
            segment: Arc::new(segment),
            bell,
            gates: Arc::new(gates),
            counters: Counters::default(),
            audience: Mutex::new(0),
            audience_changed: Condvar::new(),
            unread,
        })
    }

    /// Makes the log that continues this one: of the same port, with what it has counted.
    pub(super) fn successor(&self, node: NodeId, log: u64, first: u64) -> Result<Self, OpenError> {
        let header = LogHeader { log, node: *node.as_bytes(), port: self.port };
        Ok(Self {
            port: self.port,
            log,
            first,
            filter: self.filter.clone(),
            only: self.only,
            priority: self.priority,
            layout: self.layout,
            segment: Arc::new(make(self.layout, header)?),
            bell: self.bell.clone(),
            gates: Arc::new(Gates::numbered_from(first)),
            counters: self.counters.carried_on(),
            audience: Mutex::new(0),
            audience_changed: Condvar::new(),
            unread: self.unread.clone(),
        })
    }

    /// Called by the control thread after a gate came or went, with the number of those whose reader has not
    /// been sent the log yet; wakes the port if it waits for either.
    pub(super) fn gates_changed(&self, unsent: usize) {
        let gates = self.gates.len();
        *self.audience.lock() = gates.saturating_sub(unsent);
        if gates == 0 {
            self.unread.store(true, Relaxed); // the gates themselves are behind a lock
        }
        self.audience_changed.notify_all();
        self.bell.ring();
    }

    pub(super) fn stats(&self) -> PortStats {
        let tail = ring::layout::tail(&*self.segment);
        self.counters.stats(self.gates.lag(tail), self.gates.len())
    }

    pub(super) fn card(&self) -> PortCard {
        PortCard {
            id: self.port,
            role: Role::Publisher,
            filters: vec![self.filter.as_str().to_owned()],
            pattern: self.filter.is_pattern(),
            denied: false,
            lossy: false,
            priority: self.priority,
            capacity: Some(self.layout.capacity()),
            version: None,
        }
    }
}

fn make(layout: LogLayout, header: LogHeader) -> Result<Sealed, OpenError> {
    let size = layout.segment_size();
    let segment = Sealed::create("ringbus-log", size, is_made_at_once(size))
        .map_err(|error| OpenError::Memory { reason: error.to_string() })?;
    layout.initialise(&segment, &header);
    Ok(segment)
}

/// The layout of a log of this capacity.
pub(crate) fn check_capacity(capacity: u64) -> Result<LogLayout, OpenError> {
    let layout = LogLayout::new(capacity).filter(|_| capacity >= ring::MIN_CAPACITY);
    layout.ok_or(OpenError::Capacity { capacity })
}
