//! The yardstick of wake-ups: an eventfd for each direction, and nothing else.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::{read, write};

use super::super::Outcome;
use super::child::Side;
use super::line::{self, Part, STOP};
use super::protocol::PATIENCE;
use crate::sys::poll;
use crate::sys::seqpacket::{Listener, Socket};

pub(super) struct Line {
    own: OwnedFd,
    peer: OwnedFd,
    /// Waits as a port does: ppoll(2), then read(2). Else read(2) blocks.
    polled: bool,
}

impl Line {
    pub(super) fn open(polled: bool, part: Part, side: Side<'_>) -> Outcome<Self> {
        let flags = if polled { EfdFlags::EFD_NONBLOCK } else { EfdFlags::empty() };
        let own = OwnedFd::from(EventFd::from_flags(flags | EfdFlags::EFD_CLOEXEC)?);
        let path = side.path(if polled { "polled" } else { "blocking" })?;
        let socket = match part {
            Part::Echo => {
                let _ = std::fs::remove_file(&path); // the one of the repetition before
                let listener = Listener::bind(&path, 1)?;
                side.ready(None)?;
                readable(listener.as_fd())?;
                listener.accept()?.ok_or("nobody has connected")?
            }
            // The echo is prepared first.
            Part::Ping { .. } => {
                side.ready(None)?;
                Socket::connect(&path)?
            }
        };
        socket.send(b"bell", &[own.as_fd()])?;
        readable(socket.as_fd())?;
        let peer = socket.recv(&mut [0; 8])?.fds.pop().ok_or("no bell came")?;
        Ok(Self { own, peer, polled })
    }
}

fn readable(fd: std::os::fd::BorrowedFd<'_>) -> Outcome {
    match poll::readable(fd, Some(PATIENCE))? {
        true => Ok(()),
        false => Err(format!("the other side does not answer within {PATIENCE:?}").into()),
    }
}

/// Wakes the other side with a number above zero, and below what an eventfd refuses.
fn wire(number: u64) -> u64 {
    if number == STOP { STOP - 1 } else { number + 1 }
}

impl line::Line for Line {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Outcome {
        write(&self.peer, &wire(number).to_ne_bytes())?;
        Ok(())
    }

    #[inline(always)]
    fn receive(&mut self) -> Outcome<u64> {
        let mut count = [0; 8];
        loop {
            if self.polled {
                poll::readable(self.own.as_fd(), None::<Duration>)?;
            }
            match read(&self.own, &mut count) {
                Ok(_) => break,
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let got = u64::from_ne_bytes(count);
        Ok(if got == wire(STOP) { STOP } else { got - 1 })
    }
}
