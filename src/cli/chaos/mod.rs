//! `ringbus chaos`: processes that are killed, stopped, slowed down and restarted at random, and what must hold all the
//! same.
//!
//! ```text
//!   publishers ── bytes, loans, values, batches, broadcasts, direct messages ──▶ subscribers, witness
//!   clients ── calls, one by one and several at a time ──▶ servers
//!       ▲  │ orders (stdin), reports (stdout): JSON lines; signals
//!       │  ▼
//!     this process, which is not on the bus
//!      stage ── who plays, who is to be disturbed next (dice)     crew ── the processes
//!      judge ── what must hold;  track ── of one stream           summary ── what is printed
//! ```
//!
//! A publisher tells of each message through its pipe once the bus has taken it, and each subscriber what has arrived;
//! the judge compares. The witness is disturbed by nobody: it has to see everything, and to hold no more at the end
//! than it did alone at the beginning.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use super::interrupt::Interrupt;
use super::lines::end_with;
use super::{Common, Failure, Outcome, print, tell};
use crate::Bus;
use crate::sys::random;

mod client;
mod content;
mod crew;
mod dice;
mod judge;
mod pace;
mod plan;
mod protocol;
mod publisher;
mod residue;
mod sabotage;
mod server;
mod stage;
mod subscriber;
mod summary;
mod track;

use protocol::{Report, Stream};
use sabotage::Sabotage;
use stage::Stage;
use summary::Summary;

/// How long a process has to get ready.
const START: Duration = Duration::from_secs(20);
/// Within this an undisturbed process gets what it is due, and is told of deaths; or something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);
/// After this, two undisturbed processes know each other.
const GRACE: Duration = Duration::from_secs(3);
/// How often a process says something.
const WORD: Duration = Duration::from_millis(50);
/// How often this process looks around.
const LOOK: Duration = Duration::from_millis(20);
/// Subscribers beside the witness; they are numbered from 1.
const SUBSCRIBERS: u8 = 2;

/// Kill, stop, slow down and restart processes on a bus of their own at random, and check that nothing is lost
#[derive(Debug, Args)]
#[command(after_long_help = "\
Three publishers, two subscribers, two servers and two clients, of which one is killed (SIGKILL), stopped and continued,
told to leave and started again, or slowed down every 200 ms or so; and a witness that is left alone. Throughout: every
message whose `publish` has returned Ok arrives once, in order and undamaged at every subscriber that was attached; a
killed publisher's last one may arrive or not. Every call ends once, with its answer or a clear status, and is served
at most once. Every death is told, and nobody's who lives. At the end nothing is left: no process, no file, no
descriptor and no memory. Uses a private bus: --bus, --dir and --name have no effect.

The same seed draws the same sequence of disturbances; what the processes are doing at that moment differs each time.

Fails if there was a violation. Ctrl-C ends it early, with the same checks and the same account.

JSON (the last line of stdout; everything else goes to stderr):
  {\"violations\":0,\"first_violations\":[],\"seed\":N,\"seconds\":S,\"processes\":N,\"kills\":N,\"stops\":N,\"restarts\":N,
   \"slowdowns\":N,\"published\":N,\"received\":N,\"calls\":N,\"answers\":N,\"unavailable\":N,\"not_found\":N,\"late\":N,
   \"exhausted\":N,\"deaths_told\":N,\"slowest_death_word_ms\":T,
   \"starved_seconds\":S}
`published` counts events, broadcasts and direct messages that the bus took; `received` adds up over all that receive.
`starved_seconds`: how long the one that judges had no processor; what was due then waited.
Calls that were under way when their client was killed have no end that is known.")]
pub(super) struct Options {
    /// How long processes are disturbed
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Draw what happens from this number [default: another one each time]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
    /// Have a subscriber tell something other than what arrived: has to be noticed
    #[arg(long, value_name = "HOW")]
    sabotage: Option<Sabotage>,
}

/// One of the processes: it obeys orders on stdin.
#[derive(Debug, Args)]
pub(super) struct ProcessOptions {
    /// The process that it ends with
    #[arg(long)]
    parent: i32,
    /// Its number, which no other process has
    #[arg(long)]
    life: u64,
    #[arg(long)]
    sabotage: Option<Sabotage>,
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
enum Role {
    /// Subscribes to everything, and is not disturbed.
    Witness,
    /// Publishes.
    Publisher,
    /// Subscribes to everything, and has an inbox.
    Subscriber { number: u8 },
    /// Serves calls.
    Server,
    /// Calls.
    Client,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Witness => "witness",
            Self::Publisher => "publisher",
            Self::Subscriber { .. } => "subscriber",
            Self::Server => "server",
            Self::Client => "client",
        }
    }

    fn subscribes(self) -> bool {
        matches!(self, Self::Witness | Self::Subscriber { .. })
    }

    /// What it gets of every publisher.
    fn streams(self) -> Vec<Stream> {
        let mut streams = vec![Stream::Raw, Stream::Typed, Stream::Broadcast];
        if let Self::Subscriber { number } = self {
            streams.push(Stream::Direct(number));
        }
        streams
    }
}

/// Who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cast {
    role: Role,
    number: u8,
    sabotage: Option<Sabotage>,
}

impl Cast {
    fn node_name(&self) -> String {
        match self.role {
            Role::Subscriber { number } => subscriber_name(number),
            role => format!("{}-{}", role.name(), self.number),
        }
    }
}

fn subscriber_name(number: u8) -> String {
    format!("subscriber-{number}")
}

fn cast(sabotage: Option<Sabotage>) -> Vec<Cast> {
    let of = |role, number| Cast { role, number, sabotage: None };
    let mut cast = vec![of(Role::Witness, 1)];
    cast.extend((1..=3).map(|number| of(Role::Publisher, number)));
    for number in 1..=SUBSCRIBERS {
        let sabotage = sabotage.filter(|_| number == 1);
        cast.push(Cast { sabotage, ..of(Role::Subscriber { number }, number) });
    }
    cast.extend((1..=2).map(|number| of(Role::Server, number)));
    cast.extend((1..=2).map(|number| of(Role::Client, number)));
    cast
}

pub(super) fn run(common: &Common, options: &Options) -> Outcome {
    let interrupt = Interrupt::new()?;
    let seed = match options.seed {
        Some(seed) => seed,
        None => u64::from(u16::from_le_bytes(random::id128()?[..2].try_into()?)), // short enough to type
    };
    let say = |text| tell(options.json, text);
    let bus = Bus::private()?;
    let cast = cast(options.sabotage);
    say(format!("{} processes on a private bus; seed {seed}", cast.len()))?;
    let mut stage = Stage::new(&bus, common.verbose, seed);
    stage.open(&cast)?;

    let start = Instant::now();
    let end = start + Duration::from_secs(options.seconds.into());
    say(summary::live_heading())?;
    let mut before = Summary::default();
    'time: for second in 1..=options.seconds {
        let then = start + Duration::from_secs(second.into());
        while Instant::now() < then {
            if interrupt.check().is_err() {
                break 'time; // what was sent still has to arrive
            }
            stage.play(then.min(Instant::now() + LOOK))?;
        }
        let now = stage.summary(start.elapsed());
        say(summary::live_line(second, &before, &now, stage.count()))?;
        before = now;
    }
    let seconds = start.elapsed().min(end - start);
    stage.close()?;

    let summary = stage.summary(seconds);
    match options.json {
        true => print(summary.json())?,
        false => print(format!("\n{summary}"))?,
    }
    summary.verdict()
}

pub(super) fn run_process(common: &Common, options: &ProcessOptions) -> Outcome {
    if !end_with(options.parent)? {
        return Ok(());
    }
    // Ctrl-C reaches all of a terminal's processes: this one leaves when the first one says so.
    signal_hook::flag::register(signal_hook::consts::SIGINT, Default::default())?;
    let outcome = common.join("ringbus-chaos").and_then(|node| {
        let orders = protocol::orders();
        let part = |number, polls| subscriber::Part { number, polls, sabotage: options.sabotage };
        match options.role {
            Role::Witness => subscriber::run(&node, orders, &part(0, true)),
            Role::Subscriber { number } => subscriber::run(&node, orders, &part(number, number % 2 == 1)),
            Role::Publisher => publisher::run(&node, orders, options.life, SUBSCRIBERS),
            Role::Server => server::run(&node, orders),
            Role::Client => client::run(&node, orders, options.life),
        }
    });
    match outcome {
        // The one who prints is the first process.
        Err(Failure::Error(reason)) => protocol::tell(&Report::Failed { reason }),
        other => other,
    }
}
