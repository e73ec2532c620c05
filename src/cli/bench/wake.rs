//! Round trips of two processes that sleep: what the bus adds to what the kernel takes.

use super::super::Outcome;
use super::figures::{Figures, median_of};
use super::host::{Counted, around};
use super::pair::bounce;
use super::protocol::{BusLine, LineKind, Waiting};
use super::{Bench, Effort};

/// Round trips between subscribers that sleep, beside bare eventfds
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
As `latency` with 64 bytes, but both sides wait with `Wait::Park`: each message finds its reader asleep, and
wakes it. Beside it, two processes that wake each other by eventfds and do nothing else, waiting once with
ppoll(2) and read(2), as a port does, and once in a blocking read(2): `eventfd_rtt_p50_ns` is the faster of both.
What neighbours have disturbed counts here: both sides sleep, and wait for the host.")]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) effort: Effort,
}

pub(super) fn measure(bench: &Bench) -> Outcome<Figures> {
    bench.two_cpus()?;
    let parked = BusLine { wait: Waiting::Park, ..BusLine::PLAIN };
    let [mut subject, mut polled, mut blocking] = [const { Vec::new() }; 3];
    for _ in 0..bench.repetitions {
        let mut pair = bench.pair()?;
        subject.push(bounce(&mut pair, LineKind::Bus(parked), bench.seconds)?);
        polled.push(bounce(&mut pair, LineKind::Bells { polled: true }, bench.seconds)?);
        blocking.push(bounce(&mut pair, LineKind::Bells { polled: false }, bench.seconds)?);
    }
    let kinds = [&subject, &polled, &blocking].map(|parts| around(parts));
    let counted = Counted::among(kinds).though_disturbed();
    let [subject, polled, blocking] = [subject, polled, blocking].map(|parts| counted.of(parts));
    let p50 = median_of(&subject, |times| times.p50 as f64);
    let polled = median_of(&polled, |times| times.p50 as f64);
    let blocking = median_of(&blocking, |times| times.p50 as f64);
    let figures = Figures::default()
        .time("rtt_p50_ns", p50)
        .time("eventfd_rtt_p50_ns", polled.min(blocking))
        .ratio("ratio", p50 / polled.min(blocking))
        .time("rtt_p99_ns", median_of(&subject, |times| times.p99 as f64))
        .time("eventfd_polled_rtt_p50_ns", polled)
        .time("eventfd_blocking_rtt_p50_ns", blocking);
    Ok(bench.about_counted(figures, subject.len(), &bench.pair_placement()))
}
