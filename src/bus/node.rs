//! One participant, usually one per process.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::access::Denials;
use super::client::{Client, ClientBuilder};
use super::core::{Command, Core, Pulse};
use super::drain::Drains;
use super::error::{JoinError, OpenError};
use super::mail::Mail;
use super::open::Bus;
use super::peer::{NodeInfo, Peer, RefusedNode};
use super::presence::Presence;
use super::publisher::{Publisher, PublisherBuilder, RawPublisher};
use super::quotas::Exhaustions;
use super::server::ServiceBuilder;
use super::stats::NodeStats;
use super::subscriber::{RawSubscriber, Subscriber, SubscriberBuilder};
use super::topic::{Filter, check_name};
use crate::control::{Admission, Card, Directory, Driver, NodeId};
use crate::frame::Role;
use crate::segment::SegmentError;
use crate::sys::fork::Origin;
use crate::sys::{clock, credentials, random, thread};
use crate::wake::{Bell, barrier};

/// Stack of the control thread: it keeps its state on the heap.
const STACK: usize = 256 * 1024;

/// A participant of a bus. Clones are the same node; it leaves the bus when the last clone and the last
/// port opened from one are dropped.
///
/// # Examples
/// ```
/// let bus = ringbus::Bus::private()?;
/// let node = bus.join("planner")?;
/// let worker = bus.join("worker")?;
/// assert_eq!(node.peers()[0].name(), "worker");
/// # Ok::<(), ringbus::Error>(())
/// ```
#[derive(Clone)]
pub struct Node {
    pub(super) shared: Arc<NodeShared>,
    /// Not in `shared`: what it opens holds that.
    pub(super) mail: Arc<Mail>,
}

/// What a node's handles and ports share. The control thread holds none of these.
pub(super) struct NodeShared {
    pub(super) info: NodeInfo,
    /// The process that joined: everything of the node is of use in that one only.
    pub(super) origin: Origin,
    pub(super) bus: Bus,
    commands: Sender<Command>,
    bell: Bell,
    next_port: AtomicU64,
    next_log: Arc<AtomicU64>,
    /// Set by the control thread when an outlet has lost its last reader.
    pub(super) unread: Arc<AtomicBool>,
    /// Set when the control thread ends.
    gone: Arc<AtomicBool>,
    pub(super) drains: Drains,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    pub(super) fn join(bus: &Bus, name: &str) -> Result<Self, JoinError> {
        check_name("node name", name)?;
        let io = |what| move |source| JoinError::Io { what, source };
        let origin = Origin::here().map_err(io("watch for forks"))?;
        barrier::has_barriers(); // now: to register is cheapest while the process has few threads
        // Checked again: the directory may have changed since the bus was opened, or be gone.
        let directory = match &bus.private {
            Some(_) => bus.directory.clone(),
            None => Directory::open(&bus.location, &bus.name)?,
        };
        let id = NodeId(random::id128().map_err(io("draw a random id"))?);
        let started_unix_ms = clock::unix_ms();
        let card = Card { id, name: name.into(), started_unix_ms };
        let (pid, uid) = (std::process::id() as i32, credentials::euid());
        let info = NodeInfo::new(id, card.name.clone(), pid, uid, started_unix_ms);
        let bell = Bell::new().map_err(io("create a timerfd"))?;
        let pulse = Pulse::new(id).map_err(|error| {
            io("make the heartbeat's memory")(match error {
                SegmentError::Os { source, .. } => source,
                SegmentError::FileSizeLimit { .. } => Errno::EFBIG.into(),
                error => std::io::Error::other(error),
            })
        })?;
        let admission = Admission { uid, group: bus.location.group() };
        let mut driver = Driver::open(directory, card, admission, bell.clone())?;
        driver.limit_unread(bus.quotas.unread_messages, bus.quotas.unread_bytes);
        let (commands, queue) = mpsc::channel();
        let (joined, wait) = mpsc::sync_channel(1);
        let gone = Arc::new(AtomicBool::new(false));
        let (next_port, next_log) = (AtomicU64::new(1), Arc::new(AtomicU64::new(1)));
        let core = Core::new(driver, queue, info.clone(), pulse, bus, gone.clone(), next_log.clone());
        let thread = thread::spawn("ringbus", Some(STACK), move || core.run(joined))
            .map_err(io("start the control thread"))?;
        // It answers after 200 ms at the latest; if it is gone instead, so is the node.
        match wait.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(io("join")(std::io::Error::other("the control thread has ended"))),
        }
        let bus = bus.clone();
        let thread = Some(thread);
        let shared = Arc::new(NodeShared {
            info,
            origin,
            bus,
            commands,
            bell,
            next_port,
            next_log,
            unread: Arc::default(),
            gone,
            drains: Drains::default(),
            thread,
        });
        Ok(Self { shared, mail: Arc::default() })
    }

    /// This node as others see it.
    pub fn info(&self) -> &NodeInfo {
        &self.shared.info
    }

    /// The bus it is on.
    pub fn bus(&self) -> &Bus {
        &self.shared.bus
    }

    /// Opens a publisher of values on a topic, or over a pattern (`task/**`; see
    /// [`Publisher::publish_to`]), with the usual settings; [`Node::publisher_builder`] has the others.
    ///
    /// Costs its log: 260 KiB of shared memory.
    ///
    /// # Errors
    /// [`OpenError`]: the topic is not valid, or the process is out of memory or file descriptors.
    pub fn publisher<T: Serialize + ?Sized>(&self, topic: &str) -> Result<Publisher<T>, OpenError> {
        self.publisher_builder(topic).open()
    }

    /// Opens a publisher of bytes; see [`Node::publisher`].
    ///
    /// # Errors
    /// Those of [`Node::publisher`].
    pub fn raw_publisher(&self, topic: &str) -> Result<RawPublisher, OpenError> {
        self.publisher_builder(topic).open_raw()
    }

    /// Settings for a publisher on a topic or over a pattern.
    pub fn publisher_builder<'n>(&'n self, topic: &'n str) -> PublisherBuilder<'n> {
        PublisherBuilder::new(&self.shared, topic)
    }

    /// Opens a subscriber of values on every topic that the filter matches: levels between `/`, `*` for one
    /// level, `**` for any number. Whatever is published by a publisher opened after this returned arrives,
    /// from its first message on.
    ///
    /// Costs 4 KiB of shared memory, and the address space of the logs it reads.
    ///
    /// # Errors
    /// [`OpenError`]: the filter is not valid, or the process is out of memory or file descriptors.
    pub fn subscriber<T: DeserializeOwned>(&self, filter: &str) -> Result<Subscriber<T>, OpenError> {
        self.subscriber_builder(filter).open()
    }

    /// Opens a subscriber of bytes; see [`Node::subscriber`].
    ///
    /// # Errors
    /// Those of [`Node::subscriber`].
    pub fn raw_subscriber(&self, filter: &str) -> Result<RawSubscriber, OpenError> {
        self.subscriber_builder(filter).open_raw()
    }

    /// Settings for a subscriber.
    pub fn subscriber_builder(&self, filter: &str) -> SubscriberBuilder<'_> {
        SubscriberBuilder::new(&self.shared, Role::Subscriber, Filter::new(filter))
    }

    /// Opens a client of a service, with the usual settings; [`Node::client_builder`] has the others.
    ///
    /// Costs 4 KiB of shared memory, and 136 KiB more for every server that it calls.
    ///
    /// # Errors
    /// [`OpenError`]: the service's name is not valid, or the process is out of memory or file descriptors.
    pub fn client(&self, service: &str) -> Result<Client, OpenError> {
        self.client_builder(service).open()
    }

    /// Settings for a client.
    pub fn client_builder<'n>(&'n self, service: &'n str) -> ClientBuilder<'n> {
        ClientBuilder::new(&self.shared, service)
    }

    /// Prepares to serve: add methods, then [`spawn`](ServiceBuilder::spawn) or [`run`](ServiceBuilder::run).
    pub fn service<'n>(&'n self, name: &'n str) -> ServiceBuilder<'n> {
        ServiceBuilder::new(&self.shared, name)
    }

    /// The other nodes on the bus, with their ports, sorted by name. Empty in a forked child.
    pub fn peers(&self) -> Vec<Peer> {
        self.shared.ask(Command::Peers).unwrap_or_default()
    }

    /// Opens a port that tells who joins the bus, leaves it, stalls and recovers, beginning with those that are
    /// there.
    ///
    /// Costs a file descriptor, and memory for what has not been read: see [`Presence`].
    ///
    /// # Errors
    /// [`OpenError`]: the process is out of file descriptors, or the node is gone.
    ///
    /// # Examples
    /// ```
    /// # let bus = ringbus::Bus::private()?;
    /// let node = bus.join("watcher")?;
    /// # let _worker = bus.join("worker")?;
    /// for change in node.presence()? {
    ///     println!("{change}");
    /// #   break;
    /// }
    /// # Ok::<(), ringbus::Error>(())
    /// ```
    pub fn presence(&self) -> Result<Presence, OpenError> {
        Presence::open(&self.shared)
    }

    /// Nodes that were not let in, and those that were cut off, with the reason; the latest 64.
    pub fn refused(&self) -> Vec<RefusedNode> {
        self.shared.ask(Command::Refused).unwrap_or_default()
    }

    /// What access lists have refused: this node's to others, and others' to this one; see
    /// [`BusBuilder::allow`](crate::BusBuilder::allow).
    pub fn denials(&self) -> Denials {
        self.shared.ask(Command::Denials).unwrap_or_default()
    }

    /// Quotas that were used up: of this node by others, and of others by this one; see [`Quotas`](crate::Quotas).
    pub fn exhaustions(&self) -> Exhaustions {
        self.shared.ask(Command::Exhaustions).unwrap_or_default()
    }

    /// Asks every node what its ports have counted; those that have answered within `timeout`, this one
    /// first.
    pub fn survey(&self, timeout: Duration) -> Vec<NodeStats> {
        self.shared.ask(|reply| Command::Survey { timeout, reply }).unwrap_or_default()
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Node").field(&self.shared.info).finish()
    }
}

/// What a builder or a port shows of its node.
impl fmt::Debug for NodeShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info.fmt(f)
    }
}

impl NodeShared {
    pub(super) fn next_port(&self) -> u64 {
        self.next_port.fetch_add(1, Relaxed)
    }

    pub(super) fn next_log(&self) -> u64 {
        self.next_log.fetch_add(1, Relaxed)
    }

    /// Tells the control thread; without effect if it is gone.
    pub(super) fn tell(&self, command: Command) {
        if self.origin.is_here() && self.commands.send(command).is_ok() {
            self.bell.ring();
        }
    }

    /// Asks the control thread, which answers without waiting for any other process longer than a
    /// command says.
    pub(super) fn ask<T>(
        &self,
        command: impl FnOnce(mpsc::SyncSender<T>) -> Command,
    ) -> Result<T, OpenError> {
        if !self.origin.is_here() {
            return Err(OpenError::Forked);
        }
        if self.is_own_thread() {
            return Err(OpenError::OwnThread);
        }
        let (reply, answer) = mpsc::sync_channel(1);
        self.tell(command(reply));
        answer.recv().map_err(|_| OpenError::NodeGone)
    }

    /// Whether this is the control thread.
    fn is_own_thread(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| thread.thread().id() == std::thread::current().id())
    }

    /// Whether the control thread is gone: nothing new will arrive.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Acquire)
    }
}

impl Drop for NodeShared {
    fn drop(&mut self) {
        let is_own_thread = self.is_own_thread();
        let thread = self.thread.take();
        if !self.origin.is_here() {
            // In a forked child there is no such thread, and the handle must not be dropped either: that
            // detaches whichever thread of the child has got its place.
            std::mem::forget(thread);
            return;
        }
        self.tell(Command::Leave);
        if is_own_thread {
            return; // the last handle went on the control thread itself, which cannot wait for its own end
        }
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the control thread has panicked");
        }
    }
}
