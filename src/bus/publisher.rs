//! Ports that publish.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::blob::Limits;
use super::codec::{Body, Bytes, Value};
use super::error::{OpenError, PublishError, WaitError};
use super::metadata::Outfit;
use super::node::NodeShared;
use super::outgoing::{Outgoing, Unfilled, lend, publish, publish_batch};
use super::outlet::{Outlet, OutletConfig, Overflow};
use super::stats::PortStats;
use super::topic::Filter;
use crate::frame::{Encoding, PortUp};
use crate::wake::Wait;

/// Capacity of a log unless asked otherwise, in bytes. Larger rings than the L2 cache measure slower.
const CAPACITY: u64 = 256 * 1024;

/// Settings of a publisher; from [`Node::publisher_builder`](crate::Node::publisher_builder).
///
/// # Examples
/// ```
/// use ringbus::{Bus, Overflow};
///
/// let node = Bus::private()?.join("camera")?;
/// let frames = node.publisher_builder("camera/front")
///     .capacity(1 << 20) // smaller messages that a subscriber may be behind
///     .max_message(16 << 20)
///     .overflow(Overflow::DropNewest)
///     .open_raw()?;
/// # Ok::<(), ringbus::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until `open`"]
pub struct PublisherBuilder<'n> {
    node: &'n Arc<NodeShared>,
    topic: &'n str,
    config: OutletConfig,
    compact: bool,
    timestamps: bool,
}

impl<'n> PublisherBuilder<'n> {
    pub(super) fn new(node: &'n Arc<NodeShared>, topic: &'n str) -> Self {
        let (overflow, wait) = (Overflow::default(), Wait::default());
        let (priority, limits) = (PortUp::DEFAULT_PRIORITY, Limits::default());
        let config = OutletConfig { capacity: CAPACITY, overflow, wait, priority, limits };
        Self { node, topic, config, compact: false, timestamps: false }
    }

    /// Bytes of the publisher's log: a power of two from 4 KiB to 4 GiB; default 256 KiB. It is memory of this
    /// process, and what a subscriber may be behind. A message larger than a quarter of it goes into shared memory
    /// of its own ([`PublisherBuilder::blob_memory`]).
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.config.capacity = bytes;
        self
    }

    /// Bytes of the largest message; default 64 MiB, more than 2 GiB counts as that. What fits a quarter of the log is sent
    /// in any case.
    pub fn max_message(mut self, bytes: u64) -> Self {
        self.config.limits.max_message = bytes;
        self
    }

    /// Bytes of memory for messages that are larger than a quarter of the log; default 256 MiB. It is made as it is
    /// needed, at most 64 pieces of 64 KiB or another power of two, each for one message at a time, and used again when
    /// all subscribers are done with that. When it is used up, the log counts as full. The largest message is at most
    /// the largest power of two within it.
    pub fn blob_memory(mut self, bytes: u64) -> Self {
        self.config.limits.blob_memory = bytes;
        self
    }

    /// What happens when the log is full; default: wait up to 1 s.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.config.overflow = overflow;
        self
    }

    /// How to wait for room; default [`Wait::Adaptive`].
    pub fn wait(mut self, wait: Wait) -> Self {
        self.config.wait = wait;
        self
    }

    /// How urgent the messages are, 0 to 255; default 128. A subscriber takes what is there from its publishers
    /// of the highest priority first; but after 16 messages in a row that were not of the lowest, the next one
    /// is of a lower priority, if one is there. Lower priorities take turns in that. Order within a publisher
    /// is not affected.
    pub fn priority(mut self, priority: u8) -> Self {
        self.config.priority = priority;
        self
    }

    /// Writes structs without their field names: smaller and faster, but fields are known by their places alone, and can
    /// then neither be reordered nor removed. Subscribers read both. A value that leaves a field out before another
    /// (`skip_serializing_if`) is refused, with [`PublishError::Encode`](crate::PublishError::Encode); one whose type leaves
    /// it out for good (`skip_serializing` alone), or an enum with `tag`, may be written and not be read: serde
    /// wants the names there.
    pub fn compact(mut self) -> Self {
        self.compact = true;
        self
    }

    /// Sends with each message the time at which it was written (a loan: lent), by the wall clock of this host:
    /// some 30 bytes a message. By default only those have it that ask for it ([`Outgoing::timestamp`]).
    pub fn timestamps(mut self) -> Self {
        self.timestamps = true;
        self
    }

    /// Opens a publisher of values.
    ///
    /// # Errors
    /// [`OpenError`]: topic or capacity are not valid, or the process is out of memory or file descriptors.
    pub fn open<T: Serialize + ?Sized>(self) -> Result<Publisher<T>, OpenError> {
        let Self { compact, timestamps, .. } = self;
        Ok(Publisher { outlet: self.open_outlet()?, compact, timestamps, values: PhantomData })
    }

    /// Opens a publisher of bytes.
    ///
    /// # Errors
    /// Those of [`PublisherBuilder::open`].
    pub fn open_raw(self) -> Result<RawPublisher, OpenError> {
        let timestamps = self.timestamps;
        Ok(RawPublisher { outlet: self.open_outlet()?, timestamps })
    }

    fn open_outlet(self) -> Result<Outlet, OpenError> {
        Outlet::open(self.node, Filter::of_publisher(self.topic)?, self.config)
    }
}

/// Publishes values of one type on a topic, or on all topics under a pattern.
///
/// Publishing encodes straight into shared memory, copies nothing else, and makes a system call only to
/// wake a subscriber that sleeps. A message whose `publish` returned `Ok` reaches every subscriber that
/// was attached, even if this process is killed right after.
///
/// A `Vec<u8>` is an array of numbers to serde, up to twice as long and many times as slow as the bytes that it is meant to
/// be: those are for [`RawPublisher`], or, within a value, for the crate `serde_bytes`. MessagePack has one nothing: what
/// is `Some(None)` or `Some(())` is received as `None`.
///
/// # Examples
/// ```
/// # let node = ringbus::Bus::private()?.join("worker")?;
/// let mut updates = node.subscriber::<(u32, String)>("task/*/progress")?;
/// let mut progress = node.publisher::<(u32, String)>("task/**")?;
/// progress.publish_to("task/42/progress", &(3, "parsing".to_owned()))?;
/// assert_eq!(updates.recv()?.topic(), "task/42/progress");
/// # Ok::<(), ringbus::Error>(())
/// ```
pub struct Publisher<T: ?Sized> {
    outlet: Outlet,
    compact: bool,
    timestamps: bool,
    values: PhantomData<fn(&T)>,
}

impl<T: Serialize + ?Sized> Publisher<T> {
    /// Publishes a value on the publisher's topic.
    ///
    /// # Errors
    /// [`PublishError`]; the message was then not published.
    #[inline]
    pub fn publish(&mut self, value: &T) -> Result<(), PublishError> {
        let (outfit, body) = (Outfit::plain(self.timestamps), Value { value, compact: self.compact });
        publish(&mut self.outlet, None, &outfit, Encoding::MessagePack, &body)
    }

    /// Publishes several values on the publisher's topic; how many. Subscribers see them at once, and are looked at
    /// once: cheaper than one by one. (Of more than half a log, the first are seen before the last are written.)
    ///
    /// # Errors
    /// [`PublishError`]: the first value that could not be published. All before it were, none after it.
    ///
    /// # Examples
    /// ```
    /// # let node = ringbus::Bus::private()?.join("sensor")?;
    /// let mut readings = node.subscriber::<f64>("reading/a")?;
    /// let mut sensor = node.publisher::<f64>("reading/a")?;
    /// assert_eq!(sensor.publish_batch(&[0.5, 0.25, 0.75])?, 3);
    /// assert_eq!(*readings.recv()?, 0.5);
    /// # Ok::<(), ringbus::Error>(())
    /// ```
    pub fn publish_batch<'a>(
        &mut self,
        values: impl IntoIterator<Item = &'a T>,
    ) -> Result<usize, PublishError>
    where
        T: 'a,
    {
        let compact = self.compact;
        let bodies = values.into_iter().map(|value| Value { value, compact });
        publish_batch(&mut self.outlet, self.timestamps, Encoding::MessagePack, bodies)
    }

    /// Publishes a value on a topic under the publisher's pattern (or on its one topic).
    ///
    /// # Errors
    /// [`PublishError`]; the message was then not published.
    pub fn publish_to(&mut self, topic: &str, value: &T) -> Result<(), PublishError> {
        let (outfit, body) = (Outfit::plain(self.timestamps), Value { value, compact: self.compact });
        publish(&mut self.outlet, Some(topic), &outfit, Encoding::MessagePack, &body)
    }

    /// Prepares a message with headers and the like.
    ///
    /// # Examples
    /// ```
    /// # let node = ringbus::Bus::private()?.join("worker")?;
    /// # let mut progress = node.publisher::<u32>("task/progress")?;
    /// progress.message(&3).header("traceparent", "00-4bf9…").correlation("task 42").timestamp().send()?;
    /// # Ok::<(), ringbus::Error>(())
    /// ```
    pub fn message<'a>(&'a mut self, value: &'a T) -> Outgoing<'a, impl Body + use<'a, T>> {
        let body = Value { value, compact: self.compact };
        Outgoing::new(&mut self.outlet, body, Encoding::MessagePack, self.timestamps)
    }
}

/// Publishes bytes on a topic, or on all topics under a pattern.
///
/// # Examples
/// ```
/// # let node = ringbus::Bus::private()?.join("camera")?;
/// let mut camera = node.raw_subscriber("camera/**")?;
/// let mut frames = node.raw_publisher("camera/front")?;
/// let mut image = frames.loan(640 * 48)?; // in shared memory, 64-byte aligned
/// image.fill(127);
/// image.send()?;
/// assert_eq!(camera.recv()?.len(), 640 * 48); // in place
/// # Ok::<(), ringbus::Error>(())
/// ```
pub struct RawPublisher {
    outlet: Outlet,
    timestamps: bool,
}

impl RawPublisher {
    /// Publishes bytes on the publisher's topic.
    ///
    /// # Errors
    /// [`PublishError`]; the message was then not published.
    #[inline]
    pub fn publish(&mut self, bytes: &[u8]) -> Result<(), PublishError> {
        if !self.timestamps && self.outlet.has_one_topic() {
            return self.outlet.publish_bytes(bytes);
        }
        publish(&mut self.outlet, None, &Outfit::plain(self.timestamps), Encoding::Raw, &Bytes(bytes))
    }

    /// Publishes several messages on the publisher's topic; see [`Publisher::publish_batch`].
    ///
    /// # Errors
    /// [`PublishError`]: the first message that could not be published. All before it were, none after it.
    pub fn publish_batch<'a>(
        &mut self,
        messages: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<usize, PublishError> {
        let bodies = messages.into_iter().map(Bytes);
        publish_batch(&mut self.outlet, self.timestamps, Encoding::Raw, bodies)
    }

    /// Publishes bytes on a topic under the publisher's pattern (or on its one topic).
    ///
    /// # Errors
    /// [`PublishError`]; the message was then not published.
    pub fn publish_to(&mut self, topic: &str, bytes: &[u8]) -> Result<(), PublishError> {
        let outfit = Outfit::plain(self.timestamps);
        publish(&mut self.outlet, Some(topic), &outfit, Encoding::Raw, &Bytes(bytes))
    }

    /// Prepares a message with headers; see [`Publisher::message`].
    pub fn message<'a>(&'a mut self, bytes: &'a [u8]) -> Outgoing<'a, impl Body + use<'a>> {
        Outgoing::new(&mut self.outlet, Bytes(bytes), Encoding::Raw, self.timestamps)
    }

    /// Lends `len` bytes, to be filled in place and sent: of shared memory and without a copy, but for some hundred bytes,
    /// which are faster copied. They are 64-byte aligned, there and at their readers (also in copies), and hold whatever
    /// was there before: this publisher's earlier messages, or zeros.
    ///
    /// # Errors
    /// [`PublishError`]; under [`Overflow::DropNewest`] too, a full log gives [`PublishError::Full`] here: there
    /// is nothing to lend, and the message counts as dropped.
    #[inline]
    pub fn loan(&mut self, len: usize) -> Result<Loan<'_>, PublishError> {
        if self.outlet.has_one_topic() && !self.timestamps {
            let lent = self.outlet.loan_bytes(len)?;
            return Loan::of(&mut self.outlet, None, lent);
        }
        lend(&mut self.outlet, None, &Outfit::plain(self.timestamps), len)
    }

    /// [`RawPublisher::loan`] on a topic under the publisher's pattern.
    ///
    /// # Errors
    /// Those of [`RawPublisher::loan`].
    pub fn loan_to<'a>(&'a mut self, topic: &'a str, len: usize) -> Result<Loan<'a>, PublishError> {
        lend(&mut self.outlet, Some(topic), &Outfit::plain(self.timestamps), len)
    }

    /// Prepares a message with headers whose payload is lent: headers, correlation, timestamp and topic first, then
    /// [`Outgoing::loan`].
    ///
    /// # Examples
    /// ```
    /// # let node = ringbus::Bus::private()?.join("camera")?;
    /// let mut frames = node.raw_publisher("frame")?;
    /// let mut watcher = node.raw_subscriber("frame")?;
    /// let mut frame = frames.outgoing().header("shape", "1080x1920").correlation("trip 7").timestamp().loan(1080 * 1920)?;
    /// frame.fill(0x80);
    /// frame.send()?;
    /// let seen = watcher.recv()?;
    /// assert_eq!((seen.headers().get("shape"), seen.correlation()), (Some("1080x1920"), Some("trip 7")));
    /// # Ok::<(), ringbus::Error>(())
    /// ```
    pub fn outgoing(&mut self) -> Outgoing<'_, Unfilled> {
        Outgoing::unfilled(&mut self.outlet, self.timestamps)
    }
}

/// Bytes of a publisher's log, to be filled and sent; dropped unsent, it leaves no trace.
#[must_use = "a loan that is not sent is lost"]
pub struct Loan<'a> {
    outlet: &'a mut Outlet,
    topic: Option<&'a str>,
}

impl<'a> Loan<'a> {
    /// What the port has lent, if it has: else the message was dropped.
    #[inline(always)]
    pub(super) fn of(
        outlet: &'a mut Outlet,
        topic: Option<&'a str>,
        lent: bool,
    ) -> Result<Self, PublishError> {
        if lent { Ok(Self { outlet, topic }) } else { Err(outlet.full(Duration::ZERO)) }
    }

    /// Publishes the message.
    ///
    /// # Errors
    /// [`PublishError::Forked`], or [`PublishError::Draining`]: the node has drained meanwhile, maybe without this message.
    /// Nothing else, as the loan has made sure of the room.
    #[inline(always)]
    pub fn send(self) -> Result<(), PublishError> {
        self.outlet.send_loan(self.topic)
    }
}

impl Deref for Loan<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.outlet.loaned()
    }
}

impl DerefMut for Loan<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.outlet.loaned_mut()
    }
}

impl fmt::Debug for Loan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan").field("len", &self.len()).finish()
    }
}

macro_rules! about {
    () => {
        /// Waits until at least `n` subscribers are attached: what is published from then on reaches them.
        ///
        /// # Errors
        /// [`WaitError::Timeout`] says how many there are.
        pub fn wait_for_subscribers(&self, n: usize, timeout: Duration) -> Result<(), WaitError> {
            self.outlet.wait_for_readers(n, timeout)
        }

        /// The topic, or the pattern.
        pub fn topic(&self) -> &str {
            self.outlet.filter().as_str()
        }

        /// What was published so far.
        pub fn stats(&self) -> PortStats {
            self.outlet.stats()
        }
    };
}

impl<T: ?Sized> Publisher<T> {
    about!();
}

impl RawPublisher {
    about!();
}

impl<T: ?Sized> fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Publisher").field(&self.topic()).finish()
    }
}

impl fmt::Debug for RawPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawPublisher").field(&self.topic()).finish()
    }
}
