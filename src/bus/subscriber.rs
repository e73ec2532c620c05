//! Ports that subscribe.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::TopicError;
use super::codec;
use super::error::{OpenError, RecvError};
use super::inlet::Inlet;
use super::message::{Envelope, Message, Sample};
use super::node::NodeShared;
use super::reading::{PayloadReader, Purpose};
use super::stats::PortStats;
use super::topic::{Carries, Filter, check_topic};
use crate::frame::{self, Encoding, Head, HeadError, PayloadSpan, PortUp, Role};
use crate::ring::Record;
use crate::wake::Wait;

/// Bytes of a frame that are copied at once: the whole of a small one, the envelope of nearly all.
const PREFIX: usize = 256;
/// Typed payloads up to this size are copied as a whole before they are decoded, larger ones are read
/// field by field.
const SCRATCH: usize = 64 * 1024;

/// Settings of a subscriber; from [`Node::subscriber_builder`](crate::Node::subscriber_builder).
#[must_use = "a builder does nothing until `open`"]
pub struct SubscriberBuilder<'n> {
    node: &'n Arc<NodeShared>,
    role: Role,
    filters: Vec<Result<Filter, TopicError>>,
    wait: Wait,
}

impl<'n> SubscriberBuilder<'n> {
    pub(super) fn new(node: &'n Arc<NodeShared>, role: Role, filter: Result<Filter, TopicError>) -> Self {
        Self { node, role, filters: vec![filter], wait: Wait::default() }
    }

    /// Subscribes to what this filter matches, too; at most 64 filters in all. A message that several match
    /// arrives once.
    pub fn filter(mut self, filter: &str) -> Self {
        self.filters.push(Filter::new(filter));
        self
    }

    /// How to wait for messages; default [`Wait::Adaptive`].
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Opens a subscriber of values.
    ///
    /// # Errors
    /// [`OpenError`]: a filter is not valid, or the process is out of memory or file descriptors.
    pub fn open<T: DeserializeOwned>(self) -> Result<Subscriber<T>, OpenError> {
        Ok(Subscriber { reception: self.open_reception()?, values: PhantomData })
    }

    /// Opens a subscriber of bytes.
    ///
    /// # Errors
    /// Those of [`SubscriberBuilder::open`].
    pub fn open_raw(self) -> Result<RawSubscriber, OpenError> {
        Ok(RawSubscriber { reception: self.open_reception()? })
    }

    fn open_reception(self) -> Result<Reception, OpenError> {
        let filters: Vec<Filter> = self.filters.into_iter().collect::<Result<_, _>>()?;
        if filters.len() > frame::MAX_HEADERS {
            return Err(TopicError::too_many_filters(&filters).into());
        }
        let purpose = if self.role == Role::Inbox { Purpose::Inbox } else { Purpose::Subscriber };
        let inlet = Inlet::open(self.node, purpose, filters, PortUp::DEFAULT_PRIORITY, self.wait)?;
        Ok(Reception { inlet, scratch: Vec::new() })
    }
}

/// Receives values of one type from every publisher whose topic its filters match.
///
/// # Examples
/// ```
/// # use std::time::Duration;
/// # let node = ringbus::Bus::private()?.join("planner")?;
/// let mut updates = node.subscriber::<u32>("task/*")?;
/// assert!(updates.try_recv()?.is_none());
/// # let mut progress = node.publisher::<u32>("task/a")?;
/// # progress.publish(&7)?;
/// if let Some(update) = updates.recv_timeout(Duration::from_secs(1))? {
///     println!("{} says {} on {}", update.source().name(), *update, update.topic());
/// }
/// # Ok::<(), ringbus::Error>(())
/// ```
pub struct Subscriber<T> {
    reception: Reception,
    values: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Subscriber<T> {
    /// Waits for the next message.
    ///
    /// # Errors
    /// [`RecvError`]; the next call goes on after it.
    #[inline]
    pub fn recv(&mut self) -> Result<Message<T>, RecvError> {
        loop {
            if let Some(message) = self.recv_by(None)? {
                return Ok(message);
            }
        }
    }

    /// The next message, if one is there.
    ///
    /// # Errors
    /// [`RecvError`]; the next call goes on after it.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<Message<T>>, RecvError> {
        let Reception { inlet, scratch } = &mut self.reception;
        inlet.try_take(|inlet, index, record| decode(inlet, scratch, index, record))
    }

    /// The next message, or `None` if none came in time.
    ///
    /// # Errors
    /// [`RecvError`]; the next call goes on after it.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Message<T>>, RecvError> {
        self.recv_by(Instant::now().checked_add(timeout))
    }

    #[inline]
    fn recv_by(&mut self, deadline: Option<Instant>) -> Result<Option<Message<T>>, RecvError> {
        let Reception { inlet, scratch } = &mut self.reception;
        inlet.wait(deadline, |inlet, index, record| decode(inlet, scratch, index, record))
    }

    /// Messages as they come, for ever: each `next` waits. Ends only where nothing can come any more.
    pub fn iter(&mut self) -> impl Iterator<Item = Result<Message<T>, RecvError>> + '_ {
        let mut over = false;
        std::iter::from_fn(move || {
            if over {
                return None;
            }
            let next = self.recv();
            over = matches!(next, Err(RecvError::Forked | RecvError::NodeGone));
            Some(next)
        })
    }
}

/// Receives bytes from every publisher whose topic its filters match.
///
/// # Examples
/// ```
/// # let node = ringbus::Bus::private()?.join("viewer")?;
/// let mut camera = node.raw_subscriber("camera/**")?;
/// # node.raw_publisher("camera/front")?.publish(&[1, 2, 3])?;
/// let sample = camera.recv()?;
/// assert_eq!(*sample, [1, 2, 3]); // read in place
/// let kept: Vec<u8> = sample.to_owned();
/// # Ok::<(), ringbus::Error>(())
/// ```
pub struct RawSubscriber {
    reception: Reception,
}

impl RawSubscriber {
    /// Waits for the next message.
    ///
    /// # Errors
    /// [`RecvError`]; the next call goes on after it.
    pub fn recv(&mut self) -> Result<Sample<'_>, RecvError> {
        loop {
            if let Some(found) = self.reception.wait(None)? {
                return Ok(self.reception.sample(found));
            }
        }
    }

    /// The next message, if one is there.
    ///
    /// # Errors
    /// [`RecvError`]; the next call goes on after it.
    pub fn try_recv(&mut self) -> Result<Option<Sample<'_>>, RecvError> {
        let Reception { inlet, scratch } = &mut self.reception;
        let found = inlet.try_take(|inlet, index, record| open(inlet, scratch, index, record))?;
        Ok(found.map(|found| self.reception.sample(found)))
    }

    /// The next message, or `None` if none came in time.
    ///
    /// # Errors
    /// [`RecvError`]; the next call goes on after it.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Sample<'_>>, RecvError> {
        let found = self.reception.wait(Instant::now().checked_add(timeout))?;
        Ok(found.map(|found| self.reception.sample(found)))
    }
}

/// What both kinds of subscriber consist of.
struct Reception {
    inlet: Inlet,
    /// Private memory for what must not be looked at in place; grows to the largest such message.
    scratch: Vec<u8>,
}

/// A message whose envelope was read and whose payload is still in the log, its record in hand.
struct Opened {
    index: usize,
    envelope: Envelope,
    span: PayloadSpan,
}

impl Reception {
    fn wait(&mut self, deadline: Option<Instant>) -> Result<Option<Opened>, RecvError> {
        let Self { inlet, scratch } = self;
        inlet.wait(deadline, |inlet, index, record| open(inlet, scratch, index, record))
    }

    fn sample(&mut self, found: Opened) -> Sample<'_> {
        let Opened { index, envelope, span } = found;
        let payload = span.start..span.start + span.len;
        let copy = if self.inlet.source(index).lend {
            None
        } else {
            self.scratch.clear();
            self.scratch.resize(span.len, 0);
            self.inlet.source(index).reader.copy(span.start, &mut self.scratch);
            Some(&*self.scratch)
        };
        Sample { inlet: &mut self.inlet, index, payload, copy, encoding: span.encoding, envelope }
    }
}

/// Reads a record's envelope from a private copy of it. `None`: on a topic that is none of this port's.
///
/// # Errors
/// [`RecvError`]; the record is then passed over.
fn open(
    inlet: &mut Inlet,
    scratch: &mut Vec<u8>,
    index: usize,
    record: Record,
) -> Result<Option<Opened>, RecvError> {
    let mut room = [0; PREFIX];
    let prefix = copy_prefix(inlet, index, &record, &mut room);
    let opened = open_with(inlet, scratch, index, &record, prefix);
    if !matches!(opened, Ok(Some(_))) {
        inlet.release(index);
    }
    opened
}

/// [`open`], with the first bytes of the frame already copied.
#[inline]
fn open_with(
    inlet: &mut Inlet,
    scratch: &mut Vec<u8>,
    index: usize,
    record: &Record,
    prefix: &[u8],
) -> Result<Option<Opened>, RecvError> {
    let len = record.len as usize;
    let (head, span) = match frame::decode_head(prefix, len) {
        Ok(found) => found,
        Err(HeadError::Short { needed }) => {
            let mut needed = needed;
            loop {
                // `needed` is within the frame and the longest head, and grows.
                scratch.clear();
                scratch.resize(needed.max(PREFIX * 4).min(len), 0);
                inlet.source(index).reader.copy(0, scratch);
                match frame::decode_head(scratch, len) {
                    Ok(found) => break found,
                    Err(HeadError::Short { needed: more }) if more > scratch.len() => needed = more,
                    Err(error) => return Err(undecodable(inlet, index, record, None, error.to_string())),
                }
            }
        }
        Err(error) => return Err(undecodable(inlet, index, record, None, error.to_string())),
    };
    let (topic, headers) = match (head, inlet.source(index).origin.carries) {
        (Head::Event { topic, headers }, Carries::Events) => (topic, headers),
        (Head::Direct { headers }, Carries::Direct) => (None, headers),
        (Head::Broadcast { topic: None, headers }, Carries::Broadcasts) => (None, headers),
        (head, _) => {
            let reason = format!("a frame of kind {:?} has no place in this log", head.kind());
            return Err(undecodable(inlet, index, record, None, reason));
        }
    };
    let topic = match topic {
        None => None,
        Some(topic) => {
            if !inlet.filters().iter().any(|filter| filter.matches(topic)) {
                return Ok(None);
            }
            if inlet.source(index).origin.topic.is_some() || check_topic(topic).is_err() {
                let reason = format!("topic {topic:?} has no place in this log");
                return Err(undecodable(inlet, index, record, None, reason));
            }
            let source = inlet.source_mut(index);
            match &source.last_topic {
                Some(last) if **last == *topic => Some(last.clone()),
                _ => Some(source.last_topic.insert(topic.into()).clone()),
            }
        }
    };
    if topic.is_none() && inlet.source(index).origin.topic.is_none() {
        let reason = "names no topic, in a log of many topics".to_owned();
        return Err(undecodable(inlet, index, record, None, reason));
    }
    if span.compressed {
        let reason = "its payload is compressed, which this version does not read".to_owned();
        return Err(undecodable(inlet, index, record, topic.as_deref(), reason));
    }
    let origin = inlet.source(index).origin.clone();
    let envelope = Envelope { origin, topic, sequence: record.sequence, headers: headers.into() };
    inlet.counters().message(span.len);
    Ok(Some(Opened { index, envelope, span }))
}

/// Copies the first bytes of a record's frame.
#[inline]
fn copy_prefix<'a>(inlet: &Inlet, index: usize, record: &Record, room: &'a mut [u8; PREFIX]) -> &'a [u8] {
    let prefix = &mut room[..PREFIX.min(record.len as usize)];
    inlet.source(index).reader.copy(0, prefix);
    prefix
}

/// Takes a record as a value, and releases it.
#[inline]
fn decode<T: DeserializeOwned>(
    inlet: &mut Inlet,
    scratch: &mut Vec<u8>,
    index: usize,
    record: Record,
) -> Result<Option<Message<T>>, RecvError> {
    let mut room = [0; PREFIX];
    let prefix = copy_prefix(inlet, index, &record, &mut room);
    let opened = open_with(inlet, scratch, index, &record, prefix);
    let message = opened.and_then(|opened| {
        let Some(Opened { envelope, span, .. }) = opened else { return Ok(None) };
        match decode_payload(inlet, scratch, index, &span, prefix) {
            Ok(value) => Ok(Some(Message { value, envelope })),
            Err(reason) => Err(undecodable(inlet, index, &record, Some(envelope.topic()), reason)),
        }
    });
    inlet.release(index);
    message
}

#[inline]
fn decode_payload<T: DeserializeOwned>(
    inlet: &Inlet,
    scratch: &mut Vec<u8>,
    index: usize,
    span: &PayloadSpan,
    prefix: &[u8],
) -> Result<T, String> {
    if span.encoding != Encoding::MessagePack {
        return Err(format!("its payload is {:?}: use a raw subscriber", span.encoding));
    }
    let (start, end) = (span.start, span.start + span.len);
    if let Some(payload) = prefix.get(start..end) {
        return codec::decode(payload);
    }
    let source = inlet.source(index);
    if span.len <= SCRATCH {
        scratch.clear();
        scratch.resize(span.len, 0);
        source.reader.copy(start, scratch);
        return codec::decode(scratch);
    }
    codec::decode_from(std::io::BufReader::new(PayloadReader { source, at: start, end }))
}

#[cold]
fn undecodable(
    inlet: &Inlet,
    index: usize,
    record: &Record,
    topic: Option<&str>,
    reason: String,
) -> RecvError {
    let origin = &inlet.source(index).origin;
    RecvError::Decode {
        topic: topic.or(origin.topic.as_deref()).unwrap_or("(unknown topic)").to_owned(),
        source_node: origin.node.clone(),
        sequence: record.sequence,
        reason,
    }
}

macro_rules! about {
    () => {
        /// The filters.
        pub fn filters(&self) -> Vec<&str> {
            self.reception.inlet.filters().iter().map(Filter::as_str).collect()
        }

        /// What was received so far.
        pub fn stats(&self) -> PortStats {
            self.reception.inlet.stats()
        }
    };
}

impl<T> Subscriber<T> {
    /// Prepares to wait for this port with `poll`, `epoll` or an async runtime: false if a message (or an
    /// error) is there already, else the port's fd turns readable with the next one. It may also turn
    /// readable for nothing: try, then arm again.
    ///
    /// # Errors
    /// [`RecvError::Forked`], [`RecvError::NodeGone`].
    ///
    /// # Examples
    /// With `poll`; with tokio, [as here](crate#waiting):
    /// ```
    /// use std::os::fd::AsFd;
    /// use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    ///
    /// # let node = ringbus::Bus::private()?.join("planner")?;
    /// let mut updates = node.subscriber::<u32>("task/*")?;
    /// # node.publisher::<u32>("task/a")?.publish(&7)?;
    /// while updates.arm()? {
    ///     poll(&mut [PollFd::new(updates.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?; // and other fds
    /// }
    /// let update = updates.try_recv()?; // `None`: arm again
    /// # assert_eq!(update.map(|update| *update), Some(7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn arm(&mut self) -> Result<bool, RecvError> {
        self.reception.inlet.arm()
    }

    about!();
}

impl RawSubscriber {
    /// Prepares to wait for this port with `poll`, `epoll` or an async runtime; see [`Subscriber::arm`].
    ///
    /// # Errors
    /// [`RecvError::Forked`], [`RecvError::NodeGone`].
    pub fn arm(&mut self) -> Result<bool, RecvError> {
        self.reception.inlet.arm()
    }

    about!();
}

impl<T> AsFd for Subscriber<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reception.inlet.as_fd()
    }
}

impl<T> AsRawFd for Subscriber<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for RawSubscriber {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reception.inlet.as_fd()
    }
}

impl AsRawFd for RawSubscriber {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<T> fmt::Debug for Subscriber<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subscriber").field(&self.filters()).finish()
    }
}

impl fmt::Debug for RawSubscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawSubscriber").field(&self.filters()).finish()
    }
}
