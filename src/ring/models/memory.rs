//! Memory under loom: control words are loom atomics, record bytes are checked for races.

use loom::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc as StdArc;

use super::CAPACITY;
use crate::ring::holds::FIRST;
use crate::ring::layout::{CLOSED, DATA, NEXT_SEQUENCE, SUCCESSOR, TAIL, WAITING};
use crate::segment::{Memory, MemoryMut};

/// The control words of each kind of segment that the protocol uses; the cursor segment's cursor 0 and cursor 1 stand
/// where a log has `waiting` and `closed`, a blob's generation where it has the tail. Of cursor 0 there are the holds.
const WORDS: [usize; 7] =
    [TAIL, NEXT_SEQUENCE, WAITING, WAITING + FIRST, WAITING + FIRST + 8, CLOSED, SUCCESSOR];
pub(super) const CURSOR: usize = WAITING;

/// Memory under loom. `Strict` lets loom fail on any unordered access to record bytes; `Racy` makes
/// them relaxed atomics, for the reader whose races are by design.
#[derive(Clone)]
pub(super) struct Shared(StdArc<Inner>);

struct Inner {
    control: Vec<AtomicU64>,
    data: Data,
    capacity: usize,
}

enum Data {
    Strict { tracked: Vec<loom::cell::UnsafeCell<()>>, bytes: std::cell::UnsafeCell<Vec<u64>> },
    Racy(Vec<AtomicU64>),
}

// SAFETY: `bytes` is only touched after loom has checked the same access on `tracked`.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Shared {
    pub(super) fn new(racy: bool) -> Self {
        Self::sized(racy, CAPACITY)
    }

    /// With so many bytes of records.
    pub(super) fn sized(racy: bool, capacity: u64) -> Self {
        let words = capacity as usize / 8;
        let data = if racy {
            Data::Racy((0..words).map(|_| AtomicU64::new(0)).collect())
        } else {
            let tracked = (0..words).map(|_| loom::cell::UnsafeCell::new(())).collect();
            Data::Strict { tracked, bytes: std::cell::UnsafeCell::new(vec![0; words]) }
        };
        let control = WORDS.map(|at| AtomicU64::new(if at == CLOSED { u64::MAX } else { 0 })).into();
        Self(StdArc::new(Inner { control, data, capacity: capacity as usize }))
    }

    pub(super) fn control(&self, at: usize) -> Option<&AtomicU64> {
        WORDS.iter().position(|word| *word == at).map(|index| &self.0.control[index])
    }

    /// Tells loom of a read or write of these bytes; where they are.
    fn touch(&self, at: usize, len: usize, write: bool) -> *mut u8 {
        if len == 0 {
            return std::ptr::dangling_mut();
        }
        let Data::Strict { tracked, bytes } = &self.0.data else { panic!("racy bytes are not lent") };
        for cell in &tracked[(at - DATA) / 8..(at - DATA + len).div_ceil(8)] {
            if write { cell.with_mut(|_| ()) } else { cell.with(|_| ()) }
        }
        // SAFETY: the vector itself is never changed, only what is in it.
        let start = unsafe { (*bytes.get()).as_ptr() };
        start.cast::<u8>().cast_mut().wrapping_add(at - DATA)
    }
}

impl Memory for Shared {
    fn size(&self) -> usize {
        DATA + self.0.capacity
    }

    fn load(&self, at: usize, order: Ordering) -> u64 {
        match (self.control(at), &self.0.data) {
            (Some(word), _) => word.load(order),
            (None, Data::Racy(words)) => words[(at - DATA) / 8].load(order),
            // SAFETY: loom has checked the read.
            (None, Data::Strict { .. }) => unsafe { self.touch(at, 8, false).cast::<u64>().read() },
        }
    }

    fn copy(&self, at: usize, into: &mut [u8]) {
        for (chunk, at) in into.chunks_mut(8).zip((at..).step_by(8)) {
            chunk.copy_from_slice(&self.load(at, Ordering::Relaxed).to_le_bytes()[..chunk.len()]);
        }
    }

    unsafe fn slice(&self, at: usize, len: usize) -> &[u8] {
        // SAFETY: loom has checked the read; the range lies in the array.
        unsafe { std::slice::from_raw_parts(self.touch(at, len, false), len) }
    }
}

impl MemoryMut for Shared {
    fn store(&self, at: usize, value: u64, order: Ordering) {
        match (self.control(at), &self.0.data) {
            (Some(word), _) => word.store(value, order),
            (None, _) if at < DATA => {} // a header, which nobody reads
            (None, Data::Racy(words)) => words[(at - DATA) / 8].store(value, order),
            // SAFETY: loom has checked the write.
            (None, Data::Strict { .. }) => unsafe { self.touch(at, 8, true).cast::<u64>().write(value) },
        }
    }

    unsafe fn slice_mut(&self, at: usize, len: usize) -> &mut [u8] {
        // SAFETY: loom has checked the write; the range lies in the array.
        unsafe { std::slice::from_raw_parts_mut(self.touch(at, len, true), len) }
    }
}
