//! Records that name blobs, and blobs that come back.

use super::Writer;
use crate::ring::Gate;
use crate::ring::blob::{Blob, NAME, Recovery};
use crate::ring::record::{self, Header, Kind};
use crate::segment::{Memory, MemoryMut};

/// A claimed record as it is going to name a blob: made before the blob is filled, so that as little as may be is stored
/// between the last byte there and the record.
#[derive(Debug, Clone, Copy)]
pub struct Naming {
    first: [u64; 2],
    name: [u8; NAME as usize],
    /// Offset of the record in the log, and where it ends.
    at: usize,
    end: u64,
    /// Offset of the frame in the blob.
    frame: usize,
}

impl<M: MemoryMut, R: Memory + Clone, T> Writer<M, R, T> {
    /// The claimed record, of [`NAME`] bytes, as the name of a blob of this log that is to hold a frame of `len` bytes at
    /// offset `at`: for [`Writer::publish_blob`], before anything else is claimed or the blob is published.
    ///
    /// # Panics
    /// If something else is claimed, or the blob is out.
    #[inline(always)]
    pub fn name_blob<B: MemoryMut>(&self, blob: &mut Blob<B>, at: usize, len: usize) -> Naming {
        assert!(self.claimed == record::size(NAME), "that is what is claimed");
        assert!(blob.end().is_none(), "nobody reads it"); // it becomes of another generation
        let header = Header { len: NAME as u32, kind: Kind::Blob, filler: 0, addressee: 0 };
        Naming {
            first: [header.pack(), self.sequence],
            name: blob.name(at, len).to_bytes(),
            at: self.layout.offset(self.start),
            end: self.start + self.claimed,
            frame: at,
        }
    }

    /// Publishes the claimed record as the name of a blob: look at [`Writer::ring`] afterwards. From here on the blob is not
    /// written, until [`Writer::recover`] says so.
    ///
    /// # Panics
    /// If it is not what [`Writer::name_blob`] has last made, of this blob.
    #[inline(always)]
    pub fn publish_blob<B: MemoryMut>(&mut self, blob: &mut Blob<B>, naming: &Naming) {
        // `Blob::bytes_mut` relies on it: whatever a record names is not lent to be written.
        let is_claimed = self.claimed == record::size(NAME) && naming.end == self.start + self.claimed;
        assert!(is_claimed && naming.first[1] == self.sequence, "it is the record that is claimed");
        assert!(blob.end().is_none() && blob.is_named(&naming.name), "it is the blob that was named");
        blob.give_away(naming.frame);
        self.publish_record(naming.at, &naming.first, &naming.name, &[]);
        self.names_blobs = true;
        blob.published(self.tail);
    }

    /// Looks at the gates and the cursors: before [`Writer::recover`], and after the last publish.
    pub fn look_at_cursors(&mut self) {
        self.refresh();
        self.read_cursors(0);
    }

    /// Whether readers are done with a blob of this log, as far as was seen when the cursors were last looked at. If
    /// so it may be written.
    ///
    /// A gate that is added late may stand before the record that names the blob: only if it missed the publish
    /// of that record, and then `look_at_cursors`, coming after it, has found the gate (see [`super::gate`]).
    pub fn recover<B: MemoryMut>(&self, blob: &mut Blob<B>) -> Recovery {
        match blob.end() {
            Some(end) if end > self.view.lowest() => return Recovery::Unread,
            Some(_) if self.view.is_held(blob.id()) => return Recovery::Held,
            _ => {}
        }
        blob.recovered();
        Recovery::Back
    }

    /// A reader that holds a blob of this log.
    pub fn holder(&self) -> Option<&Gate<R, T>> {
        self.view.holder()
    }
}
