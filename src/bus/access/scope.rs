//! What a rule is about.

use std::fmt;

use crate::bus::topic::{Filter, TopicError};

/// What a rule of an access list is about: a pattern that may also be over reserved topics, where it begins as
/// they do (`@all`, `@to/*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::bus) struct Scope(Filter);

impl Scope {
    pub(super) fn new(text: &str) -> Result<Self, TopicError> {
        Filter::from_peer(text).map(Self)
    }

    /// Whether each topic that the filter stands for is among those of the scope.
    pub(super) fn covers(&self, filter: &Filter) -> bool {
        let is_reserved = |text: &str| text.starts_with('@');
        if is_reserved(self.0.as_str()) != is_reserved(filter.as_str()) {
            return false; // wildcards do not reach reserved topics
        }
        let mut theirs: Vec<&str> = filter.as_str().split('/').collect();
        if theirs.iter().all(|level| *level == "**") {
            theirs = vec!["*", "**"]; // no topic is empty
        }
        // covered[j]: what the levels of the scope so far stand for has all that the first j of theirs do.
        let mut covered = vec![false; theirs.len() + 1];
        covered[0] = true;
        for mine in steps(self.0.as_str()) {
            if mine == Step::Loose {
                for (j, level) in theirs.iter().enumerate() {
                    covered[j + 1] |= covered[j] && *level == "**";
                }
            }
            let mut before = covered[0];
            covered[0] &= mine == Step::Any;
            for (j, level) in theirs.iter().enumerate() {
                let above = covered[j + 1];
                covered[j + 1] = match mine {
                    Step::Any => above || covered[j],
                    Step::One | Step::Loose => before && *level != "**",
                    Step::Level(mine) => before && mine == *level,
                };
                before = above;
            }
        }
        covered[theirs.len()]
    }
}

/// What a level of a scope takes of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step<'a> {
    Level(&'a str),
    /// `*`: one level that is not `**`.
    One,
    /// `*` beside `**`: as `*`, and any `**` before it.
    Loose,
    /// `**`: any levels.
    Any,
}

/// The levels of a scope, each run of wildcards as so many `*`, then at most one `**`, which stands for the same.
fn steps(scope: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let levels: Vec<&str> = scope.split('/').collect();
    for run in levels.chunk_by(|one, next| one.starts_with('*') && next.starts_with('*')) {
        let is_any = run.contains(&"**");
        for level in run.iter().filter(|level| **level != "**") {
            steps.push(match *level {
                "*" if is_any => Step::Loose,
                "*" => Step::One,
                level => Step::Level(level),
            });
        }
        if is_any {
            steps.push(Step::Any);
        }
    }
    steps
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bus::topic::topics;

    #[test]
    fn scopes_reach_reserved_topics_only_where_they_say_so() {
        let covers =
            |scope: &str, topic: &str| Scope::new(scope).unwrap().covers(&Filter::from_peer(topic).unwrap());
        for (scope, topic) in
            [("@all", "@all"), ("@to/*", "@to/critic"), ("@to/**", "@to/critic"), ("**", "a/**")]
        {
            assert!(covers(scope, topic), "{scope} {topic}");
        }
        for (scope, topic) in
            [("**", "@all"), ("*/*", "@to/critic"), ("@to/*", "@all"), ("@to/*", "to/critic")]
        {
            assert!(!covers(scope, topic), "{scope} {topic}");
        }
        assert!(Scope::new("a//b").is_err() && Scope::new("").is_err());
    }

    fn levels() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just("*"), Just("**")];
        prop::collection::vec(level, 1..5).prop_map(|levels| levels.join("/"))
    }

    proptest! {
        #[test]
        fn a_scope_covers_a_pattern_if_it_matches_all_its_topics(
            scope in levels(), pattern in levels()
        ) {
            let (own, pattern) = (Filter::new(&scope).unwrap(), Filter::new(&pattern).unwrap());
            // `c` is in neither, so it stands for any other level; four levels of pattern tell within six.
            let mut under = topics(6).into_iter().filter(|topic| pattern.matches(topic));
            let covers = under.all(|topic| own.matches(&topic));
            prop_assert_eq!(Scope::new(&scope).unwrap().covers(&pattern), covers, "{} {}", own, pattern);
        }
    }
}
