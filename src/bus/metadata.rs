//! What goes along with a payload: the user's headers, and those that are the bus's own.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::control::NodeId;
use crate::frame;
use crate::sys::clock;

/// First character of headers that are the bus's own.
const RESERVED: char = '@';
/// When the message was written: nanoseconds since 1970, in decimal digits.
const TIME: &str = "@time";
/// What the message belongs to, in the words of whoever sent it.
const CORRELATION: &str = "@correlation";

/// What a message is given beside its payload, on its way out.
#[derive(Debug, Default)]
pub(super) struct Outfit<'a> {
    pub(super) headers: Vec<(&'a str, &'a str)>,
    pub(super) timestamp: bool,
    pub(super) correlation: Option<&'a str>,
}

impl<'a> Outfit<'a> {
    /// No headers, and the time if asked for.
    #[inline(always)]
    pub(super) fn plain(timestamp: bool) -> Self {
        Self { timestamp, ..Self::default() }
    }

    /// Whether nothing goes along.
    #[inline(always)]
    pub(super) fn is_plain(&self) -> bool {
        !self.timestamp && self.headers.is_empty() && self.correlation.is_none()
    }

    /// Calls `then` with the frame's headers.
    ///
    /// # Errors
    /// Which header cannot be sent, and why; `then` was not called.
    #[inline]
    pub(super) fn with<T>(&self, then: impl FnOnce(frame::Headers<'_>) -> T) -> Result<T, String> {
        if self.is_plain() {
            return Ok(then(frame::Headers::EMPTY));
        }
        let mut room = Digits::default();
        let all = self.list(&mut room)?;
        Ok(then(frame::Headers::from_slice(&all)))
    }

    /// The frame's headers: the bus's own, then the user's.
    ///
    /// # Errors
    /// Which header cannot be sent, and why.
    pub(super) fn list<'r>(&self, room: &'r mut Digits) -> Result<Vec<(&'r str, &'r str)>, String>
    where
        'a: 'r,
    {
        if let Some((name, _)) = self.headers.iter().find(|(name, _)| name.starts_with(RESERVED)) {
            let name: String = name.chars().take(80).collect();
            return Err(format!(
                "{name:?} begins with `@`, which is reserved for the bus itself: use another name"
            ));
        }
        let own = usize::from(self.timestamp) + usize::from(self.correlation.is_some());
        let mut all: Vec<(&'r str, &'r str)> = Vec::with_capacity(own + self.headers.len());
        if self.timestamp {
            all.push((TIME, room.write(clock::unix_ns())));
        }
        all.extend(self.correlation.map(|correlation| (CORRELATION, correlation)));
        all.extend_from_slice(&self.headers);
        frame::Headers::from_slice(&all).check().map_err(|error| error.to_string())?;
        Ok(all)
    }
}

/// The setters of a builder that has an `outfit: Outfit<'a>`.
macro_rules! outfit_setters {
    () => {
        /// Adds a header: at most 64 of them, 16 KiB together, those of the other setters counted. Names that
        /// begin with `@` are the bus's own.
        pub fn header(mut self, name: &'a str, value: &'a str) -> Self {
            self.outfit.headers.push((name, value));
            self
        }

        /// Says what the message belongs to: a conversation, a task, another message's
        /// [`MessageId`](crate::MessageId). Nothing is done with it but to hand it over.
        pub fn correlation(mut self, id: &'a str) -> Self {
            self.outfit.correlation = Some(id);
            self
        }

        /// Sends the time along, by the wall clock of this host.
        pub fn timestamp(mut self) -> Self {
            self.outfit.timestamp = true;
            self
        }
    };
}
pub(super) use outfit_setters;

/// Room for the decimal digits of the greatest number: no allocation for a time.
#[derive(Default)]
pub(super) struct Digits([u8; 20]);

impl Digits {
    fn write(&mut self, mut number: u64) -> &str {
        let Self(room) = self;
        let mut start = room.len();
        loop {
            start -= 1;
            room[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return str::from_utf8(&room[start..]).unwrap_or_default();
            }
        }
    }
}

/// Whether a header is the bus's own, known or not.
#[cfg(feature = "tower")]
pub(super) fn is_reserved(name: &str) -> bool {
    name.starts_with(RESERVED)
}

/// Whether a received header is one that has an accessor of its own, and so is not listed.
pub(super) fn is_told_apart(name: &str) -> bool {
    matches!(name, TIME | CORRELATION)
}

/// When a message was written, by its headers; `None` if they do not say so, or not in a way that makes sense.
pub(super) fn timestamp<'h>(headers: impl IntoIterator<Item = (&'h str, &'h str)>) -> Option<SystemTime> {
    let text = first(headers, TIME)?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    UNIX_EPOCH.checked_add(Duration::from_nanos(text.parse().ok()?))
}

/// What a message belongs to, by its headers.
pub(super) fn correlation<'h>(headers: impl IntoIterator<Item = (&'h str, &'h str)>) -> Option<&'h str> {
    first(headers, CORRELATION)
}

/// Of headers with the same name the first counts.
fn first<'h>(headers: impl IntoIterator<Item = (&'h str, &'h str)>, name: &str) -> Option<&'h str> {
    headers.into_iter().find_map(|(found, value)| (found == name).then_some(value))
}

/// Names a message on the whole bus, for ever: its node's id, its log, and its number there. Every reader of
/// the message sees the same.
///
/// # Examples
/// ```
/// # let node = ringbus::Bus::private()?.join("worker")?;
/// let (mut one, mut other) = (node.subscriber::<u32>("t")?, node.subscriber::<u32>("t")?);
/// node.publisher("t")?.publish(&1)?;
/// let message = one.recv()?;
/// assert_eq!(message.id(), other.recv()?.id());
/// println!("{}", message.id()); // such as 3f0c…9a/2/0
/// # Ok::<(), ringbus::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId {
    pub(super) node: NodeId,
    pub(super) log: u64,
    pub(super) sequence: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, log, sequence } = self;
        write!(f, "{node}/{log}/{sequence}")
    }
}

/// Whom a message was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Destination<'a> {
    /// Whoever subscribes to this topic.
    Topic(&'a str),
    /// The nodes of this name: a direct message.
    Node(&'a str),
    /// All nodes: a broadcast.
    All,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(outfit: &Outfit<'_>) -> Result<Vec<(String, String)>, String> {
        outfit
            .with(|headers| headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn the_buss_own_headers_come_first_and_are_read_again() {
        assert_eq!(encoded(&Outfit::plain(false)), Ok(vec![]));
        let outfit =
            Outfit { headers: vec![("a", "1"), ("a", "2")], timestamp: true, correlation: Some("c") };
        let before = SystemTime::now();
        let headers = encoded(&outfit).unwrap();
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [TIME, CORRELATION, "a", "a"]);
        let pairs = || headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let time = timestamp(pairs()).unwrap();
        assert!(before <= time && time <= SystemTime::now());
        assert_eq!(correlation(pairs()), Some("c"));
    }

    #[test]
    fn names_that_are_the_buss_own_are_refused() {
        for name in ["@time", "@correlation", "@", "@x"] {
            let error = encoded(&Outfit { headers: vec![("a", ""), (name, "")], ..Outfit::default() });
            let error = error.unwrap_err();
            assert!(error.contains(&format!("{name:?} begins with `@`")), "{error}");
        }
        let headers = vec![("a", "b"); frame::MAX_HEADERS];
        assert!(encoded(&Outfit { headers: headers.clone(), ..Outfit::default() }).is_ok());
        assert!(encoded(&Outfit { headers, timestamp: true, ..Outfit::default() }).is_err(), "one too many");
    }

    #[test]
    fn a_time_that_is_none_is_none() {
        for text in ["", "-1", "+1", "1.5", "1e3", " 1", "18446744073709551616", "x", "١"] {
            assert_eq!(timestamp([(TIME, text)]), None, "{text:?}");
        }
        assert_eq!(timestamp([("time", "1")]), None);
        for nanoseconds in [0, 1, 1_700_000_000_123_456_789, u64::MAX] {
            let (mut room, time) = (Digits::default(), UNIX_EPOCH + Duration::from_nanos(nanoseconds));
            let text = room.write(nanoseconds);
            assert_eq!(text, nanoseconds.to_string());
            assert_eq!(timestamp([(TIME, text), (TIME, "7")]), Some(time));
        }
    }
}
