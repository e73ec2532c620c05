//! The control plane: who is on the bus, and who reads what.
//!
//! ```text
//!   bus (ports)  ──── messages, commands ────▶  Driver ── sockets, timers, the directory
//!                ◀─── events ────────────────     │
//!                                                Hub    ── which session with which peer   (sans-IO)
//!                                                 │
//!                                              Session  ── one connection: order, fds, acks (sans-IO)
//! ```
//!
//! The two sans-IO parts take bytes and the time as arguments and hand bytes back, so that their tests
//! run two ends in virtual time. The [`Driver`] owns the sockets; it is turned by the node's one control
//! thread, which lives a layer up because it acts on ports.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

mod caller;
mod directory;
mod driver;
mod gone;
mod hub;
mod message;
mod residue;
mod session;
#[cfg(test)]
mod tests;

pub use directory::DirectoryError;
pub(crate) use directory::{Directory, Location};
#[cfg(feature = "cli")]
pub(crate) use directory::{LONGEST_PATH, lets_in};
pub(crate) use driver::{BEAT, Driver};
pub use gone::Gone;
pub use hub::{Admission, Event, Refusal};
#[cfg(fuzzing)]
pub use hub::{ConnId, Hub};
pub use message::{Message, PortCard, PortReport};
pub(crate) use residue::is_inhabited;
#[cfg(feature = "cli")]
pub(crate) use residue::{State, state};

/// Protocol version spoken: another major is refused, a newer minor only adds.
pub const VERSION: (u16, u16) = (1, 0);

/// How long a peer has to answer a hello.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(2);

/// A node's random 128-bit id: what tells two nodes of one name apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) [u8; 16]);

impl NodeId {
    /// The id's bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The first eight of its 32 digits: enough for people to tell the nodes of a bus apart.
    pub(crate) fn short(&self) -> impl fmt::Display {
        let mut digits = self.to_string();
        digits.truncate(8);
        digits
    }

    /// Reads 32 hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let valid = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = valid.then(|| u128::from_str_radix(text, 16).ok()).flatten()?;
        Some(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    pub id: NodeId,
    pub name: Arc<str>,
    /// Milliseconds since 1970.
    pub started_unix_ms: u64,
}
