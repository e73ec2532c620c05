//! Readers without a gate: no torn record, no torn blob, no lost wake-up, and every loss is counted.

use super::*;
use crate::ring::blob::NAME;
use crate::ring::layout::DATA;
use crate::ring::lossy::{LossyNext, LossyReader};
use crate::ring::{Blob, BlobHeader, FrameCopy, Recovery};

#[test]
fn an_ungated_reader_never_accepts_a_torn_record() {
    const N: u64 = 5;
    model(2, || {
        let log = Shared::new(true);
        let gates: ModelGates = Arc::new(Gates::new());
        let mut writer: Writer<Shared, Shared, ()> = Writer::new(log.clone(), layout(), gates);
        let mut reader = LossyReader::at_tail(log.clone(), layout());
        let publisher = thread::spawn(move || {
            for value in 0..N {
                writer.claim(BODY as u64).unwrap();
                // Racy bytes are stored as words, as a machine does it.
                let at = writer.body_offset();
                log.store(at, value, Ordering::Relaxed);
                log.store(at + 8, !value, Ordering::Relaxed);
                writer.commit(Kind::Frame, 0, 0, BODY);
                writer.publish();
            }
        });
        let mut frame = FrameCopy::default();
        let (mut due, mut seen) = (0, 0);
        for _ in 0..3 {
            match reader.next(&mut frame).unwrap() {
                LossyNext::Frame(sequence) => {
                    let value = u64::from_le_bytes(frame[..8].try_into().unwrap());
                    assert_eq!(*frame, fill(value), "torn record accepted");
                    assert_eq!(value, sequence);
                    assert!(seen == 0 || sequence == due, "a gap is told first");
                    due = sequence + 1;
                    seen += 1;
                }
                LossyNext::Lagged(missed) => due += missed,
                LossyNext::Empty | LossyNext::Closed(_) => thread::yield_now(),
            }
        }
        publisher.join().unwrap();
    });
}

/// Racy bytes are stored as words, as a machine does it: by turns in the two ways to publish.
fn write_racy(writer: &mut ModelWriter, log: &Shared, value: u64) {
    if value % 2 == 1 {
        return writer.publish_frame(&[], &fill(value)).unwrap();
    }
    writer.claim(BODY as u64).unwrap();
    let at = writer.body_offset();
    log.store(at, value, Ordering::Relaxed);
    log.store(at + 8, !value, Ordering::Relaxed);
    writer.commit(Kind::Frame, 0, 0, BODY);
    writer.publish();
}

/// A reader that is added without a gate while the writer may be writing.
fn join(log: &Shared, gates: &ModelGates, cursors: &Shared, layout: LogLayout) -> ModelReader {
    let LateGate { gate, position, sequence } = gates.add_ungated(log, cursors.clone(), (), FENCE).unwrap();
    let number = gate.number();
    let reader = Reader::new(log.clone(), layout, cursors.clone(), CURSOR, number, position, sequence);
    reader.unwrap().with_blobs().ungated()
}

#[test]
fn every_record_from_where_it_joined_on_is_received_or_counted_as_missed() {
    const N: u64 = 4; // it is overtaken by three
    model(2, || {
        let (log, cursors) = (Shared::new(true), Shared::new(false));
        let gates: ModelGates = Arc::new(Gates::numbered());
        let mut writer: ModelWriter = Writer::new(log.clone(), layout(), gates.clone());
        let written = log.clone();
        let publisher = thread::spawn(move || {
            (0..N).for_each(|value| write_racy(&mut writer, &written, value));
        });
        let mut reader = join(&log, &gates, &cursors, layout());
        // Where the writer was in the midst of a publish, it counts from the first record that it finds.
        let Some(mut due) = reader.expected() else { return publisher.join().unwrap() };
        let mut look = |reader: &mut ModelReader| match reader.next_ungated().unwrap() {
            Next::Record(record) => {
                assert_eq!(record.sequence, due);
                assert_eq!(reader.frame(), fill(due), "torn");
                due += 1;
                due
            }
            Next::Lagged(missed) => {
                due += missed;
                due
            }
            _ => due,
        };
        look(&mut reader);
        publisher.join().unwrap();
        for _ in 0..N + 1 {
            look(&mut reader);
        }
        assert_eq!(look(&mut reader), N, "to the last");
    });
}

#[test]
fn one_that_joins_while_a_record_is_written_is_woken_by_it() {
    model(3, || {
        let (log, cursors) = (Shared::new(true), Shared::new(false));
        let gates: ModelGates = Arc::new(Gates::numbered());
        let mut writer: ModelWriter = Writer::new(log.clone(), layout(), gates.clone());
        let bell = Bell::new();
        let (ring, written) = (bell.clone(), log.clone());
        writer.claim(BODY as u64).unwrap(); // before it joins, as a loan that takes its time
        let publisher = thread::spawn(move || {
            write_racy(&mut writer, &written, 0);
            writer.ring(|()| true, |()| ring.ring());
        });
        let mut reader = join(&log, &gates, &cursors, layout());
        let mut parked = Waiter::new(PARKED);
        // Joined after the record: there is nothing to come.
        while reader.expected() == Some(0) {
            if let Next::Record(_) = reader.next_ungated().unwrap() {
                assert_eq!(reader.frame(), fill(0));
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
fn a_blob_that_is_written_again_while_it_is_copied_is_not_accepted() {
    model(3, || {
        let layout = LogLayout::new(256).unwrap();
        let (log, cursors, memory) = (Shared::sized(true, 256), Shared::new(false), Shared::new(true));
        let gates: ModelGates = Arc::new(Gates::numbered());
        let mut writer: ModelWriter = Writer::new(log.clone(), layout, gates.clone());
        let mut blob = Blob::new(memory.clone(), &BlobHeader { log: 1, node: [2; 16], blob: 1 });
        let mut reader = join(&log, &gates, &cursors, layout);
        reader.add_blob(1, Some(memory.clone()));
        let publisher = thread::spawn(move || {
            for value in 0..2 {
                writer.look_at_cursors();
                assert_eq!(writer.recover(&mut blob), Recovery::Back, "nobody keeps it");
                writer.claim(NAME).unwrap();
                let naming = writer.name_blob(&mut blob, DATA, BODY);
                memory.store(DATA, value, Ordering::Relaxed);
                memory.store(DATA + 8, !value, Ordering::Relaxed);
                writer.publish_blob(&mut blob, &naming);
            }
        });
        let mut due = 0;
        let mut look = |reader: &mut ModelReader| match reader.next_ungated().unwrap() {
            Next::Record(record) => {
                assert_eq!(record.sequence, due);
                assert_eq!(reader.frame(), fill(due), "torn");
                due += 1;
            }
            Next::Lagged(missed) => due += missed,
            _ => {}
        };
        look(&mut reader);
        look(&mut reader);
        publisher.join().unwrap();
        (0..3).for_each(|_| look(&mut reader));
        assert_eq!(due, 2);
    });
}
