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

use super::layout::MAY_PARK;
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

/// A reader's promise not to park, for which its writers leave out the fence after each publish.
///
/// The reader publishes `may_park = 0`; a writer loads it after each tail it stores, in program order. To take
/// the promise back the reader stores 1, has a full barrier run on all writers' processors
/// (`membarrier(2)`, global expedited), and then parks as above. The barrier falls somewhere into each writer's
/// program: after a load that saw 0, hence after the tail before it, which is then visible to the reader's
/// look; or before the load, which then sees 1, and the writer fences. (D. Dice, M. Moir, W. Scherer, "Quickly
/// Reacquirable Locks", 2003, call such a protocol biased.)
#[derive(Debug, Default)]
pub struct Bias {
    promised: bool,
}

impl Bias {
    /// Promises not to park. The caller is not armed.
    pub fn promise(&mut self, own: &impl MemoryMut) {
        self.promised = true;
        own.store(MAY_PARK, 0, Relaxed);
    }

    /// Takes the promise back, if there is one; to be called before [`Waiter::arm`]. `barrier` runs a full
    /// barrier on every running thread of the processes that write the reader's logs.
    #[inline]
    pub fn withdraw(&mut self, own: &impl MemoryMut, barrier: impl FnOnce()) {
        if self.promised {
            self.promised = false;
            own.store(MAY_PARK, 1, Relaxed);
            barrier();
        }
    }

    /// Whether the promise stands.
    pub fn is_promised(&self) -> bool {
        self.promised
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
