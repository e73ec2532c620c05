//! Payloads of requests and answers, which outlive their record in hand.

use std::any::Any;
use std::ops::{Deref, Range};
use std::sync::Arc;

use super::node::NodeShared;
use super::reading::{InletShared, Source};
use crate::frame::{self, Frame, Head, HeadError, PayloadSpan};
use crate::ring::{Lent, Record};
use crate::segment::PeerSegment;

/// Bytes of a frame that are copied at once to read its head: nearly all heads are shorter.
const PREFIX: usize = 256;

/// A payload, in private memory or where its writer has put it.
pub(super) enum Payload {
    Copied { frame: Vec<u8>, payload: Range<usize> },
    InPlace(InPlace),
}

/// A payload in a peer's log. The log's reader is told when it is dropped, so that the writer gets its room
/// back.
pub(super) struct InPlace {
    frame: Option<Lent<Arc<PeerSegment>>>,
    payload: Range<usize>,
    node: Arc<NodeShared>,
    /// The port that reads the log.
    reader: Arc<InletShared>,
    /// Keeps that port: once it is closed the writer may overwrite what it has read.
    _port: Option<Arc<dyn Any + Send + Sync>>,
}

impl Payload {
    /// Takes the payload of the record in hand, in place if that is wanted and allowed. Releases the record.
    pub(super) fn take(
        source: &mut Source,
        record: &Record,
        span: &PayloadSpan,
        place: Option<Place<'_>>,
    ) -> Self {
        let payload = span.start..span.start + span.len;
        if let Some(Place { node, reader, port }) = place.filter(|_| source.lend)
            && let Some(frame) = source.reader.lend()
        {
            let (node, reader, _port) = (node.clone(), reader.clone(), port);
            return Payload::InPlace(InPlace { frame: Some(frame), payload, node, reader, _port });
        }
        let mut frame = vec![0; record.len as usize];
        source.reader.copy(0, &mut frame);
        Payload::Copied { frame, payload }
    }
}

impl Payload {
    /// Copies what is in place: it is going to be kept for long, and would keep its writer's room.
    pub(super) fn detach(&mut self) {
        if let Payload::InPlace(_) = self {
            let frame = self.to_vec();
            let payload = 0..frame.len();
            *self = Payload::Copied { frame, payload };
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

/// Reads a record's head from a private copy of it.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn with_head<T>(
    source: &Source,
    record: &Record,
    scratch: &mut Vec<u8>,
    found: impl FnOnce(Result<Incoming<'_>, String>) -> T,
) -> T {
    let len = record.len as usize;
    let mut room = [0; PREFIX];
    let prefix = &mut room[..PREFIX.min(len)];
    source.reader.copy(0, prefix);
    let mut needed = match frame::decode_head(prefix, len) {
        Ok((head, span)) => return found(Ok(Incoming::Message(head, span))),
        Err(HeadError::Invalid(error)) => return found(Err(error.to_string())),
        Err(HeadError::NoPayload(_)) => len.min(frame::MAX_HEAD),
        Err(HeadError::Short { needed }) => needed,
    };
    loop {
        // `needed` is within the frame and the longest head, and grows.
        scratch.clear();
        scratch.resize(needed.max(PREFIX * 4).min(len), 0);
        source.reader.copy(0, scratch);
        match frame::decode_head(scratch, len) {
            Err(HeadError::Short { needed: more }) if more > scratch.len() => needed = more,
            _ => break,
        }
    }
    found(match frame::decode_head(scratch, len) {
        Ok((head, span)) => Ok(Incoming::Message(head, span)),
        Err(HeadError::NoPayload(kind)) => match Frame::decode(scratch) {
            Ok(Frame::Cancel { id }) => Ok(Incoming::Cancel(id)),
            Ok(_) => Err(format!("a frame of kind {kind:?}")),
            Err(error) => Err(error.to_string()),
        },
        Err(error) => Err(error.to_string()),
    })
}
