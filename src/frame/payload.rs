//! The payload: a bin whose first byte, the tag, says how the rest is encoded. Routing never parses it.
//!
//! ```text
//!   c6  LL LL LL LL  │ tag │ payload …        LL = 1 + payload length, big-endian
//!                      bit 7: compressed · bits 4–6: 0 · bits 0–3: encoding
//! ```

use super::read::Reader;
use super::{DecodeError, MAX_PAYLOAD};

/// How a payload is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// MessagePack: what typed ports write.
    MessagePack = 0,
    /// Bytes that only the two ends understand.
    Raw = 1,
    /// JSON text.
    Json = 2,
}

const COMPRESSED: u8 = 0x80;

impl Encoding {
    pub(super) fn tag(self, compressed: bool) -> u8 {
        self as u8 | if compressed { COMPRESSED } else { 0 }
    }

    pub(super) fn from_tag(tag: u8) -> Option<(Encoding, bool)> {
        let encoding = match tag & !COMPRESSED {
            0 => Encoding::MessagePack,
            1 => Encoding::Raw,
            2 => Encoding::Json,
            _ => return None,
        };
        Some((encoding, tag & COMPRESSED != 0))
    }
}

/// A payload, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    /// How `bytes` are encoded, once decompressed.
    pub encoding: Encoding,
    /// Whether `bytes` are compressed.
    pub compressed: bool,
    /// The payload without its tag.
    pub bytes: &'a [u8],
}

impl<'a> Payload<'a> {
    /// No payload: what a nil in its place reads as, and what a failed call's response carries.
    pub const EMPTY: Payload<'static> = Payload::new(Encoding::Raw, &[]);

    /// An uncompressed payload.
    pub const fn new(encoding: Encoding, bytes: &'a [u8]) -> Self {
        Payload { encoding, compressed: false, bytes }
    }
}

/// Where a payload lies in its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadSpan {
    /// How the bytes are encoded, once decompressed.
    pub encoding: Encoding,
    /// Whether the bytes are compressed.
    pub compressed: bool,
    /// Offset of the first byte after the tag.
    pub start: usize,
    /// Length in bytes; `start + len` is within the frame.
    pub len: usize,
}

impl PayloadSpan {
    /// Reads the bin's header and the tag, leaves the reader before the payload's bytes, which it need
    /// not hold: they are checked against `frame_len`.
    pub(super) fn read(reader: &mut Reader<'_>, frame_len: usize) -> Result<Self, DecodeError> {
        if reader.nil() {
            let Payload { encoding, compressed, .. } = Payload::EMPTY;
            return Ok(PayloadSpan { encoding, compressed, start: reader.at(), len: 0 });
        }
        let at = reader.at();
        let bin = reader.bin_len()?;
        let len = bin.checked_sub(1).ok_or(DecodeError::Expected { what: "a payload tag", at })?;
        let needed = reader.at().saturating_add(bin);
        if needed > frame_len {
            return Err(DecodeError::Truncated { needed });
        }
        let at = reader.at();
        let tag = reader.take(1)?[0];
        let (encoding, compressed) = Encoding::from_tag(tag).ok_or(DecodeError::UnknownTag { tag, at })?;
        Ok(PayloadSpan { encoding, compressed, start: reader.at(), len })
    }
}

/// Sets the length of the payload that starts at `start`, once it is known.
///
/// # Panics
/// If `start` is not what [`Head::begin`](super::Head::begin) returned for this frame, or `payload_len`
/// is over [`MAX_PAYLOAD`].
#[inline]
pub fn finish_payload(frame: &mut [u8], start: usize, payload_len: usize) {
    assert!(payload_len <= MAX_PAYLOAD, "a payload of {payload_len} bytes");
    frame[start - 5..start - 1].copy_from_slice(&(payload_len as u32 + 1).to_be_bytes());
}

/// Marks the payload that starts at `start` as compressed.
///
/// # Panics
/// If `start` is not what [`Head::begin`](super::Head::begin) returned for this frame.
pub fn mark_compressed(frame: &mut [u8], start: usize) {
    frame[start - 1] |= COMPRESSED;
}
