//! Messages too large for their log: each goes into a blob, a segment of its own that a record of the log names.
//!
//! ```text
//!   Outlet ── pool.rs ──▶ a free blob, or a fresh one
//!               │ fresh: ShareBlob
//!               ▼
//!   Core (blobs.rs) ──── op blob, with the fd ────▶ each reader's node: maps it, hands it to the port
//!   Outlet ──────────── record that names it ────▶ each reader
//! ```
//!
//! Every reader has a blob's fd in its socket before a record names it, so that it gets the message even if the
//! writer is killed then. Blobs are used again and again; once there are enough of them, a large message costs what a
//! small one does, and no system call.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};

mod pool;

pub(super) use pool::{Pool, Take};

/// Bytes of the largest message unless asked otherwise.
const MAX_MESSAGE: u64 = 64 << 20;
/// Bytes of pooled memory of a port unless asked otherwise.
const BLOB_MEMORY: u64 = 256 << 20;
/// The most that a message can have, whatever is asked for: lengths in frames have 32 bits.
pub(super) const LARGEST: u64 = 1 << 31;
/// Bytes of the smallest blob, beside those for what comes before a payload.
pub(super) const SMALLEST: u64 = 64 << 10;
/// Blobs that a log may have at a time: each costs its writer a file descriptor.
pub(super) const MOST: usize = 64;

/// How large messages may be that do not fit a log, and what memory they may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of the largest payload.
    pub(super) max_message: u64,
    /// Bytes of all blobs of a log.
    pub(super) blob_memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_message: MAX_MESSAGE, blob_memory: BLOB_MEMORY }
    }
}

impl Limits {
    /// Bytes of the largest payload that a blob may take, behind a head that is not unusually long.
    pub(super) fn largest(&self) -> u64 {
        self.max_message.min(self.largest_class())
    }

    /// The size of the largest blobs, which come in powers of two; 0: there are none.
    pub(super) fn largest_class(&self) -> u64 {
        let class = self.blob_memory.checked_ilog2().map_or(0, |log| 1u64 << log);
        if class < SMALLEST { 0 } else { class.min(LARGEST) }
    }

    /// The size of the blobs for so many bytes, beside what each has for what comes before a payload.
    pub(super) fn class(&self, bytes: u64) -> Option<u64> {
        let class = bytes.checked_next_power_of_two()?.max(SMALLEST);
        (class <= self.blob_memory && class <= LARGEST).then_some(class)
    }
}

/// A blob that the control thread is to give to every reader of its log.
pub(super) struct NewBlob {
    pub(super) blob: u64,
    /// Bytes of the segment.
    pub(super) size: u64,
    pub(super) fd: Arc<OwnedFd>,
    pub(super) shared: Shared,
}

/// Whether the fd of a blob is in the socket of every reader, so that a record may name it.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<AtomicBool>);

impl Shared {
    /// Called by the control thread.
    pub(super) fn set(&self) {
        self.0.store(true, Release); // pairs with the Acquire in `is_set`; the fd itself went through the kernel
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Acquire) // pairs with the Release in `set`
    }
}
