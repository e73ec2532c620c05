//! Taking requests: reads the clients' logs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::ServerShared;
use super::context::{Called, Context};
use super::pair::Pair;
use super::queue::Waits;
use super::slot::CallId;
use crate::bus::core::Command;
use crate::bus::error::RecvError;
use crate::bus::inlet::Inlet;
use crate::bus::message::Headers;
use crate::bus::outlet::{Outlet, OutletConfig};
use crate::bus::payload::{Incoming, NO_CALL, PREFIX, Payload, Place, SHORTAGE, copy_prefix, with_head};
use crate::bus::reading::{Manner, Reply};
use crate::bus::spare::Spare;
use crate::bus::status::Status;
use crate::frame::{self, Head, PayloadSpan, PlainRequest};
use crate::ring::{Kind, Record};
use crate::wake::{Patience, Then};

/// Records that are taken in a row before the clock and other duties are looked at.
const BATCH: usize = 64;

/// What those are told that come too late.
#[cold]
pub(super) fn draining() -> Status {
    Status::unavailable("the server's node is draining, and has not begun this: call another")
}

/// A request that was read. Its context is made where it is going to be used, and not moved about.
pub(super) struct Job {
    pub(super) context: Context,
    pub(super) payload: Payload,
    /// Of the whole frame, headers and all.
    bytes: usize,
}

impl Job {
    /// Answers with a status what was not begun.
    pub(super) fn refuse(&self, status: &Status) {
        self.context.pair.fail(self.context.id, status, &[]);
    }
}

impl Waits for Job {
    fn call(&self) -> CallId {
        (self.context.pair.number, self.context.id)
    }

    fn priority(&self) -> u8 {
        self.context.pair.priority
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What a request's head says.
struct Request {
    id: u64,
    /// Which handler takes it, if any does.
    method: Result<Called, Status>,
    deadline: Option<u64>,
    headers: Headers,
    payload: PayloadSpan,
}

/// The port that reads requests: one thread at a time has it.
pub(super) struct Intake {
    pub(super) inlet: Inlet,
    /// Of the record in hand.
    copy: Spare,
    pairs: u64,
    /// How many sources rest.
    resting: usize,
    /// How many pairs have a backlog, whether their sources rest or not: the last answers of a client that asks
    /// for no more wait as well.
    backlogged: Arc<AtomicUsize>,
}

/// What came of a look: small, for most find nothing.
enum Looked {
    Nothing,
    /// In hand, of this log.
    Record(usize),
    /// Something else.
    Handled,
    /// The port is of no more use.
    Over,
}

impl Intake {
    pub(super) fn new(inlet: Inlet, backlogged: Arc<AtomicUsize>) -> Self {
        Self { inlet, copy: Spare::default(), pairs: 0, resting: 0, backlogged }
    }

    /// Waits for a request, for `job`. `None` when `leave` says so: it is asked before each sleep, and after each batch.
    #[inline]
    pub(super) fn next(&mut self, server: &ServerShared, job: &mut Option<Job>, leave: impl Fn() -> bool) {
        let mut patience = Patience::new(server.wait, None);
        loop {
            for _ in 0..BATCH {
                match self.look(server) {
                    Looked::Nothing => break,
                    Looked::Record(index) => {
                        patience.found(self.inlet.habit_mut());
                        self.take(server, index, job);
                        if job.is_some() {
                            return;
                        }
                    }
                    Looked::Handled => patience.found(self.inlet.habit_mut()),
                    Looked::Over => {
                        server.stop();
                        return;
                    }
                }
            }
            if leave() {
                return;
            }
            match patience.next(self.inlet.habit_mut()) {
                Then::Look | Then::GiveUp => {}
                Then::Sleep(timeout) => {
                    match self.inlet.arm() {
                        // A ring before `arm` was drained by it: look again at all that rings.
                        Ok(true) if !leave() && !self.tend_backlogs() => self.inlet.sleep(timeout),
                        Ok(_) => {}
                        Err(_) => {
                            server.stop();
                            return;
                        }
                    }
                    patience.woke();
                }
            }
        }
    }

    #[inline(always)]
    fn look(&mut self, server: &ServerShared) -> Looked {
        self.tend_backlogs();
        let looked = match self.inlet.next() {
            Ok(Some(index)) => Looked::Record(index),
            Ok(None) => Looked::Nothing,
            Err(error) => match *error {
                RecvError::Forked | RecvError::NodeGone => Looked::Over,
                error => {
                    if matches!(error, RecvError::Lagged { .. }) {
                        self.lose_request(server);
                    }
                    tracing::warn!(service = %server.name, %error, "a client cannot be served");
                    Looked::Handled
                }
            },
        };
        if self.inlet.has_ended() {
            self.end(server);
        }
        looked
    }

    /// A request was passed over: which one, only its head could have told. Its client is told that it is one of those
    /// that have no answer yet.
    #[cold]
    fn lose_request(&mut self, server: &ServerShared) {
        let lost = self.inlet.take_lost();
        if let Some(pair) = lost.and_then(|index| self.pair(server, index)) {
            let what = format!("server {}: a request could not be taken there: {SHORTAGE}", server.node.info);
            pair.fail(NO_CALL, &Status::resource_exhausted(what), &[]);
        }
    }

    /// Clients have gone.
    #[cold]
    fn end(&mut self, server: &ServerShared) {
        for source in self.inlet.take_ended() {
            self.resting -= usize::from(source.rests());
            match source.reply {
                Some(Reply::Open(pair)) => {
                    pair.end();
                    server.cancel(|(number, _)| number == pair.number);
                }
                // Of a client that has gone before a request of its was looked at.
                Some(Reply::Made(answers)) => server.node.tell(Command::CloseLog { log: answers.log }),
                None => {}
            }
        }
    }

    /// Writes answers for which there is room again, and lets the requests of those pairs rest that have more;
    /// true if those of one rest no longer.
    #[inline]
    fn tend_backlogs(&mut self) -> bool {
        (self.resting > 0 || self.backlogged.load(Relaxed) > 0) && self.flush()
    }

    #[cold]
    fn flush(&mut self) -> bool {
        let before = self.resting;
        for source in self.inlet.sources_mut() {
            if let Some(Reply::Open(pair)) = &source.reply {
                let rests = pair.is_backlogged() && !pair.flush();
                self.resting = self.resting + usize::from(rests) - usize::from(source.rests());
                source.manner = if rests { Manner::Resting } else { Manner::Gated };
            }
        }
        self.resting < before
    }

    /// Writes what waits for room, until nothing does or it is too late.
    pub(super) fn finish(&mut self, deadline: Instant) {
        loop {
            self.tend_backlogs();
            let left = deadline.saturating_duration_since(Instant::now());
            if self.backlogged.load(Relaxed) == 0 || left.is_zero() {
                return;
            }
            // The requests that come are not read: it sleeps until a client has read an answer, or a moment.
            match self.inlet.arm() {
                Ok(true) => self.inlet.sleep(Some(left)),
                Ok(false) => std::thread::sleep(left.min(Duration::from_millis(1))),
                Err(_) => return,
            }
        }
    }

    /// Takes a request, for `job`. `None`: it is none, or was answered at once.
    #[inline]
    fn take(&mut self, server: &ServerShared, index: usize, job: &mut Option<Job>) {
        let Some(&Record { kind, len, .. }) = self.inlet.source(index).reader.in_hand() else { return };
        let len = len as usize;
        let Some(pair) = self.pair(server, index) else {
            self.inlet.release(index);
            return;
        };
        // Nearly all requests have a plain head, of a method that is there: what is read stays in registers until it is in
        // its place. Put together in memory and moved from there it would be late: a load of what more than one store has
        // just written waits until all of them are in the cache.
        let prefix = copy_prefix(self.inlet.source(index), len, &mut self.copy);
        if let Some(PlainRequest { id, method, deadline, payload }) = frame::plain_request(prefix, len)
            && let Some(place) = server.place_of(method)
        {
            let (method, headers) = (Ok(Called::Known(place)), Headers::default());
            let request = Request { id, method, deadline, headers, payload };
            self.accept(server, index, (kind, len), pair, request, job);
        } else {
            self.take_any(server, index, (kind, len), pair, job);
        }
    }

    /// The same for any record.
    #[inline(never)]
    fn take_any(
        &mut self,
        server: &ServerShared,
        index: usize,
        (kind, len): (Kind, usize),
        pair: Arc<Pair>,
        job: &mut Option<Job>,
    ) {
        let source = self.inlet.source(index);
        let found = with_head(source, len, &mut self.copy, |found| match found? {
            Incoming::Message(Head::Request { id, method, deadline, headers }, payload) => {
                let (method, headers) = (server.method(method), Headers::from(headers));
                Ok(Ok(Request { id, method, deadline, headers, payload }))
            }
            Incoming::Message(head, _) => Err(format!("a frame of kind {:?}", head.kind())),
            Incoming::Cancel(id) => Ok(Err(id)),
        });
        match found {
            Ok(Ok(request)) => self.accept(server, index, (kind, len), pair, request, job),
            Ok(Err(id)) => {
                self.inlet.release(index);
                server.cancel(|call| call == (pair.number, id));
            }
            Err(reason) => {
                if let Some(times) = self.inlet.source(index).origin.misplaced.again() {
                    let (service, client) = (&server.name, &pair.client);
                    tracing::warn!(%service, %client, %reason, times, "no request: passed over");
                }
                self.inlet.counters().drop(1);
                self.inlet.release(index);
            }
        }
    }

    /// Takes a request that was read, or answers it at once.
    #[inline(always)]
    fn accept(
        &mut self,
        server: &ServerShared,
        index: usize,
        (kind, len): (Kind, usize),
        pair: Arc<Pair>,
        request: Request,
        job: &mut Option<Job>,
    ) {
        let Request { id, method, deadline: deadline_ns, headers, payload: span } = request;
        self.inlet.counters().message(span.len);
        let limit = server.limits.max_message;
        let refused = match method {
            _ if server.node.drains.is_draining() => draining(),
            // What is in the log was taken before anybody could refuse it.
            _ if kind == Kind::Blob && span.len as u64 > limit => Status::resource_exhausted(format!(
                "a request of {} bytes, but the server takes {limit}: raise its `max_message`",
                span.len
            )),
            Ok(method) if !span.compressed => {
                let is_raw = server.handler(&method).is_some_and(|handler| handler.is_raw());
                let source = self.inlet.source_mut(index);
                let (desk, reply_headers, encoding) = (None, Vec::new(), span.encoding);
                let made = |pair, payload| {
                    let context =
                        Context { pair, desk, id, method, deadline_ns, headers, reply_headers, encoding };
                    Job { context, payload, bytes: len }
                };
                if !is_raw && len <= PREFIX {
                    *job = Some(made(pair, Payload::copied(&span, &mut self.copy)));
                    return self.inlet.release(index);
                }
                let place = Place { node: &server.node, reader: &server.port, port: None };
                match Payload::take(source, kind, &span, Some(place).filter(|_| is_raw)) {
                    Ok(payload) => {
                        *job = Some(made(pair, payload));
                        return self.inlet.release(index);
                    }
                    Err(status) => status,
                }
            }
            Ok(_) => Status::unimplemented("the request is compressed, which this version does not read"),
            Err(status) => status,
        };
        self.inlet.release(index);
        pair.fail(id, &refused, &[]);
    }

    /// The pair that a log of requests belongs to, with its log of answers.
    #[inline]
    fn pair(&mut self, server: &ServerShared, index: usize) -> Option<Arc<Pair>> {
        match &self.inlet.source(index).reply {
            Some(Reply::Open(pair)) => Some(pair.clone()),
            _ => self.open_pair(server, index),
        }
    }

    #[cold]
    fn open_pair(&mut self, server: &ServerShared, index: usize) -> Option<Arc<Pair>> {
        let port = self.inlet.shared().clone();
        let source = self.inlet.source_mut(index);
        let Some(Reply::Made(shared)) = &source.reply else { return None };
        let config = OutletConfig::of_pair(shared.layout.capacity(), server.limits);
        let answers = Outlet::of(shared.clone(), server.node.clone(), config);
        let (number, backlogged) = (self.pairs, self.backlogged.clone());
        let pair = Pair::new(number, &source.origin, answers, server.timestamps, port, backlogged);
        let pair = Arc::new(pair);
        self.pairs += 1;
        source.reply = Some(Reply::Open(pair.clone()));
        Some(pair)
    }
}
