//! Messages that are written in place by whoever sends them.

use super::fill::{prefix_len, refuse_head};
use super::large::ALIGN;
use super::{Claimed, Outlet};
use crate::bus::error::PublishError;
use crate::frame::{self, Encoding, Head, Headers};

impl Outlet {
    /// Claims room for a payload of `size` bytes that starts 64-byte aligned, and writes the frame up to
    /// it. Where in the claimed body the frame and the payload start; `None` if it was dropped.
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
        self.lent = None;
        let bytes = size.saturating_add(prefix + ALIGN - 1);
        if bytes > self.writer.largest_body() as usize {
            return Ok(self.loan_large(head, encoding, prefix, size)?.map(|start| (0, start)));
        }
        if self.claim(bytes)? == Claimed::Dropped {
            return Ok(None);
        }
        let filler = (self.writer.body_offset() + prefix).wrapping_neg() % ALIGN;
        let room = &mut self.writer.body_mut()[filler..];
        let begun = head.begin(room, encoding).map_err(refuse_head)?;
        frame::finish_payload(room, begun, size);
        Ok(Some((filler, filler + prefix)))
    }

    /// The body claimed by [`Outlet::loan`], or the frame in the blob that it took; empty in a forked child, which has
    /// no such memory.
    pub(in crate::bus) fn loaned(&self) -> &[u8] {
        match self.lent {
            _ if !self.node.origin.is_here() => &[],
            Some(place) => self.large(place),
            None => self.writer.body(),
        }
    }

    pub(in crate::bus) fn loaned_mut(&mut self) -> &mut [u8] {
        match self.lent {
            _ if !self.node.origin.is_here() => &mut [],
            Some(place) => self.large_mut(place),
            None => self.writer.body_mut(),
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
        match self.lent.take() {
            Some(place) => self.finish_large(place, payload.len(), &head),
            None => self.finish(filler as u8, payload.end - filler, payload.len(), &head),
        }
    }
}
