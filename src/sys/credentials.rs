//! Who is at the other end, and who we are (unix(7), credentials(7)).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgid, getgrouplist, getuid};

/// Most groups that a process can be in (`NGROUPS_MAX`).
const MOST_GROUPS: usize = 65_536;

/// Identity of a process, as the kernel recorded it when it connected or called listen(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Its id in our pid namespace; 0 when it has none there.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary groups; empty where the kernel does not tell them (before Linux 4.13).
    pub groups: Vec<u32>,
}

impl Credentials {
    /// Whether the process is in this group.
    pub fn is_in(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

/// The peer of a connected Unix socket (`SO_PEERCRED`). The kernel vouches for it: the peer cannot
/// choose what is seen here, though it may have passed the socket on or died since.
pub fn of_peer(socket: impl AsFd) -> io::Result<Credentials> {
    let peer = getsockopt(&socket.as_fd(), sockopt::PeerCredentials)?;
    // What a process of our own user may do does not depend on its groups.
    let groups = if peer.uid() == euid() { Vec::new() } else { groups_of_peer(socket)? };
    Ok(Credentials { pid: peer.pid(), uid: peer.uid(), gid: peer.gid(), groups })
}

/// The supplementary groups that the peer had when it connected or called listen(2) (`SO_PEERGROUPS`).
fn groups_of_peer(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut bytes = size_of_val(&groups[..]) as libc::socklen_t;
        let fd = socket.as_fd().as_raw_fd();
        // SAFETY: the kernel writes at most `bytes` bytes to `groups`, which is that large and ours alone, and
        // stores their number; every bit pattern is a `gid_t`.
        let result = unsafe {
            libc::getsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let found = bytes as usize / size_of::<libc::gid_t>();
        match Errno::result(result) {
            Ok(_) => {
                groups.truncate(found);
                return Ok(groups);
            }
            // It has told how many there are.
            Err(Errno::ERANGE) if groups.len() < found && found <= MOST_GROUPS => groups.resize(found, 0),
            Err(Errno::ENODATA | Errno::ENOPROTOOPT) => return Ok(Vec::new()),
            Err(other) => return Err(other.into()),
        }
    }
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

/// Looks a user up by name (getpwnam_r(3)); `None` when there is no such user.
pub fn uid_of_user(name: &str) -> io::Result<Option<u32>> {
    Ok(User::from_name(name)?.map(|user| user.uid.as_raw()))
}

/// Whether this host's user database has the user in this group; false for a user that it does not have.
pub fn is_member(uid: u32, gid: u32) -> io::Result<bool> {
    let Some(user) = User::from_uid(Uid::from_raw(uid))? else { return Ok(false) };
    let Ok(name) = CString::new(user.name) else { return Ok(false) };
    Ok(getgrouplist(&name, user.gid)?.contains(&Gid::from_raw(gid)))
}

#[cfg(test)]
mod tests {
    use super::super::seqpacket::Socket;
    use super::*;

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (socket, _other) = Socket::pair().unwrap();
        let pid = std::process::id() as i32;
        let expected = Credentials { pid, uid: euid(), gid: egid(), groups: Vec::new() };
        assert_eq!(of_peer(&socket).unwrap(), expected);
    }

    #[test]
    fn the_peers_groups_are_told() {
        let (socket, _other) = Socket::pair().unwrap();
        let mut groups = groups_of_peer(&socket).unwrap();
        let mut own: Vec<u32> =
            nix::unistd::getgroups().unwrap().into_iter().map(nix::unistd::Gid::as_raw).collect();
        groups.sort_unstable();
        own.sort_unstable();
        assert_eq!(groups, own);
        let peer = Credentials { pid: 1, uid: 2, gid: 3, groups: vec![4, 5] };
        assert!(peer.is_in(3) && peer.is_in(5) && !peer.is_in(2) && !peer.is_in(6));
    }

    #[test]
    fn users_are_found_by_name_and_in_their_groups() {
        assert_eq!(uid_of_user("root").unwrap(), Some(0));
        assert_eq!(uid_of_user("no-such-user-here").unwrap(), None);
        assert!(is_member(0, 0).unwrap());
        assert!(!is_member(0, 4_000_000_000).unwrap() && !is_member(4_000_000_000, 0).unwrap());
    }

    #[test]
    fn groups_are_found_by_name() {
        assert_eq!(gid_of_group("root").unwrap(), Some(0));
        assert_eq!(gid_of_group("no-such-group-here").unwrap(), None);
    }
}
