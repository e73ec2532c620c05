//! Time, as plain numbers that travel between processes (clock_gettime(2)).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::libc;

/// Wall-clock nanoseconds since 1970; may step when the clock is set. 0 before 1970.
pub fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Wall-clock milliseconds since 1970; may step when the clock is set. 0 before 1970.
pub fn unix_ms() -> u64 {
    unix_ns() / 1_000_000
}

/// `CLOCK_MONOTONIC` nanoseconds: never steps back, and comparable between the processes of one host
/// (of one time namespace, time_namespaces(7)). It stands still while the host is suspended.
pub fn monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// What is at least so far off is looked at by the time of the kernel's last tick, some milliseconds ago, which costs no
/// look at the timer. It is never ahead, and a second late only while the whole host stands still.
const FAR: u64 = 1_000_000_000;

/// The time of [`monotonic_ns`] so long from now; of a second or more, some milliseconds before it, as of the last tick.
/// `None` if it cannot be told.
pub fn after(timeout: Duration) -> Option<u64> {
    match u64::try_from(timeout.as_nanos()).ok()? {
        near @ ..FAR => monotonic_ns().checked_add(near),
        far => read(libc::CLOCK_MONOTONIC_COARSE).checked_add(far),
    }
}

/// Whether this time of [`monotonic_ns`] is over.
pub fn is_over(ns: u64) -> bool {
    ns <= read(libc::CLOCK_MONOTONIC_COARSE).saturating_add(FAR) && ns <= monotonic_ns()
}

/// How long this thread has been ready to run so far and had no processor (proc_pid_schedstat(5)); zero where the kernel
/// does not tell. Some microseconds.
pub fn queued() -> Duration {
    let all = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = all.split(' ').nth(1).and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.unwrap_or(0))
}

#[inline]
fn read(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a live timespec; the call writes nothing else. It cannot fail for these clocks, and
    // if it did, `now` would hold zero.
    unsafe { libc::clock_gettime(clock, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_over_when_it_has_come() {
        for ahead in [0, 1_000_000, 20_000_000] {
            let time = monotonic_ns() + ahead;
            let early = is_over(time) && monotonic_ns() < time;
            assert!(!early, "{ahead} ns ahead");
            while monotonic_ns() < time {}
            assert!(is_over(time), "{ahead} ns ahead, and now");
        }
        assert!(is_over(0) && !is_over(monotonic_ns() + 2_000_000_000) && !is_over(u64::MAX));
    }

    #[test]
    fn a_far_time_from_now_may_be_a_little_earlier() {
        for ns in [0, 1, FAR - 1, FAR, 3600 * FAR] {
            let before = monotonic_ns();
            let time = after(Duration::from_nanos(ns)).expect("a time");
            let earliest = before + ns - if ns < FAR { 0 } else { FAR / 2 }; // a host that stands still has its tick late
            assert!(earliest <= time && time <= monotonic_ns() + ns, "{ns} ns from now");
        }
        assert_eq!([after(Duration::MAX), after(Duration::from_nanos(u64::MAX))], [None, None]);
    }

    #[test]
    fn clocks_tell_a_plausible_time() {
        let (before, after) = (monotonic_ns(), monotonic_ns());
        assert!(0 < before && before <= after);
        let year_2020 = 1_577_836_800_000;
        assert!(unix_ms() > year_2020);
        assert!(unix_ns() / 1_000_000 >= year_2020);
    }
}
