//! Telling presence ports who comes and goes.

use std::sync::Arc;

use super::super::peer::{Peer, PortInfo};
use super::super::presence::{Departure, PeerChange, PresenceShared};
use super::Core;
use super::heartbeat::Heart;
use super::peers::PeerState;
use crate::control::{Gone, NodeId};

impl PeerState {
    /// Whether nothing has been heard of it for some beats.
    pub(super) fn is_stalled(&self) -> bool {
        self.heart.as_ref().is_some_and(Heart::is_stalled)
    }

    /// The peer as it is now.
    pub(super) fn describe(&self) -> Peer {
        Peer {
            node: self.node.clone(),
            ports: self.ports.values().map(|port| PortInfo::from(&port.card)).collect(),
            stalled: self.is_stalled(),
            heartbeat: self.heart.as_ref().and_then(Heart::latest),
        }
    }
}

impl Core {
    /// Opens a presence port: who has been told to be there is told to it, and whatever follows will be.
    pub(super) fn open_presence(&mut self, presence: Arc<PresenceShared>) {
        // Whoever has told its ports by now is there from the start.
        self.driver.sweep();
        self.handle_events();
        let me = self.me.id();
        let settled = self.peers.values().filter(|peer| peer.ports_done && peer.node.id() != me);
        let mut settled: Vec<Peer> = settled.map(PeerState::describe).collect();
        settled.sort_by(|a, b| (a.name(), a.id()).cmp(&(b.name(), b.id())));
        for peer in settled {
            let stalled = peer.stalled.then(|| PeerChange::Stalled(peer.clone()));
            presence.push(PeerChange::Joined(peer));
            stalled.into_iter().for_each(|stalled| presence.push(stalled));
        }
        self.presences.push(presence);
    }

    pub(super) fn close_presence(&mut self, presence: &Arc<PresenceShared>) {
        self.presences.retain(|other| !Arc::ptr_eq(other, presence));
    }

    pub(super) fn tell(&self, change: &PeerChange) {
        for presence in &self.presences {
            presence.push(change.clone());
        }
    }

    /// A peer has told every port that it had: only now it is of use to be told of it.
    pub(super) fn peer_settled(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node).filter(|peer| !peer.ports_done) else { return };
        peer.ports_done = true;
        let peer = peer.describe();
        let stalled = peer.stalled.then(|| PeerChange::Stalled(peer.clone()));
        self.tell(&PeerChange::Joined(peer));
        stalled.iter().for_each(|stalled| self.tell(stalled));
    }

    /// A peer is gone; whoever was not told that it came is not told that it went.
    pub(super) fn peer_gone(&self, peer: &PeerState, why: &Gone) {
        if peer.ports_done {
            self.tell(&PeerChange::Left(peer.describe(), Departure::from(why)));
        }
    }
}
