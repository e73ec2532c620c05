//! Opening a bus: where it is, who may share it, whom to trust.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};

use super::access::{Access, AccessError, Rules};
use super::error::{BusError, JoinError};
use super::node::Node;
use super::quotas::Quotas;
use super::topic::check_bus_name;
use crate::control::{self, Directory, Location};
use crate::sys::fork::Origin;
use crate::sys::{credentials, random};

/// Environment variable that names the default bus.
const BUS_VARIABLE: &str = "RINGBUS_BUS";
/// The default bus where the variable is not set.
const DEFAULT_BUS: &str = "default";
/// Private buses' directories begin with this; the owner holds a lock on each.
const PRIVATE_PREFIX: &str = "ringbus-private-";

/// Whether payloads may be read where their writer put them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trust {
    /// Payloads of nodes of the same user are lent in place ([`Sample`](crate::Sample)): no copy. Such a node
    /// could change a payload while it is being looked at, if it breaks the protocol on purpose. Payloads of
    /// other users' nodes are copied all the same.
    #[default]
    Lend,
    /// Every payload is copied to private memory before it is looked at.
    Copy,
}

/// A message bus: a name that processes share. Opening one talks to nobody; [`Bus::join`] does.
///
/// # Examples
/// ```
/// let bus = ringbus::Bus::private()?; // for one process; others use `Bus::open("agents")`
/// let planner = bus.join("planner")?;
/// let worker = bus.join("worker")?;
///
/// let mut updates = planner.subscriber::<u32>("task/*")?;
/// let mut progress = worker.publisher::<u32>("task/progress")?;
/// progress.publish(&3)?;
/// assert_eq!(*updates.recv()?, 3);
/// # Ok::<(), ringbus::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Bus {
    pub(super) name: String,
    pub(super) location: Location,
    pub(super) directory: Directory,
    pub(super) trust: Trust,
    pub(super) access: Arc<Rules>,
    pub(super) quotas: Quotas,
    /// Keeps a private bus's directory while anybody may use it.
    pub(super) private: Option<Arc<PrivateDirectory>>,
}

impl Bus {
    /// Opens the bus of this name, creating its directory if it is the first to.
    ///
    /// The directory is `$RINGBUS_DIR/<name>`, else `$XDG_RUNTIME_DIR/ringbus/<name>`, else
    /// `/tmp/ringbus-<uid>/<name>`; it is this user's alone. A variable that is empty counts as not set, as does a relative
    /// `$XDG_RUNTIME_DIR`.
    ///
    /// # Errors
    /// [`BusError`]: the name is not one path component of printable characters, or the directory cannot be
    /// created or is not this user's alone.
    pub fn open(name: &str) -> Result<Self, BusError> {
        Self::builder(name).open()
    }

    /// Opens the bus that `$RINGBUS_BUS` names, else `default`.
    ///
    /// # Errors
    /// Those of [`Bus::open`].
    pub fn from_env() -> Result<Self, BusError> {
        Self::open(&Self::default_name())
    }

    /// What [`Bus::from_env`] opens.
    pub fn default_name() -> String {
        let name = std::env::var_os(BUS_VARIABLE).filter(|name| !name.is_empty());
        // A name that is no text is some other bus's, not the default one's.
        name.map_or_else(|| DEFAULT_BUS.into(), |name| name.to_string_lossy().into_owned())
    }

    /// Opens a bus with other than the usual settings.
    pub fn builder(name: &str) -> BusBuilder {
        BusBuilder {
            name: name.into(),
            dir: None,
            group: None,
            access: Access::none(),
            trust: Trust::default(),
            quotas: Quotas::default(),
        }
    }

    /// A bus of its own, for one process and for tests: its directory has a random name and goes with the
    /// last handle. A child process can still be given [`Bus::dir`] and [`Bus::name`] to join it.
    ///
    /// # Errors
    /// [`BusError`]: no directory can be created in the directory for temporary files.
    pub fn private() -> Result<Self, BusError> {
        let private = PrivateDirectory::create()
            .map_err(|source| BusError::Io { what: "create a private directory", source })?;
        let bus = Self::builder("private").dir(&private.path).open()?;
        Ok(Self { private: Some(Arc::new(private)), ..bus })
    }

    /// Joins the bus as a node of this name, which need not be unique. Returns once every node that answers
    /// within 200 ms is known, with its ports.
    ///
    /// Costs a thread (asleep unless the bus changes) and, per other node, a socket and a process handle. The first join
    /// of a process that has several threads already takes the kernel some 10 to 20 ms (it registers for membarrier(2)):
    /// join early.
    ///
    /// # Errors
    /// [`JoinError`]: the name is not valid, the directory is no longer usable, or the process is out of
    /// threads or file descriptors.
    pub fn join(&self, name: &str) -> Result<Node, JoinError> {
        Node::join(self, name)
    }

    /// The bus's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory that holds this and other buses: what `.dir(..)` or `$RINGBUS_DIR` names.
    pub fn dir(&self) -> &Path {
        self.location.base()
    }

    /// Names of the buses that share this one's parent directory, this one included.
    pub fn siblings(&self) -> Vec<String> {
        self.location.buses()
    }
}

/// Settings of a bus; every node on it has to choose the same directory and group.
#[derive(Debug, Clone)]
pub struct BusBuilder {
    name: String,
    dir: Option<PathBuf>,
    group: Option<String>,
    access: Access,
    trust: Trust,
    quotas: Quotas,
}

impl BusBuilder {
    /// The directory that holds buses, instead of the default. Containers share one to share a bus.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Shares the bus between the users of a group (a name, or a number), in a directory that all of them can enter and
    /// write: [`BusBuilder::dir`] or `$RINGBUS_DIR` has to name it, for the default ones are one user's; the first node
    /// creates it (`01770`) if it is missing. The bus's own directory in it is `01770`, the sockets `0660`, and nodes of the
    /// group's members are admitted. They may do nothing to this node's ports but what [`BusBuilder::allow`] says, and
    /// their payloads are always copied.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Allows nodes of other users something, in addition to what was allowed before; without, they are known to this
    /// node as its [peers](Node::peers), and no more. It is about what they do to this node: others have lists of their
    /// own. Nodes of the same user may do everything.
    ///
    /// # Examples
    /// ```no_run
    /// use ringbus::{Access, Bus};
    ///
    /// let bus = Bus::builder("agents")
    ///     .dir("/run/ringbus")
    ///     .group("robots")
    ///     .allow(Access::publish("sensor/**").to_user("camera"))
    ///     .allow(Access::call("math").to_group("robots"))
    ///     .allow(Access::read("/etc/ringbus/agents")?)
    ///     .open()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn allow(mut self, access: Access) -> Self {
        self.access = self.access.and(access);
        self
    }

    /// Whether payloads may be read in place; default [`Trust::Lend`].
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// What each other node may use of this one, whoever's it is; the defaults are those of [`Quotas`].
    pub fn quotas(mut self, quotas: Quotas) -> Self {
        self.quotas = quotas;
        self
    }

    /// Opens the bus.
    ///
    /// # Errors
    /// Those of [`Bus::open`]; [`BusError::Group`] if there is no such group, [`BusError::Directory`] if there is a group and
    /// no directory was named; [`BusError::Access`] if the access list
    /// is not valid, or there is one without a group.
    pub fn open(self) -> Result<Bus, BusError> {
        let location = self.location()?;
        let access = Arc::new(self.rules(&location)?);
        let directory = Directory::open(&location, &self.name)?;
        if location.is_out_of_reach() {
            tracing::warn!(
                dir = %location.base().display(),
                "the group cannot read and enter this directory: its other members do not find the bus in it"
            );
        }
        let (trust, quotas) = (self.trust, self.quotas);
        Ok(Bus { name: self.name, location, directory, trust, access, quotas, private: None })
    }

    /// The directory that [`BusBuilder::open`] would open, with everything checked as it would; `None` where it
    /// would create it.
    #[cfg(feature = "cli")]
    pub(crate) fn examine(&self) -> Result<Option<PathBuf>, BusError> {
        let location = self.location()?;
        self.rules(&location)?;
        let directory = Directory::examine(&location, &self.name)?;
        Ok(directory.map(|directory| directory.path().to_owned()))
    }

    fn rules(&self, location: &Location) -> Result<Rules, BusError> {
        if location.group().is_none() && !self.access.is_empty() {
            return Err(AccessError::NoGroup.into());
        }
        Ok(Rules::new(&self.access)?)
    }

    fn location(&self) -> Result<Location, BusError> {
        check_bus_name(&self.name)?;
        let group = self.group.as_deref().map(find_group).transpose()?;
        Ok(Location::new(self.dir.clone(), group))
    }
}

fn find_group(name: &str) -> Result<u32, BusError> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    credentials::gid_of_group(name)
        .map_err(|source| BusError::Io { what: "look up a group", source })?
        .ok_or_else(|| BusError::Group { name: name.into() })
}

/// A directory for one private bus. Its owner holds a lock on it: the kernel lets go of it when the last
/// process that has it ends, however, and the next private bus removes what is left.
#[derive(Debug)]
pub(super) struct PrivateDirectory {
    path: PathBuf,
    lock: Option<Flock<File>>,
    origin: Origin,
}

impl PrivateDirectory {
    fn create() -> io::Result<Self> {
        let origin = Origin::here()?;
        let parent = std::env::temp_dir();
        remove_abandoned(&parent);
        // Another process may take a fresh directory for an abandoned one before it is locked.
        for _ in 0..16 {
            let id = u64::from_le_bytes(*random::id128()?.first_chunk().expect("16 bytes"));
            let path = parent.join(format!("{PRIVATE_PREFIX}{id:016x}"));
            DirBuilder::new().mode(0o700).create(&path)?;
            if let Some(lock) = lock(&path)
                && path.is_dir()
            {
                return Ok(Self { path, lock: Some(lock), origin });
            }
        }
        Err(io::Error::other("every directory created was removed at once by somebody else"))
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        let lock = self.lock.take();
        if self.origin.is_here() {
            let _ = fs::remove_dir_all(&self.path);
        } else {
            // A forked child's handle is its parent's lock: dropping it would unlock for both.
            std::mem::forget(lock);
        }
    }
}

fn lock(path: &Path) -> Option<Flock<File>> {
    let handle = File::open(path).ok()?;
    Flock::lock(handle, FlockArg::LockExclusiveNonblock).ok()
}

/// Removes private directories whose owners were killed, unless others live there.
fn remove_abandoned(parent: &Path) {
    for directory in abandoned(parent) {
        let _ = directory.remove();
    }
}

/// The directory of a private bus whose owner was killed, and in which no process lives that was told of it: nobody
/// else's while this holds its lock.
#[derive(Debug)]
pub(crate) struct Abandoned {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Abandoned {
    #[cfg(feature = "cli")]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
    }
}

/// Those of this user among the temporary files.
#[cfg(feature = "cli")]
pub(crate) fn abandoned_private() -> impl Iterator<Item = Abandoned> {
    abandoned(&std::env::temp_dir())
}

fn abandoned(parent: &Path) -> impl Iterator<Item = Abandoned> + use<> {
    let ours = |found: fs::Metadata| found.is_dir() && found.uid() == credentials::euid();
    fs::read_dir(parent).into_iter().flatten().flatten().filter_map(move |entry| {
        let is_private = entry.file_name().to_str().is_some_and(|name| name.starts_with(PRIVATE_PREFIX));
        if !is_private || !entry.metadata().is_ok_and(ours) {
            return None;
        }
        let path = entry.path();
        let lock = lock(&path)?;
        let mut buses = fs::read_dir(&path).ok()?.flatten().filter(|bus| bus.path().is_dir());
        let inhabited = buses.any(|bus| control::is_inhabited(&bus.path()));
        (!inhabited).then_some(Abandoned { _lock: lock, path })
    })
}
