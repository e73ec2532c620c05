//! Waiting for one fd (ppoll(2)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;

/// Waits until `fd` is readable; false once the timeout has passed in full. `None` waits for ever.
///
/// A signal does not end the wait, and nothing returns false early. A hang-up or an error on the fd
/// counts as readable: the read that follows does not block, and says what happened.
pub fn readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    // A deadline that the clock cannot express is never reached.
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let remaining = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        match wait(&mut entry, remaining) {
            Ok(0) | Err(Errno::EINTR) => {
                if remaining == Some(Duration::ZERO) {
                    return Ok(false);
                }
            }
            Ok(_) if entry.revents & libc::POLLNVAL != 0 => return Err(Errno::EBADF.into()),
            Ok(_) => return Ok(true),
            Err(other) => return Err(other.into()),
        }
    }
}

fn wait(entry: &mut libc::pollfd, timeout: Option<Duration>) -> nix::Result<i32> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos() as _,
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `entry` is one live pollfd, exclusively borrowed; `timeout` is null or points to a timespec
    // that lives until the end of this function; a null signal mask leaves ours as it is.
    Errno::result(unsafe { libc::ppoll(entry, 1, timeout, ptr::null()) })
}
