//! Those who wait for what others do, each with a deadline.

use std::collections::HashSet;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use super::report::Survey;
use super::{ANSWER, Core};
use crate::control::{DirectoryError, NodeId};
use crate::sys::clock;

/// How much longer a join waits at most that had no processor for a while.
const REPRIEVE: Duration = Duration::from_millis(50);

/// Somebody waits until others have answered, or until the deadline.
pub(super) struct Waiting {
    pub(super) deadline: Instant,
    pub(super) on: WaitingOn,
}

impl Waiting {
    /// Whether the deadline, which is over, is put off beyond `now`: once.
    fn extend(&mut self, now: Instant) -> bool {
        if let WaitingOn::Join { queued, .. } = &mut self.on
            && let Some(before) = queued.take()
        {
            self.deadline = now + clock::queued().saturating_sub(before).min(REPRIEVE);
        }
        now < self.deadline
    }
}

pub(super) enum WaitingOn {
    /// The ports of these nodes. The deadline is theirs: if this thread was without a processor meanwhile, their answers
    /// may be in its sockets, unread. `queued` is how long it was before ([`clock::queued`]).
    Join {
        nodes: HashSet<NodeId>,
        queued: Option<Duration>,
        reply: SyncSender<Result<(), DirectoryError>>,
    },
    /// That this much is in the peers' sockets.
    Sent {
        marks: Vec<(NodeId, u64)>,
        reply: SyncSender<()>,
    },
    Survey(Survey),
}

impl Core {
    /// Answers once everything queued so far is in its socket; a peer that does not read is waited for no
    /// longer than [`ANSWER`].
    pub(super) fn reply_when_sent(&mut self, reply: SyncSender<()>) {
        self.handle_events();
        let on = WaitingOn::Sent { marks: self.driver.marks(), reply };
        self.waiting.push(Waiting { deadline: Instant::now() + ANSWER, on });
    }

    pub(super) fn handle_waiting(&mut self) {
        let now = Instant::now();
        for mut waiting in std::mem::take(&mut self.waiting) {
            if !self.is_over(&mut waiting.on) && (now < waiting.deadline || waiting.extend(now)) {
                self.waiting.push(waiting);
            } else {
                self.reply(waiting.on);
            }
        }
    }

    fn is_over(&self, on: &mut WaitingOn) -> bool {
        match on {
            WaitingOn::Join { nodes, .. } => {
                nodes.retain(|node| match self.peers.get(node) {
                    Some(peer) => !peer.ports_done,
                    None => self.driver.is_dialling(*node),
                });
                nodes.is_empty()
            }
            WaitingOn::Sent { marks, .. } => self.driver.all_sent(marks),
            WaitingOn::Survey(survey) => survey.is_complete(),
        }
    }

    fn reply(&self, on: WaitingOn) {
        // Whoever asked may have gone meanwhile.
        let _ = match on {
            WaitingOn::Join { nodes, reply, .. } => {
                if !nodes.is_empty() {
                    tracing::warn!(
                        ?nodes,
                        "these nodes have not answered; they are joined in the background"
                    );
                }
                reply.send(Ok(())).is_ok()
            }
            WaitingOn::Sent { marks, reply } => {
                if !marks.is_empty() {
                    tracing::warn!(?marks, "these nodes do not read; they are told in the background");
                }
                reply.send(()).is_ok()
            }
            WaitingOn::Survey(survey) => survey.reply(),
        };
    }
}
