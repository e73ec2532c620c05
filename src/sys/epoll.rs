//! Waiting for many fds (epoll(7)), level-triggered.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll as Inner, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// What to be told of; a hang-up or an error is told of in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// There is something to receive, accept or drain.
    pub readable: bool,
    /// There is room to send.
    pub writable: bool,
}

impl Interest {
    /// Readable only.
    pub const READ: Self = Self { readable: true, writable: false };
    /// Readable and writable.
    pub const BOTH: Self = Self { readable: true, writable: true };

    fn flags(self) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, self.readable);
        flags.set(EpollFlags::EPOLLOUT, self.writable);
        flags
    }
}

/// What happened to the fd that was added under `token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The number given to [`Epoll::add`].
    pub token: u64,
    /// There is something to receive.
    pub readable: bool,
    /// There is room to send.
    pub writable: bool,
    /// The other end hung up, or an error is pending. There may still be something to receive; and
    /// until the fd is removed, every wait returns at once.
    pub hangup: bool,
}

/// Room for the events of one wait, reused between waits.
#[derive(Debug)]
pub struct Events {
    room: Vec<EpollEvent>,
    filled: usize,
}

impl Events {
    /// Room for `capacity` events (at least one); what does not fit is told of by the next wait.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { room: vec![EpollEvent::empty(); capacity.max(1)], filled: 0 }
    }

    /// The events of the last wait.
    pub fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.room[..self.filled].iter().map(|event| {
            let flags = event.events();
            Event {
                token: event.data(),
                readable: flags.contains(EpollFlags::EPOLLIN),
                writable: flags.contains(EpollFlags::EPOLLOUT),
                hangup: flags
                    .intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR | EpollFlags::EPOLLRDHUP),
            }
        })
    }
}

/// A set of fds to wait for. An fd leaves the set by [`Epoll::remove`], or when the last duplicate of it
/// is closed anywhere; remove it before closing an fd that another process shares.
#[derive(Debug)]
pub struct Epoll(Inner);

impl Epoll {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Inner::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Adds an fd; its events carry `token`.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self.0.add(fd, EpollEvent::new(interest.flags(), token))?)
    }

    /// Changes what is told of an fd.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self.0.modify(fd, &mut EpollEvent::new(interest.flags(), token))?)
    }

    /// Takes an fd out.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(self.0.delete(fd)?)
    }

    /// Waits for events; none after the timeout, or when a signal came. `None` waits for ever.
    ///
    /// Timeouts are rounded up to milliseconds, so that a timer is due when the wait ends, and cut to
    /// 24 days.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        events.filled = 0;
        let timeout = match timeout {
            None => EpollTimeout::NONE,
            Some(timeout) => {
                let ms = timeout.as_nanos().div_ceil(1_000_000);
                EpollTimeout::try_from(ms.min(i32::MAX as u128)).unwrap_or(EpollTimeout::MAX)
            }
        };
        match self.0.wait(&mut events.room, timeout) {
            Ok(filled) => events.filled = filled,
            Err(Errno::EINTR) => {}
            Err(other) => return Err(other.into()),
        }
        Ok(())
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::seqpacket::Socket;
    use super::super::timerfd;
    use super::*;

    fn wait(epoll: &Epoll, timeout: Duration) -> Vec<Event> {
        let mut events = Events::with_capacity(8);
        epoll.wait(&mut events, Some(timeout)).unwrap();
        events.iter().collect()
    }

    #[test]
    fn tells_what_is_asked_for_and_nothing_after_removal() {
        let epoll = Epoll::new().unwrap();
        let (socket, peer) = Socket::pair().unwrap();
        epoll.add(&socket, 7, Interest::READ).unwrap();
        assert_eq!(wait(&epoll, Duration::ZERO), []);
        peer.send(b"word", &[]).unwrap();
        let sent = Event { token: 7, readable: true, writable: false, hangup: false };
        assert_eq!(wait(&epoll, Duration::ZERO), [sent]);
        epoll.modify(&socket, u64::MAX, Interest::BOTH).unwrap();
        assert_eq!(wait(&epoll, Duration::ZERO), [Event { token: u64::MAX, writable: true, ..sent }]);
        epoll.remove(&socket).unwrap();
        assert_eq!(wait(&epoll, Duration::ZERO), []);
    }

    #[test]
    fn a_closed_peer_hangs_up() {
        let epoll = Epoll::new().unwrap();
        let (socket, peer) = Socket::pair().unwrap();
        epoll.add(&socket, 1, Interest::READ).unwrap();
        assert_eq!(wait(&epoll, Duration::ZERO), []);
        drop(peer);
        let events = wait(&epoll, super::super::testing::DEADLINE);
        assert_eq!(events, [Event { token: 1, readable: true, writable: false, hangup: true }]);
    }

    #[test]
    fn timeouts_are_rounded_up() {
        let epoll = Epoll::new().unwrap();
        for timeout in [Duration::from_nanos(1), Duration::from_micros(1001)] {
            let start = Instant::now();
            assert_eq!(wait(&epoll, timeout), []);
            assert!(start.elapsed() >= timeout);
        }
    }

    #[test]
    fn more_events_than_fit_come_with_the_next_wait() {
        let epoll = Epoll::new().unwrap();
        let bells = [timerfd::create().unwrap(), timerfd::create().unwrap()];
        for (token, bell) in bells.iter().enumerate() {
            epoll.add(bell, token as u64, Interest::READ).unwrap();
            timerfd::ring(bell.as_fd()).unwrap();
        }
        let mut events = Events::with_capacity(0);
        let mut seen = Vec::new();
        for _ in &bells {
            epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
            seen.extend(events.iter().map(|event| event.token));
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1]);
    }
}
