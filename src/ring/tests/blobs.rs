//! Records that name blobs: found, not there yet, kept, given back, and forged.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::fixture::{End, Log, bytes};
use crate::ring::blob::{BESIDE, FRAMES, NAME};
use crate::ring::layout::WAITING;
use crate::ring::sync::Ordering::Relaxed;
use crate::ring::{Blob, BlobHeader, Corrupt, Kind, Lent, Next, Recovery};
use crate::segment::{Heap, Memory, MemoryMut};

const CAPACITY: u64 = 4096;
const SIZE: usize = BESIDE + 4096;

fn blob(id: u64) -> Blob<Heap> {
    Blob::new(Heap::new(SIZE), &BlobHeader { log: 1, node: [2; 16], blob: id })
}

fn give(end: &mut End, blob: &Blob<Heap>) {
    end.reader.add_blob(blob.id(), Some(blob.memory().clone()));
}

/// Publishes a frame of this seed and length in the blob.
fn send(log: &mut Log, blob: &mut Blob<Heap>, seed: u64, len: usize) {
    log.writer.claim(NAME).unwrap();
    let at = FRAMES + 46;
    blob.bytes_mut(at, len).copy_from_slice(&bytes(seed, len));
    assert_eq!(blob.bytes(at, len), bytes(seed, len));
    let naming = log.writer.name_blob(blob, at, len);
    log.writer.publish_blob(blob, &naming);
    assert!(blob.bytes_mut(at, len).is_empty() && blob.bytes(at, len).is_empty(), "not while it is out");
}

fn recovery(log: &mut Log, blob: &mut Blob<Heap>) -> Recovery {
    log.writer.look_at_cursors();
    log.writer.recover(blob)
}

fn lend(end: &mut End) -> Lent<Heap> {
    assert_eq!(end.record().kind, Kind::Blob);
    end.reader.lend().unwrap()
}

/// Publishes a record with these words behind its header.
fn forge(log: &mut Log, words: &[u64], kind: Kind, filler: u8) {
    let len = words.len() * 8;
    log.writer.claim(len as u64 + u64::from(filler)).unwrap();
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    log.writer.body_mut()[usize::from(filler)..][..len].copy_from_slice(&bytes);
    log.writer.commit(kind, 0, filler, len);
    log.writer.publish();
}

#[test]
fn a_frame_in_a_blob_is_read_in_place_and_the_blob_comes_back_at_once() {
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    let mut blob = blob(7);
    give(&mut end, &blob);
    for round in 0..200 {
        assert_eq!(recovery(&mut log, &mut blob), Recovery::Back);
        send(&mut log, &mut blob, round, 3000);
        assert_eq!(recovery(&mut log, &mut blob), Recovery::Unread);
        let record = end.record();
        assert_eq!((record.kind, record.len, record.sequence), (Kind::Blob, 3000, 2 * round));
        let frame = end.lent();
        assert_eq!(frame, bytes(round, 3000));
        assert_eq!((frame.as_ptr().addr() + 10) % 64, 0);
        let mut part = [0; 100];
        end.reader.copy(1234, &mut part);
        assert_eq!(part, end.lent()[1234..1334]);
        assert_eq!(recovery(&mut log, &mut blob), Recovery::Unread, "it is in hand");
        end.reader.release();
        assert_eq!(end.stored(), log.tail(), "not with the next eighth");
        log.write(b"small").unwrap();
        assert_eq!(end.take(), b"small");
    }
}

/// What an attempt to publish was refused with; nothing was published by it.
fn refused(attempt: impl Fn(&mut Log, &mut Blob<Heap>, &mut Blob<Heap>)) -> String {
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    let (mut one, mut other) = (blob(1), blob(2));
    give(&mut end, &one);
    send(&mut log, &mut one, 1, 100);
    let tail = log.tail();
    let panic = catch_unwind(AssertUnwindSafe(|| attempt(&mut log, &mut one, &mut other))).unwrap_err();
    assert_eq!(log.tail(), tail);
    assert_eq!(end.take(), bytes(1, 100));
    panic.downcast_ref::<&str>().unwrap().to_string()
}

/// A name that is no longer, or not yet, that of the blob which is published with it would have readers look at what the
/// writer may write.
#[test]
fn a_blob_is_published_by_the_name_that_was_made_for_it_and_the_claimed_record_alone() {
    let name = |log: &mut Log, blob: &mut Blob<Heap>| {
        log.writer.claim(NAME).unwrap();
        log.writer.name_blob(blob, FRAMES, 10)
    };
    let said = refused(|log, one, _| _ = name(log, one));
    assert_eq!(said, "nobody reads it", "one that is out");
    let said = refused(|log, one, other| {
        let naming = name(log, other);
        log.writer.publish_blob(one, &naming);
    });
    assert_eq!(said, "it is the blob that was named", "the name of another");
    let said = refused(|log, _, other| {
        let naming = name(log, other);
        log.writer.skip();
        log.writer.publish_blob(other, &naming);
    });
    assert_eq!(said, "it is the record that is claimed", "another number");
    let said = refused(|log, _, other| {
        let naming = name(log, other);
        log.writer.claim(NAME + 16).unwrap();
        log.writer.publish_blob(other, &naming);
    });
    assert_eq!(said, "it is the record that is claimed", "another record");
    let said = refused(|log, _, other| {
        log.writer.claim(NAME + 16).unwrap();
        log.writer.name_blob(other, FRAMES, 10);
    });
    assert_eq!(said, "that is what is claimed", "a longer record");
}

#[test]
fn a_blob_that_has_not_arrived_is_waited_for_and_at_the_end_it_is_missed() {
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    let (mut first, mut second) = (blob(1), blob(2));
    send(&mut log, &mut first, 1, 100);
    log.write(b"behind").unwrap();
    for _ in 0..3 {
        assert_eq!(end.next(), Next::Empty);
        assert!(!end.reader.is_ready() && end.stored() == 0);
    }
    give(&mut end, &second);
    assert_eq!(end.next(), Next::Empty);
    give(&mut end, &first);
    assert!(end.reader.is_ready());
    assert_eq!((end.take(), end.take()), (bytes(1, 100), b"behind".to_vec()));

    end.reader.remove_blob(2);
    send(&mut log, &mut second, 2, 100);
    log.write(b"last").unwrap();
    log.writer.close();
    assert_eq!(end.next(), Next::Empty);
    assert!(!end.reader.is_ready(), "closed, and yet to be read");
    end.reader.end_at(log.tail());
    assert!(end.reader.is_ready());
    assert_eq!(end.next(), Next::Lagged(1));
    assert_eq!((end.take(), end.next()), (b"last".to_vec(), Next::Closed(0)));
}

#[test]
fn a_blob_that_cannot_be_mapped_is_missed() {
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    let mut blob = blob(1);
    end.reader.add_blob(1, None);
    for round in 0..3 {
        assert_eq!(recovery(&mut log, &mut blob), Recovery::Back);
        send(&mut log, &mut blob, round, 100);
        log.write(b"small").unwrap();
        assert_eq!((end.next(), end.take()), (Next::Lagged(1), b"small".to_vec()));
        end.reader.flush();
    }
}

#[test]
fn a_blob_that_is_kept_stays_out_and_all_else_goes_on() {
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    let (mut kept, mut other) = (blob(1), blob(2));
    give(&mut end, &kept);
    give(&mut end, &other);
    send(&mut log, &mut kept, 1, 1000);
    let lent = lend(&mut end);
    assert_eq!(end.stored(), log.tail());
    assert!(end.reader.has_lent() && !end.reader.lends_over());
    for round in 0..500 {
        send(&mut log, &mut other, round, 500);
        assert_eq!(end.take(), bytes(round, 500));
        assert_eq!(recovery(&mut log, &mut other), Recovery::Back);
        assert_eq!(recovery(&mut log, &mut kept), Recovery::Held);
    }
    assert_eq!(log.writer.holder().map(|gate| gate.number()), Some(end.number));
    assert_eq!(*lent, bytes(1, 1000));
    end.reader.remove_blob(1); // it stays mapped for whoever keeps it
    assert_eq!(*lent, bytes(1, 1000));
    drop(lent);
    assert_eq!(recovery(&mut log, &mut kept), Recovery::Held, "until the reader looks");
    assert!(end.reader.is_ready());
    assert_eq!(end.next(), Next::Empty);
    assert_eq!(recovery(&mut log, &mut kept), Recovery::Back);
    assert!(log.writer.holder().is_none() && end.reader.lends_over());
}

#[test]
fn a_full_table_keeps_no_more_and_the_record_stays_in_hand() {
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    let mut blobs: Vec<_> = (1..=20).map(blob).collect();
    let mut lent = Vec::new();
    for (seed, blob) in (0..).zip(&mut blobs) {
        give(&mut end, blob);
        send(&mut log, blob, seed, 64);
        assert_eq!(end.record().kind, Kind::Blob);
        match end.reader.lend() {
            Some(one) => lent.push((seed, one)),
            None => {
                assert!(lent.len() == 15 && end.lent() == bytes(seed, 64));
                assert_eq!(recovery(&mut log, blob), Recovery::Unread);
                end.reader.release();
                assert_eq!(recovery(&mut log, blob), Recovery::Back);
            }
        }
    }
    lent.remove(4);
    for (seed, one) in &lent {
        assert_eq!(**one, bytes(*seed, 64));
    }
    send(&mut log, &mut blobs[19], 77, 64);
    let again = lend(&mut end);
    assert_eq!(*again, bytes(77, 64));
    let held = |log: &mut Log, blobs: &mut [Blob<Heap>]| -> Vec<u64> {
        let held = blobs.iter_mut().map(|blob| (recovery(log, blob) == Recovery::Held).then(|| blob.id()));
        held.flatten().collect()
    };
    assert_eq!(held(&mut log, &mut blobs), [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 20]);
    drop((lent, again));
    end.reader.flush();
    assert!(held(&mut log, &mut blobs).is_empty());
}

#[test]
fn a_waiting_writer_is_rung_when_a_blob_is_given_back() {
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    let mut blob = blob(1);
    give(&mut end, &blob);
    send(&mut log, &mut blob, 1, 100);
    end.record();
    log.writer.arm();
    end.reader.release();
    assert!(end.reader.take_ring_due(), "read");
    log.writer.disarm();
    assert_eq!(recovery(&mut log, &mut blob), Recovery::Back);
    send(&mut log, &mut blob, 1, 100);
    let lent = lend(&mut end);
    end.reader.flush();
    log.writer.arm();
    assert_eq!(end.next(), Next::Empty);
    assert!(!end.reader.take_ring_due());
    drop(lent);
    assert_eq!(end.next(), Next::Empty);
    assert!(end.reader.take_ring_due() && log.memory.load(WAITING, Relaxed) & 1 == 1, "given back");
    assert_eq!(recovery(&mut log, &mut blob), Recovery::Back);
}

#[test]
fn a_new_log_in_the_line_of_another_finds_no_holds_there() {
    let (mut log, end) = Log::with_reader(CAPACITY);
    for entry in 0..15 {
        end.memory.store(end.at + 8 + entry * 8, 1, Relaxed);
    }
    let mut blob = blob(1);
    send(&mut log, &mut blob, 1, 100);
    end.memory.store(end.at, log.tail(), Relaxed);
    assert_eq!(recovery(&mut log, &mut blob), Recovery::Held);
    let (memory, layout, cursors) = (log.memory.clone(), log.layout, end.memory.clone());
    let reader = crate::ring::Reader::new(memory, layout, cursors, end.at, 1, log.tail(), None).unwrap();
    let _reader = reader.with_blobs();
    assert_eq!(recovery(&mut log, &mut blob), Recovery::Back);
}

#[test]
fn what_names_no_frame_within_a_blob_is_corrupt() {
    let good = [1, 1, FRAMES as u64, 10];
    for (words, kind, filler) in [
        (&good[..3], Kind::Blob, 0),
        (&[1, 1, FRAMES as u64, 10, 0], Kind::Blob, 0),
        (&good, Kind::Blob, 16),
        (&[1, 2, FRAMES as u64, 10], Kind::Blob, 0),
        (&[1, 1, FRAMES as u64 - 1, 10], Kind::Blob, 0),
        (&[1, 1, 0, 10], Kind::Blob, 0),
        (&[1, 1, SIZE as u64, 1], Kind::Blob, 0),
        (&[1, 1, SIZE as u64 + 1, 0], Kind::Blob, 0),
        (&[1, 1, u64::MAX, 1], Kind::Blob, 0),
        (&[1, 1, FRAMES as u64, (SIZE - FRAMES + 1) as u64], Kind::Blob, 0),
        (&[1, 1, FRAMES as u64, 1 << 32], Kind::Blob, 0),
        (&[1, 1, FRAMES as u64, u64::MAX], Kind::Blob, 0),
    ] {
        let (mut log, mut end) = Log::with_reader(CAPACITY);
        give(&mut end, &blob(1));
        forge(&mut log, words, kind, filler);
        let found = end.reader.next();
        assert!(matches!(found, Err(Corrupt::Blob { .. } | Corrupt::Record { .. })), "{words:?}: {found:?}");
    }
    let (mut log, mut end) = Log::with_reader(CAPACITY);
    give(&mut end, &blob(1));
    forge(&mut log, &good, Kind::Blob, 0);
    forge(&mut log, &[1, 1, FRAMES as u64, (SIZE - FRAMES) as u64], Kind::Blob, 0);
    assert_eq!((end.take().len(), end.take().len()), (10, SIZE - FRAMES));
    // One that nobody ever sends holds up this log, and nothing else.
    forge(&mut log, &[0, 1, FRAMES as u64, 10], Kind::Blob, 0);
    for _ in 0..3 {
        assert_eq!(end.next(), Next::Empty);
    }
}

#[test]
fn a_log_without_blobs_has_no_place_for_their_names() {
    let (mut log, end) = Log::with_reader(CAPACITY);
    let memory = log.memory.clone();
    let mut reader =
        crate::ring::Reader::new(memory, log.layout, end.memory.clone(), end.at, 1, 0, None).unwrap();
    forge(&mut log, &[1, 0, FRAMES as u64, 10], Kind::Blob, 0);
    assert!(matches!(reader.next(), Err(Corrupt::Record { position: 0, .. })));
}

#[test]
fn headers_of_blobs_are_checked() {
    let header = BlobHeader { log: 5, node: [9; 16], blob: 3 };
    let fresh = || Blob::new(Heap::new(SIZE), &header).memory().clone();
    assert_eq!(BlobHeader::check(&fresh()), Ok(header));
    assert!(BlobHeader::check(&Heap::new(SIZE)).is_err() && BlobHeader::check(&Heap::new(64)).is_err());
    for at in [0, 8, 16] {
        let memory = fresh();
        memory.store(at, memory.load(at, Relaxed) ^ 1 << 40, Relaxed);
        assert!(matches!(BlobHeader::check(&memory), Err(Corrupt::Header { .. })), "{at}");
    }
    for at in [24, 32, 40, 48] {
        let memory = fresh();
        memory.store(at, 77, Relaxed);
        assert_ne!(BlobHeader::check(&memory).unwrap(), header, "{at}");
    }
}
