//! What is in a bus's directory: the sockets of nodes, what dead ones have left, and what is not the bus's.

use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use super::NodeId;
use super::caller::Caller;
use crate::sys::credentials::Credentials;
use crate::sys::seqpacket::Socket;

/// A socket under a temporary name that has been refusing for this long was left by a killed process.
const STALE_TEMPORARY: Duration = Duration::from_secs(60);

/// What an entry is, by its type and its name.
pub(super) enum Kind {
    Node(NodeId),
    /// A socket that has not got its name yet, or never will.
    Temporary,
    Foreign,
}

impl Kind {
    pub(super) fn of(entry: &DirEntry) -> Self {
        // A member of a group could lead others elsewhere, by a symbolic link.
        if !entry.file_type().is_ok_and(|kind| kind.is_socket()) {
            return Kind::Foreign;
        }
        let name = entry.file_name();
        let Some(name) = name.to_str() else { return Kind::Foreign };
        match name.strip_suffix(".sock").and_then(NodeId::parse) {
            Some(id) => Kind::Node(id),
            None if is_temporary(name) => Kind::Temporary,
            None => Kind::Foreign,
        }
    }
}

fn is_temporary(name: &str) -> bool {
    let id = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp"));
    id.and_then(NodeId::parse).is_some()
}

/// Who is behind a socket.
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "who or why matters to people only"))]
pub(super) enum Owner {
    /// A process that lives, whether or not it is stopped.
    Alive(Credentials),
    /// Nobody listens, or at most a forked child of the dead process holds the socket. Ids are random and never
    /// used again, so nobody will.
    Dead,
    /// It could not be asked.
    Unknown(io::Error),
}

impl Owner {
    /// Asks the kernel, by a connection that says nothing.
    pub(super) fn of(socket: &Path) -> Self {
        match Socket::connect(socket).and_then(|socket| Caller::behind(&socket)) {
            Ok(Caller { dead: true, .. }) => Owner::Dead,
            Ok(Caller { credentials, .. }) => Owner::Alive(credentials),
            // Only this means that nobody is there: between bind and listen a socket has no name.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Owner::Dead,
            Err(error) => Owner::Unknown(error),
        }
    }
}

/// A temporary name is given up within moments, if its process is not killed meanwhile.
pub(super) fn is_old(entry: &DirEntry) -> bool {
    let modified = entry.metadata().and_then(|found| found.modified());
    modified.ok().and_then(|modified| modified.elapsed().ok()).is_some_and(|age| age > STALE_TEMPORARY)
}

pub(super) fn remove_stale_temporary(entry: &DirEntry) {
    if is_old(entry) && matches!(Owner::of(&entry.path()), Owner::Dead) {
        let _ = fs::remove_file(entry.path());
    }
}

/// Whether a node may live in a bus's directory: unless none of its sockets is anything but a dead one's.
pub(crate) fn is_inhabited(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return true };
    entries.flatten().any(|entry| match Kind::of(&entry) {
        Kind::Foreign => false,
        Kind::Temporary if !is_old(&entry) => true,
        Kind::Node(_) | Kind::Temporary => !matches!(Owner::of(&entry.path()), Owner::Dead),
    })
}

#[cfg(feature = "cli")]
pub(crate) use look::{State, state};

#[cfg(feature = "cli")]
mod look {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::sys::credentials;

    /// What is known of an entry, for people.
    #[derive(Debug)]
    pub(crate) enum State {
        /// A node's; the process, or 0 in another pid namespace.
        Alive {
            pid: i32,
        },
        /// A node is placing its socket right now.
        Joining,
        /// Left by a dead process of this user: it may be removed.
        Dead,
        /// Nobody has listened under this temporary name of this user for so long that it may be removed.
        Abandoned,
        /// Left by a dead process of another user.
        DeadOfOther {
            uid: u32,
        },
        /// Whoever it belongs to does not take a connection now.
        Busy,
        /// Not of the bus.
        Foreign,
        /// It is gone by now.
        Gone,
        Unknown(io::Error),
    }

    /// Looks at an entry of a bus's directory, by the rules by which those who join clean it.
    pub(crate) fn state(entry: &DirEntry) -> State {
        let ours = match Kind::of(entry) {
            Kind::Foreign => return State::Foreign,
            Kind::Temporary if !is_old(entry) => return State::Joining,
            Kind::Temporary => State::Abandoned,
            Kind::Node(_) => State::Dead,
        };
        match Owner::of(&entry.path()) {
            Owner::Alive(credentials) => State::Alive { pid: credentials.pid },
            Owner::Dead => match entry.metadata() {
                Ok(found) if found.uid() == credentials::euid() => ours,
                Ok(found) => State::DeadOfOther { uid: found.uid() },
                Err(_) => State::Gone,
            },
            Owner::Unknown(error) => match error.kind() {
                io::ErrorKind::NotFound => State::Gone,
                io::ErrorKind::WouldBlock => State::Busy,
                _ => State::Unknown(error),
            },
        }
    }
}
