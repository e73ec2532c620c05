//! What sessions tell the ports, owned: decoded datagrams that outlive their buffer.

use crate::frame::{Attach, Control, PortStats, PortUp, Role};

/// A port as its node describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortCard {
    pub id: u64,
    pub role: Role,
    /// A subscriber's filters; else the one topic, pattern or service name.
    pub filters: Vec<String>,
    /// A publisher over a pattern.
    pub pattern: bool,
    /// The node that it is told to may not use it.
    pub denied: bool,
    /// A subscriber without gates.
    pub lossy: bool,
    pub priority: u8,
    /// Bytes of a writing port's log.
    pub capacity: Option<u64>,
    /// What the user of a server says of its version.
    pub version: Option<String>,
}

impl PortCard {
    /// Whether the port reads logs: then it comes with its cursor segment and its bell.
    pub fn reads(role: Role) -> bool {
        role != Role::Publisher
    }

    /// As announced, but for what the receiver is denied.
    pub fn flags(&self) -> u64 {
        let flag = |set, flag| if set { flag } else { 0 };
        flag(self.pattern, PortUp::PATTERN) | flag(self.lossy, PortUp::LOSSY)
    }
}

impl From<PortUp<'_>> for PortCard {
    fn from(up: PortUp<'_>) -> Self {
        Self {
            id: up.port,
            role: up.role,
            filters: up.filters.iter().map(str::to_owned).collect(),
            pattern: up.flags & PortUp::PATTERN != 0,
            denied: up.flags & PortUp::DENIED != 0,
            lossy: up.flags & PortUp::LOSSY != 0 && up.role == Role::Subscriber,
            priority: up.priority,
            capacity: up.capacity,
            version: up.version.map(str::to_owned),
        }
    }
}

/// A port's counters as its node reports them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortReport {
    pub port: u64,
    pub role: Option<Role>,
    pub name: String,
    pub messages: u64,
    pub bytes: u64,
    pub dropped: u64,
    pub evicted: u64,
    pub blocked_ns: u64,
    pub lag: u64,
    pub peers: u64,
}

impl PortReport {
    pub fn as_frame(&self) -> PortStats<'_> {
        PortStats {
            port: self.port,
            role: self.role.map_or(u8::MAX, |role| role as u8),
            name: &self.name,
            messages: self.messages,
            bytes: self.bytes,
            dropped: self.dropped,
            evicted: self.evicted,
            blocked_ns: self.blocked_ns,
            lag: self.lag,
            peers: self.peers,
        }
    }
}

impl From<PortStats<'_>> for PortReport {
    fn from(stats: PortStats<'_>) -> Self {
        Self {
            port: stats.port,
            role: Role::from_wire(stats.role),
            name: stats.name.to_owned(),
            messages: stats.messages,
            bytes: stats.bytes,
            dropped: stats.dropped,
            evicted: stats.evicted,
            blocked_ns: stats.blocked_ns,
            lag: stats.lag,
            peers: stats.peers,
        }
    }
}

/// A datagram of an established session that concerns the ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    PortUp(PortCard),
    PortsDone,
    PortDown { port: u64 },
    Attach(Attach),
    Attached { log: u64, reader_port: u64, segment: u32, slot: u32 },
    Detach { log: u64, reader_number: u16 },
    Detached { log: u64, reader_number: u16 },
    Stats { request: u64 },
    StatsReply { request: u64, taken_ns: u64, uptime_ms: u64, more: bool, ports: Vec<PortReport> },
    Heartbeat { log: u64, capacity: u64, interval_ms: u64 },
    Blob { log: u64, reader_number: u16, blob: u64, size: u64 },
    BlobGone { log: u64, reader_number: u16, blob: u64 },
    Denied { action: u8, topic: String },
    Exhausted { resource: u8, limit: u64 },
    Again { what: u8, of: u64, id: u64, reader_number: u16 },
}

impl Message {
    /// `None` for what the session and the hub handle themselves.
    pub(crate) fn from_control(control: &Control<'_>) -> Option<Self> {
        Some(match *control {
            Control::PortUp(up) => Message::PortUp(up.into()),
            Control::PortsDone => Message::PortsDone,
            Control::PortDown { port } => Message::PortDown { port },
            Control::Attach(attach) => Message::Attach(attach),
            Control::Attached { log, reader_port, segment, slot } => {
                Message::Attached { log, reader_port, segment, slot }
            }
            Control::Detach { log, reader_number } => Message::Detach { log, reader_number },
            Control::Detached { log, reader_number } => Message::Detached { log, reader_number },
            Control::Stats { request } => Message::Stats { request },
            Control::StatsReply { request, taken_ns, uptime_ms, more, ports } => Message::StatsReply {
                request,
                taken_ns,
                uptime_ms,
                more,
                ports: ports.iter().map(PortReport::from).collect(),
            },
            Control::Heartbeat { log, capacity, interval_ms } => {
                Message::Heartbeat { log, capacity, interval_ms }
            }
            Control::Blob { log, reader_number, blob, size } => {
                Message::Blob { log, reader_number, blob, size }
            }
            Control::BlobGone { log, reader_number, blob } => Message::BlobGone { log, reader_number, blob },
            Control::Denied { action, topic } => Message::Denied { action, topic: topic.to_owned() },
            Control::Exhausted { resource, limit } => Message::Exhausted { resource, limit },
            Control::Again { what, of, id, reader_number } => Message::Again { what, of, id, reader_number },
            Control::Hello(_)
            | Control::HelloAck(_)
            | Control::Incompatible { .. }
            | Control::Ack { .. }
            | Control::Resend { .. }
            | Control::Resending { .. }
            | Control::Goodbye => return None,
        })
    }
}

/// Whether a datagram may come with this many fds. Checked before anything is done with either.
pub(super) fn fds_fit(control: &Control<'_>, fds: usize) -> bool {
    match control {
        Control::PortUp(up) if PortCard::reads(up.role) => fds == 2,
        Control::Attach(_) => fds == 2,
        Control::Attached { .. } => fds <= 1,
        Control::Heartbeat { .. } | Control::Blob { .. } => fds == 1,
        _ => fds == 0,
    }
}

/// Whether a datagram of which this many fds have come may have had more.
pub(super) fn may_be_more(control: &Control<'_>, fds: usize) -> bool {
    (fds + 1..=2).any(|fds| fds_fit(control, fds))
}
