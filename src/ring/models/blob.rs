//! A blob that is used again: not while a reader looks at it, has it in hand or keeps it; and a writer that waits for
//! it learns that it is back.

use super::*;
use crate::ring::blob::NAME;
use crate::ring::layout::DATA;
use crate::ring::sync::fence;
use crate::ring::{Blob, BlobHeader, Recovery, Ringer};

/// A log whose largest record names a blob, a reader of it, and the blob.
fn blob() -> (ModelWriter, ModelReader, Shared, Blob<Shared>) {
    let layout = LogLayout::new(256).unwrap();
    let (log, cursors, memory) = (Shared::sized(false, 256), Shared::new(false), Shared::new(false));
    let gates: ModelGates = Arc::new(Gates::new());
    let gate = gates.add_first(cursors.clone(), ()).unwrap();
    assert!(gates.follow(gate.number(), cursors.clone(), CURSOR));
    let reader =
        Reader::new(log.clone(), layout, cursors.clone(), CURSOR, gate.number(), 0, Some(0)).unwrap();
    let mut reader = reader.with_blobs();
    reader.add_blob(1, Some(memory.clone()));
    let blob = Blob::new(memory, &BlobHeader { log: 1, node: [2; 16], blob: 1 });
    (Writer::new(log, layout, gates), reader, cursors, blob)
}

fn send(writer: &mut ModelWriter, blob: &mut Blob<Shared>, value: u64) {
    writer.claim(NAME).unwrap();
    blob.bytes_mut(DATA, BODY).copy_from_slice(&fill(value)); // where loom checks that nobody looks
    let naming = writer.name_blob(blob, DATA, BODY);
    writer.publish_blob(blob, &naming);
}

fn is_back(writer: &mut ModelWriter, blob: &mut Blob<Shared>) -> bool {
    writer.look_at_cursors();
    writer.recover(blob) == Recovery::Back
}

#[test]
fn a_blob_is_not_written_while_it_is_read_or_kept() {
    model(3, || {
        let (mut writer, mut reader, _, mut blob) = blob();
        let publisher = thread::spawn(move || {
            for value in 0..3 {
                while !is_back(&mut writer, &mut blob) {
                    thread::yield_now();
                }
                send(&mut writer, &mut blob, value);
            }
        });
        let mut due = 0;
        let mut kept = None;
        while due < 3 {
            match reader.next().unwrap() {
                Next::Record(_) if due == 1 => {
                    kept = reader.lend();
                    assert!(kept.is_some());
                    due += 1;
                }
                Next::Record(_) => {
                    assert_eq!(reader.frame(), fill(due));
                    due += 1;
                }
                Next::Empty => {
                    if let Some(lent) = kept.take() {
                        assert_eq!(*lent, fill(1)[..]);
                    }
                    thread::yield_now();
                }
                other => panic!("{other:?}"),
            }
        }
        publisher.join().unwrap();
    });
}

#[test]
fn a_late_reader_finds_the_blob_of_each_record_from_its_gate_on_as_it_was() {
    model(3, || {
        let layout = LogLayout::new(256).unwrap();
        let (log, cursors, memory) = (Shared::sized(false, 256), Shared::new(false), Shared::new(false));
        let gates: ModelGates = Arc::new(Gates::new());
        let mut writer: ModelWriter = Writer::new(log.clone(), layout, gates.clone());
        let mut blob = Blob::new(memory.clone(), &BlobHeader { log: 1, node: [2; 16], blob: 1 });
        let publisher = thread::spawn(move || {
            // Whatever the gate stops is not published: the reader joined too early for it.
            let sent = (0..3).take_while(|value| {
                let back = is_back(&mut writer, &mut blob);
                if back {
                    send(&mut writer, &mut blob, *value);
                }
                back
            });
            sent.count() as u64
        });
        let LateGate { gate, position, .. } = gates.add_late(&log, cursors.clone(), (), FENCE).unwrap();
        let reader = ModelReader::new(log, layout, cursors.clone(), CURSOR, gate.number(), position, None);
        let mut reader = reader.unwrap().with_blobs();
        reader.add_blob(1, Some(memory));
        gates.follow(gate.number(), cursors, CURSOR);
        let mut due = position / 48;
        let mut look = |reader: &mut ModelReader| {
            while let Next::Record(_) = reader.next().unwrap() {
                assert_eq!(reader.frame(), fill(due));
                due += 1;
            }
            due
        };
        look(&mut reader);
        let published = publisher.join().unwrap();
        assert_eq!(look(&mut reader), published, "everything from the gate on, to the last");
    });
}

#[test]
fn a_blob_that_is_given_back_reaches_a_sleeping_writer_by_way_of_a_sleeping_reader() {
    model(3, || {
        let (mut writer, mut reader, cursors, mut blob) = blob();
        send(&mut writer, &mut blob, 0);
        assert!(matches!(reader.next(), Ok(Next::Record(_))));
        let lent = reader.lend().unwrap();
        let (back, news) = (Bell::new(), Bell::new());
        let (ring_back, ring_news, parked_at) = (back.clone(), news.clone(), cursors.clone());
        let ring_published = news.clone();
        let borrower = thread::spawn(move || {
            assert_eq!(*lent, fill(0)[..]);
            drop(lent);
            fence(Ordering::SeqCst); // pairs with `Waiter::arm` of the reader
            if Ringer::default().due(&parked_at, PARKED).is_some() {
                ring_news.ring();
            }
        });
        let consumer = thread::spawn(move || {
            let mut parked = Waiter::new(PARKED);
            loop {
                let found = reader.next().unwrap();
                if reader.take_ring_due() {
                    ring_back.ring();
                }
                match found {
                    Next::Record(_) => return assert_eq!(reader.frame(), fill(1)),
                    _ => {
                        news.drain();
                        parked.arm(&cursors);
                        if !reader.is_ready() {
                            news.sleep();
                        }
                        parked.disarm(&cursors);
                    }
                }
            }
        });
        while !is_back(&mut writer, &mut blob) {
            back.drain();
            writer.arm();
            if !is_back(&mut writer, &mut blob) {
                back.sleep();
            }
            writer.disarm();
        }
        send(&mut writer, &mut blob, 1);
        writer.ring(|()| true, |()| ring_published.ring());
        borrower.join().unwrap();
        consumer.join().unwrap();
    });
}
