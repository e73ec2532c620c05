//! The bus's directory, and the sockets in it.

use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};

use super::super::{Common, Outcome};
use super::Check;
use crate::BusError;
use crate::control::{LONGEST_PATH, Location, NodeId};
use crate::sys::credentials;
use crate::sys::seqpacket::Socket;

const DIRECTORY: &str = "directory";
const SOCKETS: &str = "sockets";
/// How many sockets are named one by one.
const NAMED: usize = 8;
/// A socket under a temporary name is renamed at once, if its process lives.
const TEMPORARY: Duration = Duration::from_secs(60);

pub(super) fn checks(common: &Common) -> Outcome<Vec<Check>> {
    let bus = common.bus_name();
    let path = Location::new(common.dir(), None).base().join(&bus);
    match common.builder().examine() {
        Ok(Some(path)) => Ok(vec![found(&path), head_room(&path), sockets(&path)]),
        Ok(None) => Ok(vec![missing(&path), head_room(&path)]),
        // What was asked for is no bus's name at all.
        Err(error @ (BusError::Name(_) | BusError::Group { .. })) => Err(error.into()),
        Err(error) => {
            let told = error.to_string();
            let (found, advice) = told.split_once(": ").unwrap_or((&told, "see above"));
            Ok(vec![Check::fail(DIRECTORY, found, advice)])
        }
    }
}

fn found(path: &Path) -> Check {
    let shown = path.display();
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) => {
            return Check::fail(DIRECTORY, format!("{shown}: {error}"), "it was just removed: look again");
        }
    };
    let (mode, uid, gid) = (found.mode() & 0o7777, found.uid(), found.gid());
    let whose = if mode & 0o070 == 0 { String::new() } else { format!(", group {gid}") };
    Check::ok(DIRECTORY, format!("{shown}, mode {mode:04o}, user {uid}{whose}"))
}

/// The first node to join creates it, if it can.
fn missing(path: &Path) -> Check {
    let existing = path.ancestors().skip(1).find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    let (shown, above) = (path.display(), existing.display());
    if !existing.is_dir() {
        return Check::fail(
            DIRECTORY,
            format!("{above} is no directory"),
            "remove it, or choose another --dir",
        );
    }
    match access(existing, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => Check::ok(DIRECTORY, format!("{shown} is not there yet: the first node creates it")),
        Err(error) => Check::fail(
            DIRECTORY,
            format!(
                "{shown} is not there, and user {} cannot create it in {above}: {error}",
                credentials::euid()
            ),
            "make that writable, or choose another --dir (or RINGBUS_DIR)",
        ),
    }
}

fn head_room(path: &Path) -> Check {
    const NAME: &str = "path length";
    let (len, limit) = (path.as_os_str().len(), LONGEST_PATH);
    let found = format!("{len} of {limit} bytes");
    // `examine` has refused what does not fit.
    match limit.saturating_sub(len) {
        0..8 => Check::warn(
            NAME,
            found,
            "a bus with a longer name does not fit: set RINGBUS_DIR to a shorter path",
        ),
        _ => Check::ok(NAME, found),
    }
}

/// What the entries of the directory are.
#[derive(Debug, Default)]
struct Sockets {
    live: usize,
    /// They refuse: their processes are dead.
    stale: Vec<String>,
    /// They do not take a connection now.
    busy: Vec<String>,
    /// Not the bus's.
    strange: Vec<String>,
    others: usize,
}

fn sockets(path: &Path) -> Check {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            return Check::fail(SOCKETS, format!("cannot list {}: {error}", path.display()), "chmod 0700 it");
        }
    };
    let mut found = Sockets::default();
    for entry in entries.flatten() {
        found.add(&entry);
    }
    found.check()
}

impl Sockets {
    fn add(&mut self, entry: &DirEntry) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
        let is_node = name.strip_suffix(".sock").and_then(NodeId::parse).is_some();
        let is_temporary = name.starts_with('.') && name.ends_with(".tmp");
        if !is_socket || !(is_node || is_temporary) {
            self.strange.push(name);
            return;
        }
        if is_temporary && !is_old(entry) {
            self.others += 1; // somebody joins right now
            return;
        }
        // A connection that says nothing harms nobody.
        match Socket::connect(&entry.path()) {
            Ok(_) => self.live += 1,
            Err(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => self.stale.push(name),
                io::ErrorKind::NotFound => {} // left meanwhile
                io::ErrorKind::WouldBlock => self.busy.push(name),
                _ => self.strange.push(format!("{name} ({error})")),
            },
        }
    }

    fn check(&self) -> Check {
        let Self { live, stale, busy, strange, others } = self;
        let mut found = vec![match live {
            1 => "1 node".to_owned(),
            many => format!("{many} nodes"),
        }];
        let mut advice = Vec::new();
        if *others > 0 {
            found.push(format!("{others} joining"));
        }
        if !stale.is_empty() {
            found.push(format!("{} left by dead processes: {}", stale.len(), named(stale)));
            advice.push("nothing to do about the dead ones: the next node that joins removes them");
        }
        if !busy.is_empty() {
            found.push(format!("{} not accepting: {}", busy.len(), named(busy)));
            advice.push("see whether a process is stopped (`kill -CONT`) or overloaded");
        }
        if !strange.is_empty() {
            found.push(format!("{} that are not of the bus: {}", strange.len(), named(strange)));
            advice.push("move the files that are not of the bus elsewhere");
        }
        match advice.is_empty() {
            true => Check::ok(SOCKETS, found.join(", ")),
            false => Check::warn(SOCKETS, found.join(", "), advice.join("; ")),
        }
    }
}

fn is_old(entry: &DirEntry) -> bool {
    let modified = entry.metadata().and_then(|found| found.modified());
    modified.ok().and_then(|modified| modified.elapsed().ok()).is_some_and(|age| age > TEMPORARY)
}

fn named(names: &[String]) -> String {
    let mut text = names[..names.len().min(NAMED)].join(", ");
    if names.len() > NAMED {
        text += ", …";
    }
    text
}
