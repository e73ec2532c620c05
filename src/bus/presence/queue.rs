//! Changes that wait to be read: each one as it was while they are few, what they come to when they are many.
//!
//! A reader that never reads must not make this grow. So beyond [`VERBATIM`] changes, or [`BYTES`] of them, those of
//! each node are folded: what comes and goes before the reader looks leaves nothing. At most three are left of a node
//! (`Left`, `Joined`, `Stalled`), and none of a node that the reader does not know of and that is gone.
//!
//! A change of a node with a name of the 255 bytes that one may have, without ports, takes less than 500 bytes: so 1024
//! of those make half of [`BYTES`]. Ports may make one far larger: a node may have 16 384, each with 20 KiB of filters
//! and version. What is left of folding is at most three times what this process knows of its peers anyway, and
//! of those that have left since the reader has read of them.

use std::collections::{HashMap, VecDeque};

use super::{Departure, PeerChange};
use crate::bus::peer::PortInfo;
use crate::control::NodeId;

/// Changes that are kept as they are.
const VERBATIM: usize = 1024;
/// Bytes of changes that are kept as they are.
const BYTES: usize = 1 << 20;

/// Changes in the order in which they are to be read.
pub(super) struct Queue {
    changes: VecDeque<PeerChange>,
    /// When there are more, they are folded. Twice what the last folding left, so that folding costs a
    /// constant time per change.
    limit: usize,
    verbatim: usize,
    /// What the changes take.
    bytes: usize,
    /// As `limit`.
    most_bytes: usize,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self::keeping(VERBATIM)
    }

    fn keeping(verbatim: usize) -> Self {
        Self { changes: VecDeque::new(), limit: verbatim, verbatim, bytes: 0, most_bytes: BYTES }
    }

    pub(super) fn push(&mut self, change: PeerChange) {
        self.bytes += weight(&change);
        self.changes.push_back(change);
        if self.changes.len() > self.limit || self.bytes > self.most_bytes {
            self.changes = Folding::of(self.changes.drain(..));
            self.bytes = self.changes.iter().map(weight).sum();
            self.limit = self.verbatim.max(2 * self.changes.len());
            self.most_bytes = BYTES.max(2 * self.bytes);
        }
    }

    pub(super) fn pop(&mut self) -> Option<PeerChange> {
        let change = self.changes.pop_front()?;
        self.bytes -= weight(&change);
        if self.changes.is_empty() {
            (self.limit, self.most_bytes) = (self.verbatim, BYTES);
        }
        Some(change)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// Bytes that a change takes, with all that it holds; what it shares with another counts for each.
fn weight(change: &PeerChange) -> usize {
    let peer = change.peer();
    let text =
        |filters: &[String]| filters.iter().map(|text| size_of::<String>() + text.len()).sum::<usize>();
    let ports = peer.ports().iter().map(|port| {
        size_of::<PortInfo>() + text(&port.filters) + port.version.as_ref().map_or(0, String::len)
    });
    let stats = peer.heartbeat().into_iter().flat_map(|heartbeat| heartbeat.stats.keys());
    let stats = stats.map(|name| size_of::<(String, u64)>() + name.len());
    let why = match change {
        PeerChange::Left(_, Departure::Cut { why }) => why.len(),
        _ => 0,
    };
    size_of::<PeerChange>() + peer.name().len() + ports.chain(stats).sum::<usize>() + why
}

/// Changes of which some have been taken back.
#[derive(Default)]
struct Folding {
    kept: Vec<Option<PeerChange>>,
    /// Where each node's changes are that were not taken back, the latest last.
    of_node: HashMap<NodeId, Vec<usize>>,
}

impl Folding {
    fn of(changes: impl Iterator<Item = PeerChange>) -> VecDeque<PeerChange> {
        let mut folding = Self::default();
        changes.for_each(|change| folding.add(change));
        folding.kept.into_iter().flatten().collect()
    }

    fn add(&mut self, change: PeerChange) {
        let Self { kept, of_node } = self;
        let pending = of_node.entry(change.peer().id()).or_default();
        // Takes back the node's latest change, if it is such a one.
        let mut take = |such: fn(&PeerChange) -> bool| {
            let latest = pending.pop_if(|at| kept[*at].as_ref().is_some_and(such));
            latest.is_some_and(|at| kept[at].take().is_some())
        };
        let is_over = match change {
            PeerChange::Joined(_) => false,
            PeerChange::Stalled(_) => take(|latest| matches!(latest, PeerChange::Recovered(_))),
            PeerChange::Recovered(_) => take(|latest| matches!(latest, PeerChange::Stalled(_))),
            PeerChange::Left(..) => {
                while take(|latest| matches!(latest, PeerChange::Stalled(_) | PeerChange::Recovered(_))) {}
                // Of one that had left, come back and left again, the reader has to learn that it left.
                take(|latest| matches!(latest, PeerChange::Joined(_)))
                    && !take(|latest| matches!(latest, PeerChange::Left(..)))
            }
        };
        if !is_over {
            pending.push(kept.len());
            kept.push(Some(change));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::super::peer::{NodeInfo, Peer};
    use super::*;

    fn peer(id: u8) -> Peer {
        Peer::new(NodeInfo::new(NodeId([id; 16]), "node".into(), 0, 0, 0))
    }

    /// Who is there in the eyes of one who has read some changes, and whether it is stalled.
    #[derive(Debug, Default, Clone, PartialEq)]
    struct Believed(BTreeMap<u8, bool>);

    impl Believed {
        /// Fails on a change that cannot be.
        fn read(&mut self, change: &PeerChange) -> Result<(), TestCaseError> {
            let id = change.peer().id().as_bytes()[0];
            let before = match change {
                PeerChange::Joined(_) => (self.0.insert(id, false), None),
                PeerChange::Left(..) => (self.0.remove(&id).map(|_| true), Some(true)),
                PeerChange::Stalled(_) => (self.0.insert(id, true), Some(false)),
                PeerChange::Recovered(_) => (self.0.insert(id, false), Some(true)),
            };
            prop_assert_eq!(before.0, before.1, "{:?}", change);
            Ok(())
        }

        /// One of the two or three changes that node `id` may go through now.
        fn next(&self, id: u8, which: bool) -> PeerChange {
            match (self.0.get(&id), which) {
                (None, _) => PeerChange::Joined(peer(id)),
                (Some(_), true) => PeerChange::Left(peer(id), Departure::Died),
                (Some(false), false) => PeerChange::Stalled(peer(id)),
                (Some(true), false) => PeerChange::Recovered(peer(id)),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_read_comes_to_what_has_happened(
            verbatim in 1..12_usize,
            nodes in 1..6_u8,
            steps in prop::collection::vec((any::<u8>(), any::<bool>(), prop::bool::weighted(0.3)), 0..200),
        ) {
            let mut queue = Queue::keeping(verbatim);
            let (mut truth, mut reader) = (Believed::default(), Believed::default());
            for (id, leaves, reads) in steps {
                let change = truth.next(id % nodes, leaves);
                truth.read(&change)?;
                queue.push(change);
                prop_assert!(queue.changes.len() <= verbatim.max(6 * usize::from(nodes)));
                prop_assert_eq!(queue.bytes, queue.changes.iter().map(weight).sum::<usize>());
                if reads && let Some(change) = queue.pop() {
                    reader.read(&change)?;
                }
            }
            while let Some(change) = queue.pop() {
                reader.read(&change)?;
            }
            prop_assert_eq!(reader, truth);
        }

        #[test]
        fn a_few_are_read_as_they_were(steps in prop::collection::vec((0..3_u8, any::<bool>()), 0..40)) {
            let mut queue = Queue::keeping(40);
            let mut truth = Believed::default();
            let mut changes = Vec::new();
            for (id, leaves) in steps {
                let change = truth.next(id, leaves);
                truth.read(&change)?;
                changes.push(change.clone());
                queue.push(change);
            }
            let read: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
            prop_assert_eq!(read, changes);
        }
    }

    #[test]
    fn what_comes_and_goes_unread_leaves_nothing() {
        let mut queue = Queue::new();
        for round in 0..10 * VERBATIM {
            let id = u128::try_from(round).unwrap().to_le_bytes();
            let peer = Peer::new(NodeInfo::new(NodeId(id), "node".into(), 0, 0, 0));
            queue.push(PeerChange::Joined(peer.clone()));
            queue.push(PeerChange::Stalled(peer.clone()));
            queue.push(PeerChange::Left(peer, Departure::Died));
            assert!(queue.changes.len() <= VERBATIM, "{} in round {round}", queue.changes.len());
        }
    }

    #[test]
    fn nodes_of_many_ports_are_folded_before_they_are_many() {
        let port = PortInfo {
            id: 1,
            role: "subscriber",
            filters: vec!["x".repeat(255); 64],
            lossy: false,
            capacity: None,
            priority: 128,
            version: None,
        };
        let large = |id: u8| Peer { ports: vec![port.clone(); 8].into(), ..peer(id) };
        let mut queue = Queue::new();
        queue.push(PeerChange::Joined(large(0)));
        let one = queue.bytes;
        assert!(one > 8 * 64 * 255, "{one}");
        for id in 0..VERBATIM {
            let id = 1 + (id % 200) as u8;
            queue.push(PeerChange::Joined(large(id)));
            queue.push(PeerChange::Left(large(id), Departure::Died));
            assert!(queue.bytes <= BYTES + 2 * one, "{} bytes", queue.bytes);
        }
        assert!(matches!(queue.pop(), Some(PeerChange::Joined(peer)) if peer.id() == NodeId([0; 16])));
        while queue.pop().is_some() {}
        assert_eq!((queue.bytes, queue.most_bytes, queue.limit), (0, BYTES, VERBATIM));
        // A plain one is small, whatever its name is.
        let name = "x".repeat(255);
        let plain = Peer::new(NodeInfo::new(NodeId([1; 16]), name.into(), 0, 0, 0));
        assert!(weight(&PeerChange::Joined(plain)) < 500);
    }

    #[test]
    fn a_node_that_is_known_is_told_to_have_left_for_its_latest_reason() {
        let (one, other) = (peer(1), peer(2));
        let changes = [
            PeerChange::Recovered(one.clone()),
            PeerChange::Left(one.clone(), Departure::Unread),
            PeerChange::Joined(other.clone()),
            PeerChange::Joined(one.clone()),
            PeerChange::Stalled(one.clone()),
            PeerChange::Left(one.clone(), Departure::Died),
        ];
        let folded = Folding::of(changes.into_iter());
        assert_eq!(folded, [PeerChange::Joined(other), PeerChange::Left(one, Departure::Died)]);
    }
}
