//! Those who call: accepted, and shown out if they say nothing.

use std::time::Instant;

use super::{CALLERS, Driver, RETRY};
use crate::control::caller::Caller;
use crate::sys::seqpacket::Socket;

impl Driver {
    pub(super) fn accept(&mut self, now: Instant) {
        for _ in 0..2 * CALLERS {
            if self.hub.callers() >= CALLERS && !self.show_out(now) {
                if !std::mem::replace(&mut self.is_deaf, true) {
                    tracing::warn!("{CALLERS} callers have not said hello: others have to wait");
                }
                break;
            }
            match self.listener.accept() {
                Ok(Some(socket)) => self.called(socket, now),
                Ok(None) => {
                    self.is_deaf = false;
                    return;
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.is_deaf, true) {
                        tracing::error!(%error, "cannot accept other nodes: if for want of descriptors, raise the limit (`ulimit -n`)");
                    }
                    break;
                }
            }
        }
        // The callers wait in the backlog. Without a pause this would spin.
        self.accept_paused = true;
        self.retry.get_or_insert(now + RETRY);
        let _ = self.epoll.remove(&self.listener);
    }

    /// Makes room for a caller that may have something to say: whoever has said nothing for longest goes.
    fn show_out(&mut self, now: Instant) -> bool {
        while let Some(conn) = self.hub.silent_caller() {
            self.receive(conn, now);
            if self.hub.silent_caller() == Some(conn) {
                self.hub.handle_lost(conn);
            }
            self.take_events();
            if self.hub.callers() < CALLERS {
                return true;
            }
        }
        false
    }

    fn called(&mut self, socket: Socket, now: Instant) {
        match Caller::behind(&socket) {
            Ok(Caller { dead: true, .. }) => {}
            Ok(caller) => {
                let pid = caller.credentials.pid;
                if let Some(conn) = self.hub.accepted(caller.credentials, now) {
                    self.watch(conn, socket, pid, caller.process);
                }
            }
            Err(error) => tracing::warn!(%error, "caller has no credentials"),
        }
    }
}
