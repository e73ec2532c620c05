//! A message bus between the processes of one Linux host, over sealed shared memory.
//!
//! Processes that open a bus of the same name and join it can publish and subscribe to topics, and send
//! messages to each other by name. There is no broker: each publisher owns a *log*, a ring in shared memory that it alone can write, and its subscribers
//! read that. Neither takes a lock or makes a system call, unless somebody sleeps and has to be woken.
//!
//! ```text
//!   Publisher ── encodes into ──▶ log ── tail ──▶ Subscriber ── decodes, or lends in place
//!       ▲                    (a sealed memfd)         │
//!       └────── never overwrites past ◀── cursor ─────┘   (in the subscriber's own sealed memfd)
//! ```
//!
//! # An example
//!
//! ```
//! let bus = ringbus::Bus::private()?; // between processes: ringbus::Bus::open("agents")?
//! let planner = bus.join("planner")?;
//! let worker = bus.join("worker")?;
//!
//! let mut updates = planner.subscriber::<(u32, String)>("task/*")?;
//! let mut progress = worker.publisher::<(u32, String)>("task/progress")?;
//! progress.publish(&(42, "parsing".to_owned()))?;
//!
//! let update = updates.recv()?;
//! assert_eq!((update.0, update.topic(), update.source().name()), (42, "task/progress", "worker"));
//! # Ok::<(), ringbus::Error>(())
//! ```
//!
//! # Map
//!
//! | to … | use |
//! | --- | --- |
//! | open a bus | [`Bus::open`], [`Bus::from_env`], [`Bus::private`] for tests; [`Bus::builder`] for the directory, a group, [`Trust`] |
//! | share it with other users | [`BusBuilder::group`]; access lists, [`BusBuilder::allow`] and [`Access`], for what they may do; [`Node::denials`] |
//! | bound what one node may use of another | [`BusBuilder::quotas`], [`Quotas`]; [`Node::exhaustions`] |
//! | join it | [`Bus::join`], which gives a [`Node`]; [`Node::peers`], [`Node::refused`] and [`Node::survey`] look around |
//! | publish values, or bytes | [`Node::publisher`], [`Node::raw_publisher`]; [`Node::publisher_builder`] for capacity and [`Overflow`] |
//! | receive values, or bytes | [`Node::subscriber`], [`Node::raw_subscriber`]; [`Node::subscriber_builder`] for several filters and [`Wait`] |
//! | receive without holding a publisher up | [`SubscriberBuilder::lossy`]; what is missed is told, [`RecvError::Lagged`] |
//! | write a message in place | [`RawPublisher::loan`], [`Loan::send`] |
//! | read a message in place | [`RawSubscriber::recv`], which gives a [`Sample`] |
//! | send headers, a time or a correlation along | [`Publisher::message`], [`Node::message_to`]; [`PublisherBuilder::timestamps`] |
//! | send to a node by name | [`Node::send`], [`Node::message_to`]; received by [`Node::inbox`], [`Inbox`] |
//! | send to all nodes | [`Node::broadcast`]; received by [`Node::broadcasts`] |
//! | have urgent messages received first | [`PublisherBuilder::priority`] |
//! | tell what is known of a message | [`Message::source`], [`Message::destination`], [`Message::id`], [`Message::headers`], … |
//! | call a service | [`Node::client`], [`Client::call`]; [`Client::request`] for a timeout, headers, a server of one's choice, many calls in flight |
//! | serve calls | [`Node::service`], which gives a [`ServiceBuilder`]; handlers get a [`Context`] and return a [`Status`] if they fail |
//! | put middleware around calls | the `tower` module (feature `tower`) |
//! | learn who comes, goes, stalls and recovers | [`Node::presence`], which gives a [`Presence`] of [`PeerChange`]s; [`Peer::is_stalled`], [`Peer::heartbeat`] |
//! | leave with nothing left undone | [`Node::drain`], which tells what was, [`DrainError`] |
//! | see what ports have counted | [`Publisher::stats`] and the like, which give [`PortStats`]; [`Node::survey`] for those of all nodes |
//! | do without a bus, between two processes | the `pipe` module (feature `pipe`) |
//! | handle errors | one enum per operation: [`BusError`], [`JoinError`], [`OpenError`], [`PublishError`], [`SendError`], [`RecvError`], [`WaitError`], [`Status`] of calls; [`Error`] holds any of them, for `?` |
//!
//! # Topics
//!
//! A topic has levels between `/`: `task/42/progress`. A subscriber's filter may have wildcards: `*` is one
//! level, `**` any number of them, none included. A publisher is opened on one topic, or over a pattern
//! (`task/**`) to [publish to](Publisher::publish_to) any topic under it. Topics that begin with `@` are the
//! bus's own.
//!
//! # What arrives
//!
//! A subscriber that was open before a publisher gets all its messages, from the first one on; a later one
//! gets what follows. Messages of one publisher arrive in order and once; those of publishers with a higher
//! [priority](PublisherBuilder::priority) are received first. A message whose `publish` returned
//! `Ok` is there for every subscriber that was attached, even if the publisher is killed right after.
//!
//! A publisher never overwrites what a subscriber has not read. When its log is full, [`Overflow`] decides:
//! wait (the default, up to 1 s), fail, drop the message, or go on without the subscriber that is in the way until that has
//! read what it has. Whoever misses a message is told ([`RecvError::Lagged`]). A [lossy](SubscriberBuilder::lossy) subscriber is the exception: it holds no publisher
//! up, and is told how many messages were overwritten before it read them.
//!
//! # Waiting
//!
//! [`Wait::Adaptive`] looks for up to 50 µs where that has paid, then sleeps. For event loops and async runtimes a
//! subscriber is an [`AsFd`](std::os::fd::AsFd), of one descriptor for as long as it lives, to be armed before each poll:
//! [`Subscriber::arm`].
//!
//! In tokio, whose `AsyncFd` holds the port. Its readiness is cleared before `arm`, so that a message that
//! comes after it is not missed:
//! ```
//! use ringbus::{Message, RecvError, Subscriber};
//! use tokio::io::{Interest, unix::AsyncFd};
//!
//! async fn next(port: &mut AsyncFd<Subscriber<u32>>) -> Result<Message<u32>, Box<dyn std::error::Error>> {
//!     loop {
//!         if let Some(message) = port.get_mut().try_recv()? {
//!             return Ok(message);
//!         }
//!         if port.get_mut().arm()? {
//!             port.readable_mut().await?.clear_ready();
//!         }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let node = ringbus::Bus::private()?.join("planner")?;
//! let updates = node.subscriber("task/*")?;
//! // SAFETY: a port has one descriptor, open for as long as it lives. (In earlier tokios, `AsyncFd::with_interest`.)
//! let mut updates = unsafe { AsyncFd::register_with_interest(updates, Interest::READABLE)? };
//! # let mut progress = node.publisher::<u32>("task/a")?;
//! # let teller = std::thread::spawn(move || (0..100).for_each(|n| progress.publish(&n).unwrap()));
//! # for n in 0..99 { assert_eq!(*next(&mut updates).await?, n); }
//! println!("{}", *next(&mut updates).await?);
//! # teller.join().unwrap();
//! # Ok(())
//! # }
//! ```
//!
//! # Threads and forks
//!
//! A [`Node`] is `Clone + Send + Sync`: join once per process, and clone it. Ports are `Send`, and each has
//! one user at a time (`&mut self`): open one per thread. Every node has a control thread, which no message
//! passes; once a second it looks at the bus's directory and at its peers' heartbeats, and it sleeps otherwise,
//! unless the bus changes.
//!
//! A forked child has none of its parent's ports: using them returns an error (`Forked`). It can open the bus
//! and join by itself. The parent is not affected.
//!
//! # Features
//!
//! | feature | adds |
//! | --- | --- |
//! | `cli` | the `ringbus` command: `bench`, `chaos`, `demo`, `ls`, `pub`, `sub`, `send`, `inbox`, `broadcast`, `call`, `serve-echo`, `watch`, `doctor`; nothing to the library |
//! | `pipe` | the `pipe` module: a ring between two processes that share only a name |
//! | `tower` | the `tower` module: clients as tower services, tower services as servers; one crate, `tower-service` |
//!
//! None is on by default. Linux only: 5.1 or later, on 64-bit little-endian processors.

#[cfg(not(target_os = "linux"))]
compile_error!("ringbus needs Linux: it is built on memfd seals, timerfd, pidfd and membarrier");

#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!(
    "ringbus needs a 64-bit little-endian target: logs have up to 4 GiB, and their words are little-endian"
);

#[cfg(not(loom))]
mod bus;
#[cfg(all(feature = "cli", not(loom)))]
#[doc(hidden)]
pub mod cli;
#[cfg(not(loom))]
mod control;
mod frame;
#[cfg(all(feature = "pipe", not(loom)))]
pub mod pipe;
mod ring;
mod segment;
mod sys;
#[cfg(not(loom))]
mod wake;

#[cfg(not(loom))]
pub use bus::*;
#[cfg(not(loom))]
pub use control::{DirectoryError, NodeId, Refusal};
pub use frame::{Code, Encoding};
pub use ring::Corrupt;
#[cfg(not(loom))]
pub use wake::Wait;

/// Not part of the API: what the benches and the fuzz targets reach.
#[doc(hidden)]
pub mod internals {
    pub mod frame {
        pub use crate::frame::*;
    }
    pub mod ring {
        pub use crate::ring::*;
    }
    pub mod segment {
        pub use crate::segment::*;
    }
    pub mod sys {
        pub use crate::sys::*;
    }

    /// For `fuzz/fuzz_targets/pipe.rs` alone: both ends over memory of its own making.
    #[cfg(all(fuzzing, feature = "pipe"))]
    pub mod pipe {
        pub use crate::pipe::ends::*;
    }

    /// For `tests/hostile`: what is made of the payloads of peers, and how much it takes to say what is wrong with them.
    #[cfg(not(loom))]
    pub mod values {
        use serde::de::DeserializeOwned;

        use crate::bus::codec;

        pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
            codec::decode(bytes).map_err(|error| error.to_string())
        }

        /// As a large one, from memory that may change.
        pub fn decode_copy<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
            codec::decode_copy(bytes.len(), |copy| copy.copy_from_slice(bytes))
                .map_err(|error| error.to_string())
        }
    }

    /// For `tests/hostile`, and for `fuzz/fuzz_targets/session.rs`, which needs nodes and peers of its own making.
    #[cfg(not(loom))]
    pub mod control {
        #[cfg(fuzzing)]
        pub use crate::control::{Admission, Card, ConnId, Event, Hub, Message, NodeId, PortCard, VERSION};
        use crate::frame::Control;
        #[cfg(fuzzing)]
        pub use crate::sys::credentials::Credentials;

        /// What a node keeps of a datagram.
        pub fn message(control: &Control<'_>) -> impl Sized + use<> {
            crate::control::Message::from_control(control)
        }

        #[cfg(fuzzing)]
        pub fn node_id(bytes: [u8; 16]) -> NodeId {
            NodeId(bytes)
        }
    }
}

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct ReadmeDoctests;
