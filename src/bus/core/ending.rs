//! Logs of peers that end, and what a port reads of them still.

use super::super::reading::{Change, LogKey};
use super::Core;
use crate::control::{Gone, NodeId};
use crate::frame::{Control, Role};
use crate::ring::layout;

/// How logs end whose writer is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// At once: the writer broke the protocol.
    Now,
    /// Where they are, so that all that was published is read.
    AtTail,
    /// The same, as far as it is still there: the writer may live, and waits for no reader of this node.
    Overwritten,
}

impl From<&Gone> for Ending {
    fn from(gone: &Gone) -> Self {
        match gone {
            Gone::Cut(_) => Self::Now,
            gone if gone.may_live() => Self::Overwritten,
            _ => Self::AtTail,
        }
    }
}

impl Core {
    /// A port has finished a log. Its slot is free at once if the writer's node is gone, else when that node
    /// has said that it looks there no more.
    pub(super) fn finish_log(&mut self, port: u64, key: LogKey) {
        let Some(source) = self.sources.get_mut(&(port, key)) else { return };
        source.finish();
        if self.peers.contains_key(&key.node) {
            self.send(key.node, &Control::Detach { log: key.log, reader_number: key.number }, &[]);
        } else {
            self.free_slot(key);
        }
    }

    /// The logs of a node that is gone end.
    pub(super) fn end_logs_of(&mut self, node: NodeId, ending: Ending) {
        self.end_logs(node, None, ending);
        self.abandon(node, None);
        for inlet in self.inlets.values_mut() {
            inlet.sent.remove(&node);
        }
    }

    /// Ends the logs of one port of a node, or of all. A client's requests that were not looked at yet are of
    /// no use to anybody.
    pub(super) fn end_logs(&mut self, node: NodeId, port: Option<u64>, ending: Ending) {
        let mut finished = Vec::new();
        let theirs = self
            .sources
            .iter_mut()
            .filter(|((_, key), source)| key.node == node && port.is_none_or(|port| port == source.writer()));
        for ((reader, key), source) in theirs {
            match self.inlets.get(reader) {
                Some(inlet) if !source.is_done() => {
                    let unwanted = ending == Ending::Now || inlet.shared.role() == Role::Server;
                    let until = if unwanted { 0 } else { layout::tail(&source.log) };
                    let gated = ending != Ending::Overwritten;
                    inlet.shared.change(Change::End { key: *key, until, gated });
                    source.end(gated);
                }
                _ => finished.push(*key),
            }
        }
        // Slots of a node that lives are free when it has said that it looks there no more.
        if port.is_none() {
            for key in finished {
                self.free_slot(key);
            }
        }
    }
}
