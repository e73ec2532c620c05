//! A pipe of messages between two processes that share only a name (feature `pipe`).
//!
//! The ring alone, without a bus: one process creates the pipe and writes messages of bytes, another opens it
//! and reads them, in order and each once.
//!
//! ```
//! use ringbus::pipe::{Reader, Writer};
//!
//! # let name = format!("doc-{}", std::process::id());
//! # let name = &*name; // in a program: "frames"
//! let mut writer = Writer::create(name, 1 << 20)?;
//! let mut reader = Reader::open(name)?; // in another process
//! writer.write(b"hello")?;
//! assert_eq!(reader.recv()?.as_deref(), Some(&b"hello"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a pipe does
//!
//! - **Ends.** Dropping the [`Writer`] closes the pipe and frees its name. A reader that has the pipe open
//!   reads what is left, then gets the end; without a reader what is left is gone:
//!   [`Writer::wait_for_reader`] before, if it matters.
//! - **Room.** Nothing unread is overwritten or dropped. Messages are kept from the first one on, also before
//!   there is a reader; when the pipe is full, [`Writer::write`] waits.
//! - **Readers** come one at a time. Another [`Reader::open`] is refused while one lives; afterwards the next
//!   one goes on where the last one was; if that one was killed, what it read last may come a second time, up to
//!   an eighth of the capacity.
//! - **Death.** When the writer is killed, the reader reads what was written, then gets
//!   [`ReadError::WriterDied`]; the name is free for a new writer at once. When the reader is killed and the
//!   pipe is full, the writer gets [`WriteError::ReaderGone`]. Both are noticed within some 10 ms. A stopped
//!   process is not dead.
//! - **Forks.** A forked child has neither end: its calls return `Forked`.
//!
//! # Waiting
//!
//! Processes that share no file descriptor have no bell for each other. So both sides look for 20 µs, then
//! sleep between looks: 50 µs at first, then longer, up to 1 ms. A message that finds its reader asleep is
//! noticed up to 1 ms later, and an end that waits wakes some 1000 times a second, which costs one to two per
//! cent of a CPU. Use a [bus](crate::Bus) where that matters.
//!
//! # Trust
//!
//! **A pipe stands outside the rule that the rest of this crate is built on**: that the kernel lets exactly
//! one process write each byte. It is for two processes of *one user that trust each other*. Its segments are
//! files in `/dev/shm` with mode 0600, so other users cannot open them; any process of the same user can, and
//! nothing seals them. What that means:
//!
//! - Everything read from the segments is checked before it is used, and messages are copied out before they
//!   are handed on. Bytes that make no sense lead to an error, never to a panic or to an access outside of
//!   the segment.
//! - A process of the same user that writes where it should not can forge or destroy messages, and make
//!   either end believe that the other has gone.
//! - One that *cuts the file short* (`truncate`) makes both ends die of `SIGBUS`. Nothing can be done about
//!   it here.
//! - Who lives is told by locks (`F_OFD_SETLK`) on the data segment's file, which the kernel lets go of when
//!   the holder dies. If a forked child of the dead process keeps them, the process id that the dead one left
//!   tells of its death, within one pid namespace; between namespaces the pipe waits for that child to end or
//!   exec. Until then a dead reader's pipe takes no new reader, either way.
#![forbid(unsafe_code)]

pub(crate) mod ends;
mod error;
mod names;
mod nap;
mod peer;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use error::{CreateError, NameError, OpenError, ReadError, WriteError};
pub use reader::Reader;
pub use writer::Writer;

/// Most bytes of a pipe's name.
const MAX_NAME: usize = 128;

/// What a look for a message found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "only `Message` has filled the buffer"]
pub enum TryRead {
    /// A message: it is in the buffer.
    Message,
    /// None yet. The buffer is as it was.
    Nothing,
    /// The writer has closed the pipe, and everything was read. The buffer is as it was.
    End,
}
