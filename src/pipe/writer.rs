//! The writing process's side.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::ends::{self, CURSOR_SIZE, WriteEnd};
use super::error::{CreateError, WriteError};
use super::names::Names;
use super::nap::{Nap, Waited};
use super::peer::{self, Identity, Looks};
use crate::ring::{LogLayout, MIN_CAPACITY};
use crate::segment::{Memory, Named, NamedError};
use crate::sys::{filelock, random, shm};

/// How often a pipe is begun anew when others clear the same name meanwhile.
const TRIES: u32 = 16;

/// The writing end of a pipe. Dropping it closes the pipe and takes its name away; a reader that has opened
/// it reads on to the end.
///
/// # Examples
/// ```
/// # let name = format!("doc-writer-{}", std::process::id());
/// let mut writer = ringbus::pipe::Writer::create(&name, 64 * 1024)?;
/// writer.write(b"kept until a reader comes")?;
/// assert!(!writer.has_reader());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Writer {
    end: WriteEnd<Named>,
    data: Arc<Named>,
    cursors: Arc<Named>,
    names: Names,
    looks: Looks,
}

impl Writer {
    /// Creates a pipe. The name has 1 to 128 ASCII letters, digits, `-`, `_` and `.`, and is the user's own:
    /// other users' pipes have other names. If its last writer died without closing it, the name is taken
    /// over; a reader of the dead writer's pipe is not affected.
    ///
    /// `capacity` in bytes is a power of two from 4 KiB to 4 GiB; a message takes at most a quarter of it,
    /// less 16 bytes. All of it, and 8 KiB, is taken from the host's shared memory at once.
    ///
    /// # Errors
    /// [`CreateError`]; [`Taken`](CreateError::Taken) if the name has a writer that lives.
    pub fn create(name: &str, capacity: u64) -> Result<Self, CreateError> {
        let names = Names::new(name)?;
        let layout = LogLayout::new(capacity).filter(|_| capacity >= MIN_CAPACITY);
        let layout = layout.ok_or(CreateError::Capacity { capacity })?;
        let refused = |error| CreateError::of(error, || names.path(), capacity);
        for _ in 0..TRIES {
            if !names.clear().map_err(refused)? {
                return Err(CreateError::Taken { name: name.to_owned() });
            }
            match Self::begin(&names, layout) {
                Ok(Some(writer)) => return Ok(writer),
                // Somebody else was faster, and cleared what was begun here.
                Ok(None) | Err(NamedError::Absent | NamedError::Replaced) => {}
                Err(error) => return Err(refused(error)),
            }
        }
        Err(CreateError::Taken { name: name.to_owned() })
    }

    /// Makes both segments, then gives the data segment its name; `None` if another was faster.
    fn begin(names: &Names, layout: LogLayout) -> Result<Option<Self>, NamedError> {
        let os = |call| move |source| NamedError::Os { call, source };
        let id = random::id128().map_err(os("getrandom"))?;
        let cursors = Named::create(&names.cursors(id), CURSOR_SIZE)?;
        let mut data = Named::create(&names.fresh(id), layout.segment_size())?;
        if !filelock::try_lock(data.file(), peer::WRITER).map_err(os("locking a segment"))? {
            return Ok(None); // nobody but who guesses the id can have locked it
        }
        ends::initialise(&data, &cursors, layout, id);
        Identity::mine().store(&data, ends::WRITER);
        match shm::link(&names.fresh(id), names.data()) {
            Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
                return Ok(None);
            }
            linked => linked.map_err(os("naming a segment"))?,
        }
        data.owns(names.data());
        let _ = shm::unlink(&names.fresh(id));
        // Whoever swept before the name was this pipe's may have taken the cursors', and nobody does from
        // here on.
        if !shm::names(&names.cursors(id), cursors.file()).map_err(os("lstat"))? {
            return Ok(None);
        }
        names.sweep(Some(id));
        let (data, cursors) = (Arc::new(data), Arc::new(cursors));
        let end = WriteEnd::new(data.clone(), cursors.clone(), layout);
        Ok(Some(Self { end, data, cursors, names: names.clone(), looks: Looks::default() }))
    }

    /// The pipe's name.
    pub fn name(&self) -> &str {
        self.names.name()
    }

    /// Largest message, in bytes.
    pub fn max_message(&self) -> usize {
        self.end.largest()
    }

    /// Writes a message, waiting for room for as long as it takes: while a reader lives, or before the first
    /// one has come. With room there, a message is written whether or not there is a reader.
    ///
    /// # Errors
    /// [`WriteError`], but never [`Full`](WriteError::Full); the message had no effect.
    pub fn write(&mut self, message: &[u8]) -> Result<(), WriteError> {
        self.write_by(message, None)
    }

    /// Writes a message, waiting this long for room.
    ///
    /// # Errors
    /// [`WriteError`]; the message had no effect.
    pub fn write_timeout(&mut self, message: &[u8], timeout: Duration) -> Result<(), WriteError> {
        self.write_by(message, Instant::now().checked_add(timeout))
    }

    /// Writes a message if there is room for it now.
    ///
    /// # Errors
    /// [`WriteError`]; the message had no effect.
    pub fn try_write(&mut self, message: &[u8]) -> Result<(), WriteError> {
        self.check_fork()?;
        if self.end.try_write(message)? {
            return Ok(());
        }
        if self.looks.due() && self.reader_is_gone() {
            return Err(WriteError::ReaderGone);
        }
        Err(WriteError::Full { waited: Duration::ZERO })
    }

    /// Whether a process that lives has the pipe open for reading. False in a forked child.
    pub fn has_reader(&self) -> bool {
        self.data.origin().is_here() && peer::reader_lives(self.data.file(), &*self.cursors)
    }

    /// Waits until a reader has opened the pipe; false if none did in time.
    pub fn wait_for_reader(&self, timeout: Duration) -> bool {
        let mut nap = Nap::new(Instant::now().checked_add(timeout));
        loop {
            if self.has_reader() {
                return true;
            }
            if nap.take() == Waited::Enough {
                return false;
            }
        }
    }

    fn write_by(&mut self, message: &[u8], deadline: Option<Instant>) -> Result<(), WriteError> {
        self.check_fork()?;
        if self.end.try_write(message)? {
            return Ok(());
        }
        self.end.arm();
        let written = self.wait_for_room(message, deadline);
        self.end.disarm();
        written
    }

    #[cold]
    fn wait_for_room(&mut self, message: &[u8], deadline: Option<Instant>) -> Result<(), WriteError> {
        let start = Instant::now();
        let mut nap = Nap::new(deadline);
        loop {
            let waited = nap.take();
            // In this order: what a reader has read before it died makes room, too.
            let gone = match waited {
                Waited::NoTime => false,
                Waited::Slept => self.looks.due() && self.reader_is_gone(),
                Waited::Enough => self.reader_is_gone(),
            };
            if self.end.try_write(message)? {
                return Ok(());
            }
            if gone {
                return Err(WriteError::ReaderGone);
            }
            if waited == Waited::Enough {
                return Err(WriteError::Full { waited: start.elapsed() });
            }
        }
    }

    /// There was a reader, and none is left.
    fn reader_is_gone(&self) -> bool {
        self.cursors.load(ends::READERS, Relaxed) > 0 && !self.has_reader()
    }

    fn check_fork(&self) -> Result<(), WriteError> {
        if self.data.origin().is_here() { Ok(()) } else { Err(WriteError::Forked) }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.data.origin().is_here() {
            return;
        }
        self.end.close();
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("name", &self.name()).finish_non_exhaustive()
    }
}
