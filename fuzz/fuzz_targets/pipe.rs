//! Any bytes in a pipe's two segments, changed while both ends use them: every call ends in a message, in
//! nothing or in an error, and looks at no more than the pipe holds.
#![no_main]

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringbus::internals::pipe::{CURSOR_SIZE, ReadEnd, WriteEnd, initialise};
use ringbus::internals::ring::LogLayout;
use ringbus::internals::ring::layout::{CLOSED, DATA, NEXT_SEQUENCE, TAIL, WAITING};
use ringbus::internals::segment::{Heap, Memory, MemoryMut};
use ringbus::pipe::{ReadError, TryRead, WriteError};

const CAPACITY: u64 = 4096;
const CURSOR: usize = 256;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Sizes of the two segments, in pages; most inputs get those that fit.
    pages: Option<(u8, u8)>,
    /// In sixteens, so that readers find something.
    tail: Option<u16>,
    cursor: Option<u16>,
    /// Written over both segments' headers, and over the records.
    words: Vec<(u8, u64)>,
    records: &'a [u8],
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Write(u16),
    Read,
    /// Another reader opens the pipe, after the last one was dropped or died.
    Open(bool),
    Arm,
    Disarm,
    Close,
    /// Somebody else writes a control word, or any word of either segment.
    Control(u8, u64),
    Near(u8, i8),
    Data(u16, u64),
    Cursors(u16, u64),
}

fn store(memory: &Heap, at: usize, word: u64) {
    memory.store(at * 8 % memory.size(), word, Relaxed);
}

struct Pipe {
    data: Arc<Heap>,
    cursors: Arc<Heap>,
    reader: Option<ReadEnd<Heap>>,
}

impl Pipe {
    fn open(&mut self) {
        self.reader = ReadEnd::open(self.data.clone(), self.cursors.clone()).ok();
    }

    /// One look; whether there may be more.
    fn read(&mut self, bytes: &mut Vec<u8>) -> bool {
        let Some(reader) = &mut self.reader else { return false };
        let before = bytes.len();
        match reader.try_read(bytes) {
            Ok(TryRead::Message) => {
                assert!(bytes.len() <= self.data.size() - DATA);
                true
            }
            Ok(TryRead::Nothing | TryRead::End) => {
                assert_eq!(bytes.len(), before);
                false
            }
            Err(ReadError::Missing { missing }) => missing > 0,
            Err(_) => false,
        }
    }
}

fuzz_target!(|input: Input<'_>| {
    let layout = LogLayout::new(CAPACITY).unwrap();
    let (data, cursors) = match input.pages {
        Some((data, cursors)) => (4096 * (1 + usize::from(data % 6)), 128 * (1 + usize::from(cursors % 64))),
        None => (layout.segment_size(), CURSOR_SIZE),
    };
    let (data, cursors) = (Arc::new(Heap::new(data)), Arc::new(Heap::new(cursors)));
    let whole = data.size() >= layout.segment_size() && cursors.size() >= CURSOR_SIZE;
    if whole {
        initialise(&*data, &*cursors, layout, [7; 16]);
    }
    let mut writer = whole.then(|| WriteEnd::new(data.clone(), cursors.clone(), layout));
    for (at, word) in input.records.as_chunks::<8>().0.iter().enumerate() {
        store(&data, DATA / 8 + at, u64::from_le_bytes(*word));
    }
    for (at, word) in &input.words {
        // Below 128, of one segment's header; from there on of the other's.
        let memory = if at & 128 == 0 { &data } else { &cursors };
        store(memory, usize::from(at & 127), *word);
    }
    if let Some(tail) = input.tail {
        store(&data, TAIL / 8, u64::from(tail) * 16);
    }
    if let Some(cursor) = input.cursor {
        store(&cursors, CURSOR / 8, u64::from(cursor) * 16);
    }

    let mut pipe = Pipe { data, cursors, reader: None };
    let mut bytes = Vec::new();
    pipe.open();
    let mut refused = false;
    for step in input.steps {
        match step {
            Step::Write(len) => {
                if let Some(writer) = &mut writer {
                    let written = writer.try_write(&vec![0x5a; usize::from(len) % 1100]);
                    match written {
                        Err(WriteError::Corrupt(_)) => refused = true,
                        Err(WriteError::TooLarge { limit, .. }) => assert_eq!(limit, writer.largest()),
                        Err(other) => panic!("{other}"),
                        Ok(written) => assert!(!written || !refused, "once corrupt, always"),
                    }
                }
            }
            Step::Read => _ = pipe.read(&mut bytes),
            Step::Open(dropped) => {
                if let Some(reader) = pipe.reader.as_mut().filter(|_| dropped) {
                    reader.flush();
                }
                pipe.open();
            }
            Step::Arm => _ = writer.as_mut().map(WriteEnd::arm),
            Step::Disarm => _ = writer.as_mut().map(WriteEnd::disarm),
            Step::Close => _ = writer.as_mut().map(WriteEnd::close),
            Step::Control(which, word) => match which % 5 {
                4 => store(&pipe.cursors, CURSOR / 8, word),
                which => {
                    let at = [TAIL, NEXT_SEQUENCE, WAITING, CLOSED][usize::from(which)];
                    store(&pipe.data, at / 8, word);
                }
            },
            Step::Near(which, by) => {
                let (memory, at) = [(&pipe.data, TAIL), (&pipe.cursors, CURSOR)][usize::from(which % 2)];
                let word = memory.load(at % memory.size(), Relaxed);
                store(memory, at / 8, word.wrapping_add_signed(i64::from(by) * 16));
            }
            Step::Data(at, word) => store(&pipe.data, at.into(), word),
            Step::Cursors(at, word) => store(&pipe.cursors, at.into(), word),
        }
    }
    // With nobody writing any more, what is left is no more than the pipe holds: a record has 16 bytes at
    // least, and each may be preceded by a gap.
    let most = pipe.data.size() / 16 * 2 + 2;
    let looks = (0..=most).take_while(|_| pipe.read(&mut bytes)).count();
    assert!(looks <= most, "{looks} looks");
});
