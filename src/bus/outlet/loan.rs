//! Messages that are written in place by whoever sends them.

use super::fill::{prefix_len, refuse_head};
use super::large::Place;
use super::{Claimed, Outlet, PLAIN, STAGE};
use crate::bus::error::PublishError;
use crate::bus::spare::ALIGN;
use crate::frame::{self, Encoding, Head, Headers};
use crate::ring::blob::NAME;

/// Bytes of the largest loan, head and all, that is written in private memory; larger ones stand where they are going to
/// be read, and nothing copies them.
const SMALL: usize = 512;

const _: () = assert!(SMALL <= STAGE);

/// A loan: where its frame is written, and where in that the payload is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lent {
    place: Where,
    filler: usize,
    start: usize,
    end: usize,
    /// Its head says nothing but how long it is.
    plain: bool,
}

#[derive(Debug, Clone, Copy)]
enum Where {
    /// In the claimed record.
    Log,
    /// In the stage, so many bytes from there on, and copied when it is sent: a reader that polls takes a record's lines
    /// away while they are written ([`crate::ring::Writer::append`]).
    Stage { at: usize, len: usize },
    /// In the blob that was taken.
    Blob(Place),
}

impl Lent {
    pub(super) const NOTHING: Self = Self { place: Where::Log, filler: 0, start: 0, end: 0, plain: false };
}

/// The blob for the next loan begins with the plain head of so many bytes, as the last one did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    place: Place,
    size: usize,
}

impl Outlet {
    /// [`Outlet::loan`] of raw bytes on the port's one topic, without headers.
    #[inline(always)]
    pub(in crate::bus) fn loan_bytes(&mut self, size: usize) -> Result<bool, PublishError> {
        if let Some(Begun { place, .. }) = self.begun.filter(|begun| begun.size == size)
            && self.node.origin.is_here()
            && self.writer.claim(NAME).is_ok()
        {
            self.begun = None;
            self.pool.expect(false);
            self.name_large(place);
            let start = place.len - size;
            self.lent = Lent { place: Where::Blob(place), filler: 0, start, end: place.len, plain: true };
            return Ok(true);
        }
        self.loan_plain(size)
    }

    #[inline(never)]
    fn loan_plain(&mut self, size: usize) -> Result<bool, PublishError> {
        let is_lent = self.loan(&PLAIN, Encoding::Raw, size)?;
        self.lent.plain = is_lent;
        Ok(is_lent)
    }

    /// Claims room for a payload of `size` bytes that starts 64-byte aligned, and writes the frame up to it: that is in
    /// [`Outlet::loaned`] then. False if it was dropped.
    #[inline]
    pub(in crate::bus) fn loan(
        &mut self,
        head: &Head<'_>,
        encoding: Encoding,
        size: usize,
    ) -> Result<bool, PublishError> {
        if !self.node.origin.is_here() {
            return Err(PublishError::Forked);
        }
        let prefix = prefix_len(head)?;
        let bytes = size.saturating_add(prefix + ALIGN - 1);
        let (mut place, mut filler) = (Where::Log, 0);
        if bytes > self.writer.largest_body() as usize {
            let Some(taken) = self.loan_large(prefix, size)? else { return Ok(false) };
            place = Where::Blob(taken);
        } else {
            if self.claim(bytes)? == Claimed::Dropped {
                return Ok(false);
            }
            let at = self.writer.body_offset();
            filler = (at + prefix).wrapping_neg() % ALIGN;
            if bytes <= SMALL {
                place = Where::Stage { at: at % ALIGN, len: bytes };
                self.stage.0[..2 * ALIGN].fill(0); // the filler goes into the log, and nothing of what was there before
            }
        }
        let room = &mut self.room_mut(place)[filler..];
        let begun = head.begin(room, encoding).map_err(refuse_head)?;
        frame::finish_payload(room, begun, size);
        if let Where::Blob(place) = place {
            self.name_large(place);
        }
        let start = filler + prefix;
        self.lent = Lent { place, filler, start, end: start + size, plain: false };
        Ok(true)
    }

    /// The payload that [`Outlet::loan`] has lent; empty in a forked child, which has no such memory.
    pub(in crate::bus) fn loaned(&self) -> &[u8] {
        let Lent { place, start, end, .. } = self.lent;
        let room = match place {
            _ if !self.node.origin.is_here() => &[],
            Where::Log => self.writer.body(),
            Where::Stage { at, len } => &self.stage.0[at..at + len],
            Where::Blob(place) => self.large(place),
        };
        room.get(start..end).unwrap_or_default()
    }

    #[inline]
    pub(in crate::bus) fn loaned_mut(&mut self) -> &mut [u8] {
        let Lent { place, start, end, .. } = self.lent;
        if !self.node.origin.is_here() {
            return &mut [];
        }
        self.room_mut(place).get_mut(start..end).unwrap_or_default()
    }

    #[inline(always)]
    fn room_mut(&mut self, place: Where) -> &mut [u8] {
        match place {
            Where::Log => self.writer.body_mut(),
            Where::Stage { at, len } => &mut self.stage.0[at..at + len],
            Where::Blob(place) => self.large_mut(place),
        }
    }

    /// Publishes the loan.
    #[inline(always)]
    pub(in crate::bus) fn send_loan(&mut self, topic: Option<&str>) -> Result<(), PublishError> {
        if !self.node.origin.is_here() {
            return Err(PublishError::Forked);
        }
        if let Where::Blob(_) = self.lent.place {
            self.publish_named(); // first of all: its last bytes have just been written
        }
        self.finish_loan(topic)
    }

    #[inline(never)]
    fn finish_loan(&mut self, topic: Option<&str>) -> Result<(), PublishError> {
        let Lent { place, filler, start, end, plain } = self.lent;
        let size = end - start;
        let head = Head::Event { topic, headers: Headers::EMPTY };
        match place {
            Where::Log => self.finish(filler as u8, end - filler, size, &head),
            Where::Stage { at, .. } => {
                self.writer.publish_copy(filler as u8, &self.stage.0[at..at + end]);
                self.tell(size, &head)
            }
            Where::Blob(place) => {
                if self.tell_large(size, &head)? && plain {
                    self.begin_next(place, size);
                }
                Ok(())
            }
        }
    }

    /// Begins the next loan as the last one, while its reader reads.
    fn begin_next(&mut self, place: Place, size: usize) {
        if self.pool.has_prepared(place.bytes()) {
            let room = self.large_mut(place);
            self.begun = PLAIN.begin(room, Encoding::Raw).is_ok().then(|| {
                frame::finish_payload(room, place.len - size, size);
                Begun { place, size }
            });
        }
    }
}
