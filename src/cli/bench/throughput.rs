//! Events one way, as fast as they go: bus, bare ring and a copy within one process in turn.

use clap::Args;

use super::super::Outcome;
use super::figures::{Figures, median_of};
use super::host::{Counted, around};
use super::pair::flow;
use super::protocol::{BusFlow, FlowKind, Measured, Task, Waiting};
use super::yardstick::Yardstick;
use super::{Bench, Effort, payload};

/// Events one way as fast as they go, beside the bare ring and memcpy
#[derive(Debug, Args)]
#[command(after_long_help = "\
One process publishes as fast as there is room, the other receives and reads every byte in place (it adds up all
words). Both are pinned, each to a CPU of its own, and spin. In each repetition the bus, the bare ring and a copy
within one process are measured in turn, for --seconds each (0.04 by default) after a tenth of it to warm up, by
processes started afresh.

Payloads are copied into the log as a whole, also into the bare ring's. With --loan they are lent, and their
first 64 bytes are written. With --typed they are the values that `bench latency --help` describes.
`memcpy_bytes_per_s` is what one process does that copies payloads into a ring of private memory as large as the
log, and reads every byte there. Several publishers are in one process and publish in turn; of these, and beside idle
logs, what one alone does is measured in turn, too (`own_messages_per_s`, `ratio_own`).

`lost` is what was sent and not received, by count and by the sum of all numbers. Messages are numbered; if what
arrives are others than those that were sent, that is an error.")]
pub(super) struct Options {
    /// Bytes of a message, 1 to 67108864
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = payload)]
    payload: usize,
    /// Write in place instead of copying in
    #[arg(long, conflicts_with = "typed")]
    loan: bool,
    /// Send values instead of bytes
    #[arg(long)]
    typed: bool,
    /// Publishers that publish in turn, to one subscriber
    #[arg(long, value_name = "P", default_value = "1", value_parser = super::few)]
    publishers: usize,
    /// Open publishers beside the active ones that publish nothing
    #[arg(long, value_name = "K", default_value_t = 0)]
    idle_logs: usize,
    #[command(flatten)]
    pub(super) effort: Effort,
}

impl Options {
    pub(super) fn flow(&self) -> Outcome<BusFlow> {
        let Self { payload, loan, typed, publishers, idle_logs, .. } = *self;
        super::check_typed(payload, typed)?;
        Ok(BusFlow { payload, loan, typed, publishers, idle_logs, wait: Waiting::Spin, subscribers: 1 })
    }
}

pub(super) fn measure(bench: &Bench, kind: BusFlow) -> Outcome<Figures> {
    bench.two_cpus()?;
    let BusFlow { payload, loan, .. } = kind;
    let alone = BusFlow { publishers: 1, idle_logs: 0, ..kind };
    let [mut subject, mut own] = [const { Vec::new() }; 2];
    let (mut bare, mut copies) = (Yardstick::new(), Vec::new());
    for _ in 0..bench.repetitions {
        let mut pair = bench.pair()?;
        subject.push(flow(&mut pair, FlowKind::Bus(kind), &[FlowKind::Bus(kind)], bench.seconds)?);
        if kind != alone {
            own.push(flow(&mut pair, FlowKind::Bus(alone), &[FlowKind::Bus(alone)], bench.seconds)?);
        }
        bare.flow(bench, &mut pair, payload, loan, 1)?;
        let copy = Task::Copy { payload, seconds: bench.seconds };
        copies.push(pair.play(copy, &[], bench.seconds)?.and_then(|(measured, _)| match measured {
            Measured::BytesPerSecond(rate) => Ok(rate),
            other => Err(format!("a copy was to be measured, not {other:?}").into()),
        })?);
    }
    let lost = subject.iter().map(|part| part.measured.lost as f64).sum();
    let sent = subject.iter().map(|part| part.measured.sent as f64).sum();
    let kinds = [around(&subject), around(&own), around(&copies)];
    let counted = Counted::among(kinds.into_iter().chain(bare.around()));
    let (subject, own, copies) = (counted.of(subject), counted.of(own), counted.of(copies));
    let rate = median_of(&subject, |flow| flow.sent_per_s);
    let bare_rate = bare.best(&counted);
    let mut figures = Figures::default()
        .whole("messages_per_s", rate)
        .whole("bytes_per_s", rate * payload as f64)
        .whole("lost", lost)
        .whole("bare_messages_per_s", bare_rate)
        .whole("memcpy_bytes_per_s", median_of(&copies, |rate| *rate))
        .ratio("ratio_bare", rate / bare_rate)
        .whole("messages", sent);
    if kind != alone {
        let own_rate = median_of(&own, |flow| flow.sent_per_s);
        figures = figures.whole("own_messages_per_s", own_rate).ratio("ratio_own", rate / own_rate);
    }
    Ok(bench.about_counted(figures, subject.len(), &bench.pair_placement()))
}
