//! Bells: counters that wake a poll (eventfd(2)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, readlink};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::{read, write};

/// Creates a silent bell.
pub fn create() -> io::Result<OwnedFd> {
    Ok(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?.into())
}

/// Rings: whoever polls the bell wakes. A counter that is full (`EAGAIN`) has been rung already.
pub fn ring(fd: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        match write(fd, &1u64.to_ne_bytes()) {
            Ok(_) | Err(Errno::EAGAIN) => return Ok(()),
            Err(Errno::EINTR) => continue,
            Err(other) => return Err(other.into()),
        }
    }
}

/// Silences the bell, so that the next poll waits for the next ring.
///
/// One read empties an eventfd (it is no `EFD_SEMAPHORE`); a peer may ring at any moment, so no attempt
/// is made to see it silent.
pub fn drain(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut count = [0; 8];
    loop {
        match read(fd, &mut count) {
            Ok(_) | Err(Errno::EAGAIN) => return Ok(()),
            Err(Errno::EINTR) => continue,
            Err(other) => return Err(other.into()),
        }
    }
}

/// Checks that an fd received from a peer is a bell: an eventfd, and a non-blocking one, so that ringing
/// it neither blocks nor writes into something else.
///
/// `O_NONBLOCK` belongs to the open file, which the peer shares: one that means harm can clear it later,
/// and a full counter would then block whoever rings. So this keeps out mistakes, not malice; fds
/// are taken only from peers that the bus admits.
///
/// # Errors
/// `InvalidInput` naming what it is instead; `NotFound` where `/proc` is not mounted.
pub fn verify(fd: BorrowedFd<'_>) -> io::Result<()> {
    let target = readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_str())?;
    if target != "anon_inode:[eventfd]" {
        let what = format!("expected an eventfd, received {}", target.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    if !flags.contains(OFlag::O_NONBLOCK) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "received an eventfd that blocks"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::super::poll::readable;
    use super::*;

    fn rung(fd: &OwnedFd) -> bool {
        readable(fd.as_fd(), Some(Duration::ZERO)).unwrap()
    }

    #[test]
    fn rings_until_drained() {
        let bell = create().unwrap();
        assert!(!rung(&bell));
        ring(bell.as_fd()).unwrap();
        ring(bell.as_fd()).unwrap();
        assert!(rung(&bell));
        drain(bell.as_fd()).unwrap();
        assert!(!rung(&bell));
        drain(bell.as_fd()).unwrap();
    }

    #[test]
    fn a_full_counter_counts_as_rung() {
        let bell = create().unwrap();
        write(&bell, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        ring(bell.as_fd()).unwrap();
        assert!(rung(&bell));
    }

    #[test]
    fn verify_takes_bells_only() {
        verify(create().unwrap().as_fd()).unwrap();

        let blocking: OwnedFd = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap().into();
        let (pipe, _other) = nix::unistd::pipe().unwrap();
        let epoll: OwnedFd = super::super::epoll::Epoll::new().unwrap().as_fd().try_clone_to_owned().unwrap();
        let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        for refused in [blocking, pipe, epoll, null] {
            assert_eq!(verify(refused.as_fd()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
