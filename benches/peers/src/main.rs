//! ringbus beside other ways between two processes of one host: the same payloads, pinning and reading, in one run.
//!
//! ```text
//!   main ── arguments ── plan ── which rows, in turns ──▶ report ── table, JSON     chart ── SVG
//!                         │
//!                         ├─ host ── in which of them it left both CPUs alone, where it has them most
//!                         └─ control ── one run: two processes of this program, each on a CPU of its own
//!                               ├── first:  peers/*.rs, with measure's clock
//!                               └── second: peers/*.rs, with measure's sums
//! ```
#![deny(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::job::{Job, Result, Workload};

mod chart;
mod control;
mod host;
mod job;
mod measure;
mod peers;
mod plan;
mod report;

/// Measures ringbus beside its peers: each row in two pinned processes, in turns, medians
#[derive(Debug, Parser)]
#[command(name = "peers", version)]
pub struct Options {
    /// Runs of each row, in turns; the table has the medians of those that count
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Milliseconds that each run measures, after a quarter of that to warm up
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u64).range(1..))]
    millis: u64,
    /// Only these workloads [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    workload: Vec<Workload>,
    /// Only these payloads, in bytes [default: all]
    #[arg(long, value_delimiter = ',')]
    payload: Vec<usize>,
    /// Only rows whose names begin with one of these, and ringbus [default: all]
    #[arg(long, value_delimiter = ',')]
    row: Vec<String>,
    /// Each row once, for a moment: whether all works, and no figure to rely on
    #[arg(long)]
    quick: bool,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
    /// Write the charts to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Say which rows there are, and leave
    #[arg(long)]
    list: bool,
}

impl Options {
    fn repetitions(&self) -> u32 {
        if self.quick { 1 } else { self.repetitions }
    }

    fn time(&self) -> Duration {
        Duration::from_millis(if self.quick { 10 } else { self.millis })
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, role, job] = args.as_slice() {
        match role.as_str() {
            control::FIRST => return report_end(as_first(job)),
            control::SECOND => return report_end(as_second(job).map(|()| "done".into())),
            _ => {}
        }
    }
    let options = Options::parse();
    match measure_all(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether every row has a figure.
fn measure_all(options: &Options) -> Result<bool> {
    if options.list {
        for row in peers::ALL.iter().flat_map(|peer| peer.rows()) {
            println!("{}", row.name);
        }
        return Ok(true);
    }
    let cells = plan::run_all(options)?;
    if options.json {
        println!("{}", serde_json::to_string(&report::json(options, &cells))?);
    } else {
        print!("{}", report::table(options, &cells));
    }
    if let Some(path) = &options.svg {
        chart::draw(&cells, path)?;
    }
    Ok(cells.iter().flat_map(|cell| &cell.lines).all(|line| line.error.is_none()))
}

fn as_first(job: &str) -> Result<String> {
    let job: Job = serde_json::from_str(job)?;
    control::settle(job.cpus[0])?;
    let mut second = control::Second::start(&job)?;
    let figure = peers::of_row(&job.row)?.first(&job, &mut second)?;
    second.finish();
    Ok(serde_json::to_string(&figure)?)
}

fn as_second(job: &str) -> Result<()> {
    let job: Job = serde_json::from_str(job)?;
    control::settle(job.cpus[1])?;
    peers::of_row(&job.row)?.second(&job, &mut control::First::new())
}

fn report_end(outcome: Result<String>) -> ExitCode {
    let code = if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(1) };
    control::say(outcome);
    code
}
