//! All sessions of one node, sans-IO: which connection stays when both ends dialled, who is up, who is gone.
//!
//! Hello is sent by whoever dialled, and answered by hello_ack. Nothing but the hello precedes the answer,
//! so a connection may be closed before it without loss. When both ends dialled:
//!
//! ```text
//!    lower id                     higher id
//!    hello ──────── c1 ──────────▶  has dialled too, the lower's stays: hello_ack on c1, close c2
//!    hold c2 ◀───── c2 ──────── hello
//!    up on c1 ◀──── c1 ────── hello_ack
//!    close c2       (had c1 failed: hello_ack on c2)
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use super::message::Message;
use super::session::{Phase, Session, SessionError, Unread, encode};
use super::{Card, Gone, NodeId, VERSION};
use crate::frame::{Control, Hello};
use crate::sys::credentials::Credentials;

mod refusal;

pub use refusal::Refusal;
use refusal::{Refused, Who};

/// Refused nodes that are remembered. One that is forgotten is met once more, and refused again.
const REFUSED: usize = 1024;
/// Ended sessions of which it is remembered who they were with: what they left is read after their end, and may be an
/// offence.
const ENDED: usize = 1024;

/// Names one connection of a node, for as long as the node lives.
pub type ConnId = u64;

/// Who is let in, by what the kernel says of them.
#[derive(Debug, Clone, Copy)]
pub struct Admission {
    /// This node's own user, who always is.
    pub uid: u32,
    /// The group that shares the bus: its members are, and root.
    pub group: Option<u32>,
}

impl Admission {
    fn check(self, credentials: &Credentials) -> Result<(), Refusal> {
        let uid = credentials.uid;
        match self.group {
            _ if uid == self.uid => Ok(()),
            None => Err(Refusal::OtherUser { uid }),
            Some(group) if uid == 0 || credentials.is_in(group) => Ok(()),
            Some(group) => Err(Refusal::NotInGroup { uid, group }),
        }
    }
}

/// What the hub tells the layer above, in order. `I` is an fd that came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<I> {
    /// A session is established: tell the peer every port, then `PortsDone`.
    /// `capabilities` are those that both have.
    Up { card: Card, credentials: Credentials, capabilities: u64 },
    /// A datagram from an established peer. A bare one has lost its fds, for which this process had no room.
    Message { peer: NodeId, message: Message, fds: Vec<I>, bare: bool },
    /// An established peer is gone; nothing of it follows.
    Down { peer: NodeId, why: Gone },
    /// A node was not let in.
    Refused { peer: Option<NodeId>, why: Refusal },
    /// Close the connection; the farewell, if any, is sent before if the socket takes it.
    Close { conn: ConnId, farewell: Option<Vec<u8>> },
}

struct Conn<F> {
    session: Session<F>,
    who: Who,
    dialled: bool,
    /// Known from the start if dialled, from the hello if accepted.
    peer: Option<NodeId>,
    /// Who the hello of an accepted connection was from, until it is answered.
    card: Option<(Card, u64)>,
    credentials: Option<Credentials>,
}

/// All sessions of a node. `F` is an fd to send, `I` one that came in.
pub struct Hub<F, I> {
    card: Card,
    /// [`VERSION`], except where tests make an older or newer node.
    pub(super) version: (u16, u16),
    capabilities: u64,
    admission: Admission,
    pub(super) unread: Unread,
    /// In the order of their making.
    conns: BTreeMap<ConnId, Conn<F>>,
    next_conn: ConnId,
    /// Established sessions.
    up: HashMap<NodeId, ConnId>,
    /// The latest [`REFUSED`], in the order of their refusal.
    refused: VecDeque<Refused>,
    /// Who the latest [`ENDED`] sessions were with, and whether this node had dialled them; no node twice.
    ended: VecDeque<(NodeId, Who, bool)>,
    events: VecDeque<Event<I>>,
}

impl<F: Clone, I> Hub<F, I> {
    pub fn new(card: Card, capabilities: u64, admission: Admission) -> Self {
        Self {
            card,
            version: VERSION,
            capabilities,
            admission,
            unread: Unread::default(),
            conns: BTreeMap::new(),
            next_conn: 1,
            up: HashMap::new(),
            refused: VecDeque::new(),
            ended: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Whether there is no point in dialling this node: it is up, on its way, refused, or this one.
    pub fn knows(&self, id: NodeId) -> bool {
        let refused = || self.refused.iter().any(|refused| refused.peer == id && refused.dialled);
        id == self.card.id || refused() || self.has_conn(id)
    }

    /// Whether what this process says in the name of that node is not heard.
    pub(super) fn is_refused(&self, peer: NodeId, who: Who) -> bool {
        let mut by = self.refused.iter().filter(|refused| (refused.peer, refused.who) == (peer, who));
        by.any(Refused::is_certain)
    }

    /// A connection to this node was made.
    pub fn dialled(&mut self, id: NodeId, credentials: Credentials, now: Instant) -> Option<ConnId> {
        let conn = self.insert(Phase::Dialling, Some(id), credentials, now)?;
        let hello = Control::Hello(hello(self.version, &self.card, self.capabilities));
        let pushed = self.conns.get_mut(&conn)?.session.push(&hello, &[]);
        debug_assert_eq!(pushed, Ok(()));
        Some(conn)
    }

    /// A connection was accepted. `None` if its user is not admitted: close it.
    pub fn accepted(&mut self, credentials: Credentials, now: Instant) -> Option<ConnId> {
        self.insert(Phase::Accepting, None, credentials, now)
    }

    fn insert(
        &mut self,
        phase: Phase,
        peer: Option<NodeId>,
        credentials: Credentials,
        now: Instant,
    ) -> Option<ConnId> {
        let (who, dialled) = ((credentials.pid, credentials.uid), phase == Phase::Dialling);
        if let Err(why) = self.admission.check(&credentials) {
            self.refuse(peer, who, dialled, why);
            return None;
        }
        if let Some(peer) = peer.filter(|peer| self.is_refused(*peer, who)) {
            // It has called before, and this is its socket indeed.
            self.remember(peer, who, dialled);
            return None;
        }
        let conn = self.next_conn;
        self.next_conn += 1;
        let session = Session::new(phase, now, self.unread);
        self.conns
            .insert(conn, Conn { session, who, dialled, peer, card: None, credentials: Some(credentials) });
        Some(conn)
    }

    /// Whether the caller owes its hello. One that has hung up by then gave up waiting, or is dead: a hello
    /// that it left is not to be handed in, or a peer would come and go that never was.
    pub fn awaits_hello(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(|entry| entry.session.phase == Phase::Accepting)
    }

    /// Callers that have not been answered yet.
    pub fn callers(&self) -> usize {
        let waiting = |entry: &&Conn<F>| matches!(entry.session.phase, Phase::Accepting | Phase::Held);
        self.conns.values().filter(waiting).count()
    }

    /// The caller that has owed its hello for longest.
    pub fn silent_caller(&self) -> Option<ConnId> {
        self.conns.iter().find(|(_, entry)| entry.session.phase == Phase::Accepting).map(|(conn, _)| *conn)
    }

    /// Whether a connection to this node is there, or under way.
    pub fn has_conn(&self, id: NodeId) -> bool {
        self.conns.values().any(|conn| conn.peer == Some(id))
    }

    /// A datagram came in on `conn`.
    pub fn handle_datagram(&mut self, conn: ConnId, bytes: &[u8], fds: Vec<I>, lost_fds: bool, now: Instant) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        let (control, bare) = match entry.session.handle_datagram(bytes, fds.len(), lost_fds, now) {
            Ok(Some(found)) => found,
            Ok(None) => return,
            Err(error) => return self.fail(conn, &error),
        };
        match control {
            Control::Hello(hello) => self.handle_hello(conn, &hello),
            Control::HelloAck(hello) => self.handle_hello_ack(conn, &hello),
            Control::Incompatible { major, minor } => {
                self.refuse_conn(conn, Refusal::Incompatible { theirs: (major, minor), ours: self.version });
            }
            Control::Goodbye => self.end(conn, Gone::Goodbye),
            _ => {
                if let (Some(peer), Some(message)) = (entry.peer, Message::from_control(&control)) {
                    let fds = if bare { Vec::new() } else { fds };
                    self.events.push_back(Event::Message { peer, message, fds, bare });
                }
            }
        }
    }

    fn handle_hello(&mut self, conn: ConnId, hello: &Hello<'_>) {
        let Some(who) = self.conns.get(&conn).map(|entry| entry.who) else { return };
        let theirs = (hello.major, hello.minor);
        if hello.major != self.version.0 {
            let (major, minor) = self.version;
            let why = Refusal::Incompatible { theirs, ours: self.version };
            self.refuse(Some(NodeId(hello.id)), who, false, why);
            return self.close_with(conn, encode(&Control::Incompatible { major, minor }).ok());
        }
        let card = card_of(hello);
        let id = card.id;
        if id == self.card.id || self.is_refused(id, who) || self.up.contains_key(&id) {
            // An established session stays: a second connection is a leftover of crossing dials, or of a
            // peer that will dial again once this node has noticed that the first is dead.
            return self.close(conn);
        }
        let own_dial = self.dial_to(id);
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        entry.peer = Some(id);
        entry.card = Some((card, hello.capabilities));
        match own_dial {
            Some(_) if self.card.id < id => entry.session.phase = Phase::Held,
            Some(dial) => {
                self.admit(conn);
                self.close(dial);
            }
            None => self.admit(conn),
        }
    }

    fn dial_to(&self, id: NodeId) -> Option<ConnId> {
        let found = self
            .conns
            .iter()
            .find(|(_, entry)| entry.peer == Some(id) && entry.session.phase == Phase::Dialling);
        found.map(|(conn, _)| *conn)
    }

    /// Answers the hello of an accepted connection.
    fn admit(&mut self, conn: ConnId) {
        let hello = Control::HelloAck(hello(self.version, &self.card, self.capabilities));
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        match (entry.session.push(&hello, &[]), entry.card.take()) {
            (Ok(()), Some((card, capabilities))) => self.establish(conn, card, capabilities),
            (Err(error), _) => self.fail(conn, &error),
            (Ok(()), None) => debug_assert!(false, "admitted after its hello"),
        }
    }

    fn handle_hello_ack(&mut self, conn: ConnId, hello: &Hello<'_>) {
        let card = card_of(hello);
        let Some(entry) = self.conns.get(&conn) else { return };
        if hello.major != self.version.0 {
            let theirs = (hello.major, hello.minor);
            return self.refuse_conn(conn, Refusal::Incompatible { theirs, ours: self.version });
        }
        if entry.peer != Some(card.id) {
            let what = format!("socket of node {:?} answered as {}", entry.peer, card.id);
            return self.refuse_conn(conn, Refusal::Protocol { what });
        }
        if self.up.contains_key(&card.id) {
            return self.close(conn);
        }
        self.establish(conn, card, hello.capabilities);
    }

    fn establish(&mut self, conn: ConnId, card: Card, theirs: u64) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        entry.session.phase = Phase::Up;
        let id = card.id;
        let Some(credentials) = entry.credentials.take() else { return };
        self.up.insert(id, conn);
        let capabilities = self.capabilities & theirs;
        self.events.push_back(Event::Up { card, credentials, capabilities });
        // Whatever else is under way with this peer has lost.
        let others = self.conns.iter().filter(|(other, entry)| **other != conn && entry.peer == Some(id));
        for other in others.map(|(other, _)| *other).collect::<Vec<_>>() {
            self.close(other);
        }
    }

    /// The peer of `conn` has ended it, or is dead; everything received was handed in before.
    pub fn handle_lost(&mut self, conn: ConnId) {
        self.end(conn, Gone::Died);
    }

    /// The peer of `conn` has ended it, or this node cannot receive of it any more, and it lives.
    pub fn handle_hang_up(&mut self, conn: ConnId) {
        self.end(conn, Gone::HungUp);
    }

    /// The connection of an established session.
    pub fn conn(&self, peer: NodeId) -> Option<ConnId> {
        self.up.get(&peer).copied()
    }

    /// Whether an established session goes by this connection.
    pub fn is_up(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(|entry| entry.session.phase == Phase::Up)
    }

    /// Cuts a peer off, for good; also one whose session has ended, unless it went on then.
    pub fn cut(&mut self, peer: NodeId, why: String) {
        let of_peer = self.conns.iter().filter(|(_, entry)| entry.peer == Some(peer));
        let conns: Vec<_> = of_peer.map(|(conn, entry)| (*conn, entry.who, entry.dialled)).collect();
        let up = self.up.get(&peer).copied();
        for (conn, who, dialled) in conns {
            self.remember(peer, who, dialled);
            if up == Some(conn) {
                self.end(conn, Gone::Cut(why.clone()));
            } else {
                self.close(conn);
            }
        }
        let ended = self.ended.iter().find(|(of, ..)| *of == peer).copied();
        if up.is_none()
            && let Some((_, who, dialled)) = ended
        {
            self.refuse(Some(peer), who, dialled, Refusal::Protocol { what: why });
        }
    }

    fn fail(&mut self, conn: ConnId, error: &SessionError) {
        let peer = self.conns.get(&conn).and_then(|entry| entry.peer);
        match error {
            // Stopped or swamped, not at fault: it may be dialled again.
            SessionError::Silent => return self.end(conn, Gone::Died),
            SessionError::Overflow => return self.end(conn, Gone::Unread),
            _ => {}
        }
        match peer {
            Some(peer) if self.up.get(&peer) == Some(&conn) => self.cut(peer, error.to_string()),
            _ => self.refuse_conn(conn, Refusal::Protocol { what: error.to_string() }),
        }
    }

    fn refuse_conn(&mut self, conn: ConnId, why: Refusal) {
        if let Some(Conn { peer, who, dialled, .. }) = self.conns.get(&conn) {
            self.refuse(*peer, *who, *dialled, why);
        }
        self.close(conn);
    }

    fn refuse(&mut self, peer: Option<NodeId>, who: Who, dialled: bool, why: Refusal) {
        // One that could be anybody's node is not remembered: its next attempt is refused again.
        let first = peer.is_none_or(|peer| self.remember(peer, who, dialled));
        if first {
            self.events.push_back(Event::Refused { peer, why });
        }
    }

    /// Remembers a node as refused; false if it was.
    fn remember(&mut self, peer: NodeId, who: Who, dialled: bool) -> bool {
        if let Some(known) = self.refused.iter_mut().find(|known| (known.peer, known.who) == (peer, who)) {
            let before = known.is_certain();
            known.dialled |= dialled;
            return known.is_certain() != before;
        }
        if self.refused.len() == REFUSED {
            self.refused.pop_front();
        }
        self.refused.push_back(Refused { peer, who, dialled });
        true
    }

    /// Ends a connection; if it was a failed dial, an accepted one from the same peer takes its place.
    fn end(&mut self, conn: ConnId, why: Gone) {
        let Some(&Conn { ref session, who, dialled, peer, .. }) = self.conns.get(&conn) else { return };
        let dialling = session.phase == Phase::Dialling;
        self.close(conn);
        let Some(peer) = peer else { return };
        if self.up.get(&peer) == Some(&conn) {
            self.up.remove(&peer);
            self.ended.retain(|(of, ..)| *of != peer);
            // One that goes on overwrites what is still read of it: not its fault.
            if !why.may_live() {
                if self.ended.len() == ENDED {
                    self.ended.pop_front();
                }
                self.ended.push_back((peer, who, dialled));
            }
            self.events.push_back(Event::Down { peer, why });
        } else if dialling {
            let held = self
                .conns
                .iter()
                .find(|(_, entry)| entry.peer == Some(peer) && entry.session.phase == Phase::Held);
            if let Some(held) = held.map(|(conn, _)| *conn) {
                self.admit(held);
            }
        }
    }

    fn close(&mut self, conn: ConnId) {
        self.close_with(conn, None);
    }

    fn close_with(&mut self, conn: ConnId, farewell: Option<Vec<u8>>) {
        if self.conns.remove(&conn).is_some() {
            self.events.push_back(Event::Close { conn, farewell });
        }
    }

    /// Queues a datagram for an established peer; one that is not (any more) is passed over.
    pub fn send(&mut self, peer: NodeId, control: &Control<'_>, fds: &[F]) {
        let Some(conn) = self.up.get(&peer).copied() else { return };
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        if let Err(error) = entry.session.push(control, fds) {
            self.fail(conn, &error);
        }
    }

    /// The established peers.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.up.keys().copied()
    }

    /// Marks what has been queued for a peer so far; for [`Hub::has_sent`].
    pub fn mark(&self, peer: NodeId) -> Option<u64> {
        self.session(peer).map(Session::mark)
    }

    /// Whether all up to the mark is in the socket, or the peer is gone.
    pub fn has_sent(&self, peer: NodeId, mark: u64) -> bool {
        self.session(peer).is_none_or(|session| session.has_sent(mark))
    }

    fn session(&self, peer: NodeId) -> Option<&Session<F>> {
        self.up.get(&peer).and_then(|conn| self.conns.get(conn)).map(|entry| &entry.session)
    }

    pub fn poll_event(&mut self) -> Option<Event<I>> {
        self.events.pop_front()
    }

    /// What to put into this connection's socket next; call [`Hub::transmitted`] once it is in.
    pub fn poll_transmit(&mut self, conn: ConnId) -> Option<(&[u8], &[F])> {
        self.conns.get_mut(&conn)?.session.poll_transmit()
    }

    pub fn transmitted(&mut self, conn: ConnId) {
        if let Some(entry) = self.conns.get_mut(&conn) {
            entry.session.transmitted();
            if entry.session.is_spent() {
                self.end(conn, Gone::Unread);
            }
        }
    }

    /// When [`Hub::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.conns.values().filter_map(|entry| entry.session.poll_timeout()).min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        let late = |entry: &Conn<F>| entry.session.poll_timeout().is_some_and(|due| due <= now);
        let due: Vec<ConnId> =
            self.conns.iter().filter(|(_, entry)| late(entry)).map(|(conn, _)| *conn).collect();
        for conn in due {
            let Some(entry) = self.conns.get_mut(&conn) else { continue };
            if let Err(error) = entry.session.handle_timeout(now) {
                self.fail(conn, &error);
            }
        }
    }
}

fn hello((major, minor): (u16, u16), card: &Card, capabilities: u64) -> Hello<'_> {
    let id = card.id.0;
    Hello { major, minor, id, name: &card.name, started_unix_ms: card.started_unix_ms, capabilities }
}

fn card_of(hello: &Hello<'_>) -> Card {
    Card { id: NodeId(hello.id), name: hello.name.into(), started_unix_ms: hello.started_unix_ms }
}
