//! What has arrived, and what should come next.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::super::Outcome;
use super::protocol::{Finished, Progress};
use crate::{Message, NodeId, RecvError};

/// Messages of one sender, which numbers them from 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stream {
    /// The number of the first that came: not 0 for whoever came late.
    pub(super) first: Option<u64>,
    /// The number that is due.
    pub(super) next: u64,
    pub(super) received: u64,
    pub(super) out_of_order: u64,
}

impl Stream {
    pub(super) fn note(&mut self, number: u64) {
        let is_first = self.first.is_none();
        self.first.get_or_insert(number);
        // A gap is a loss, not a disorder; it shows in the count.
        if !is_first && number < self.next {
            self.out_of_order += 1;
        }
        self.next = self.next.max(number.saturating_add(1));
        self.received += 1;
    }

    /// How many of `sent` are missing; of a reader that came late, from its first one on.
    pub(super) fn lost(&self, sent: u64, came_late: bool) -> u64 {
        let first = if came_late { self.first.unwrap_or(sent) } else { 0 };
        sent.saturating_sub(first).saturating_sub(self.received)
    }
}

/// All events that a subscriber got.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    by_node: HashMap<NodeId, Stream>,
}

impl Ledger {
    pub(super) fn take(&mut self, update: Result<Option<Message<Progress>>, RecvError>) -> Outcome {
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
        let stream = self.by_node.entry(source).or_default();
        stream.note(sequence);
        // The worker counts, too: both have to agree.
        if update.counter != sequence {
            stream.out_of_order += 1;
        }
    }

    pub(super) fn received(&self) -> u64 {
        self.by_node.values().map(|stream| stream.received).sum()
    }

    /// Whether all of this is there.
    pub(super) fn has(&self, events: &BTreeMap<String, u64>) -> bool {
        let streams = self.streams();
        events.iter().all(|(node, sent)| streams.get(node).map_or(0, |stream| stream.received) >= *sent)
    }

    pub(super) fn streams(&self) -> BTreeMap<String, Stream> {
        self.by_node.iter().map(|(node, stream)| (node.to_string(), stream.clone())).collect()
    }

    pub(super) fn finished(&self, broadcasts: Stream) -> Finished {
        Finished { events: self.streams(), broadcasts: Some(broadcasts), ..Finished::default() }
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
        assert_eq!((ledger.received(), ledger.by_node[&source].out_of_order), (7, 2));
        ledger.note(source, 7, &progress(8));
        assert_eq!(ledger.by_node[&source].out_of_order, 3, "counter and sequence disagree");
    }

    #[test]
    fn what_is_missing_is_lost_from_the_first_on() {
        let mut stream = Stream::default();
        assert_eq!((stream.lost(5, false), stream.lost(5, true)), (5, 0));
        for number in [2, 3, 5] {
            stream.note(number);
        }
        assert_eq!((stream.lost(6, false), stream.lost(6, true)), (3, 1));
        assert_eq!((stream.lost(8, true), stream.out_of_order), (3, 0));
    }

    #[test]
    fn a_ledger_has_what_it_received_of_each_node() {
        let (mut ledger, source) = (Ledger::default(), NodeId([7; 16]));
        ledger.note(source, 0, &progress(0));
        let sent = |node: NodeId, sent| BTreeMap::from([(node.to_string(), sent)]);
        assert!(ledger.has(&sent(source, 1)) && !ledger.has(&sent(source, 2)));
        assert!(!ledger.has(&sent(NodeId([8; 16]), 1)) && ledger.has(&sent(NodeId([8; 16]), 0)));
    }
}
