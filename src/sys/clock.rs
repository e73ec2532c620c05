//! Time, as plain numbers that travel between processes (clock_gettime(2)).

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

/// The time of [`monotonic_ns`] at the kernel's last tick, some milliseconds ago: costs no look at the timer.
pub fn ticked_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC_COARSE)
}

/// Whether this time of [`monotonic_ns`] is over.
///
/// One that is far off costs no look at the timer, but at the time of the kernel's last tick, some milliseconds ago:
/// it is never ahead, and a second late only while the whole host stands still.
pub fn is_over(ns: u64) -> bool {
    const FAR: u64 = 1_000_000_000;
    ns <= ticked_ns().saturating_add(FAR) && ns <= monotonic_ns()
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

/// The [`Instant`] at which [`monotonic_ns`] tells this time: both read the same clock. Never earlier, and at most
/// the time later that it takes to read it.
pub fn instant_at(ns: u64) -> Instant {
    static BOTH: OnceLock<(u64, Instant)> = OnceLock::new();
    let (then, instant) = *BOTH.get_or_init(|| {
        // The best of some tries: a thread may lose its CPU between the two readings.
        let read = || (monotonic_ns(), Instant::now(), monotonic_ns());
        let shorter = |one: (u64, Instant, u64), other: (u64, Instant, u64)| {
            if other.2 - other.0 < one.2 - one.0 { other } else { one }
        };
        let (before, instant, _) = (0..7).fold(read(), |best, _| shorter(best, read()));
        (before, instant)
    });
    match ns.checked_sub(then) {
        Some(later) => instant + Duration::from_nanos(later),
        None => instant.checked_sub(Duration::from_nanos(then - ns)).unwrap_or(instant),
    }
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
    fn both_faces_of_the_monotonic_clock_agree() {
        for late in [0, 5_000_000_000, u64::from(u32::MAX) * 1_000_000_000] {
            let (ns, now) = (monotonic_ns(), Instant::now());
            let instant = instant_at(ns + late) - Duration::from_nanos(late);
            assert!(instant + Duration::from_millis(100) > now, "{:?} early", now - instant);
            assert!(instant < now + Duration::from_millis(100), "{:?} late", instant - now);
        }
        assert!(instant_at(0) <= Instant::now());
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
