//! Loom models: every interleaving (up to the preemption bound) of the shipped reader, writer, gates and
//! waiters, over a memory whose control words are loom atomics and whose record bytes loom checks for races.
//!
//! Run: `ci/loom.sh`.

use loom::sync::atomic::Ordering;
use loom::sync::{Condvar, Mutex};
use loom::thread;
use std::sync::Arc as StdArc;

use super::layout::PARKED;
use super::sync::{Arc, fence};
use super::waiter::Waiter;
use super::writer::ClaimError;
use super::{Gates, Kind, LateGate, LogLayout, Next, Reader, Writer};
use crate::segment::{Memory, MemoryMut};

mod blob;
mod halt;
mod lent;
mod lossy;
mod memory;
mod stale_cursor;
mod succession;

use memory::{CURSOR, Shared};

/// Smallest ring with four largest records: a body of 16 bytes, 32 with its header.
const CAPACITY: u64 = 128;
const BODY: usize = 16;

/// What the control thread does between the bump and its look at the tail.
const FENCE: fn() = || fence(Ordering::SeqCst);

type ModelWriter = Writer<Shared, Shared, ()>;
type ModelReader = Reader<Shared, Shared>;
type ModelGates = Arc<Gates<Shared, ()>>;

fn layout() -> LogLayout {
    LogLayout::new(CAPACITY).unwrap()
}

/// A log with its writer, and one reader gated at 0.
fn pair() -> (ModelWriter, ModelReader, Shared, Shared) {
    let (log, cursors) = (Shared::new(false), Shared::new(false));
    let gates: ModelGates = Arc::new(Gates::new());
    let gate = gates.add_first(cursors.clone(), ()).unwrap();
    assert!(gates.follow(gate.number(), cursors.clone(), CURSOR));
    let reader =
        Reader::new(log.clone(), layout(), cursors.clone(), CURSOR, gate.number(), 0, Some(0)).unwrap();
    (Writer::new(log.clone(), layout(), gates), reader, log, cursors)
}

fn fill(value: u64) -> [u8; BODY] {
    let mut body = [0; BODY];
    body[..8].copy_from_slice(&value.to_le_bytes());
    body[8..].copy_from_slice(&(!value).to_le_bytes());
    body
}

/// In each of the two ways in turn.
fn write(writer: &mut ModelWriter, value: u64) -> Result<(), ClaimError> {
    if value % 2 == 1 {
        return writer.publish_frame(&[], &fill(value));
    }
    writer.claim(BODY as u64)?;
    writer.body_mut().copy_from_slice(&fill(value));
    writer.commit(Kind::Frame, 0, 0, BODY);
    writer.publish();
    Ok(())
}

/// Takes one record if there is one, reading its bytes in place.
fn read(reader: &mut ModelReader) -> Option<u64> {
    match reader.next().unwrap() {
        Next::Record(_) => {
            let bytes = reader.frame(); // loom checks that the writer leaves it alone
            let value = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            assert_eq!(bytes, fill(value), "torn record");
            Some(value)
        }
        Next::Empty => None,
        other => panic!("{other:?}"),
    }
}

/// Takes `n` records in order; `between` is called after each look.
fn expect(reader: &mut ModelReader, n: u64, between: impl Fn(&mut ModelReader)) {
    let mut due = 0;
    while due < n {
        match read(reader) {
            Some(value) => {
                assert_eq!(value, due);
                due += 1;
            }
            None => thread::yield_now(),
        }
        between(reader);
    }
}

fn model(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(body);
}

/// A bell: rings are remembered until drained.
#[derive(Clone)]
struct Bell(StdArc<(Mutex<bool>, Condvar)>);

impl Bell {
    fn new() -> Self {
        Self(StdArc::new((Mutex::new(false), Condvar::new())))
    }

    fn ring(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_one();
    }

    fn drain(&self) {
        *self.0.0.lock().unwrap() = false;
    }

    /// Sleeps until rung; loom reports a deadlock if nobody ever rings.
    fn sleep(&self) {
        let mut rung = self.0.0.lock().unwrap();
        while !*rung {
            rung = self.0.1.wait(rung).unwrap();
        }
    }
}

#[test]
fn a_record_is_whole_once_the_tail_shows_it() {
    model(3, || {
        let (mut writer, mut reader, ..) = pair();
        let publisher = thread::spawn(move || {
            for value in 0..3 {
                write(&mut writer, value).unwrap();
            }
        });
        expect(&mut reader, 3, |_| ());
        publisher.join().unwrap();
    });
}

#[test]
fn a_gated_reader_is_never_overwritten() {
    const N: u64 = 7; // the ring holds four
    model(2, || {
        let (mut writer, mut reader, ..) = pair();
        let publisher = thread::spawn(move || {
            for value in 0..N {
                while write(&mut writer, value).is_err() {
                    thread::yield_now();
                }
            }
        });
        expect(&mut reader, N, |_| ());
        publisher.join().unwrap();
    });
}

#[test]
fn a_late_gate_holds_from_where_it_was_set() {
    const N: u64 = 6; // more than the ring holds: without the gate the tail would be overwritten
    model(3, || {
        let (log, cursors) = (Shared::new(false), Shared::new(false));
        let gates: ModelGates = Arc::new(Gates::new());
        let mut writer: ModelWriter = Writer::new(log.clone(), layout(), gates.clone());
        let publisher = thread::spawn(move || {
            // Whatever the gate stops is not published: the reader joined too early for it.
            (0..N).take_while(|value| write(&mut writer, *value).is_ok()).count() as u64
        });
        let LateGate { gate, position, .. } = gates.add_late(&log, cursors.clone(), (), FENCE).unwrap();
        let mut reader =
            ModelReader::new(log, layout(), cursors.clone(), CURSOR, gate.number(), position, None).unwrap();
        gates.follow(gate.number(), cursors, CURSOR);
        let first = position / 32;
        let mut due = first;
        while let Some(value) = read(&mut reader) {
            assert_eq!(value, due);
            due += 1;
        }
        let published = publisher.join().unwrap();
        while let Some(value) = read(&mut reader) {
            assert_eq!(value, due);
            due += 1;
        }
        assert_eq!(due, published, "everything from the gate on, to the last");
    });
}

#[test]
fn a_late_reader_is_told_of_every_drop_from_its_gate_on() {
    model(3, || {
        let (log, cursors) = (Shared::new(false), Shared::new(false));
        let gates: ModelGates = Arc::new(Gates::numbered());
        let mut writer: ModelWriter = Writer::new(log.clone(), layout(), gates.clone());
        let publisher = thread::spawn(move || {
            write(&mut writer, 0).unwrap();
            writer.skip();
            writer.skip();
            write(&mut writer, 3).unwrap();
            writer.close();
        });
        let late = gates.add_late(&log, cursors.clone(), (), FENCE).unwrap();
        let LateGate { gate, position, sequence } = late;
        let mut reader =
            ModelReader::new(log, layout(), cursors, CURSOR, gate.number(), position, sequence).unwrap();
        publisher.join().unwrap();
        let (mut received, mut missed) = (Vec::new(), 0);
        loop {
            match reader.next().unwrap() {
                Next::Record(record) => received.push(record.sequence),
                Next::Lagged(n) => missed += n,
                Next::Closed(_) => break,
                Next::Empty => unreachable!("closed"),
            }
        }
        let from = position / 32; // records before the gate, of the two there are
        assert_eq!(received, [0, 3][from as usize..]);
        if let Some(first) = sequence {
            assert!((first == 0) == (from == 0), "{first} at {position}");
            assert_eq!(received.len() as u64 + missed, 4 - first);
        }
    });
}

#[test]
fn a_parked_reader_is_woken() {
    model(3, || {
        let (mut writer, mut reader, _, cursors) = pair();
        let bell = Bell::new();
        let ring = bell.clone();
        let publisher = thread::spawn(move || {
            for value in 0..2 {
                write(&mut writer, value).unwrap();
                writer.ring(|()| true, |()| ring.ring());
            }
        });
        let mut parked = Waiter::new(PARKED);
        let mut due = 0;
        while due < 2 {
            if let Some(value) = read(&mut reader) {
                assert_eq!(value, due);
                due += 1;
                continue;
            }
            bell.drain();
            parked.arm(&cursors);
            if !reader.is_ready() {
                bell.sleep();
            }
            parked.disarm(&cursors);
        }
        publisher.join().unwrap();
    });
}

#[test]
fn a_reader_gated_while_a_record_is_written_is_woken_by_it() {
    model(3, || {
        let (log, cursors) = (Shared::new(false), Shared::new(false));
        let gates: ModelGates = Arc::new(Gates::new());
        let mut writer: ModelWriter = Writer::new(log.clone(), layout(), gates.clone());
        let bell = Bell::new();
        let ring = bell.clone();
        // Claimed before anybody is gated, as a loan that takes its time.
        writer.claim(BODY as u64).unwrap();
        let publisher = thread::spawn(move || {
            writer.body_mut().copy_from_slice(&fill(7));
            writer.commit(Kind::Frame, 0, 0, BODY);
            writer.publish();
            writer.ring(|()| true, |()| ring.ring());
        });
        let LateGate { gate, position, .. } = gates.add_late(&log, cursors.clone(), (), FENCE).unwrap();
        let mut reader =
            ModelReader::new(log, layout(), cursors.clone(), CURSOR, gate.number(), position, None).unwrap();
        let mut parked = Waiter::new(PARKED);
        // Gated after the record: there is nothing to come.
        while position == 0 {
            if let Some(value) = read(&mut reader) {
                assert_eq!(value, 7);
                break;
            }
            bell.drain();
            parked.arm(&cursors);
            if !reader.is_ready() {
                bell.sleep();
            }
            parked.disarm(&cursors);
        }
        publisher.join().unwrap();
    });
}

#[test]
fn a_reader_parked_at_the_end_learns_that_the_log_was_closed() {
    model(3, || {
        let (mut writer, mut reader, _, cursors) = pair();
        let bell = Bell::new();
        let ring = bell.clone();
        let publisher = thread::spawn(move || {
            write(&mut writer, 0).unwrap();
            writer.ring(|()| true, |()| ring.ring());
            writer.close();
            writer.ring(|()| true, |()| ring.ring());
        });
        let mut parked = Waiter::new(PARKED);
        let mut seen = 0;
        loop {
            match reader.next().unwrap() {
                Next::Record(_) => seen += 1,
                Next::Closed(_) => break,
                Next::Empty => {
                    bell.drain();
                    parked.arm(&cursors);
                    if !reader.is_ready() {
                        bell.sleep();
                    }
                    parked.disarm(&cursors);
                }
                Next::Lagged(_) => unreachable!(),
            }
        }
        assert_eq!(seen, 1);
        publisher.join().unwrap();
    });
}

#[test]
fn a_writer_that_waits_for_room_is_woken() {
    const N: u64 = 6; // the ring holds four
    model(2, || {
        let (mut writer, mut reader, ..) = pair();
        let bell = Bell::new();
        let ring = bell.clone();
        let consumer = thread::spawn(move || {
            expect(&mut reader, N, |reader| {
                if reader.take_ring_due() {
                    ring.ring();
                }
            });
        });
        for value in 0..N {
            while write(&mut writer, value).is_err() {
                bell.drain();
                writer.arm();
                if writer.claim(BODY as u64).is_err() {
                    bell.sleep();
                }
                writer.disarm();
            }
        }
        consumer.join().unwrap();
    });
}

#[test]
fn dropped_messages_are_counted_exactly() {
    model(3, || {
        let (mut writer, mut reader, ..) = pair();
        let publisher = thread::spawn(move || {
            write(&mut writer, 0).unwrap();
            writer.skip();
            write(&mut writer, 2).unwrap();
            writer.skip();
            writer.close();
        });
        let (mut got, mut missed) = (Vec::new(), 0);
        loop {
            match reader.next().unwrap() {
                Next::Record(record) => {
                    assert_eq!(record.sequence, got.len() as u64 + missed);
                    got.push(record.sequence);
                }
                Next::Lagged(n) => missed += n,
                Next::Closed(_) => break,
                Next::Empty => thread::yield_now(),
            }
        }
        assert_eq!((got, missed), (vec![0, 2], 2));
        publisher.join().unwrap();
    });
}
