//! The reading end of a port: the logs it reads, in turn, and its bell.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::Instant;

use parking_lot::Mutex;

use super::core::Command;
use super::error::{OpenError, RecvError};
use super::node::NodeShared;
use super::peer::NodeInfo;
use super::stats::{Counters, PortStats};
use super::topic::{Carries, Filter};
use super::turns::Turns;
use crate::control::{NodeId, PortCard};
use crate::frame::{self, Role};
use crate::ring::{self, CursorSegment, Next, Record, Waiter, layout};
use crate::segment::{PeerSegment, Sealed, page_size};
use crate::wake::{Bell, Patience, Then, Wait};

/// Records on topics that are none of the port's that are passed over between two looks at the clock: a busy
/// publisher over a pattern must not keep a caller beyond its timeout.
const UNWANTED: usize = 64;

/// Every so many looks, logs without a new record are looked at for what is no record: drops, the end. Logs of
/// lower priority are on each turn that they get, too.
const FULLY: u32 = 64;

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
    pub(super) carries: Carries,
    /// The writing port's.
    pub(super) priority: u8,
}

/// One log that the port reads.
pub(super) struct Source {
    pub(super) key: LogKey,
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
}

/// What the control thread tells the port.
pub(super) enum Change {
    Add(Box<Source>),
    /// The writer is gone, or cut off: nothing from this position on is read.
    End {
        key: LogKey,
        until: u64,
    },
    /// This process is short of something: a log of this node is not read.
    Failed {
        node: NodeInfo,
        reason: String,
    },
}

/// What the port and the control thread share of a reading port.
pub(super) struct InletShared {
    pub(super) port: u64,
    pub(super) role: Role,
    pub(super) filters: Arc<[Filter]>,
    pub(super) bell: Bell,
    /// The first segment: holds `parked` and the first cursors.
    pub(super) segment: Arc<Sealed>,
    pub(super) counters: Counters,
    changes: Mutex<Vec<Change>>,
    /// Counts changes: what the port looks at instead of the lock.
    generation: AtomicU64,
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

    pub(super) fn card(&self) -> PortCard {
        PortCard {
            id: self.port,
            role: self.role,
            filters: self.filters.iter().map(|filter| filter.as_str().to_owned()).collect(),
            pattern: false,
            priority: frame::PortUp::DEFAULT_PRIORITY,
            capacity: None,
        }
    }
}

/// The reading end of a port, on its user's thread.
pub(super) struct Inlet {
    shared: Arc<InletShared>,
    node: Arc<NodeShared>,
    wait: Wait,
    generation: u64,
    /// In the order of `turns`.
    sources: Vec<Source>,
    turns: Turns,
    /// Looks until the next one that looks at each log in full.
    until_full: u32,
    /// To be told to the user before anything else.
    failed: Vec<RecvError>,
    parked: Waiter,
}

impl Inlet {
    pub(super) fn open(
        node: &Arc<NodeShared>,
        role: Role,
        filters: Vec<Filter>,
        wait: Wait,
    ) -> Result<Self, OpenError> {
        if !node.origin.is_here() {
            return Err(OpenError::Forked);
        }
        let memory = |reason: String| OpenError::Memory { reason };
        let port = node.next_port();
        let segment =
            new_cursor_segment(*node.info.id().as_bytes(), port, 0).map_err(|e| memory(e.to_string()))?;
        let shared = Arc::new(InletShared {
            port,
            role,
            filters: filters.into(),
            bell: Bell::new().map_err(|e| memory(e.to_string()))?,
            segment: Arc::new(segment),
            counters: Counters::default(),
            changes: Mutex::new(Vec::new()),
            generation: AtomicU64::new(0),
        });
        let inlet = Self {
            shared: shared.clone(),
            node: node.clone(),
            wait,
            generation: 0,
            sources: Vec::new(),
            turns: Turns::default(),
            until_full: 0,
            failed: Vec::new(),
            parked: Waiter::new(layout::PARKED),
        };
        node.ask(|reply| Command::OpenInlet { inlet: shared, reply })?;
        Ok(inlet)
    }

    pub(super) fn filters(&self) -> &[Filter] {
        &self.shared.filters
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    pub(super) fn stats(&self) -> PortStats {
        if !self.is_here() {
            return PortStats::default();
        }
        let lag = self.sources.iter().map(|source| source.reader.lag()).sum();
        self.shared.counters.stats(lag, self.sources.len())
    }

    pub(super) fn source(&self, index: usize) -> &Source {
        &self.sources[index]
    }

    pub(super) fn source_mut(&mut self, index: usize) -> &mut Source {
        &mut self.sources[index]
    }

    /// Whether this is the process that opened the port: in another its memory is not there.
    #[inline(always)]
    pub(super) fn is_here(&self) -> bool {
        self.node.origin.is_here()
    }

    /// Looks for a record, each log in its turn. The record stays in hand until [`Inlet::release`].
    ///
    /// # Errors
    /// What the port's user has to be told; the port goes on after it.
    #[inline]
    fn look(&mut self) -> Result<Option<(usize, Record)>, RecvError> {
        if !self.is_here() {
            return Err(RecvError::Forked);
        }
        self.parked.disarm(&self.shared.segment);
        if self.shared.generation.load(Acquire) != self.generation {
            self.take_changes();
        }
        if let Some(failed) = self.failed.pop() {
            return Err(failed);
        }
        let full = self.until_full == 0;
        self.until_full = if full { FULLY - 1 } else { self.until_full - 1 };
        loop {
            let sources = &mut self.sources;
            let found = self.turns.find(|index, below| {
                let source = &mut sources[index];
                if !full && !below && !source.ended && source.reader.quiet() {
                    return None;
                }
                let found = source.reader.next();
                if source.reader.take_ring_due() {
                    source.writer.ring();
                }
                match found {
                    Ok(Next::Empty) if !source.ended => None,
                    found => Some(found),
                }
            });
            match found {
                None => return Ok(None),
                Some((turn, Ok(Next::Record(record)))) => {
                    self.turns.took(turn);
                    return Ok(Some((turn.log, record)));
                }
                Some((turn, other)) => {
                    if matches!(other, Ok(Next::Lagged(_))) {
                        self.turns.took(turn); // or one that drops all the time would have every turn
                    }
                    if let Some(error) = self.exception(turn.log, other) {
                        return Err(error);
                    }
                    // One log less: look again.
                }
            }
        }
    }

    /// What is not a record: mostly the end of a log, which needs no word to the user.
    #[cold]
    fn exception(&mut self, index: usize, found: Result<Next, ring::Corrupt>) -> Option<RecvError> {
        if let Ok(Next::Lagged(missed)) = found {
            let origin = &self.sources[index].origin;
            self.shared.counters.drop(missed);
            let topic = origin.topic.as_deref().map(str::to_owned);
            return Some(RecvError::Lagged { missed, source_node: origin.node.clone(), topic });
        }
        match found {
            Err(why) => Some(self.cut(index, why)),
            Ok(_) => {
                self.remove(index, None);
                None
            }
        }
    }

    /// Stops reading a log whose writer broke the protocol, and has its node cut off.
    #[cold]
    pub(super) fn cut(&mut self, index: usize, why: ring::Corrupt) -> RecvError {
        let source = self.remove(index, Some(why));
        RecvError::PeerCorrupt { source_node: source.origin.node.clone(), why }
    }

    fn remove(&mut self, index: usize, corrupt: Option<ring::Corrupt>) -> Source {
        let source = self.sources.remove(index);
        self.turns.remove(index);
        self.node.tell(Command::LogDone { port: self.shared.port, key: source.key, corrupt });
        source
    }

    #[cold]
    fn take_changes(&mut self) {
        let mut changes = self.shared.changes.lock();
        self.generation = self.shared.generation.load(Relaxed);
        for change in changes.drain(..) {
            match change {
                Change::Add(source) => {
                    let place = self.turns.insert(source.origin.priority);
                    self.sources.insert(place, *source);
                }
                Change::End { key, until } => {
                    for source in self.sources.iter_mut().filter(|source| source.key == key) {
                        source.reader.end_at(until);
                        source.ended = true;
                    }
                }
                Change::Failed { node, reason } => {
                    self.failed.push(RecvError::Unattached { source_node: node, reason });
                }
            }
        }
    }

    /// Done with the record in hand.
    #[inline(always)]
    pub(super) fn release(&mut self, index: usize) {
        let source = &mut self.sources[index];
        source.reader.release();
        if source.reader.take_ring_due() {
            source.writer.ring();
        }
    }

    /// Prepares a sleep on the bell: false if there is something to look at first.
    pub(super) fn arm(&mut self) -> Result<bool, RecvError> {
        if !self.is_here() {
            return Err(RecvError::Forked);
        }
        for source in &mut self.sources {
            source.reader.release();
            source.reader.flush();
            if source.reader.take_ring_due() {
                source.writer.ring();
            }
        }
        self.until_full = 0; // whatever ends the sleep, or forbids it, may be no record
        self.shared.bell.drain();
        self.parked.arm(&self.shared.segment);
        if self.is_ready() {
            self.parked.disarm(&self.shared.segment);
            return Ok(false);
        }
        if self.node.is_gone() {
            return Err(RecvError::NodeGone);
        }
        Ok(true)
    }

    fn is_ready(&self) -> bool {
        self.shared.generation.load(Acquire) != self.generation
            || !self.failed.is_empty()
            || self.sources.iter().any(|source| source.ended || source.reader.is_ready())
    }

    /// Looks until `deadline`, sleeping as the port's strategy says. `found` turns a record into what the
    /// user gets, or into `None`: not for this port.
    #[inline]
    pub(super) fn wait<T>(
        &mut self,
        deadline: Option<Instant>,
        mut found: impl FnMut(&mut Self, usize, Record) -> Result<Option<T>, RecvError>,
    ) -> Result<Option<T>, RecvError> {
        let mut patience = Patience::new(self.wait, deadline);
        loop {
            if let Taken::Value(value) = self.take(&mut found)? {
                return Ok(Some(value));
            }
            match patience.next() {
                Then::Look => {}
                Then::GiveUp => return self.take_fully(&mut found),
                Then::Sleep(timeout) => {
                    if self.arm()? {
                        // An error is the kernel's refusal to poll: look again.
                        let _ = self.shared.bell.wait(timeout);
                    }
                    patience.woke();
                }
            }
        }
    }

    /// [`Inlet::wait`] without waiting.
    #[inline]
    pub(super) fn try_take<T>(
        &mut self,
        mut found: impl FnMut(&mut Self, usize, Record) -> Result<Option<T>, RecvError>,
    ) -> Result<Option<T>, RecvError> {
        match self.take(&mut found)? {
            Taken::Value(value) => Ok(Some(value)),
            Taken::Unwanted => Ok(None),
            Taken::Nothing => self.take_fully(&mut found),
        }
    }

    #[inline]
    fn take<T>(
        &mut self,
        found: &mut impl FnMut(&mut Self, usize, Record) -> Result<Option<T>, RecvError>,
    ) -> Result<Taken<T>, RecvError> {
        for _ in 0..UNWANTED {
            let Some((index, record)) = self.look()? else { return Ok(Taken::Nothing) };
            if let Some(value) = found(self, index, record)? {
                return Ok(Taken::Value(value));
            }
        }
        Ok(Taken::Unwanted)
    }

    /// The last look before the caller is told that there is nothing: at each log in full.
    #[cold]
    fn take_fully<T>(
        &mut self,
        found: &mut impl FnMut(&mut Self, usize, Record) -> Result<Option<T>, RecvError>,
    ) -> Result<Option<T>, RecvError> {
        self.until_full = 0;
        match self.take(found)? {
            Taken::Value(value) => Ok(Some(value)),
            Taken::Nothing | Taken::Unwanted => Ok(None),
        }
    }
}

/// What a port's looks came to.
enum Taken<T> {
    Value(T),
    /// Nothing is there.
    Nothing,
    /// Only what is none of the port's.
    Unwanted,
}

impl AsFd for Inlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.bell.as_fd()
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.node.tell(Command::ClosePort { port: self.shared.port });
    }
}

/// A payload in a log, as a stream: what is read was copied out of the log first.
pub(super) struct PayloadReader<'a> {
    pub(super) source: &'a Source,
    pub(super) at: usize,
    pub(super) end: usize,
}

impl Read for PayloadReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = into.len().min(self.end - self.at);
        self.source.reader.copy(self.at, &mut into[..len]);
        self.at += len;
        Ok(len)
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
