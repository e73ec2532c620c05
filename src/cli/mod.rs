//! The `ringbus` command: what a shell can do with a bus.
//!
//! ```text
//!   mod ── arguments, dispatch, exit codes      interrupt ── Ctrl-C as an fd      lines ── to and from children
//!    ├── bench      what the bus costs, beside what its parts cost
//!    ├── chaos      processes that are killed, stopped and restarted at random, every message accounted for
//!    ├── demo       four processes that show the bus at work
//!    ├── ls         who is there, and how fast
//!    ├── watch      who comes and goes
//!    ├── publish    pub: JSON, text or stdin → messages  ┐
//!    ├── send       send, broadcast: JSON, text → one    │
//!    ├── subscribe  sub, inbox: messages → lines         ┼ json ── JSON ↔ MessagePack
//!    ├── call       a call → its result, or its status   ┘
//!    ├── serve_echo a service to try clients on
//!    └── doctor     whether this host and user can run a bus
//! ```
//!
//! Only this module prints: results to stdout, one line to stderr when a command fails.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::num::{IntErrorKind, ParseIntError};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use self::interrupt::Interrupt;
use crate::wake::barrier;
use crate::{Access, Bus, BusBuilder, Node};

mod advice;
mod bench;
mod call;
mod chaos;
mod demo;
mod denials;
mod doctor;
mod interrupt;
mod json;
mod lines;
mod ls;
mod publish;
mod send;
mod serve_echo;
mod silent;
mod status;
mod subscribe;
mod watch;

/// A message bus between the processes of this host: look at it, publish to it, listen to it.
#[derive(Debug, Parser)]
#[command(name = "ringbus", version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
struct Common {
    /// Bus to use [default: $RINGBUS_BUS, else default]
    #[arg(long, global = true, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    bus: Option<String>,
    /// Directory that holds buses [default: $RINGBUS_DIR, else $XDG_RUNTIME_DIR/ringbus, else /tmp/ringbus-UID]
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Group that the bus is shared with, if it is; all its nodes name the same one, and the same --dir
    #[arg(long, global = true, value_name = "GROUP")]
    group: Option<String>,
    /// Let nodes of another user in the group do something to this one: `publish TOPICS to uid USER`; also `subscribe`,
    /// `call`, `serve`, and `gid GROUP`; may be given several times
    #[arg(long, global = true, value_name = "RULE")]
    allow: Vec<Access>,
    /// File of such rules, a line each: `allow publish TOPICS to uid USER`
    #[arg(long, global = true, value_name = "FILE", value_parser = |file: &str| Access::read(file))]
    access: Option<Access>,
    /// Name to join the bus as [default: ringbus-COMMAND]
    #[arg(long, global = true, value_name = "NAME")]
    name: Option<String>,
    /// Log to stderr: -v what happens on the bus, -vv details, -vvv everything; RUST_LOG overrides
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Options),
    #[command(hide = true)]
    DemoProcess(demo::ProcessOptions),
    Chaos(chaos::Options),
    #[command(hide = true)]
    ChaosProcess(chaos::ProcessOptions),
    Ls(ls::Options),
    #[command(name = "pub")]
    Publish(publish::Options),
    #[command(name = "sub")]
    Subscribe(subscribe::Options),
    Send(send::SendOptions),
    Inbox(subscribe::InboxOptions),
    Broadcast(send::BroadcastOptions),
    Call(call::Options),
    ServeEcho(serve_echo::Options),
    Watch(watch::Options),
    Doctor(doctor::Options),
    Bench(bench::Options),
    #[command(hide = true)]
    BenchChild(bench::ChildOptions),
}

/// How a command ends other than well.
#[derive(Debug)]
enum Failure {
    /// With a message for stderr, and exit code 1.
    Error(String),
    /// Nobody reads stdout any more: no reason to complain.
    StdoutClosed,
    /// By this signal, before it was done.
    Interrupted(i32),
}

type Outcome<T = ()> = Result<T, Failure>;

/// Bytes that are written to stdout at once, if so much is there.
const CHUNK: usize = 64 * 1024;
/// How long a command that was interrupted waits for others to read what it published, and for calls.
const DRAIN: Duration = Duration::from_secs(2);

impl<E: fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Error(error.to_string())
    }
}

/// Runs the command that this process's arguments name.
pub fn main() -> ExitCode {
    let arguments = command().try_get_matches();
    let cli = match arguments.and_then(|arguments| Cli::from_arg_matches(&arguments)) {
        Ok(cli) => cli,
        Err(error) => return usage(error),
    };
    log_to_stderr(cli.common.verbose);
    // Now, and not in `join`: with a second thread, the one for signals, the kernel takes 10 to 20 ms for it.
    barrier::has_barriers();
    let common = &cli.common;
    let outcome = match &cli.command {
        Command::Demo(options) => demo::run(common, options),
        Command::DemoProcess(options) => demo::run_process(common, options),
        Command::Chaos(options) => chaos::run(common, options),
        Command::ChaosProcess(options) => chaos::run_process(common, options),
        Command::Ls(options) => ls::run(common, options),
        Command::Publish(options) => publish::run(common, options),
        Command::Subscribe(options) => subscribe::run(common, options),
        Command::Send(options) => send::run(common, options),
        Command::Inbox(options) => subscribe::run_inbox(common, options),
        Command::Broadcast(options) => send::run_broadcast(common, options),
        Command::Call(options) => call::run(common, options),
        Command::ServeEcho(options) => serve_echo::run(common, options),
        Command::Watch(options) => watch::run(common, options),
        Command::Doctor(options) => doctor::run(common, options),
        Command::Bench(options) => bench::run(common, options),
        Command::BenchChild(options) => bench::run_child(common, options),
    };
    match outcome {
        Ok(()) | Err(Failure::StdoutClosed) => ExitCode::SUCCESS,
        Err(Failure::Error(message)) => fail(&message, 1),
        Err(Failure::Interrupted(signal)) => ExitCode::from(128 + signal as u8),
    }
}

/// The arguments, with what all commands have in common: exit codes in the help, numbers that may begin with a minus.
fn command() -> clap::Command {
    Cli::command().mut_subcommands(|command| {
        let interrupted = match command.get_name() {
            "demo" | "chaos" | "watch" | "serve-echo" => "0 success, as is Ctrl-C",
            "sub" | "inbox" => "0 success, as is Ctrl-C without --count (with it 130)",
            _ => "0 success, 130 ended by Ctrl-C",
        };
        let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        let codes = format!("Exit codes: {interrupted}, 1 failure, 2 arguments that cannot be read.");
        let command = command.after_long_help(format!("{help}\n\n{codes}"));
        command.mut_args(|arg| {
            // What is below zero is for an option's own parser to refuse: clap takes it for another option.
            match arg.get_value_names().and_then(<[_]>::first).map(|name| name.as_str()) {
                Some("TIME" | "BYTES") => arg.allow_hyphen_values(true),
                Some("N" | "S" | "HZ" | "POLICY") => arg.allow_negative_numbers(true),
                _ => arg,
            }
        })
    })
}

/// One line, whatever is in the message.
fn fail(message: &str, code: u8) -> ExitCode {
    let words: Vec<&str> = message.split_whitespace().collect();
    note(format!("error: {}", words.join(" ")));
    ExitCode::from(code)
}

/// Help goes out as it is; a mistake is told in one line.
fn usage(error: clap::Error) -> ExitCode {
    let is_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if is_help {
        return match error.print().and_then(|()| io::stdout().flush()).map_err(stdout_error) {
            Err(Failure::Error(message)) => fail(&message, 1),
            _ => ExitCode::from(error.exit_code() as u8),
        };
    }
    if error.kind() == ErrorKind::MissingSubcommand {
        // clap's own words list hidden commands, too.
        return fail("a command is wanted (`--help` lists them)", 2);
    }
    let text = error.to_string();
    let said = text.split("\n\nUsage:").next().unwrap_or(&text).split("\n\nFor more").next();
    let mut said = folded(said.unwrap_or(&text).trim_start_matches("error: "));
    if let Some(number) = error.source().and_then(|source| source.downcast_ref::<ParseIntError>()) {
        let wanted = match number.kind() {
            IntErrorKind::PosOverflow => "that is too large",
            _ => "a whole number, 0 or more, is wanted",
        };
        said = said.replace(&number.to_string(), wanted);
    }
    fail(&format!("{said} (`--help` tells more)"), 2)
}

/// The paragraphs of an error, and the lists in them, as one line.
fn folded(text: &str) -> String {
    let paragraph = |text: &str| {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let first = lines.next()?;
        let first = first.strip_prefix("tip: ").unwrap_or(first);
        let rest: Vec<&str> = lines.map(|line| line.trim_matches(['[', ']'])).collect();
        let between = match rest.is_empty() {
            true => "",
            false if first.ends_with(':') => " ",
            false => ": ",
        };
        Some(format!("{first}{between}{}", rest.join(", ")))
    };
    text.split("\n\n").filter_map(paragraph).collect::<Vec<_>>().join("; ")
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => "error",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours).init();
}

impl Common {
    fn bus_name(&self) -> String {
        self.bus.clone().unwrap_or_else(Bus::default_name)
    }

    fn builder(&self) -> BusBuilder {
        let mut builder = Bus::builder(&self.bus_name());
        if let Some(dir) = &self.dir {
            builder = builder.dir(dir);
        }
        if let Some(group) = &self.group {
            builder = builder.group(group);
        }
        for access in self.access.iter().chain(&self.allow) {
            builder = builder.allow(access.clone());
        }
        builder
    }

    /// Opens the bus and joins it.
    fn join(&self, default_name: &str) -> Outcome<Node> {
        Ok(self.builder().open()?.join(self.name.as_deref().unwrap_or(default_name))?)
    }

    /// The same; from then on the command is asked to end, and before that a signal ends it at once.
    fn join_until_interrupted(&self, default_name: &str) -> Outcome<(Node, Interrupt)> {
        let node = self.join(default_name)?;
        Ok((node, Interrupt::new()?))
    }
}

/// Drains the node if the command was interrupted.
fn end(node: &Node, outcome: Outcome) -> Outcome {
    if let Err(Failure::Interrupted(_)) = outcome
        && let Err(error) = node.drain(DRAIN)
    {
        note(format!("note: {error}"));
    }
    outcome
}

/// Says how a command gets on: on stdout, or on stderr where stdout is for JSON.
fn tell(json: bool, text: String) -> Outcome {
    if json {
        note(text);
        return Ok(());
    }
    print(text)
}

/// Writes to stdout; its end ends the command quietly.
fn print(text: impl fmt::Display) -> Outcome {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(stdout_error)
}

/// Writes a line of JSON to stdout, whatever its length, with no copy of it in memory.
fn print_json(value: &impl Serialize) -> Outcome {
    let mut stdout = BufWriter::with_capacity(CHUNK, io::stdout().lock());
    let written = json::write(&mut stdout, value);
    written.and_then(|()| stdout.write_all(b"\n")).and_then(|()| stdout.flush()).map_err(stdout_error)
}

fn stdout_error(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::StdoutClosed,
        _ => Failure::Error(format!("cannot write to stdout: {error}")),
    }
}

/// Says something beside the result, in a line on stderr.
fn note(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{}", printable(&text.to_string()));
}

/// Text that may come from another process, without what a terminal would obey.
fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) { printable.extend(c.escape_default()) } else { printable.push(c) }
    }
    Cow::Owned(printable)
}

/// Whether a terminal, or whatever lays out text, takes this for an order: control characters, and what turns the
/// direction of text or ends a line.
fn is_obeyed(c: char) -> bool {
    let is_layout = matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    c.is_control() || is_layout
}

/// A number that is read by people: `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Columns of text, as wide as they have to be; the first is aligned to the left, numbers to the right.
fn table(rows: &[Vec<String>], right: &[bool]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..right.len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for ((cell, width), right) in row.iter().zip(&widths).zip(right) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            if *right { line += &format!("{cell:>width$}") } else { line += &format!("{cell:<width$}") }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("é \x1b[2J\n"), "é \\u{1b}[2J\\n");
        assert_eq!(printable("a\u{202e}b\u{9b}1m\u{7f}"), "a\\u{202e}b\\u{9b}1m\\u{7f}");
        let obeyed = ('\0'..=char::MAX).filter(|c| is_obeyed(*c)).count();
        assert_eq!(obeyed, 65 + 3 + 7 + 4);
    }

    #[test]
    fn errors_of_several_paragraphs_are_a_line() {
        for (text, line) in [
            (
                "unexpected argument '--txt' found\n\n  tip: a similar one",
                "unexpected argument '--txt' found; a similar one",
            ),
            ("not provided:\n  <TOPIC>\n  <VALUE>\n", "not provided: <TOPIC>, <VALUE>"),
            (
                "invalid value 'x' for 'y'\n  [possible values: a, b]\n\n  tip: z",
                "invalid value 'x' for 'y': possible values: a, b; z",
            ),
            ("plain", "plain"),
        ] {
            assert_eq!(folded(text), line);
        }
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "10".into()], vec!["bcd".to_owned(), "9".into()]];
        assert_eq!(table(&rows, &[false, true]), "a    10\nbcd   9\n");
    }
}
