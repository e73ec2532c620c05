//! A record that is lent to another thread: the writer leaves it alone until the borrower has given it
//! back, and learns of the room then, though everybody sleeps meanwhile.

use super::*;
use crate::ring::sync::fence;
use crate::ring::{Lent, Ringer};

/// A full log, its first record lent and the others read.
fn lent() -> (ModelWriter, ModelReader, Shared, Lent<Shared>) {
    let (mut writer, mut reader, _, cursors) = pair();
    for value in 0..4 {
        write(&mut writer, value).unwrap();
    }
    assert_eq!(read(&mut reader), Some(0));
    let lent = reader.lend().unwrap();
    for value in 1..4 {
        assert_eq!(read(&mut reader), Some(value));
    }
    assert_eq!(read(&mut reader), None);
    (writer, reader, cursors, lent)
}

#[test]
fn a_lent_record_is_left_alone_until_it_is_given_back() {
    model(3, || {
        let (mut writer, mut reader, _, lent) = lent();
        let borrower = thread::spawn(move || {
            assert_eq!(*lent, fill(0)[..]); // loom checks that the writer leaves it alone
        });
        let publisher = thread::spawn(move || {
            while write(&mut writer, 4).is_err() {
                thread::yield_now();
            }
        });
        while !reader.lends_over() {
            thread::yield_now();
        }
        borrower.join().unwrap();
        publisher.join().unwrap();
        assert_eq!(read(&mut reader), Some(4));
    });
}

#[test]
fn the_end_of_a_lend_reaches_a_sleeping_writer_by_way_of_a_sleeping_reader() {
    model(3, || {
        let (mut writer, mut reader, cursors, lent) = lent();
        let (room, news) = (Bell::new(), Bell::new());
        let (ring_room, ring_news, parked_at) = (room.clone(), news.clone(), cursors.clone());
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
                let found = read(&mut reader);
                if reader.take_ring_due() {
                    ring_room.ring();
                }
                match found {
                    Some(value) => return assert_eq!(value, 4),
                    None => {
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
        while write(&mut writer, 4).is_err() {
            room.drain();
            writer.arm();
            if writer.claim(BODY as u64).is_err() {
                room.sleep();
            }
            writer.disarm();
        }
        writer.ring(|()| true, |()| ring_published.ring());
        borrower.join().unwrap();
        consumer.join().unwrap();
    });
}
