//! What the control ops say about ports.

use super::list::{Element, List};
use super::read::Reader;
use super::write::Writer;
use super::{DecodeError, MAX_DATAGRAM, MAX_STRING, Strings};

/// What a port does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// Writes one log, that its subscribers read.
    Publisher = 0,
    /// Reads the logs of the publishers that match.
    Subscriber = 1,
    /// Calls a service.
    Client = 2,
    /// Serves the calls of its clients.
    Server = 3,
    /// Takes what is sent to the node's name.
    Inbox = 4,
}

impl Role {
    /// The role with this number, if this version knows it.
    pub fn from_wire(number: u8) -> Option<Role> {
        Some(match number {
            0 => Role::Publisher,
            1 => Role::Subscriber,
            2 => Role::Client,
            3 => Role::Server,
            4 => Role::Inbox,
            _ => return None,
        })
    }
}

/// A port exists. From a reading port it comes with two fds: its segment, its bell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortUp<'a> {
    /// The port's id, never reused by its node.
    pub port: u64,
    /// What it does.
    pub role: Role,
    /// A subscriber's filters; else the one topic, pattern or service name.
    pub filters: Strings<'a>,
    /// [`PortUp::PATTERN`], [`PortUp::DENIED`], [`PortUp::LOSSY`]; other bits are written as 0 and ignored when read.
    pub flags: u64,
    /// Readers take what higher ports wrote first.
    pub priority: u8,
    /// Bytes of the port's log, of a writing port.
    pub capacity: Option<u64>,
    /// What the port's user says of its version, of a server.
    pub version: Option<&'a str>,
}

impl<'a> PortUp<'a> {
    /// Flag of a publisher that was opened over a pattern.
    pub const PATTERN: u64 = 1;
    /// Flag of a server that the receiver may not call, and of an inbox that it may not send to.
    pub const DENIED: u64 = 2;
    /// Flag of a subscriber that wants no gates.
    pub const LOSSY: u64 = 4;
    /// The priority of a port that was given none; nil reads as this.
    pub const DEFAULT_PRIORITY: u8 = 128;
    pub(super) const FIELDS: u32 = 7;

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(PortUp {
            port: reader.uint()?,
            role: {
                let role = reader.uint8("role")?;
                Role::from_wire(role).ok_or(DecodeError::UnknownRole { role })?
            },
            filters: Strings::read(reader)?,
            flags: reader.uint()?,
            priority: reader.optional(|reader| reader.uint8("priority"))?.unwrap_or(Self::DEFAULT_PRIORITY),
            capacity: reader.optional(Reader::uint)?,
            version: reader.optional(|reader| reader.str("version", MAX_STRING))?,
        })
    }

    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        writer.uint(self.port);
        writer.uint(self.role as u64);
        self.filters.write(writer);
        writer.uint(self.flags);
        writer.uint(u64::from(self.priority));
        writer.optional(self.capacity, Writer::uint);
        writer.optional(self.version, |writer, version| writer.str(version, "version", MAX_STRING));
    }
}

/// What a port has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortStats<'a> {
    /// The port's id.
    pub port: u64,
    /// Number of its [`Role`]; one that this version does not know is handed on as it is.
    pub role: u8,
    /// Its topic, first filter or service name.
    pub name: &'a str,
    /// Messages written or read.
    pub messages: u64,
    /// Payload bytes written or read.
    pub bytes: u64,
    /// Messages dropped (writer) or missed (reader).
    pub dropped: u64,
    /// Nanoseconds spent waiting for a reader to make room.
    pub blocked_ns: u64,
    /// Bytes that the slowest reader (writer), or this reader, is behind.
    pub lag: u64,
    /// Ports at the other end.
    pub peers: u64,
    /// Readers that were cut off; 0 where it is not told.
    pub evicted: u64,
}

/// Ports' statistics: at most 512 in one datagram.
pub type PortStatsList<'a> = List<'a, PortStats<'a>, PortStats<'a>>;

impl PortStats<'_> {
    /// All but those that came later, which may be missing.
    const NEEDED: u32 = 9;
    const ELEMENTS: u32 = 10;
}

impl<'a> Element<'a> for PortStats<'a> {
    type Owned = PortStats<'a>;
    const MAP: bool = false;
    const WHAT: &'static str = "port statistics";
    // What is kept of one is nine times as large as the smallest on the wire.
    const MAX_COUNT: usize = 512;
    const MAX_BYTES: usize = MAX_DATAGRAM;

    fn borrow(owned: &'a Self) -> Self {
        *owned
    }

    fn weight(&self) -> usize {
        self.name.len()
    }

    fn read(reader: &mut Reader<'a>, weight: usize) -> Result<Self, DecodeError> {
        let found = reader.array()?;
        let needed = Self::NEEDED;
        let more = found.checked_sub(needed).ok_or(DecodeError::Fields { needed, found })?;
        let stats = PortStats {
            port: reader.uint()?,
            role: reader.uint8("role")?,
            name: reader.str("port name", weight.min(MAX_STRING))?,
            messages: reader.uint()?,
            bytes: reader.uint()?,
            dropped: reader.uint()?,
            blocked_ns: reader.uint()?,
            lag: reader.uint()?,
            peers: reader.uint()?,
            evicted: if more > 0 { reader.uint()? } else { 0 },
        };
        reader.skip(found.saturating_sub(Self::ELEMENTS))?;
        Ok(stats)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.array(Self::ELEMENTS);
        writer.uint(self.port);
        writer.uint(u64::from(self.role));
        writer.str(self.name, "port name", MAX_STRING);
        let Self { messages, bytes, dropped, blocked_ns, lag, peers, evicted, .. } = *self;
        for count in [messages, bytes, dropped, blocked_ns, lag, peers, evicted] {
            writer.uint(count);
        }
    }
}
