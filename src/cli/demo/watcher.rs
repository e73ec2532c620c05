//! How the planner and the monitor receive: all events, and all broadcasts.

use std::time::{Duration, Instant};

use super::super::Outcome;
use super::ledger::{Ledger, Stream};
use super::protocol::{AllSent, Finished, Kinds, Notice, Progress};
use super::worker::passed_over;
use super::{FILTER, PATIENCE};
use crate::{Node, Subscriber};

/// How long a look at the bus takes at most: orders wait for it.
const LOOK: Duration = Duration::from_millis(50);
/// Messages between two looks at the clock and the orders.
const MANY: usize = 1024;

pub(super) struct Watcher {
    updates: Subscriber<Progress>,
    notices: Subscriber<Notice>,
    ledger: Ledger,
    broadcasts: Stream,
    heard: Instant,
    /// Nothing came at the last look.
    is_quiet: bool,
}

impl Watcher {
    pub(super) fn open(node: &Node) -> Outcome<Self> {
        Ok(Self {
            updates: node.subscriber(FILTER)?,
            notices: node.broadcasts()?,
            ledger: Ledger::default(),
            broadcasts: Stream::default(),
            heard: Instant::now(),
            is_quiet: false,
        })
    }

    /// Takes what arrives in a moment.
    pub(super) fn look(&mut self) -> Outcome {
        let first = self.updates.recv_timeout(LOOK);
        self.is_quiet = matches!(first, Ok(None));
        if !self.is_quiet {
            self.heard = Instant::now();
        }
        self.ledger.take(first)?;
        for _ in 0..MANY {
            match self.updates.try_recv() {
                Ok(None) => break,
                update => self.ledger.take(update)?,
            }
        }
        while let Some(notice) = passed_over(self.notices.try_recv())? {
            self.broadcasts.note(notice.number);
        }
        Ok(())
    }

    /// Whether all of this has arrived, and what the killed worker had no time to tell of, too; or waiting for
    /// the rest is of no use.
    pub(super) fn is_done(&self, sent: &AllSent) -> bool {
        let complete = self.ledger.has(&sent.events) && self.broadcasts.next >= sent.broadcasts;
        self.is_quiet && (complete || self.heard.elapsed() > PATIENCE)
    }

    pub(super) fn received(&self) -> Kinds {
        let (event, broadcast) = (self.ledger.received(), self.broadcasts.received);
        Kinds { event, broadcast, ..Kinds::default() }
    }

    pub(super) fn finished(&self) -> Finished {
        self.ledger.finished(self.broadcasts.clone())
    }
}
