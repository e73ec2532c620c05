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

use super::answer::Answer;
use super::calls::{Locked, Outcome};
use super::routes::Route;
use super::{ClientShared, Receiver};
use crate::bus::error::RecvError;
use crate::bus::held::Held;
use crate::bus::message::Headers;
use crate::bus::payload::{Incoming, PREFIX, Payload, Place, copy_prefix, with_head};
use crate::bus::reading::Source;
use crate::bus::status::Status;
use crate::frame::{self, Code, Head};
use crate::ring::{Kind, Record};
use crate::wake::{Patience, Then, Wait};

/// Answers that are read in a row before the leader looks at those who wait for room.
const BATCH: usize = 64;
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
        loop {
            if let Some(mut receiver) = self.receiver.try_lock() {
                match self.lead(&mut receiver, Mine::Call { id, raw }, outcome, deadline, || true) {
                    Led::Over(table) => {
                        let table = table.unwrap_or_else(|| self.routes.calls.lock());
                        drop(receiver); // with the table locked
                        return self.hand_over(table);
                    }
                    Led::Done => break,
                }
            }
            *outcome = self.routes.calls.lock().take(id);
            if outcome.is_some() || !self.follow(Some(id), deadline) {
                break;
            }
        }
        self.leave();
        if outcome.is_none() {
            *outcome = self.give_up(id);
        }
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
                Then::GiveUp => return Led::Done,
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

    /// Reads what is there, at most a batch, after a first look. Having found the leader's own, it reads on for the
    /// others.
    #[inline]
    fn read<'a>(
        &'a self,
        receiver: &mut Receiver,
        mut looked: Looked,
        mine: Mine,
        own: &mut Option<Outcome>,
    ) -> Result<Found<'a>, Status> {
        let mut read = 0;
        loop {
            match looked {
                Ok(Some(index)) => {
                    if let Some(table) = self.take(receiver, index, mine, own)
                        && table.len() == 0
                    {
                        return Ok(Found { read: read + 1, table: Some(table) });
                    }
                }
                Ok(None) => {
                    self.note_ended(receiver);
                    return Ok(Found { read, table: None });
                }
                Err(error) => match *error {
                    RecvError::PeerCorrupt { .. } => self.note_ended(receiver),
                    RecvError::Unattached { .. } | RecvError::Lagged { .. } | RecvError::Decode { .. } => {}
                    error => {
                        return match own {
                            None => Err(Status::unavailable(error.to_string())),
                            Some(_) => Ok(Found { read, table: None }),
                        };
                    }
                },
            }
            read += 1;
            if read == BATCH {
                self.note_ended(receiver); // though another server's answers go on and on
                return Ok(Found { read, table: None });
            }
            looked = receiver.inlet.next();
        }
    }

    #[inline]
    fn note_ended(&self, receiver: &mut Receiver) {
        if receiver.inlet.has_ended() {
            for source in receiver.inlet.take_ended() {
                if let Some(route) = source.route {
                    self.routes.calls.ended(route);
                }
            }
        }
    }

    #[cold]
    fn not_an_answer<T>(&self, source: &Source, reason: &str) -> Option<T> {
        tracing::warn!(service = %self.name, server = %source.origin.node, %reason, "no answer");
        None
    }

    /// Takes one answer: the leader's own goes to `own`, and the table that no longer has the call is returned;
    /// another's goes to whoever waits for it.
    #[inline]
    fn take<'a>(
        &'a self,
        receiver: &mut Receiver,
        index: usize,
        mine: Mine,
        own: &mut Option<Outcome>,
    ) -> Option<Locked<'a>> {
        let Receiver { inlet, copy } = receiver;
        let source = inlet.source(index);
        let &Record { kind, len, .. } = source.reader.in_hand()?;
        let len = len as usize;
        let prefix = copy_prefix(source, len, copy);
        // Nearly always what a leader waits for, and with a plain head: put where it is going to be used, not moved about
        // (see `Intake::take`).
        if let Mine::Call { id, raw: false } = mine
            && let Some((found, span)) = frame::plain_response(prefix, len)
            && found == id
            && kind != Kind::Blob
            && len <= PREFIX
            && !span.compressed
        {
            let route = source.route;
            let origin = Held::of(&source.origin);
            let payload = Payload::copied(&span, copy);
            inlet.release(index);
            let mut table = self.routes.calls.lock();
            if !route.is_some_and(|route| table.settle(id, route)) {
                inlet.counters().drop(1);
                return None;
            }
            inlet.counters().message(span.len);
            let (code, message, headers, encoding) = (Code::Ok, None, Headers::default(), span.encoding);
            *own = Some(Ok(Answer { id, origin, code, message, headers, encoding, payload }));
            return Some(table);
        }
        self.take_any(receiver, index, (kind, len), mine, own)
    }

    /// The same for any answer.
    #[inline(never)]
    fn take_any<'a>(
        &'a self,
        receiver: &mut Receiver,
        index: usize,
        (kind, len): (Kind, usize),
        mine: Mine,
        own: &mut Option<Outcome>,
    ) -> Option<Locked<'a>> {
        let Receiver { inlet, copy } = receiver;
        let calls = &self.routes.calls;
        let source = inlet.source(index);
        let route = source.route;
        let mut is_own = false;
        let answer = with_head(source, len, copy, |found| match found {
            Ok(Incoming::Message(Head::Response { id, status, message, headers }, span)) => {
                let message = message.filter(|_| status != Code::Ok).map(Box::from);
                let raw = match mine {
                    // Whether it wants this answer is looked at when the table is locked to take it out.
                    Mine::Call { id: mine, raw } if mine == id => {
                        is_own = true;
                        raw
                    }
                    _ => calls.lock().wants(id, route?)?,
                };
                Some((id, status, message, headers.into(), span, raw))
            }
            Ok(Incoming::Message(head, _)) => {
                self.not_an_answer(source, &format!("a frame of kind {:?}", head.kind()))
            }
            Ok(Incoming::Cancel(_)) => self.not_an_answer(source, "a frame of kind Cancel"),
            Err(reason) => self.not_an_answer(source, &reason),
        });
        let Some((id, code, message, headers, span, raw)) = answer else {
            // Nobody waits for it any more, or it is no answer.
            inlet.counters().drop(1);
            inlet.release(index);
            return None;
        };
        let place = raw.then(|| Place { node: &self.node, reader: &self.port, port: self.keeper() });
        let source = inlet.source_mut(index);
        let (limit, is_large) = (self.limits.max_message, kind == Kind::Blob);
        let mut outcome = if span.compressed {
            Err(Status::unimplemented("the answer is compressed, which this version does not read"))
        } else if is_large && span.len as u64 > limit {
            Err(Status::resource_exhausted(format!(
                "an answer of {} bytes, but the client takes {limit}: raise its `max_message`",
                span.len
            )))
        } else {
            let (origin, encoding) = (Held::of(&source.origin), span.encoding);
            let payload = Payload::take(source, kind, &span, place);
            payload.map(|payload| Answer { id, origin, code, message, headers, encoding, payload })
        };
        inlet.release(index);
        if is_own {
            let mut table = calls.lock();
            if route.is_some_and(|route| table.settle(id, route)) {
                inlet.counters().message(span.len);
                *own = Some(outcome);
                return Some(table);
            }
            drop(table);
            inlet.counters().drop(1);
            return None;
        }
        inlet.counters().message(span.len);
        if let Ok(Answer { payload: payload @ Payload::Copied { .. }, .. }) = &mut outcome {
            payload.detach();
        }
        let mut table = calls.lock();
        let wake = table.end(id, outcome);
        drop(table);
        if let Some(wake) = wake {
            wake.wake();
        }
        None
    }
}

/// Whose record is in hand, if there is one.
type Looked = Result<Option<usize>, Box<RecvError>>;

/// What came of looks at the answers.
struct Found<'a> {
    /// How many records were read.
    read: usize,
    /// The table, if there is no other call in it.
    table: Option<Locked<'a>>,
}
