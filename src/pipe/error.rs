//! One error a kind of operation, each saying what to do.

use std::io;
use std::time::Duration;

use crate::ring::Corrupt;
use crate::segment::NamedError;

/// A pipe's name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is no name for a pipe: use 1 to {} of the letters a–z and A–Z, digits, `-`, `_` and `.`",
    super::MAX_NAME
)]
#[non_exhaustive]
pub struct NameError {
    /// The name, cut to its first 64 characters.
    pub name: String,
}

/// Why a pipe was not created. Nothing was left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The name cannot be a pipe's.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The capacity cannot be a pipe's.
    #[error("capacity {capacity} is not a power of two from 4 KiB to 4 GiB")]
    Capacity {
        /// What was asked for, in bytes.
        capacity: u64,
    },
    /// A living process writes the pipe of this name.
    #[error("pipe {name:?} has a writer that lives: choose another name, or end that writer first")]
    Taken {
        /// The name.
        name: String,
    },
    /// What stands in the name's place is no pipe of this user's, and was left alone.
    #[error("{path} is in the way ({what}): remove it, or choose another name")]
    InTheWay {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// There is not enough shared memory.
    #[error(
        "no room for a pipe of {capacity} bytes: {reason}: make `/dev/shm` larger (in containers `--shm-size`), raise `ulimit -f`, or ask for less"
    )]
    Memory {
        /// What was asked for, in bytes.
        capacity: u64,
        /// What the kernel said.
        reason: String,
    },
    /// The operating system refused something else.
    #[error("{what} failed: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Why a pipe could not be opened for reading.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The name cannot be a pipe's.
    #[error(transparent)]
    Name(#[from] NameError),
    /// There is no pipe of this name.
    #[error("there is no pipe {name:?}: start its writer first, or wait for it with `Reader::open_within`")]
    Absent {
        /// The name.
        name: String,
    },
    /// The pipe has a reader that lives; it has one at a time.
    #[error("pipe {name:?} has a reader that lives: end it first, or use another pipe")]
    Busy {
        /// The name.
        name: String,
    },
    /// What stands in the name's place is no pipe of this user's.
    #[error("{path} is no pipe ({what}): remove it, or choose another name")]
    NoPipe {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The pipe's bytes are not as a writer leaves them.
    #[error("pipe {name:?} cannot be read: {why}: create it anew")]
    Corrupt {
        /// The name.
        name: String,
        /// What was found.
        why: Corrupt,
    },
    /// The operating system refused something else.
    #[error("{what} failed: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Why a message was not written. It had no effect.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// There is no room: the reader has not kept up, or no reader has come yet.
    #[error("the pipe is full after {waited:?}: make the reader faster, or the capacity larger")]
    Full {
        /// How long was waited.
        waited: Duration,
    },
    /// There is no room, and the reader that could make some is gone; write again once another has opened the
    /// pipe.
    #[error("the pipe is full and its reader is gone: open a new reader, then write again")]
    ReaderGone,
    /// The message can never fit this pipe.
    #[error(
        "message of {size} bytes, but this pipe takes at most {limit}: create it with a capacity of more than four times the size, or send it in pieces"
    )]
    TooLarge {
        /// Bytes of the message.
        size: usize,
        /// The most that this pipe takes.
        limit: usize,
    },
    /// The reader's cursor is impossible: somebody else has written it. The pipe is of no more use.
    #[error("the reader's end is corrupt: {0}: create the pipe anew")]
    Corrupt(Corrupt),
    /// The writer was made in a parent process.
    #[error("this process is a fork of the one that created the pipe: create another in the child")]
    Forked,
}

/// Why no message was read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The writer's process ended without closing the pipe, and all that it had written was read.
    #[error(
        "the writer died without closing the pipe: what it wrote was read; open the pipe again once it has a new writer"
    )]
    WriterDied,
    /// Messages are missing, though a pipe's writer drops none: somebody else has written the pipe.
    #[error("{missing} messages are missing, which no writer leaves out: create the pipe anew")]
    Missing {
        /// How many.
        missing: u64,
    },
    /// The pipe's bytes are not as a writer leaves them: somebody else has written them. The pipe is of no
    /// more use.
    #[error("the writer's end is corrupt: {0}: create the pipe anew")]
    Corrupt(#[from] Corrupt),
    /// The reader was opened in a parent process.
    #[error("this process is a fork of the one that opened the pipe: open it again in the child")]
    Forked,
}

impl CreateError {
    pub(super) fn of(error: NamedError, path: impl FnOnce() -> String, capacity: u64) -> Self {
        let (what, source) = match error {
            NamedError::Unfit { what } => return Self::InTheWay { path: path(), what },
            NamedError::FileSizeLimit { .. } => {
                return Self::Memory { capacity, reason: error.to_string() };
            }
            NamedError::Os { call, source } => (call, source),
            other => ("making shared memory", io::Error::other(other)),
        };
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::OutOfMemory | io::ErrorKind::QuotaExceeded => {
                Self::Memory { capacity, reason: format!("{what}: {source}") }
            }
            _ => Self::Io { what, source },
        }
    }
}
