//! Random lends against a model that keeps every record: whatever is published, read, lent and given back in
//! whichever order, lent bytes stay, the writer has all the room that it may have and no more, and it is
//! woken when it gets what it waits for.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::fixture::{End, Log, bytes};
use crate::ring::writer::ClaimError;
use crate::ring::{HEADER, Lent, Next};
use crate::segment::Heap;

#[derive(Debug, Clone)]
enum Step {
    /// Frames of this many thousandths of the largest; a writer without room sleeps.
    Publish(u16),
    /// For another reader: passed over.
    PublishAside(u16),
    Drop,
    /// Takes the next record in hand.
    Read,
    Release,
    Lend,
    /// Gives one back.
    Return(prop::sample::Index),
    /// The reader looks, as it does before it sleeps.
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    let size = || prop_oneof![0..40u16, 0..1001u16];
    prop_oneof![
        8 => size().prop_map(Step::Publish),
        1 => size().prop_map(Step::PublishAside),
        1 => Just(Step::Drop),
        3 => Just(Step::Read),
        2 => Just(Step::Release),
        6 => Just(Step::Lend),
        5 => any::<prop::sample::Index>().prop_map(Step::Return),
        2 => Just(Step::Look),
    ]
}

/// What the reader is to be told, in order.
enum Entry {
    Record { sequence: u64, start: u64, end: u64 },
    Dropped,
    Aside { start: u64, end: u64 },
}

/// A writer that sleeps.
struct Sleep {
    /// What it could not claim.
    len: usize,
    to: u16,
    /// The cursor as it last saw it.
    seen: u64,
    rung: bool,
}

struct World {
    log: Log,
    end: End,
    /// Not told yet.
    due: VecDeque<Entry>,
    /// Where the reader stands, the tail, and the next number, by the model's own arithmetic.
    position: u64,
    tail: u64,
    sequence: u64,
    /// Start, end and number of the record in hand.
    in_hand: Option<(u64, u64, u64)>,
    /// By where they start.
    lent: BTreeMap<u64, (u64, Lent<Heap>)>,
    asleep: Option<Sleep>,
}

impl World {
    fn new(capacity: u64) -> Self {
        let (log, end) = Log::with_reader(capacity);
        Self {
            log,
            end,
            due: VecDeque::new(),
            position: 0,
            tail: 0,
            sequence: 0,
            in_hand: None,
            lent: BTreeMap::new(),
            asleep: None,
        }
    }

    /// Everything before has been read and given back.
    fn done(&self) -> u64 {
        self.lent.keys().next().copied().unwrap_or(self.position)
    }

    fn frame(&self, len: usize) -> Vec<u8> {
        bytes(self.sequence, len)
    }

    /// Claims as a writer does; `limit`: what it must not write beyond.
    fn publish(&mut self, len: usize, to: u16, limit: u64) -> bool {
        let size = (HEADER + len as u64).next_multiple_of(HEADER);
        let left = self.log.layout.contiguous(self.tail);
        let start = self.tail + if size > left { left } else { 0 };
        let written = self.log.write_to(to, &self.frame(len));
        if start + size > limit {
            assert_eq!(written, Err(ClaimError::Full), "{size} bytes at {}, limit {limit}", self.tail);
            return false;
        }
        assert_eq!(written, Ok(()), "{size} bytes at {}, limit {limit}", self.tail);
        self.tail = start + size;
        self.due.push_back(match to {
            0 => Entry::Record { sequence: self.sequence, start, end: self.tail },
            _ => Entry::Aside { start, end: self.tail },
        });
        self.sequence += 1;
        true
    }

    /// The writer publishes; without room it sleeps, as `Overflow::Block` has it.
    fn publish_or_sleep(&mut self, thousandths: u16, to: u16) {
        if self.asleep.is_some() {
            return;
        }
        let len = (self.log.writer.largest_body() * u64::from(thousandths) / 1000) as usize;
        let limit = self.end.stored() + self.log.layout.capacity();
        if !self.publish(len, to, limit) {
            self.log.writer.arm();
            assert!(!self.publish(len, to, limit), "the look after arming");
            self.asleep = Some(Sleep { len, to, seen: self.end.stored(), rung: false });
        }
    }

    /// After each call of the reader's that may store the cursor.
    fn after_look(&mut self) {
        let rung = self.end.reader.take_ring_due();
        let Some(sleep) = &mut self.asleep else { return assert!(!rung, "nobody sleeps") };
        sleep.rung |= rung;
        assert!(sleep.rung || self.end.stored() == sleep.seen, "a writer that needs room is not told of it");
        if !sleep.rung {
            return;
        }
        // It wakes, and tries again.
        self.log.writer.disarm();
        let sleep = self.asleep.take().expect("it sleeps");
        let limit = self.end.stored() + self.log.layout.capacity();
        if !self.publish(sleep.len, sleep.to, limit) {
            self.log.writer.arm();
            self.asleep = Some(Sleep { seen: self.end.stored(), rung: false, ..sleep });
        }
    }

    fn release(&mut self) {
        if let Some((_, end, _)) = self.in_hand.take() {
            self.position = end;
        }
    }

    fn read(&mut self) -> Next {
        self.release();
        let found = self.end.next();
        while let Some(Entry::Aside { end, .. }) = self.due.front() {
            self.position = *end;
            self.due.pop_front();
        }
        match found {
            Next::Record(record) => {
                let Some(Entry::Record { sequence, start, end }) = self.due.pop_front() else {
                    panic!("{record:?} was not due");
                };
                assert_eq!((record.sequence, record.frame), (sequence, start + HEADER));
                self.position = start; // padding is passed
                self.in_hand = Some((start, end, sequence));
            }
            Next::Lagged(count) => {
                for _ in 0..count {
                    assert!(matches!(self.due.pop_front(), Some(Entry::Dropped)));
                }
                // It has seen the number of what follows, and passed the padding before it.
                if let Some(Entry::Record { start, .. } | Entry::Aside { start, .. }) = self.due.front() {
                    self.position = *start;
                }
            }
            Next::Empty => assert!(self.due.iter().all(|entry| matches!(entry, Entry::Dropped))),
            Next::Closed(_) => panic!("it is open"),
        }
        self.after_look();
        found
    }

    /// Until nothing is left to read; then the cursor is where it may be.
    fn drain(&mut self) {
        // A look at an empty log stores the cursor; one that passes records for others over may not.
        while !(self.due.is_empty() && self.read() == Next::Empty && self.due.is_empty()) {
            self.read();
        }
        assert_eq!(self.end.stored(), self.done());
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Publish(size) => self.publish_or_sleep(size, 0),
            Step::PublishAside(size) => self.publish_or_sleep(size, 9),
            Step::Drop if self.asleep.is_some() => {}
            Step::Drop => {
                self.log.writer.skip();
                self.sequence += 1;
                self.due.push_back(Entry::Dropped);
            }
            Step::Read => _ = self.read(),
            Step::Release => {
                self.release();
                self.end.reader.release();
                self.after_look();
            }
            Step::Lend => {
                if self.in_hand.is_none() {
                    self.read();
                }
                let lent = self.end.reader.lend();
                assert_eq!(lent.is_some(), self.in_hand.is_some());
                if let Some((start, end, sequence)) = self.in_hand.take() {
                    self.lent.insert(start, (sequence, lent.expect("just compared")));
                    self.position = end;
                }
                self.after_look();
            }
            Step::Return(which) => {
                if !self.lent.is_empty() {
                    let start =
                        *self.lent.keys().nth(which.index(self.lent.len())).expect("below its length");
                    self.lent.remove(&start);
                }
            }
            Step::Look => {
                self.end.reader.flush();
                assert_eq!(self.end.stored(), self.done());
                self.after_look();
                assert_eq!(self.end.reader.lends_over(), self.lent.is_empty());
            }
        }
    }

    fn verify(&self) {
        for (sequence, lent) in self.lent.values() {
            assert_eq!(&lent[..], bytes(*sequence, lent.len()), "record {sequence} was overwritten");
        }
        if let Some((.., sequence)) = self.in_hand {
            assert_eq!(self.end.lent(), bytes(sequence, self.end.lent().len()));
        }
        assert!(self.end.stored() <= self.done());
        assert!(self.end.reader.has_lent() || self.lent.is_empty());
        assert_eq!(self.end.reader.lag(), self.tail - self.done());
    }
}

fn run(capacity: u64, steps: Vec<Step>) {
    let mut world = World::new(capacity);
    for step in steps {
        world.take(step);
        world.verify();
    }
    // With the last lend given back and one more look, nobody is left waiting, and nothing unread.
    world.lent.clear();
    world.drain();
    assert!(world.asleep.is_none(), "the writer had all the room there is");
    assert_eq!((world.end.stored(), world.end.reader.lag()), (world.tail, 0));
    assert!(world.end.reader.lends_over() && world.log.writer.take_corrupt().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn lends_behave_as_the_model(order in 6u32..14, steps in prop::collection::vec(step(), 1..400)) {
        run(1 << order, steps);
    }
}
