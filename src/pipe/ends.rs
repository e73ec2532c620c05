//! The two ends over any memory: the ring, its checks, and no process, no clock, no file.
//!
//! Whatever the bytes of the two segments, and however they change meanwhile, each call ends in a message, in
//! nothing or in an error, after looking at no more than one capacity.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use super::TryRead;
use super::error::{ReadError, WriteError};
use crate::ring::layout::{TAIL, cursor};
use crate::ring::writer::ClaimError;
use crate::ring::{self, Corrupt, CursorSegment, Gates, Kind, LogHeader, LogLayout, Next};
use crate::segment::MemoryMut;

/// Bytes of the cursor segment.
pub const CURSOR_SIZE: usize = 4096;
/// The one cursor of a pipe.
const CURSOR: usize = 256;
/// Where both segments name the pipe that they belong to.
const ID: [usize; 2] = [32, 40];

/// Says in the data segment that this log is a pipe's.
pub const MARK: usize = 512;
/// The writer's process id, then its pid namespace.
pub const WRITER: usize = 520;
/// In the cursor segment: how many readers have opened the pipe.
pub const READERS: usize = 384;
/// The last reader's process id, then its pid namespace.
pub const READER: usize = 392;

const PIPE: u64 = u64::from_le_bytes(*b"RBUSPIP1");

/// Writes the headers of two zeroed segments.
pub fn initialise(data: &impl MemoryMut, cursors: &impl MemoryMut, layout: LogLayout, id: [u8; 16]) {
    layout.initialise(data, &LogHeader { log: 1, node: id, port: 1 });
    data.store(MARK, PIPE, Relaxed);
    CursorSegment::of_size(CURSOR_SIZE).initialise(cursors, id, 1, 0);
}

/// Checks the data segment's header; its layout and the pipe's id.
///
/// # Errors
/// [`Corrupt::Header`].
pub fn check_data(data: &impl MemoryMut) -> Result<(LogLayout, [u8; 16]), Corrupt> {
    let (layout, header) = LogLayout::check(data)?;
    match data.load(MARK, Relaxed) {
        PIPE => Ok((layout, header.node)),
        _ => Err(Corrupt::Header { what: "no pipe (mark)" }),
    }
}

/// The writer's end.
pub struct WriteEnd<M: MemoryMut> {
    writer: ring::Writer<Arc<M>, Arc<M>, ()>,
    corrupt: Option<Corrupt>,
}

impl<M: MemoryMut> WriteEnd<M> {
    /// The end of a fresh pipe, over segments that were [initialised](initialise) for this layout.
    pub fn new(data: Arc<M>, cursors: Arc<M>, layout: LogLayout) -> Self {
        let gates = Gates::new();
        // The gate is there from the first message on, reader or not: so nothing unread is overwritten.
        if let Some(gate) = gates.add_first(cursors.clone(), ()) {
            gates.follow(gate.number(), cursors, CURSOR);
        }
        Self { writer: ring::Writer::new(data, layout, gates.into()), corrupt: None }
    }

    /// Writes a message if there is room for it.
    ///
    /// # Errors
    /// [`WriteError::TooLarge`]; [`WriteError::Corrupt`], from then on always.
    pub fn try_write(&mut self, message: &[u8]) -> Result<bool, WriteError> {
        if let Some(why) = self.corrupt {
            return Err(WriteError::Corrupt(why));
        }
        let claimed = self.writer.claim(message.len() as u64);
        // A reader whose cursor is impossible has lost its gate; nothing is to be overwritten for all that.
        if self.writer.has_corrupt() {
            self.corrupt = self.writer.take_corrupt().pop().map(|(_, why)| why);
            return self.try_write(message);
        }
        match claimed {
            Ok(()) => {
                self.writer.body_mut()[..message.len()].copy_from_slice(message);
                self.writer.commit(Kind::Frame, 0, 0, message.len());
                self.writer.publish();
                Ok(true)
            }
            Err(ClaimError::Full) => Ok(false),
            Err(ClaimError::TooLarge { limit }) => {
                Err(WriteError::TooLarge { size: message.len(), limit: limit as usize })
            }
        }
    }

    /// Largest message, in bytes.
    pub fn largest(&self) -> usize {
        self.writer.largest_body() as usize
    }

    /// Asks the reader to tell of every message that it has read, rather than now and then.
    pub fn arm(&mut self) {
        self.writer.arm();
    }

    /// Takes that back.
    pub fn disarm(&mut self) {
        self.writer.disarm();
    }

    /// Says that nothing follows.
    pub fn close(&mut self) {
        self.writer.close();
    }
}

/// The reader's end.
pub struct ReadEnd<M: MemoryMut> {
    reader: ring::Reader<Arc<M>, Arc<M>>,
}

impl<M: MemoryMut> ReadEnd<M> {
    /// Goes on where the cursor stands.
    ///
    /// # Errors
    /// [`Corrupt`] if the two segments are no pipe's, not of the same pipe, or the cursor cannot be there.
    pub fn open(data: Arc<M>, cursors: Arc<M>) -> Result<Self, Corrupt> {
        let (layout, _) = check_data(&data)?;
        CursorSegment::check(&cursors)?;
        if cursors.size() != CURSOR_SIZE {
            return Err(Corrupt::Header { what: "size of the cursor segment" });
        }
        if ID.iter().any(|&at| data.load(at, Relaxed) != cursors.load(at, Relaxed)) {
            return Err(Corrupt::Header { what: "the two segments are of different pipes" });
        }
        let position = cursor(&cursors, CURSOR);
        let tail = data.load(TAIL, Acquire); // pairs with the Release store in `Writer::publish`
        let capacity = layout.capacity();
        if tail.wrapping_sub(position) > capacity
            || [tail, position].iter().any(|at| !at.is_multiple_of(ring::HEADER))
        {
            return Err(Corrupt::Tail { tail, position, capacity });
        }
        let reader = ring::Reader::new(data, layout, cursors, CURSOR, 1, position, None)?;
        Ok(Self { reader })
    }

    /// Takes the next message, if one is there, in place of what `into` holds.
    ///
    /// # Errors
    /// [`ReadError::Missing`], after which the next call goes on; [`ReadError::Corrupt`].
    pub fn try_read(&mut self, into: &mut Vec<u8>) -> Result<TryRead, ReadError> {
        match self.reader.next()? {
            Next::Empty => Ok(TryRead::Nothing),
            Next::Closed(_) => Ok(TryRead::End),
            Next::Lagged(missing) => Err(ReadError::Missing { missing }),
            Next::Record(record) => {
                if record.kind != Kind::Frame {
                    // No pipe's writer makes such a record.
                    self.release();
                    let why = Corrupt::Record { position: record.frame, word: record.kind as u64 };
                    return Err(why.into());
                }
                into.resize(record.len as usize, 0);
                self.reader.copy(0, into);
                self.release();
                Ok(TryRead::Message)
            }
        }
    }

    fn release(&mut self) {
        self.reader.release();
        self.reader.take_ring_due(); // there is no bell to ring: the writer looks by itself
    }

    /// Tells the writer of all that was read.
    pub fn flush(&mut self) {
        self.reader.flush();
        self.reader.take_ring_due();
    }
}
