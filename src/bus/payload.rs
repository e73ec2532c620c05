//! Payloads of requests and answers, which outlive their record in hand.

use std::any::Any;
use std::ops::{Deref, Range};
use std::sync::Arc;

use super::node::NodeShared;
use super::reading::{InletShared, Source};
use super::spare::Spare;
use crate::frame::{self, Frame, Head, HeadError, PayloadSpan};
use crate::ring::{Kind, Lent, Record};
use crate::segment::PeerSegment;

/// Bytes of a frame that are copied at once to read its head: nearly all heads are shorter, and many frames.
const PREFIX: usize = 512;

/// A payload, in private memory or where its writer has put it.
pub(super) enum Payload {
    Copied { frame: Spare, payload: Range<usize> },
    InPlace(Box<InPlace>),
}

/// A payload in a peer's log. The log's reader is told when it is dropped, so that the writer gets its room
/// back.
pub(super) struct InPlace {
    frame: Option<Lent<Arc<PeerSegment>>>,
    payload: Range<usize>,
    /// In shared memory of its own, not in the log.
    large: bool,
    node: Arc<NodeShared>,
    /// The port that reads the log.
    reader: Arc<InletShared>,
    /// Keeps that port: once it is closed the writer may overwrite what it has read.
    _port: Option<Arc<dyn Any + Send + Sync>>,
}

impl Payload {
    /// Takes the payload of the record in hand, in place if that is wanted and allowed; `copy` is what
    /// [`with_head`] has copied of it.
    #[inline]
    pub(super) fn take(
        source: &mut Source,
        record: &Record,
        span: &PayloadSpan,
        place: Option<Place<'_>>,
        copy: &mut Spare,
    ) -> Self {
        let payload = span.start..span.start + span.len;
        if let Some(Place { node, reader, port }) = place.filter(|_| source.lend)
            && let Some(frame) = source.reader.lend()
        {
            let (node, reader, _port) = (node.clone(), reader.clone(), port);
            let large = record.kind == Kind::Blob;
            let place = InPlace { frame: Some(frame), payload, large, node, reader, _port };
            return Payload::InPlace(Box::new(place));
        }
        let len = record.len as usize;
        if len <= PREFIX {
            return Payload::Copied { frame: std::mem::take(copy), payload };
        }
        let mut frame = Spare::of(len);
        source.reader.copy(0, &mut frame[..len]);
        Payload::Copied { frame, payload }
    }
}

impl Payload {
    /// It is going to be kept for long: a copy of what is in place, which would keep its writer's room, and no
    /// more memory than it needs.
    ///
    /// What is large has a place of its own, and stays there: it keeps nothing else from being written.
    pub(super) fn detach(&mut self) {
        if matches!(self, Payload::InPlace(place) if place.large) {
            return;
        }
        *self = Payload::Copied { frame: Spare::exactly(self), payload: 0..self.len() };
    }
}

/// What a payload in place needs of its port.
pub(super) struct Place<'a> {
    pub(super) node: &'a Arc<NodeShared>,
    pub(super) reader: &'a Arc<InletShared>,
    pub(super) port: Option<Arc<dyn Any + Send + Sync>>,
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let (frame, payload) = match self {
            Payload::Copied { frame, payload } => (Some(&**frame), payload),
            // A forked child does not have the log.
            Payload::InPlace(place) if !place.node.origin.is_here() => (None, &place.payload),
            Payload::InPlace(place) => (place.frame.as_deref(), &place.payload),
        };
        frame.and_then(|frame| frame.get(payload.clone())).unwrap_or_default()
    }
}

impl Drop for InPlace {
    fn drop(&mut self) {
        let frame = self.frame.take();
        if self.node.origin.is_here() {
            drop(frame);
            self.reader.nudge();
        } else {
            std::mem::forget(frame); // its memory is not there to be unmapped
        }
    }
}

/// What a record of a pair's log is.
pub(super) enum Incoming<'a> {
    Message(Head<'a>, PayloadSpan),
    /// The call with this id is of no use any more.
    Cancel(u64),
}

/// Reads a record's head from a private copy of it, which is left in `copy`: all of the frame, or its first
/// [`PREFIX`] bytes at least.
///
/// # Errors
/// What is wrong with it, in words.
#[inline]
pub(super) fn with_head<T>(
    source: &Source,
    record: &Record,
    copy: &mut Spare,
    found: impl FnOnce(Result<Incoming<'_>, String>) -> T,
) -> T {
    let len = record.len as usize;
    if copy.len() < PREFIX {
        *copy = Spare::of(PREFIX);
    }
    let prefix = &mut copy[..PREFIX.min(len)];
    source.reader.copy(0, prefix);
    match frame::decode_head(prefix, len) {
        Ok((head, span)) => found(Ok(Incoming::Message(head, span))),
        Err(HeadError::Invalid(error)) => found(Err(error.to_string())),
        Err(HeadError::NoPayload(_)) => with_long_head(source, len, len.min(frame::MAX_HEAD), copy, found),
        Err(HeadError::Short { needed }) => with_long_head(source, len, needed, copy, found),
    }
}

#[cold]
fn with_long_head<T>(
    source: &Source,
    len: usize,
    mut needed: usize,
    copy: &mut Spare,
    found: impl FnOnce(Result<Incoming<'_>, String>) -> T,
) -> T {
    let mut copied;
    loop {
        // `needed` is within the frame and the longest head, and grows.
        copied = needed.max(PREFIX * 2).min(len);
        if copy.len() < copied {
            *copy = Spare::of(copied);
        }
        source.reader.copy(0, &mut copy[..copied]);
        match frame::decode_head(&copy[..copied], len) {
            Err(HeadError::Short { needed: more }) if more > copied => needed = more,
            _ => break,
        }
    }
    found(match frame::decode_head(&copy[..copied], len) {
        Ok((head, span)) => Ok(Incoming::Message(head, span)),
        Err(HeadError::NoPayload(kind)) => match Frame::decode(&copy[..copied]) {
            Ok(Frame::Cancel { id }) => Ok(Incoming::Cancel(id)),
            Ok(_) => Err(format!("a frame of kind {kind:?}")),
            Err(error) => Err(error.to_string()),
        },
        Err(error) => Err(error.to_string()),
    })
}
