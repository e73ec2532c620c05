//! Process handles that turn readable when the process dies (pidfd_open(2)).
//!
//! Death shows here even while a forked child of the dead process keeps its sockets open. The fd is
//! readable from the moment the last thread has ended, whether or not the parent has reaped it.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{getsockopt, sockopt};

/// A handle to the peer of a connected Unix socket; `pid` is what `SO_PEERCRED` gave for it.
///
/// `SO_PEERPIDFD` (Linux 6.5) names the very process that connected. Where it is missing, `pid` is looked
/// up, which may name a stranger if the peer died and its number was given out again; the socket's
/// hang-up still tells of that death.
///
/// # Errors
/// - `ESRCH` ([`is_dead`]): the peer is dead and reaped already; what it sent can still be received.
/// - `Unsupported`: no handle can be had (kernel before 5.3, or a seccomp filter, or a peer of another
///   pid namespace on a kernel before 6.5); the hang-up of the socket is all there is.
/// - Anything else (`EMFILE`, `ENFILE`, `ENOMEM`) is this process's own shortage.
pub fn of_peer(socket: impl AsFd, pid: i32) -> io::Result<OwnedFd> {
    match getsockopt(&socket.as_fd(), sockopt::PeerPidfd) {
        Ok(fd) => Ok(fd),
        // Reaped peers: EINVAL at first, ESRCH later; from 6.16 on they get a handle, readable at once.
        Err(Errno::EINVAL | Errno::ESRCH) => Err(Errno::ESRCH.into()),
        Err(Errno::ENOPROTOOPT | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM) => open(pid),
        Err(other) => Err(other.into()),
    }
}

/// A handle to the process that has the number `pid` now.
///
/// # Errors
/// As [`of_peer`].
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    if pid <= 0 {
        return Err(unsupported("the process has no number in this pid namespace"));
    }
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match Errno::result(result) {
        // SAFETY: the kernel has just created this fd (with FD_CLOEXEC set) for us alone.
        Ok(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => Err(unsupported("pidfd_open is not available")),
        Err(other) => Err(other.into()),
    }
}

/// Whether a process that is not dead yet may be about to be: it closes its sockets before. `None`: nothing tells.
///
/// The flags in `/proc/<pid>/stat` (proc_pid_stat(5)) have `PF_EXITING` from before that on.
pub fn is_exiting(pid: i32) -> Option<bool> {
    const PF_EXITING: u64 = 4;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?; // a name may have anything in it
    let flags: u64 = fields.split_ascii_whitespace().nth(6)?.parse().ok()?;
    Some(flags & PF_EXITING != 0)
}

/// Whether an error of this file means that the process is gone.
pub fn is_dead(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

fn unsupported(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::poll::readable;
    use super::super::seqpacket::{Listener, Socket};
    use super::super::testing::{Child, DEADLINE, kill, stay};
    use super::super::{credentials, testing};
    use super::*;

    fn accept(listener: &Listener) -> Socket {
        assert!(readable(listener.as_fd(), Some(DEADLINE)).unwrap());
        listener.accept().unwrap().expect("a connection")
    }

    fn fired(pidfd: &OwnedFd) -> bool {
        readable(pidfd.as_fd(), Some(Duration::ZERO)).unwrap()
    }

    #[test]
    fn a_handle_turns_readable_when_the_peer_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = Listener::bind(&path, 8).unwrap();
        let child = Child::spawn(|| {
            let _socket = Socket::connect(&path).unwrap();
            stay();
        });
        let socket = accept(&listener);
        let pid = credentials::of_peer(&socket).unwrap().pid;
        assert_eq!(pid, child.pid());

        let handles = [of_peer(&socket, pid).unwrap(), open(pid).unwrap()];
        assert!(!handles.iter().any(fired));
        assert_eq!(is_exiting(pid), Some(false));
        child.kill();
        for handle in &handles {
            assert!(readable(handle.as_fd(), Some(DEADLINE)).unwrap());
        }

        // Dead but not reaped: handles can still be had, and are readable at once.
        assert!(fired(&of_peer(&socket, pid).unwrap()));
        assert!(fired(&open(pid).unwrap()));
        assert_eq!(is_exiting(pid), Some(true));
        child.wait();
        // Reaped: what is left is the word for it, or a handle that knows.
        assert!(is_dead(&open(pid).unwrap_err()));
        assert_eq!(is_exiting(pid), None);
        match of_peer(&socket, pid) {
            Ok(handle) => assert!(fired(&handle)),
            Err(error) => assert!(is_dead(&error), "{error}"),
        }
    }

    #[test]
    fn death_shows_while_a_forked_child_holds_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = Listener::bind(&path, 8).unwrap();
        let owner = Child::spawn(|| {
            let socket = Socket::connect(&path).unwrap();
            let heir = Child::spawn(stay);
            socket.send(&heir.pid().to_ne_bytes(), &[]).unwrap();
            stay();
        });
        let socket = accept(&listener);
        let handle = of_peer(&socket, owner.pid()).unwrap();
        let mut heir = [0; 4];
        assert!(readable(socket.as_fd(), Some(DEADLINE)).unwrap());
        assert_eq!(socket.recv(&mut heir).unwrap().len, 4);

        owner.kill();
        assert!(readable(handle.as_fd(), Some(DEADLINE)).unwrap());
        owner.wait();
        assert_eq!(testing::errno(socket.recv(&mut [0; 8])), libc::EAGAIN, "the socket does not hang up");

        kill(i32::from_ne_bytes(heir));
        assert!(readable(socket.as_fd(), Some(DEADLINE)).unwrap());
        assert!(socket.recv(&mut [0; 8]).unwrap().is_end());
    }

    #[test]
    fn numbers_that_name_no_process_are_unsupported() {
        for pid in [0, -1] {
            assert_eq!(open(pid).unwrap_err().kind(), io::ErrorKind::Unsupported);
        }
    }
}
