//! Sessions that end without a word: with their process, or alone.
//!
//! What a dead process has written stays as it is, and is read to its end. One that lives has forgotten the readers here,
//! and overwrites what they look at.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::{Driver, Wire};
use crate::control::NodeId;
use crate::control::hub::ConnId;
use crate::sys::{pidfd, poll};

/// How long a process may take from closing its sockets to being dead.
const DYING: Duration = Duration::from_millis(500);

impl Driver {
    /// Nothing more comes in on a connection.
    pub(super) fn handle_end(&mut self, conn: ConnId, now: Instant) {
        let Some(wire) = self.wires.get_mut(&conn) else { return };
        let is_dead =
            |process: &OwnedFd| poll::readable(process.as_fd(), Some(Duration::ZERO)).unwrap_or(true);
        match &wire.process {
            Some(process) if self.hub.is_up(conn) && !is_dead(process) => match pidfd::is_exiting(wire.pid) {
                Some(false) => self.hub.handle_hang_up(conn),
                _ => {
                    let _ = self.epoll.remove(&wire.socket); // it would tell of its end all the while
                    wire.dying_until = Some(now + DYING);
                }
            },
            _ => self.hub.handle_lost(conn),
        }
    }

    /// When [`Driver::end_dying`] has something to do.
    pub(super) fn dying_until(&self) -> Option<Instant> {
        self.wires.values().filter_map(|wire| wire.dying_until).min()
    }

    /// Those that are not dead by now live: a thread of theirs was dying alone, or they cannot be looked at.
    pub(super) fn end_dying(&mut self, now: Instant) {
        let lives = |wire: &Wire| wire.dying_until.is_some_and(|until| until <= now);
        for conn in self.wires.iter().filter(|(_, wire)| lives(wire)).map(|(conn, _)| *conn) {
            self.hub.handle_hang_up(conn);
        }
    }

    /// Cuts a peer off, for good. Not one that has hung up: if it lives, it has overwritten what was still read.
    pub(crate) fn cut(&mut self, peer: NodeId, why: String) {
        let is_dying = |conn: &ConnId| self.wires.get(conn).is_some_and(|wire| wire.dying_until.is_some());
        match self.hub.conn(peer).filter(is_dying) {
            Some(conn) => self.hub.handle_hang_up(conn),
            None => self.hub.cut(peer, why),
        }
    }
}
