//! What the demo's processes say to each other beside the bus: JSON lines through pipes.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::sync::mpsc::{self, Receiver};

use serde::{Deserialize, Serialize};

use super::super::{Outcome, stdout_error};

/// What the demo publishes: how far a task is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) task: u32,
    pub(super) step: String,
    pub(super) done: u32,
    pub(super) total: u32,
    /// How many messages of this worker came before; what the subscribers check beside the sequence.
    pub(super) counter: u64,
}

/// From the first process to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// To a worker: publish.
    Start,
    /// To a worker: publish no more, and report what was sent.
    Stop,
    /// To a subscriber: this is what each task's worker has sent; report what arrived of it.
    Finish { sent: BTreeMap<u32, u64> },
}

/// From another process to the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// Its ports are open, and it sees the ports that it needs.
    Ready,
    /// How many messages it has published or received so far, and how many other nodes it sees.
    Count { messages: u64, peers: usize },
    /// A worker's last word.
    Sent { messages: u64 },
    /// A subscriber's last word.
    Received { by_task: BTreeMap<u32, u64>, out_of_order: u64 },
    /// It has to give up.
    Failed { reason: String },
}

/// The orders on stdin. The channel is disconnected when the first process is gone.
pub(super) fn orders() -> Receiver<Order> {
    let (sender, orders) = mpsc::channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            let Ok(order) = serde_json::from_str(&line) else { return };
            if sender.send(order).is_err() {
                return;
            }
        }
    });
    orders
}

/// Writes a line, to the first process or from it.
pub(super) fn write_line(out: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}

/// Reports to the first process.
pub(super) fn tell(report: &Report) -> Outcome {
    write_line(&mut io::stdout().lock(), report).map_err(stdout_error)
}
