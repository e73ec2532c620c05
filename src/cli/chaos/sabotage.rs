//! What a subscriber tells of its messages; or, if so asked, what it does not tell as it was: whoever judges has to
//! notice.

use clap::ValueEnum;

use super::protocol::{Run, Stream};

/// Every so many messages something goes wrong.
const EVERY: u64 = 100;

/// A way to tell something other than what arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Sabotage {
    /// Forget a message
    Drop,
    /// Tell two messages in the wrong order
    Reorder,
    /// Tell a message twice
    Duplicate,
}

/// What arrived since the last report.
pub(super) struct Ledger {
    runs: Vec<Run>,
    sabotage: Option<Sabotage>,
    count: u64,
    /// To be told after the next one of its stream.
    held: Option<(u64, Stream, u64)>,
}

impl Ledger {
    pub(super) fn new(sabotage: Option<Sabotage>) -> Self {
        Self { runs: Vec::new(), sabotage, count: 0, held: None }
    }

    pub(super) fn note(&mut self, life: u64, stream: Stream, number: u64) {
        self.count += 1;
        let is_struck = self.count.is_multiple_of(EVERY);
        match self.sabotage {
            Some(Sabotage::Drop) if is_struck => return,
            Some(Sabotage::Reorder) if is_struck && self.held.is_none() => {
                self.held = Some((life, stream, number));
                return;
            }
            Some(Sabotage::Duplicate) if is_struck => self.put(life, stream, number),
            _ => {}
        }
        self.put(life, stream, number);
        if let Some((life, stream, number)) = self.held.take_if(|held| (held.0, held.1) == (life, stream)) {
            self.put(life, stream, number);
        }
    }

    /// What arrived, in the order of each stream.
    pub(super) fn take(&mut self) -> Vec<Run> {
        std::mem::take(&mut self.runs)
    }

    fn put(&mut self, life: u64, stream: Stream, number: u64) {
        let same = |run: &&mut Run| run.life == life && run.stream == stream;
        match self.runs.iter_mut().rev().find(same) {
            Some(run) if run.end == number => run.end += 1,
            _ => self.runs.push(Run { life, stream, first: number, end: number + 1 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sabotage: Option<Sabotage>) -> Vec<(u64, u64)> {
        let mut ledger = Ledger::new(sabotage);
        for number in 0..150 {
            ledger.note(1, Stream::Raw, number);
        }
        ledger.take().iter().map(|run| (run.first, run.end)).collect()
    }

    #[test]
    fn only_sabotage_changes_what_is_told() {
        assert_eq!(told(None), [(0, 150)]);
        assert_eq!(told(Some(Sabotage::Drop)), [(0, 99), (100, 150)]);
        assert_eq!(told(Some(Sabotage::Duplicate)), [(0, 100), (99, 150)]);
        assert_eq!(told(Some(Sabotage::Reorder)), [(0, 99), (100, 101), (99, 100), (101, 150)]);
    }

    #[test]
    fn streams_are_told_apart() {
        let mut ledger = Ledger::new(None);
        for number in 0..3 {
            ledger.note(1, Stream::Raw, number);
            ledger.note(1, Stream::Typed, number);
            ledger.note(2, Stream::Raw, number + 5);
        }
        let runs: Vec<_> =
            ledger.take().iter().map(|run| (run.life, run.stream, run.first, run.end)).collect();
        assert_eq!(runs, [(1, Stream::Raw, 0, 3), (1, Stream::Typed, 0, 3), (2, Stream::Raw, 5, 8)]);
        assert!(ledger.take().is_empty());
    }
}
