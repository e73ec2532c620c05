//! Readers that are evicted: a publisher's log gives way to another, which has all readers but them.
//!
//! An evicted reader has the log that it is to read to its end, and lets go of it then (`detach`); until it has, it is
//! given nothing more. Then it is attached to the log of that time, with the old one's id as predecessor, so that it
//! knows what it missed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use super::super::log::OutletShared;
use super::super::reading::{Change, InletShared, LogKey};
use super::attach::{LocalOutlet, LocalSource};
use super::waiting::{Waiting, WaitingOn};
use super::{ANSWER, Core};
use crate::control::NodeId;
use crate::frame::{Attach, Role};

/// A reader: node and port.
type ReaderPort = (NodeId, u64);
/// A log that a reader has, and its number there.
type Had = (u64, u16);

/// What a log has taken over from those that it continues.
#[derive(Default)]
pub(super) struct Lineage {
    /// Readers that are not attached, with the log that they read first.
    evicted: HashMap<ReaderPort, Had>,
    /// Readers without gates that are attached and have not let go of the log before this one: of such a reader nobody
    /// else knows whether it reads at all.
    behind: HashMap<ReaderPort, Had>,
}

impl Lineage {
    pub(super) fn is_evicted(&self, node: NodeId, port: u64) -> bool {
        self.evicted.contains_key(&(node, port))
    }

    pub(super) fn forget(&mut self, which: impl Fn(NodeId, u64) -> bool) {
        self.evicted.retain(|(node, port), _| !which(*node, *port));
        self.behind.retain(|(node, port), _| !which(*node, *port));
    }

    /// A reader has let go of a log; its port, if it was evicted there.
    fn detached(&mut self, from: NodeId, had: Had) -> Option<u64> {
        self.behind.retain(|(node, _), old| *node != from || *old != had);
        let evicted = self.evicted.iter().find(|((node, _), old)| *node == from && **old == had);
        let (node, port) = evicted.map(|(reader, _)| *reader)?;
        self.evicted.remove(&(node, port));
        Some(port)
    }
}

// This node's logs.
impl Core {
    /// Puts a log into the place of another: all its readers get it, but those that are slow.
    pub(super) fn succeed(&mut self, old: u64, next: Arc<OutletShared>, slow: &[u16], reply: SyncSender<()>) {
        // Who has let go of what, or is gone.
        self.driver.sweep();
        self.handle_events();
        let Some(before) = self.outlets.remove(&old) else { return };
        self.attaching.retain(|(other, ..)| !Arc::ptr_eq(other, &before.shared));
        self.sharing.retain(|sharing| !sharing.is_of(&before.shared));
        self.note_unread(&before);
        if self.is_halted {
            next.gates.halt(|| ()); // before its first publish
        }
        let (log, topic) = (next.log, next.filter.clone());
        let LocalOutlet { readers, lineage: Lineage { mut evicted, behind }, .. } = before;
        let is_slow =
            |reader: &ReaderPort, number: &u16| slow.contains(number) || behind.contains_key(reader);
        let (gone, kept): (Vec<_>, Vec<_>) =
            readers.into_iter().partition(|(reader, number)| is_slow(reader, number));
        for ((node, port), number) in gone {
            tracing::warn!(%topic, %node, port, "reader evicted: it has not kept up");
            evicted.insert((node, port), (old, number));
        }
        let mut outlet = LocalOutlet::new(next);
        outlet.lineage.evicted = evicted;
        self.outlets.insert(log, outlet);
        let mut marks = Vec::new();
        for ((node, port), number) in kept {
            self.add_gate_after(log, node, port, true, Some(old));
            if !self.peers.get(&node).is_some_and(|peer| peer.is_lossy(port)) {
                marks.extend(self.driver.mark(node).map(|mark| (node, mark)));
            } else if let Some(outlet) = self.outlets.get_mut(&log) {
                outlet.lineage.behind.insert((node, port), (old, number));
            }
        }
        self.driver.flush();
        let on = WaitingOn::Sent { marks, reply };
        self.waiting.push(Waiting { deadline: Instant::now() + ANSWER, on });
    }

    /// A reader has let go of a log. If it was evicted there, it is attached to the one that its port writes now.
    pub(super) fn attach_again(&mut self, from: NodeId, log: u64, number: u16) {
        let found = self
            .outlets
            .iter_mut()
            .find_map(|(current, outlet)| Some((*current, outlet.lineage.detached(from, (log, number))?)));
        if let Some((current, port)) = found {
            self.add_gate_after(current, from, port, false, Some(log));
        }
    }

    /// The log is closed: those that are evicted are attached at its end, and so learn how much they have missed.
    pub(super) fn attach_evicted(&mut self, log: u64) {
        let Some(outlet) = self.outlets.get_mut(&log) else { return };
        for ((node, port), (old, _)) in std::mem::take(&mut outlet.lineage.evicted) {
            self.add_gate_after(log, node, port, false, Some(old));
        }
    }
}

/// Checks what a peer says that its log continues.
pub(super) fn check_predecessor(
    sources: &HashMap<(u64, LogKey), LocalSource>,
    reader: &InletShared,
    from: NodeId,
    attach: &Attach,
) -> Result<(), String> {
    let Some(predecessor) = attach.predecessor else { return Ok(()) };
    if matches!(reader.role(), Role::Client | Role::Server) || predecessor >= attach.log {
        return Err(format!("log {} cannot continue log {predecessor}", attach.log));
    }
    let theirs = sources.iter().filter(|((port, key), _)| *port == attach.reader_port && key.node == from);
    for ((_, key), source) in theirs.filter(|(_, source)| !source.is_done()) {
        if key.log == predecessor && !source.is_written_by(attach.writer_port) {
            return Err(format!("log {predecessor} is continued by another port"));
        }
        if source.predecessor == Some(predecessor) && source.is_live() {
            return Err(format!("log {predecessor} is continued twice"));
        }
    }
    Ok(())
}

// Logs of peers.
impl Core {
    /// A port has read a log to its end that was closed for another, which it has not been given.
    pub(super) fn note_cut_off(&mut self, port: u64, key: LogKey) {
        let Some(writer) = self.sources.get(&(port, key)).map(LocalSource::writer) else { return };
        let Some(inlet) = self.inlets.get_mut(&port) else { return };
        if self.peers.get(&key.node).is_some_and(|peer| peer.ports.contains_key(&writer)) {
            inlet.cut_off.insert((key.node, writer), key);
        } else {
            inlet.shared.change(Change::Abandoned { key });
        }
    }

    /// Ports of a peer are gone, or one: nobody attaches again who was cut off from them.
    pub(super) fn abandon(&mut self, node: NodeId, writer: Option<u64>) {
        for inlet in self.inlets.values_mut() {
            let shared = &inlet.shared;
            inlet.cut_off.retain(|(other, port), key| {
                let goes = *other == node && writer.is_none_or(|writer| writer == *port);
                if goes {
                    shared.change(Change::Abandoned { key: *key });
                }
                !goes
            });
        }
    }
}
