//! What a service is asked.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bus::codec;
use crate::bus::message::Headers;
use crate::bus::peer::NodeInfo;
use crate::bus::status::Status;
use crate::control::NodeId;
use crate::frame::Encoding;

/// A call: its method, its encoded arguments, and what goes along. It is a client's to send, or came from one, and
/// owns all it holds; cloning copies the payload.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use ringbus::tower::Request;
///
/// let request = Request::new("add", &(2, 3))?
///     .with_timeout(Duration::from_millis(200))
///     .with_header("traceparent", "00-4bf9…");
/// assert_eq!(request.decode::<(i64, i64)>()?, (2, 3));
/// # Ok::<(), ringbus::Status>(())
/// ```
#[derive(Clone)]
pub struct Request {
    pub(in crate::bus) method: Arc<str>,
    pub(in crate::bus) encoding: Encoding,
    pub(in crate::bus) payload: Vec<u8>,
    pub(in crate::bus) headers: Headers,
    pub(in crate::bus) correlation: Option<String>,
    /// To be sent with the time.
    pub(in crate::bus) timestamp: bool,
    pub(in crate::bus) limit: Limit,
    pub(in crate::bus) to: Option<NodeId>,
    pub(in crate::bus) came: Option<Came>,
}

/// What is known of a request that came from a caller.
#[derive(Clone)]
pub(in crate::bus) struct Came {
    pub(in crate::bus) peer: NodeInfo,
    pub(in crate::bus) id: u64,
    pub(in crate::bus) time: Option<SystemTime>,
    pub(in crate::bus) priority: u8,
}

/// How long a call may take.
#[derive(Clone, Copy)]
pub(in crate::bus) enum Limit {
    /// As long as the client says that sends it.
    Client,
    /// From when it is sent.
    After(Duration),
    /// Until whoever asked first gives up.
    At(Instant),
}

impl Limit {
    /// `None`: for ever.
    pub(in crate::bus) fn until(deadline: Option<Instant>) -> Self {
        deadline.map_or(Limit::After(Duration::MAX), Limit::At)
    }
}

impl Request {
    /// A call with arguments of any serde type, as MessagePack with field names. A method that takes several
    /// arguments takes a tuple of them.
    ///
    /// # Errors
    /// `InvalidArgument`: the arguments cannot be encoded.
    pub fn new(method: &str, arguments: &(impl Serialize + ?Sized)) -> Result<Self, Status> {
        let encoded = codec::encode(arguments).map_err(|reason| {
            Status::invalid_argument(format!("arguments of {method} cannot be encoded: {reason}"))
        })?;
        Ok(Self::with_payload(method, Encoding::MessagePack, encoded))
    }

    /// A call with bytes, for a raw method.
    pub fn raw(method: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self::with_payload(method, Encoding::Raw, bytes.into())
    }

    pub(in crate::bus) fn with_payload(
        method: impl Into<Arc<str>>,
        encoding: Encoding,
        payload: Vec<u8>,
    ) -> Self {
        let (method, headers) = (method.into(), Headers::default());
        Self {
            method,
            encoding,
            payload,
            headers,
            correlation: None,
            timestamp: false,
            limit: Limit::Client,
            to: None,
            came: None,
        }
    }

    /// How long the call may take, instead of the client's timeout; [`Duration::MAX`]: for ever. Of a request that
    /// came from a caller it replaces what is left of that one's.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.limit = Limit::After(timeout);
        self
    }

    /// Adds a header: at most 64 of them, 16 KiB together. Names that begin with `@` are the bus's own.
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push(name.into(), value.into());
        self
    }

    /// Says what the request belongs to: a conversation, a task. Nothing is done with it but to hand it over.
    pub fn with_correlation(mut self, id: impl Into<String>) -> Self {
        self.correlation = Some(id.into());
        self
    }

    /// Sends the time along, by the wall clock of this host.
    pub fn with_timestamp(mut self) -> Self {
        self.timestamp = true;
        self
    }

    /// Calls the server on this node, whoever's turn it is: a [`NodeId`], or what has one.
    pub fn to(mut self, node: impl Into<NodeId>) -> Self {
        self.to = Some(node.into());
        self
    }

    /// The method that is called.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The arguments.
    ///
    /// # Errors
    /// `InvalidArgument`: they are of another type, or bytes.
    pub fn decode<A: DeserializeOwned>(&self) -> Result<A, Status> {
        codec::decode_as(self.encoding, &self.payload)
            .map_err(|reason| Status::invalid_argument(format!("arguments of {}: {reason}", self.method)))
    }

    /// The payload, as it is encoded.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The payload alone, as it is encoded.
    pub fn into_payload(self) -> Vec<u8> {
        self.payload
    }

    /// How the payload is encoded.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The headers.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// What the request belongs to, if its sender says so.
    pub fn correlation(&self) -> Option<&str> {
        self.correlation.as_deref()
    }

    /// How long the call may take from now on: of one that came from a caller, how long that one still waits.
    /// `None`: as long as the client says that sends it. [`Duration::MAX`]: for ever.
    pub fn timeout(&self) -> Option<Duration> {
        match self.limit {
            Limit::Client => None,
            Limit::After(timeout) => Some(timeout),
            Limit::At(deadline) => Some(deadline.saturating_duration_since(Instant::now())),
        }
    }

    /// The node that calls, if this came from one.
    pub fn peer(&self) -> Option<&NodeInfo> {
        self.came.as_ref().map(|came| &came.peer)
    }

    /// Number of the call, unique among those of its client, if this came from one.
    pub fn id(&self) -> Option<u64> {
        self.came.as_ref().map(|came| came.id)
    }

    /// The priority of the client's port, if this came from one.
    pub fn priority(&self) -> Option<u8> {
        self.came.as_ref().map(|came| came.priority)
    }

    /// When the request was written, if this came from a client that says so.
    pub fn timestamp(&self) -> Option<SystemTime> {
        self.came.as_ref()?.time
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("len", &self.payload.len())
            .field("peer", &self.peer())
            .finish_non_exhaustive()
    }
}
