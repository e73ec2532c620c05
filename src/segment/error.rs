//! Why a segment could not be made or opened.

use std::io;

use crate::sys::memfd;

/// Why a segment could not be made, or one that a peer sent was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// Not a length that a segment can have.
    #[error("a segment of {len} bytes is not a whole number of {page}-byte pages")]
    Size {
        /// The length asked for, or found.
        len: u64,
        /// The page size of this host.
        page: usize,
    },
    /// A peer's segment is larger than this process is willing to map.
    #[error("a segment of {len} bytes exceeds the {max} that are accepted")]
    TooLarge {
        /// The length found.
        len: u64,
        /// The most that is accepted.
        max: usize,
    },
    /// `RLIMIT_FSIZE` of this process is smaller than the segment.
    #[error("a segment of {len} bytes exceeds the file size limit")]
    FileSizeLimit {
        /// The length asked for.
        len: u64,
    },
    /// The fd is something else than a memory file.
    #[error("not a memory file (memfd)")]
    NotMemory,
    /// The memory file lacks seals, so somebody could still change its size or write it.
    #[error("seals {found:#x} lack {:#x}", memfd::REQUIRED & !found)]
    Unsealed {
        /// The seals found, as a mask of `F_SEAL_*`.
        found: u32,
    },
    /// Its owner has not made all of its pages: those who read it would, and pay for them.
    #[error("pages are missing that its owner has to make")]
    Missing,
    /// The file consists of huge pages, whose faults can kill the reader.
    #[error("made of huge pages, which cannot be mapped safely")]
    HugePages,
    /// A system call failed.
    #[error("{call} failed: {source}")]
    Os {
        /// What was being done.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl SegmentError {
    /// Whether this process ran short of something, rather than the segment being wrong.
    pub fn is_shortage(&self) -> bool {
        matches!(self, Self::Os { .. } | Self::FileSizeLimit { .. })
    }

    /// Wraps the error of `call`; for `map_err`.
    pub(super) fn os(call: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Os { call, source }
    }
}
