//! How a call failed.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec;
use super::error::{PublishError, SendError, room_for};
use crate::frame::{Code, MAX_STRING};

/// Why a call failed: one of the status codes of gRPC, a message for people, and details for programs.
///
/// Handlers return it, and callers get it: from the server, or from the bus itself ([`Code::NotFound`]: nobody
/// serves; [`Code::Unavailable`]: the server died; [`Code::DeadlineExceeded`], …).
///
/// # Examples
/// ```
/// use ringbus::{Code, Status};
///
/// let status = Status::not_found("no such task").with_details(&("task", 42));
/// assert_eq!(status.code(), Code::NotFound);
/// assert_eq!(status.details::<(String, u32)>(), Some(("task".to_owned(), 42)));
/// assert_eq!(status.to_string(), "not found: no such task");
/// ```
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub struct Status(Box<Parts>);

/// On the heap: results of calls, which mostly succeed, are to fit in registers.
#[derive(Clone, PartialEq, Eq)]
struct Parts {
    code: Code,
    message: String,
    /// MessagePack; empty where there are none.
    details: Vec<u8>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.code)?;
        if self.0.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.0.message) }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Status");
        shown.field("code", &self.0.code).field("message", &self.0.message);
        if !self.0.details.is_empty() {
            shown.field("details", &format_args!("{} bytes", self.0.details.len()));
        }
        shown.finish()
    }
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident = $code:ident;)*) => {
        $($(#[$doc])*
        pub fn $name(message: impl Into<String>) -> Self {
            Self::new(Code::$code, message)
        })*
    };
}

impl Status {
    /// A status of this code. The message has at most 4096 bytes; more is cut off.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MAX_STRING));
        Self(Box::new(Parts { code, message, details: Vec::new() }))
    }

    constructors! {
        /// [`Code::Cancelled`]: the caller gave up.
        cancelled = Cancelled;
        /// [`Code::Unknown`]: an error that fits no other code.
        unknown = Unknown;
        /// [`Code::InvalidArgument`]: the arguments are wrong whatever the server's state.
        invalid_argument = InvalidArgument;
        /// [`Code::DeadlineExceeded`]: the deadline passed before the call ended.
        deadline_exceeded = DeadlineExceeded;
        /// [`Code::NotFound`]: what was asked for does not exist.
        not_found = NotFound;
        /// [`Code::AlreadyExists`]: what was to be made exists already.
        already_exists = AlreadyExists;
        /// [`Code::PermissionDenied`]: the caller is known and may not do this.
        permission_denied = PermissionDenied;
        /// [`Code::ResourceExhausted`]: a quota, a queue or memory is used up.
        resource_exhausted = ResourceExhausted;
        /// [`Code::FailedPrecondition`]: the server's state must change before the call can succeed.
        failed_precondition = FailedPrecondition;
        /// [`Code::Aborted`]: a conflict with a concurrent call; try again one level up.
        aborted = Aborted;
        /// [`Code::OutOfRange`]: past the end of a valid range.
        out_of_range = OutOfRange;
        /// [`Code::Unimplemented`]: the server has no such method.
        unimplemented = Unimplemented;
        /// [`Code::Internal`]: the server broke an invariant of its own.
        internal = Internal;
        /// [`Code::Unavailable`]: no server can be reached just now; try again.
        unavailable = Unavailable;
        /// [`Code::DataLoss`]: data was lost or damaged.
        data_loss = DataLoss;
        /// [`Code::Unauthenticated`]: the caller is not known.
        unauthenticated = Unauthenticated;
    }

    /// Adds details: a value that the caller's program can read. One that cannot be serialised is left out, and
    /// the message says so.
    pub fn with_details(mut self, details: &(impl Serialize + ?Sized)) -> Self {
        match codec::encode(details) {
            Ok(bytes) => self.0.details = bytes,
            Err(reason) => {
                let message = format!("{} (its details cannot be encoded: {reason})", self.0.message);
                return Self::new(self.0.code, message);
            }
        }
        self
    }

    /// A peer's; without the details if there is no memory for them.
    pub(super) fn from_wire(code: Code, message: &str, details: &[u8]) -> Self {
        let mut kept = Vec::new();
        if kept.try_reserve_exact(details.len()).is_ok() {
            kept.extend_from_slice(details);
        }
        Self(Box::new(Parts { code, message: message.to_owned(), details: kept }))
    }

    /// Which kind of failure.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// What went wrong, in words; may be empty.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The details, if there are any and they are such a value.
    pub fn details<T: DeserializeOwned>(&self) -> Option<T> {
        if self.0.details.is_empty() { None } else { codec::decode(&self.0.details).ok() }
    }

    pub(super) fn details_bytes(&self) -> &[u8] {
        &self.0.details
    }

    /// What went wrong before the request was written, or with the answer.
    pub(super) fn from_publish(what: &str, error: PublishError) -> Self {
        match error {
            PublishError::TooLarge { size, limit } => Self::resource_exhausted(format!(
                "{what} of {size} bytes is too large, {limit} can be sent: {}",
                room_for(size, limit)
            )),
            PublishError::Memory { .. } => Self::resource_exhausted(format!("{what}: {error}")),
            PublishError::Encode { reason } => {
                Self::invalid_argument(format!("{what} cannot be encoded: {reason}"))
            }
            PublishError::Headers { .. } => Self::invalid_argument(format!("{what}: {error}")),
            PublishError::Forked => Self::failed_precondition(error.to_string()),
            PublishError::Draining => Self::unavailable(error.to_string()),
            error => Self::internal(format!("{what}: {error}")),
        }
    }
}

/// For handlers that publish: it is no fault of their callers. What has no room is `ResourceExhausted`, what a node that drains
/// refuses `Unavailable`, all else `Internal`.
///
/// # Examples
/// ```
/// # let node = ringbus::Bus::private()?.join("worker")?;
/// # use std::sync::Mutex;
/// let progress = Mutex::new(node.publisher::<f64>("task/progress")?);
/// let server = node.service("task").method("begin", move |_ctx, ()| {
///     progress.lock().unwrap().publish(&0.0)?;
///     Ok(())
/// }).spawn()?;
/// # Ok::<(), ringbus::Error>(())
/// ```
impl From<PublishError> for Status {
    fn from(error: PublishError) -> Self {
        let code = match &error {
            PublishError::Full { .. } | PublishError::Memory { .. } | PublishError::TooLarge { .. } => {
                Code::ResourceExhausted
            }
            PublishError::Draining => Code::Unavailable,
            _ => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

/// The same of direct messages and broadcasts.
impl From<SendError> for Status {
    fn from(error: SendError) -> Self {
        let code = match &error {
            SendError::Full { .. } | SendError::Memory { .. } | SendError::TooLarge { .. } => {
                Code::ResourceExhausted
            }
            SendError::Draining => Code::Unavailable,
            _ => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_a_handler_cannot_publish_is_no_fault_of_its_caller() {
        let full = || PublishError::Full { reader: "r".into(), lag: 7, waited: Duration::ZERO };
        let cases: [(Status, Code); 4] = [
            (full().into(), Code::ResourceExhausted),
            (SendError::from(full()).into(), Code::ResourceExhausted),
            (PublishError::Draining.into(), Code::Unavailable),
            (PublishError::Encode { reason: "why".into() }.into(), Code::Internal),
        ];
        for (status, code) in cases {
            assert_eq!(status.code(), code, "{status}");
        }
        assert!(Status::from(full()).message().contains("subscriber r is 7 bytes behind: make it faster"));
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let status = Status::internal("é".repeat(MAX_STRING));
        assert_eq!(status.message().len(), MAX_STRING);
        assert_eq!(Status::internal(format!("x{}", "é".repeat(MAX_STRING))).message().len(), MAX_STRING - 1);
    }

    #[test]
    fn details_are_another_type_or_none_without_an_error() {
        let status = Status::aborted("").with_details(&7u32);
        assert_eq!(status.details::<String>(), None);
        assert_eq!(status.details::<u32>(), Some(7));
        assert_eq!(Status::aborted("").details::<u32>(), None);
        assert_eq!(Status::aborted("").to_string(), "aborted");
    }

    #[test]
    fn debug_says_how_long_the_details_are_instead_of_their_bytes() {
        let status = Status::aborted("no").with_details(&[300u32; 3]);
        assert_eq!(format!("{status:?}"), r#"Status { code: Aborted, message: "no", details: 10 bytes }"#);
        assert_eq!(format!("{:?}", Status::aborted("")), r#"Status { code: Aborted, message: "" }"#);
    }
}
