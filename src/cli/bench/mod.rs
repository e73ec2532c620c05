//! `ringbus bench`: what the bus costs, beside what its parts cost, in one run.
//!
//! ```text
//!   this process ── orders (stdin), reports (stdout): JSON lines ──▶ measured processes, each pinned to a CPU
//!    mod ── arguments            crew ── the processes             child ── obeys, and ends with this one
//!    latency, wake ─────┐        pair ── two that work together     ├── line ── to and fro ─┐
//!    throughput, fanout ┼─ what                                    ├── flow ── one way ────┼─ bus │ bare │ raw │ bells
//!    call, idle, scale ─┤  is run                                  ├── calls               ┘
//!    codec, all ────────┘        yardstick ── the bare ring        └── idle, scale
//!                                figures ── medians, rounding; chart
//! ```
//!
//! A measurement and its yardsticks are taken in turn within each repetition (A B C A B C …), by processes that are
//! started afresh for each; what is printed are medians over those that count (`host`). This process sleeps
//! meanwhile, and is not on the bus.

use std::time::Duration;

use clap::{Args, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::interrupt::Interrupt;
use super::{Common, Outcome, print, table};
use crate::Bus;
use crate::sys::affinity;

mod all;
mod bare;
mod bells;
mod bus;
mod call;
mod calls;
mod chart;
mod child;
mod codec;
mod crew;
mod event;
mod fanout;
mod figures;
mod flow;
mod host;
mod idle;
mod latency;
mod line;
mod pair;
mod protocol;
mod raw;
mod scale;
mod throughput;
mod wake;
mod yardstick;

pub(super) use child::{ChildOptions, run_child};
use crew::Crew;
use figures::Figures;
use pair::Pair;

/// What a measured part of a repetition takes unless asked otherwise, in seconds. Many short ones and not a few long ones: a
/// host is in one place, and its neighbours are quiet, for a tenth of a second or for a second, mostly not for longer.
const SECONDS: f64 = 0.04;
/// The largest payload that is measured.
const LARGEST: usize = 64 << 20;

/// Measure the bus on this host, beside the bare ring, a cache line, memcpy and eventfds
#[derive(Debug, Args)]
#[command(after_long_help = "\
Every measurement is taken by processes of their own on a private bus (--bus, --dir and --name have no effect),
beside its yardsticks in the same run, in turn, --repetitions times; what is printed are medians. Compare ratios:
absolute times of a virtual machine move with its neighbours. Nothing else should run on the CPUs.

Before and after each part the host is looked at: a cache line is timed between the two processes, and a calculation,
always the same, on the CPU of each. A host that moves its virtual CPUs shows in the one, neighbours on the same cores
in the other. Parts in which it has moved them, in another place than most, or in which the calculation took more than
1.08 times what it takes at best, do not count; but the five of each kind that were disturbed least do. What is lost
counts always. `repetitions_left_out`: how many times the subject itself did not count.")]
pub(super) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Latency(latency::Options),
    Throughput(throughput::Options),
    Fanout(fanout::Options),
    Call(call::Options),
    Wake(wake::Options),
    Idle(idle::Options),
    Scale(scale::Options),
    Codec(codec::Options),
    All(all::Options),
}

/// What every measurement takes.
#[derive(Debug, Clone, Copy, Args)]
struct Effort {
    /// Repetitions; of those that count, the median is taken
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repetitions: u32,
    /// Time of each measured part of a repetition, in seconds
    #[arg(long, value_name = "S", value_parser = seconds)]
    seconds: Option<f64>,
    /// Print the figures as JSON, in one line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(common: &Common, options: &Options) -> Outcome {
    use What::{All, Call, Codec, Fanout, Idle, Latency, Scale, Throughput, Wake};
    let open = |effort: &Effort, seconds: f64| Bench::new(common.verbose, effort, seconds);
    let (figures, effort) = match &options.what {
        Latency(o) => (latency::measure(&open(&o.effort, SECONDS)?, o.line()?)?, o.effort),
        Throughput(o) => (throughput::measure(&open(&o.effort, SECONDS)?, o.flow()?)?, o.effort),
        Fanout(o) => {
            let bench = open(&o.effort, SECONDS)?;
            (fanout::measure(&bench, o.payload, o.subscribers, o.separate)?, o.effort)
        }
        Call(o) => (call::measure(&open(&o.effort, SECONDS)?, o.payload, o.clients)?, o.effort),
        Wake(o) => (wake::measure(&open(&o.effort, SECONDS)?)?, o.effort),
        Idle(o) => (idle::measure(&open(&o.effort, idle::SECONDS)?)?, o.effort),
        Scale(o) => (scale::measure(&open(&o.effort, SECONDS)?, o.task(), o.at_once)?, o.effort),
        All(o) => return all::run(&open(&o.effort, SECONDS)?, o),
        Codec(o) => (codec::measure(&open(&o.effort, SECONDS)?)?, o.effort),
    };
    if effort.json { print(serde_json::to_string(&figures)?) } else { print(as_table(&figures)) }
}

fn as_table(figures: &Figures) -> String {
    let rows: Vec<Vec<String>> = figures.rows().into_iter().map(Vec::from).collect();
    table(&rows, &[false, false]).trim_end().to_owned()
}

/// One run: a private bus, and how much is measured.
struct Bench {
    interrupt: Interrupt,
    bus: Bus,
    verbose: u8,
    /// The CPUs that this process may run on.
    cpus: Vec<usize>,
    repetitions: u32,
    seconds: f64,
}

impl Bench {
    fn new(verbose: u8, effort: &Effort, seconds: f64) -> Outcome<Self> {
        let interrupt = Interrupt::new()?;
        // A process has pipes to each of its children, and each node several descriptors for each other one.
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        let (bus, cpus) = (Bus::private()?, affinity::allowed()?);
        let seconds = effort.seconds.unwrap_or(seconds);
        Ok(Self { interrupt, bus, verbose, cpus, repetitions: effort.repetitions, seconds })
    }

    fn crew(&self) -> Crew<'_> {
        Crew::new(&self.interrupt, &self.bus, self.verbose)
    }

    /// Two processes, each pinned to a CPU of its own.
    fn pair(&self) -> Outcome<Pair<'_>> {
        Pair::start(self, 1)
    }

    /// The first process's CPU, and those of the others.
    ///
    /// # Errors
    /// There is one only: what spins on both sides would measure the scheduler.
    fn two_cpus(&self) -> Outcome<(usize, &[usize])> {
        match &self.cpus[..] {
            [first, rest @ ..] if !rest.is_empty() => Ok((*first, rest)),
            cpus => Err(format!(
                "this needs two CPUs, one for each process, and may use {} only: give it more (taskset, cpusets), \
                 or measure `bench codec`, `bench idle` or `bench scale`",
                cpus.len()
            )
            .into()),
        }
    }

    fn pair_placement(&self) -> String {
        match &self.cpus[..] {
            [first, second, ..] => format!("first process on CPU {first}, second on CPU {second}"),
            _ => "one CPU".into(),
        }
    }

    /// Adds what every measurement tells of itself of which so many repetitions count.
    fn about_counted(&self, figures: Figures, counted: usize, placement: &str) -> Figures {
        let left_out = self.repetitions as usize - counted;
        self.about(figures.whole("repetitions_left_out", left_out as f64), placement)
    }

    /// Adds what every measurement tells of itself.
    fn about(&self, figures: Figures, placement: &str) -> Figures {
        self.about_of(figures, self.seconds, placement)
    }

    fn about_of(&self, figures: Figures, seconds: f64, placement: &str) -> Figures {
        let figures = figures.whole("repetitions", f64::from(self.repetitions));
        figures.ratio("seconds", seconds).text("placement", placement)
    }
}

/// Capacity of a bare ring for payloads of this size, whose largest record is a quarter of it: a log's default where
/// that is enough. (The bus has other means for large messages, and is measured as it is by default.)
fn capacity(payload: usize) -> u64 {
    const DEFAULT: u64 = 256 * 1024;
    const HEADER: u64 = 16;
    ((payload as u64 + HEADER) * 4).next_power_of_two().max(DEFAULT)
}

fn payload(text: &str) -> Result<usize, String> {
    let fits = |bytes: &usize| (1..=LARGEST).contains(bytes);
    text.parse().ok().filter(fits).ok_or_else(|| format!("a message has 1 to {LARGEST} bytes"))
}

fn few(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| (1..=64).contains(count)).ok_or_else(|| "1 to 64 are measured".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let fits = |seconds: &f64| (0.001..=Duration::from_secs(3600).as_secs_f64()).contains(seconds);
    text.parse().ok().filter(fits).ok_or_else(|| "0.001 to 3600 seconds are wanted".into())
}

/// A typed message cannot be as small as one of bytes.
fn check_typed(payload: usize, typed: bool) -> Outcome {
    match payload {
        less if typed && less < event::LEAST => {
            Err(format!("a typed message has at least {} bytes, not {less}", event::LEAST).into())
        }
        _ => Ok(()),
    }
}
