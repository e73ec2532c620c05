//! Round trips of events: bus, bare ring and cache line in turn.

use clap::Args;

use super::super::Outcome;
use super::figures::{Figures, median_of};
use super::host::{Counted, around};
use super::pair::bounce;
use super::protocol::{BusLine, LineKind, Waiting};
use super::yardstick::Yardstick;
use super::{Bench, Effort, payload};

/// Round trips of an event, beside the bare ring and a cache line
#[derive(Debug, Args)]
#[command(after_long_help = "\
One process publishes and waits for the answer, the other publishes what it gets: a round trip is two messages
one after the other. Both are pinned, each to a CPU of its own. In each repetition the bus, the bare ring and
the cache line are measured in turn, for --seconds each (0.04 by default) after a tenth of it to warm up, by
processes started afresh. The clock is read once a round trip, in all three alike; nothing is subtracted.

What is touched: the payload is copied into the log as a whole, of what is received the first 64 bytes are read
in place. With --loan the payload is lent, and its first 64 bytes are written. With --typed it is the value
{id: u64, stamp: u64, value: f64, label: String}, encoded with named fields and decoded as a whole; the label
has 16 characters, or as many as make up a larger payload. The bare ring does the same with as many bytes; it
waits in several ways in turn (with PAUSE, without, prefetching), and the fastest counts.

What is not 64 bytes, copied in, without idle logs, is also held against that: the bus's own round trip of these,
waiting alike, is measured in turn, too (`own_rtt_p50_ns`, `ratio_own`).")]
pub(super) struct Options {
    /// Bytes of a message, 1 to 67108864
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = payload)]
    payload: usize,
    /// How both sides wait
    #[arg(long, value_enum, default_value = "spin")]
    wait: Waiting,
    /// Write in place instead of copying in
    #[arg(long, conflicts_with = "typed")]
    loan: bool,
    /// Send a value instead of bytes
    #[arg(long)]
    typed: bool,
    /// Open publishers beside the active one, on both sides, that publish nothing
    #[arg(long, value_name = "K", default_value_t = 0)]
    idle_logs: usize,
    #[command(flatten)]
    pub(super) effort: Effort,
}

impl Options {
    pub(super) fn line(&self) -> Outcome<BusLine> {
        let Self { payload, wait, loan, typed, idle_logs, .. } = *self;
        super::check_typed(payload, typed)?;
        Ok(BusLine { payload, wait, loan, typed, idle_logs })
    }
}

pub(super) fn measure(bench: &Bench, kind: BusLine) -> Outcome<Figures> {
    bench.two_cpus()?;
    let BusLine { payload, loan, wait, .. } = kind;
    let plain = BusLine { wait, ..BusLine::PLAIN };
    let [mut subject, mut own, mut raws] = [const { Vec::new() }; 3];
    let mut bare = Yardstick::new();
    for _ in 0..bench.repetitions {
        let mut pair = bench.pair()?;
        subject.push(bounce(&mut pair, LineKind::Bus(kind), bench.seconds)?);
        if kind != plain {
            own.push(bounce(&mut pair, LineKind::Bus(plain), bench.seconds)?);
        }
        bare.bounce(bench, &mut pair, payload, loan)?;
        raws.push(bounce(&mut pair, LineKind::Raw, bench.seconds)?);
    }
    let kinds = [&subject, &own, &raws].map(|parts| around(parts));
    let counted = Counted::among(kinds.into_iter().chain(bare.around()));
    let [subject, own, raws] = [subject, own, raws].map(|parts| counted.of(parts));
    let p50 = median_of(&subject, |times| times.p50 as f64);
    let (bare_p50, bare_p99) = bare.best(&counted);
    let raw_p50 = median_of(&raws, |times| times.p50 as f64);
    let mut figures = Figures::default()
        .time("rtt_p50_ns", p50)
        .time("rtt_p99_ns", median_of(&subject, |times| times.p99 as f64))
        .time("raw_rtt_p50_ns", raw_p50)
        .time("bare_rtt_p50_ns", bare_p50)
        .ratio("ratio_raw", p50 / raw_p50)
        .ratio("ratio_bare", p50 / bare_p50)
        .time("rtt_min_ns", median_of(&subject, |times| times.min as f64))
        .time("rtt_mean_ns", median_of(&subject, |times| times.mean))
        .time("rtt_p99_9_ns", median_of(&subject, |times| times.p99_9 as f64))
        .time("bare_rtt_p99_ns", bare_p99)
        .whole("round_trips", median_of(&subject, |times| times.count as f64));
    if kind != plain {
        let own_p50 = median_of(&own, |times| times.p50 as f64);
        figures = figures.time("own_rtt_p50_ns", own_p50).ratio("ratio_own", p50 / own_p50);
    }
    Ok(bench.about_counted(figures, subject.len(), &bench.pair_placement()))
}
