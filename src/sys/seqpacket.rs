//! Unix sockets that keep message boundaries, order, and carry file descriptors (unix(7),
//! `SOCK_SEQPACKET`). Everything here is non-blocking and close-on-exec.

use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, accept4, bind, connect, socket, socketpair,
};

/// The largest datagram that is sent or expected, in bytes.
pub const MAX_DATAGRAM: usize = 64 * 1024;

/// The most file descriptors that one datagram carries.
pub const MAX_FDS: usize = 8;

const FLAGS: SockFlag = SockFlag::SOCK_NONBLOCK.union(SockFlag::SOCK_CLOEXEC);

/// A socket that others connect to.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Binds a fresh path and listens. `backlog` connections may wait for [`accept`](Self::accept); the
    /// kernel cuts it to `net.core.somaxconn`.
    ///
    /// A socket that is bound but does not listen yet refuses connections exactly as a stale one does,
    /// so bind under a name that nobody looks for, and rename.
    ///
    /// # Errors
    /// `EADDRINUSE` when the path exists, dead or alive; `ENAMETOOLONG` beyond 107 bytes.
    pub fn bind(path: &Path, backlog: u32) -> io::Result<Self> {
        let fd = new_socket()?;
        bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        // SAFETY: listen takes two integers and touches no memory of ours.
        Errno::result(unsafe { libc::listen(fd.as_raw_fd(), backlog) })?;
        Ok(Self(fd))
    }

    /// Takes the next connection; `None` when nobody waits.
    ///
    /// # Errors
    /// `EMFILE` or `ENFILE` when no fd is free: the connection keeps waiting, and the listener readable.
    pub fn accept(&self) -> io::Result<Option<Socket>> {
        loop {
            match accept4(self.0.as_raw_fd(), FLAGS) {
                // SAFETY: the kernel has just created this fd for us alone.
                Ok(fd) => return Ok(Some(Socket(unsafe { OwnedFd::from_raw_fd(fd) }))),
                Err(Errno::EINTR | Errno::ECONNABORTED) => continue,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(other) => return Err(other.into()),
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One end of a connection.
#[derive(Debug)]
pub struct Socket(OwnedFd);

/// What one [`Socket::recv`] brought.
#[derive(Debug)]
pub struct Received {
    /// Bytes of the datagram that are in the buffer now.
    pub len: usize,
    /// The fds that came with it, close-on-exec, in the order in which they were sent.
    pub fds: Vec<OwnedFd>,
    /// Some fds were lost (`MSG_CTRUNC`): this process was out of fds, or more than [`MAX_FDS`] came.
    /// Those in `fds` are the first ones.
    pub lost_fds: bool,
    /// The buffer was too small, and the rest of the datagram is gone (`MSG_TRUNC`).
    pub cut: bool,
}

impl Received {
    /// Whether this is the end of the stream: the peer has closed, and all it sent was received.
    ///
    /// An empty datagram looks the same, which is why [`Socket::send`] refuses to send one.
    pub fn is_end(&self) -> bool {
        self.len == 0 && self.fds.is_empty() && !self.lost_fds && !self.cut
    }
}

impl Socket {
    /// Connects to a listener.
    ///
    /// # Errors
    /// `ECONNREFUSED`: nobody listens there, the path is stale. `EAGAIN`: the backlog is full, try again
    /// later (no poll tells when). `ENOENT`: there is no such path. `EPROTOTYPE`: another kind of socket.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let address = UnixAddr::new(path)?;
        let fd = new_socket()?;
        super::retry(|| connect(fd.as_raw_fd(), &address))?;
        Ok(Self(fd))
    }

    /// Two connected sockets; each is the other's peer, and this process the peer of both.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, FLAGS)?;
        Ok((Self(one), Self(other)))
    }

    /// Sends one datagram with its fds, whole or not at all.
    ///
    /// # Errors
    /// - `EAGAIN`: the peer's queue is full; wait until the socket is writable.
    /// - `ETOOMANYREFS`: more fds of this user are in flight (sent and not yet received) than
    ///   `RLIMIT_NOFILE` allows; wait as for `EAGAIN`, though no poll tells when.
    /// - `EPIPE`, `ECONNRESET`: the peer is gone; what it sent before can still be received.
    /// - `EMSGSIZE`: longer than [`MAX_DATAGRAM`], or than the socket's buffer.
    /// - `InvalidInput`: an empty datagram, or more than [`MAX_FDS`] fds.
    pub fn send(&self, data: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if data.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty datagram reads as the end"));
        }
        if data.len() > MAX_DATAGRAM {
            return Err(Errno::EMSGSIZE.into());
        }
        if fds.len() > MAX_FDS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many fds for one datagram"));
        }
        let mut control = Control::empty();
        let mut iov = [IoSlice::new(data)];
        let mut message = header();
        message.msg_iov = iov.as_mut_ptr().cast(); // IoSlice has the layout of iovec
        message.msg_iovlen = 1;
        if !fds.is_empty() {
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = control.put(fds) as _;
        }
        super::retry(|| {
            // SAFETY: `message` points to `iov` and `control`, which outlive the call; the kernel only
            // reads them, and the data that `iov` borrows.
            Errno::result(unsafe {
                libc::sendmsg(self.0.as_raw_fd(), &message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
            })
        })?;
        Ok(())
    }

    /// Receives one datagram with its fds.
    ///
    /// Give it a buffer of [`MAX_DATAGRAM`] bytes, or the datagram may be cut.
    ///
    /// # Errors
    /// - `EAGAIN`: nothing is waiting.
    /// - `ECONNRESET`: the peer closed, or died, with input of ours unread. This comes *once and first*:
    ///   receive again for the datagrams it had sent, up to the end.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut control = Control::empty();
        let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut message = header();
        message.msg_iov = &mut iov;
        message.msg_iovlen = 1;
        let len = super::retry(|| {
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = CONTROL as _;
            // SAFETY: `message` points to `iov` and `control`, which outlive the call; `iov` covers
            // `buffer`, which is exclusively borrowed for as long.
            Errno::result(unsafe {
                libc::recvmsg(self.0.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT)
            })
        })?;
        // Owned before anything else can go wrong: an fd that is not taken here would leak.
        // SAFETY: recvmsg succeeded on this header, whose control buffer is still alive, and its fds
        // are taken this once.
        let fds = unsafe { take_fds(&message) };
        Ok(Received {
            len: len as usize,
            fds,
            lost_fds: message.msg_flags & libc::MSG_CTRUNC != 0,
            cut: message.msg_flags & libc::MSG_TRUNC != 0,
        })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn new_socket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, FLAGS, None)?)
}

/// Bytes of control data that carry [`MAX_FDS`] fds, and not one more: the kernel installs as many as
/// fit and flags the rest as lost. No other control message is enabled on these sockets.
const CONTROL: usize = {
    // SAFETY: CMSG_SPACE is arithmetic on its argument.
    unsafe { libc::CMSG_SPACE((MAX_FDS * mem::size_of::<RawFd>()) as u32) as usize }
};

/// Control data, aligned as its headers have to be (cmsg(3)).
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

const _: () = assert!(mem::align_of::<Control>() >= mem::align_of::<libc::cmsghdr>());

impl Control {
    fn empty() -> Self {
        Self([0; CONTROL])
    }

    /// Lays out one `SCM_RIGHTS` message and returns its length. The caller has checked that there are
    /// between one and [`MAX_FDS`] fds.
    fn put(&mut self, fds: &[BorrowedFd<'_>]) -> usize {
        let bytes = mem::size_of_val(fds) as u32; // BorrowedFd is a RawFd
        // SAFETY: CMSG_SPACE and CMSG_LEN are arithmetic. The buffer is aligned for a cmsghdr and large
        // enough for the header and MAX_FDS fds; the fds are stored unaligned-safe, one by one.
        unsafe {
            let first = self.0.as_mut_ptr().cast::<libc::cmsghdr>();
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(bytes) as _;
            let data = libc::CMSG_DATA(first).cast::<RawFd>();
            for (index, fd) in fds.iter().enumerate() {
                data.add(index).write_unaligned(fd.as_raw_fd());
            }
            libc::CMSG_SPACE(bytes) as usize
        }
    }
}

fn header() -> libc::msghdr {
    // SAFETY: msghdr is plain integers and pointers, for which all zeroes (null) is a value.
    unsafe { mem::zeroed() }
}

/// Takes ownership of every fd in the control data; allocates only if there are any.
///
/// # Safety
/// recvmsg(2) has succeeded on `message`, its control buffer is alive, and its fds were not taken before.
unsafe fn take_fds(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the CMSG macros walk the control buffer within msg_controllen, which the kernel has set to
    // what it filled. Each SCM_RIGHTS message holds fds that the kernel installed for this process, up
    // to cmsg_len; nobody else knows of them.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(message);
        while let Some(cmsg) = next.as_ref() {
            if cmsg.cmsg_level == libc::SOL_SOCKET && cmsg.cmsg_type == libc::SCM_RIGHTS {
                #[allow(clippy::unnecessary_cast)] // its type differs between C libraries
                let bytes = (cmsg.cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
                let data = libc::CMSG_DATA(cmsg).cast::<RawFd>();
                let count = bytes / mem::size_of::<RawFd>();
                fds.reserve_exact(count);
                for index in 0..count {
                    fds.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            next = libc::CMSG_NXTHDR(message, cmsg);
        }
    }
    fds
}

#[cfg(test)]
mod tests;
