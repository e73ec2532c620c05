//! The threads of a server.
//!
//! Workers take turns at the port: whoever has it waits for one request, gives the port to the next, and
//! runs the handler. So a lone worker reads, handles and answers without a hand-over.
//!
//! While all of them are in handlers, nobody would read: no cancelling would be seen, and a flood would fill
//! the clients' logs instead of being refused. A stand-by thread looks every [`TICK`] for handlers that take
//! long, reads in their stead, and queues what it reads. It sleeps while the server does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::ServerShared;
use super::context::Desk;
use super::intake::{Job, draining};
use super::queue::Waits;
use super::slot::Slot;
use crate::bus::status::Status;
use crate::sys::clock;

/// How long all handlers run before the stand-by reads.
const TICK: Duration = Duration::from_millis(2);
/// Ticks without a request after which the stand-by sleeps.
const QUIET: u32 = 10;

/// What the workers and the stand-by tell each other.
#[derive(Default)]
pub(super) struct Rota {
    /// Workers that want the port.
    wanted: AtomicUsize,
    /// The stand-by has the port, or is about to.
    standing_in: AtomicBool,
    /// The stand-by sleeps until a request comes.
    asleep: AtomicBool,
    standby: Mutex<Option<Thread>>,
}

/// Ends the slot's call, however the handler ends.
struct Busy<'a>(&'a Slot);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl ServerShared {
    /// One worker, until the server stops.
    pub(super) fn work(self: &Arc<Self>, slot: &Arc<Slot>) {
        let mut desk = Some(Desk { server: self.clone(), slot: slot.clone() });
        let mut next = None; // filled in place, not moved about
        while !self.is_stopped() {
            self.pop(slot, &mut next);
            if next.is_none() {
                self.receive(slot, &mut next);
            }
            let Some(job) = &mut next else { continue };
            let _busy = Busy(slot);
            self.run(&mut desk, job);
            next = None; // with what it has of the log, before the slot is free
        }
    }

    /// A request that waits already.
    #[inline]
    fn pop(&self, slot: &Slot, next: &mut Option<Job>) {
        if !self.has_queued() {
            return;
        }
        let mut queue = self.queue.lock();
        *next = queue.pop();
        if let Some(job) = next {
            slot.begin(job.call()); // under the queue's lock: whoever cancels finds it here or there
        }
        self.note_queued(queue.len()); // after it: `unfinished` looks here first
    }

    #[inline]
    fn receive(&self, slot: &Slot, next: &mut Option<Job>) {
        let mut intake = match self.intake.try_lock() {
            Some(intake) => intake,
            None => {
                // SeqCst on both words: the stand-by says that it stands in, then looks whether the port is
                // wanted; here it is the other way round. One of the two sees the other.
                self.rota.wanted.fetch_add(1, SeqCst);
                if self.rota.standing_in.load(SeqCst) {
                    self.bell.ring();
                }
                let intake = self.intake.lock();
                self.rota.wanted.fetch_sub(1, SeqCst);
                intake
            }
        };
        if self.has_queued() {
            return; // the stand-by has read on meanwhile: what it has queued is older
        }
        intake.next(self, next, || self.is_stopped() || self.has_queued());
        if let Some(job) = next {
            slot.begin(job.call()); // before the port is given back: a cancel is read after it
            // After it: `unfinished` has either seen the call, or is done, and it is seen here.
            if self.node.drains.is_draining() {
                job.refuse(&draining());
                slot.end();
                *next = None;
            }
        }
    }

    /// Calls that were taken and are not answered; at least so many. To be called after requests are refused: none
    /// is missed then, for it looks for them in the order in which they move on.
    pub(in crate::bus) fn unfinished(&self) -> usize {
        let standing_in = self.rota.standing_in.load(SeqCst); // pairs with `stand_in`, whose look at refusals follows
        let queued = self.queued();
        let running = self.slots.iter().filter(|slot| slot.look().0).count();
        let backlogged = self.backlogged.load(Relaxed); // ordered by the look at the slots
        (queued + running + backlogged).max(standing_in.into())
    }

    fn run(&self, desk: &mut Option<Desk>, job: &mut Job) {
        if self.rota.asleep.load(SeqCst) {
            self.wake_standby();
        }
        let Job { context, payload, .. } = job;
        let expired = context.deadline_ns.is_some_and(clock::is_over);
        if expired || context.pair.is_gone() {
            self.port.counters.drop(1);
            return;
        }
        if let Some(handler) = self.handler(&context.method) {
            context.desk = desk.take();
            handler.run(context, &self.name, payload);
            *desk = context.desk.take();
        }
    }

    /// Cancels calls that wait, and those that run: in this order, for it is theirs. Called with the port's lock:
    /// see [`Slot`].
    pub(super) fn cancel(&self, which: impl Fn(super::slot::CallId) -> bool + Copy) {
        // Under the lock: a call is in a slot before it is out of the queue.
        let mut queue = self.queue.lock();
        let cancelled = queue.cancel(which);
        self.note_queued(queue.len());
        self.slots.iter().for_each(|slot| slot.cancel(which));
        drop(queue);
        self.port.counters.drop(cancelled as u64);
        #[cfg(feature = "tower")]
        self.slots.iter().for_each(|slot| slot.wake_cancelled());
    }

    pub(super) fn wake_standby(&self) {
        if let Some(standby) = &*self.rota.standby.lock() {
            standby.unpark();
        }
    }

    /// The stand-by, until the server stops.
    pub(super) fn stand_by(&self) {
        *self.rota.standby.lock() = Some(std::thread::current());
        while !self.is_stopped() {
            // Says so, then looks: a worker that takes a request says so (in its slot), then looks
            // whether the stand-by sleeps.
            self.rota.asleep.store(true, SeqCst);
            if self.slots.iter().all(|slot| !slot.look().0) && !self.is_stopped() {
                std::thread::park();
            }
            self.rota.asleep.store(false, SeqCst);
            self.watch();
        }
    }

    /// Ticks while there are requests.
    fn watch(&self) {
        let look = || self.slots.iter().map(|slot| slot.look()).collect::<Vec<_>>();
        let (mut seen, mut quiet) = (look(), 0);
        while quiet < QUIET && !self.is_stopped() {
            std::thread::park_timeout(TICK);
            let now = look();
            let same = now == seen;
            if same && now.iter().all(|(runs, _)| *runs) {
                self.stand_in();
            }
            quiet = if same && now.iter().all(|(runs, _)| !runs) { quiet + 1 } else { 0 };
            seen = now;
        }
    }

    /// Reads requests until a worker wants to.
    fn stand_in(&self) {
        self.rota.standing_in.store(true, SeqCst);
        let wanted = || self.is_stopped() || self.rota.wanted.load(SeqCst) > 0;
        if let Some(mut intake) = self.intake.try_lock() {
            loop {
                let mut next = None;
                intake.next(self, &mut next, wanted);
                let Some(mut job) = next else { break };
                job.payload.detach();
                let refused = {
                    let mut queue = self.queue.lock();
                    let refused = queue.push(job, self.limit);
                    self.note_queued(queue.len());
                    refused
                };
                if let Some(job) = refused {
                    let full = format!("the queue of {} is full: {} requests wait", self.name, self.limit);
                    job.refuse(&Status::resource_exhausted(full));
                    self.port.counters.drop(1);
                }
                if wanted() {
                    break;
                }
            }
        }
        self.rota.standing_in.store(false, SeqCst);
    }
}
