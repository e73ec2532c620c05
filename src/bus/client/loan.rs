//! Requests that are filled in place.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::{ArcMutexGuard, RawMutex};

use super::ClientShared;
use super::answer::RawResponse;
use super::departure::Departure;
use super::pending::Pending;
use super::request::{LENT, Request, finish};
use super::routes::Route;
use crate::bus::error::PublishError;
use crate::bus::outlet::{Outlet, Sending};
use crate::bus::status::Status;
use crate::frame::Encoding;

impl<'c> Request<'c> {
    /// Lends `len` bytes of shared memory, 64-byte aligned, to be filled in place. Other calls of this
    /// client to the same server wait meanwhile.
    ///
    /// # Errors
    /// Those of [`Client::call`](crate::Client::call) that are known at once; `ResourceExhausted` also if there is
    /// no room just now: for that, [`Request::send_raw`] and [`Request::start_raw`] wait, and copy.
    pub fn loan(self, len: usize) -> Result<RequestLoan<'c>, Status> {
        // Within a value's serialisation it could wait for what its own thread has locked.
        drop(Sending::begin().map_err(Status::invalid_argument)?);
        let mut departure = self.depart(true)?;
        let requests = self.set_out(&mut departure, true, |departure| {
            self.check(departure)?;
            let log = &departure.route.requests;
            let requests = match departure.term.deadline() {
                Some(deadline) => log.try_lock_arc_until(deadline),
                None => Some(log.lock_arc()),
            };
            let mut requests = requests.ok_or_else(|| self.late(LENT))?;
            let lent = {
                let requests = self.prepare(&departure.route, &mut requests)?;
                self.with_head(departure, |head| requests.loan(&head, Encoding::Raw, len))?
            };
            match lent {
                Ok(true) => Ok(requests),
                Ok(false) => Err(self.no_room(departure, len, 0)), // no policy of these logs drops anything
                Err(PublishError::Full { lag, .. }) => Err(self.no_room(departure, len, lag)),
                Err(error) => Err(Status::from_publish("the request", error)),
            }
        })?;
        departure.route.lent.store(true, Relaxed);
        let held = Held { client: self.client, route: departure.route.clone(), requests: Some(requests) };
        Ok(RequestLoan { request: self, departure, held })
    }

    #[cold]
    fn no_room(&self, departure: &Departure<'_>, len: usize, lag: u64) -> Status {
        let server = &departure.route.node;
        Status::resource_exhausted(format!(
            "no room for a request of {len} bytes just now: server {server} is {lag} bytes behind: raise the client's \
             `blob_memory` and `capacity`, or call with `send_raw`, which waits"
        ))
    }
}

/// A request's payload in shared memory, to be filled and sent, or started; from [`Request::loan`]. Dropped unsent, it
/// leaves no trace.
#[must_use = "a loan that is not sent is lost"]
pub struct RequestLoan<'c> {
    request: Request<'c>,
    departure: Departure<'c>,
    held: Held<'c>,
}

/// The lock of a route's log of requests.
type Requests = ArcMutexGuard<RawMutex, Option<Outlet>>;

/// The log, taken from its route for as long as a loan lives.
struct Held<'c> {
    client: &'c ClientShared,
    route: Arc<Route>,
    requests: Option<Requests>,
}

impl Held<'_> {
    fn log(&self) -> Option<&Outlet> {
        self.requests.as_deref()?.as_ref()
    }

    fn log_mut(&mut self) -> Option<&mut Outlet> {
        self.requests.as_deref_mut()?.as_mut()
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.route.lent.store(false, Relaxed);
        drop(self.requests.take());
        if self.client.node.origin.is_here() {
            self.route.flush_cancels();
            self.client.bell.ring(); // whoever waits for room tries again
        }
    }
}

impl<'c> RequestLoan<'c> {
    /// Calls, and waits for the result.
    ///
    /// # Errors
    /// Those of [`Client::call`](crate::Client::call).
    pub fn send(self) -> Result<RawResponse, Status> {
        let (request, departure) = self.publish()?;
        let deadline = departure.term.deadline();
        let id = departure.call.keep();
        finish(request.client, id, request.method, deadline, request.timeout)
    }

    /// Calls without waiting for the answer, as [`Request::start`] does.
    ///
    /// # Errors
    /// Those of [`Client::call`](crate::Client::call) that are known at once.
    ///
    /// # Examples
    /// ```
    /// # let node = ringbus::Bus::private()?.join("planner")?;
    /// # let server = node.service("bytes").raw_method("sum", |_ctx, bytes| {
    /// #     Ok(bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>().to_le_bytes().to_vec())
    /// # }).spawn()?;
    /// # let client = node.client("bytes")?;
    /// let calls = (0..4).map(|number| {
    ///     let mut loan = client.request("sum").loan(1 << 20)?;
    ///     loan.fill(number);
    ///     loan.start()
    /// });
    /// let sums: Result<Vec<_>, _> = calls.collect::<Result<Vec<_>, _>>()?.into_iter().map(|call| call.wait()).collect();
    /// assert_eq!(*sums?[3], (3u64 << 20).to_le_bytes());
    /// # Ok::<(), ringbus::Error>(())
    /// ```
    pub fn start(self) -> Result<Pending<RawResponse>, Status> {
        let (request, departure) = self.publish()?;
        Ok(Pending::new(request.client.clone(), departure, request.method, request.timeout))
    }

    fn publish(self) -> Result<(Request<'c>, Departure<'c>), Status> {
        let Self { request, departure, mut held } = self;
        if let Some(requests) = held.log_mut() {
            let sent = requests.send_loan(None);
            sent.map_err(|error| Status::from_publish("the request", error))?;
        }
        Ok((request, departure))
    }
}

impl Deref for RequestLoan<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.held.log().map_or(&[][..], Outlet::loaned)
    }
}

impl DerefMut for RequestLoan<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.held.log_mut().map_or(&mut [][..], Outlet::loaned_mut)
    }
}

impl fmt::Debug for RequestLoan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestLoan").field("request", &self.request).field("len", &self.len()).finish()
    }
}
