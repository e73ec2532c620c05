//! What every process has to do beside its part: obey, pause when told to, and say now and then that it lives.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::super::Outcome;
use super::WORD;
use super::protocol::{Order, Report, tell};

/// The orders, and how far they are obeyed.
pub(super) struct Duty {
    orders: Receiver<Order>,
    pace: Pace,
    word: Instant,
}

/// How slow a process is told to be; shared by its threads.
#[derive(Clone, Default)]
pub(super) struct Pace {
    pause_us: Arc<AtomicU64>,
    until: Arc<Mutex<Option<Instant>>>,
}

/// What an order asks of the process's part.
pub(super) enum Next {
    Go,
    Stop,
    Measure,
    Leave,
}

impl Duty {
    pub(super) fn new(orders: Receiver<Order>) -> Self {
        Self { orders, pace: Pace::default(), word: Instant::now() }
    }

    pub(super) fn pace(&self) -> Pace {
        self.pace.clone()
    }

    /// Takes the next order, if there is one.
    pub(super) fn look(&mut self) -> Next {
        match self.orders.try_recv() {
            Err(TryRecvError::Empty) => Next::Go,
            Err(TryRecvError::Disconnected) => Next::Leave,
            Ok(Order::Slow { pause_us, ms }) => {
                self.pace.slow_down(pause_us, Duration::from_millis(ms));
                Next::Go
            }
            Ok(Order::Measure) => Next::Measure,
            Ok(Order::Stop) => Next::Stop,
        }
    }

    /// Whether it is time for a word.
    pub(super) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = now >= self.word;
        if is_due {
            self.word = now + WORD;
        }
        is_due
    }

    /// Says that the process lives, if nothing else was said for long.
    pub(super) fn report(&mut self) -> Outcome {
        if self.is_due() { tell(&Report::Here) } else { Ok(()) }
    }

    /// Stays on the bus until told to leave.
    pub(super) fn stay(&mut self) -> Outcome {
        while !matches!(self.look(), Next::Leave) {
            self.report()?;
            std::thread::sleep(WORD / 10);
        }
        Ok(())
    }
}

impl Pace {
    fn slow_down(&self, pause_us: u64, time: Duration) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + time);
        self.pause_us.store(pause_us, Relaxed);
    }

    /// Pauses, if the process is to be slow just now.
    pub(super) fn pause(&self) {
        let pause_us = self.pause_us.load(Relaxed);
        if pause_us == 0 {
            return;
        }
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.is_some_and(|until| Instant::now() < until) {
            std::thread::sleep(Duration::from_micros(pause_us));
        } else {
            self.pause_us.store(0, Relaxed);
        }
    }
}
