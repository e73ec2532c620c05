//! Names in the host's shared memory: files of the tmpfs at `/dev/shm`, where shm_open(3) puts them.
//!
//! A name is a file name without the slash. Everything here leaves symbolic links unfollowed.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

const DIRECTORY: &str = "/dev/shm";

/// Where the name stands.
pub fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Opens what a name stands for, for reading and writing, without waiting for whatever it is.
///
/// # Errors
/// `ENOENT` if there is no such name, `ELOOP` for a symbolic link, else what open(2) reports.
pub fn open(name: &str) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path(name))
}

/// Whether the name stands for this very file.
pub fn names(name: &str, file: &File) -> io::Result<bool> {
    let file = file.metadata()?;
    match fs::symlink_metadata(path(name)) {
        Ok(found) => Ok((found.dev(), found.ino()) == (file.dev(), file.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Lets the owner alone read and write it, whatever the umask took away when it was made.
pub fn make_private(name: &str) -> io::Result<()> {
    fs::set_permissions(path(name), Permissions::from_mode(0o600))
}

/// Gives a file a second name, unless that exists.
///
/// # Errors
/// `EEXIST` if it does, `ENOENT` if the first name is gone.
pub fn link(name: &str, second: &str) -> io::Result<()> {
    fs::hard_link(path(name), path(second))
}

/// Takes a name away; the memory goes with its last user.
pub fn unlink(name: &str) -> io::Result<()> {
    fs::remove_file(path(name))
}

/// The names that begin like this.
pub fn starting_with(prefix: &str) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(DIRECTORY)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(entries.filter(|name| name.starts_with(prefix)).collect())
}
