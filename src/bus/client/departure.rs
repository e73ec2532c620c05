//! A call that is about to be made, or was: which way it goes, and for how long.

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
///
/// To read the clock takes a while, for which a request would wait. So a term of a second or more begins with the kernel's
/// last tick; the caller's own deadline is told when its request is on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Term {
    /// When it began, or up to `slack` earlier where the host keeps up.
    begun: u64,
    slack: u64,
    /// For the server, on the clock that all processes of the host share; `None`: never, or beyond what it tells.
    pub(super) deadline_ns: Option<u64>,
}

/// At most so long ago was the kernel's last tick (of a hundred a second).
const TICK: u64 = 10_000_000;

impl Term {
    #[inline]
    pub(super) fn new(timeout: Duration) -> Self {
        let is_far = timeout >= Duration::from_secs(1);
        let (begun, slack) = if is_far { (clock::ticked_ns(), TICK) } else { (clock::monotonic_ns(), 0) };
        let timeout = u64::try_from(timeout.as_nanos()).ok();
        Self { begun, slack, deadline_ns: timeout.and_then(|timeout| begun.checked_add(timeout)) }
    }

    /// When the caller gives up: not before its time, and at most a tick later, whenever this is asked.
    #[inline]
    pub(super) fn deadline(&self) -> Option<Instant> {
        let earliest = self.deadline_ns?;
        let later = match self.slack {
            0 => 0,
            slack => clock::monotonic_ns().saturating_sub(self.begun).min(slack),
        };
        Some(clock::instant_at(earliest.saturating_add(later)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_lasts_no_longer_though_it_takes_long_until_it_is_asked_for() {
        for timeout in [1, 999, 1000, 60_000].map(Duration::from_millis) {
            let before = Instant::now();
            let term = Term::new(timeout);
            let after = Instant::now();
            let early = term.deadline().expect("a deadline");
            std::thread::sleep(Duration::from_millis(30));
            let late = term.deadline().expect("a deadline");
            // Reading two clocks takes a moment; a host that stands still has its tick late, too.
            let moment = Duration::from_millis(if timeout.as_secs() == 0 { 1 } else { 500 });
            let tick = if timeout.as_secs() == 0 { Duration::ZERO } else { Duration::from_nanos(TICK) };
            assert!(before + timeout <= early + moment && early <= late, "{timeout:?}");
            assert!(late <= after + timeout + tick + Duration::from_millis(1), "{timeout:?}");
        }
        assert_eq!(Term::new(Duration::MAX).deadline(), None);
    }
}
