//! Handlers, typed and raw, behind one face.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::{Bytes, Context, Reply};
use super::pair::Outgoing;
use crate::bus::codec::{self, Body, Value};
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
        // Decoding runs code of the arguments' type, which may panic as well as a handler.
        let result = guard(|| {
            let arguments = codec::decode_as(context.encoding, payload).map_err(|reason| {
                Status::invalid_argument(format!("arguments of {service}.{}: {reason}", context.method()))
            })?;
            (self.handler)(context, arguments)
        });
        answer(context, result.as_ref().map(|value| Value { value, compact: false }), Encoding::MessagePack);
        unwind::discard(result);
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
        let bytes = match result {
            Ok(Reply(Bytes::Owned(bytes))) => Ok(Some(bytes)),
            Ok(Reply(Bytes::Loan(loan))) => loan.send(context),
            Err(status) => Err(status),
        };
        match bytes {
            Ok(None) => {}
            Ok(Some(bytes)) => answer(context, Ok(codec::Bytes(&bytes)), Encoding::Raw),
            Err(status) => answer(context, Err::<codec::Bytes<'_>, _>(&status), Encoding::Raw),
        }
    }
}

/// Runs a handler: its panic ends the call, not the server.
pub(super) fn guard<T>(handler: impl FnOnce() -> Result<T, Status>) -> Result<T, Status> {
    unwind::catch(handler).unwrap_or_else(|why| {
        tracing::error!(%why, "handler panicked");
        Err(Status::internal(format!("the handler panicked: {why}")))
    })
}

pub(super) fn answer(context: &Context, result: Result<impl Body, &Status>, encoding: Encoding) {
    let mut room = Digits::default();
    let (headers, bad) = match context.reply_headers(&mut room) {
        Ok(headers) => (headers, None),
        Err(status) => (Vec::new(), Some(status)),
    };
    let written = match (result, bad) {
        // A value's own serialisation may panic, too.
        (Ok(body), None) => {
            guard(|| context.pair.answer(&Outgoing { id: context.id, headers: &headers, encoding, body }))
        }
        (Ok(_), Some(bad)) => Err(bad),
        (Err(status), _) => Err(status.clone()),
    };
    if let Err(status) = written {
        tracing::debug!(method = %context.method(), %status, "call failed");
        context.pair.fail(context.id, &status, &headers);
    }
}
