//! A peer's segment: counts what is loaded, refuses what lies outside, and may change at each load.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering::{self, Relaxed};

use ringbus::internals::segment::{Heap, Memory, MemoryMut};

use crate::random::Random;

/// What the peer writes into the word at this offset, which held this.
pub type Change = fn(&mut Random, usize, u64) -> u64;

#[derive(Clone)]
pub struct Peers(Rc<Inner>);

struct Inner {
    heap: Heap,
    size: Cell<usize>,
    loads: Cell<usize>,
    changing: RefCell<Option<(Random, Change)>>,
}

impl Peers {
    /// Of at most this size.
    pub fn new(most: usize) -> Self {
        let (size, loads, changing) = (Cell::new(most), Cell::new(0), RefCell::new(None));
        Self(Rc::new(Inner { heap: Heap::new(most), size, loads, changing }))
    }

    /// From here on the segment is this large.
    pub fn resize(&self, size: usize) {
        assert!(size <= self.0.heap.size());
        self.0.size.set(size);
    }

    /// From here on a word is often changed just before it is loaded; or not.
    pub fn change(&self, changing: Option<(Random, Change)>) {
        *self.0.changing.borrow_mut() = changing;
    }

    /// Words loaded since this was last asked.
    pub fn take_loads(&self) -> usize {
        self.0.loads.take()
    }

    pub fn set(&self, at: usize, word: u64) {
        self.0.heap.store(at, word, Relaxed);
    }

    pub fn word(&self, at: usize) -> u64 {
        self.0.heap.load(at, Relaxed)
    }
}

impl Memory for Peers {
    fn size(&self) -> usize {
        self.0.size.get()
    }

    fn load(&self, at: usize, _order: Ordering) -> u64 {
        assert!(at.is_multiple_of(8) && at < self.size(), "a load at {at} of {}", self.size());
        self.0.loads.set(self.0.loads.get() + 1);
        if let Some((random, change)) = &mut *self.0.changing.borrow_mut()
            && random.once_in(4)
        {
            let word = change(random, at, self.word(at));
            self.set(at, word);
        }
        self.word(at)
    }

    fn copy(&self, at: usize, into: &mut [u8]) {
        assert!(at <= self.size() && into.len() <= self.size() - at, "{} at {at}", into.len());
        self.0.loads.set(self.0.loads.get() + into.len() / 8);
        self.0.heap.copy(at, into);
    }

    unsafe fn slice(&self, at: usize, len: usize) -> &[u8] {
        assert!(at <= self.size() && len <= self.size() - at, "{len} at {at}");
        // SAFETY: whoever looks at a slice in these tests loads and sets nothing meanwhile.
        unsafe { self.0.heap.slice(at, len) }
    }
}
