//! What this process was short of memory or file descriptors for: it is asked for again when there is room.
//!
//! Each such thing is asked for once, on a beat that finds descriptors free, and again if it is lost again, each time
//! after twice as many beats. So a shortage that lasts costs the peer next to nothing.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::super::reading::{Change, LogKey, Purpose};
use super::attach::LocalSource;
use super::{Core, Trouble};
use crate::control::{Message, NodeId};
use crate::frame::{Attach, Control};
use crate::sys::limits;

/// What came without its descriptors.
pub(super) const BARE: &str = "no file descriptor is free";
/// The most beats until it is asked for again.
const LONGEST: u64 = 64;
/// Things asked for on one beat, and the descriptors that each may need.
const AT_ONCE: usize = 32;
const EACH: usize = 2;

/// What a peer is to send again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum What {
    /// Where its heartbeats are.
    Heart,
    /// A reading port of its.
    Port(u64),
    /// The log that a port of its writes, for a port of this node.
    Log { writer: u64, reader: u64 },
    /// The segment with the cursor of this reader of a log of this node.
    Cursor { log: u64, number: u16 },
    /// A blob of a log that a port of this node reads under this number.
    Blob { log: u64, number: u16, blob: u64 },
}

impl What {
    /// As `Control::Again` says it: what, of what, which, of which reader.
    fn to_wire(self) -> (u8, u64, u64, u16) {
        match self {
            What::Heart => (0, 0, 0, 0),
            What::Port(port) => (1, port, 0, 0),
            What::Log { writer, reader } => (2, writer, reader, 0),
            What::Cursor { log, number } => (3, log, 0, number),
            What::Blob { log, number, blob } => (4, log, blob, number),
        }
    }

    /// `None`: a newer version's.
    fn from_wire(what: u8, of: u64, id: u64, number: u16) -> Option<Self> {
        Some(match what {
            0 => What::Heart,
            1 => What::Port(of),
            2 => What::Log { writer: of, reader: id },
            3 => What::Cursor { log: of, number },
            4 => What::Blob { log: of, number, blob: id },
            _ => return None,
        })
    }
}

/// Something that is not here.
#[derive(Debug)]
pub(super) struct Missing {
    /// Asked for, and not lost again since.
    asked: bool,
    /// Beats until it may be asked for.
    wait: u64,
    /// Beats until the time after that.
    pause: u64,
    /// Number of the first message that is missed, if it is known.
    pub(super) due: Option<u64>,
    /// The log that the lost one continues.
    pub(super) predecessor: Option<u64>,
}

// This node is short.
impl Core {
    /// Something could not be taken. The trouble is to be told of once, not each time that it is lost.
    ///
    /// # Errors
    /// [`Trouble::Shortage`]: it is new.
    pub(super) fn miss(&mut self, from: NodeId, what: What, why: String) -> Result<(), Trouble> {
        if self.miss_log(from, what, None, None) { Err(Trouble::Shortage(why)) } else { Ok(()) }
    }

    /// As [`Core::miss`]; whether it is new.
    fn miss_log(&mut self, from: NodeId, what: What, due: Option<u64>, predecessor: Option<u64>) -> bool {
        let mut is_new = false;
        let missing = self.missing.entry((from, what)).or_insert_with(|| {
            is_new = true;
            Missing { asked: false, wait: 0, pause: 1, due, predecessor }
        });
        if std::mem::take(&mut missing.asked) {
            missing.wait = missing.pause;
            missing.pause = (missing.pause * 2).min(LONGEST);
        }
        is_new
    }

    /// A message has come without its fds.
    pub(super) fn take_bare(&mut self, from: NodeId, message: Message) {
        if let Message::Attached { reader_port, .. } = message
            && let Some(port) = self.peers.get_mut(&from).and_then(|peer| peer.ports.get_mut(&reader_port))
            && let Some(reads) = &mut port.reads
        {
            reads.lost_segment = true;
        }
        self.handle_message(from, message, Vec::new());
    }

    /// A writer gives one of this node's ports a log to read. If it may not, or this process is short of
    /// something, the writer is told to go on without the port; if short, the port's user what does not come.
    pub(super) fn attach_log(
        &mut self,
        from: NodeId,
        attach: &Attach,
        fds: Vec<Arc<OwnedFd>>,
    ) -> Result<(), Trouble> {
        let attached = self.try_attach_log(from, attach, fds);
        if let Err(Trouble::Exhausted(resource)) = &attached {
            self.exhausted(from, *resource); // before the detach, which it is the reason for
        }
        if let Err(Trouble::Shortage(_) | Trouble::Denied(..) | Trouble::Exhausted(_)) = &attached {
            self.send(from, &Control::Detach { log: attach.log, reader_number: attach.reader_number }, &[]);
        }
        match attached {
            Err(Trouble::Exhausted(resource)) => {
                let reason = format!("this node gives that one no more {resource} (its quotas)");
                self.lose_answers(from, attach, &reason);
                Ok(())
            }
            Err(Trouble::Shortage(reason)) if !self.is_short_for(from, attach, &reason) => Ok(()),
            attached => attached,
        }
    }

    /// False if that has been told.
    fn is_short_for(&mut self, from: NodeId, attach: &Attach, reason: &str) -> bool {
        let Attach { writer_port: writer, reader_port: reader, sequence, predecessor, .. } = *attach;
        let Some(inlet) = self.inlets.get(&reader).map(|inlet| inlet.shared.clone()) else { return true };
        match &inlet.purpose {
            Purpose::Client(_) => {
                self.lose_answers(from, attach, reason);
                return true;
            }
            Purpose::Server { .. } => {}
            Purpose::Subscriber { .. } | Purpose::Inbox => {
                if !self.miss_log(from, What::Log { writer, reader }, sequence, predecessor) {
                    return false;
                }
            }
        }
        if let Some(peer) = self.peers.get(&from) {
            inlet.change(Change::Failed { node: peer.node.clone(), reason: reason.to_owned() });
        }
        true
    }

    /// Of a client's log of answers: its calls to that server fail, and the next begins anew.
    fn lose_answers(&mut self, from: NodeId, attach: &Attach, reason: &str) {
        let why = format!("its answers cannot be read: {reason}");
        self.reset_pair(attach.reader_port, (from, attach.writer_port), &why, None);
    }

    /// Asks for what is missing, as far as there is room for it. Called on each beat.
    pub(super) fn ask_again(&mut self) {
        if self.missing.is_empty() {
            return;
        }
        let (peers, inlets, outlets, sources) = (&self.peers, &self.inlets, &self.outlets, &self.sources);
        self.missing.retain(|(node, what), _| {
            let Some(peer) = peers.get(node) else { return false };
            match *what {
                What::Heart => peer.heart.is_none(),
                What::Port(port) => peer.ports.contains_key(&port),
                What::Log { writer, reader } => {
                    peer.ports.contains_key(&writer) && inlets.contains_key(&reader)
                }
                What::Cursor { log, number } => outlets.get(&log).is_some_and(|outlet| {
                    outlet.readers.iter().any(|((of, _), n)| of == node && *n == number)
                }),
                What::Blob { log, number, blob } => {
                    let key = LogKey { node: *node, log, number };
                    let has = |source: &LocalSource| !source.is_done() && source.blobs.contains_key(&blob);
                    sources.iter().any(|((_, other), source)| *other == key && has(source))
                }
            }
        });
        let mut due = Vec::new();
        for (at, missing) in self.missing.iter_mut().filter(|(_, missing)| !missing.asked) {
            match missing.wait {
                0 if due.len() < AT_ONCE => due.push(*at),
                wait => missing.wait = wait.saturating_sub(1),
            }
        }
        let room = limits::free_descriptors(due.len() * EACH) / EACH;
        for (node, what) in due.into_iter().take(room) {
            if let Some(missing) = self.missing.get_mut(&(node, what)) {
                missing.asked = true;
            }
            let (what, of, id, reader_number) = what.to_wire();
            tracing::info!(%node, what, of, id, "asked for again");
            self.send(node, &Control::Again { what, of, id, reader_number }, &[]);
        }
    }

    /// A session is over: what it did not bring comes with the next.
    pub(super) fn forget_missing(&mut self, peer: NodeId) {
        self.missing.retain(|(node, _), _| *node != peer);
    }
}

// A peer was short.
impl Core {
    /// Sends a peer what it had no room for, and has now.
    pub(super) fn send_again(&mut self, to: NodeId, what: u8, of: u64, id: u64, number: u16) {
        match What::from_wire(what, of, id, number) {
            None => {}
            Some(What::Heart) => self.send_pulse(to),
            Some(What::Port(port)) => {
                if let Some(inlet) = self.inlets.get(&port) {
                    let (card, fds) = (inlet.shared.card(), inlet.fds());
                    self.send_port(to, &card, &fds);
                }
            }
            Some(What::Log { writer, reader }) => {
                let writes = self.publishers().filter(|outlet| outlet.shared.port == writer);
                for log in writes.map(|outlet| outlet.shared.log).collect::<Vec<_>>() {
                    self.add_gate(log, to, reader, false);
                }
            }
            Some(What::Cursor { log, number }) => self.send_cursor(LogKey { node: to, log, number }),
            Some(What::Blob { log, number, blob }) => {
                let Some(outlet) = self.outlets.get(&log) else { return };
                let is_read =
                    outlet.readers.iter().any(|((node, _), reader)| *node == to && *reader == number);
                if is_read && let Some((size, fd)) = outlet.blobs.get(&blob).map(|blob| blob.parts()) {
                    let control = Control::Blob { log, reader_number: number, blob, size };
                    self.send(to, &control, &[fd]);
                }
            }
        }
    }

    fn send_cursor(&mut self, key: LogKey) {
        let of = |((_, other), source): &(&(u64, LogKey), &LocalSource)| *other == key && !source.is_done();
        let Some(((port, _), source)) = self.sources.iter().find(of) else { return };
        let Some(inlet) = self.inlets.get(port).filter(|inlet| !inlet.shared.is_lossy()) else { return };
        let Some((segment, _)) = inlet.at(source.slot) else { return };
        let fds: &[_] = if source.slot.segment == 0 { &[] } else { &[segment.shared_fd()] };
        let attached = Control::Attached {
            log: key.log,
            reader_port: *port,
            segment: source.slot.segment,
            slot: source.slot.slot,
        };
        self.send(key.node, &attached, fds);
    }
}
