//! Frames that were made while there was no room for them.

use super::Outlet;
use super::copying::Payload;
use super::large::Place;
use crate::bus::spare::ALIGN;
use crate::frame::{self, Encoding, Head, PayloadSpan};
use crate::ring::Kind;
use crate::segment;

impl Outlet {
    /// Publishes a whole frame if there is room for it now. Bytes are aligned as a loan's, which they may have been.
    pub(in crate::bus) fn put(&mut self, frame: &[u8]) -> bool {
        if !self.node.origin.is_here() {
            return false;
        }
        let in_log = self.writer.largest_body() as usize;
        let Ok((head, span)) = frame::decode_head(frame, frame.len()) else {
            let is_put = frame.len() <= in_log && self.writer.publish_frame(&[], frame).is_ok();
            if is_put {
                self.ring_all();
            }
            return is_put; // a word, not a message
        };
        let is_aligned = span.encoding == Encoding::Raw && span.len > 0;
        let spare = if is_aligned { ALIGN - 1 } else { 0 };
        if frame.len() + spare > in_log && self.room().takes_in_blob(frame.len(), span.len) {
            return self.put_large(frame, &head, &span);
        }
        let is_put = if frame.len() + spare <= in_log && is_aligned {
            self.put_aligned(frame, span.start)
        } else {
            frame.len() <= in_log && self.writer.publish_frame(&[], frame).is_ok()
        };
        if is_put {
            // An error says that the node drains; the frame is in the log.
            let _ = self.tell(span.len, &head);
        }
        is_put
    }

    /// In the log, with its payload, from `start` on, aligned.
    fn put_aligned(&mut self, frame: &[u8], start: usize) -> bool {
        if self.writer.claim((frame.len() + ALIGN - 1) as u64).is_err() {
            return false;
        }
        let filler = (self.writer.body_offset() + start).wrapping_neg() % ALIGN;
        self.writer.body_mut()[filler..][..frame.len()].copy_from_slice(frame);
        self.writer.commit(Kind::Frame, 0, filler as u8, frame.len());
        self.writer.publish();
        true
    }

    #[cold]
    fn put_large(&mut self, whole: &[u8], head: &Head<'_>, span: &PayloadSpan) -> bool {
        let place = Place::of(span.start, whole.len() - span.start);
        let Some(class) = self.config.limits.class(place.bytes()) else { return false };
        if !self.try_large(class, true).unwrap_or(false) {
            return false;
        }
        let turn = self.copying.begin(Payload::of(span.encoding, whole.len()));
        segment::copy(self.large_mut(place), whole, turn.via);
        self.copying.end(turn, whole.len());
        // An error says that the node drains; the frame is in the log.
        let _ = self.finish_large(place, span.len, head);
        true
    }
}
