//! The end of a node that drains: nothing more is published, and what was is read to the end.

use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use super::super::drain::Unread;
use super::super::peer::NodeInfo;
use super::super::topic::Filter;
use super::Core;
use super::attach::LocalOutlet;
use crate::ring::layout;
use crate::wake::barrier;

/// How often it is looked whether readers have moved on: no bell of this thread's tells.
const TICK: Duration = Duration::from_millis(1);

/// Closed logs times readers that are remembered: more there are only with readers that do not read at all.
const CLOSED: usize = 4096;

/// Those who wait for the node to leave.
pub(super) struct Draining {
    deadline: Instant,
    replies: Vec<SyncSender<Vec<Unread>>>,
    /// What was left when it was over.
    left: Vec<Unread>,
}

/// A reader that had not read a log to its end when that was closed. It lets go of the log when it has.
pub(super) struct ClosedUnread {
    pub(super) log: u64,
    pub(super) port: u64,
    pub(super) number: u16,
    pub(super) reader: NodeInfo,
    topic: Filter,
    bytes: u64,
}

impl Core {
    /// Remembers who has not read a log that is closed.
    pub(super) fn note_unread(&mut self, outlet: &LocalOutlet) {
        let shared = &outlet.shared;
        for (gate, bytes) in shared.gates.behind(layout::tail(&*shared.segment)) {
            let number = gate.number();
            let Some(((_, port), _)) = outlet.readers.iter().find(|(_, gate)| **gate == number) else {
                continue;
            };
            if self.closed.len() == CLOSED {
                self.closed.pop_front();
            }
            let (log, reader, topic) = (shared.log, gate.info.node.clone(), shared.filter.clone());
            self.closed.push_back(ClosedUnread { log, port: *port, number, reader, topic, bytes });
        }
    }

    /// Keeps all publishers of this node from publishing, those that are being opened included. What is being published
    /// has either come into sight after this, or is asked about: see `Outlet::confirm`.
    pub(super) fn halt(&mut self) {
        if std::mem::replace(&mut self.is_halted, true) {
            return;
        }
        for outlet in self.publishers() {
            outlet.shared.gates.halt(|| ());
        }
        barrier::on_own_threads(); // for all of them
        for outlet in self.publishers() {
            outlet.shared.bell.ring(); // whoever waits for room gives up
        }
    }

    pub(super) fn start_drain(&mut self, deadline: Instant, reply: SyncSender<Vec<Unread>>) {
        let draining =
            self.draining.get_or_insert(Draining { deadline, replies: Vec::new(), left: Vec::new() });
        draining.deadline = draining.deadline.min(deadline);
        draining.replies.push(reply);
    }

    /// When to look again.
    pub(super) fn next_drain_look(&self) -> Option<Instant> {
        self.draining.as_ref().map(|_| Instant::now() + TICK)
    }

    /// Whether the node drains, and is done with it, or out of time.
    pub(super) fn has_drained(&mut self) -> bool {
        let Some(deadline) = self.draining.as_ref().map(|draining| draining.deadline) else { return false };
        let unread = self.unread_logs();
        if !unread.is_empty() && Instant::now() < deadline {
            return false;
        }
        self.draining.as_mut().into_iter().for_each(|draining| draining.left.clone_from(&unread));
        true
    }

    /// Who has not read what; they are asked to tell of each step from now on.
    fn unread_logs(&self) -> Vec<Unread> {
        let mut unread = Vec::new();
        for outlet in self.publishers() {
            let shared = &outlet.shared;
            let behind = shared.gates.behind(layout::tail(&*shared.segment));
            if !behind.is_empty() {
                layout::ask_for_cursors(&*shared.segment);
            }
            let topic = || shared.filter.as_str().to_owned();
            unread.extend(behind.into_iter().map(|(gate, bytes)| Unread {
                topic: topic(),
                reader: gate.info.node.clone(),
                bytes,
            }));
        }
        unread.extend(self.closed.iter().map(|left| Unread {
            topic: left.topic.as_str().to_owned(),
            reader: left.reader.clone(),
            bytes: left.bytes,
        }));
        unread.sort_by(|a, b| (&a.topic, a.reader.id()).cmp(&(&b.topic, b.reader.id())));
        unread
    }

    /// The end. Those who wait for it are told when all others have been.
    pub(super) fn end(mut self) {
        let draining = self.draining.take();
        drop(self);
        if let Some(Draining { replies, left, .. }) = draining {
            replies.iter().for_each(|reply| drop(reply.send(left.clone())));
        }
    }
}
