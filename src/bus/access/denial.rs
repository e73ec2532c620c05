//! What was refused, for the user to see.

use super::Action;
use crate::bus::peer::NodeInfo;

/// What access lists have refused; from [`Node::denials`](crate::Node::denials).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Denials {
    /// How often this node's list has refused something to other nodes.
    pub by_this_node: u64,
    /// How often others have told this node that their lists refuse it something.
    pub by_others: u64,
    /// The latest 64, the newest last; each node, action and topic is listed once.
    pub latest: Vec<Denial>,
}

/// Something that an access list has refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Denial {
    /// The other node.
    pub node: NodeInfo,
    /// Whether it was refused to that node by this one's list; else to this one by that node's.
    pub by_this_node: bool,
    /// What.
    pub action: Action,
    /// The topic, pattern or service.
    pub topic: String,
}
