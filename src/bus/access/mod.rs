//! What nodes of other users may do to a node: its access list.
//!
//! ```text
//!   allow publish sensor/** to uid 1001          Access::publish("sensor/**").to_uid(1001)
//!   allow call,subscribe math to gid robots      …
//! ```
//!
//! Nodes of the same user may do everything; those of others, which a group's bus admits, only what a rule says.
//! A rule holds for what others do to the node that has it: each node has its own.

use std::fmt;
use std::str::FromStr;

mod denial;
mod error;
mod rights;
mod scope;
mod text;

pub use denial::{Denial, Denials};
pub use error::AccessError;
pub(super) use rights::{Rights, Rules};

/// What a node of another user may be allowed to do to this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Action {
    /// Write what this node's subscribers, inboxes (topics `@to/<name>`) and listeners to broadcasts (`@all`)
    /// receive.
    Publish,
    /// Read what this node publishes, sends (`@to/<name>`) and broadcasts (`@all`).
    Subscribe,
    /// Call this node's servers.
    Call,
    /// Be called by this node's clients.
    Serve,
}

impl Action {
    const ALL: [Action; 4] = [Action::Publish, Action::Subscribe, Action::Call, Action::Serve];

    /// The word for it in a rule.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Publish => "publish",
            Action::Subscribe => "subscribe",
            Action::Call => "call",
            Action::Serve => "serve",
        }
    }

    /// Its number in a datagram.
    pub(super) fn to_wire(self) -> u8 {
        self as u8
    }

    pub(super) fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who is allowed something.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Whom {
    Uid(u32),
    User(String),
    Gid(u32),
    Group(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    action: Action,
    pattern: String,
    whom: Whom,
}

/// What nodes of other users may do to this node, for [`BusBuilder::allow`](crate::BusBuilder::allow). What no
/// rule allows is refused.
///
/// A rule names an [`Action`], a pattern and a user or group. A log is in reach of a rule if the pattern covers *all*
/// topics that its publisher was opened for: `publish task/*` lets a publisher on `task/7` in, and one over `task/**`
/// not. Wildcards do not reach direct messages and broadcasts, unless they begin as those do: `@to/*`, `@all`. The
/// pattern of `call` and `serve` is over names of services.
///
/// As text it is a rule a line, of the form `allow <action>[,<action>…] <pattern> to uid|gid <number or name>`;
/// empty lines and those that begin with `#` do not count.
///
/// # Examples
/// ```
/// use ringbus::Access;
///
/// let access = Access::publish("sensor/**").to_uid(1001).and(Access::call("math").to_group("robots"));
/// let text = "# the camera\nallow publish sensor/** to uid 1001\nallow call math to gid robots\n";
/// assert_eq!(access, text.parse()?);
/// # Ok::<(), ringbus::AccessError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    rules: Vec<Rule>,
}

impl Access {
    /// No rules: nodes of other users may do nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Allows to write what this node's subscribers, inboxes and listeners to broadcasts receive:
    /// [`Action::Publish`].
    pub fn publish(pattern: impl Into<String>) -> Grant {
        Grant { action: Action::Publish, pattern: pattern.into() }
    }

    /// Allows to read what this node publishes, sends and broadcasts: [`Action::Subscribe`].
    pub fn subscribe(pattern: impl Into<String>) -> Grant {
        Grant { action: Action::Subscribe, pattern: pattern.into() }
    }

    /// Allows to call this node's servers: [`Action::Call`].
    pub fn call(services: impl Into<String>) -> Grant {
        Grant { action: Action::Call, pattern: services.into() }
    }

    /// Allows to be called by this node's clients: [`Action::Serve`].
    pub fn serve(services: impl Into<String>) -> Grant {
        Grant { action: Action::Serve, pattern: services.into() }
    }

    /// Both lists' rules.
    #[must_use]
    pub fn and(mut self, other: Access) -> Self {
        self.rules.extend(other.rules);
        self
    }

    /// Reads a list from a file.
    ///
    /// # Errors
    /// [`AccessError`]: it cannot be read, has a line that is no rule, or belongs to or is writable by others than
    /// this user and root.
    pub fn read(path: impl AsRef<std::path::Path>) -> Result<Self, AccessError> {
        text::read(path.as_ref())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

impl FromStr for Access {
    type Err = AccessError;

    fn from_str(text: &str) -> Result<Self, AccessError> {
        text::parse(text)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for rule in &self.rules {
            writeln!(f, "{rule}")?;
        }
        Ok(())
    }
}

/// A rule without the one whom it is for.
#[derive(Debug, Clone)]
#[must_use = "a rule needs somebody whom it allows something: `to_uid`, `to_user`, `to_gid` or `to_group`"]
pub struct Grant {
    action: Action,
    pattern: String,
}

impl Grant {
    /// To nodes that run as the user of this number.
    pub fn to_uid(self, uid: u32) -> Access {
        self.to(Whom::Uid(uid))
    }

    /// To nodes that run as this user; the name is looked up when the bus is opened.
    pub fn to_user(self, name: impl Into<String>) -> Access {
        self.to(Whom::User(name.into()))
    }

    /// To nodes whose process is in the group of this number.
    pub fn to_gid(self, gid: u32) -> Access {
        self.to(Whom::Gid(gid))
    }

    /// To nodes whose process is in this group; the name is looked up when the bus is opened.
    pub fn to_group(self, name: impl Into<String>) -> Access {
        self.to(Whom::Group(name.into()))
    }

    fn to(self, whom: Whom) -> Access {
        Access { rules: vec![Rule { action: self.action, pattern: self.pattern, whom }] }
    }
}
