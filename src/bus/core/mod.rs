//! The node's control thread: knows every peer's ports, and keeps gates and logs in step with them.
//!
//! It acts on what arrives (`peers.rs`), on what the node's own handles ask for (this file), and joins
//! writers with readers (`attach.rs`). It waits for nobody: an answer that depends on others is a
//! [`Waiting`] with a deadline.
//!
//! The node is its own peer: its ports attach to each other through the very messages that go to others,
//! handed back in order instead of through a socket.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Release};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use super::access::{Action, Denials, Rights, Rules};
use super::blob::NewBlob;
use super::drain::Unread;
use super::log::OutletShared;
use super::open::{Bus, PrivateDirectory, Trust};
use super::peer::{NodeInfo, Peer, RefusedNode};
use super::presence::PresenceShared;
use super::quotas::{Exhaustions, Quotas, Resource};
use super::reading::{Change, InletShared, LogKey};
use super::stats::NodeStats;
use super::topic::Filter;
use crate::control::{DirectoryError, Driver, Message, NodeId};
use crate::frame::Control;
use crate::ring::Corrupt;
use crate::segment::SegmentError;
use crate::sys::clock;

mod access;
mod again;
mod attach;
mod blobs;
mod drain;
mod ending;
mod heartbeat;
mod lines;
mod pairs;
mod peers;
mod presence;
mod quotas;
mod report;
mod segments;
mod slots;
mod succession;
mod waiting;

pub(super) use access::Audience;
use again::{Missing, What};
use attach::{LocalOutlet, LocalSource};
use drain::{ClosedUnread, Draining};
pub(super) use heartbeat::Pulse;
use peers::PeerState;
use slots::LocalInlet;
use waiting::{Waiting, WaitingOn};

/// How long others may take to answer before `join` and `open` go on without them.
const ANSWER: Duration = Duration::from_millis(200);
/// Refused nodes that are remembered for the user.
const REFUSED: usize = 64;

/// What a node's handles and ports ask of its control thread.
pub(super) enum Command {
    OpenOutlet {
        outlet: Arc<OutletShared>,
        reply: SyncSender<()>,
    },
    OpenInlet {
        inlet: Arc<InletShared>,
        reply: SyncSender<()>,
    },
    /// The first log of a client for a server: attaches it there, if the server is still known.
    OpenPair {
        outlet: Arc<OutletShared>,
        reply: SyncSender<()>,
    },
    /// A log has a new blob; the reply comes at once, [`NewBlob::shared`] later if a reader does not read its socket.
    ShareBlob {
        log: u64,
        new: NewBlob,
        reply: SyncSender<()>,
    },
    /// A log has no such blob any more.
    BlobGone {
        log: u64,
        blob: u64,
    },
    /// A log is closed, and its port with it, unless that reads logs too.
    CloseLog {
        log: u64,
    },
    /// A reading port is closed, and every log that it wrote.
    ClosePort {
        port: u64,
    },
    /// Handles what has already arrived.
    Sweep(SyncSender<()>),
    /// Whether an inbox on the bus reads this topic.
    FindReader {
        topic: Filter,
        reply: SyncSender<Audience>,
    },
    /// A reading port is done with a log: it was closed, its writer is gone, or it is corrupt.
    LogDone {
        port: u64,
        key: LogKey,
        corrupt: Option<Corrupt>,
    },
    /// A reading port has read a log to its end that was closed for one that it was not given; [`Command::LogDone`]
    /// follows.
    CutOff {
        port: u64,
        key: LogKey,
    },
    /// A log is full of what slow readers have not read: another takes its place, without them. The reply comes when
    /// all other readers have it, or [`ANSWER`] later.
    Succeed {
        log: u64,
        next: Arc<OutletShared>,
        slow: Vec<u16>,
        reply: SyncSender<()>,
    },
    /// A reader's cursor was impossible.
    CorruptReader {
        log: u64,
        number: u16,
        why: Corrupt,
    },
    OpenPresence {
        presence: Arc<PresenceShared>,
        reply: SyncSender<()>,
    },
    ClosePresence {
        presence: Arc<PresenceShared>,
    },
    Peers(SyncSender<Vec<Peer>>),
    Refused(SyncSender<Vec<RefusedNode>>),
    Denials(SyncSender<Denials>),
    Exhaustions(SyncSender<Exhaustions>),
    Survey {
        timeout: Duration,
        reply: SyncSender<Vec<NodeStats>>,
    },
    /// Publishers take nothing new from now on; what was published before is waited for by a [`Command::Drain`].
    Halt(SyncSender<()>),
    /// Leaves when all is read that was published; who has not read what.
    Drain {
        deadline: Instant,
        reply: SyncSender<Vec<Unread>>,
    },
    Leave,
}

/// Why a message could not be acted on.
enum Trouble {
    /// The peer broke the protocol: it is cut off.
    Offence(String),
    /// This process is out of memory or file descriptors: nobody else's fault.
    Shortage(String),
    /// The access list does not let the peer do this.
    Denied(Action, Filter),
    /// The peer has used up its quota of this.
    Exhausted(Resource),
}

impl<T: Into<String>> From<T> for Trouble {
    fn from(what: T) -> Self {
        Trouble::Offence(what.into())
    }
}

/// What is wrong with a segment of a peer's.
fn segment_trouble(what: &str, error: &SegmentError) -> Trouble {
    let text = format!("{what}: {error}");
    if error.is_shortage() { Trouble::Shortage(text) } else { Trouble::Offence(text) }
}

/// What is wrong with a bell of a peer's.
fn bell_trouble(error: &std::io::Error) -> Trouble {
    let text = format!("a bell: {error}");
    match error.kind() {
        std::io::ErrorKind::InvalidInput => Trouble::Offence(text),
        _ => Trouble::Shortage(text),
    }
}

pub(super) struct Core {
    driver: Driver,
    commands: Receiver<Command>,
    me: NodeInfo,
    trust: Trust,
    access: Arc<Rules>,
    /// Every established peer, and this node.
    peers: HashMap<NodeId, PeerState>,
    /// By log.
    outlets: HashMap<u64, LocalOutlet>,
    inlets: HashMap<u64, LocalInlet>,
    sources: HashMap<(u64, LogKey), LocalSource>,
    /// Numbers of logs: those that ports open, and those that this thread makes for servers.
    next_log: Arc<AtomicU64>,
    /// Messages of this node to itself.
    loopback: VecDeque<(Message, Vec<Arc<OwnedFd>>)>,
    waiting: Vec<Waiting>,
    /// Readers that have a gate, and whose Attach is not in their socket yet.
    attaching: Vec<(Arc<OutletShared>, NodeId, u64)>,
    /// Blobs that are not in every reader's socket yet.
    sharing: Vec<blobs::Sharing>,
    refused: VecDeque<RefusedNode>,
    lines: lines::Lines,
    /// The same of what this node is short of.
    errors: lines::Lines,
    denials: Denials,
    quotas: Quotas,
    exhaustions: Exhaustions,
    /// What this process was short of something for.
    missing: HashMap<(NodeId, What), Missing>,
    presences: Vec<Arc<PresenceShared>>,
    pulse: Pulse,
    surveys: u64,
    is_halted: bool,
    closed: VecDeque<ClosedUnread>,
    draining: Option<Draining>,
    started: Instant,
    /// For the ports to see when the thread has ended.
    gone: Arc<AtomicBool>,
    /// Outlives the driver, which removes its socket from it.
    _private: Option<Arc<PrivateDirectory>>,
}

impl Core {
    pub(super) fn new(
        driver: Driver,
        commands: Receiver<Command>,
        me: NodeInfo,
        pulse: Pulse,
        bus: &Bus,
        gone: Arc<AtomicBool>,
        next_log: Arc<AtomicU64>,
    ) -> Self {
        Self {
            driver,
            commands,
            peers: HashMap::from([(me.id(), PeerState::new(me.clone(), Rights::All))]),
            me,
            trust: bus.trust,
            access: bus.access.clone(),
            outlets: HashMap::new(),
            next_log,
            inlets: HashMap::new(),
            sources: HashMap::new(),
            loopback: VecDeque::new(),
            waiting: Vec::new(),
            attaching: Vec::new(),
            sharing: Vec::new(),
            refused: VecDeque::new(),
            lines: lines::Lines::default(),
            errors: lines::Lines::default(),
            denials: Denials::default(),
            quotas: bus.quotas,
            exhaustions: Exhaustions::default(),
            missing: HashMap::new(),
            presences: Vec::new(),
            pulse,
            surveys: 0,
            is_halted: false,
            closed: VecDeque::new(),
            draining: None,
            started: Instant::now(),
            gone,
            _private: bus.private.clone(),
        }
    }

    /// Joins, then serves until told to leave.
    pub(super) fn run(mut self, joined: SyncSender<Result<(), DirectoryError>>) {
        let queued = Some(clock::queued());
        match self.driver.dial_all() {
            Ok(nodes) => {
                let on = WaitingOn::Join { nodes: nodes.into_iter().collect(), queued, reply: joined };
                self.waiting.push(Waiting { deadline: Instant::now() + ANSWER, on });
            }
            Err(error) => {
                let _ = joined.send(Err(error));
                return;
            }
        }
        self.driver.flush();
        loop {
            self.handle_events();
            if !self.handle_commands() {
                return self.leave();
            }
            self.handle_events();
            if self.driver.take_beat() {
                self.beat();
                self.lines.beat("nodes that were refused or cut off");
                self.errors.beat("errors that are told beside this");
                self.ask_again();
                self.handle_events();
            }
            self.driver.flush();
            self.count_attached();
            self.count_shared();
            self.handle_waiting();
            if self.has_drained() {
                self.leave();
                return self.end();
            }
            let deadlines = self.waiting.iter().map(|waiting| waiting.deadline);
            let deadline = deadlines.chain(self.next_drain_look()).min();
            if let Err(error) = self.driver.turn(deadline) {
                tracing::error!(%error, "control thread cannot wait for events: the node leaves the bus");
                return;
            }
        }
    }

    /// What was published has to reach whoever was gated before the goodbye does; a peer that does not read is
    /// waited for no longer than [`ANSWER`].
    fn leave(&mut self) {
        self.handle_events();
        self.driver.flush();
        let deadline = Instant::now() + ANSWER;
        let mut marks = self.driver.marks();
        while !self.driver.all_sent(&mut marks) && Instant::now() < deadline {
            if self.driver.turn(Some(deadline)).is_err() {
                return;
            }
            while self.driver.poll_event().is_some() {}
        }
    }

    /// Readers whose Attach is in their socket now count as subscribers: even if this process is killed,
    /// what is published from here on reaches them.
    fn count_attached(&mut self) {
        let (sent, unsent): (Vec<_>, _) = std::mem::take(&mut self.attaching)
            .into_iter()
            .partition(|(_, node, mark)| self.driver.has_sent(*node, *mark));
        self.attaching = unsent;
        for (outlet, ..) in sent {
            self.count_gates(&outlet);
        }
    }

    fn count_gates(&self, outlet: &Arc<OutletShared>) {
        let unsent = self.attaching.iter().filter(|(other, ..)| Arc::ptr_eq(other, outlet)).count();
        outlet.gates_changed(unsent);
    }

    /// Everything that has arrived, in order.
    fn handle_events(&mut self) {
        loop {
            if let Some((message, fds)) = self.loopback.pop_front() {
                self.handle_message(self.me.id(), message, fds);
            } else if let Some(event) = self.driver.poll_event() {
                self.handle_event(event);
            } else {
                return;
            }
        }
    }

    /// False when it is time to leave.
    fn handle_commands(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Leave) | Err(TryRecvError::Disconnected) => return false,
                Ok(command) => self.handle_command(command),
                Err(TryRecvError::Empty) => return true,
            }
            self.handle_events();
        }
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::OpenOutlet { outlet, reply } => {
                // Whoever opened a subscriber before has put it into a socket of ours.
                self.driver.sweep();
                self.handle_events();
                self.open_outlet(outlet);
                self.reply_when_sent(reply);
            }
            Command::OpenInlet { inlet, reply } => {
                self.open_inlet(inlet);
                self.reply_when_sent(reply);
            }
            Command::OpenPair { outlet, reply } => {
                // A server that was closed before is not called.
                self.driver.sweep();
                self.handle_events();
                self.open_pair(outlet);
                self.reply_when_sent(reply);
            }
            Command::ShareBlob { log, new, reply } => {
                self.share_blob(log, new);
                let _ = reply.send(());
            }
            Command::BlobGone { log, blob } => self.blob_gone(log, blob),
            Command::CloseLog { log } => self.close_log(log),
            Command::ClosePort { port } => self.close_port(port),
            Command::Sweep(reply) => {
                self.driver.sweep();
                self.handle_events();
                let _ = reply.send(());
            }
            Command::FindReader { topic, reply } => {
                // Whoever opened one before has put it into a socket of ours.
                self.driver.sweep();
                self.handle_events();
                let _ = reply.send(self.find_reader(&topic));
            }
            Command::CutOff { port, key } => self.note_cut_off(port, key),
            Command::Succeed { log, next, slow, reply } => self.succeed(log, next, &slow, reply),
            Command::LogDone { port, key, corrupt } => {
                if corrupt.is_some() {
                    // It may have hung up meanwhile, and even be back.
                    self.driver.sweep();
                    self.handle_events();
                }
                let is_overwritten = self.sources.get(&(port, key)).is_some_and(LocalSource::is_overwritten);
                self.finish_log(port, key);
                if let Some(why) = corrupt.filter(|_| !is_overwritten) {
                    self.cut(key.node, &why);
                }
            }
            Command::CorruptReader { log, number, why } => self.remove_corrupt_reader(log, number, &why),
            Command::OpenPresence { presence, reply } => {
                self.open_presence(presence);
                let _ = reply.send(());
            }
            Command::ClosePresence { presence } => self.close_presence(&presence),
            Command::Peers(reply) => {
                self.driver.sweep();
                self.handle_events();
                let _ = reply.send(self.list_peers());
            }
            Command::Refused(reply) => {
                let _ = reply.send(self.refused.iter().cloned().collect());
            }
            Command::Denials(reply) => {
                let _ = reply.send(self.denials.clone());
            }
            Command::Exhaustions(reply) => {
                let _ = reply.send(self.exhaustions.clone());
            }
            Command::Survey { timeout, reply } => self.start_survey(timeout, reply),
            Command::Halt(reply) => {
                self.halt();
                let _ = reply.send(());
            }
            Command::Drain { deadline, reply } => self.start_drain(deadline, reply),
            Command::Leave => {}
        }
    }

    /// Tells a peer, or this node itself.
    fn send(&mut self, to: NodeId, control: &Control<'_>, fds: &[Arc<OwnedFd>]) {
        if to != self.me.id() {
            return self.driver.send(to, control, fds);
        }
        if let Some(message) = Message::from_control(control) {
            self.loopback.push_back((message, fds.to_vec()));
        }
    }

    fn broadcast(&mut self, control: &Control<'_>, fds: &[Arc<OwnedFd>]) {
        for peer in self.peers.keys().copied().collect::<Vec<_>>() {
            self.send(peer, control, fds);
        }
    }
}

impl Drop for Core {
    /// The node leaves: readers of its logs drain them, its own ports (if any are left) learn of it when
    /// they next sleep.
    fn drop(&mut self) {
        self.gone.store(true, Release); // before the bells; pairs with the Acquire in `NodeShared::is_gone`
        // The writers no longer know of this node's readers, and so no longer wait for them: what they
        // look at may be overwritten.
        for ((port, key), _) in self.sources.iter().filter(|(_, source)| !source.is_done()) {
            if let Some(inlet) = self.inlets.get(port) {
                inlet.shared.change(Change::End { key: *key, until: 0, gated: true });
            }
        }
        for inlet in self.inlets.values() {
            inlet.shared.bell.ring();
        }
        for presence in &self.presences {
            presence.bell.ring();
        }
    }
}
