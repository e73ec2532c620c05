//! The demo's subscribing process.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use super::super::Outcome;
use super::FILTER;
use super::protocol::{Order, Progress, Report, tell};
use crate::{Message, Node, NodeId, RecvError};

/// How long a look at the bus takes at most: orders wait for it.
const LOOK: Duration = Duration::from_millis(50);
/// Messages between two looks at the clock and the orders.
const MANY: usize = 1024;
/// How often the count is reported.
const REPORT: Duration = Duration::from_millis(100);
/// After so long without a message, what is missing is lost.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn run(node: &Node, orders: &Receiver<Order>) -> Outcome {
    let mut updates = node.subscriber::<Progress>(FILTER)?;
    tell(&Report::Ready)?;

    let mut ledger = Ledger::default();
    let mut expected: Option<BTreeMap<u32, u64>> = None;
    let mut report = Instant::now() + REPORT;
    let mut heard = Instant::now();
    loop {
        let first = updates.recv_timeout(LOOK);
        if !matches!(first, Ok(None)) {
            heard = Instant::now();
        }
        ledger.take(first)?;
        for _ in 0..MANY {
            match updates.try_recv() {
                Ok(None) => break,
                update => ledger.take(update)?,
            }
        }
        let now = Instant::now();
        if now >= report {
            tell(&Report::Count { messages: ledger.received(), peers: node.peers().len() })?;
            report = now + REPORT;
        }
        match orders.try_recv() {
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(()),
            Ok(Order::Finish { sent }) => expected = Some(sent),
            Ok(_) => {}
        }
        let complete = |sent: &BTreeMap<u32, u64>| {
            sent.iter().all(|(task, sent)| ledger.by_task.get(task).is_some_and(|got| got >= sent))
        };
        if expected.as_ref().is_some_and(|sent| complete(sent) || heard.elapsed() > PATIENCE) {
            break;
        }
    }
    let Ledger { by_task, out_of_order, .. } = ledger;
    tell(&Report::Received { by_task, out_of_order })?;
    // The node stays until it is dismissed, like everybody's.
    let _ = orders.recv();
    Ok(())
}

/// What has arrived, and what should come next.
#[derive(Debug, Default)]
struct Ledger {
    by_task: BTreeMap<u32, u64>,
    /// The sequence that each worker's next message has, if none is lost.
    next: HashMap<NodeId, u64>,
    out_of_order: u64,
}

impl Ledger {
    fn take(&mut self, update: Result<Option<Message<Progress>>, RecvError>) -> Outcome {
        match update {
            Ok(Some(update)) => {
                self.note(update.source().id(), update.sequence(), &update);
                Ok(())
            }
            // What is missing shows in the counts.
            Ok(None) | Err(RecvError::Lagged { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn note(&mut self, source: NodeId, sequence: u64, update: &Progress) {
        let next = self.next.entry(source).or_default();
        // A gap is a loss, told by the counts. The worker counts, too: both have to agree.
        if sequence < *next || update.counter != sequence {
            self.out_of_order += 1;
        }
        *next = (*next).max(sequence + 1);
        *self.by_task.entry(update.task).or_default() += 1;
    }

    fn received(&self) -> u64 {
        self.by_task.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(counter: u64) -> Progress {
        Progress { task: 1, step: "read".into(), done: 0, total: 1, counter }
    }

    #[test]
    fn repeated_and_swapped_messages_are_out_of_order_and_gaps_are_not() {
        let (mut ledger, source) = (Ledger::default(), NodeId([7; 16]));
        for sequence in [0, 1, 2, 5, 4, 5, 6] {
            ledger.note(source, sequence, &progress(sequence));
        }
        assert_eq!((ledger.received(), ledger.out_of_order), (7, 2));
        ledger.note(source, 7, &progress(8));
        assert_eq!(ledger.out_of_order, 3, "counter and sequence disagree");
    }
}
