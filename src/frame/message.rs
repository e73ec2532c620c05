//! Whole frames.

use super::control::Control;
use super::head::{Head, read_kind};
use super::payload::{Payload, PayloadSpan};
use super::read::Reader;
use super::write::Writer;
use super::{Code, DecodeError, EncodeError, Headers, Kind, MAX_PAYLOAD, MAX_STRING, Stats};

/// A frame, borrowed from its bytes or from the values that it is encoded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A frame with a payload: request, response, event, broadcast, item, direct.
    Message {
        /// Everything before the payload.
        head: Head<'a>,
        /// The payload.
        payload: Payload<'a>,
    },
    /// A node's sign of life.
    Heartbeat {
        /// Counts the node's heartbeats.
        seq: u64,
        /// Milliseconds since the node started.
        uptime_ms: u64,
        /// The node's counters.
        stats: Stats<'a>,
    },
    /// What two nodes' sessions tell each other.
    Control(Control<'a>),
    /// The end of a streamed answer.
    End {
        /// The request's id.
        id: u64,
        /// How the call ended.
        status: Code,
        /// What went wrong, in words.
        message: Option<&'a str>,
        /// Headers.
        headers: Headers<'a>,
    },
    /// The caller no longer wants an answer.
    Cancel {
        /// The request's id.
        id: u64,
    },
    /// The caller can take more items of a streamed answer.
    Credit {
        /// The request's id.
        id: u64,
        /// How many more.
        n: u64,
    },
    /// A frame that came over a link.
    Link {
        /// Id of the node that sent it.
        source: [u8; 16],
        /// Counts the frames of that node on this link.
        sequence: u64,
        /// How many more links it may cross.
        ttl: u8,
        /// None defined yet: written as 0, ignored when read.
        flags: u64,
        /// The frame, not decoded.
        frame: &'a [u8],
    },
}

impl<'a> Frame<'a> {
    /// The frame's kind.
    pub fn kind(&self) -> Kind {
        match self {
            Frame::Message { head, .. } => head.kind(),
            Frame::Heartbeat { .. } => Kind::Heartbeat,
            Frame::Control(_) => Kind::Control,
            Frame::End { .. } => Kind::End,
            Frame::Cancel { .. } => Kind::Cancel,
            Frame::Credit { .. } => Kind::Credit,
            Frame::Link { .. } => Kind::Link,
        }
    }

    /// Decodes a frame that is exactly these bytes.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong, and where.
    pub fn decode(bytes: &'a [u8]) -> Result<Frame<'a>, DecodeError> {
        let mut reader = Reader::new(bytes);
        let (kind, unknown) = read_kind(&mut reader)?;
        let frame = match kind {
            // The op decides how many elements there are, so it skips the unknown ones itself.
            Kind::Control => return Control::decode(bytes).map(Frame::Control),
            Kind::Heartbeat => Frame::Heartbeat {
                seq: reader.uint()?,
                uptime_ms: reader.uint()?,
                stats: Stats::read(&mut reader)?,
            },
            Kind::End => Frame::End {
                id: reader.uint()?,
                status: Code::from_wire(reader.uint()?),
                message: reader.optional(|reader| reader.str("status message", MAX_STRING))?,
                headers: Headers::read(&mut reader)?,
            },
            Kind::Cancel => Frame::Cancel { id: reader.uint()? },
            Kind::Credit => Frame::Credit { id: reader.uint()?, n: reader.uint()? },
            Kind::Link => Frame::Link {
                source: reader.id()?,
                sequence: reader.uint()?,
                ttl: reader.uint8("ttl")?,
                flags: reader.uint()?,
                frame: {
                    let len = reader.bin_len()?;
                    reader.take(len)?
                },
            },
            Kind::Request | Kind::Response | Kind::Event | Kind::Broadcast | Kind::Item | Kind::Direct => {
                let head =
                    Head::read(kind, &mut reader)?.ok_or(DecodeError::UnknownKind { kind: kind as u64 })?;
                let PayloadSpan { encoding, compressed, len, .. } =
                    PayloadSpan::read(&mut reader, bytes.len())?;
                Frame::Message { head, payload: Payload { encoding, compressed, bytes: reader.take(len)? } }
            }
        };
        reader.skip(unknown)?;
        reader.end()?;
        Ok(frame)
    }

    /// Encodes the frame at the start of `out`; returns its length.
    ///
    /// # Errors
    /// [`EncodeError`]; `out` may then have been written in part.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        if let Frame::Control(control) = self {
            return control.encode(out);
        }
        let mut writer = Writer::new(out);
        self.write(&mut writer);
        writer.finish()
    }

    /// Length of the encoded frame.
    pub fn encoded_len(&self) -> usize {
        Writer::measure(|writer| self.write(writer))
    }

    fn write(&self, writer: &mut Writer<'_>) {
        let start = |writer: &mut Writer<'_>| {
            writer.array(self.kind().elements());
            writer.uint(self.kind() as u64);
        };
        match *self {
            Frame::Message { head, payload: Payload { encoding, compressed, bytes } } => {
                writer.limit("payload", bytes.len(), MAX_PAYLOAD);
                head.write(writer, (bytes.len() as u32).wrapping_add(1), encoding.tag(compressed));
                writer.put(bytes);
            }
            Frame::Heartbeat { seq, uptime_ms, stats } => {
                start(writer);
                writer.uint(seq);
                writer.uint(uptime_ms);
                stats.write(writer);
            }
            Frame::Control(control) => control.write(writer),
            Frame::End { id, status, message, headers } => {
                start(writer);
                writer.uint(id);
                writer.uint(status as u64);
                writer.optional(message, |writer, text| writer.str(text, "status message", MAX_STRING));
                headers.write(writer);
            }
            Frame::Cancel { id } => {
                start(writer);
                writer.uint(id);
            }
            Frame::Credit { id, n } => {
                start(writer);
                writer.uint(id);
                writer.uint(n);
            }
            Frame::Link { ref source, sequence, ttl, flags, frame } => {
                start(writer);
                writer.bin(source, "source");
                writer.uint(sequence);
                writer.uint(u64::from(ttl));
                writer.uint(flags);
                writer.bin(frame, "link frame");
            }
        }
    }
}
