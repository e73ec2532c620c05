//! What one run measures, and what comes of it.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// An event there and one back: nanoseconds, median
    Rtt,
    /// Events one way, every byte read: messages per second
    Throughput,
    /// Events to four subscribers: deliveries per second, all together
    Fanout,
    /// A request and its answer: nanoseconds, median
    Call,
}

impl Workload {
    pub const ALL: [Self; 4] = [Self::Rtt, Self::Throughput, Self::Fanout, Self::Call];

    /// The payloads that are measured, in bytes.
    pub fn payloads(self) -> &'static [usize] {
        match self {
            Self::Rtt => &[64, 64 << 10],
            Self::Throughput => &[64, 1 << 10, 64 << 10, 1 << 20],
            Self::Fanout | Self::Call => &[64],
        }
    }

    /// Whether the figure is a time, so that less is better.
    pub fn is_time(self) -> bool {
        matches!(self, Self::Rtt | Self::Call)
    }
}

/// How the payload gets into a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes, copied from the sender's private memory.
    Copied,
    /// Bytes, lent by the peer: the sender writes the first eight, the others are whatever is there.
    Lent,
    /// A value, encoded and decoded.
    Typed,
}

/// The subscribers of [`Workload::Fanout`].
pub const SUBSCRIBERS: usize = 4;

/// One line of the tables: a peer, set up and used in one way.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub name: &'static str,
    pub kind: Kind,
    /// Whether the row takes part, given the payload's bytes.
    pub takes: fn(Workload, usize) -> bool,
}

/// One run of one row, as both its processes are told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    pub row: String,
    pub workload: Workload,
    pub payload: usize,
    pub lent: bool,
    pub typed: bool,
    /// How long to measure, after a quarter of that to warm up.
    pub time: Duration,
    /// A directory of this run alone: for sockets and the like.
    pub dir: PathBuf,
    /// Where the first and the second process run.
    pub cpus: [usize; 2],
}

impl Job {
    /// A name that no other run uses.
    pub fn unique(&self, what: &str) -> String {
        let dir = self.dir.file_name().unwrap_or_default().to_string_lossy();
        format!("peers-{}-{what}", dir.trim_start_matches('.'))
    }
}

/// What one run found.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Figure {
    /// Nanoseconds (median of the run's round trips), or messages or deliveries per second.
    pub value: f64,
    /// The 99th percentile, of times.
    pub p99: Option<f64>,
    /// Round trips, or messages.
    pub count: u64,
}
