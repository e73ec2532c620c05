//! The bus on disk: a directory that holds one rendezvous socket per node, and nothing else.
//!
//! The directory decides who may join, so its owner, type and mode are checked each time it is opened.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

use super::NodeId;
use super::residue::{Kind, Owner, remove_stale_temporary};
use crate::sys::seqpacket::{Listener, Socket};
use crate::sys::{credentials, limits, random};

/// Longest path that a Unix socket can be bound to (unix(7)), without its terminating zero.
const SOCKET_PATH: usize = 107;
/// Bytes that a socket's name adds to the directory's path: `/` + 32 digits + `.sock`, or a temporary
/// `/.` + 32 digits + `.tmp`.
const SOCKET_NAME: usize = 38;
/// Longest path that a bus's directory can have, in bytes.
pub(crate) const LONGEST_PATH: usize = SOCKET_PATH - SOCKET_NAME;
/// How often a socket is placed whose temporary name somebody has removed.
const PLACINGS: u32 = 3;
/// The setgid bit of a directory's mode: what is made in it has its group, and the bit.
const SETGID: u32 = 0o2000;
/// Connections that may wait to be accepted; beyond that a dial is retried.
const BACKLOG: u32 = 256;

/// Why a bus's directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The path is too long for a socket.
    #[error(
        "{} has {} bytes, but a socket needs a path of at most {limit}: choose a shorter bus name, or set RINGBUS_DIR to a shorter directory", .path.display(), .path.as_os_str().len()
    )]
    TooLong {
        /// The bus's directory.
        path: PathBuf,
        /// Most bytes it may have.
        limit: usize,
    },
    /// Something that is no directory (or a symbolic link to one) has the bus's name.
    #[error("{} is not a directory of its own (a symbolic link is refused): remove it, or choose another bus name or directory", .path.display())]
    NotADirectory {
        /// What was found.
        path: PathBuf,
    },
    /// It belongs to somebody else.
    #[error("{} belongs to user {owner}, not to user {uid}: choose another directory (`--dir`, RINGBUS_DIR) or bus name", .path.display())]
    NotOurs {
        /// What was found.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        uid: u32,
    },
    /// In a group's bus: its owner is neither this user nor root, nor in the group.
    #[error("{} belongs to user {owner}, who is not in group {group}: have a member or root make it (`install -d -m 1770 -g {group} {}`), or choose another bus name", .path.display(), .path.display())]
    OutsideGroup {
        /// What was found.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// The group asked for.
        group: u32,
    },
    /// In a group's bus: no directory was named, and the default ones are their user's alone.
    #[error("{} is for this user's own buses, which others do not find: name the directory of the bus that group {group} shares (`--dir`, RINGBUS_DIR or `BusBuilder::dir`), one that its members can enter and write (`install -d -m 1770 -g {group} DIRECTORY`)", .path.display())]
    NotShared {
        /// The default directory.
        path: PathBuf,
        /// The group asked for.
        group: u32,
    },
    /// In a group's bus: this user may not read it.
    #[error("user {uid} may not read {}: add that user to group {group} (its next session is in it), have the directory's owner let the group read and enter (as `install -d -m 1770 -g {group} DIRECTORY` does), or choose another one", .path.display())]
    NotLetIn {
        /// What was found.
        path: PathBuf,
        /// Who asks.
        uid: u32,
        /// The group asked for.
        group: u32,
    },
    /// Others could reach into it.
    #[error("{} has mode {mode:04o}, not {expected:04o}: it lets others in, or was made for another group; name the same group (`--group`, `BusBuilder::group`), remove it if nobody is on that bus, or run `chmod {expected:04o}` on it if you trust what is in there", .path.display())]
    TooOpen {
        /// What was found.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they have to be.
        expected: u32,
    },
    /// The group does not own it.
    #[error("{} belongs to group {found}, not to group {expected}: all nodes of a shared bus name the same group", .path.display())]
    OtherGroup {
        /// What was found.
        path: PathBuf,
        /// Its group.
        found: u32,
        /// The group asked for.
        expected: u32,
    },
    /// The operating system refused.
    #[error("cannot {what} {}: {source}{}", .path.display(), limits::advice(.source))]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Where buses live: the parent of every bus's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    base: PathBuf,
    /// Nobody has named it: it is this user's.
    is_default: bool,
    /// The group that shares the bus; `None`: this user alone.
    group: Option<u32>,
}

impl Location {
    /// `base`, else `$RINGBUS_DIR`, else `$XDG_RUNTIME_DIR/ringbus`, else `/tmp/ringbus-<uid>`.
    pub(crate) fn new(base: Option<PathBuf>, group: Option<u32>) -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let named = base.or_else(|| set("RINGBUS_DIR"));
        let is_default = named.is_none();
        // One that depends on where a process was started is none, says the XDG Base Directory Specification.
        let runtime = || set("XDG_RUNTIME_DIR").filter(|dir| dir.is_absolute());
        let base = named
            .or_else(|| runtime().map(|dir| dir.join("ringbus")))
            .unwrap_or_else(|| PathBuf::from(format!("/tmp/ringbus-{}", credentials::euid())));
        // The process may change its working directory between two joins.
        let base = std::path::absolute(&base).unwrap_or(base);
        Self { base, is_default, group }
    }

    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    pub(crate) fn group(&self) -> Option<u32> {
        self.group
    }

    /// Whether it is to be shared with a group that cannot reach the directory that buses are in.
    pub(crate) fn is_out_of_reach(&self) -> bool {
        self.group.is_some_and(|group| !lets_in(&self.base, group))
    }

    /// The directory of the bus of this name.
    fn path(&self, bus: &str) -> Result<PathBuf, DirectoryError> {
        if let (true, Some(group)) = (self.is_default, self.group) {
            return Err(DirectoryError::NotShared { path: self.base.clone(), group });
        }
        let path = self.base.join(bus);
        match path.as_os_str().len() > LONGEST_PATH {
            true => Err(DirectoryError::TooLong { path, limit: LONGEST_PATH }),
            false => Ok(path),
        }
    }

    /// Names of the buses that have a directory here, sorted.
    pub(crate) fn buses(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.base) else { return Vec::new() };
        let is_bus = |found: fs::Metadata| {
            let bits = found.mode() & 0o7777 & !SETGID;
            found.is_dir() && (bits == mode(None) || bits == mode(Some(0)))
        };
        let directories = entries.flatten().filter(|entry| entry.metadata().is_ok_and(is_bus));
        let names = directories.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        names
    }
}

/// One bus's directory, opened and checked.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    path: PathBuf,
    group: Option<u32>,
}

impl Directory {
    /// Creates the directory if it is missing, and checks that nobody but those it is for can reach in.
    pub(crate) fn open(location: &Location, bus: &str) -> Result<Self, DirectoryError> {
        let path = location.path(bus)?;
        open_base(location)?;
        if let Err(source) = create(&path, location.group, mode(location.group)) {
            return Err(DirectoryError::Io { what: "create", path, source });
        }
        // All further looks go through this handle: the name could be exchanged meanwhile.
        let handle = open_directory(&path, location.group)?;
        check(&handle, &path, location.group)?;
        Ok(Self { path, group: location.group })
    }

    /// Checks what [`Directory::open`] checks, and creates nothing: `None` where it would.
    #[cfg(feature = "cli")]
    pub(crate) fn examine(location: &Location, bus: &str) -> Result<Option<Self>, DirectoryError> {
        let path = location.path(bus)?;
        if is_missing(&location.base) {
            return Ok(None);
        }
        check_base(location)?;
        if is_missing(&path) {
            return Ok(None);
        }
        check(&open_directory(&path, location.group)?, &path, location.group)?;
        Ok(Some(Self { path, group: location.group }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn socket(&self, id: NodeId) -> PathBuf {
        self.path.join(format!("{id}.sock"))
    }

    /// Puts the node's rendezvous socket there: bound and listening before it has its name, since a
    /// socket that refuses is taken for a dead node's.
    pub(crate) fn listen(&self, id: NodeId) -> Result<Placed, DirectoryError> {
        // One that is bound and does not listen yet looks old, and is removed, where the wall clock has jumped.
        for _ in 1..PLACINGS {
            match self.place(id) {
                Err(DirectoryError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                placed => return placed,
            }
        }
        self.place(id)
    }

    fn place(&self, id: NodeId) -> Result<Placed, DirectoryError> {
        let temporary = self.path.join(format!(".{id}.tmp"));
        let name = self.socket(id);
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| DirectoryError::Io { what, path, source }
        };
        let listener = Listener::bind(&temporary, BACKLOG).map_err(io("bind a socket at", &temporary))?;
        let mode = if self.group.is_some() { 0o660 } else { 0o600 };
        let placed = std::os::unix::fs::chown(&temporary, None, self.group)
            .and_then(|()| fs::set_permissions(&temporary, fs::Permissions::from_mode(mode)))
            .and_then(|()| FileId::of(&temporary))
            .and_then(|file| fs::rename(&temporary, &name).map(|()| file));
        match placed {
            Ok(file) => Ok(Placed { listener, file }),
            Err(source) => {
                let _ = fs::remove_file(&temporary);
                Err(DirectoryError::Io { what: "place the socket", path: name, source })
            }
        }
    }

    /// Whether the node's socket is still there, and not another in its place: somebody may have cleaned up.
    pub(crate) fn holds(&self, id: NodeId, file: FileId) -> bool {
        FileId::of(&self.socket(id)).is_ok_and(|found| found == file)
    }

    /// The nodes that have a socket here. Left-over temporary ones are removed on the way.
    pub(crate) fn nodes(&self) -> Result<Vec<NodeId>, DirectoryError> {
        let io = |source| DirectoryError::Io { what: "list", path: self.path.clone(), source };
        let mut nodes = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(io)? {
            let Ok(entry) = entry else { continue };
            match Kind::of(&entry) {
                Kind::Node(id) => nodes.push(id),
                Kind::Temporary => remove_stale_temporary(&entry),
                Kind::Foreign => {}
            }
        }
        Ok(nodes)
    }

    /// Connects to a node's socket.
    pub(crate) fn dial(&self, id: NodeId) -> io::Result<Socket> {
        Socket::connect(&self.socket(id))
    }

    /// Removes the socket of a node that is dead, if it has left one.
    pub(crate) fn remove_if_dead(&self, id: NodeId) {
        if matches!(Owner::of(&self.socket(id)), Owner::Dead) {
            self.remove(id);
        }
    }

    /// Removes the socket of a node that refused: ids are random and never used again, so whoever owned
    /// it is dead.
    pub(crate) fn remove(&self, id: NodeId) {
        let _ = fs::remove_file(self.socket(id));
    }
}

/// Whether a group's members may read and enter a directory, as far as its mode says.
pub(crate) fn lets_in(directory: &Path, group: u32) -> bool {
    let says_so = |found: fs::Metadata| {
        let has = |bits: u32| found.mode() & bits == bits;
        has(0o005) || (found.gid() == group && has(0o050))
    };
    fs::metadata(directory).is_ok_and(says_so)
}

fn open_base(location: &Location) -> Result<(), DirectoryError> {
    let base = &location.base;
    let io = |source| DirectoryError::Io { what: "create", path: base.clone(), source };
    create_all(base, location.group, mode(location.group)).map_err(io)?;
    check_base(location)
}

fn check_base(location: &Location) -> Result<(), DirectoryError> {
    let base = &location.base;
    let io = |source| DirectoryError::Io { what: "look at", path: base.clone(), source };
    let found = open_directory(base, location.group)?.metadata().map_err(io)?;
    let (owner, uid) = (found.uid(), credentials::euid());
    let mode = found.mode() & 0o7777;
    // Whoever can rename in the base can put another directory in the bus's place.
    let sticky = mode & 0o1000 != 0;
    if owner != uid && owner != 0 && location.group.is_none() {
        return Err(DirectoryError::NotOurs { path: base.clone(), owner, uid });
    }
    if mode & 0o022 != 0 && !sticky && location.group.is_none() {
        return Err(DirectoryError::TooOpen { path: base.clone(), mode, expected: mode & !0o022 });
    }
    Ok(())
}

/// With whatever is missing above it: of that a group may no more than pass.
fn create_all(path: &Path, group: Option<u32>, mode: u32) -> io::Result<()> {
    match (create(path, group, mode), path.parent()) {
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            create_all(parent, group, if group.is_some() { 0o750 } else { 0o700 })?;
            create(path, group, mode)
        }
        (created, _) => created,
    }
}

/// Creates a directory, unless something has its name: what that is, is for the caller to check.
///
/// It has its mode and its group before it has its name, since another node may look at any moment.
fn create(path: &Path, group: Option<u32>, mode: u32) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    let temporary = path.with_file_name(format!(".{}.tmp", NodeId(random::id128()?)));
    DirBuilder::new().mode(0o700).create(&temporary)?;
    // Replaces at most an empty directory that another node has put there in this moment.
    let placed = own(&temporary, group, mode).and_then(|()| fs::rename(&temporary, path));
    if placed.is_err() {
        let _ = fs::remove_dir(&temporary);
    }
    placed.or_else(|error| if fs::symlink_metadata(path).is_ok() { Ok(()) } else { Err(error) })
}

#[cfg(feature = "cli")]
fn is_missing(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The directory itself; a symbolic link is not followed.
fn open_directory(path: &Path, group: Option<u32>) -> Result<File, DirectoryError> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(handle) => Ok(handle),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) => {
            Err(DirectoryError::NotADirectory { path: path.to_owned() })
        }
        Err(source) => {
            let (path, uid) = (path.to_owned(), credentials::euid());
            // Somebody else's that may not be read: the more telling errors.
            match (group, fs::symlink_metadata(&path)) {
                (Some(group), Ok(_)) if source.kind() == io::ErrorKind::PermissionDenied => {
                    Err(DirectoryError::NotLetIn { path, uid, group })
                }
                (None, Ok(found)) if found.uid() != uid => {
                    Err(DirectoryError::NotOurs { path, owner: found.uid(), uid })
                }
                _ => Err(DirectoryError::Io { what: "open", path, source }),
            }
        }
    }
}

/// A node's socket, where others find it.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) listener: Listener,
    pub(crate) file: FileId,
}

/// Which file it is: device and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId(u64, u64);

impl FileId {
    fn of(path: &Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|found| Self(found.dev(), found.ino()))
    }
}

fn mode(group: Option<u32>) -> u32 {
    if group.is_some() { 0o1770 } else { 0o700 }
}

fn own(path: &Path, group: Option<u32>, mode: u32) -> io::Result<()> {
    // A umask may have kept even the owner out.
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let handle = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    std::os::unix::fs::fchown(&handle, None, group)?;
    handle.set_permissions(fs::Permissions::from_mode(mode))
}

fn check(handle: &File, path: &Path, group: Option<u32>) -> Result<(), DirectoryError> {
    let path = path.to_owned();
    let found = match handle.metadata() {
        Ok(found) => found,
        Err(source) => return Err(DirectoryError::Io { what: "look at", path, source }),
    };
    let (owner, uid) = (found.uid(), credentials::euid());
    match group {
        Some(expected) if found.gid() != expected => {
            return Err(DirectoryError::OtherGroup { path, found: found.gid(), expected });
        }
        // It may have the group of the directory that it was made in, whoever made it.
        Some(group) if owner != uid && owner != 0 => match credentials::is_member(owner, group) {
            Ok(true) => {}
            Ok(false) => return Err(DirectoryError::OutsideGroup { path, owner, group }),
            Err(source) => return Err(DirectoryError::Io { what: "look up the owner of", path, source }),
        },
        None if owner != uid => return Err(DirectoryError::NotOurs { path, owner, uid }),
        _ => {}
    }
    let (found, expected) = (found.mode() & 0o7777, mode(group));
    // A directory made in one with the setgid bit has it as well: it lets nobody in.
    let setgid = if group.is_some() { SETGID } else { 0 };
    if found & !setgid != expected {
        return Err(DirectoryError::TooOpen { path, mode: found, expected });
    }
    Ok(())
}
