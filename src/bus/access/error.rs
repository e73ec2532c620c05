//! What can be wrong with an access list.

use std::io;
use std::path::PathBuf;

use crate::bus::topic::TopicError;

/// What is wrong with an access list.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// A line is no rule.
    #[error(
        "line {line}: {text:?} is no rule: write `allow publish|subscribe|call|serve PATTERN to uid|gid NUMBER-OR-NAME`"
    )]
    Syntax {
        /// Which line, from 1.
        line: usize,
        /// What it says.
        text: String,
    },
    /// A rule's pattern is not valid.
    #[error("access list: {0}")]
    Pattern(#[from] TopicError),
    /// There is no such user on this host.
    #[error("access list: no user {name:?} on this host: name one that `getent passwd` lists, or a number")]
    User {
        /// The user asked for.
        name: String,
    },
    /// There is no such group on this host.
    #[error("access list: no group {name:?} on this host: name one that `getent group` lists, or a number")]
    Group {
        /// The group asked for.
        name: String,
    },
    /// Other users are not let in at all, so there is nothing to allow.
    #[error(
        "an access list is about nodes of other users, and this bus is its user's alone: name the group that shares it (`--group`, `BusBuilder::group`)"
    )]
    NoGroup,
    /// The file could be changed by somebody else.
    #[error(
        "access list {} could be changed by others: it has to belong to this user or root, and only that one may write it (`chmod go-w`)", .path.display()
    )]
    Writable {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
}
