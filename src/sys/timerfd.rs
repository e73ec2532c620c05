//! Bells: fds that wake a poll (timerfd_create(2)), of which no timer is ever set to go off later.
//!
//! Whoever rings shares the bell with its owner, and nothing that the one does to it may hold up the other. An
//! eventfd(2) has a counter that can be filled and a flag, `O_NONBLOCK`, that each holder can clear for all: a write
//! then blocks. A timer has neither: setting it, and setting how often it has gone off, return at once whatever other
//! holders do.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::errno::Errno;
use nix::fcntl::readlink;
use nix::libc;

/// Tells a timer how often it has gone off: `TFD_IOC_SET_TICKS` (`linux/timerfd.h`), which the crate libc lacks.
const SET_TICKS: libc::Ioctl = nix::request_code_write!(b'T', 0, size_of::<u64>()) as libc::Ioctl;

/// Whether this kernel was built without `SET_TICKS` (`CONFIG_CHECKPOINT_RESTORE`).
static LACKS_TICKS: AtomicBool = AtomicBool::new(false);

/// Creates a silent bell.
pub fn create() -> io::Result<OwnedFd> {
    // SAFETY: takes two integers; the kernel has just created the fd it returns for us alone.
    unsafe {
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        let fd = Errno::result(libc::timerfd_create(libc::CLOCK_MONOTONIC, flags))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Rings: whoever polls the bell wakes. Never blocks.
pub fn ring(fd: BorrowedFd<'_>) -> io::Result<()> {
    if !LACKS_TICKS.load(Relaxed) {
        let once = 1u64;
        // SAFETY: the kernel reads one u64, which is alive; an fd that is no timer refuses the request.
        match Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), SET_TICKS, ptr::from_ref(&once)) }) {
            Err(Errno::ENOTTY) => LACKS_TICKS.store(true, Relaxed),
            done => return done.map(drop).map_err(io::Error::from),
        }
    }
    // Long past: it goes off now, by way of an interrupt.
    set(fd, 1)
}

/// Silences the bell, so that the next poll waits for the next ring. Never blocks.
pub fn drain(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, 0)
}

/// Sets the timer to this time of the monotonic clock; 0 stops it. What has gone off is forgotten.
fn set(fd: BorrowedFd<'_>, nanoseconds: libc::c_long) -> io::Result<()> {
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let first = libc::timespec { tv_sec: 0, tv_nsec: nanoseconds as _ };
    let timer = libc::itimerspec { it_interval: never, it_value: first };
    // SAFETY: the kernel reads `timer`, which is alive; null: the old setting is not wanted.
    let set = unsafe {
        libc::timerfd_settime(fd.as_raw_fd(), libc::TFD_TIMER_ABSTIME, &raw const timer, ptr::null_mut())
    };
    Errno::result(set)?;
    Ok(())
}

/// Checks that an fd received from a peer is a bell, so that ringing it neither blocks nor does anything else.
///
/// # Errors
/// `InvalidInput` naming what it is instead; `NotFound` where `/proc` is not mounted.
pub fn verify(fd: BorrowedFd<'_>) -> io::Result<()> {
    let target = readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_str())?;
    if target != "anon_inode:[timerfd]" {
        let what = format!("expected a timerfd, received {}", target.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::sys::eventfd::{EfdFlags, EventFd};

    use super::super::poll::readable;
    use super::super::testing::DEADLINE;
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

    /// As where the kernel cannot be told that it has gone off.
    #[test]
    fn a_timer_that_is_set_to_the_past_rings() {
        let bell = create().unwrap();
        for _ in 0..3 {
            set(bell.as_fd(), 1).unwrap();
            assert!(readable(bell.as_fd(), Some(DEADLINE)).unwrap());
            drain(bell.as_fd()).unwrap();
            assert!(!rung(&bell));
        }
    }

    /// What hung with eventfds: whoever holds the bell clears the flag, and leaves nothing to wait for, or no room.
    #[test]
    fn a_bell_that_blocks_its_readers_holds_up_nobody_who_rings_or_drains() {
        let bell = create().unwrap();
        let hostile = bell.try_clone().unwrap();
        fcntl(&hostile, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        for ticks in [1, u64::MAX] {
            // SAFETY: the kernel reads one u64, which is alive.
            let full = unsafe { libc::ioctl(hostile.as_raw_fd(), SET_TICKS, ptr::from_ref(&ticks)) };
            assert!(full == 0 || LACKS_TICKS.load(Relaxed));
            ring(bell.as_fd()).unwrap();
            assert!(readable(bell.as_fd(), Some(DEADLINE)).unwrap());
            drain(bell.as_fd()).unwrap();
            drain(bell.as_fd()).unwrap();
            assert!(!rung(&bell));
        }
    }

    #[test]
    fn verify_takes_bells_only() {
        verify(create().unwrap().as_fd()).unwrap();

        let eventfd: OwnedFd = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap().into();
        let (pipe, _other) = nix::unistd::pipe().unwrap();
        let epoll: OwnedFd = super::super::epoll::Epoll::new().unwrap().as_fd().try_clone_to_owned().unwrap();
        let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        for refused in [eventfd, pipe, epoll, null] {
            assert_eq!(verify(refused.as_fd()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
