//! Why nodes are not let in.

use super::NodeId;

/// Why a node was not let in. Others on the bus are not affected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The two speak different major versions of the protocol.
    #[error(
        "it speaks protocol {theirs:?}, this node {ours:?}: run the same major version of ringbus on both"
    )]
    Incompatible {
        /// Major and minor version of the other node.
        theirs: (u16, u16),
        /// Major and minor version of this node.
        ours: (u16, u16),
    },
    /// It runs as a user who is not in the group that shares the bus.
    #[error(
        "it runs as user {uid}, who is not in the bus's group {group}: add the user to it, and start the process anew (a login session keeps the groups that it began with)"
    )]
    NotInGroup {
        /// The other node's user id, as the kernel tells it.
        uid: u32,
        /// The group's id.
        group: u32,
    },
    /// It runs as another user, and the bus is not a group's.
    #[error(
        "it runs as user {uid}: open the bus with a group (`--group`, `BusBuilder::group`) on all nodes to share it between users"
    )]
    OtherUser {
        /// The other node's user id, as the kernel tells it.
        uid: u32,
    },
    /// It did not keep to the protocol.
    #[error("it broke the protocol: {what}")]
    Protocol {
        /// What it did.
        what: String,
    },
}

/// Process and user behind a connection, as the kernel tells.
pub(super) type Who = (i32, u32);

/// A node that is not let in.
pub(super) struct Refused {
    pub(super) peer: NodeId,
    /// Who has spoken for it. Another process may have done so in its name, and refuses nobody but itself.
    pub(super) who: Who,
    /// It was the node's own socket that was dialled.
    pub(super) dialled: bool,
}

impl Refused {
    /// Whether it tells the speaker from others: all processes of other pid namespaces have the number 0 here.
    pub(super) fn is_certain(&self) -> bool {
        self.dialled || self.who.0 != 0
    }
}
