//! Blobs that a reader keeps though it has read on: a table beside its cursor.
//!
//! ```text
//!   reader                                        writer
//!   store the blob's id into a free entry         load the cursor: past the record that names the blob?
//!   store the cursor, past the record             load the entries: is it none of them?
//!   … the borrower looks, and gives back …        then write the blob again
//!   store 0 into the entry
//!   fence, load `waiting`: ring                   (store `waiting`, fence, look once more, sleep)
//! ```
//!
//! The entries of a log stand in its cursor's line: no other log's writer looks at them, and the reader's thread alone
//! writes them. A borrower gives back by a flag, as for a record that is lent ([`super::lent`]); the reader clears
//! the entry when it next looks.

use super::sync::Ordering::{Acquire, Relaxed, Release};
use super::sync::{Arc, AtomicBool};
use crate::segment::MemoryMut;

/// Entries in a cursor's line.
pub const ENTRIES: usize = if cfg!(loom) { 2 } else { 15 };
/// Bytes from a cursor to its first entry.
pub const FIRST: usize = 8;

/// The entries of one log: where there is a flag, a blob is kept until it is set.
#[derive(Default)]
pub(super) struct Holds {
    entries: [Option<Arc<AtomicBool>>; ENTRIES],
    taken: usize,
}

impl Holds {
    /// Clears the entries of a line that is about to be a new log's: before its writer hears of it.
    pub(super) fn new(segment: &impl MemoryMut, cursor_at: usize) -> Self {
        for entry in 0..ENTRIES {
            segment.store(offset(cursor_at, entry), 0, Relaxed); // ordered by the Release store of the cursor
        }
        Self::default()
    }

    /// Names a blob in a free entry, until the flag is set; false if there is none. The cursor has not passed the
    /// record yet that names the blob.
    pub(super) fn take(
        &mut self,
        blob: u64,
        over: &Arc<AtomicBool>,
        segment: &impl MemoryMut,
        cursor_at: usize,
    ) -> bool {
        let Some(entry) = self.entries.iter().position(Option::is_none) else { return false };
        self.entries[entry] = Some(over.clone());
        self.taken += 1;
        // Release, as in `settle`: whoever sees this id instead of an earlier one comes after that one's end.
        segment.store(offset(cursor_at, entry), blob, Release);
        true
    }

    /// Clears what was given back; true if anything was.
    pub(super) fn settle(&mut self, segment: &impl MemoryMut, cursor_at: usize) -> bool {
        if self.taken == 0 {
            return false;
        }
        let before = self.taken;
        for (entry, held) in self.entries.iter_mut().enumerate() {
            if held.as_ref().is_some_and(is_over) {
                *held = None;
                // Release pairs with the Acquire load in `View::holds`: the borrower's loads are over.
                segment.store(offset(cursor_at, entry), 0, Release);
                self.taken -= 1;
            }
        }
        self.taken < before
    }

    /// Whether [`Holds::settle`] would clear any.
    pub(super) fn is_due(&self) -> bool {
        self.taken > 0 && self.entries.iter().flatten().any(is_over)
    }

    /// Whether no entry is taken.
    pub(super) fn is_empty(&self) -> bool {
        self.taken == 0
    }
}

fn is_over(over: &Arc<AtomicBool>) -> bool {
    over.load(Acquire) // pairs with the Release in the drop of `Lent`
}

fn offset(cursor_at: usize, entry: usize) -> usize {
    cursor_at + FIRST + entry * 8
}
