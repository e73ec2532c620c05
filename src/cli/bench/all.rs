//! Everything in one run: a table with the bars that the project has set itself, JSON, charts.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::super::{Outcome, note, print, table};
use super::chart::{self, Group, Panel};
use super::figures::{Figures, readable};
use super::protocol::{BusFlow, BusLine, Waiting};
use super::scale::Scale;
use super::{Bench, Effort, call, codec, fanout, idle, latency, scale, throughput, wake};

/// Everything that can be measured, in one run: a table, and the bars that it is held against
#[derive(Debug, Args)]
#[command(after_long_help = "\
Takes three minutes or so. Each row is one of the other measurements; its ratio is to the yardstick beside it. The
bars are what this project wants these and other figures of the same measurements to be. One that is missed does
not fail the command: hosts differ, and so do runs on a busy one. What is being measured is told on stderr.

JSON: an object with the figures of each measurement under its name, and `bars`, a list of
  {\"what\":W,\"measured\":M,\"at_least\":L,\"met\":B}          or `at_most`")]
pub(super) struct Options {
    /// Nodes of the bus for `scale`
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..=1024))]
    nodes: u32,
    /// Draw charts into this file, too
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    pub(super) effort: Effort,
}

pub(super) fn run(bench: &Bench, options: &Options) -> Outcome {
    bench.two_cpus()?;
    if let Some(path) = &options.svg {
        // Before minutes of measuring, not after them.
        std::fs::write(path, "").map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    let all = measure(bench, options.nodes as usize)?;
    if let Some(path) = &options.svg {
        chart::draw(path, &panels(&all))?;
    }
    let bars = bars(&all);
    if options.effort.json {
        return print(serde_json::to_string(&Json { all: &all, bars: &bars })?);
    }
    print(measured_table(&all))?;
    print(bars_table(&bars).trim_end())
}

/// Each measurement's name, and what it gave.
struct All(Vec<(&'static str, Figures)>);

impl All {
    /// A figure of a measurement; not a number if there is none, which meets no bar.
    fn get(&self, name: &str, figure: &str) -> f64 {
        let figures = self.0.iter().find(|(known, _)| *known == name);
        figures.and_then(|(_, figures)| figures.number(figure)).unwrap_or(f64::NAN)
    }
}

const LINE: BusLine = BusLine::PLAIN;
const FLOW: BusFlow = BusFlow::PLAIN;
const LATENCIES: [(&str, BusLine); 6] = [
    ("latency_64", LINE),
    ("latency_64_typed", BusLine { typed: true, ..LINE }),
    ("latency_64_adaptive", BusLine { wait: Waiting::Adaptive, ..LINE }),
    ("latency_64_idle_logs_63", BusLine { idle_logs: 63, ..LINE }),
    ("latency_64k", BusLine { payload: 64 << 10, ..LINE }),
    ("latency_64k_loan", BusLine { payload: 64 << 10, loan: true, ..LINE }),
];
const THROUGHPUTS: [(&str, BusFlow); 9] = [
    ("throughput_64", FLOW),
    ("throughput_64_typed", BusFlow { typed: true, ..FLOW }),
    ("throughput_64_publishers_3", BusFlow { publishers: 3, ..FLOW }),
    ("throughput_64_idle_logs_63", BusFlow { idle_logs: 63, ..FLOW }),
    ("throughput_1k", BusFlow { payload: 1 << 10, ..FLOW }),
    ("throughput_64k", BusFlow { payload: 64 << 10, ..FLOW }),
    ("throughput_64k_loan", BusFlow { payload: 64 << 10, loan: true, ..FLOW }),
    ("throughput_1m", BusFlow { payload: 1 << 20, ..FLOW }),
    ("throughput_1m_loan", BusFlow { payload: 1 << 20, loan: true, ..FLOW }),
];

fn measure(bench: &Bench, nodes: usize) -> Outcome<All> {
    let mut all = All(Vec::new());
    let mut add = |name, measure: &dyn Fn() -> Outcome<Figures>| -> Outcome {
        note(format!("measuring {name}"));
        let figures = measure()?;
        let left_out = figures.number("repetitions_left_out").unwrap_or_default();
        if left_out > f64::from(bench.repetitions) / 2.0 {
            note(format!(
                "  {left_out} of {} repetitions do not count: the host moves its CPUs, or others compute on them",
                bench.repetitions
            ));
        }
        all.0.push((name, figures));
        Ok(())
    };
    for (name, kind) in LATENCIES {
        add(name, &|| latency::measure(bench, kind))?;
    }
    add("call_64", &|| call::measure(bench, 64, 1))?;
    for (name, kind) in THROUGHPUTS {
        add(name, &|| throughput::measure(bench, kind))?;
    }
    add("fanout_64_to_4", &|| fanout::measure(bench, 64, 4, false))?;
    add("wake", &|| wake::measure(bench))?;
    add("codec", &|| codec::measure(bench))?;
    // Heartbeats are a second apart.
    add("idle", &|| idle::measure_for(bench, bench.seconds.max(idle::SECONDS)))?;
    let scaled = Scale { nodes, messages: 1000, payload: 64 };
    add("scale", &|| scale::measure(bench, scaled, false))?;
    Ok(all)
}

/// What one figure is held against.
#[derive(Serialize)]
struct Bar {
    what: &'static str,
    measured: f64,
    #[serde(flatten)]
    limit: Limit,
    met: bool,
}

impl Bar {
    /// What is shown is what is judged.
    fn of(what: &'static str, measured: f64, limit: Limit) -> Self {
        let measured = (measured * 10_000.0).round() / 10_000.0;
        let met = match limit {
            AtMost(limit) => measured <= limit,
            AtLeast(limit) => measured >= limit,
        };
        Self { what, measured, limit, met }
    }
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}
use Limit::{AtLeast, AtMost};

fn bars(all: &All) -> Vec<Bar> {
    let megabytes = |name, figure| all.get(name, figure) / 1e6;
    let lost = THROUGHPUTS.map(|(name, _)| all.get(name, "lost")).iter().sum::<f64>()
        + all.get("fanout_64_to_4", "lost")
        + all.get("scale", "lost");
    let bars = [
        ("event of 64 B: round trip / bare ring", all.get("latency_64", "ratio_bare"), AtMost(1.25)),
        ("the same, typed / bare ring", all.get("latency_64_typed", "ratio_bare"), AtMost(1.6)),
        (
            "the same beside 63 idle logs / alone",
            all.get("latency_64_idle_logs_63", "ratio_own"),
            AtMost(1.3),
        ),
        ("64 KiB lent: round trip / 64 B", all.get("latency_64k_loan", "ratio_own"), AtMost(1.5)),
        ("call: round trip / bare ring", all.get("call_64", "ratio_bare"), AtMost(2.0)),
        ("64 B: messages a second / bare ring", all.get("throughput_64", "ratio_bare"), AtLeast(0.7)),
        ("the same, typed / bare ring", all.get("throughput_64_typed", "ratio_bare"), AtLeast(0.4)),
        ("of 3 publishers / of one", all.get("throughput_64_publishers_3", "ratio_own"), AtLeast(0.8)),
        ("beside 63 idle logs / alone", all.get("throughput_64_idle_logs_63", "ratio_own"), AtLeast(0.8)),
        ("1 KiB: messages a second / bare ring", all.get("throughput_1k", "ratio_bare"), AtLeast(0.8)),
        (
            "1 MiB copied in: messages a second / bare ring",
            all.get("throughput_1m", "ratio_bare"),
            AtLeast(0.8),
        ),
        ("parked: round trip / eventfd", all.get("wake", "ratio"), AtMost(1.15)),
        ("frame of 64 B: encode / rmp-serde", all.get("codec", "ratio_encode"), AtMost(0.25)),
        ("frame of 64 B: decode / rmp-serde", all.get("codec", "ratio_decode"), AtMost(0.25)),
        ("JSON / typed frame, there and back", all.get("codec", "ratio_json"), AtLeast(10.0)),
        ("idle: % of a CPU", all.get("idle", "cpu_percent"), AtMost(0.05)),
        ("idle: MB over the bare process", megabytes("idle", "added_rss_bytes"), AtMost(3.0)),
        ("many nodes: all joined, ms", all.get("scale", "all_joined_ms"), AtMost(10_000.0)),
        ("many nodes: joining, p50, ms", all.get("scale", "join_p50_ms"), AtMost(50.0)),
        ("many nodes: MB a node", megabytes("scale", "rss_per_node_bytes"), AtMost(4.0)),
        ("messages lost, anywhere", lost, AtMost(0.0)),
    ];
    bars.map(|(what, measured, limit)| Bar::of(what, measured, limit)).into()
}

struct Json<'a> {
    all: &'a All,
    bars: &'a [Bar],
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(None)?;
        for (name, figures) in &self.all.0 {
            map.serialize_entry(name, figures)?;
        }
        map.serialize_entry("bars", self.bars)?;
        map.end()
    }
}

/// The figures that a row shows: what was measured, its yardstick, their ratio.
const SHOWN: [(&str, [&str; 3]); 6] = [
    ("latency", ["rtt_p50_ns", "bare_rtt_p50_ns", "ratio_bare"]),
    ("call", ["rtt_p50_ns", "bare_rtt_p50_ns", "ratio_bare"]),
    ("throughput", ["messages_per_s", "bare_messages_per_s", "ratio_bare"]),
    ("fanout", ["deliveries_per_s", "bare_deliveries_per_s", "ratio_bare"]),
    ("wake", ["rtt_p50_ns", "eventfd_rtt_p50_ns", "ratio"]),
    ("codec", ["typed_encode_ns", "rmp_serde_encode_ns", "ratio_json"]),
];

fn shown(name: &str) -> Option<&'static [&'static str; 3]> {
    SHOWN.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, figures)| figures)
}

fn measured_table(all: &All) -> String {
    let mut rows =
        vec![["measurement", "figure", "measured", "yardstick", "ratio"].map(String::from).to_vec()];
    for (name, figures) in &all.0 {
        match shown(name) {
            Some(figures_shown) if *name != "codec" => {
                let [measured, yardstick, ratio] =
                    figures_shown.map(|figure| readable(all.get(name, figure)));
                rows.push(vec![(*name).into(), figures_shown[0].into(), measured, yardstick, ratio]);
            }
            // No one yardstick: all that was measured.
            _ => {
                for [figure, value] in figures.rows() {
                    if figures.number(&figure).is_some() && !["repetitions", "seconds"].contains(&&*figure) {
                        rows.push(vec![(*name).into(), figure, value, String::new(), String::new()]);
                    }
                }
            }
        }
    }
    table(&rows, &[false, false, true, true, true])
}

fn bars_table(bars: &[Bar]) -> String {
    let mut rows = vec![["held against", "measured", "bar", ""].map(String::from).to_vec()];
    for bar in bars {
        let limit = match bar.limit {
            AtMost(limit) => format!("≤ {}", readable(limit)),
            AtLeast(limit) => format!("≥ {}", readable(limit)),
        };
        let met = if bar.met { "met" } else { "missed" };
        rows.push(vec![bar.what.into(), readable(bar.measured), limit, met.into()]);
    }
    table(&rows, &[false, true, true, false])
}

fn panels(all: &All) -> Vec<Panel> {
    let groups = |prefixes: &[&str]| {
        let wanted = |name: &&str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let names = all.0.iter().map(|(name, _)| *name).filter(wanted);
        let group = |name: &str| {
            let [measured, yardstick, _] = shown(name)?;
            let yard = if name == "wake" { "eventfd" } else { "bare ring" };
            let bars = [("ringbus", all.get(name, measured)), (yard, all.get(name, yardstick))];
            let drawn = |(_, value): &(_, f64)| value.is_finite() && *value > 0.0;
            Some(Group { name: name.replace('_', " "), bars: bars.into_iter().filter(drawn).collect() })
        };
        names.filter_map(group).collect()
    };
    vec![
        Panel { title: "Round trips, p50", unit: "ns", groups: groups(&["latency", "call", "wake"]) },
        Panel { title: "One way", unit: "messages a second", groups: groups(&["throughput", "fanout"]) },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_is_shown_as_its_bar_meets_it() {
        for (measured, met) in [(0.05, true), (0.050_04, true), (0.0503, false)] {
            let bar = Bar::of("a figure", measured, AtMost(0.05));
            assert_eq!((bar.met, bar.measured <= 0.05), (met, met), "{measured}");
        }
        assert!(Bar::of("another", 0.799_97, AtLeast(0.8)).met);
    }
}
