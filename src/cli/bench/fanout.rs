//! One publisher, many subscribers: each gets everything.

use clap::Args;

use super::super::Outcome;
use super::figures::{Figures, median_of};
use super::host::{Counted, around};
use super::pair::{Pair, flow};
use super::protocol::{BusFlow, FlowKind, Waiting};
use super::yardstick::Yardstick;
use super::{Bench, Effort, payload};

/// One publisher to many subscribers, all of which get everything, beside the bare ring
#[derive(Debug, Args)]
#[command(after_long_help = "\
As `throughput`, with one publisher and several subscribers on the same topic. The publisher has a CPU of its own.
The subscribers share the others: a process on each CPU has its share of them, and receives from one after the
other; with two CPUs, that is one process with all of them, so that the cost of the fan-out is measured and not
how the kernel shares out a CPU. With --separate each subscriber is a process of its own, and waits adaptively
where several have to share a CPU. `placement` says where they ran. The bare ring beside it has as many
readers, all in one process.")]
pub(super) struct Options {
    /// Bytes of a message, 1 to 67108864
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = payload)]
    pub(super) payload: usize,
    /// How many subscribers
    #[arg(long, value_name = "S", default_value = "4", value_parser = super::few)]
    pub(super) subscribers: usize,
    /// A process for each subscriber
    #[arg(long)]
    pub(super) separate: bool,
    #[command(flatten)]
    pub(super) effort: Effort,
}

pub(super) fn measure(bench: &Bench, payload: usize, subscribers: usize, separate: bool) -> Outcome<Figures> {
    bench.two_cpus()?;
    let others = bench.cpus.len() - 1;
    let processes = if separate { subscribers } else { subscribers.min(others) };
    let waits = if processes > others { Waiting::Adaptive } else { Waiting::Spin };
    let kind = |subscribers, wait| FlowKind::Bus(BusFlow { payload, wait, subscribers, ..BusFlow::PLAIN });
    let share = |process| subscribers / processes + usize::from(process < subscribers % processes);
    let receivers: Vec<_> = (0..processes).map(|process| kind(share(process), waits)).collect();
    let (mut subject, mut bare) = (Vec::new(), Yardstick::new());
    for _ in 0..bench.repetitions {
        let mut group = Pair::start(bench, processes)?;
        subject.push(flow(&mut group, kind(subscribers, Waiting::Spin), &receivers, bench.seconds)?);
        drop(group);
        let mut pair = bench.pair()?;
        bare.flow(bench, &mut pair, payload, false, subscribers)?;
    }
    let lost = subject.iter().map(|part| part.measured.lost as f64).sum();
    let counted = Counted::among([around(&subject)].into_iter().chain(bare.around()));
    let subject = counted.of(subject);
    let deliveries = median_of(&subject, |flow| flow.received_per_s);
    let bare_deliveries = bare.best(&counted);
    let figures = Figures::default()
        .whole("published_per_s", median_of(&subject, |flow| flow.sent_per_s))
        .whole("deliveries_per_s", deliveries)
        .whole("lost", lost)
        .whole("bare_deliveries_per_s", bare_deliveries)
        .ratio("ratio_bare", deliveries / bare_deliveries);
    let placement = format!(
        "publisher on CPU {}; {subscribers} subscribers in {processes} process{} on {}",
        bench.cpus[0],
        if processes == 1 { "" } else { "es" },
        cpu_names(&bench.cpus[1..=processes.min(others)])
    );
    Ok(bench.about_counted(figures, subject.len(), &placement))
}

fn cpu_names(cpus: &[usize]) -> String {
    let names: Vec<_> = cpus.iter().map(usize::to_string).collect();
    format!("CPU{} {}", if cpus.len() == 1 { "" } else { "s" }, names.join(", "))
}
