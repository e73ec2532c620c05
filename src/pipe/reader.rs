//! The reading process's side.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::ends::{self, CURSOR_SIZE, ReadEnd};
use super::error::{OpenError, ReadError};
use super::names::Names;
use super::nap::{Nap, Waited};
use super::peer::{self, Identity, Looks, Watch};
use super::{TryRead, error};
use crate::ring::layout::{DATA, MAX_CAPACITY};
use crate::ring::{Corrupt, MIN_CAPACITY};
use crate::segment::{Memory, MemoryMut, Named, NamedError, NamedFile};
use crate::sys::filelock;

/// How often a pipe is opened anew when its name goes from one to another meanwhile.
const TRIES: u32 = 16;
/// Between two looks for a pipe that is not there yet.
const LOOK: Duration = Duration::from_millis(2);

/// The reading end of a pipe.
///
/// # Examples
/// ```
/// use ringbus::pipe::{Reader, Writer};
///
/// # let name = format!("doc-reader-{}", std::process::id());
/// let mut writer = Writer::create(&name, 64 * 1024)?;
/// let mut reader = Reader::open(&name)?; // in another process
/// writer.write(b"one")?;
/// drop(writer);
///
/// let mut message = Vec::new(); // reused for every message
/// while reader.read(&mut message)? {
///     assert_eq!(message, b"one");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reader {
    end: ReadEnd<Named>,
    data: Arc<Named>,
    names: Names,
    writer: Watch,
    looks: Looks,
    /// Everything was read, and nothing follows.
    over: bool,
}

impl Reader {
    /// Opens the pipe of this name, at the oldest message that no reader has told the writer of. So after a
    /// reader that was dropped the next message follows; after one that died, up to an eighth of the capacity
    /// may come a second time. A pipe whose writer has died can still be opened, and read to its end.
    ///
    /// # Errors
    /// [`OpenError`]: [`Absent`](OpenError::Absent) if there is none (any more), [`Busy`](OpenError::Busy) if
    /// it has a reader that lives.
    pub fn open(name: &str) -> Result<Self, OpenError> {
        let names = Names::new(name)?;
        for _ in 0..TRIES {
            match Self::attach(&names) {
                Err(Refused::Moved) => {}
                Err(Refused::For(error)) => return Err(error),
                Ok(reader) => return Ok(reader),
            }
        }
        Err(OpenError::Absent { name: name.to_owned() })
    }

    /// Opens the pipe of this name, waiting this long for it to be there.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn open_within(name: &str, timeout: Duration) -> Result<Self, OpenError> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            match Self::open(name) {
                Err(OpenError::Absent { .. })
                    if deadline.is_none_or(|deadline| Instant::now() < deadline) =>
                {
                    std::thread::sleep(LOOK);
                }
                done => return done,
            }
        }
    }

    fn attach(names: &Names) -> Result<Self, Refused> {
        let sizes = DATA + MIN_CAPACITY as usize..=DATA + MAX_CAPACITY as usize;
        let map = || NamedFile::open(names.data())?.map(names.data(), sizes);
        let data = Arc::new(map().map_err(|error| Refused::of(error, names))?);
        let corrupt = |why| OpenError::Corrupt { name: names.name().to_owned(), why };
        let (_, id) = ends::check_data(&*data).map_err(corrupt)?;
        if !filelock::try_lock(data.file(), peer::READER).map_err(io("locking the pipe"))? {
            return Err(OpenError::Busy { name: names.name().to_owned() }.into());
        }
        let map = || NamedFile::open(&names.cursors(id))?.map(&names.cursors(id), CURSOR_SIZE..=CURSOR_SIZE);
        let cursors = match map() {
            // Taken away together with a dead writer's data segment, or by hand.
            Err(NamedError::Absent) if names.is_of(data.file()) => {
                return Err(corrupt(Corrupt::Header { what: "there is no cursor segment" }).into());
            }
            found => Arc::new(found.map_err(|error| Refused::of(error, names))?),
        };
        let end = ReadEnd::open(data.clone(), cursors.clone()).map_err(corrupt)?;
        Identity::mine().store(&*cursors, ends::READER);
        cursors.store(ends::READERS, cursors.load(ends::READERS, Relaxed).saturating_add(1), Relaxed);
        // The lock shows the words above to the writer: nobody else writes them while the other lock is held.
        filelock::try_lock(data.file(), peer::READING).map_err(io("locking the pipe"))?;
        let writer = Watch::new(Identity::load(&*data, ends::WRITER));
        Ok(Self { end, data, names: names.clone(), writer, looks: Looks::default(), over: false })
    }

    /// The pipe's name.
    pub fn name(&self) -> &str {
        self.names.name()
    }

    /// Waits for the next message and puts it in place of what `into` holds; false, and `into` as it was, if
    /// the writer has closed the pipe and everything was read.
    ///
    /// # Errors
    /// [`ReadError`]; [`WriterDied`](ReadError::WriterDied) after everything that a killed writer wrote.
    pub fn read(&mut self, into: &mut Vec<u8>) -> Result<bool, ReadError> {
        loop {
            match self.read_by(into, None)? {
                TryRead::Message => return Ok(true),
                TryRead::End => return Ok(false),
                TryRead::Nothing => {}
            }
        }
    }

    /// Waits for the next message; `None` at the end of the pipe. [`Reader::read`] does without an allocation
    /// a message.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn recv(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
        let mut message = Vec::new();
        Ok(self.read(&mut message)?.then_some(message))
    }

    /// Takes the next message if one is there, as [`Reader::read`] does. The death of the writer is noticed
    /// within 10 ms of calls.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn try_read(&mut self, into: &mut Vec<u8>) -> Result<TryRead, ReadError> {
        self.check_fork()?;
        match self.look(into)? {
            TryRead::Nothing if self.looks.due() && self.writer.is_dead(self.data.file()) => {
                self.look_last(into)
            }
            found => Ok(found),
        }
    }

    /// Takes the next message as [`Reader::read`] does, waiting for it no longer than this.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn read_timeout(&mut self, into: &mut Vec<u8>, timeout: Duration) -> Result<TryRead, ReadError> {
        self.read_by(into, Instant::now().checked_add(timeout))
    }

    fn read_by(&mut self, into: &mut Vec<u8>, deadline: Option<Instant>) -> Result<TryRead, ReadError> {
        self.check_fork()?;
        match self.look(into)? {
            TryRead::Nothing => self.wait(into, deadline),
            found => Ok(found),
        }
    }

    #[cold]
    fn wait(&mut self, into: &mut Vec<u8>, deadline: Option<Instant>) -> Result<TryRead, ReadError> {
        let mut nap = Nap::new(deadline);
        loop {
            let waited = nap.take();
            let dead = match waited {
                Waited::NoTime => false,
                Waited::Slept => self.looks.due() && self.writer.is_dead(self.data.file()),
                Waited::Enough => self.writer.is_dead(self.data.file()),
            };
            if dead {
                return self.look_last(into);
            }
            let found = self.look(into)?;
            if found != TryRead::Nothing || waited == Waited::Enough {
                return Ok(found);
            }
        }
    }

    fn look(&mut self, into: &mut Vec<u8>) -> Result<TryRead, ReadError> {
        let found = self.end.try_read(into)?;
        self.over |= found == TryRead::End;
        Ok(found)
    }

    /// The writer was found dead: what it wrote before is there now.
    #[cold]
    fn look_last(&mut self, into: &mut Vec<u8>) -> Result<TryRead, ReadError> {
        match self.look(into)? {
            TryRead::Nothing => {
                self.over = true;
                Err(error::ReadError::WriterDied)
            }
            found => Ok(found),
        }
    }

    fn check_fork(&self) -> Result<(), ReadError> {
        if self.data.origin().is_here() { Ok(()) } else { Err(ReadError::Forked) }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.data.origin().is_here() {
            return;
        }
        self.end.flush();
        let file = self.data.file();
        if self.over && self.writer.is_dead(file) {
            // Nobody else does it until a new writer comes, and nothing is left to be read.
            let _ = self.names.remove(file);
        }
        // By hand: a forked child of this process may have copies of the fd.
        for lock in [peer::READING, peer::READER] {
            let _ = filelock::unlock(file, lock);
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// Why a pipe could not be opened this time.
enum Refused {
    /// The name stood for another pipe meanwhile, or for none: look again.
    Moved,
    For(OpenError),
}

impl From<OpenError> for Refused {
    fn from(error: OpenError) -> Self {
        Self::For(error)
    }
}

impl Refused {
    fn of(error: NamedError, names: &Names) -> Self {
        Self::For(match error {
            NamedError::Replaced => return Self::Moved,
            NamedError::Absent if names.is_there() => return Self::Moved,
            NamedError::Absent => OpenError::Absent { name: names.name().to_owned() },
            NamedError::Unfit { what } => OpenError::NoPipe { path: names.path(), what },
            NamedError::Os { call, source } => OpenError::Io { what: call, source },
            other => OpenError::Io { what: "mapping shared memory", source: io::Error::other(other) },
        })
    }
}

fn io(what: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io { what, source }
}
