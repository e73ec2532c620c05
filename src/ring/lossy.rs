//! A reader without a gate: it delays nobody, and what it reads may be overwritten under its eyes.
//!
//! The seqlock's discipline (H.-J. Boehm, "Can seqlocks get along with programming language memory
//! models?", MSPC 2012), with the tail as the version: copy with relaxed loads, Acquire fence, then load the
//! tail; the copy counts only if `tail + L ≤ position + capacity`. L, the most that one publish may claim,
//! covers the bytes that the writer may already be writing beyond the tail it has published.
//!
//! How many records it has lost it learns from the next record's number; if there is none yet, from `next_sequence`,
//! which a writer that knows of readers without gates stores with each tail ([`Gates::add_ungated`]).
//!
//! [`Gates::add_ungated`]: super::Gates::add_ungated

use super::blob::{NAME, Name};
use super::layout::{CLOSED, LogLayout, NEXT_SEQUENCE, OPEN, SUCCESSOR, TAIL};
use super::reader::{Blobs, Copied};
use super::record::{HEADER, Header, Kind};
use super::sync::Ordering::{Acquire, Relaxed};
use super::sync::fence;
use super::{Corrupt, FrameCopy};
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
    /// The writer closed the log and everything that is left of it was read. The successor's log id, or 0.
    Closed(u64),
}

/// A reader without a gate; `M` is the writer's log.
pub struct LossyReader<M> {
    log: M,
    layout: LogLayout,
    /// What the writer calls this reader, 0 if it does not know it; records for others are passed over.
    number: u16,
    position: u64,
    expected: Option<u64>,
    /// Nothing from here on is read.
    until: u64,
    /// It has been overtaken, and no number has shown since how many are lost.
    overtaken: bool,
}

/// The writer came too close; everything unread counts as overwritten.
struct Overrun;

impl<M: Memory> LossyReader<M> {
    /// A reader of what is published from now on.
    pub fn at_tail(log: M, layout: LogLayout) -> Self {
        let position = log.load(TAIL, Acquire) & !(HEADER - 1);
        Self::new(log, layout, 0, position, None)
    }

    /// A reader that begins at `position`, a multiple of [`HEADER`], where the record with this number is due.
    pub fn new(log: M, layout: LogLayout, number: u16, position: u64, expected: Option<u64>) -> Self {
        Self { log, layout, number, position, expected, until: u64::MAX, overtaken: false }
    }

    /// Where it stands, in bytes since the log began: moves with all that is published and looked at,
    /// whether it is read or has been overwritten.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Number of the record that is due next, if it is known.
    pub(super) fn expected(&self) -> Option<u64> {
        self.expected
    }

    /// Whether records are lost of which nothing has told.
    pub(super) fn is_overtaken(&self) -> bool {
        self.overtaken
    }

    pub(super) fn expect(&mut self, sequence: u64) {
        self.expected = Some(sequence);
    }

    /// Reads on to this position, and no further.
    pub(super) fn end_at(&mut self, until: u64) {
        self.until = until;
    }

    /// Copies the next frame into `frame` (replacing what it holds). One in a blob counts as lost.
    ///
    /// # Errors
    /// [`Corrupt`]: the writer broke the protocol.
    pub fn next(&mut self, frame: &mut FrameCopy) -> Result<LossyNext, Corrupt> {
        self.next_of(frame, None)
    }

    /// The same with frames in these blobs; `frame` grows to the largest.
    pub(super) fn next_of(
        &mut self,
        frame: &mut FrameCopy,
        mut blobs: Option<&mut Blobs<M>>,
    ) -> Result<LossyNext, Corrupt> {
        // In this order for the reasons given in `Reader::at_end`.
        let closed = self.log.load(CLOSED, Acquire);
        let next_sequence = self.log.load(NEXT_SEQUENCE, Acquire);
        let tail = self.load_tail(Acquire)?;
        let end = tail.min(self.until);
        if end < self.position {
            return Ok(LossyNext::Empty); // it went on without this reader
        }
        if self.is_overrun_at(tail) {
            return self.jump(); // and so the loop looks at less than a capacity, whatever `tail` says
        }
        while self.position != end {
            match self.record(frame, end, &mut blobs) {
                Ok(Ok(Some(found))) => return Ok(found),
                Ok(Ok(None)) => {}
                Ok(Err(Overrun)) => return self.jump(),
                Err(corrupt) => return Err(corrupt),
            }
        }
        if end != tail {
            return Ok(LossyNext::Empty);
        }
        match self.expected {
            Some(expected) if next_sequence > expected => {
                (self.expected, self.overtaken) = (Some(next_sequence), false);
                Ok(LossyNext::Lagged(next_sequence - expected))
            }
            _ if closed == OPEN => Ok(LossyNext::Empty),
            _ if closed == tail => Ok(LossyNext::Closed(self.log.load(SUCCESSOR, Relaxed))),
            _ => Err(Corrupt::Closed { closed, tail }),
        }
    }

    /// To the tail, not to the oldest record left: that one is the next to go.
    fn jump(&mut self) -> Result<LossyNext, Corrupt> {
        self.overtaken = true;
        self.position = self.load_tail(Acquire)?;
        Ok(LossyNext::Empty)
    }

    fn record(
        &mut self,
        frame: &mut FrameCopy,
        tail: u64,
        blobs: &mut Option<&mut Blobs<M>>,
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
        let contiguous = self.layout.contiguous(position);
        let fits = size <= contiguous && size <= tail.wrapping_sub(position);
        if !fits || (header.kind == Kind::Padding && size != contiguous) {
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
        let addressed = header.addressee == 0 || header.addressee == self.number;
        let body = at + HEADER as usize + usize::from(header.filler);
        let mut blob = None;
        if header.kind == Kind::Blob && addressed {
            if u64::from(header.len) != NAME || header.filler != 0 {
                return Err(refuse);
            }
            let name = Name::load(&self.log, body);
            if self.overrun()? {
                return Ok(Err(Overrun));
            }
            blob = blobs.as_mut().filter(|blobs| !blobs.has_lost(&name)).map(|blobs| (blobs, name));
            if blob.is_none() {
                self.position += size; // and the next number shows it
                return Ok(Ok(None));
            }
        }
        self.overtaken = false;
        if sequence > expected {
            self.expected = Some(sequence);
            return Ok(Ok(Some(LossyNext::Lagged(sequence - expected))));
        }
        if !addressed {
            self.expected = Some(sequence + 1);
            self.position += size;
            return Ok(Ok(None));
        }
        if let Some((blobs, name)) = blob {
            match blobs.copy(&name, position, frame)? {
                Copied::Frame => {}
                Copied::Awaited if self.until == u64::MAX => return Ok(Ok(Some(LossyNext::Empty))),
                Copied::Awaited | Copied::Lost => {
                    self.position += size;
                    return Ok(Ok(None));
                }
            }
        } else {
            let Some(room) = frame.room(body, header.len as usize) else {
                self.position += size; // and the next number shows it
                return Ok(Ok(None));
            };
            self.log.copy(body, room);
            if self.overrun()? {
                return Ok(Err(Overrun));
            }
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
