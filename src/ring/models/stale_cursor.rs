//! A reader that catches up after every record stores its cursor without a fence each time: a writer that
//! then sleeps for room must not have missed all of those stores.

use super::*;
use crate::ring::layout::TAIL;
use crate::segment::Heap;

const RING: u64 = 512;
/// Each below an eighth of the ring but for the first, so that the reader tells of them only on empty.
const RECORDS: [u64; 8] = [64, 48, 48, 48, 48, 48, 48, 48];

/// Control words under loom. Record bytes are written before the threads start and then left alone.
#[derive(Clone)]
struct Prepared(Shared, Heap);

impl Memory for Prepared {
    fn size(&self) -> usize {
        self.1.size()
    }

    fn load(&self, at: usize, order: Ordering) -> u64 {
        match self.0.control(at) {
            Some(word) => word.load(order),
            None => self.1.load(at, order),
        }
    }

    fn copy(&self, at: usize, into: &mut [u8]) {
        self.1.copy(at, into);
    }

    unsafe fn slice(&self, at: usize, len: usize) -> &[u8] {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.1.slice(at, len) }
    }
}

impl MemoryMut for Prepared {
    fn store(&self, at: usize, value: u64, order: Ordering) {
        match self.0.control(at) {
            Some(word) => word.store(value, order),
            None => self.1.store(at, value, order),
        }
    }

    unsafe fn slice_mut(&self, at: usize, len: usize) -> &mut [u8] {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.1.slice_mut(at, len) }
    }
}

#[test]
fn a_waiting_writer_misses_no_cursor_stored_on_empty() {
    model(3, || {
        let layout = LogLayout::new(RING).unwrap();
        let log = Prepared(Shared::new(false), Heap::new(layout.segment_size()));
        let cursors = Shared::new(false);
        let gates: ModelGates = Arc::new(Gates::new());
        let gate = gates.add_first(cursors.clone(), ()).unwrap();
        gates.follow(gate.number(), cursors.clone(), CURSOR);
        let number = gate.number();
        let mut writer = Writer::new(log.clone(), layout, gates);
        for size in RECORDS {
            writer.claim(size - 16).unwrap();
            writer.commit(Kind::Frame, 0, 0, size as usize - 16);
            writer.publish();
        }
        log.store(TAIL, 0, Ordering::Relaxed);

        let bell = Bell::new();
        let ring = bell.clone();
        let reader = thread::spawn(move || {
            let mut reader = Reader::new(log.clone(), layout, cursors, CURSOR, number, 0, Some(0)).unwrap();
            let mut tail = 0;
            for size in RECORDS {
                // The writer published this a while ago; that its fence was elsewhere is the point.
                tail += size;
                log.store(TAIL, tail, Ordering::Relaxed);
                assert!(matches!(reader.next(), Ok(Next::Record(_))));
                assert_eq!(reader.next(), Ok(Next::Empty));
            }
            if reader.take_ring_due() {
                ring.ring();
            }
        });
        // Padding to the end and the largest record: as much as one claim can ask for.
        assert_eq!(layout.contiguous(RECORDS.iter().sum()), 112);
        while writer.claim(112).is_err() {
            bell.drain();
            writer.arm();
            if writer.claim(112).is_err() {
                bell.sleep();
            }
            writer.disarm();
        }
        reader.join().unwrap();
    });
}
