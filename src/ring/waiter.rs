//! Sleeping without missing the wake-up: the counter protocol of `parked` and `waiting`.
//!
//! Both words are counters in the sleeper's own segment, odd while it sleeps or is about to. Readers
//! sleep on `parked` until a log has a record; a blocked writer sleeps on `waiting` until a cursor moves.
//!
//! ```text
//!   sleeper                                other side
//!   drain bell                             make the condition true (store tail / cursor)
//!   store a fresh odd value                SeqCst fence
//!   SeqCst fence                           load the counter
//!   look at the condition once more        odd, and not the value last rung for → ring the bell
//!   false → sleep on the bell
//! ```
//!
//! This is Dekker's pattern: with a full fence between store and load on both sides, at least one side
//! sees the other's store; so either the sleeper sees the condition or it is rung. Without the fences both
//! loads may be served before both stores are visible (x86 store buffers), and the sleeper is lost.
//! The value last rung for spares a syscall a message while a woken sleeper has not yet run; it may be
//! compared because a value is never used for two sleeps.

use super::sync::Ordering::{Relaxed, SeqCst};
use super::sync::fence;
use crate::segment::{Memory, MemoryMut};

/// The sleeper's side: owns the counter at one offset of its own segment.
#[derive(Debug)]
pub struct Waiter {
    at: usize,
    value: u64,
}

impl Waiter {
    /// A waiter whose counter, zero so far, stands at this offset.
    pub fn new(at: usize) -> Self {
        Self { at, value: 0 }
    }

    /// Announces the sleep. The caller has drained its bell, and looks at its condition once more now.
    pub fn arm(&mut self, own: &impl MemoryMut) {
        self.value += if self.is_armed() { 2 } else { 1 };
        own.store(self.at, self.value, Relaxed);
        fence(SeqCst); // pairs with the fence in `Writer::publish` or `Reader::store_cursor`
    }

    /// Takes the announcement back: from here on nobody needs to ring.
    pub fn disarm(&mut self, own: &impl MemoryMut) {
        if self.is_armed() {
            self.value += 1;
            own.store(self.at, self.value, Relaxed);
        }
    }

    /// Whether a sleep is announced.
    pub fn is_armed(&self) -> bool {
        self.value & 1 == 1
    }
}

/// The other side: remembers which sleep it has rung for.
#[derive(Debug, Default, Clone, Copy)]
pub struct Ringer {
    rung: u64,
}

impl Ringer {
    /// The value to pass to [`Ringer::rang`] if the sleeper whose counter stands at `at` needs the bell.
    /// The caller has made the condition true and fenced.
    #[inline(always)]
    pub fn due(&self, peer: &impl Memory, at: usize) -> Option<u64> {
        let value = peer.load(at, Relaxed);
        (value & 1 == 1 && value != self.rung).then_some(value)
    }

    /// The bell was rung for this value.
    pub fn rang(&mut self, value: u64) {
        self.rung = value;
    }
}
