//! From a record to what the user gets: envelopes are read, payloads lent or decoded.
//!
//! An envelope is copied before it is decoded, and so is a typed payload: the writer may be changing them.
//! Nearly all events look alike (no topic in the frame, no headers): for those there is a short way, which
//! accepts a part of what the long one accepts.

use std::time::Instant;

use serde::de::DeserializeOwned;

use super::codec;
use super::error::RecvError;
use super::inlet::Inlet;
use super::message::{Envelope, Headers, Message, Sample};
use super::reading::PayloadReader;
use super::topic::{Carries, check_topic};
use crate::frame::{self, Encoding, Head, HeadError, PayloadSpan};
use crate::ring::{Corrupt, Kind, Record};

/// Bytes of a frame that are copied at once: the whole of a small one, the envelope of nearly all.
const PREFIX: usize = 256;
/// Bytes that are copied to see whether a raw payload has the plain envelope.
const PLAIN: usize = 16;
/// Typed payloads up to this size are copied as a whole before they are decoded, larger ones are read
/// field by field.
const SCRATCH: usize = 64 * 1024;

/// What both kinds of subscriber consist of.
pub(super) struct Reception {
    pub(super) inlet: Inlet,
    scratch: Scratch,
}

/// Private memory for what must not be looked at in place.
struct Scratch {
    /// A frame's first bytes.
    prefix: Box<[u8; PREFIX]>,
    /// What is longer; grows to the largest such message.
    rest: Vec<u8>,
}

/// A message whose envelope was read and whose payload is still in the log, its record in hand.
pub(super) struct Opened {
    index: usize,
    envelope: Envelope,
    span: PayloadSpan,
}

impl Reception {
    pub(super) fn of(inlet: Inlet) -> Self {
        Self { inlet, scratch: Scratch { prefix: Box::new([0; PREFIX]), rest: Vec::new() } }
    }

    #[inline(always)]
    pub(super) fn wait_to_open(&mut self, deadline: Option<Instant>) -> Result<Option<Opened>, RecvError> {
        let Self { inlet, scratch } = self;
        inlet.wait(deadline, |inlet, index, record| open(inlet, scratch, index, record))
    }

    #[inline(always)]
    pub(super) fn try_open(&mut self) -> Result<Option<Opened>, RecvError> {
        let Self { inlet, scratch } = self;
        inlet.try_take(|inlet, index, record| open(inlet, scratch, index, record))
    }

    #[inline(always)]
    pub(super) fn wait_for_message<T: DeserializeOwned>(
        &mut self,
        deadline: Option<Instant>,
    ) -> Result<Option<Message<T>>, RecvError> {
        let Self { inlet, scratch } = self;
        inlet.wait(deadline, |inlet, index, record| decode(inlet, scratch, index, record))
    }

    #[inline(always)]
    pub(super) fn try_message<T: DeserializeOwned>(&mut self) -> Result<Option<Message<T>>, RecvError> {
        let Self { inlet, scratch } = self;
        inlet.try_take(|inlet, index, record| decode(inlet, scratch, index, record))
    }

    #[inline(always)]
    pub(super) fn sample(&mut self, found: Opened) -> Sample<'_> {
        let Opened { index, envelope, span } = found;
        let payload = span.start..span.start + span.len;
        let copy = if self.inlet.source(index).lend {
            None
        } else {
            let copy = &mut self.scratch.rest;
            copy.clear();
            copy.resize(span.len, 0);
            self.inlet.source(index).reader.copy(span.start, copy);
            Some(&**copy)
        };
        Sample { inlet: &mut self.inlet, index, payload, copy, encoding: span.encoding, envelope }
    }
}

/// Reads a record's envelope from a private copy of it. `None`: on a topic that is none of this port's.
///
/// # Errors
/// [`RecvError`]; the record is then passed over.
#[inline(always)]
fn open(
    inlet: &mut Inlet,
    scratch: &mut Scratch,
    index: usize,
    record: Record,
) -> Result<Option<Opened>, RecvError> {
    let len = record.len as usize;
    if len >= PLAIN && is_of_one_topic(inlet, index, &record) {
        let mut first = [0; PLAIN];
        inlet.source(index).reader.copy(0, &mut first);
        if let Some(span) = frame::plain_event(&first, len).filter(|span| !span.compressed) {
            inlet.counters().message(span.len);
            return Ok(Some(Opened { index, envelope: Envelope::plain(record.sequence), span }));
        }
    }
    open_any(inlet, scratch, index, record)
}

#[inline(never)]
fn open_any(
    inlet: &mut Inlet,
    scratch: &mut Scratch,
    index: usize,
    record: Record,
) -> Result<Option<Opened>, RecvError> {
    let Scratch { prefix, rest } = scratch;
    let prefix = copy_prefix(inlet, index, &record, prefix)?;
    let opened = open_with(inlet, rest, index, &record, prefix);
    if !matches!(opened, Ok(Some(_))) {
        inlet.release(index);
    }
    opened
}

/// Whether the record is a frame of a log whose frames need not say their topic.
#[inline(always)]
fn is_of_one_topic(inlet: &Inlet, index: usize, record: &Record) -> bool {
    let origin = &inlet.source(index).origin;
    record.kind == Kind::Frame && origin.carries == Carries::Events && origin.topic.is_some()
}

/// [`open`], with the first bytes of the frame already copied.
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
    let envelope = Envelope { topic, sequence: record.sequence, headers: Headers::from(headers) };
    inlet.counters().message(span.len);
    Ok(Some(Opened { index, envelope, span }))
}

/// Copies the first bytes of a record's frame.
#[inline(always)]
fn copy_prefix<'a>(
    inlet: &mut Inlet,
    index: usize,
    record: &Record,
    room: &'a mut [u8; PREFIX],
) -> Result<&'a [u8], RecvError> {
    if record.kind != Kind::Frame {
        // No writer of this version puts such a record into a subscriber's log.
        let why = Corrupt::Record { position: record.frame, word: record.kind as u64 };
        return Err(inlet.cut(index, why));
    }
    let prefix = &mut room[..PREFIX.min(record.len as usize)];
    inlet.source(index).reader.copy(0, prefix);
    Ok(prefix)
}

/// Takes a record as a value, and releases it.
#[inline(always)]
fn decode<T: DeserializeOwned>(
    inlet: &mut Inlet,
    scratch: &mut Scratch,
    index: usize,
    record: Record,
) -> Result<Option<Message<T>>, RecvError> {
    let Scratch { prefix, rest } = scratch;
    let prefix = copy_prefix(inlet, index, &record, prefix)?;
    let plain = if is_of_one_topic(inlet, index, &record) {
        frame::plain_event(prefix, record.len as usize).filter(|span| !span.compressed)
    } else {
        None
    };
    let opened = match plain {
        Some(span) => {
            inlet.counters().message(span.len);
            Ok(Some(Opened { index, envelope: Envelope::plain(record.sequence), span }))
        }
        None => open_with(inlet, rest, index, &record, prefix),
    };
    let message = opened.and_then(|opened| {
        let Some(Opened { envelope, span, .. }) = opened else { return Ok(None) };
        match decode_payload(inlet, rest, index, &span, prefix) {
            Ok(value) => {
                let origin = inlet.source(index).origin.clone();
                Ok(Some(Message { value, origin, envelope }))
            }
            Err(reason) => Err(undecodable(inlet, index, &record, envelope.topic.as_deref(), reason)),
        }
    });
    inlet.release(index);
    message
}

#[inline(always)]
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
