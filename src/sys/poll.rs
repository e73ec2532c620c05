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

/// Whether the other end of a socket has closed, or shut down sending; what it sent may still be there.
pub fn hung_up(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    super::retry(|| wait(&mut entry, Some(Duration::ZERO)))?;
    Ok(entry.revents != 0)
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::testing::passes_in_child;
    use super::super::timerfd;
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[test]
    fn waits_out_the_timeout() {
        let bell = timerfd::create().unwrap();
        for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::from_micros(1500), SHORT] {
            let start = Instant::now();
            assert!(!readable(bell.as_fd(), Some(timeout)).unwrap());
            assert!(start.elapsed() >= timeout);
        }
    }

    #[test]
    fn returns_when_rung_whatever_the_timeout() {
        let bell = timerfd::create().unwrap();
        timerfd::ring(bell.as_fd()).unwrap();
        for timeout in [Some(Duration::ZERO), Some(SHORT), Some(Duration::MAX), None] {
            assert!(readable(bell.as_fd(), timeout).unwrap());
        }
    }

    #[test]
    fn a_ring_from_another_thread_ends_the_wait() {
        let bell = timerfd::create().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| timerfd::ring(bell.as_fd()).unwrap());
            assert!(readable(bell.as_fd(), None).unwrap());
        });
    }

    #[test]
    fn a_hang_up_is_readable() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        drop(writer);
        assert!(readable(reader.as_fd(), Some(super::super::testing::DEADLINE)).unwrap());
    }

    #[test]
    fn signals_do_not_shorten_the_wait() {
        extern "C" fn nothing(_signal: libc::c_int) {}
        passes_in_child(|| {
            let bell = timerfd::create().unwrap();
            let tick = libc::timeval { tv_sec: 0, tv_usec: 3_000 };
            let timer = libc::itimerval { it_interval: tick, it_value: tick };
            let handler: extern "C" fn(libc::c_int) = nothing;
            // SAFETY: the handler does nothing; all pointers are live or null. Without SA_RESTART (which
            // signal(3) sets) each tick interrupts.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = handler as libc::sighandler_t;
                assert_eq!(libc::sigaction(libc::SIGALRM, &action, ptr::null_mut()), 0);
                assert_eq!(libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()), 0);
            }
            let start = Instant::now();
            assert!(!readable(bell.as_fd(), Some(SHORT)).unwrap());
            assert!(start.elapsed() >= SHORT);
        });
    }

    #[test]
    fn a_hang_up_shows_before_what_was_sent_is_received() {
        let (one, other) = super::super::seqpacket::Socket::pair().unwrap();
        one.send(b"last words", &[]).unwrap();
        assert!(!hung_up(other.as_fd()).unwrap());
        drop(one);
        // A concurrent test's child may hold the other end for a moment.
        let start = Instant::now();
        while !hung_up(other.as_fd()).unwrap() {
            assert!(start.elapsed() < super::super::testing::DEADLINE);
        }
        assert!(readable(other.as_fd(), Some(Duration::ZERO)).unwrap());
    }
}
