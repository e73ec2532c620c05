//! What is run, in which order: each repetition of a cell runs every row once, so that all see the same machine.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde::Serialize;

use crate::Options;
use crate::control::{allowed_cpus, run};
use crate::host::{Counted, glance};
use crate::job::{Figure, Job, Kind, Result, Row, Workload};
use crate::peers;

/// One workload with one payload.
#[derive(Serialize)]
pub struct Cell {
    pub workload: Workload,
    pub payload: usize,
    pub lines: Vec<Line>,
}

/// What one row gave in a cell.
#[derive(Serialize)]
pub struct Line {
    pub row: &'static str,
    #[serde(skip)]
    pub kind: Kind,
    /// Of the runs that count.
    #[serde(skip)]
    pub figures: Vec<Figure>,
    /// Runs that do not: the host had the CPUs elsewhere than in most of the cell's, or others computed on them.
    pub left_out: usize,
    /// That were all of them, so they count nonetheless.
    pub elsewhere: bool,
    pub error: Option<String>,
}

impl Line {
    /// Leaves out the other runs, unless those are all.
    fn count_only(&mut self, counts: &[bool]) {
        let runs = self.figures.len();
        let both = self.figures.iter().zip(counts);
        let kept: Vec<_> = both.filter_map(|(figure, counts)| counts.then_some(*figure)).collect();
        self.elsewhere = kept.is_empty() && runs > 0;
        if !self.elsewhere {
            self.left_out = runs - kept.len();
            self.figures = kept;
        }
    }

    pub fn median(&self) -> Option<f64> {
        median(self.figures.iter().map(|figure| figure.value).collect())
    }

    pub fn p99(&self) -> Option<f64> {
        median(self.figures.iter().filter_map(|figure| figure.p99).collect())
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[half]),
        _ => Some((values[half - 1] + values[half]) / 2.0),
    }
}

impl Cell {
    /// What a line is compared with: ringbus used in the same way, and for all calls the typed one.
    pub fn baseline(&self, line: &Line) -> Option<f64> {
        let name = match (self.workload, line.kind) {
            (Workload::Call, _) => "ringbus typed",
            (_, Kind::Lent) => "ringbus lent",
            _ => "ringbus",
        };
        self.lines.iter().find(|line| line.row == name)?.median()
    }

    /// How many times as fast as this line its baseline is.
    pub fn ratio(&self, line: &Line) -> Option<f64> {
        let (own, base) = (line.median()?, self.baseline(line)?);
        Some(if self.workload.is_time() { own / base } else { base / own })
    }
}

/// Runs all that the options ask for.
pub fn run_all(options: &Options) -> Result<Vec<Cell>> {
    let cpus = match *allowed_cpus()? {
        [first, second, ..] => [first, second],
        _ => return Err("two CPUs are needed, one for each process; this one may use a single one".into()),
    };
    let mut cells = Vec::new();
    for workload in Workload::ALL {
        if !options.workload.is_empty() && !options.workload.contains(&workload) {
            continue;
        }
        for &payload in workload.payloads() {
            if options.payload.is_empty() || options.payload.contains(&payload) {
                cells.push(run_cell(options, workload, payload, cpus)?);
            }
        }
    }
    if cells.iter().all(|cell| cell.lines.is_empty()) {
        return Err("no row takes part in what was asked for; see --list".into());
    }
    Ok(cells)
}

fn run_cell(options: &Options, workload: Workload, payload: usize, cpus: [usize; 2]) -> Result<Cell> {
    let wanted = |row: &&Row| {
        let named = |name: &String| row.name.starts_with(name.as_str());
        let asked =
            options.row.is_empty() || row.name.starts_with("ringbus") || options.row.iter().any(named);
        asked && (row.takes)(workload, payload)
    };
    let rows = peers::ALL.iter().flat_map(|peer| peer.rows()).filter(wanted);
    let mut lines: Vec<Line> = rows
        .map(|row| Line {
            row: row.name,
            kind: row.kind,
            figures: Vec::new(),
            left_out: 0,
            elsewhere: false,
            error: None,
        })
        .collect();
    let mut hosts = vec![Vec::new(); lines.len()];
    for repetition in 1..=options.repetitions() {
        for (line, hosts) in lines.iter_mut().zip(&mut hosts).filter(|(line, _)| line.error.is_none()) {
            progress(&format!("{workload:?} {payload} B, {repetition}: {}", line.row));
            let before = glance(cpus)?;
            match run_once(options, workload, payload, cpus, line) {
                Ok(figure) => {
                    line.figures.push(figure);
                    hosts.push([before, glance(cpus)?]);
                }
                Err(error) => line.error = Some(error.to_string()),
            }
        }
    }
    progress("");
    let counted = Counted::among(&hosts);
    for (line, hosts) in lines.iter_mut().zip(&hosts) {
        line.count_only(&counted.of(hosts));
    }
    Ok(Cell { workload, payload, lines })
}

fn run_once(
    options: &Options,
    workload: Workload,
    payload: usize,
    cpus: [usize; 2],
    line: &Line,
) -> Result<Figure> {
    let dir = tempfile::tempdir()?;
    let job = Job {
        row: line.row.into(),
        workload,
        payload,
        lent: line.kind == Kind::Lent,
        typed: line.kind == Kind::Typed,
        time: options.time(),
        dir: dir.path().into(),
        cpus,
    };
    let timeout = options.time() * 20 + Duration::from_secs(10);
    let outcome = run(&job, timeout);
    peers::of_row(line.row)?.clean(&job);
    Ok(serde_json::from_str(&outcome?)?)
}

/// What is being done, on a terminal.
fn progress(what: &str) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K{what}");
        let _ = stderr.flush();
    }
}
