//! One publisher's messages of one stream, as they arrived at one subscriber: each once, in order, from some first one
//! on.

use std::fmt;

/// What arrived so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Track {
    /// The subscriber was attached when this number was due: nothing from there on may be missing.
    due: Option<u64>,
    first: Option<u64>,
    /// The number that comes next.
    next: u64,
    /// Numbers that were passed over.
    gaps: Vec<(u64, u64)>,
}

/// What is wrong with what arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Lost {
        from: u64,
        to: u64,
    },
    OutOfOrder {
        from: u64,
        to: u64,
    },
    Twice {
        from: u64,
        to: u64,
    },
    /// So far; the rest may be on its way.
    Missing {
        from: u64,
        to: u64,
    },
    NeverPublished {
        from: u64,
        to: u64,
    },
}

impl Track {
    pub(super) fn is_due_from(&mut self, number: u64) {
        self.due.get_or_insert(number);
    }

    /// Notes that these have arrived, one after the other.
    pub(super) fn take(&mut self, from: u64, to: u64) -> Result<(), Fault> {
        let Some(first) = self.first else {
            (self.first, self.next) = (Some(from), to);
            return match self.due {
                Some(due) if due < from => {
                    self.gaps.push((due, from));
                    Err(Fault::Lost { from: due, to: from })
                }
                _ => Ok(()),
            };
        };
        let next = self.next;
        self.next = next.max(to);
        if from == next {
            return Ok(());
        }
        if from > next {
            self.gaps.push((next, from));
            return Err(Fault::Lost { from: next, to: from });
        }
        let is_late = from < first || self.gaps.iter().any(|(start, end)| (*start..*end).contains(&from));
        Err(if is_late { Fault::OutOfOrder { from, to } } else { Fault::Twice { from, to: to.min(next) } })
    }

    /// Whether everything is there, now that the publisher has said for the last time how many messages were taken
    /// (`accepted`), and how many may have been without its word (`most`).
    pub(super) fn settle(&self, accepted: u64, most: u64) -> Result<(), Fault> {
        if self.next > most {
            return Err(Fault::NeverPublished { from: most, to: self.next });
        }
        let start = match (self.first, self.due) {
            (Some(_), _) => self.next,
            (None, Some(due)) => due,
            (None, None) => return Ok(()), // it came late
        };
        if start < accepted { Err(Fault::Missing { from: start, to: accepted }) } else { Ok(()) }
    }
}

impl Fault {
    /// Whether waiting does not help.
    pub(super) fn is_final(&self) -> bool {
        !matches!(self, Self::Missing { .. })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, from, to) = match self {
            Self::Lost { from, to } => ("lost", from, to),
            Self::OutOfOrder { from, to } => ("out of order", from, to),
            Self::Twice { from, to } => ("twice", from, to),
            Self::Missing { from, to } => ("missing at the end", from, to),
            Self::NeverPublished { from, to } => ("never published", from, to),
        };
        write!(f, "messages {from} to {} {what}", to.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(due: Option<u64>, runs: &[(u64, u64)]) -> (Track, Vec<Fault>) {
        let mut track = Track { due, ..Track::default() };
        let faults = runs.iter().filter_map(|(from, to)| track.take(*from, *to).err()).collect();
        (track, faults)
    }

    #[test]
    fn each_message_arrives_once_and_in_order() {
        use Fault::{Lost, OutOfOrder, Twice};
        for (runs, faults) in [
            (&[(0, 5), (5, 6), (6, 9)][..], vec![]),
            (&[(0, 5), (6, 9)], vec![Lost { from: 5, to: 6 }]),
            (&[(0, 5), (4, 9)], vec![Twice { from: 4, to: 5 }]),
            (&[(0, 5), (6, 7), (5, 6), (7, 9)], vec![Lost { from: 5, to: 6 }, OutOfOrder { from: 5, to: 6 }]),
            (&[(1, 2), (0, 1)], vec![Lost { from: 0, to: 1 }, OutOfOrder { from: 0, to: 1 }]),
        ] {
            assert_eq!(track(Some(0), runs).1, faults, "{runs:?}");
        }
        assert_eq!(track(None, &[(7, 9)]).1, []);
        assert_eq!(track(Some(8), &[(7, 9)]).1, []);
        assert_eq!(track(Some(6), &[(7, 9)]).1, [Lost { from: 6, to: 7 }]);
    }

    #[test]
    fn at_the_end_everything_is_there_and_nothing_else() {
        let (whole, _) = track(None, &[(3, 9)]);
        assert_eq!(whole.settle(9, 10), Ok(()));
        assert_eq!(whole.settle(8, 9), Ok(()));
        assert_eq!(whole.settle(10, 11), Err(Fault::Missing { from: 9, to: 10 }));
        assert_eq!(whole.settle(7, 8), Err(Fault::NeverPublished { from: 8, to: 9 }));
        assert_eq!(track(None, &[]).0.settle(5, 6), Ok(()), "it came late");
        assert_eq!(track(Some(4), &[]).0.settle(5, 6), Err(Fault::Missing { from: 4, to: 5 }));
        assert_eq!(track(Some(5), &[]).0.settle(5, 6), Ok(()));
    }
}
