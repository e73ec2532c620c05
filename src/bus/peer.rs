//! Who else is on the bus.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::control::{NodeId, PortCard, Refusal};
use crate::frame::{Role, Stats};
use crate::sys::clock;

/// A node, as the sender of a message or a member of the bus. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct NodeInfo(Arc<Inner>);

#[derive(PartialEq, Eq, Hash)]
struct Inner {
    id: NodeId,
    name: Arc<str>,
    pid: i32,
    uid: u32,
    started_unix_ms: u64,
}

impl NodeInfo {
    pub(super) fn new(id: NodeId, name: Arc<str>, pid: i32, uid: u32, started_unix_ms: u64) -> Self {
        Self(Arc::new(Inner { id, name, pid, uid, started_unix_ms }))
    }

    /// The random id that tells nodes of one name apart.
    pub fn id(&self) -> NodeId {
        self.0.id
    }

    /// The name it joined as; need not be unique.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its process id as this process sees it, told by the kernel; 0 if it is in a pid namespace that this
    /// process cannot see.
    pub fn pid(&self) -> i32 {
        self.0.pid
    }

    /// Its user id, told by the kernel.
    pub fn uid(&self) -> u32 {
        self.0.uid
    }

    /// Time since it joined, by its own word and the wall clock.
    pub fn uptime(&self) -> Duration {
        Duration::from_millis(clock::unix_ms().saturating_sub(self.0.started_unix_ms))
    }
}

impl fmt::Display for NodeInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}, node {})", self.name(), self.pid(), self.id().short())
    }
}

impl fmt::Debug for NodeInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}, node {})", self.name(), self.pid(), self.id())
    }
}

/// Another node on the bus, as it was when asked for, or when what was told of it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub(super) node: NodeInfo,
    pub(super) ports: Arc<[PortInfo]>,
    pub(super) stalled: bool,
    pub(super) heartbeat: Option<Arc<Heartbeat>>,
}

impl Peer {
    #[cfg(test)]
    pub(super) fn new(node: NodeInfo) -> Self {
        Self { node, ports: Arc::default(), stalled: false, heartbeat: None }
    }

    /// Who it is.
    pub fn node(&self) -> &NodeInfo {
        &self.node
    }

    /// The name it joined as.
    pub fn name(&self) -> &str {
        self.node.name()
    }

    /// Its id.
    pub fn id(&self) -> NodeId {
        self.node.id()
    }

    /// Its process id; see [`NodeInfo::pid`].
    pub fn pid(&self) -> i32 {
        self.node.pid()
    }

    /// Its user id.
    pub fn uid(&self) -> u32 {
        self.node.uid()
    }

    /// Its open ports, in the order of their opening.
    pub fn ports(&self) -> &[PortInfo] {
        &self.ports
    }

    /// Whether it has shown no sign of life for three seconds: its process is stopped, or starved of
    /// processor time. A node that was stopped before it had fully joined is not known to be.
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// The latest heartbeat that was read of it: one a second; none in its first seconds.
    pub fn heartbeat(&self) -> Option<&Heartbeat> {
        self.heartbeat.as_deref()
    }
}

/// A node's sign of life, by its own word.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Heartbeat {
    /// Counts the node's heartbeats, from 0.
    pub sequence: u64,
    /// Time since it joined, on its own clock.
    pub uptime: Duration,
    /// What it has counted. This version tells `ports`, those that are open, and what these have `published`,
    /// `received` and `dropped` (as publishers) or missed (as subscribers), in messages.
    pub stats: BTreeMap<String, u64>,
}

impl Heartbeat {
    pub(super) fn new(sequence: u64, uptime_ms: u64, counters: Stats<'_>) -> Self {
        let mut stats = BTreeMap::new();
        for (name, value) in counters.iter() {
            stats.entry(name.to_owned()).or_insert(value); // the first counts
        }
        Self { sequence, uptime: Duration::from_millis(uptime_ms), stats }
    }
}

impl From<&NodeInfo> for NodeId {
    fn from(node: &NodeInfo) -> Self {
        node.id()
    }
}

impl From<&Peer> for NodeId {
    fn from(peer: &Peer) -> Self {
        peer.id()
    }
}

/// A port of another node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortInfo {
    /// Its number within its node, never reused.
    pub id: u64,
    /// `publisher`, `subscriber`, …
    pub role: &'static str,
    /// Its topic or pattern; a subscriber's filters.
    pub filters: Vec<String>,
    /// A subscriber that holds no publisher up; see
    /// [`SubscriberBuilder::lossy`](crate::SubscriberBuilder::lossy).
    pub lossy: bool,
    /// Bytes of a publisher's log.
    pub capacity: Option<u64>,
    /// Readers take what ports of a higher priority wrote first.
    pub priority: u8,
    /// What a server says of its version.
    pub version: Option<String>,
}

impl From<&PortCard> for PortInfo {
    fn from(card: &PortCard) -> Self {
        Self {
            id: card.id,
            role: role_name(Some(card.role)),
            filters: card.filters.clone(),
            lossy: card.lossy,
            capacity: card.capacity,
            priority: card.priority,
            version: card.version.clone(),
        }
    }
}

/// What a role is called; `None` is one that this version does not know.
pub(super) fn role_name(role: Option<Role>) -> &'static str {
    match role {
        Some(Role::Publisher) => "publisher",
        Some(Role::Subscriber) => "subscriber",
        Some(Role::Client) => "client",
        Some(Role::Server) => "server",
        Some(Role::Inbox) => "inbox",
        None => "unknown",
    }
}

/// A node that was not let in, or was cut off; see [`Node::refused`](crate::Node::refused).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedNode {
    /// Its id, where it got as far as saying it.
    pub id: Option<NodeId>,
    /// Why.
    pub why: Refusal,
}
