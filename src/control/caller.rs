//! Who is behind a connection.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::sys::credentials::{self, Credentials};
use crate::sys::seqpacket::Socket;
use crate::sys::{pidfd, poll};

/// The process that connected, or that listens: whoever holds its socket now.
pub(super) struct Caller {
    pub(super) credentials: Credentials,
    /// Readable once the process is dead, whoever else holds its socket. `None` where the kernel gives none:
    /// then the hang-up alone tells.
    pub(super) process: Option<OwnedFd>,
    /// It is dead already.
    pub(super) dead: bool,
}

impl Caller {
    pub(super) fn behind(socket: &Socket) -> io::Result<Self> {
        let credentials = credentials::of_peer(socket)?;
        let (process, dead) = match pidfd::of_peer(socket, credentials.pid) {
            Ok(process) => {
                let dead = poll::readable(process.as_fd(), Some(Duration::ZERO))?;
                (Some(process), dead)
            }
            Err(error) => {
                tracing::debug!(%error, pid = credentials.pid, "no handle to the peer's process");
                (None, pidfd::is_dead(&error))
            }
        };
        Ok(Self { credentials, process, dead })
    }
}
