//! What wakes one sleeping port.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::sys::{poll, timerfd};

/// Longest sleep. A peer of the same user that means harm can silence a bell that it shares ([`timerfd::drain`]):
/// whoever sleeps on it looks again after this time, rung or not.
pub(crate) const BACK_STOP: Duration = Duration::from_secs(1);

/// A bell: ringing is remembered until drained. Clones are the same bell.
#[derive(Debug, Clone)]
pub(crate) struct Bell(Arc<OwnedFd>);

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(timerfd::create()?)))
    }

    /// A bell that a peer sent.
    ///
    /// # Errors
    /// Refuses what is no bell, which could block this process.
    pub(crate) fn from_peer(fd: Arc<OwnedFd>) -> io::Result<Self> {
        timerfd::verify(fd.as_fd())?;
        Ok(Self(fd))
    }

    /// Wakes the sleeper, or spares it its next sleep.
    pub(crate) fn ring(&self) {
        // Fails only if a peer sent a timer of another kind: then it is the peer that does not wake.
        let _ = timerfd::ring(self.0.as_fd());
    }

    pub(crate) fn drain(&self) {
        let drained = timerfd::drain(self.0.as_fd());
        debug_assert!(drained.is_ok(), "{drained:?}");
    }

    /// Sleeps until rung; false when the timeout, or [`BACK_STOP`], came first: look again.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        poll::readable(self.0.as_fd(), Some(timeout.map_or(BACK_STOP, |timeout| timeout.min(BACK_STOP))))
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use nix::sys::eventfd::{EfdFlags, EventFd};

    use super::*;
    use crate::sys::testing::DEADLINE;

    const NOW: Option<Duration> = Some(Duration::ZERO);

    #[test]
    fn ringing_is_remembered_until_drained() {
        let bell = Bell::new().unwrap();
        assert!(!bell.wait(NOW).unwrap());
        for _ in 0..3 {
            bell.ring();
        }
        assert!(bell.wait(NOW).unwrap() && bell.wait(NOW).unwrap(), "waiting takes nothing");
        bell.drain();
        assert!(!bell.wait(NOW).unwrap(), "drained of all rings at once");
        bell.drain();
        bell.ring();
        assert!(bell.wait(NOW).unwrap());
    }

    #[test]
    fn a_wait_lasts_its_time_unless_rung() {
        let bell = Bell::new().unwrap();
        let start = Instant::now();
        assert!(!bell.wait(Some(Duration::from_millis(20))).unwrap());
        assert!(start.elapsed() >= Duration::from_millis(20));
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(bell.wait(Some(DEADLINE)).unwrap()));
            bell.ring();
        });
    }

    #[test]
    fn clones_and_peers_ring_the_same_bell() {
        let bell = Bell::new().unwrap();
        let peers = Bell::from_peer(Arc::new(bell.shared_fd().try_clone().unwrap())).unwrap();
        for other in [bell.clone(), peers] {
            other.ring();
            assert!(bell.wait(NOW).unwrap());
            bell.drain();
            assert!(!other.wait(NOW).unwrap());
        }
    }

    #[test]
    fn a_peer_cannot_pass_off_as_a_bell_what_could_block() {
        let blocking =
            EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap().as_fd().try_clone_to_owned().unwrap();
        let null = std::fs::File::options().write(true).open("/dev/null").unwrap().into();
        for fd in [blocking, null] {
            assert_eq!(Bell::from_peer(Arc::new(fd)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_sleep_ends_although_a_peer_keeps_the_bell_silent() {
        let bell = Bell::new().unwrap();
        bell.ring();
        bell.drain(); // as a peer may
        for timeout in [None, Some(DEADLINE)] {
            let start = Instant::now();
            assert!(!bell.wait(timeout).unwrap());
            assert!((BACK_STOP..DEADLINE).contains(&start.elapsed()));
        }
    }
}
