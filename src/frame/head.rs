//! The head of a frame that carries a payload: everything before the payload's bytes.

use super::payload::{Encoding, PayloadSpan};
use super::read::Reader;
use super::write::Writer;
use super::{Code, DecodeError, EncodeError, Headers, Kind, MAX_STRING, plain};

/// A frame with a payload, without the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head<'a> {
    /// A call of a method.
    Request {
        /// Chosen by the caller, never reused on its log.
        id: u64,
        /// The method's name.
        method: &'a str,
        /// When the caller stops waiting, in nanoseconds of the host's monotonic clock.
        deadline: Option<u64>,
        /// Headers.
        headers: Headers<'a>,
    },
    /// The answer to a request.
    Response {
        /// The request's id.
        id: u64,
        /// How the call ended.
        status: Code,
        /// What went wrong, in words.
        message: Option<&'a str>,
        /// Headers.
        headers: Headers<'a>,
    },
    /// A published message.
    Event {
        /// Its topic; `None` on a log that has one topic.
        topic: Option<&'a str>,
        /// Headers.
        headers: Headers<'a>,
    },
    /// A message to every node.
    Broadcast {
        /// Its topic; `None` on a log that has one topic.
        topic: Option<&'a str>,
        /// Headers.
        headers: Headers<'a>,
    },
    /// One element of a streamed answer.
    Item {
        /// The request's id.
        id: u64,
        /// Counts the answer's elements from 0.
        seq: u64,
    },
    /// A message to one named node.
    Direct {
        /// Headers.
        headers: Headers<'a>,
    },
}

/// The head of an event without topic and headers, its length and tag 0: by far the commonest.
const PLAIN_EVENT: [u8; 10] = [0x94, 0x02, 0xc0, 0xc0, 0xc6, 0, 0, 0, 0, 0];

impl<'a> Head<'a> {
    /// The frame's kind.
    pub fn kind(&self) -> Kind {
        match self {
            Head::Request { .. } => Kind::Request,
            Head::Response { .. } => Kind::Response,
            Head::Event { .. } => Kind::Event,
            Head::Broadcast { .. } => Kind::Broadcast,
            Head::Item { .. } => Kind::Item,
            Head::Direct { .. } => Kind::Direct,
        }
    }

    /// The frame's headers; empty for a kind that has none.
    pub fn headers(&self) -> Headers<'a> {
        match *self {
            Head::Request { headers, .. }
            | Head::Response { headers, .. }
            | Head::Event { headers, .. }
            | Head::Broadcast { headers, .. }
            | Head::Direct { headers } => headers,
            Head::Item { .. } => Headers::EMPTY,
        }
    }

    /// Writes everything up to and including the payload's tag; returns where the payload's bytes start.
    /// Its length is for [`finish_payload`](super::finish_payload) to set: until then this decodes as no
    /// frame.
    ///
    /// # Errors
    /// [`EncodeError`]; `out` may then have been written in part.
    #[inline]
    pub fn begin(&self, out: &mut [u8], encoding: Encoding) -> Result<usize, EncodeError> {
        if self.is_plain_event() {
            let room = out
                .first_chunk_mut::<{ PLAIN_EVENT.len() }>()
                .ok_or(EncodeError::NoSpace { needed: PLAIN_EVENT.len() })?;
            *room = PLAIN_EVENT;
            room[9] = encoding.tag(false);
            return Ok(PLAIN_EVENT.len());
        }
        match plain::begin(self, out, encoding.tag(false)) {
            Some(start) => Ok(start),
            None => self.begin_any(out, encoding),
        }
    }

    fn begin_any(&self, out: &mut [u8], encoding: Encoding) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(out);
        self.write(&mut writer, 0, encoding.tag(false));
        writer.finish()
    }

    /// How many bytes [`begin`](Head::begin) writes.
    #[inline]
    pub fn prefix_len(&self) -> usize {
        if self.is_plain_event() {
            return PLAIN_EVENT.len();
        }
        if let Some(len) = plain::prefix_len(self) {
            return len;
        }
        Writer::measure(|writer| self.write(writer, 0, 0))
    }

    #[inline]
    fn is_plain_event(&self) -> bool {
        matches!(self, Head::Event { topic: None, headers } if headers.is_empty())
    }

    /// Writes the head of a payload whose bin, tag included, has `bin_len` bytes.
    pub(super) fn write(&self, writer: &mut Writer<'_>, bin_len: u32, tag: u8) {
        writer.array(self.kind().elements());
        writer.uint(self.kind() as u64);
        match *self {
            Head::Request { id, method, deadline, headers } => {
                writer.uint(id);
                writer.str(method, "method", MAX_STRING);
                writer.optional(deadline, Writer::uint);
                headers.write(writer);
            }
            Head::Response { id, status, message, headers } => {
                writer.uint(id);
                writer.uint(status as u64);
                writer.optional(message, |writer, text| writer.str(text, "status message", MAX_STRING));
                headers.write(writer);
            }
            Head::Event { topic, headers } | Head::Broadcast { topic, headers } => {
                writer.optional(topic, |writer, topic| writer.str(topic, "topic", MAX_STRING));
                headers.write(writer);
            }
            Head::Item { id, seq } => {
                writer.uint(id);
                writer.uint(seq);
            }
            Head::Direct { headers } => headers.write(writer),
        }
        writer.bin32(bin_len);
        writer.put(&[tag]);
    }

    /// Reads the fields between kind and payload; `None` for a kind without payload.
    pub(super) fn read(kind: Kind, reader: &mut Reader<'a>) -> Result<Option<Self>, DecodeError> {
        Ok(Some(match kind {
            Kind::Request => Head::Request {
                id: reader.uint()?,
                method: reader.str("method", MAX_STRING)?,
                deadline: reader.optional(Reader::uint)?,
                headers: Headers::read(reader)?,
            },
            Kind::Response => Head::Response {
                id: reader.uint()?,
                status: Code::from_wire(reader.uint()?),
                message: reader.optional(|reader| reader.str("status message", MAX_STRING))?,
                headers: Headers::read(reader)?,
            },
            Kind::Event => Head::Event {
                topic: reader.optional(|reader| reader.str("topic", MAX_STRING))?,
                headers: Headers::read(reader)?,
            },
            Kind::Broadcast => Head::Broadcast {
                topic: reader.optional(|reader| reader.str("topic", MAX_STRING))?,
                headers: Headers::read(reader)?,
            },
            Kind::Item => Head::Item { id: reader.uint()?, seq: reader.uint()? },
            Kind::Direct => Head::Direct { headers: Headers::read(reader)? },
            _ => return Ok(None),
        }))
    }
}

/// [`Head::begin`] for an event.
///
/// # Errors
/// Those of [`Head::begin`].
#[inline]
pub fn begin_event(
    out: &mut [u8],
    topic: Option<&str>,
    headers: &Headers<'_>,
    encoding: Encoding,
) -> Result<usize, EncodeError> {
    Head::Event { topic, headers: *headers }.begin(out, encoding)
}

/// Why [`decode_head`] gave no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The head is longer than the prefix: copy more of the frame and decode again.
    #[error("head has at least {needed} bytes")]
    Short {
        /// Least length of the next prefix: over this one's, within the frame and
        /// [`MAX_HEAD`](super::MAX_HEAD).
        needed: usize,
    },
    /// The kind carries no payload: copy the frame and use [`Frame::decode`](super::Frame::decode).
    #[error("frame of kind {0:?} has no payload")]
    NoPayload(Kind),
    /// The bytes are no frame.
    #[error(transparent)]
    Invalid(#[from] DecodeError),
}

/// Decodes a frame's head from a copy of the frame's first bytes, and says where in the frame of
/// `frame_len` bytes the payload lies. The payload's bytes need not be in `prefix`.
///
/// Where the array is longer than this version knows, bytes may follow the payload; they are not looked
/// at. Otherwise the payload ends where the frame does.
///
/// # Errors
/// [`HeadError`].
#[inline]
pub fn decode_head(prefix: &[u8], frame_len: usize) -> Result<(Head<'_>, PayloadSpan), HeadError> {
    match plain_event(prefix, frame_len) {
        Some(span) => Ok((Head::Event { topic: None, headers: Headers::EMPTY }, span)),
        None => match plain::decode(prefix, frame_len) {
            Some(found) => Ok(found),
            None => decode_any_head(prefix, frame_len),
        },
    }
}

/// The commonest of heads, of an event without topic and headers, with its payload's length; `None` for one that is too
/// long for a frame.
#[inline(always)]
pub fn plain_event_head(encoding: Encoding, payload: usize) -> Option<[u8; PLAIN_EVENT.len()]> {
    // Put together as a number, and not byte by byte: what several stores have just written is loaded by words only once all
    // of them are in the cache.
    let bin = u32::try_from(payload + 1).ok()?.swap_bytes();
    let fixed = u64::from_le_bytes(*PLAIN_EVENT.first_chunk()?);
    let tag = u128::from(encoding.tag(false)) << (8 * 9);
    let head = u128::from(fixed) | u128::from(bin) << (8 * 5) | tag;
    Some(*head.to_le_bytes().first_chunk()?)
}

/// Where the payload lies, if this is a valid frame with the commonest of heads: an event without topic and
/// headers. Of such frames [`decode_head`] says the same.
#[inline(always)]
pub fn plain_event(prefix: &[u8], frame_len: usize) -> Option<PayloadSpan> {
    // In two words, and not byte by byte: they may be in registers.
    let &[a, b, c, d, e, f, g, h, i, tag] = prefix.first_chunk()?;
    let first = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    if first << 24 != u64::from_le_bytes([0, 0, 0, 0x94, 0x02, 0xc0, 0xc0, 0xc6]) {
        return None;
    }
    let bin = u32::from_be_bytes([f, g, h, i]) as usize;
    let start = PLAIN_EVENT.len();
    let len = bin.checked_sub(1)?;
    if frame_len.checked_sub(start)? != len {
        return None;
    }
    let (encoding, compressed) = Encoding::from_tag(tag)?;
    Some(PayloadSpan { encoding, compressed, start, len })
}

pub(super) fn decode_any_head(prefix: &[u8], frame_len: usize) -> Result<(Head<'_>, PayloadSpan), HeadError> {
    let prefix = &prefix[..prefix.len().min(frame_len)];
    let mut reader = Reader::new(prefix);
    let short = |error| match error {
        DecodeError::Truncated { needed } if needed > prefix.len() && needed <= frame_len => {
            HeadError::Short { needed }
        }
        error => HeadError::Invalid(error),
    };
    let (kind, unknown) = read_kind(&mut reader).map_err(short)?;
    let Some(head) = Head::read(kind, &mut reader).map_err(short)? else {
        return Err(HeadError::NoPayload(kind));
    };
    let span = PayloadSpan::read(&mut reader, frame_len).map_err(short)?;
    let end = span.start + span.len;
    if unknown == 0 && end != frame_len {
        return Err(DecodeError::Trailing { at: end }.into());
    }
    Ok((head, span))
}

/// Reads the array's header and the kind; also returns how many elements follow those that this version
/// knows.
pub(super) fn read_kind(reader: &mut Reader<'_>) -> Result<(Kind, u32), DecodeError> {
    let found = reader.array()?;
    if found == 0 {
        return Err(DecodeError::Fields { needed: 1, found });
    }
    let kind = reader.uint()?;
    let kind = Kind::from_wire(kind).ok_or(DecodeError::UnknownKind { kind })?;
    let needed = kind.elements();
    let unknown = found.checked_sub(needed).ok_or(DecodeError::Fields { needed, found })?;
    Ok((kind, unknown))
}
