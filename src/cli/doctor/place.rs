//! The bus's directory.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use super::super::{Common, Outcome};
use super::Check;
use super::leftovers::Leftovers;
use crate::BusError;
use crate::control::{LONGEST_PATH, Location, lets_in};
use crate::sys::credentials;

const DIRECTORY: &str = "directory";

/// Looks at the directory, and at what is in it.
pub(super) fn checks(common: &Common, leftovers: &mut Leftovers) -> Outcome<Vec<Check>> {
    let bus = common.bus_name();
    let path = Location::new(common.dir.clone(), None).base().join(&bus);
    match common.builder().examine() {
        Ok(Some(path)) => Ok(vec![found(&path), head_room(&path), leftovers.sockets(&path)]),
        Ok(None) => Ok(vec![missing(&path), head_room(&path)]),
        // What was asked for is no bus at all.
        Err(error @ (BusError::Name(_) | BusError::Group { .. } | BusError::Access(_))) => Err(error.into()),
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
    let above = path.parent().unwrap_or(path);
    if mode & 0o070 != 0 && !lets_in(above, gid) {
        let above = above.display();
        return Check::warn(
            DIRECTORY,
            format!("{shown} is shared with group {gid}, which cannot read and enter {above}"),
            format!("choose another --dir, such as one made by `install -d -m 1770 -g {gid} DIRECTORY`"),
        );
    }
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
