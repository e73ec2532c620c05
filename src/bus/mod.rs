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

mod codec;
mod core;
mod error;
mod inlet;
mod message;
mod node;
mod open;
mod outlet;
mod peer;
mod presence;
mod publisher;
mod stats;
mod subscriber;
mod topic;

pub use error::{BusError, Error, JoinError, OpenError, PublishError, RecvError, WaitError};
pub use message::{Headers, Message, Sample};
pub use node::Node;
pub use open::{Bus, BusBuilder, Trust};
pub use outlet::Overflow;
pub use peer::{Heartbeat, NodeInfo, Peer, PortInfo, RefusedNode};
pub use presence::{Departure, PeerChange, Presence};
pub use publisher::{Loan, Outgoing, Publisher, PublisherBuilder, RawPublisher};
pub use stats::{NodeStats, PortStats, ReportedPort};
pub use subscriber::{RawSubscriber, Subscriber, SubscriberBuilder};
pub use topic::TopicError;
