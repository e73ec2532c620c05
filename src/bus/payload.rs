//! Payloads of requests and answers, which outlive their record in hand.

use std::any::Any;
use std::ops::{Deref, Range};
use std::sync::Arc;

use super::node::NodeShared;
use super::reading::{InletShared, Source};
use super::spare::{ALIGN, Spare, first_aligned};
use super::status::Status;
use crate::frame::{self, Frame, Head, HeadError, PayloadSpan};
use crate::ring::{Kind, Lent};
use crate::segment::PeerSegment;

/// Bytes of a frame that are copied at once to read its head: nearly all heads are shorter, and many frames.
pub(super) const PREFIX: usize = 512;

/// The id of an answer to no call in particular: a request was lost, and all calls of the client to this server end.
pub(super) const NO_CALL: u64 = u64::MAX;
/// Why a request or an answer is lost that stands in memory of its own.
pub(super) const SHORTAGE: &str = "no memory, address space or file descriptor for it (`ulimit -v`, \
                                   `ulimit -n`), or the quotas are used up";

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

impl Default for Payload {
    fn default() -> Self {
        Payload::Copied { frame: Spare::default(), payload: 0..0 }
    }
}

impl Payload {
    /// Takes the payload of the record in hand, in place if that is wanted and allowed; else an aligned copy.
    ///
    /// # Errors
    /// This process has no memory for a copy.
    pub(super) fn take(
        source: &mut Source,
        kind: Kind,
        span: &PayloadSpan,
        place: Option<Place<'_>>,
    ) -> Result<Self, Status> {
        if let Some(Place { node, reader, port }) = place.filter(|_| source.lend)
            && let Some(frame) = source.reader.lend()
        {
            let payload = span.start..span.start + span.len;
            let (node, reader, _port) = (node.clone(), reader.clone(), port);
            let large = kind == Kind::Blob;
            let place = InPlace { frame: Some(frame), payload, large, node, reader, _port };
            return Ok(Payload::InPlace(Box::new(place)));
        }
        let room = Spare::of_any(span.len + ALIGN - 1);
        let room = room.map_err(|error| Status::resource_exhausted(error.to_string()))?;
        Ok(Self::aligned(room, span.len, |bytes| source.reader.copy(span.start, bytes)))
    }

    /// `len` bytes in this memory, which has room for them and for what comes before the first aligned byte.
    fn aligned(mut frame: Spare, len: usize, copy: impl FnOnce(&mut [u8])) -> Self {
        let start = first_aligned(&frame);
        let payload = start..start + len;
        copy(&mut frame[payload.clone()]);
        Payload::Copied { frame, payload }
    }

    /// Takes the payload of a frame of [`PREFIX`] bytes at most, to be decoded: a copy that stands anywhere. `copy` is what
    /// [`copy_prefix`] has copied of it, all of it.
    #[inline(always)]
    pub(super) fn copied(span: &PayloadSpan, copy: &mut Spare) -> Self {
        Payload::Copied { frame: std::mem::take(copy), payload: span.start..span.start + span.len }
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
        // Without memory for that, it stays.
        if let Ok(room) = Spare::exactly(self.len() + ALIGN - 1) {
            *self = Self::aligned(room, self.len(), |bytes| bytes.copy_from_slice(self));
        }
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

/// A private copy of the first bytes of the record in hand, of `len` bytes, left in `copy`: all of the frame, or
/// [`PREFIX`] bytes.
#[inline(always)]
pub(super) fn copy_prefix<'c>(source: &Source, len: usize, copy: &'c mut Spare) -> &'c [u8] {
    if copy.len() < PREFIX {
        *copy = Spare::of(PREFIX);
    }
    let prefix = &mut copy[..PREFIX.min(len)];
    source.reader.copy(0, prefix);
    prefix
}

/// Reads the head of a record of `len` bytes, of which [`copy_prefix`] has left the first bytes in `copy`.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn with_head<T>(
    source: &Source,
    len: usize,
    copy: &mut Spare,
    found: impl FnOnce(Result<Incoming<'_>, String>) -> T,
) -> T {
    match frame::decode_head(&copy[..PREFIX.min(len)], len) {
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
