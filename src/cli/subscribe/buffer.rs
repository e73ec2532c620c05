//! Messages between the bus and stdout: as many as fit in a given number of bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::{Destination, Encoding, Headers, NodeInfo, Sample};

/// What a message costs beside its payload and topic.
const OVERHEAD: usize = 208;
/// Messages that are taken out at a time.
const BATCH: usize = 256;

/// A message, copied off the bus.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) topic: String,
    pub(super) source: NodeInfo,
    pub(super) sequence: u64,
    pub(super) direct: bool,
    pub(super) priority: u8,
    pub(super) time: Option<SystemTime>,
    pub(super) correlation: Option<String>,
    pub(super) headers: Headers,
    pub(super) encoding: Encoding,
    pub(super) payload: Vec<u8>,
    cost: usize,
}

impl Entry {
    /// `None`: there is no memory for it.
    pub(super) fn new(sample: &Sample<'_>) -> Option<Self> {
        let mut payload = Vec::new();
        payload.try_reserve_exact(sample.len()).ok()?;
        payload.extend_from_slice(sample);
        Some(Self {
            topic: sample.topic().to_owned(),
            source: sample.source().clone(),
            sequence: sample.sequence(),
            direct: matches!(sample.destination(), Destination::Node(_)),
            priority: sample.priority(),
            time: sample.timestamp(),
            correlation: sample.correlation().map(str::to_owned),
            headers: sample.headers().clone(),
            encoding: sample.encoding(),
            payload,
            cost: Self::cost(sample),
        })
    }

    /// Bytes that it takes, about.
    pub(super) fn cost(sample: &Sample<'_>) -> usize {
        let headers: usize = sample.headers().iter().map(|(key, value)| key.len() + value.len() + 64).sum();
        let correlation = sample.correlation().map_or(0, str::len);
        OVERHEAD + sample.topic().len() + sample.len() + headers + correlation
    }
}

/// Why a message is not kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    NoMemory,
}

/// A queue of messages. Clones are the same queue.
#[derive(Clone)]
pub(super) struct Buffer {
    shared: Arc<Shared>,
    limit: usize,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Entry>,
    /// Cost of the entries, and of those taken and not given back yet.
    bytes: usize,
    closed: bool,
}

impl Buffer {
    pub(super) fn new(limit: usize) -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() }), limit }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Adds a message, if there is room for what it costs, and memory for it.
    pub(super) fn push(&self, cost: usize, entry: impl FnOnce() -> Option<Entry>) -> Result<(), Refused> {
        let mut state = self.lock();
        // A message alone is let in whatever its size, or it could never be printed.
        if state.bytes > 0 && state.bytes.saturating_add(cost) > self.limit {
            return Err(Refused::Full);
        }
        let entry = entry().ok_or(Refused::NoMemory)?;
        state.bytes += cost;
        state.entries.push_back(entry);
        if state.entries.len() == 1 {
            self.shared.changed.notify_one();
        }
        Ok(())
    }

    /// The next messages, as many as are there at once; empty if none is.
    pub(super) fn take(&self) -> Vec<Entry> {
        let mut state = self.lock();
        let many = state.entries.len().min(BATCH);
        state.entries.drain(..many).collect()
    }

    /// Waits for messages; false if none will come any more.
    pub(super) fn wait(&self) -> bool {
        let waiting = |state: &mut State| state.entries.is_empty() && !state.closed;
        let state = self.shared.changed.wait_while(self.lock(), waiting);
        !state.unwrap_or_else(PoisonError::into_inner).entries.is_empty()
    }

    /// Gives back the room of messages that are done with.
    pub(super) fn give_back(&self, done: Vec<Entry>) {
        let cost: usize = done.iter().map(|entry| entry.cost).sum();
        self.lock().bytes -= cost;
    }

    /// Nothing follows.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.shared.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bus;

    #[test]
    fn a_full_buffer_refuses_until_room_is_given_back() {
        let node = Bus::private().unwrap().join("test").unwrap();
        let mut subscriber = node.raw_subscriber("t").unwrap();
        let mut publisher = node.raw_publisher("t").unwrap();
        publisher.publish(&[1; 1000]).unwrap();
        let sample = subscriber.recv().unwrap();
        let cost = Entry::cost(&sample);
        let push = |buffer: &Buffer| buffer.push(cost, || Entry::new(&sample));

        let buffer = Buffer::new(2 * cost);
        assert_eq!([push(&buffer), push(&buffer), push(&buffer)], [Ok(()), Ok(()), Err(Refused::Full)]);
        let taken = buffer.take();
        assert_eq!(taken.len(), 2);
        assert_eq!(push(&buffer), Err(Refused::Full), "what is being written still takes room");
        buffer.give_back(taken);
        assert_eq!(buffer.push(cost, || None), Err(Refused::NoMemory));
        assert!(push(&buffer).is_ok() && buffer.wait());
        buffer.close();
        assert!(buffer.wait(), "what is left comes before the end");
        buffer.take();
        assert!(!buffer.wait());

        let tiny = Buffer::new(0);
        assert!(push(&tiny).is_ok() && push(&tiny).is_err(), "one message always goes in");
    }
}
