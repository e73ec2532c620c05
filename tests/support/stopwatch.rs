//! How long things took on a machine that may itself be made to stand still.

use std::time::{Duration, Instant};

/// Of proc_stat(5), whose numbers count hundredths of a second.
const TICK: Duration = Duration::from_millis(10);
/// Until then the kernel has counted what was stolen.
const COUNTED: Duration = Duration::from_millis(20);

/// What other machines on this host have had of this one's processors, all of them together, as far as it is told
/// (`steal`).
fn stolen() -> Duration {
    let stat = std::fs::read_to_string("/proc/stat").expect("/proc/stat");
    let ticks = stat.lines().next().and_then(|all| all.split_whitespace().nth(8)?.parse().ok());
    TICK * ticks.unwrap_or(0)
}

/// Measures how long something takes that is meant to take at most so long.
pub struct Stopwatch {
    stolen: Duration,
    start: Instant,
}

impl Stopwatch {
    pub fn start() -> Self {
        Self { stolen: stolen(), start: Instant::now() }
    }

    /// The time since the start. What is above this bound is reduced by what was stolen, for that nothing ran here is
    /// nobody's fault here; more than ten times the bound stays what it is.
    pub fn took(&self, bound: Duration) -> Duration {
        self.less_stolen(self.start.elapsed(), bound)
    }

    /// The same of a time that was measured since the start.
    pub fn less_stolen(&self, took: Duration, bound: Duration) -> Duration {
        if took <= bound || took > bound * 10 {
            return took;
        }
        std::thread::sleep(COUNTED);
        took.saturating_sub(stolen().saturating_sub(self.stolen)).max(bound)
    }

    /// That it is all done within the bound.
    #[track_caller]
    pub fn within(&self, bound: Duration) {
        let took = self.took(bound);
        assert!(took <= bound, "took {took:?} instead of {bound:?} at most");
    }
}
