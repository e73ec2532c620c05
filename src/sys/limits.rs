//! What this process and host allow, for error messages and for `ringbus doctor` (getrlimit(2)).

use std::fs::{self, DirEntry};
use std::io;

use nix::libc;
use nix::sys::resource::{self, getrlimit};
use nix::sys::utsname::uname;

/// A resource limit that matters to the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Open file descriptors: each session, bell and segment costs some.
    OpenFiles,
    /// Bytes of the largest file, memfds included.
    FileSize,
    /// Bytes of address space: every log that is read is mapped.
    AddressSpace,
    /// Bytes that may be locked in memory.
    LockedMemory,
}

/// Soft limit (in force) and hard limit (how far the process may raise it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// In force now; `u64::MAX` is none.
    pub soft: u64,
    /// Ceiling of the soft limit; `u64::MAX` is none.
    pub hard: u64,
}

/// Reads one limit.
pub fn limit(resource: Resource) -> io::Result<Limit> {
    let resource = match resource {
        Resource::OpenFiles => resource::Resource::RLIMIT_NOFILE,
        Resource::FileSize => resource::Resource::RLIMIT_FSIZE,
        Resource::AddressSpace => resource::Resource::RLIMIT_AS,
        Resource::LockedMemory => resource::Resource::RLIMIT_MEMLOCK,
    };
    let (soft, hard) = getrlimit(resource)?;
    Ok(Limit { soft, hard })
}

/// Size of a page of this host; segment lengths are multiples of it.
pub fn page_size() -> usize {
    match nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE) {
        Ok(Some(size)) => size as usize,
        // sysconf(3) knows the page size on every Linux.
        _ => 4096,
    }
}

/// How many file descriptors this process may still open, up to `most`: one that takes some for a moment to find out would
/// keep them from other threads. `most` where nothing tells (no `/proc`).
pub fn free_descriptors(most: usize) -> usize {
    let Ok(Limit { soft, .. }) = limit(Resource::OpenFiles) else { return most };
    let list = match fs::read_dir("/proc/self/fd") {
        Ok(list) => list,
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => return 0,
        Err(_) => return most,
    };
    // Those above a limit that was lowered leave what is below it free.
    let number = |entry: DirEntry| entry.file_name().to_str()?.parse::<u64>().ok();
    let taken = list.flatten().filter_map(number).filter(|number| *number < soft).count();
    // The list's own is free again.
    usize::try_from(soft).unwrap_or(usize::MAX).saturating_sub(taken).saturating_add(1).min(most)
}

/// Bytes of address space that this process may still map (`ulimit -v`); `None` where it has no limit, or nothing tells how
/// much is taken (no `/proc`).
pub fn free_address_space() -> Option<u64> {
    let soft = limit(Resource::AddressSpace).ok().map(|limit| limit.soft).filter(|soft| *soft != u64::MAX)?;
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let taken: u64 = statm.split(' ').next()?.parse().ok()?;
    Some(soft.saturating_sub(taken.saturating_mul(page_size() as u64)))
}

/// What to do about an error that comes of a limit or of a place that cannot be written, to follow its text; else nothing.
pub fn advice(error: &io::Error) -> &'static str {
    use nix::libc::{EACCES, EAGAIN, EDQUOT, EFBIG, EMFILE, ENFILE, ENOMEM, ENOSPC, EPERM, EROFS};
    match error.raw_os_error() {
        Some(EMFILE) => ": raise the limit (`ulimit -n`), or open fewer ports and nodes",
        Some(ENFILE) => ": too many files are open on this host: raise `fs.file-max`",
        Some(EFBIG) => ": raise the limit (`ulimit -f`)",
        Some(ENOMEM | EAGAIN) => ": raise the limit (`ulimit -v`, `ulimit -u`, the container's memory)",
        Some(ENOSPC | EDQUOT) => ": free space or inodes there, or set RINGBUS_DIR to another directory",
        Some(EACCES | EPERM | EROFS) => {
            ": let this user write there, or set RINGBUS_DIR to another directory"
        }
        _ => "",
    }
}

/// `net.unix.max_dgram_qlen` of this network namespace: how many datagrams of strangers a Unix datagram
/// socket queues. Sessions are connected at both ends, so the sender's buffer (`net.core.wmem_default`)
/// bounds those instead.
pub fn max_dgram_qlen() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen")?;
    text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The kernel's release, such as `6.18.44`.
pub fn kernel_release() -> io::Result<String> {
    Ok(uname()?.release().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::sys::resource::setrlimit;

    use super::*;
    use crate::sys::testing::passes_in_child;

    #[test]
    fn free_descriptors_are_those_that_can_be_opened() {
        passes_in_child(|| {
            let hard = limit(Resource::OpenFiles).unwrap().hard;
            let taken = fs::read_dir("/proc/self/fd").unwrap().count() as u64 - 1;
            let set = |soft| setrlimit(resource::Resource::RLIMIT_NOFILE, soft, hard).unwrap();
            set(taken + 100);
            assert_eq!(free_descriptors(5), 5);
            // Where tests of other threads have left gaps, some of those that are open are above the limit.
            let free = free_descriptors(1000);
            let mut files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
            assert_eq!(files.len(), free);
            assert!(free >= 100);
            assert_eq!(free_descriptors(5), 0);
            files.truncate(free - 3);
            assert_eq!(free_descriptors(5), 3);
            set(taken + 50);
            let room = free_descriptors(100);
            assert_eq!(
                std::iter::from_fn(|| File::open("/dev/null").ok()).take(100).collect::<Vec<_>>().len(),
                room
            );
        });
    }

    #[test]
    fn limits_can_be_read() {
        for resource in
            [Resource::OpenFiles, Resource::FileSize, Resource::AddressSpace, Resource::LockedMemory]
        {
            let Limit { soft, hard } = limit(resource).unwrap();
            assert!(soft <= hard, "{resource:?}: {soft} {hard}");
        }
        assert!(max_dgram_qlen().unwrap() > 0);
        assert!(kernel_release().unwrap().contains('.'));
    }
}
