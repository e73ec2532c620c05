//! Evicting readers: the port goes on in another log, without them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Outlet, Want};
use crate::bus::blob::Pool;
use crate::bus::core::Command;
use crate::bus::error::PublishError;
use crate::ring::blob::NAME;

/// How long the new log's first blob may take to be shared.
const SHARING: Duration = Duration::from_secs(1);

impl Outlet {
    /// Cuts off whoever is in the way, and claims in a log of its own; false if nobody is, or a blob could not be shared
    /// in time.
    #[cold]
    pub(super) fn claim_by_eviction(&mut self, want: Want) -> Result<bool, PublishError> {
        if self.writer.has_corrupt() {
            self.report_corrupt(); // of this log; before the control thread knows the next one only
        }
        let mut slow = self.find_slow(want);
        slow.sort_unstable();
        slow.dedup();
        let count = slow.len() as u64;
        if slow.is_empty() || !self.succeed(slow)? {
            return Ok(false);
        }
        self.shared.counters.evict(count);
        self.claim_by(want, Instant::now().checked_add(SHARING))
    }

    /// Numbers of the readers that keep this from being claimed.
    fn find_slow(&self, want: Want) -> Vec<u16> {
        match want {
            Want::Record(body) => self.writer.in_the_way(body),
            Want::Blob(_) | Want::ReturnedBlob(_) => {
                let mut slow = self.writer.in_the_way(NAME);
                let unread = self.pool.oldest_unread().map(|end| self.writer.readers_before(end));
                slow.extend(unread.into_iter().flatten());
                slow
            }
        }
    }

    /// Goes on in another log with all readers but these. False if the node is gone.
    fn succeed(&mut self, slow: Vec<u16>) -> Result<bool, PublishError> {
        let (node, log) = (self.node.info.id(), self.node.next_log());
        let first = self.writer.sequence();
        let next = self.shared.successor(node, log, first);
        let next = next.map_err(|error| PublishError::Memory { reason: error.to_string() })?;
        let next = Arc::new(next);
        let old = self.shared.log;
        let command = |reply| Command::Succeed { log: old, next: next.clone(), slow, reply };
        if self.node.ask(command).is_err() {
            return Ok(false);
        }
        // From here on every healthy reader has been sent the next log.
        let writer = Self::writer_of(&next).continuing(first);
        let mut closed = std::mem::replace(&mut self.writer, writer);
        closed.close_for(log);
        closed.ring(|_| true, |reader| reader.bell.ring());
        self.shared = next;
        self.pool = Pool::new(self.config.limits.blob_memory); // blobs are a log's own
        self.begun = None;
        Ok(true)
    }
}
