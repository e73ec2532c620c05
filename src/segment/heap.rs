//! The same memory without the kernel: for tests, fuzzing, benchmarks and instruction counts.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::words::Words;
use super::{Memory, MemoryMut};

/// Zeroed private memory; clones are the same memory, so that a writer and readers of one process can
/// each hold it.
#[derive(Clone, Debug)]
pub struct Heap(Arc<Block>);

#[derive(Debug)]
struct Block {
    words: Words,
    start: NonNull<u8>,
    layout: Layout,
}

/// Two cache lines, which adjacent-line prefetching treats as one.
const ALIGN: usize = 128;

impl Heap {
    /// Allocates `len` zeroed bytes at an address that is a multiple of 128.
    ///
    /// # Panics
    /// If `len` is zero or no multiple of 8: it comes from the test that calls this.
    pub fn new(len: usize) -> Self {
        assert!(len > 0 && len.is_multiple_of(8), "{len} is no size for a segment");
        let layout = Layout::from_size_align(len, ALIGN).expect("a length below isize::MAX");
        // SAFETY: the layout has a size other than zero.
        let Some(start) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        // SAFETY: freshly allocated, aligned, writable, and freed only when `Block` is dropped, which
        // every user of `words` borrows through its `Heap`.
        let words = unsafe { Words::new(start, len) };
        Self(Arc::new(Block { words, start, layout }))
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated in `Heap::new` with this very layout, and freed here only.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

// SAFETY: the memory belongs to no thread; words are accessed atomically, and whoever asks for a slice
// promises (`Memory::slice`, `MemoryMut::slice_mut`) that nobody stores to it meanwhile.
unsafe impl Send for Block {}
// SAFETY: as for Send.
unsafe impl Sync for Block {}

impl Memory for Heap {
    #[inline(always)]
    fn size(&self) -> usize {
        self.0.words.len()
    }

    #[inline(always)]
    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.0.words.load(at, order)
    }

    #[inline(always)]
    fn copy(&self, at: usize, into: &mut [u8]) {
        self.0.words.copy(at, into);
    }

    #[inline(always)]
    unsafe fn slice(&self, at: usize, len: usize) -> &[u8] {
        // SAFETY: the memory lives as long as `self`; the caller keeps the writer away.
        unsafe { self.0.words.slice(at, len) }
    }
}

impl MemoryMut for Heap {
    #[inline(always)]
    fn store(&self, at: usize, value: u64, order: Ordering) {
        self.0.words.store(at, value, order);
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
        self.0.words.write(at, first, head, body, last);
    }

    #[inline(always)]
    unsafe fn slice_mut(&self, at: usize, len: usize) -> &mut [u8] {
        // SAFETY: the memory lives as long as `self` and is writable; the caller vouches for the rest.
        unsafe { self.0.words.slice_mut(at, len) }
    }
}
