//! Handlers, typed and raw, behind one face.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::{Bytes, Context, Reply, ReplyLoan};
use crate::bus::codec::{self, Body, DecodeError, Value};
use crate::bus::metadata::Digits;
use crate::bus::status::Status;
use crate::bus::unwind;
use crate::frame::Encoding;

/// A method's handler. Answers the call itself, with whatever comes of it.
pub(super) trait Method: Send + Sync {
    /// Whether it wants its payload in place.
    fn is_raw(&self) -> bool;

    fn run(&self, context: &mut Context, service: &str, payload: &[u8]);
}

impl fmt::Debug for dyn Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_raw() { "raw" } else { "typed" })
    }
}

pub(super) struct Typed<F, A> {
    handler: F,
    arguments: PhantomData<fn(A)>,
}

impl<F, A> Typed<F, A> {
    pub(super) fn new(handler: F) -> Self {
        Self { handler, arguments: PhantomData }
    }
}

impl<F, A, R> Method for Typed<F, A>
where
    F: Fn(&mut Context, A) -> Result<R, Status> + Send + Sync,
    A: DeserializeOwned,
    R: Serialize,
{
    fn is_raw(&self) -> bool {
        false
    }

    fn run(&self, context: &mut Context, service: &str, payload: &[u8]) {
        let mut value = None; // outside: where its serialisation panics, and then its drop, that is no abort
        // One guard around decoding, the handler and serialising, all of which run a user's code.
        let ended = guard(|| {
            let arguments = match codec::decode_as(context.encoding, payload) {
                Ok(arguments) => arguments,
                Err(reason) => return Err(undecodable(context, service, &reason)),
            };
            let value = value.insert((self.handler)(context, arguments)?);
            reply(context, Encoding::MessagePack, &Value { value: &*value, compact: false })
        });
        if let Err(status) = ended {
            refuse(context, &status);
        }
        unwind::discard(value);
    }
}

pub(super) struct Raw<F>(pub(super) F);

impl<F, R> Method for Raw<F>
where
    F: Fn(&mut Context, &[u8]) -> Result<R, Status> + Send + Sync,
    R: Into<Reply>,
{
    fn is_raw(&self) -> bool {
        true
    }

    fn run(&self, context: &mut Context, _: &str, payload: &[u8]) {
        let result = guard(|| (self.0)(context, payload).map(Into::into));
        let sent = match result {
            Ok(Reply(Bytes::Owned(bytes))) => reply(context, Encoding::Raw, &codec::Bytes(&bytes)),
            Ok(Reply(Bytes::Loan(loan))) => reply_lent(context, loan),
            Err(status) => Err(status),
        };
        if let Err(status) = sent {
            refuse(context, &status);
        }
    }
}

#[cold]
fn undecodable(context: &Context, service: &str, reason: &DecodeError) -> Status {
    Status::invalid_argument(format!("arguments of {service}.{}: {reason}", context.method()))
}

/// Runs a handler: its panic ends the call, not the server.
pub(super) fn guard<T>(handler: impl FnOnce() -> Result<T, Status>) -> Result<T, Status> {
    unwind::catch(handler).unwrap_or_else(|why| {
        tracing::error!(%why, "handler panicked");
        Err(Status::internal(format!("the handler panicked: {why}")))
    })
}

/// Answers with bytes.
#[cfg(feature = "tower")]
pub(super) fn answer(context: &Context, encoding: Encoding, bytes: &[u8]) {
    if let Err(status) = reply(context, encoding, &codec::Bytes(bytes)) {
        refuse(context, &status);
    }
}

/// Answers with a result.
///
/// # Errors
/// Why that cannot be sent; the call has no answer yet.
#[inline]
fn reply(context: &Context, encoding: Encoding, body: &impl Body) -> Result<(), Status> {
    let mut room = Digits::default();
    let headers = context.reply_headers(&mut room)?;
    context.pair.answer(context.id, context.deadline_ns, &headers, encoding, body)
}

/// Answers with what was lent.
///
/// # Errors
/// Those of [`reply`].
fn reply_lent(context: &Context, loan: ReplyLoan) -> Result<(), Status> {
    let Some(private) = loan.send(context)? else { return Ok(()) };
    let mut room = Digits::default();
    let headers = context.reply_headers(&mut room)?;
    context.pair.answer_aligned(context.id, context.deadline_ns, &headers, private.bytes())
}

/// Answers with a status.
#[cold]
pub(super) fn refuse(context: &Context, status: &Status) {
    tracing::debug!(method = %context.method(), %status, "call failed");
    let mut room = Digits::default();
    let headers = context.reply_headers(&mut room).unwrap_or_default();
    context.pair.fail(context.id, status, &headers);
}
