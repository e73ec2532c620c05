//! Calls, one by one from one thread and several at a time from another, and counts how each call ends.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::super::Outcome;
use super::PATIENCE;
use super::content::{self, HEAD};
use super::dice::Dice;
use super::pace::{Duty, Next, Pace};
use super::protocol::{Calls, Note, Order, Report, SERVICE, tell};
use crate::{Client, Code, Node, Pending, RawResponse, Response, Status};

/// Of each call.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Calls at a time.
const MANY: u64 = 6;

/// A call under way, by its number; or why it is not.
type Started<T> = (u64, Result<Pending<T>, Status>);

pub(super) fn run(node: &Node, orders: Receiver<Order>, life: u64) -> Outcome {
    let mut duty = Duty::new(orders);
    let client = node.client_builder(SERVICE).timeout(TIMEOUT).open()?;
    let caller = Caller {
        client,
        life,
        pace: duty.pace(),
        next: AtomicU64::new(0),
        calls: Mutex::default(),
        is_over: AtomicBool::new(false),
    };
    tell(&Report::Ready { node: node.info().id().to_string() })?;
    let is_leaving = std::thread::scope(|scope| {
        let threads = [
            scope.spawn(|| caller.repeat(Dice::new(life), Caller::call_one)),
            scope.spawn(|| caller.repeat(Dice::new(!life), Caller::call_many)),
        ];
        let outcome = caller.watch(&mut duty, || threads.iter().any(|thread| thread.is_finished()));
        caller.is_over.store(true, Relaxed);
        for thread in threads {
            thread.join().map_err(|_| "a thread that calls has panicked")??;
        }
        outcome
    })?;
    if is_leaving {
        return Ok(());
    }
    caller.expect_an_answer()?;
    tell(&Report::Calls(caller.counts()))?;
    tell(&Report::Stopped)?;
    duty.stay()
}

struct Caller {
    client: Client,
    life: u64,
    pace: Pace,
    next: AtomicU64,
    calls: Mutex<Calls>,
    is_over: AtomicBool,
}

impl Caller {
    /// Reports until told to stop, or to leave: true.
    fn watch(&self, duty: &mut Duty, has_failed: impl Fn() -> bool) -> Outcome<bool> {
        loop {
            match duty.look() {
                Next::Leave => return Ok(true),
                Next::Stop => return Ok(false),
                Next::Go | Next::Measure if has_failed() => return Ok(false),
                Next::Go | Next::Measure => {}
            }
            if duty.is_due() {
                tell(&Report::Calls(self.counts()))?;
            }
            std::thread::sleep(super::WORD / 10);
        }
    }

    fn counts(&self) -> Calls {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn repeat(&self, mut dice: Dice, round: impl Fn(&Self, &mut Dice) -> Outcome) -> Outcome {
        while !self.is_over.load(Relaxed) {
            round(self, &mut dice)?;
            self.pace.pause();
            std::thread::sleep(dice.millis(1, 6));
        }
        Ok(())
    }

    fn call_one(&self, dice: &mut Dice) -> Outcome {
        let number = self.begin();
        if dice.between(0, 1) == 0 {
            let sent: Result<Response<Note>, _> =
                self.request("value").send(&content::note(self.life, number));
            self.end(number, sent.map(|answer| *answer == content::note(self.life, number)))
        } else {
            let sent = self.request("bytes").send_raw(&self.bytes(number));
            self.end(number, sent.map(|answer| content::read(&answer) == Some((self.life, number))))
        }
    }

    fn call_many(&self, dice: &mut Dice) -> Outcome {
        let mut values: Vec<Started<Response<Note>>> = Vec::new();
        let mut bytes: Vec<Started<RawResponse>> = Vec::new();
        for _ in 0..dice.between(1, MANY) {
            let number = self.begin();
            if dice.between(0, 1) == 0 {
                values.push((number, self.request("value").start(&content::note(self.life, number))));
            } else {
                bytes.push((number, self.request("bytes").start_raw(&self.bytes(number))));
            }
        }
        for (number, pending) in values {
            let answer = pending.and_then(Pending::wait);
            self.end(number, answer.map(|answer| *answer == content::note(self.life, number)))?;
        }
        for (number, pending) in bytes {
            let answer = pending.and_then(Pending::wait);
            self.end(number, answer.map(|answer| content::read(&answer) == Some((self.life, number))))?;
        }
        Ok(())
    }

    fn request<'c>(&'c self, method: &'c str) -> crate::Request<'c> {
        self.client.request(method)
    }

    fn bytes(&self, number: u64) -> Vec<u8> {
        let mut bytes = vec![0; HEAD + content::length(self.life, number)];
        content::write(self.life, number, &mut bytes);
        bytes
    }

    fn begin(&self) -> u64 {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).made += 1;
        self.next.fetch_add(1, Relaxed)
    }

    /// Notes the end of a call: whether the answer was the right one, or a status.
    fn end(&self, number: u64, answer: Result<bool, Status>) -> Outcome {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let count = match &answer {
            Ok(true) => &mut calls.answered,
            Err(status) if status.code() == Code::Unavailable => &mut calls.unavailable,
            Err(status) if status.code() == Code::NotFound => &mut calls.not_found,
            Err(status) if status.code() == Code::DeadlineExceeded => &mut calls.late,
            Err(status) if status.code() == Code::ResourceExhausted => &mut calls.exhausted,
            _ => {
                let how = answer.err().map_or("the wrong answer".to_owned(), |status| status.to_string());
                return tell(&Report::Wrong { what: format!("call {number} ended with {how}") });
            }
        };
        *count += 1;
        Ok(())
    }

    /// When all is quiet, calls succeed.
    fn expect_an_answer(&self) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let before = self.counts().answered;
            self.call_one(&mut Dice::new(0))?;
            if self.counts().answered > before {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let what = "no call is answered, though nobody is disturbed any more".to_owned();
                return tell(&Report::Wrong { what });
            }
        }
    }
}
