//! The record header: 16 bytes before each frame.
//!
//! ```text
//!  word 0   bits  0–31  len        bytes of the frame, without header and filler
//!           bits 32–39  kind       0 frame, 1 padding, 2 blob
//!           bits 40–47  flags      bits 0–5: filler bytes between header and frame; 6–7: zero
//!           bits 48–63  addressee  0 every reader, else the number that Attach gave to one
//!  word 1   sequence
//! ```
//!
//! Records start at multiples of 16 and never wrap; so the room before the end of the ring always holds
//! at least a header, and a padding record fills it.

/// Bytes of a record's header, and the alignment of every record.
pub const HEADER: u64 = 16;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// One frame.
    Frame = 0,
    /// Nothing: fills the end of the ring.
    Padding = 1,
    /// The name of a blob that holds the frame.
    Blob = 2,
}

/// A record as the reader hands it out: range-checked against its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// What it holds.
    pub kind: Kind,
    /// Position of the frame's first byte.
    pub frame: u64,
    /// Bytes of the frame.
    pub len: u32,
    /// Its number in the log.
    pub sequence: u64,
}

/// The first header word, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub len: u32,
    pub kind: Kind,
    pub filler: u8,
    pub addressee: u16,
}

impl Header {
    pub(super) fn pack(self) -> u64 {
        debug_assert!(self.filler < 64, "filler is six bits of the header");
        u64::from(self.len)
            | (self.kind as u64) << 32
            | u64::from(self.filler) << 40
            | u64::from(self.addressee) << 48
    }

    /// `None` if the word is none that a writer of this version packs.
    pub(super) fn unpack(word: u64) -> Option<Self> {
        let kind = match (word >> 32) as u8 {
            0 => Kind::Frame,
            1 => Kind::Padding,
            2 => Kind::Blob,
            _ => return None,
        };
        let filler = (word >> 40) as u8;
        (filler < 64).then_some(Self { len: word as u32, kind, filler, addressee: (word >> 48) as u16 })
    }

    /// Bytes the record takes in the ring.
    pub(super) fn size(self) -> u64 {
        size(u64::from(self.filler) + u64::from(self.len))
    }
}

/// Bytes that a record with `body` bytes behind its header takes.
pub(super) fn size(body: u64) -> u64 {
    (HEADER + body).next_multiple_of(HEADER)
}
