//! Who is alive, as the monitor sees it.

use std::collections::HashSet;

use super::super::Outcome;
use super::protocol::Seen;
use crate::{Node, NodeId};

/// The others, as they were at the last look.
pub(super) struct Sight {
    there: HashSet<NodeId>,
    seen: Seen,
}

impl Sight {
    pub(super) fn open(_node: &Node) -> Outcome<Self> {
        Ok(Self { there: HashSet::new(), seen: Seen::default() })
    }

    /// Takes what has changed.
    pub(super) fn look(&mut self) -> Outcome {
        Ok(())
    }

    /// How many others there are.
    pub(super) fn count(&mut self, node: &Node) -> usize {
        let there: HashSet<_> = node.peers().iter().map(|peer| peer.id()).collect();
        // Nobody leaves before the end of the demo.
        self.seen.deaths += self.there.difference(&there).count() as u64;
        self.there = there;
        self.there.len()
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.clone()
    }
}
