//! `ringbus demo`: four processes on a bus of their own, every message accounted for.
//!
//! ```text
//!   worker-1 ── task/1/progress ──┬──▶ planner      task/*/progress
//!   worker-2 ── task/2/progress ──┴──▶ monitor      task/*/progress
//!       ▲  │ orders (stdin), reports (stdout): JSON lines
//!       │  ▼
//!     this process: starts them, counts, prints; it is not on the bus
//! ```
//!
//! In phases: all are ready → start → (seconds) → the workers stop and say what they sent → the subscribers
//! receive that much, or give up, and say what they got → all leave.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use super::interrupt::Interrupt;
use super::{Common, Failure, Outcome, note, print};
use crate::Bus;

mod crew;
mod protocol;
mod summary;
mod watcher;
mod worker;

use crew::Crew;
use protocol::{Order, Report};
use summary::{Part, Summary};

/// What the subscribers subscribe to.
const FILTER: &str = "task/*/progress";
/// How long everybody has to join.
const START: Duration = Duration::from_secs(20);
/// How long a process has to answer an order; more than a subscriber's patience for missing messages.
const ANSWER: Duration = Duration::from_secs(20);
/// How often this process looks whether it was interrupted.
const LOOK: Duration = Duration::from_millis(100);

/// Four processes talk over a bus of their own, and every message is accounted for
#[derive(Debug, Args)]
#[command(after_long_help = "\
Starts two workers that publish their progress and two processes, a planner and a monitor, that subscribe
to it; prints a line a second, then what each sent and received. Fails if one message was lost or out of
order. Uses a private bus: --bus, --dir and --name have no effect.

JSON (the last line of stdout; everything else goes to stderr):
  {\"processes\":4,\"sent\":N,\"received\":N,\"lost\":0,\"out_of_order\":0,\"seconds\":S,\"per_process\":[
    {\"name\":\"worker-1\",\"role\":\"publisher\",\"pid\":P,\"sent\":N},
    {\"name\":\"planner\",\"role\":\"subscriber\",\"pid\":P,\"received\":N,\"lost\":0,\"out_of_order\":0}, …]}
`received` and `lost` add up over the subscribers: both get every message, so `received` is twice `sent`.")]
pub(super) struct Options {
    /// How long the workers publish
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// One of the demo's processes: it obeys orders on stdin.
#[derive(Debug, Args)]
pub(super) struct ProcessOptions {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Role {
    /// Publishes the progress of a task.
    Worker { task: u32 },
    /// Subscribes to all progress.
    Watcher,
}

/// Who takes part, in the order of the tables.
const CAST: [(&str, Role); 4] = [
    ("worker-1", Role::Worker { task: 1 }),
    ("worker-2", Role::Worker { task: 2 }),
    ("planner", Role::Watcher),
    ("monitor", Role::Watcher),
];

fn is_worker((_, role): &(&str, Role)) -> bool {
    matches!(role, Role::Worker { .. })
}

pub(super) fn run(common: &Common, options: &Options) -> Outcome {
    let interrupt = Interrupt::new()?;
    let say = |text: String| {
        if options.json {
            note(text);
            return Ok(());
        }
        print(text)
    };
    let bus = Bus::private()?;
    say(format!("four processes on a private bus: two publish, two subscribe to {FILTER}"))?;

    let mut crew = Crew::start(&bus, &CAST, common.verbose)?;
    let deadline = Instant::now() + START;
    while !crew.all(|report| matches!(report, Some(Report::Ready))) {
        interrupt.check()?;
        crew.listen(deadline, "get ready")?;
    }

    crew.order(is_worker, &Order::Start)?;
    let start = Instant::now();
    let end = start + Duration::from_secs(options.seconds.into());
    say(summary::live_heading(&CAST))?;
    let mut counted = [0; CAST.len()];
    for second in 1..=options.seconds {
        let then = start + Duration::from_secs(second.into());
        while Instant::now() < then && interrupt.check().is_ok() {
            crew.listen_until(then.min(Instant::now() + LOOK))?;
        }
        if interrupt.check().is_err() {
            break; // the counting goes on: what was sent still has to arrive
        }
        say(summary::live_line(second, &counted, crew.counts(), crew.fewest_peers()))?;
        counted.copy_from_slice(crew.counts());
    }

    crew.order(is_worker, &Order::Stop)?;
    let seconds = start.elapsed().min(end - start).as_secs_f64();
    await_done(&mut crew, is_worker, "stop")?;
    let sent: BTreeMap<u32, u64> =
        CAST.iter().enumerate().filter_map(|(at, part)| sent(&crew, at, part)).collect();
    crew.order(|part| !is_worker(part), &Order::Finish { sent: sent.clone() })?;
    await_done(&mut crew, |part| !is_worker(part), "receive the rest")?;

    let parts = CAST.iter().enumerate().map(|(at, (name, role))| {
        let part = Part { name, role: *role, pid: crew.pid(at), counted: crew.counts()[at] };
        (part, crew.report(at).cloned())
    });
    let summary = Summary::new(parts.collect(), &sent, seconds);
    crew.dismiss(Instant::now() + ANSWER)?;
    match options.json {
        true => print(summary.json())?,
        false => print(format!("\n{summary}"))?,
    }
    summary.verdict()
}

fn sent(crew: &Crew, at: usize, (_, role): &(&str, Role)) -> Option<(u32, u64)> {
    match (role, crew.report(at)) {
        (Role::Worker { task }, Some(Report::Sent { messages })) => Some((*task, *messages)),
        _ => None,
    }
}

fn await_done(crew: &mut Crew, whose: impl Fn(&(&str, Role)) -> bool, what: &str) -> Outcome {
    let deadline = Instant::now() + ANSWER;
    let is_done =
        |report: Option<&Report>| matches!(report, Some(Report::Sent { .. } | Report::Received { .. }));
    while !CAST.iter().enumerate().all(|(at, part)| !whose(part) || is_done(crew.report(at))) {
        crew.listen(deadline, what)?;
    }
    Ok(())
}

pub(super) fn run_process(common: &Common, options: &ProcessOptions) -> Outcome {
    // Ctrl-C reaches all of a terminal's processes: this one leaves when the first one says so.
    signal_hook::flag::register(signal_hook::consts::SIGINT, Default::default())?;
    let outcome = common.join("ringbus-demo").and_then(|node| {
        let orders = protocol::orders();
        match options.role {
            Role::Worker { task } => worker::run(&node, &orders, task),
            Role::Watcher => watcher::run(&node, &orders),
        }
    });
    match outcome {
        // The one who prints is the first process.
        Err(Failure::Error(reason)) => protocol::tell(&Report::Failed { reason }),
        other => other,
    }
}
