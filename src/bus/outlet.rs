//! The writing end of a port: one log, its policy when full, and the bells of its readers.

use std::cell::LazyCell;
use std::sync::Arc;
use std::time::Duration;

use super::TopicError;
use super::blob::{Limits, Pool};
use super::codec::{Body, BodyError, Bytes};
use super::core::Command;
use super::error::{OpenError, PublishError, WaitError};
use super::log::{NewLog, OutletShared, Reader};
use super::node::NodeShared;
use super::spare::ALIGN;
use super::stats::PortStats;
use super::topic::{Filter, Topic, check_topic};
use crate::frame::{self, Encoding, Head, Headers, PortUp};
use crate::ring;
use crate::segment::{PeerSegment, Sealed, Via};
use crate::wake::{Habit, Wait, barrier};

mod batch;
mod copying;
mod fill;
mod large;
mod loan;
mod put;
mod room;
mod sending;
mod succession;

use copying::{Copying, Payload};
use fill::{fill, prefix_len, refuse_body};
pub(super) use large::Room;
use loan::{Begun, Lent};
pub(super) use sending::Sending;

/// What happens when a publisher's log is full because a subscriber has not kept up.
///
/// A subscriber counts from the moment that the log is promised to it, some milliseconds before it reads: a log that is full
/// by then is full for it, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// Wait for room, up to the timeout; then [`PublishError::Full`]. The default, with 1 s. Nothing is lost
    /// that was published, and one stalled subscriber delays all others of this publisher by the timeout a
    /// message.
    Block {
        /// How long.
        timeout: Duration,
    },
    /// Return [`PublishError::Full`] at once.
    Fail,
    /// Drop the message: `publish` succeeds, and every subscriber of this publisher is told
    /// ([`RecvError::Lagged`](crate::RecvError::Lagged)).
    DropNewest,
    /// Wait for room, up to the timeout; then cut off the subscribers that are in the way, and go on with all others:
    /// `publish` succeeds. Who is cut off still gets everything that is in the log, is then told how many messages it
    /// has missed ([`RecvError::Lagged`](crate::RecvError::Lagged)), and gets what is published from there on. The
    /// others miss nothing.
    ///
    /// It costs a new log (and blobs), some milliseconds, and up to 250 ms if the process of a subscriber that keeps up is
    /// stopped just then. A log that is cut off lasts until those that are to read it have; no subscriber has more than
    /// two of a publisher.
    ///
    /// What may be lost without a count: a subscriber that keeps up, and whose node has not taken a word from its socket
    /// for 250 ms just then, is given the new log later; if the publisher's process dies before, that subscriber does not
    /// get what is in the new log, and is told so (`Lagged` with 0 missed). Nothing tells a subscriber that is too slow
    /// from one that has only just been attached: with a timeout shorter than that takes, some milliseconds, it may be
    /// cut off at once.
    ///
    /// [`PublishError::Memory`] if there is no memory for another log.
    Evict {
        /// How long.
        timeout: Duration,
    },
}

impl Default for Overflow {
    fn default() -> Self {
        Overflow::Block { timeout: Duration::from_secs(1) }
    }
}

/// Of a message that says nothing but its payload.
pub(in crate::bus) const PLAIN: Head<'static> = Head::Event { topic: None, headers: Headers::EMPTY };

/// Bytes of the largest frame that is made in private memory and then stored into the log, word by word in ascending order,
/// and of the largest raw payload that is stored so. Of twice as much, that takes as long as writing it where it is going to
/// stand, as memcpy does; of more, longer.
const STAGE: usize = 2048;

/// Most steps of holding a sleeping subscriber's filters against a message's topic: some microseconds, as waking it takes.
/// There may be some hundred usual filters for it; whoever has more is woken by every message. What a peer's filters are
/// like is for the peer to pay, not for who publishes.
const SCRUTINY: usize = 512;

/// Where small frames are made, those of loans as far from a line's beginning as they are going to stand in the log.
#[repr(align(64))]
struct Stage([u8; STAGE + ALIGN]);

/// The settings of a writing port.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutletConfig {
    pub(super) capacity: u64,
    pub(super) overflow: Overflow,
    pub(super) wait: Wait,
    pub(super) priority: u8,
    pub(super) limits: Limits,
}

impl OutletConfig {
    /// A log of a pair: what to do when it is full is its port's business.
    pub(super) fn of_pair(capacity: u64, limits: Limits) -> Self {
        let priority = PortUp::DEFAULT_PRIORITY;
        Self { capacity, overflow: Overflow::Fail, wait: Wait::default(), priority, limits }
    }
}

/// What a message needs.
#[derive(Debug, Clone, Copy)]
enum Want {
    /// A record with so many bytes behind its header.
    Record(u64),
    /// A blob of this size, and the record that names it; one may be made for it.
    Blob(u64),
    /// The same, if enough are out already, without making one.
    ReturnedBlob(u64),
}

/// Whether a message went into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claimed {
    Yes,
    /// The policy is to drop it; that was told.
    Dropped,
}

/// The writing end of a port, on its user's thread.
pub(super) struct Outlet {
    writer: ring::Writer<Arc<Sealed>, Arc<PeerSegment>, Reader>,
    shared: Arc<OutletShared>,
    node: Arc<NodeShared>,
    config: OutletConfig,
    one_topic: bool,
    pool: Pool<Arc<Sealed>>,
    lent: Lent,
    /// Of the blob that was taken, until it is published: of a loan, before it is filled.
    naming: Option<ring::Naming>,
    begun: Option<Begun>,
    habit: Habit,
    copying: Copying,
    stage: Box<Stage>,
    /// Bytes of the largest frame that is made there: [`STAGE`], or as many as the log takes.
    staged: usize,
}

impl Outlet {
    pub(super) fn open(
        node: &Arc<NodeShared>,
        filter: Filter,
        config: OutletConfig,
    ) -> Result<Self, OpenError> {
        if !node.origin.is_here() {
            return Err(OpenError::Forked);
        }
        if node.drains.is_closing() {
            return Err(OpenError::Draining);
        }
        let shared = OutletShared::create(NewLog {
            node: node.info.id(),
            port: node.next_port(),
            log: node.next_log(),
            filter,
            capacity: config.capacity,
            priority: config.priority,
            gates: ring::Gates::numbered(), // a late reader may miss something: by the port's policy, or by its own
            unread: node.unread.clone(),
            pair: None,
        })?;
        let outlet = Self::of(Arc::new(shared), node.clone(), config);
        node.ask(|reply| Command::OpenOutlet { outlet: outlet.shared.clone(), reply })?;
        Ok(outlet)
    }

    /// The writing end of a log that was just made.
    pub(super) fn of(shared: Arc<OutletShared>, node: Arc<NodeShared>, config: OutletConfig) -> Self {
        let writer = Self::writer_of(&shared);
        let one_topic = !shared.filter.is_pattern();
        let (pool, stage) = (Pool::new(config.limits.blob_memory), Box::new(Stage([0; STAGE + ALIGN])));
        let staged = STAGE.min(writer.largest_body() as usize);
        Self {
            writer,
            shared,
            node,
            config,
            one_topic,
            pool,
            lent: Lent::NOTHING,
            naming: None,
            begun: None,
            habit: Habit::default(),
            copying: Copying::default(),
            stage,
            staged,
        }
    }

    fn writer_of(shared: &OutletShared) -> ring::Writer<Arc<Sealed>, Arc<PeerSegment>, Reader> {
        let writer = ring::Writer::new(shared.segment.clone(), shared.layout, shared.gates.clone());
        if barrier::has_barriers() { writer.biased() } else { writer }
    }

    pub(super) fn filter(&self) -> &Filter {
        &self.shared.filter
    }

    /// Whether anybody reads the log, as far as the control thread knows.
    pub(super) fn has_readers(&self) -> bool {
        self.shared.gates.len() > 0
    }

    pub(super) fn stats(&self) -> PortStats {
        if self.node.origin.is_here() { self.shared.stats() } else { PortStats::default() }
    }

    pub(super) fn wait_for_readers(&self, wanted: usize, timeout: Duration) -> Result<(), WaitError> {
        if !self.node.origin.is_here() {
            return Err(WaitError::Forked);
        }
        let mut audience = self.shared.audience.lock();
        let enough = |audience: &mut usize| *audience < wanted;
        self.shared.audience_changed.wait_while_for(&mut audience, enough, timeout);
        match *audience {
            found if found >= wanted => Ok(()),
            found => Err(WaitError::Timeout { found, wanted, waited: timeout }),
        }
    }

    /// Whether frames need not say their topic.
    #[inline(always)]
    pub(super) fn has_one_topic(&self) -> bool {
        self.one_topic
    }

    /// Which topic goes into the frame; `None` where the log has one.
    pub(super) fn topic_for<'t>(&self, topic: Option<&'t str>) -> Result<Option<&'t str>, PublishError> {
        let filter = &self.shared.filter;
        match topic {
            None if filter.is_pattern() => {
                Err(PublishError::NeedsTopic { pattern: filter.as_str().to_owned() })
            }
            None => Ok(None),
            Some(topic) if filter.is_pattern() => {
                check_topic(topic)?;
                if !filter.matches(topic) {
                    return Err(TopicError::outside(topic).into());
                }
                Ok(Some(topic))
            }
            Some(topic) if topic == filter.as_str() => Ok(None),
            Some(topic) => Err(TopicError::outside(topic).into()),
        }
    }

    /// Encodes a message and publishes it.
    #[inline(always)]
    pub(super) fn publish(
        &mut self,
        head: &Head<'_>,
        encoding: Encoding,
        body: &impl Body,
    ) -> Result<(), PublishError> {
        if !self.node.origin.is_here() {
            return Err(PublishError::Forked);
        }
        // Small frames are made in private memory, see `ring::Writer::append`.
        match fill(&mut self.stage.0[..self.staged], head, encoding, body, Via::Caches) {
            Ok((frame, payload)) => return self.publish_staged(frame, payload, head),
            Err(BodyError::Full) => {}
            Err(BodyError::Encode(reason)) => return Err(PublishError::Encode { reason }),
        }
        self.publish_unstaged(head, encoding, body)
    }

    /// Publishes bytes on the port's one topic, and nothing else.
    #[inline(always)]
    pub(super) fn publish_bytes(&mut self, bytes: &[u8]) -> Result<(), PublishError> {
        if !self.node.origin.is_here() {
            return Err(PublishError::Forked);
        }
        // Head and payload are joined on the way into the log.
        if bytes.len() <= STAGE
            && let Some(head) = frame::plain_event_head(Encoding::Raw, bytes.len())
            && self.writer.publish_frame(&head, bytes).is_ok()
        {
            return self.tell(bytes.len(), &PLAIN);
        }
        self.publish(&PLAIN, Encoding::Raw, &Bytes(bytes))
    }

    #[inline(never)]
    fn publish_unstaged(
        &mut self,
        head: &Head<'_>,
        encoding: Encoding,
        body: &impl Body,
    ) -> Result<(), PublishError> {
        if body.known_size().is_none() {
            // The size is known once it is encoded: try in what is free in one piece.
            self.writer.claim_window();
            let turn = self.copying.begin(Payload::ValueOfAnySize);
            match fill(self.writer.body_mut(), head, encoding, body, turn.via) {
                Ok((frame, payload)) => {
                    self.copying.end(turn, payload);
                    return self.finish(0, frame, payload, head);
                }
                Err(BodyError::Full) => {}
                Err(BodyError::Encode(reason)) => return Err(PublishError::Encode { reason }),
            }
        }
        self.publish_sized(head, encoding, body)
    }

    #[inline(always)]
    fn publish_staged(&mut self, frame: usize, payload: usize, head: &Head<'_>) -> Result<(), PublishError> {
        if self.writer.publish_frame(&[], &self.stage.0[..frame]).is_err() {
            if self.claim(frame)? == Claimed::Dropped {
                return Ok(());
            }
            self.writer.publish_copy(0, &self.stage.0[..frame]);
        }
        self.tell(payload, head)
    }

    fn publish_sized(
        &mut self,
        head: &Head<'_>,
        encoding: Encoding,
        body: &impl Body,
    ) -> Result<(), PublishError> {
        let size = body.size().map_err(|error| refuse_body(error, 0))?;
        let prefix = prefix_len(head)?;
        let bytes = prefix.saturating_add(size);
        if bytes > self.writer.largest_body() as usize {
            return self.publish_large(head, encoding, body, prefix, size);
        }
        if self.claim(bytes)? == Claimed::Dropped {
            return Ok(());
        }
        let room = &mut self.writer.body_mut()[..bytes];
        let turn = self.copying.begin(Payload::of(encoding, size));
        let filled = fill(room, head, encoding, body, turn.via);
        let (frame, payload) = filled.map_err(|error| refuse_body(error, size))?;
        self.copying.end(turn, payload);
        self.finish(0, frame, payload, head)
    }

    /// Bytes of the largest payload, but for what its head takes of the log.
    pub(super) fn largest(&self) -> usize {
        self.room().largest(0, 0)
    }

    /// Bytes of the log.
    pub(super) fn capacity(&self) -> usize {
        self.shared.layout.capacity() as usize
    }

    /// Announces that the port waits for room: its bell rings when a cursor moves. To be tried once more after
    /// it.
    pub(super) fn arm(&mut self) {
        if self.node.origin.is_here() {
            self.writer.arm();
        }
    }

    pub(super) fn disarm(&mut self) {
        if self.node.origin.is_here() {
            self.writer.disarm();
        }
    }

    fn ring_wanting(&mut self, topic: &str) -> bool {
        let topic = LazyCell::new(|| Topic::of(topic)); // mostly nobody sleeps
        let wanted = |reader: &Reader| {
            let mut steps = SCRUTINY;
            reader.filters.iter().any(|filter| filter.may_match(&topic, &mut steps))
        };
        let counts = self.writer.ring(wanted, |reader| reader.bell.ring());
        if self.writer.has_corrupt() {
            self.report_corrupt();
        }
        counts
    }

    #[inline]
    fn ring_all(&mut self) -> bool {
        let counts = self.writer.ring(|_| true, |reader| reader.bell.ring());
        if self.writer.has_corrupt() {
            self.report_corrupt();
        }
        counts
    }

    #[inline]
    fn finish(
        &mut self,
        filler: u8,
        frame: usize,
        payload: usize,
        head: &Head<'_>,
    ) -> Result<(), PublishError> {
        self.writer.commit(ring::Kind::Frame, 0, filler, frame);
        self.show(payload, head)
    }

    /// Publishes what is committed, and wakes whoever sleeps and wants it.
    ///
    /// # Errors
    /// The node has drained meanwhile, maybe without this message.
    #[inline(always)]
    fn show(&mut self, payload: usize, head: &Head<'_>) -> Result<(), PublishError> {
        self.writer.publish();
        self.tell(payload, head)
    }

    /// Counts what was published, and wakes whoever sleeps and wants it.
    ///
    /// # Errors
    /// Those of [`Outlet::show`].
    #[inline(always)]
    fn tell(&mut self, payload: usize, head: &Head<'_>) -> Result<(), PublishError> {
        self.shared.counters.message(payload);
        let counts = match head {
            Head::Event { topic: Some(topic), .. } => self.ring_wanting(topic),
            _ => self.ring_all(),
        };
        if counts { Ok(()) } else { self.confirm() }
    }

    /// The node began to drain while this was published. Once the control thread has answered, it waits for that, too.
    #[cold]
    fn confirm(&self) -> Result<(), PublishError> {
        self.node.ask(Command::Halt).map_err(|_| PublishError::Draining)
    }

    #[cold]
    fn report_corrupt(&mut self) {
        for (number, why) in self.writer.take_corrupt() {
            self.node.tell(Command::CorruptReader { log: self.shared.log, number, why });
        }
    }

    /// Claims room for a record with this body, which the log can take, under the port's policy.
    fn claim(&mut self, body: usize) -> Result<Claimed, PublishError> {
        match self.writer.claim(body as u64) {
            Ok(()) => Ok(Claimed::Yes),
            Err(_) => self.claim_when_full(Want::Record(body as u64)),
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if self.node.origin.is_here() {
            self.writer.close();
            self.writer.ring(|_| true, |reader| reader.bell.ring());
            self.node.tell(Command::CloseLog { log: self.shared.log });
        }
    }
}
