//! What access lists have refused: to whoever waits for a message, that looks like nobody at all.

use std::time::Duration;

use super::note;
use crate::{Action, Denial, Node};

/// How long nodes have to say what they refuse.
const SETTLED: Duration = Duration::from_millis(250);
/// As many as a node remembers.
const MOST: usize = 64;

/// Tells of nodes of other users that the messages of a publisher did not get to; whether there are any.
pub(super) fn note_of_publisher(node: &Node, topic: &str) -> bool {
    let uid = node.info().uid();
    if node.peers().iter().all(|peer| peer.uid() == uid) {
        return false;
    }
    // A peer that answers has said before what it refuses.
    node.survey(SETTLED);
    let denials = node.denials().latest;
    let count = |by_this_node, action| {
        let matching = |denial: &&Denial| {
            denial.by_this_node == by_this_node && denial.action == action && denial.topic == topic
        };
        denials.iter().filter(matching).count()
    };
    let nodes = |n| if n == 1 { "1 node".to_owned() } else { format!("{n} nodes") };
    let (by_others, here) = (count(false, Action::Publish), count(true, Action::Subscribe));
    if by_others > 0 {
        note(format!(
            "note: {} of other users refused what was published: their access lists need `allow publish {topic} to uid {uid}`",
            nodes(by_others)
        ));
    }
    if here > 0 {
        note(format!(
            "note: {} of other users may not subscribe here: --allow 'subscribe {topic} to uid UID' lets them",
            nodes(here)
        ));
    }
    by_others + here > 0
}

/// Tells each denial once.
pub(super) struct Teller<'a> {
    node: &'a Node,
    told: Vec<Denial>,
}

impl<'a> Teller<'a> {
    pub(super) fn new(node: &'a Node) -> Self {
        Self { node, told: Vec::new() }
    }

    /// Those that are new, in words.
    pub(super) fn look(&mut self) -> Vec<String> {
        let latest = self.node.denials().latest;
        let new: Vec<Denial> = latest.into_iter().filter(|denial| !self.told.contains(denial)).collect();
        let words = new.iter().map(|denial| self.words(denial)).collect();
        self.told.extend(new);
        self.told.drain(..self.told.len().saturating_sub(MOST));
        words
    }

    fn words(&self, denial: &Denial) -> String {
        let Denial { node, by_this_node, action, topic } = denial;
        match by_this_node {
            true => format!(
                "node {node} of user {} may not {action} {topic} here: --allow '{action} {} to uid {}' lets it",
                node.uid(),
                topic.replace('\'', r"'\''"), // it is somebody else's, and this for a shell
                node.uid()
            ),
            false => format!(
                "node {node} of user {} does not let this one {action} {topic}: its access list needs `allow {action} {topic} to uid {}`",
                node.uid(),
                self.node.info().uid()
            ),
        }
    }
}
