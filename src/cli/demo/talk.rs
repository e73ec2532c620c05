//! What the planner says: calls, direct messages and broadcasts, from a thread of its own.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::super::Outcome;
use super::protocol::{Assignment, Calls, Estimate, Kinds, Notice, Stopped};
use super::{CAST, Role};
use crate::{Client, Code, Node, Response, SendError, Status};

/// Between two calls that are timed: there are not quite a thousand a second.
const PAUSE: Duration = Duration::from_millis(1);
/// Every so many of these, several calls are made at a time, and a direct message is sent.
const ROUNDS_OF_MANY: u64 = 10;
/// So many.
const MANY: usize = 8;
/// Every so many, all are told something.
const ROUNDS_OF_BROADCAST: u64 = 250;

/// The thread, and how far it is.
pub(super) struct Talk {
    stop: Sender<()>,
    thread: JoinHandle<Outcome<Stopped>>,
    so_far: Arc<Mutex<(Kinds, Kinds)>>,
}

impl Talk {
    pub(super) fn start(node: &Node, client: &Client) -> Outcome<Self> {
        let (stop, stopped) = channel();
        let so_far = Arc::default();
        let talker = Talker {
            node: node.clone(),
            client: client.clone(),
            calls: Calls::default(),
            times: Times::default(),
            direct: BTreeMap::new(),
            broadcasts: 0,
            so_far: Arc::clone(&so_far),
        };
        let thread = std::thread::Builder::new().name("talk".into()).spawn(move || talker.run(&stopped))?;
        Ok(Self { stop, thread, so_far })
    }

    /// What was sent and received so far.
    pub(super) fn so_far(&self) -> (Kinds, Kinds) {
        *self.so_far.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has ended by itself: it could not go on.
    pub(super) fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Tells everybody that the work is over; what was sent until then.
    pub(super) fn stop(self) -> Outcome<Stopped> {
        let _ = self.stop.send(()); // it may have ended by itself
        self.thread.join().map_err(|_| "the planner's thread has panicked")?
    }
}

struct Talker {
    node: Node,
    client: Client,
    calls: Calls,
    times: Times,
    /// Direct messages by name.
    direct: BTreeMap<String, u64>,
    broadcasts: u64,
    so_far: Arc<Mutex<(Kinds, Kinds)>>,
}

impl Talker {
    fn run(mut self, stop: &Receiver<()>) -> Outcome<Stopped> {
        for round in 0.. {
            self.call();
            if round % ROUNDS_OF_MANY == 0 {
                self.call_many();
                let worker = workers().nth((round / ROUNDS_OF_MANY) as usize % workers().count());
                match self.assign(worker.unwrap_or_default()) {
                    // Killed, and not there again yet.
                    Ok(()) | Err(SendError::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if round % ROUNDS_OF_BROADCAST == 0 {
                self.announce(false)?;
            }
            *self.so_far.lock().unwrap_or_else(PoisonError::into_inner) = (self.sent(), self.received());
            match stop.recv_timeout(PAUSE) {
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) | Ok(()) => break,
            }
        }
        // Everybody is there now, and gets one at least.
        for worker in workers() {
            self.assign(worker)?;
        }
        self.announce(true)?;
        self.calls.p50_us = self.times.median_us();
        Ok(Stopped { sent: self.sent(), direct: self.direct, calls: self.calls })
    }

    /// One call, timed.
    fn call(&mut self) {
        let number = self.next_call();
        let start = Instant::now();
        let answer = self.client.request("estimate").send(&number);
        if answer.is_ok() {
            self.times.note(start.elapsed());
        }
        self.end(number, answer);
    }

    /// Several calls at a time, each of which ends by itself.
    fn call_many(&mut self) {
        let mut started = Vec::with_capacity(MANY);
        for _ in 0..MANY {
            let number = self.next_call();
            started.push((number, self.client.request("estimate").start(&number)));
        }
        for (number, pending) in started {
            let answer = pending.and_then(|pending| pending.wait());
            self.end(number, answer);
        }
    }

    fn next_call(&mut self) -> u64 {
        self.calls.made += 1;
        self.calls.made
    }

    fn end(&mut self, number: u64, answer: Result<Response<Estimate>, Status>) {
        let answer = answer.map(|answer| (answer.source().id().to_string(), answer.number));
        self.calls.end(number, answer);
    }

    fn assign(&mut self, worker: &str) -> Result<(), SendError> {
        let number = self.direct.get(worker).copied().unwrap_or(0);
        self.node.send(worker, &Assignment { number, task: "read on".into() })?;
        self.direct.insert(worker.to_owned(), number + 1);
        Ok(())
    }

    fn announce(&mut self, end: bool) -> Result<(), SendError> {
        self.node.broadcast(&Notice { number: self.broadcasts, end })?;
        self.broadcasts += 1;
        Ok(())
    }

    fn sent(&self) -> Kinds {
        let (request, direct) = (self.calls.made, self.direct.values().sum());
        Kinds { request, direct, broadcast: self.broadcasts, ..Kinds::default() }
    }

    fn received(&self) -> Kinds {
        Kinds { response: self.calls.answered(), ..Kinds::default() }
    }
}

impl Calls {
    /// Notes how a call has ended: the node that answered and the number in its answer, or a status.
    fn end(&mut self, number: u64, answer: Result<(String, u64), Status>) {
        let failure = match answer {
            Ok((node, answered)) if answered == number => {
                *self.answered.entry(node).or_default() += 1;
                return;
            }
            Err(status) if status.code() == Code::Unavailable => {
                self.unavailable += 1;
                return;
            }
            Ok((_, answered)) => format!("call {number} got the answer of call {answered}"),
            Err(status) => status.to_string(),
        };
        self.failed += 1;
        self.failure.get_or_insert(failure);
    }
}

fn workers() -> impl Iterator<Item = &'static str> {
    CAST.iter().filter(|(_, role)| matches!(role, Role::Worker { .. })).map(|(name, _)| *name)
}

/// How long calls took: counted in steps of 100 ns, so that a long run takes no more memory than a short one.
struct Times {
    counts: Vec<u32>,
    total: u64,
}

impl Times {
    const STEP_NS: u128 = 100;
    /// What took longer than 10 ms is counted as the longest.
    const STEPS: usize = 100_000;

    fn note(&mut self, time: Duration) {
        let step = usize::try_from(time.as_nanos() / Self::STEP_NS).unwrap_or(usize::MAX);
        let count = &mut self.counts[step.min(Self::STEPS - 1)];
        *count = count.saturating_add(1);
        self.total += 1;
    }

    fn median_us(&self) -> f64 {
        let mut before = 0;
        let step = self.counts.iter().position(|count| {
            before += u64::from(*count);
            before * 2 >= self.total
        });
        if self.total == 0 { 0.0 } else { step.unwrap_or(0) as f64 / 10.0 }
    }
}

impl Default for Times {
    fn default() -> Self {
        Self { counts: vec![0; Self::STEPS], total: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_of_a_call_is_counted_once() {
        let mut calls = Calls::default();
        let ends = [
            Ok(("a".to_owned(), 0)),
            Ok(("b".to_owned(), 1)),
            Err(Status::unavailable("died")),
            Ok(("a".to_owned(), 3)),
            Ok(("a".to_owned(), 7)),
            Err(Status::internal("")),
        ];
        for (number, end) in ends.into_iter().enumerate() {
            calls.end(number as u64, end);
        }
        assert_eq!(calls.answered, BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 1)]));
        assert_eq!((calls.unavailable, calls.failed), (1, 2));
        assert_eq!(calls.failure.as_deref(), Some("call 4 got the answer of call 7"));
    }

    #[test]
    fn half_of_the_calls_took_less_than_the_median() {
        let mut times = Times::default();
        assert_eq!(times.median_us(), 0.0);
        for us in [10, 30, 20, 90_000, 40] {
            times.note(Duration::from_micros(us));
        }
        assert_eq!(times.median_us(), 30.0);
        for _ in 0..3 {
            times.note(Duration::from_secs(1));
        }
        assert_eq!(times.median_us(), 40.0);
    }
}
