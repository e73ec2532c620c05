//! Who lives: locks that the kernel lets go of when their holder dies, and process ids for where a forked
//! child keeps a dead process's lock.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::ends;
use crate::segment::{Memory, MemoryMut, NamedFile};
use crate::sys::{filelock, pidfd, poll};

// Bytes of the data segment's file that are locked (`F_OFD_SETLK`).

/// By the writer, for its life.
pub(super) const WRITER: u32 = 0;
/// By the reader, for its life: there is one at a time.
pub(super) const READER: u32 = 1;
/// By the reader, once the cursor segment says who it is.
pub(super) const READING: u32 = 2;
/// By who takes a dead writer's name away.
pub(super) const CLEARING: u32 = 3;

/// How long an answer is good for: a death is noticed this much later at most.
const STALE: Duration = Duration::from_millis(10);

/// A process, as it says itself: believed where it says that somebody is dead whose lock is still held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pid: u64,
    /// Number of the pid namespace that gives the id a meaning; 0 if it is not known.
    namespace: u64,
}

impl Identity {
    /// This process.
    pub(super) fn mine() -> Self {
        Self { pid: std::process::id().into(), namespace: namespace() }
    }

    pub(super) fn store(self, memory: &impl MemoryMut, at: usize) {
        memory.store(at, self.pid, Relaxed); // the name, or a lock taken afterwards, shows it to others
        memory.store(at + 8, self.namespace, Relaxed);
    }

    pub(super) fn load(memory: &impl Memory, at: usize) -> Self {
        Self { pid: memory.load(at, Relaxed), namespace: memory.load(at + 8, Relaxed) }
    }

    fn process(self) -> Process {
        let pid = i32::try_from(self.pid).unwrap_or(0);
        if self.namespace == 0 || self.namespace != namespace() {
            return Process::Unknown;
        }
        match pidfd::open(pid) {
            Ok(fd) => Process::Known(fd),
            Err(error) if pidfd::is_dead(&error) => Process::Ended,
            Err(_) => Process::Unknown,
        }
    }
}

/// Number of this process's pid namespace; 0 without `/proc`.
fn namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |found| found.ino())
}

enum Process {
    Known(OwnedFd),
    Ended,
    /// Of another pid namespace, or the kernel cannot tell: the lock alone counts.
    Unknown,
}

impl Process {
    fn has_ended(&self) -> bool {
        match self {
            Self::Known(fd) => poll::readable(fd.as_fd(), Some(Duration::ZERO)).unwrap_or(false),
            Self::Ended => true,
            Self::Unknown => false,
        }
    }
}

/// Whether a lock is held; if the kernel cannot tell, it is.
fn is_held(file: &File, byte: u32) -> bool {
    filelock::is_locked(file, byte).unwrap_or(true)
}

/// Whether the writer of a pipe that is not mapped lives.
pub(super) fn writer_lives(file: &NamedFile) -> bool {
    let word = |at| file.word(at as u64).unwrap_or(0);
    let identity = Identity { pid: word(ends::WRITER), namespace: word(ends::WRITER + 8) };
    is_held(file.file(), WRITER) && !identity.process().has_ended()
}

/// Whether the pipe has a reader that lives.
pub(super) fn reader_lives(file: &File, cursors: &impl Memory) -> bool {
    is_held(file, READING) && !Identity::load(cursors, ends::READER).process().has_ended()
}

/// The writer, as its reader watches it.
pub(super) struct Watch {
    process: Process,
    dead: bool,
}

impl Watch {
    pub(super) fn new(writer: Identity) -> Self {
        Self { process: writer.process(), dead: false }
    }

    /// Whether the writer is dead. Nothing it wrote is still to come then.
    pub(super) fn is_dead(&mut self, file: &File) -> bool {
        self.dead = self.dead || !is_held(file, WRITER) || self.process.has_ended();
        self.dead
    }
}

/// Says when to look again whether somebody lives, so that looks in quick succession cost a system call only
/// now and then.
#[derive(Default)]
pub(super) struct Looks(Option<Instant>);

impl Looks {
    pub(super) fn due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.0.is_none_or(|last| now.duration_since(last) >= STALE);
        if due {
            self.0 = Some(now);
        }
        due
    }
}
