//! Segments of peers: checked, then mapped.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::super::log::{PREFAULT, is_made_at_once};
use super::{Trouble, segment_trouble};
use crate::ring::blob::BESIDE;
use crate::ring::{BlobHeader, LogHeader, LogLayout};
use crate::segment::{Memory, Pages, PeerSegment};

/// Checks and maps a peer's log, which is said to have this capacity and header.
pub(super) fn open_log(
    fd: &OwnedFd,
    capacity: u64,
    header: LogHeader,
) -> Result<(Arc<PeerSegment>, LogLayout), Trouble> {
    let claimed = LogLayout::new(capacity).ok_or("a log of an impossible capacity")?;
    let size = claimed.segment_size();
    let pages = if is_made_at_once(size) { Pages::Mapped } else { Pages::AsWritten };
    let segment = PeerSegment::open(fd, size, pages).map_err(|error| segment_trouble("a log", &error))?;
    let (layout, found) = LogLayout::check(&segment).map_err(|error| format!("a log: {error}"))?;
    if layout != claimed || found != header {
        return Err("a log whose header is another's".into());
    }
    Ok((Arc::new(segment), layout))
}

/// Checks and maps a peer's blob, which is said to have this size and header.
pub(super) fn open_blob(fd: &OwnedFd, size: u64, header: BlobHeader) -> Result<Arc<PeerSegment>, Trouble> {
    let size = usize::try_from(size).map_err(|_| "a blob beyond the address space")?;
    let pages = if size <= PREFAULT + BESIDE { Pages::Mapped } else { Pages::Made };
    let segment = PeerSegment::open(fd, size, pages).map_err(|error| segment_trouble("a blob", &error))?;
    let found = BlobHeader::check(&segment).map_err(|error| format!("a blob: {error}"))?;
    if found != header || segment.size() != size {
        return Err("a blob whose header or size is another's".into());
    }
    Ok(Arc::new(segment))
}
