//! Whether two sequences of levels with wildcards have a common instance.
//!
//! One of them is mostly a peer's, and may be made to take long. What most of them come to is found out without the table:
//! by the levels that both name first, and by how many levels each stands for.

use super::LONGEST;

/// Whether they have; `None` if that takes more than `steps`, from which those that it took are subtracted. Either may have
/// been brought to its [`shortest`] form, and spans as many levels as it says.
pub(super) fn overlap(
    (mut one, ours): (&str, Span),
    (mut other, theirs): (&str, Span),
    steps: &mut usize,
) -> Option<bool> {
    if other.len() > LONGEST || theirs.levels > LEVELS {
        return Some(false); // a topic out of a frame, not checked yet: levels may be empty, too
    }
    if !ours.may_be(theirs.least) && !theirs.may_be(ours.least) {
        return Some(false);
    }
    let (mut left, mut right) = (ours.levels, theirs.levels);
    loop {
        *steps = steps.checked_sub(1)?;
        let (mine, my_rest) = first_level(one);
        let (its, its_rest) = first_level(other);
        if is_wildcard(mine) || is_wildcard(its) {
            break;
        }
        if mine != its {
            return Some(false);
        }
        match (my_rest, its_rest) {
            (Some(rest), Some(others)) => (one, other) = (rest, others),
            (None, None) => return Some(true),
            (Some(rest), None) | (None, Some(rest)) => return Some(rest == "**"),
        }
        (left, right) = (left - 1, right - 1);
    }
    *steps = steps.checked_sub(usize::from(left) * usize::from(right))?;
    Some(by_table(one, other))
}

/// Most levels of a pattern or a topic: none is empty.
const LEVELS: u8 = LONGEST.div_ceil(2) as u8;

/// How many levels an instance has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    least: u8,
    /// Or more.
    is_open: bool,
    /// Those of the pattern itself.
    levels: u8,
}

impl Span {
    /// Of a pattern in its shortest form, of [`LONGEST`] bytes at most.
    pub(super) fn of_pattern(text: &str) -> Self {
        let open = text.split('/').filter(|level| *level == "**").count() as u8;
        let Self { levels, .. } = Self::of_topic(text);
        Self { least: levels - open, is_open: open > 0, levels }
    }

    /// Of a topic.
    pub(super) fn of_topic(text: &str) -> Self {
        let levels = text.bytes().fold(1, |levels: u8, byte| levels.saturating_add(u8::from(byte == b'/')));
        Self { least: levels, is_open: false, levels }
    }

    /// Whether so many will do, or more of them.
    fn may_be(self, levels: u8) -> bool {
        self.least == levels || (self.is_open && self.least < levels)
    }
}

/// The pattern with what it stands for, where `**` after `**` adds nothing; `None`: as it is.
pub(super) fn shortest(text: &str) -> Option<String> {
    if !text.contains("**/**") {
        return None;
    }
    let mut levels: Vec<&str> = text.split('/').collect();
    levels.dedup_by(|next, last| (*next, *last) == ("**", "**"));
    Some(levels.join("/"))
}

/// The first level, and those after it.
fn first_level(text: &str) -> (&str, Option<&str>) {
    text.split_once('/').map_or((text, None), |(first, rest)| (first, Some(rest)))
}

fn is_wildcard(level: &str) -> bool {
    matches!(level, "*" | "**")
}

/// Level by level of the one, how far the other can be. At most [`LEVELS`] each, so the table is small and the time
/// bounded.
fn by_table(one: &str, other: &str) -> bool {
    // reach[j]: the levels of `one` so far and the first j of `other` have a common instance.
    let mut reach = [false; LEVELS as usize + 1];
    reach[0] = true;
    let mut width = 0;
    for (j, theirs) in other.split('/').enumerate() {
        reach[j + 1] = reach[j] && theirs == "**";
        width = j + 1;
    }
    for mine in one.split('/') {
        let mut diagonal = reach[0];
        reach[0] &= mine == "**";
        for (j, theirs) in other.split('/').enumerate() {
            let above = reach[j + 1];
            reach[j + 1] = if mine == "**" || theirs == "**" {
                above || reach[j] // stands for nothing, or for one level more
            } else {
                diagonal && (mine == theirs || mine == "*" || theirs == "*")
            };
            diagonal = above;
        }
    }
    reach[width]
}
