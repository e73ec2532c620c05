//! Who comes, goes, stalls and recovers: a port of its own, which the control thread fills.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::core::Command;
use super::error::{OpenError, RecvError};
use super::node::NodeShared;
use super::peer::Peer;
use crate::control::Gone;
use crate::wake::{Bell, Habit, Patience, Then, Wait};

mod queue;

use queue::Queue;

/// What has happened to another node of the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerChange {
    /// It is there, and has told its ports.
    Joined(Peer),
    /// It is gone; with the ports it had last.
    Left(Peer, Departure),
    /// It is there, but has shown no sign of life for three seconds: its process is stopped, or starved of
    /// processor time. It keeps its ports, and what is published for it waits.
    Stalled(Peer),
    /// It goes on after having stalled.
    Recovered(Peer),
}

impl PeerChange {
    /// The node, as it was then.
    pub fn peer(&self) -> &Peer {
        match self {
            Self::Joined(peer) | Self::Left(peer, _) | Self::Stalled(peer) | Self::Recovered(peer) => peer,
        }
    }
}

impl fmt::Display for PeerChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.peer().node();
        match self {
            Self::Joined(_) => write!(f, "{node} joined"),
            Self::Left(_, why) => write!(f, "{node} left: {why}"),
            Self::Stalled(_) => write!(f, "{node} stalled"),
            Self::Recovered(_) => write!(f, "{node} recovered"),
        }
    }
}

/// Why a node is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Departure {
    /// It left by itself.
    Goodbye,
    /// Its process ended without a word, or has at least hung up.
    Died,
    /// It has not read for so long that this node had to forget what it had to say to it. It lives, and
    /// joins again.
    Unread,
    /// This node cut it off, since it broke the protocol.
    #[non_exhaustive]
    Cut {
        /// What it did.
        why: String,
    },
}

impl From<&Gone> for Departure {
    fn from(gone: &Gone) -> Self {
        match gone {
            Gone::Goodbye => Self::Goodbye,
            Gone::Died | Gone::HungUp => Self::Died,
            Gone::Unread => Self::Unread,
            Gone::Cut(why) => Self::Cut { why: why.clone() },
        }
    }
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Goodbye => f.write_str("said goodbye"),
            Self::Died => f.write_str("died"),
            Self::Unread => f.write_str("did not read for too long"),
            Self::Cut { why } => write!(f, "was cut off, since it broke the protocol: {why}"),
        }
    }
}

/// What the port and the control thread share.
pub(super) struct PresenceShared {
    pub(super) bell: Bell,
    changes: Mutex<Queue>,
}

impl PresenceShared {
    /// Called by the control thread.
    pub(super) fn push(&self, change: PeerChange) {
        self.changes.lock().push(change);
        // After the push: a port that drains the bell first finds the change, or is rung for it.
        self.bell.ring();
    }
}

/// Tells who joins the bus, leaves it, stalls and recovers; from
/// [`Node::presence`](crate::Node::presence).
///
/// It begins with a [`Joined`](PeerChange::Joined) for each node that is there already. As an iterator it
/// waits for the next change; it ends where nothing can come any more, because the node has left the bus or
/// the process is a fork of the one that opened it.
///
/// Changes wait to be read; from 1024 on, or 1 MiB of them, those that cancel each other out are dropped (a node that
/// has come and gone, say), so that an unread one takes no more memory than the nodes of the bus do.
///
/// # Examples
/// ```
/// use ringbus::{Departure, PeerChange};
///
/// let bus = ringbus::Bus::private()?;
/// let node = bus.join("planner")?;
/// let worker = bus.join("worker")?;
/// let mut presence = node.presence()?;
/// assert!(matches!(presence.recv()?, PeerChange::Joined(peer) if peer.name() == "worker"));
/// drop(worker);
/// assert!(matches!(presence.recv()?, PeerChange::Left(_, Departure::Goodbye)));
/// # Ok::<(), ringbus::Error>(())
/// ```
pub struct Presence {
    shared: Arc<PresenceShared>,
    node: Arc<NodeShared>,
}

impl Presence {
    pub(super) fn open(node: &Arc<NodeShared>) -> Result<Self, OpenError> {
        if !node.origin.is_here() {
            return Err(OpenError::Forked);
        }
        let bell = Bell::new().map_err(|error| OpenError::Memory { reason: error.to_string() })?;
        let shared = Arc::new(PresenceShared { bell, changes: Mutex::new(Queue::new()) });
        let presence = Self { shared: shared.clone(), node: node.clone() };
        node.ask(|reply| Command::OpenPresence { presence: shared, reply })?;
        Ok(presence)
    }

    /// Waits for the next change.
    ///
    /// # Errors
    /// [`RecvError::Forked`], [`RecvError::NodeGone`]: nothing will come any more.
    pub fn recv(&mut self) -> Result<PeerChange, RecvError> {
        loop {
            if let Some(change) = self.recv_by(None)? {
                return Ok(change);
            }
        }
    }

    /// The next change, if one is there.
    ///
    /// # Errors
    /// Those of [`Presence::recv`].
    pub fn try_recv(&mut self) -> Result<Option<PeerChange>, RecvError> {
        if !self.node.origin.is_here() {
            return Err(RecvError::Forked);
        }
        // Looked at first: what the control thread told before it ended is still read.
        let gone = self.node.is_gone();
        match self.shared.changes.lock().pop() {
            None if gone => Err(RecvError::NodeGone),
            change => Ok(change),
        }
    }

    /// The next change, or `None` if none came in time.
    ///
    /// # Errors
    /// Those of [`Presence::recv`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<PeerChange>, RecvError> {
        self.recv_by(Instant::now().checked_add(timeout))
    }

    fn recv_by(&mut self, deadline: Option<Instant>) -> Result<Option<PeerChange>, RecvError> {
        let (mut patience, mut habit) = (Patience::new(Wait::Park, deadline), Habit::default());
        loop {
            if let Some(change) = self.try_recv()? {
                return Ok(Some(change));
            }
            match patience.next(&mut habit) {
                Then::Look => {}
                Then::GiveUp => return Ok(None),
                Then::Sleep(timeout) => {
                    if self.arm()? {
                        // An error is the kernel's refusal to poll: look again.
                        let _ = self.shared.bell.wait(timeout);
                    }
                    patience.woke();
                }
            }
        }
    }

    /// Prepares to wait for this port with `poll`, `epoll` or an async runtime: false if a change is there
    /// already, else the port's fd turns readable with the next one. It may also turn readable for nothing:
    /// try, then arm again.
    ///
    /// # Errors
    /// Those of [`Presence::recv`].
    pub fn arm(&mut self) -> Result<bool, RecvError> {
        if !self.node.origin.is_here() {
            return Err(RecvError::Forked);
        }
        self.shared.bell.drain();
        let gone = self.node.is_gone();
        match self.shared.changes.lock().is_empty() {
            false => Ok(false),
            true if gone => Err(RecvError::NodeGone),
            true => Ok(true),
        }
    }
}

impl Iterator for Presence {
    type Item = PeerChange;

    /// Waits for the next change; `None` where nothing can come any more.
    fn next(&mut self) -> Option<PeerChange> {
        self.recv().ok()
    }
}

impl AsFd for Presence {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.bell.as_fd()
    }
}

impl AsRawFd for Presence {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Presence").field(&self.node.info).finish()
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.node.tell(Command::ClosePresence { presence: self.shared.clone() });
    }
}
