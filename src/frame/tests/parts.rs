//! Owned values that a frame of any kind can be made of. The fuzz targets share this file.

use super::frame::{
    Attach, Code, Control, Encoding, Frame, Head, Headers, Hello, Payload, PortStats, PortStatsList, PortUp,
    Role, Stats, Strings,
};

/// How many different frames [`Parts::frame`] makes: each kind, control as often as there are ops.
pub const VARIANTS: usize = 33;

#[derive(Debug, Clone)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub struct Parts {
    pub numbers: [u64; 6],
    pub word: u32,
    pub half: u16,
    pub byte: u8,
    pub flag: bool,
    pub id: [u8; 16],
    pub maybe: Option<u64>,
    pub text: String,
    pub note: Option<String>,
    pub pairs: Vec<(String, String)>,
    pub words: Vec<String>,
    pub counters: Vec<(String, u64)>,
    pub bytes: Vec<u8>,
}

impl Parts {
    /// What the statistics op of [`Parts::frame`] borrows.
    pub fn port_stats(&self) -> Vec<PortStats<'_>> {
        let [messages, bytes, dropped, blocked_ns, lag, peers] = self.numbers;
        let role = self.byte;
        let each = self.counters.iter();
        each.map(|(name, port)| {
            let port = *port;
            let evicted = peers ^ lag;
            PortStats { port, role, name, messages, bytes, dropped, blocked_ns, lag, peers, evicted }
        })
        .collect()
    }

    /// The frame number `variant`, modulo [`VARIANTS`], made of these parts.
    pub fn frame<'a>(&'a self, variant: usize, port_stats: &'a [PortStats<'a>]) -> Frame<'a> {
        let [a, b, c, d, e, _] = self.numbers;
        let headers = Headers::from_owned(&self.pairs);
        let (text, note) = (self.text.as_str(), self.note.as_deref());
        let status = Code::from_wire(u64::from(self.byte % 17));
        let encoding = [Encoding::MessagePack, Encoding::Raw, Encoding::Json][self.word as usize % 3];
        let payload = Payload { encoding, compressed: self.flag, bytes: &self.bytes };
        let role = [Role::Publisher, Role::Subscriber, Role::Client, Role::Server, Role::Inbox];
        let hello = Hello {
            major: self.half,
            minor: self.word as u16,
            id: self.id,
            name: text,
            started_unix_ms: a,
            capabilities: b,
        };
        let message = |head| Frame::Message { head, payload };
        Frame::Control(match variant % VARIANTS {
            0 => return message(Head::Request { id: a, method: text, deadline: self.maybe, headers }),
            1 => return message(Head::Response { id: a, status, message: note, headers }),
            2 => return message(Head::Event { topic: note, headers }),
            3 => return message(Head::Broadcast { topic: note, headers }),
            4 => return message(Head::Item { id: a, seq: b }),
            5 => return message(Head::Direct { headers }),
            6 => {
                return Frame::Heartbeat { seq: a, uptime_ms: b, stats: Stats::from_owned(&self.counters) };
            }
            7 => return Frame::End { id: a, status, message: note, headers },
            8 => return Frame::Cancel { id: a },
            9 => return Frame::Credit { id: a, n: b },
            10 => {
                return Frame::Link {
                    source: self.id,
                    sequence: a,
                    ttl: self.byte,
                    flags: b,
                    frame: &self.bytes,
                };
            }
            11 => Control::Hello(hello),
            12 => Control::HelloAck(hello),
            13 => Control::Incompatible { major: self.half, minor: self.word as u16 },
            14 => Control::PortUp(PortUp {
                port: a,
                role: role[self.half as usize % role.len()],
                filters: Strings::from_owned(&self.words),
                flags: b,
                priority: self.byte,
                capacity: self.maybe,
                version: note,
            }),
            15 => Control::PortsDone,
            16 => Control::PortDown { port: a },
            17 => Control::Attach(Attach {
                log: a,
                writer_port: b,
                reader_port: c,
                reader_number: self.half,
                position: d,
                sequence: self.maybe,
                capacity: e,
                predecessor: self.maybe.map(|log| log / 2),
            }),
            18 => Control::Attached { log: a, reader_port: b, segment: self.word, slot: self.word / 2 },
            19 => Control::Detach { log: a, reader_number: self.half },
            20 => Control::Detached { log: a, reader_number: self.half },
            21 => Control::Ack { count: a },
            22 => Control::Resend { from: a },
            23 => Control::Resending { from: a },
            24 => Control::Goodbye,
            25 => Control::Stats { request: a },
            26 => Control::Heartbeat { log: a, capacity: b, interval_ms: c },
            27 => Control::Blob { log: a, reader_number: self.half, blob: b, size: c },
            28 => Control::BlobGone { log: a, reader_number: self.half, blob: b },
            29 => Control::Denied { action: self.byte, topic: text },
            30 => Control::Exhausted { resource: self.byte, limit: a },
            31 => Control::Again { what: self.byte, of: a, id: b, reader_number: self.half },
            _ => Control::StatsReply {
                request: a,
                taken_ns: b,
                uptime_ms: c,
                more: self.flag,
                ports: PortStatsList::from_slice(port_stats),
            },
        })
    }
}
