//! What a service answers.

use std::fmt;
use std::time::SystemTime;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bus::client::RawResponse;
use crate::bus::codec;
use crate::bus::held::Held;
use crate::bus::message::Headers;
use crate::bus::peer::NodeInfo;
use crate::bus::status::Status;
use crate::frame::Encoding;

/// A result, encoded, and what goes along; it owns all it holds, and cloning copies the payload.
///
/// # Examples
/// ```
/// use ringbus::tower::Response;
///
/// let response = Response::new(&5)?.with_header("cache", "hit");
/// assert_eq!((response.decode::<i64>()?, response.headers().get("cache")), (5, Some("hit")));
/// # Ok::<(), ringbus::Status>(())
/// ```
#[derive(Clone)]
pub struct Response {
    pub(in crate::bus) encoding: Encoding,
    pub(in crate::bus) payload: Vec<u8>,
    pub(in crate::bus) headers: Headers,
    came: Option<Came>,
}

/// What is known of the answer of a server.
#[derive(Clone)]
struct Came {
    origin: Held,
    id: u64,
    time: Option<SystemTime>,
    correlation: Option<String>,
}

impl Response {
    /// A result of any serde type, as MessagePack with field names.
    ///
    /// # Errors
    /// `Internal`: it cannot be encoded.
    pub fn new(result: &(impl Serialize + ?Sized)) -> Result<Self, Status> {
        let payload = codec::encode(result)
            .map_err(|reason| Status::internal(format!("the answer cannot be encoded: {reason}")))?;
        Ok(Self { encoding: Encoding::MessagePack, payload, headers: Headers::default(), came: None })
    }

    /// A result that is bytes.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { encoding: Encoding::Raw, payload: bytes.into(), headers: Headers::default(), came: None }
    }

    pub(in crate::bus) fn of_call(answer: &RawResponse) -> Self {
        Self {
            encoding: answer.encoding(),
            payload: answer.to_vec(),
            headers: answer.headers().to_pass_on(),
            came: Some(Came {
                origin: answer.origin().clone(),
                id: answer.id(),
                time: answer.timestamp(),
                correlation: answer.correlation().map(str::to_owned),
            }),
        }
    }

    /// Adds a header: at most 64 of them, 16 KiB together.
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push(name.into(), value.into());
        self
    }

    /// The result.
    ///
    /// # Errors
    /// `Internal`: it is of another type, or bytes.
    pub fn decode<R: DeserializeOwned>(&self) -> Result<R, Status> {
        codec::decode_as(self.encoding, &self.payload)
            .map_err(|reason| Status::internal(format!("the answer is another type: {reason}")))
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

    /// The server's node, if this is the answer of one.
    pub fn source(&self) -> Option<&NodeInfo> {
        self.came.as_ref().map(|came| &came.origin.node)
    }

    /// The node that called, if this is the answer of a server.
    pub fn destination(&self) -> Option<&NodeInfo> {
        self.came.as_ref().map(|came| &came.origin.reader)
    }

    /// Number of the call that this answers, unique among those of its client, if this is the answer of a server.
    pub fn id(&self) -> Option<u64> {
        self.came.as_ref().map(|came| came.id)
    }

    /// The priority of the server's port, if this is the answer of one.
    pub fn priority(&self) -> Option<u8> {
        self.came.as_ref().map(|came| came.origin.priority)
    }

    /// When the answer was written, if this is that of a server that says so.
    pub fn timestamp(&self) -> Option<SystemTime> {
        self.came.as_ref()?.time
    }

    /// What the answer belongs to: what the request did, if this is the answer of a server. One that is served gets
    /// that of its own request, whatever this says.
    pub fn correlation(&self) -> Option<&str> {
        self.came.as_ref()?.correlation.as_deref()
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("len", &self.payload.len())
            .field("source", &self.source())
            .finish_non_exhaustive()
    }
}
