//! Keeping each peer to its quotas: what is beyond is refused before it is mapped, kept or answered.

use super::super::quotas::{Exhaustion, Quotas, Resource};
use super::{Core, Trouble};
use crate::bus::status::Status;
use crate::control::NodeId;
use crate::frame::{Control, Role};

/// Exhaustions that are remembered for the user.
const LATEST: usize = 64;

/// What a peer has used up, and what of others' this node has.
#[derive(Default)]
pub(super) struct Exhausted {
    /// A port of its was refused: it may speak of one that is not known here.
    pub(super) ports: bool,
    listed: [[bool; Resource::ALL.len()]; 2],
    /// What it has just said, which is why it lets go of a log.
    why: Option<(Resource, u64)>,
}

/// What a peer uses of this node.
#[derive(Default)]
struct Usage {
    attachments: usize,
    mappings: usize,
    descriptors: usize,
}

impl Usage {
    /// What would be beyond the quotas with `more` of each.
    fn excess(&self, more: &Usage, quotas: &Quotas) -> Option<Resource> {
        let checks = [
            (Resource::Attachments, self.attachments, more.attachments),
            (Resource::Mappings, self.mappings, more.mappings),
            (Resource::Descriptors, self.descriptors, more.descriptors),
        ];
        let beyond = |(resource, used, more): &(Resource, usize, usize)| {
            *more > 0 && used + more > quotas.limit(*resource)
        };
        checks.iter().find(|check| beyond(check)).map(|(resource, ..)| *resource)
    }
}

impl Core {
    /// Whether a peer may open another port.
    pub(super) fn has_room_for_port(&mut self, peer: NodeId, reads: bool) -> Result<(), Trouble> {
        let Some(state) = self.peers.get_mut(&peer).filter(|_| peer != self.me.id()) else { return Ok(()) };
        let excess = if state.ports.len() >= self.quotas.ports {
            Some(Resource::Ports)
        } else {
            let one = usize::from(reads);
            self.usage(peer).excess(&Usage { attachments: 0, mappings: one, descriptors: one }, &self.quotas)
        };
        let Some(resource) = excess else { return Ok(()) };
        if let Some(state) = self.peers.get_mut(&peer) {
            state.exhausted.ports = true;
        }
        Err(Trouble::Exhausted(resource))
    }

    /// Whether a peer may have a port of this node read another log.
    pub(super) fn has_room_for_log(&self, peer: NodeId, reader: Role) -> Result<(), Trouble> {
        let descriptors = if reader == Role::Server { 2 } else { 1 };
        self.has_room(peer, &Usage { attachments: 1, mappings: 1, descriptors })
    }

    /// Whether another blob or cursor segment of a peer's may be mapped.
    pub(super) fn has_room_for_mapping(&self, peer: NodeId) -> Result<(), Trouble> {
        self.has_room(peer, &Usage { mappings: 1, ..Usage::default() })
    }

    fn has_room(&self, peer: NodeId, more: &Usage) -> Result<(), Trouble> {
        if peer == self.me.id() {
            return Ok(());
        }
        match self.usage(peer).excess(more, &self.quotas) {
            Some(resource) => Err(Trouble::Exhausted(resource)),
            None => Ok(()),
        }
    }

    fn usage(&self, node: NodeId) -> Usage {
        let mut usage = Usage::default();
        if let Some(peer) = self.peers.get(&node) {
            for reads in peer.ports.values().filter_map(|port| port.reads.as_ref()) {
                usage.mappings += reads.segments.len();
                usage.descriptors += 1;
            }
        }
        for (_, source) in self.sources.iter().filter(|((_, key), _)| key.node == node) {
            usage.attachments += 1;
            usage.mappings += 1 + source.blobs.len();
            usage.descriptors += 1;
        }
        let answers =
            |port: u64| self.inlets.get(&port).is_some_and(|inlet| inlet.shared.role() == Role::Server);
        let logs = self.outlets.values().map(|outlet| &outlet.shared);
        usage.descriptors +=
            logs.filter(|log| log.only.is_some_and(|(to, _)| to == node) && answers(log.port)).count();
        usage
    }

    /// Counts what a peer was refused, and tells it. Each time: it may have been something else that it wanted.
    pub(super) fn exhausted(&mut self, node: NodeId, resource: Resource) {
        let limit = self.quotas.limit(resource) as u64;
        self.exhaustions.by_this_node += 1;
        self.list_exhaustion(node, true, resource, limit);
        self.send(node, &Control::Exhausted { resource: resource.to_wire(), limit }, &[]);
    }

    /// A peer has refused this node something.
    pub(super) fn is_exhausted(&mut self, from: NodeId, resource: u8, limit: u64) {
        self.exhaustions.by_others += 1;
        let Some(resource) = Resource::from_wire(resource) else { return }; // a newer peer's
        self.list_exhaustion(from, false, resource, limit);
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.exhausted.why = Some((resource, limit));
        }
    }

    /// Why a peer has just let go of a client's log, if it was for a quota.
    pub(super) fn take_exhaustion(&mut self, from: NodeId) -> Option<Status> {
        let peer = self.peers.get_mut(&from)?;
        let (resource, limit) = peer.exhausted.why.take()?;
        let node = &peer.node;
        let what =
            format!("server {node}: this node has used up the {limit} {resource} that it gives each node");
        Some(Status::resource_exhausted(what))
    }

    fn list_exhaustion(&mut self, from: NodeId, by_this_node: bool, resource: Resource, limit: u64) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let listed = &mut peer.exhausted.listed[usize::from(by_this_node)][usize::from(resource.to_wire())];
        if std::mem::replace(listed, true) {
            return;
        }
        let node = peer.node.clone();
        match by_this_node {
            true => {
                tracing::warn!(%node, %resource, limit, "the node has used up its quota, and gets no more")
            }
            false => tracing::warn!(%node, %resource, limit, "this node has used up what that one gives it"),
        }
        let latest = &mut self.exhaustions.latest;
        if latest.len() == LATEST {
            latest.remove(0);
        }
        latest.push(Exhaustion { node, by_this_node, resource, limit });
    }
}
