//! Reading ports of this node, and the lines that their cursors stand in.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::super::reading::{InletShared, LogKey, new_cursor_segment};
use super::{Core, Trouble};
use crate::control::NodeId;
use crate::ring::CursorSegment;
use crate::segment::{Memory, Sealed};

/// A reading port of this node.
pub(super) struct LocalInlet {
    pub(super) shared: Arc<InletShared>,
    segments: Vec<Arc<Sealed>>,
    pub(super) free: Vec<Slot>,
    /// Which further segments a node was sent.
    pub(super) sent: HashMap<NodeId, Vec<u32>>,
    /// Logs that were read to their end and closed for others, which the port was not given: by their writers' ports.
    pub(super) cut_off: HashMap<(NodeId, u64), LogKey>,
}

/// Where a cursor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) segment: u32,
    pub(super) slot: u32,
}

impl LocalInlet {
    pub(super) fn new(shared: Arc<InletShared>) -> Self {
        let segments = vec![shared.segment.clone()];
        let free = slots_of(0, &shared.segment);
        Self { shared, segments, free, sent: HashMap::new(), cut_off: HashMap::new() }
    }

    /// What comes with the port's announcement.
    pub(super) fn fds(&self) -> Vec<Arc<OwnedFd>> {
        vec![self.shared.segment.shared_fd(), self.shared.bell.shared_fd()]
    }

    pub(super) fn take_slot(&mut self, node: [u8; 16]) -> Result<Slot, Trouble> {
        if self.free.is_empty() {
            let index = self.segments.len() as u32;
            let segment = new_cursor_segment(node, self.shared.port, index)
                .map_err(|error| Trouble::Shortage(error.to_string()))?;
            self.free = slots_of(index, &segment);
            self.segments.push(Arc::new(segment));
        }
        self.free.pop().ok_or_else(|| "a segment without slots".into())
    }

    pub(super) fn at(&self, slot: Slot) -> Option<(&Arc<Sealed>, usize)> {
        let segment = self.segments.get(slot.segment as usize)?;
        Some((segment, CursorSegment::of_size(segment.size()).cursor(slot.slot)?))
    }
}

impl Core {
    pub(super) fn free_slot(&mut self, key: LogKey) {
        let found = self.sources.iter().find(|((_, other), source)| *other == key && source.is_done());
        let Some(at) = found.map(|(at, _)| *at) else { return };
        if let (Some(source), Some(inlet)) = (self.sources.remove(&at), self.inlets.get_mut(&at.0)) {
            inlet.free.push(source.slot);
        }
    }
}

/// The slots of a segment, the first one last: they are taken from the end.
fn slots_of(segment: u32, memory: &Sealed) -> Vec<Slot> {
    let slots = CursorSegment::of_size(memory.size()).slots();
    (0..slots).rev().map(|slot| Slot { segment, slot }).collect()
}
