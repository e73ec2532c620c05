//! `ringbus demo`: four processes on a bus of their own, every message accounted for.
//!
//! ```text
//!   worker-1, worker-2 ── task/N/progress ──▶ planner, monitor      events
//!   planner ── work.estimate ──▶ worker-1, worker-2, in turn        calls
//!   planner ── assignments ──▶ worker-1, worker-2, by name          direct messages
//!   planner ── notices, the end ──▶ all                             broadcasts
//!   monitor ◀── who lives ── all                                    presence
//!       ▲  │ orders (stdin), reports (stdout): JSON lines
//!       │  ▼
//!     this process: starts them, kills one, counts, prints; it is not on the bus
//! ```
//!
//! In phases: all are ready → start → half of the time → worker-2 is killed and started again → the other
//! half → the planner tells all that it is over, all say what they sent → all receive that much, or give up,
//! and say what they got → all leave.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use super::interrupt::Interrupt;
use super::lines::end_with;
use super::{Common, Failure, Outcome, print, tell};
use crate::Bus;

mod crew;
mod ledger;
mod monitor;
mod planner;
mod protocol;
mod sight;
mod summary;
mod talk;
mod watcher;
mod worker;

use crew::{Crew, Member};
use protocol::{Kinds, Order, Report};
use summary::{Part, Summary};

/// What the planner and the monitor subscribe to.
const FILTER: &str = "task/*/progress";
/// What the workers serve.
const SERVICE: &str = "work";
/// Who is killed half-way, and started again.
const VICTIM: &str = "worker-2";
/// How long everybody has to join.
const START: Duration = Duration::from_secs(20);
/// How long a process has to answer an order; more than a process's patience for missing messages.
const ANSWER: Duration = Duration::from_secs(20);
/// After so long without a message, what is missing is lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often processes report what they have counted.
const REPORT: Duration = Duration::from_millis(100);
/// How often this process looks whether it was interrupted.
const LOOK: Duration = Duration::from_millis(100);

/// Four processes talk in every way over a bus of their own, and every message is accounted for
#[derive(Debug, Args)]
#[command(after_long_help = "\
Two workers publish their progress and serve calls. A planner subscribes to the progress, calls the workers in
turn, sends them messages by name, and broadcasts to all. A monitor subscribes to everything, and watches
who is alive. Half-way worker-2 is killed (SIGKILL) and started again. Prints a line a second, then what became
of every message. Uses a private bus: --bus, --dir and --name have no effect.

Fails if a message was lost or out of order, a call did not end, a process died that was not meant to, or the
monitor did not see the one death. Of the killed worker everything has to arrive whose `publish` had returned,
by its own word; calls that it leaves unanswered end with `unavailable`, and are counted.

JSON (the last line of stdout; everything else goes to stderr):
  {\"processes\":4,\"sent\":K,\"received\":K,\"lost\":0,\"out_of_order\":0,\"calls\":N,\"calls_unavailable\":N,
   \"call_p50_us\":T,\"direct\":N,\"direct_unknown\":N,\"broadcasts\":N,\"broadcasts_unknown\":N,
   \"deaths_seen\":1,\"seconds\":S,\"per_process\":[{\"name\":\"worker-1\",
    \"role\":\"worker\",\"pid\":P,\"killed\":false,\"sent\":K,\"received\":K,\"lost\":0,\"out_of_order\":0}, …]}
where K counts messages by kind: {\"event\":N,\"request\":N,\"response\":N,\"direct\":N,\"broadcast\":N,\"heartbeat\":N}.
`received` adds up over all that receive: two get every event, so `received` has twice as many as `sent`.
The killed worker and the one in its place have an entry each; what the killed one had no time to tell of its
calls and messages is not counted as received: `direct_unknown` and `broadcasts_unknown` are messages that it
may have got, or that came while nobody was in its place. Beside them and what is lost, `received` has every
direct message once, and every broadcast four times.")]
pub(super) struct Options {
    /// How long the workers work
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// One of the demo's processes: it obeys orders on stdin.
#[derive(Debug, Args)]
pub(super) struct ProcessOptions {
    /// The process that it ends with
    #[arg(long)]
    parent: i32,
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Role {
    /// Publishes the progress of a task, and serves calls.
    Worker { task: u32 },
    /// Subscribes to all progress; calls the workers, and sends to them.
    Planner,
    /// Subscribes to all progress, and watches who is alive.
    Monitor,
}

/// Who takes part, in the order of the tables.
const CAST: [(&str, Role); 4] = [
    ("worker-1", Role::Worker { task: 1 }),
    ("worker-2", Role::Worker { task: 2 }),
    ("planner", Role::Planner),
    ("monitor", Role::Monitor),
];

pub(super) fn run(common: &Common, options: &Options) -> Outcome {
    let interrupt = Interrupt::new()?;
    let say = |text| tell(options.json, text);
    let bus = Bus::private()?;
    say("four processes on a private bus: two work, one plans, one watches".to_owned())?;

    let mut crew = Crew::start(&bus, &CAST, common.verbose)?;
    let deadline = Instant::now() + START;
    while !crew.all(is_ready) {
        interrupt.check()?;
        crew.listen(deadline, "get ready")?;
    }

    crew.order(|_| true, &Order::Start)?;
    let start = Instant::now();
    let length = Duration::from_secs(options.seconds.into());
    let (end, half) = (start + length, start + length / 2);
    say(summary::live_heading())?;
    let mut counted = Kinds::default();
    let mut has_killed = false;
    for second in 1..=options.seconds {
        let then = start + Duration::from_secs(second.into());
        while Instant::now() < then && interrupt.check().is_ok() {
            if !has_killed && Instant::now() >= half {
                has_killed = true;
                replace_victim(&mut crew)?;
                let pids = pids(&crew, VICTIM);
                say(format!("       {VICTIM} was killed, and started again: {}", pids.join(", then ")))?;
            }
            crew.listen_until(then.min(Instant::now() + LOOK))?;
        }
        if interrupt.check().is_err() {
            break; // the counting goes on: what was sent still has to arrive
        }
        let so_far = so_far(&crew);
        say(summary::live_line(second, &counted, &so_far, crew.fewest_peers()))?;
        counted = so_far;
    }

    crew.order(|member| matches!(member.role, Role::Planner), &Order::Stop)?;
    let seconds = start.elapsed().min(end - start).as_secs_f64();
    await_all(&mut crew, "stop", |member| {
        matches!(member.role, Role::Monitor) || member.told.stopped.is_some()
    })?;
    crew.order(|_| true, &Order::Finish(summary::all_sent(&parts(&crew))))?;
    await_all(&mut crew, "receive the rest", |member| member.told.finished.is_some())?;

    let summary = Summary::new(&parts(&crew), seconds);
    crew.dismiss(Instant::now() + ANSWER)?;
    match options.json {
        true => print(summary.json())?,
        false => print(format!("\n{summary}"))?,
    }
    summary.verdict()
}

fn is_ready(member: &Member) -> bool {
    member.told.node.is_some()
}

/// Kills a worker at whatever it is doing, and has another one take its place.
fn replace_victim(crew: &mut Crew) -> Outcome {
    let deadline = Instant::now() + START;
    crew.replace(VICTIM, deadline)?;
    while !crew.all(is_ready) {
        crew.listen(deadline, "get ready again")?;
    }
    crew.order(|member| member.fate == crew::Fate::Replaces, &Order::Start)
}

fn await_all(crew: &mut Crew, what: &str, is_done: impl Fn(&Member) -> bool) -> Outcome {
    let deadline = Instant::now() + ANSWER;
    while !crew.all(&is_done) {
        crew.listen(deadline, what)?;
    }
    Ok(())
}

fn parts(crew: &Crew) -> Vec<Part> {
    crew.members().iter().map(Part::from).collect()
}

fn pids(crew: &Crew, name: &str) -> Vec<String> {
    let members = crew.members().iter().filter(|member| member.name == name);
    members.map(|member| format!("pid {}", member.pid())).collect()
}

/// What all have sent, as far as is known.
fn so_far(crew: &Crew) -> Kinds {
    let mut sent = Kinds::default();
    for member in crew.members() {
        sent += member.told.sent;
    }
    sent
}

pub(super) fn run_process(common: &Common, options: &ProcessOptions) -> Outcome {
    if !end_with(options.parent)? {
        return Ok(());
    }
    // Ctrl-C reaches all of a terminal's processes: this one leaves when the first one says so.
    signal_hook::flag::register(signal_hook::consts::SIGINT, Default::default())?;
    let outcome = common.join("ringbus-demo").and_then(|node| {
        let orders = protocol::orders();
        match options.role {
            Role::Worker { task } => worker::run(&node, &orders, task),
            Role::Planner => planner::run(&node, &orders),
            Role::Monitor => monitor::run(&node, &orders),
        }
    });
    match outcome {
        // The one who prints is the first process.
        Err(Failure::Error(reason)) => protocol::tell(&Report::Failed { reason }),
        other => other,
    }
}
