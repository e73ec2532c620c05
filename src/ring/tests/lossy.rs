//! Readers without a gate: in nobody's way, rung like all others, told of each loss at once, and never given a byte
//! that was written after its record.

use proptest::prelude::*;

use super::fixture::{End, Log, bytes, filling};
use crate::ring::blob::{BESIDE, FRAMES, NAME};
use crate::ring::{Blob, BlobHeader, Corrupt, Next, Recovery};
use crate::segment::Heap;

const CAPACITY: u64 = 4096;
/// Bytes of the largest frame that the blobs here take.
const LARGE: usize = 3000;

fn blob(id: u64) -> Blob<Heap> {
    Blob::new(Heap::new(BESIDE + LARGE), &BlobHeader { log: 1, node: [2; 16], blob: id })
}

fn give(end: &mut End, blob: &Blob<Heap>) {
    end.reader.add_blob(blob.id(), Some(blob.memory().clone()));
}

/// Writes the blob as soon as nobody keeps the writer from it, and publishes its name.
fn send(log: &mut Log, blob: &mut Blob<Heap>, frame: &[u8]) {
    log.writer.claim(NAME).unwrap();
    log.writer.look_at_cursors();
    assert_eq!(log.writer.recover(blob), Recovery::Back);
    blob.bytes_mut(FRAMES, frame.len()).copy_from_slice(frame);
    let naming = log.writer.name_blob(blob, FRAMES, frame.len());
    log.writer.publish_blob(blob, &naming);
}

/// The frame of the next record.
#[track_caller]
fn take(end: &mut End) -> Vec<u8> {
    match end.glance() {
        Next::Record(record) => assert_eq!(record.len as usize, end.lent().len()),
        other => panic!("{other:?} instead of a record"),
    }
    let (frame, mut copied) = (end.lent().to_vec(), vec![0; end.lent().len()]);
    end.reader.copy(0, &mut copied);
    assert_eq!(frame, copied);
    end.reader.release();
    frame
}

#[test]
fn it_is_in_nobodys_way_and_nobody_waits_for_it() {
    let mut log = Log::new(CAPACITY);
    let end = log.ungated_reader(1);
    for seed in 0..100 {
        log.write(&filling(512, seed)).unwrap();
    }
    assert!(log.writer.has_ungated() && log.writer.slowest().is_none());
    assert_eq!((log.gates.lag(log.tail()), log.waiting()), (0, 0));
    assert!(!log.gates.follow(end.number, end.memory.clone(), end.at), "it has no gate to move");

    // Beside one that has a gate, that one alone counts.
    let gated = log.late_reader(2);
    while log.write(&filling(512, 0)).is_ok() {}
    assert_eq!(log.writer.slowest().map(|gate| (gate.number(), gate.info)), Some((gated.number, 2)));
    assert_eq!(log.gates.lag(log.tail()), CAPACITY);
    log.gates.remove(gated.number).unwrap();
    log.write(&filling(512, 0)).unwrap();
    log.gates.remove(end.number).unwrap();
    log.write(&[]).unwrap();
    assert!(!log.writer.has_ungated());
}

#[test]
fn a_blob_that_is_made_ready_for_another_frame_is_lost() {
    let mut log = Log::new(CAPACITY);
    let mut end = log.ungated_reader(1);
    let mut blob = blob(1);
    give(&mut end, &blob);
    send(&mut log, &mut blob, &bytes(1, LARGE));
    blob.touch();
    assert_eq!(take(&mut end), bytes(1, LARGE), "not while a record names it");
    send(&mut log, &mut blob, &bytes(2, LARGE));
    log.writer.look_at_cursors();
    assert_eq!(log.writer.recover(&mut blob), Recovery::Back);
    blob.touch();
    assert_eq!(end.glance(), Next::Lagged(1));
    send(&mut log, &mut blob, &bytes(3, LARGE));
    assert_eq!(take(&mut end), bytes(3, LARGE));
}

#[test]
fn it_is_rung_like_all_others_but_not_for_being_in_the_way() {
    let mut log = Log::new(CAPACITY);
    let end = log.ungated_reader(1);
    end.park(1);
    log.write(&[]).unwrap();
    assert_eq!((log.ring(|_| true), log.ring(|_| true)), (vec![1], vec![]));
    end.park(3);
    for seed in 0..20 {
        log.write(&filling(512, seed)).unwrap();
        assert!(log.ring(|_| false).is_empty(), "it wants none of them");
    }
    assert_eq!(log.ring(|_| true), [1]);
}

#[test]
fn what_it_lost_is_told_at_once_and_not_with_the_next_record() {
    let mut log = Log::new(CAPACITY);
    let mut end = log.ungated_reader(1);
    log.write(b"seen").unwrap();
    assert_eq!(take(&mut end), b"seen");
    for seed in 0..100 {
        log.write(&filling(64, seed)).unwrap();
    }
    assert!(end.reader.is_ready());
    assert_eq!((end.glance(), end.glance()), (Next::Lagged(100), Next::Empty));
    assert!(!end.reader.is_ready() && end.reader.quiet());
    log.write(b"next").unwrap();
    assert_eq!((take(&mut end), end.glance()), (b"next".to_vec(), Next::Empty));
    assert_eq!(end.reader.lag(), 0);
}

#[test]
fn one_that_joins_late_counts_from_where_it_joined() {
    let mut log = Log::new(CAPACITY);
    for seed in 0..100 {
        log.write(&filling(64, seed)).unwrap();
    }
    let mut end = log.ungated_reader(1);
    assert_eq!(end.glance(), Next::Empty);
    for seed in 0..1000 {
        log.write(&filling(64, seed)).unwrap();
    }
    assert_eq!((end.glance(), end.glance()), (Next::Lagged(1000), Next::Empty));
}

#[test]
fn a_frame_in_hand_is_its_own() {
    let (mut log, mut blob) = (Log::new(CAPACITY), blob(1));
    let mut end = log.ungated_reader(1);
    give(&mut end, &blob);
    log.write(b"small").unwrap();
    assert!(matches!(end.glance(), Next::Record(_)));
    for seed in 0..100 {
        log.write(&filling(512, seed)).unwrap();
    }
    assert_eq!(end.lent(), b"small");
    assert_eq!(end.glance(), Next::Lagged(100));
    send(&mut log, &mut blob, &bytes(1, LARGE));
    assert!(matches!(end.glance(), Next::Record(_)));
    assert!(end.reader.lend().is_none(), "there is nothing that its writer would leave alone");
    send(&mut log, &mut blob, &bytes(2, LARGE));
    assert_eq!(end.lent(), bytes(1, LARGE));
    assert_eq!(take(&mut end), bytes(2, LARGE));
}

#[test]
fn at_the_end_of_the_log_it_is_told_of_the_last_losses_too() {
    for dead in [false, true] {
        let mut log = Log::new(CAPACITY);
        let mut end = log.ungated_reader(1);
        for seed in 0..100 {
            log.write(&filling(64, seed)).unwrap();
        }
        let last = if dead {
            end.reader.end_at(log.tail());
            Next::Empty
        } else {
            log.writer.close();
            Next::Closed(0)
        };
        assert_eq!((end.glance(), end.glance()), (Next::Lagged(100), last));
    }
    let mut log = Log::new(CAPACITY);
    let mut end = log.ungated_reader(1);
    log.write(b"of one that is cut off").unwrap();
    end.reader.end_at(0);
    assert_eq!((end.glance(), end.glance()), (Next::Empty, Next::Empty));
}

#[test]
fn a_blob_that_was_written_again_or_let_go_of_is_lost_and_one_to_come_is_waited_for() {
    let (mut log, mut first, mut second) = (Log::new(CAPACITY), blob(1), blob(2));
    let mut end = log.ungated_reader(1);
    send(&mut log, &mut first, b"to come");
    log.write(b"behind").unwrap();
    for _ in 0..3 {
        assert_eq!(end.glance(), Next::Empty);
        assert!(!end.reader.is_ready(), "or it would never sleep");
    }
    give(&mut end, &first);
    assert!(end.reader.is_ready());
    assert_eq!((take(&mut end), take(&mut end)), (b"to come".to_vec(), b"behind".to_vec()));

    send(&mut log, &mut first, b"written again");
    send(&mut log, &mut first, b"by this");
    assert_eq!((end.glance(), take(&mut end)), (Next::Lagged(1), b"by this".to_vec()));
    // Only the bytes: whoever has begun to write has not published yet.
    send(&mut log, &mut first, b"half written");
    log.writer.look_at_cursors();
    assert_eq!(log.writer.recover(&mut first), Recovery::Back);
    first.bytes_mut(FRAMES, 4).fill(0);
    assert_eq!(end.glance(), Next::Lagged(1));

    send(&mut log, &mut first, b"let go of");
    give(&mut end, &second);
    end.reader.remove_blob(1);
    assert_eq!(end.glance(), Next::Lagged(1));
    end.reader.add_blob(2, None);
    send(&mut log, &mut second, b"cannot be mapped");
    assert_eq!((end.glance(), end.glance()), (Next::Lagged(1), Next::Empty));

    // One that never comes, and a writer that goes on; or one that has ended.
    let mut third = blob(3);
    send(&mut log, &mut third, b"never comes");
    assert_eq!(end.glance(), Next::Empty);
    for seed in 0..50 {
        log.write(&filling(64, seed)).unwrap();
    }
    assert_eq!((end.glance(), end.glance()), (Next::Lagged(51), Next::Empty));
    send(&mut log, &mut third, b"never comes");
    assert_eq!(end.glance(), Next::Empty);
    end.reader.end_at(log.tail());
    assert_eq!((end.glance(), end.glance()), (Next::Lagged(1), Next::Empty));
}

#[test]
fn a_name_that_makes_no_sense_is_the_writers_fault() {
    let mut log = Log::new(CAPACITY);
    for (words, forged) in [(4, [1, 1, 0, 10]), (4, [1, 1, 192, u64::MAX]), (3, [1, 1, 192, 0])] {
        let mut end = log.ungated_reader(1);
        give(&mut end, &blob(1));
        let bytes: Vec<u8> = forged[..words].iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
        log.writer.claim(bytes.len() as u64).unwrap();
        log.writer.body_mut()[..bytes.len()].copy_from_slice(&bytes);
        log.writer.commit(crate::ring::Kind::Blob, 0, 0, bytes.len());
        log.writer.publish();
        let found = end.reader.next_ungated();
        assert!(matches!(found, Err(Corrupt::Blob { .. } | Corrupt::Record { .. })), "{found:?}");
    }
}

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// A frame of so many thousandths of the largest record.
    Publish(u16),
    Batch(Vec<u16>),
    /// A frame in one of two blobs.
    Large(bool),
    Skip,
    Look(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let size = || prop_oneof![0..40u16, 0..1001u16];
    prop_oneof![
        6 => size().prop_map(Step::Publish),
        2 => prop::collection::vec(size(), 1..20).prop_map(Step::Batch),
        3 => any::<bool>().prop_map(Step::Large),
        1 => Just(Step::Skip),
        8 => any::<u8>().prop_map(Step::Look),
    ]
}

/// A message of the log.
enum Sent {
    Small(Vec<u8>),
    /// In this blob, for the so many-th time.
    Large(Vec<u8>, usize, u64),
    Dropped,
}

struct World {
    log: Log,
    end: End,
    blobs: [Blob<Heap>; 2],
    /// How often each was written.
    written: [u64; 2],
    sent: Vec<Sent>,
    /// The next message that the reader has not been told of.
    due: usize,
}

impl World {
    fn new() -> Self {
        let log = Log::new(CAPACITY);
        let (mut end, blobs) = (log.ungated_reader(1), [blob(1), blob(2)]);
        blobs.iter().for_each(|blob| give(&mut end, blob));
        Self { log, end, blobs, written: [0; 2], sent: Vec::new(), due: 0 }
    }

    fn commit(&mut self, thousandths: u16) {
        let len = (self.log.writer.largest_body() * u64::from(thousandths) / 1000) as usize;
        let frame = bytes(self.sent.len() as u64, len);
        self.log.commit(&frame, 0).unwrap(); // whatever the reader does
        self.sent.push(Sent::Small(frame));
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Publish(size) => {
                self.commit(size);
                self.log.writer.publish();
            }
            Step::Batch(sizes) => {
                sizes.into_iter().for_each(|size| self.commit(size));
                self.log.writer.publish();
            }
            Step::Large(which) => {
                let (seed, which) = (self.sent.len(), usize::from(which));
                let frame = bytes(seed as u64, seed * 97 % LARGE);
                send(&mut self.log, &mut self.blobs[which], &frame);
                self.written[which] += 1;
                self.sent.push(Sent::Large(frame, which, self.written[which]));
            }
            Step::Skip => {
                self.log.writer.skip();
                self.sent.push(Sent::Dropped);
            }
            Step::Look(times) => (0..=times % 16).for_each(|_| self.look()),
        }
    }

    /// One look: it finds what is next if it can still be there, or all that is lost before it.
    fn look(&mut self) {
        let (due, end) = (self.due, self.sent.len());
        let overtaken = self.log.tail() - self.end.stored() > CAPACITY / 2;
        let is_lost = |sent: &Sent| match sent {
            Sent::Small(_) => false,
            Sent::Large(_, which, times) => *times < self.written[*which],
            Sent::Dropped => true,
        };
        let lost = self.sent[due..].iter().take_while(|sent| overtaken || is_lost(sent)).count();
        let found = self.end.glance();
        match found {
            Next::Record(record) => {
                assert_eq!((record.sequence, lost), (due as u64, 0));
                let (Sent::Small(frame) | Sent::Large(frame, ..)) = &self.sent[due] else {
                    panic!("dropped")
                };
                assert_eq!(self.end.lent(), frame);
                self.due += 1;
            }
            Next::Lagged(missed) => {
                assert!(lost > 0 && missed == lost as u64, "{missed} of {lost}");
                self.due += lost;
            }
            Next::Empty => assert_eq!((due, lost), (end, 0)),
            Next::Closed(_) => unreachable!("it is open"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn it_gets_what_is_still_there_and_is_told_of_the_rest(steps in prop::collection::vec(step(), 1..200)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        while world.due < world.sent.len() {
            world.look();
        }
        world.look();
    }
}
