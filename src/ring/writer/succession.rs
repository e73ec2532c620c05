//! Cutting off readers that are in the way: the log is closed, and another one continues it.
//!
//! ```text
//!   writer                                           reader
//!   the successor is where a healthy reader finds it
//!   store `successor`                                load `closed`: the position, and so the last record was read
//!   store `closed`            (Release)  ───▶        (Acquire) load `successor`
//!   publish in the successor                         the successor is there: read on in it
//! ```
//!
//! Nothing is stored to a log that is closed, so no gate has to keep anything for whoever still reads it.

use super::Writer;
use crate::ring::record;
use crate::segment::{Memory, MemoryMut};

impl<M: MemoryMut, R: Memory + Clone, T> Writer<M, R, T> {
    /// The same for a log that continues another: its first record has this number. The gates are
    /// [numbered from it](crate::ring::Gates::numbered_from).
    pub fn continuing(mut self, sequence: u64) -> Self {
        (self.sequence, self.due) = (sequence, sequence);
        self
    }

    /// Closes the log for one that continues it, with the number that is due: whoever is to read that has it already.
    pub fn close_for(&mut self, successor: u64) {
        self.end(successor);
    }

    /// Numbers of the readers that keep a record with this body, which the log can take, from being claimed: as far as
    /// was seen when that was last tried.
    pub fn in_the_way(&self, body: u64) -> Vec<u16> {
        let size = record::size(body);
        let contiguous = self.layout.contiguous(self.tail);
        let padding = if size > contiguous { contiguous } else { 0 };
        self.readers_before((self.tail + padding + size).saturating_sub(self.layout.capacity()))
    }

    /// Numbers of the readers that are not done with everything before this position, as far as was last seen.
    pub fn readers_before(&self, position: u64) -> Vec<u16> {
        let gates = self.view.readers().iter().map(|seen| &*seen.gate);
        // One that has no gate is beyond every position.
        gates.filter(|gate| gate.position() < position).map(|gate| gate.number()).collect()
    }
}
