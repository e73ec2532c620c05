//! What this process and host allow, for error messages and for `ringbus doctor` (getrlimit(2)).

use std::io;
use std::os::fd::BorrowedFd;

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

/// How many file descriptors this process may still open, looked for up to `most`. `fd` is any that is open.
pub fn free_descriptors(fd: BorrowedFd<'_>, most: usize) -> usize {
    let found: Vec<_> = (0..most).map_while(|_| fd.try_clone_to_owned().ok()).collect();
    found.len()
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
    use super::*;

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
