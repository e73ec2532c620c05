//! Ports that call a service.
//!
//! ```text
//!   call ─▶ routes.rs   which server: in turn, or the one asked for
//!           request.rs  encodes into the log of requests to it; loan.rs lends room there
//!           calls.rs    the call, until it is over
//!           wait.rs     who reads the answers, for all; take.rs reads them
//!   ◀────── answer.rs   the answer, or the status it failed with
//! ```

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::blob::Limits;
use super::error::{OpenError, WaitError};
use super::inlet::Inlet;
use super::node::NodeShared;
use super::peer::NodeInfo;
use super::reading::{InletShared, Purpose};
use super::spare::Spare;
use super::stats::PortStats;
use super::status::Status;
use super::topic::Filter;
use crate::frame::PortUp;
use crate::wake::{Bell, Wait};

mod answer;
mod calls;
mod departure;
mod loan;
mod pending;
mod request;
mod routes;
#[cfg(feature = "tower")]
mod service;
mod take;
mod wait;

pub use answer::{FromAnswer, RawResponse, Response};
pub use loan::RequestLoan;
pub use pending::Pending;
pub use request::Request;
pub(super) use routes::Routes;
#[cfg(feature = "tower")]
pub use service::Call;

/// Capacity of a pair's logs unless asked otherwise, in bytes: there may be many pairs.
pub(super) const PAIR_CAPACITY: u64 = 64 * 1024;
/// How long a call may take unless asked otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Settings of a client; from [`Node::client_builder`](crate::Node::client_builder).
#[derive(Debug)]
#[must_use = "a builder does nothing until `open`"]
pub struct ClientBuilder<'n> {
    node: &'n Arc<NodeShared>,
    service: &'n str,
    capacity: u64,
    limits: Limits,
    timeout: Duration,
    wait: Wait,
    priority: u8,
}

impl<'n> ClientBuilder<'n> {
    pub(super) fn new(node: &'n Arc<NodeShared>, service: &'n str) -> Self {
        let (capacity, priority) = (PAIR_CAPACITY, PortUp::DEFAULT_PRIORITY);
        let (limits, wait) = (Limits::default(), Wait::default());
        Self { node, service, capacity, limits, timeout: TIMEOUT, wait, priority }
    }

    /// Bytes of each log of requests, one per server that is called: a power of two from 4 KiB to 4 GiB;
    /// default 64 KiB. A request larger than a quarter of it goes into shared memory of its own
    /// ([`ClientBuilder::blob_memory`]).
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = bytes;
        self
    }

    /// Bytes of the largest request, and of the largest answer that is taken; default 64 MiB, more than
    /// 2 GiB counts as that. What fits a quarter of a log is sent in any case.
    pub fn max_message(mut self, bytes: u64) -> Self {
        self.limits.max_message = bytes;
        self
    }

    /// Bytes of memory for requests that are larger than a quarter of their log, for each server; default 256 MiB. See
    /// [`PublisherBuilder::blob_memory`](crate::PublisherBuilder::blob_memory).
    pub fn blob_memory(mut self, bytes: u64) -> Self {
        self.limits.blob_memory = bytes;
        self
    }

    /// How long calls may take that are not given another timeout; default 5 s. [`Duration::MAX`]: for ever.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How to wait for answers; default [`Wait::Adaptive`].
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Servers take the requests of clients with a higher priority first; default 128.
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// Opens the client.
    ///
    /// # Errors
    /// [`OpenError`]: the service's name or the capacity is not valid, or the process is out of memory or file
    /// descriptors.
    pub fn open(self) -> Result<Client, OpenError> {
        let service = Filter::of_service(self.service)?;
        super::log::check_capacity(self.capacity)?;
        let name = service.as_str().into();
        let routes = Arc::new(Routes::default());
        let purpose = Purpose::Client(routes.clone());
        let inlet = Inlet::open(self.node, purpose, vec![service.clone()], self.priority, self.wait)?;
        let shared = Arc::new_cyclic(|me| ClientShared {
            me: me.clone(),
            node: self.node.clone(),
            name,
            service,
            routes,
            port: inlet.shared().clone(),
            bell: inlet.shared().bell.clone(),
            receiver: Mutex::new(Receiver { inlet, copy: Spare::default() }),
            capacity: self.capacity,
            limits: self.limits,
            timeout: self.timeout,
            wait: self.wait,
            tasks: Mutex::default(),
        });
        self.node.drains.add_client(&shared);
        Ok(Client { shared: Arc::new(Handle(shared)) })
    }
}

/// Calls a service: any of the servers of its name, in turn.
///
/// Clones are the same client, for as many threads as wish: each call waits for its own answer. There is one
/// log each way for every server that was called, 64 KiB each unless asked otherwise.
///
/// # Examples
/// ```
/// # let node = ringbus::Bus::private()?.join("planner")?;
/// let server = node.service("math").method("add", |_ctx, (a, b): (i64, i64)| Ok(a + b)).spawn()?;
/// let client = node.client("math")?;
/// let sum: i64 = client.call("add", &(2, 3))?;
/// assert_eq!(sum, 5);
/// # Ok::<(), ringbus::Error>(())
/// ```
#[derive(Clone)]
pub struct Client {
    shared: Arc<Handle>,
}

/// What clones of a client and its calls hold. The thread that waits for tasks holds none.
struct Handle(Arc<ClientShared>);

impl Deref for Handle {
    type Target = ClientShared;

    fn deref(&self) -> &ClientShared {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.node.origin.is_here() {
            return; // no such thread in a forked child; and locks may be held by others
        }
        let tasks = self.tasks.lock().take();
        self.bell.ring(); // it may sleep on it
        if let Some(tasks) = tasks {
            tasks.stop();
        }
    }
}

/// What clones of a client and its calls share.
pub(super) struct ClientShared {
    me: Weak<ClientShared>,
    node: Arc<NodeShared>,
    name: Arc<str>,
    service: Filter,
    routes: Arc<Routes>,
    port: Arc<InletShared>,
    /// The reading port's, which also wakes whoever waits for room.
    bell: Bell,
    receiver: Mutex<Receiver>,
    capacity: u64,
    limits: Limits,
    timeout: Duration,
    wait: Wait,
    /// The thread that waits for calls that tasks wait for, once there was one.
    tasks: Mutex<Option<pending::Tasks>>,
}

/// The port that reads the answers: whoever holds its lock leads.
struct Receiver {
    inlet: Inlet,
    /// Of the record in hand.
    copy: Spare,
}

impl Client {
    /// Calls a method and waits for the result, at most the client's timeout (5 s).
    ///
    /// # Errors
    /// The [`Status`] that the handler returned, or one of the bus: `NotFound` (nobody serves), `Unimplemented`
    /// (no such method), `Unavailable` (the server has gone), `DeadlineExceeded`, `InvalidArgument` (the
    /// arguments are not what the handler takes, or cannot be encoded), `ResourceExhausted` (too large, the server's queue
    /// is full, or one end is short of something), `PermissionDenied` (by an access list), `Internal` (the handler
    /// panicked, or answered with something else), `FailedPrecondition` (in a forked child).
    pub fn call<A: Serialize + ?Sized, R: DeserializeOwned>(
        &self,
        method: &str,
        arguments: &A,
    ) -> Result<R, Status> {
        self.request(method).send_for(arguments)
    }

    /// Prepares a call with a timeout, headers, or a server of one's choice; or one that does not wait.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// # let node = ringbus::Bus::private()?.join("planner")?;
    /// # let server = node.service("math").method("add", |_ctx, (a, b): (i64, i64)| Ok(a + b)).spawn()?;
    /// # let client = node.client("math")?;
    /// let sum = client.request("add")
    ///     .timeout(Duration::from_millis(200))
    ///     .header("traceparent", "00-4bf9…")
    ///     .send::<_, i64>(&(2, 3))?;
    /// assert_eq!((*sum, sum.source().name()), (5, "planner"));
    /// # Ok::<(), ringbus::Error>(())
    /// ```
    pub fn request<'c>(&'c self, method: &'c str) -> Request<'c> {
        Request::new(&self.shared, method)
    }

    /// Waits until somebody serves.
    ///
    /// # Errors
    /// [`WaitError::NoServer`]; [`WaitError::Denied`], by an access list; [`WaitError::Forked`].
    pub fn wait_for_server(&self, timeout: Duration) -> Result<(), WaitError> {
        if !self.shared.node.origin.is_here() {
            return Err(WaitError::Forked);
        }
        self.shared.routes.wait(&self.shared.name, timeout)
    }

    /// The service's name.
    pub fn service(&self) -> &str {
        &self.shared.name
    }

    /// The nodes that serve at present.
    pub fn servers(&self) -> Vec<NodeInfo> {
        // Before any lock: in a forked child another thread may hold it, for ever.
        if self.shared.node.origin.is_here() { self.shared.routes.nodes() } else { Vec::new() }
    }

    /// What was called so far: answers received, and those dropped because nobody waited for them any more, or
    /// because they were none.
    pub fn stats(&self) -> PortStats {
        if !self.shared.node.origin.is_here() {
            return PortStats::default();
        }
        self.shared.port.counters.stats(0, self.shared.routes.nodes().len())
    }
}

#[cfg(fuzzing)]
impl Client {
    pub(super) fn any_route(&self) -> Option<Arc<routes::Route>> {
        self.shared.routes.pick(None)
    }
}

impl ClientShared {
    /// Calls without an answer.
    pub(super) fn unfinished(&self) -> usize {
        self.routes.calls.lock().unfinished()
    }

    /// Keeps the port open for whoever looks at an answer in place.
    fn keeper(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.me.upgrade().map(|me| me as _)
    }
}

impl Drop for ClientShared {
    fn drop(&mut self) {
        if !self.node.origin.is_here() {
            std::mem::forget(self.tasks.get_mut().take()); // no such thread in a forked child
            return;
        }
        // The control thread knows the routes until it hears of the port's end.
        self.routes.close();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.service()).finish()
    }
}
