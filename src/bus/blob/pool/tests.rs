//! The pool against readers that read, keep and give back in any order: no blob is written that anybody looks at,
//! memory is bounded, and nobody waits for what is there.

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::ring::blob::{BESIDE, FRAMES, NAME};
use crate::ring::{BlobHeader, CursorSegment, Gates, Lent, LogHeader, LogLayout, Next, Reader};
use crate::segment::Heap;

const LIMIT: u64 = 8192;
const CLASSES: [u64; 4] = [1024, 2048, 4096, 8192];

struct End {
    reader: Reader<Heap, Heap>,
    due: VecDeque<(u64, usize)>,
    kept: Vec<(Lent<Heap>, u64, usize)>,
}

struct Bench {
    writer: Writer<Heap, Heap, ()>,
    pool: Pool<Heap>,
    ends: Vec<End>,
    unshared: Vec<Shared>,
    sent: u64,
}

fn content(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (seed.wrapping_mul(0x9e37_79b9) >> 3 ^ at.wrapping_mul(31)) as u8).collect()
}

impl Bench {
    fn new(readers: usize) -> Self {
        let layout = LogLayout::new(4096).unwrap();
        let log = Heap::new(layout.segment_size());
        layout.initialise(&log, &LogHeader { log: 1, node: [2; 16], port: 3 });
        let gates = Arc::new(Gates::new());
        let end = |_| {
            let cursors = Heap::new(512);
            let segment = CursorSegment::of_size(512);
            segment.initialise(&cursors, [4; 16], 5, 0);
            let number = gates.add_first(cursors.clone(), ()).unwrap().number();
            assert!(gates.follow(number, cursors.clone(), segment.cursor(0).unwrap()));
            let reader = Reader::new(log.clone(), layout, cursors, 256, number, 0, Some(0)).unwrap();
            End { reader: reader.with_blobs(), due: VecDeque::new(), kept: Vec::new() }
        };
        let ends = (0..readers).map(end).collect();
        let writer = Writer::new(log.clone(), layout, gates.clone());
        Self { writer, pool: Pool::new(LIMIT), ends, unshared: Vec::new(), sent: 0 }
    }

    /// Sends if the pool has a blob; `late`: one that is made is shared later.
    fn send(&mut self, class: u64, len: usize, late: bool) {
        if self.writer.claim(NAME).is_err() {
            return;
        }
        let is_prepared = self.pool.has_prepared(class);
        let mut take = self.pool.take(class, true, &mut self.writer);
        assert!(take == Take::Ready || !is_prepared);
        if let Take::Make { gone } = &take {
            for blob in gone {
                self.ends.iter_mut().for_each(|end| end.reader.remove_blob(*blob));
            }
            let blob = self.pool.next_id();
            let memory = Heap::new(BESIDE + class as usize);
            let shared = Shared::default();
            self.ends.iter_mut().for_each(|end| end.reader.add_blob(blob, Some(memory.clone())));
            let header = BlobHeader { log: 1, node: [2; 16], blob };
            self.pool.add(Blob::new(memory, &header), class, shared.clone());
            if late {
                self.unshared.push(shared)
            } else {
                shared.set()
            }
            take = self.pool.take(class, true, &mut self.writer);
            // Others of its size may be there: a few are made before one is used again.
            assert!(take == Take::Ready || late, "{take:?}");
        }
        if take == Take::Wait {
            assert!(self.pool.lent().is_none());
            // Whatever is free and shared would not have done, nor would letting go of it.
            let pending = self.pool.free.iter().any(|pooled| pooled.class == class);
            assert!(pending || self.pool.in_use() + class > LIMIT, "{class} beside {}", self.pool.in_use());
            return;
        }
        self.pool.lent_mut().unwrap().bytes_mut(FRAMES, len).copy_from_slice(&content(self.sent, len));
        let naming = self.pool.name(&self.writer, FRAMES, len).unwrap();
        self.pool.publish(&mut self.writer, &naming);
        if len.is_multiple_of(2) {
            self.pool.prepare(&mut self.writer);
        }
        self.ends.iter_mut().for_each(|end| end.due.push_back((self.sent, len)));
        self.sent += 1;
    }

    fn read(&mut self, end: usize, keep: bool) {
        let End { reader, due, kept } = &mut self.ends[end];
        match (reader.next().unwrap(), due.pop_front()) {
            (Next::Record(record), Some((seed, len))) => {
                assert_eq!((record.sequence, record.len as usize), (seed, len));
                assert_eq!(reader.frame(), content(seed, len));
                match keep.then(|| reader.lend()).flatten() {
                    Some(lent) => kept.push((lent, seed, len)),
                    None => reader.release(),
                }
            }
            (Next::Empty, None) => {}
            other => panic!("{other:?}"),
        }
    }

    fn give_back(&mut self, end: usize, which: usize) {
        let kept = &mut self.ends[end].kept;
        if !kept.is_empty() {
            let (lent, seed, len) = kept.swap_remove(which % kept.len());
            assert_eq!(*lent, content(seed, len)[..]);
        }
    }

    fn check(&self) {
        assert!(self.pool.bytes() <= LIMIT && self.pool.count() <= MOST);
        for (lent, seed, len) in self.ends.iter().flat_map(|end| &end.kept) {
            assert!(lent.len() == *len && **lent == content(*seed, *len)[..]);
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Send { class: usize, len: usize, late: bool },
    Read { end: usize, keep: bool },
    GiveBack { end: usize, which: usize },
    Unsent { class: usize },
    Share,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4usize, 0..1024usize, prop::bool::weighted(0.1))
            .prop_map(|(class, len, late)| Step::Send { class, len, late }),
        4 => (0..2usize, any::<bool>()).prop_map(|(end, keep)| Step::Read { end, keep }),
        3 => (0..2usize, any::<usize>()).prop_map(|(end, which)| Step::GiveBack { end, which }),
        1 => (0..4usize).prop_map(|class| Step::Unsent { class }),
        1 => Just(Step::Share),
    ]
}

proptest! {
    #[test]
    fn no_blob_is_written_that_is_looked_at_and_none_that_is_free_is_waited_for(
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut bench = Bench::new(2);
        for step in steps {
            match step {
                Step::Send { class, len, late } => bench.send(CLASSES[class], len, late),
                Step::Read { end, keep } => bench.read(end, keep),
                Step::GiveBack { end, which } => bench.give_back(end, which),
                Step::Unsent { class } => {
                    if bench.pool.take(CLASSES[class], true, &mut bench.writer) == Take::Ready {
                        bench.pool.lent_mut().unwrap().bytes_mut(FRAMES, 1024).fill(0xee);
                    }
                }
                Step::Share => bench.unshared.drain(..).for_each(|shared| shared.set()),
            }
            bench.check();
        }
        // Once everything is read and given back, all is free.
        bench.unshared.drain(..).for_each(|shared| shared.set());
        for end in 0..2 {
            while !bench.ends[end].due.is_empty() {
                bench.read(end, false);
            }
            bench.ends[end].kept.clear();
            bench.read(end, false);
        }
        bench.pool.put_back();
        bench.pool.recover(&mut bench.writer);
        prop_assert_eq!((bench.pool.in_use(), bench.pool.free.len()), (0, bench.pool.count()));
    }
}

#[test]
fn a_blob_is_used_again_and_the_number_is_bounded() {
    let mut bench = Bench::new(1);
    bench.pool = Pool::new(u64::MAX / 2);
    for _ in 0..50 {
        bench.send(1024, 1000, false);
        bench.read(0, false);
    }
    assert_eq!((bench.pool.count(), bench.sent), (SEVERAL as usize, 50));
    while bench.pool.count() < MOST {
        bench.send(1024, 10, false);
    }
    for _ in 0..10 {
        assert_eq!(bench.pool.take(1024, true, &mut bench.writer), Take::Wait);
    }
    bench.read(0, false);
    let take = bench.pool.take(2048, true, &mut bench.writer);
    assert!(matches!(&take, Take::Make { gone } if gone.len() == 1), "{take:?}");
}

#[test]
fn sizes_that_cannot_all_be_there_do_not_make_and_drop_in_turn() {
    let mut bench = Bench::new(1);
    for class in [8192, 1024, 2048, 1024, 8192] {
        bench.send(class, 1000, false);
        bench.read(0, false);
    }
    assert_eq!((bench.pool.next_id, bench.sent), (2, 5), "the large one does for all");
}

#[test]
fn one_that_can_wait_gets_no_more_while_many_are_out() {
    const LARGE: u64 = 256 << 10;
    let mut bench = Bench::new(1);
    bench.pool = Pool::new(64 * LARGE);
    for _ in 0..AMPLE {
        assert!(matches!(bench.pool.take(LARGE, false, &mut bench.writer), Take::Make { .. }));
        bench.send(LARGE, 10, false);
    }
    assert_eq!(bench.pool.take(LARGE, false, &mut bench.writer), Take::Wait);
    assert!(matches!(bench.pool.take(LARGE, true, &mut bench.writer), Take::Make { .. }));
    bench.read(0, false);
    assert_eq!(bench.pool.take(LARGE, false, &mut bench.writer), Take::Ready);
}
