//! Messages to the nodes of a name, and to all nodes: logs that open themselves when something is sent.
//!
//! ```text
//!   Node ──▶ Mail ─┬─ "critic"  ──▶ Outlet on @to/critic     opened by the first message, closed once nobody
//!                  ├─ "planner" ──▶ Outlet on @to/planner    of that name has an inbox any more
//!                  └─ all       ──▶ Outlet on @all           opened by the first broadcast, and kept
//! ```
//!
//! Each outlet is behind a lock of its own: threads that send to one name take turns, and wait for nobody else.
//! An outlet holds what the node's handles share, so [`Mail`] is held by the handles and not by that.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::blob::Limits;
use super::codec::{Body, Bytes, Value};
use super::core::{Audience, Command};
use super::error::{OpenError, SendError};
use super::inbox::{Inbox, InboxBuilder, RawInbox};
use super::metadata::{Outfit, outfit_setters};
use super::node::{Node, NodeShared};
use super::outlet::{Outlet, OutletConfig, Overflow, Sending};
use super::subscriber::{RawSubscriber, Subscriber, SubscriberBuilder};
use super::topic::Filter;
use crate::frame::{Encoding, Head, PortUp, Role};
use crate::wake::Wait;

/// Of each log, in bytes.
const CAPACITY: u64 = 64 * 1024;

/// The logs of what a node sends.
#[derive(Default)]
pub(super) struct Mail {
    /// By the receivers' name. Whoever holds a clone of a slot is about to use it.
    names: Mutex<HashMap<String, Arc<Slot>>>,
    all: Slot,
}

type Slot = Mutex<Option<Outlet>>;

impl Mail {
    fn send(
        &self,
        node: &Arc<NodeShared>,
        name: &str,
        head: &Head<'_>,
        encoding: Encoding,
        body: &impl Body,
    ) -> Result<(), SendError> {
        // Before any lock: in a forked child another thread may hold it, for ever.
        if !node.origin.is_here() {
            return Err(SendError::Forked);
        }
        let _sending = Sending::begin().map_err(nested)?;
        if node.unread.load(Relaxed) && node.unread.swap(false, Relaxed) {
            self.prune();
        }
        let slot = self.slot(name)?;
        let sent = write(&slot, node, name, head, encoding, body);
        drop(slot);
        if matches!(sent, Err(SendError::NotFound { .. } | SendError::Denied { .. })) {
            self.prune();
        }
        sent
    }

    fn slot(&self, name: &str) -> Result<Arc<Slot>, SendError> {
        let mut names = self.names.lock();
        if let Some(slot) = names.get(name) {
            return Ok(slot.clone());
        }
        Filter::inbox_of(name)?;
        Ok(names.entry(name.to_owned()).or_default().clone())
    }

    /// Closes the logs that nobody reads. One in use stays: two logs for one name would mix up the order.
    #[cold]
    fn prune(&self) {
        let mut closed = Vec::new();
        self.names.lock().retain(|_, slot| {
            let Some(slot) = Arc::get_mut(slot) else { return true };
            if slot.get_mut().as_ref().is_some_and(Outlet::has_readers) {
                return true;
            }
            closed.extend(slot.get_mut().take());
            false
        });
        // The outlets are dropped without the lock.
    }

    fn broadcast(
        &self,
        node: &Arc<NodeShared>,
        head: &Head<'_>,
        encoding: Encoding,
        body: &impl Body,
    ) -> Result<(), SendError> {
        if !node.origin.is_here() {
            return Err(SendError::Forked);
        }
        let _sending = Sending::begin().map_err(nested)?;
        let mut outlet = self.all.lock();
        let outlet = match &mut *outlet {
            Some(outlet) => outlet,
            closed => closed.insert(open(node, Filter::all())?),
        };
        Ok(outlet.publish(head, encoding, body)?)
    }
}

/// Writes to a name's log, which is opened if somebody is there to read it.
fn write(
    slot: &Slot,
    node: &Arc<NodeShared>,
    name: &str,
    head: &Head<'_>,
    encoding: Encoding,
    body: &impl Body,
) -> Result<(), SendError> {
    let mut slot = slot.lock();
    let outlet = match &mut *slot {
        Some(outlet) if outlet.has_readers() => outlet,
        unread => {
            *unread = None;
            let (topic, not_found) =
                (Filter::inbox_of(name)?, || SendError::NotFound { name: name.to_owned() });
            // Asked first, so that calling for somebody who is not there makes no log each time.
            match node.ask(|reply| Command::FindReader { topic: topic.clone(), reply })? {
                Audience::Somebody => {}
                Audience::Nobody => return Err(not_found()),
                Audience::Denied(reason) => return Err(SendError::Denied { reason }),
            }
            let outlet = open(node, topic)?;
            if !outlet.has_readers() {
                return Err(not_found());
            }
            unread.insert(outlet)
        }
    };
    Ok(outlet.publish(head, encoding, body)?)
}

fn nested(reason: &'static str) -> SendError {
    SendError::Encode { reason: reason.to_owned() }
}

fn open(node: &Arc<NodeShared>, topic: Filter) -> Result<Outlet, OpenError> {
    let (overflow, wait, priority) = (Overflow::default(), Wait::default(), PortUp::DEFAULT_PRIORITY);
    let limits = Limits::default();
    Outlet::open(node, topic, OutletConfig { capacity: CAPACITY, overflow, wait, priority, limits })
}

/// A direct message or a broadcast about to be sent; from [`Node::message_to`] or [`Node::message_to_all`].
#[must_use = "nothing is sent until `send`"]
pub struct Letter<'a, B> {
    node: &'a Node,
    /// The name; `None` for all.
    to: Option<&'a str>,
    body: B,
    encoding: Encoding,
    outfit: Outfit<'a>,
}

impl<'a, B: Body> Letter<'a, B> {
    outfit_setters!();

    /// Sends it.
    ///
    /// # Errors
    /// [`SendError`]; the message was then not sent.
    pub fn send(self) -> Result<(), SendError> {
        let Self { node: Node { shared, mail }, to, body, encoding, outfit } = self;
        let sent = outfit.with(|headers| match to {
            Some(name) => mail.send(shared, name, &Head::Direct { headers }, encoding, &body),
            None => mail.broadcast(shared, &Head::Broadcast { topic: None, headers }, encoding, &body),
        });
        sent.map_err(|reason| SendError::Headers { reason })?
    }
}

impl<B> fmt::Debug for Letter<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut letter = f.debug_struct("Letter");
        letter.field("to", &self.to).field("headers", &self.outfit.headers).finish_non_exhaustive()
    }
}

/// Direct messages and broadcasts. Clones of the node, and threads, can send at the same time.
impl Node {
    /// Sends a value to the nodes of this name: each inbox that one of them has open gets a copy
    /// ([`Node::inbox`]). What one thread sends to one name arrives in order. An inbox that is opened while
    /// messages are on their way to others gets what is sent a moment later.
    ///
    /// Waits up to 1 s for an inbox that is full. The first message to a name costs this node a log, 68 KiB
    /// of shared memory and two file descriptors; it is closed when a message is sent (to anybody) after the
    /// last inbox of that name has gone. A payload can have 64 MiB; those over some 16 000 bytes take memory of their own,
    /// at most 256 MiB for a name, which is used again.
    ///
    /// # Errors
    /// [`SendError::NotFound`] at once if there is no such inbox; [`SendError`] for others. The message was
    /// then not sent.
    ///
    /// # Examples
    /// ```
    /// let bus = ringbus::Bus::private()?;
    /// let (writer, critic) = (bus.join("writer")?, bus.join("critic")?);
    /// assert!(writer.send("critic", "a draft").is_err()); // no inbox yet
    ///
    /// let mut inbox = critic.inbox::<String>()?;
    /// writer.send("critic", "a draft")?;
    /// let draft = inbox.recv()?;
    /// assert_eq!((draft.as_str(), draft.source().name()), ("a draft", "writer"));
    /// # Ok::<(), ringbus::Error>(())
    /// ```
    pub fn send<T: Serialize + ?Sized>(&self, name: &str, value: &T) -> Result<(), SendError> {
        self.message_to(name, value).send()
    }

    /// Prepares a direct message with headers and the like; see [`Node::send`].
    ///
    /// # Examples
    /// ```
    /// # let critic = ringbus::Bus::private()?.join("critic")?;
    /// # let mut inbox = critic.inbox::<String>()?;
    /// critic.message_to("critic", "a draft").header("language", "en").correlation("task 42").send()?;
    /// assert_eq!(inbox.recv()?.correlation(), Some("task 42"));
    /// # Ok::<(), ringbus::Error>(())
    /// ```
    pub fn message_to<'a, T: Serialize + ?Sized>(
        &'a self,
        name: &'a str,
        value: &'a T,
    ) -> Letter<'a, impl Body + use<'a, T>> {
        self.letter(Some(name), Value { value, compact: false }, Encoding::MessagePack)
    }

    /// Prepares a direct message of bytes; see [`Node::message_to`].
    pub fn raw_message_to<'a>(&'a self, name: &'a str, bytes: &'a [u8]) -> Letter<'a, impl Body + use<'a>> {
        self.letter(Some(name), Bytes(bytes), Encoding::Raw)
    }

    /// Opens an inbox of values: what is sent to this node's name arrives there, in each inbox of that name.
    ///
    /// Costs 4 KiB of shared memory, and the address space of the logs it reads.
    ///
    /// # Errors
    /// [`OpenError`]: the process is out of memory or file descriptors, or the node's name has more than 251
    /// bytes.
    pub fn inbox<T: DeserializeOwned>(&self) -> Result<Inbox<T>, OpenError> {
        self.inbox_builder().open()
    }

    /// Opens an inbox of bytes; see [`Node::inbox`].
    ///
    /// # Errors
    /// Those of [`Node::inbox`].
    pub fn raw_inbox(&self) -> Result<RawInbox, OpenError> {
        self.inbox_builder().open_raw()
    }

    /// Settings for an inbox.
    pub fn inbox_builder(&self) -> InboxBuilder<'_> {
        InboxBuilder::new(&self.shared)
    }

    /// Sends a value to whoever listens to broadcasts, this node itself included ([`Node::broadcasts`]). That
    /// nobody does is no error. Broadcasts of one thread arrive in order, but not in any order with what is
    /// published or sent otherwise.
    ///
    /// Waits up to 1 s for a listener that does not keep up. The first broadcast costs this node a log, 68
    /// KiB of shared memory and two file descriptors, for as long as the node lives. A payload can have 64 MiB, as
    /// with [`Node::send`].
    ///
    /// # Errors
    /// [`SendError`]; the message was then not sent.
    ///
    /// # Examples
    /// ```
    /// let bus = ringbus::Bus::private()?;
    /// let (planner, worker) = (bus.join("planner")?, bus.join("worker")?);
    /// let mut broadcasts = worker.broadcasts::<String>()?;
    /// planner.broadcast("shut down")?;
    /// assert_eq!(*broadcasts.recv()?, "shut down");
    /// # Ok::<(), ringbus::Error>(())
    /// ```
    pub fn broadcast<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), SendError> {
        self.message_to_all(value).send()
    }

    /// Prepares a broadcast with headers and the like; see [`Node::broadcast`].
    pub fn message_to_all<'a, T: Serialize + ?Sized>(
        &'a self,
        value: &'a T,
    ) -> Letter<'a, impl Body + use<'a, T>> {
        self.letter(None, Value { value, compact: false }, Encoding::MessagePack)
    }

    /// Prepares a broadcast of bytes; see [`Node::broadcast`].
    pub fn raw_message_to_all<'a>(&'a self, bytes: &'a [u8]) -> Letter<'a, impl Body + use<'a>> {
        self.letter(None, Bytes(bytes), Encoding::Raw)
    }

    fn letter<'a, B>(&'a self, to: Option<&'a str>, body: B, encoding: Encoding) -> Letter<'a, B> {
        Letter { node: self, to, body, encoding, outfit: Outfit::default() }
    }

    /// Opens a subscriber of values to the broadcasts of all nodes, this one's included. Whoever has not sent
    /// any before is heard from its first one on, others from a moment after this returned.
    ///
    /// # Errors
    /// [`OpenError`]: the process is out of memory or file descriptors.
    pub fn broadcasts<T: DeserializeOwned>(&self) -> Result<Subscriber<T>, OpenError> {
        self.broadcasts_builder().open()
    }

    /// Opens a subscriber of bytes to broadcasts; see [`Node::broadcasts`].
    ///
    /// # Errors
    /// Those of [`Node::broadcasts`].
    pub fn raw_broadcasts(&self) -> Result<RawSubscriber, OpenError> {
        self.broadcasts_builder().open_raw()
    }

    /// Settings for a subscriber to broadcasts. With further filters it gets what they match as well.
    pub fn broadcasts_builder(&self) -> SubscriberBuilder<'_> {
        SubscriberBuilder::new(&self.shared, Role::Subscriber, Ok(Filter::all()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Bus, RecvError};

    #[test]
    fn frames_that_do_not_fit_their_logs_topic_are_told_and_passed_over() {
        let node = Bus::private().unwrap().join("node").unwrap();
        let mut inbox = node.inbox::<u32>().unwrap();
        let mut broadcasts = node.broadcasts::<u32>().unwrap();
        let mut events = node.subscriber::<u32>("t").unwrap();
        let headers = crate::frame::Headers::EMPTY;
        let heads = [
            Head::Direct { headers },
            Head::Broadcast { topic: None, headers },
            Head::Event { topic: None, headers },
            Head::Broadcast { topic: Some("@all"), headers },
            Head::Item { id: 1, seq: 2 },
        ];
        let topics = [Filter::inbox_of("node").unwrap(), Filter::all(), Filter::new("t").unwrap()];
        for (fits, topic) in topics.into_iter().enumerate() {
            let mut outlet = open(&node.shared, topic).unwrap();
            for head in &heads {
                outlet.publish(head, Encoding::MessagePack, &Value { value: &7, compact: false }).unwrap();
            }
            for (at, head) in heads.iter().enumerate() {
                let received = match fits {
                    0 => inbox.recv().map(|message| *message),
                    1 => broadcasts.recv().map(|message| *message),
                    _ => events.recv().map(|message| *message),
                };
                match received {
                    Ok(value) => assert_eq!((at, value), (fits, 7)),
                    Err(RecvError::Decode { reason, .. }) => {
                        assert!(at != fits && reason.contains(&format!("{:?}", head.kind())), "{reason}")
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    #[test]
    fn a_topic_that_its_publisher_was_not_opened_for_is_told_and_passed_over() {
        let node = Bus::private().unwrap().join("node").unwrap();
        let mut events = node.subscriber::<u32>("**").unwrap();
        let mut outlet = open(&node.shared, Filter::new("task/*").unwrap()).unwrap();
        for (topic, fits) in [("task/1", true), ("secret/1", false), ("task/1/2", false), ("task/2", true)] {
            let head = Head::Event { topic: Some(topic), headers: crate::frame::Headers::EMPTY };
            outlet.publish(&head, Encoding::MessagePack, &Value { value: &7, compact: false }).unwrap();
            match events.recv() {
                Ok(message) => assert_eq!((message.topic(), fits), (topic, true)),
                Err(RecvError::Decode { reason, .. }) => assert!(!fits && reason.contains(topic), "{reason}"),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// A topic that no port of this version writes: a filter is held against it before it is checked.
    #[test]
    fn topics_of_empty_levels_harm_nobody() {
        let node = Bus::private().unwrap().join("node").unwrap();
        let mut subscribers = ["**", "a/**", "*/**/*"].map(|filter| node.subscriber::<u32>(filter).unwrap());
        let mut outlet = open(&node.shared, Filter::new("**").unwrap()).unwrap();
        let lengths = [1, 2, 126, 127, 128, 129, 200, 254, 255, 256, 1000];
        for topic in lengths.iter().flat_map(|len| ["/".repeat(*len), format!("a{}", "/".repeat(*len))]) {
            let head = Head::Event { topic: Some(&topic), headers: crate::frame::Headers::EMPTY };
            outlet.publish(&head, Encoding::MessagePack, &Value { value: &7, compact: false }).unwrap();
        }
        let head = Head::Event { topic: Some("a/b"), headers: crate::frame::Headers::EMPTY };
        outlet.publish(&head, Encoding::MessagePack, &Value { value: &8, compact: false }).unwrap();
        for subscriber in &mut subscribers {
            let value = loop {
                match subscriber.recv() {
                    Ok(message) => break *message,
                    Err(RecvError::Decode { reason, .. }) => {
                        assert!(reason.contains("has no place"), "{reason}")
                    }
                    Err(error) => panic!("{error}"),
                }
            };
            assert_eq!(value, 8);
        }
    }

    #[test]
    fn a_value_that_sends_while_it_is_serialised_is_refused_not_waited_for() {
        struct Nested(Node);
        impl Serialize for Nested {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                self.0.broadcast(&1).map_err(serde::ser::Error::custom)?;
                unreachable!("sent from within")
            }
        }
        let node = Bus::private().unwrap().join("node").unwrap();
        let mut inbox = node.inbox::<u32>().unwrap();
        for sent in [node.send("node", &Nested(node.clone())), node.broadcast(&Nested(node.clone()))] {
            let error = sent.unwrap_err().to_string();
            assert!(error.contains("while another is being serialised"), "{error}");
        }
        node.send("node", &2).unwrap();
        assert_eq!(*inbox.recv().unwrap(), 2);
    }
}
