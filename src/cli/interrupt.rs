//! SIGINT, SIGTERM and SIGHUP as something to wait for, so that a command ends by itself and says goodbye.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Failure, Outcome};
use crate::sys::thread;

/// A second signal this soon is the first one's echo: a parent and the terminal both passed it on.
const ECHO: Duration = Duration::from_millis(300);

/// Turns readable, and stays so, once the process was asked to end. Asked again, it ends at once.
pub(super) struct Interrupt {
    pipe: UnixStream,
    signal: Arc<AtomicI32>,
}

impl Interrupt {
    pub(super) fn new() -> Outcome<Self> {
        let refuse = |error| {
            format!(
                "cannot watch for signals: {error}: raise the limit (`ulimit -n`, `ulimit -u`, `ulimit -v`)"
            )
        };
        Ok(Self::open().map_err(refuse)?)
    }

    fn open() -> io::Result<Self> {
        let (pipe, mut bell) = UnixStream::pair()?;
        let signal = Arc::new(AtomicI32::new(0));
        let hangup = (!ignores_hangup()).then_some(SIGHUP);
        let mut signals = Signals::new([SIGINT, SIGTERM].into_iter().chain(hangup))?;
        let told = signal.clone();
        thread::spawn("signals", None, move || {
            let mut first = None;
            for number in signals.forever() {
                let first = *first.get_or_insert_with(Instant::now);
                if first.elapsed() > ECHO {
                    std::process::exit(128 + number);
                }
                told.store(number, Relaxed);
                let _ = bell.write(&[0]);
            }
        })?;
        Ok(Self { pipe, signal })
    }

    /// The signal that came, as the way to end.
    pub(super) fn check(&self) -> Outcome {
        match self.signal.load(Relaxed) {
            0 => Ok(()),
            signal => Err(Failure::Interrupted(signal)),
        }
    }

    /// Sleeps until then, or until asked to end.
    pub(super) fn sleep_until(&self, then: Instant) -> Outcome {
        loop {
            self.check()?;
            let left = then.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            wait(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], Some(left))?;
        }
    }

    /// Waits until `other` is readable or at its end, or until asked to end.
    pub(super) fn wait_readable(&self, other: BorrowedFd<'_>) -> Outcome {
        loop {
            self.check()?;
            let mut fds =
                [PollFd::new(self.as_fd(), PollFlags::POLLIN), PollFd::new(other, PollFlags::POLLIN)];
            wait(&mut fds, None)?;
            if fds[1].any() == Some(true) {
                return Ok(());
            }
        }
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// Whether whoever started this process wants it to outlive its terminal: nohup(1) does.
fn ignores_hangup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 << (SIGHUP - 1) != 0)
}

/// poll(2), rounded up to milliseconds; a signal or a timeout ends it early and without an error.
pub(super) fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let timeout = match timeout {
        None => PollTimeout::NONE,
        Some(timeout) => {
            PollTimeout::try_from(timeout.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX)
        }
    };
    match poll(fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
