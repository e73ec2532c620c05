//! What a reader finds: in a register while it is a record or nothing, in memory otherwise.

use super::Reader;
use crate::ring::Corrupt;
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
