//! What a reader finds: in a register while it is a record or nothing, in memory otherwise.

use super::Reader;
use crate::ring::Corrupt;
use crate::ring::layout::CACHE_LINE;
use crate::ring::record::Record;
use crate::segment::{Memory, MemoryMut};

/// What a reader finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing new.
    Empty,
    /// A record; it stays readable until [`Reader::release`], or longer by [`Reader::lend`].
    Record(Record),
    /// This many records were dropped by the writer before the next one.
    Lagged(u64),
    /// The writer closed the log and everything in it was read. The successor's log id, or 0.
    Closed(u64),
}

/// What a look finds, in a register: [`Next`] is written to memory in words and read in pairs of them, for which a
/// processor has to wait. [`Reader::found`] has the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Nothing new.
    Empty,
    /// [`Reader::in_hand`].
    Record,
    /// What is neither.
    Other,
}

impl<M: Memory, C: MemoryMut> Reader<M, C> {
    /// What a look of this reader has found; to be asked once.
    ///
    /// # Errors
    /// Those of [`Reader::next`].
    #[inline(always)]
    pub fn found(&mut self, look: Look) -> Result<Next, Corrupt> {
        match (look, &self.in_hand) {
            (Look::Record, Some((_, record))) => Ok(Next::Record(*record)),
            (Look::Other, _) => self.aside.take().unwrap_or(Ok(Next::Empty)),
            _ => Ok(Next::Empty),
        }
    }

    /// Asks for the lines where the next record is going to stand. A reader that polls and does so gets them
    /// while it waits for the line of the tail, instead of after it: half the latency of a small record. One
    /// that is about to catch up with its writer must not: it takes the lines away while they are written.
    ///
    /// After records of which one named a blob, also for the first lines of the blob which the next one may name. Its writer
    /// has to take them back when it fills them, together with the record's; that costs less than a reader that
    /// begins to ask once the record is there.
    #[inline(always)]
    pub fn prefetch(&self) {
        let at = self.layout.offset(self.position);
        // Three: a typed message of 64 bytes, with the names of its fields, mostly takes as many.
        self.log.prefetch(at);
        self.log.prefetch(at + CACHE_LINE);
        self.log.prefetch(at + 2 * CACHE_LINE);
        if self.expects_blob
            && let Some(blobs) = &self.blobs
        {
            blobs.prefetch_next();
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn set_aside(&mut self, found: Result<Next, Corrupt>) -> Look {
        self.aside = Some(found);
        Look::Other
    }

    /// The record at `position` is not the one that is due.
    #[cold]
    pub(super) fn out_of_order(&mut self, sequence: u64, expected: u64) -> Look {
        if sequence < expected || sequence == u64::MAX {
            return self.set_aside(Err(Corrupt::Sequence { position: self.position, sequence, expected }));
        }
        self.expected = Some(sequence);
        self.set_aside(Ok(Next::Lagged(sequence - expected)))
    }
}
