//! Control ops: the datagrams of a session, `[5, op, fields…]`.

use super::head::read_kind;
use super::port::{PortStatsList, PortUp};
use super::read::Reader;
use super::write::Writer;
use super::{DecodeError, EncodeError, Kind, MAX_DATAGRAM, MAX_STRING};

/// Who a node is and what it can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Protocol version; two majors do not talk to each other.
    pub major: u16,
    /// Protocol version within the major; newer ones only add.
    pub minor: u16,
    /// The node's random id.
    pub id: [u8; 16],
    /// The node's name; need not be unique.
    pub name: &'a str,
    /// When the node started, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// What the node can do, a bit each; what both can do holds.
    pub capabilities: u64,
}

/// A writing port lets a reading port read a log. Comes with two fds: the log, the writer's bell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attach {
    /// The log's id, never reused by its node.
    pub log: u64,
    /// The sender's port that writes it.
    pub writer_port: u64,
    /// The receiver's port that shall read it.
    pub reader_port: u64,
    /// The reader's number as addressee of records, never reused within the log.
    pub reader_number: u16,
    /// Where to read from; the gate stands there.
    pub position: u64,
    /// Sequence number of the record at `position`, where it is exact.
    pub sequence: Option<u64>,
    /// Bytes of the log's ring.
    pub capacity: u64,
    /// The log that this one continues: to be read to its end first.
    pub predecessor: Option<u64>,
}

/// One datagram of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control<'a> {
    /// The dialling node's first datagram.
    Hello(Hello<'a>),
    /// The answer to it.
    HelloAck(Hello<'a>),
    /// The sender speaks this version, another major than the receiver; it closes.
    Incompatible {
        /// The sender's major version.
        major: u16,
        /// The sender's minor version.
        minor: u16,
    },
    /// A port exists.
    PortUp(PortUp<'a>),
    /// Every port that existed at the hello has been told.
    PortsDone,
    /// A port is closed.
    PortDown {
        /// The port's id.
        port: u64,
    },
    /// Read this log.
    Attach(Attach),
    /// The log is read; its cursor is in this slot. Comes with an fd when the segment is a new one.
    Attached {
        /// The log's id.
        log: u64,
        /// The port that reads it.
        reader_port: u64,
        /// Which of the port's segments, from 0.
        segment: u32,
        /// Which line of the segment.
        slot: u32,
    },
    /// The sender no longer reads the receiver's log: take its gate away.
    Detach {
        /// The log's id.
        log: u64,
        /// The reader's number.
        reader_number: u16,
    },
    /// The gate is gone: the cursor slot may be used again.
    Detached {
        /// The log's id.
        log: u64,
        /// The reader's number.
        reader_number: u16,
    },
    /// So many datagrams have arrived with their fds.
    Ack {
        /// Datagrams received since the session began.
        count: u64,
    },
    /// A datagram arrived without its fds: send again from there on.
    Resend {
        /// Count of the datagram.
        from: u64,
    },
    /// The answer to it: the next datagram is the one with this count.
    Resending {
        /// Count of the datagram.
        from: u64,
    },
    /// The sender leaves the bus.
    Goodbye,
    /// Asks for the statistics of the receiver's ports.
    Stats {
        /// Chosen by the sender.
        request: u64,
    },
    /// The answer, in as many datagrams as it takes.
    StatsReply {
        /// The number in the question.
        request: u64,
        /// When they were taken, in nanoseconds of the monotonic clock.
        taken_ns: u64,
        /// Milliseconds since the node started.
        uptime_ms: u64,
        /// Whether another datagram follows for this question.
        more: bool,
        /// Ports' statistics.
        ports: PortStatsList<'a>,
    },
    /// The sender's heartbeats are in this log. Comes with one fd: the log.
    Heartbeat {
        /// The log's id.
        log: u64,
        /// Bytes of the log's ring.
        capacity: u64,
        /// Milliseconds between two heartbeats.
        interval_ms: u64,
    },
    /// A segment that records of this log may name. Comes with one fd: the segment.
    Blob {
        /// The log's id.
        log: u64,
        /// The reader's number.
        reader_number: u16,
        /// The blob's id, never reused within the log.
        blob: u64,
        /// Bytes of the segment.
        size: u64,
    },
    /// No record names this blob any more: the reader may let go of it.
    BlobGone {
        /// The log's id.
        log: u64,
        /// The reader's number.
        reader_number: u16,
        /// The blob's id.
        blob: u64,
    },
    /// The sender's access list does not let the receiver's user do this to the sender.
    Denied {
        /// Which action: 0 publish, 1 subscribe, 2 call, 3 serve.
        action: u8,
        /// The topic, pattern or service.
        topic: &'a str,
    },
    /// The receiver has used up what the sender gives each peer, and was refused what it asked for.
    Exhausted {
        /// What: 0 ports, 1 attachments, 2 mappings, 3 descriptors.
        resource: u8,
        /// How much there is.
        limit: u64,
    },
    /// The sender had no room for the fds that came with something, and has now: send that again.
    Again {
        /// What: 0 heartbeat, 1 port_up, 2 attach, 3 attached, 4 blob.
        what: u8,
        /// 1: the receiver's port; 2: its writing port; 3: the sender's log; 4: the receiver's log.
        of: u64,
        /// 2: the sender's reading port; 4: the blob; else 0.
        id: u64,
        /// 3, 4: the reader's number; else 0.
        reader_number: u16,
    },
}

/// How many fields each op has, by its number.
const FIELDS: [u32; 22] = [6, 6, 2, PortUp::FIELDS, 0, 1, 8, 4, 2, 2, 1, 1, 1, 0, 1, 5, 3, 4, 3, 2, 2, 4];

impl<'a> Control<'a> {
    /// The op's number on the wire.
    pub fn op(&self) -> u8 {
        match self {
            Control::Hello(_) => 0,
            Control::HelloAck(_) => 1,
            Control::Incompatible { .. } => 2,
            Control::PortUp(_) => 3,
            Control::PortsDone => 4,
            Control::PortDown { .. } => 5,
            Control::Attach(_) => 6,
            Control::Attached { .. } => 7,
            Control::Detach { .. } => 8,
            Control::Detached { .. } => 9,
            Control::Ack { .. } => 10,
            Control::Resend { .. } => 11,
            Control::Resending { .. } => 12,
            Control::Goodbye => 13,
            Control::Stats { .. } => 14,
            Control::StatsReply { .. } => 15,
            Control::Heartbeat { .. } => 16,
            Control::Blob { .. } => 17,
            Control::BlobGone { .. } => 18,
            Control::Denied { .. } => 19,
            Control::Exhausted { .. } => 20,
            Control::Again { .. } => 21,
        }
    }

    /// Decodes a datagram.
    ///
    /// # Errors
    /// [`DecodeError::UnknownOp`] and [`DecodeError::UnknownRole`] are for the session to ignore
    /// ([`DecodeError::is_unknown`]); anything else is a peer that does not keep to the protocol.
    pub fn decode(bytes: &'a [u8]) -> Result<Control<'a>, DecodeError> {
        if bytes.len() > MAX_DATAGRAM {
            return Err(DecodeError::Limit { what: "control datagram", limit: MAX_DATAGRAM as u64, at: 0 });
        }
        let mut reader = Reader::new(bytes);
        let (kind, found) = read_kind(&mut reader)?;
        if kind != Kind::Control {
            return Err(DecodeError::Expected { what: "a control frame", at: 0 });
        }
        let op = reader.uint()?;
        let known = usize::try_from(op).ok().and_then(|op| FIELDS.get(op));
        let needed = *known.ok_or(DecodeError::UnknownOp { op })?;
        let unknown = found.checked_sub(needed).ok_or_else(|| {
            let before = kind.elements();
            DecodeError::Fields { needed: needed + before, found: found.saturating_add(before) }
        })?;
        let control = Self::read(op, &mut reader)?;
        reader.skip(unknown)?;
        reader.end()?;
        Ok(control)
    }

    fn read(op: u64, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match op {
            0 => Control::Hello(Hello::read(reader)?),
            1 => Control::HelloAck(Hello::read(reader)?),
            2 => Control::Incompatible {
                major: reader.uint16("major version")?,
                minor: reader.uint16("minor version")?,
            },
            3 => Control::PortUp(PortUp::read(reader)?),
            4 => Control::PortsDone,
            5 => Control::PortDown { port: reader.uint()? },
            6 => Control::Attach(Attach::read(reader)?),
            7 => Control::Attached {
                log: reader.uint()?,
                reader_port: reader.uint()?,
                segment: reader.uint32("segment")?,
                slot: reader.uint32("slot")?,
            },
            8 => Control::Detach { log: reader.uint()?, reader_number: reader.uint16("reader number")? },
            9 => Control::Detached { log: reader.uint()?, reader_number: reader.uint16("reader number")? },
            10 => Control::Ack { count: reader.uint()? },
            11 => Control::Resend { from: reader.uint()? },
            12 => Control::Resending { from: reader.uint()? },
            13 => Control::Goodbye,
            14 => Control::Stats { request: reader.uint()? },
            15 => Control::StatsReply {
                request: reader.uint()?,
                taken_ns: reader.uint()?,
                uptime_ms: reader.uint()?,
                more: reader.bool()?,
                ports: PortStatsList::read(reader)?,
            },
            16 => Control::Heartbeat {
                log: reader.uint()?,
                capacity: reader.uint()?,
                interval_ms: reader.uint()?,
            },
            17 => Control::Blob {
                log: reader.uint()?,
                reader_number: reader.uint16("reader number")?,
                blob: reader.uint()?,
                size: reader.uint()?,
            },
            18 => Control::BlobGone {
                log: reader.uint()?,
                reader_number: reader.uint16("reader number")?,
                blob: reader.uint()?,
            },
            19 => {
                Control::Denied { action: reader.uint8("action")?, topic: reader.str("topic", MAX_STRING)? }
            }
            20 => Control::Exhausted { resource: reader.uint8("resource")?, limit: reader.uint()? },
            21 => Control::Again {
                what: reader.uint8("what to send again")?,
                of: reader.uint()?,
                id: reader.uint()?,
                reader_number: reader.uint16("reader number")?,
            },
            _ => return Err(DecodeError::UnknownOp { op }),
        })
    }

    /// Encodes the datagram at the start of `out`; returns its length.
    ///
    /// # Errors
    /// [`EncodeError`]; `out` may then have been written in part.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(out);
        self.write(&mut writer);
        writer.finish()
    }

    /// Length of the encoded datagram.
    pub fn encoded_len(&self) -> usize {
        Writer::measure(|writer| self.write(writer))
    }

    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        let op = self.op();
        writer.array(Kind::Control.elements() + FIELDS[usize::from(op)]);
        writer.uint(Kind::Control as u64);
        writer.uint(u64::from(op));
        match *self {
            Control::Hello(ref hello) | Control::HelloAck(ref hello) => hello.write(writer),
            Control::Incompatible { major, minor } => {
                writer.uint(u64::from(major));
                writer.uint(u64::from(minor));
            }
            Control::PortUp(ref port) => port.write(writer),
            Control::PortsDone | Control::Goodbye => {}
            Control::Attach(ref attach) => attach.write(writer),
            Control::Attached { log, reader_port, segment, slot } => {
                writer.uint(log);
                writer.uint(reader_port);
                writer.uint(u64::from(segment));
                writer.uint(u64::from(slot));
            }
            Control::Detach { log, reader_number } | Control::Detached { log, reader_number } => {
                writer.uint(log);
                writer.uint(u64::from(reader_number));
            }
            Control::PortDown { port: value }
            | Control::Ack { count: value }
            | Control::Resend { from: value }
            | Control::Resending { from: value }
            | Control::Stats { request: value } => writer.uint(value),
            Control::StatsReply { request, taken_ns, uptime_ms, more, ports } => {
                writer.uint(request);
                writer.uint(taken_ns);
                writer.uint(uptime_ms);
                writer.bool(more);
                ports.write(writer);
            }
            Control::Heartbeat { log, capacity, interval_ms } => {
                writer.uint(log);
                writer.uint(capacity);
                writer.uint(interval_ms);
            }
            Control::Blob { log, reader_number, blob, size } => {
                writer.uint(log);
                writer.uint(u64::from(reader_number));
                writer.uint(blob);
                writer.uint(size);
            }
            Control::BlobGone { log, reader_number, blob } => {
                writer.uint(log);
                writer.uint(u64::from(reader_number));
                writer.uint(blob);
            }
            Control::Denied { action, topic } => {
                writer.uint(u64::from(action));
                writer.str(topic, "topic", MAX_STRING);
            }
            Control::Exhausted { resource, limit } => {
                writer.uint(u64::from(resource));
                writer.uint(limit);
            }
            Control::Again { what, of, id, reader_number } => {
                writer.uint(u64::from(what));
                writer.uint(of);
                writer.uint(id);
                writer.uint(u64::from(reader_number));
            }
        }
        writer.limit("control datagram", writer.written(), MAX_DATAGRAM);
    }
}

impl<'a> Hello<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Hello {
            major: reader.uint16("major version")?,
            minor: reader.uint16("minor version")?,
            id: reader.id()?,
            name: reader.str("node name", MAX_STRING)?,
            started_unix_ms: reader.uint()?,
            capabilities: reader.uint()?,
        })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.uint(u64::from(self.major));
        writer.uint(u64::from(self.minor));
        writer.bin(&self.id, "node id");
        writer.str(self.name, "node name", MAX_STRING);
        writer.uint(self.started_unix_ms);
        writer.uint(self.capabilities);
    }
}

impl Attach {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Attach {
            log: reader.uint()?,
            writer_port: reader.uint()?,
            reader_port: reader.uint()?,
            reader_number: reader.uint16("reader number")?,
            position: reader.uint()?,
            sequence: reader.optional(Reader::uint)?,
            capacity: reader.uint()?,
            predecessor: reader.optional(Reader::uint)?,
        })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.uint(self.log);
        writer.uint(self.writer_port);
        writer.uint(self.reader_port);
        writer.uint(u64::from(self.reader_number));
        writer.uint(self.position);
        writer.optional(self.sequence, Writer::uint);
        writer.uint(self.capacity);
        writer.optional(self.predecessor, Writer::uint);
    }
}
