//! Taking answers: reads the servers' logs, for whoever leads.

use super::answer::Answer;
use super::calls::{Locked, Outcome};
use super::wait::Mine;
use super::{ClientShared, Receiver};
use crate::bus::error::RecvError;
use crate::bus::held::Held;
use crate::bus::message::Headers;
use crate::bus::payload::{Incoming, NO_CALL, PREFIX, Payload, Place, SHORTAGE, copy_prefix, with_head};
use crate::bus::peer::NodeInfo;
use crate::bus::reading::Source;
use crate::bus::status::Status;
use crate::frame::{self, Code, Head};
use crate::ring::{Kind, Record};

/// Answers that are read in a row before the leader looks at those who wait for room.
const BATCH: usize = 64;

/// Whose record is in hand, if there is one.
pub(super) type Looked = Result<Option<usize>, Box<RecvError>>;

/// What came of looks at the answers.
pub(super) struct Found<'a> {
    /// How many records were read.
    pub(super) read: usize,
    /// The table, if there is no other call in it.
    pub(super) table: Option<Locked<'a>>,
}

impl ClientShared {
    /// Reads what is there, at most a batch, after a first look. Having found the leader's own, it reads on for the
    /// others.
    #[inline]
    pub(super) fn read<'a>(
        &'a self,
        receiver: &mut Receiver,
        mut looked: Looked,
        mine: Mine,
        own: &mut Option<Outcome>,
    ) -> Result<Found<'a>, Status> {
        let mut read = 0;
        loop {
            match looked {
                Ok(Some(index)) => {
                    if let Some(table) = self.take(receiver, index, mine, own)
                        && table.len() == 0
                    {
                        return Ok(Found { read: read + 1, table: Some(table) });
                    }
                }
                Ok(None) => {
                    self.note_ended(receiver);
                    return Ok(Found { read, table: None });
                }
                Err(error) => match *error {
                    RecvError::PeerCorrupt { .. } => self.note_ended(receiver),
                    RecvError::Lagged { ref source_node, .. } => self.lose_answer(receiver, source_node),
                    RecvError::Unattached { .. } | RecvError::Decode { .. } => {}
                    error => {
                        return match own {
                            None => Err(Status::unavailable(error.to_string())),
                            Some(_) => Ok(Found { read, table: None }),
                        };
                    }
                },
            }
            read += 1;
            if read == BATCH {
                self.note_ended(receiver); // though another server's answers go on and on
                return Ok(Found { read, table: None });
            }
            looked = receiver.inlet.next();
        }
    }

    #[inline]
    fn note_ended(&self, receiver: &mut Receiver) {
        if receiver.inlet.has_ended() {
            for source in receiver.inlet.take_ended() {
                if let Some(route) = source.route {
                    self.routes.calls.ended(route);
                }
            }
        }
    }

    /// An answer was passed over: whose, only its head could have told. Calls that wait for none would wait for ever.
    #[cold]
    fn lose_answer(&self, receiver: &mut Receiver, server: &NodeInfo) {
        let lost = receiver.inlet.take_lost();
        if let Some(route) = lost.and_then(|index| receiver.inlet.source(index).route) {
            let status = Status::resource_exhausted(format!(
                "server {server}: an answer could not be taken here: {SHORTAGE}"
            ));
            self.routes.calls.fail(route, &status);
        }
    }

    #[cold]
    fn not_an_answer<T>(&self, source: &Source, reason: &str) -> Option<T> {
        if let Some(times) = source.origin.misplaced.again() {
            let server = &source.origin.node;
            tracing::warn!(service = %self.name, %server, %reason, times, "no answer: passed over");
        }
        None
    }

    /// Takes one answer: the leader's own goes to `own`, and the table that no longer has the call is returned;
    /// another's goes to whoever waits for it.
    #[inline]
    fn take<'a>(
        &'a self,
        receiver: &mut Receiver,
        index: usize,
        mine: Mine,
        own: &mut Option<Outcome>,
    ) -> Option<Locked<'a>> {
        let Receiver { inlet, copy } = receiver;
        let source = inlet.source(index);
        let &Record { kind, len, .. } = source.reader.in_hand()?;
        let len = len as usize;
        let prefix = copy_prefix(source, len, copy);
        // Nearly always what a leader waits for, and with a plain head: put where it is going to be used, not moved about
        // (see `Intake::take`).
        if let Mine::Call { id, raw: false } = mine
            && let Some((found, span)) = frame::plain_response(prefix, len)
            && found == id
            && kind != Kind::Blob
            && len <= PREFIX
            && !span.compressed
        {
            let route = source.route;
            let origin = Held::of(&source.origin);
            let payload = Payload::copied(&span, copy);
            inlet.release(index);
            let mut table = self.routes.calls.lock();
            if !route.is_some_and(|route| table.settle(id, route)) {
                inlet.counters().drop(1);
                return None;
            }
            inlet.counters().message(span.len);
            let (code, message, headers, encoding) = (Code::Ok, None, Headers::default(), span.encoding);
            *own = Some(Ok(Answer { id, origin, code, message, headers, encoding, payload }));
            return Some(table);
        }
        self.take_any(receiver, index, (kind, len), mine, own)
    }

    /// The same for any answer.
    #[inline(never)]
    fn take_any<'a>(
        &'a self,
        receiver: &mut Receiver,
        index: usize,
        (kind, len): (Kind, usize),
        mine: Mine,
        own: &mut Option<Outcome>,
    ) -> Option<Locked<'a>> {
        let Receiver { inlet, copy } = receiver;
        let calls = &self.routes.calls;
        let source = inlet.source(index);
        let route = source.route;
        let mut is_own = false;
        let mut lost = None;
        let answer = with_head(source, len, copy, |found| match found {
            Ok(Incoming::Message(Head::Response { id: NO_CALL, status, message, .. }, _))
                if status != Code::Ok =>
            {
                lost = Some(Status::new(status, message.unwrap_or_default()));
                None
            }
            Ok(Incoming::Message(Head::Response { id, status, message, headers }, span)) => {
                let message = message.filter(|_| status != Code::Ok).map(Box::from);
                let raw = match mine {
                    // Whether it wants this answer is looked at when the table is locked to take it out.
                    Mine::Call { id: mine, raw } if mine == id => {
                        is_own = true;
                        raw
                    }
                    _ => calls.lock().wants(id, route?)?,
                };
                Some((id, status, message, headers.into(), span, raw))
            }
            Ok(Incoming::Message(head, _)) => {
                self.not_an_answer(source, &format!("a frame of kind {:?}", head.kind()))
            }
            Ok(Incoming::Cancel(_)) => self.not_an_answer(source, "a frame of kind Cancel"),
            Err(reason) => self.not_an_answer(source, &reason),
        });
        let Some((id, code, message, headers, span, raw)) = answer else {
            // Nobody waits for it any more, or it is no answer.
            inlet.counters().drop(1);
            inlet.release(index);
            if let (Some(status), Some(route)) = (lost, route) {
                calls.fail(route, &status);
            }
            return None;
        };
        let place = raw.then(|| Place { node: &self.node, reader: &self.port, port: self.keeper() });
        let source = inlet.source_mut(index);
        let (limit, is_large) = (self.limits.max_message, kind == Kind::Blob);
        let mut outcome = if span.compressed {
            Err(Status::unimplemented("the answer is compressed, which this version does not read"))
        } else if is_large && span.len as u64 > limit {
            Err(Status::resource_exhausted(format!(
                "an answer of {} bytes, but the client takes {limit}: raise its `max_message`",
                span.len
            )))
        } else {
            let (origin, encoding) = (Held::of(&source.origin), span.encoding);
            let payload = Payload::take(source, kind, &span, place);
            payload.map(|payload| Answer { id, origin, code, message, headers, encoding, payload })
        };
        inlet.release(index);
        if is_own {
            let mut table = calls.lock();
            if route.is_some_and(|route| table.settle(id, route)) {
                inlet.counters().message(span.len);
                *own = Some(outcome);
                return Some(table);
            }
            drop(table);
            inlet.counters().drop(1);
            return None;
        }
        inlet.counters().message(span.len);
        if let Ok(Answer { payload: payload @ Payload::Copied { .. }, .. }) = &mut outcome {
            payload.detach();
        }
        let mut table = calls.lock();
        let wake = table.end(id, outcome);
        drop(table);
        if let Some(wake) = wake {
            wake.wake();
        }
        None
    }
}
