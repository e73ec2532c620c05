//! One error a kind of operation, each saying what to do.

use std::io;
use std::time::Duration;

use super::access::AccessError;
use super::blob::{LARGEST, SMALLEST};
use super::drain::DrainError;
use super::peer::NodeInfo;
use super::status::Status;
use super::topic::TopicError;
use crate::control::DirectoryError;
use crate::frame::MAX_HEADER_BYTES;
use crate::ring::Corrupt;
use crate::sys::limits;

/// What a port needs for a payload of so many bytes, which was too large for it: it takes `limit` beside this head.
pub(super) fn room_for(size: usize, limit: usize) -> String {
    // Beside a long head, the power of two may be too little.
    let blob = (size as u64).max(SMALLEST).checked_next_power_of_two();
    let is_tight = |blob: &u64| limit as u64 >= blob.saturating_sub(MAX_HEADER_BYTES as u64);
    let blob = blob.map(|blob| if is_tight(&blob) { blob.saturating_mul(2) } else { blob });
    match blob.filter(|blob| *blob <= LARGEST) {
        Some(blob) => format!(
            "raise `max_message` to {size} and `blob_memory` to {blob}, where they are less, or send it in pieces"
        ),
        None => "send it in pieces".into(),
    }
}

/// Any error of this crate, for `?` in a program that does not tell them apart.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A bus could not be opened.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A node could not join.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// A port could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A message could not be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A direct message or a broadcast could not be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// A message could not be received.
    #[error(transparent)]
    Recv(#[from] RecvError),
    /// What was waited for did not come.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// A node did not drain.
    #[error(transparent)]
    Drain(#[from] DrainError),
    /// A call failed.
    #[error("call failed: {0}")]
    Call(#[from] Status),
}

/// Why a bus could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The name cannot be a bus's.
    #[error(transparent)]
    Name(#[from] TopicError),
    /// Its directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// There is no such group on this host.
    #[error("no group {name:?} on this host: name one that `getent group` lists")]
    Group {
        /// The group asked for.
        name: String,
    },
    /// Its access list is not valid.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The operating system refused something else.
    #[error("cannot {what}: {source}{}", limits::advice(.source))]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Why a node could not join its bus.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The name cannot be a node's.
    #[error(transparent)]
    Name(#[from] TopicError),
    /// The bus's directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The operating system refused something else.
    #[error("cannot {what}: {source}{}", limits::advice(.source))]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The topic or filter is not valid.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The capacity cannot be a log's.
    #[error("capacity {capacity} is not a power of two from 4 KiB to 4 GiB")]
    Capacity {
        /// What was asked for, in bytes.
        capacity: u64,
    },
    /// A service has two methods of one name.
    #[error("method {method:?} is there twice: give each method of a service one handler")]
    MethodTwice {
        /// Its name.
        method: String,
    },
    /// A service is to have more workers than one may have.
    #[error("a service has at most {most} workers, each a thread: {asked} were asked for")]
    Workers {
        /// How many were asked for.
        asked: usize,
        /// How many there may be.
        most: usize,
    },
    /// No thread can be started.
    #[error("cannot start a thread: {source}: raise the limit (`ulimit -u`) or ask for fewer `workers`")]
    Thread {
        /// What the kernel said.
        source: io::Error,
    },
    /// Shared memory or a file descriptor was refused.
    #[error(
        "cannot make the port's shared memory: {reason}: raise the limit (`ulimit -n`, `ulimit -v`, `ulimit -f`, the container's memory) or open smaller or fewer ports"
    )]
    Memory {
        /// What the kernel said.
        reason: String,
    },
    /// The node was made in a parent process.
    #[error("this process is a fork of the one that joined: join again in the child")]
    Forked,
    /// [`Node::drain`](crate::Node::drain) was called.
    #[error("the node is draining (`Node::drain`), or has drained, and takes nothing new: join again")]
    Draining,
    /// The node's own thread, which opens ports, asked for one: something that it runs does, such as a subscriber of
    /// `tracing` that logs over the bus.
    #[error(
        "the node's own thread cannot wait for itself: open ports, and make a client's first call, elsewhere"
    )]
    OwnThread,
    /// The node's control thread is gone.
    #[error("the node has left the bus: join again")]
    NodeGone,
}

/// What is said of a wait, if there was one.
fn after(waited: Duration) -> String {
    if waited.is_zero() { String::new() } else { format!(" after {waited:?}") }
}

/// Why a message was not published. It had no effect, unless said otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// A reader has not kept up, and the port's policy is not to wait (any longer).
    #[error(
        "log is full: subscriber {reader} is {lag} bytes behind{}: make it faster, raise `capacity` (for large messages `blob_memory`; more than 64 of them are never under way), or choose another `overflow` policy", after(*waited)
    )]
    Full {
        /// The slowest reader: its node's name, process id and node id.
        reader: String,
        /// How far it is behind: bytes of the log, and of the blobs that are in use.
        lag: u64,
        /// How long was waited.
        waited: Duration,
    },
    /// There is no shared memory for a message that is too large for the log.
    #[error(
        "cannot make shared memory for a large message: {reason}: raise the limit (`ulimit -n`, `ulimit -v`, `ulimit -f`, the container's memory) or lower `blob_memory`"
    )]
    Memory {
        /// What the kernel said.
        reason: String,
    },
    /// The message is larger than the port is to send.
    #[error(
        "payload of {size} bytes, but this port sends at most {limit}: {}", room_for(*size, *limit)
    )]
    TooLarge {
        /// Bytes of the encoded payload.
        size: usize,
        /// The most that this port takes with this topic and these headers.
        limit: usize,
    },
    /// The value could not be serialised.
    #[error("cannot encode the message: {reason}")]
    Encode {
        /// What the serialiser said.
        reason: String,
    },
    /// Too many headers, too long ones, or a name that is the bus's own.
    #[error("headers: {reason}")]
    Headers {
        /// Which limit, or which name.
        reason: String,
    },
    /// The topic is not valid or not this port's.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The port is over a pattern and needs to know the topic.
    #[error("publisher was opened over the pattern {pattern}: use `publish_to` and say the topic")]
    NeedsTopic {
        /// The pattern.
        pattern: String,
    },
    /// The port was made in a parent process.
    #[error("this process is a fork of the one that opened the port: join again in the child")]
    Forked,
    /// [`Node::drain`](crate::Node::drain) was called. A message that was being published at the very moment when the
    /// node left may have been received all the same.
    #[error("the node is draining (`Node::drain`), or has drained, and takes nothing new: join again")]
    Draining,
}

/// Why a direct message or a broadcast was not sent. It had no effect.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The name cannot be that of a node with an inbox.
    #[error(transparent)]
    Name(#[from] TopicError),
    /// No node of this name has an inbox open.
    #[error(
        "no node named {name:?} has an inbox: is it running on this bus, and has it opened one (`Node::inbox`)?"
    )]
    NotFound {
        /// The name.
        name: String,
    },
    /// There is an inbox, of another user's node, and an access list keeps the message from it.
    #[error("{reason}")]
    Denied {
        /// Whose list, and which rule is missing.
        reason: String,
    },
    /// A receiver has not kept up, and did not within the time that is waited.
    #[error(
        "{reader} has not received {lag} bytes that this node sent before, nor any within {waited:?}: make it faster, or send later"
    )]
    Full {
        /// The slowest receiver: its node's name, process id and node id.
        reader: String,
        /// How far it is behind.
        lag: u64,
        /// How long was waited.
        waited: Duration,
    },
    /// The message is too large to be sent in this way.
    #[error(
        "payload of {size} bytes, but {limit} can be sent: send it in pieces, or publish it on a topic, with a larger `max_message`"
    )]
    TooLarge {
        /// Bytes of the encoded payload.
        size: usize,
        /// The most that can be sent with these headers.
        limit: usize,
    },
    /// The value could not be serialised.
    #[error("cannot encode the message: {reason}")]
    Encode {
        /// What the serialiser said.
        reason: String,
    },
    /// Too many headers, too long ones, or a name that is the bus's own.
    #[error("headers: {reason}")]
    Headers {
        /// Which limit, or which name.
        reason: String,
    },
    /// Shared memory or a file descriptor was refused.
    #[error(
        "cannot make a log for messages: {reason}: raise the limit (`ulimit -n`, `ulimit -v`, `ulimit -f`, the container's memory) or open fewer ports"
    )]
    Memory {
        /// What the kernel said.
        reason: String,
    },
    /// The node was made in a parent process.
    #[error("this process is a fork of the one that joined: join again in the child")]
    Forked,
    /// [`Node::drain`](crate::Node::drain) was called.
    #[error("the node is draining (`Node::drain`), or has drained, and takes nothing new: join again")]
    Draining,
    /// The node's control thread is gone.
    #[error("the node has left the bus: join again")]
    NodeGone,
}

impl From<OpenError> for SendError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Topic(error) => SendError::Name(error),
            OpenError::Memory { reason } => SendError::Memory { reason },
            OpenError::Forked => SendError::Forked,
            OpenError::Draining => SendError::Draining,
            OpenError::NodeGone => SendError::NodeGone,
            error => SendError::Memory { reason: error.to_string() },
        }
    }
}

impl From<PublishError> for SendError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Full { reader, lag, waited } => SendError::Full { reader, lag, waited },
            PublishError::TooLarge { size, limit } => SendError::TooLarge { size, limit },
            PublishError::Memory { reason } => SendError::Memory { reason },
            PublishError::Encode { reason } => SendError::Encode { reason },
            PublishError::Headers { reason } => SendError::Headers { reason },
            PublishError::Topic(error) => SendError::Name(error),
            PublishError::NeedsTopic { .. } => SendError::Encode { reason: error.to_string() },
            PublishError::Forked => SendError::Forked,
            PublishError::Draining => SendError::Draining,
        }
    }
}

/// What is known of messages that are lost, and no guess at why.
fn lagged(missed: u64, source: &NodeInfo, topic: Option<&str>) -> String {
    let on = topic.map(|topic| format!(" on {topic}")).unwrap_or_default();
    match missed {
        0 => format!(
            "{source} cut this subscriber off{on} and is gone: it is not known how many messages are missed"
        ),
        1 => format!("missed 1 message of {source}{on}"),
        many => format!("missed {many} messages of {source}{on}"),
    }
}

/// Why no message was received. The port goes on, unless said otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// Messages are lost: the publisher dropped them because a reader was slow
    /// ([`Overflow::DropNewest`](crate::Overflow::DropNewest)), cut this subscriber off while it was slow
    /// ([`Overflow::Evict`](crate::Overflow::Evict)), or overwrote them before this
    /// [lossy](crate::SubscriberBuilder::lossy) subscriber had read them.
    #[error("{}", lagged(*.missed, .source_node, .topic.as_deref()))]
    Lagged {
        /// How many messages of that publisher. 0: it is not known how many, and none can follow; the publisher has died
        /// after it had cut this subscriber off.
        missed: u64,
        /// Whose.
        source_node: NodeInfo,
        /// Their topic; `None` if the publisher publishes on several.
        topic: Option<String>,
    },
    /// A message could not be decoded; it is passed over.
    #[error("undecodable message {sequence} on {topic} from {source_node}: {reason}")]
    Decode {
        /// On which topic.
        topic: String,
        /// Whose.
        source_node: NodeInfo,
        /// Its sequence number.
        sequence: u64,
        /// What is wrong.
        reason: String,
    },
    /// A publisher's log is corrupt: that publisher's node was cut off.
    #[error("{source_node} broke the protocol and was cut off: {why}")]
    PeerCorrupt {
        /// Whose.
        source_node: NodeInfo,
        /// What was found.
        why: Corrupt,
    },
    /// This process has run out of memory or file descriptors: what a publisher publishes does not arrive. Once there
    /// is room, the publisher's log is attached without a word, within some seconds, or up to about a minute if it could
    /// not be again and again; what was missed until then is told as [`RecvError::Lagged`].
    #[error(
        "cannot read from {source_node}: {reason}: raise the limit (`ulimit -n`, `ulimit -v`), or close something: it is read again then"
    )]
    Unattached {
        /// Whose messages do not arrive.
        source_node: NodeInfo,
        /// What the kernel said.
        reason: String,
    },
    /// The port was made in a parent process; nothing will ever arrive here.
    #[error("this process is a fork of the one that opened the port: join again in the child")]
    Forked,
    /// The node's control thread is gone, and everything that had arrived was received.
    #[error("the node has left the bus: join again")]
    NodeGone,
}

/// Why a wait ended without what was waited for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The time is over.
    #[error(
        "{found} of {wanted} subscribers after {waited:?}: is it running on this bus, with a filter that matches?"
    )]
    Timeout {
        /// How many there are.
        found: usize,
        /// How many were waited for.
        wanted: usize,
        /// How long was waited.
        waited: Duration,
    },
    /// Nobody serves.
    #[error("nobody serves {service:?} after {waited:?}: is the server running on this bus?")]
    NoServer {
        /// The service.
        service: String,
        /// How long was waited.
        waited: Duration,
    },
    /// Whoever serves runs as another user, and an access list keeps it from this client.
    #[error("{reason}")]
    Denied {
        /// Whose list, and which rule is missing.
        reason: String,
    },
    /// The port was made in a parent process.
    #[error("this process is a fork of the one that opened the port: join again in the child")]
    Forked,
}
