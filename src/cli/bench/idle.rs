//! What a process costs that has joined a bus and sleeps, beside one that does nothing.

use std::fs;
use std::time::{Duration, Instant};

use nix::libc;

use super::super::Outcome;
use super::child::Side;
use super::figures::{Figures, median_of};
use super::protocol::{Measured, Order, Task, hear};
use super::{Bench, Effort};

pub(super) const SECONDS: f64 = 0.35;

/// CPU time and memory of a process that has joined a bus and whose subscriber sleeps
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Two processes at a time: one that does nothing, and one that has joined a bus alone and waits in `recv` of a
subscriber as it is by default. `cpu_percent` is the latter's share of one CPU, of all its threads, over all
repetitions; `rss_bytes` and `bare_rss_bytes` are their resident memory, with the program's own pages.
--seconds is the time of a repetition, by default 0.35.")]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) effort: Effort,
}

/// Does nothing, on a bus or not, until it is killed.
pub(super) fn rest(subscribed: bool, side: Side<'_>) -> Outcome<Measured> {
    if subscribed {
        let node = side.join()?;
        let mut quiet = node.subscriber::<u64>("idle/*")?;
        side.ready(None)?;
        return Err(format!("expected no message: {:?}", quiet.recv()).into());
    }
    side.ready(None)?;
    match hear()? {
        None | Some(Order::End) => Ok(Measured::Nothing),
        other => Err(format!("expected the end, not {other:?}").into()),
    }
}

struct Window {
    cpu_seconds: f64,
    seconds: f64,
    rss: u64,
    bare_rss: u64,
}

pub(super) fn measure(bench: &Bench) -> Outcome<Figures> {
    measure_for(bench, bench.seconds)
}

/// The same with repetitions of this length.
pub(super) fn measure_for(bench: &Bench, seconds: f64) -> Outcome<Figures> {
    let mut crew = bench.crew();
    let bare = crew.start("bare", None)?;
    let idle = crew.start("idle", None)?;
    for (at, subscribed) in [(bare, false), (idle, true)] {
        crew.prepare(at, Task::Rest { subscribed })?;
        crew.order(at, &Order::Go(None))?;
    }
    let (bare, idle) = (crew.pid(bare), crew.pid(idle));
    // Joining is not idling.
    bench.interrupt.sleep_until(Instant::now() + Duration::from_millis(300))?;
    let windows = (0..bench.repetitions).map(|_| {
        let (start, before) = (Instant::now(), cpu_seconds(idle)?);
        bench.interrupt.sleep_until(start + Duration::from_secs_f64(seconds))?;
        let cpu_seconds = cpu_seconds(idle)? - before;
        let seconds = start.elapsed().as_secs_f64();
        Ok(Window { cpu_seconds, seconds, rss: rss(idle)?, bare_rss: rss(bare)? })
    });
    let windows = windows.collect::<Outcome<Vec<_>>>()?;
    let total = |figure: fn(&Window) -> f64| windows.iter().map(figure).sum::<f64>();
    let cpu = 100.0 * total(|window| window.cpu_seconds) / total(|window| window.seconds);
    let rss = median_of(&windows, |window| window.rss as f64);
    let bare_rss = median_of(&windows, |window| window.bare_rss as f64);
    let figures = Figures::default()
        .ratio("cpu_percent", cpu)
        .whole("rss_bytes", rss)
        .whole("bare_rss_bytes", bare_rss)
        .whole("added_rss_bytes", rss - bare_rss);
    Ok(bench.about_of(figures, seconds, "not pinned"))
}

/// Seconds on a CPU of all threads of a process.
fn cpu_seconds(pid: u32) -> Outcome<f64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path().join("schedstat");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            // The thread has ended meanwhile.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => continue,
            Err(error) => return Err(format!("{}: {error}", path.display()).into()),
        };
        let ns = text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok());
        total += ns.ok_or_else(|| format!("{} does not tell a time", path.display()))?;
    }
    Ok(total as f64 / 1e9)
}

/// Resident bytes of a process.
pub(super) fn rss(pid: u32) -> Outcome<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let kilobytes = text.lines().find_map(|line| line.strip_prefix("Rss:")?.split_whitespace().next());
    let kilobytes = kilobytes.and_then(|field| field.parse::<u64>().ok());
    Ok(kilobytes.ok_or_else(|| format!("{path} does not tell `Rss`"))? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_uses_time() {
        let pid = std::process::id();
        assert!(rss(pid).unwrap() > 100_000);
        let before = cpu_seconds(pid).unwrap();
        let start = Instant::now();
        while cpu_seconds(pid).unwrap() == before {
            assert!(start.elapsed() < Duration::from_secs(10));
        }
    }
}
