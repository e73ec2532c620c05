//! Nodes that have a socket on the bus and say nothing: to others they are as good as not there, and whoever misses one
//! is told of them.

use std::fmt;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use serde::Serialize;

use super::{Common, Outcome, note, printable};
use crate::sys::credentials;
use crate::sys::seqpacket::Socket;
use crate::{Node, NodeId};

/// A node whose name is not known, but its process is.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Silent {
    pub(super) id: String,
    /// As text, for people.
    #[serde(skip)]
    process: String,
    #[serde(skip)]
    stopped: bool,
}

/// Those that have a socket in the bus's directory, and are neither peers of this node nor refused by it. Joining has
/// removed the sockets of dead ones.
pub(super) fn of(node: &Node, directory: &Path) -> Outcome<Vec<Silent>> {
    let entries = fs::read_dir(directory).map_err(|error| {
        format!("cannot look who is on the bus: {}: {error}: is `ulimit -n` too low?", directory.display())
    })?;
    let entries = entries.flatten();
    // Whatever else is there, `doctor` tells of.
    let id = |entry: fs::DirEntry| {
        let is_socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
        let name = entry.file_name();
        let id = name.to_str()?.strip_suffix(".sock")?;
        (is_socket && NodeId::parse(id).is_some()).then(|| id.to_owned())
    };
    let mut ids: Vec<String> = entries.filter_map(id).collect();
    ids.sort();
    let known: Vec<String> = std::iter::once(node.info().id())
        .chain(node.peers().iter().map(|peer| peer.id()))
        .chain(node.refused().iter().filter_map(|refused| refused.id))
        .map(|id| id.to_string())
        .collect();
    ids.retain(|id| !known.contains(id));
    Ok(ids.into_iter().map(|id| Silent::new(directory, id)).collect())
}

/// Tells of them, where somebody is missed.
pub(super) fn note_all(common: &Common, node: &Node) {
    let Ok(Some(directory)) = common.builder().examine() else { return };
    for silent in of(node, &directory).into_iter().flatten() {
        note(format!("note: {silent}"));
    }
}

impl Silent {
    /// The kernel names the process that listens, whether or not that ever accepts.
    fn new(directory: &Path, id: String) -> Self {
        let socket = Socket::connect(&directory.join(format!("{id}.sock")));
        let pid = socket.and_then(credentials::of_peer).map_or(0, |peer| peer.pid);
        if pid == 0 {
            return Self { id, process: String::new(), stopped: false };
        }
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let process = format!(", pid {pid}, {}", printable(name.trim_end()));
        Self { id, process, stopped: is_stopped(pid) }
    }
}

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.stopped {
            true => "its process is stopped",
            false => "is its process stopped, or short of file descriptors?",
        };
        write!(f, "node {}{} does not answer: {why}", short(&self.id), self.process)
    }
}

/// A node's id, for people.
pub(super) fn short(id: &str) -> String {
    NodeId::parse(id).map_or_else(|| printable(id).into_owned(), |id| id.short().to_string())
}

/// Whether a signal or a debugger has stopped the process.
pub(super) fn is_stopped(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // What follows the name, which may have any characters, begins with the state.
    stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T") || rest.starts_with(" t"))
}
