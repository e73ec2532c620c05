//! Any bytes in a log or a cursor segment, changed while they are read: every look ends in an error, in
//! nothing, or in a record that lies within the log.
#![no_main]

use std::sync::atomic::Ordering::Relaxed;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringbus::internals::ring::layout::{CLOSED, DATA, NEXT_SEQUENCE, OPEN, TAIL, WAITING};
use ringbus::internals::ring::lossy::{LossyNext, LossyReader};
use ringbus::internals::ring::blob::{FRAMES, NAME};
use ringbus::internals::ring::{Blob, BlobHeader, CursorSegment, FrameCopy, Kind, LogHeader, LogLayout, Next, Reader};
use ringbus::internals::segment::{Heap, Memory, MemoryMut};

const CURSORS: usize = 512;
/// Of each blob; there are two.
const BLOB: usize = 8192;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Capacity: 64 bytes to 8 KiB.
    order: u8,
    /// In sixteens, so that readers find something.
    tail: u16,
    position: u16,
    next_sequence: u8,
    sequence: Option<u8>,
    /// Closed at the tail.
    closed: bool,
    steps: Vec<Step>,
    records: &'a [u8],
}

#[derive(Arbitrary, Debug)]
enum Step {
    Gated,
    Lossy,
    Release,
    Flush,
    /// The record in hand; or one of those that are lent is given back.
    Lend,
    Return(u8),
    /// A blob arrives, or one that cannot be mapped; or is gone.
    Blob(u8, bool),
    BlobGone(u8),
    /// The peer publishes the name of a blob.
    Name { blob: u8, generation: u8, at: u16, len: u16 },
    /// Any word of a blob changes.
    BlobWord(u8, u16, u64),
    /// The peer is gone.
    End,
    /// The peer publishes, in sixteens.
    Advance(u8),
    /// The peer writes some other word: a control word, or one of the header or the records.
    Control(u8, u64),
    Word(u16, u64),
    /// The peer flips a bit.
    Flip(u16, u8),
}

/// Segments as a peer might send them: good headers, but for what the input writes over them.
fn check(input: &Input<'_>) {
    let log = Heap::new(DATA + 4096 * (1 + usize::from(input.order / 8 % 4)));
    LogLayout::new(4096).unwrap().initialise(&log, &LogHeader { log: 1, node: [2; 16], port: 3 });
    log.store(TAIL, u64::from(input.tail) * 16, Relaxed);
    let cursors = Heap::new(8 * (1 + usize::from(input.tail) % 512));
    if cursors.size() >= 256 {
        CursorSegment::of_size(cursors.size()).initialise(&cursors, [4; 16], 5, 0);
    }
    for (at, word) in input.records.as_chunks::<8>().0.iter().enumerate() {
        for segment in [&log, &cursors] {
            let at = (usize::from(input.position) + at) * 8 % segment.size();
            segment.store(at, u64::from_le_bytes(*word), Relaxed);
        }
    }
    if let Ok((layout, _)) = LogLayout::check(&log) {
        assert!(layout.capacity() >= 4096 && layout.segment_size() == log.size());
        drain(&log, layout);
    }
    if let Ok(layout) = CursorSegment::check(&cursors) {
        assert!(layout.slots() > 0 && layout.cursor(layout.slots()).is_none());
        cursors.load(layout.cursor(layout.slots() - 1).unwrap(), Relaxed);
    }
}

/// Reads until nothing is left or something is wrong.
fn drain(log: &Heap, layout: LogLayout) {
    let mut reader = Reader::new(log.clone(), layout, Heap::new(CURSORS), 256, 1, 0, None).unwrap();
    while gated(&mut reader, layout) {}
    let mut lossy = LossyReader::at_tail(log.clone(), layout);
    let mut frame = FrameCopy::default();
    while matches!(lossy.next(&mut frame), Ok(LossyNext::Frame(_) | LossyNext::Lagged(_))) {}
}

/// One look; whether there was anything.
fn gated(reader: &mut Reader<Heap, Heap>, layout: LogLayout) -> bool {
    let quiet = reader.quiet();
    match reader.next() {
        Ok(Next::Record(record)) => {
            assert!(!quiet);
            if record.kind == Kind::Frame {
                let at = layout.offset(record.frame);
                assert!(at >= DATA && at + record.len as usize <= layout.segment_size());
            } else {
                assert!(record.len as usize <= BLOB - FRAMES);
            }
            let frame = reader.frame();
            assert_eq!(frame.len(), record.len as usize);
            let mut copied = vec![0; frame.len()];
            reader.copy(0, &mut copied);
            assert_eq!(frame, copied);
            true
        }
        Ok(Next::Lagged(count)) => count > 0,
        Ok(Next::Empty | Next::Closed(_)) | Err(_) => false,
    }
}

fuzz_target!(|input: Input<'_>| {
    check(&input);

    let layout = LogLayout::new(64 << (input.order % 8)).unwrap();
    let log = Heap::new(layout.segment_size());
    layout.initialise(&log, &LogHeader { log: 1, node: [2; 16], port: 3 });
    for (at, word) in input.records.as_chunks::<8>().0.iter().enumerate() {
        if at as u64 * 8 < layout.capacity() {
            log.store(DATA + at * 8, u64::from_le_bytes(*word), Relaxed);
        }
    }
    let position = u64::from(input.position) * 16;
    let tail = position + u64::from(input.tail) * 16 % (layout.capacity() + 16);
    log.store(NEXT_SEQUENCE, input.next_sequence.into(), Relaxed);
    log.store(CLOSED, if input.closed { tail } else { OPEN }, Relaxed);

    log.store(TAIL, position, Relaxed);
    let mut lossy = LossyReader::at_tail(log.clone(), layout);
    log.store(TAIL, tail, Relaxed);
    let cursors = Heap::new(CURSORS);
    let sequence = input.sequence.map(u64::from);
    let reader = Reader::new(log.clone(), layout, cursors.clone(), 256, 1, position, sequence).unwrap();
    let mut reader = reader.with_blobs();
    let blobs = [Heap::new(BLOB), Heap::new(BLOB)];
    for (blob, memory) in (1..).zip(&blobs) {
        Blob::new(memory.clone(), &BlobHeader { log: 1, node: [2; 16], blob });
    }
    let (mut frame, mut lent) = (FrameCopy::default(), Vec::new());

    let mut names = sequence.unwrap_or(0);
    for step in &input.steps {
        let any = |at: u16| usize::from(at) * 8 % log.size();
        match *step {
            Step::Gated => {
                _ = gated(&mut reader, layout);
                _ = (reader.is_ready(), reader.lag(), reader.take_ring_due());
            }
            Step::Lossy => {
                if let Ok(LossyNext::Frame(_)) = lossy.next(&mut frame) {
                    assert!(frame.len() as u64 <= layout.capacity() / 2);
                }
            }
            Step::Release => reader.release(),
            Step::Lend => lent.extend(reader.lend()),
            Step::Return(which) if !lent.is_empty() => {
                let lent = lent.swap_remove(usize::from(which) % lent.len());
                assert!(lent.len() as u64 <= layout.capacity().max(BLOB as u64));
            }
            Step::Return(_) => assert!(reader.lends_over()),
            Step::Blob(blob, mapped) => {
                let blob = usize::from(blob % 2);
                reader.add_blob(blob as u64 + 1, mapped.then(|| blobs[blob].clone()));
            }
            Step::BlobGone(blob) => reader.remove_blob(u64::from(blob % 2) + 1),
            Step::Name { blob, generation, at, len } => {
                let tail = log.load(TAIL, Relaxed);
                let to = layout.offset(tail);
                if tail.is_multiple_of(16) && to + 16 + NAME as usize <= log.size() {
                    let words = [u64::from(blob % 3), u64::from(generation), u64::from(at), u64::from(len)];
                    log.store(to, NAME | 2 << 32, Relaxed);
                    log.store(to + 8, names, Relaxed);
                    for (index, word) in words.into_iter().enumerate() {
                        log.store(to + 16 + index * 8, word, Relaxed);
                    }
                    names += 1;
                    log.store(TAIL, tail + 16 + NAME, Relaxed);
                }
            }
            Step::BlobWord(blob, at, word) => {
                let blob = &blobs[usize::from(blob % 2)];
                blob.store(usize::from(at) * 8 % blob.size(), word, Relaxed);
            }
            Step::End => reader.end_at(log.load(TAIL, Relaxed)),
            Step::Flush => {
                let before = cursors.load(256, Relaxed);
                reader.flush();
                assert!(cursors.load(256, Relaxed) >= before);
            }
            Step::Advance(by) => {
                let tail = log.load(TAIL, Relaxed).wrapping_add(u64::from(by) * 16);
                log.store(TAIL, tail, Relaxed);
            }
            Step::Control(which, word) => {
                let at = [TAIL, NEXT_SEQUENCE, WAITING, CLOSED][usize::from(which % 4)];
                log.store(at, word, Relaxed);
            }
            Step::Word(at, word) => log.store(any(at), word, Relaxed),
            Step::Flip(at, bit) => {
                let word = log.load(any(at), Relaxed);
                log.store(any(at), word ^ 1 << (bit % 64), Relaxed);
            }
        }
    }
    while gated(&mut reader, layout) {}
});
