//! Private copies of frames.

use std::ops::Deref;

use super::layout::CACHE_LINE;

/// A private copy of a frame, used again for others. It stands as the frame did in its log or blob: what is aligned there,
/// to a cache line at most, is aligned here.
#[derive(Debug, Default)]
pub struct FrameCopy {
    memory: Vec<u8>,
    start: usize,
}

impl FrameCopy {
    /// Room for a frame of `len` bytes, zeros so far, of which the original is at this offset of memory that begins aligned;
    /// `None` where the process has no memory for it: its writer has said how long it is.
    pub(super) fn room(&mut self, at: usize, len: usize) -> Option<&mut [u8]> {
        self.start = 0;
        self.memory.clear();
        self.memory.try_reserve_exact(CACHE_LINE + len).ok()?;
        self.start = at.wrapping_sub(self.memory.as_ptr().addr()) % CACHE_LINE;
        self.memory.resize(self.start + len, 0);
        Some(&mut self.memory[self.start..])
    }
}

impl Deref for FrameCopy {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_stands_as_the_frame_did() {
        let mut copy = FrameCopy::default();
        assert!(copy.is_empty());
        for len in [0, 1, 63, 64, 1000, 10] {
            for at in [0, 1, 16, 63, 64, 4096 + 40] {
                copy.room(at, len).unwrap().fill(7);
                assert_eq!((copy.len(), copy.as_ptr().addr() % CACHE_LINE), (len, at % CACHE_LINE));
                assert!(copy.iter().all(|byte| *byte == 7));
                assert!(copy.room(at, len).unwrap().iter().all(|byte| *byte == 0));
            }
        }
        assert!(copy.room(0, 1 << 56).is_none() && copy.is_empty());
    }
}
