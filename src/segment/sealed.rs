//! Segments that the kernel lets exactly one process write: the creator's writable mapping of a memfd,
//! made before it was sealed, and everybody else's read-only mapping of it.
//!
//! The seals make both sides safe: the size is fixed, so no access can fault for want of a page
//! (SIGBUS), and nobody but the creator can store.
//!
//! **Fork.** Mappings are `MADV_DONTFORK`: a child does not have them, and *any access there faults*.
//! Whatever owns a segment asks its [`Origin`] first (ports do, on each operation). Only the drop
//! is safe without asking: it leaves the child's address space alone.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use memmap2::{Advice, MmapOptions, MmapRaw};
use nix::errno::Errno;

use super::words::Words;
use super::{Memory, MemoryMut, SegmentError};
use crate::sys::fork::Origin;
use crate::sys::limits::{free_address_space, page_size};
use crate::sys::memfd;

/// Memory files made in place of one that somebody has resized before it was sealed.
const TRIES: usize = 8;

/// Bytes of address space that segments leave to whatever else this process needs: a small allocation that fails is the end
/// of it, and peers say how many segments there are.
const SPARED: u64 = 4 << 20;

/// A segment of this process: the only one that can write it.
#[derive(Debug)]
pub struct Sealed {
    mapping: Mapping,
    fd: Arc<OwnedFd>,
}

/// The pages of a peer's segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Made as their owner first writes them, and mapped as they are touched. Whoever reads one that was never written
    /// makes it.
    AsWritten,
    /// All made by their owner, which is checked: a reader makes none. Mapped as they are touched.
    Made,
    /// The same; mapped now.
    Mapped,
}

impl Sealed {
    /// Makes a zeroed segment of `len` bytes, a multiple of [`page_size`]. `prefault` makes all its pages
    /// now rather than one by one at their first use, which costs more in sum than at once.
    ///
    /// # Errors
    /// What the kernel says; where it has no memory for the pages, too.
    pub fn create(name: &str, len: usize, prefault: bool) -> Result<Self, SegmentError> {
        check_len(len as u64)?;
        check_room(len)?;
        let fd = create_fixed(name, len as u64)?;
        let mut options = MmapOptions::new();
        options.len(len);
        if prefault {
            memfd::reserve(&fd, len as u64).map_err(|source| match source.raw_os_error() {
                Some(nix::libc::ENOSPC | nix::libc::ENOMEM) => no_memory("making the pages"),
                _ => SegmentError::Os { call: "making the pages", source },
            })?;
            options.populate();
        }
        let mapping = Mapping::new(options.map_raw(fd.as_raw_fd()))?;
        // Mapped first, sealed second: F_SEAL_FUTURE_WRITE spares the mappings that exist already.
        memfd::seal(&fd).map_err(SegmentError::os("sealing a memfd"))?;
        check_seals(fd.as_fd())?;
        // Until it was sealed, others of this user could take some away.
        if prefault && !memfd::is_whole(&fd).map_err(SegmentError::os("fstat"))? {
            return Err(no_memory("making the pages"));
        }
        Ok(Self { mapping, fd: Arc::new(fd) })
    }

    /// The fd to send to those who shall read. It gives nobody, this process included, another way to write.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The same fd, to be kept in a queue of messages beyond the segment's own life.
    pub fn shared_fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }

    /// The process that made it; no other may touch it.
    pub fn origin(&self) -> Origin {
        self.mapping.origin
    }
}

/// A memory file of this size, which nobody can change any more.
fn create_fixed(name: &str, len: u64) -> Result<OwnedFd, SegmentError> {
    for _ in 0..TRIES {
        let fd = memfd::create(name, len).map_err(|source| match source.raw_os_error() {
            Some(nix::libc::EFBIG) => SegmentError::FileSizeLimit { len },
            _ => SegmentError::Os { call: "creating a memfd", source },
        })?;
        memfd::seal_size(&fd).map_err(SegmentError::os("sealing a memfd"))?;
        if memfd::size(&fd).map_err(SegmentError::os("fstat"))? == len {
            return Ok(fd);
        }
    }
    let source = io::Error::other(
        "another process of this user resizes it meanwhile, through /proc: stop that process",
    );
    Err(SegmentError::Os { call: "creating a memfd", source })
}

/// A segment of another process, mapped read-only.
#[derive(Debug)]
pub struct PeerSegment {
    mapping: Mapping,
}

impl PeerSegment {
    /// Checks and maps what a peer sent: a sealed memory file of at most `max_len` bytes. The fd is of
    /// no more use then: the mapping alone keeps the memory alive.
    ///
    /// # Errors
    /// Whatever the fd is, this refuses it rather than harm the caller later; nothing is mapped then.
    pub fn open(fd: impl AsFd, max_len: usize, pages: Pages) -> Result<Self, SegmentError> {
        let fd = fd.as_fd();
        if memfd::is_hugetlb(fd).map_err(SegmentError::os("fstatfs"))? {
            return Err(SegmentError::HugePages);
        }
        if !memfd::is_shared_memory(fd).map_err(SegmentError::os("fstat"))? {
            return Err(SegmentError::NotMemory);
        }
        // Seals before size: from here on the size cannot change.
        check_seals(fd)?;
        let len = memfd::size(fd).map_err(SegmentError::os("fstat"))?;
        check_len(len)?;
        let len = match usize::try_from(len) {
            Ok(len) if len <= max_len => len,
            _ => return Err(SegmentError::TooLarge { len, max: max_len }),
        };
        if pages != Pages::AsWritten && !memfd::is_whole(fd).map_err(SegmentError::os("fstat"))? {
            return Err(SegmentError::Missing);
        }
        check_room(len)?;
        let mut options = MmapOptions::new();
        options.len(len);
        if pages == Pages::Mapped {
            options.populate();
        }
        Ok(Self { mapping: Mapping::new(options.map_raw_read_only(fd.as_raw_fd()))? })
    }

    /// The process that mapped it; no other may touch it.
    pub fn origin(&self) -> Origin {
        self.mapping.origin
    }
}

fn check_len(len: u64) -> Result<(), SegmentError> {
    let page = page_size();
    if len == 0 || !len.is_multiple_of(page as u64) {
        return Err(SegmentError::Size { len, page });
    }
    Ok(())
}

/// Whether there is room for a mapping, where that is limited.
fn check_room(len: usize) -> Result<(), SegmentError> {
    if free_address_space().is_some_and(|free| free < (len as u64).saturating_add(SPARED)) {
        return Err(no_memory("mmap"));
    }
    Ok(())
}

fn no_memory(call: &'static str) -> SegmentError {
    SegmentError::Os { call, source: Errno::ENOMEM.into() }
}

/// The required seals have to be among those found: kernels and flags add others.
fn check_seals(fd: BorrowedFd<'_>) -> Result<(), SegmentError> {
    // EINVAL: the file system does not know seals.
    let found = match memfd::seals(fd) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => return Err(SegmentError::NotMemory),
        other => other.map_err(SegmentError::os("reading seals"))?,
    };
    if found & memfd::REQUIRED != memfd::REQUIRED {
        return Err(SegmentError::Unsealed { found });
    }
    Ok(())
}

/// A whole mapping of a sealed file, and the words in it.
#[derive(Debug)]
struct Mapping {
    words: Words,
    map: ManuallyDrop<MmapRaw>,
    origin: Origin,
}

impl Mapping {
    fn new(map: io::Result<MmapRaw>) -> Result<Self, SegmentError> {
        let map = map.map_err(SegmentError::os("mmap"))?;
        // A fork in between leaves the child a mapping that it neither knows of nor touches.
        map.advise(Advice::DontFork).map_err(SegmentError::os("madvise(MADV_DONTFORK)"))?;
        map.advise(Advice::DontDump).map_err(SegmentError::os("madvise(MADV_DONTDUMP)"))?;
        let origin = Origin::here().map_err(SegmentError::os("watching for forks"))?;
        let base = NonNull::new(map.as_mut_ptr()).ok_or(SegmentError::NotMemory)?;
        // SAFETY: mmap returns page-aligned addresses; callers map a whole number of pages of a file
        // whose size is sealed, or that only we know and seal next. `map` unmaps on drop, after which
        // nothing uses `words`: everything borrows it through this value.
        let words = unsafe { Words::new(base, map.len()) };
        Ok(Self { words, map: ManuallyDrop::new(map), origin })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // In a forked child the mapping is not there, and something else may be at its address.
        if self.origin.is_here() {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.map) }
        }
    }
}

// SAFETY: a mapping belongs to no thread; words are accessed atomically, and whoever asks for a slice
// promises (`Memory::slice`, `MemoryMut::slice_mut`) that nobody stores to it meanwhile.
unsafe impl Send for Mapping {}
// SAFETY: as for Send.
unsafe impl Sync for Mapping {}

impl Memory for Sealed {
    #[inline(always)]
    fn size(&self) -> usize {
        self.mapping.words.len()
    }

    #[inline(always)]
    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.mapping.words.load(at, order)
    }

    #[inline(always)]
    fn copy(&self, at: usize, into: &mut [u8]) {
        self.mapping.words.copy(at, into);
    }

    #[inline(always)]
    fn prefetch(&self, at: usize) {
        self.mapping.words.prefetch(at);
    }

    #[inline(always)]
    unsafe fn slice(&self, at: usize, len: usize) -> &[u8] {
        // SAFETY: mapped for as long as `self` lives; the caller keeps the writer away.
        unsafe { self.mapping.words.slice(at, len) }
    }
}

impl MemoryMut for Sealed {
    #[inline(always)]
    fn store(&self, at: usize, value: u64, order: Ordering) {
        self.mapping.words.store(at, value, order);
    }

    #[inline(always)]
    fn prefetch_write(&self, at: usize) {
        self.mapping.words.prefetch_write(at);
    }

    #[inline(always)]
    fn give_away(&self, at: usize) {
        self.mapping.words.give_away(at);
    }

    #[inline(always)]
    fn write<const HEAD: usize>(
        &self,
        at: usize,
        first: &[u64; 2],
        head: &[u8; HEAD],
        body: &[u8],
        last: Option<(usize, u64)>,
    ) {
        self.mapping.words.write(at, first, head, body, last);
    }

    #[inline(always)]
    unsafe fn slice_mut(&self, at: usize, len: usize) -> &mut [u8] {
        // SAFETY: mapped, and writable, for as long as `self` lives; the caller vouches for the rest.
        unsafe { self.mapping.words.slice_mut(at, len) }
    }
}

impl Memory for PeerSegment {
    #[inline(always)]
    fn size(&self) -> usize {
        self.mapping.words.len()
    }

    #[inline(always)]
    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.mapping.words.load_read_only(at, order)
    }

    #[inline(always)]
    fn copy(&self, at: usize, into: &mut [u8]) {
        self.mapping.words.copy(at, into);
    }

    #[inline(always)]
    fn prefetch(&self, at: usize) {
        self.mapping.words.prefetch(at);
    }

    #[inline(always)]
    unsafe fn slice(&self, at: usize, len: usize) -> &[u8] {
        // SAFETY: mapped for as long as `self` lives; the caller keeps the writer (a peer) away.
        unsafe { self.mapping.words.slice(at, len) }
    }
}
