//! Blobs: gives those of this node's logs to their readers, and takes those of peers.
//!
//! A log's blobs are in its list from the moment that they are shared, and a reader gets the whole list right after its
//! Attach. Both are done by this one thread: so a reader misses none, and gets none twice.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::super::blob::{LARGEST, NewBlob, Shared};
use super::super::log::OutletShared;
use super::super::reading::{Change, LogKey};
use super::again::{BARE, What};
use super::segments::open_blob;
use super::{Core, Trouble};
use crate::control::NodeId;
use crate::frame::Control;
use crate::ring::BlobHeader;
use crate::ring::blob::BESIDE;

/// Most blobs that a peer may give for one log, and their bytes: of address space, the memory is the peer's.
const MOST: usize = 1024;
const MOST_BYTES: u64 = 1 << 36;

/// What this node's control thread keeps of a blob of one of its logs.
pub(super) struct LocalBlob {
    size: u64,
    fd: Arc<OwnedFd>,
}

impl LocalBlob {
    /// Its bytes, and its descriptor.
    pub(super) fn parts(&self) -> (u64, Arc<OwnedFd>) {
        (self.size, self.fd.clone())
    }
}

/// The blobs of a log of this node, by their ids.
pub(super) type LocalBlobs = HashMap<u64, LocalBlob>;

/// A blob that is not in every reader's socket yet.
pub(super) struct Sharing {
    outlet: Arc<OutletShared>,
    marks: Vec<(NodeId, u64)>,
    shared: Shared,
}

impl Sharing {
    pub(super) fn is_of(&self, outlet: &Arc<OutletShared>) -> bool {
        Arc::ptr_eq(&self.outlet, outlet)
    }
}

// This node's logs.
impl Core {
    /// Gives a blob to every reader of its log. As soon as it is in all their sockets a record may name it.
    pub(super) fn share_blob(&mut self, log: u64, new: NewBlob) {
        let NewBlob { blob, size, fd, shared } = new;
        let Some(outlet) = self.outlets.get_mut(&log) else { return shared.set() };
        outlet.blobs.insert(blob, LocalBlob { size, fd: fd.clone() });
        let readers: Vec<_> = outlet.readers.iter().map(|(reader, number)| (*reader, *number)).collect();
        let outlet = outlet.shared.clone();
        let mut marks = Vec::new();
        for ((node, port), reader_number) in readers {
            self.send(node, &Control::Blob { log, reader_number, blob, size }, std::slice::from_ref(&fd));
            // A lossy reader is not waited for: should it get the blob too late, it has missed something.
            if !self.peers.get(&node).is_some_and(|peer| peer.is_lossy(port)) {
                marks.extend(self.driver.mark(node).map(|mark| (node, mark)));
            }
        }
        self.driver.flush();
        self.sharing.push(Sharing { outlet, marks, shared });
        self.count_shared();
    }

    /// A reader that was just attached gets all the blobs there are.
    pub(super) fn send_blobs(&mut self, log: u64, to: NodeId, reader_number: u16) {
        let Some(outlet) = self.outlets.get(&log) else { return };
        let blobs = outlet.blobs.iter().map(|(blob, LocalBlob { size, fd })| (*blob, *size, fd.clone()));
        let mut blobs: Vec<_> = blobs.collect();
        blobs.sort_unstable_by_key(|(blob, ..)| *blob); // as they were made: see `Reader::ungated`
        for (blob, size, fd) in blobs {
            self.send(to, &Control::Blob { log, reader_number, blob, size }, &[fd]);
        }
    }

    /// A log's port has let go of a blob that no reader looks at.
    pub(super) fn blob_gone(&mut self, log: u64, blob: u64) {
        let Some(outlet) = self.outlets.get_mut(&log) else { return };
        outlet.blobs.remove(&blob);
        let readers: Vec<_> = outlet.readers.iter().map(|((node, _), number)| (*node, *number)).collect();
        for (node, reader_number) in readers {
            self.send(node, &Control::BlobGone { log, reader_number, blob }, &[]);
        }
    }

    /// Tells the ports of those blobs that are in every reader's socket now.
    pub(super) fn count_shared(&mut self) {
        let driver = &self.driver;
        self.sharing.retain_mut(|Sharing { outlet, marks, shared }| {
            let sent = driver.all_sent(marks);
            if sent {
                shared.set();
                outlet.bell.ring();
            }
            !sent
        });
    }
}

// Logs of peers.
impl Core {
    /// A writer gives one of this node's ports a blob.
    pub(super) fn take_blob(
        &mut self,
        from: NodeId,
        (log, number): (u64, u16),
        (blob, size): (u64, u64),
        fds: Vec<Arc<OwnedFd>>,
    ) -> Result<(), Trouble> {
        let key = LogKey { node: from, log, number };
        let missing = (from, What::Blob { log, number, blob });
        let was_missed = self.missing.contains_key(&missing);
        // One that has gone needs no blobs.
        let found = self.sources.iter_mut().find(|((_, other), source)| *other == key && !source.is_done());
        let Some((&at, source)) = found else { return Ok(()) };
        if was_missed {
            source.blobs.remove(&blob); // which does not count beside itself
        }
        let room = self.has_room_for_mapping(from);
        let Some(source) = self.sources.get_mut(&at) else { return Ok(()) };
        let Some(inlet) = self.inlets.get(&at.0) else { return Ok(()) };
        let bytes: u64 = source.blobs.values().sum();
        if blob == 0 || size > LARGEST + BESIDE as u64 {
            return Err(format!("blob {blob} of {size} bytes").into());
        }
        if source.blobs.len() == MOST || bytes + size > MOST_BYTES {
            return Err(format!("more than {MOST} blobs for a log, or {} GiB", MOST_BYTES >> 30).into());
        }
        if source.blobs.insert(blob, size).is_some() {
            return Err(format!("blob {blob} sent twice").into());
        }
        let header = BlobHeader { log, node: *from.as_bytes(), blob };
        let memory = room.and_then(|()| match fds.first() {
            Some(fd) => open_blob(fd, size, header),
            None => Err(Trouble::Shortage(BARE.to_owned())),
        });
        let (memory, trouble) = match memory {
            Ok(memory) => (Some(memory), Ok(())),
            // The messages in it count as missed.
            Err(why @ (Trouble::Shortage(_) | Trouble::Exhausted(_))) => (None, Err(why)),
            Err(offence) => return Err(offence),
        };
        inlet.shared.change(Change::Blob { key, blob, memory });
        if let Err(Trouble::Shortage(why)) = trouble {
            return self.miss(missing.0, missing.1, why);
        }
        self.missing.remove(&missing);
        trouble
    }

    /// A writer has let go of a blob.
    pub(super) fn drop_blob(&mut self, from: NodeId, (log, number): (u64, u16), blob: u64) {
        let key = LogKey { node: from, log, number };
        self.missing.remove(&(from, What::Blob { log, number, blob }));
        let Some(((port, _), source)) = self.sources.iter_mut().find(|((_, other), _)| *other == key) else {
            return;
        };
        if source.blobs.remove(&blob).is_some()
            && let Some(inlet) = self.inlets.get(port)
        {
            inlet.shared.change(Change::BlobGone { key, blob });
        }
    }
}
