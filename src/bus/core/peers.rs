//! Peers that come and go, and what they say.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::super::access::Rights;
use super::super::peer::{NodeInfo, Peer, RefusedNode};
use super::super::reading::LogKey;
use super::super::topic::{Carries, Filter, check_name};
use super::access::Standing;
use super::again::{BARE, What};
use super::ending::Ending;
use super::heartbeat::Heart;
use super::quotas::Exhausted;
use super::{Core, REFUSED, Trouble, bell_trouble, segment_trouble};
use crate::control::{Event, Gone, Message, NodeId, PortCard, Refusal};
use crate::frame::{Control, PortUp, Role, Strings};
use crate::ring::CursorSegment;
use crate::segment::{Pages, PeerSegment};
use crate::wake::Bell;

/// Largest cursor segment that is mapped: room for eight thousand cursors.
const MAX_CURSOR_SEGMENT: usize = 1 << 20;

/// An established peer.
pub(super) struct PeerState {
    pub(super) node: NodeInfo,
    pub(super) standing: Standing,
    /// In the order of their opening. Boxed: most have few ports, and a node of the map has room for eleven.
    pub(super) ports: BTreeMap<u64, Box<RemotePort>>,
    /// Every port that existed when the session was established has been told.
    pub(super) ports_done: bool,
    /// `None` if it has not told where its heartbeats are: it is never judged then.
    pub(super) heart: Option<Heart>,
    pub(super) exhausted: Exhausted,
}

/// A port of a peer.
pub(super) struct RemotePort {
    pub(super) card: PortCard,
    /// What a publisher was opened for.
    pub(super) topic: Option<Filter>,
    /// What a reading port comes with.
    pub(super) reads: Option<Reading>,
}

/// The reading side of a peer's port.
pub(super) struct Reading {
    pub(super) filters: Arc<[Filter]>,
    pub(super) bell: Bell,
    pub(super) segments: HashMap<u32, Arc<PeerSegment>>,
    /// One of them did not arrive, or was not taken. Its node sends each but once, so it may still speak of that, and
    /// where it is asked for several cursors there, send it with each.
    pub(super) lost_segment: bool,
}

impl PeerState {
    pub(super) fn new(node: NodeInfo, rights: Rights) -> Self {
        Self {
            node,
            standing: Standing::new(rights),
            ports: BTreeMap::new(),
            ports_done: false,
            heart: None,
            exhausted: Exhausted::default(),
        }
    }

    /// Whether this port of its reads without gates.
    pub(super) fn is_lossy(&self, port: u64) -> bool {
        self.ports.get(&port).is_some_and(|port| port.card.lossy)
    }
}

impl Core {
    pub(super) fn handle_event(&mut self, event: Event<OwnedFd>) {
        match event {
            Event::Up { card, credentials, .. } => {
                if let Err(error) = check_name("node name", &card.name) {
                    return self.driver.cut(card.id, error.to_string());
                }
                let (pid, uid) = (credentials.pid, credentials.uid);
                let node = NodeInfo::new(card.id, card.name, pid, uid, card.started_unix_ms);
                tracing::info!(%node, "node joined");
                let rights = self.access.rights(self.me.uid(), &credentials);
                self.peers.insert(node.id(), PeerState::new(node.clone(), rights));
                self.announce_to(node.id());
            }
            Event::Message { peer, message, fds, bare } => {
                // Of a peer that was cut off meanwhile: nothing of it counts any more.
                if !self.peers.contains_key(&peer) {
                } else if bare {
                    self.take_bare(peer, message);
                } else {
                    self.handle_message(peer, message, fds.into_iter().map(Arc::new).collect());
                }
            }
            Event::Down { peer, why } => {
                if let Some(state) = self.peers.remove(&peer) {
                    tracing::info!(node = %state.node, ?why, "node left");
                    self.remove_gates(|node, _| node == peer);
                    self.forget_missing(peer);
                    self.servers_gone(&state, &why);
                    self.end_logs_of(peer, Ending::from(&why));
                    self.peer_gone(&state, &why);
                }
                if let Gone::Cut(what) = why {
                    self.remember_refused(Some(peer), Refusal::Protocol { what });
                }
            }
            Event::Refused { peer, why } => {
                if self.lines.has_room() {
                    tracing::warn!(?peer, %why, "node refused");
                }
                self.remember_refused(peer, why);
            }
            Event::Close { .. } => {} // the driver's own
        }
    }

    fn remember_refused(&mut self, id: Option<NodeId>, why: Refusal) {
        if self.refused.len() == REFUSED {
            self.refused.pop_front();
        }
        self.refused.push_back(RefusedNode { id, why });
    }

    /// Tells a new peer every port there is.
    fn announce_to(&mut self, peer: NodeId) {
        self.send_pulse(peer);
        let mut ports: Vec<_> = self.publishers().map(|outlet| (outlet.shared.card(), Vec::new())).collect();
        ports.extend(self.inlets.values().map(|inlet| (inlet.shared.card(), inlet.fds())));
        ports.sort_by_key(|(card, _)| card.id);
        for (card, fds) in ports {
            self.send_port(peer, &card, &fds);
        }
        self.send(peer, &Control::PortsDone, &[]);
    }

    /// Announces a port of this node to one peer.
    pub(super) fn send_port(&mut self, to: NodeId, card: &PortCard, fds: &[Arc<OwnedFd>]) {
        let denied = if self.is_denied(to, card) { PortUp::DENIED } else { 0 };
        let up = PortUp {
            port: card.id,
            role: card.role,
            filters: Strings::from_owned(&card.filters),
            flags: card.flags() | denied,
            priority: card.priority,
            capacity: card.capacity,
            version: card.version.as_deref(),
        };
        self.send(to, &Control::PortUp(up), fds);
    }

    pub(super) fn handle_message(&mut self, from: NodeId, message: Message, fds: Vec<Arc<OwnedFd>>) {
        let handled = match message {
            Message::PortUp(card) => self.port_up(from, card, fds),
            Message::PortsDone => {
                self.peer_settled(from);
                Ok(())
            }
            Message::PortDown { port } => {
                self.port_down(from, port);
                Ok(())
            }
            Message::Attach(attach) => self.attach_log(from, &attach, fds),
            Message::Attached { log, reader_port, segment, slot } => {
                self.follow_cursor(from, log, reader_port, segment, slot, fds)
            }
            Message::Detach { log, reader_number } => {
                self.detach(from, log, reader_number);
                Ok(())
            }
            Message::Detached { log, reader_number } => {
                self.free_slot(LogKey { node: from, log, number: reader_number });
                Ok(())
            }
            Message::Stats { request } => {
                self.answer_survey(from, request);
                Ok(())
            }
            Message::StatsReply { request, taken_ns, uptime_ms, more, ports } => {
                self.take_report(from, request, taken_ns, uptime_ms, more, ports);
                Ok(())
            }
            Message::Heartbeat { log, capacity, interval_ms } => {
                self.heartbeat_log(from, log, capacity, interval_ms, fds)
            }
            Message::Blob { log, reader_number, blob, size } => {
                self.take_blob(from, (log, reader_number), (blob, size), fds)
            }
            Message::BlobGone { log, reader_number, blob } => {
                self.drop_blob(from, (log, reader_number), blob);
                Ok(())
            }
            Message::Denied { action, topic } => self.denied(from, action, &topic),
            Message::Exhausted { resource, limit } => {
                self.is_exhausted(from, resource, limit);
                Ok(())
            }
            Message::Again { what, of, id, reader_number } => {
                self.send_again(from, what, of, id, reader_number);
                Ok(())
            }
        };
        match handled {
            Ok(()) => {}
            Err(Trouble::Offence(what)) => self.cut(from, &what),
            Err(Trouble::Denied(action, topic)) => self.deny(from, action, &topic),
            Err(Trouble::Exhausted(resource)) => self.exhausted(from, resource),
            Err(Trouble::Shortage(what)) => {
                if self.errors.has_room() {
                    tracing::error!(%from, %what, "out of memory or file descriptors: raise the limit (`ulimit -n`, `ulimit -v`)");
                }
            }
        }
    }

    fn port_up(&mut self, from: NodeId, card: PortCard, fds: Vec<Arc<OwnedFd>>) -> Result<(), Trouble> {
        let Some(peer) = self.peers.get_mut(&from) else { return Ok(()) };
        if self.missing.contains_key(&(from, What::Port(card.id))) {
            peer.ports.remove(&card.id);
        }
        self.has_room_for_port(from, PortCard::reads(card.role))?;
        let Some(peer) = self.peers.get_mut(&from) else { return Ok(()) };
        let topic = if card.role == Role::Publisher { Some(topic_of(&card)?) } else { None };
        if matches!(card.role, Role::Client | Role::Server) && card.filters.len() != 1 {
            return Err(format!("a {:?} of {} services", card.role, card.filters.len()).into());
        }
        let mut short = None;
        let reads = if PortCard::reads(card.role) {
            let filters = match card.role {
                Role::Subscriber => filters_of(&card)?.into(),
                Role::Inbox => [inbox_of(&card, peer.node.name())?].into(),
                // Only the other end of a pair writes for these, to them alone.
                _ => Arc::default(),
            };
            match open_reading(fds, filters) {
                // Nothing is written for it until it is announced again.
                Err(Trouble::Shortage(what)) => {
                    short = Some(what);
                    None
                }
                opened => Some(opened?),
            }
        } else {
            None
        };
        let port = card.id;
        if peer.ports.insert(port, Box::new(RemotePort { card, topic, reads })).is_some() {
            return Err(format!("port {port} opened twice").into());
        }
        if let Some(why) = short {
            return self.miss(from, What::Port(port), why);
        }
        self.missing.remove(&(from, What::Port(port)));
        self.attach_reader(from, port);
        self.tell_of_server(from, port);
        Ok(())
    }

    fn port_down(&mut self, from: NodeId, port: u64) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let role = peer.ports.remove(&port).map(|port| port.card.role);
        self.remove_gates(|node, reader| node == from && reader == port);
        self.abandon(from, Some(port));
        if matches!(role, Some(Role::Client | Role::Server)) {
            self.server_gone(from, port, "it closed the service");
            self.end_logs(from, Some(port), Ending::AtTail);
        }
    }

    /// Cuts a peer off that broke the protocol.
    pub(super) fn cut(&mut self, peer: NodeId, why: &dyn std::fmt::Display) {
        if self.lines.has_room() {
            tracing::warn!(%peer, %why, "node broke the protocol and is cut off");
        }
        if peer != self.me.id() {
            self.driver.cut(peer, why.to_string());
        }
    }

    pub(super) fn list_peers(&self) -> Vec<Peer> {
        let others = self.peers.values().filter(|peer| peer.node.id() != self.me.id());
        let mut list: Vec<Peer> = others.map(PeerState::describe).collect();
        list.sort_by(|a, b| (a.name(), a.id()).cmp(&(b.name(), b.id())));
        list
    }
}

/// What a peer's publisher was opened for.
fn topic_of(card: &PortCard) -> Result<Filter, String> {
    let [text] = &card.filters[..] else {
        return Err(format!("a publisher with {} topics", card.filters.len()));
    };
    let topic = Filter::from_peer(text).map_err(|error| error.to_string())?;
    if topic.is_pattern() == card.pattern {
        Ok(topic)
    } else {
        Err(format!("publisher's topic {topic} and its flags disagree"))
    }
}

/// What a peer's subscriber wants.
fn filters_of(card: &PortCard) -> Result<Vec<Filter>, String> {
    let filters: Result<Vec<_>, _> = card.filters.iter().map(|text| Filter::from_peer(text)).collect();
    let filters = filters.map_err(|error| error.to_string())?;
    match filters.iter().find(|filter| filter.carries() == Carries::Direct) {
        Some(filter) => Err(format!("a subscriber on {filter}, which is for inboxes")),
        None => Ok(filters),
    }
}

/// What a peer's inbox is for: what is sent to the peer's own name.
fn inbox_of(card: &PortCard, name: &str) -> Result<Filter, String> {
    let own = Filter::inbox_of(name).map_err(|error| error.to_string())?;
    match &card.filters[..] {
        [topic] if topic == own.as_str() => Ok(own),
        other => Err(format!("an inbox of {name} on {other:?}")),
    }
}

/// Takes what a reading port comes with.
fn open_reading(fds: Vec<Arc<OwnedFd>>, filters: Arc<[Filter]>) -> Result<Reading, Trouble> {
    let [segment, bell] = <[_; 2]>::try_from(fds).map_err(|_| Trouble::Shortage(BARE.to_owned()))?;
    let bell = Bell::from_peer(bell).map_err(|error| bell_trouble(&error))?;
    let segments = HashMap::from([(0, open_cursor_segment(&segment)?)]);
    Ok(Reading { filters, bell, segments, lost_segment: false })
}

/// Checks and maps the cursor segment of a peer's port.
pub(super) fn open_cursor_segment(fd: &OwnedFd) -> Result<Arc<PeerSegment>, Trouble> {
    let what = "a cursor segment";
    let segment = PeerSegment::open(fd, MAX_CURSOR_SEGMENT, Pages::Mapped)
        .map_err(|error| segment_trouble(what, &error))?;
    CursorSegment::check(&segment).map_err(|error| format!("{what}: {error}"))?;
    Ok(Arc::new(segment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_reads_what_is_sent_to_another_name() {
        let card = |role, filters: &[&str]| PortCard {
            id: 1,
            role,
            filters: filters.iter().map(|text| (*text).to_owned()).collect(),
            pattern: false,
            denied: false,
            lossy: false,
            priority: 128,
            capacity: None,
            version: None,
        };
        let inbox = |filters: &[&str]| inbox_of(&card(Role::Inbox, filters), "critic");
        assert_eq!(inbox(&["@to/critic"]), Ok(Filter::inbox_of("critic").unwrap()));
        for filters in [&[][..], &["@to/other"], &["critic"], &["**"], &["@to/critic", "@to/other"]] {
            assert!(inbox(filters).is_err(), "{filters:?}");
        }
        let subscriber = |filters: &[&str]| filters_of(&card(Role::Subscriber, filters));
        assert!(subscriber(&["a/**", "@all", "@later"]).is_ok());
        assert!(subscriber(&["a", "@to/critic"]).is_err() && subscriber(&["@to/**"]).is_err());
    }
}
