//! What the first process and those that it measures say to each other: JSON lines over stdin and stdout.

use std::io::{self, BufRead, Write};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::Outcome;
use super::figures::RoundTrips;
use crate::Wait;

/// How long anything may take beyond the time that it is meant to.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// To a measured process, on its stdin.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Prepare this, and say so.
    Prepare(Task),
    /// The other side is prepared: go on. What it has made is found there.
    Go(Option<Place>),
    /// The other side is through.
    End,
}

/// One side of one measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Task {
    /// Sends and waits for the answer, again and again.
    Ping {
        line: LineKind,
        seconds: f64,
    },
    /// Answers, until the other side stops.
    Echo {
        line: LineKind,
    },
    /// Sends without waiting for answers.
    Send {
        flow: FlowKind,
        seconds: f64,
    },
    /// Receives, and reads every byte.
    Receive {
        flow: FlowKind,
    },
    /// Copies payloads within this process, and reads every byte.
    Copy {
        payload: usize,
        seconds: f64,
    },
    Call(CallTask),
    Serve,
    /// Shows how fast its CPU computes just now.
    Calculate,
    /// Does nothing; on a bus, with a subscriber, if so said.
    Rest {
        subscribed: bool,
    },
    /// One of the many nodes of a bus.
    Member(MemberTask),
}

/// What carries a message to and fro.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum LineKind {
    Bus(BusLine),
    Bare(BareLine),
    /// A cache line for each direction.
    Raw,
    /// A bell for each direction; waited for with ppoll(2) as ports do, or in a blocking read(2).
    Bells {
        polled: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BusLine {
    pub(super) payload: usize,
    pub(super) wait: Waiting,
    pub(super) loan: bool,
    pub(super) typed: bool,
    pub(super) idle_logs: usize,
}

impl BusLine {
    /// What the other kinds are held against.
    pub(super) const PLAIN: Self =
        Self { payload: 64, wait: Waiting::Spin, loan: false, typed: false, idle_logs: 0 };
}

/// The ring without frames.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct BareLine {
    pub(super) payload: usize,
    pub(super) loan: bool,
    pub(super) spin: Spin,
}

/// How the bare ring waits; which way is the fastest depends on the host, and on what flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Spin {
    /// Looks again at once.
    Tight,
    /// With PAUSE between two looks.
    Paused,
    /// Asks for the lines of the next record while it waits.
    Ahead,
}

/// What carries messages one way.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum FlowKind {
    Bus(BusFlow),
    Bare(BareFlow),
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct BareFlow {
    pub(super) payload: usize,
    pub(super) loan: bool,
    pub(super) readers: usize,
    pub(super) spin: Spin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BusFlow {
    pub(super) payload: usize,
    pub(super) wait: Waiting,
    pub(super) loan: bool,
    pub(super) typed: bool,
    pub(super) publishers: usize,
    pub(super) idle_logs: usize,
    /// Subscribers on the whole bus, for the sender; in this process, for a receiver.
    pub(super) subscribers: usize,
}

impl BusFlow {
    /// What the other kinds are held against.
    pub(super) const PLAIN: Self = Self {
        payload: 64,
        wait: Waiting::Spin,
        loan: false,
        typed: false,
        publishers: 1,
        idle_logs: 0,
        subscribers: 1,
    };
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct CallTask {
    pub(super) payload: usize,
    pub(super) clients: usize,
    pub(super) seconds: f64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct MemberTask {
    pub(super) nodes: usize,
    pub(super) payload: usize,
    /// Messages that this one publishes to all; others receive them.
    pub(super) publishes: Option<u64>,
}

/// [`Wait`], as an option and on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub(super) enum Waiting {
    Spin,
    Adaptive,
    Park,
}

impl From<Waiting> for Wait {
    fn from(waiting: Waiting) -> Self {
        match waiting {
            Waiting::Spin => Wait::Spin,
            Waiting::Adaptive => Wait::Adaptive,
            Waiting::Park => Wait::Park,
        }
    }
}

/// Where the other process finds what this one has made: file descriptors, under `/proc/<pid>/fd`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) pid: u32,
    pub(super) fds: Vec<i32>,
}

/// From a measured process, on its stdout.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    Ready(Option<Place>),
    /// A node has joined, which took so long.
    Joined {
        ns: u64,
    },
    /// All nodes are known; by the monotonic clock.
    Complete {
        at_ns: u64,
    },
    Done(Measured),
    /// The last words.
    Failed {
        reason: String,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Measured {
    Nothing,
    RoundTrips(RoundTrips),
    /// How many messages, and the sum of their numbers; `timed` of them, the last ones, from then on.
    Sent {
        count: u64,
        numbers: u64,
        timed: u64,
        start_ns: u64,
    },
    /// The same of what came, until then; all by the monotonic clock.
    Received {
        count: u64,
        numbers: u64,
        end_ns: u64,
    },
    Calls {
        round_trips: RoundTrips,
        per_second: f64,
    },
    BytesPerSecond(f64),
    Took {
        ns: f64,
    },
}

/// Tells the first process.
pub(super) fn tell(report: &Report) -> Outcome {
    Ok(write_line(&mut io::stdout().lock(), report)?)
}

/// The next order; `None` once the first process is gone.
pub(super) fn hear() -> Outcome<Option<Order>> {
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line)? {
        0 => Ok(None),
        _ => Ok(Some(parse(&line)?)),
    }
}

pub(super) fn parse<T: DeserializeOwned>(line: &str) -> Outcome<T> {
    serde_json::from_str(line).map_err(|error| format!("not understood: {error}: {}", line.trim()).into())
}

/// Writes it in one piece, so that whoever polls for a line does not wait for the rest of it.
pub(super) fn write_line(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    out.write_all(&bytes)?;
    out.flush()
}
