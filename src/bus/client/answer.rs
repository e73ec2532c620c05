//! What a call gives: the answer's envelope, and its payload in private memory or in place.

use std::fmt;
use std::ops::Deref;

use serde::de::DeserializeOwned;

use crate::bus::codec::{self, DecodeError};
use crate::bus::held::Held;
use crate::bus::message::Headers;
use crate::bus::payload::Payload;
use crate::bus::peer::NodeInfo;
use crate::bus::status::Status;
use crate::frame::{Code, Encoding};

/// An answer to a request, successful or not. It stays where it was put until its parts are taken out of it.
pub(super) struct Answer {
    pub(super) id: u64,
    pub(super) origin: Held,
    pub(super) code: Code,
    pub(super) message: Option<Box<str>>,
    pub(super) headers: Headers,
    pub(super) encoding: Encoding,
    pub(super) payload: Payload,
}

impl Answer {
    /// Whether the call succeeded.
    ///
    /// # Errors
    /// What it failed with.
    #[inline]
    pub(super) fn check(&self) -> Result<(), Status> {
        match self.code {
            Code::Ok => Ok(()),
            code => Err(Status::from_wire(code, self.message.as_deref().unwrap_or_default(), &self.payload)),
        }
    }
}

/// What a call can give: a [`Response`] or a [`RawResponse`].
pub trait FromAnswer: Sized + sealed::Sealed {}

mod sealed {
    use super::{Answer, Status};

    pub trait Sealed: Sized {
        /// Whether the payload is wanted in place.
        const RAW: bool;

        #[allow(private_interfaces)] // called by the client alone
        fn from_answer(answer: &mut Answer, service: &str, method: &str) -> Result<Self, Status>;
    }
}

pub(super) use sealed::Sealed;

macro_rules! about {
    () => {
        /// The server's node.
        pub fn source(&self) -> &NodeInfo {
            &self.origin.node
        }

        /// The node that called, which is this one.
        pub fn destination(&self) -> &NodeInfo {
            &self.origin.reader
        }

        /// The priority of the server's port.
        pub fn priority(&self) -> u8 {
            self.origin.priority
        }

        /// Number of the call, unique among those of its client: what the server knows it by.
        pub fn id(&self) -> u64 {
            self.id
        }

        /// When the answer was written, if the server says so
        /// ([`ServiceBuilder::timestamps`](crate::ServiceBuilder::timestamps)).
        pub fn timestamp(&self) -> Option<std::time::SystemTime> {
            self.headers.timestamp()
        }

        /// What the answer belongs to: what the request did, if its caller said so
        /// ([`Request::correlation`](crate::Request::correlation)).
        pub fn correlation(&self) -> Option<&str> {
            self.headers.correlation()
        }

        /// Headers that the server added.
        pub fn headers(&self) -> &Headers {
            &self.headers
        }
    };
}

/// A call's result, with what came along; dereferences to it.
pub struct Response<T> {
    id: u64,
    origin: Held,
    headers: Headers,
    value: T,
}

impl<T> Response<T> {
    about!();

    /// The result alone.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> Deref for Response<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Response<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("source", self.source()).field("value", &self.value).finish()
    }
}

impl<T: DeserializeOwned> FromAnswer for Response<T> {}

impl<T: DeserializeOwned> Sealed for Response<T> {
    const RAW: bool = false;

    #[allow(private_interfaces)]
    #[inline]
    fn from_answer(answer: &mut Answer, service: &str, method: &str) -> Result<Self, Status> {
        let value = decode(answer, service, method)?;
        let headers = std::mem::take(&mut answer.headers);
        Ok(Self { id: answer.id, origin: answer.origin.take(), headers, value })
    }
}

/// A call's result, and nothing that came along.
pub(super) struct Alone<T>(pub(super) T);

impl<T: DeserializeOwned> FromAnswer for Alone<T> {}

impl<T: DeserializeOwned> Sealed for Alone<T> {
    const RAW: bool = false;

    #[inline]
    fn from_answer(answer: &mut Answer, service: &str, method: &str) -> Result<Self, Status> {
        decode(answer, service, method).map(Self)
    }
}

#[inline(always)]
fn decode<T: DeserializeOwned>(answer: &Answer, service: &str, method: &str) -> Result<T, Status> {
    answer.check()?;
    if answer.encoding != Encoding::MessagePack {
        return Err(Status::internal(format!(
            "the answer of {service}.{method} is {:?}, not MessagePack: call it with `send_raw`",
            answer.encoding
        )));
    }
    match codec::decode(&answer.payload) {
        Ok(value) => Ok(value),
        Err(reason) => Err(another_type(service, method, &reason)),
    }
}

#[cold]
fn another_type(service: &str, method: &str, reason: &DecodeError) -> Status {
    Status::internal(format!("the answer of {service}.{method} is another type: {reason}"))
}

/// A call's result as bytes, read where the server has put them (unless [`Trust`](crate::Trust) forbids, or
/// nobody waited for them yet when they came); dereferences to them. The server cannot reuse their room before
/// this is dropped: copy what you keep.
pub struct RawResponse {
    id: u64,
    origin: Held,
    headers: Headers,
    encoding: Encoding,
    payload: Payload,
}

impl RawResponse {
    about!();

    #[cfg(feature = "tower")]
    pub(in crate::bus) fn origin(&self) -> &Held {
        &self.origin
    }

    /// How the bytes are encoded.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }
}

impl Deref for RawResponse {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.payload
    }
}

impl fmt::Debug for RawResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawResponse").field("source", self.source()).field("len", &self.len()).finish()
    }
}

impl FromAnswer for RawResponse {}

impl Sealed for RawResponse {
    const RAW: bool = true;

    #[allow(private_interfaces)]
    fn from_answer(answer: &mut Answer, _: &str, _: &str) -> Result<Self, Status> {
        answer.check()?;
        let headers = std::mem::take(&mut answer.headers);
        let payload = std::mem::take(&mut answer.payload);
        Ok(Self { id: answer.id, origin: answer.origin.take(), headers, encoding: answer.encoding, payload })
    }
}
