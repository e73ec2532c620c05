//! The sockets under the [`Hub`]: accepts, dials, receives, sends, and notices deaths.
//!
//! One thread turns it. It sleeps in epoll unless the bus changes; once a second it looks whether its own
//! socket is still there and whether a node is there that it has no session with.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::caller::Caller;
use super::directory::{FileId, Placed};
use super::hub::{Admission, ConnId, Event, Hub};
use super::session::Unread;
use super::{Card, Directory, DirectoryError, NodeId};
use crate::frame::Control;
use crate::sys::epoll::{Epoll, Events, Interest};
use crate::sys::poll;
use crate::sys::seqpacket::{Listener, MAX_DATAGRAM, Socket};
use crate::wake::Bell;

mod callers;
mod ends;

/// How often the node wakes up when nothing happens: it looks at the directory, and its heart beats.
pub(crate) const BEAT: Duration = Duration::from_secs(1);
/// How soon a dial is tried again, the first time, when the peer's backlog was full, or this process short of something.
const REDIAL: Duration = Duration::from_millis(5);
/// How long a dial is tried again: then the next look at the directory finds the node.
const DIAL_FOR: Duration = super::HANDSHAKE;
/// How soon it is looked again for what nothing tells of: room for fds that are too many in flight for this
/// user (`ETOOMANYREFS`), a free fd for a caller.
const RETRY: Duration = Duration::from_millis(10);
/// Datagrams taken from one connection in a row, for the sake of the others. Its socket holds fewer unless
/// the peer keeps sending, or the host's `net.core.wmem_default` was raised.
const IN_A_ROW: usize = 1024;
/// Callers that may have been accepted and not answered; the others wait in the backlog, where they cost
/// this process no fds.
const CALLERS: usize = 128;

const LISTENER: u64 = 0;
const BELL: u64 = 1;

/// The fd of a socket, and the fd of its peer's process.
fn tokens(conn: ConnId) -> (u64, u64) {
    (conn * 2, conn * 2 + 1)
}

struct Wire {
    socket: Socket,
    /// Readable once the peer's process is dead, whoever else holds its socket. `None` where the kernel
    /// gives none: then the hang-up alone tells.
    process: Option<OwnedFd>,
    pid: i32,
    /// The socket took no more; epoll tells when it does again.
    blocked: bool,
    /// It was hung up by a process that is about to be dead; what is not by then lives.
    dying_until: Option<Instant>,
}

/// Whether a dial may succeed a moment later: the peer's backlog is full, or this process is short of
/// something.
fn is_shortage(error: &io::Error) -> bool {
    use nix::libc::{EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM};
    error.raw_os_error().is_some_and(|errno| [EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(&errno))
}

struct Redial {
    node: NodeId,
    at: Instant,
    /// How long the next pause is: each is twice the one before.
    pause: Duration,
    until: Instant,
}

/// The node's end of the control plane.
pub(crate) struct Driver {
    directory: Directory,
    id: NodeId,
    listener: Listener,
    /// The listener's name in the directory.
    file: FileId,
    epoll: Epoll,
    ready: Events,
    bell: Bell,
    hub: Hub<Arc<OwnedFd>, OwnedFd>,
    wires: HashMap<ConnId, Wire>,
    redials: VecDeque<Redial>,
    next_beat: Instant,
    beaten: bool, // and not taken yet
    /// Whether the listener is out of the set for a while: nobody can be accepted now.
    accept_paused: bool,
    /// Callers have to wait, since the last time that none did: that was told.
    is_deaf: bool,
    /// When to try again what could not be done.
    retry: Option<Instant>,
    buffer: Box<[u8]>,
    events: VecDeque<Event<OwnedFd>>,
}

impl Driver {
    /// Puts the node's socket into the directory. `bell` interrupts [`Driver::turn`].
    ///
    /// # Errors
    /// [`DirectoryError`]; nothing is left behind then.
    pub(crate) fn open(
        directory: Directory,
        card: Card,
        admission: Admission,
        bell: Bell,
    ) -> Result<Self, DirectoryError> {
        let io = |what| {
            let path = directory.path().to_owned();
            move |source| DirectoryError::Io { what, path, source }
        };
        let id = card.id;
        let epoll = Epoll::new().map_err(io("watch"))?;
        epoll.add(&bell, BELL, Interest::READ).map_err(io("watch"))?;
        let Placed { listener, file } = directory.listen(id)?;
        if let Err(source) = epoll.add(&listener, LISTENER, Interest::READ) {
            directory.remove(id);
            return Err(io("watch")(source));
        }
        Ok(Self {
            id,
            listener,
            file,
            epoll,
            ready: Events::with_capacity(64),
            bell,
            hub: Hub::new(card, 0, admission),
            wires: HashMap::new(),
            redials: VecDeque::new(),
            next_beat: Instant::now() + BEAT,
            beaten: false,
            accept_paused: false,
            is_deaf: false,
            retry: None,
            buffer: vec![0; MAX_DATAGRAM].into(),
            events: VecDeque::new(),
            directory,
        })
    }

    /// Bounds what is kept for a peer that does not read; for sessions that are made from now on.
    pub(crate) fn limit_unread(&mut self, messages: usize, bytes: usize) {
        self.hub.unread = Unread { messages, bytes };
    }

    /// Dials every node in the directory that this one does not know; which they are.
    pub(crate) fn dial_all(&mut self) -> Result<Vec<NodeId>, DirectoryError> {
        let mut nodes = self.directory.nodes()?;
        nodes
            .retain(|node| !self.hub.knows(*node) && !self.redials.iter().any(|redial| redial.node == *node));
        let now = Instant::now();
        for node in &nodes {
            self.dial(*node, now, REDIAL, now + DIAL_FOR);
        }
        Ok(nodes)
    }

    /// Whether this node may be heard of still: it is up, being dialled, or to be dialled again soon.
    pub(crate) fn is_dialling(&self, node: NodeId) -> bool {
        self.redials.iter().any(|redial| redial.node == node) || self.hub.has_conn(node)
    }

    fn dial(&mut self, node: NodeId, now: Instant, pause: Duration, until: Instant) {
        let again = match self.directory.dial(node) {
            Ok(socket) => return self.connected(node, socket, now),
            Err(error) => match error.kind() {
                // Only this means that the node is dead: between bind and listen its socket had no name.
                io::ErrorKind::ConnectionRefused => {
                    tracing::debug!(%node, "stale socket removed");
                    self.directory.remove(node);
                    false
                }
                _ => is_shortage(&error) && now < until,
            },
        };
        if again {
            self.redials.push_back(Redial { node, at: now + pause, pause: pause * 2, until });
        }
    }

    fn connected(&mut self, node: NodeId, socket: Socket, now: Instant) {
        match Caller::behind(&socket) {
            Ok(Caller { dead: true, .. }) => {
                // A forked child of the dead node holds its socket.
                tracing::debug!(%node, "orphaned socket removed");
                self.directory.remove(node);
            }
            Ok(caller) => {
                let pid = caller.credentials.pid;
                if let Some(conn) = self.hub.dialled(node, caller.credentials, now) {
                    self.watch(conn, socket, pid, caller.process);
                }
            }
            Err(error) => tracing::warn!(%node, %error, "peer has no credentials"),
        }
    }

    fn watch(&mut self, conn: ConnId, socket: Socket, pid: i32, process: Option<OwnedFd>) {
        let (socket_token, process_token) = tokens(conn);
        let watched = self.epoll.add(&socket, socket_token, Interest::READ).and_then(|()| match &process {
            Some(process) => self.epoll.add(process, process_token, Interest::READ),
            None => Ok(()),
        });
        self.wires.insert(conn, Wire { socket, process, pid, blocked: false, dying_until: None });
        if let Err(error) = watched {
            tracing::warn!(%error, "cannot watch a peer");
            self.hub.handle_lost(conn);
        }
    }

    /// Sends what is queued, waits until `deadline` (`None`: for ever) for something to happen, and handles
    /// all that did.
    ///
    /// # Errors
    /// Only what leaves the node without a control plane: epoll itself failed.
    pub(crate) fn turn(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        self.flush();
        let now = Instant::now();
        let redial = self.redials.iter().map(|redial| redial.at).min();
        let due =
            [deadline, redial, self.dying_until(), self.retry, self.hub.poll_timeout(), Some(self.next_beat)];
        let due = due.into_iter().flatten().min();
        let timeout = if self.events.is_empty() {
            due.map(|due| due.saturating_duration_since(now))
        } else {
            Some(Duration::ZERO)
        };
        let mut ready = std::mem::replace(&mut self.ready, Events::with_capacity(0));
        let waited = self.epoll.wait(&mut ready, timeout);
        let now = Instant::now();
        for event in ready.iter() {
            match event.token {
                LISTENER => self.accept(now),
                BELL => self.bell.drain(),
                token => self.handle_ready(token, event.writable, event.readable || event.hangup, now),
            }
        }
        self.ready = ready;
        self.handle_timers(now);
        self.flush();
        waited
    }

    fn handle_ready(&mut self, token: u64, writable: bool, readable: bool, now: Instant) {
        let conn = token / 2;
        if token == tokens(conn).1 {
            // Dead: what it sent is in the socket, and nothing follows. More than fits into one turn is
            // left for the next, when this fd is readable still.
            if self.hub.awaits_hello(conn) || self.receive(conn, now) {
                self.hub.handle_lost(conn);
            }
            return;
        }
        if writable {
            self.unblock(conn);
        }
        if readable {
            self.receive(conn, now);
        }
    }

    fn unblock(&mut self, conn: ConnId) {
        if let Some(wire) = self.wires.get_mut(&conn)
            && wire.blocked
        {
            wire.blocked = false;
            let _ = self.epoll.modify(&wire.socket, tokens(conn).0, Interest::READ);
        }
    }

    fn handle_timers(&mut self, now: Instant) {
        self.hub.handle_timeout(now);
        self.end_dying(now);
        if self.retry.is_some_and(|due| due <= now) {
            self.retry = None;
            if std::mem::take(&mut self.accept_paused) {
                let _ = self.epoll.add(&self.listener, LISTENER, Interest::READ);
            }
        }
        for _ in 0..self.redials.len() {
            match self.redials.pop_front() {
                // It has dialled meanwhile, or was refused.
                Some(redial) if self.hub.knows(redial.node) => {}
                Some(redial) if redial.at <= now => self.dial(redial.node, now, redial.pause, redial.until),
                Some(later) => self.redials.push_back(later),
                None => {}
            }
        }
        if self.next_beat <= now {
            // From now on: a node that was stopped has missed beats, and does not make up for them.
            self.next_beat = now + BEAT;
            self.beaten = true;
            self.look_at_directory();
        }
    }

    /// Whether it is time again for what is done every [`BEAT`]; once each.
    pub(crate) fn take_beat(&mut self) -> bool {
        std::mem::take(&mut self.beaten)
    }

    fn look_at_directory(&mut self) {
        if !self.directory.holds(self.id, self.file) {
            let path = self.directory.path().display();
            tracing::warn!(%path, "this node's socket was removed or replaced: placing it again");
            match self.directory.listen(self.id) {
                Ok(Placed { listener, file }) => {
                    let _ = self.epoll.remove(&self.listener);
                    (self.listener, self.file) = (listener, file);
                    self.accept_paused = false;
                    let _ = self.epoll.add(&self.listener, LISTENER, Interest::READ);
                }
                Err(error) => tracing::warn!(%error, "cannot place this node's socket again"),
            }
        }
        if let Err(error) = self.dial_all() {
            tracing::warn!(%error, "cannot look for other nodes");
        }
    }

    /// Takes what has arrived on a connection; false if there may be more.
    fn receive(&mut self, conn: ConnId, now: Instant) -> bool {
        for _ in 0..IN_A_ROW {
            let Some(wire) = self.wires.get(&conn).filter(|wire| wire.dying_until.is_none()) else {
                return true;
            };
            if self.hub.awaits_hello(conn) && poll::hung_up(wire.socket.as_fd()).unwrap_or(true) {
                self.hub.handle_lost(conn);
                return true;
            }
            match wire.socket.recv(&mut self.buffer) {
                Ok(received) if received.is_end() => {
                    self.handle_end(conn, now);
                    return true;
                }
                Ok(received) => {
                    // A cut datagram does not decode, which ends the session as it should.
                    let len = received.len.min(self.buffer.len());
                    let len = if received.cut { 0 } else { len };
                    self.hub.handle_datagram(conn, &self.buffer[..len], received.fds, received.lost_fds, now);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return true,
                    // A peer that died with unread input gives this first, then what it had sent.
                    io::ErrorKind::ConnectionReset => {}
                    _ => {
                        tracing::warn!(%error, "cannot receive");
                        self.handle_end(conn, now);
                        return true;
                    }
                },
            }
        }
        false
    }

    /// Handles everything that has already arrived, from callers in the backlog too.
    pub(crate) fn sweep(&mut self) {
        let now = Instant::now();
        self.accept(now);
        for conn in self.wires.keys().copied().collect::<Vec<_>>() {
            self.receive(conn, now);
        }
        self.flush();
    }

    /// Puts into the sockets what they take.
    pub(crate) fn flush(&mut self) {
        self.take_events();
        for conn in self.wires.keys().copied().collect::<Vec<_>>() {
            self.flush_conn(conn);
        }
        self.take_events();
    }

    fn flush_conn(&mut self, conn: ConnId) {
        let Some(wire) = self.wires.get_mut(&conn) else { return };
        while !wire.blocked
            && let Some((bytes, fds)) = self.hub.poll_transmit(conn)
        {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match wire.socket.send(bytes, &fds) {
                Ok(()) => self.hub.transmitted(conn),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wire.blocked = true;
                    let _ = self.epoll.modify(&wire.socket, tokens(conn).0, Interest::BOTH);
                }
                Err(error) if error.raw_os_error() == Some(nix::libc::ETOOMANYREFS) => {
                    self.retry.get_or_insert_with(|| Instant::now() + RETRY);
                    return;
                }
                // Gone: what it sent before it went is still to be received, then its end.
                Err(error) => {
                    tracing::debug!(%error, "cannot send");
                    return;
                }
            }
        }
    }

    /// Moves the hub's events over, closing connections on the way.
    fn take_events(&mut self) {
        while let Some(event) = self.hub.poll_event() {
            if let Event::Close { conn, farewell } = event {
                self.close(conn, farewell);
            } else {
                self.events.push_back(event);
            }
        }
    }

    fn close(&mut self, conn: ConnId, farewell: Option<Vec<u8>>) {
        let Some(wire) = self.wires.remove(&conn) else { return };
        if let Some(bytes) = farewell {
            let _ = wire.socket.send(&bytes, &[]);
        }
        // A forked child may hold the same socket: closing it would not take it out of the set.
        let _ = self.epoll.remove(&wire.socket);
        if let Some(process) = &wire.process {
            let _ = self.epoll.remove(process);
        }
    }

    /// What happened, in order.
    pub(crate) fn poll_event(&mut self) -> Option<Event<OwnedFd>> {
        self.take_events();
        let event = self.events.pop_front()?;
        if let Event::Down { peer, .. } = &event {
            self.directory.remove_if_dead(*peer);
        }
        Some(event)
    }

    /// Queues a datagram for a peer.
    pub(crate) fn send(&mut self, peer: NodeId, control: &Control<'_>, fds: &[Arc<OwnedFd>]) {
        self.hub.send(peer, control, fds);
    }

    /// Marks what has been queued for every established peer so far.
    pub(crate) fn marks(&self) -> Vec<(NodeId, u64)> {
        self.hub.peers().filter_map(|peer| Some((peer, self.hub.mark(peer)?))).collect()
    }

    /// Marks what has been queued for one peer so far; `None` if it is gone.
    pub(crate) fn mark(&self, peer: NodeId) -> Option<u64> {
        self.hub.mark(peer)
    }

    /// Whether all up to the mark is in the socket, or the peer is gone.
    pub(crate) fn has_sent(&self, peer: NodeId, mark: u64) -> bool {
        self.hub.has_sent(peer, mark)
    }

    /// Drops the marks that have been reached; true if none is left.
    pub(crate) fn all_sent(&self, marks: &mut Vec<(NodeId, u64)>) -> bool {
        marks.retain(|(peer, mark)| !self.hub.has_sent(*peer, *mark));
        marks.is_empty()
    }
}

impl Drop for Driver {
    /// Leaves the bus: says goodbye, as far as the sockets take it, and takes the socket's name away.
    fn drop(&mut self) {
        self.directory.remove(self.id);
        for peer in self.hub.peers().collect::<Vec<_>>() {
            self.hub.send(peer, &Control::Goodbye, &[]);
        }
        self.flush();
    }
}
