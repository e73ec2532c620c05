//! Ports that serve calls.
//!
//! ```text
//!   log of requests ─▶ intake.rs  reads: one thread at a time
//!                        │   └── queue.rs  while no worker is free
//!                      work.rs    workers and their stand-by
//!                        │
//!                      method.rs  decodes, runs the handler (context.rs)
//!                        ▼
//!   log of answers ◀── pair.rs    never waits for the client
//! ```

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::blob::Limits;
use super::client::PAIR_CAPACITY;
use super::error::OpenError;
use super::inlet::Inlet;
use super::node::NodeShared;
use super::reading::{InletShared, Purpose};
use super::stats::PortStats;
use super::status::Status;
use super::topic::Filter;
use crate::frame::PortUp;
use crate::sys::thread;
use crate::wake::{Bell, Wait};

mod context;
mod intake;
mod method;
mod pair;
mod queue;
#[cfg(feature = "tower")]
mod service;
mod slot;
mod work;

pub use context::{Context, Reply, ReplyLoan};
pub(super) use pair::Pair;
#[cfg(feature = "tower")]
pub use service::Serving;

use context::Called;
use intake::{Intake, Job};
use method::Method;
use queue::Queue;
use slot::Slot;

/// How long a server that is dropped waits for clients to make room for the answers that it has.
const FAREWELL: Duration = Duration::from_millis(250);
/// Requests that may wait for a worker unless asked otherwise.
const QUEUE: usize = 16_384;
/// Workers that a server has at most: each is a thread.
const MOST_WORKERS: usize = 1024;

/// A service about to be served; from [`Node::service`](crate::Node::service).
///
/// # Examples
/// ```
/// use ringbus::{Bus, Status};
///
/// let node = Bus::private()?.join("worker")?;
/// let server = node.service("math")
///     .method("add", |_ctx, (a, b): (i64, i64)| Ok(a + b))
///     .method("divide", |_ctx, (a, b): (i64, i64)| {
///         a.checked_div(b).ok_or_else(|| Status::invalid_argument("division by zero"))
///     })
///     .workers(2)
///     .spawn()?;
/// # Ok::<(), ringbus::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "nothing is served until `spawn` or `run`"]
pub struct ServiceBuilder<'n> {
    node: &'n Arc<NodeShared>,
    name: &'n str,
    methods: Vec<(Arc<str>, Arc<dyn Method>)>,
    fallback: Option<Arc<dyn Method>>,
    workers: usize,
    limit: usize,
    capacity: u64,
    limits: Limits,
    wait: Wait,
    priority: u8,
    timestamps: bool,
    version: Option<String>,
}

impl<'n> ServiceBuilder<'n> {
    pub(super) fn new(node: &'n Arc<NodeShared>, name: &'n str) -> Self {
        Self {
            node,
            name,
            methods: Vec::new(),
            fallback: None,
            workers: 1,
            limit: QUEUE,
            capacity: PAIR_CAPACITY,
            limits: Limits::default(),
            wait: Wait::default(),
            priority: PortUp::DEFAULT_PRIORITY,
            timestamps: false,
            version: None,
        }
    }

    /// Adds a method. Its handler gets the call and its arguments, and returns the result, or the [`Status`]
    /// that the caller gets. A panic is answered with `Internal`, and the server goes on.
    ///
    /// Callers pass one value: a tuple, where the handler takes several arguments.
    ///
    /// Handlers are `Fn`, since several workers may run one at a time. What a handler changes is behind a lock:
    /// a publisher, say.
    ///
    /// # Examples
    /// ```
    /// use std::sync::Mutex;
    ///
    /// # let node = ringbus::Bus::private()?.join("worker")?;
    /// # let mut updates = node.subscriber::<u32>("task/progress")?;
    /// let progress = Mutex::new(node.publisher::<u32>("task/progress")?);
    /// let server = node
    ///     .service("task")
    ///     .method("report", move |_ctx, percent: u32| {
    ///         let mut progress = progress.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    ///         progress.publish(&percent).map_err(|error| ringbus::Status::unavailable(error.to_string()))
    ///     })
    ///     .spawn()?;
    /// node.client("task")?.call::<_, ()>("report", &30)?;
    /// # assert_eq!(*updates.recv()?, 30);
    /// # Ok::<(), ringbus::Error>(())
    /// ```
    pub fn method<A, R, F>(self, name: &str, handler: F) -> Self
    where
        A: DeserializeOwned + 'static,
        R: Serialize,
        F: Fn(&mut Context, A) -> Result<R, Status> + Send + Sync + 'static,
    {
        self.add(name, method::Typed::new(handler))
    }

    /// Adds a method over bytes: the request is lent where its client has put it (unless
    /// [`Trust`](crate::Trust) forbids, or it is small and had to wait for a worker: then it is a copy), and the
    /// answer may be written in place ([`Context::loan`]).
    ///
    /// # Examples
    /// ```
    /// # let node = ringbus::Bus::private()?.join("worker")?;
    /// let server = node.service("image")
    ///     .raw_method("invert", |ctx, pixels| {
    ///         let mut inverted = ctx.loan(pixels.len())?;
    ///         inverted.iter_mut().zip(pixels).for_each(|(to, from)| *to = !from);
    ///         Ok(inverted)
    ///     })
    ///     .spawn()?;
    /// let answer = node.client("image")?.request("invert").send_raw(&[0, 1, 255])?;
    /// assert_eq!(*answer, [255, 254, 0]);
    /// # Ok::<(), ringbus::Error>(())
    /// ```
    pub fn raw_method<R, F>(self, name: &str, handler: F) -> Self
    where
        R: Into<Reply>,
        F: Fn(&mut Context, &[u8]) -> Result<R, Status> + Send + Sync + 'static,
    {
        self.add(name, method::Raw(handler))
    }

    fn add(mut self, name: &str, method: impl Method + 'static) -> Self {
        self.methods.push((name.into(), Arc::new(method)));
        self
    }

    /// How many handlers may run at a time, each on a thread of its own; default 1, and 0 counts as 1. At most 1024.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// How many requests may wait for a worker; default 16 384 (about 300 bytes each, and their payloads: 64 MiB
    /// of them at most). More are answered with `ResourceExhausted`.
    pub fn queue(mut self, requests: usize) -> Self {
        self.limit = requests;
        self
    }

    /// Bytes of each log of answers, one per client: a power of two from 4 KiB to 4 GiB; default 64 KiB. An
    /// answer larger than a quarter of it goes into shared memory of its own ([`ServiceBuilder::blob_memory`]); one
    /// larger than [`ServiceBuilder::max_message`] is `ResourceExhausted` for its caller, and counted here
    /// ([`Server::unsent`]).
    ///
    /// Answers for which a client makes no room wait in private memory: 16 MiB of them at most for each client, or
    /// `bytes` if that is more. Those beyond are `ResourceExhausted` as well. Where another worker keeps a loan, its
    /// colleagues wait with one each (of up to `max_message`), until the call's deadline or a second is over; from then
    /// on none does, as long as that loan is kept.
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = bytes;
        self
    }

    /// Bytes of the largest answer, and of the largest request that is taken; default 64 MiB, more than
    /// 2 GiB counts as that. What fits a quarter of a log is sent in any case.
    pub fn max_message(mut self, bytes: u64) -> Self {
        self.limits.max_message = bytes;
        self
    }

    /// Bytes of memory for answers that are larger than a quarter of their log, for each client; default 256 MiB. See
    /// [`PublisherBuilder::blob_memory`](crate::PublisherBuilder::blob_memory).
    pub fn blob_memory(mut self, bytes: u64) -> Self {
        self.limits.blob_memory = bytes;
        self
    }

    /// How to wait for requests; default [`Wait::Adaptive`].
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Clients read the answers of servers with a higher priority first; default 128.
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// Sends with each answer the time at which it was written (one that is lent: lent), by the wall clock of this
    /// host: some 30 bytes an answer. By default none has it.
    ///
    /// # Examples
    /// ```
    /// # let node = ringbus::Bus::private()?.join("worker")?;
    /// let server = node.service("clock").timestamps().method("tick", |_ctx, ()| Ok(())).spawn()?;
    /// let answer: ringbus::Response<()> = node.client("clock")?.request("tick").send(&())?;
    /// assert!(answer.timestamp().is_some_and(|time| time <= std::time::SystemTime::now()));
    /// # Ok::<(), ringbus::Error>(())
    /// ```
    pub fn timestamps(mut self) -> Self {
        self.timestamps = true;
        self
    }

    /// What others see as this server's version in [`Node::peers`](crate::Node::peers); the bus does not look at
    /// it.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Serves on threads of its own, until the [`Server`] is dropped.
    ///
    /// # Errors
    /// [`OpenError`]: name or capacity are not valid, a method is there twice, or the process is out of memory,
    /// file descriptors or threads.
    pub fn spawn(self) -> Result<Server, OpenError> {
        let shared = self.open()?;
        let mut server = Server { shared: shared.clone(), threads: Vec::new() };
        server.start_standby()?;
        for slot in &shared.slots {
            let slot = slot.clone();
            server.start("ringbus-worker", move |shared| shared.work(&slot))?;
        }
        Ok(server)
    }

    /// Serves on this thread (and on `workers` − 1 more), until the node is gone.
    ///
    /// # Errors
    /// Those of [`ServiceBuilder::spawn`].
    pub fn run(self) -> Result<(), OpenError> {
        let shared = self.open()?;
        let mut server = Server { shared: shared.clone(), threads: Vec::new() };
        server.start_standby()?;
        for slot in shared.slots.iter().skip(1) {
            let slot = slot.clone();
            server.start("ringbus-worker", move |shared| shared.work(&slot))?;
        }
        shared.work(&shared.slots[0]);
        Ok(())
    }

    fn open(self) -> Result<Arc<ServerShared>, OpenError> {
        let service = Filter::of_service(self.name)?;
        super::log::check_capacity(self.capacity)?;
        if self.workers > MOST_WORKERS {
            return Err(OpenError::Workers { asked: self.workers, most: MOST_WORKERS });
        }
        let mut names: Vec<_> = self.methods.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(OpenError::MethodTwice { method: twice[0].to_string() });
        }
        let name = service.as_str().into();
        let purpose = Purpose::Server { capacity: self.capacity, version: self.version };
        let inlet = Inlet::open(self.node, purpose, vec![service], self.priority, self.wait)?;
        let backlogged = Arc::<AtomicUsize>::default();
        let shared = Arc::new(ServerShared {
            node: self.node.clone(),
            name,
            methods: self.methods,
            fallback: self.fallback,
            port: inlet.shared().clone(),
            bell: inlet.shared().bell.clone(),
            intake: Mutex::new(Intake::new(inlet, backlogged.clone())),
            backlogged,
            queue: Mutex::default(),
            queued: AtomicUsize::new(0),
            limit: self.limit,
            limits: self.limits,
            slots: (0..self.workers).map(|_| Arc::default()).collect(),
            rota: work::Rota::default(),
            wait: self.wait,
            timestamps: self.timestamps,
            stopped: AtomicBool::new(false),
        });
        self.node.drains.add_server(&shared);
        Ok(shared)
    }
}

/// What a server's threads share.
pub(super) struct ServerShared {
    node: Arc<NodeShared>,
    name: Arc<str>,
    methods: Vec<(Arc<str>, Arc<dyn Method>)>,
    /// Takes the calls of methods that are not there.
    fallback: Option<Arc<dyn Method>>,
    port: Arc<InletShared>,
    bell: Bell,
    intake: Mutex<Intake>,
    /// How many pairs have answers that wait for room.
    backlogged: Arc<AtomicUsize>,
    queue: Mutex<Queue<Job>>,
    /// How many are in the queue: what is looked at instead of its lock.
    queued: AtomicUsize,
    limit: usize,
    limits: Limits,
    slots: Vec<Arc<Slot>>,
    rota: work::Rota,
    wait: Wait,
    timestamps: bool,
    stopped: AtomicBool,
}

impl ServerShared {
    /// Where the handler of this method is.
    #[inline]
    fn place_of(&self, method: &[u8]) -> Option<usize> {
        self.methods.iter().position(|(name, _)| name.as_bytes() == method)
    }

    /// Which method has this name.
    ///
    /// # Errors
    /// There is none, and no handler for all others.
    #[inline]
    fn method(&self, name: &str) -> Result<Called, Status> {
        match self.place_of(name.as_bytes()) {
            Some(place) => Ok(Called::Known(place)),
            None if self.fallback.is_some() => Ok(Called::Other(name.into())),
            None => Err(Status::unimplemented(format!("service {:?} has no method {name:?}", &*self.name))),
        }
    }

    /// The handler of a method that [`ServerShared::method`] has found.
    #[inline(always)]
    fn handler(&self, method: &Called) -> Option<&dyn Method> {
        match method {
            Called::Known(place) => Some(&*self.methods[*place].1),
            Called::Other(_) => self.fallback.as_deref(),
        }
    }

    fn method_name<'a>(&'a self, method: &'a Called) -> &'a str {
        match method {
            Called::Known(place) => &self.methods[*place].0,
            Called::Other(name) => name,
        }
    }

    fn queued(&self) -> usize {
        self.queued.load(Acquire) // pairs with the Release below; the queue itself has a lock
    }

    fn has_queued(&self) -> bool {
        self.queued() > 0
    }

    fn note_queued(&self, queued: usize) {
        self.queued.store(queued, Release);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    fn stop(&self) {
        self.stopped.store(true, Relaxed); // ordered before a sleeper's look by the kernel's part in the ring
        self.bell.ring();
        self.wake_standby();
    }
}

/// A service that is being served. Dropping it ends that: handlers that run are waited for, and their answers
/// sent, as far as their clients make room within 250 ms; requests that wait are answered with `Unavailable`.
#[must_use = "serving ends when this is dropped"]
pub struct Server {
    shared: Arc<ServerShared>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    fn start_standby(&mut self) -> Result<(), OpenError> {
        self.start("ringbus-standby", |shared| shared.stand_by())
    }

    fn start(
        &mut self,
        name: &str,
        run: impl FnOnce(&Arc<ServerShared>) + Send + 'static,
    ) -> Result<(), OpenError> {
        let shared = self.shared.clone();
        let thread = thread::spawn(name, None, move || run(&shared));
        self.threads.push(thread.map_err(|source| OpenError::Thread { source })?);
        Ok(())
    }

    /// The service's name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Requests taken so far, and those dropped: no requests at all, expired, cancelled, refused, answered for
    /// nobody, or with an answer that could not be sent ([`Server::unsent`]).
    pub fn stats(&self) -> PortStats {
        self.shared.port.counters.stats(0, 0)
    }

    /// Answers whose callers got `ResourceExhausted` in their place: too large
    /// ([`ServiceBuilder::max_message`]), or one too many for a client that does not read, or beside a loan that is kept.
    /// What [`Context::loan`] refuses as too large counts, too. They are among those dropped in [`Server::stats`], which
    /// `ringbus ls` shows.
    ///
    /// # Examples
    /// ```
    /// # let node = ringbus::Bus::private()?.join("worker")?;
    /// let text = node.service("text").max_message(0); // and so what fits a quarter of the log
    /// let server = text.method("a", |_ctx, len: usize| Ok("a".repeat(len))).spawn()?;
    /// let refused = node.client("text")?.call::<_, String>("a", &100_000).unwrap_err();
    /// assert_eq!((refused.code(), server.unsent()), (ringbus::Code::ResourceExhausted, 1));
    /// # Ok::<(), ringbus::Error>(())
    /// ```
    pub fn unsent(&self) -> u64 {
        self.shared.port.counters.count_unsent()
    }

    /// Requests that wait for a worker just now.
    pub fn queued(&self) -> usize {
        self.shared.queued()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.shared.node.origin.is_here() {
            std::mem::forget(std::mem::take(&mut self.threads)); // none of them is in a forked child
            return;
        }
        self.shared.stop();
        let me = std::thread::current().id();
        for thread in self.threads.drain(..).filter(|thread| thread.thread().id() != me) {
            if thread.join().is_err() {
                tracing::error!(service = %self.shared.name, "a thread of the server has panicked");
            }
        }
        let mut queue = self.shared.queue.lock();
        while let Some(job) = queue.pop() {
            job.refuse(&Status::unavailable("the server was stopped"));
        }
        self.shared.note_queued(0);
        drop(queue);
        self.shared.intake.lock().finish(Instant::now() + FAREWELL);
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.name()).finish()
    }
}
