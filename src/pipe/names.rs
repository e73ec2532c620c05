//! The names that a pipe has among the host's shared memory, and how a dead writer's are taken away.
//!
//! ```text
//!   ringbus-pipe-<uid>:<name>             the data segment: this name is the pipe
//!   ringbus-pipe-<uid>:<name>:<id>        its cursor segment
//!   ringbus-pipe-<uid>:<name>:<id>.new    the data segment before it is complete
//! ```
//!
//! The data segment is made, filled in and locked under its last name and then linked to its first: so
//! whatever has the first name is complete, and unlocked only if its writer is dead. That name is taken away
//! by the living writer, or by who holds the lock [`CLEARING`] of the dead one's file; and never from another
//! file.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use super::error::NameError;
use super::peer::{self, CLEARING};
use crate::segment::{NamedError, NamedFile};
use crate::sys::{credentials, filelock, shm};

/// How long somebody else may take to clear a name.
const CLEAR: Duration = Duration::from_millis(500);

/// A pipe's names.
#[derive(Debug, Clone)]
pub(super) struct Names {
    data: String,
    name: String,
}

impl Names {
    pub(super) fn new(name: &str) -> Result<Self, NameError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !(1..=super::MAX_NAME).contains(&name.len()) || !name.bytes().all(fits) {
            return Err(NameError { name: name.chars().take(64).collect() });
        }
        Ok(Self { data: format!("ringbus-pipe-{}:{name}", credentials::euid()), name: name.to_owned() })
    }

    /// As the user said it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn data(&self) -> &str {
        &self.data
    }

    pub(super) fn path(&self) -> String {
        shm::path(&self.data).display().to_string()
    }

    pub(super) fn cursors(&self, id: [u8; 16]) -> String {
        format!("{}:{:032x}", self.data, u128::from_le_bytes(id))
    }

    /// Of the data segment that is not complete yet.
    pub(super) fn fresh(&self, id: [u8; 16]) -> String {
        format!("{}.new", self.cursors(id))
    }

    /// Whether the name stands for this file.
    pub(super) fn is_of(&self, file: &File) -> bool {
        shm::names(&self.data, file).unwrap_or(false)
    }

    /// Whether the name stands for anything.
    pub(super) fn is_there(&self) -> bool {
        shm::path(&self.data).symlink_metadata().is_ok()
    }

    /// Makes the name free if its writer is dead; false if it lives.
    ///
    /// # Errors
    /// [`NamedError`] if what has the name is not to be removed, or cannot be.
    pub(super) fn clear(&self) -> Result<bool, NamedError> {
        let deadline = Instant::now() + CLEAR;
        loop {
            let file = match NamedFile::open(&self.data) {
                Err(NamedError::Absent) => return Ok(true),
                found => found?,
            };
            if peer::writer_lives(&file) {
                return Ok(false);
            }
            let os = |source| NamedError::Os { call: "removing a dead writer's pipe", source };
            if !self.remove(file.file()).map_err(os)? {
                // Somebody else is at it, or was.
                if Instant::now() >= deadline {
                    return Ok(false);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Takes the name away from the data segment of a dead writer; false if it is not that file's (any more),
    /// or somebody else is at it.
    pub(super) fn remove(&self, file: &File) -> io::Result<bool> {
        if !filelock::try_lock(file, CLEARING)? {
            return Ok(false);
        }
        // As long as this file has the lock and the name, nobody else's pipe can have it.
        let ours = shm::names(&self.data, file)?;
        if ours {
            self.sweep(None);
            shm::unlink(&self.data)?;
        }
        filelock::unlock(file, CLEARING)?;
        Ok(ours)
    }

    /// Removes what killed writers have left, but for what belongs to `id`. Only for who knows that the name
    /// is not another living writer's. Whoever is making a pipe of this name finds its files gone, and starts
    /// over.
    pub(super) fn sweep(&self, id: Option<[u8; 16]>) {
        let own = id.map(|id| self.cursors(id));
        for name in shm::starting_with(&format!("{}:", self.data)).unwrap_or_default() {
            if !own.as_ref().is_some_and(|own| name.starts_with(own)) {
                // Best effort: what stays is found by the next one.
                let _ = shm::unlink(&name);
            }
        }
    }
}
