//! Ports that subscribe.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::TopicError;
use super::error::{OpenError, RecvError};
use super::inlet::Inlet;
use super::message::{Message, Sample};
use super::node::NodeShared;
use super::reading::Purpose;
use super::reception::Reception;
use super::stats::PortStats;
use super::topic::Filter;
use crate::frame::{self, PortUp, Role};
use crate::wake::Wait;

/// Settings of a subscriber; from [`Node::subscriber_builder`](crate::Node::subscriber_builder).
#[derive(Debug)]
#[must_use = "a builder does nothing until `open`"]
pub struct SubscriberBuilder<'n> {
    node: &'n Arc<NodeShared>,
    role: Role,
    filters: Vec<Result<Filter, TopicError>>,
    wait: Wait,
    lossy: bool,
}

impl<'n> SubscriberBuilder<'n> {
    pub(super) fn new(node: &'n Arc<NodeShared>, role: Role, filter: Result<Filter, TopicError>) -> Self {
        Self { node, role, filters: vec![filter], wait: Wait::default(), lossy: false }
    }

    /// Subscribes to what this filter matches, too; at most 64 filters in all. A message that several match
    /// arrives once.
    pub fn filter(mut self, filter: &str) -> Self {
        self.filters.push(Filter::new(filter));
        self
    }

    /// How to wait for messages; default [`Wait::Adaptive`].
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Never holds a publisher up: not even one that fills its whole log while this subscriber sleeps. Instead, what the
    /// publisher has overwritten before it was read is lost, and told as
    /// [`RecvError::Lagged`](crate::RecvError::Lagged) with the exact number of messages. By default a publisher's
    /// `Overflow` decides what happens while its log is full of what a subscriber has not read.
    ///
    /// For displays, samplers and recorders that must not slow down what they look at. Messages are whole or not there:
    /// each is copied (a large one, too, into memory of this process that grows to the largest), then checked.
    /// A subscriber that is more than half a log behind goes on with what is published next; a message larger than a quarter of
    /// the log can be missed as soon as its publisher has sent another one or two. So one that does not wait, but looks from
    /// time to time, needs publishers whose [`capacity`](crate::PublisherBuilder::capacity) is at least twice what they publish
    /// between two looks: else it may find nothing each time.
    ///
    /// # Examples
    /// ```
    /// # let node = ringbus::Bus::private()?.join("display")?;
    /// let mut positions = node.subscriber_builder("arm/*/position").lossy().open::<[f64; 3]>()?;
    /// # node.publisher::<[f64; 3]>("arm/left/position")?.publish(&[0.0, 0.5, 1.0])?;
    /// match positions.recv() {
    ///     Ok(position) => println!("{:?}", *position),
    ///     Err(ringbus::RecvError::Lagged { missed, .. }) => println!("{missed} are lost"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok::<(), ringbus::Error>(())
    /// ```
    pub fn lossy(mut self) -> Self {
        self.lossy = true;
        self
    }

    /// Opens a subscriber of values.
    ///
    /// # Errors
    /// [`OpenError`]: a filter is not valid, or the process is out of memory or file descriptors.
    pub fn open<T: DeserializeOwned>(self) -> Result<Subscriber<T>, OpenError> {
        Ok(Subscriber { reception: self.open_reception()?, values: PhantomData })
    }

    /// Opens a subscriber of bytes.
    ///
    /// # Errors
    /// Those of [`SubscriberBuilder::open`].
    pub fn open_raw(self) -> Result<RawSubscriber, OpenError> {
        Ok(RawSubscriber { reception: self.open_reception()? })
    }

    fn open_reception(self) -> Result<Reception, OpenError> {
        let filters: Vec<Filter> = self.filters.into_iter().collect::<Result<_, _>>()?;
        if filters.len() > frame::MAX_HEADERS {
            return Err(TopicError::too_many_filters(&filters).into());
        }
        let lossy = self.lossy;
        let purpose = if self.role == Role::Inbox { Purpose::Inbox } else { Purpose::Subscriber { lossy } };
        let inlet = Inlet::open(self.node, purpose, filters, PortUp::DEFAULT_PRIORITY, self.wait)?;
        Ok(Reception::of(inlet))
    }
}

/// Receives values of one type from every publisher whose topic its filters match.
///
/// A value's `Deserialize` may run twice for a message: where serde has derived it, fields are first taken to come in their
/// order, and looked for by name if they do not.
///
/// # Examples
/// ```
/// # use std::time::Duration;
/// # let node = ringbus::Bus::private()?.join("planner")?;
/// let mut updates = node.subscriber::<u32>("task/*")?;
/// assert!(updates.try_recv()?.is_none());
/// # let mut progress = node.publisher::<u32>("task/a")?;
/// # progress.publish(&7)?;
/// if let Some(update) = updates.recv_timeout(Duration::from_secs(1))? {
///     println!("{} says {} on {}", update.source().name(), *update, update.topic());
/// }
/// # Ok::<(), ringbus::Error>(())
/// ```
pub struct Subscriber<T> {
    reception: Reception,
    values: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Subscriber<T> {
    /// Waits for the next message.
    ///
    /// # Errors
    /// [`RecvError`]; the next call goes on after it.
    #[inline]
    pub fn recv(&mut self) -> Result<Message<T>, RecvError> {
        while !self.reception.wait(None)? {}
        self.reception.message()
    }

    /// The next message, if one is there. (A large one may be on its way a moment longer than its `publish`.)
    ///
    /// # Errors
    /// [`RecvError`]; the next call goes on after it.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<Message<T>>, RecvError> {
        if self.reception.look()? { self.reception.message().map(Some) } else { Ok(None) }
    }

    /// The next message, or `None` if none came in time.
    ///
    /// # Errors
    /// [`RecvError`]; the next call goes on after it.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Message<T>>, RecvError> {
        self.recv_by(Instant::now().checked_add(timeout))
    }

    #[inline(always)]
    fn recv_by(&mut self, deadline: Option<Instant>) -> Result<Option<Message<T>>, RecvError> {
        if self.reception.wait(deadline)? { self.reception.message().map(Some) } else { Ok(None) }
    }

    /// Messages as they come, for ever: each `next` waits. Ends only where nothing can come any more.
    pub fn iter(&mut self) -> impl Iterator<Item = Result<Message<T>, RecvError>> + '_ {
        let mut over = false;
        std::iter::from_fn(move || {
            if over {
                return None;
            }
            let next = self.recv();
            over = matches!(next, Err(RecvError::Forked | RecvError::NodeGone));
            Some(next)
        })
    }
}

/// Receives bytes from every publisher whose topic its filters match.
///
/// # Examples
/// ```
/// # let node = ringbus::Bus::private()?.join("viewer")?;
/// let mut camera = node.raw_subscriber("camera/**")?;
/// # node.raw_publisher("camera/front")?.publish(&[1, 2, 3])?;
/// let sample = camera.recv()?;
/// assert_eq!(*sample, [1, 2, 3]); // read in place
/// let kept: Vec<u8> = sample.to_owned();
/// # Ok::<(), ringbus::Error>(())
/// ```
pub struct RawSubscriber {
    reception: Reception,
}

impl RawSubscriber {
    /// Waits for the next message.
    ///
    /// # Errors
    /// [`RecvError`]; the next call goes on after it.
    #[inline]
    pub fn recv(&mut self) -> Result<Sample<'_>, RecvError> {
        while !self.reception.wait(None)? {}
        self.reception.sample()
    }

    /// The next message, if one is there. (A large one may be on its way a moment longer than its `publish`.)
    ///
    /// # Errors
    /// [`RecvError`]; the next call goes on after it.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<Sample<'_>>, RecvError> {
        if self.reception.look()? { self.reception.sample().map(Some) } else { Ok(None) }
    }

    /// The next message, or `None` if none came in time.
    ///
    /// # Errors
    /// [`RecvError`]; the next call goes on after it.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Sample<'_>>, RecvError> {
        let found = self.reception.wait(Instant::now().checked_add(timeout))?;
        if found { self.reception.sample().map(Some) } else { Ok(None) }
    }
}

macro_rules! about {
    () => {
        /// The filters.
        pub fn filters(&self) -> Vec<&str> {
            self.reception.inlet().filters().iter().map(Filter::as_str).collect()
        }

        /// What was received so far.
        pub fn stats(&self) -> PortStats {
            self.reception.inlet().stats()
        }
    };
}

impl<T> Subscriber<T> {
    /// Prepares to wait for this port with `poll`, `epoll` or an async runtime: false if a message (or an
    /// error) is there already, else the port's fd turns readable with the next one. It may also turn
    /// readable for nothing: try, then arm again.
    ///
    /// # Errors
    /// [`RecvError::Forked`], [`RecvError::NodeGone`].
    ///
    /// # Examples
    /// With `poll`; with tokio, [as here](crate#waiting):
    /// ```
    /// use std::os::fd::AsFd;
    /// use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    ///
    /// # let node = ringbus::Bus::private()?.join("planner")?;
    /// let mut updates = node.subscriber::<u32>("task/*")?;
    /// # node.publisher::<u32>("task/a")?.publish(&7)?;
    /// while updates.arm()? {
    ///     poll(&mut [PollFd::new(updates.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?; // and other fds
    /// }
    /// let update = updates.try_recv()?; // `None`: arm again
    /// # assert_eq!(update.map(|update| *update), Some(7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn arm(&mut self) -> Result<bool, RecvError> {
        self.reception.arm()
    }

    about!();
}

impl RawSubscriber {
    /// Prepares to wait for this port with `poll`, `epoll` or an async runtime; see [`Subscriber::arm`].
    ///
    /// # Errors
    /// [`RecvError::Forked`], [`RecvError::NodeGone`].
    pub fn arm(&mut self) -> Result<bool, RecvError> {
        self.reception.arm()
    }

    about!();
}

impl<T> AsFd for Subscriber<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reception.inlet().as_fd()
    }
}

impl<T> AsRawFd for Subscriber<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for RawSubscriber {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reception.inlet().as_fd()
    }
}

impl AsRawFd for RawSubscriber {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<T> fmt::Debug for Subscriber<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subscriber").field(&self.filters()).finish()
    }
}

impl fmt::Debug for RawSubscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawSubscriber").field(&self.filters()).finish()
    }
}
