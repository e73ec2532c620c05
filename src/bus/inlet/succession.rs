//! Logs that continue each other: a publisher that evicts a reader goes on in another log.
//!
//! ```text
//!   a log is read to its end ──▶ its successor is here:   read on in it
//!                            └─▶ it is not: cut off, the log is let go of; its writer then gives this port another one
//! ```
//!
//! A log that continues another says so when it is attached, and waits here until that is read.

use std::sync::Arc;

use super::Inlet;
use crate::bus::core::Command;
use crate::bus::error::RecvError;
use crate::bus::reading::{LogKey, Origin, Source};

/// What is to be read later.
#[derive(Default)]
pub(super) struct Succession {
    /// Logs that continue others, with those.
    heirs: Vec<(LogKey, Source)>,
    /// Logs that were read to their end, and were closed for others that this port has not been given.
    cut_off: Vec<CutOff>,
}

struct CutOff {
    key: LogKey,
    /// Number of the message that would have been next, if it is known.
    due: Option<u64>,
    origin: Arc<Origin>,
}

impl Succession {
    /// Logs that are not read yet.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Source> {
        self.heirs.iter().map(|(_, heir)| heir)
    }

    /// Publishers that will attach this port again.
    pub(super) fn count_cut_off(&self) -> usize {
        self.cut_off.len()
    }

    pub(super) fn waiting_mut(&mut self) -> impl Iterator<Item = &mut Source> {
        self.heirs.iter_mut().map(|(_, heir)| heir)
    }
}

impl Inlet {
    /// A log is there: to be read now, unless it continues one that is not read to its end.
    pub(super) fn admit(&mut self, source: Source) {
        let Some(before) = source.predecessor else { return self.insert_late(source) };
        // Of a node that was lost and found, this port may still read the same log as an earlier reader.
        let is_before = |key: &LogKey| key.node == source.key.node && key.log == before;
        let cut_off = &mut self.succession.cut_off;
        if let Some(at) = cut_off.iter().position(|cut_off| is_before(&cut_off.key)) {
            let CutOff { due, origin, .. } = cut_off.swap_remove(at);
            let missed = self.follow(due, &origin, source);
            return self.failed.extend(missed);
        }
        let read = self.sources.iter().chain(self.succession.waiting()).map(|source| source.key);
        match read.filter(is_before).max_by_key(|key| key.number) {
            Some(before) => self.succession.heirs.push((before, source)),
            None => self.insert_late(source), // of a log that this port could not read
        }
    }

    /// Reads a log that continues none, after what was missed of it.
    fn insert_late(&mut self, source: Source) {
        match source.due {
            Some(due) => {
                let origin = source.origin.clone();
                let missed = self.follow(Some(due), &origin, source);
                self.failed.extend(missed);
            }
            None => self.insert(source),
        }
    }

    fn insert(&mut self, source: Source) {
        let place = self.search.insert(source.origin.priority);
        self.sources.insert(place, source);
    }

    /// A log ends: goes on with the one that continues it, after what the user has to be told.
    ///
    /// `closed_for`: the log was closed for another one, and read to its end.
    pub(super) fn succeed(&mut self, ended: &Source, closed_for: bool) -> Option<RecvError> {
        let due = ended.reader.expected();
        let heirs = &mut self.succession.heirs;
        if let Some(at) = heirs.iter().position(|(before, _)| *before == ended.key) {
            let (_, heir) = heirs.swap_remove(at);
            return self.follow(due, &ended.origin, heir);
        }
        if ended.ended && (closed_for || ended.reader.is_overtaken()) {
            return Some(self.lagged(&ended.origin, 0)); // nobody is left to say how many
        }
        if !closed_for {
            return None;
        }
        let cut_off = CutOff { key: ended.key, due, origin: ended.origin.clone() };
        self.succession.cut_off.push(cut_off);
        self.node.tell(Command::CutOff { port: self.shared.port, key: ended.key });
        None
    }

    /// Reads `source` on from where the log before it ended; what lies between is missed.
    fn follow(&mut self, due: Option<u64>, origin: &Arc<Origin>, mut source: Source) -> Option<RecvError> {
        let first = source.reader.expected();
        let missed = match (due, first) {
            (Some(due), Some(first)) if first > due => Some(self.lagged(origin, first - due)),
            (Some(due), _) => {
                source.reader.expect(due); // what its writer could not tell, its first message shows
                None
            }
            _ => None,
        };
        self.insert(source);
        missed
    }

    /// The writer of a log that was cut off is gone, without having attached this port again.
    pub(super) fn abandon(&mut self, key: LogKey) {
        let cut_off = &mut self.succession.cut_off;
        if let Some(at) = cut_off.iter().position(|cut_off| cut_off.key == key) {
            let origin = cut_off.swap_remove(at).origin;
            let lagged = self.lagged(&origin, 0);
            self.failed.push(lagged);
        }
    }

    /// Messages are missed; 0: it is not known how many.
    pub(super) fn lagged(&self, origin: &Origin, missed: u64) -> RecvError {
        self.shared.counters.drop(missed);
        let topic = origin.topic.as_deref().map(str::to_owned);
        RecvError::Lagged { missed, source_node: origin.node.clone(), topic }
    }
}
