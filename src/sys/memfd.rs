//! Anonymous memory files and the seals that make them safe to share (memfd_create(2), fcntl(2)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::fstatfs;
use nix::unistd::ftruncate;

/// The seals that a shared segment must carry: its size is fixed, nobody but the holder of the mapping
/// made before sealing can ever write it, and no seal can be added.
///
/// Check that they are *contained* in what [`seals`] returns: `MFD_NOEXEC_SEAL` adds `F_SEAL_EXEC`.
pub const REQUIRED: u32 =
    (libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL) as u32;

/// `HUGETLBFS_MAGIC` of statfs(2).
const HUGETLBFS: u32 = 0x9584_58f6;

/// `TMPFS_MAGIC` of statfs(2), which memfds carry too.
const TMPFS: u32 = 0x0102_1994;

/// Creates an unsealed memory file of `len` zeroed bytes; `name` shows in `/proc/<pid>/maps` only.
///
/// # Errors
/// `EFBIG` when `len` exceeds `RLIMIT_FSIZE`: ftruncate(2) would raise `SIGXFSZ`, which kills a process
/// that does not expect it. Otherwise what memfd_create(2) and ftruncate(2) report.
pub fn create(name: &str, len: u64) -> io::Result<OwnedFd> {
    let size = libc::off_t::try_from(len).map_err(|_| Errno::EFBIG)?;
    let (soft, _) = getrlimit(Resource::RLIMIT_FSIZE)?;
    if len > soft {
        return Err(Errno::EFBIG.into());
    }
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let noexec = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    let fd = match memfd_create(name, flags | noexec) {
        // MFD_NOEXEC_SEAL came with Linux 6.3; older kernels refuse a flag they do not know.
        Err(Errno::EINVAL) => memfd_create(name, flags)?,
        other => other?,
    };
    super::retry(|| ftruncate(&fd, size))?;
    Ok(fd)
}

/// Makes all pages of a file of the kernel's shared memory, and has them count as written: a kernel that wants memory
/// swaps them out, while it drops pages that were only ever read, such as those that `MAP_POPULATE` makes of a shared
/// mapping (mm/gup.c, `populate_vma_page_range`; mm/shmem.c, `shmem_fallocate`).
///
/// # Errors
/// `ENOSPC` if there is no memory, or the file system is full.
pub fn reserve(file: impl AsFd, len: u64) -> io::Result<()> {
    let len = libc::off_t::try_from(len).map_err(|_| Errno::EFBIG)?;
    super::retry(|| fallocate(&file, FallocateFlags::empty(), 0, len))
}

/// Seals the size alone, before anything is mapped: until then whoever may open `/proc/<pid>/fd` can change it, and an
/// access beyond the end of a mapped file is `SIGBUS`.
pub fn seal_size(fd: impl AsFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW))?;
    Ok(())
}

/// Adds the [`REQUIRED`] seals. Mappings made before stay writable (`F_SEAL_FUTURE_WRITE`, Linux 5.1),
/// so the creator maps first and seals then.
pub fn seal(fd: impl AsFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_ADD_SEALS(SealFlag::from_bits_retain(REQUIRED as i32)))?;
    Ok(())
}

/// The seals of a file.
///
/// # Errors
/// `EINVAL` for a file that cannot carry seals at all (pipes, sockets, files on disk, devices).
pub fn seals(fd: impl AsFd) -> io::Result<u32> {
    Ok(fcntl(fd, FcntlArg::F_GET_SEALS)? as u32)
}

/// Size in bytes.
pub fn size(fd: impl AsFd) -> io::Result<u64> {
    // st_size is never negative for a file that exists.
    Ok(fstat(fd)?.st_size as u64)
}

/// Whether all of its pages were made, be they in memory or swapped out. Once it is sealed, nobody can take one away again.
///
/// By what fstat(2) counts, which waits for nobody: lseek(2) finds holes, and locks the file for that, which its owner can
/// keep locked. Pages beyond the end count as well: whoever means harm can make as many there, for the while.
pub fn is_whole(fd: impl AsFd) -> io::Result<bool> {
    let stat = fstat(fd)?;
    Ok(stat.st_blocks.saturating_mul(512) >= stat.st_size)
}

/// Whether this is a regular file of the kernel's shared memory: a memfd, or a file on some tmpfs.
///
/// The two differ only by their seals: a tmpfs file can never carry more than `F_SEAL_SEAL`.
pub fn is_shared_memory(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let regular = fstat(fd)?.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
    Ok(regular && magic(fd)? == TMPFS)
}

/// Whether the file is made of huge pages, whose faults can fail with SIGBUS when the pool is empty.
pub fn is_hugetlb(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(magic(fd)? == HUGETLBFS)
}

/// The file-system magic, a 32-bit number in a field whose width and sign differ between targets.
fn magic(fd: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(super::retry(|| fstatfs(fd))?.filesystem_type().0 as u32)
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::setrlimit;

    use super::super::testing::{errno, passes_in_child};
    use super::*;

    #[test]
    fn a_file_beyond_the_file_size_limit_is_an_error_and_no_signal() {
        passes_in_child(|| {
            setrlimit(Resource::RLIMIT_FSIZE, 4096, libc::RLIM_INFINITY).unwrap();
            assert_eq!(errno(create("ringbus-test", 4097)), libc::EFBIG);
            assert_eq!(size(create("ringbus-test", 4096).unwrap()).unwrap(), 4096);
        });
    }

    #[test]
    fn a_length_that_no_file_can_have_is_an_error() {
        assert_eq!(errno(create("ringbus-test", u64::MAX)), libc::EFBIG);
    }

    #[test]
    fn sealing_adds_the_required_seals() {
        let fd = create("ringbus-test", 4096).unwrap();
        assert_eq!(seals(&fd).unwrap() & REQUIRED, 0);
        seal(&fd).unwrap();
        assert_eq!(seals(&fd).unwrap() & REQUIRED, REQUIRED);
        assert_eq!(errno(seal(&fd)), libc::EPERM, "no further seal can be added");
    }

    #[test]
    fn a_memfd_is_shared_memory_and_other_files_are_not() {
        let fd = create("ringbus-test", 4096).unwrap();
        assert!(is_shared_memory(fd.as_fd()).unwrap());
        assert!(!is_hugetlb(fd.as_fd()).unwrap());
        let (pipe, _other) = nix::unistd::pipe().unwrap();
        assert!(!is_shared_memory(pipe.as_fd()).unwrap());
        assert_eq!(errno(seals(&pipe)), libc::EINVAL);
        let device = std::fs::File::open("/dev/zero").unwrap();
        assert!(!is_shared_memory(device.as_fd()).unwrap());
    }
}
