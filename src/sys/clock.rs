//! Time, as plain numbers that travel between processes (clock_gettime(2)).

use std::time::{SystemTime, UNIX_EPOCH};

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
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a live timespec; the call writes nothing else. It cannot fail for this clock, and
    // if it did, `now` would hold zero.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_tell_a_plausible_time() {
        let (before, after) = (monotonic_ns(), monotonic_ns());
        assert!(0 < before && before <= after);
        let year_2020 = 1_577_836_800_000;
        assert!(unix_ms() > year_2020);
        assert!(unix_ns() / 1_000_000 >= year_2020);
    }
}
