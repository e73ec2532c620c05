//! Logs that no honest writer leaves behind: a log as one does, then some of its words changed, before it is read or
//! while it is.
//!
//! Whatever it is, each look ends in nothing, in an error or in a record that lies within its segment, after a number of
//! loads that is bounded by the log's size.

use std::collections::VecDeque;

use ringbus::internals::ring::blob::{FRAMES, NAME};
use ringbus::internals::ring::layout::{CLOSED, DATA, NEXT_SEQUENCE, OPEN, SUCCESSOR, TAIL, WAITING};
use ringbus::internals::ring::lossy::{LossyNext, LossyReader};
use ringbus::internals::ring::{
    Blob, BlobHeader, Corrupt, CursorSegment, FrameCopy, HEADER, Kind, LogHeader, LogLayout, Next, Reader,
};
use ringbus::internals::segment::{Heap, Memory};

use crate::each;
use crate::memory::Peers;
use crate::random::Random;

const CAPACITY: u64 = 4096;
/// Of each of two blobs.
const BLOB: usize = 4096;
const ID: [u8; 16] = [2; 16];
/// The reader's number; records for others are passed over.
const NUMBER: u16 = 1;

/// What all states are made in.
struct Stage {
    log: Peers,
    blobs: [Peers; 2],
    cursors: Heap,
    frame: FrameCopy,
}

/// What an honest writer has written.
struct Written {
    layout: LogLayout,
    start: u64,
    tail: u64,
    sequence: u64,
    /// Of records that the reader is to get.
    count: u64,
}

impl Stage {
    fn new() -> Self {
        let log = Peers::new(DATA + CAPACITY as usize);
        let blobs = [1, 2].map(|blob| {
            let peers = Peers::new(BLOB);
            // Of the first generation.
            let heap = Heap::new(BLOB);
            Blob::new(heap.clone(), &BlobHeader { log: 1, node: ID, blob });
            (0..BLOB)
                .step_by(8)
                .for_each(|at| peers.set(at, heap.load(at, std::sync::atomic::Ordering::Relaxed)));
            peers
        });
        Self { log, blobs, cursors: Heap::new(512), frame: FrameCopy::default() }
    }

    /// Fills the log as an honest writer does.
    fn write(&mut self, random: &mut Random) -> Written {
        let layout = LogLayout::new(64 << random.below(7)).unwrap();
        let capacity = layout.capacity();
        let start = match random.below(16) {
            0 => (u64::MAX / 2 - random.below(2 * capacity)) & !15,
            _ => random.below(3 * capacity) & !15,
        };
        let sequence = random.pick(&[0, 7, u64::MAX - 20]);
        self.log.change(None);
        self.log.resize(layout.segment_size());
        for at in (DATA..layout.segment_size()).step_by(8) {
            self.log.set(at, 0);
        }
        let (mut tail, mut count) = (start, 0);
        while random.below(8) != 0 && count < 16 {
            let names_blob = random.once_in(4);
            let len = if names_blob { NAME } else { random.below(capacity / 4 - HEADER + 1) };
            let filler = if names_blob { 0 } else { random.below(17) * random.below(2) };
            let size = (HEADER + len + filler).next_multiple_of(HEADER);
            let left = layout.contiguous(tail);
            let padding = if size > left { left } else { 0 };
            if tail + padding + size > start + capacity || size > capacity / 4 {
                break;
            }
            if padding > 0 {
                self.log.set(layout.offset(tail), (padding - HEADER) | (Kind::Padding as u64) << 32);
                tail += padding;
            }
            let at = layout.offset(tail);
            let kind = if names_blob { Kind::Blob } else { Kind::Frame } as u64;
            let addressee = random.pick(&[0, u64::from(NUMBER)]);
            self.log.set(at, len | kind << 32 | filler << 40 | addressee << 48);
            self.log.set(at + 8, sequence + count);
            if names_blob {
                let place = FRAMES as u64 + random.below(64);
                for (index, word) in [1 + random.below(2), 1, place, random.below(64)].into_iter().enumerate()
                {
                    self.log.set(at + (HEADER as usize) + index * 8, word);
                }
            }
            (tail, count) = (tail + size, count + 1);
        }
        let closed = random.once_in(8);
        for (at, word) in [
            (TAIL, tail),
            (NEXT_SEQUENCE, 0),
            (WAITING, random.below(2)),
            (CLOSED, if closed { tail } else { OPEN }),
            (SUCCESSOR, 0),
        ] {
            self.log.set(at, word);
        }
        Written { layout, start, tail, sequence, count }
    }

    /// Changes a word or a bit, mostly one that readers look at.
    fn harm(&self, random: &mut Random, written: &Written) {
        let span = (written.tail - written.start).max(HEADER);
        let near = written.layout.offset(written.start + (random.below(span) & !7));
        let (memory, at) = match random.below(8) {
            0 => (&self.log, TAIL),
            1 => (&self.log, random.pick(&[NEXT_SEQUENCE, WAITING, CLOSED, SUCCESSOR])),
            2 => {
                let blob = &self.blobs[random.index(2)];
                (blob, random.pick(&[0, 8, 16, 24, 32, 48, 128, FRAMES]))
            }
            3 => (&self.log, near),
            _ => (&self.log, near & !15), // a header, or a name
        };
        let old = memory.word(at);
        memory.set(at, harmed(random, at, old));
    }
}

/// Another word for one that held this: as far as it makes sense, one that nearly does.
fn harmed(random: &mut Random, at: usize, old: u64) -> u64 {
    match (random.below(8), at) {
        (0, _) => old ^ 1 << random.below(64),
        (1, _) => random.word(),
        (_, TAIL | CLOSED) => match random.below(8) {
            0 => old.wrapping_sub(random.below(300) * 16),
            1 => old.wrapping_add(random.below(64)),
            2 => old.wrapping_add(CAPACITY + 16 * random.below(3)),
            3 => old.wrapping_add(1 << random.below(63)),
            _ => old.wrapping_add(random.below(40) * 16),
        },
        (2..5, DATA..) if at.is_multiple_of(16) => {
            // Another length, and all else as it was; or another kind, filler or addressee.
            let [len, kind, filler] = [random.word() & 0xffff_ffff, random.below(256), random.below(256)];
            let len = random.pick(&[old & 0xffff, len, len & (CAPACITY - 1), NAME]);
            let kind = random.pick(&[old >> 32 & 0xff, 0, 1, 2, kind]);
            let filler = random.pick(&[old >> 40 & 0xff, 0, filler]);
            len | kind << 32 | filler << 40 | random.below(3) << 48
        }
        _ => old.wrapping_add(random.pick(&[1, 8, 16, 64, u64::MAX, u64::MAX - 15])),
    }
}

/// Words that one look may load: a few for each header that a capacity can hold, looked at twice, and one for each word
/// of what it copies.
fn bound(layout: LogLayout) -> usize {
    16 + 8 * (layout.capacity() / HEADER) as usize + layout.capacity() as usize / 8
}

/// Reads with a gate, as ports do, until something is wrong or nothing is left; how many records there were.
/// Lets go of a blob now and then, as a peer says, if it `forgets`: its records are missed.
fn read_gated(stage: &Stage, random: &mut Random, written: &Written, forgets: bool) -> Result<u64, Corrupt> {
    let Written { layout, start, sequence, .. } = *written;
    let expected = if random.once_in(4) { None } else { Some(sequence) };
    let log = stage.log.clone();
    let reader = Reader::new(log, layout, stage.cursors.clone(), 256, NUMBER, start, expected)?;
    let mut reader = reader.with_blobs();
    for blob in [1, 2] {
        let memory = stage.blobs[blob as usize - 1].clone();
        reader.add_blob(blob, Some(memory));
    }
    let (mut count, mut last, mut empty) = (0, None, 0);
    let mut lent = VecDeque::new();
    while count < 300 && empty < 3 {
        stage.log.take_loads();
        let found = reader.next();
        let loads = stage.log.take_loads();
        assert!(loads <= bound(layout), "{loads} loads for a look");
        match found? {
            Next::Record(record) => {
                assert!(last.is_none_or(|last| record.sequence > last), "{record:?} after {last:?}");
                (count, last) = (count + 1, Some(record.sequence));
                let len = record.len as usize;
                if record.kind == Kind::Frame {
                    let at = layout.offset(record.frame);
                    assert!(at >= DATA && at + len <= layout.segment_size(), "{record:?}");
                } else {
                    assert!(len <= BLOB - FRAMES, "{record:?}");
                }
                assert_eq!(reader.frame().len(), len);
                reader.copy(0, &mut [0; 16][..len.min(16)]);
                reader.copy(len.saturating_sub(8), &mut [0; 8][..len.min(8)]);
                match random.below(16) {
                    0 => reader.release(),
                    1 => lent.extend(reader.lend()),
                    2 => reader.flush(),
                    3 => drop(lent.pop_front()),
                    4 if forgets => reader.remove_blob(1),
                    _ => {}
                }
            }
            Next::Lagged(missed) => assert_ne!(missed, 0),
            Next::Empty => {
                empty += 1;
                _ = (reader.is_ready(), reader.quiet(), reader.lag(), reader.take_ring_due());
                reader.tell();
                if empty == 2 {
                    reader.end_at(stage.log.word(TAIL)); // the peer was cut off
                }
            }
            Next::Closed(_) => break,
        }
        assert!(lent.iter().all(|lent| lent.len() <= BLOB.max(CAPACITY as usize)));
    }
    Ok(count)
}

/// The same without a gate.
fn read_ungated(stage: &mut Stage, random: &mut Random, written: &Written) -> Result<u64, Corrupt> {
    let Written { layout, start, sequence, .. } = *written;
    let expected = if random.once_in(4) { None } else { Some(sequence) };
    let mut reader = LossyReader::new(stage.log.clone(), layout, NUMBER, start, expected);
    let (mut count, mut empty) = (0, 0);
    while count < 300 && empty < 3 {
        stage.log.take_loads();
        let found = reader.next(&mut stage.frame);
        let loads = stage.log.take_loads();
        assert!(loads <= bound(layout), "{loads} loads for a look");
        match found? {
            LossyNext::Frame(_) => {
                count += 1;
                assert!(stage.frame.len() as u64 <= layout.capacity());
            }
            LossyNext::Lagged(missed) => assert_ne!(missed, 0),
            LossyNext::Empty => empty += 1,
            LossyNext::Closed(_) => break,
        }
    }
    Ok(count)
}

/// Without a gate, as ports do it: with the frames of blobs.
fn read_ungated_port(stage: &Stage, written: &Written) -> Result<u64, Corrupt> {
    let Written { layout, start, sequence, .. } = *written;
    let log = stage.log.clone();
    let reader = Reader::new(log, layout, stage.cursors.clone(), 256, NUMBER, start, Some(sequence))?;
    let mut reader = reader.with_blobs().ungated();
    reader.add_blob(1, Some(stage.blobs[0].clone()));
    reader.add_blob(2, None);
    let (mut count, mut empty) = (0, 0);
    while count < 300 && empty < 3 {
        stage.log.take_loads();
        let found = reader.next_ungated();
        let loads = stage.log.take_loads();
        assert!(loads <= 2 * bound(layout), "{loads} loads for a look");
        match found? {
            Next::Record(record) => {
                count += 1;
                assert_eq!(reader.frame().len(), record.len as usize);
                assert!(reader.frame().len() <= BLOB.max(CAPACITY as usize));
            }
            Next::Lagged(missed) => assert_ne!(missed, 0),
            Next::Empty => empty += 1,
            Next::Closed(_) => break,
        }
    }
    Ok(count)
}

#[test]
fn hostile_states_of_logs_do_no_harm() {
    let mut stage = Stage::new();
    let (mut corrupt, mut unharmed) = (0u64, 0u64);
    let total = std::cell::Cell::new(0u64);
    each("states of logs", "RINGBUS_STATES", 60_000, |mut random| {
        total.set(total.get() + 1);
        let written = stage.write(&mut random);
        let harms = random.below(5);
        for _ in 0..harms {
            stage.harm(&mut random, &written);
        }
        // Half of them change while they are read.
        let changes = random.once_in(2);
        if changes {
            stage.log.change(Some((random.clone(), harmed)));
        }
        let way = random.below(4);
        let found = match way {
            0..2 => read_gated(&stage, &mut random, &written, harms > 0 || changes),
            2 => read_ungated(&mut stage, &mut random, &written),
            _ => read_ungated_port(&stage, &written),
        };
        match found {
            Err(_) => corrupt += 1,
            // A log that nothing was done to is read to its end.
            Ok(count) if harms == 0 && !changes && way < 2 => {
                unharmed += 1;
                assert_eq!(count, written.count);
            }
            Ok(_) => {}
        }
        let honest = harms == 0 && !changes && written.tail <= u64::MAX / 2;
        assert!(found.is_ok() || !honest, "{found:?}");
        if harms > 0 {
            mend(&stage);
        }
    });
    let total = total.get();
    assert!(corrupt > total / 5 && unharmed > total / 50, "{corrupt} and {unharmed} of {total}");
    crate::tell(format_args!("{corrupt} of them told to be corrupt"));
}

/// The blobs as they were.
fn mend(stage: &Stage) {
    for (blob, memory) in (1..).zip(&stage.blobs) {
        let [magic, version] = [u64::from_le_bytes(*b"RBUSBLB1"), 1 | (FRAMES as u64) << 32];
        let id = u64::from_le_bytes([2; 8]);
        for (at, word) in [
            (0, magic),
            (8, version),
            (16, BLOB as u64),
            (24, 1),
            (32, id),
            (40, id),
            (48, blob),
            (128, 1),
            (FRAMES, 0),
        ] {
            memory.set(at, word);
        }
    }
}

/// Headers of all three kinds of segment, of any size, with some words changed.
#[test]
fn hostile_headers_of_segments_do_no_harm() {
    let memory = Peers::new(DATA + 2 * CAPACITY as usize);
    let scratch = Heap::new(DATA + 2 * CAPACITY as usize);
    each("states of headers", "RINGBUS_STATES", 60_000, |mut random| {
        let size = match random.below(4) {
            0 => 8 + 8 * random.index(1500),
            _ => random.pick(&[4096, 8192, 12_288]),
        };
        let kind = random.below(3);
        match kind {
            0 => {
                let layout = LogLayout::new(random.pick(&[4096, 8192])).unwrap();
                layout.initialise(&scratch, &LogHeader { log: 1, node: ID, port: 3 });
            }
            1 if size >= 384 => CursorSegment::of_size(size).initialise(&scratch, ID, 3, 0),
            1 => {}
            _ => drop(Blob::new(scratch.clone(), &BlobHeader { log: 1, node: ID, blob: 1 })),
        }
        memory.resize(size);
        for at in (0..144).step_by(8) {
            memory.set(at, scratch.load(at, std::sync::atomic::Ordering::Relaxed));
        }
        for _ in 0..random.below(4) {
            let at = 8 * random.index(10);
            let old = memory.word(at);
            memory.set(at, harmed(&mut random, at, old));
        }
        memory.change(random.once_in(3).then(|| (random.clone(), harmed as crate::memory::Change)));
        memory.take_loads();
        if let Ok((layout, _)) = LogLayout::check(&memory) {
            assert!(layout.segment_size() == size && layout.capacity() >= 4096);
        }
        if let Ok(layout) = CursorSegment::check(&memory) {
            let last = layout.cursor(layout.slots() - 1).unwrap();
            assert!(last + 128 <= size && layout.cursor(layout.slots()).is_none());
        }
        let _ = BlobHeader::check(&memory);
        assert!(memory.take_loads() <= 24);
    });
}
