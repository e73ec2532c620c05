//! The calls that a client has begun and that are not over, and the threads that wait for them.
//!
//! Answers come through one reading port that many threads share. Whoever waits and finds it free reads it,
//! for all: it *leads*; the others *follow*, asleep until their own call is over or the leader has left
//! (`wait.rs`). The table's lock is held for moments; the control thread takes it too.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::task::Waker;
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::answer::Answer;
use super::routes::List;
use crate::bus::payload::NO_CALL;
use crate::bus::status::Status;
use crate::bus::unwind;

/// Bits of a call's id that say where it stands in the table: the rest are never used twice.
const INDEX_BITS: u32 = 24;

/// No call's id: no place has its index.
const VACANT: u64 = NO_CALL;

/// How a call ended, for whoever began it.
pub(super) type Outcome = Result<Answer, Status>;

/// A place in the table. It stays when its call is over, and the next call there says only what differs: nothing is
/// built and moved in for a call.
struct Call {
    /// [`VACANT`] if no call has the place: then there is no outcome and nobody waits.
    id: u64,
    /// Number of the route that it went.
    route: u32,
    /// Wants its payload in place.
    raw: bool,
    outcome: Option<Outcome>,
    waiter: Waiter,
}

/// Who is to be told when a call is over.
enum Waiter {
    None,
    Thread(Thread),
    Task(Waker),
}

impl Waiter {
    fn wake(self) {
        match self {
            Waiter::None => {}
            Waiter::Thread(thread) => thread.unpark(),
            Waiter::Task(waker) => unwind::wake(waker),
        }
    }
}

/// What a task's asking for a call has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    /// It had asked before, or the call is over.
    Again,
    First,
    /// And its deadline is before all others'.
    Earliest,
}

#[derive(Default)]
pub(super) struct Table {
    /// The servers: here, so that a call takes one lock to choose one and to be registered.
    pub(super) servers: List,
    calls: Vec<Call>,
    /// Places that no call has.
    vacant: Vec<usize>,
    begun: u64,
    /// Threads that are asleep and could lead.
    followers: Vec<Thread>,
    /// Threads that wait for room in a log of requests.
    cramped: Vec<Thread>,
    /// Tasks that wait for room, by the call that each would send.
    cramped_tasks: HashMap<u64, Waker>,
    /// Routes whose server has gone, and whose answers are still being read.
    ending: Vec<(u32, Status)>,
    /// Routes whose answers have been read to the end before the control thread knew that their server goes.
    ended: Vec<u32>,
    /// How many calls a task waits for.
    tasks: usize,
    /// Tasks whose calls have failed, to be woken by the thread that waits for tasks: the control thread, which
    /// fails calls, runs nobody's code.
    failed: Vec<Waker>,
    /// Tasks that wait no longer: what dropping them runs is not ours, and may want the lock.
    discarded: Vec<Waker>,
    /// Deadlines of those calls, and of some that are over.
    deadlines: BinaryHeap<Reverse<(Instant, u64)>>,
}

/// The calls of one client.
#[derive(Default)]
pub(super) struct Calls {
    table: Mutex<Table>,
    /// Counts calls that ended otherwise than by an answer: what a leader looks at instead of the lock.
    failures: AtomicU64,
    /// The thread that waits for tasks.
    watcher: OnceLock<Thread>,
}

impl Calls {
    #[inline]
    pub(super) fn lock(&self) -> Locked<'_> {
        Locked(Some(self.table.lock()))
    }

    /// Sleeps until `over` is, woken by `changed`, or until the timeout.
    pub(super) fn wait_for<'a>(
        &'a self,
        changed: &Condvar,
        timeout: Duration,
        over: impl Fn(&Table) -> bool,
    ) -> Locked<'a> {
        let mut table = self.table.lock();
        changed.wait_while_for(&mut table, |table| !over(table), timeout);
        Locked(Some(table))
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Acquire) // pairs with the Release in `fail`
    }

    /// Ends every call of a route that has no answer. A leader that sleeps is to be rung after it.
    pub(super) fn fail(&self, route: u32, status: &Status) {
        self.fail_where(|call| call == route, status);
    }

    /// Ends every call that has no answer.
    pub(super) fn fail_all(&self, status: &Status) {
        self.fail_where(|_| true, status);
    }

    fn fail_where(&self, which: impl Fn(u32) -> bool, status: &Status) {
        let mut table = self.lock();
        table.ended.retain(|ended| !which(*ended));
        self.fail_in(table, which, status);
    }

    fn fail_in(&self, mut table: Locked<'_>, which: impl Fn(u32) -> bool, status: &Status) {
        let mut woken = Vec::new();
        table.ending.retain(|(ending, _)| !which(*ending));
        for call in &mut table.calls {
            if call.id != VACANT && which(call.route) && call.outcome.is_none() {
                call.outcome = Some(Err(status.clone()));
                woken.push(std::mem::replace(&mut call.waiter, Waiter::None));
            }
        }
        let mut threads = Vec::new();
        for waiter in woken {
            match waiter {
                Waiter::None => {}
                Waiter::Thread(thread) => threads.push(thread),
                Waiter::Task(waker) => {
                    table.tasks -= 1;
                    table.failed.push(waker);
                }
            }
        }
        threads.extend(self.watcher.get().filter(|_| !table.failed.is_empty()).cloned());
        self.failures.fetch_add(1, Release);
        drop(table);
        threads.iter().for_each(Thread::unpark);
    }

    /// This thread waits for tasks.
    pub(super) fn watched_by(&self, thread: Thread) {
        let _ = self.watcher.set(thread); // there is one
    }

    /// The calls of a route will fail with this status, once its answers have been read to the end: now, if
    /// they have been.
    pub(super) fn will_end(&self, route: u32, status: Status) {
        let mut table = self.lock();
        if table.ended.contains(&route) {
            drop(table);
            return self.fail(route, &status);
        }
        table.ending.push((route, status));
    }

    /// The answers of a route have been read to the end. Calls may go there until the control thread knows.
    pub(super) fn ended(&self, route: u32) {
        let mut table = self.lock();
        let status = table.ending.iter().find(|(ending, _)| *ending == route).map(|(_, why)| why.clone());
        let status = status.unwrap_or_else(|| {
            table.ended.push(route);
            Status::unavailable("the server closed the service")
        });
        self.fail_in(table, |call| call == route, &status);
    }
}

/// The table, locked. What was discarded meanwhile is dropped once it is not.
pub(super) struct Locked<'a>(Option<MutexGuard<'a, Table>>);

impl Deref for Locked<'_> {
    type Target = Table;

    fn deref(&self) -> &Table {
        self.0.as_ref().expect("taken by the drop alone")
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Table {
        self.0.as_mut().expect("taken by the drop alone")
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.0.as_ref().is_some_and(|table| !table.discarded.is_empty()) {
            self.discard();
        }
    }
}

impl Locked<'_> {
    #[cold]
    fn discard(&mut self) {
        if let Some(mut table) = self.0.take() {
            let discarded = std::mem::take(&mut table.discarded);
            drop(table);
            discarded.into_iter().for_each(unwind::discard);
        }
    }
}

impl Table {
    fn index(id: u64) -> usize {
        (id & ((1 << INDEX_BITS) - 1)) as usize
    }

    /// Registers a call; its id.
    #[inline]
    pub(super) fn begin(&mut self, route: u32, raw: bool) -> Result<u64, Status> {
        let index = match self.vacant.pop() {
            Some(index) => index,
            None => self.another()?,
        };
        let id = self.begun << INDEX_BITS | index as u64;
        self.begun += 1;
        let call = &mut self.calls[index];
        debug_assert!(call.id == VACANT && call.outcome.is_none() && matches!(call.waiter, Waiter::None));
        (call.id, call.route, call.raw) = (id, route, raw);
        Ok(id)
    }

    /// One more place.
    #[cold]
    fn another(&mut self) -> Result<usize, Status> {
        if self.calls.len() >= Self::index(VACANT) {
            return Err(Status::resource_exhausted("this client has 16 777 215 calls in flight"));
        }
        self.calls.push(Call { id: VACANT, route: 0, raw: false, outcome: None, waiter: Waiter::None });
        Ok(self.calls.len() - 1)
    }

    #[inline]
    fn call(&mut self, id: u64) -> Option<&mut Call> {
        self.calls.get_mut(Self::index(id)).filter(|call| call.id == id)
    }

    /// Whether this call still wants an answer by this route, and in place if so. An answer by another route
    /// is an answer to nothing: a server knows no ids but those it was sent.
    ///
    /// In place only if somebody waits for it. One that lies here until its caller has time would keep the log's
    /// room, and so the answers that other calls wait for.
    pub(super) fn wants(&mut self, id: u64, route: u32) -> Option<bool> {
        let call = self.call(id).filter(|call| call.route == route && call.outcome.is_none())?;
        Some(call.raw && !matches!(call.waiter, Waiter::None))
    }

    /// Takes out a call whose answer has come by this route, and whose caller has it; false if it wants none.
    #[inline]
    pub(super) fn settle(&mut self, id: u64, route: u32) -> bool {
        let Some(call) = self.call(id).filter(|call| call.route == route && call.outcome.is_none()) else {
            return false;
        };
        if matches!(call.waiter, Waiter::None) {
            self.vacate(id);
        } else {
            self.forget(id);
        }
        true
    }

    pub(super) fn len(&self) -> usize {
        self.calls.len() - self.vacant.len()
    }

    /// Calls without an answer.
    pub(super) fn unfinished(&self) -> usize {
        self.calls.iter().filter(|call| call.id != VACANT && call.outcome.is_none()).count()
    }

    /// A call is over; whoever waits for it is to be woken, once the lock is free.
    #[must_use]
    pub(super) fn end(&mut self, id: u64, outcome: Outcome) -> Option<Wake> {
        self.call(id)?.outcome = Some(outcome);
        self.wake(id)
    }

    /// Takes the call out if it is over.
    pub(super) fn take(&mut self, id: u64) -> Option<Outcome> {
        self.call(id)?.outcome.is_some().then(|| self.forget(id))?
    }

    /// Takes the call out, over or not.
    pub(super) fn forget(&mut self, id: u64) -> Option<Outcome> {
        let waiter = self.set_waiter(id, Waiter::None)?;
        self.discard(waiter);
        self.vacate(id)
    }

    /// Gives a call's place free, of which nobody waits for it.
    #[inline(always)]
    fn vacate(&mut self, id: u64) -> Option<Outcome> {
        let call = &mut self.calls[Self::index(id)];
        call.id = VACANT;
        let outcome = call.outcome.take();
        self.vacant.push(Self::index(id));
        outcome
    }

    fn discard(&mut self, waiter: Waiter) {
        if let Waiter::Task(waker) = waiter {
            self.discarded.push(waker);
        }
    }

    /// This thread is about to sleep until the call is over or it can lead: false if the call is over.
    pub(super) fn follow(&mut self, id: Option<u64>) -> bool {
        let thread = std::thread::current();
        if let Some(id) = id {
            if self.call(id).is_none_or(|call| call.outcome.is_some()) {
                return false;
            }
            if let Some(before) = self.set_waiter(id, Waiter::Thread(thread.clone())) {
                self.discard(before);
            }
        }
        self.followers.push(thread);
        true
    }

    /// This thread is awake again.
    pub(super) fn unfollow(&mut self, id: Option<u64>) {
        let me = std::thread::current().id();
        self.followers.retain(|thread| thread.id() != me);
        if let Some(call) = id.and_then(|id| self.call(id)) {
            call.waiter = Waiter::None;
        }
    }

    /// This thread is about to sleep until there may be room for its request.
    pub(super) fn cramp(&mut self) {
        self.cramped.push(std::thread::current());
    }

    /// This task is about to wait until there may be room for its request, which it watches too.
    #[cfg(feature = "tower")]
    pub(super) fn cramp_task(&mut self, id: u64, waker: &Waker) {
        if let Some(before) = self.cramped_tasks.insert(id, waker.clone()) {
            self.discarded.push(before);
        }
    }

    /// Those that wait for room, to be woken.
    pub(super) fn take_cramped(&mut self) -> Vec<Wake> {
        if self.cramped.is_empty() && self.cramped_tasks.is_empty() {
            return Vec::new();
        }
        let threads = self.cramped.drain(..).map(Waiter::Thread);
        let tasks = self.cramped_tasks.drain().map(|(_, waker)| Waiter::Task(waker));
        threads.chain(tasks).map(Wake).collect()
    }

    /// A task waits for the call from now on.
    pub(super) fn watch(&mut self, id: u64, waker: &Waker, deadline: Option<Instant>) -> Watched {
        match self.set_waiter(id, Waiter::Task(waker.clone())) {
            None => return Watched::Again,
            Some(before @ Waiter::Task(_)) => {
                self.discard(before);
                return Watched::Again;
            }
            Some(_) => {}
        }
        let Some(deadline) = deadline else { return Watched::First };
        let earliest = self.deadlines.peek().is_none_or(|Reverse((first, _))| deadline < *first);
        self.deadlines.push(Reverse((deadline, id)));
        if self.deadlines.len() > 2 * self.len() + 1024 {
            let mut deadlines = std::mem::take(&mut self.deadlines).into_vec();
            deadlines.sort_unstable();
            deadlines.dedup(); // of a call that was also waited for in between
            deadlines.retain(|Reverse((_, id))| self.call(*id).is_some());
            self.deadlines = deadlines.into();
        }
        if earliest { Watched::Earliest } else { Watched::First }
    }

    /// The task that waits for a call, to be woken: it no longer counts, unless it asks again.
    pub(super) fn wake(&mut self, id: u64) -> Option<Wake> {
        self.set_waiter(id, Waiter::None).map(Wake)
    }

    /// Who waits for a call from now on; who did before.
    fn set_waiter(&mut self, id: u64, waiter: Waiter) -> Option<Waiter> {
        let is_task = matches!(waiter, Waiter::Task(_));
        let before = std::mem::replace(&mut self.call(id)?.waiter, waiter);
        self.tasks = self.tasks + usize::from(is_task) - usize::from(matches!(before, Waiter::Task(_)));
        Some(before)
    }

    /// All wakers: nobody waits any more.
    pub(super) fn discard_wakers(&mut self) {
        let failed = std::mem::take(&mut self.failed);
        let cramped = std::mem::take(&mut self.cramped_tasks).into_values();
        self.discarded.extend(failed.into_iter().chain(cramped));
    }

    /// Tasks whose calls have failed, to be woken.
    pub(super) fn take_failed(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.failed)
    }

    /// Whether tasks wait for calls, none has failed, and none ends before `deadline`, as the next one was said
    /// to.
    pub(super) fn has_tasks(&self, deadline: Option<Instant>) -> bool {
        let is_sooner = |first: Instant| deadline.is_none_or(|deadline| first < deadline);
        self.tasks > 0
            && self.failed.is_empty()
            && !self.deadlines.peek().is_some_and(|Reverse((first, _))| is_sooner(*first))
    }

    /// The next deadline of a call that a task waits for, and a call whose deadline is over.
    pub(super) fn next_deadline(&mut self, now: Instant) -> (Option<Instant>, Option<u64>) {
        while let Some(Reverse((deadline, id))) = self.deadlines.peek().copied() {
            if deadline > now {
                return (Some(deadline), None);
            }
            self.deadlines.pop();
            if self.call(id).is_some_and(|call| call.outcome.is_none()) {
                return (None, Some(id));
            }
        }
        (None, None)
    }

    /// Whether there is anybody to be woken by a leader that goes.
    pub(super) fn has_waiting(&self) -> bool {
        !self.followers.is_empty() || !self.cramped.is_empty() || !self.cramped_tasks.is_empty()
    }

    /// A thread that can lead, to be woken.
    pub(super) fn next_leader(&mut self) -> Option<Thread> {
        self.followers.pop()
    }

    /// The route that a call went.
    pub(super) fn route(&mut self, id: u64) -> Option<u32> {
        self.call(id).map(|call| call.route)
    }
}

/// Somebody to be woken once no lock is held.
pub(super) struct Wake(Waiter);

impl Wake {
    pub(super) fn wake(self) {
        self.0.wake();
    }
}

#[cfg(test)]
mod tests;
