//! A client as a tower service: calls that wait for an answer, and for room, in a future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::answer::{FromAnswer, RawResponse};
use super::departure::{Departure, Registered, Term};
use super::pending::Pending;
use super::request::{NO_ROOM, Request};
use super::routes::Route;
use super::{Client, Handle};
use crate::bus::codec::Bytes;
use crate::bus::status::Status;
use crate::bus::tower::{self, Response};
use crate::frame::{Code, Encoding};

impl Service<tower::Request> for Client {
    type Response = Response;
    type Error = Status;
    type Future = Call;

    /// Always ready: where a call goes, and whether there is room, is known of a request only. A call waits for
    /// room in its future.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tower::Request) -> Call {
        Call::begin(&self.shared, request)
    }
}

/// A call by a client that is used as a tower service. Dropped before it is over, it is cancelled: the server is
/// told.
#[must_use = "a call that is dropped is cancelled"]
pub struct Call {
    /// The call, or what became of it at once; `None` once that was told.
    call: Result<Pending<RawResponse>, Option<Status>>,
    unsent: Option<Unsent>,
}

/// A request for which there was no room yet.
struct Unsent {
    client: Arc<Handle>,
    request: tower::Request,
    ticket: Ticket,
    waits: bool,
}

impl Call {
    fn begin(client: &Arc<Handle>, request: tower::Request) -> Self {
        let attempt = prepare(client, &request).enlist().and_then(|(ticket, call)| {
            let mut unsent = Unsent { client: client.clone(), request, ticket, waits: false };
            let sent = unsent.try_send(&call)?;
            unsent.waits = !sent;
            Ok((call, (!sent).then_some(unsent)))
        });
        match attempt {
            Ok((call, unsent)) => Self { call: Ok(call), unsent },
            Err(status) => Self { call: Err(Some(status)), unsent: None },
        }
    }
}

fn prepare<'c>(client: &'c Arc<Handle>, request: &'c tower::Request) -> Request<'c> {
    let mut prepared = Request::new(client, &request.method);
    for (name, value) in request.headers.all() {
        prepared = prepared.header(name, value);
    }
    if let Some(correlation) = &request.correlation {
        prepared = prepared.correlation(correlation);
    }
    if request.timestamp {
        prepared = prepared.timestamp();
    }
    if let Some(timeout) = request.timeout() {
        prepared = prepared.timeout(timeout);
    }
    match request.to {
        Some(node) => prepared.to(node),
        None => prepared,
    }
}

/// A registered call that is still to be sent: what it takes to try again.
struct Ticket {
    route: Arc<Route>,
    term: Term,
}

impl<'c> Request<'c> {
    /// Chooses a server and registers the call, for [`Request::try_send`].
    fn enlist<T: FromAnswer>(self) -> Result<(Ticket, Pending<T>), Status> {
        let departure = self.depart(T::RAW)?;
        let ticket = Ticket { route: departure.route.clone(), term: departure.term };
        Ok((ticket, Pending::new(self.client.clone(), departure, self.method, self.timeout)))
    }

    /// Publishes the request of a registered call if there is room; if it `waits`, see
    /// [`ClientShared::stop_waiting`].
    fn try_send(
        &self,
        ticket: &Ticket,
        id: u64,
        encoding: Encoding,
        payload: &[u8],
        waits: bool,
    ) -> Result<bool, Status> {
        let call = Registered { client: self.client, id, kept: true };
        let departure = Departure { route: ticket.route.clone(), call, term: ticket.term };
        // A task must not wait on its thread for another's loan.
        self.attempt(&departure, encoding, &Bytes(payload), false, waits)
    }

    /// What became of a request for which there was no room in time.
    fn never_sent(&self) -> Status {
        self.late(NO_ROOM)
    }
}

impl Unsent {
    fn try_send(&self, call: &Pending<RawResponse>) -> Result<bool, Status> {
        let Self { client, request, ticket, waits } = self;
        let prepared = prepare(client, request);
        prepared.try_send(ticket, call.id(), request.encoding, &request.payload, *waits)
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        if self.waits && self.client.node.origin.is_here() {
            self.client.stop_waiting(&self.ticket.route);
        }
    }
}

impl Future for Call {
    type Output = Result<Response, Status>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { call, unsent } = &mut *self;
        let pending = match call {
            Ok(pending) => pending,
            Err(status) => {
                let over = || Status::failed_precondition("this call is over: it was polled once too often");
                return Poll::Ready(Err(status.take().unwrap_or_else(over)));
            }
        };
        let polled = Pin::new(&mut *pending).poll(context);
        let ended = match (polled, &*unsent) {
            (Poll::Ready(Ok(answer)), _) => Some(Ok(Response::of_call(&answer))),
            (Poll::Ready(Err(late)), Some(unsent)) if late.code() == Code::DeadlineExceeded => {
                Some(Err(prepare(&pending.client, &unsent.request).never_sent()))
            }
            (Poll::Ready(Err(status)), _) => Some(Err(status)),
            (Poll::Pending, None) => None,
            (Poll::Pending, Some(request)) => {
                // Listed first, tried afterwards: whoever reads the answers wakes those that are listed after each
                // of its sleeps. And watched before, so that somebody reads.
                pending.client.routes.calls.lock().cramp_task(pending.id(), context.waker());
                match request.try_send(pending) {
                    Ok(false) => None,
                    Ok(true) => {
                        *unsent = None;
                        None
                    }
                    Err(status) => Some(Err(status)),
                }
            }
        };
        match ended {
            None => Poll::Pending,
            Some(result) => {
                *call = Err(None);
                Poll::Ready(result)
            }
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("sent", &self.unsent.is_none()).finish_non_exhaustive()
    }
}
