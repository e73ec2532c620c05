//! What a worker is at, for others to see and to cancel.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::Release, Ordering::SeqCst};
#[cfg(feature = "tower")]
use std::task::Waker;

#[cfg(feature = "tower")]
use parking_lot::Mutex;

#[cfg(feature = "tower")]
use crate::bus::unwind;

/// Names a call within a server: the pair's number, and the client's for the call.
pub(super) type CallId = (u64, u64);

/// One worker.
///
/// [`Slot::begin`] and [`Slot::cancel`] exclude each other: a call begins with the port's lock held or with the
/// queue's, and whoever cancels holds both. So all words but `runs` are Relaxed.
#[derive(Default)]
pub(super) struct Slot {
    /// A handler runs.
    runs: AtomicBool,
    /// The call that runs, or that did last.
    pair: AtomicU64,
    id: AtomicU64,
    cancelled: AtomicBool,
    /// Calls begun.
    begun: AtomicU64,
    /// Of the future that handles the call, if one does.
    #[cfg(feature = "tower")]
    waker: Mutex<Option<Waker>>,
}

impl Slot {
    /// A call begins. Called before the call is taken out of sight of those who cancel, with the lock of what it
    /// is taken from.
    pub(super) fn begin(&self, (pair, id): CallId) {
        self.pair.store(pair, Relaxed);
        self.id.store(id, Relaxed);
        self.cancelled.store(false, Relaxed);
        self.begun.store(self.begun.load(Relaxed) + 1, Relaxed);
        self.runs.store(true, SeqCst); // pairs with the load in `look`: see `Rota`
    }

    pub(super) fn end(&self) {
        self.runs.store(false, Release); // pairs with `look`: an answer that has no room yet is seen before it
    }

    /// Cancels the call if it is one of these, with the locks of the port and of the queue. One that has just
    /// ended takes no notice.
    pub(super) fn cancel(&self, which: impl Fn(CallId) -> bool) {
        if self.runs.load(Relaxed) && which((self.pair.load(Relaxed), self.id.load(Relaxed))) {
            self.cancelled.store(true, Relaxed);
        }
    }

    /// Wakes the future of a call that was cancelled; called after [`Slot::cancel`], without locks.
    #[cfg(feature = "tower")]
    pub(super) fn wake_cancelled(&self) {
        if self.is_cancelled() {
            let waker = self.waker.lock().clone();
            waker.into_iter().for_each(unwind::wake); // a call that has begun meanwhile looks in vain
        }
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
        let runs = self.runs.load(SeqCst); // pairs with the store in `begin`
        (runs, self.begun.load(Relaxed))
    }
}
