//! Clients and servers: which there are, and the two logs between them.
//!
//! ```text
//!   client's node                                  server's node
//!   the first call: makes the request log,
//!     gate at 0 ── Attach ────────────────────────▶ makes the answer log, gate at 0
//!                      ◀────────────── Attach ──── then shows the requests to its port
//! ```
//!
//! Each log has one reader. Neither end waits for the other's Attached: until then the gate stands at 0.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::super::access::Action;
use super::super::log::{Gates, NewLog, OutletShared};
use super::super::reading::{Change, InletShared, LogKey, Purpose};
use super::access::{does_not_let, is_not_let};
use super::attach::{LocalOutlet, LocalSource};
use super::peers::{PeerState, RemotePort};
use super::{Core, Trouble};
use crate::bus::status::Status;
use crate::control::{Gone, NodeId};
use crate::frame::{Attach, Role};

/// Whether a peer's port may give this client or server a log: it has to be the other end of its service.
pub(super) fn check(reader: &InletShared, writer: &RemotePort) -> Result<(), String> {
    let other_end = match reader.purpose {
        Purpose::Client(_) => Role::Server,
        Purpose::Server { .. } => Role::Client,
        Purpose::Subscriber { .. } | Purpose::Inbox => return Err("a subscriber in a pair".to_owned()),
    };
    let service = service(reader);
    if writer.card.role != other_end || writer.card.filters.first().map(String::as_str) != Some(service) {
        return Err(format!("a log for service {service} of a port that is no {other_end:?} of it"));
    }
    Ok(())
}

/// Whether a server may give this client a log: it has one there at a time. (Of a client's second log, see
/// [`Core::open_reply`].)
pub(super) fn check_first(
    sources: &HashMap<(u64, LogKey), LocalSource>,
    reader: &InletShared,
    (node, server): (NodeId, u64),
) -> Result<(), String> {
    let is_first = |((port, key), source): (&(u64, LogKey), &LocalSource)| {
        *port == reader.port && key.node == node && source.is_written_by(server) && source.is_live()
    };
    if reader.role() == Role::Client && sources.iter().any(is_first) {
        return Err(format!("a second log of answers from server {server}"));
    }
    Ok(())
}

fn service(port: &InletShared) -> &str {
    port.filters.first().map_or("", |filter| filter.as_str())
}

impl Core {
    /// The ports that write one log each, to whoever's filters match.
    pub(super) fn publishers(&self) -> impl Iterator<Item = &LocalOutlet> {
        self.outlets.values().filter(|outlet| outlet.shared.only.is_none())
    }

    /// A client's first call to a server.
    pub(super) fn open_pair(&mut self, shared: Arc<OutletShared>) {
        let Some((node, server)) = shared.only else { return };
        let log = shared.log;
        self.outlets.insert(log, LocalOutlet::new(shared));
        self.add_gate(log, node, server, true);
    }

    /// The answer log for a client that has just sent its first request.
    pub(super) fn open_reply(
        &mut self,
        client: NodeId,
        attach: &Attach,
    ) -> Result<Arc<OutletShared>, Trouble> {
        let only = (client, attach.writer_port);
        // One without a gate is left of an earlier session: the port has not let go of it yet.
        if self.outlets.values().any(|LocalOutlet { shared, readers, .. }| {
            shared.port == attach.reader_port && shared.only == Some(only) && !readers.is_empty()
        }) {
            return Err(format!("client {} attached twice", attach.writer_port).into());
        }
        self.end_pair(attach.reader_port, only);
        let inlet = self.inlets.get(&attach.reader_port).ok_or("a server that has gone")?;
        let Purpose::Server { capacity, .. } = inlet.shared.purpose else {
            return Err("a request to a port that is no server".into());
        };
        let shared = OutletShared::create(NewLog {
            node: self.me.id(),
            port: attach.reader_port,
            log: self.next_log.fetch_add(1, Relaxed),
            filter: inlet.shared.filters[0].clone(),
            capacity,
            priority: inlet.shared.priority,
            gates: Gates::new(),
            unread: Arc::default(),
            pair: Some((inlet.shared.bell.clone(), only)),
        })
        .map_err(|error| Trouble::Shortage(error.to_string()))?;
        let shared = Arc::new(shared);
        self.open_pair(shared.clone());
        Ok(shared)
    }

    /// What is left of an earlier pair of the same two ports ends, or a client could pile it up.
    fn end_pair(&mut self, server: u64, client: (NodeId, u64)) {
        let stale = |(log, outlet): (&u64, &LocalOutlet)| {
            (outlet.shared.port == server && outlet.shared.only == Some(client)).then_some(*log)
        };
        for log in self.outlets.iter().filter_map(stale).collect::<Vec<_>>() {
            self.close_log(log);
            self.end_logs_to(server, client);
        }
    }

    /// Ends the logs that one port of this node reads of one port of a peer.
    fn end_logs_to(&mut self, reader: u64, (node, writer): (NodeId, u64)) {
        let Some(inlet) = self.inlets.get(&reader) else { return };
        for ((port, key), source) in &mut self.sources {
            if *port == reader && key.node == node && source.is_written_by(writer) {
                inlet.shared.change(Change::End { key: *key, until: 0, gated: true });
                source.end(true);
            }
        }
    }

    /// Tells this node's clients of a server that has come.
    pub(super) fn tell_of_server(&mut self, node: NodeId, port: u64) {
        let Some(peer) = self.peers.get(&node) else { return };
        let Some(server) =
            peer.ports.get(&port).filter(|port| port.card.role == Role::Server && port.reads.is_some())
        else {
            return;
        };
        let mut denied = None;
        for inlet in self.inlets.values() {
            let own = &inlet.shared.filters[0];
            if let Purpose::Client(routes) = &inlet.shared.purpose
                && server.card.filters.first().map(String::as_str) == Some(own.as_str())
            {
                if !peer.standing.rights.allow(Action::Serve, own) {
                    routes.deny(node, port, is_not_let(&peer.node, Action::Serve, own.as_str()));
                    denied = Some(own.clone());
                } else if server.card.denied {
                    let why = does_not_let(&peer.node, &self.me, Action::Call, own.as_str());
                    routes.deny(node, port, why);
                } else {
                    routes.add(peer.node.clone(), port, peer.is_stalled());
                }
            }
        }
        if let Some(service) = denied {
            self.deny(node, Action::Serve, &service);
        }
    }

    /// Tells a new client of the servers that there are.
    pub(super) fn tell_of_servers(&mut self, client: u64) {
        if !self.inlets.get(&client).is_some_and(|inlet| inlet.shared.role() == Role::Client) {
            return;
        }
        let ports = self.peers.iter().flat_map(|(node, peer)| peer.ports.keys().map(|port| (*node, *port)));
        for (node, port) in ports.collect::<Vec<_>>() {
            self.tell_of_server(node, port); // those that know it are not told twice
        }
    }

    /// A node is gone, and its servers with it.
    pub(super) fn servers_gone(&mut self, peer: &PeerState, why: &Gone) {
        let why = match why {
            Gone::Goodbye => "its node has left the bus",
            Gone::Died | Gone::HungUp => "its process has died",
            Gone::Unread => "its node has not read for long",
            Gone::Cut(_) => "its node broke the protocol",
        };
        let servers = peer.ports.iter().filter(|(_, port)| port.card.role == Role::Server);
        for (port, _) in servers {
            self.server_gone(peer.node.id(), *port, why);
        }
    }

    /// A server is gone: calls that it has not answered end, once everything that it did answer was read.
    pub(super) fn server_gone(&mut self, node: NodeId, port: u64, why: &str) {
        for (reader, inlet) in &self.inlets {
            if let Purpose::Client(routes) = &inlet.shared.purpose {
                let answers = self.sources.iter().any(|((to, key), source)| {
                    to == reader && key.node == node && source.is_written_by(port)
                });
                if routes.remove(node, port, why, answers) {
                    inlet.shared.bell.ring();
                }
            }
        }
    }

    /// A server has let go of a client's log while both live: it was short of something.
    pub(super) fn pair_detached(&mut self, log: u64) {
        let Some(outlet) = self.outlets.get(&log) else { return };
        let Some((node, server)) = outlet.shared.only.filter(|_| outlet.readers.is_empty()) else { return };
        let (port, is_reset) = (outlet.shared.port, outlet.is_reset);
        let exhausted = self.take_exhaustion(node);
        if is_reset {
            return; // by this client, who was short of something: calls that have begun since are not concerned
        }
        let why = "it could not read the requests: it is out of memory or file descriptors";
        self.reset_pair(port, (node, server), why, exhausted);
    }

    /// The calls of a client to one server have failed, for want of something, or because this node has used up what the
    /// server's gives it; the next begins anew. That it lets go of no other server of the node is what keeps it from
    /// attaching to one twice.
    pub(super) fn reset_pair(
        &mut self,
        client: u64,
        (node, server): (NodeId, u64),
        why: &str,
        exhausted: Option<Status>,
    ) {
        if let Some(inlet) = self.inlets.get(&client)
            && let Purpose::Client(routes) = &inlet.shared.purpose
            // Only while it is there: what is added here is taken away with it.
            && let Some(peer) = self.peers.get(&node)
            && peer.ports.get(&server).is_some_and(|port| port.card.role == Role::Server)
        {
            match exhausted {
                Some(status) => routes.refuse(&peer.node, server, status),
                None => routes.reset(&peer.node, server, why),
            }
            inlet.shared.bell.ring();
            for LocalOutlet { shared, is_reset, .. } in self.outlets.values_mut() {
                *is_reset |= shared.port == client && shared.only == Some((node, server));
            }
        }
    }
}
