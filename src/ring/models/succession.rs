//! A log that is closed for its successor: whoever sees that finds the successor, everybody is woken, and nothing that
//! is still read is overwritten.

use loom::sync::atomic::AtomicBool;

use super::*;

const SUCCESSOR: u64 = 2;

/// A log that continues another, with a reader gated at 0.
fn continued(sequence: u64) -> (ModelWriter, ModelReader) {
    let (log, cursors) = (Shared::new(false), Shared::new(false));
    let gates: ModelGates = Arc::new(Gates::numbered_from(sequence));
    let gate = gates.add_first(cursors.clone(), ()).unwrap();
    assert!(gates.follow(gate.number(), cursors.clone(), CURSOR));
    let (number, due) = (gate.number(), Some(sequence));
    let reader = Reader::new(log.clone(), layout(), cursors, CURSOR, number, 0, due).unwrap();
    (Writer::new(log, layout(), gates).continuing(sequence), reader)
}

#[test]
fn whoever_sees_the_log_closed_finds_the_successor_and_goes_on_in_it() {
    model(2, || {
        let (mut writer, mut reader, _, cursors) = pair();
        let (mut next_writer, next_reader) = continued(1);
        let bell = Bell::new();
        let ring = bell.clone();
        // Stands for the socket of the reader's node; Relaxed, so that the order comes from the log alone.
        let attached = Arc::new(AtomicBool::new(false));
        let socket = attached.clone();
        let publisher = thread::spawn(move || {
            write(&mut writer, 0).unwrap();
            writer.ring(|()| true, |()| ring.ring());
            socket.store(true, Ordering::Relaxed);
            writer.close_for(SUCCESSOR);
            writer.ring(|()| true, |()| ring.ring());
            // The reader's port has one bell for all its logs, and one word that says that it sleeps: the first log's
            // closing has woken it if it slept.
            write(&mut next_writer, 1).unwrap();
        });
        let mut parked = Waiter::new(PARKED);
        let mut due = 0;
        loop {
            match reader.next().unwrap() {
                Next::Record(record) => {
                    assert_eq!((record.sequence, reader.frame()), (due, &fill(due)[..]));
                    due += 1;
                }
                Next::Closed(successor) => {
                    assert_eq!((successor, due, reader.expected()), (SUCCESSOR, 1, Some(1)));
                    break;
                }
                Next::Empty => {
                    bell.drain();
                    parked.arm(&cursors);
                    if !reader.is_ready() {
                        bell.sleep();
                    }
                    parked.disarm(&cursors);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(attached.load(Ordering::Relaxed), "closed before the successor was sent");
        let mut reader = next_reader;
        while read(&mut reader) != Some(1) {
            thread::yield_now();
        }
        publisher.join().unwrap();
    });
}

#[test]
fn what_an_evicted_reader_still_reads_is_not_overwritten() {
    model(2, || {
        let (mut writer, mut reader, ..) = pair();
        let publisher = thread::spawn(move || {
            let mut value = 0;
            while write(&mut writer, value).is_ok() {
                value += 1;
                if value == 6 {
                    return (value, writer); // the reader has kept up
                }
            }
            assert_eq!(writer.in_the_way(BODY as u64), [1]);
            writer.close_for(SUCCESSOR);
            let (mut next, unread) = continued(value);
            (0..4).for_each(|more| write(&mut next, value + more).unwrap());
            drop(unread);
            (value, writer)
        });
        let mut due = 0;
        let mut look = |reader: &mut ModelReader| match reader.next().unwrap() {
            Next::Record(record) => {
                assert_eq!((record.sequence, reader.frame()), (due, &fill(due)[..])); // loom checks for races
                due += 1;
                true
            }
            _ => false,
        };
        (0..2).for_each(|_| {
            look(&mut reader);
        });
        let (written, writer) = publisher.join().unwrap();
        while look(&mut reader) {}
        assert_eq!(due, written, "all that was in its log");
        if written < 6 {
            assert_eq!(reader.next(), Ok(Next::Closed(SUCCESSOR)));
            assert_eq!(reader.expected(), Some(written));
        }
        drop(writer);
    });
}
