//! Joining writers with readers: gates on this node's logs, and the logs that its ports read.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::super::log::{OutletShared, Reader};
use super::super::open::Trust;
use super::super::quotas::Resource;
use super::super::reading::{
    Change, InletShared, LogKey, Manner, Origin, Purpose, Recurrence, Reply, Source,
};
use super::access::{Contents, contents};
use super::again::{BARE, What};
use super::blobs::LocalBlobs;
use super::peers::open_cursor_segment;
use super::segments::open_log;
use super::slots::{LocalInlet, Slot};
use super::succession::{Lineage, check_predecessor};
use super::{Core, Trouble, bell_trouble};
use crate::control::NodeId;
use crate::frame::{Attach, Control, Role};
use crate::ring::{self, Corrupt, CursorSegment, LateGate, LogHeader, layout};
use crate::segment::{Memory, PeerSegment};
use crate::wake::{Bell, barrier};

/// Most cursor segments of one of a peer's ports.
const MOST_CURSOR_SEGMENTS: usize = 128;

/// A writing port of this node.
pub(super) struct LocalOutlet {
    pub(super) shared: Arc<OutletShared>,
    /// The gates' numbers, by the reader's node and port.
    pub(super) readers: HashMap<(NodeId, u64), u16>,
    pub(super) blobs: LocalBlobs,
    pub(super) lineage: Lineage,
    /// Of a client: the next call begins anew, whatever is still said of this log.
    pub(super) is_reset: bool,
}

impl LocalOutlet {
    pub(super) fn new(shared: Arc<OutletShared>) -> Self {
        let lineage = Lineage::default();
        Self { shared, readers: HashMap::new(), blobs: LocalBlobs::new(), lineage, is_reset: false }
    }
}

/// A log that a port of this node reads.
pub(super) struct LocalSource {
    pub(super) slot: Slot,
    pub(super) log: Arc<PeerSegment>,
    /// The port that writes it.
    writer: u64,
    /// The log that it continues.
    pub(super) predecessor: Option<u64>,
    /// Bytes of each blob of the log.
    pub(super) blobs: HashMap<u64, u64>,
    /// The port has finished; the slot is free once the writer has said that it looks there no more.
    done: bool,
    /// The port was told to finish: the session is another, or the writer has gone.
    ended: bool,
    /// The writer may overwrite what is still read.
    overwritten: bool,
}

impl LocalSource {
    /// Whether this port of its node writes it, and its reader still reads it.
    pub(super) fn is_written_by(&self, port: u64) -> bool {
        self.writer == port && !self.done
    }

    pub(super) fn writer(&self) -> u64 {
        self.writer
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Whether the writer may overwrite what is still read: it is not to blame for what is found there.
    pub(super) fn is_overwritten(&self) -> bool {
        self.overwritten
    }

    /// The port has finished.
    pub(super) fn finish(&mut self) {
        self.done = true;
    }

    /// The port is told to finish; `gated`: what it has still to read stays as it is.
    pub(super) fn end(&mut self, gated: bool) {
        self.ended = true;
        self.overwritten = !gated;
    }

    /// Whether its writer's node still has the gate of an open log.
    pub(super) fn is_live(&self) -> bool {
        !self.done && !self.ended && !layout::is_closed(&self.log)
    }
}

// This node's logs, and the gates on them.
impl Core {
    /// Opens a writing port: every reader that is known is gated at position 0 before the first publish.
    pub(super) fn open_outlet(&mut self, shared: Arc<OutletShared>) {
        let (log, card) = (shared.log, shared.card());
        if self.is_halted {
            shared.gates.halt(|| ()); // before its first publish
        }
        self.outlets.insert(log, LocalOutlet::new(shared));
        for peer in self.peers.keys().copied().collect::<Vec<_>>() {
            self.send_port(peer, &card, &[]);
        }
        let readers = self.peers.iter().flat_map(|(node, peer)| peer.ports.keys().map(|port| (*node, *port)));
        for (node, reader) in readers.collect::<Vec<_>>() {
            self.add_gate(log, node, reader, true);
        }
    }

    /// A reading port has appeared: gates it on every log of this node that it wants.
    pub(super) fn attach_reader(&mut self, node: NodeId, reader: u64) {
        for outlet in self.outlets.keys().copied().collect::<Vec<_>>() {
            self.add_gate(outlet, node, reader, false);
        }
    }

    /// Gates a reader, if its filters and the outlet's topic have anything in common, and sends it the log.
    pub(super) fn add_gate(&mut self, log: u64, node: NodeId, port: u64, first: bool) {
        self.add_gate_after(log, node, port, first, None);
    }

    /// The same, of a log that continues another.
    pub(super) fn add_gate_after(
        &mut self,
        log: u64,
        node: NodeId,
        port: u64,
        first: bool,
        predecessor: Option<u64>,
    ) {
        let Some(outlet) = self.outlets.get(&log) else { return };
        let Some(peer) = self.peers.get(&node) else { return };
        let Some(reads) = peer.ports.get(&port).and_then(|remote| remote.reads.as_ref()) else { return };
        let shared = outlet.shared.clone();
        let wanted = match shared.only {
            Some(only) => only == (node, port),
            None => reads.filters.iter().any(|filter| filter.intersects(&shared.filter)),
        };
        if !wanted || outlet.readers.contains_key(&(node, port)) || outlet.lineage.is_evicted(node, port) {
            return;
        }
        let Some(segment) = reads.segments.get(&0).cloned() else { return };
        let info =
            Reader { node: peer.node.clone(), bell: reads.bell.clone(), filters: reads.filters.clone() };
        let lossy = peer.is_lossy(port);
        // The other end of a pair was looked at before.
        if shared.only.is_none() && !self.may_read(node, port, &shared.filter) {
            return;
        }
        let added = if lossy {
            shared.gates.add_ungated(&*shared.segment, segment, info, barrier::on_own_threads)
        } else if first {
            let sequence = Some(shared.first);
            let first = |gate| LateGate { gate, position: 0, sequence };
            shared.gates.add_first(segment, info).map(first)
        } else {
            shared.gates.add_late(&*shared.segment, segment, info, barrier::on_own_threads)
        };
        let Some(LateGate { gate, position, sequence }) = added else {
            if self.errors.has_room() {
                let (log, topic) = (shared.log, &shared.filter);
                tracing::error!(log, %topic, "log has had 65 535 readers and takes no more: open the publisher again");
            }
            return;
        };
        if let Some(outlet) = self.outlets.get_mut(&log) {
            outlet.readers.insert((node, port), gate.number());
        }
        tracing::debug!(topic = %shared.filter, %node, port, position, "attach");
        let attach = Attach {
            log: shared.log,
            writer_port: shared.port,
            reader_port: port,
            reader_number: gate.number(),
            position,
            sequence,
            capacity: shared.layout.capacity(),
            predecessor,
        };
        let fds = [shared.segment.shared_fd(), shared.bell.shared_fd()];
        self.send(node, &Control::Attach(attach), &fds);
        self.send_blobs(log, node, gate.number());
        match self.driver.mark(node) {
            Some(mark) => self.attaching.push((shared, node, mark)),
            None => self.count_gates(&shared), // this node's own port
        }
    }

    /// A reader has named its cursor: the gate follows it from here on.
    pub(super) fn follow_cursor(
        &mut self,
        from: NodeId,
        log: u64,
        port: u64,
        segment: u32,
        slot: u32,
        fds: Vec<Arc<OwnedFd>>,
    ) -> Result<(), Trouble> {
        let number = self.outlets.get(&log).and_then(|outlet| outlet.readers.get(&(from, port))).copied();
        let room = if fds.is_empty() { Ok(()) } else { self.has_room_for_mapping(from) };
        let reads = self.peers.get_mut(&from).and_then(|peer| peer.ports.get_mut(&port));
        let Some(reads) = reads.and_then(|port| port.reads.as_mut()) else { return Ok(()) };
        let mut short = format!("{BARE} for a reader's cursor");
        // Of several cursors in a segment that was lost, each brings it.
        let is_needed = !(reads.lost_segment && reads.segments.contains_key(&segment));
        if let Some(fd) = fds.into_iter().next().filter(|_| is_needed) {
            if reads.segments.contains_key(&segment) {
                return Err(format!("cursor segment {segment} sent twice").into());
            }
            if reads.segments.len() == MOST_CURSOR_SEGMENTS {
                return Err(format!("more than {MOST_CURSOR_SEGMENTS} cursor segments").into());
            }
            match room.and_then(|()| open_cursor_segment(&fd)) {
                Ok(memory) => {
                    reads.segments.insert(segment, memory);
                }
                Err(exhausted @ Trouble::Exhausted(_)) => {
                    reads.lost_segment = true;
                    return self.refuse_cursor((from, port), log, exhausted);
                }
                Err(Trouble::Shortage(why)) => (reads.lost_segment, short) = (true, why),
                Err(offence) => return Err(offence),
            }
        }
        let Some(memory) = reads.segments.get(&segment).cloned() else {
            if !reads.lost_segment {
                return Err("a cursor in a segment never sent".into());
            }
            let Some(number) = number else { return Ok(()) };
            return match self.has_room_for_mapping(from) {
                Ok(()) => self.miss(from, What::Cursor { log, number }, short),
                Err(exhausted) => self.refuse_cursor((from, port), log, exhausted),
            };
        };
        let offset =
            CursorSegment::of_size(memory.size()).cursor(slot).ok_or("a cursor slot that is not there")?;
        // A log or gate that has gone meanwhile needs no cursor.
        let (Some(outlet), Some(number)) = (self.outlets.get(&log), number) else { return Ok(()) };
        outlet.shared.gates.follow(number, memory, offset);
        outlet.shared.bell.ring();
        self.missing.remove(&(from, What::Cursor { log, number }));
        Ok(())
    }

    /// Without its cursor the gate would hold up the publisher.
    fn refuse_cursor(&mut self, (node, port): (NodeId, u64), log: u64, why: Trouble) -> Result<(), Trouble> {
        self.remove_gates_of(log, |of, reader, _| of == node && reader == port);
        Err(why)
    }

    /// A reader lets go of a log.
    pub(super) fn detach(&mut self, from: NodeId, log: u64, number: u16) {
        self.remove_gates_of(log, |node, _, gate| node == from && gate == number);
        self.pair_detached(log);
        // Also for a log that is gone: the reader waits for the word before it uses the slot again.
        self.send(from, &Control::Detached { log, reader_number: number }, &[]);
        self.attach_again(from, log, number);
    }

    /// Takes away the gates of these readers (node and port), on every log.
    pub(super) fn remove_gates(&mut self, which: impl Fn(NodeId, u64) -> bool) {
        self.closed.retain(|left| !which(left.reader.id(), left.port));
        for outlet in self.outlets.values_mut() {
            outlet.lineage.forget(&which);
        }
        for log in self.outlets.keys().copied().collect::<Vec<_>>() {
            self.remove_gates_of(log, |node, reader, _| which(node, reader));
        }
    }

    fn remove_gates_of(&mut self, log: u64, which: impl Fn(NodeId, u64, u16) -> bool) {
        self.closed.retain(|left| left.log != log || !which(left.reader.id(), left.port, left.number));
        let Some(outlet) = self.outlets.get_mut(&log) else { return };
        let before = outlet.readers.len();
        let gates = &outlet.shared.gates;
        outlet.readers.retain(|(node, reader), number| {
            let goes = which(*node, *reader, *number);
            if goes {
                gates.remove(*number);
            }
            !goes
        });
        if outlet.readers.len() != before {
            let shared = outlet.shared.clone();
            self.count_gates(&shared);
        }
    }

    pub(super) fn remove_corrupt_reader(&mut self, log: u64, number: u16, why: &Corrupt) {
        let Some(outlet) = self.outlets.get(&log) else { return };
        let reader = outlet.readers.iter().find(|(_, gate)| **gate == number);
        if let Some(node) = reader.map(|((node, _), _)| *node) {
            self.cut(node, why);
        }
    }

    pub(super) fn close_log(&mut self, log: u64) {
        self.attach_evicted(log);
        let Some(outlet) = self.outlets.remove(&log) else { return };
        self.attaching.retain(|(other, ..)| !Arc::ptr_eq(other, &outlet.shared));
        self.sharing.retain(|sharing| !sharing.is_of(&outlet.shared));
        if outlet.shared.only.is_none() {
            self.note_unread(&outlet);
            self.broadcast(&Control::PortDown { port: outlet.shared.port }, &[]);
        }
    }

    pub(super) fn close_port(&mut self, port: u64) {
        if self.inlets.remove(&port).is_none() {
            return;
        }
        self.sources.retain(|(reader, _), _| *reader != port);
        let written = |(log, outlet): (&u64, &LocalOutlet)| (outlet.shared.port == port).then_some(*log);
        for log in self.outlets.iter().filter_map(written).collect::<Vec<_>>() {
            self.close_log(log);
        }
        self.broadcast(&Control::PortDown { port }, &[]);
    }
}

// The logs that this node's ports read.
impl Core {
    pub(super) fn open_inlet(&mut self, shared: Arc<InletShared>) {
        let card = shared.card();
        let inlet = LocalInlet::new(shared);
        let fds = inlet.fds();
        self.inlets.insert(card.id, inlet);
        for peer in self.peers.keys().copied().collect::<Vec<_>>() {
            self.send_port(peer, &card, &fds);
        }
        self.tell_of_servers(card.id);
    }

    /// As [`Core::attach_log`], which says what becomes of trouble.
    pub(super) fn try_attach_log(
        &mut self,
        from: NodeId,
        attach: &Attach,
        fds: Vec<Arc<OwnedFd>>,
    ) -> Result<(), Trouble> {
        let key = LogKey { node: from, log: attach.log, number: attach.reader_number };
        // The port was closed meanwhile: the writer is being told.
        let Some(inlet) = self.inlets.get(&attach.reader_port) else { return Ok(()) };
        self.has_room_for_log(from, inlet.shared.role())?;
        let Some(inlet) = self.inlets.get_mut(&attach.reader_port) else { return Ok(()) };
        let Some(peer) = self.peers.get(&from) else { return Ok(()) };
        let writer = match peer.ports.get(&attach.writer_port) {
            Some(writer) => writer,
            None if peer.exhausted.ports => return Err(Trouble::Exhausted(Resource::Ports)),
            None => return Err("a log of a port never announced".into()),
        };
        let Contents { topic, pattern, carries } =
            contents(&self.sources, &inlet.shared, peer, (attach.writer_port, writer))?;
        check_predecessor(&self.sources, &inlet.shared, from, attach)?;
        if self.sources.contains_key(&(attach.reader_port, key)) {
            return Err(format!("log {} attached twice", attach.log).into());
        }
        if inlet.shared.role() == Role::Server && writer.reads.is_none() {
            return Err(Trouble::Shortage(format!("{BARE} for the client's bell")));
        }
        let [log, bell] = <[_; 2]>::try_from(fds).map_err(|_| Trouble::Shortage(BARE.into()))?;
        let header = LogHeader { log: attach.log, node: *from.as_bytes(), port: attach.writer_port };
        let (log, layout) = open_log(&log, attach.capacity, header)?;
        let bell = Bell::from_peer(bell).map_err(|error| bell_trouble(&error))?;
        let (node, priority) = (peer.node.clone(), writer.card.priority);
        let (log_id, reader) = (attach.log, self.me.clone());
        let misplaced = Recurrence::default();
        let origin = Origin { node, log: log_id, topic, pattern, carries, priority, reader, misplaced };
        let same_user = peer.node.uid() == self.me.uid();

        let slot = inlet.take_slot(*self.me.id().as_bytes())?;
        let reply = match inlet.shared.role() {
            Role::Server => match self.open_reply(from, attach) {
                Ok(reply) => {
                    // The client has the log before the server sees the request: if this process is killed
                    // right after an answer, that is received all the same.
                    self.driver.flush();
                    Some(Reply::Made(reply))
                }
                Err(trouble) => {
                    self.inlets.entry(attach.reader_port).and_modify(|inlet| inlet.free.push(slot));
                    return Err(trouble);
                }
            },
            _ => None,
        };
        let Some(inlet) = self.inlets.get_mut(&attach.reader_port) else { return Ok(()) };
        let (cursors, offset) = inlet.at(slot).ok_or("a slot of its own that is not there")?;
        let cursors = cursors.clone();
        let missing = What::Log { writer: attach.writer_port, reader: attach.reader_port };
        let missed = self.missing.remove(&(from, missing));
        let predecessor = attach.predecessor.or(missed.as_ref().and_then(|missed| missed.predecessor));
        // The cursor stands at the gate before the writer hears of it.
        let reader = match ring::Reader::new(
            log.clone(),
            layout,
            cursors.clone(),
            offset,
            attach.reader_number,
            attach.position,
            attach.sequence,
        ) {
            Ok(reader) if inlet.shared.is_lossy() => reader.with_blobs().ungated(),
            Ok(reader) => reader.with_blobs(),
            Err(error) => {
                inlet.free.push(slot);
                if let Some(Reply::Made(reply)) = reply {
                    self.close_log(reply.log);
                }
                return Err(error.to_string().into());
            }
        };
        let route = match &inlet.shared.purpose {
            Purpose::Client(routes) => routes.number(from, attach.writer_port),
            _ => None,
        };
        let lossy = inlet.shared.is_lossy();
        let sent = inlet.sent.entry(from).or_default();
        let fd = if lossy || slot.segment == 0 || sent.contains(&slot.segment) {
            None
        } else {
            sent.push(slot.segment);
            Some(cursors.shared_fd())
        };
        if predecessor.is_some() {
            inlet.cut_off.remove(&(from, attach.writer_port));
        }
        inlet.shared.change(Change::Add(Box::new(Source {
            key,
            predecessor,
            due: missed.and_then(|missed| missed.due),
            untold: None,
            route,
            reader,
            writer: bell,
            origin: Arc::new(origin),
            // What a lossy reader looks at is its own copy.
            lend: lossy || (self.trust == Trust::Lend && same_user),
            last_topic: None,
            ended: false,
            reply,
            manner: if lossy { Manner::Ungated } else { Manner::Gated },
        })));
        let (writer, blobs) = (attach.writer_port, HashMap::new());
        let source = LocalSource {
            slot,
            log,
            writer,
            predecessor,
            blobs,
            done: false,
            ended: false,
            overwritten: false,
        };
        self.sources.insert((attach.reader_port, key), source);
        if !lossy {
            let (Slot { segment, slot }, log) = (slot, attach.log);
            let attached = Control::Attached { log, reader_port: attach.reader_port, segment, slot };
            self.send(from, &attached, fd.as_slice());
        }
        Ok(())
    }
}
