//! Messages that are written in place by whoever sends them.

use super::fill::{prefix_len, refuse_head};
use super::large::Place;
use super::{Claimed, Outlet, STAGE};
use crate::bus::error::PublishError;
use crate::bus::spare::ALIGN;
use crate::frame::{self, Encoding, Head, Headers};
use crate::ring::Kind;

/// Where a loan is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lent {
    /// In the claimed record.
    InLog,
    /// In the stage, so many bytes from there on, and copied when it is sent: a reader that polls takes a record's lines
    /// away while they are written ([`crate::ring::Writer::append`]).
    Staged { at: usize, len: usize },
    /// In the blob that was taken.
    InBlob(Place),
}

impl Outlet {
    /// Claims room for a payload of `size` bytes that starts 64-byte aligned, and writes the frame up to
    /// it. Where in [`Outlet::loaned`] the frame and the payload start; `None` if it was dropped.
    #[inline]
    pub(in crate::bus) fn loan(
        &mut self,
        head: &Head<'_>,
        encoding: Encoding,
        size: usize,
    ) -> Result<Option<(usize, usize)>, PublishError> {
        if !self.node.origin.is_here() {
            return Err(PublishError::Forked);
        }
        let prefix = prefix_len(head)?;
        self.lent = Lent::InLog;
        let bytes = size.saturating_add(prefix + ALIGN - 1);
        let mut filler = 0;
        if bytes > self.writer.largest_body() as usize {
            let Some(place) = self.loan_large(prefix, size)? else { return Ok(None) };
            self.lent = Lent::InBlob(place);
        } else {
            if self.claim(bytes)? == Claimed::Dropped {
                return Ok(None);
            }
            let at = self.writer.body_offset();
            filler = (at + prefix).wrapping_neg() % ALIGN;
            if bytes <= STAGE {
                self.lent = Lent::Staged { at: at % ALIGN, len: bytes };
            }
        }
        let room = &mut self.lent_mut()[filler..];
        let begun = head.begin(room, encoding).map_err(refuse_head)?;
        frame::finish_payload(room, begun, size);
        Ok(Some((filler, filler + prefix)))
    }

    /// What [`Outlet::loan`] has lent; empty in a forked child, which has no such memory.
    pub(in crate::bus) fn loaned(&self) -> &[u8] {
        match self.lent {
            _ if !self.node.origin.is_here() => &[],
            Lent::InLog => self.writer.body(),
            Lent::Staged { at, len } => &self.stage.0[at..at + len],
            Lent::InBlob(place) => self.large(place),
        }
    }

    #[inline]
    pub(in crate::bus) fn loaned_mut(&mut self) -> &mut [u8] {
        if self.node.origin.is_here() { self.lent_mut() } else { &mut [] }
    }

    #[inline]
    fn lent_mut(&mut self) -> &mut [u8] {
        match self.lent {
            Lent::InLog => self.writer.body_mut(),
            Lent::Staged { at, len } => &mut self.stage.0[at..at + len],
            Lent::InBlob(place) => self.large_mut(place),
        }
    }

    /// Publishes the loan.
    pub(in crate::bus) fn send_loan(
        &mut self,
        filler: usize,
        payload: std::ops::Range<usize>,
        topic: Option<&str>,
    ) -> Result<(), PublishError> {
        if !self.node.origin.is_here() {
            return Err(PublishError::Forked);
        }
        let head = Head::Event { topic, headers: Headers::EMPTY };
        match std::mem::replace(&mut self.lent, Lent::InLog) {
            Lent::InLog => return self.finish(filler as u8, payload.end - filler, payload.len(), &head),
            Lent::Staged { at, .. } => {
                self.writer.commit_copy(Kind::Frame, filler as u8, &self.stage.0[at..at + payload.end]);
            }
            Lent::InBlob(place) => return self.finish_large(place, payload.len(), &head),
        }
        self.show(payload.len(), &head)
    }
}
