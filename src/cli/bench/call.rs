//! Calls and their answers, beside round trips over the bare ring.

use clap::Args;

use super::super::Outcome;
use super::calls::window;
use super::figures::{Figures, median_of};
use super::host::{Counted, around};
use super::pair::bounce;
use super::protocol::{CallTask, LineKind, Measured, Task};
use super::yardstick::Yardstick;
use super::{Bench, Effort, payload};

/// Calls and their answers, beside round trips over the bare ring
#[derive(Debug, Args)]
#[command(after_long_help = "\
One process calls a method that returns its argument, the other serves it; both spin, each on a CPU of its own.
The argument is the value that `bench latency --help` describes, of about --payload bytes. One call after the
other is timed, then calls are counted with 64 in flight (`calls_per_s`; fewer if they have more than 256 KiB).
Several clients are in one process and call in turn. In each repetition calls, the bare ring and the cache line are
measured in turn, for --seconds each (0.04 by default), by processes started afresh; the bare ring takes as many
bytes to and fro.")]
pub(super) struct Options {
    /// Bytes of an argument and of its answer, 64 to 67108864
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = payload)]
    pub(super) payload: usize,
    /// Clients that call in turn
    #[arg(long, value_name = "C", default_value = "1", value_parser = super::few)]
    pub(super) clients: usize,
    #[command(flatten)]
    pub(super) effort: Effort,
}

pub(super) fn measure(bench: &Bench, payload: usize, clients: usize) -> Outcome<Figures> {
    bench.two_cpus()?;
    super::check_typed(payload, true)?;
    let seconds = bench.seconds;
    let (mut calls, mut bare, mut raws) = (Vec::new(), Yardstick::new(), Vec::new());
    for _ in 0..bench.repetitions {
        let mut pair = bench.pair()?;
        let task = Task::Call(CallTask { payload, clients, seconds });
        calls.push(pair.play(task, &[Task::Serve], seconds)?.and_then(|(measured, _)| match measured {
            Measured::Calls { round_trips, per_second } => Ok((round_trips, per_second)),
            other => Err(format!("calls were to be measured, not {other:?}").into()),
        })?);
        bare.bounce(bench, &mut pair, payload, false)?;
        raws.push(bounce(&mut pair, LineKind::Raw, seconds)?);
    }
    let counted = Counted::among([around(&calls), around(&raws)].into_iter().chain(bare.around()));
    let (calls, raws) = (counted.of(calls), counted.of(raws));
    let p50 = median_of(&calls, |(times, _)| times.p50 as f64);
    let (bare_p50, _) = bare.best(&counted);
    let figures = Figures::default()
        .time("rtt_p50_ns", p50)
        .time("rtt_p99_ns", median_of(&calls, |(times, _)| times.p99 as f64))
        .time("raw_rtt_p50_ns", median_of(&raws, |times| times.p50 as f64))
        .time("bare_rtt_p50_ns", bare_p50)
        .ratio("ratio_bare", p50 / bare_p50)
        .whole("calls_per_s", median_of(&calls, |(_, rate)| *rate))
        .time("rtt_min_ns", median_of(&calls, |(times, _)| times.min as f64))
        .time("rtt_mean_ns", median_of(&calls, |(times, _)| times.mean))
        .time("rtt_p99_9_ns", median_of(&calls, |(times, _)| times.p99_9 as f64))
        .whole("in_flight", window(payload) as f64);
    Ok(bench.about_counted(figures, calls.len(), &bench.pair_placement()))
}
