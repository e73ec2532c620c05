//! From a record to what the user gets: envelopes are read, payloads lent or decoded.
//!
//! An envelope is copied before it is decoded, and so is a typed payload: the writer may be changing them.
//! Nearly all events look alike (no topic in the frame, no headers): for those there is a short way, which
//! accepts a part of what the long one accepts.

use std::collections::TryReserveError;
use std::time::Instant;

use serde::de::DeserializeOwned;

use super::codec::{self, DecodeError};
use super::error::RecvError;
use super::held::Held;
use super::inlet::Inlet;
use super::message::{Envelope, Headers, Message, Sample};
use super::reading::Origin;
use super::spare::{ALIGN, first_aligned};
use super::topic::{Carries, check_topic};
use crate::frame::{self, Encoding, Head, HeadError, PayloadSpan};
use crate::ring::{Record, START};

/// Bytes of a frame that are copied at once: the whole of a small one, the envelope of nearly all.
const PREFIX: usize = 256;
/// Typed payloads up to this size are copied into memory that is kept, larger ones into memory of their own.
const SCRATCH: usize = 64 * 1024;

/// What both kinds of subscriber consist of.
pub(super) struct Reception {
    inlet: Inlet,
    opened: Opened,
    scratch: Scratch,
}

/// Private memory for what must not be looked at in place.
struct Scratch {
    /// A frame's first bytes.
    prefix: Box<[u8; PREFIX]>,
    /// What is longer; grows to the largest such message.
    rest: Vec<u8>,
    /// Where in `rest` a payload starts that is lent.
    start: usize,
}

impl Scratch {
    /// Room for a payload that is lent: aligned, as where it is in place. Of which its writer has said how long it is.
    fn lent(&mut self, len: usize) -> Result<&mut [u8], TryReserveError> {
        self.rest.clear();
        self.rest.try_reserve_exact(len + ALIGN - 1)?;
        self.rest.resize(len + ALIGN - 1, 0);
        self.start = first_aligned(&self.rest);
        Ok(&mut self.rest[self.start..][..len])
    }
}

/// The message whose record is in hand, its envelope read: kept here and not handed about, see [`Inlet::wait`].
struct Opened {
    index: usize,
    span: PayloadSpan,
    envelope: Envelope,
    /// Its payload is in [`Scratch::lent`].
    copied: bool,
}

impl Reception {
    pub(super) fn of(inlet: Inlet) -> Self {
        let span = PayloadSpan { encoding: Encoding::Raw, compressed: false, start: 0, len: 0 };
        let opened = Opened { index: 0, span, envelope: Envelope::plain(0), copied: false };
        Self { inlet, opened, scratch: Scratch { prefix: Box::new([0; PREFIX]), rest: Vec::new(), start: 0 } }
    }

    pub(super) fn inlet(&self) -> &Inlet {
        &self.inlet
    }

    pub(super) fn arm(&mut self) -> Result<bool, RecvError> {
        self.inlet.arm()
    }

    /// Waits for a message, and opens it; false if none came in time.
    #[inline(always)]
    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> Result<bool, RecvError> {
        let Self { inlet, opened, scratch } = self;
        let found = inlet.wait(deadline, |inlet, index| open(inlet, opened, scratch, index));
        found.map_err(|error| *error)
    }

    /// Opens a message, if one is there.
    #[inline(always)]
    pub(super) fn look(&mut self) -> Result<bool, RecvError> {
        let Self { inlet, opened, scratch } = self;
        let found = inlet.try_take(|inlet, index| open(inlet, opened, scratch, index));
        found.map_err(|error| *error)
    }

    /// The opened message, in place where that is allowed.
    ///
    /// # Errors
    /// There is no memory for a copy; the message is passed over.
    #[inline(always)]
    pub(super) fn sample(&mut self) -> Result<Sample<'_>, RecvError> {
        self.opened.copied = !self.inlet.source(self.opened.index).lend;
        if self.opened.copied {
            self.copy()?;
        }
        Ok(Sample::of(self))
    }

    #[inline(never)]
    fn copy(&mut self) -> Result<(), RecvError> {
        let Self { inlet, opened: Opened { index, span, envelope, .. }, scratch } = self;
        let room = scratch.lent(span.len);
        let copied = room.map(|room| inlet.source(*index).reader.copy(span.start, room));
        copied.map_err(|error| {
            let error = undecodable(inlet, *index, envelope.topic.as_deref(), error.to_string());
            inlet.release(*index);
            *error
        })
    }

    /// The opened message as a value; released.
    #[inline(always)]
    pub(super) fn message<T: DeserializeOwned>(&mut self) -> Result<Message<T>, RecvError> {
        let Self { inlet, opened, scratch } = self;
        let Opened { index, span, envelope, .. } = opened;
        match decode(inlet, scratch, *index, span) {
            Ok(value) => {
                let origin = Held::of(&inlet.source(*index).origin);
                inlet.release(*index);
                Ok(Message { value, origin, envelope: envelope.take() })
            }
            Err(reason) => {
                let error = undecodable(inlet, *index, envelope.topic.as_deref(), reason.to_string());
                inlet.release(*index);
                Err(*error)
            }
        }
    }

    // Of the opened message, for `Sample`.

    pub(super) fn origin(&self) -> &Origin {
        &self.inlet.source(self.opened.index).origin
    }

    pub(super) fn envelope(&self) -> &Envelope {
        &self.opened.envelope
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.opened.span.encoding
    }

    #[inline(always)]
    pub(super) fn payload(&self) -> &[u8] {
        let Opened { index, span, copied, .. } = &self.opened;
        if *copied {
            return &self.scratch.rest[self.scratch.start..][..span.len];
        }
        // A forked child does not have the log.
        if !self.inlet.is_here() {
            return &[];
        }
        &self.inlet.source(*index).reader.frame()[span.start..span.start + span.len]
    }

    #[inline(always)]
    pub(super) fn release(&mut self) {
        if self.inlet.is_here() {
            self.inlet.release(self.opened.index);
        }
    }
}

/// Reads the envelope of the record in hand from a private copy of it. False: on a topic that is none of this
/// port's; the record is then released.
///
/// # Errors
/// [`RecvError`]; the record is then passed over.
#[inline(always)]
fn open(
    inlet: &mut Inlet,
    opened: &mut Opened,
    scratch: &mut Scratch,
    index: usize,
) -> Result<bool, Box<RecvError>> {
    let source = inlet.source(index);
    if let Some(record) = source.reader.in_hand()
        && record.len as usize >= START
        && source.origin.carries == Carries::Events
        && source.origin.topic.is_some()
    {
        let start = source.reader.start();
        if let Some(span) = frame::plain_event(&start, record.len as usize).filter(|span| !span.compressed) {
            opened.index = index;
            opened.span = span;
            opened.envelope.become_plain(record.sequence);
            inlet.counters().message(span.len);
            return Ok(true);
        }
    }
    open_any(inlet, opened, scratch, index)
}

#[inline(never)]
fn open_any(
    inlet: &mut Inlet,
    opened: &mut Opened,
    scratch: &mut Scratch,
    index: usize,
) -> Result<bool, Box<RecvError>> {
    let Some(record) = inlet.source(index).reader.in_hand().copied() else { return Ok(false) };
    let found = read_envelope(inlet, scratch, index, &record);
    if !matches!(found, Ok(Some(_))) {
        inlet.release(index);
    }
    let Some((envelope, span)) = found? else { return Ok(false) };
    *opened = Opened { index, span, envelope, copied: false };
    inlet.counters().message(span.len);
    Ok(true)
}

/// The envelope, from a private copy of it, and where the payload is. `None`: on a topic that is none of this
/// port's.
fn read_envelope(
    inlet: &mut Inlet,
    scratch: &mut Scratch,
    index: usize,
    record: &Record,
) -> Result<Option<(Envelope, PayloadSpan)>, Box<RecvError>> {
    let len = record.len as usize;
    let Scratch { prefix, rest, .. } = scratch;
    let prefix = &mut prefix[..PREFIX.min(len)];
    inlet.source(index).reader.copy(0, prefix);
    let mut decoded = frame::decode_head(prefix, len);
    let mut copied = prefix.len();
    while let Err(HeadError::Short { needed }) = decoded
        && needed > copied
    {
        // `needed` is within the frame and the longest head, and grows.
        copied = needed.max(PREFIX * 4).min(len);
        rest.clear();
        rest.resize(copied, 0);
        inlet.source(index).reader.copy(0, rest);
        decoded = frame::decode_head(rest, len);
    }
    let (head, span) = match decoded {
        Ok(found) => found,
        Err(error) => return Err(undecodable(inlet, index, None, error.to_string())),
    };
    let (topic, headers) = match (head, inlet.source(index).origin.carries) {
        (Head::Event { topic, headers }, Carries::Events) => (topic, headers),
        (Head::Direct { headers }, Carries::Direct) => (None, headers),
        (Head::Broadcast { topic: None, headers }, Carries::Broadcasts) => (None, headers),
        (head, _) => {
            let reason = format!("a frame of kind {:?} has no place in this log", head.kind());
            return Err(undecodable(inlet, index, None, reason));
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
                return Err(undecodable(inlet, index, None, reason));
            }
            let source = inlet.source_mut(index);
            match &source.last_topic {
                Some(last) if **last == *topic => Some(last.clone()),
                _ if !source.origin.pattern.as_ref().is_some_and(|pattern| pattern.matches(topic)) => {
                    let reason = format!("topic {topic:?} is not what its publisher was opened for");
                    return Err(undecodable(inlet, index, None, reason));
                }
                _ => Some(source.last_topic.insert(topic.into()).clone()),
            }
        }
    };
    if topic.is_none() && inlet.source(index).origin.topic.is_none() {
        let reason = "names no topic, in a log of many topics".to_owned();
        return Err(undecodable(inlet, index, None, reason));
    }
    if span.compressed {
        let reason = "its payload is compressed, which this version does not read".to_owned();
        return Err(undecodable(inlet, index, topic.as_deref(), reason));
    }
    Ok(Some((Envelope { topic, sequence: record.sequence, headers: Headers::from(headers) }, span)))
}

/// Decodes the payload of the record in hand.
#[inline(always)]
fn decode<T: DeserializeOwned>(
    inlet: &Inlet,
    scratch: &mut Scratch,
    index: usize,
    span: &PayloadSpan,
) -> Result<T, DecodeError> {
    if span.encoding != Encoding::MessagePack {
        return Err(codec::other_encoding(span.encoding));
    }
    let source = inlet.source(index);
    if let Some(payload) = scratch.prefix.get_mut(..span.len) {
        source.reader.copy(span.start, payload);
        return codec::decode(payload);
    }
    if span.len <= SCRATCH {
        scratch.rest.clear();
        scratch.rest.resize(span.len, 0);
        source.reader.copy(span.start, &mut scratch.rest);
        return codec::decode(&scratch.rest);
    }
    codec::decode_copy(span.len, |bytes| source.reader.copy(span.start, bytes))
}

#[cold]
fn undecodable(inlet: &Inlet, index: usize, topic: Option<&str>, reason: String) -> Box<RecvError> {
    let source = inlet.source(index);
    Box::new(RecvError::Decode {
        topic: topic.or(source.origin.topic.as_deref()).unwrap_or("(unknown topic)").to_owned(),
        source_node: source.origin.node.clone(),
        sequence: source.reader.in_hand().map_or(0, |record| record.sequence),
        reason,
    })
}
