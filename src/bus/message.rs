//! What a reading port gets.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

use super::held::Held;
use super::metadata::{self, Destination, MessageId};
use super::peer::NodeInfo;
use super::reading::Origin;
use super::reception::Reception;
use super::topic::{Carries, inbox_name};
use crate::frame::{self, Encoding};

/// Headers of a message: names and values, in the order they were added. Those that the bus adds for what
/// a message has a method of its own for (its timestamp, its correlation) are not among them.
#[derive(Clone, Default)]
#[allow(clippy::box_collection)] // one word to move where there are none, as mostly
pub struct Headers(Option<Box<Vec<(String, String)>>>);

impl Headers {
    /// The value of the first header of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find_map(|(key, value)| (key == name).then_some(value))
    }

    /// All headers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all().filter(|(name, _)| !metadata::is_told_apart(name))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub(super) fn timestamp(&self) -> Option<SystemTime> {
        metadata::timestamp(self.all())
    }

    pub(super) fn correlation(&self) -> Option<&str> {
        metadata::correlation(self.all())
    }

    #[cfg(feature = "tower")]
    pub(super) fn push(&mut self, name: String, value: String) {
        self.0.get_or_insert_default().push((name, value));
    }

    /// Those that can be passed on: without the bus's own.
    #[cfg(feature = "tower")]
    pub(super) fn to_pass_on(&self) -> Self {
        let plain = self.all().filter(|(name, _)| !metadata::is_reserved(name));
        Self::from_pairs(plain)
    }

    /// As they came, the bus's own among them.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|all| all.iter()).map(|(key, value)| (key.as_str(), value.as_str()))
    }

    fn from_pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        Self(Some(Box::new(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())))
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl From<frame::Headers<'_>> for Headers {
    #[inline]
    fn from(headers: frame::Headers<'_>) -> Self {
        if headers.is_empty() { Self::default() } else { Self::from_pairs(headers.iter()) }
    }
}

/// What comes with a payload.
#[derive(Debug, Clone)]
pub(super) struct Envelope {
    /// Where the log has many topics.
    pub(super) topic: Option<Arc<str>>,
    pub(super) sequence: u64,
    pub(super) headers: Headers,
}

impl Envelope {
    /// Of a message that says nothing but its payload.
    #[inline(always)]
    pub(super) fn plain(sequence: u64) -> Self {
        Self { topic: None, sequence, headers: Headers::default() }
    }

    /// The same, in place of what it was before.
    #[inline(always)]
    pub(super) fn become_plain(&mut self, sequence: u64) {
        self.sequence = sequence;
        if self.topic.is_some() || self.headers.0.is_some() {
            *self = Self::plain(sequence);
        }
    }

    /// Takes topic and headers away.
    #[inline(always)]
    pub(super) fn take(&mut self) -> Self {
        let headers = Headers(std::mem::take(&mut self.headers.0));
        Self { topic: self.topic.take(), sequence: self.sequence, headers }
    }

    pub(super) fn topic<'a>(&'a self, origin: &'a Origin) -> &'a str {
        self.topic.as_deref().or(origin.topic.as_deref()).unwrap_or_default()
    }

    fn destination<'a>(&'a self, origin: &'a Origin) -> Destination<'a> {
        match origin.carries {
            Carries::Events | Carries::Calls => Destination::Topic(self.topic(origin)),
            Carries::Direct => Destination::Node(inbox_name(self.topic(origin))),
            Carries::Broadcasts => Destination::All,
        }
    }

    fn id(&self, origin: &Origin) -> MessageId {
        MessageId { node: origin.node.id(), log: origin.log, sequence: self.sequence }
    }
}

macro_rules! envelope_accessors {
    () => {
        /// The topic it was published on; of a direct message or a broadcast the reserved one, `@to/…` or
        /// `@all`: see `destination`.
        pub fn topic(&self) -> &str {
            self.envelope().topic(self.origin())
        }

        /// Whom it was for.
        pub fn destination(&self) -> Destination<'_> {
            self.envelope().destination(self.origin())
        }

        /// The node that sent it.
        pub fn source(&self) -> &NodeInfo {
            &self.origin().node
        }

        /// Its number among all messages of its publisher, from 0. What is between two that are received was dropped, or
        /// is on topics of the publisher's that are not subscribed to; [`RecvError::Lagged`](crate::RecvError::Lagged)
        /// tells of what was missed.
        pub fn sequence(&self) -> u64 {
            self.envelope().sequence
        }

        /// What tells it from every other message on the bus.
        pub fn id(&self) -> MessageId {
            self.envelope().id(self.origin())
        }

        /// The priority of the port that wrote it.
        pub fn priority(&self) -> u8 {
            self.origin().priority
        }

        /// Its headers.
        pub fn headers(&self) -> &Headers {
            &self.envelope().headers
        }

        /// When it was written, by its sender's word and the wall clock; `None` if that was not sent along
        /// ([`PublisherBuilder::timestamps`](crate::PublisherBuilder::timestamps),
        /// [`Outgoing::timestamp`](crate::Outgoing::timestamp)).
        pub fn timestamp(&self) -> Option<SystemTime> {
            self.envelope().headers.timestamp()
        }

        /// What it belongs to, if its sender said so
        /// ([`Outgoing::correlation`](crate::Outgoing::correlation)).
        pub fn correlation(&self) -> Option<&str> {
            self.envelope().headers.correlation()
        }
    };
}

/// A received value; dereferences to it.
pub struct Message<T> {
    pub(super) value: T,
    pub(super) origin: Held,
    pub(super) envelope: Envelope,
}

impl<T> Message<T> {
    envelope_accessors!();

    fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The value alone.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> Deref for Message<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Message<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic())
            .field("source", self.source())
            .field("sequence", &self.sequence())
            .field("value", &self.value)
            .finish()
    }
}

/// Received bytes, lent in place where the writer is trusted ([`Trust`](crate::Trust)); dereferences to
/// them. The writer cannot reuse their room before the sample is dropped: copy what you keep. Bytes that were lent to their
/// sender ([`RawPublisher::loan`](crate::RawPublisher::loan)) are 64-byte aligned, in place and in a copy.
pub struct Sample<'a>(&'a mut Reception);

impl<'a> Sample<'a> {
    /// The message that the port has opened.
    #[inline(always)]
    pub(super) fn of(reception: &'a mut Reception) -> Self {
        Self(reception)
    }

    envelope_accessors!();

    fn envelope(&self) -> &Envelope {
        self.0.envelope()
    }

    fn origin(&self) -> &Origin {
        self.0.origin()
    }

    /// How the bytes are encoded: [`Encoding::Raw`] from a raw publisher, [`Encoding::MessagePack`] from a
    /// typed one.
    pub fn encoding(&self) -> Encoding {
        self.0.encoding()
    }
}

impl Deref for Sample<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.0.payload()
    }
}

impl Drop for Sample<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.release();
    }
}

impl fmt::Debug for Sample<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sample")
            .field("topic", &self.topic())
            .field("source", self.source())
            .field("sequence", &self.sequence())
            .field("len", &self.len())
            .finish()
    }
}
