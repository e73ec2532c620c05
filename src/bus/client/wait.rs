//! Waiting for answers: many threads, one reading port.
//!
//! A thread that waits and finds the port free *leads*: it reads the answers, its own and others', and
//! sleeps on the port's bell when there are none. The others *follow*: they sleep until their own call is over
//! or the leader has left. So a lone caller reads its answer itself, without a hand-over; and a burst of
//! answers wakes each thread once.
//!
//! No wake-up is lost: a follower lists itself, and then tries to lead once more; a leader gives the port back,
//! and then looks at the list. Whichever of the two locks comes second sees the other. A leader may also look at the
//! list and give the port back before it lets go of the list's lock: whoever is listed later finds the port free.

use std::time::Instant;

use parking_lot::MutexGuard;

use super::calls::{Locked, Outcome};
use super::routes::Route;
use super::take::Found;
use super::{ClientShared, Receiver};
use crate::bus::status::Status;
use crate::wake::{Patience, Then, Wait};

/// Batches after which a leader that has not found its own looks at the time: what is found begins another wait, and that
/// does not look at first. A server may write answers to nobody for as long as it likes.
const BATCHES: u32 = 16;
/// Looks after which a leader that never sleeps wakes those who wait for room, to look for themselves.
const LOOKS: u32 = 256;

/// Whose answers a leader waits for.
#[derive(Clone, Copy)]
pub(super) enum Mine {
    /// The answer to this call, in place if it is `raw`.
    Call { id: u64, raw: bool },
    /// Those of all calls that tasks wait for.
    Tasks,
    /// None: for room in a log of requests, which the bell tells of.
    Room,
}

/// Why a leader stops.
pub(super) enum Led<'a> {
    /// The call is over, its outcome is there; the table comes along where it was looked at last.
    Over(Option<Locked<'a>>),
    /// The deadline, or nothing more to wait for.
    Done,
}

/// Hands the port to another thread when it is dropped, after the port was given back.
struct Leave<'c>(&'c ClientShared);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Nobody waits for room any more when it is dropped, whatever has ended that.
struct StopWaiting<'c>(&'c ClientShared, &'c Route);

impl Drop for StopWaiting<'_> {
    fn drop(&mut self) {
        self.0.stop_waiting(self.1);
    }
}

impl ClientShared {
    /// Waits until the call is over, for `outcome`. `None`: it was not in time, and the server was told.
    pub(super) fn wait(&self, id: u64, raw: bool, deadline: Option<Instant>, outcome: &mut Option<Outcome>) {
        self.wait_until(id, raw, deadline, outcome);
        if outcome.is_none() {
            *outcome = self.give_up(id);
        }
    }

    /// The same for as long. `None`: it is not over yet.
    #[inline]
    pub(super) fn wait_until(
        &self,
        id: u64,
        raw: bool,
        until: Option<Instant>,
        outcome: &mut Option<Outcome>,
    ) {
        loop {
            if let Some(mut receiver) = self.receiver.try_lock() {
                match self.lead(&mut receiver, Mine::Call { id, raw }, outcome, until, || true) {
                    Led::Over(table) => {
                        let table = table.unwrap_or_else(|| self.routes.calls.lock());
                        drop(receiver); // with the table locked
                        return self.hand_over(table);
                    }
                    Led::Done => break,
                }
            }
            *outcome = self.routes.calls.lock().take(id);
            if outcome.is_some() || !self.follow(Some(id), until) {
                break;
            }
        }
        self.leave();
    }

    /// Sleeps until it may be this thread's turn; false when the deadline is over.
    pub(super) fn follow(&self, id: Option<u64>, deadline: Option<Instant>) -> bool {
        if !self.routes.calls.lock().follow(id) {
            return true; // over: the caller finds it so
        }
        // Once more after being listed: the leader may just have left.
        if !self.receiver.is_locked() {
            self.routes.calls.lock().unfollow(id);
            return true;
        }
        let mut in_time = true;
        match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            Some(left) if left.is_zero() => in_time = false,
            Some(left) => std::thread::park_timeout(left),
            None => std::thread::park(),
        }
        self.routes.calls.lock().unfollow(id);
        in_time
    }

    /// Hands the port to another thread that waits, if nobody has it.
    pub(super) fn leave(&self) {
        self.hand_over(self.routes.calls.lock());
    }

    #[inline]
    fn hand_over(&self, mut table: Locked<'_>) {
        if !table.has_waiting() || self.receiver.is_locked() {
            return; // whoever has it comes here after giving it back
        }
        let (leader, cramped) = (table.next_leader(), table.take_cramped());
        drop(table);
        leader.into_iter().for_each(|thread| thread.unpark());
        cramped.into_iter().for_each(|wake| wake.wake());
    }

    /// Before the caller is told that its time is over: what has come meanwhile is read, of every server.
    #[cold]
    fn look_once_more<'a>(
        &'a self,
        receiver: &mut Receiver,
        mine: Mine,
        own: &mut Option<Outcome>,
    ) -> Led<'a> {
        for _ in 0..BATCHES {
            receiver.inlet.look_fully();
            let looked = receiver.inlet.next();
            if matches!(looked, Ok(None)) && !receiver.inlet.has_ended() {
                break;
            }
            match self.read(receiver, looked, mine, own) {
                Ok(Found { table, .. }) if own.is_some() => return Led::Over(table),
                Ok(_) => self.wake_cramped(),
                Err(status) => {
                    self.routes.calls.fail_all(&status);
                    break;
                }
            }
        }
        Led::Done
    }

    /// Takes the call out of the table, and tells the server, unless the call is over after all.
    pub(super) fn give_up(&self, id: u64) -> Option<Outcome> {
        let mut table = self.routes.calls.lock();
        let route = table.route(id);
        let outcome = table.forget(id);
        drop(table);
        if outcome.is_none()
            && let Some(route) = route.and_then(|number| self.routes.numbered(number))
        {
            route.cancel(id);
        }
        outcome
    }

    /// Sends, once there is room: reads answers meanwhile, for a server that has no room for its answers reads
    /// no requests. `send` announces that it waits before it says false.
    pub(super) fn send_when_room(
        &self,
        route: &Route,
        deadline: Option<Instant>,
        mut send: impl FnMut() -> Result<bool, Status>,
    ) -> Result<bool, Status> {
        let _stop = StopWaiting(self, route);
        loop {
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return send();
            }
            if let Some(receiver) = self.receiver.try_lock() {
                let mut sent = Ok(false);
                self.take_turn(receiver, Mine::Room, deadline, || {
                    sent = send();
                    matches!(sent, Ok(false))
                });
                if !matches!(sent, Ok(false)) {
                    return sent;
                }
            } else {
                self.routes.calls.lock().cramp();
                // After being listed: whoever has the port wakes this thread after each of its sleeps.
                if send()? {
                    return Ok(true);
                }
                if self.receiver.is_locked() {
                    match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                        Some(left) => std::thread::park_timeout(left),
                        None => std::thread::park(),
                    }
                }
            }
            if send()? {
                return Ok(true);
            }
        }
    }

    /// Reads answers for those whose calls they are, until then, unless somebody does so already.
    pub(in crate::bus) fn read_for_others(&self, until: Instant) {
        if let Some(receiver) = self.receiver.try_lock() {
            self.take_turn(receiver, Mine::Room, Some(until), || true);
        }
    }

    /// Leads for others, and hands the port over afterwards; also if `sleep` panics, which may serialise a user's value.
    pub(super) fn take_turn(
        &self,
        receiver: MutexGuard<'_, Receiver>,
        mine: Mine,
        deadline: Option<Instant>,
        sleep: impl FnMut() -> bool,
    ) {
        let _leave = Leave(self);
        let mut receiver = receiver; // given back before that
        self.lead(&mut receiver, mine, &mut None, deadline, sleep);
    }

    /// Reads answers until what it waits for is there. `sleep` is asked after everything was prepared for a
    /// sleep: false if there is something else to do.
    pub(super) fn lead<'a>(
        &'a self,
        receiver: &mut Receiver,
        mine: Mine,
        own: &mut Option<Outcome>,
        deadline: Option<Instant>,
        mut sleep: impl FnMut() -> bool,
    ) -> Led<'a> {
        let mut patience = Patience::new(self.wait, deadline);
        let calls = &self.routes.calls;
        let mut failures = None;
        let (mut looks, mut batches) = (0u32, 0u32);
        loop {
            let found = match receiver.inlet.next() {
                Ok(None) if !receiver.inlet.has_ended() => Ok(Found { read: 0, table: None }),
                looked => self.read(receiver, looked, mine, own),
            };
            match found {
                Ok(Found { table, .. }) if own.is_some() => {
                    patience.found(receiver.inlet.habit_mut());
                    return Led::Over(table);
                }
                Ok(Found { read, .. }) => {
                    if read > 0 {
                        patience.found(receiver.inlet.habit_mut());
                        batches = batches.wrapping_add(1);
                        if batches.is_multiple_of(BATCHES)
                            && deadline.is_some_and(|deadline| deadline <= Instant::now())
                        {
                            return Led::Done;
                        }
                    }
                    looks = looks.wrapping_add(1);
                    let looked_long = looks.is_multiple_of(LOOKS);
                    if read > 0 || looked_long {
                        self.wake_cramped();
                    }
                    // Who waits for room tries again after each batch, and, never sleeping, now and then.
                    let tries = read > 0 || (looked_long && self.wait == Wait::Spin);
                    if matches!(mine, Mine::Room) && tries {
                        return Led::Done;
                    }
                }
                Err(status) => calls.fail_all(&status),
            }
            // Loaded before the look at the table, so that no failure falls between the two.
            let now = Some(calls.failures());
            if failures != now || matches!(mine, Mine::Tasks) {
                failures = now;
                let mut table = calls.lock();
                match mine {
                    Mine::Call { id, .. } => {
                        *own = table.take(id);
                        if own.is_some() {
                            return Led::Over(Some(table));
                        }
                    }
                    Mine::Tasks if !table.has_tasks(deadline) => return Led::Done,
                    _ => {}
                }
            }
            match patience.next(receiver.inlet.habit_mut()) {
                Then::Look => {}
                Then::GiveUp => return self.look_once_more(receiver, mine, own),
                Then::Sleep(timeout) => {
                    match receiver.inlet.arm() {
                        Ok(true) => {
                            // A ring before `arm` was drained by it: those that wait for room look again.
                            self.wake_cramped();
                            if failures != Some(calls.failures()) {
                                continue;
                            }
                            if !sleep() {
                                return Led::Done;
                            }
                            receiver.inlet.sleep(timeout);
                            self.wake_cramped();
                        }
                        Ok(false) => {}
                        Err(error) => calls.fail_all(&Status::unavailable(error.to_string())),
                    }
                    patience.woke();
                    if matches!(mine, Mine::Room) {
                        return Led::Done;
                    }
                }
            }
        }
    }

    fn wake_cramped(&self) {
        let cramped = self.routes.calls.lock().take_cramped();
        cramped.into_iter().for_each(|wake| wake.wake());
    }
}
