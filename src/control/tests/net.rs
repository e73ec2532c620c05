//! Nodes in virtual time: hubs joined by connections in memory that a test delivers, fills, and breaks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::Gone;
use super::super::hub::{Admission, ConnId, Event, Hub, Refusal};
use super::super::session::FDS_IN_FLIGHT;
use super::super::{Card, Message, NodeId};
use crate::frame::{Attach, Control};
use crate::sys::credentials::Credentials;

pub(super) const UID: u32 = 1000;
pub(super) const ADMISSION: Admission = Admission { uid: UID, group: None };

/// What the nodes of most tests can do.
pub(super) const CAPABILITIES: u64 = 0;

pub(super) fn id(node: usize) -> NodeId {
    NodeId([node as u8 + 1; 16])
}

pub(super) fn card(node: usize) -> Card {
    Card { id: id(node), name: format!("node {node}").into(), started_unix_ms: node as u64 }
}

pub(super) fn credentials(node: usize) -> Credentials {
    Credentials { pid: node as i32 + 1, uid: UID, gid: 7, groups: Vec::new() }
}

/// The message number `n` that these tests send, some with fds, and its fds.
pub(super) fn numbered(n: u64) -> (Control<'static>, Vec<u32>) {
    let fds = |count: u64| (0..count).map(|fd| (n * 10 + fd) as u32).collect();
    match n % 4 {
        1 => (Control::Attached { log: n, reader_port: 1, segment: 0, slot: 0 }, fds(1)),
        2 => {
            let attach = Attach {
                log: n,
                writer_port: 1,
                reader_port: 1,
                reader_number: 1,
                position: 0,
                sequence: None,
                capacity: 4096,
                predecessor: None,
            };
            (Control::Attach(attach), fds(2))
        }
        _ => (Control::Stats { request: n }, Vec::new()),
    }
}

/// The number of a message that [`numbered`] made, if its fds are those it was sent with.
pub(super) fn number(message: &Message, fds: &[u32]) -> u64 {
    let n = number_of(message);
    assert_eq!(fds, numbered(n).1, "fds of message {n}");
    n
}

fn number_of(message: &Message) -> u64 {
    match message {
        Message::Stats { request } => *request,
        Message::Attached { log, .. } => *log,
        Message::Attach(attach) => attach.log,
        other => panic!("{other:?} is none of ours"),
    }
}

#[derive(Debug, Clone)]
struct Datagram {
    bytes: Vec<u8>,
    fds: Vec<u32>,
}

/// One node's end of a connection.
#[derive(Debug)]
pub(super) struct End {
    node: usize,
    /// `None` while it waits to be accepted.
    pub(super) conn: Option<ConnId>,
    inbox: VecDeque<Datagram>,
    pub(super) closed: bool,
}

pub(super) struct Node {
    pub(super) hub: Hub<u32, u32>,
    pub(super) events: Vec<Event<u32>>,
    dead: bool,
}

/// Something that may happen next. Ends: 0 has dialled, 1 accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Accept { wire: usize },
    Deliver { wire: usize, end: usize },
    HangUp { wire: usize, end: usize },
}

pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    pub(super) wires: Vec<[End; 2]>,
    /// How many datagrams a connection takes each way before its socket is full.
    pub(super) room: usize,
    /// Whether a node asks if a caller has hung up before it hands the caller's hello in, as the driver
    /// does; a caller may still hang up a moment later.
    pub(super) asks: bool,
    /// Most fds under way each way of a connection. Once some were lost and are sent again, those that
    /// were sent before may be unread still.
    fds_under_way: usize,
}

impl Net {
    /// Nodes that know nothing of each other; the first has the lowest id.
    pub(super) fn new(nodes: usize) -> Self {
        let node = |node| Node {
            hub: Hub::new(card(node), CAPABILITIES, ADMISSION),
            events: Vec::new(),
            dead: false,
        };
        Self {
            now: Instant::now(),
            nodes: (0..nodes).map(node).collect(),
            wires: Vec::new(),
            room: 278,
            asks: true,
            fds_under_way: FDS_IN_FLIGHT,
        }
    }

    /// Two nodes, the first of which has dialled the second.
    pub(super) fn joined() -> Self {
        let mut net = Self::new(2);
        net.dial(0, 1);
        net.settle();
        net.assert_joined(0, 1);
        net
    }

    /// `from` connects to the socket of `to`; which wire it is.
    pub(super) fn dial(&mut self, from: usize, to: usize) -> usize {
        let conn = self.nodes[from].hub.dialled(id(to), credentials(to), self.now);
        let end = |node, conn: Option<ConnId>, closed| End { node, conn, inbox: VecDeque::new(), closed };
        self.wires.push([end(from, conn, conn.is_none()), end(to, None, false)]);
        self.flush();
        self.wires.len() - 1
    }

    /// A connection whose dialler is no hub: what it sends is up to the test.
    pub(super) fn dial_raw(&mut self, to: usize) -> usize {
        self.nodes.push(Node { hub: Hub::new(card(99), 0, ADMISSION), events: Vec::new(), dead: true });
        let node = self.nodes.len() - 1;
        let end = |node, closed| End { node, conn: None, inbox: VecDeque::new(), closed };
        self.wires.push([end(node, false), end(to, false)]);
        self.take(Step::Accept { wire: self.wires.len() - 1 });
        self.wires.len() - 1
    }

    /// Hands a datagram to an end as if the other had sent it.
    pub(super) fn inject(&mut self, wire: usize, end: usize, bytes: &[u8], fds: &[u32]) {
        self.hand(wire, end, bytes, fds, false);
    }

    /// The same of a datagram that has had more fds than these.
    pub(super) fn inject_losing(&mut self, wire: usize, end: usize, bytes: &[u8], fds: &[u32]) {
        self.hand(wire, end, bytes, fds, true);
    }

    fn hand(&mut self, wire: usize, end: usize, bytes: &[u8], fds: &[u32], lost: bool) {
        let End { node, conn, .. } = self.wires[wire][end];
        let conn = conn.expect("an accepted connection");
        self.nodes[node].hub.handle_datagram(conn, bytes, fds.to_vec(), lost, self.now);
        self.flush();
    }

    pub(super) fn inject_control(&mut self, wire: usize, end: usize, control: Control<'_>, fds: &[u32]) {
        self.inject(wire, end, &super::encode(&control), fds);
    }

    pub(super) fn send(&mut self, from: usize, to: usize, n: u64) {
        let (control, fds) = numbered(n);
        self.nodes[from].hub.send(id(to), &control, &fds);
        self.flush();
    }

    /// What may happen now.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (wire, ends) in self.wires.iter().enumerate() {
            for (end, this) in ends.iter().enumerate() {
                if this.closed || self.nodes[this.node].dead {
                    continue;
                }
                let given_up =
                    |conn| self.asks && ends[1 - end].closed && self.nodes[this.node].hub.awaits_hello(conn);
                if this.conn.is_none() {
                    steps.push(Step::Accept { wire });
                } else if this.conn.is_some_and(given_up) {
                    steps.push(Step::HangUp { wire, end });
                } else if !this.inbox.is_empty() {
                    steps.push(Step::Deliver { wire, end });
                } else if ends[1 - end].closed {
                    steps.push(Step::HangUp { wire, end });
                }
            }
        }
        steps
    }

    pub(super) fn take(&mut self, step: Step) {
        match step {
            Step::Accept { wire } => {
                let [dialler, acceptor] = &mut self.wires[wire];
                let credentials = credentials(dialler.node);
                acceptor.conn = self.nodes[acceptor.node].hub.accepted(credentials, self.now);
                acceptor.closed = acceptor.conn.is_none();
            }
            Step::Deliver { wire, end } => self.deliver(wire, end, false),
            Step::HangUp { wire, end } => {
                let End { node, conn, .. } = self.wires[wire][end];
                self.nodes[node].hub.handle_lost(conn.expect("accepted"));
            }
        }
        self.flush();
    }

    /// Delivers the next datagram, without its fds if it has some and they are to be lost.
    pub(super) fn deliver(&mut self, wire: usize, end: usize, lose_fds: bool) {
        let End { node, conn, inbox, .. } = &mut self.wires[wire][end];
        let (Some(datagram), Some(conn)) = (inbox.pop_front(), *conn) else { return };
        let lost = lose_fds && !datagram.fds.is_empty();
        if lost {
            self.fds_under_way = 2 * FDS_IN_FLIGHT;
        }
        let fds = if lost { Vec::new() } else { datagram.fds };
        self.nodes[*node].hub.handle_datagram(conn, &datagram.bytes, fds, lost, self.now);
        self.flush();
    }

    /// Lets everything happen that can, time standing still.
    pub(super) fn settle(&mut self) {
        self.flush();
        while let Some(step) = self.steps().first() {
            self.take(*step);
        }
    }

    pub(super) fn advance(&mut self, time: Duration) {
        self.now += time;
        for node in self.nodes.iter_mut().filter(|node| !node.dead) {
            node.hub.handle_timeout(self.now);
        }
        self.flush();
    }

    /// The node dies: its connections hang up once what it sent has been received.
    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node].dead = true;
        for end in self.wires.iter_mut().flatten().filter(|end| end.node == node) {
            end.closed = true;
        }
    }

    /// What the driver does after each step: events first, then the sockets.
    pub(super) fn flush(&mut self) {
        self.take_events();
        for wire in 0..self.wires.len() {
            for end in 0..2 {
                self.transmit(wire, end);
            }
        }
        self.take_events();
    }

    fn transmit(&mut self, wire: usize, end: usize) {
        let ends = &mut self.wires[wire];
        let (node, conn) = (ends[end].node, ends[end].conn);
        let Some(conn) = conn.filter(|_| !ends[end].closed && !self.nodes[node].dead) else { return };
        let to = &mut ends[1 - end];
        let hub = &mut self.nodes[node].hub;
        while !to.closed
            && to.inbox.len() < self.room
            && let Some((bytes, fds)) = hub.poll_transmit(conn)
        {
            to.inbox.push_back(Datagram { bytes: bytes.to_vec(), fds: fds.to_vec() });
            hub.transmitted(conn);
            let under_way: usize = to.inbox.iter().map(|datagram| datagram.fds.len()).sum();
            assert!(under_way <= self.fds_under_way, "{under_way} fds under way");
        }
    }

    fn take_events(&mut self) {
        for index in 0..self.nodes.len() {
            while let Some(event) = self.nodes[index].hub.poll_event() {
                match event {
                    Event::Close { conn, farewell } => self.close(index, conn, farewell),
                    event => self.nodes[index].events.push(event),
                }
            }
        }
    }

    fn close(&mut self, node: usize, conn: ConnId, farewell: Option<Vec<u8>>) {
        let this = |end: &End| end.node == node && end.conn == Some(conn);
        let mut wires = self.wires.iter_mut();
        let ends = wires.find(|ends| ends.iter().any(this)).expect("a connection of this node");
        let end = usize::from(!this(&ends[0]));
        assert!(!std::mem::replace(&mut ends[end].closed, true), "closed once");
        ends[end].inbox.clear();
        let farewell = farewell.map(|bytes| Datagram { bytes, fds: Vec::new() });
        ends[1 - end].inbox.extend(farewell);
    }

    /// Datagrams under way to this end.
    pub(super) fn under_way(&self, wire: usize, end: usize) -> Vec<Control<'_>> {
        let inbox = self.wires[wire][end].inbox.iter();
        inbox.map(|datagram| Control::decode(&datagram.bytes).expect("a control op")).collect()
    }

    pub(super) fn ups(&self, node: usize) -> usize {
        self.nodes[node].events.iter().filter(|event| matches!(event, Event::Up { .. })).count()
    }

    pub(super) fn downs(&self, node: usize) -> Vec<Gone> {
        let down = |event: &Event<u32>| match event {
            Event::Down { why, .. } => Some(why.clone()),
            _ => None,
        };
        self.nodes[node].events.iter().filter_map(down).collect()
    }

    pub(super) fn refusals(&self, node: usize) -> Vec<(Option<NodeId>, Refusal)> {
        let refused = |event: &Event<u32>| match event {
            Event::Refused { peer, why } => Some((*peer, why.clone())),
            _ => None,
        };
        self.nodes[node].events.iter().filter_map(refused).collect()
    }

    /// Numbers of the messages that `node` has had from `peer`.
    pub(super) fn received(&self, node: usize, peer: usize) -> Vec<u64> {
        let from_peer = |event: &Event<u32>| match event {
            Event::Message { peer: from, message, fds, bare } if *from == id(peer) => {
                Some(if *bare { number_of(message) } else { number(message, fds) })
            }
            _ => None,
        };
        self.nodes[node].events.iter().filter_map(from_peer).collect()
    }

    /// The wires on which neither end is closed.
    pub(super) fn open_wires(&self) -> Vec<usize> {
        let open = |wire: &usize| self.wires[*wire].iter().all(|end| !end.closed);
        (0..self.wires.len()).filter(open).collect()
    }

    /// Each has the other up, once and for good; the connections that lost are closed at both ends.
    pub(super) fn assert_joined(&self, one: usize, other: usize) {
        self.assert_joined_still(one, other);
        for node in [one, other] {
            let events = &self.nodes[node].events;
            assert_eq!((self.downs(node), self.refusals(node)), (vec![], vec![]), "{events:?}");
        }
        let between =
            |ends: &&[End; 2]| [one, other].contains(&ends[0].node) && [one, other].contains(&ends[1].node);
        let open: Vec<_> =
            self.wires.iter().filter(between).map(|ends| [0, 1].map(|end| !ends[end].closed)).collect();
        assert_eq!(open.iter().filter(|open| **open == [true, true]).count(), 1, "{open:?}");
        assert!(open.iter().all(|[one, other]| one == other), "{open:?}");
    }

    /// As [`Net::assert_joined`], of two nodes that have had trouble with others.
    pub(super) fn assert_joined_still(&self, one: usize, other: usize) {
        for (node, peer) in [(one, other), (other, one)] {
            let of_peer = |event: &&Event<u32>| match event {
                Event::Up { card, .. } => card.id == id(peer),
                Event::Down { peer: of, .. } => *of == id(peer),
                _ => false,
            };
            let events: Vec<_> = self.nodes[node].events.iter().filter(of_peer).collect();
            assert!(matches!(events[..], [Event::Up { .. }]), "{events:?}");
            assert!(self.nodes[node].hub.peers().any(|up| up == id(peer)));
        }
    }

    /// For every peer: up, then messages, then down.
    pub(super) fn assert_sane(&self, node: usize) {
        let mut up: Vec<NodeId> = Vec::new();
        let events = &self.nodes[node].events;
        for event in events {
            match event {
                Event::Up { card, .. } => {
                    assert!(!up.contains(&card.id), "up twice: {events:?}");
                    up.push(card.id);
                }
                Event::Message { peer, .. } => assert!(up.contains(peer), "not up: {events:?}"),
                Event::Down { peer, .. } => {
                    assert!(up.contains(peer), "not up: {events:?}");
                    up.retain(|other| other != peer);
                }
                Event::Refused { .. } | Event::Close { .. } => {}
            }
        }
    }
}

/// Every sequence of choices, one after the other.
#[derive(Default)]
pub(super) struct Choices {
    made: Vec<(usize, usize)>,
    next: usize,
}

impl Choices {
    /// One of so many options.
    pub(super) fn pick(&mut self, options: usize) -> usize {
        if self.next == self.made.len() {
            self.made.push((0, options));
        }
        let (chosen, of) = self.made[self.next];
        assert_eq!(of, options, "a run depends on its choices alone");
        self.next += 1;
        chosen
    }

    /// Runs `scenario` once for each sequence of choices; how many there are.
    pub(super) fn each(mut scenario: impl FnMut(&mut Self)) -> usize {
        let mut choices = Self::default();
        for runs in 1.. {
            choices.next = 0;
            scenario(&mut choices);
            while choices.made.pop_if(|(chosen, options)| *chosen + 1 == *options).is_some() {}
            match choices.made.last_mut() {
                Some((chosen, _)) => *chosen += 1,
                None => return runs,
            }
        }
        unreachable!()
    }
}
