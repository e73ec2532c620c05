//! An eventfd that wakes one sleeping port.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::sys::{eventfd, poll};

/// A bell: ringing is remembered until drained. Clones are the same bell.
#[derive(Debug, Clone)]
pub(crate) struct Bell(Arc<OwnedFd>);

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd::create()?)))
    }

    /// A bell that a peer sent.
    ///
    /// # Errors
    /// Refuses what is no non-blocking eventfd: a write to it could block this process.
    pub(crate) fn from_peer(fd: OwnedFd) -> io::Result<Self> {
        eventfd::verify(fd.as_fd())?;
        Ok(Self(Arc::new(fd)))
    }

    /// Wakes the sleeper, or spares it its next sleep.
    pub(crate) fn ring(&self) {
        // It can only fail on an fd that is no eventfd, which `from_peer` refuses.
        let rung = eventfd::ring(self.0.as_fd());
        debug_assert!(rung.is_ok(), "{rung:?}");
    }

    pub(crate) fn drain(&self) {
        let drained = eventfd::drain(self.0.as_fd());
        debug_assert!(drained.is_ok(), "{drained:?}");
    }

    /// Sleeps until rung; false when the timeout came first.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        poll::readable(self.0.as_fd(), timeout)
    }

    /// The fd, to be sent to whoever shall ring.
    pub(crate) fn shared_fd(&self) -> Arc<OwnedFd> {
        self.0.clone()
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
