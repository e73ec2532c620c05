//! Calls that nobody waits for yet, and the thread that waits for them on behalf of async tasks.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::answer::FromAnswer;
use super::calls::{Outcome, Watched};
use super::departure::Departure;
use super::request::{finish, overdue};
use super::wait::Mine;
use super::{ClientShared, Handle};
use crate::bus::status::Status;
use crate::bus::unwind;
use crate::sys::thread;

/// Stack of the thread that waits for tasks: it keeps its state on the heap, but runs their wakers.
const STACK: usize = 256 * 1024;

/// A call in flight; from [`Request::start`](crate::Request::start). Wait for it, or await it. Dropped before it
/// is over, it is cancelled: the server is told.
///
/// Answers are read by whoever waits for one. The first `.await` of a client starts a thread that does so for
/// async tasks; it sleeps while there are none. Wakers are called by whoever reads, in the middle of it: one that blocks
/// holds up all calls of the client.
///
/// # Examples
/// ```
/// # let node = ringbus::Bus::private()?.join("planner")?;
/// # let server = node.service("math").method("square", |_ctx, n: i64| Ok(n * n)).spawn()?;
/// # let client = node.client("math")?;
/// let calls: Result<Vec<_>, _> = (1..=3).map(|n: i64| client.request("square").start::<_, i64>(&n)).collect();
/// let squares: Result<Vec<i64>, _> = calls?.into_iter().map(|call| call.wait().map(|r| *r)).collect();
/// assert_eq!(squares?, [1, 4, 9]);
/// # Ok::<(), ringbus::Error>(())
/// ```
#[must_use = "a call that is dropped is cancelled"]
pub struct Pending<T> {
    pub(super) client: Arc<Handle>,
    id: u64,
    method: Box<str>,
    deadline: Option<Instant>,
    timeout: Duration,
    over: bool,
    answers: PhantomData<fn() -> T>,
}

impl<T: FromAnswer> Pending<T> {
    pub(super) fn new(
        client: Arc<Handle>,
        departure: Departure<'_>,
        method: &str,
        timeout: Duration,
    ) -> Self {
        let deadline = departure.term.deadline();
        let (id, method) = (departure.call.keep(), method.into());
        Self { client, id, method, deadline, timeout, over: false, answers: PhantomData }
    }

    /// Number of the call, unique among those of its client: what the server knows it by.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the result, until the call's own deadline.
    ///
    /// # Errors
    /// Those of [`Client::call`](crate::Client::call).
    pub fn wait(mut self) -> Result<T, Status> {
        if !self.client.node.origin.is_here() {
            return Err(forked());
        }
        self.over = true;
        finish(&self.client, self.id, &self.method, self.deadline, self.timeout)
    }

    /// Waits for the result for so long, and no longer than the call's own deadline; with no time at all it looks what has
    /// come. `None`: the call is not over, and may be waited for, or awaited, again. Once it has given a result it gives
    /// none any more, but `DeadlineExceeded`.
    ///
    /// # Errors
    /// Those of [`Client::call`](crate::Client::call), within the `Option`.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// # let node = ringbus::Bus::private()?.join("planner")?;
    /// # let server = node.service("math").method("square", |_ctx, n: i64| Ok(n * n)).spawn()?;
    /// # let client = node.client("math")?;
    /// let mut call = client.request("square").start::<_, i64>(&3)?;
    /// let square = loop {
    ///     // Something else to do.
    ///     if let Some(result) = call.wait_timeout(Duration::from_millis(1)) {
    ///         break *result?;
    ///     }
    /// };
    /// assert_eq!(square, 9);
    /// # Ok::<(), ringbus::Error>(())
    /// ```
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<Result<T, Status>> {
        if !self.client.node.origin.is_here() {
            return Some(Err(forked()));
        }
        let until = Instant::now().checked_add(timeout).into_iter().chain(self.deadline).min();
        let mut outcome = None;
        if !self.over {
            self.client.wait_until(self.id, T::RAW, until, &mut outcome);
        }
        if outcome.is_none() {
            if !self.is_overdue() {
                return None;
            }
            if !self.over {
                outcome = self.client.give_up(self.id);
            }
        }
        self.over = true;
        Some(
            self.result_of(outcome.unwrap_or_else(|| Err(overdue(&self.client, &self.method, self.timeout)))),
        )
    }

    fn is_overdue(&self) -> bool {
        self.over || self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    fn result_of(&self, outcome: Outcome) -> Result<T, Status> {
        T::from_answer(&mut outcome?, &self.client.name, &self.method)
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("id", &self.id).field("method", &self.method).finish_non_exhaustive()
    }
}

fn forked() -> Status {
    Status::failed_precondition(
        "this process is a fork of the one that made the call: join again in the child",
    )
}

impl<T: FromAnswer> Future for Pending<T> {
    type Output = Result<T, Status>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let me = &mut *self;
        if !me.client.node.origin.is_here() {
            return Poll::Ready(Err(forked()));
        }
        let mut table = me.client.routes.calls.lock();
        if let Some(outcome) = table.take(me.id) {
            drop(table);
            me.over = true;
            return Poll::Ready(me.result_of(outcome));
        }
        if me.is_overdue() {
            drop(table);
            me.over = true;
            me.client.give_up(me.id);
            return Poll::Ready(Err(overdue(&me.client, &me.method, me.timeout)));
        }
        let watched = table.watch(me.id, context.waker(), me.deadline);
        drop(table);
        if watched == Watched::Earliest {
            me.client.bell.ring(); // whoever sleeps for tasks sleeps too long
        }
        if watched != Watched::Again
            && let Err(error) = me.client.watch_tasks()
        {
            return Poll::Ready(Err(Status::resource_exhausted(format!("cannot start a thread: {error}"))));
        }
        Poll::Pending
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        if !self.over && self.client.node.origin.is_here() {
            self.client.give_up(self.id);
        }
    }
}

/// The thread that waits for tasks.
pub(super) struct Tasks {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Tasks {
    /// Called when the client has no handles left, and so no tasks. The thread may be about to notice: it is
    /// waited for, so that whoever drops the last handle of a node has left the bus afterwards.
    pub(super) fn stop(self) {
        self.stop.store(true, Release); // before the unpark; pairs with the Acquire in `run`
        self.thread.thread().unpark();
        if self.thread.thread().id() != std::thread::current().id() && self.thread.join().is_err() {
            tracing::error!("the thread that waits for calls has panicked");
        }
    }
}

impl ClientShared {
    /// Makes sure that somebody reads answers for tasks.
    fn watch_tasks(&self) -> std::io::Result<()> {
        let mut tasks = self.tasks.lock();
        let Some(tasks) = &*tasks else {
            let stop = Arc::new(AtomicBool::new(false));
            let (client, stopped) = (self.me.clone(), stop.clone());
            let thread = thread::spawn("ringbus-calls", Some(STACK), move || run(&client, &stopped))?;
            self.routes.calls.watched_by(thread.thread().clone());
            *tasks = Some(Tasks { stop, thread });
            return Ok(());
        };
        tasks.thread.thread().unpark();
        Ok(())
    }
}

fn run(client: &Weak<ClientShared>, stop: &AtomicBool) {
    while !stop.load(Acquire) {
        // Held while there are tasks only: they hold the client themselves.
        if let Some(client) = client.upgrade() {
            client.lead_for_tasks();
        }
        // Looked at again: the unpark that came with it may have ended a sleep in there.
        if !stop.load(Acquire) {
            std::thread::park();
        }
    }
}

impl ClientShared {
    /// Reads answers until no task waits for one.
    fn lead_for_tasks(&self) {
        loop {
            let mut table = self.routes.calls.lock();
            let failed = table.take_failed();
            if !failed.is_empty() {
                drop(table);
                failed.into_iter().for_each(unwind::wake);
                continue;
            }
            let deadline = match table.next_deadline(Instant::now()) {
                (_, Some(late)) => {
                    let wake = table.wake(late); // it finds that it is late, and gives up
                    drop(table);
                    wake.into_iter().for_each(|wake| wake.wake());
                    continue;
                }
                (deadline, None) => deadline,
            };
            let has_tasks = table.has_tasks(deadline);
            drop(table);
            if !has_tasks {
                return self.leave();
            }
            match self.receiver.try_lock() {
                Some(receiver) => {
                    // Asked once more: the ring of a call with an earlier deadline may just have been drained.
                    let sleep = || self.routes.calls.lock().has_tasks(deadline);
                    self.take_turn(receiver, Mine::Tasks, deadline, sleep);
                }
                None => {
                    self.follow(None, deadline);
                    self.leave();
                }
            }
        }
    }
}
