//! Leaving the bus with nothing left undone.
//!
//! ```text
//!   Node::drain ── servers refuse requests      the calls that they have are finished (`server/work.rs`)
//!               ── logs are halted, and calls   refused; those that were made are finished (`client/wait.rs`)
//!               ── logs are read to the end     (`core/drain.rs`)
//!               ── goodbye
//! ```

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::client::ClientShared;
use super::core::Command;
use super::node::Node;
use super::peer::NodeInfo;
use super::server::ServerShared;

/// How often it is looked whether calls are over.
const TICK: Duration = Duration::from_millis(1);
/// A longer time to wait is as good as for ever.
const LONG: Duration = Duration::from_secs(1 << 30);

/// How far a node has drained, and whose calls it waits for.
#[derive(Default)]
pub(super) struct Drains {
    draining: AtomicBool,
    closing: AtomicBool,
    servers: Mutex<Vec<Weak<ServerShared>>>,
    clients: Mutex<Vec<Weak<ClientShared>>>,
}

impl Drains {
    /// Requests are refused.
    pub(super) fn is_draining(&self) -> bool {
        // SeqCst pairs with the store in `Node::drain`: a request that was taken without seeing it is seen by
        // whoever looks for requests after it.
        self.draining.load(SeqCst)
    }

    /// Whatever is new is refused.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(SeqCst) // pairs with the store in `Node::drain`, in the same way
    }

    pub(super) fn add_server(&self, server: &Arc<ServerShared>) {
        add(&self.servers, server);
    }

    pub(super) fn add_client(&self, client: &Arc<ClientShared>) {
        add(&self.clients, client);
    }

    fn serving(&self) -> usize {
        all(&self.servers).iter().map(|server| server.unfinished()).sum()
    }

    /// Calls without an answer. Those that nobody waits for just now get theirs here.
    fn calling(&self) -> usize {
        let calling = |client: &Arc<ClientShared>| {
            if client.unfinished() > 0 {
                client.read_for_others(Instant::now() + TICK);
            }
            client.unfinished()
        };
        all(&self.clients).iter().map(calling).sum()
    }
}

fn add<T>(list: &Mutex<Vec<Weak<T>>>, new: &Arc<T>) {
    let mut list = list.lock();
    list.retain(|old| old.strong_count() > 0);
    list.push(Arc::downgrade(new));
}

/// Taken out of the list: what dropping the last handle runs may want the lock.
fn all<T>(list: &Mutex<Vec<Weak<T>>>) -> Vec<Arc<T>> {
    list.lock().iter().filter_map(Weak::upgrade).collect()
}

/// Looks until nothing is left or the time is over; what is left.
fn wait(deadline: Instant, mut left: impl FnMut() -> usize) -> usize {
    loop {
        match left() {
            0 => return 0,
            left if Instant::now() >= deadline => return left,
            _ => std::thread::sleep(TICK),
        }
    }
}

/// Why a node did not drain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrainError {
    /// The time was over before all was done. The node has left the bus all the same.
    #[error("the node has left with something undone: {0}")]
    Unfinished(Unfinished),
    /// The node was made in a parent process.
    #[error("this process is a fork of the one that joined: join again in the child")]
    Forked,
    /// The node has left before, or its control thread is gone.
    #[error("the node has left the bus: join again")]
    NodeGone,
}

/// What a node that drained has left undone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Unfinished {
    /// Calls that this node's servers have taken and not answered.
    pub serving: usize,
    /// Calls that this node has made and that have no answer.
    pub calling: usize,
    /// Logs that somebody has not read to the end.
    pub unread: Vec<Unread>,
}

/// What one reader has not read; see [`Unfinished::unread`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unread {
    /// The publisher's topic or pattern; for direct messages `@to/` and the name, for broadcasts `@all`.
    pub topic: String,
    /// Whose port it is that is behind.
    pub reader: NodeInfo,
    /// How far, in bytes of the log.
    pub bytes: u64,
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (calls, what) in
            [(self.serving, "calls that it serves"), (self.calling, "calls that it has made")]
        {
            if calls > 0 {
                write!(f, "{between}{calls} {what} are not answered")?;
                between = "; ";
            }
        }
        for Unread { topic, reader, bytes } in &self.unread {
            write!(f, "{between}{reader} has not read {bytes} bytes of {topic}, or not told so yet")?;
            between = "; ";
        }
        Ok(())
    }
}

impl Node {
    /// Leaves the bus with nothing left undone, as far as that goes within `timeout`. In this order:
    ///
    /// 1. Servers refuse new requests (`Unavailable`), and finish those that they have. Until then, handlers and
    ///    others may publish and call.
    /// 2. Whatever is new is refused: publishing, sending and opening ports (`Draining`), and calls (`Unavailable`).
    ///    Those that this node has made are waited for.
    /// 3. Whoever reads what was published or sent, this node's own ports included, is waited for. A reader may tell
    ///    only when it looks for its next message how far it has read.
    /// 4. The node says goodbye. Ports that are still open are of no more use.
    ///
    /// What was published and not read is not lost with the node: who was attached reads it after the goodbye. A
    /// handler that drains its own node waits for itself, in vain.
    ///
    /// # Errors
    /// [`DrainError::Unfinished`] tells what was left undone when the time was over; the node has left then, too.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// let bus = ringbus::Bus::private()?;
    /// let (worker, planner) = (bus.join("worker")?, bus.join("planner")?);
    /// let mut updates = planner.subscriber::<u32>("task/progress")?;
    /// let mut progress = worker.publisher::<u32>("task/progress")?;
    /// progress.publish(&100)?;
    /// let reader = std::thread::spawn(move || updates.recv().map(|percent| *percent));
    ///
    /// worker.drain(Duration::from_secs(10))?;
    /// assert_eq!(reader.join().unwrap()?, 100);
    /// assert!(progress.publish(&101).is_err());
    /// # Ok::<(), ringbus::Error>(())
    /// ```
    pub fn drain(&self, timeout: Duration) -> Result<(), DrainError> {
        let node = &self.shared;
        if !node.origin.is_here() {
            return Err(DrainError::Forked);
        }
        let deadline = Instant::now() + timeout.min(LONG);
        let drains = &node.drains;
        // SeqCst, before the looks for requests: see `Drains::is_draining`.
        drains.draining.store(true, SeqCst);
        let serving = wait(deadline, || drains.serving());
        drains.closing.store(true, SeqCst);
        let gone = |_| DrainError::NodeGone;
        node.ask(Command::Halt).map_err(gone)?;
        let calling = wait(deadline, || drains.calling());
        let unread = node.ask(|reply| Command::Drain { deadline, reply }).map_err(gone)?;
        let left = Unfinished { serving, calling, unread };
        if left == Unfinished::default() { Ok(()) } else { Err(DrainError::Unfinished(left)) }
    }
}
