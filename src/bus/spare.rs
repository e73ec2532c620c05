//! Small buffers that are used again: what a message's frame is copied to, out of its log.

use std::cell::Cell;
use std::io;
use std::ops::{Deref, DerefMut, RangeInclusive};

use crate::sys::memory;

/// What the payloads of loans are aligned to; and copies of payloads, since whoever reads bytes as numbers cannot know
/// whether these are in place.
pub(super) const ALIGN: usize = 64;

/// Bytes of the buffers that are kept.
const KEPT_LEN: RangeInclusive<usize> = 256..=4096;

thread_local! {
    /// The one that this thread gave back last.
    static KEPT: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// A private copy's memory. Dropped, it is kept for the next one of that thread if it is small.
#[derive(Debug, Default)]
pub(super) struct Spare(Box<[u8]>);

impl Spare {
    /// Room for `len` bytes, whatever is in it: zeros, or what was there before.
    #[inline]
    pub(super) fn of(len: usize) -> Self {
        if len <= *KEPT_LEN.end()
            && let Ok(Some(kept)) = KEPT.try_with(Cell::take) // not in a thread that ends
            && kept.len() >= len
        {
            return Self(kept);
        }
        Self::new(len)
    }

    #[cold]
    fn new(len: usize) -> Self {
        let len = if len > *KEPT_LEN.end() { len } else { len.next_power_of_two().max(*KEPT_LEN.start()) };
        Self(vec![0; len].into())
    }

    /// The same for what may be too much for this process.
    pub(super) fn of_any(len: usize) -> io::Result<Self> {
        if len <= *KEPT_LEN.end() { Ok(Self::of(len)) } else { Self::exactly(len) }
    }

    /// Room for `len` bytes, and no more: for what is kept for long.
    pub(super) fn exactly(len: usize) -> io::Result<Self> {
        Ok(Self(memory::zeroed(len)?.into()))
    }
}

/// Where in memory the first aligned byte is: that and `len` more need `len + ALIGN - 1` bytes.
#[inline]
pub(super) fn first_aligned(memory: &[u8]) -> usize {
    memory.as_ptr().addr().wrapping_neg() % ALIGN
}

impl Drop for Spare {
    #[inline]
    fn drop(&mut self) {
        if KEPT_LEN.contains(&self.0.len()) {
            let buffer = std::mem::take(&mut self.0);
            let _ = KEPT.try_with(|kept| kept.set(Some(buffer)));
        }
    }
}

impl Deref for Spare {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Spare {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_ones_are_used_again_and_others_are_not_kept() {
        let mut first = Spare::of(10);
        first[0] = 7;
        let at = first.as_ptr();
        drop(first);
        let (again, other) = (Spare::of(256), Spare::of(1));
        assert_eq!((again.as_ptr(), again[0]), (at, 7));
        assert_ne!(other.as_ptr(), at, "it is in use");
        drop(again);
        let large = Spare::of(*KEPT_LEN.end() + 1);
        assert_eq!(large.len(), *KEPT_LEN.end() + 1);
        drop((large, Spare::exactly(1), Spare::default()));
        assert!(Spare::of_any(1 << 56).is_err());
        assert_eq!(Spare::of(1).as_ptr(), at, "as if these had not been");
        assert_eq!(Spare::of(*KEPT_LEN.end()).len(), *KEPT_LEN.end());
        assert_eq!(Spare::of(0).len(), *KEPT_LEN.end(), "the last one that was given back");
    }

    #[test]
    fn there_is_room_for_aligned_bytes_wherever_the_memory_is() {
        let memory = [0; 3 * ALIGN];
        for at in 0..ALIGN {
            let part = &memory[at..at + ALIGN];
            let first = first_aligned(part);
            assert!(first < ALIGN && part[first..].as_ptr().addr().is_multiple_of(ALIGN));
        }
    }
}
