//! Random operations against a model that keeps every record for ever: each reader gets exactly the
//! model's bytes, in order, with exact gaps, and room is refused exactly when a gate is in the way.

use proptest::prelude::*;

use super::fixture::{End, Log, bytes};
use crate::ring::lossy::{LossyNext, LossyReader};
use crate::ring::writer::ClaimError;
use crate::ring::{FrameCopy, HEADER, Kind, Next};
use crate::segment::Heap;

/// What happens next. Indices and sizes are taken modulo what there is; sizes in thousandths of the
/// largest body, so that every capacity sees small and large ones.
#[derive(Debug, Clone)]
enum Step {
    /// `to`: 0 everyone, else one of the readers.
    Publish {
        size: u16,
        filler: u8,
        to: u8,
    },
    /// Encodes into a window, and claims if that proves too small.
    Window {
        size: u16,
    },
    /// Commits several records, then publishes.
    Batch(Vec<u16>),
    Skip,
    Read {
        who: u8,
        records: u8,
    },
    /// Reads one record and keeps it in hand.
    Hold(u8),
    Release(u8),
    Flush(u8),
    Glance(u8),
    /// Joins; `exact` if the writer can tell the sequence, `deaf` if the cursor slot comes later.
    Join {
        exact: bool,
        deaf: bool,
    },
    Follow(u8),
    Remove(u8),
    Wait,
    Wake,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let size = || prop_oneof![0..40u16, 0..1001u16];
    prop_oneof![
        8 => (size(), 0..64u8, 0..9u8).prop_map(|(size, filler, to)| Step::Publish { size, filler, to }),
        4 => size().prop_map(|size| Step::Window { size }),
        2 => prop::collection::vec(size(), 1..20).prop_map(Step::Batch),
        2 => Just(Step::Skip),
        8 => any::<(u8, u8)>().prop_map(|(who, records)| Step::Read { who, records: records % 16 }),
        2 => any::<u8>().prop_map(Step::Hold),
        1 => any::<u8>().prop_map(Step::Release),
        1 => any::<u8>().prop_map(Step::Flush),
        2 => any::<u8>().prop_map(Step::Glance),
        1 => any::<(bool, bool)>().prop_map(|(exact, deaf)| Step::Join { exact, deaf }),
        1 => any::<u8>().prop_map(Step::Follow),
        1 => any::<u8>().prop_map(Step::Remove),
        1 => Just(Step::Wait),
        1 => Just(Step::Wake),
    ]
}

/// One sequence number of the log; `None` if it was dropped.
type Entry = Option<Sent>;

/// A record, and where it stands.
struct Sent {
    frame: Vec<u8>,
    to: u16,
    start: u64,
    end: u64,
}

/// A gated reader and what it has been told.
struct Follower {
    end: End,
    deaf: bool,
    /// Where its gate was set: it stays there as long as the reader is deaf.
    gate: u64,
    /// The next number it has not been told of.
    due: usize,
    /// The first record, whomever it is for, tells it the number.
    unsure: bool,
    /// The frame of the record in hand.
    in_hand: Option<Vec<u8>>,
}

/// An ungated reader, and what it does by the model.
struct Glancer {
    reader: LossyReader<Heap>,
    capacity: u64,
    position: u64,
    due: Option<usize>,
}

struct World {
    log: Log,
    entries: Vec<Entry>,
    /// The tail by the model's own arithmetic.
    tail: u64,
    readers: Vec<Follower>,
    /// `next_sequence` as the log shows it.
    shown: usize,
    glancer: Glancer,
    open: bool,
}

impl World {
    fn new(capacity: u64, readers: usize) -> Self {
        let log = Log::new(capacity);
        let reader = LossyReader::at_tail(log.memory.clone(), log.layout);
        let glancer = Glancer { reader, capacity, position: 0, due: None };
        let readers = (0..readers).map(|info| {
            let (end, gate) = (log.reader(info), 0);
            Follower { end, deaf: false, gate, due: 0, unsure: false, in_hand: None }
        });
        let readers = readers.collect();
        Self { log, entries: Vec::new(), tail: 0, readers, shown: 0, glancer, open: true }
    }

    /// The first position that must not be written, from the cursors as they are now.
    fn limit(&self) -> u64 {
        let gates =
            self.readers.iter().map(|reader| if reader.deaf { reader.gate } else { reader.end.stored() });
        gates.min().map_or(u64::MAX, |gate| gate + self.log.layout.capacity())
    }

    fn body(&self, thousandths: u16) -> usize {
        (self.log.writer.largest_body() * u64::from(thousandths) / 1000) as usize
    }

    /// Claims and commits `filler` and a frame of `len` bytes, and publishes if it may; whether there was room, as the model
    /// has it.
    fn commit(&mut self, len: usize, filler: u8, to: u16, may_publish: bool) -> bool {
        let size = (HEADER + u64::from(filler) + len as u64).next_multiple_of(16);
        let left = self.log.layout.contiguous(self.tail);
        let start = self.tail + if size > left { left } else { 0 };
        let body = u64::from(filler) + len as u64;
        let claimed = self.log.writer.claim(body);
        if body > self.log.writer.largest_body() {
            assert_eq!(claimed, Err(ClaimError::TooLarge { limit: self.log.writer.largest_body() }));
            return false;
        }
        if start + size > self.limit() {
            assert_eq!(claimed, Err(ClaimError::Full), "{size} bytes at {}", self.tail);
            return false;
        }
        assert_eq!(claimed, Ok(()), "{size} bytes at {}", self.tail);
        let frame = bytes(self.entries.len() as u64, len);
        let from = usize::from(filler);
        let writer = &mut self.log.writer;
        writer.body_mut().fill(0xee); // all that was claimed may be written
        // By the length, each of the ways to do it.
        let publishes = match len % 4 {
            0 if to == 0 && may_publish => {
                writer.publish_copy(filler, &[&[0xcc; 64][..from], &frame].concat());
                true
            }
            1 if to == 0 && filler == 0 => {
                assert_eq!(writer.append(&frame), Ok(()));
                false
            }
            2 if to == 0 && filler == 0 && may_publish => {
                let published = match frame.split_first_chunk() {
                    Some((head, body)) => writer.publish_frame::<10>(head, body),
                    None => writer.publish_frame(&[], &frame),
                };
                assert_eq!(published, Ok(()));
                true
            }
            _ => {
                writer.body_mut()[from..from + len].copy_from_slice(&frame);
                writer.commit(Kind::Frame, to, filler, len);
                false
            }
        };
        self.tail = start + size;
        self.entries.push(Some(Sent { frame, to, start, end: self.tail }));
        if publishes {
            self.check_published();
        }
        true
    }

    fn window(&mut self, len: usize) {
        let left = self.log.layout.contiguous(self.tail);
        let most = self.log.layout.largest_record().min(left).min(self.limit() - self.tail) & !15;
        self.log.writer.claim_window();
        assert_eq!(self.log.writer.body_mut().len() as u64, most.saturating_sub(HEADER));
        self.log.writer.body_mut().fill(0xdd);
        if most < HEADER + len as u64 {
            self.commit(len, 0, 0, true);
        } else {
            let frame = bytes(self.entries.len() as u64, len);
            self.log.writer.body_mut()[..len].copy_from_slice(&frame);
            self.log.writer.commit(Kind::Frame, 0, 0, len);
            let start = self.tail;
            self.tail += (HEADER + len as u64).next_multiple_of(16);
            self.entries.push(Some(Sent { frame, to: 0, start, end: self.tail }));
        }
        self.publish();
    }

    fn publish(&mut self) {
        self.log.writer.publish();
        self.check_published();
    }

    fn check_published(&self) {
        assert_eq!(self.log.tail(), self.tail);
        assert_eq!(self.log.writer.sequence(), self.entries.len() as u64);
    }

    fn join(&mut self, exact: bool, deaf: bool) {
        if self.readers.len() < 4 {
            let sequence = exact.then_some(self.entries.len() as u64);
            let (end, gate) = (self.log.deaf_late_reader(9, sequence), self.tail);
            assert_eq!(end.stored(), gate);
            if !deaf {
                end.follow(&self.log);
            }
            let (due, unsure) = (self.entries.len(), !exact);
            self.readers.push(Follower { end, deaf, gate, due, unsure, in_hand: None });
        }
    }

    fn glance(&mut self, times: u8) {
        for _ in 0..=times % 32 {
            let expected = self.glancer.expect(&self.entries, self.tail, self.shown, self.open);
            let mut frame = FrameCopy::default();
            let found = self.glancer.reader.next(&mut frame).unwrap();
            assert_eq!(found, expected);
            if let LossyNext::Frame(sequence) = found {
                assert_eq!(*frame, self.entries[sequence as usize].as_ref().unwrap().frame);
            }
        }
    }

    fn take(&mut self, step: Step) {
        let readers = self.readers.len();
        let pick = |who: u8| usize::from(who) % readers.max(1);
        match step {
            Step::Publish { .. } | Step::Window { .. } | Step::Batch(_) | Step::Skip if !self.open => {}
            Step::Publish { size, filler, to } => {
                let to = match to {
                    0..5 => 0,
                    _ => self.readers.get(pick(to)).map_or(60_000, |reader| reader.end.number),
                };
                self.commit(self.body(size), filler, to, true);
                self.publish();
            }
            Step::Window { size } => self.window(self.body(size)),
            Step::Batch(sizes) => {
                for size in sizes {
                    if !self.commit(self.body(size), 0, 0, false) {
                        break;
                    }
                }
                self.publish();
            }
            Step::Skip => {
                self.log.writer.skip();
                self.entries.push(None);
                self.shown = self.entries.len();
            }
            Step::Glance(times) => self.glance(times),
            Step::Join { exact, deaf } => self.join(exact, deaf),
            Step::Wait => self.log.writer.arm(),
            Step::Wake => self.log.writer.disarm(),
            Step::Close => {
                self.log.writer.close();
                self.shown = self.entries.len();
                self.open = false;
            }
            _ if readers == 0 => {}
            Step::Read { who, records } => {
                for _ in 0..records {
                    self.readers[pick(who)].next(&self.entries, !self.open);
                }
                self.readers[pick(who)].release();
            }
            Step::Hold(who) => _ = self.readers[pick(who)].next(&self.entries, !self.open),
            Step::Release(who) => self.readers[pick(who)].release(),
            Step::Flush(who) => self.readers[pick(who)].end.reader.flush(),
            Step::Follow(who) => {
                self.readers[pick(who)].deaf = false;
                self.readers[pick(who)].end.follow(&self.log);
            }
            Step::Remove(who) => {
                let gone = self.readers.swap_remove(pick(who));
                self.log.gates.remove(gone.end.number).unwrap();
            }
        }
    }
}

impl Glancer {
    /// What one look has to find.
    fn expect(&mut self, entries: &[Entry], tail: u64, shown: usize, open: bool) -> LossyNext {
        if tail + self.capacity / 2 > self.position + self.capacity {
            self.position = tail;
            return LossyNext::Empty;
        }
        let from = self.position;
        let sent = entries.iter().enumerate().filter_map(|(n, entry)| Some((n, entry.as_ref()?)));
        for (sequence, sent) in sent.skip_while(|(_, sent)| sent.start < from) {
            self.position = sent.start;
            let due = self.due.replace(sequence).unwrap_or(sequence);
            if due < sequence {
                return LossyNext::Lagged((sequence - due) as u64);
            }
            (self.due, self.position) = (Some(sequence + 1), sent.end);
            if sent.to == 0 {
                return LossyNext::Frame(sequence as u64);
            }
        }
        match self.due {
            Some(due) if due < shown => {
                self.due = Some(shown);
                LossyNext::Lagged((shown - due) as u64)
            }
            _ if open => LossyNext::Empty,
            _ => LossyNext::Closed(0),
        }
    }
}

impl Follower {
    /// Looks for the next thing and compares; whether there was any.
    fn next(&mut self, entries: &[Entry], closed: bool) -> bool {
        self.verify();
        self.in_hand = None;
        let found = self.end.next();
        if self.unsure {
            let Some(first) = entries[self.due..].iter().position(Option::is_some) else {
                assert_eq!(found, if closed { Next::Closed(0) } else { Next::Empty });
                return false;
            };
            (self.due, self.unsure) = (self.due + first, false);
        }
        let others =
            |entry: &&Entry| entry.as_ref().is_some_and(|sent| sent.to != 0 && sent.to != self.end.number);
        let passed = entries[self.due..].iter().take_while(others).count();
        self.due += passed;
        let untold = &entries[self.due..];
        match found {
            Next::Record(record) => {
                assert_eq!(record.sequence, self.due as u64);
                let sent = untold[0].as_ref().expect("it was not dropped");
                self.in_hand = Some(sent.frame.clone());
                self.due += 1;
                self.verify();
            }
            Next::Lagged(count) => {
                let dropped = untold.iter().take_while(|entry| entry.is_none()).count();
                assert_eq!(count as usize, dropped, "every drop before the next record, and no more");
                self.due += dropped;
            }
            Next::Closed(_) => assert!(closed && untold.is_empty()),
            // Having passed over records for others it asks for drops, and for the end, at the next call.
            Next::Empty if passed > 0 => assert!(untold.iter().all(Option::is_none)),
            Next::Empty => assert!(untold.is_empty() && !closed),
        }
        matches!(found, Next::Record(_) | Next::Lagged(_))
    }

    fn release(&mut self) {
        self.verify();
        self.in_hand = None;
        self.end.reader.release();
    }

    /// The record in hand, if any, was not overwritten.
    fn verify(&self) {
        if let Some(frame) = &self.in_hand {
            assert_eq!(self.end.lent(), frame);
        }
    }
}

fn run(capacity: u64, readers: usize, steps: Vec<Step>) {
    let mut world = World::new(capacity, readers);
    for step in steps {
        world.take(step);
        world.readers.iter().for_each(Follower::verify);
    }
    world.take(Step::Close);
    for reader in &mut world.readers {
        while reader.next(&world.entries, true) {}
        while reader.next(&world.entries, true) {}
        assert!(reader.due == world.entries.len() || reader.unsure, "told of everything");
        assert_eq!(reader.end.next(), Next::Closed(0));
    }
    for _ in 0..20 {
        world.glance(31);
    }
    assert!(world.log.writer.take_corrupt().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn small_rings_behave_as_the_model(
        order in 8u32..12,
        readers in 1..=4usize,
        steps in prop::collection::vec(step(), 1..300),
    ) {
        run(1 << order, readers, steps);
    }

    #[test]
    fn large_rings_behave_as_the_model(
        order in 12u32..=16,
        readers in 1..=4usize,
        steps in prop::collection::vec(step(), 1..100),
    ) {
        run(1 << order, readers, steps);
    }
}
