//! Ports that receive what is sent to their node.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::error::{OpenError, RecvError};
use super::message::{Message, Sample};
use super::node::NodeShared;
use super::stats::PortStats;
use super::subscriber::{RawSubscriber, Subscriber, SubscriberBuilder};
use super::topic::Filter;
use crate::frame::Role;
use crate::wake::Wait;

/// Settings of an inbox; from [`Node::inbox_builder`](crate::Node::inbox_builder).
#[derive(Debug)]
#[must_use = "a builder does nothing until `open`"]
pub struct InboxBuilder<'n> {
    name: &'n str,
    port: SubscriberBuilder<'n>,
}

impl<'n> InboxBuilder<'n> {
    pub(super) fn new(node: &'n Arc<NodeShared>) -> Self {
        let name = node.info.name();
        Self { name, port: SubscriberBuilder::new(node, Role::Inbox, Filter::inbox_of(name)) }
    }

    /// How to wait for messages; default [`Wait::Adaptive`].
    pub fn wait(mut self, wait: Wait) -> Self {
        self.port = self.port.wait(wait);
        self
    }

    /// Opens an inbox of values.
    ///
    /// # Errors
    /// Those of [`Node::inbox`](crate::Node::inbox).
    pub fn open<T: DeserializeOwned>(self) -> Result<Inbox<T>, OpenError> {
        Ok(Inbox { name: self.name.to_owned(), port: self.port.open()? })
    }

    /// Opens an inbox of bytes.
    ///
    /// # Errors
    /// Those of [`Node::inbox`](crate::Node::inbox).
    pub fn open_raw(self) -> Result<RawInbox, OpenError> {
        Ok(RawInbox { name: self.name.to_owned(), port: self.port.open_raw()? })
    }
}

/// Receives the values that are sent to its node's name; from [`Node::inbox`](crate::Node::inbox).
///
/// # Examples
/// ```
/// # let node = ringbus::Bus::private()?.join("critic")?;
/// let mut inbox = node.inbox::<(u32, String)>()?;
/// node.send("critic", &(42, "a draft"))?; // a node may write to itself
/// let draft = inbox.recv()?;
/// assert_eq!((draft.0, draft.source().name()), (42, "critic"));
/// assert!(inbox.try_recv()?.is_none());
/// # Ok::<(), ringbus::Error>(())
/// ```
pub struct Inbox<T> {
    name: String,
    port: Subscriber<T>,
}

impl<T: DeserializeOwned> Inbox<T> {
    /// Waits for the next message.
    ///
    /// # Errors
    /// [`RecvError`]; the next call goes on after it.
    #[inline]
    pub fn recv(&mut self) -> Result<Message<T>, RecvError> {
        self.port.recv()
    }

    /// The next message, if one is there.
    ///
    /// # Errors
    /// [`RecvError`]; the next call goes on after it.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<Message<T>>, RecvError> {
        self.port.try_recv()
    }

    /// The next message, or `None` if none came in time.
    ///
    /// # Errors
    /// [`RecvError`]; the next call goes on after it.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Message<T>>, RecvError> {
        self.port.recv_timeout(timeout)
    }

    /// Messages as they come, for ever: each `next` waits. Ends only where nothing can come any more.
    pub fn iter(&mut self) -> impl Iterator<Item = Result<Message<T>, RecvError>> + '_ {
        self.port.iter()
    }
}

/// Receives the bytes that are sent to its node's name; from [`Node::raw_inbox`](crate::Node::raw_inbox).
///
/// # Examples
/// ```
/// # let node = ringbus::Bus::private()?.join("critic")?;
/// let mut inbox = node.raw_inbox()?;
/// node.raw_message_to("critic", &[1, 2, 3]).send()?;
/// assert_eq!(*inbox.recv()?, [1, 2, 3]); // read in place
/// # Ok::<(), ringbus::Error>(())
/// ```
pub struct RawInbox {
    name: String,
    port: RawSubscriber,
}

impl RawInbox {
    /// Waits for the next message.
    ///
    /// # Errors
    /// [`RecvError`]; the next call goes on after it.
    pub fn recv(&mut self) -> Result<Sample<'_>, RecvError> {
        self.port.recv()
    }

    /// The next message, if one is there.
    ///
    /// # Errors
    /// [`RecvError`]; the next call goes on after it.
    pub fn try_recv(&mut self) -> Result<Option<Sample<'_>>, RecvError> {
        self.port.try_recv()
    }

    /// The next message, or `None` if none came in time.
    ///
    /// # Errors
    /// [`RecvError`]; the next call goes on after it.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Sample<'_>>, RecvError> {
        self.port.recv_timeout(timeout)
    }
}

macro_rules! about {
    () => {
        /// Prepares to wait for this port with `poll`, `epoll` or an async runtime; see
        /// [`Subscriber::arm`](crate::Subscriber::arm).
        ///
        /// # Errors
        /// [`RecvError::Forked`], [`RecvError::NodeGone`].
        pub fn arm(&mut self) -> Result<bool, RecvError> {
            self.port.arm()
        }

        /// The name that it receives the messages of: its node's.
        pub fn name(&self) -> &str {
            &self.name
        }

        /// What was received so far.
        pub fn stats(&self) -> PortStats {
            self.port.stats()
        }
    };
}

impl<T> Inbox<T> {
    about!();
}

impl RawInbox {
    about!();
}

impl<T> AsFd for Inbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }
}

impl<T> AsRawFd for Inbox<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for RawInbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }
}

impl AsRawFd for RawInbox {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<T> fmt::Debug for Inbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Inbox").field(&self.name).finish()
    }
}

impl fmt::Debug for RawInbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawInbox").field(&self.name).finish()
    }
}
