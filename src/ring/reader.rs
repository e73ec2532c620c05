//! The reading end of a log: a gated reader, told of every record.
//!
//! Nothing that a peer wrote is used before it was loaded once into a local and range-checked: whatever
//! the bytes, [`Reader::next`] returns a record that lies within the log, or [`Corrupt`], after looking at
//! no more than one capacity of the log.

use super::layout::{AHEAD, CACHE_LINE, CLOSED, LogLayout, NEXT_SEQUENCE, OPEN, SUCCESSOR, TAIL, WAITING};
use super::lent::{Lends, Lent};
use super::record::{HEADER, Header, Kind, Record};
use super::sync::Ordering::{Acquire, Relaxed, Release, SeqCst};
use super::sync::fence;
use super::{Corrupt, Ringer};
use crate::segment::{Memory, MemoryMut};

mod blobs;
mod look;
mod ungated;

pub(super) use blobs::{Blobs, Copied};
pub use look::{Look, Next};
use ungated::Ungated;

/// Bytes of [`Reader::start`].
pub const START: usize = 16;

/// A gated reader. `M` is the writer's log, `C` the reader's own cursor segment.
pub struct Reader<M, C> {
    log: M,
    layout: LogLayout,
    cursors: C,
    /// Offset of this log's cursor in `cursors`.
    cursor_at: usize,
    /// What the writer calls this reader; records for others are passed over.
    number: u16,
    /// Everything before is read, and done with but for what is lent.
    position: u64,
    /// The tail when last looked at.
    tail: u64,
    /// The cursor as stored.
    stored: u64,
    /// The cursor as last stored with a fence behind it. A writer that slept before may not have seen the
    /// stores since; so it, not `stored`, is what must stay less than capacity / 8 behind what is done with.
    fenced: u64,
    /// The record that was handed out and not released, and where it ends.
    in_hand: Option<(u64, Record)>,
    /// What the last look found, if it was neither a record nor nothing.
    aside: Option<Result<Next, Corrupt>>,
    lends: Lends,
    /// `None`: records that name blobs have no place in the log.
    blobs: Option<Box<Blobs<M>>>,
    /// Of what was there when the tail last moved, a record has named a blob.
    expects_blob: bool,
    /// `None`: it has a gate.
    ungated: Option<Box<Ungated<M>>>,
    /// Sequence number due next; `None` until the first record if the writer could not tell.
    expected: Option<u64>,
    /// Nothing from here on is read: the writer is gone, or not to be listened to any more.
    until: u64,
    ringer: Ringer,
    ring_due: bool,
}

impl<M: Memory, C: MemoryMut> Reader<M, C> {
    /// A reader that begins at `position`, as the writer's Attach said. Stores the cursor there.
    ///
    /// # Errors
    /// [`Corrupt::Tail`] if no reader can stand there.
    pub fn new(
        log: M,
        layout: LogLayout,
        cursors: C,
        cursor_at: usize,
        number: u16,
        position: u64,
        sequence: Option<u64>,
    ) -> Result<Self, Corrupt> {
        if !position.is_multiple_of(HEADER) || position > u64::MAX / 2 {
            return Err(Corrupt::Tail { tail: 0, position, capacity: layout.capacity() });
        }
        cursors.store(cursor_at, position, Release);
        Ok(Self {
            log,
            layout,
            cursors,
            cursor_at,
            number,
            position,
            tail: position,
            stored: position,
            fenced: position,
            in_hand: None,
            aside: None,
            lends: Lends::default(),
            blobs: None,
            expects_blob: false,
            ungated: None,
            expected: sequence,
            until: u64::MAX,
            ringer: Ringer::default(),
            ring_due: false,
        })
    }

    /// The next record for this reader, or why there is none. Releases the one in hand.
    ///
    /// # Errors
    /// [`Corrupt`]: the writer broke the protocol; this reader is of no more use.
    #[inline(always)]
    #[allow(clippy::should_implement_trait)] // no iterator: a record is lent until the next call
    pub fn next(&mut self) -> Result<Next, Corrupt> {
        let look = self.look();
        self.found(look)
    }

    /// [`Reader::next`] in a register.
    #[inline(always)]
    pub fn look(&mut self) -> Look {
        self.release();
        // One look at the tail a call, so that a writer that fills faster than padding and records for
        // others are passed over cannot hold the caller here.
        let mut looked = false;
        loop {
            if self.position == self.tail {
                if looked {
                    return Look::Empty;
                }
                looked = true;
                match self.load_tail() {
                    Ok(tail) => self.tail = tail,
                    Err(corrupt) => return self.set_aside(Err(corrupt)),
                }
                if self.tail == self.position
                    && let Some(look) = self.at_end()
                {
                    return look;
                }
                self.expects_blob = false;
            }
            if let Some(look) = self.record() {
                return look;
            }
        }
    }

    /// Whether no record has come since the last one was released: one load of what the writer writes. Does
    /// not tell drops or the end of the log, as [`Reader::next`] does.
    #[inline(always)]
    pub fn quiet(&self) -> bool {
        // Acquire pairs with the Release store in `Writer::publish`. A tail that makes no sense is not quiet.
        self.position == self.tail && self.in_hand.is_none() && self.log.load(TAIL, Acquire) == self.position
    }

    /// Whether the tail that was loaded last is beyond what was read: of records, or what is passed over on the way to them.
    #[inline(always)]
    pub fn has_more(&self) -> bool {
        self.position != self.tail
    }

    /// Stores the cursor if it is behind and no fence is due: so whoever asks how far a reader that has caught up has read
    /// need not wait for it to look more closely.
    #[inline(always)]
    pub fn tell(&mut self) {
        if self.stored == self.position || self.position - self.fenced >= self.layout.capacity() / 8 {
            return;
        }
        let done = self.done();
        self.tell_unfenced(done);
    }

    fn tell_unfenced(&mut self, done: u64) {
        if self.stored != done {
            // No fence, no look at `waiting`: `fenced` is less than capacity / 8 behind the tail, so it
            // cannot be what keeps a claim of at most capacity / 2 waiting.
            self.stored = done;
            self.cursors.store(self.cursor_at, done, Release); // pairs as in `store_cursor`
        }
    }

    /// Reads on to this position (or to the end of the record in hand), and no further.
    pub fn end_at(&mut self, until: u64) {
        let done = self.in_hand.map_or(self.position, |(end, _)| end);
        self.until = until.max(done);
        self.tail = self.tail.min(self.until);
        if let Some(blobs) = &mut self.blobs {
            blobs.awaited = false; // in vain
        }
    }

    /// Done with the record in hand: the writer may overwrite it once the cursor is stored.
    #[inline(always)]
    pub fn release(&mut self) {
        if let Some((end, record)) = self.in_hand.take() {
            self.pass(end);
            if record.kind == Kind::Blob {
                self.release_blob();
            }
        }
    }

    /// The record that was handed out and not released.
    #[inline(always)]
    pub fn in_hand(&self) -> Option<&Record> {
        self.in_hand.as_ref().map(|(_, record)| record)
    }

    /// Lends the frame of the record in hand, in place; empty if none is in hand.
    ///
    /// Safe as far as this process goes: the slice borrows the reader, and releasing needs it mutably.
    /// That the writer leaves the bytes alone is the protocol's promise, not the kernel's; for a writer that
    /// is not trusted to keep it (another user's, `Trust::Copy`) use [`Reader::copy`].
    #[inline(always)]
    pub fn frame(&self) -> &[u8] {
        let Some((_, record)) = &self.in_hand else { return &[] };
        if record.kind == Kind::Blob {
            return self.blob_frame(record.len as usize);
        }
        // SAFETY: the record was range-checked by `record`, and lies between gate and tail, where a
        // writer that keeps to the protocol does not store until the record is released (or, of one that lives and
        // has given this reader up, until then: docs/architecture.md, Death).
        unsafe { self.log.slice(self.layout.offset(record.frame), record.len as usize) }
    }

    /// Copies bytes of the frame of the record in hand, from `offset` on.
    ///
    /// # Panics
    /// If the range leaves the frame, or no record is in hand.
    #[inline(always)]
    pub fn copy(&self, offset: usize, into: &mut [u8]) {
        let (_, record) = self.in_hand.expect("a record is in hand");
        assert!(offset <= record.len as usize && into.len() <= record.len as usize - offset);
        if record.kind == Kind::Blob {
            return self.copy_blob(offset, into);
        }
        self.log.copy(self.layout.offset(record.frame) + offset, into);
    }

    /// The first bytes of the frame of the record in hand, copied in registers: what is stored by sixteens and then read
    /// by other lengths is waited for.
    ///
    /// # Panics
    /// If the frame is shorter, or no record is in hand.
    #[inline(always)]
    pub fn start(&self) -> [u8; START] {
        let (_, record) = self.in_hand.expect("a record is in hand");
        assert!(record.len as usize >= START);
        let mut start = [0; START];
        let at = self.layout.offset(record.frame);
        if record.kind == Kind::Blob || !at.is_multiple_of(8) {
            self.copy(0, &mut start);
            return start;
        }
        let (words, _) = start.as_chunks_mut();
        for (word, at) in words.iter_mut().zip([at, at + 8]) {
            *word = self.log.load(at, Relaxed).to_ne_bytes();
        }
        start
    }

    /// Stores the cursor if it is behind, and gives back what was held; before parking, and when the port closes.
    pub fn flush(&mut self) {
        let done = self.done();
        if self.settle_holds() || self.fenced != done {
            self.store_cursor(done);
        }
    }

    /// Whether records may be lent: false only if none is. Those given back since the reader last looked
    /// still count; [`Reader::lends_over`] looks.
    pub fn has_lent(&self) -> bool {
        !self.lends.is_empty() || self.blobs.as_ref().is_some_and(|blobs| !blobs.holds.is_empty())
    }

    /// Whether every record that was lent has been given back, and stores the cursor if it is behind: when
    /// this is true, the log may be detached. Look at [`Reader::take_ring_due`] afterwards.
    pub fn lends_over(&mut self) -> bool {
        self.flush();
        !self.has_lent()
    }

    /// True once after the writer was found asleep for room: ring its bell.
    #[inline(always)]
    pub fn take_ring_due(&mut self) -> bool {
        std::mem::take(&mut self.ring_due)
    }

    /// Whether anything is there to be told, to the caller or (room that lends took) to the writer, without
    /// taking it: the look after arming.
    pub fn is_ready(&self) -> bool {
        if let Some(blobs) = &self.blobs {
            if blobs.holds.is_due() {
                return true;
            }
            if blobs.awaited {
                return self.lends.is_due(); // and so nothing else, until the blob comes
            }
        }
        self.lends.is_due()
            || self.in_hand.map_or(self.position, |(end, _)| end) != self.log.load(TAIL, Acquire)
            || self.log.load(CLOSED, Acquire) != OPEN
            || self.expected.is_some_and(|expected| self.log.load(NEXT_SEQUENCE, Acquire) > expected)
    }

    /// Bytes published and not yet done with: from the oldest record that is lent or not released.
    pub fn lag(&self) -> u64 {
        let done = self.lends.oldest().unwrap_or(self.position);
        // Whatever the tail says, no more than the log holds.
        self.log.load(TAIL, Relaxed).saturating_sub(done).min(self.layout.capacity())
    }

    /// Caught up: dropped records, the end of the log, or nothing. `None` if records came meanwhile.
    fn at_end(&mut self) -> Option<Look> {
        let done = self.done();
        if self.settle_holds() {
            self.store_cursor(done);
        } else if self.position - self.fenced >= self.layout.capacity() / 8 {
            // Only lends hold it back that far: then any of them may be what the writer waits for.
            if self.fenced != done {
                self.store_cursor(done);
            }
        } else {
            self.tell_unfenced(done);
        }
        // In this order, each Acquire, pairing with the Release stores in `Writer`: whoever sees `closed`
        // sees the last drop; whoever sees a drop sees every record before it. So with the tail unmoved
        // all numbers below `next_sequence` that were not read were dropped.
        let closed = self.log.load(CLOSED, Acquire);
        let next_sequence = self.log.load(NEXT_SEQUENCE, Acquire);
        match self.load_tail() {
            Ok(tail) => self.tail = tail,
            Err(corrupt) => return Some(self.set_aside(Err(corrupt))),
        }
        let (tail, position) = (self.tail, self.position);
        if tail != position {
            return None;
        }
        if position == self.until && self.log.load(TAIL, Relaxed) != position {
            return Some(Look::Empty); // it went on without this reader
        }
        if let Some(expected) = self.expected
            && next_sequence > expected
        {
            self.expected = Some(next_sequence);
            return Some(self.set_aside(Ok(Next::Lagged(next_sequence - expected))));
        }
        Some(match closed {
            OPEN => Look::Empty,
            _ if closed == position => {
                let successor = self.log.load(SUCCESSOR, Relaxed);
                self.set_aside(Ok(Next::Closed(successor)))
            }
            _ => self.set_aside(Err(Corrupt::Closed { closed, tail })),
        })
    }

    /// The tail as it is now, as far as it counts: at most a capacity ahead of all that is not done with, or
    /// the reader keeps the one it had.
    #[inline(always)]
    fn load_tail(&self) -> Result<u64, Corrupt> {
        // Acquire pairs with the Release store in `Writer::publish`.
        let tail = self.log.load(TAIL, Acquire).min(self.until);
        let (position, capacity) = (self.position, self.layout.capacity());
        let held = self.lends.first().map_or(0, |first| position - first);
        let ahead = tail.wrapping_sub(position);
        if ahead > capacity - held || !tail.is_multiple_of(HEADER) {
            // Whichever it was too far from: what it overwrites, or what was read.
            let position = if ahead <= capacity { position - held } else { position };
            return Err(Corrupt::Tail { tail, position, capacity });
        }
        Ok(tail)
    }

    /// Takes the record at `position`, which is before the tail. `None` if it was not for this reader.
    #[inline(always)]
    fn record(&mut self) -> Option<Look> {
        let position = self.position;
        let at = self.layout.offset(position);
        let word = self.log.load(at, Relaxed); // ordered by the Acquire load of the tail
        let Some(header) = Header::unpack(word) else {
            return Some(self.set_aside(Err(Corrupt::Record { position, word })));
        };
        let size = header.size();
        let contiguous = self.layout.contiguous(position);
        let fits = size <= contiguous && size <= self.tail - position;
        if !fits || (header.kind == Kind::Padding && size != contiguous) {
            return Some(self.set_aside(Err(Corrupt::Record { position, word })));
        }
        if header.kind == Kind::Padding {
            self.pass(position + size);
            return None;
        }
        // Not near the tail: that takes the lines away while they are written.
        if self.tail - position > 2 * AHEAD {
            let ahead = self.layout.offset(position + AHEAD);
            self.log.prefetch(ahead);
            self.log.prefetch(ahead + CACHE_LINE);
        }
        let sequence = self.log.load(at + 8, Relaxed);
        let expected = self.expected.unwrap_or(sequence);
        if sequence != expected || sequence == u64::MAX {
            return Some(self.out_of_order(sequence, expected));
        }
        let addressed = header.addressee == 0 || header.addressee == self.number;
        if header.kind == Kind::Blob && addressed {
            return Some(self.blob_record(header, sequence, word));
        }
        self.expected = Some(sequence + 1);
        if !addressed {
            self.pass(position + size);
            return None;
        }
        let frame = position + HEADER + u64::from(header.filler);
        let record = Record { kind: header.kind, frame, len: header.len, sequence };
        self.in_hand = Some((position + size, record));
        Some(Look::Record)
    }

    /// Moves past a record; stores the cursor every capacity / 8, and at once while the writer waits.
    #[inline(always)]
    fn pass(&mut self, end: u64) {
        self.position = end;
        let due = end - self.fenced >= self.layout.capacity() / 8;
        if due || self.log.load(WAITING, Relaxed) & 1 == 1 {
            self.pass_on();
        }
    }

    /// The same as far as lends allow.
    fn pass_on(&mut self) {
        let done = self.done();
        let due = self.settle_holds() || done - self.fenced >= self.layout.capacity() / 8;
        if due || (done != self.fenced && self.log.load(WAITING, Relaxed) & 1 == 1) {
            self.store_cursor(done);
        }
    }

    /// Everything before is done with: the cursor as it may be stored. Never moves back.
    #[inline(always)]
    fn done(&mut self) -> u64 {
        self.lends.settle().unwrap_or(self.position)
    }

    fn store_cursor(&mut self, done: u64) {
        self.stored = done;
        self.fenced = done;
        // Release pairs with the Acquire load in `View::advance`: reads of what lies before are over, those of
        // borrowers too (`Lends::settle`).
        self.cursors.store(self.cursor_at, done, Release);
        fence(SeqCst); // pairs with `Waiter::arm` of the writer
        if let Some(value) = self.ringer.due(&self.log, WAITING) {
            self.ringer.rang(value);
            self.ring_due = true;
        }
    }
}

impl<M: Memory + Clone, C: MemoryMut> Reader<M, C> {
    /// Lends the frame of the record in hand beyond the next call: the reader reads on, at most one capacity,
    /// and its cursor stays at the oldest record that is lent. One in a blob keeps the blob only. `None` if no record
    /// is in hand, or too many blobs are kept: the record stays in hand. Costs one small allocation.
    ///
    /// **Giving back.** The drop of a [`Lent`] tells nobody. A reader that looks anyhow finds out; one that
    /// sleeps has to be woken by whoever dropped it (after a fence, if `parked` is odd: ring the port's
    /// bell), or the cursor stays and the writer goes without the room. A `Lent` that is never dropped stops
    /// the writer for good, and harms nobody else.
    ///
    /// **Detaching.** A `Lent` may outlive its reader: then nobody stores the cursor, and the bytes stay as long
    /// as the writer has the gate. Once a gate is removed, its bytes may be overwritten, and reading them is a
    /// data race. So the layer above keeps a log attached until [`Reader::lends_over`]; what a node's own end
    /// or its writer's takes away before must not be lent, or is to be accepted as a peer's promise is
    /// ([`Reader::frame`]).
    pub fn lend(&mut self) -> Option<Lent<M>> {
        let (end, record) = self.in_hand?;
        let lent = if record.kind == Kind::Blob {
            self.hold(record.len as usize)?
        } else {
            let at = self.layout.offset(record.frame);
            self.lends.lend(self.position, self.log.clone(), at, record.len as usize)
        };
        self.in_hand = None;
        self.pass(end);
        if record.kind == Kind::Blob {
            self.flush(); // as in `release_blob`
        }
        Some(lent)
    }
}
