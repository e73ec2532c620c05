//! Layout version 1 of the two kinds of segment: an ABI, held by `docs/protocol.md`.
//!
//! ```text
//! log segment (written by one port)            cursor segment (written by one reading port)
//!     0  magic "RBUSLOG1"                          0  magic "RBUSCUR1"
//!     8  version u32, data offset u32              8  version u32, line bytes u32
//!    16  capacity                                 16  cursor slots
//!    24  log id                                   24  port id
//!    32  node id (16 bytes)                       32  node id (16 bytes)
//!    48  port id                                  48  index of this segment within its port
//!    56  reserved                                 56  reserved
//!    64  reserved                                 64  hold table: offset in a line, 72: entries (0 = none)
//!   128  tail          136  next_sequence        128  parked       136  may_park
//!   256  waiting                                 256  cursor 0      264  its holds
//!   384  closed        392  successor log id     384  cursor 1      392  its holds
//!   512  reserved                                  …
//!  4096  records                                       one 128-byte line a cursor
//! ```
//!
//! All words are little-endian `u64` unless said otherwise. Words that different processes poll stand on
//! lines of their own; 128 bytes, because adjacent 64-byte lines are prefetched in pairs.

use super::sync::Ordering::{Relaxed, SeqCst};
use super::sync::fence;
use super::{Corrupt, holds};
use crate::segment::{Memory, MemoryMut};

/// Bytes of a cache line, or a part of one: only hints depend on it.
pub(super) const CACHE_LINE: usize = 64;
/// How far ahead lines are asked for, by a writer and by a reader that is further behind: some five small records, which is
/// about how long a line takes from one processor to the other.
pub(super) const AHEAD: u64 = 512;

/// Version of both layouts; a segment of another version is refused.
pub const VERSION: u32 = 1;
/// Bytes between words that different processes poll.
pub const LINE: usize = 128;
/// Where records begin.
pub const DATA: usize = 4096;
/// Smallest capacity that a peer's log may have; the largest record is a quarter of it.
pub const MIN_CAPACITY: u64 = 4096;
/// Largest capacity: what a 32-bit record length times four can use.
pub const MAX_CAPACITY: u64 = 1 << 32;
/// `closed` of a log that is open.
pub const OPEN: u64 = u64::MAX;

/// Published end of the log.
pub const TAIL: usize = 128;
/// Sequence number after the last dropped message; of a closed log, after the last of all.
pub const NEXT_SEQUENCE: usize = 136;
/// Odd while the writer waits for room, or wants to know of each step for another reason.
pub const WAITING: usize = 256;
/// The final position, or [`OPEN`].
pub const CLOSED: usize = 384;
/// The log that continues a closed one, or 0.
pub const SUCCESSOR: usize = 392;

/// Odd while the reader sleeps.
pub const PARKED: usize = 128;
/// Whether writers have to fence before they look at [`PARKED`].
pub const MAY_PARK: usize = 136;
/// Where in a cursor's line the holds begin, then their number.
const HOLDS: usize = 64;
const HOLDS_PLACE: u64 = holds::FIRST as u64;
const HOLDS_ENTRIES: u64 = holds::ENTRIES as u64;
const FIRST_CURSOR: usize = 256;

const LOG_MAGIC: u64 = u64::from_le_bytes(*b"RBUSLOG1");
const CURSOR_MAGIC: u64 = u64::from_le_bytes(*b"RBUSCUR1");

const fn version_word(size: usize) -> u64 {
    VERSION as u64 | (size as u64) << 32
}

/// Who owns a segment: written once into its header, for people and for cross-checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogHeader {
    /// Number of the log within its node.
    pub log: u64,
    /// 128-bit id of the node.
    pub node: [u8; 16],
    /// Port that writes the log.
    pub port: u64,
}

/// The arithmetic of one log: every offset into its segment comes from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLayout {
    capacity: u64,
}

impl LogLayout {
    /// `capacity` in bytes: a power of two, at least 64.
    pub fn new(capacity: u64) -> Option<Self> {
        (capacity.is_power_of_two() && (64..=MAX_CAPACITY).contains(&capacity)).then_some(Self { capacity })
    }

    /// Size of the segment in bytes.
    pub fn segment_size(self) -> usize {
        DATA + self.capacity as usize
    }

    /// Bytes of the ring.
    pub fn capacity(self) -> u64 {
        self.capacity
    }

    /// Largest record (header, filler and frame) in bytes.
    pub fn largest_record(self) -> u64 {
        self.capacity / 4
    }

    /// L: the most that one publish may claim, padding included. A lossy reader keeps this far away from
    /// the bytes that the writer may be writing, and a gate added late is this far away from a writer
    /// that has not yet noticed it.
    pub fn largest_claim(self) -> u64 {
        self.capacity / 2
    }

    /// Offset in the segment of the byte at `position`.
    #[inline(always)]
    pub fn offset(self, position: u64) -> usize {
        DATA + (position & (self.capacity - 1)) as usize
    }

    /// Bytes from `position` to the end of the ring, where a record must end.
    #[inline(always)]
    pub fn contiguous(self, position: u64) -> u64 {
        self.capacity - (position & (self.capacity - 1))
    }

    /// Writes the header of a fresh log: before its fd is sent to anybody.
    pub fn initialise(self, log: &impl MemoryMut, header: &LogHeader) {
        let [low, high] = halves(header.node);
        for (at, word) in [
            (8, version_word(DATA)),
            (16, self.capacity),
            (24, header.log),
            (32, low),
            (40, high),
            (48, header.port),
            (CLOSED, OPEN),
            (0, LOG_MAGIC),
        ] {
            log.store(at, word, Relaxed);
        }
    }

    /// Reads the header of a peer's log.
    ///
    /// # Errors
    /// [`Corrupt::Header`] names the field that is not as this version writes it.
    pub fn check(log: &impl Memory) -> Result<(Self, LogHeader), Corrupt> {
        let refuse = |what| Corrupt::Header { what };
        if log.size() < DATA || log.load(0, Relaxed) != LOG_MAGIC {
            return Err(refuse("no log (magic)"));
        }
        if log.load(8, Relaxed) != version_word(DATA) {
            return Err(refuse("version or data offset"));
        }
        let layout = Self::new(log.load(16, Relaxed)).filter(|layout| layout.capacity >= MIN_CAPACITY);
        let layout = layout.ok_or(refuse("capacity is no power of two from 4 KiB to 4 GiB"))?;
        if layout.segment_size() != log.size() {
            return Err(refuse("capacity does not match the size of the segment"));
        }
        let node = joined(log.load(32, Relaxed), log.load(40, Relaxed));
        Ok((layout, LogHeader { log: log.load(24, Relaxed), node, port: log.load(48, Relaxed) }))
    }
}

/// A reading port's segment: `parked`, and a line for the cursor of each log it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CursorSegment {
    slots: u32,
}

impl CursorSegment {
    /// The layout that fills a segment of `size` bytes.
    pub fn of_size(size: usize) -> Self {
        Self { slots: ((size - FIRST_CURSOR) / LINE) as u32 }
    }

    /// How many cursors fit.
    pub fn slots(self) -> u32 {
        self.slots
    }

    /// Offset of a slot's cursor word; `None` if there is no such slot.
    pub fn cursor(self, slot: u32) -> Option<usize> {
        (slot < self.slots).then(|| FIRST_CURSOR + slot as usize * LINE)
    }

    /// Writes the header of the `index`-th segment of a port.
    pub fn initialise(self, segment: &impl MemoryMut, node: [u8; 16], port: u64, index: u32) {
        let [low, high] = halves(node);
        for (at, word) in [
            (8, version_word(LINE)),
            (16, u64::from(self.slots)),
            (24, port),
            (32, low),
            (40, high),
            (48, u64::from(index)),
            (HOLDS, HOLDS_PLACE),
            (HOLDS + 8, HOLDS_ENTRIES),
            // Writers fence after each publish until the reader says otherwise (see `waiter::Bias`).
            (MAY_PARK, 1),
            (0, CURSOR_MAGIC),
        ] {
            segment.store(at, word, Relaxed);
        }
    }

    /// Reads the header of a peer's cursor segment.
    ///
    /// # Errors
    /// [`Corrupt::Header`] names the field that is not as this version writes it.
    pub fn check(segment: &impl Memory) -> Result<Self, Corrupt> {
        let refuse = |what| Corrupt::Header { what };
        if segment.size() < FIRST_CURSOR + LINE || segment.load(0, Relaxed) != CURSOR_MAGIC {
            return Err(refuse("no cursor segment (magic)"));
        }
        if segment.load(8, Relaxed) != version_word(LINE) {
            return Err(refuse("version or line size"));
        }
        let fits = Self::of_size(segment.size());
        if segment.load(16, Relaxed) != u64::from(fits.slots) {
            return Err(refuse("slots do not match the size of the segment"));
        }
        // A reader without holds leaves zeros in its lines, which are looked at all the same.
        if ![(0, 0), (HOLDS_PLACE, HOLDS_ENTRIES)]
            .contains(&(segment.load(HOLDS, Relaxed), segment.load(HOLDS + 8, Relaxed)))
        {
            return Err(refuse("hold table"));
        }
        Ok(fits)
    }
}

/// The published tail of a log as it is now, for statistics.
pub fn tail(log: &impl Memory) -> u64 {
    log.load(TAIL, Relaxed)
}

/// Has readers tell of each step from now on, as if the log's writer waited for room; to be called again as long as
/// that is wanted, of a log whose writer is [halted](super::Gates::halt): it may still take the word back from its last wait.
pub fn ask_for_cursors(log: &impl MemoryMut) {
    let waiting = log.load(WAITING, Relaxed);
    if waiting & 1 == 0 {
        log.store(WAITING, waiting + 1, Relaxed);
        fence(SeqCst); // pairs with the fence in `Reader::store_cursor`; the looks at the cursors come after it
    }
}

/// Whether a log is closed as it is now; its writer's datagrams of after that are ordered by the kernel.
pub fn is_closed(log: &impl Memory) -> bool {
    log.load(CLOSED, Relaxed) != OPEN
}

/// A reader's cursor as it is now, for statistics.
pub fn cursor(segment: &impl Memory, offset: usize) -> u64 {
    segment.load(offset, Relaxed)
}

pub(super) fn halves(id: [u8; 16]) -> [u64; 2] {
    let id = u128::from_le_bytes(id);
    [id as u64, (id >> 64) as u64]
}

pub(super) fn joined(low: u64, high: u64) -> [u8; 16] {
    (u128::from(low) | u128::from(high) << 64).to_le_bytes()
}
