//! Sending a request.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::answer::{Alone, FromAnswer, RawResponse, Response};
use super::departure::{Departure, Registered, Term};
use super::pending::Pending;
use super::routes::Route;
use super::{ClientShared, Handle};
use crate::bus::codec::{Body, Bytes, Value};
use crate::bus::core::Command;
use crate::bus::error::{OpenError, PublishError};
use crate::bus::log::{Gates, NewLog, OutletShared};
use crate::bus::metadata::{Outfit, outfit_setters};
use crate::bus::outlet::{Outlet, OutletConfig, Sending};
use crate::bus::status::Status;
use crate::control::NodeId;
use crate::frame::{Code, Encoding, Head, PortUp};

/// Why a request was not sent in time.
pub(super) const NO_ROOM: &str = "no room in the log of requests: the server does not read";
pub(super) const LENT: &str = "another request to this server is being filled";
/// How long whoever waits for another that writes does before it looks whether that is a loan.
const MOMENT: Duration = Duration::from_millis(1);

/// A call about to be made; from [`Client::request`](crate::Client::request).
#[must_use = "nothing is called until `send`"]
pub struct Request<'c> {
    pub(super) client: &'c Arc<Handle>,
    pub(super) method: &'c str,
    pub(super) timeout: Duration,
    to: Option<NodeId>,
    outfit: Outfit<'c>,
}

impl<'a> Request<'a> {
    outfit_setters!();
}

impl<'c> Request<'c> {
    pub(super) fn new(client: &'c Arc<Handle>, method: &'c str) -> Self {
        Self { client, method, timeout: client.timeout, to: None, outfit: Outfit::default() }
    }

    /// How long the call may take, instead of the client's timeout; [`Duration::MAX`]: for ever. The server
    /// learns it, and drops a request that comes too late.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Calls the server on this node, whoever's turn it is: a [`NodeId`], or what has one.
    pub fn to(mut self, node: impl Into<NodeId>) -> Self {
        self.to = Some(node.into());
        self
    }

    /// Calls, and waits for the result.
    ///
    /// # Errors
    /// Those of [`Client::call`](crate::Client::call).
    pub fn send<A: Serialize + ?Sized, R: DeserializeOwned>(
        self,
        arguments: &A,
    ) -> Result<Response<R>, Status> {
        self.call(Encoding::MessagePack, &Value { value: arguments, compact: false })
    }

    /// The same for the result alone.
    pub(super) fn send_for<A: Serialize + ?Sized, R: DeserializeOwned>(
        self,
        arguments: &A,
    ) -> Result<R, Status> {
        self.call(Encoding::MessagePack, &Value { value: arguments, compact: false })
            .map(|Alone(result)| result)
    }

    /// Calls without waiting for the answer: for many calls in flight, or from async code. Where there is no room for the
    /// request, it waits for that, the call's timeout at the most: a server that stands still holds up this thread once
    /// its log of requests is full ([`ClientBuilder::capacity`](crate::ClientBuilder::capacity)).
    ///
    /// # Errors
    /// Those of [`Client::call`](crate::Client::call) that are known at once.
    pub fn start<A: Serialize + ?Sized, R: DeserializeOwned>(
        self,
        arguments: &A,
    ) -> Result<Pending<Response<R>>, Status> {
        self.begin(Encoding::MessagePack, &Value { value: arguments, compact: false })
    }

    /// Calls with bytes, and waits for bytes.
    ///
    /// # Errors
    /// Those of [`Client::call`](crate::Client::call).
    pub fn send_raw(self, bytes: &[u8]) -> Result<RawResponse, Status> {
        self.call(Encoding::Raw, &Bytes(bytes))
    }

    /// Calls with bytes, without waiting for the answer; see [`Request::start`].
    ///
    /// # Errors
    /// Those of [`Client::call`](crate::Client::call) that are known at once.
    pub fn start_raw(self, bytes: &[u8]) -> Result<Pending<RawResponse>, Status> {
        self.begin(Encoding::Raw, &Bytes(bytes))
    }

    fn call<T: FromAnswer>(self, encoding: Encoding, body: &impl Body) -> Result<T, Status> {
        let mut departure = self.depart(T::RAW)?;
        self.set_out(&mut departure, T::RAW, |departure| self.send_on(departure, encoding, body))?;
        // What can be done while the request is on its way is done here.
        let Departure { route, call, term } = departure;
        drop(route);
        let (id, deadline) = (call.keep(), term.deadline());
        finish(self.client, id, self.method, deadline, self.timeout)
    }

    fn begin<T: FromAnswer>(self, encoding: Encoding, body: &impl Body) -> Result<Pending<T>, Status> {
        let mut departure = self.depart(T::RAW)?;
        self.set_out(&mut departure, T::RAW, |departure| self.send_on(departure, encoding, body))?;
        Ok(Pending::new(self.client.clone(), departure, self.method, self.timeout))
    }

    /// Sends to a server; to another, if that one has gone before anything was sent. One that lets go of the requests,
    /// being short of something, is tried once more.
    #[inline]
    pub(super) fn set_out<T>(
        &self,
        departure: &mut Departure<'c>,
        raw: bool,
        mut send: impl FnMut(&Departure<'c>) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let mut left = Vec::new();
        loop {
            match send(departure) {
                Err(status) if status.code() == Code::Unavailable && departure.route.is_gone() => {
                    self.turn_elsewhere(departure, raw, &mut left)?;
                }
                sent => return sent,
            }
        }
    }

    /// Chooses another server than those left; a second time perhaps the same.
    #[cold]
    fn turn_elsewhere(
        &self,
        departure: &mut Departure<'c>,
        raw: bool,
        left: &mut Vec<(NodeId, u64)>,
    ) -> Result<(), Status> {
        if let Some(refusal) = departure.route.refusal() {
            return Err(refusal.clone());
        }
        left.push((departure.route.node.id(), departure.route.port));
        let (route, call) = self.choose(raw)?;
        let server = (route.node.id(), route.port);
        if left.iter().filter(|before| **before == server).count() == 2 {
            return Err(Status::unavailable(format!(
                "server {} lets go of all requests: is it out of file descriptors or memory (`ulimit -n`)?",
                route.node
            )));
        }
        (departure.route, departure.call) = (route, call);
        Ok(())
    }

    pub(super) fn with_head<T>(
        &self,
        departure: &Departure<'_>,
        then: impl FnOnce(Head<'_>) -> T,
    ) -> Result<T, Status> {
        let (id, method, deadline) = (departure.call.id, self.method, departure.term.deadline_ns);
        self.outfit
            .with(|headers| then(Head::Request { id, method, deadline, headers }))
            .map_err(|reason| Status::invalid_argument(format!("headers: {reason}")))
    }

    #[inline(always)]
    pub(super) fn depart(&self, raw: bool) -> Result<Departure<'c>, Status> {
        let client: &'c ClientShared = self.client;
        if !client.node.origin.is_here() {
            return Err(Status::failed_precondition(
                "this process is a fork of the one that opened the client: join again in the child",
            ));
        }
        if self.timeout.is_zero() {
            return Err(self.late("the timeout is zero"));
        }
        let term = Term::new(self.timeout);
        let (route, call) = self.choose(raw)?;
        Ok(Departure { route, call, term })
    }

    /// Chooses a server and registers the call.
    #[inline(always)]
    fn choose(&self, raw: bool) -> Result<(Arc<Route>, Registered<'c>), Status> {
        let client: &'c ClientShared = self.client;
        let (route, id) = match client.routes.begin(self.to, raw)? {
            Some(begun) => begun,
            None => self.look_again(raw)?,
        };
        Ok((route, Registered { client, id, kept: false }))
    }

    /// A server that has come meanwhile may stand in a socket.
    #[cold]
    fn look_again(&self, raw: bool) -> Result<(Arc<Route>, u64), Status> {
        let _ = self.client.node.ask(Command::Sweep);
        self.client.routes.begin(self.to, raw)?.ok_or_else(|| self.nobody())
    }

    fn nobody(&self) -> Status {
        let service = &self.client.name;
        if self.client.node.is_gone() {
            return left();
        }
        if let Some(why) = self.client.routes.why_denied(self.to) {
            return Status::permission_denied(why);
        }
        match self.to {
            Some(node) => Status::not_found(format!("node {} does not serve {service:?}", node.short())),
            None => {
                Status::not_found(format!("nobody serves {service:?} on this bus: is the server running?"))
            }
        }
    }

    pub(super) fn late(&self, why: &str) -> Status {
        Status::deadline_exceeded(format!("{}.{}: {why}", self.client.name, self.method))
    }

    /// Whether anybody is there to send to.
    pub(super) fn check(&self, departure: &Departure<'_>) -> Result<(), Status> {
        // Registered first, looked at afterwards: see `Routes::remove`.
        if departure.route.is_gone() {
            return Err(Status::unavailable(format!("server {} has gone", departure.route.node)));
        }
        if self.client.node.is_gone() {
            return Err(left());
        }
        if self.client.node.drains.is_closing() {
            return Err(Status::unavailable(OpenError::Draining.to_string()));
        }
        Ok(())
    }

    /// The log of requests, once the thread that writes it has done. `None`: it does until the deadline, or has it
    /// lent (`sits_out`: that is waited for, too).
    #[cold]
    fn wait_for_log<'d>(
        departure: &'d Departure<'_>,
        sits_out: bool,
    ) -> Option<MutexGuard<'d, Option<Outlet>>> {
        let (route, deadline) = (&departure.route, departure.term.deadline());
        match deadline {
            _ if !sits_out => loop {
                let locked = route.requests.try_lock_for(MOMENT);
                // The bell orders the end of a loan before the look of whoever it wakes.
                let late = || deadline.is_some_and(|deadline| deadline <= Instant::now());
                if locked.is_some() || route.lent.load(Relaxed) || late() {
                    break locked;
                }
            },
            // A loan keeps it for as long as its holder likes, who may be this very thread.
            Some(deadline) => route.requests.try_lock_until(deadline),
            None => Some(route.requests.lock()),
        }
    }

    /// The log, made if it is not there yet, with what the server is to know before.
    #[inline]
    pub(super) fn prepare<'o>(
        &self,
        route: &Route,
        requests: &'o mut Option<Outlet>,
    ) -> Result<&'o mut Outlet, Status> {
        match requests {
            Some(requests) => {
                route.put_cancels(requests);
                Ok(requests)
            }
            None => Ok(requests.insert(self.client.open_requests(route)?)),
        }
    }

    /// Publishes the request; waits for room if there is none.
    fn send_on(&self, departure: &Departure<'_>, encoding: Encoding, body: &impl Body) -> Result<(), Status> {
        if self.attempt(departure, encoding, body, true, false)? {
            return Ok(());
        }
        // Whoever waits may have the port that all read, which a loan must not keep: it rings when it is over.
        let waiting = || self.attempt(departure, encoding, body, false, true);
        let sent = self.client.send_when_room(&departure.route, departure.term.deadline(), waiting);
        let is_lent = departure.route.lent.load(Relaxed);
        if sent? { Ok(()) } else { Err(self.late(if is_lent { LENT } else { NO_ROOM })) }
    }

    /// Publishes the request if there is room, and the log is not lent (or that is over: `sits_out`). Whoever
    /// `waits` for room announces that before the look.
    pub(super) fn attempt(
        &self,
        departure: &Departure<'_>,
        encoding: Encoding,
        body: &impl Body,
        sits_out: bool,
        waits: bool,
    ) -> Result<bool, Status> {
        let _sending = Sending::begin().map_err(Status::invalid_argument)?;
        self.check(departure)?;
        let locked = departure.route.requests.try_lock();
        let Some(mut requests) = locked.or_else(|| Self::wait_for_log(departure, sits_out)) else {
            return Ok(false);
        };
        let requests = self.prepare(&departure.route, &mut requests)?;
        if waits {
            requests.arm();
        }
        let published = self.with_head(departure, |head| requests.publish(&head, encoding, body))?;
        match published {
            Ok(()) => Ok(true),
            Err(PublishError::Full { .. }) => Ok(false),
            Err(error) => Err(Status::from_publish("the request", error)),
        }
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut request = f.debug_struct("Request");
        request.field("service", &&*self.client.name).field("method", &self.method);
        request.field("timeout", &self.timeout).field("to", &self.to);
        request.field("headers", &self.outfit.headers).finish_non_exhaustive()
    }
}

fn left() -> Status {
    Status::unavailable("the node has left the bus: join again")
}

/// Waits for the answer of a call that was sent.
pub(super) fn finish<T: FromAnswer>(
    client: &ClientShared,
    id: u64,
    method: &str,
    deadline: Option<Instant>,
    timeout: Duration,
) -> Result<T, Status> {
    let mut outcome = None;
    client.wait(id, T::RAW, deadline, &mut outcome);
    match outcome {
        Some(Ok(ref mut answer)) => T::from_answer(answer, &client.name, method), // where it is
        Some(Err(status)) => Err(status),
        None => Err(overdue(client, method, timeout)),
    }
}

pub(super) fn overdue(client: &ClientShared, method: &str, timeout: Duration) -> Status {
    Status::deadline_exceeded(format!("{}.{method}: no answer within {timeout:?}", client.name))
}

impl ClientShared {
    /// Whoever has announced that it waits for room does so no longer. What others have announced is taken back
    /// with it: they are woken, and announce it again.
    pub(super) fn stop_waiting(&self, route: &Route) {
        if let Some(Some(requests)) = route.requests.try_lock_for(MOMENT).as_deref_mut() {
            requests.disarm();
        }
        self.bell.ring();
    }

    /// Makes the log of requests to a server, and has it attached there.
    fn open_requests(&self, route: &Route) -> Result<Outlet, Status> {
        let shared = OutletShared::create(NewLog {
            node: self.node.info.id(),
            port: self.port.port,
            log: self.node.next_log(),
            filter: self.service.clone(),
            capacity: self.capacity,
            priority: PortUp::DEFAULT_PRIORITY,
            gates: Gates::new(),
            unread: Arc::default(),
            pair: Some((self.bell.clone(), (route.node.id(), route.port))),
        })
        .map_err(|error| Status::resource_exhausted(error.to_string()))?;
        let shared = Arc::new(shared);
        let outlet =
            Outlet::of(shared.clone(), self.node.clone(), OutletConfig::of_pair(self.capacity, self.limits));
        self.node
            .ask(|reply| Command::OpenPair { outlet: shared.clone(), reply })
            .map_err(|error| Status::unavailable(error.to_string()))?;
        if shared.gates.len() == 0 {
            // The control thread has taken the gate away, and may be about to tell the route why: it has once it answers.
            let _ = self.node.ask(Command::Sweep);
            return Err(Status::unavailable(format!("server {} has gone", route.node)));
        }
        Ok(outlet)
    }
}
