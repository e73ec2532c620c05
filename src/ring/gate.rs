//! Gates: the writer's private view of how far each reader has read.
//!
//! A gate stands at or before its reader's cursor, and the writer overwrites nothing from the lowest gate
//! on. Gates live in the writer's own memory; a reader's cursor only ever moves its own gate, forwards
//! and never past the tail, whatever the reader writes there.
//!
//! The table has two users: the control thread adds and removes gates, the publishing thread looks at
//! `generation` before each claim and copies the table when it changed.
//!
//! **A gate added while the writer runs** enters *unset*; then the generation is bumped, a SeqCst fence,
//! and the control thread sets the gate to the tail it reads now, unless the writer was first (both by
//! compare-exchange). With the fence that ends each publish this leaves at most one publish that has not
//! seen the gate and whose tail the control thread has not seen either: if the control thread's load of
//! the tail misses publish *k*, then *k*'s fence is the later one, and the load of the generation that
//! begins publish *k+1* sees the bump (as does the one before *k* looks for sleepers: a reader that was gated
//! while *k* was being written, found nothing and slept, is rung). That one publish claims at most L = capacity / 2 from the tail the
//! gate was set to, so it overwrites nothing from the gate on.
//!
//! Where a publish goes without a fence ([`Writer::biased`](super::Writer::biased)), the control thread has a
//! barrier run on all threads of the process instead. It falls somewhere into the publishing thread's program:
//! after a load of the generation that missed the bump, hence after the tail stored before that load, which
//! the control thread then sees; or before the load, which then sees the bump.

use super::layout::{LogLayout, MAY_PARK, TAIL};
use super::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use super::sync::{Arc, AtomicU64, Mutex, MutexGuard};
use super::{Corrupt, Ringer, holds};
use crate::segment::Memory;

/// A gate's position before anybody has set it.
const UNSET: u64 = u64::MAX;
/// The position of what is no gate: of a reader without one, which stands in no writer's way.
const NOWHERE: u64 = u64::MAX - 1;
/// Reader number 0 addresses every reader.
const FIRST_NUMBER: u32 = 1;

/// One reader of a log, as its writer sees it: one with a gate, or one that is only rung. `R` is the reader's segment, `T` what the layer above
/// keeps about it (its bell, its name).
pub struct Gate<R, T> {
    number: u16,
    /// Written by the publishing thread, and once by whoever sets it; read by the control thread.
    position: AtomicU64,
    /// Sequence number of the record at the position that the publishing thread tried to set.
    sequence: AtomicU64,
    /// The reader's first segment, which holds `parked`.
    pub parked: R,
    /// What the layer above keeps about the reader.
    pub info: T,
}

impl<R, T> Gate<R, T> {
    /// What the reader is called in `Record::addressee` and on the session; never reused within a log.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Everything before this position the reader has done with. Bytes, since the log began. Without a gate:
    /// beyond every position.
    pub fn position(&self) -> u64 {
        self.position.load(Relaxed)
    }

    /// Whether it is none: nothing is kept for its reader.
    pub fn is_ungated(&self) -> bool {
        self.position() == NOWHERE
    }

    /// The publishing thread sets an unset gate to its tail, and says which record is due there.
    fn set_by_writer(&self, tail: u64, sequence: u64) {
        if self.position.load(Relaxed) == UNSET {
            self.sequence.store(sequence, Relaxed); // seen by whoever finds the gate set: AcqRel below
            let _ = self.position.compare_exchange(UNSET, tail, AcqRel, Relaxed);
        }
    }

    /// The control thread sets an unset gate; position and sequence number it has now, whoever set it.
    fn set_by_control(&self, tail: u64, sequence: Option<u64>) -> (u64, Option<u64>) {
        match self.position.compare_exchange(UNSET, tail, AcqRel, Acquire) {
            Ok(_) => (tail, sequence),
            Err(position) => (position, Some(self.sequence.load(Relaxed))),
        }
    }
}

/// The sequence number that belongs to the published tail, for a writer that may drop messages: a late
/// reader has to know it to be told of the first drop. Both words are the writer's; `before` is stored
/// before the tail, `after` after it.
struct Numbering {
    before: AtomicU64,
    after: AtomicU64,
}

impl Numbering {
    /// Looks for a moment without a publish under way: a microsecond or so for a record of some KiB, whose lines may have to
    /// be waited for, so some ten of them.
    const TRIES: usize = if cfg!(loom) { 2 } else { 1000 };

    /// The published tail, and the number due there if it could be told.
    fn read(&self, log: &impl Memory) -> (u64, Option<u64>) {
        for _ in 0..Self::TRIES {
            let after = self.after.load(Acquire);
            // Not older than `after` (Acquire, pairs with the Release there); and if it is newer, then
            // `before` is seen newer too (Acquire, pairs with the Release of the tail).
            let tail = log.load(TAIL, Acquire);
            if self.before.load(Relaxed) == after {
                return (tail, Some(after));
            }
            std::hint::spin_loop();
        }
        (log.load(TAIL, Relaxed), None)
    }
}

/// Where a reader's cursor stands: segment and offset.
type CursorAt<R> = (R, usize);

struct Entry<R, T> {
    gate: Arc<Gate<R, T>>,
    /// `None` until the reader has named its cursor slot: the gate stands still.
    cursor: Option<CursorAt<R>>,
}

impl<R: Memory, T> Entry<R, T> {
    /// How far the reader is behind `tail`, by its cursor if that makes sense.
    fn lag(&self, tail: u64) -> u64 {
        let gate = self.gate.position();
        let cursor = self.cursor.as_ref().map(|(segment, offset)| segment.load(*offset, Relaxed));
        tail.saturating_sub(cursor.filter(|cursor| (gate..=tail).contains(cursor)).unwrap_or(gate))
    }
}

/// The gates of one log.
pub struct Gates<R, T> {
    table: Mutex<Table<R, T>>,
    generation: AtomicU64,
    numbering: Option<Numbering>,
}

struct Table<R, T> {
    entries: Vec<Entry<R, T>>,
    /// Above `u16::MAX` when all are given out.
    next_number: u32,
    halted: bool,
}

impl<R: Memory + Clone, T> Gates<R, T> {
    /// No gates: nothing holds the writer up.
    #[allow(clippy::new_without_default)] // made with its log, never by default
    pub fn new() -> Self {
        let table = Table { entries: Vec::new(), next_number: FIRST_NUMBER, halted: false };
        Self { table: Mutex::new(table), generation: AtomicU64::new(0), numbering: None }
    }

    /// The same for a log whose writer may drop messages ([`Writer::skip`](super::Writer::skip)): late readers
    /// learn which number is due, for two more stores a publish.
    pub fn numbered() -> Self {
        Self::numbered_from(0)
    }

    /// The same for a log that continues another: its first record has this number.
    pub fn numbered_from(sequence: u64) -> Self {
        let due = || AtomicU64::new(sequence);
        Self { numbering: Some(Numbering { before: due(), after: due() }), ..Self::new() }
    }

    /// The writer is about to publish up to (not including) this number.
    #[inline(always)]
    pub(super) fn numbering_before(&self, sequence: u64) {
        if let Some(numbering) = &self.numbering {
            numbering.before.store(sequence, Relaxed); // ordered by the Release store of the tail
        }
    }

    /// The writer has done so.
    #[inline(always)]
    pub(super) fn numbering_after(&self, sequence: u64) {
        if let Some(numbering) = &self.numbering {
            numbering.after.store(sequence, Release); // pairs with the Acquire in `Numbering::read`
        }
    }

    /// Adds a gate at position 0: only before the log's first publish.
    /// `None` if the log has given out all its 65 535 reader numbers.
    pub fn add_first(&self, parked: R, info: T) -> Option<Arc<Gate<R, T>>> {
        self.insert(0, parked, info)
    }

    /// Adds a gate while the writer may be publishing to `log`; returns it with its position and, where it
    /// can be told, the sequence number due there (always, but for a publish that takes very long, if the
    /// gates are [numbered](Gates::numbered)).
    /// `None` if the log has given out all its 65 535 reader numbers.
    ///
    /// `barrier` is a full memory barrier: of this thread if every publish of the log ends with a fence, of all
    /// threads of this process if its writer is [biased](super::Writer::biased).
    pub fn add_late(
        &self,
        log: &impl Memory,
        parked: R,
        info: T,
        barrier: impl FnOnce(),
    ) -> Option<LateGate<R, T>> {
        let gate = self.insert(UNSET, parked, info)?;
        barrier(); // pairs with the fence in `Writer::publish`, or stands for it; see the module's comment
        let (tail, due) = self.published(log);
        let (position, sequence) = gate.set_by_control(tail, due);
        Some(LateGate { gate, position, sequence })
    }

    /// Adds a reader without a gate, before the first publish or while the writer may be publishing: it is rung
    /// like all others, and delays nobody. Returns where it begins, as [`Gates::add_late`] does, with the same
    /// `barrier`.
    /// `None` if the log has given out all its 65 535 reader numbers.
    pub fn add_ungated(
        &self,
        log: &impl Memory,
        parked: R,
        info: T,
        barrier: impl FnOnce(),
    ) -> Option<LateGate<R, T>> {
        let gate = self.insert(NOWHERE, parked, info)?;
        barrier(); // as in `add_late`: a publish that the tail does not show finds the reader before it rings
        let (position, sequence) = self.published(log);
        Some(LateGate { gate, position, sequence })
    }

    /// Lets the gate follow the cursor at `offset` of `segment`. False if there is no such gate (any more).
    pub fn follow(&self, number: u16, segment: R, offset: usize) -> bool {
        let mut table = self.table.lock();
        let named = |entry: &&mut Entry<R, T>| entry.gate.number == number && !entry.gate.is_ungated();
        let Some(entry) = table.entries.iter_mut().find(named) else {
            return false;
        };
        entry.cursor = Some((segment, offset));
        self.bump(&table);
        true
    }

    /// Takes a gate away; the writer stops looking at the reader's segment before its next claim.
    pub fn remove(&self, number: u16) -> Option<Arc<Gate<R, T>>> {
        let mut table = self.table.lock();
        let index = table.entries.iter().position(|entry| entry.gate.number == number)?;
        let gate = table.entries.swap_remove(index).gate;
        self.bump(&table);
        Some(gate)
    }

    /// Keeps the writer from claiming anything more, for good. `barrier` is that of [`Gates::add_late`], for the same
    /// reason: a publish whose tail is not seen after this finds the word when it looks for sleepers, and says so.
    pub fn halt(&self, barrier: impl FnOnce()) {
        let mut table = self.table.lock();
        table.halted = true;
        self.bump(&table);
        drop(table);
        barrier();
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty)] // nobody asks
    pub fn len(&self) -> usize {
        self.table.lock().entries.len()
    }

    /// How far the slowest reader is behind `tail`, by the cursors as they are now: for statistics. Cursors
    /// that make no sense count as they last did.
    pub fn lag(&self, tail: u64) -> u64 {
        self.table.lock().entries.iter().map(|entry| entry.lag(tail)).max().unwrap_or(0)
    }

    /// The readers that are behind `tail`, and how far, as [`Gates::lag`] has it.
    pub fn behind(&self, tail: u64) -> Vec<(Arc<Gate<R, T>>, u64)> {
        let table = self.table.lock();
        let lags = table.entries.iter().map(|entry| (entry.gate.clone(), entry.lag(tail)));
        lags.filter(|(_, lag)| *lag > 0).collect()
    }

    fn insert(&self, position: u64, parked: R, info: T) -> Option<Arc<Gate<R, T>>> {
        let mut table = self.table.lock();
        let number = u16::try_from(table.next_number).ok()?;
        table.next_number += 1;
        let (position, sequence) = (AtomicU64::new(position), AtomicU64::new(0));
        let gate = Arc::new(Gate { number, position, sequence, parked, info });
        table.entries.push(Entry { gate: gate.clone(), cursor: None });
        self.bump(&table);
        Some(gate)
    }

    /// The published tail, and where it can be told the sequence number due there.
    fn published(&self, log: &impl Memory) -> (u64, Option<u64>) {
        match &self.numbering {
            Some(numbering) => numbering.read(log),
            None => (log.load(TAIL, Relaxed), None),
        }
    }

    /// Under the lock, so that whoever sees the new generation and locks finds the change.
    fn bump(&self, _table: &MutexGuard<'_, Table<R, T>>) {
        self.generation.store(self.generation.load(Relaxed) + 1, Relaxed);
    }
}

/// A gate that was added while the writer ran.
pub struct LateGate<R, T> {
    /// The gate.
    pub gate: Arc<Gate<R, T>>,
    /// Where it was set.
    pub position: u64,
    /// Sequence number of the next record there, where it could be told.
    pub sequence: Option<u64>,
}

/// The publishing thread's copy of the table.
pub(super) struct View<R, T> {
    generation: u64,
    readers: Vec<Seen<R, T>>,
    /// Numbers of readers that lost their gate: they may be a ring behind, and never get it back.
    lost: Vec<u16>,
    /// Blobs that readers held when the cursors were last looked at.
    held: Vec<u64>,
    /// Whether any reader has no gate, and may lose what was published last without seeing its number.
    has_ungated: bool,
    halted: bool,
}

/// One reader in the copy.
pub(super) struct Seen<R, T> {
    pub(super) gate: Arc<Gate<R, T>>,
    cursor: Option<CursorAt<R>>,
    pub(super) ringer: Ringer,
}

impl<R: Memory + Clone, T> View<R, T> {
    pub(super) fn new() -> Self {
        let (readers, lost, held) = (Vec::new(), Vec::new(), Vec::new());
        Self { generation: 0, readers, lost, held, has_ungated: false, halted: false }
    }

    /// Copies the table if it changed; true if so. `tail` is the published one, `sequence` the number due
    /// there: unset gates go there.
    #[inline(always)]
    pub(super) fn refresh(&mut self, gates: &Gates<R, T>, tail: u64, sequence: u64) -> bool {
        // Relaxed: what it announces is read under the lock; that it is seen in time, see the module.
        if gates.generation.load(Relaxed) == self.generation {
            return false;
        }
        self.copy(gates, tail, sequence);
        true
    }

    #[cold]
    fn copy(&mut self, gates: &Gates<R, T>, tail: u64, sequence: u64) {
        let table = gates.table.lock();
        self.generation = gates.generation.load(Relaxed);
        self.halted = table.halted;
        let before = std::mem::take(&mut self.readers);
        let lost = &self.lost;
        let kept = table.entries.iter().filter(|entry| !lost.contains(&entry.gate.number));
        self.readers.extend(kept.map(|entry| {
            entry.gate.set_by_writer(tail, sequence);
            let known = before.iter().find(|seen| seen.gate.number == entry.gate.number);
            Seen {
                gate: entry.gate.clone(),
                cursor: entry.cursor.clone(),
                ringer: known.map_or_else(Ringer::default, |seen| seen.ringer),
            }
        }));
        self.has_ungated = self.readers.iter().any(|seen| seen.gate.is_ungated());
    }

    /// Whether any reader has no gate.
    #[inline(always)]
    pub(super) fn has_ungated(&self) -> bool {
        self.has_ungated
    }

    /// Whether the writer is to claim nothing more.
    #[inline(always)]
    pub(super) fn is_halted(&self) -> bool {
        self.halted
    }

    /// Whether a publish has to be followed by a fence for any of them.
    #[inline(always)]
    pub(super) fn any_may_park(&self) -> bool {
        self.readers.iter().any(|seen| seen.gate.parked.load(MAY_PARK, Relaxed) != 0)
    }

    pub(super) fn readers(&self) -> &[Seen<R, T>] {
        &self.readers
    }

    pub(super) fn readers_mut(&mut self) -> &mut [Seen<R, T>] {
        &mut self.readers
    }

    /// Where the writer must stop: one capacity past the lowest gate. Without readers nothing stops it.
    pub(super) fn limit(&self, layout: LogLayout) -> u64 {
        self.lowest().saturating_add(layout.capacity())
    }

    /// Everything before every reader has done with, but for blobs that it holds; `u64::MAX` without readers.
    pub(super) fn lowest(&self) -> u64 {
        self.readers.iter().map(|seen| seen.gate.position()).min().unwrap_or(u64::MAX)
    }

    /// The first reader that holds any blob.
    pub(super) fn holder(&self) -> Option<&Gate<R, T>> {
        let holds = |seen: &&Seen<R, T>| held(&seen.cursor).next().is_some();
        self.readers.iter().find(holds).map(|seen| &*seen.gate)
    }

    /// Whether a reader holds this blob, as far as was seen with the cursors.
    pub(super) fn is_held(&self, blob: u64) -> bool {
        self.held.contains(&blob)
    }

    /// Looks which blobs readers hold: after [`View::advance`], since a hold is stored before the cursor passes the
    /// record that names the blob.
    pub(super) fn look_at_holds(&mut self) {
        let Self { readers, held: seen, .. } = self;
        seen.clear();
        seen.extend(readers.iter().flat_map(|reader| held(&reader.cursor)));
    }

    /// Moves every gate to its reader's cursor. Readers whose cursor is impossible lose their gate at
    /// once and are handed to `corrupt`: what they look at may be overwritten, which only harms them.
    pub(super) fn advance(&mut self, tail: u64, mut corrupt: impl FnMut(&Gate<R, T>, Corrupt)) {
        self.readers.retain(|seen| {
            let Some((segment, offset)) = &seen.cursor else { return true };
            // Acquire pairs with the Release store in `Reader::store_cursor`: the reader's loads of the
            // bytes before the cursor are over before this process overwrites them.
            let cursor = segment.load(*offset, Acquire);
            let gate = seen.gate.position();
            if (gate..=tail).contains(&cursor) {
                seen.gate.position.store(cursor, Release);
                true
            } else {
                corrupt(&seen.gate, Corrupt::Cursor { cursor, gate, tail });
                self.lost.push(seen.gate.number);
                false
            }
        });
    }
}

/// The blobs that the reader whose cursor this is holds.
fn held<R: Memory>(cursor: &Option<CursorAt<R>>) -> impl Iterator<Item = u64> {
    let entries = cursor.iter().flat_map(|(segment, offset)| {
        let first = offset + holds::FIRST;
        // Acquire pairs with the Release stores in `Holds`: of whoever is seen to hold it no more, the loads are over.
        (0..holds::ENTRIES).map(move |entry| segment.load(first + entry * 8, Acquire))
    });
    entries.filter(|blob| *blob != 0)
}
