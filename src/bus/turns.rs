//! Whose turn it is: the order in which a reading port looks at its logs.
//!
//! The logs stand in one list, those of the highest priority first, those of one priority (a *class*) in the
//! order in which they were attached. The rule:
//!
//! 1. A record is taken from the highest class that has one. Within a class each log has its turn: the look
//!    begins after the log that had something last.
//! 2. After [`RUN`] records in a row from classes above the lowest, the next one comes from a class below
//!    that of the last one, if any has something. These classes take turns as well: the first that has
//!    something among those below the class that had such a turn last, else from the highest of them on.
//! 3. A record from the lowest class, such a turn (taken or not), and a look that found nothing begin a new
//!    row.
//!
//! A port may take a record out of turn from a log of the highest class ([`Turn::first`]), where it sees to it that the
//! others have none, or soon their turn; it counts in rule 2 as all others do.
//!
//! So a class that has something waits for at most `RUN + 1` records for each class but the highest.

use std::ops::Range;

/// Records taken in a row before one comes from a lower class.
pub(super) const RUN: u32 = 16;

/// The order of a port's logs. It knows their places in the port's list, not the logs.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// From the highest priority to the lowest; none is empty.
    classes: Vec<Class>,
    /// Records in a row from classes above the lowest.
    run: u32,
    /// Priority of the last of them.
    last: u8,
    /// Priority of the class that had the last turn of rule 2; 0, below which there is none, at first.
    below: u8,
}

#[derive(Debug)]
struct Class {
    priority: u8,
    /// Its logs are those from `start` to before `end`.
    start: usize,
    end: usize,
    /// Where the next look at it begins; `end` stands for `start`.
    next: usize,
}

/// Where something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    /// The log's place in the port's list.
    log: usize,
    class: usize,
    /// By rule 2.
    below: bool,
}

impl Turn {
    /// At a log of the highest class that was looked at out of turn.
    #[inline(always)]
    pub(super) fn first(log: usize) -> Self {
        Self { log, class: 0, below: false }
    }

    #[inline(always)]
    pub(super) fn log(self) -> usize {
        self.log
    }

    /// Whether the log is of the highest class.
    #[inline(always)]
    pub(super) fn is_highest(self) -> bool {
        self.class == 0
    }
}

impl Turns {
    /// A log of this priority is there; its place in the list, where it is to be inserted.
    pub(super) fn insert(&mut self, priority: u8) -> usize {
        let at = self.classes.partition_point(|class| class.priority > priority);
        if self.classes.get(at).is_none_or(|class| class.priority != priority) {
            let start = at.checked_sub(1).map_or(0, |above| self.classes[above].end);
            self.classes.insert(at, Class { priority, start, end: start, next: start });
        }
        let place = self.classes[at].end;
        self.classes[at].end += 1;
        for lower in &mut self.classes[at + 1..] {
            (lower.start, lower.end, lower.next) = (lower.start + 1, lower.end + 1, lower.next + 1);
        }
        place
    }

    /// The log at this place is no longer there; those after it move up.
    pub(super) fn remove(&mut self, log: usize) {
        let at = self.classes.partition_point(|class| class.end <= log);
        let Some(class) = self.classes.get_mut(at) else { return };
        class.end -= 1;
        if class.next > log {
            class.next -= 1;
        }
        for lower in &mut self.classes[at + 1..] {
            (lower.start, lower.end, lower.next) = (lower.start - 1, lower.end - 1, lower.next - 1);
        }
        if self.classes[at].start == self.classes[at].end {
            self.classes.remove(at);
        }
        // The records of one log, which is of the lowest class, need not be told: by rule 3 each begins a new row.
        if self.classes.last().is_none_or(|last| last.end == 1) {
            self.run = 0;
        }
    }

    /// Looks at each log at most twice, in the order of the rule, until `look` finds something. If that is
    /// a record, the caller says so with [`Turns::took`]. `look` is told whether it is a turn of rule 2: as long
    /// as higher classes have something, it is the only look that a lower class gets.
    #[inline]
    pub(super) fn find<T>(&mut self, mut look: impl FnMut(usize, bool) -> Option<T>) -> Option<(Turn, T)> {
        if self.is_due_below() {
            if let Some(found) = self.find_below(&mut |log| look(log, true)) {
                return Some(found);
            }
            self.run = 0;
        }
        for (at, class) in self.classes.iter().enumerate() {
            if let Some((log, found)) = class.find(&mut |log| look(log, false)) {
                return Some((Turn { log, class: at, below: false }, found));
            }
        }
        self.run = 0;
        None
    }

    /// Whether it is the turn of a lower class, by rule 2.
    #[inline(always)]
    pub(super) fn is_due_below(&self) -> bool {
        self.run >= RUN
    }

    /// The logs of the highest class.
    pub(super) fn highest(&self) -> Range<usize> {
        self.classes.first().map_or(0..0, |class| class.start..class.end)
    }

    #[cold]
    fn find_below<T>(&self, look: &mut impl FnMut(usize) -> Option<T>) -> Option<(Turn, T)> {
        let first = self.classes.partition_point(|class| class.priority >= self.last);
        let next = self.classes.partition_point(|class| class.priority >= self.below).max(first);
        (next..self.classes.len()).chain(first..next).find_map(|class| {
            let (log, found) = self.classes[class].find(look)?;
            Some((Turn { log, class, below: true }, found))
        })
    }

    /// A record was taken there, or something else that is not to have each turn from now on.
    #[inline]
    pub(super) fn took(&mut self, turn: Turn) {
        let lowest = turn.class + 1 == self.classes.len();
        let class = &mut self.classes[turn.class];
        class.next = turn.log + 1;
        if turn.below {
            self.below = class.priority;
        }
        self.last = class.priority;
        self.run = if lowest || turn.below { 0 } else { self.run + 1 };
    }
}

impl Class {
    /// Where the next look begins.
    #[inline(always)]
    fn first(&self) -> usize {
        if self.next < self.end { self.next } else { self.start }
    }

    #[inline(always)]
    fn find<T>(&self, look: &mut impl FnMut(usize) -> Option<T>) -> Option<(usize, T)> {
        let first = self.first();
        (first..self.end).chain(self.start..first).find_map(|log| Some((log, look(log)?)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// Logs as a port has them: `(name, records)`, in the order that `Turns` says.
    #[derive(Default)]
    struct Port {
        turns: Turns,
        logs: Vec<(u32, u32)>,
    }

    impl Port {
        fn add(&mut self, name: u32, priority: u8, records: u32) {
            self.logs.insert(self.turns.insert(priority), (name, records));
        }

        fn remove(&mut self, name: u32) {
            let place = self.logs.iter().position(|(other, _)| *other == name).unwrap();
            self.turns.remove(place);
            self.logs.remove(place);
        }

        fn take(&mut self) -> Option<u32> {
            let (turn, ()) = self.turns.find(|log, _| (self.logs[log].1 > 0).then_some(()))?;
            self.turns.took(turn);
            self.logs[turn.log].1 -= 1;
            Some(self.logs[turn.log].0)
        }
    }

    /// The rule, by its words: logs in any order, nothing remembered but what the rule names.
    #[derive(Default)]
    struct Model {
        /// `(priority, logs)`; of a class, the log whose turn it is next first.
        classes: Vec<(u8, VecDeque<(u32, u32)>)>,
        row: Vec<u8>,
        turn: u8,
    }

    impl Model {
        fn take_from(&mut self, priority: u8) -> Option<u32> {
            let (_, logs) = self.classes.iter_mut().find(|(class, _)| *class == priority)?;
            let at = logs.iter().position(|(_, records)| *records > 0)?;
            logs.rotate_left(at + 1);
            let (name, records) = logs.back_mut()?;
            *records -= 1;
            Some(*name)
        }

        fn take(&mut self) -> Option<u32> {
            let mut priorities: Vec<u8> = self.classes.iter().map(|(priority, _)| *priority).collect();
            priorities.sort_by(|a, b| b.cmp(a));
            if self.row.len() == RUN as usize {
                let last = *self.row.last()?;
                self.row.clear();
                let (lower, upper): (Vec<u8>, Vec<u8>) =
                    priorities.iter().filter(|class| **class < last).partition(|class| **class < self.turn);
                for class in lower.into_iter().chain(upper) {
                    if let Some(name) = self.take_from(class) {
                        self.turn = class;
                        return Some(name);
                    }
                }
            }
            for class in &priorities {
                if let Some(name) = self.take_from(*class) {
                    if Some(class) == priorities.last() {
                        self.row.clear()
                    } else {
                        self.row.push(*class)
                    }
                    return Some(name);
                }
            }
            self.row.clear();
            None
        }
    }

    #[test]
    fn the_highest_go_first_with_a_share_for_each_lower_class() {
        let mut port = Port::default();
        for (name, priority) in [(1, 10), (3, 255), (2, 128)] {
            port.add(name, priority, 1000);
        }
        let taken: Vec<u32> = std::iter::from_fn(|| port.take()).take(4 * 17).collect();
        for (row, low) in taken.chunks(17).zip([2, 1, 2, 1]) {
            assert_eq!(row, [&[3; 16][..], &[low]].concat());
        }
    }

    #[test]
    fn equals_take_turns_and_logs_come_and_go() {
        let mut port = Port::default();
        (0..3).for_each(|name| port.add(name, 7, 10));
        port.add(9, 1, 1);
        assert_eq!([port.take(), port.take()], [Some(0), Some(1)]);
        port.remove(0);
        assert_eq!([port.take(), port.take()], [Some(2), Some(1)]);
        port.add(4, 200, 1);
        port.remove(1);
        assert_eq!([port.take(), port.take(), port.take()], [Some(4), Some(2), Some(2)]);
        port.remove(2);
        assert_eq!([port.take(), port.take()], [Some(9), None]);
        port.remove(9);
        port.remove(4);
        assert!(port.turns.classes.is_empty() && port.take().is_none());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write(usize, u32),
        Take(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let write = (0..8usize, 0..60u32).prop_map(|(log, records)| Step::Write(log, records));
        prop::collection::vec(prop_oneof![write, (1..80u32).prop_map(Step::Take)], 1..60)
    }

    proptest! {
        #[test]
        fn records_are_taken_as_the_rule_says(
            priorities in prop::collection::vec(prop::sample::select(vec![0u8, 1, 128, 254, 255]), 8),
            steps in steps(),
        ) {
            let (mut port, mut model) = (Port::default(), Model::default());
            for (name, priority) in (0..).zip(&priorities) {
                port.add(name, *priority, 0);
                match model.classes.iter_mut().find(|(class, _)| class == priority) {
                    Some((_, logs)) => logs.push_back((name, 0)),
                    None => model.classes.push((*priority, VecDeque::from([(name, 0)]))),
                }
            }
            for step in steps {
                match step {
                    Step::Write(log, records) => {
                        let logs = model.classes.iter_mut().flat_map(|(_, logs)| logs);
                        for (name, left) in logs.chain(&mut port.logs) {
                            if *name == log as u32 {
                                *left += records;
                            }
                        }
                    }
                    Step::Take(times) => (0..times).try_for_each(|_| {
                        prop_assert_eq!(port.take(), model.take());
                        Ok(())
                    })?,
                }
            }
        }

        #[test]
        fn no_class_starves(
            priorities in prop::collection::btree_set(any::<u8>(), 1..6),
            written in prop::collection::vec((0..5usize, 0..40u32), 0..400),
        ) {
            let mut port = Port::default();
            for (name, priority) in (0..).zip(&priorities) {
                port.add(name, *priority, if name == 0 { u32::MAX } else { 0 });
            }
            let bound = (RUN + 1) * (priorities.len() as u32 - 1).max(1);
            let mut passed = [0; 5]; // how often a log that has something was passed over
            for (log, records) in written {
                for (name, left) in &mut port.logs {
                    *left += if *name == log as u32 && log > 0 { records } else { 0 };
                }
                for _ in 0..5 {
                    let waiting: Vec<u32> =
                        port.logs.iter().filter(|(_, left)| *left > 0).map(|(name, _)| *name).collect();
                    let taken = port.take();
                    for name in 0..5 {
                        let over = waiting.contains(&name) && taken != Some(name);
                        let passed = &mut passed[name as usize];
                        *passed = if over { *passed + 1 } else { 0 };
                        prop_assert!(*passed < bound, "log {} was passed over {} times", name, passed);
                    }
                }
            }
        }
    }
}
