//! Messages that do not fit the log: in blobs, which records of the log name.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::copying::Payload;
use super::fill::{fill, refuse_body};
use super::{Claimed, Outlet, Overflow, Want};
use crate::bus::blob::{Limits, NewBlob, Shared, Take};
use crate::bus::codec::Body;
use crate::bus::core::Command;
use crate::bus::error::PublishError;
use crate::bus::spare::ALIGN;
use crate::frame::{Encoding, Head};
use crate::ring::blob::{BESIDE, FRAMES, NAME};
use crate::ring::{Blob, BlobHeader};
use crate::segment::{Memory, Sealed, SegmentError};
use crate::wake::Wait;

/// How long it takes to make 64 KiB of a blob: mostly page faults.
const MAKING: Duration = Duration::from_micros(50);
/// How long a reader takes to be done with 64 KiB of one, if it does no more than look at each byte.
const READING: Duration = Duration::from_micros(4);

/// Where a frame stands in its blob.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    at: usize,
    pub(super) len: usize,
}

impl Place {
    /// The payload is aligned, and the head before it, as near to the generation as may be: mostly in its line, and the
    /// payload's first line is the other one of the pair that many processors fetch together.
    pub(super) fn of(prefix: usize, payload: usize) -> Self {
        let start = (FRAMES + prefix).next_multiple_of(ALIGN);
        Self { at: start - prefix, len: prefix.saturating_add(payload) }
    }

    /// How large a class has room for it.
    pub(super) fn bytes(&self) -> u64 {
        self.at.saturating_add(self.len).saturating_sub(BESIDE) as u64
    }
}

/// What [`Outlet::put`] takes, if not at once.
#[derive(Debug, Clone, Copy)]
pub(in crate::bus) struct Room {
    /// Bytes of the largest frame in the log.
    in_log: usize,
    limits: Limits,
}

impl Room {
    /// Bytes of the largest payload behind a head of this length. In the log, it would need `spare` bytes more.
    pub(in crate::bus) fn largest(&self, prefix: usize, spare: usize) -> usize {
        let largest = self.limits.largest() as usize;
        // Of a long head, as much as has no room before the payload.
        let beyond = Place::of(prefix, largest).bytes().saturating_sub(self.limits.largest_class());
        self.in_log.saturating_sub(prefix + spare).max(largest.saturating_sub(beyond as usize))
    }

    /// Whether a frame of so many bytes, of which so many are its payload, is put there once there is room. What is put and
    /// never fits would wait for ever.
    pub(in crate::bus) fn takes(&self, frame: usize, payload: usize) -> bool {
        frame <= self.in_log || self.takes_in_blob(frame, payload)
    }

    pub(super) fn takes_in_blob(&self, frame: usize, payload: usize) -> bool {
        let place = Place::of(frame - payload, payload);
        payload as u64 <= self.limits.largest() && self.limits.class(place.bytes()).is_some()
    }
}

impl Outlet {
    pub(in crate::bus) fn room(&self) -> Room {
        Room { in_log: self.writer.largest_body() as usize, limits: self.config.limits }
    }

    #[cold]
    pub(super) fn publish_large(
        &mut self,
        head: &Head<'_>,
        encoding: Encoding,
        body: &impl Body,
        prefix: usize,
        size: usize,
    ) -> Result<(), PublishError> {
        self.pool.expect(true);
        let Some(place) = self.claim_large(prefix, size, 0)? else { return Ok(()) };
        let turn = self.copying.begin(Payload::of(encoding, size));
        let filled = fill(self.large_mut(place), head, encoding, body, turn.via);
        match filled {
            Ok((frame, payload)) => {
                self.copying.end(turn, payload);
                self.finish_large(Place { len: frame, ..place }, payload, head).map(|_| ())
            }
            Err(error) => {
                self.pool.put_back();
                Err(refuse_body(error, size))
            }
        }
    }

    /// Takes a blob for a loan; `None` if it was dropped.
    #[inline]
    pub(super) fn loan_large(&mut self, prefix: usize, size: usize) -> Result<Option<Place>, PublishError> {
        self.begun = None;
        self.pool.expect(false);
        let place = Place::of(prefix, size);
        let is_prepared =
            self.pool.has_prepared(place.bytes()) && size as u64 <= self.config.limits.largest();
        if is_prepared && self.writer.claim(NAME).is_ok() {
            return Ok(Some(place));
        }
        self.claim_large(prefix, size, ALIGN - 1)
    }

    /// The frame in the blob that was taken.
    pub(super) fn large(&self, place: Place) -> &[u8] {
        self.pool.lent().map_or(&[], |blob| blob.bytes(place.at, place.len))
    }

    #[inline]
    pub(super) fn large_mut(&mut self, place: Place) -> &mut [u8] {
        self.pool.lent_mut().map_or(&mut [], |blob| blob.bytes_mut(place.at, place.len))
    }

    /// Publishes the blob, and prepares the next: true if that may be written, as
    /// [`Pool::prepare`](crate::bus::blob::Pool::prepare) says.
    ///
    /// # Errors
    /// Those of [`Outlet::show`].
    pub(super) fn finish_large(
        &mut self,
        place: Place,
        payload: usize,
        head: &Head<'_>,
    ) -> Result<bool, PublishError> {
        self.name_large(place);
        self.publish_named();
        self.tell_large(payload, head)
    }

    /// Names the blob that was taken.
    #[inline(always)]
    pub(super) fn name_large(&mut self, place: Place) {
        self.naming = self.pool.name(&self.writer, place.at, place.len);
    }

    /// Publishes the blob, if one is named: [`Outlet::tell_large`] does the rest.
    #[inline(always)]
    pub(super) fn publish_named(&mut self) {
        debug_assert!(self.naming.is_some(), "it was named when it was taken");
        if let Some(naming) = &self.naming {
            self.pool.publish(&mut self.writer, naming);
            self.naming = None;
        }
    }

    /// After the blob was published: prepares the next.
    ///
    /// # Errors
    /// Those of [`Outlet::finish_large`].
    pub(super) fn tell_large(&mut self, payload: usize, head: &Head<'_>) -> Result<bool, PublishError> {
        self.tell(payload, head)?;
        Ok(self.pool.prepare(&mut self.writer))
    }

    /// Takes a blob, and claims room for the record that names it, under the port's policy; `None` if the message was
    /// dropped. In the log, the message would need `spare` bytes more.
    fn claim_large(
        &mut self,
        prefix: usize,
        size: usize,
        spare: usize,
    ) -> Result<Option<Place>, PublishError> {
        let limits = &self.config.limits;
        let place = Place::of(prefix, size);
        let class = limits.class(place.bytes()).filter(|_| size as u64 <= limits.largest());
        let class =
            class.ok_or(PublishError::TooLarge { size, limit: self.room().largest(prefix, spare) })?;
        let may_wait = matches!(self.config.overflow, Overflow::Block { .. } | Overflow::Evict { .. });
        if may_wait {
            self.await_reader(class);
        }
        if self.try_large(class, !may_wait)? || self.claim_when_full(Want::Blob(class))? == Claimed::Yes {
            return Ok(Some(place));
        }
        Ok(None)
    }

    /// A writer that is far ahead of its reader goes through all the blobs that there are, and both of them through more
    /// memory than a cache holds: waits for the reader as long as it may take for one, and no longer.
    fn await_reader(&mut self, class: u64) {
        if self.config.wait == Wait::Park || !self.pool.is_ahead(&mut self.writer) {
            return;
        }
        let start = Instant::now();
        let most = READING.saturating_mul((class >> 16) as u32);
        while self.pool.is_ahead(&mut self.writer) && start.elapsed() < most {
            (0..8).for_each(|_| std::hint::spin_loop()); // the cursor's line is the reader's meanwhile
        }
    }

    /// Waits for a blob to come back, where enough are out, for as long as it takes to make another: a few that stay in
    /// the cache are faster than many, and a reader that needs more than that gets them.
    pub(super) fn claim_returned(
        &mut self,
        want: Want,
        start: Instant,
        deadline: Option<Instant>,
    ) -> Result<bool, PublishError> {
        let Want::Blob(class) = want else { return Ok(false) };
        let soon = start + MAKING.saturating_mul((class >> 16) as u32);
        self.claim_by(Want::ReturnedBlob(class), Some(deadline.map_or(soon, |deadline| deadline.min(soon))))
    }

    /// Takes a blob of this size and claims the record, if both are there. Makes the blob if it may: always if it
    /// `must`, else while few are out.
    pub(super) fn try_large(&mut self, class: u64, must: bool) -> Result<bool, PublishError> {
        self.begun = None;
        if self.writer.claim(NAME).is_err() {
            return Ok(false);
        }
        match self.pool.take(class, must, &mut self.writer) {
            Take::Ready => Ok(true),
            Take::Wait => Ok(false),
            Take::Make { gone } => {
                let log = self.shared.log;
                for blob in gone {
                    self.node.tell(Command::BlobGone { log, blob });
                }
                match self.make_blob(class) {
                    Ok(true) => Ok(self.pool.take(class, must, &mut self.writer) == Take::Ready),
                    // Where it would only have been another one, those that are there do.
                    made => Ok(self.pool.take_free(class) || made?),
                }
            }
        }
    }

    /// Makes a blob and has the control thread give it to every reader; false if this process is short of something
    /// just now, and blobs are to come back.
    fn make_blob(&mut self, class: u64) -> Result<bool, PublishError> {
        let log = self.shared.log;
        // All pages at once, however large: a page fault costs more than a share of this.
        let segment = match Sealed::create("ringbus-blob", BESIDE + class as usize, true) {
            Ok(segment) => Arc::new(segment),
            // No blob that comes back helps against the limit of a file's size, but one that is free.
            Err(error) if self.pool.in_use() > 0 && !matches!(error, SegmentError::FileSizeLimit { .. }) => {
                return Ok(false);
            }
            Err(error) => return Err(PublishError::Memory { reason: error.to_string() }),
        };
        let (blob, size) = (self.pool.next_id(), segment.size() as u64);
        let header = BlobHeader { log, node: *self.node.info.id().as_bytes(), blob };
        let (fd, shared) = (segment.shared_fd(), Shared::default());
        let made = Blob::new(segment, &header); // before anybody maps it
        let new = NewBlob { blob, size, fd, shared: shared.clone() };
        self.node
            .ask(|reply| Command::ShareBlob { log, new, reply })
            .map_err(|error| PublishError::Memory { reason: error.to_string() })?;
        // Not before: one that nobody shares would be waited for.
        self.pool.add(made, class, shared);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bus::blob::Limits;
    use crate::frame::MAX_HEAD;

    proptest! {
        #[test]
        fn a_frame_stands_within_the_blob_of_its_class(
            prefix in prop_oneof![1..80usize, 1..=MAX_HEAD],
            (power, by) in (16..=31u32, -5000..5000i64),
        ) {
            let limits = Limits { max_message: u64::MAX, blob_memory: u64::MAX };
            let payload = ((1i64 << power) + by) as usize;
            let place = Place::of(prefix, payload);
            prop_assert!(place.at >= FRAMES && (place.at + prefix).is_multiple_of(ALIGN));
            if let Some(class) = limits.class(place.bytes()) {
                prop_assert!(place.at + place.len <= BESIDE + class as usize);
                prop_assert!(class == limits.class(1).unwrap() || place.bytes() > class / 2);
            } else {
                prop_assert!(place.bytes() > crate::bus::blob::LARGEST);
            }
        }
    }
}
