//! Buses, nodes and their ports: what a program uses.
//!
//! ```text
//!   Publisher ─ Outlet ──▶ ring::Writer     one log, written on the caller's thread
//!                 │ ▲
//!                 │ └───── Core             the node's control thread: adds and removes gates and logs
//!                 │ ┌─────  │
//!                 ▼ ▼       ▼
//!   Subscriber ─ Inlet ──▶ ring::Reader     one per log it reads, read on the caller's thread
//! ```
//!
//! Messages never pass the control thread. Ports and control thread share private memory only: the gates
//! of an outlet, the list of changes of an inlet, both announced by a counter.
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations)] // programs print what they hold

mod access;
mod blob;
mod client;
pub(crate) mod codec;
mod core;
mod drain;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod held;
mod inbox;
mod inlet;
pub(crate) mod log;
mod mail;
mod message;
mod metadata;
mod node;
mod open;
mod outgoing;
mod outlet;
mod payload;
mod peer;
mod presence;
mod publisher;
mod quotas;
mod reading;
mod reception;
mod server;
mod spare;
mod stats;
mod status;
mod subscriber;
mod topic;
#[cfg(feature = "tower")]
pub mod tower;
mod turns;
mod unwind;

pub use access::{Access, AccessError, Action, Denial, Denials, Grant};
pub use client::{Client, ClientBuilder, FromAnswer, Pending, RawResponse, Request, RequestLoan, Response};
pub use drain::{DrainError, Unfinished, Unread};
pub use error::{BusError, Error, JoinError, OpenError, PublishError, RecvError, SendError, WaitError};
pub use inbox::{Inbox, InboxBuilder, RawInbox};
pub use mail::Letter;
pub use message::{Headers, Message, Sample};
pub use metadata::{Destination, MessageId};
pub use node::Node;
#[cfg(feature = "cli")]
pub(crate) use open::abandoned_private;
pub use open::{Bus, BusBuilder, Trust};
pub use outgoing::{Outgoing, Unfilled};
pub use outlet::Overflow;
pub use peer::{Heartbeat, NodeInfo, Peer, PortInfo, RefusedNode};
pub use presence::{Departure, PeerChange, Presence};
pub use publisher::{Loan, Publisher, PublisherBuilder, RawPublisher};
pub use quotas::{Exhaustion, Exhaustions, Quotas, Resource};
pub use server::{Context, Reply, ReplyLoan, Server, ServiceBuilder};
pub use stats::{NodeStats, PortStats, ReportedPort};
pub use status::Status;
pub use subscriber::{RawSubscriber, Subscriber, SubscriberBuilder};
pub use topic::TopicError;
