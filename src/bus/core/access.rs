//! What peers of other users may not do to this node, and what this node may not do to them.
//!
//! A peer's log is refused when it is attached, and a reader where it would be gated: whatever the peer makes of what
//! it was told, nothing gets past these two places.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::access::{Action, Denial, Rights};
use super::super::peer::NodeInfo;
use super::super::reading::{InletShared, LogKey};
use super::super::topic::{Carries, Filter};
use super::attach::LocalSource;
use super::peers::{PeerState, RemotePort};
use super::{Core, Trouble, pairs};
use crate::control::{NodeId, PortCard};
use crate::frame::{Control, Role};

/// Denials that are remembered for the user.
const LATEST: usize = 64;
/// Denials that a peer is told of, and that are taken of it, before they are only counted.
const MOST: usize = 256;

/// How a peer stands to this node.
pub(super) struct Standing {
    pub(super) rights: Rights,
    /// What it was told that it may not do.
    told: HashSet<(Action, String)>,
    /// What it said that this node may not do.
    heard: HashSet<(Action, String)>,
}

impl Standing {
    pub(super) fn new(rights: Rights) -> Self {
        Self { rights, told: HashSet::new(), heard: HashSet::new() }
    }
}

/// Whether an inbox is there to read what is sent to a name.
pub(in crate::bus) enum Audience {
    Somebody,
    Nobody,
    /// There is one, and one of the two nodes' access lists keeps it from reading this.
    Denied(String),
}

/// What is in a log that a peer attaches.
pub(super) struct Contents {
    pub(super) topic: Option<Arc<str>>,
    pub(super) pattern: Option<Filter>,
    pub(super) carries: Carries,
}

/// Checks that the reader has to do with what the writer writes, and that the writer's node may write for it.
pub(super) fn contents(
    sources: &HashMap<(u64, LogKey), LocalSource>,
    reader: &InletShared,
    peer: &PeerState,
    (port, writer): (u64, &RemotePort),
) -> Result<Contents, Trouble> {
    let permit = |action, filter: &Filter| match peer.standing.rights.allow(action, filter) {
        true => Ok(()),
        false => Err(Trouble::Denied(action, filter.clone())),
    };
    let role = reader.role();
    if matches!(role, Role::Client | Role::Server) {
        pairs::check(reader, writer)?;
        pairs::check_first(sources, reader, (peer.node.id(), port))?;
        let action = if role == Role::Client { Action::Serve } else { Action::Call };
        permit(action, &reader.filters[0])?;
        return Ok(Contents { topic: None, pattern: None, carries: Carries::Calls });
    }
    let topic = writer.topic.as_ref().ok_or("a log of a port that does not publish")?;
    if !reader.filters.iter().any(|filter| filter.intersects(topic)) {
        return Err(format!("a log on {topic}, which nobody asked for").into());
    }
    permit(Action::Publish, topic)?;
    let (topic, pattern, carries) = match topic.is_pattern() {
        true => (None, Some(topic.clone()), topic.carries()),
        false => (Some(topic.as_str().into()), None, topic.carries()),
    };
    Ok(Contents { topic, pattern, carries })
}

impl Core {
    /// Whether this port of a peer may be given a log on this topic; if it is this node that does not let it, the
    /// peer is told.
    pub(super) fn may_read(&mut self, node: NodeId, port: u64, topic: &Filter) -> bool {
        let Some(peer) = self.peers.get(&node) else { return false };
        if peer.ports.get(&port).is_none_or(|remote| remote.card.denied) {
            return false; // the other way round: it does not want what this node writes
        }
        let allowed = peer.standing.rights.allow(Action::Subscribe, topic);
        if !allowed {
            self.deny(node, Action::Subscribe, topic);
        }
        allowed
    }

    /// Whether what this port of this node is for is denied to a peer as a whole, so that it is told with the port.
    pub(super) fn is_denied(&self, peer: NodeId, card: &PortCard) -> bool {
        let action = match card.role {
            Role::Server => Action::Call,
            Role::Inbox => Action::Publish,
            _ => return false,
        };
        let Some(peer) = self.peers.get(&peer) else { return false };
        let topic = card.filters.first().and_then(|topic| Filter::from_peer(topic).ok());
        topic.is_some_and(|topic| !peer.standing.rights.allow(action, &topic))
    }

    /// Who reads what is sent to the inboxes of this topic.
    pub(super) fn find_reader(&mut self, topic: &Filter) -> Audience {
        let mut denied = None;
        let ports = self.peers.values().flat_map(|peer| peer.ports.values().map(move |port| (peer, port)));
        for (peer, port) in ports {
            let Some(reads) = &port.reads else { continue };
            if !reads.filters.iter().any(|filter| filter.intersects(topic)) {
                continue;
            }
            if port.card.denied {
                denied = Some((None, does_not_let(&peer.node, &self.me, Action::Publish, topic.as_str())));
            } else if peer.standing.rights.allow(Action::Subscribe, topic) {
                return Audience::Somebody;
            } else {
                let why = is_not_let(&peer.node, Action::Subscribe, topic.as_str());
                denied = Some((Some(peer.node.id()), why));
            }
        }
        let Some((by_this_node, why)) = denied else { return Audience::Nobody };
        if let Some(node) = by_this_node {
            self.deny(node, Action::Subscribe, topic);
        }
        Audience::Denied(why)
    }

    /// Counts what a peer was not allowed, and tells it, once.
    pub(super) fn deny(&mut self, node: NodeId, action: Action, topic: &Filter) {
        self.denials.by_this_node += 1;
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if !is_new(&mut peer.standing.told, action, topic.as_str()) {
            return;
        }
        let info = peer.node.clone();
        tracing::warn!(node = %info, uid = info.uid(), %action, topic = topic.as_str(), "denied by the access list");
        self.remember(Denial { node: info, by_this_node: true, action, topic: topic.as_str().to_owned() });
        self.send(node, &Control::Denied { action: action.to_wire(), topic: topic.as_str() }, &[]);
    }

    /// A peer does not allow this node something.
    pub(super) fn denied(&mut self, from: NodeId, action: u8, topic: &str) -> Result<(), Trouble> {
        let topic = Filter::from_peer(topic).map_err(|error| error.to_string())?;
        let topic = topic.as_str();
        let Some(action) = Action::from_wire(action) else { return Ok(()) }; // a newer peer's
        self.denials.by_others += 1;
        let Some(peer) = self.peers.get_mut(&from) else { return Ok(()) };
        if is_new(&mut peer.standing.heard, action, topic) {
            let node = peer.node.clone();
            tracing::warn!("{}", does_not_let(&node, &self.me, action, topic));
            self.remember(Denial { node, by_this_node: false, action, topic: topic.to_owned() });
        }
        Ok(())
    }

    fn remember(&mut self, denial: Denial) {
        let latest = &mut self.denials.latest;
        if latest.len() == LATEST {
            latest.remove(0);
        }
        latest.push(denial);
    }
}

/// Whether this has not been said before, while there is room to remember it.
fn is_new(said: &mut HashSet<(Action, String)>, action: Action, topic: &str) -> bool {
    said.len() < MOST && said.insert((action, topic.to_owned()))
}

/// Why this node may not do something to a peer.
pub(super) fn does_not_let(peer: &NodeInfo, me: &NodeInfo, action: Action, topic: &str) -> String {
    let uid = me.uid();
    format!(
        "{peer} does not let user {uid} {action} {topic:?}: its access list needs `allow {action} {topic} to uid {uid}`"
    )
}

/// Why a peer may not do something to this node.
pub(super) fn is_not_let(peer: &NodeInfo, action: Action, topic: &str) -> String {
    let uid = peer.uid();
    format!(
        "this node does not let {peer} of user {uid} {action} {topic:?}: its access list needs `allow {action} {topic} to uid {uid}`"
    )
}
