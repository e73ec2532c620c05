//! A call that is about to be made, or was: which way it goes, and for how long.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ClientShared;
use super::routes::Route;
use crate::sys::clock;

/// Where a request goes, and until when an answer is of use.
pub(super) struct Departure<'c> {
    pub(super) route: Arc<Route>,
    pub(super) call: Registered<'c>,
    pub(super) term: Term,
}

/// How long an answer is of use.
#[derive(Clone)]
pub(super) struct Term {
    timeout: Duration,
    /// For the server, on the clock that all processes of the host share; `None` also where that would not tell it.
    pub(super) deadline_ns: Option<u64>,
    /// For the caller.
    deadline: OnceCell<Option<Instant>>,
}

impl Term {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, deadline_ns: clock::after(timeout), deadline: OnceCell::new() }
    }

    /// When the caller gives up: counted from the first time that this is asked, which is before whatever takes long. Mostly
    /// the request is on its way then, and does not wait for a clock to be read.
    pub(super) fn deadline(&self) -> Option<Instant> {
        *self.deadline.get_or_init(|| Instant::now().checked_add(self.timeout))
    }
}

/// A call in the table; dropped, it is taken out, and an answer is of no use.
pub(super) struct Registered<'c> {
    pub(super) client: &'c ClientShared,
    pub(super) id: u64,
    pub(super) kept: bool,
}

impl Registered<'_> {
    /// Somebody else takes care of it.
    pub(super) fn keep(mut self) -> u64 {
        self.kept = true;
        self.id
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        // In a forked child another thread may hold the lock, for ever.
        if !self.kept && self.client.node.origin.is_here() {
            self.client.routes.calls.lock().forget(self.id);
        }
    }
}
