//! The answers to one client.
//!
//! Several threads answer: workers, and whoever reads the requests. None of them ever waits for the client: an
//! answer that finds the log full, or another thread writing it, goes to the pair's backlog, and whoever held
//! the log writes it afterwards. While there is a backlog the pair's requests rest, so that it has no more answers
//! than requests were taken before. Once it has [`BACKLOG`] bytes, an answer waits for whoever holds the log: for
//! [`PATIENCE`] or until its call's deadline, and not at all once one has waited so long for the same holder. Where that
//! does not help, what is added are statuses alone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{ArcMutexGuard, Mutex, RawMutex};

use crate::bus::codec::{Body, Bytes};
use crate::bus::error::PublishError;
use crate::bus::outlet::{Outlet, Room};
use crate::bus::peer::NodeInfo;
use crate::bus::reading::{InletShared, Origin};
use crate::bus::status::Status;
use crate::frame::{Code, Encoding, Frame, Head, Headers, Payload};
use crate::segment::Via;
use crate::sys::{clock, memory};

/// No fewer bytes than all but the message takes of an answer that has nothing else.
const BESIDE_MESSAGE: usize = 64;

/// Most bytes of answers that wait for one client, unless its log holds more; what was refused for it not counted.
const BACKLOG: usize = 16 << 20;
/// How long an answer that the backlog does not take waits for another handler's loan to end: it takes milliseconds to fill
/// the largest, but one that is kept for good must not hold a worker for longer than this.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 3600 } else { 1 });
/// Most bytes of a message that says so, as many times as requests were taken.
const SHORT: usize = 256;

/// One client, as a server answers it.
pub(in crate::bus) struct Pair {
    /// Tells the pairs of a server apart.
    pub(super) number: u64,
    pub(super) client: NodeInfo,
    /// The client's port's.
    pub(super) priority: u8,
    /// Answers say when they were written.
    pub(super) timestamps: bool,
    answers: Arc<Mutex<Outlet>>,
    /// Bytes of the largest payload, but for what its head takes of the log.
    largest: usize,
    /// What may be left to the backlog.
    room: Room,
    backlog: Mutex<Backlog>,
    /// Bytes that it may have.
    most: usize,
    /// How many are in the backlog: what is looked at instead of its lock.
    waiting: AtomicUsize,
    /// How many pairs of the server have a backlog.
    backlogged: Arc<AtomicUsize>,
    /// An answer has waited in vain for whoever has the log; until the backlog is next written.
    is_kept: AtomicBool,
    /// The client has gone: nobody reads the answers.
    gone: AtomicBool,
    /// The server's port, which counts answers that nobody reads.
    port: Arc<InletShared>,
}

/// What becomes of an answer that has to wait where the backlog is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IfFull {
    /// It waits for whoever has the log, until its call is over.
    Wait { deadline_ns: Option<u64> },
    /// It is refused.
    Refuse,
    /// It is added all the same.
    Add,
}

/// Encoded answers that wait for room.
#[derive(Default)]
struct Backlog {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Backlog {
    /// Whether an answer of so many bytes may wait, too. A first one may always: one that is larger than all that
    /// may wait together has to wait when another thread writes.
    fn takes(&self, len: usize, most: usize) -> bool {
        self.frames.is_empty() || self.bytes + len <= most
    }
}

impl Pair {
    pub(super) fn new(
        number: u64,
        client: &Origin,
        answers: Outlet,
        timestamps: bool,
        port: Arc<InletShared>,
        backlogged: Arc<AtomicUsize>,
    ) -> Self {
        let (largest, room, most) = (answers.largest(), answers.room(), BACKLOG.max(answers.capacity()));
        let answers = Arc::new(Mutex::new(answers));
        let (backlog, waiting) = (Mutex::default(), AtomicUsize::new(0));
        let (is_kept, gone) = (AtomicBool::new(false), AtomicBool::new(false));
        let (priority, client) = (client.priority, client.node.clone());
        Self {
            number,
            client,
            priority,
            timestamps,
            answers,
            largest,
            room,
            backlog,
            most,
            waiting,
            backlogged,
            is_kept,
            gone,
            port,
        }
    }

    pub(super) fn service(&self) -> &str {
        self.port.filters[0].as_str()
    }

    /// The client has gone.
    pub(super) fn end(&self) {
        self.gone.store(true, Relaxed);
        let mut backlog = self.backlog.lock();
        self.port.counters.drop(backlog.frames.len() as u64);
        *backlog = Backlog::default();
        self.note_waiting(0);
    }

    /// Called with the backlog's lock.
    fn note_waiting(&self, answers: usize) {
        match (self.waiting.swap(answers, Relaxed), answers) {
            (0, 1..) => self.backlogged.fetch_add(1, Relaxed),
            (1.., 0) => self.backlogged.fetch_sub(1, Relaxed),
            _ => return,
        };
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    /// Whether answers wait for room: then its requests rest.
    pub(super) fn is_backlogged(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// Answers with a result, of a call that has until `deadline_ns`.
    ///
    /// # Errors
    /// Why it cannot be written; the call has no answer yet.
    pub(super) fn answer(
        &self,
        id: u64,
        deadline_ns: Option<u64>,
        headers: &[(&str, &str)],
        encoding: Encoding,
        body: &impl Body,
    ) -> Result<(), Status> {
        let head = ok_head(id, headers);
        self.write(&head, encoding, body, IfFull::Wait { deadline_ns }).map_err(|status| self.refuse(status))
    }

    /// [`Pair::answer`] by way of the backlog, which aligns bytes ([`Outlet::put`]): for those of a loan outside the log.
    ///
    /// # Errors
    /// Those of [`Pair::answer`].
    pub(super) fn answer_aligned(
        &self,
        id: u64,
        deadline_ns: Option<u64>,
        headers: &[(&str, &str)],
        bytes: &[u8],
    ) -> Result<(), Status> {
        let head = ok_head(id, headers);
        let left = self.leave(&head, Encoding::Raw, &Bytes(bytes), IfFull::Wait { deadline_ns });
        left.map_err(|status| self.refuse(status))
    }

    /// Counts an answer that is not written since it is too large, or one too many.
    pub(super) fn refuse(&self, status: Status) -> Status {
        if status.code() == Code::ResourceExhausted {
            self.port.counters.unsent();
        }
        status
    }

    /// Answers with a status.
    pub(super) fn fail(&self, id: u64, status: &Status, headers: &[(&str, &str)]) {
        let code = if status.code() == Code::Ok { Code::Unknown } else { status.code() };
        let head = |message, headers| Head::Response { id, status: code, message: Some(message), headers };
        let details = Bytes(status.details_bytes());
        let whole = head(status.message(), Headers::from_slice(headers));
        if self.write(&whole, Encoding::MessagePack, &details, IfFull::Refuse).is_err() {
            // Headers or details are too large, or too much waits: the code and the message are what counts.
            let room = if self.backlog.lock().takes(SHORT, self.most) { usize::MAX } else { SHORT };
            let most = self.largest.saturating_sub(BESIDE_MESSAGE).min(room);
            let message = head(cut(status.message(), most), Headers::EMPTY);
            if let Err(error) = self.write(&message, Encoding::MessagePack, &Bytes(&[]), IfFull::Add) {
                tracing::error!(client = %self.client, %error, "a call has no answer");
            }
        }
    }

    /// Writes an answer, or leaves it to the backlog.
    fn write(
        &self,
        head: &Head<'_>,
        encoding: Encoding,
        body: &impl Body,
        if_full: IfFull,
    ) -> Result<(), Status> {
        if self.is_gone() {
            self.port.counters.drop(1);
            return Ok(());
        }
        if !self.is_backlogged()
            && let Some(mut answers) = self.answers.try_lock()
        {
            match answers.publish(head, encoding, body) {
                Ok(()) => {
                    drop(answers);
                    self.flush();
                    return Ok(());
                }
                Err(PublishError::Full { .. }) => {}
                Err(error) => return Err(unwritten(error)),
            }
        }
        self.leave(head, encoding, body, if_full)
    }

    /// Leaves an answer to the backlog.
    fn leave(
        &self,
        head: &Head<'_>,
        encoding: Encoding,
        body: &impl Body,
        if_full: IfFull,
    ) -> Result<(), Status> {
        let frame = self.encode(head, encoding, body).map_err(unwritten)?;
        self.put(frame, if_full)
    }

    /// The whole frame, if there is ever room for it.
    fn encode(&self, head: &Head<'_>, encoding: Encoding, body: &impl Body) -> Result<Vec<u8>, PublishError> {
        let reason = |error| format!("{error:?}");
        let size = body.size().map_err(|error| PublishError::Encode { reason: reason(error) })?;
        let too_large = |limit| Err(PublishError::TooLarge { size, limit });
        if size > self.largest {
            return too_large(self.largest);
        }
        let memory =
            |len| memory::zeroed(len).map_err(|error| PublishError::Memory { reason: error.to_string() });
        let mut bytes = memory(size)?;
        body.write(&mut bytes, Via::Caches)
            .map_err(|error| PublishError::Encode { reason: reason(error) })?;
        let frame = Frame::Message { head: *head, payload: Payload::new(encoding, &bytes) };
        if !self.room.takes(frame.encoded_len(), size) {
            return too_large(self.room.largest(frame.encoded_len() - size, 0));
        }
        let mut out = memory(frame.encoded_len())?;
        let len =
            frame.encode(&mut out).map_err(|error| PublishError::Headers { reason: error.to_string() })?;
        out.truncate(len);
        Ok(out)
    }

    /// Leaves a frame to whoever writes the log next.
    fn put(&self, frame: Vec<u8>, if_full: IfFull) -> Result<(), Status> {
        let mut backlog = self.backlog.lock();
        if if_full != IfFull::Add && !backlog.takes(frame.len(), self.most) {
            drop(backlog);
            return self.put_patiently(frame, self.patience(if_full));
        }
        self.push(&mut backlog, frame);
        drop(backlog);
        self.flush();
        Ok(())
    }

    /// How long an answer waits for whoever has the log.
    fn patience(&self, if_full: IfFull) -> Duration {
        match if_full {
            IfFull::Wait { .. } if self.is_kept.load(Relaxed) => Duration::ZERO,
            IfFull::Wait { deadline_ns } => deadline_ns.map_or(PATIENCE, |deadline| {
                PATIENCE.min(Duration::from_nanos(deadline.saturating_sub(clock::monotonic_ns())))
            }),
            IfFull::Refuse | IfFull::Add => Duration::ZERO,
        }
    }

    /// Called with the backlog's lock.
    fn push(&self, backlog: &mut Backlog, frame: Vec<u8>) {
        // Set before the lock is taken in `end`, after which nobody empties the backlog.
        if self.is_gone() {
            return self.port.counters.drop(1);
        }
        backlog.bytes += frame.len();
        backlog.frames.push_back(frame);
        self.note_waiting(backlog.frames.len());
    }

    /// Writes a frame that the backlog does not take, after what that has: waits so long for another thread that has the
    /// log, not for the client.
    #[cold]
    fn put_patiently(&self, frame: Vec<u8>, patience: Duration) -> Result<(), Status> {
        let mut answers = self.answers.try_lock_for(patience);
        let mut backlog = self.backlog.lock();
        if answers.is_none() {
            answers = self.answers.try_lock(); // it may have been let go of just now: then nobody is to be blamed
        }
        let mut write = |answers: &mut Outlet| self.write_out(answers, &mut backlog) && answers.put(&frame);
        let is_written = !self.is_gone() && answers.as_deref_mut().is_some_and(&mut write);
        let ended = if is_written {
            Ok(())
        } else if self.is_gone() || backlog.takes(frame.len(), self.most) {
            self.push(&mut backlog, frame);
            Ok(())
        } else if answers.is_some() {
            Err(self.too_many(&backlog, "neither its log nor `blob_memory` has room for more until it reads"))
        } else {
            if patience == PATIENCE {
                self.is_kept.store(true, Relaxed);
            }
            Err(self.too_many(&backlog, "another handler keeps the log for long, by a loan"))
        };
        drop(backlog);
        drop(answers);
        self.flush();
        ended
    }

    fn too_many(&self, backlog: &Backlog, why: &str) -> Status {
        Status::resource_exhausted(format!(
            "{} bytes of answers wait for this client already, of {} that may: {why}; raise the service's `capacity` for \
             large answers of several `workers`",
            backlog.bytes, self.most
        ))
    }

    /// Writes what is in the backlog, as far as there is room; without waiting for another thread that writes,
    /// which does it afterwards. True if nothing is left.
    ///
    /// Nothing is left behind: whoever adds to the backlog tries for the log afterwards; whoever lets go of
    /// the log looks at the backlog afterwards. Of the two locks, one is taken second and sees the other.
    pub(super) fn flush(&self) -> bool {
        // Under the lock, not by `waiting`: see above.
        while !self.backlog.lock().frames.is_empty() {
            let Some(mut answers) = self.answers.try_lock() else { return false };
            if !self.write_out(&mut answers, &mut self.backlog.lock()) {
                return false;
            }
        }
        true
    }

    /// The same for whoever has the log.
    fn write_out(&self, answers: &mut Outlet, backlog: &mut Backlog) -> bool {
        self.is_kept.store(false, Relaxed);
        while let Some(frame) = backlog.frames.front() {
            if !answers.put(frame) {
                answers.arm(); // the client's next step rings the server's bell
                if !answers.put(frame) {
                    self.note_waiting(backlog.frames.len());
                    return false;
                }
            }
            backlog.bytes -= frame.len();
            backlog.frames.pop_front();
        }
        answers.disarm();
        if self.is_backlogged() {
            self.note_waiting(0);
            self.port.bell.ring(); // whoever reads requests lets this pair's rest no longer
        }
        true
    }

    /// Bytes of the largest payload, but for what its head takes of the log.
    pub(super) fn largest(&self) -> usize {
        self.largest
    }

    /// The log for an answer in place; `None` if another thread writes it, or answers wait for it.
    pub(super) fn lock(&self) -> Option<ArcMutexGuard<RawMutex, Outlet>> {
        if self.is_backlogged() || self.is_gone() { None } else { self.answers.try_lock_arc() }
    }
}

/// The head of a result.
pub(super) fn ok_head<'a>(id: u64, headers: &'a [(&'a str, &'a str)]) -> Head<'a> {
    Head::Response { id, status: Code::Ok, message: None, headers: Headers::from_slice(headers) }
}

/// Why an answer was not written: the caller has no part in what it is made of.
pub(super) fn unwritten(error: PublishError) -> Status {
    let status = Status::from_publish("the answer", error);
    match status.code() {
        Code::InvalidArgument => Status::internal(status.message()),
        _ => status,
    }
}

/// The first characters of a text, in at most so many bytes.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests;
