//! The writing end of a log: claim, fill, commit, publish.

use super::gate::View;
use super::layout::{AHEAD, CACHE_LINE, CLOSED, LogLayout, NEXT_SEQUENCE, PARKED, SUCCESSOR, TAIL, WAITING};
use super::record::{self, HEADER, Header, Kind};
use super::sync::Ordering::{Relaxed, Release, SeqCst};
use super::sync::{Arc, compiler_fence, fence};
use super::{Corrupt, Gate, Gates, Waiter};
use crate::segment::{Memory, MemoryMut};

mod blobs;
mod succession;

pub use blobs::Naming;

/// Why a record could not be claimed. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimError {
    /// The record can never fit: `limit` is the largest body in bytes.
    TooLarge {
        /// Largest body, in bytes.
        limit: u64,
    },
    /// The slowest reader is in the way.
    Full,
}

/// The single writer of a log. `M` is the log's segment, `R` a reader's; `T` is kept with each gate.
///
/// Invariant: `gate ≤ tail ≤ limit ≤ lowest gate + capacity` for every reader in the view, so that the
/// bytes `tail..limit` belong to this writer alone: no gated reader looks at them until `TAIL` says so.
/// And `tail + claimed ≤ published + L` (`LogLayout::largest_claim`), however much is committed between two
/// publishes: late gates, readers without a gate and the waking of a waiting writer rely on it.
pub struct Writer<M, R, T> {
    log: M,
    layout: LogLayout,
    gates: Arc<Gates<R, T>>,
    view: View<R, T>,
    /// Some record has named a blob: what readers hold is looked at.
    names_blobs: bool,
    /// The private tail; equals the published one outside of `claim`…`publish`.
    tail: u64,
    /// The tail as the readers see it: gates are set to it, and cursors cannot be past it.
    published: u64,
    /// Sequence number due at the published tail.
    due: u64,
    /// First position that must not be written. Stale by design: cursors are only read when it is reached.
    limit: u64,
    /// Sequence number of the next record.
    sequence: u64,
    /// Start of the claimed record, and bytes claimed for it with its header; 0 = nothing, not even that.
    start: u64,
    claimed: u64,
    waiting: Waiter,
    /// Publishing may go without a fence while no reader may park; see [`super::waiter`].
    biased: bool,
    /// Whether a reader may sleep without having seen what was published last.
    may_sleep: bool,
    corrupt: Vec<(u16, Corrupt)>,
}

impl<M: MemoryMut, R: Memory + Clone, T> Writer<M, R, T> {
    /// A writer at position 0 of an initialised, unpublished log.
    pub fn new(log: M, layout: LogLayout, gates: Arc<Gates<R, T>>) -> Self {
        assert!(log.size() >= layout.segment_size(), "the segment was created for this layout");
        Self {
            log,
            layout,
            gates,
            view: View::new(),
            names_blobs: false,
            tail: 0,
            published: 0,
            due: 0,
            limit: u64::MAX,
            sequence: 0,
            start: 0,
            claimed: 0,
            waiting: Waiter::new(WAITING),
            biased: false,
            may_sleep: true,
            corrupt: Vec::new(),
        }
    }

    /// Publishes without a fence while every reader says that it does not park. Only for a process that other
    /// processes' barriers reach, and whose late gates are added with a barrier on all its threads.
    pub fn biased(mut self) -> Self {
        self.biased = true;
        self
    }

    /// Largest body (filler and frame) of one record, in bytes.
    pub fn largest_body(&self) -> u64 {
        self.layout.largest_record() - HEADER
    }

    /// Sequence number that the next record gets.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Claims room for a record with `body` bytes behind its header; [`Writer::body_mut`] lends it.
    ///
    /// # Errors
    /// [`ClaimError`]; nothing was written.
    #[inline]
    pub fn claim(&mut self, body: u64) -> Result<(), ClaimError> {
        if body > self.largest_body() {
            return Err(ClaimError::TooLarge { limit: self.largest_body() });
        }
        let size = record::size(body);
        let contiguous = self.layout.contiguous(self.tail);
        let padding = if size > contiguous { contiguous } else { 0 };
        self.begin(padding + size);
        if !self.make_room(padding + size) {
            return Err(ClaimError::Full);
        }
        if padding > 0 {
            let len = (padding - HEADER) as u32;
            self.put_header(self.tail, Header { len, kind: Kind::Padding, filler: 0, addressee: 0 });
        }
        self.start = self.tail + padding;
        self.claimed = size;
        Ok(())
    }

    /// Claims, fills and commits a record of one frame, its stores in one go: a reader that polls takes the
    /// record's lines away at the first of them, and gives each back for the next (hundreds of nanoseconds).
    ///
    /// # Errors
    /// Those of [`Writer::claim`].
    #[inline]
    pub fn append(&mut self, frame: &[u8]) -> Result<(), ClaimError> {
        self.claim(frame.len() as u64)?;
        let header = Header { len: frame.len() as u32, kind: Kind::Frame, filler: 0, addressee: 0 };
        self.log.write(self.layout.offset(self.start), &[header.pack(), self.sequence], &[], frame, None);
        self.finish(self.claimed);
        self.prefetch();
        Ok(())
    }

    /// [`Writer::append`] of a frame that is in two parts, and [`Writer::publish`]: the tail is stored right behind the
    /// record.
    ///
    /// # Errors
    /// Those of [`Writer::claim`].
    #[inline]
    pub fn publish_frame<const HEAD: usize>(
        &mut self,
        head: &[u8; HEAD],
        body: &[u8],
    ) -> Result<(), ClaimError> {
        self.claim((HEAD + body.len()) as u64)?;
        self.publish_claimed(0, head, body);
        self.prefetch();
        Ok(())
    }

    /// [`Writer::commit`] of a record that was made in private memory, `filler` bytes and the frame, and
    /// [`Writer::publish`]: stored in one go.
    #[inline(always)]
    pub fn publish_copy(&mut self, filler: u8, body: &[u8]) {
        let size = record::size(body.len() as u64);
        assert!(
            size <= self.claimed && body.len() >= usize::from(filler),
            "it stays within what was claimed"
        );
        self.claimed = size;
        self.publish_claimed(filler, &[], body);
    }

    /// Stores the claimed record of a frame, with the tail behind it.
    #[inline(always)]
    fn publish_claimed<const HEAD: usize>(&mut self, filler: u8, head: &[u8; HEAD], body: &[u8]) {
        let len = (HEAD + body.len() - usize::from(filler)) as u32;
        let first = [Header { len, kind: Kind::Frame, filler, addressee: 0 }.pack(), self.sequence];
        self.publish_record(self.layout.offset(self.start), &first, head, body);
    }

    /// The same of a record that is made already. What this type notes of it comes afterwards: see `segment::Words` for why
    /// nothing is to be stored in between.
    #[inline(always)]
    fn publish_record<const HEAD: usize>(
        &mut self,
        at: usize,
        first: &[u64; 2],
        head: &[u8; HEAD],
        body: &[u8],
    ) {
        self.gates.numbering_before(self.sequence + 1);
        let tail = (TAIL, self.start + self.claimed); // with Release, as in `store_tail`
        self.log.write(at, first, head, body, Some(tail));
        self.finish(self.claimed);
        self.stored_tail();
        self.look_for_sleepers();
    }

    /// The lines that are going to be written a few records on.
    #[inline(always)]
    fn prefetch(&self) {
        let ahead = self.layout.offset(self.tail + AHEAD);
        self.log.prefetch_write(ahead);
        self.log.prefetch_write(ahead + CACHE_LINE);
    }

    /// The record at `start` is there, of so many bytes with its header.
    #[inline(always)]
    fn finish(&mut self, size: u64) {
        self.tail = self.start + size;
        self.claimed = 0;
        self.sequence += 1;
    }

    /// Claims what is free in one piece at the tail, up to the largest record: for a frame whose size is
    /// known only once it is encoded. May be empty. A later [`Writer::claim`] replaces it.
    pub fn claim_window(&mut self) {
        let most = self.layout.largest_record().min(self.layout.contiguous(self.tail));
        self.begin(most);
        self.make_room(most); // less may still do
        // A hostile cursor need not be aligned; records are.
        let free = (self.limit - self.tail) & !(HEADER - 1);
        self.start = self.tail;
        self.claimed = most.min(free);
    }

    /// The claimed bytes behind the header.
    #[inline]
    pub fn body_mut(&mut self) -> &mut [u8] {
        let (at, len) = self.body_range();
        // SAFETY: `start + claimed ≤ limit` (claim), so by this type's invariant no gated reader looks at
        // the range, and `&mut self` makes the slice the only one.
        unsafe { self.log.slice_mut(at, len) }
    }

    /// The claimed bytes, to read back.
    pub fn body(&self) -> &[u8] {
        let (at, len) = self.body_range();
        // SAFETY: as in `body_mut`; `&self` keeps the writer from writing meanwhile.
        unsafe { self.log.slice(at, len) }
    }

    fn body_range(&self) -> (usize, usize) {
        (self.body_offset(), self.claimed.saturating_sub(HEADER) as usize)
    }

    /// Offset within the segment of the claimed body, for alignment.
    pub fn body_offset(&self) -> usize {
        self.layout.offset(self.start) + HEADER as usize
    }

    /// Finishes the claimed record: `filler` bytes, then `len` bytes of frame. Not yet visible.
    #[inline]
    pub fn commit(&mut self, kind: Kind, addressee: u16, filler: u8, len: usize) {
        let body = u64::from(filler) + len as u64;
        let size = record::size(body);
        assert!(size <= self.claimed, "commit stays within what was claimed");
        self.put_header(self.start, Header { len: len as u32, kind, filler, addressee });
        self.finish(size);
    }

    /// Makes everything committed visible. Look at [`Writer::ring`] afterwards.
    #[inline]
    pub fn publish(&mut self) {
        self.store_tail();
        self.look_for_sleepers();
    }

    /// After the tail was stored.
    #[inline(always)]
    fn look_for_sleepers(&mut self) {
        // The loads come after the tail in program order: whoever takes a reader's bias back relies on it.
        compiler_fence(SeqCst);
        self.may_sleep = !self.biased || self.view.any_may_park();
        if self.may_sleep {
            fence(SeqCst); // pairs with `Waiter::arm` (parked) and `Gates::add_late` (a late gate)
        }
    }

    /// Consumes a sequence number for a message that is dropped, and tells readers that have caught up.
    pub fn skip(&mut self) {
        self.store_tail(); // or readers would count what is committed and not published as dropped
        self.sequence += 1;
        self.due = self.sequence;
        self.gates.numbering_before(self.due);
        // Release: a reader that loads this before the tail finds every record before the drop.
        self.log.store(NEXT_SEQUENCE, self.sequence, Release);
        self.gates.numbering_after(self.due);
        self.may_sleep = true;
        fence(SeqCst); // as in `publish`
    }

    /// Says that nothing follows: counts as a publish.
    pub fn close(&mut self) {
        self.end(0);
    }

    fn end(&mut self, successor: u64) {
        self.store_tail(); // `closed` is no further than the tail
        // For readers without a gate that lose the last records: they learn how many.
        self.log.store(NEXT_SEQUENCE, self.sequence, Release);
        self.log.store(SUCCESSOR, successor, Relaxed); // seen by whoever sees the log closed
        self.log.store(CLOSED, self.tail, Release); // pairs with the Acquire loads in `Reader` and `LossyReader`
        self.may_sleep = true;
        fence(SeqCst); // as in `publish`
    }

    /// Calls `bell` for every reader that sleeps, has not been rung for this sleep, and is wanted; or,
    /// wanted or not, has left half the log unread: it is in the writer's way soon.
    ///
    /// False if the log was halted meanwhile ([`Gates::halt`]): whoever did may not have seen what is rung for.
    #[inline(always)]
    pub fn ring(&mut self, wanted: impl Fn(&T) -> bool, mut bell: impl FnMut(&T)) -> bool {
        // Again, after what is rung for was published: a reader that was gated since the claim has either
        // seen it before it slept, or is seen here. (That one may park, and `publish` did not know.)
        if self.refresh() {
            fence(SeqCst); // as in `publish`
        } else if !self.may_sleep {
            return !self.view.is_halted(); // each had promised not to, and looks after it has taken that back (see `waiter::Bias`)
        }
        let mut in_the_way = false;
        let half = self.layout.capacity() / 2;
        for seen in self.view.readers_mut() {
            if let Some(value) = seen.ringer.due(&seen.gate.parked, PARKED) {
                if wanted(&seen.gate.info) {
                    seen.ringer.rang(value);
                    bell(&seen.gate.info);
                } else {
                    in_the_way |= self.tail.saturating_sub(seen.gate.position()) >= half;
                }
            }
        }
        if in_the_way {
            self.ring_laggards(bell);
        }
        !self.view.is_halted()
    }

    /// The gates are stale by design: looks at the cursors before it wakes anybody who wants nothing.
    #[cold]
    fn ring_laggards(&mut self, mut bell: impl FnMut(&T)) {
        self.read_cursors(0);
        let half = self.layout.capacity() / 2;
        for seen in self.view.readers_mut() {
            if self.tail.saturating_sub(seen.gate.position()) >= half
                && let Some(value) = seen.ringer.due(&seen.gate.parked, PARKED)
            {
                seen.ringer.rang(value);
                bell(&seen.gate.info);
            }
        }
    }

    /// Announces that the writer sleeps until a cursor moves, its bell drained before. Then claim once
    /// more before sleeping.
    pub fn arm(&mut self) {
        self.waiting.arm(&self.log);
    }

    /// The writer no longer sleeps.
    pub fn disarm(&mut self) {
        self.waiting.disarm(&self.log);
    }

    /// The reader that is furthest behind, as far as the gates tell.
    pub fn slowest(&self) -> Option<&Gate<R, T>> {
        let gates = self.view.readers().iter().map(|seen| &*seen.gate);
        gates.filter(|gate| !gate.is_ungated()).min_by_key(|gate| gate.position())
    }

    /// Whether any reader has no gate: it may still look at what all others are done with.
    pub fn has_ungated(&self) -> bool {
        self.view.has_ungated()
    }

    /// Readers whose cursor was impossible, since the last call: reader number and what was seen.
    pub fn take_corrupt(&mut self) -> Vec<(u16, Corrupt)> {
        std::mem::take(&mut self.corrupt)
    }

    /// Whether nothing more can be claimed ([`Gates::halt`]); to be asked after a claim has failed.
    pub fn is_halted(&self) -> bool {
        self.view.is_halted()
    }

    /// Whether [`Writer::take_corrupt`] has anything.
    pub fn has_corrupt(&self) -> bool {
        !self.corrupt.is_empty()
    }

    #[inline(always)]
    fn store_tail(&mut self) {
        self.gates.numbering_before(self.sequence);
        // Release pairs with the Acquire load in `Reader::next`: whoever sees the tail sees the records.
        self.log.store(TAIL, self.tail, Release);
        self.stored_tail();
    }

    #[inline(always)]
    fn stored_tail(&mut self) {
        self.published = self.tail;
        self.due = self.sequence;
        self.gates.numbering_after(self.due);
        if self.view.has_ungated() {
            // A reader that the writer has overtaken learns from it how many records it has lost, the last ones
            // included. Release, as in `skip`: whoever loads this before the tail finds every record before it.
            self.log.store(NEXT_SEQUENCE, self.due, Release);
        }
    }

    /// Before `bytes` are claimed.
    #[inline(always)]
    fn begin(&mut self, bytes: u64) {
        if self.tail + bytes - self.published > self.layout.largest_claim() {
            self.publish(); // a batch; never the first claim since the last publish
        }
        // A lossy reader that sees any byte stored from here on also sees the tail published before, and
        // with it that this byte is within L of the writer. Pairs with the Acquire fence in `LossyReader`.
        // (The fence in `publish` does as much today; this one does not depend on it, and is free on x86.)
        fence(Release);
        self.refresh();
    }

    /// Takes over gates that came or went.
    #[inline(always)]
    fn refresh(&mut self) -> bool {
        let changed = self.view.refresh(&self.gates, self.published, self.due);
        if changed {
            self.limit = self.find_limit();
        }
        changed
    }

    fn find_limit(&self) -> u64 {
        if self.view.is_halted() { self.tail } else { self.view.limit(self.layout) }
    }

    /// True if `bytes` from the tail on are free, looking at the cursors only if the cached limit is used up.
    #[inline(always)]
    fn make_room(&mut self, bytes: u64) -> bool {
        self.tail + bytes <= self.limit || self.read_cursors(bytes)
    }

    #[cold]
    fn read_cursors(&mut self, bytes: u64) -> bool {
        let corrupt = &mut self.corrupt;
        self.view.advance(self.published, |gate, why| corrupt.push((gate.number(), why)));
        if self.names_blobs {
            self.view.look_at_holds();
        }
        self.limit = self.find_limit();
        self.tail + bytes <= self.limit
    }

    fn put_header(&mut self, position: u64, header: Header) {
        let at = self.layout.offset(position);
        self.log.store(at, header.pack(), Relaxed); // published by the Release store of the tail
        self.log.store(at + 8, self.sequence, Relaxed);
    }
}
