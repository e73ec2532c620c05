//! Records that stay where they are while their reader reads on.
//!
//! ```text
//!            cursor, at most                           position             tail
//!   ────────────────┬────────────┬────────────┬────────────┬───────────────────┬──▶
//!    done with      │ lent       │ over, but  │ lent       │ published,        │
//!                   │ (oldest)   │ not told   │            │ not yet read      │
//! ```
//!
//! The reader's cursor does not pass the oldest record that is lent, so that the writer leaves alone all
//! that is. A lend ends with the drop of its [`Lent`], on whichever thread that is; the reader finds out
//! when it next looks. It never waits for a borrower, nor a borrower for it.

use std::collections::VecDeque;
use std::ops::Deref;

use super::sync::Ordering::{Acquire, Release};
use super::sync::{Arc, AtomicBool};
use crate::segment::Memory;

/// The frame of one record, in place: from [`Reader::lend`](super::Reader::lend). Dropping it gives the
/// record back; until then the writer gets no further than one capacity beyond the record's start. Of a blob, it
/// keeps the blob from its writer, and nothing else.
///
/// It holds the memory and may outlive its reader. As any mapping of a peer's segment it is not there
/// in a forked child: whoever hands it out asks for the process first.
pub struct Lent<M> {
    /// The log, or a blob.
    memory: M,
    at: usize,
    len: usize,
    over: Arc<AtomicBool>,
}

impl<M> Lent<M> {
    /// `len` bytes at offset `at`, until `over` is set. The caller has checked the range.
    pub(super) fn new(memory: M, at: usize, len: usize, over: Arc<AtomicBool>) -> Self {
        Self { memory, at, len, over }
    }
}

impl<M: Memory> Deref for Lent<M> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `Reader::record` checked that the range lies in the log, before the tail, `Blobs::find` that it
        // lies in the blob. It lies at or past the reader's cursor, and so its gate, or a hold of the reader's names the
        // blob, until `over` is set, which only this value's drop does: a writer that keeps to the protocol does not
        // store there (but for one that lives and has given this reader up: docs/architecture.md, Death).
        unsafe { self.memory.slice(self.at, self.len) }
    }
}

impl<M> Drop for Lent<M> {
    fn drop(&mut self) {
        // Release pairs with the Acquire in `Lend::is_over`: the borrower's loads of the bytes are over
        // before the reader stores a cursor behind them.
        self.over.store(true, Release);
    }
}

/// What the reader keeps of a [`Lent`].
struct Lend {
    /// Where the record begins.
    start: u64,
    over: Arc<AtomicBool>,
}

impl Lend {
    fn is_over(&self) -> bool {
        self.over.load(Acquire) // pairs with the Release in the drop of `Lent`
    }
}

/// A reader's lends, in the order of the log. Never more than there are records in one capacity: the reader
/// takes no tail that is further than that from the first of them.
#[derive(Default)]
pub(super) struct Lends(VecDeque<Lend>);

impl Lends {
    /// Lends `len` bytes at offset `at` of `log`, of the record that begins at `start`: no earlier one than
    /// the last. The caller has checked the range.
    pub(super) fn lend<M>(&mut self, start: u64, log: M, at: usize, len: usize) -> Lent<M> {
        let over = Arc::new(AtomicBool::new(false));
        self.0.push_back(Lend { start, over: over.clone() });
        Lent::new(log, at, len, over)
    }

    /// Forgets those that are over, up to the first that is not; where that one begins.
    pub(super) fn settle(&mut self) -> Option<u64> {
        while self.0.front()?.is_over() {
            self.0.pop_front();
        }
        self.first()
    }

    /// Where the first one begins that was not forgotten: the stored cursor is not beyond it.
    #[inline(always)]
    pub(super) fn first(&self) -> Option<u64> {
        self.0.front().map(|lend| lend.start)
    }

    /// Where the first one begins that is not over.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.0.iter().find(|lend| !lend.is_over()).map(|lend| lend.start)
    }

    /// Whether [`Lends::settle`] would forget any.
    pub(super) fn is_due(&self) -> bool {
        self.0.front().is_some_and(Lend::is_over)
    }

    /// Whether any was not forgotten.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
