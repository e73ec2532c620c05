//! Status codes of a call.

use std::fmt;

/// How a call ended: the 17 codes of gRPC, with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// The call succeeded.
    Ok = 0,
    /// The caller gave up.
    Cancelled = 1,
    /// An error that fits no other code, or a code that this version does not know.
    Unknown = 2,
    /// The arguments are wrong whatever the server's state.
    InvalidArgument = 3,
    /// The deadline passed before the call ended; it may still take effect.
    DeadlineExceeded = 4,
    /// What was asked for does not exist.
    NotFound = 5,
    /// What was to be made exists already.
    AlreadyExists = 6,
    /// The caller is known and may not do this.
    PermissionDenied = 7,
    /// A quota, a queue or memory is used up.
    ResourceExhausted = 8,
    /// The server's state must change before the call can succeed.
    FailedPrecondition = 9,
    /// A conflict with a concurrent call; try again one level up.
    Aborted = 10,
    /// Past the end of a valid range.
    OutOfRange = 11,
    /// The server has no such method.
    Unimplemented = 12,
    /// The server broke an invariant of its own.
    Internal = 13,
    /// No server can be reached just now; try again.
    Unavailable = 14,
    /// Data was lost or damaged.
    DataLoss = 15,
    /// The caller is not known.
    Unauthenticated = 16,
}

const CODES: [Code; 17] = [
    Code::Ok,
    Code::Cancelled,
    Code::Unknown,
    Code::InvalidArgument,
    Code::DeadlineExceeded,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::FailedPrecondition,
    Code::Aborted,
    Code::OutOfRange,
    Code::Unimplemented,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
    Code::Unauthenticated,
];

impl Code {
    /// The code with this number; [`Code::Unknown`] for a number that this version does not know.
    pub fn from_wire(number: u64) -> Code {
        usize::try_from(number).ok().and_then(|n| CODES.get(n)).copied().unwrap_or(Code::Unknown)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Code::Ok => "ok",
            Code::Cancelled => "cancelled",
            Code::Unknown => "unknown error",
            Code::InvalidArgument => "invalid argument",
            Code::DeadlineExceeded => "deadline exceeded",
            Code::NotFound => "not found",
            Code::AlreadyExists => "already exists",
            Code::PermissionDenied => "permission denied",
            Code::ResourceExhausted => "resource exhausted",
            Code::FailedPrecondition => "failed precondition",
            Code::Aborted => "aborted",
            Code::OutOfRange => "out of range",
            Code::Unimplemented => "unimplemented",
            Code::Internal => "internal error",
            Code::Unavailable => "unavailable",
            Code::DataLoss => "data loss",
            Code::Unauthenticated => "unauthenticated",
        })
    }
}
