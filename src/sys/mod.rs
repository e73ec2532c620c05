//! Thin, safe wrappers of the Linux calls that the bus needs, one call family a file.
//!
//! Errors are `io::Error`s that keep the errno (`raw_os_error`), because what an errno means depends on
//! the call: each file says which ones its callers have to tell apart. `EINTR` never escapes.

pub mod affinity;
pub mod clock;
pub mod credentials;
pub mod epoll;
pub mod filelock;
pub mod fork;
pub mod limits;
pub mod membarrier;
pub mod memfd;
pub mod memory;
pub mod pidfd;
pub mod poll;
pub mod random;
pub mod seqpacket;
pub mod shm;
pub mod thread;
pub mod timerfd;

#[cfg(test)]
pub mod testing;

use std::io;

use nix::errno::Errno;

/// Repeats a call for as long as a signal interrupts it.
fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => continue,
            done => return done.map_err(io::Error::from),
        }
    }
}
