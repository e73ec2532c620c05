//! What can be wrong with bytes, and with values that should become bytes.

use super::MAX_DEPTH;

/// Why bytes are not a frame, and at which byte of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end inside the frame.
    #[error("frame is cut short: it has at least {needed} bytes")]
    Truncated {
        /// Length that the frame has at least, in bytes.
        needed: usize,
    },
    /// A value of another type stands where this one belongs.
    #[error("expected {what} at byte {at}")]
    Expected {
        /// What belongs there.
        what: &'static str,
        /// Byte offset.
        at: usize,
    },
    /// A number, length or count is over its limit.
    #[error("{what} at byte {at} is over the limit of {limit}")]
    Limit {
        /// What is too large.
        what: &'static str,
        /// The largest that is allowed.
        limit: u64,
        /// Byte offset.
        at: usize,
    },
    /// A string is not UTF-8.
    #[error("string at byte {at} is not UTF-8")]
    NotUtf8 {
        /// Byte offset of the string's first byte.
        at: usize,
    },
    /// An unknown element is nested too deep to be skipped.
    #[error("value at byte {at} is nested deeper than {MAX_DEPTH} levels")]
    TooDeep {
        /// Byte offset.
        at: usize,
    },
    /// The array ends before the fields that this kind or op must have.
    #[error("array of {found} elements, but {needed} are needed")]
    Fields {
        /// Elements that must be there.
        needed: u32,
        /// Elements that are there.
        found: u32,
    },
    /// The payload's encoding is not one that this version knows.
    #[error("unknown payload tag {tag:#04x} at byte {at}")]
    UnknownTag {
        /// The tag.
        tag: u8,
        /// Byte offset.
        at: usize,
    },
    /// Bytes follow the frame.
    #[error("frame ends at byte {at}, but more bytes follow")]
    Trailing {
        /// Byte offset of the first byte too many.
        at: usize,
    },
    /// A frame of a kind that this version does not know.
    #[error("unknown frame kind {kind}")]
    UnknownKind {
        /// The kind's number.
        kind: u64,
    },
    /// A control op that this version does not know.
    #[error("unknown control op {op}")]
    UnknownOp {
        /// The op's number.
        op: u64,
    },
    /// A port of a role that this version does not know.
    #[error("unknown port role {role}")]
    UnknownRole {
        /// The role's number.
        role: u8,
    },
}

impl DecodeError {
    /// Whether a newer peer may rightly have sent this: to be ignored, not held against the peer.
    pub fn is_unknown(&self) -> bool {
        matches!(
            self,
            DecodeError::UnknownKind { .. } | DecodeError::UnknownOp { .. } | DecodeError::UnknownRole { .. }
        )
    }
}

/// Why a value cannot become bytes. The output buffer may have been written in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The buffer is too small.
    #[error("frame needs {needed} bytes, more than there is room for")]
    NoSpace {
        /// Bytes needed in all.
        needed: usize,
    },
    /// A part is over its limit, whatever the buffer's size.
    #[error("{what} over the limit of {limit}")]
    TooLong {
        /// What is too long, or too many.
        what: &'static str,
        /// The most that is allowed.
        limit: usize,
    },
}
