//! What one peer may use of a node.

use std::fmt;

use super::peer::NodeInfo;
use crate::sys::limits;

/// What a single other node may use of this one; see [`BusBuilder::quotas`](crate::BusBuilder::quotas).
///
/// A node that wants more than that is refused the rest, told so, and counted
/// ([`Node::exhaustions`](crate::Node::exhaustions)); what it has goes on, and other nodes notice nothing. Calls whose
/// client was refused end with `ResourceExhausted`.
///
/// # Examples
/// ```
/// use ringbus::{Bus, Quotas};
///
/// # let dir = std::env::temp_dir().join(format!("ringbus-quotas-{}", std::process::id()));
/// let small = Quotas::default().ports(16).attachments(64).unread_bytes(1 << 20);
/// let bus = Bus::builder("agents").dir(&dir).quotas(small).open()?;
/// # std::fs::remove_dir_all(dir).unwrap();
/// # Ok::<(), ringbus::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    pub(super) ports: usize,
    pub(super) attachments: usize,
    pub(super) mappings: usize,
    pub(super) descriptors: usize,
    pub(super) unread_messages: usize,
    pub(super) unread_bytes: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        let open_files = limits::limit(limits::Resource::OpenFiles).map_or(1024, |limit| limit.soft);
        Self {
            ports: 4096,
            attachments: 4096,
            mappings: 8192,
            descriptors: usize::try_from(open_files / 2).unwrap_or(usize::MAX).max(16),
            unread_messages: 1 << 14,
            unread_bytes: 16 << 20,
        }
    }
}

impl Quotas {
    /// Ports that the node may have open; default 4096. Each costs this node about a KiB, and one that reads
    /// a mapping and a file descriptor.
    pub fn ports(mut self, most: usize) -> Self {
        self.ports = most;
        self
    }

    /// Logs that the node may have this one's ports read; default 4096. Each costs a mapping, a file descriptor and the
    /// address space of the log; one that a server reads another descriptor, and shared memory for answers (68 KiB
    /// unless its builder says otherwise).
    pub fn attachments(mut self, most: usize) -> Self {
        self.attachments = most;
        self
    }

    /// The node's segments that this one maps: logs, blobs and cursors; default 8192, an eighth of what Linux
    /// gives a process (`vm.max_map_count`).
    pub fn mappings(mut self, most: usize) -> Self {
        self.mappings = most;
        self
    }

    /// File descriptors that this node holds for the other; default half of what the process may have open
    /// (`RLIMIT_NOFILE`) when this value is made, and at least 16.
    pub fn descriptors(mut self, most: usize) -> Self {
        self.descriptors = most;
        self
    }

    /// Control messages that are kept for the node while it does not read; default 16 384. A node that has left more
    /// unread is parted with, and can come back when it reads again. What a node is told first, each port that there is,
    /// comes beside them.
    pub fn unread_messages(mut self, most: usize) -> Self {
        self.unread_messages = most;
        self
    }

    /// Bytes of them; default 16 MiB, which is memory used only when there are as many.
    pub fn unread_bytes(mut self, most: usize) -> Self {
        self.unread_bytes = most;
        self
    }

    /// What of these would be too much by one more.
    pub(super) fn limit(&self, resource: Resource) -> usize {
        match resource {
            Resource::Ports => self.ports,
            Resource::Attachments => self.attachments,
            Resource::Mappings => self.mappings,
            Resource::Descriptors => self.descriptors,
        }
    }
}

/// What a node can use up; see [`Quotas`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Resource {
    /// Open ports.
    Ports,
    /// Logs that it gave others to read.
    Attachments,
    /// Segments that others map.
    Mappings,
    /// File descriptors that others hold for it.
    Descriptors,
}

impl Resource {
    pub(super) const ALL: [Resource; 4] =
        [Resource::Ports, Resource::Attachments, Resource::Mappings, Resource::Descriptors];

    /// Its number in a datagram.
    pub(super) fn to_wire(self) -> u8 {
        self as u8
    }

    pub(super) fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Resource::Ports => "ports",
            Resource::Attachments => "attachments",
            Resource::Mappings => "mappings",
            Resource::Descriptors => "descriptors",
        })
    }
}

/// Quotas that were used up; from [`Node::exhaustions`](crate::Node::exhaustions).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exhaustions {
    /// How often this node has refused other nodes what was beyond its [`Quotas`].
    pub by_this_node: u64,
    /// How often others have refused this node what was beyond theirs.
    pub by_others: u64,
    /// The latest 64, the newest last; each node and resource is listed once.
    pub latest: Vec<Exhaustion>,
}

/// A quota that was used up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exhaustion {
    /// The other node.
    pub node: NodeInfo,
    /// Whether that node has used up what this one gives it; else it was the other way round.
    pub by_this_node: bool,
    /// What was used up.
    pub resource: Resource,
    /// How much there is.
    pub limit: u64,
}
