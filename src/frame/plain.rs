//! The commonest heads of calls, laid and read by hand: without headers, a short method's name, a success.
//!
//! These bytes are what [`Head::write`] writes and [`Head::read`] reads, which do it for all heads; what does not
//! fit here goes there.

use super::payload::{Encoding, PayloadSpan};
use super::{Code, Head, Headers, Kind};

/// Bytes of the longest plain head: request, method of 31 bytes, 64-bit id and deadline.
pub(super) const LONGEST: usize = 1 + 1 + 9 + 32 + 9 + 1 + 6;

const SIX: u8 = 0x90 | 6;
const NIL: u8 = 0xc0;
const BIN32: u8 = 0xc6;
const REQUEST: u8 = Kind::Request as u8;
const RESPONSE: u8 = Kind::Response as u8;

/// Writes the head, if it is plain and `out` has room for any such head; where the payload's bytes start.
#[inline]
pub(super) fn begin(head: &Head<'_>, out: &mut [u8], tag: u8) -> Option<usize> {
    let room: &mut [u8; LONGEST] = out.first_chunk_mut()?;
    room[0] = SIX;
    let end = match *head {
        Head::Request { id, method, deadline, headers } if headers.is_empty() && method.len() < 32 => {
            room[1] = REQUEST;
            let at = uint(room, 2, id);
            room[at] = 0xa0 | method.len() as u8;
            let at = at + 1;
            room[at..at + method.len()].copy_from_slice(method.as_bytes());
            let at = at + method.len();
            match deadline {
                Some(deadline) => uint(room, at, deadline),
                None => nil(room, at),
            }
        }
        Head::Response { id, status: Code::Ok, message: None, headers } if headers.is_empty() => {
            room[1] = RESPONSE;
            let at = uint(room, 2, id);
            room[at] = Code::Ok as u8;
            nil(room, at + 1)
        }
        _ => return None,
    };
    let end = nil(room, end);
    room[end..end + 6].copy_from_slice(&[BIN32, 0, 0, 0, 0, tag]);
    Some(end + 6)
}

/// How many bytes [`begin`] writes.
#[inline]
pub(super) fn prefix_len(head: &Head<'_>) -> Option<usize> {
    begin(head, &mut [0; LONGEST], 0)
}

#[inline(always)]
fn nil(room: &mut [u8; LONGEST], at: usize) -> usize {
    room[at] = NIL;
    at + 1
}

/// The shortest form; returns where it ends.
#[inline(always)]
fn uint(room: &mut [u8; LONGEST], at: usize, value: u64) -> usize {
    if let Ok(value @ 0..=0x7f) = u8::try_from(value) {
        room[at] = value;
        at + 1
    } else if let Ok(value) = u8::try_from(value) {
        room[at..at + 2].copy_from_slice(&[0xcc, value]);
        at + 2
    } else if let Ok(value) = u16::try_from(value) {
        room[at] = 0xcd;
        room[at + 1..at + 3].copy_from_slice(&value.to_be_bytes());
        at + 3
    } else if let Ok(value) = u32::try_from(value) {
        room[at] = 0xce;
        room[at + 1..at + 5].copy_from_slice(&value.to_be_bytes());
        at + 5
    } else {
        room[at] = 0xcf;
        room[at + 1..at + 9].copy_from_slice(&value.to_be_bytes());
        at + 9
    }
}

/// A request with a plain head.
#[derive(Debug, Clone, Copy)]
pub struct PlainRequest<'a> {
    /// As in [`Head::Request`].
    pub id: u64,
    /// The bytes of its name, whatever they are: one that equals a string is one.
    pub method: &'a [u8],
    /// As in [`Head::Request`].
    pub deadline: Option<u64>,
    /// Where the payload lies.
    pub payload: PayloadSpan,
}

/// The head and the payload's place, if this is a valid frame with a plain head.
#[inline]
pub(super) fn decode(prefix: &[u8], frame_len: usize) -> Option<(Head<'_>, PayloadSpan)> {
    let headers = Headers::EMPTY;
    if prefix.get(1) == Some(&RESPONSE) {
        let (id, payload) = plain_response(prefix, frame_len)?;
        return Some((Head::Response { id, status: Code::Ok, message: None, headers }, payload));
    }
    let PlainRequest { id, method, deadline, payload } = plain_request(prefix, frame_len)?;
    let method = str::from_utf8(method).ok()?;
    Some((Head::Request { id, method, deadline, headers }, payload))
}

/// The request, if this is a frame with the commonest of their heads (no headers, a short name) and valid but for the
/// name. Of such frames [`decode_head`](super::decode_head) says the same, but by way of memory, which takes some
/// nanoseconds longer.
#[inline(always)]
pub fn plain_request(prefix: &[u8], frame_len: usize) -> Option<PlainRequest<'_>> {
    let [SIX, REQUEST, rest @ ..] = prefix else { return None };
    let (id, rest) = take_uint(rest)?;
    let (&name, rest) = rest.split_first()?;
    if name & 0xe0 != 0xa0 {
        return None;
    }
    let (method, rest) = rest.split_at_checked(usize::from(name & 0x1f))?;
    let (deadline, rest) = match rest.split_first()? {
        (&NIL, rest) => (None, rest),
        _ => take_uint(rest).map(|(deadline, rest)| (Some(deadline), rest))?,
    };
    let payload = span(prefix.len() - rest.len(), rest, frame_len)?;
    Some(PlainRequest { id, method, deadline, payload })
}

/// The id of the call, and where the payload lies, if this is a valid frame with the commonest head of responses: a
/// success without headers. Of such frames [`decode_head`](super::decode_head) says the same.
#[inline(always)]
pub fn plain_response(prefix: &[u8], frame_len: usize) -> Option<(u64, PayloadSpan)> {
    let [SIX, RESPONSE, rest @ ..] = prefix else { return None };
    let (id, rest) = take_uint(rest)?;
    let (&[0, NIL], rest) = rest.split_first_chunk()? else { return None };
    Some((id, span(prefix.len() - rest.len(), rest, frame_len)?))
}

/// What every plain head ends with.
#[inline(always)]
fn span(at: usize, rest: &[u8], frame_len: usize) -> Option<PayloadSpan> {
    let &[NIL, BIN32, a, b, c, d, tag] = rest.first_chunk()? else { return None };
    let start = at + 7;
    let len = (u32::from_be_bytes([a, b, c, d]) as usize).checked_sub(1)?;
    if frame_len.checked_sub(start)? != len {
        return None;
    }
    let (encoding, compressed) = Encoding::from_tag(tag)?;
    Some(PayloadSpan { encoding, compressed, start, len })
}

#[inline(always)]
fn take_uint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    Some(match first {
        0..=0x7f => (u64::from(first), rest),
        0xcc => rest.split_first_chunk().map(|(&[byte], rest)| (u64::from(byte), rest))?,
        0xcd => rest.split_first_chunk().map(|(two, rest)| (u64::from(u16::from_be_bytes(*two)), rest))?,
        0xce => rest.split_first_chunk().map(|(four, rest)| (u64::from(u32::from_be_bytes(*four)), rest))?,
        0xcf => rest.split_first_chunk().map(|(eight, rest)| (u64::from_be_bytes(*eight), rest))?,
        _ => return None,
    })
}
