//! `ringbus pub`: values from the command line or stdin, as messages.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use clap::Args;

use super::interrupt::Interrupt;
use super::json::{Packed, parse_lenient};
use super::{Common, Failure, Outcome, advice, denials, end, note, silent};
use crate::bus::log::check_capacity;
use crate::{Node, Overflow, PublishError, Publisher, WaitError};

/// The VALUE that stands for those on stdin.
pub(super) const STDIN: &str = "-";
/// How often a wait for others looks whether it was interrupted.
const LOOK: Duration = Duration::from_millis(100);
/// Longest line of stdin: some times the largest payload that is published, since its JSON may be longer.
const LONGEST_LINE: usize = 512 << 20;

/// Publish a value, or one a line from stdin
#[derive(Debug, Args)]
#[command(after_long_help = "\
VALUE is JSON if it can be read as JSON, else text: 3 is a number, \"3\" and three are strings. What begins
like JSON ({ [ \") and is not is an error; --text takes it as it is.
It is sent as MessagePack: integers stay integers (one that 64 bits do not hold is an error), objects become
maps with string keys, so
  ringbus pub task/progress '{\"done\":3}'
reaches a subscriber::<Progress> whose `done` is an integer. No VALUE is null (nil): a bare signal.
Binary and the like: {\"$bin\":\"base64\"}, {\"$ext\":[type,\"base64\"]}, {\"$map\":[[key,value],…]},
{\"$float\":\"NaN\"}, as `ringbus sub` prints them. With `-`, empty lines of stdin are passed over.

Ends when the last message is published; subscribers that were there receive it afterwards. On a bus
where nobody subscribes the messages go nowhere: --wait 1 waits for a subscriber first.")]
pub(super) struct Options {
    /// Where to publish, such as task/42/progress
    topic: String,
    /// JSON, else text; `-` reads one value a line from stdin [default: null]
    #[arg(allow_negative_numbers = true)]
    value: Option<String>,
    /// Take values as text, whatever they look like
    #[arg(long)]
    text: bool,
    /// Publish each value N times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Messages a second at most, evenly spaced
    #[arg(long, value_name = "HZ", value_parser = rate)]
    rate: Option<f64>,
    /// First wait until N subscribers are there
    #[arg(long, value_name = "N", default_value_t = 0)]
    wait: usize,
    /// Longest wait for subscribers (--wait), or for one that does not keep up: 2s, 500ms, 1.5 (seconds)
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    timeout: Duration,
    /// Add a header; may be repeated
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// What to do when a subscriber does not read: block (up to --timeout, then fail), fail (at once), drop (the
    /// message), or evict:TIME (wait that long, Ctrl-C or not, then cut the subscriber off, and go on with the others)
    #[arg(long, value_name = "POLICY", default_value = "block", value_parser = policy)]
    overflow: Policy,
    /// Bytes of the log, a power of two from 4K to 4G: what a subscriber may be behind
    #[arg(long, value_name = "BYTES", default_value = "256K", value_parser = capacity)]
    capacity: u64,
}

/// What happens when the log is full.
#[derive(Debug, Clone, Copy)]
enum Policy {
    Block,
    Fail,
    Drop,
    Evict(Duration),
}

fn policy(text: &str) -> Result<Policy, String> {
    match text.split_once(':') {
        None if text == "block" => Ok(Policy::Block),
        None if text == "fail" => Ok(Policy::Fail),
        None if text == "drop" => Ok(Policy::Drop),
        Some(("evict", time)) => Ok(Policy::Evict(duration(time)?)),
        _ => Err("block, fail, drop or evict:TIME is wanted, such as evict:500ms".into()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
    rate.ok_or_else(|| "a number of messages a second above 0 is wanted".into())
}

/// A time such as `2s` or `500ms`; seconds where no unit is named.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = digits.parse::<f64>().ok().and_then(|number| match &text[digits.len()..] {
        "" | "s" => Some(number),
        "ms" => Some(number / 1e3),
        "m" => Some(number * 60.0),
        _ => None,
    });
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| "a time is wanted, such as 2s, 500ms or 1.5 (seconds)".into())
}

/// A number of bytes such as `65536`, `64K`, `1M` or `2G`, in powers of 1024.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => Some(1),
        "K" | "KiB" => Some(1 << 10),
        "M" | "MiB" => Some(1 << 20),
        "G" | "GiB" => Some(1 << 30),
        _ => None,
    };
    let number = digits.parse::<u64>().ok();
    let bytes = number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    bytes.ok_or_else(|| "a whole number of bytes is wanted, such as 65536, 64K, 1M or 2G (of 1024)".into())
}

/// Bytes of a log.
fn capacity(text: &str) -> Result<u64, String> {
    let capacity = bytes(text)?;
    check_capacity(capacity).map(|_| capacity).map_err(|error| error.to_string())
}

pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is wanted")?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) fn run(common: &Common, options: &Options) -> Outcome {
    let Options { topic, value, .. } = options;
    if topic.contains('*') {
        return Err(format!("topic {topic:?} has a wildcard: a message is published on one topic").into());
    }
    let from_stdin = value.as_deref() == Some(STDIN);
    let value = match value {
        Some(text) if !from_stdin => parse(text, options.text)?,
        _ => Packed::nil(),
    };
    let (node, interrupt) = common.join_until_interrupted("ringbus-pub")?;
    let mut port = Port::open(&node, options, &interrupt)?;
    let waited = port.wait_for_subscribers();
    if let Err(Failure::Error(_)) = waited
        && !denials::note_of_publisher(&node, topic)
    {
        silent::note_all(common, &node);
    }
    end(&node, waited)?;
    let alone = port.publisher.stats().peers == 0;
    let published = match from_stdin {
        true => each_line(&interrupt, options.text, |value| port.publish(&value)),
        false => port.publish(&value),
    };
    let stats = port.publisher.stats();
    if stats.dropped > 0 {
        note(format!("note: dropped {} messages: a subscriber does not read", stats.dropped));
    }
    if stats.evicted > 0 {
        let subscribers = if stats.evicted == 1 { "subscriber" } else { "subscribers" };
        note(format!("note: cut off {} {subscribers} that did not read", stats.evicted));
    }
    end(&node, published)?;
    if port.published > 0 && denials::note_of_publisher(&node, topic) {
        return Ok(());
    }
    if alone && port.published > 0 && port.publisher.stats().peers == 0 {
        note(format!(
            "note: nobody subscribed to {topic} on bus {} (--wait 1 waits for a subscriber)",
            node.bus().name()
        ));
        silent::note_all(common, &node);
    }
    Ok(())
}

/// A value from the command line or stdin: text if it is to be, else JSON if it can be.
fn parse(text: &str, is_text: bool) -> Result<Packed, String> {
    if is_text { Packed::text(text) } else { parse_lenient(text) }
}

/// Values from stdin, one a line; empty lines are passed over.
fn each_line(interrupt: &Interrupt, is_text: bool, mut take: impl FnMut(Packed) -> Outcome) -> Outcome {
    let mut lines = Lines::new(interrupt)?;
    while let Some((number, line)) = lines.next()? {
        if !line.trim().is_empty() {
            take(parse(line, is_text).map_err(|error| format!("line {number} of stdin: {error}"))?)?;
        }
    }
    Ok(())
}

/// The value that the command line names (null if none), or each of those on stdin.
pub(super) fn each_value(
    value: Option<&str>,
    is_text: bool,
    interrupt: &Interrupt,
    mut take: impl FnMut(Packed) -> Outcome,
) -> Outcome {
    match value {
        None => take(Packed::nil()),
        Some(STDIN) => each_line(interrupt, is_text, take),
        Some(text) => take(parse(text, is_text)?),
    }
}

/// The publisher, and the pace.
struct Port<'a> {
    publisher: Publisher<Packed>,
    options: &'a Options,
    interrupt: &'a Interrupt,
    published: u64,
    first: Instant,
}

impl<'a> Port<'a> {
    fn open(node: &Node, options: &'a Options, interrupt: &'a Interrupt) -> Outcome<Self> {
        let builder = node.publisher_builder(&options.topic);
        let builder = builder.overflow(match options.overflow {
            // The port waits in slices, so that Ctrl-C is heard.
            Policy::Block => Overflow::Block { timeout: LOOK },
            Policy::Fail => Overflow::Fail,
            Policy::Drop => Overflow::DropNewest,
            Policy::Evict(timeout) => Overflow::Evict { timeout },
        });
        let publisher = builder.capacity(options.capacity).open()?;
        Ok(Self { publisher, options, interrupt, published: 0, first: Instant::now() })
    }

    fn wait_for_subscribers(&mut self) -> Outcome {
        let Options { wait, timeout, .. } = *self.options;
        let start = Instant::now();
        loop {
            let left = timeout.saturating_sub(start.elapsed());
            match self.publisher.wait_for_subscribers(wait, left.min(LOOK)) {
                Ok(()) => break,
                Err(WaitError::Timeout { found, .. }) if left <= LOOK => {
                    return Err(WaitError::Timeout { found, wanted: wait, waited: timeout }.into());
                }
                Err(WaitError::Timeout { .. }) => self.interrupt.check()?,
                Err(error) => return Err(error.into()),
            }
        }
        self.first = Instant::now();
        Ok(())
    }

    fn publish(&mut self, value: &Packed) -> Outcome {
        for _ in 0..self.options.count {
            if let Some(rate) = self.options.rate {
                let due = Duration::try_from_secs_f64(self.published as f64 / rate).unwrap_or(Duration::MAX);
                let never = || Instant::now() + Duration::from_secs(1 << 30);
                self.interrupt.sleep_until(self.first.checked_add(due).unwrap_or_else(never))?;
            }
            self.publish_once(value)?;
            self.published += 1;
        }
        Ok(())
    }

    fn publish_once(&mut self, value: &Packed) -> Outcome {
        let Options { headers, timeout, overflow, .. } = self.options;
        let may_wait = matches!(overflow, Policy::Block);
        let start = Instant::now();
        loop {
            self.interrupt.check()?;
            let message = self.publisher.message(value);
            let message = headers.iter().fold(message, |message, (key, value)| message.header(key, value));
            match message.send() {
                Ok(()) => return Ok(()),
                Err(PublishError::Full { .. }) if may_wait && start.elapsed() < *timeout => {}
                Err(PublishError::Full { reader, lag, .. }) => {
                    let (after, remedy) = match may_wait {
                        true => (format!(" after {timeout:?}"), "raise --timeout"),
                        false => (String::new(), "use --overflow block"),
                    };
                    return Err(Failure::Error(format!(
                        "subscriber {reader} does not read: {lag} bytes behind{after}: \
                         {} messages were published before; {remedy}, or stop that subscriber",
                        self.published
                    )));
                }
                Err(error) => return Err(advice::of_publish(error)),
            }
        }
    }
}

/// Lines of stdin; waiting for one can be interrupted.
struct Lines<'a> {
    interrupt: &'a Interrupt,
    /// Not `Stdin`: its buffer hides from poll(2) what it holds.
    stdin: File,
    buffer: Vec<u8>,
    /// Where the next line begins, and up to where there is none that ends.
    start: usize,
    searched: usize,
    number: u64,
    ended: bool,
}

impl<'a> Lines<'a> {
    fn new(interrupt: &'a Interrupt) -> io::Result<Self> {
        let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Self { interrupt, stdin, buffer: Vec::new(), start: 0, searched: 0, number: 0, ended: false })
    }

    /// The next line, without its end, and its number from 1.
    fn next(&mut self) -> Outcome<Option<(u64, &str)>> {
        let (start, end) = loop {
            let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
            if let Some(end) = end.map(|at| self.searched + at) {
                let start = std::mem::replace(&mut self.start, end + 1);
                self.searched = end + 1;
                break (start, end);
            }
            self.searched = self.buffer.len();
            if self.ended {
                if self.start == self.buffer.len() {
                    return Ok(None);
                }
                break (std::mem::replace(&mut self.start, self.buffer.len()), self.buffer.len());
            }
            self.fill()?;
        };
        self.number += 1;
        let line = str::from_utf8(&self.buffer[start..end]);
        let line = line.map_err(|_| format!("line {} of stdin is not UTF-8", self.number))?;
        Ok(Some((self.number, line.trim_end_matches('\r'))))
    }

    fn fill(&mut self) -> Outcome {
        self.buffer.drain(..self.start);
        self.searched -= std::mem::take(&mut self.start);
        if self.buffer.len() > LONGEST_LINE {
            return Err(format!("line {} of stdin is over 512 MiB long", self.number + 1).into());
        }
        self.interrupt.wait_readable(self.stdin.as_fd())?;
        let mut chunk = [0; 64 * 1024];
        let read = self.stdin.read(&mut chunk).map_err(|error| format!("cannot read stdin: {error}"))?;
        if self.buffer.try_reserve(read).is_err() {
            let (line, len) = (self.number + 1, self.buffer.len());
            return Err(format!(
                "line {line} of stdin has over {len} bytes: too many for this process's memory (`ulimit -v`)"
            )
            .into());
        }
        self.buffer.extend_from_slice(&chunk[..read]);
        self.ended = read == 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_in_powers_of_1024() {
        for (text, counted) in
            [("0", 0), ("65536", 65536), ("64K", 65536), ("64KiB", 65536), ("1M", 1 << 20), ("2G", 2 << 30)]
        {
            assert_eq!(bytes(text), Ok(counted), "{text}");
        }
        for text in ["", "K", "-1", "1.5M", "64 K", "64k", "64KB", "1T", "18446744073709551615K"] {
            assert!(bytes(text).unwrap_err().contains("64K"), "{text}");
        }
        assert_eq!(capacity("4K"), Ok(4096));
        for text in ["2K", "1000", "3M", "8G"] {
            assert!(capacity(text).unwrap_err().contains("power of two"), "{text}");
        }
    }

    #[test]
    fn times_have_units_or_are_seconds() {
        for (text, ms) in
            [("2", 2000), ("2s", 2000), ("1.5", 1500), ("500ms", 500), ("2m", 120_000), ("0", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-1", "2h", "1 s", "NaN", "inf", "1e30", "two"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
