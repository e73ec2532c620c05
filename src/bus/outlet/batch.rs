//! Several messages at once: one look at the readers for all of them.

use super::fill::fill;
use super::{Outlet, PLAIN};
use crate::bus::codec::{Body, BodyError};
use crate::bus::error::PublishError;
use crate::frame::Encoding;
use crate::segment::Via;

impl Outlet {
    /// Publishes messages that have a plain head; how many. They are seen all at once, or, where they make up more than
    /// half of the log or room has to be waited for, in several parts.
    ///
    /// # Errors
    /// Why the first that was not published was not; all before it were, and none after it.
    pub(in crate::bus) fn publish_batch<B: Body>(
        &mut self,
        encoding: Encoding,
        bodies: impl IntoIterator<Item = B>,
    ) -> Result<usize, PublishError> {
        if !self.node.origin.is_here() {
            return Err(PublishError::Forked);
        }
        let (mut count, mut unseen) = (0, 0);
        for body in bodies {
            match fill(&mut self.stage.0[..self.staged], &PLAIN, encoding, &body, Via::Caches) {
                Ok((frame, payload)) if self.writer.append(&self.stage.0[..frame]).is_ok() => {
                    self.shared.counters.message(payload);
                    unseen += 1;
                }
                Err(BodyError::Encode(reason)) => {
                    self.show_batch(unseen)?;
                    return Err(PublishError::Encode { reason });
                }
                // It is large, or there is no room: not before the others are seen, which may be what is in the way.
                _ => {
                    self.show_batch(unseen)?;
                    unseen = 0;
                    self.publish(&PLAIN, encoding, &body)?;
                }
            }
            count += 1;
        }
        self.show_batch(unseen)?;
        Ok(count)
    }

    fn show_batch(&mut self, unseen: usize) -> Result<(), PublishError> {
        if unseen > 0 {
            self.writer.publish();
            if !self.ring_all() {
                return self.confirm();
            }
        }
        Ok(())
    }
}
