//! Who is alive, as the monitor sees it.

use std::collections::HashMap;

use super::super::Outcome;
use super::protocol::Seen;
use crate::{Departure, Node, NodeId, PeerChange, Presence};

/// What was seen so far.
pub(super) struct Sight {
    presence: Presence,
    deaths: u64,
    /// Of each node, how many heartbeats it has sent, by the number of the latest.
    beats: HashMap<NodeId, u64>,
    beats_seen: u64,
}

impl Sight {
    pub(super) fn open(node: &Node) -> Outcome<Self> {
        Ok(Self { presence: node.presence()?, deaths: 0, beats: HashMap::new(), beats_seen: 0 })
    }

    /// Takes what has changed.
    pub(super) fn look(&mut self) -> Outcome {
        while let Some(change) = self.presence.try_recv()? {
            match change {
                PeerChange::Left(_, Departure::Died) => self.deaths += 1,
                PeerChange::Left(peer, why @ (Departure::Unread | Departure::Cut { .. })) => {
                    return Err(format!("{} left: {why}", peer.node()).into());
                }
                // A process that leaves early has said why to the first one; one that stalls for good is told by
                // those who wait for it.
                _ => {}
            }
        }
        Ok(())
    }

    /// Looks at the others' heartbeats; how many others there are.
    pub(super) fn count(&mut self, node: &Node) -> usize {
        let peers = node.peers();
        for peer in &peers {
            if let Some(heartbeat) = peer.heartbeat() {
                let sent = heartbeat.sequence + 1;
                let known = self.beats.insert(peer.id(), sent);
                self.beats_seen += u64::from(known != Some(sent));
            }
        }
        peers.len()
    }

    pub(super) fn seen(&self) -> Seen {
        let beats = self.beats.iter().map(|(node, sent)| (node.to_string(), *sent)).collect();
        Seen { deaths: self.deaths, beats, beats_seen: self.beats_seen }
    }
}
