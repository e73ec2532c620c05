//! A reader without a gate, to be used like one that has a gate: it has a frame in hand, until it is released.
//!
//! All of its work is [`LossyReader`]'s. The frame in hand is a private copy, and so nothing that is done with it
//! needs the log; the cursor is stored for statistics, no writer looks at it.

use super::{Look, Next, Reader};
use crate::ring::lossy::{LossyNext, LossyReader};
use crate::ring::record::{Kind, Record};
use crate::ring::sync::Ordering::Relaxed;
use crate::ring::{Corrupt, FrameCopy};
use crate::segment::{Memory, MemoryMut};

pub(super) struct Ungated<M> {
    lossy: LossyReader<M>,
    /// The last frame that was copied; grows to the largest.
    frame: FrameCopy,
}

impl<M> Ungated<M> {
    pub(super) fn frame(&self) -> &[u8] {
        &self.frame
    }
}

impl<M: Memory + Clone, C: MemoryMut> Reader<M, C> {
    /// The same without a gate; see [`Reader::lose_gate`].
    pub fn ungated(mut self) -> Self {
        self.lose_gate();
        self
    }

    /// From now on to be read with [`Reader::next_ungated`] only. Of its frames there are copies, and none can be lent. The
    /// one in hand is released.
    pub fn lose_gate(&mut self) {
        self.release();
        self.expects_blob = false;
        let log = self.log.clone();
        let lossy = LossyReader::new(log, self.layout, self.number, self.position, self.expected);
        self.ungated = Some(Box::new(Ungated { lossy, frame: FrameCopy::default() }));
    }
}

impl<M: Memory, C: MemoryMut> Reader<M, C> {
    /// Number of the record that is due next, if it is known.
    pub fn expected(&self) -> Option<u64> {
        self.expected
    }

    /// Whether records were overwritten of which nothing has told: how many is not known.
    pub fn is_overtaken(&self) -> bool {
        self.ungated.as_ref().is_some_and(|ungated| ungated.lossy.is_overtaken())
    }

    /// The record that is due has this number: what the writer said of that does not count. To be called before the
    /// first look.
    pub fn expect(&mut self, sequence: u64) {
        self.expected = Some(sequence);
        if let Some(ungated) = &mut self.ungated {
            ungated.lossy.expect(sequence);
        }
    }

    /// As of a reader that was not told which number is due.
    #[cfg(test)]
    pub fn expect_any(&mut self) {
        self.expected = None;
    }

    /// [`Reader::look`] without a gate.
    #[cold]
    pub fn look_ungated(&mut self) -> Look {
        match self.next_ungated() {
            Ok(Next::Empty) => Look::Empty,
            Ok(Next::Record(_)) => Look::Record,
            other => self.set_aside(other),
        }
    }

    /// [`Reader::next`] without a gate. What was lost counts as dropped.
    ///
    /// # Errors
    /// [`Corrupt`]: the writer broke the protocol; this reader is of no more use.
    #[cold]
    pub fn next_ungated(&mut self) -> Result<Next, Corrupt> {
        self.release();
        let Some(Ungated { lossy, frame }) = self.ungated.as_deref_mut() else { return self.next() };
        lossy.end_at(self.until);
        if let Some(blobs) = &mut self.blobs {
            blobs.awaited = false; // it may have been overtaken meanwhile
        }
        let mut found = lossy.next_of(frame, self.blobs.as_deref_mut())?;
        if found == LossyNext::Empty && lossy.position() != self.position {
            // It was overtaken: how many are lost may be known already, and whoever asks for the last time has to know.
            found = lossy.next_of(frame, self.blobs.as_deref_mut())?;
        }
        let (position, expected, len) = (lossy.position(), lossy.expected(), frame.len() as u32);
        // Nothing is behind: `pass` and `flush` store no cursor, and wake no writer.
        (self.position, self.tail, self.stored, self.fenced) = (position, position, position, position);
        self.expected = expected;
        self.cursors.store(self.cursor_at, position, Relaxed);
        Ok(match found {
            LossyNext::Empty => Next::Empty,
            LossyNext::Lagged(missed) => Next::Lagged(missed),
            LossyNext::Closed(successor) => Next::Closed(successor),
            LossyNext::Frame(sequence) => {
                // Not in the log, as one in a blob.
                let record = Record { kind: Kind::Blob, frame: position, len, sequence };
                self.in_hand = Some((position, record));
                Next::Record(record)
            }
        })
    }
}
