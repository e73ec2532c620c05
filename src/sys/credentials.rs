//! Who is at the other end, and who we are (unix(7), credentials(7)).

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Group, getegid, geteuid, getgid, getuid};

/// Identity of a process, as the kernel recorded it when it connected or called listen(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Its id in our pid namespace; 0 when it has none there.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// The peer of a connected Unix socket (`SO_PEERCRED`). The kernel vouches for it: the peer cannot
/// choose what is seen here, though it may have passed the socket on or died since.
pub fn of_peer(socket: impl AsFd) -> io::Result<Credentials> {
    let peer = getsockopt(&socket.as_fd(), sockopt::PeerCredentials)?;
    Ok(Credentials { pid: peer.pid(), uid: peer.uid(), gid: peer.gid() })
}

/// Real user id of this process.
pub fn uid() -> u32 {
    getuid().as_raw()
}

/// Effective user id: the one that files are created with and that peers see.
pub fn euid() -> u32 {
    geteuid().as_raw()
}

/// Real group id of this process.
pub fn gid() -> u32 {
    getgid().as_raw()
}

/// Effective group id.
pub fn egid() -> u32 {
    getegid().as_raw()
}

/// Looks a group up by name (getgrnam_r(3)); `None` when there is no such group.
pub fn gid_of_group(name: &str) -> io::Result<Option<u32>> {
    Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
}

#[cfg(test)]
mod tests {
    use super::super::seqpacket::Socket;
    use super::*;

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (socket, _other) = Socket::pair().unwrap();
        let expected = Credentials { pid: std::process::id() as i32, uid: euid(), gid: egid() };
        assert_eq!(of_peer(&socket).unwrap(), expected);
    }

    #[test]
    fn groups_are_found_by_name() {
        assert_eq!(gid_of_group("root").unwrap(), Some(0));
        assert_eq!(gid_of_group("no-such-group-here").unwrap(), None);
    }
}
