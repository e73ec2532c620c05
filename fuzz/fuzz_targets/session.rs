//! Any datagrams, in any phase of any connection, with any fds, at any time: no panic, events in a sane
//! order, and nothing piles up that the node did not queue itself.
#![no_main]

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringbus::internals::control::{
    Admission, Card, ConnId, Credentials, Event, Hub, Message, NodeId, PortCard, VERSION, node_id,
};
use ringbus::internals::frame::{self, Control, Frame, Hello};

#[path = "../../src/frame/tests/parts.rs"]
mod parts;

const UID: u32 = 1000;
/// This node, so that peers with lower and with higher ids are there.
const SELF: u8 = 2;
const PEERS: u8 = 5;
/// Most acks, resends and resendings that wait for room in a socket.
const UNCOUNTED: usize = 20;

#[derive(Arbitrary, Debug)]
struct Input {
    admits_all: bool,
    /// Whether the sockets take everything at once.
    flushes: bool,
    ops: Vec<Op>,
}

#[derive(Arbitrary, Debug)]
enum Op {
    Dial { peer: u8, ours: bool },
    Accept { ours: bool },
    Datagram { conn: u8, what: What, fds: u8, lost_fds: bool },
    HangUp { conn: u8 },
    Send { peer: u8, what: What, fds: u8 },
    Cut { peer: u8 },
    Transmit { conn: u8, count: u8 },
    Wait { ms: u16 },
}

#[derive(Arbitrary, Debug)]
enum What {
    Hello {
        peer: u8,
        major: u8,
    },
    HelloAck {
        peer: u8,
        major: u8,
    },
    /// Counts so small that they often fit.
    Ack {
        count: u8,
    },
    Resend {
        from: u8,
    },
    Resending {
        from: u8,
    },
    Any {
        variant: u8,
        parts: Box<parts::Parts>,
    },
    Bytes(Vec<u8>),
}

fn id(peer: u8) -> NodeId {
    node_id([peer % PEERS; 16])
}

fn is_uncounted(control: &Control<'_>) -> bool {
    matches!(control, Control::Ack { .. } | Control::Resend { .. } | Control::Resending { .. })
}

impl What {
    fn encode(&self) -> Vec<u8> {
        let hello = |peer: u8, major: u8| Hello {
            major: VERSION.0 + u16::from(major == u8::MAX),
            minor: VERSION.1,
            id: *id(peer).as_bytes(),
            name: "peer",
            started_unix_ms: 0,
            capabilities: u64::from(peer),
        };
        let stats;
        let control = match self {
            What::Hello { peer, major } => Control::Hello(hello(*peer, *major)),
            What::HelloAck { peer, major } => Control::HelloAck(hello(*peer, *major)),
            What::Ack { count } => Control::Ack { count: u64::from(*count % 8) },
            What::Resend { from } => Control::Resend { from: u64::from(*from % 8) },
            What::Resending { from } => Control::Resending { from: u64::from(*from % 8) },
            What::Any { variant, parts } => {
                stats = parts.port_stats();
                let frame = parts.frame(usize::from(*variant), &stats);
                let mut bytes = vec![0; frame.encoded_len()];
                return frame.encode(&mut bytes).map_or(Vec::new(), |_| bytes);
            }
            What::Bytes(bytes) => return bytes.clone(),
        };
        let mut bytes = vec![0; control.encoded_len()];
        control.encode(&mut bytes).expect("small");
        bytes
    }
}

/// What the sockets and the layer above would know.
struct World {
    hub: Hub<u32, u32>,
    now: Instant,
    conns: Vec<ConnId>,
    open: HashSet<ConnId>,
    up: HashSet<NodeId>,
    /// Who each node's latest session was with.
    met: HashMap<NodeId, Credentials>,
    /// Datagrams that this node has queued, for whomever.
    queued: usize,
}

impl World {
    fn conn(&self, index: u8) -> Option<ConnId> {
        let len = self.conns.len();
        (len > 0).then(|| self.conns[usize::from(index) % len])
    }

    fn opened(&mut self, conn: Option<ConnId>) {
        if let Some(conn) = conn {
            assert!(self.open.insert(conn));
            self.conns.push(conn);
            self.queued += 1; // its hello, or the answer
        }
    }

    fn take(&mut self, op: &Op) {
        let uid = |ours| if ours { UID } else { UID + 1 };
        let from = |ours| Credentials { pid: 1, uid: uid(ours), gid: 1, groups: Vec::new() };
        match op {
            Op::Dial { peer, ours } if !self.hub.knows(id(*peer)) => {
                let conn = self.hub.dialled(id(*peer), from(*ours), self.now);
                self.opened(conn);
            }
            Op::Dial { .. } => {}
            Op::Accept { ours } => {
                let conn = self.hub.accepted(from(*ours), self.now);
                self.opened(conn);
            }
            Op::Datagram { conn, what, fds, lost_fds } => {
                let Some(conn) = self.conn(*conn) else { return };
                let fds = (0..u32::from(fds % 9)).collect();
                self.hub.handle_datagram(conn, &what.encode(), fds, *lost_fds, self.now);
            }
            Op::HangUp { conn } => {
                let Some(conn) = self.conn(*conn) else { return };
                self.hub.handle_lost(conn);
                self.events();
                assert!(!self.open.contains(&conn));
            }
            Op::Send { peer, what, fds } => {
                let bytes = what.encode();
                let Ok(Frame::Control(control)) = Frame::decode(&bytes) else { return };
                if is_uncounted(&control) {
                    return; // the session's own
                }
                let fds: Vec<u32> = (0..u32::from(fds % 3)).collect();
                self.hub.send(id(*peer), &control, &fds);
                self.queued += 1;
            }
            Op::Cut { peer } => {
                self.hub.cut(id(*peer), String::new());
                self.events();
                assert!(!self.up.contains(&id(*peer)));
                if let Some(who) = self.met.get(&id(*peer)).cloned() {
                    assert!(self.hub.dialled(id(*peer), who, self.now).is_none(), "for good");
                    assert!(self.hub.knows(id(*peer)));
                }
            }
            Op::Transmit { conn, count } => {
                let Some(conn) = self.conn(*conn) else { return };
                for _ in 0..*count {
                    if self.hub.poll_transmit(conn).is_some() {
                        self.hub.transmitted(conn);
                    }
                }
            }
            Op::Wait { ms } => {
                self.now += Duration::from_millis(u64::from(*ms));
                self.hub.handle_timeout(self.now);
                assert!(
                    self.hub.poll_timeout().is_none_or(|due| due > self.now),
                    "nothing is left that is due"
                );
            }
        }
    }

    fn events(&mut self) {
        while let Some(event) = self.hub.poll_event() {
            match event {
                Event::Up { card, credentials, .. } => {
                    assert!(card.id != id(SELF));
                    self.met.insert(card.id, credentials);
                    assert!(self.up.insert(card.id), "up twice");
                }
                Event::Message { peer, message, fds, bare } => {
                    assert!(self.up.contains(&peer), "a message of one that is not up");
                    let fitting = match message {
                        Message::PortUp(card) if PortCard::reads(card.role) => 2..=2,
                        Message::Attach(_) => 2..=2,
                        Message::Attached { .. } => 0..=1,
                        Message::Heartbeat { .. } | Message::Blob { .. } => 1..=1,
                        _ => 0..=0,
                    };
                    assert!(if bare { fds.is_empty() && *fitting.end() > 0 } else { fitting.contains(&fds.len()) }, "{} fds", fds.len());
                }
                Event::Down { peer, .. } => assert!(self.up.remove(&peer), "down, but not up"),
                Event::Refused { .. } => {}
                Event::Close { conn, .. } => assert!(self.open.remove(&conn), "closed twice"),
            }
        }
        assert_eq!(self.up, self.hub.peers().collect());
    }

    /// Takes out of a connection all that its socket could take.
    fn drain(&mut self, conn: ConnId) {
        let (mut counted, mut uncounted) = (0, 0);
        while let Some((bytes, fds)) = self.hub.poll_transmit(conn) {
            assert!(self.open.contains(&conn) && fds.len() <= 8);
            match Control::decode(bytes) {
                Ok(control) if is_uncounted(&control) => uncounted += 1,
                Ok(_) => counted += 1,
                Err(error) => panic!("sent what does not decode: {error}"),
            }
            self.hub.transmitted(conn);
        }
        assert!(uncounted <= UNCOUNTED, "{uncounted} acks and resends");
        assert!(counted <= self.queued, "{counted} datagrams, {} queued", self.queued);
    }
}

fuzz_target!(|input: Input| {
    let card = Card { id: id(SELF), name: "fuzzed".into(), started_unix_ms: 0 };
    let mut world = World {
        hub: Hub::new(card, u64::MAX, Admission { uid: UID, group: input.admits_all.then_some(1) }),
        now: Instant::now(),
        conns: Vec::new(),
        open: HashSet::new(),
        up: HashSet::new(),
        met: HashMap::new(),
        queued: 0,
    };
    for op in &input.ops {
        world.take(op);
        world.events();
        if input.flushes {
            world.conns.clone().into_iter().for_each(|conn| world.drain(conn));
            world.events();
        }
    }
    world.conns.clone().into_iter().for_each(|conn| world.drain(conn));
    // Every handshake ends, and so does every connection.
    world.now += Duration::from_secs(2);
    world.hub.handle_timeout(world.now);
    world.events();
    assert_eq!(world.open.len(), world.up.len());
    world.conns.clone().into_iter().for_each(|conn| world.hub.handle_lost(conn));
    world.events();
    assert!(world.open.is_empty() && world.up.is_empty());
});
