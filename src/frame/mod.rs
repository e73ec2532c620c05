//! MessagePack frames: what a record, a datagram of a session or a link carries. No I/O, no unsafe.
//!
//! A frame is one MessagePack array in a fixed order; its first element is the [`Kind`]:
//!
//! ```text
//!  event, no topic, no headers, 3 bytes of payload, MessagePack-encoded:
//!
//!    94    02    c0     c0      c6 00 00 00 04    00    xx xx xx
//!    │     │     │      │       │                 │     └ payload
//!    │     │     topic  headers bin32, length     tag: encoding, compressed
//!    │     kind                 of tag + payload
//!    array of 4      └──────────────── head ──────┘
//!
//!  request   [0, id, method, deadline, headers, payload]    end       [7, id, status, message, headers]
//!  response  [1, id, status, message, headers, payload]     cancel    [8, id]
//!  event     [2, topic, headers, payload]                   credit    [9, id, n]
//!  broadcast [3, topic, headers, payload]                   direct    [10, headers, payload]
//!  heartbeat [4, seq, uptime, stats]                        link      [11, source, sequence, ttl,
//!  control   [5, op, fields…]                                          flags, frame]
//!  item      [6, id, seq, payload]
//! ```
//!
//! Whatever comes before the payload's bytes is the [`Head`]. It is written straight into a log
//! ([`Head::begin`], then [`finish_payload`]) and read from a private copy of the frame's first bytes
//! ([`decode_head`]), since a hostile writer may change the log under the reader. Whole frames go
//! through [`Frame`], datagrams of a session through [`Control`].
//!
//! Decoding borrows, allocates nothing, is bounded in depth and size, and never panics: bytes from a
//! peer end in a value or in a [`DecodeError`]. Unknown trailing elements are skipped, nil is absent.
#![forbid(unsafe_code)]

mod code;
mod control;
mod error;
mod head;
mod headers;
mod list;
mod message;
mod payload;
mod plain;
mod port;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use code::Code;
pub use control::{Attach, Control, Hello};
pub use error::{DecodeError, EncodeError};
pub use head::{Head, HeadError, begin_event, decode_head, plain_event, plain_event_head};
pub use headers::{Headers, Stats, Strings};
pub use list::{Element, Iter, List};
pub use message::Frame;
pub use payload::{Encoding, Payload, PayloadSpan, finish_payload, mark_compressed};
pub use plain::{PlainRequest, plain_request, plain_response};
pub use port::{PortStats, PortStatsList, PortUp, Role};

/// Most headers on one frame, filters on one port, counters in one heartbeat.
pub const MAX_HEADERS: usize = 64;
/// Most bytes that the text of one frame's headers (or filters, or counters) may have together.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Longest topic, method, status message, node name, in bytes.
pub const MAX_STRING: usize = 4096;
/// Deepest nesting of an unknown element that is skipped.
pub const MAX_DEPTH: usize = 16;
/// Longest control datagram, in bytes.
pub const MAX_DATAGRAM: usize = 64 * 1024;
/// Largest payload, in bytes: the bin's 32-bit length counts the tag too.
pub const MAX_PAYLOAD: usize = u32::MAX as usize - 1;
/// No valid head is longer, nor a whole end, cancel, credit or heartbeat frame without unknown
/// elements; [`decode_head`] never asks for more.
pub const MAX_HEAD: usize = 24 * 1024;

/// What a frame is: the first element of its array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A call of a method.
    Request = 0,
    /// The one answer to a request.
    Response = 1,
    /// A message published on a topic.
    Event = 2,
    /// A message to every node.
    Broadcast = 3,
    /// A node's sign of life.
    Heartbeat = 4,
    /// What two nodes' sessions tell each other.
    Control = 5,
    /// One element of a streamed answer.
    Item = 6,
    /// The end of a streamed answer.
    End = 7,
    /// The caller no longer wants an answer.
    Cancel = 8,
    /// How many more items the caller can take.
    Credit = 9,
    /// A message to one named node.
    Direct = 10,
    /// A frame that came over a link, with where it came from.
    Link = 11,
}

impl Kind {
    /// The kind with this number, if this version knows it.
    pub fn from_wire(number: u64) -> Option<Kind> {
        Some(match number {
            0 => Kind::Request,
            1 => Kind::Response,
            2 => Kind::Event,
            3 => Kind::Broadcast,
            4 => Kind::Heartbeat,
            5 => Kind::Control,
            6 => Kind::Item,
            7 => Kind::End,
            8 => Kind::Cancel,
            9 => Kind::Credit,
            10 => Kind::Direct,
            11 => Kind::Link,
            _ => return None,
        })
    }

    /// How many elements this version knows in the frame's array, the kind included (control: up to the
    /// op).
    pub(crate) fn elements(self) -> u32 {
        match self {
            Kind::Cancel | Kind::Control => 2,
            Kind::Credit | Kind::Direct => 3,
            Kind::Event | Kind::Broadcast | Kind::Heartbeat | Kind::Item => 4,
            Kind::End => 5,
            Kind::Request | Kind::Response | Kind::Link => 6,
        }
    }
}
