//! What a worker is at, for others to see and to cancel.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
#[cfg(feature = "tower")]
use std::task::Waker;

use parking_lot::Mutex;

/// Names a call within a server: the pair's number, and the client's for the call.
pub(super) type CallId = (u64, u64);

/// One worker.
#[derive(Default)]
pub(super) struct Slot {
    running: Mutex<Option<CallId>>,
    cancelled: AtomicBool,
    /// Calls begun.
    begun: AtomicU64,
    /// Of the future that handles the call, if one does.
    #[cfg(feature = "tower")]
    waker: Mutex<Option<Waker>>,
}

impl Slot {
    /// A call begins. Called before the call is taken out of sight of those who cancel.
    pub(super) fn begin(&self, call: CallId) {
        let mut running = self.running.lock();
        *running = Some(call);
        self.cancelled.store(false, Relaxed); // ordered by the lock, as is all of this
        self.begun.store(self.begun.load(Relaxed) + 1, Relaxed);
    }

    pub(super) fn end(&self) {
        *self.running.lock() = None;
    }

    /// Cancels the call if it is one of these.
    pub(super) fn cancel(&self, which: impl Fn(CallId) -> bool) -> bool {
        let running = self.running.lock();
        let hit = running.is_some_and(which);
        if hit {
            self.cancelled.store(true, Relaxed);
        }
        #[cfg(feature = "tower")]
        if hit {
            let waker = self.waker.lock().clone();
            drop(running);
            waker.into_iter().for_each(Waker::wake);
        }
        hit
    }

    /// Who is woken when the running call is cancelled: to be set before each look at whether it is, so that
    /// one of the two, under the waker's lock, sees the other.
    #[cfg(feature = "tower")]
    pub(super) fn wake_on_cancel(&self, waker: Option<&Waker>) {
        let mut kept = self.waker.lock();
        if !matches!((&*kept, waker), (Some(kept), Some(waker)) if kept.will_wake(waker)) {
            *kept = waker.cloned();
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    /// Whether a handler runs, and how many have begun so far.
    pub(super) fn look(&self) -> (bool, u64) {
        let running = self.running.lock();
        (running.is_some(), self.begun.load(Relaxed))
    }
}
