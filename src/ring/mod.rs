//! The log: a single-writer ring of records in one segment, read by many.
//!
//! This is the only lock-free code of the crate. It is generic over its storage ([`Memory`]), so that the
//! lines that ship are the lines that loom checks (`models.rs`) and the fuzzer feeds (`fuzz/`).
//!
//! ```text
//!  0 ─▶  ... ──────┬──────────────────┬──────────────────┬──────────────────┬─────────────────┬──▶ grows for ever
//!                 gate              cursor            position             tail             limit = gate + capacity
//!   may be         │ told, but not    │ read, but        │ published,       │ the writer's
//!   overwritten    │ yet looked at    │ not yet told     │ not yet read     │ to fill
//!                  │ by the writer    │ (lazy store),    │                  │
//!                  │                  │ or lent          │                  │
//! ```
//!
//! Who writes what: the writer its log (records, `tail`, `waiting`, `closed`), each reader its own cursor
//! segment (`parked`, cursors). Nobody else ever stores to either; the kernel sees to that ([`crate::segment`]).
//! A writer killed at any instruction therefore leaves a log whose tail was not advanced, and a reader
//! killed at any instruction leaves a cursor that no longer moves.
//!
//! The races, and where each is closed:
//!
//! | race | closed by |
//! | --- | --- |
//! | record bytes against `tail` | Release store in [`Writer::publish`], Acquire load in [`Reader::next`] |
//! | overwriting against a reader still looking | Release store of the cursor, Acquire load in [`Writer::make_room`] |
//! | the same against a borrower | Release in the drop of [`Lent`], Acquire before that store of the cursor |
//! | writing a blob again against a reader that keeps it | hold stored before the cursor, loaded after it ([`blob`]) |
//! | publish → look at `parked` / set `parked` → look at logs | a SeqCst fence on both sides ([`waiter`]) |
//! | a late gate against a running publish | generation, a SeqCst fence on both sides ([`gate`]) |
//!
//! [`Memory`]: crate::segment::Memory

pub mod blob;
mod copy;
pub mod gate;
mod holds;
pub mod layout;
mod lent;
pub mod lossy;
pub mod reader;
mod record;
mod sync;
pub mod waiter;
pub mod writer;

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;

pub use blob::{Blob, BlobHeader, Recovery};
pub use copy::FrameCopy;
pub use gate::{Gate, Gates, LateGate};
pub use layout::{CursorSegment, LogHeader, LogLayout, MIN_CAPACITY};
pub use lent::Lent;
pub use reader::{Look, Next, Reader, START};
pub use record::{HEADER, Kind, Record};
pub use waiter::{Bias, Ringer, Waiter};
pub use writer::{Naming, Writer};

/// What a log or cursor segment may not look like: its owner broke the protocol and is to be dropped.
///
/// Numbers are as read; nothing was dereferenced before the check that found them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Corrupt {
    /// The segment is no log (or cursor segment) of a layout this version reads.
    #[error("segment header is not layout version {expected}: {what}", expected = layout::VERSION)]
    Header {
        /// Which field, and why it was refused.
        what: &'static str,
    },
    /// `tail` moved backwards, past one capacity, or to an unaligned position.
    #[error("tail {tail} is impossible for a reader at {position} of a log of {capacity} bytes")]
    Tail {
        /// The tail as loaded.
        tail: u64,
        /// Where the reader stands.
        position: u64,
        /// Capacity of the log in bytes.
        capacity: u64,
    },
    /// A record's header does not describe a record that fits where it stands.
    #[error("record at {position} has an impossible header {word:#018x}")]
    Record {
        /// Position of the record.
        position: u64,
        /// First header word as loaded.
        word: u64,
    },
    /// A record's sequence number is lower than one already seen.
    #[error("record at {position} has sequence {sequence}, {expected} or more was due")]
    Sequence {
        /// Position of the record.
        position: u64,
        /// The sequence as loaded.
        sequence: u64,
        /// The lowest that could follow.
        expected: u64,
    },
    /// A record names a blob that is not as the record says.
    #[error("record at {position} names blob {blob}: {what}")]
    Blob {
        /// Position of the record.
        position: u64,
        /// The blob's id as loaded.
        blob: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// `closed` names a position that the reader has already passed, or that the tail never reached.
    #[error("log says it is closed at {closed}, but its tail stands at {tail}")]
    Closed {
        /// The final position as loaded.
        closed: u64,
        /// The tail as loaded after it.
        tail: u64,
    },
    /// A reader's cursor moved backwards or past the tail.
    #[error("cursor {cursor} is outside {gate}..={tail}")]
    Cursor {
        /// The cursor as loaded.
        cursor: u64,
        /// The lowest it could be.
        gate: u64,
        /// The highest it could be.
        tail: u64,
    },
}
