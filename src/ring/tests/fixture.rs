//! A log on the heap, its writer, and readers with a cursor segment each.

use crate::ring::layout::{CLOSED, NEXT_SEQUENCE, OPEN, PARKED, TAIL, WAITING};
use crate::ring::sync::Arc;
use crate::ring::sync::Ordering::{Relaxed, SeqCst};
use crate::ring::sync::fence;
use crate::ring::writer::ClaimError;
use crate::ring::{
    CursorSegment, Gates, HEADER, Kind, LateGate, LogHeader, LogLayout, Next, Reader, Record, Writer,
};
use crate::segment::{Heap, Memory, MemoryMut};

pub type TestWriter = Writer<Heap, Heap, usize>;
pub type TestReader = Reader<Heap, Heap>;
pub type TestGates = Arc<Gates<Heap, usize>>;

/// What the control thread does between the bump and its look at the tail.
pub const FENCE: fn() = || fence(SeqCst);

/// Enough for two cursor slots.
const CURSORS: usize = 512;

/// One log. What the writer keeps with each gate is a number that the test chooses.
pub struct Log {
    pub memory: Heap,
    pub layout: LogLayout,
    pub gates: TestGates,
    pub writer: TestWriter,
}

impl Log {
    pub fn new(capacity: u64) -> Self {
        let layout = LogLayout::new(capacity).unwrap();
        let memory = Heap::new(layout.segment_size());
        layout.initialise(&memory, &LogHeader { log: 1, node: [2; 16], port: 3 });
        let gates: TestGates = Arc::new(Gates::new());
        let writer = Writer::new(memory.clone(), layout, gates.clone());
        Self { memory, layout, gates, writer }
    }

    /// A log and a reader gated at 0.
    pub fn with_reader(capacity: u64) -> (Self, End) {
        let log = Self::new(capacity);
        let end = log.reader(0);
        (log, end)
    }

    /// A log and a caught-up reader, whose stored cursor is the tail, at this offset of the ring.
    pub fn at(capacity: u64, offset: u64) -> (Self, End) {
        let (mut log, mut end) = Self::with_reader(capacity);
        while log.tail() < offset {
            log.write(&[]).unwrap();
            end.take();
        }
        end.reader.flush();
        assert_eq!((log.tail(), end.stored()), (offset, offset));
        (log, end)
    }

    /// A reader that was there before the first publish.
    pub fn reader(&self, info: usize) -> End {
        let end = self.deaf_reader(info);
        end.follow(self);
        end
    }

    /// A reader from position 0 whose cursor slot the writer does not know yet.
    pub fn deaf_reader(&self, info: usize) -> End {
        let cursors = Heap::new(CURSORS);
        let number = self.gates.add_first(cursors.clone(), info).unwrap().number();
        self.end(cursors, number, 0, Some(0))
    }

    /// A reader that joins now; it follows at once.
    pub fn late_reader(&self, info: usize) -> End {
        let end = self.deaf_late_reader(info, None);
        end.follow(self);
        end
    }

    /// A reader that joins now, told which number is next or not; it does not follow yet.
    pub fn deaf_late_reader(&self, info: usize, sequence: Option<u64>) -> End {
        let cursors = Heap::new(CURSORS);
        let LateGate { gate, position, .. } =
            self.gates.add_late(&self.memory, cursors.clone(), info, FENCE).unwrap();
        self.end(cursors, gate.number(), position, sequence)
    }

    /// A reader without a gate that joins now, told which number is next; read it with [`End::glance`].
    pub fn ungated_reader(&self, info: usize) -> End {
        let cursors = Heap::new(CURSORS);
        let sequence = Some(self.writer.sequence());
        let LateGate { gate, position, .. } =
            self.gates.add_ungated(&self.memory, cursors.clone(), info, FENCE).unwrap();
        let end = self.end(cursors, gate.number(), position, sequence);
        End { reader: end.reader.ungated(), ..end }
    }

    fn end(&self, cursors: Heap, number: u16, position: u64, sequence: Option<u64>) -> End {
        let layout = CursorSegment::of_size(CURSORS);
        layout.initialise(&cursors, [4; 16], 5, 0);
        let at = layout.cursor(0).unwrap();
        let (memory, log) = (cursors.clone(), self.memory.clone());
        let reader =
            Reader::new(log, self.layout, cursors, at, number, position, sequence).unwrap().with_blobs();
        End { reader, memory, at, number }
    }

    /// Publishes one frame to every reader.
    pub fn write(&mut self, frame: &[u8]) -> Result<(), ClaimError> {
        self.commit(frame, 0)?;
        self.writer.publish();
        Ok(())
    }

    /// Publishes one frame to one reader.
    pub fn write_to(&mut self, number: u16, frame: &[u8]) -> Result<(), ClaimError> {
        self.commit(frame, number)?;
        self.writer.publish();
        Ok(())
    }

    /// Claims and commits, without publishing.
    pub fn commit(&mut self, frame: &[u8], addressee: u16) -> Result<(), ClaimError> {
        self.writer.claim(frame.len() as u64)?;
        self.writer.body_mut()[..frame.len()].copy_from_slice(frame);
        self.writer.commit(Kind::Frame, addressee, 0, frame.len());
        Ok(())
    }

    pub fn tail(&self) -> u64 {
        self.memory.load(TAIL, Relaxed)
    }

    pub fn next_sequence(&self) -> u64 {
        self.memory.load(NEXT_SEQUENCE, Relaxed)
    }

    pub fn waiting(&self) -> u64 {
        self.memory.load(WAITING, Relaxed)
    }

    pub fn is_open(&self) -> bool {
        self.memory.load(CLOSED, Relaxed) == OPEN
    }

    /// First header word at a position.
    pub fn header(&self, position: u64) -> u64 {
        self.memory.load(self.layout.offset(position), Relaxed)
    }

    /// Rings whoever is due and `wanted`; who was rung.
    pub fn ring(&mut self, wanted: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut rung = Vec::new();
        self.writer.ring(|info| wanted(*info), |info| rung.push(*info));
        rung
    }
}

/// A reader and its cursor segment.
pub struct End {
    pub reader: TestReader,
    pub memory: Heap,
    pub at: usize,
    pub number: u16,
}

impl End {
    /// The writer learns where the cursor is.
    pub fn follow(&self, log: &Log) {
        assert!(log.gates.follow(self.number, self.memory.clone(), self.at));
    }

    pub fn next(&mut self) -> Next {
        self.reader.next().unwrap()
    }

    /// What a reader without a gate finds next.
    pub fn glance(&mut self) -> Next {
        self.reader.next_ungated().unwrap()
    }

    /// The next thing, which has to be a record.
    #[track_caller]
    pub fn record(&mut self) -> Record {
        match self.next() {
            Next::Record(record) => record,
            other => panic!("{other:?} instead of a record"),
        }
    }

    /// The frame of the next record, which is released.
    #[track_caller]
    pub fn take(&mut self) -> Vec<u8> {
        self.record();
        let frame = self.lent().to_vec();
        let mut copied = vec![0; frame.len()];
        self.reader.copy(0, &mut copied);
        assert_eq!(frame, copied);
        self.reader.release();
        frame
    }

    /// The frame of the record in hand, in place.
    pub fn lent(&self) -> &[u8] {
        self.reader.frame()
    }

    /// The cursor as the writer would find it.
    pub fn stored(&self) -> u64 {
        self.memory.load(self.at, Relaxed)
    }

    /// Overwrites the cursor, as a reader that breaks the protocol would.
    pub fn forge(&self, cursor: u64) {
        self.memory.store(self.at, cursor, Relaxed);
    }

    pub fn park(&self, value: u64) {
        self.memory.store(PARKED, value, Relaxed);
    }
}

/// Bytes that differ from record to record and from place to place.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (seed.wrapping_mul(0x9e37_79b9) >> 8 ^ at.wrapping_mul(167)) as u8).collect()
}

/// A frame whose record takes `size` bytes.
pub fn filling(size: u64, seed: u64) -> Vec<u8> {
    bytes(seed, (size - HEADER) as usize)
}
