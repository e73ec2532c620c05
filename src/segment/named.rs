//! Segments that have a name on this host: any process of the same user can open and write them.
//!
//! **Outside the crate's one rule.** No seal holds these. That each byte has one writer, and that the file
//! keeps its size, is what the processes that open it promise each other: one that breaks the promise can
//! change bytes under the others, or make them die of `SIGBUS` by cutting the file short. What can be checked
//! is checked before the file is mapped: whose it is, its mode, its size, and that no page is missing.
//!
//! **Fork.** As with [`Sealed`](super::Sealed) segments: a child does not have the mapping.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::RangeInclusive;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MmapAdvise, madvise};
use shared_memory::{Shmem, ShmemConf, ShmemError};

use super::words::Words;
use super::{Memory, MemoryMut};
use crate::sys::fork::Origin;
use crate::sys::{credentials, limits, memfd, shm};

/// Why a named segment could not be made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamedError {
    /// Nothing has this name.
    #[error("no segment of this name")]
    Absent,
    /// Something else has taken this name's place meanwhile.
    #[error("another segment has taken the name")]
    Replaced,
    /// It is not what this process may rely on.
    #[error("{what}")]
    Unfit {
        /// What is wrong with it.
        what: &'static str,
    },
    /// `RLIMIT_FSIZE` of this process is smaller than the segment.
    #[error("a segment of {len} bytes exceeds the file size limit")]
    FileSizeLimit {
        /// The length asked for.
        len: u64,
    },
    /// A system call failed.
    #[error("{call} failed: {source}")]
    Os {
        /// What was being done.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

fn os(call: &'static str) -> impl Fn(io::Error) -> NamedError {
    move |source| match source.kind() {
        io::ErrorKind::NotFound => NamedError::Absent,
        _ => NamedError::Os { call, source },
    }
}

/// A file of this user's in the host's shared memory that was checked, but not mapped.
#[derive(Debug)]
pub struct NamedFile {
    file: File,
    len: u64,
    blocks: u64,
}

impl NamedFile {
    /// Opens what has this name.
    ///
    /// # Errors
    /// [`NamedError::Absent`]; [`NamedError::Unfit`] if it is no regular file, another user's, or open to
    /// others.
    pub fn open(name: &str) -> Result<Self, NamedError> {
        let unfit = |what| NamedError::Unfit { what };
        let file = match shm::open(name) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EISDIR | libc::ENXIO)) => {
                return Err(unfit("not a regular file"));
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(unfit("this user may not read and write it"));
            }
            other => other.map_err(os("opening a segment"))?,
        };
        let found = file.metadata().map_err(os("fstat"))?;
        if !found.is_file() {
            return Err(unfit("not a regular file"));
        }
        if found.uid() != credentials::euid() {
            return Err(unfit("another user's file"));
        }
        if found.mode() & 0o077 != 0 {
            return Err(unfit("other users may open it: its mode is not 0600"));
        }
        Ok(Self { file, len: found.len(), blocks: found.blocks() })
    }

    /// The file itself, for locks.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// A 64-bit word of the file, by read(2): nothing here can fault. `None` beyond its end.
    pub fn word(&self, at: u64) -> Option<u64> {
        let mut word = [0; 8];
        self.file.read_exact_at(&mut word, at).ok()?;
        Some(u64::from_le_bytes(word))
    }

    /// Maps it, if its size is within `lens` and no page of it is missing.
    ///
    /// # Errors
    /// [`NamedError`]; nothing is mapped then.
    pub fn map(self, name: &str, lens: RangeInclusive<usize>) -> Result<Named, NamedError> {
        let len = usize::try_from(self.len).ok().filter(|len| lens.contains(len) && len.is_multiple_of(8));
        let len = len.ok_or(NamedError::Unfit { what: "its size is none that it could have" })?;
        // A missing page is made when it is touched, or the toucher dies of SIGBUS if there is no room.
        if self.blocks.saturating_mul(512) < self.len {
            return Err(NamedError::Unfit { what: "parts of the file are missing" });
        }
        let shmem = ShmemConf::new().os_id(format!("/{name}")).open().map_err(|error| {
            let (call, source) = reason(error);
            os(call)(source)
        })?;
        let named = Named::new(shmem, self.file, len)?;
        // The library opened the name once more: the file is kept open here, so its number is not another's.
        match shm::names(name, &named.file).map_err(os("lstat"))? {
            true => Ok(named),
            false => Err(NamedError::Replaced),
        }
    }
}

/// A mapping of a named segment, which this process may write as far as the protocol says.
pub struct Named {
    words: Words,
    map: ManuallyDrop<Shmem>,
    file: File,
    /// The name that goes with this value.
    owned: Option<String>,
    origin: Origin,
}

impl Named {
    /// Makes a zeroed segment of `len` bytes, a multiple of 8, with mode 0600; all its memory is taken at
    /// once. The name goes when the value is dropped, if it still stands for this segment.
    ///
    /// # Errors
    /// [`NamedError`]; the name is free then, unless it was not before.
    pub fn create(name: &str, len: usize) -> Result<Self, NamedError> {
        // ftruncate(2) beyond the limit raises SIGXFSZ, which kills a process that does not expect it.
        let limit = limits::limit(limits::Resource::FileSize).map_err(os("getrlimit"))?;
        if len as u64 > limit.soft {
            return Err(NamedError::FileSizeLimit { len: len as u64 });
        }
        // The library asks for 0600, of which the umask can only take away.
        let shmem = ShmemConf::new().os_id(format!("/{name}")).size(len).create().map_err(|error| {
            let (call, source) = reason(error);
            NamedError::Os { call, source }
        })?;
        let file = shm::make_private(name).and_then(|()| shm::open(name)).map_err(os("opening a segment"))?;
        let mut named = Self::new(shmem, file, len)?;
        named.map.set_owner(false); // from here on this value removes the name
        named.owned = Some(name.to_owned());
        memfd::reserve(&named.file, len as u64).map_err(os("fallocate"))?;
        Ok(named)
    }

    fn new(shmem: Shmem, file: File, len: usize) -> Result<Self, NamedError> {
        let base = NonNull::new(shmem.as_ptr()).filter(|_| shmem.len() == len);
        let base = base.ok_or(NamedError::Replaced)?;
        let origin = Origin::here().map_err(os("watching for forks"))?;
        // SAFETY: mmap returned the page-aligned address, and mapped `len` bytes, a multiple of 8, for
        // reading and writing; `map` unmaps them on drop, after which nothing uses `words`: everything
        // borrows it through this value. That the file keeps its size is its users' promise (see the module).
        let words = unsafe { Words::new(base, len) };
        let named = Self { words, map: ManuallyDrop::new(shmem), file, owned: None, origin };
        for advice in [MmapAdvise::MADV_DONTFORK, MmapAdvise::MADV_DONTDUMP] {
            // SAFETY: the range is the whole mapping made above; the advice concerns children and core dumps.
            let advised = unsafe { madvise(base.cast::<c_void>(), len, advice) };
            advised.map_err(|errno| NamedError::Os { call: "madvise", source: errno.into() })?;
        }
        Ok(named)
    }

    /// The file behind it, for locks.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// This other name of the file is the one that goes with this value.
    pub fn owns(&mut self, name: &str) {
        self.owned = Some(name.to_owned());
    }

    /// The process that mapped it; no other may touch it.
    pub fn origin(&self) -> Origin {
        self.origin
    }
}

impl std::fmt::Debug for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Named")
            .field("words", &self.words)
            .field("owned", &self.owned)
            .finish_non_exhaustive()
    }
}

/// What the library says, with the errno that it keeps as a number.
fn reason(error: ShmemError) -> (&'static str, io::Error) {
    let (call, errno) = match error {
        ShmemError::MappingIdExists => ("shm_open", Errno::EEXIST as i32),
        ShmemError::MapCreateFailed(errno) => ("making shared memory", errno as i32),
        ShmemError::MapOpenFailed(errno) => ("mapping shared memory", errno as i32),
        ShmemError::UnknownOsError(errno) => ("sizing shared memory", errno as i32),
        other => return ("shared memory", io::Error::other(other.to_string())),
    };
    (call, io::Error::from_raw_os_error(errno))
}

impl Drop for Named {
    fn drop(&mut self) {
        // In a forked child the mapping is not there, and the name is the parent's.
        if !self.origin.is_here() {
            return;
        }
        // It may be gone already, or another's, by the hand of somebody who took this process for dead.
        if let Some(name) = &self.owned
            && shm::names(name, &self.file).unwrap_or(false)
        {
            let _ = shm::unlink(name);
        }
        // SAFETY: dropped once, here, and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.map) }
    }
}

// SAFETY: a mapping belongs to no thread; words are accessed atomically, and whoever asks for a slice
// promises (`Memory::slice`, `MemoryMut::slice_mut`) that nobody stores to it meanwhile.
unsafe impl Send for Named {}
// SAFETY: as for Send; the library's value is only touched by drop.
unsafe impl Sync for Named {}

impl Memory for Named {
    #[inline(always)]
    fn size(&self) -> usize {
        self.words.len()
    }

    #[inline(always)]
    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.words.load(at, order)
    }

    #[inline(always)]
    fn copy(&self, at: usize, into: &mut [u8]) {
        self.words.copy(at, into);
    }

    #[inline(always)]
    fn prefetch(&self, at: usize) {
        self.words.prefetch(at);
    }

    #[inline(always)]
    unsafe fn slice(&self, at: usize, len: usize) -> &[u8] {
        // SAFETY: mapped for as long as `self` lives; the caller keeps the writer away.
        unsafe { self.words.slice(at, len) }
    }
}

impl MemoryMut for Named {
    #[inline(always)]
    fn store(&self, at: usize, value: u64, order: Ordering) {
        self.words.store(at, value, order);
    }

    #[inline(always)]
    unsafe fn slice_mut(&self, at: usize, len: usize) -> &mut [u8] {
        // SAFETY: mapped, and writable, for as long as `self` lives; the caller vouches for the rest.
        unsafe { self.words.slice_mut(at, len) }
    }
}
