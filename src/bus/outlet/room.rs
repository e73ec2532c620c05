//! What a port does while there is no room: its policy.

use std::time::{Duration, Instant};

use super::{Claimed, Outlet, Overflow, Want};
use crate::bus::error::PublishError;
use crate::ring;
use crate::wake::{Patience, Then};

impl Outlet {
    fn attempt(&mut self, want: Want) -> Result<bool, PublishError> {
        let claimed = match want {
            Want::Record(body) => self.writer.claim(body).is_ok(),
            Want::Blob(class) => self.try_large(class, true)?,
            Want::ReturnedBlob(class) => self.try_large(class, false)?,
        };
        if !claimed && self.writer.is_halted() {
            return Err(PublishError::Draining);
        }
        Ok(claimed)
    }

    #[cold]
    pub(super) fn claim_when_full(&mut self, want: Want) -> Result<Claimed, PublishError> {
        if self.writer.is_halted() {
            return Err(PublishError::Draining);
        }
        let start = Instant::now();
        let claimed = match self.config.overflow {
            Overflow::Block { timeout } => {
                let deadline = start.checked_add(timeout);
                let claimed = self.claim_returned(want, start, deadline)? || self.claim_by(want, deadline)?;
                self.shared.counters.blocked(start.elapsed());
                claimed
            }
            Overflow::Evict { timeout } => {
                let deadline = start.checked_add(timeout);
                let claimed = self.claim_returned(want, start, deadline)?
                    || self.claim_by(want, deadline)?
                    || self.claim_by_eviction(want)?;
                self.shared.counters.blocked(start.elapsed());
                claimed
            }
            Overflow::Fail => false,
            Overflow::DropNewest => {
                self.writer.skip();
                self.writer.ring(|_| true, |reader| reader.bell.ring());
                self.shared.counters.drop(1);
                tracing::debug!(topic = %self.shared.filter, "message dropped: the log is full");
                return Ok(Claimed::Dropped);
            }
        };
        if self.writer.has_corrupt() {
            self.report_corrupt();
        }
        if claimed { Ok(Claimed::Yes) } else { Err(self.full(start.elapsed())) }
    }

    /// Claims again and again until it goes or the deadline is over.
    pub(super) fn claim_by(&mut self, want: Want, deadline: Option<Instant>) -> Result<bool, PublishError> {
        let mut patience = Patience::new(self.config.wait, deadline);
        loop {
            match patience.next(&mut self.habit) {
                Then::Look => {}
                Then::GiveUp => return self.attempt(want),
                Then::Sleep(timeout) => {
                    self.shared.bell.drain();
                    self.writer.arm();
                    // Once more after arming: see `ring::waiter`.
                    let claimed = self.attempt(want);
                    // An error is the kernel's refusal to poll: look again, until the deadline.
                    let slept = !matches!(claimed, Ok(false)) || self.shared.bell.wait(timeout).is_ok();
                    self.writer.disarm();
                    if claimed? {
                        return Ok(true);
                    }
                    if slept {
                        patience.woke();
                    }
                }
            }
            if self.attempt(want)? {
                patience.found(&mut self.habit);
                return Ok(true);
            }
        }
    }

    pub(in crate::bus) fn full(&self, waited: Duration) -> PublishError {
        let tail = ring::layout::tail(&*self.shared.segment);
        let mut slowest = self.writer.slowest();
        if self.pool.has_held() && slowest.is_some_and(|gate| gate.position() == tail) {
            slowest = self.writer.holder().or(slowest);
        }
        let (reader, lag) = match slowest {
            Some(gate) => (gate.info.node.to_string(), tail.saturating_sub(gate.position())),
            None => ("that has just left".to_owned(), 0),
        };
        PublishError::Full { reader, lag: lag + self.pool.in_use(), waited }
    }
}
