//! Topics, and the filters that match them.

use std::fmt;
use std::sync::Arc;

mod overlap;

use overlap::{Span, overlap, shortest};

/// Longest topic, filter or name, in bytes.
const LONGEST: usize = 255;
/// First character of topics that are the bus's own.
const RESERVED: char = '@';
/// What is sent to the nodes of a name is on the topic of this and the name.
const INBOXES: &str = "@to/";
/// What is sent to all nodes.
const ALL: &str = "@all";

/// What is wrong with a topic, a filter or a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} {problem}")]
pub struct TopicError {
    what: &'static str,
    text: String,
    problem: Problem,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("is empty")]
    Empty,
    #[error("has {0} bytes, {LONGEST} are the most")]
    TooLong(usize),
    #[error("has an empty level: no `/` at the start or the end, nor two in a row")]
    EmptyLevel,
    #[error(
        "has the character {0:?}: white space, control characters and `*` within a level are not allowed"
    )]
    Character(char),
    #[error(
        "is a filter: a topic to publish on has no `*` (open the publisher over a pattern, then use `publish_to`)"
    )]
    IsFilter,
    #[error("begins with `@`, which is reserved for the bus itself")]
    Reserved,
    #[error("has a `/` or `*`: a name is one level")]
    Levels,
    #[error("is not a name for a directory")]
    Dots,
    #[error("is one of {0}: 64 filters are the most a subscriber has; use wildcards, or several subscribers")]
    TooMany(usize),
    #[error("is not what the publisher was opened for: open another, or one over a pattern that covers it")]
    Outside,
}

impl TopicError {
    fn new(what: &'static str, text: &str, problem: Problem) -> Self {
        let text = text.chars().take(80).collect();
        Self { what, text, problem }
    }

    pub(super) fn too_many_filters(filters: &[Filter]) -> Self {
        let last = filters.last().map_or("", Filter::as_str);
        Self::new("filter", last, Problem::TooMany(filters.len()))
    }

    /// The topic is valid, and not under the publisher's pattern.
    pub(super) fn outside(topic: &str) -> Self {
        Self::new("topic", topic, Problem::Outside)
    }
}

/// Which strings are checked, and what for.
fn check(what: &'static str, text: &str, wildcards: bool) -> Result<(), TopicError> {
    let refuse = |problem| Err(TopicError::new(what, text, problem));
    match text.len() {
        0 => return refuse(Problem::Empty),
        len if len > LONGEST => return refuse(Problem::TooLong(len)),
        _ => {}
    }
    for level in text.split('/') {
        if level.is_empty() {
            return refuse(Problem::EmptyLevel);
        }
        if matches!(level, "*" | "**") {
            if !wildcards {
                return refuse(Problem::IsFilter);
            }
        } else if let Some(bad) = level.chars().find(|c| *c == '*' || c.is_whitespace() || c.is_control()) {
            return refuse(Problem::Character(bad));
        }
    }
    Ok(())
}

/// Checks a node's or service's name: one level.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), TopicError> {
    if name.contains(['/', '*']) {
        return Err(TopicError::new(what, name, Problem::Levels));
    }
    check_user(what, name, false)
}

/// Checks the name of a bus: a name that is also a directory's.
pub(crate) fn check_bus_name(name: &str) -> Result<(), TopicError> {
    if name.starts_with('.') {
        return Err(TopicError::new("bus name", name, Problem::Dots));
    }
    check_name("bus name", name)
}

/// Checks a topic that a user wants to publish on.
pub(crate) fn check_topic(topic: &str) -> Result<(), TopicError> {
    check_user("topic", topic, false)
}

fn check_user(what: &'static str, text: &str, wildcards: bool) -> Result<(), TopicError> {
    check(what, text, wildcards)?;
    if text.starts_with(RESERVED) {
        return Err(TopicError::new(what, text, Problem::Reserved));
    }
    Ok(())
}

/// A topic to hold filters against, its levels counted once for all of them.
pub(crate) struct Topic<'a> {
    text: &'a str,
    span: Span,
}

impl<'a> Topic<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        Self { text, span: Span::of_topic(text) }
    }
}

/// A filter over topics: levels between `/`, where `*` stands for exactly one level and `**` for any
/// number of them, none included. A topic is a filter that matches itself alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    text: Arc<str>,
    /// As it is compared, mostly the same: see [`overlap`].
    pattern: Arc<str>,
    span: Span,
}

impl Filter {
    fn of(text: &str) -> Self {
        let text: Arc<str> = text.into();
        let pattern = shortest(&text).map_or_else(|| text.clone(), Arc::from);
        let span = Span::of_pattern(&pattern);
        Self { text, pattern, span }
    }

    /// A user's filter.
    pub(crate) fn new(text: &str) -> Result<Self, TopicError> {
        check_user("filter", text, true)?;
        Ok(Self::of(text))
    }

    /// What a publisher is opened for: a topic, or a pattern.
    pub(crate) fn of_publisher(text: &str) -> Result<Self, TopicError> {
        check_user("topic", text, true)?;
        Ok(Self::of(text))
    }

    /// A service's name.
    pub(crate) fn of_service(name: &str) -> Result<Self, TopicError> {
        check_name("service name", name)?;
        Ok(Self::of(name))
    }

    /// A peer's filter, which may be over reserved topics.
    pub(crate) fn from_peer(text: &str) -> Result<Self, TopicError> {
        check("filter", text, true)?;
        Ok(Self::of(text))
    }

    /// The reserved topic of what is sent to the nodes of this name.
    pub(crate) fn inbox_of(name: &str) -> Result<Self, TopicError> {
        check_name("node name", name)?;
        let topic = format!("{INBOXES}{name}");
        check("inbox", &topic, false)?; // it may be too long
        Ok(Self::of(&topic))
    }

    /// The reserved topic of what is sent to all nodes.
    pub(crate) fn all() -> Self {
        Self::of(ALL)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// What a log on this topic is for.
    pub(crate) fn carries(&self) -> Carries {
        match &*self.text {
            ALL => Carries::Broadcasts,
            topic if topic.starts_with(INBOXES) => Carries::Direct,
            _ => Carries::Events,
        }
    }

    /// Whether it has wildcards.
    pub(crate) fn is_pattern(&self) -> bool {
        self.text.contains('*')
    }

    /// Whether the topic is among those that the filter stands for.
    pub(crate) fn matches(&self, topic: &str) -> bool {
        self.may_match(&Topic::of(topic), &mut { usize::MAX })
    }

    /// The same, or true once that has taken all of `steps`: some nanoseconds each, of which a peer's filter may take
    /// thousands.
    pub(crate) fn may_match(&self, topic: &Topic<'_>, steps: &mut usize) -> bool {
        let Topic { text, span } = *topic;
        // Wildcards never reach reserved topics, wherever they stand.
        if text.starts_with(RESERVED) && self.is_pattern() {
            return false;
        }
        overlap((&self.pattern, self.span), (text, span), steps).unwrap_or(true)
    }

    /// Whether there is a topic that both filters match.
    pub(crate) fn intersects(&self, other: &Filter) -> bool {
        let reserved = |filter: &Filter| filter.text.starts_with(RESERVED);
        if (reserved(self) && other.is_pattern()) || (reserved(other) && self.is_pattern()) {
            return false;
        }
        overlap((&self.pattern, self.span), (&other.pattern, other.span), &mut { usize::MAX }).unwrap_or(true)
    }
}

/// What kind of messages a log holds, by its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carries {
    Events,
    /// To the nodes of one name.
    Direct,
    /// To all nodes.
    Broadcasts,
    /// Requests, or answers.
    Calls,
}

/// The name in the topic of an inbox.
pub(crate) fn inbox_name(topic: &str) -> &str {
    topic.strip_prefix(INBOXES).unwrap_or(topic)
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Every topic of up to so many levels over a, b, c.
#[cfg(test)]
pub(super) fn topics(levels: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut last = all.clone();
    for _ in 0..levels {
        let longer = last.iter().flat_map(|topic| ["a", "b", "c"].map(|level| format!("{topic}/{level}")));
        last = longer.collect();
        all.extend(last.iter().cloned());
    }
    all.iter().skip(1).map(|topic| topic[1..].to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(text: &str) -> Filter {
        Filter::new(text).unwrap()
    }

    #[test]
    fn wildcards_match_levels() {
        for (pattern, topic, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/c", false),
            ("a/b", "a", false),
            ("a", "a/b", false),
            ("*", "a", true),
            ("*", "a/b", false),
            ("a/*", "a/b", true),
            ("a/*", "a", false),
            ("a/*", "a/b/c", false),
            ("*/b", "a/b", true),
            ("a/*/c", "a/b/c", true),
            ("**", "a", true),
            ("**", "a/b/c", true),
            ("a/**", "a", true),
            ("a/**", "a/b/c", true),
            ("a/**", "b/a", false),
            ("**/c", "a/b/c", true),
            ("**/c", "c", true),
            ("a/**/c", "a/c", true),
            ("a/**/c", "a/x/y/c", true),
            ("a/**/c", "a/x/y/d", false),
            ("**/b/**", "a/b/c", true),
            ("**/b/**", "a/c", false),
            ("*/**", "a", true),
            ("**/*", "a/b", true),
        ] {
            assert_eq!(filter(pattern).matches(topic), expected, "{pattern} on {topic}");
        }
    }

    #[test]
    fn wildcards_do_not_reach_reserved_topics() {
        let reserved = Filter::from_peer("@to/critic").unwrap();
        for pattern in ["**", "*/*", "**/critic", "*/critic"] {
            assert!(!filter(pattern).matches("@to/critic"), "{pattern}");
            assert!(!filter(pattern).intersects(&reserved) && !reserved.intersects(&filter(pattern)));
        }
        assert!(reserved.matches("@to/critic"));
        assert!(Filter::new("@to/critic").is_err() && check_topic("@all").is_err());
    }

    #[test]
    fn reserved_topics_are_told_apart() {
        let inbox = Filter::inbox_of("critic").unwrap();
        assert_eq!(
            (inbox.as_str(), inbox.carries(), inbox_name("@to/critic")),
            ("@to/critic", Carries::Direct, "critic")
        );
        assert_eq!((Filter::all().as_str(), Filter::all().carries()), ("@all", Carries::Broadcasts));
        assert_eq!(filter("all").carries(), Carries::Events);
        assert!(!filter("**").intersects(&Filter::all()) && !filter("*").matches("@all"));
        assert!(Filter::inbox_of(&"x".repeat(251)).is_ok());
        for name in ["", "a/b", "*", "@all", &"x".repeat(252)] {
            assert!(Filter::inbox_of(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn what_is_refused_says_why() {
        let long = "x".repeat(256);
        for (text, reason) in [
            ("", "topic \"\" is empty"),
            (&*long, "has 256 bytes"),
            ("/a", "empty level"),
            ("a/", "empty level"),
            ("a//b", "empty level"),
            ("a b", "character ' '"),
            ("a/\u{7}", "character '\\u{7}'"),
            ("a/b*", "character '*'"),
            ("a/***", "character '*'"),
            ("@x", "reserved"),
        ] {
            let error = check_topic(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
            assert!(Filter::new(text).is_err());
        }
        assert!(check_topic("a/*").unwrap_err().to_string().contains("is a filter"));
        assert!(check_topic(&long[..255]).is_ok() && check_topic("größe/µ.1-2_3").is_ok());
        for name in ["a/b", "*", "a b", "", "@a"] {
            assert!(check_name("name", name).is_err(), "{name:?}");
        }
        assert!(
            check_bus_name("..").is_err() && check_bus_name(".x").is_err() && check_bus_name("x.y").is_ok()
        );
    }

    fn levels(wildcards: bool) -> impl Strategy<Value = String> {
        let level = if wildcards {
            prop_oneof![Just("a"), Just("b"), Just("*"), Just("**")].boxed()
        } else {
            prop_oneof![Just("a"), Just("b")].boxed()
        };
        prop::collection::vec(level, 1..5).prop_map(|levels| levels.join("/"))
    }

    /// The definition, by trying every way.
    fn by_definition(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern, topic) {
            ([], []) => true,
            (["**", rest @ ..], _) => (0..=topic.len()).any(|n| by_definition(rest, &topic[n..])),
            (["*", rest @ ..], [_, more @ ..]) => by_definition(rest, more),
            ([level, rest @ ..], [first, more @ ..]) => level == first && by_definition(rest, more),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_is_as_defined(pattern in levels(true), topic in levels(false)) {
            let split = |text: &'static str| text.split('/').collect::<Vec<_>>();
            let (p, t) = (pattern.clone().leak(), topic.clone().leak());
            let (matches, mut most) = (by_definition(&split(p), &split(t)), 1000);
            prop_assert_eq!(filter(&pattern).matches(&topic), matches);
            prop_assert_eq!(filter(&pattern).may_match(&Topic::of(&topic), &mut most), matches);
            let taken = 1000 - most;
            prop_assert_eq!(filter(&pattern).may_match(&Topic::of(&topic), &mut taken.clone()), matches, "so many are enough");
            if let Some(mut few) = usize::checked_sub(taken, 1) {
                prop_assert!(filter(&pattern).may_match(&Topic::of(&topic), &mut few), "one less leaves it open");
            }
        }

        #[test]
        fn patterns_intersect_if_some_topic_is_under_both(one in levels(true), other in levels(true)) {
            let (one, other) = (filter(&one), filter(&other));
            // Common instances are looked for up to five levels: enough for four levels of pattern each,
            // unless only longer ones exist, which needs more literals than five.
            let found = topics(5).iter().any(|topic| one.matches(topic) && other.matches(topic));
            prop_assert!(!found || one.intersects(&other));
            let literals = |filter: &Filter| filter.as_str().split('/').filter(|level| *level != "**").count();
            if literals(&one) + literals(&other) <= 5 {
                prop_assert_eq!(found, one.intersects(&other), "{} {}", one, other);
            }
            prop_assert_eq!(one.intersects(&other), other.intersects(&one));
        }
    }
}
