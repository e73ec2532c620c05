//! `ringbus sub` and `ringbus inbox`: messages, one a line.
//!
//! ```text
//!   bus ──▶ main thread ──▶ Buffer (bounded) ──▶ "stdout" thread ──▶ stdout
//!              │ drops when the buffer is full        │ does not decode
//!              └──────────▶ "stderr" thread ◀─────────┘
//! ```
//!
//! The main thread copies messages and does nothing else, above all not write: whoever stops reading our
//! output (a pager) must not make us stop reading the bus.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Args;
use nix::poll::{PollFd, PollFlags};

use super::denials::Teller;
use super::interrupt::{Interrupt, wait};
use super::publish::bytes;
use super::{Common, Failure, Outcome, end, note};
use crate::sys::thread;
use crate::{Node, RawInbox, RawSubscriber, RecvError, Sample};

mod buffer;
mod line;

use buffer::{Buffer, Entry, Refused};
pub(super) use line::{HeaderMap, Source};

/// Messages between two looks at anything else.
const BATCH: usize = 256;
/// How often drops are told, and how many messages were not printed.
const TELL: Duration = Duration::from_secs(1);
/// Of those, so many are told one by one in that time.
const ONE_BY_ONE: u64 = 10;
/// How long what is left may take to be written when asked to end.
const GRACE: Duration = Duration::from_millis(500);
/// Complaints that wait to be written to stderr.
const NOTICES: usize = 256;

/// Print messages, one a line
#[derive(Debug, Args)]
#[command(after_long_help = "\
FILTER is a topic, where * stands for one level and ** for any number: task/*/progress, camera/**.
Prints `topic value`, the value as JSON; with --json all that is known of a message:
  {\"topic\":T,\"source\":{\"name\":N,\"id\":I,\"pid\":P},\"sequence\":S,\"headers\":{K:V,…},\"value\":V}
and, where they are there, \"priority\" (other than 128), \"time_ns\" (since 1970) and \"correlation\".
Values that JSON does not have:
  {\"$bin\":\"base64\"}           binary             {\"$float\":\"NaN\"}  also inf, -inf
  {\"$ext\":[type,\"base64\"]}    an extension       {\"$str\":\"base64\"} a string that is not UTF-8
  {\"$map\":[[key,value],…]}    a map whose keys are not all different strings
A payload from a raw publisher is a string if it is UTF-8 text, else {\"$raw\":\"base64\"}. Of headers with
the same key, the first one is shown.

Reads the bus whether or not its output is read: publishers never wait for it. Up to --buffer bytes of
messages are kept (a larger one by itself); what comes then is dropped, and how many is told on stderr, as are
messages that their publisher dropped, and those that cannot be decoded or are too large for this process's memory. Only a process that is stopped, or gets no
processor time, is waited for by publishers that wait; with --lossy, not even that.")]
pub(super) struct Options {
    /// What to subscribe to; a message that several match is printed once
    #[arg(required_unless_present = "broadcasts", value_name = "FILTER")]
    filters: Vec<String>,
    /// Print what is sent to all nodes, too; its topic is shown as @all
    #[arg(long)]
    broadcasts: bool,
    /// Hold no publisher up, whatever its policy: what it overwrites before it is read is lost, and told on stderr
    #[arg(long)]
    lossy: bool,
    #[command(flatten)]
    output: Output,
}

/// Print the messages that are sent to a name, one a line
#[derive(Debug, Args)]
#[command(after_long_help = "\
Joins as NAME, and prints `sender value` for each message that `ringbus send NAME …` or a program sends. Other
nodes of that name get the messages as well. With --json lines are as those of `ringbus sub`, whose --help
tells more; the topic is @to/NAME.")]
pub(super) struct InboxOptions {
    /// Name to join as
    #[arg(value_name = "NAME")]
    join_as: String,
    #[command(flatten)]
    output: Output,
}

/// How messages are printed.
#[derive(Debug, Args)]
struct Output {
    /// End after N messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print all that is known of a message, as JSON
    #[arg(long)]
    json: bool,
    /// Bytes of messages that are kept while stdout is not read: 65536, 64K, 1M, 2G
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = bytes)]
    buffer: u64,
}

pub(super) fn run(common: &Common, options: &Options) -> Outcome {
    let (node, interrupt) = common.join_until_interrupted("ringbus-sub")?;
    let subscriber = subscribe(&node, options)?;
    show(common, node, subscriber, &options.output, &interrupt)
}

pub(super) fn run_inbox(common: &Common, options: &InboxOptions) -> Outcome {
    if common.name.is_some() {
        return Err("the inbox is that of the name it joins as: leave --name out".into());
    }
    let (node, interrupt) = common.join_until_interrupted(&options.join_as)?;
    let inbox = node.raw_inbox()?;
    show(common, node, inbox, &options.output, &interrupt)
}

/// Prints what the port receives.
fn show(common: &Common, node: Node, port: impl Port, output: &Output, interrupt: &Interrupt) -> Outcome {
    let buffer = Buffer::new(output.buffer.try_into().unwrap_or(usize::MAX));
    let (notices, complaints) = sync_channel(NOTICES);

    let stderr = Task::spawn("stderr", move || tell(&complaints))?;
    let stdout = {
        let (buffer, notices, json) = (buffer.clone(), notices.clone(), output.json);
        let count = output.count.unwrap_or(u64::MAX);
        Task::spawn("stdout", move || line::write_all(&buffer, json, count, &notices))?
    };
    let denials = common.group.is_some().then(|| Teller::new(&node));
    let mut drain = Drain { buffer: &buffer, notices, denials, dropped: 0, told: Instant::now() };
    let mut outcome = end(&node, drain.run(port, interrupt, &stdout.ended));
    drop(drain);
    drop(node); // goodbye: nothing more is wanted

    buffer.close();
    if outcome.is_ok() {
        outcome = interrupt.wait_readable(stdout.ended.as_fd());
    }
    // A write(2) that nobody reads cannot be called off, other than by the end of the process.
    if let Some(written) = stdout.join_within(GRACE)? {
        outcome = written.and(outcome);
        stderr.join_within(GRACE)?;
    }
    match outcome {
        // The normal end, unless more was asked for.
        Err(Failure::Interrupted(_)) if output.count.is_none() => Ok(()),
        other => other,
    }
}

fn subscribe(node: &Node, options: &Options) -> Outcome<RawSubscriber> {
    let (builder, others) = match options.filters.split_first() {
        _ if options.broadcasts => (node.broadcasts_builder(), &options.filters[..]),
        Some((first, others)) => (node.subscriber_builder(first), others),
        None => return Err("a filter is wanted".into()),
    };
    let builder = others.iter().fold(builder, |builder, filter| builder.filter(filter));
    Ok(if options.lossy { builder.lossy() } else { builder }.open_raw()?)
}

/// What messages come from.
trait Port: AsFd {
    fn try_recv(&mut self) -> Result<Option<Sample<'_>>, RecvError>;
    fn arm(&mut self) -> Result<bool, RecvError>;
}

impl Port for RawSubscriber {
    fn try_recv(&mut self) -> Result<Option<Sample<'_>>, RecvError> {
        RawSubscriber::try_recv(self)
    }

    fn arm(&mut self) -> Result<bool, RecvError> {
        RawSubscriber::arm(self)
    }
}

impl Port for RawInbox {
    fn try_recv(&mut self) -> Result<Option<Sample<'_>>, RecvError> {
        RawInbox::try_recv(self)
    }

    fn arm(&mut self) -> Result<bool, RecvError> {
        RawInbox::arm(self)
    }
}

/// The bus's side: from the subscriber into the buffer.
struct Drain<'a> {
    buffer: &'a Buffer,
    notices: SyncSender<Notice>,
    /// On a group's bus.
    denials: Option<Teller<'a>>,
    dropped: u64,
    /// When drops were last told, and denials.
    told: Instant,
}

impl Drain<'_> {
    /// Until interrupted, or until nothing more is or can be written.
    fn run(&mut self, mut port: impl Port, interrupt: &Interrupt, ended: &UnixStream) -> Outcome {
        let stdout = io::stdout();
        loop {
            self.take(&mut port)?;
            let tells = self.dropped > 0 || self.denials.is_some();
            if tells && self.told.elapsed() >= TELL {
                self.tell_drops();
                self.tell_denials();
            }
            let timeout = match port.arm()? {
                false => Some(Duration::ZERO),
                true if tells => Some(TELL),
                true => None,
            };
            let readable = PollFlags::POLLIN;
            let mut fds = [
                PollFd::new(port.as_fd(), readable),
                PollFd::new(interrupt.as_fd(), readable),
                PollFd::new(ended.as_fd(), readable),
                PollFd::new(stdout.as_fd(), PollFlags::empty()), // an error: its reader is gone
            ];
            wait(&mut fds, timeout)?;
            if let Err(interrupted) = interrupt.check() {
                // What had arrived is still printed, unless it never ends.
                let start = Instant::now();
                while self.take(&mut port)? && start.elapsed() < GRACE {}
                return Err(interrupted);
            }
            if fds[2].any() == Some(true) {
                return Ok(());
            }
            if fds[3].any() == Some(true) {
                return Err(Failure::StdoutClosed);
            }
        }
    }

    /// Takes a batch; false if that was all.
    fn take(&mut self, port: &mut impl Port) -> Outcome<bool> {
        for _ in 0..BATCH {
            match port.try_recv() {
                Ok(None) => return Ok(false),
                Ok(Some(sample)) => match self.buffer.push(Entry::cost(&sample), || Entry::new(&sample)) {
                    Ok(()) => {}
                    Err(Refused::Full) => self.dropped += 1,
                    Err(Refused::NoMemory) => {
                        let (sequence, topic, len) = (sample.sequence(), sample.topic(), sample.len());
                        let source = sample.source();
                        let notice = format!(
                            "message {sequence} on {topic} from {source} has {len} bytes: too large for this process's memory"
                        );
                        let _ = self.notices.try_send(Notice::Unread(notice));
                    }
                },
                Err(error @ (RecvError::Forked | RecvError::NodeGone)) => return Err(error.into()),
                // Should nobody read stderr either, nobody misses it.
                Err(error @ RecvError::Decode { .. }) => {
                    let _ = self.notices.try_send(Notice::Unread(error.to_string()));
                }
                Err(error) => drop(self.notices.try_send(Notice::Other(error.to_string()))),
            }
        }
        Ok(true)
    }

    fn tell_denials(&mut self) {
        for denial in self.denials.iter_mut().flat_map(Teller::look) {
            let _ = self.notices.try_send(Notice::Other(denial));
        }
    }

    fn tell_drops(&mut self) {
        self.told = Instant::now();
        if self.dropped == 0 {
            return;
        }
        let (dropped, limit) = (std::mem::take(&mut self.dropped), self.buffer.limit());
        let notice = format!("dropped {dropped} messages: stdout is not read, and --buffer {limit} is full");
        let _ = self.notices.try_send(Notice::Other(notice));
    }
}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        self.tell_drops();
    }
}

/// What is said on stderr.
enum Notice {
    /// Why a message is not printed: a publisher may write such ones as fast as it can.
    Unread(String),
    Other(String),
}

fn tell(notices: &Receiver<Notice>) {
    // Since then so many messages were not printed.
    let (mut since, mut unread) = (Instant::now(), 0_u64);
    loop {
        let next = match unread > ONE_BY_ONE {
            true => notices.recv_timeout(TELL),
            false => notices.recv().map_err(RecvTimeoutError::from),
        };
        let notice = match next {
            Ok(notice) => Some(notice),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        if since.elapsed() >= TELL {
            tell_rest(unread);
            (since, unread) = (Instant::now(), 0);
        }
        match notice {
            Some(Notice::Unread(text)) => {
                unread += 1;
                if unread <= ONE_BY_ONE {
                    note(format!("ringbus: {text}"));
                }
            }
            Some(Notice::Other(text)) => note(format!("ringbus: {text}")),
            None => {}
        }
    }
    tell_rest(unread);
}

fn tell_rest(unread: u64) {
    if let Some(more @ 1..) = unread.checked_sub(ONE_BY_ONE) {
        note(format!("ringbus: {more} or more other messages could not be read either"));
    }
}

/// A thread whose end can be waited for together with other things.
struct Task<T> {
    thread: JoinHandle<T>,
    /// Turns readable when the thread ends.
    ended: UnixStream,
}

impl<T: Send + 'static> Task<T> {
    fn spawn(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Outcome<Self> {
        let refuse = |error| {
            format!("cannot start a thread: {error}: raise the limit (`ulimit -n`, `ulimit -u`, `ulimit -v`)")
        };
        let (ended, at_end) = UnixStream::pair().map_err(refuse)?;
        let work = move || {
            let _at_end = at_end;
            work()
        };
        let thread = thread::spawn(name, None, work).map_err(refuse)?;
        Ok(Self { thread, ended })
    }

    /// What it came to; `None` if it goes on.
    fn join_within(self, timeout: Duration) -> Outcome<Option<T>> {
        let mut fds = [PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
        wait(&mut fds, Some(timeout))?;
        if fds[0].any() != Some(true) {
            return Ok(None);
        }
        let result = self.thread.join();
        result.map(Some).map_err(|_| "a thread of this process has panicked".into())
    }
}
