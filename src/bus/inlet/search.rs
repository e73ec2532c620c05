//! Which of several logs is looked at: whose turn it is, with few looks at those that have nothing.
//!
//! A look at each log for each record would take longer than the record. So a port remembers which logs are busy, whose
//! turns are taken as if there were no others; for each of them, or for few, it glances at the next of all logs. One that has
//! something is busy from then on. All are looked at where it may be the turn of a lower class.

use crate::bus::reading::Source;
use crate::bus::turns::{Turn, Turns};
use crate::ring::Look;

/// Looks in vain of which but one goes all the way round; the others are at the log that was busy last, and at a few of the
/// rest ([`GLANCES`]). (After a record of a lower class all go round.)
const ROUND: u32 = 64;

/// Glances for each look at a busy log in vain; one right after a record. So a port that waits for its busy log is never
/// long away from it, whatever else it reads.
const GLANCES: usize = 2;

/// Records that are taken from a log that alone is busy without a glance at another, if they were seen when its tail was
/// loaded: so what comes to an idle log waits for some nine records for each log at most.
const BURST: u32 = 8;

/// The logs of a port, by their places.
pub(super) trait Logs {
    /// What a look finds.
    type Found;

    fn count(&self) -> usize;

    /// Whether a log had more than was read, when it was looked at last.
    fn has_more(&self, log: usize) -> bool;

    /// Whether a log has no record.
    fn is_quiet(&self, log: usize) -> bool;

    /// Looks for a record; in full, also for what is none: drops, the end.
    fn look(&mut self, log: usize, full: bool) -> Option<Self::Found>;
}

impl Logs for [Source] {
    type Found = Look;

    #[inline(always)]
    fn count(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn has_more(&self, log: usize) -> bool {
        self[log].reader.has_more()
    }

    #[inline(always)]
    fn is_quiet(&self, log: usize) -> bool {
        self[log].reader.quiet()
    }

    #[inline(always)]
    fn look(&mut self, log: usize, full: bool) -> Option<Look> {
        self[log].look(full)
    }
}

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub(super) struct Search {
    turns: Turns,
    /// Logs of the highest class that had something when they were looked at last, or were not looked at yet, and the one
    /// that was the last of them: they take turns, in the order of their places.
    busy: Vec<usize>,
    /// Whose turn it is among them; at the end stands for the first.
    next: usize,
    /// By place: whether a log is among them.
    is_busy: Vec<bool>,
    /// The last record was of a lower class: those above have nothing.
    below: bool,
    /// Records of the only busy log since the last glance.
    burst: u32,
    /// The log that was glanced at last.
    glanced: usize,
    /// The log that was looked at in full last.
    full: usize,
    /// The log that has used its turn to say what was missed.
    owed: Option<usize>,
    /// The last look was one that was owed.
    paid: bool,
}

impl Search {
    /// A log of this priority is there; its place, where it is to be inserted.
    pub(super) fn insert(&mut self, priority: u8) -> usize {
        self.forget();
        self.is_busy.push(false);
        self.turns.insert(priority)
    }

    /// The log at this place is no longer there; those after it move up.
    pub(super) fn remove(&mut self, log: usize) {
        self.forget();
        self.is_busy.pop();
        self.turns.remove(log);
    }

    /// This log, which was just looked at, had something to say and no record: the next one that it has comes first. Else one
    /// of a lower class, whose turn is seldom, would have been overtaken each time, and never be read. One turn, one look: a
    /// log that is always overtaken keeps nobody from theirs.
    pub(super) fn owe(&mut self, log: usize) {
        self.owed = Some(log).filter(|_| !std::mem::take(&mut self.paid));
    }

    /// Other logs have these places now: each may be busy.
    fn forget(&mut self) {
        self.owed = None;
        self.busy.clear();
        self.is_busy.fill(false);
    }

    #[cold]
    fn begin(&mut self) {
        self.busy.extend(self.turns.highest());
        self.is_busy[..self.busy.len()].fill(true);
    }

    /// The log that alone is busy, or was: a port that waits looks there most of the time.
    #[inline(always)]
    pub(super) fn hot(&self) -> Option<usize> {
        if let ([hot], false) = (&self.busy[..], self.below) { Some(*hot) } else { None }
    }

    /// One look, after so many in vain.
    #[inline(never)]
    pub(super) fn find<L: Logs + ?Sized>(&mut self, logs: &mut L, idle: u32) -> Option<(usize, L::Found)> {
        self.paid = false;
        if let Some(log) = self.owed
            && let Some(found) = logs.look(log, false)
        {
            (self.owed, self.paid) = (None, true);
            return Some((log, found));
        }
        // It may be the turn of a lower class, by the rule or since those above have had nothing.
        if self.busy.is_empty() || self.below || self.turns.is_due_below() || idle % ROUND == ROUND - 1 {
            return self.find_round(logs, false);
        }
        if self.burst < BURST
            && let Some(hot) = self.hot()
            && logs.has_more(hot)
            && let Some(found) = logs.look(hot, false)
        {
            self.burst += 1;
            self.turns.took(Turn::first(hot));
            return Some((hot, found));
        }
        self.burst = 0;
        for _ in 0..if idle == 0 { 1 } else { GLANCES } {
            let Some(log) = self.glance(logs) else { continue };
            if !self.turns.highest().contains(&log) {
                return self.find_round(logs, false);
            }
            self.add_busy(log);
            break;
        }
        loop {
            if self.next >= self.busy.len() {
                self.next = 0;
            }
            let log = self.busy[self.next];
            if let Some(found) = logs.look(log, false) {
                self.next += 1;
                self.turns.took(Turn::first(log));
                return Some((log, found));
            }
            if self.busy.len() == 1 {
                return None;
            }
            self.busy.remove(self.next);
            self.is_busy[log] = false;
        }
    }

    /// One look at each log as far as the first that has something, in the order of the turns.
    pub(super) fn find_round<L: Logs + ?Sized>(
        &mut self,
        logs: &mut L,
        full: bool,
    ) -> Option<(usize, L::Found)> {
        self.paid = false;
        if self.busy.is_empty() {
            self.begin();
        }
        let (turn, found) = self.turns.find(|log, below| logs.look(log, full || below))?;
        let log = turn.log();
        self.below = !turn.is_highest();
        if !self.below {
            if !self.is_busy[log] {
                self.add_busy(log);
            }
            self.next = self.busy.partition_point(|busy| *busy <= log);
        }
        self.turns.took(turn);
        Some((log, found))
    }

    /// A look in full at the next log in turn that has no record: those that have tell the rest once these are read. What
    /// it finds is mostly no record, and nobody's turn.
    #[cold]
    pub(super) fn find_rest<L: Logs + ?Sized>(&mut self, logs: &mut L) -> Option<(usize, L::Found)> {
        self.paid = false;
        self.full = if self.full + 1 < logs.count() { self.full + 1 } else { 0 };
        if self.full >= logs.count() || !logs.is_quiet(self.full) {
            return None;
        }
        Some((self.full, logs.look(self.full, true)?))
    }

    /// The next log, if it has something and is not looked at anyway.
    #[inline(always)]
    fn glance<L: Logs + ?Sized>(&mut self, logs: &L) -> Option<usize> {
        self.glanced = if self.glanced + 1 < logs.count() { self.glanced + 1 } else { 0 };
        let log = self.glanced;
        (!self.is_busy[log] && !logs.is_quiet(log)).then_some(log)
    }

    /// One more is busy. They stand in the order of their places, in which a round goes, too: so nobody's turn is passed over.
    #[cold]
    fn add_busy(&mut self, log: usize) {
        let at = self.busy.partition_point(|busy| *busy < log);
        self.busy.insert(at, log);
        self.next += usize::from(at < self.next);
        self.is_busy[log] = true;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bus::turns::RUN;

    /// Logs as so many records each, all of them known, and how often each was looked at in full.
    #[derive(Default)]
    struct Port {
        search: Search,
        /// By place: priority, records, looks in full.
        logs: Vec<(u8, u32, u32)>,
        idle: u32,
    }

    impl Logs for [(u8, u32, u32)] {
        type Found = ();

        fn count(&self) -> usize {
            self.len()
        }

        fn has_more(&self, log: usize) -> bool {
            self[log].1 > 0
        }

        fn is_quiet(&self, log: usize) -> bool {
            self[log].1 == 0
        }

        fn look(&mut self, log: usize, full: bool) -> Option<()> {
            self[log].2 += u32::from(full);
            (self[log].1 > 0).then_some(())
        }
    }

    impl Port {
        fn of(priorities: &[u8]) -> Self {
            let mut port = Self::default();
            for priority in priorities {
                let place = port.search.insert(*priority);
                port.logs.insert(place, (*priority, 0, 0));
            }
            port
        }

        fn take(&mut self) -> Option<usize> {
            let found = self.search.find(&mut self.logs[..], self.idle);
            self.idle = if found.is_some() { 0 } else { self.idle + 1 };
            let (log, ()) = found?;
            self.logs[log].1 -= 1;
            Some(log)
        }
    }

    const NEVER_ENDING: u32 = 1 << 30;

    #[test]
    fn busy_equals_take_turns_beside_idle_ones() {
        for busy in [&[3, 4][..], &[0, 63], &[5, 30], &[7], &[0, 1, 2]] {
            let mut port = Port::of(&[7; 64]);
            busy.iter().for_each(|log| port.logs[*log].1 = NEVER_ENDING);
            (0..1000).for_each(|_| assert!(port.take().is_some())); // after which it knows them
            busy.iter().for_each(|log| port.logs[*log].1 = NEVER_ENDING);
            (0..6000).for_each(|_| assert!(port.take().is_some()));
            let taken = busy.iter().map(|log| NEVER_ENDING - port.logs[*log].1);
            let (least, most) = (taken.clone().min().unwrap(), taken.max().unwrap());
            assert!(most - least <= 1, "{busy:?}: {least} and {most}");
        }
    }

    #[test]
    fn what_comes_to_an_idle_log_waits_for_nine_records_of_each_log_at_most() {
        for logs in 2..20 {
            for (busy, apart) in [(1, 1), (2, 1), (2, 2), (3, 1), (logs / 2, 2), (logs - 1, 1)] {
                let mut port = Port::of(&vec![7; logs]);
                let busy: Vec<usize> = (0..busy).map(|at| at * apart % logs).collect();
                busy.iter().for_each(|log| port.logs[*log].1 = NEVER_ENDING);
                (0..1000).for_each(|_| assert!(port.take().is_some()));
                for idle in (0..logs).filter(|log| !busy.contains(log)) {
                    port.logs[idle].1 = 1;
                    let most = (BURST as usize + 1) * logs + busy.len();
                    let waits = (0..=most).take_while(|_| port.take() != Some(idle)).count();
                    assert!(waits <= most, "{logs} logs, busy {busy:?}: {idle} waits");
                }
            }
        }
    }

    #[test]
    fn a_lower_class_is_not_looked_for_while_it_alone_has_something() {
        let mut port = Port::of(&[[255; 63].as_slice(), &[7]].concat());
        port.logs[63].1 = NEVER_ENDING;
        (0..1000).for_each(|_| _ = port.take());
        (0..100).for_each(|_| assert_eq!(port.take(), Some(63)));
        port.logs[5].1 = 100;
        assert_eq!(port.take(), Some(5));
    }

    #[test]
    fn each_log_that_is_quiet_is_looked_at_in_full_whatever_the_others_have() {
        for priorities in [&[7, 7, 7, 7][..], &[200, 200, 3, 3, 3], &[0]] {
            let mut port = Port::of(priorities);
            let busy = priorities.len() - 1;
            port.logs[busy].1 = NEVER_ENDING;
            for _ in 0..2 * priorities.len() {
                port.take();
                assert_eq!(port.search.find_rest(&mut port.logs[..]), None);
            }
            let looks: Vec<u32> = port.logs[..busy].iter().map(|log| log.2).collect();
            assert_eq!(looks, vec![2; busy], "{priorities:?}");
        }
    }

    #[test]
    fn logs_come_and_go() {
        let mut port = Port::of(&[7, 7, 7]);
        port.logs.iter_mut().for_each(|log| log.1 = 100);
        for _ in 0..3 {
            (0..30).for_each(|_| assert!(port.take().is_some()));
            let last = port.logs.len() - 1;
            port.logs.remove(last);
            port.search.remove(last);
        }
        assert_eq!((port.take(), port.search.find_rest(&mut port.logs[..])), (None, None));
    }

    proptest! {
        #[test]
        fn all_that_are_busy_have_their_share_however_they_became_so(
            priorities in prop::collection::vec(prop::sample::select(vec![1u8, 9, 9, 9, 9]), 2..24),
            arrivals in prop::collection::vec((0..24usize, 0..60usize), 0..40),
        ) {
            let mut port = Port::of(&priorities);
            let logs = priorities.len();
            for (log, after) in arrivals {
                port.logs[log % logs].1 = NEVER_ENDING;
                (0..after).for_each(|_| _ = port.take());
            }
            port.logs.iter_mut().filter(|log| log.1 > 0).for_each(|log| log.1 = NEVER_ENDING);
            (0..1000).for_each(|_| _ = port.take()); // after which it knows them
            let before: Vec<u32> = port.logs.iter().map(|log| log.1).collect();
            (0..2000).for_each(|_| _ = port.take());
            for class in [1, 9] {
                let taken = port.logs.iter().zip(&before).filter(|(log, left)| log.0 == class && **left > 0);
                let taken: Vec<u32> = taken.map(|(log, left)| left - log.1).collect();
                let (least, most) = (taken.iter().min(), taken.iter().max());
                prop_assert!(least.zip(most).is_none_or(|(least, most)| most - least <= 1), "{:?}", taken);
            }
        }

        #[test]
        fn what_is_written_is_taken_soon_and_in_order_of_the_classes(
            priorities in prop::collection::vec(prop::sample::select(vec![1u8, 128, 255]), 1..20),
            written in prop::collection::vec((0..20usize, 0..40u32, 0..60u32), 1..100),
        ) {
            let mut port = Port::of(&priorities);
            let logs = priorities.len();
            let (highest, lowest) = (port.logs[0].0, port.logs[logs - 1].0);
            // A glance at it for each burst; or its turn in its class, which has one of the turns of lower ones.
            let bound = (BURST as usize + 1) * logs + (RUN as usize + 1) * 3 * logs + ROUND as usize;
            let (mut passed, mut row) = (vec![0; logs], 0);
            for (log, records, takes) in written {
                port.logs[log % logs].1 += records;
                for _ in 0..takes {
                    let before = port.logs.clone();
                    let taken = port.take();
                    let of = |class| taken.is_some_and(|log| before[log].0 == class);
                    let waits = before.iter().any(|log| log.0 == highest && log.1 > 0);
                    let below = taken.is_some() && !of(highest) && waits;
                    prop_assert!(!below || row >= RUN, "a lower class after {} records", row);
                    row = if below || of(lowest) { 0 } else { row + u32::from(taken.is_some()) };
                    for log in 0..logs {
                        passed[log] = if before[log].1 > 0 && taken != Some(log) { passed[log] + 1 } else { 0 };
                        prop_assert!(passed[log] <= bound, "log {} was passed over {} times", log, passed[log]);
                    }
                }
            }
            // Nothing is left behind by the last looks.
            let left: u32 = port.logs.iter().map(|log| log.1).sum();
            let found = (0..left + ROUND * (1 + left)).filter(|_| port.take().is_some()).count();
            prop_assert_eq!(found as u32, left);
            prop_assert_eq!(port.search.find_round(&mut port.logs[..], true), None);
        }
    }
}
