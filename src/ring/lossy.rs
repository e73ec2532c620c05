//! A reader without a gate: it delays nobody, and what it reads may be overwritten under its eyes.
//!
//! The seqlock's discipline (H.-J. Boehm, "Can seqlocks get along with programming language memory
//! models?", MSPC 2012), with the tail as the version: copy with relaxed loads, Acquire fence, then load the
//! tail; the copy counts only if `tail + L ≤ position + capacity`. L, the most that one publish may claim,
//! covers the bytes that the writer may already be writing beyond the tail it has published.

use super::Corrupt;
use super::layout::{CLOSED, LogLayout, NEXT_SEQUENCE, OPEN, TAIL};
use super::record::{HEADER, Header, Kind};
use super::sync::Ordering::{Acquire, Relaxed};
use super::sync::fence;
use crate::segment::Memory;

/// What an ungated reader finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossyNext {
    /// Nothing new.
    Empty,
    /// A frame was copied out; its sequence number.
    Frame(u64),
    /// This many records were overwritten or dropped before the next one.
    Lagged(u64),
    /// The writer closed the log and everything that is left of it was read.
    Closed,
}

/// A reader without a gate; `M` is the writer's log.
pub struct LossyReader<M> {
    log: M,
    layout: LogLayout,
    position: u64,
    expected: Option<u64>,
}

/// The writer came too close; everything unread counts as overwritten.
struct Overrun;

impl<M: Memory> LossyReader<M> {
    /// A reader of what is published from now on.
    pub fn at_tail(log: M, layout: LogLayout) -> Self {
        let position = log.load(TAIL, Acquire) & !(HEADER - 1);
        Self { log, layout, position, expected: None }
    }

    /// Where it stands, in bytes since the log began: moves with all that is published and looked at,
    /// whether it is read or has been overwritten.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Copies the next frame into `frame` (replacing what it holds).
    ///
    /// # Errors
    /// [`Corrupt`]: the writer broke the protocol.
    pub fn next(&mut self, frame: &mut Vec<u8>) -> Result<LossyNext, Corrupt> {
        // In this order for the reasons given in `Reader::at_end`.
        let closed = self.log.load(CLOSED, Acquire);
        let next_sequence = self.log.load(NEXT_SEQUENCE, Acquire);
        let tail = self.load_tail(Acquire)?;
        if self.is_overrun_at(tail) {
            return self.jump(); // and so the loop looks at less than a capacity, whatever `tail` says
        }
        while self.position != tail {
            match self.record(frame, tail) {
                Ok(Ok(Some(found))) => return Ok(found),
                Ok(Ok(None)) => {}
                Ok(Err(Overrun)) => return self.jump(),
                Err(corrupt) => return Err(corrupt),
            }
        }
        match self.expected {
            Some(expected) if next_sequence > expected => {
                self.expected = Some(next_sequence);
                Ok(LossyNext::Lagged(next_sequence - expected))
            }
            _ if closed == OPEN => Ok(LossyNext::Empty),
            _ if closed == tail => Ok(LossyNext::Closed),
            _ => Err(Corrupt::Closed { closed, tail }),
        }
    }

    /// To the tail, not to the oldest record left: that one is the next to go.
    fn jump(&mut self) -> Result<LossyNext, Corrupt> {
        self.position = self.load_tail(Acquire)?;
        Ok(LossyNext::Empty)
    }

    fn record(
        &mut self,
        frame: &mut Vec<u8>,
        tail: u64,
    ) -> Result<Result<Option<LossyNext>, Overrun>, Corrupt> {
        let position = self.position;
        let at = self.layout.offset(position);
        let word = self.log.load(at, Relaxed);
        let sequence = self.log.load(at + 8, Relaxed);
        if self.overrun()? {
            return Ok(Err(Overrun));
        }
        // The words were the record's: what is wrong with them now is the writer's doing.
        let refuse = Corrupt::Record { position, word };
        let header = Header::unpack(word).ok_or(refuse)?;
        let size = header.size();
        if size > self.layout.contiguous(position) || size > tail.wrapping_sub(position) {
            return Err(refuse);
        }
        if header.kind == Kind::Padding {
            self.position += size;
            return Ok(Ok(None));
        }
        let expected = self.expected.unwrap_or(sequence);
        if sequence < expected || sequence == u64::MAX {
            return Err(Corrupt::Sequence { position, sequence, expected });
        }
        if sequence > expected {
            self.expected = Some(sequence);
            return Ok(Ok(Some(LossyNext::Lagged(sequence - expected))));
        }
        if header.kind == Kind::Blob || header.addressee != 0 {
            // A blob it cannot look at is a loss, which the next number shows; a record for another is none.
            if header.addressee != 0 {
                self.expected = Some(sequence + 1);
            }
            self.position += size;
            return Ok(Ok(None));
        }
        frame.clear();
        frame.resize(header.len as usize, 0);
        self.log.copy(at + HEADER as usize + usize::from(header.filler), frame);
        if self.overrun()? {
            return Ok(Err(Overrun));
        }
        self.position += size;
        self.expected = Some(sequence + 1);
        Ok(Ok(Some(LossyNext::Frame(sequence))))
    }

    /// True if bytes loaded from `position` on before this call may have been overwritten meanwhile.
    fn overrun(&self) -> Result<bool, Corrupt> {
        // Pairs with the Release fence in `Writer::begin`: if a load before this fence saw a byte of a
        // later record, the load of the tail below sees the tail that record was claimed at.
        fence(Acquire);
        Ok(self.is_overrun_at(self.load_tail(Relaxed)?))
    }

    /// `tail` is at or after the position.
    fn is_overrun_at(&self, tail: u64) -> bool {
        tail - self.position > self.layout.capacity() - self.layout.largest_claim()
    }

    fn load_tail(&self, order: super::sync::Ordering) -> Result<u64, Corrupt> {
        let tail = self.log.load(TAIL, order);
        let (position, capacity) = (self.position, self.layout.capacity());
        if tail < position || !tail.is_multiple_of(HEADER) || tail > u64::MAX / 2 {
            return Err(Corrupt::Tail { tail, position, capacity });
        }
        Ok(tail)
    }
}
