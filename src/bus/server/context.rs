//! What a handler knows of its call, and where its answer goes.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{ArcMutexGuard, RawMutex};

use super::ServerShared;
use super::pair::{Pair, ok_head, unwritten};
use super::slot::Slot;
use crate::bus::error::PublishError;
use crate::bus::message::Headers;
use crate::bus::metadata::{Digits, Outfit};
use crate::bus::outlet::Outlet;
use crate::bus::peer::NodeInfo;
use crate::bus::spare::{ALIGN, first_aligned};
use crate::bus::status::Status;
use crate::frame::Encoding;
use crate::sys::{clock, memory};

/// A call, as its handler sees it.
pub struct Context {
    pub(super) pair: Arc<Pair>,
    /// `None` while the call waits for a worker.
    pub(super) desk: Option<Desk>,
    pub(super) id: u64,
    pub(super) method: Called,
    pub(super) deadline_ns: Option<u64>,
    pub(super) headers: Headers,
    pub(super) reply_headers: Vec<(String, String)>,
    pub(super) encoding: Encoding,
}

/// Where a worker sits: moved into each call's context before it runs and out of it again, so that no call counts
/// references.
pub(super) struct Desk {
    pub(super) server: Arc<ServerShared>,
    pub(super) slot: Arc<Slot>,
}

/// Which method a request calls.
pub(super) enum Called {
    /// One that has a handler: its place among them.
    Known(usize),
    /// Another, for the handler of all others.
    Other(Arc<str>),
}

impl Context {
    /// Where it runs.
    pub(super) fn desk(&self) -> &Desk {
        self.desk.as_ref().expect("handlers run at a worker's desk")
    }

    /// The node that calls.
    pub fn peer(&self) -> &NodeInfo {
        &self.pair.client
    }

    /// Number of the call, unique among those of its client.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The method that is called.
    pub fn method(&self) -> &str {
        self.desk().server.method_name(&self.method)
    }

    /// The request's headers.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// When the request was written, if its client says so.
    pub fn timestamp(&self) -> Option<SystemTime> {
        self.headers.timestamp()
    }

    /// What the request belongs to, if its client says so.
    pub fn correlation(&self) -> Option<&str> {
        self.headers.correlation()
    }

    /// The priority of the client's port.
    pub fn priority(&self) -> u8 {
        self.pair.priority
    }

    /// The service that is called.
    pub fn service(&self) -> &str {
        self.pair.service()
    }

    /// How the request's payload is encoded.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// What is left of the call's timeout, to some milliseconds where that was a second or more; `None`: it has none. Zero
    /// when that is over; a caller that has gone, or given up before, does not change it: see [`Context::cancelled`].
    pub fn remaining(&self) -> Option<Duration> {
        let deadline = self.deadline_ns?;
        Some(Duration::from_nanos(deadline.saturating_sub(clock::monotonic_ns())))
    }

    /// When the call's timeout ends; `None`: it has none. See [`Context::remaining`].
    pub fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.remaining()?)
    }

    /// Whether the answer is of no use any more: the caller gave up, has gone, or its deadline is over. A
    /// handler that takes long looks now and then. A caller's word takes some milliseconds to get here.
    pub fn cancelled(&self) -> bool {
        self.desk().slot.is_cancelled()
            || self.pair.is_gone()
            || self.remaining().is_some_and(|left| left.is_zero())
    }

    /// Adds a header to the answer: at most 64 of them, 16 KiB together, the request's correlation (which the
    /// answer has as well) and the time counted. Names that begin with `@` are the bus's own; what cannot be sent
    /// fails the call with `Internal`.
    pub fn header(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.reply_headers.push((key.into(), value.into()));
    }

    /// Lends `len` bytes for the answer of a raw method, 64-byte aligned, in shared memory where there is room in it
    /// just now, else in private memory. Headers are to be added before. Other answers to the same
    /// client wait until it is returned or dropped: up to
    /// [`ServiceBuilder::capacity`](crate::ServiceBuilder::capacity), or 16 MiB, in private memory; those beyond keep their
    /// workers, and fail after a second. So fill it, and do nothing else meanwhile.
    ///
    /// # Errors
    /// `ResourceExhausted`: an answer of this size is too large; raise
    /// [`ServiceBuilder::max_message`](crate::ServiceBuilder::max_message).
    pub fn loan(&self, len: usize) -> Result<ReplyLoan, Status> {
        // Private memory is not for what the log could never take.
        let limit = self.pair.largest();
        if len > limit {
            return Err(self.pair.refuse(unwritten(PublishError::TooLarge { size: len, limit })));
        }
        let mut room = Digits::default();
        let headers = self.reply_headers(&mut room)?;
        let lent = self.pair.lock().map(|mut answers| {
            let lent = answers.loan(&ok_head(self.id, &headers), Encoding::Raw, len);
            (lent, answers)
        });
        let memory = match lent {
            Some((Ok(true), answers)) => Memory::Log(Some(answers)),
            Some((other, answers)) => {
                drop(answers);
                self.pair.flush(); // another answer may have been left to whoever had the log
                match other {
                    Ok(_) | Err(PublishError::Full { .. }) => self.private(len)?,
                    Err(error) => return Err(self.pair.refuse(unwritten(error))),
                }
            }
            None => self.private(len)?,
        };
        Ok(ReplyLoan { pair: self.pair.clone(), id: self.id, memory })
    }

    /// Where there is no room in the log just now.
    fn private(&self, len: usize) -> Result<Memory, Status> {
        let refuse = |error: io::Error| self.pair.refuse(Status::resource_exhausted(error.to_string()));
        Private::new(len).map(Memory::Private).map_err(refuse)
    }

    /// Writes any bytes into the log of answers.
    #[cfg(fuzzing)]
    pub(in crate::bus) fn put(&self, frame: &[u8]) {
        if let Some(mut answers) = self.pair.lock() {
            answers.put(frame);
        }
    }

    /// The headers of the answer, the bus's own among them.
    ///
    /// # Errors
    /// Why they cannot be sent.
    #[inline]
    pub(super) fn reply_headers<'a>(
        &'a self,
        room: &'a mut Digits,
    ) -> Result<Vec<(&'a str, &'a str)>, Status> {
        if self.reply_headers.is_empty() && !self.pair.timestamps && self.correlation().is_none() {
            return Ok(Vec::new());
        }
        let headers: Vec<_> =
            self.reply_headers.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let outfit = Outfit { headers, timestamp: self.pair.timestamps, correlation: self.correlation() };
        outfit.list(room).map_err(|reason| Status::internal(format!("headers of the answer: {reason}")))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut context = f.debug_struct("Context");
        context.field("id", &self.id).field("peer", self.peer()).finish_non_exhaustive()
    }
}

/// The bytes that a raw method answers with: of a `Vec`, or lent by [`Context::loan`].
#[derive(Debug)]
pub struct Reply(pub(super) Bytes);

#[derive(Debug)]
pub(super) enum Bytes {
    Owned(Vec<u8>),
    Loan(ReplyLoan),
}

impl From<Vec<u8>> for Reply {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Bytes::Owned(bytes))
    }
}

impl From<&[u8]> for Reply {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::Owned(bytes.to_vec()))
    }
}

impl From<ReplyLoan> for Reply {
    fn from(loan: ReplyLoan) -> Self {
        Self(Bytes::Loan(loan))
    }
}

/// Bytes to be filled and returned; from [`Context::loan`]. They hold whatever was there before.
#[must_use = "a loan that is not returned is lost"]
pub struct ReplyLoan {
    pair: Arc<Pair>,
    id: u64,
    memory: Memory,
}

enum Memory {
    Log(Option<ArcMutexGuard<RawMutex, Outlet>>),
    Private(Private),
}

/// Private memory, aligned as the log's.
#[derive(Default)]
pub(super) struct Private {
    memory: Vec<u8>,
    payload: Range<usize>,
}

impl Private {
    fn new(len: usize) -> io::Result<Self> {
        let memory = memory::zeroed(len.saturating_add(ALIGN - 1))?;
        let start = first_aligned(&memory);
        Ok(Self { memory, payload: start..start + len })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory[self.payload.clone()]
    }
}

impl ReplyLoan {
    /// Publishes it as the answer to this call. What was lent outside the log comes back.
    pub(super) fn send(mut self, context: &Context) -> Result<Option<Private>, Status> {
        if self.id != context.id || !Arc::ptr_eq(&self.pair, &context.pair) {
            return Err(Status::internal("the handler returned a loan of another call"));
        }
        match &mut self.memory {
            Memory::Private(private) => Ok(Some(std::mem::take(private))),
            Memory::Log(answers) => {
                if let Some(mut answers) = answers.take() {
                    let sent = answers.send_loan(None);
                    sent.map_err(|error| Status::from_publish("the answer", error))?;
                }
                Ok(None)
            }
        }
    }
}

impl Drop for ReplyLoan {
    fn drop(&mut self) {
        if let Memory::Log(answers) = &mut self.memory {
            drop(answers.take());
            self.pair.flush(); // others may have left their answers to whoever held the log
        }
    }
}

impl Deref for ReplyLoan {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            Memory::Private(private) => private.bytes(),
            Memory::Log(answers) => answers.as_ref().map_or(&[][..], |answers| answers.loaned()),
        }
    }
}

impl DerefMut for ReplyLoan {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Private(Private { memory, payload }) => &mut memory[payload.clone()],
            Memory::Log(answers) => answers.as_mut().map_or(&mut [][..], |answers| answers.loaned_mut()),
        }
    }
}

impl fmt::Debug for ReplyLoan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyLoan").field("id", &self.id).field("len", &self.len()).finish_non_exhaustive()
    }
}
