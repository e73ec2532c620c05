//! What is left of dead processes, and by whom the rest is used.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::super::silent::is_stopped;
use super::Check;
use crate::bus::abandoned_private;
use crate::control::{State, state};

const SOCKETS: &str = "sockets";
const PRIVATE: &str = "private buses";
const DEAD: &str = "nobody listens there: its process is dead";
const ABANDONED: &str = "nobody has listened under this temporary name for a minute or more";
/// How many sockets are named one by one.
const NAMED: usize = 8;

/// A file, and why it is removed or left.
#[derive(Debug, Serialize)]
pub(super) struct Thing {
    pub(super) path: PathBuf,
    pub(super) why: String,
}

/// What was found, removed and left.
#[derive(Debug, Serialize)]
pub(super) struct Leftovers {
    #[serde(skip)]
    pub(super) fix: bool,
    /// What would be removed.
    pub(super) fixable: Vec<Thing>,
    pub(super) fixed: Vec<Thing>,
    pub(super) left: Vec<Thing>,
}

/// How many of each, and the names of some.
#[derive(Debug, Default)]
struct Found {
    live: usize,
    joining: usize,
    /// Their processes are dead, and they are still there.
    stale: Vec<String>,
    /// The same, of other users.
    others: Vec<String>,
    removed: usize,
    /// They should have been removed.
    stuck: Vec<String>,
    /// They do not take a connection now.
    busy: Vec<String>,
    /// Not the bus's.
    strange: Vec<String>,
    /// What they are could not be found out.
    unknown: Vec<String>,
}

impl Leftovers {
    pub(super) fn new(fix: bool) -> Self {
        Self { fix, fixable: Vec::new(), fixed: Vec::new(), left: Vec::new() }
    }

    /// The entries of a bus's directory, which has been checked.
    pub(super) fn sockets(&mut self, path: &Path) -> Check {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => {
                let found = format!("cannot list {}: {error}", path.display());
                return Check::fail(SOCKETS, found, "chmod 0700 it");
            }
        };
        let mut found = Found::default();
        for entry in entries.flatten() {
            self.look_at(&entry, &mut found);
        }
        found.check()
    }

    fn look_at(&mut self, entry: &DirEntry, found: &mut Found) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let why = match state(entry) {
            State::Gone => return,
            State::Dead => return self.clear_socket(entry, DEAD, name, found),
            State::Abandoned => return self.clear_socket(entry, ABANDONED, name, found),
            State::DeadOfOther { uid } => {
                found.others.push(name);
                format!("nobody listens there, but it belongs to user {uid}: for that user or root to remove")
            }
            State::Alive { pid } => {
                found.live += 1;
                match pid {
                    0 => "its process lives, in another pid namespace".to_owned(),
                    pid if is_stopped(pid) => format!("its process, {pid}, is stopped, not dead"),
                    pid => format!("its process, {pid}, lives"),
                }
            }
            State::Joining => {
                found.joining += 1;
                "somebody joins right now, or was killed less than a minute ago".to_owned()
            }
            State::Busy => {
                found.busy.push(name);
                "its process takes no connection now, but it is not dead".to_owned()
            }
            State::Foreign => {
                found.strange.push(name);
                "it is no socket of the bus".to_owned()
            }
            State::Unknown(error) => {
                found.unknown.push(format!("{name} ({error})"));
                format!("cannot be asked: {error}")
            }
        };
        self.left.push(Thing { path: entry.path(), why });
    }

    fn clear_socket(&mut self, entry: &DirEntry, why: &str, name: String, found: &mut Found) {
        match self.clear(entry.path(), why, |path| fs::remove_file(path)) {
            Cleared::Removed => found.removed += 1,
            Cleared::Would => found.stale.push(name),
            Cleared::Refused => found.stuck.push(name),
        }
    }

    /// The directories of private buses whose owners were killed.
    pub(super) fn private_buses(&mut self) -> Check {
        let (mut abandoned, mut removed, mut stuck) = (0, 0, 0);
        for directory in abandoned_private() {
            let why = "its owner's lock is gone, and nobody else lives there";
            match self.clear(directory.path().to_owned(), why, |_| directory.remove()) {
                Cleared::Removed => removed += 1,
                Cleared::Would => abandoned += 1,
                Cleared::Refused => stuck += 1,
            }
        }
        match (abandoned, removed, stuck) {
            (0, 0, 0) => Check::ok(PRIVATE, "nothing left by dead processes"),
            (0, removed, 0) => Check::ok(PRIVATE, format!("{removed} left by dead processes: removed")),
            (0, _, stuck) => Check::fail(
                PRIVATE,
                format!("{stuck} left by dead processes cannot be removed"),
                "see what is said of each",
            ),
            (many, ..) => Check::warn(
                PRIVATE,
                format!("{many} left by dead processes"),
                "nothing has to be done: the next private bus of this user removes them, or `ringbus doctor --fix`",
            ),
        }
    }

    fn clear(&mut self, path: PathBuf, why: &str, remove: impl FnOnce(&Path) -> io::Result<()>) -> Cleared {
        if !self.fix {
            self.fixable.push(Thing { path, why: why.to_owned() });
            return Cleared::Would;
        }
        match remove(&path) {
            Ok(()) => {
                self.fixed.push(Thing { path, why: why.to_owned() });
                Cleared::Removed
            }
            // Somebody else was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Cleared::Removed,
            Err(error) => {
                self.left.push(Thing { path, why: format!("{why}, but it cannot be removed: {error}") });
                Cleared::Refused
            }
        }
    }
}

enum Cleared {
    Removed,
    /// With `--fix`.
    Would,
    Refused,
}

impl Found {
    fn check(&self) -> Check {
        let Self { live, joining, stale, others, removed, stuck, busy, strange, unknown } = self;
        let mut found = vec![match live {
            1 => "1 node".to_owned(),
            many => format!("{many} nodes"),
        }];
        let mut advice = Vec::new();
        if *joining > 0 {
            found.push(format!("{joining} joining"));
        }
        if *removed > 0 {
            found.push(format!("{removed} left by dead processes: removed"));
        }
        if !stale.is_empty() {
            found.push(format!("{} left by dead processes: {}", stale.len(), named(stale)));
            advice.push("nothing has to be done about the dead ones: the next node that joins removes them, or `ringbus doctor --fix`");
        }
        if !others.is_empty() {
            found.push(format!("{} left by dead processes of other users: {}", others.len(), named(others)));
            advice.push("nothing has to be done about those of other users; they or root can remove them");
        }
        if !stuck.is_empty() {
            found.push(format!("{} that cannot be removed: {}", stuck.len(), named(stuck)));
            advice.push("see what is said of each");
        }
        if !busy.is_empty() {
            found.push(format!("{} not accepting: {}", busy.len(), named(busy)));
            advice.push("see whether a process is stopped (`kill -CONT`) or overloaded");
        }
        if !strange.is_empty() {
            found.push(format!("{} that are not of the bus: {}", strange.len(), named(strange)));
            advice.push("move the files that are not of the bus elsewhere");
        }
        if !unknown.is_empty() {
            found.push(format!("{} that cannot be asked: {}", unknown.len(), named(unknown)));
            advice.push(
                "run this as the user of the sockets that cannot be asked, or with a higher `ulimit -n`",
            );
        }
        match (stuck.is_empty(), advice.is_empty()) {
            (false, _) => Check::fail(SOCKETS, found.join(", "), advice.join("; ")),
            (true, true) => Check::ok(SOCKETS, found.join(", ")),
            (true, false) => Check::warn(SOCKETS, found.join(", "), advice.join("; ")),
        }
    }
}

fn named(names: &[String]) -> String {
    let mut text = names[..names.len().min(NAMED)].join(", ");
    if names.len() > NAMED {
        text += ", …";
    }
    text
}
