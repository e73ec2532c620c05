//! Memory that one process writes and others read: sealed mappings, the same on the heap, and (feature
//! `pipe`) mappings of named files, which no seal holds.
//!
//! The two traits are all that the ring knows of its storage, so that the very same lines run over a
//! sealed mapping, over the heap (tests, fuzzing, instruction counts) and over loom's atomics.

use std::sync::atomic::Ordering;

mod error;
mod heap;
#[cfg(feature = "pipe")]
mod named;
mod sealed;
mod stream;
pub(crate) mod text;
mod words;

pub use crate::sys::limits::page_size;
pub use error::SegmentError;
pub use heap::Heap;
#[cfg(feature = "pipe")]
pub use named::{Named, NamedError, NamedFile};
pub use sealed::{Pages, PeerSegment, Sealed};
pub use stream::{LONG, Via, copy, to_string, to_vec};

/// Bytes that exactly one process writes; this is the reading side.
///
/// Every method panics if the range leaves the segment: offsets are the caller's own arithmetic, never
/// a number taken from shared memory unchecked.
pub trait Memory {
    /// Size in bytes; a multiple of 8.
    fn size(&self) -> usize;

    /// Loads the 64-bit word at byte offset `at` (a multiple of 8) atomically.
    fn load(&self, at: usize, order: Ordering) -> u64;

    /// Copies bytes out with relaxed word loads: well-behaved while the writer writes them, though the
    /// copy may then be torn and must be validated afterwards. `at` need not be aligned.
    fn copy(&self, at: usize, into: &mut [u8]);

    /// Asks for the cache line of the byte at offset `at`, which is going to be read soon. Only a hint.
    #[inline(always)]
    fn prefetch(&self, at: usize) {
        let _ = at;
    }

    /// Lends bytes in place.
    ///
    /// # Safety
    /// While the slice lives the writer must not store to this range: for a log, the range lies between
    /// the reader's gate and the published tail.
    unsafe fn slice(&self, at: usize, len: usize) -> &[u8];
}

/// The writing side: held by the one process that may store.
pub trait MemoryMut: Memory {
    /// Stores the 64-bit word at byte offset `at` (a multiple of 8) atomically.
    fn store(&self, at: usize, value: u64, order: Ordering);

    /// Asks for the cache line of the byte at offset `at`, which is going to be written soon. Only a hint.
    #[inline(always)]
    fn prefetch_write(&self, at: usize) {
        let _ = at;
    }

    /// Says of the cache line of the byte at offset `at` that it has been written, and is going to be read by others.
    /// Only a hint.
    #[inline(always)]
    fn give_away(&self, at: usize) {
        let _ = at;
    }

    /// Stores two words from offset `at` (a multiple of 8) on, then bytes, `head` and `body`, word by word in ascending
    /// order; the rest of the last word becomes zero. Behind them all, with Release, a word elsewhere: its offset and value.
    #[inline(always)]
    fn write<const HEAD: usize>(
        &self,
        at: usize,
        first: &[u64; 2],
        head: &[u8; HEAD],
        body: &[u8],
        last: Option<(usize, u64)>,
    ) {
        join(first, head, body, |offset, word| self.store(at + offset, word, Ordering::Relaxed));
        if let Some((at, word)) = last {
            self.store(at, word, Ordering::Release); // pairs with the Acquire load of whoever follows this word
        }
    }

    /// Lends bytes for writing.
    ///
    /// # Safety
    /// No other slice of this range lives in this process, and the range is not published: no reader
    /// that the protocol protects looks at it until a later Release store says so.
    #[allow(clippy::mut_from_ref)] // disjoint ranges of one mapping; the caller upholds the rest
    unsafe fn slice_mut(&self, at: usize, len: usize) -> &mut [u8];
}

/// Memory that several parts of a process hold: a log's gates its reader's segment, say.
impl<M: Memory> Memory for std::sync::Arc<M> {
    #[inline(always)]
    fn size(&self) -> usize {
        (**self).size()
    }

    #[inline(always)]
    fn load(&self, at: usize, order: Ordering) -> u64 {
        (**self).load(at, order)
    }

    #[inline(always)]
    fn copy(&self, at: usize, into: &mut [u8]) {
        (**self).copy(at, into);
    }

    #[inline(always)]
    fn prefetch(&self, at: usize) {
        (**self).prefetch(at);
    }

    #[inline(always)]
    unsafe fn slice(&self, at: usize, len: usize) -> &[u8] {
        // SAFETY: the caller's promise, passed on.
        unsafe { (**self).slice(at, len) }
    }
}

impl<M: MemoryMut> MemoryMut for std::sync::Arc<M> {
    #[inline(always)]
    fn store(&self, at: usize, value: u64, order: Ordering) {
        (**self).store(at, value, order);
    }

    #[inline(always)]
    fn prefetch_write(&self, at: usize) {
        (**self).prefetch_write(at);
    }

    #[inline(always)]
    fn give_away(&self, at: usize) {
        (**self).give_away(at);
    }

    #[inline(always)]
    fn write<const HEAD: usize>(
        &self,
        at: usize,
        first: &[u64; 2],
        head: &[u8; HEAD],
        body: &[u8],
        last: Option<(usize, u64)>,
    ) {
        (**self).write(at, first, head, body, last);
    }

    #[inline(always)]
    unsafe fn slice_mut(&self, at: usize, len: usize) -> &mut [u8] {
        // SAFETY: the caller's promise, passed on.
        unsafe { (**self).slice_mut(at, len) }
    }
}

/// Two words, then those of `head` and `body` together, from registers: bytes that were joined in memory would be loaded
/// across the borders of the stores that put them there, for which a processor waits until all of its stores before are
/// done.
#[inline(always)]
fn join<const HEAD: usize>(
    first: &[u64; 2],
    head: &[u8; HEAD],
    body: &[u8],
    mut store: impl FnMut(usize, u64),
) {
    store(0, first[0]);
    store(8, first[1]);
    let mut at = 16;
    let mut store = |word: u64| {
        store(at, word.to_le());
        at += 8;
    };
    let (words, rest) = head.as_chunks::<8>();
    for word in words {
        store(u64::from_le_bytes(*word));
    }
    // What does not fill a word yet.
    let (mut left, bits) = (little(rest), 8 * rest.len());
    let (words, rest) = body.as_chunks::<8>();
    for word in words {
        let both = u128::from(u64::from_le_bytes(*word)) << bits | u128::from(left);
        store(both as u64);
        left = (both >> 64) as u64;
    }
    let both = u128::from(little(rest)) << bits | u128::from(left);
    let bytes = bits / 8 + rest.len();
    if bytes > 0 {
        store(both as u64);
    }
    if bytes > 8 {
        store((both >> 64) as u64);
    }
}

/// Less than eight bytes as a number: in registers, for the same reason.
#[inline(always)]
fn little(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        return u64::from(first) | u64::from(last) << (8 * (len - 4));
    }
    // Of three bytes each once, of two the last one twice, of one that one thrice.
    [0, len / 2, len.saturating_sub(1)]
        .into_iter()
        .filter_map(|at| Some(u64::from(*bytes.get(at)?) << (8 * at)))
        .fold(0, |number, byte| number | byte)
}

#[cfg(test)]
mod tests;
