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
        if ended.ended && (closed_for || ended.reader.is_overtaken() || ended.is_loss_untold()) {
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
                source.untold = first.is_none().then_some(due);
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::bus::Bus;
    use crate::bus::error::RecvError;
    use crate::bus::inlet::Inlet;
    use crate::bus::reading::{Purpose, Source};
    use crate::bus::topic::Filter;
    use crate::frame::PortUp;
    use crate::wake::Wait;

    const DEADLINE: Duration = Duration::from_secs(30);

    /// It was told of nothing if the writer of the log that it went on in died before another message.
    #[test]
    fn a_loss_whose_size_only_the_next_message_shows_is_told_without_one_too() {
        for more in [0, 1] {
            let node = Bus::private().unwrap().join("node").unwrap();
            let mut publisher = node.raw_publisher("t").unwrap();
            (0..5).for_each(|n| publisher.publish(&[n]).unwrap());
            let purpose = Purpose::Subscriber { lossy: false };
            let filters = vec![Filter::new("t").unwrap()];
            let mut inlet =
                Inlet::open(&node.shared, purpose, filters, PortUp::DEFAULT_PRIORITY, Wait::Park).unwrap();
            let since = Instant::now();
            let mut source: Source = loop {
                assert!(inlet.next().unwrap().is_none() && since.elapsed() < DEADLINE);
                if !inlet.sources.is_empty() {
                    inlet.search.remove(0);
                    break inlet.sources.remove(0);
                }
            };
            // As if it continued a log of which three messages were read, and its writer had been publishing when it was
            // asked which one is next: then it cannot tell.
            source.reader.expect_any();
            source.due = Some(3);
            inlet.admit(source);
            (0..more).for_each(|_| publisher.publish(&[5]).unwrap());
            inlet.sources[0].ended = true; // its writer has died
            let told = inlet.next().unwrap_err();
            assert!(matches!(*told, RecvError::Lagged { missed, .. } if missed == 2 * more), "{told}");
        }
    }
}
