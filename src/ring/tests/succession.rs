//! Readers that are in the way are cut off: logs in succession, against a model that knows who was given what.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::fixture::{End, Log, bytes};
use crate::ring::sync::Arc;
use crate::ring::{Gates, Next, Writer};

const CAPACITY: u64 = 1024;

/// A log that continues another.
fn continued(sequence: u64) -> Log {
    let mut log = Log::new(CAPACITY);
    log.gates = Arc::new(Gates::numbered_from(sequence));
    log.writer = Writer::new(log.memory.clone(), log.layout, log.gates.clone()).continuing(sequence);
    log
}

/// The logs that a reader has, and what it is to find.
struct Subscriber {
    lossy: bool,
    /// In the order in which they are read; with each, the log's id.
    logs: VecDeque<(u64, End)>,
    /// Number of the message that is due.
    due: u64,
    /// It is not attached to anything after its last log, the first number of which it gets nothing.
    evicted_at: Option<u64>,
    missed: u64,
}

/// A publisher's logs, one after the other, and those who read them. The control threads are this test.
struct Chain {
    log: Log,
    id: u64,
    published: u64,
    evictions: u64,
    subscribers: Vec<Subscriber>,
}

fn attach(log: &Log, lossy: bool) -> End {
    match lossy {
        true => log.ungated_reader(0),
        false => {
            let end = log.deaf_late_reader(0, Some(log.writer.sequence()));
            end.follow(log);
            end
        }
    }
}

impl Chain {
    fn new(readers: usize) -> Self {
        let log = continued(0);
        let subscribers = (0..readers)
            .map(|at| {
                let lossy = at == 0;
                let logs = VecDeque::from([(1, attach(&log, lossy))]);
                Subscriber { lossy, logs, due: 0, evicted_at: None, missed: 0 }
            })
            .collect();
        Self { log, id: 1, published: 0, evictions: 0, subscribers }
    }

    fn publish(&mut self, len: usize) {
        let frame = bytes(self.published, len);
        if self.log.write(&frame).is_err() {
            self.evict(len);
            self.log.write(&frame).expect("room in a log of its own");
        }
        self.published += 1;
    }

    fn evict(&mut self, len: usize) {
        let slow = self.log.writer.in_the_way(len as u64);
        assert!(!slow.is_empty(), "somebody is in the way");
        let next = continued(self.published);
        assert_eq!(self.log.writer.sequence(), self.published);
        for subscriber in &mut self.subscribers {
            let Some((id, last)) = subscriber.logs.back().filter(|_| subscriber.evicted_at.is_none()) else {
                continue;
            };
            assert_eq!(*id, self.id, "whoever is attached has the newest log");
            // A lossy one is in nobody's way; it gets the next if it has read the last but one.
            let behind = subscriber.lossy && subscriber.logs.len() > 1;
            if behind || slow.contains(&last.number) {
                subscriber.evicted_at = Some(self.published);
            } else {
                subscriber.logs.push_back((self.id + 1, attach(&next, subscriber.lossy)));
            }
            assert!(subscriber.logs.len() <= 2 + usize::from(subscriber.evicted_at.is_none()));
        }
        self.id += 1;
        self.log.writer.close_for(self.id);
        self.log = next;
        self.evictions += 1;
    }

    /// Takes up to `most` messages; false if there was nothing more.
    fn read(&mut self, at: usize, most: usize) -> bool {
        let subscriber = &mut self.subscribers[at];
        let mut taken = 0;
        while taken < most {
            let (_, end) = subscriber.logs.front_mut().expect("a log");
            let found = if subscriber.lossy { end.glance() } else { end.next() };
            match found {
                Next::Record(record) => {
                    assert_eq!(record.sequence, subscriber.due);
                    assert_eq!(end.lent(), bytes(subscriber.due, end.lent().len()), "overwritten");
                    subscriber.due += 1;
                    taken += 1;
                }
                Next::Lagged(missed) => {
                    assert!(subscriber.lossy, "no other misses anything in a log of its own");
                    subscriber.due += missed;
                    subscriber.missed += missed;
                }
                Next::Empty => return false,
                Next::Closed(successor) => {
                    let (id, drained) = subscriber.logs.pop_front().expect("that log");
                    assert_eq!(successor, id + 1);
                    let expected = drained.reader.expected().expect("each knows where it stands");
                    assert_eq!(expected, subscriber.due);
                    if subscriber.logs.is_empty() {
                        let since =
                            subscriber.evicted_at.take().expect("the next one, or else it was evicted");
                        assert_eq!(since, subscriber.due, "it got all that was in its log");
                        let end = attach(&self.log, subscriber.lossy);
                        let due = end.reader.expected().expect("nobody publishes meanwhile");
                        subscriber.missed += due - expected;
                        subscriber.due = due;
                        assert_eq!(due, self.published);
                        subscriber.logs.push_back((self.id, end));
                    }
                }
            }
        }
        true
    }
}

#[derive(Debug, Clone)]
enum Step {
    Publish(usize, usize),
    Read(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let publish = (1..30usize, 0..240usize).prop_map(|(times, len)| Step::Publish(times, len));
    let read = (0..4usize, 0..40usize).prop_map(|(reader, most)| Step::Read(reader, most));
    prop::collection::vec(prop_oneof![publish, read], 1..80)
}

proptest! {
    #[test]
    fn each_gets_all_in_order_but_what_was_published_while_it_was_cut_off(steps in steps()) {
        let mut chain = Chain::new(4);
        for step in steps {
            match step {
                Step::Publish(times, len) => (0..times).for_each(|_| chain.publish(len)),
                Step::Read(reader, most) => drop(chain.read(reader, most)),
            }
        }
        for reader in 0..4 {
            while chain.read(reader, usize::MAX) {}
            prop_assert_eq!(chain.subscribers[reader].due, chain.published);
        }
    }
}

#[test]
fn whoever_reads_misses_nothing_while_others_are_evicted_one_after_the_other() {
    let mut chain = Chain::new(4);
    for round in 0..60 {
        for _ in 0..10 {
            chain.publish(100);
            chain.read(1, usize::MAX);
        }
        chain.read(2 + round % 2, 7); // both slow
    }
    assert_eq!(chain.subscribers[1].missed, 0);
    assert!(chain.evictions > 10 && chain.subscribers[2].missed > 0 && chain.subscribers[3].missed > 0);
}
