//! Peers that mean harm: what they write into their segments, and what they say.
//!
//! The tests look at some states and frames, those of one seed; others with `RINGBUS_TEST_SEED`, and as many as one
//! likes:
//!
//! ```sh
//! RINGBUS_STATES=100000000 cargo test --release --test hostile -- states --nocapture
//! RINGBUS_FRAMES=100000000 cargo test --release --test hostile -- frames --nocapture
//! RINGBUS_SCRIBBLE_SECONDS=600 cargo test --release --test hostile -- scribbles --nocapture
//! ```

#[path = "../support/raw.rs"]
mod raw;
#[path = "../support/mod.rs"]
mod support;

mod counting;
mod frames;
mod memory;
mod random;
mod scribbler;
mod sessions;
mod states;
mod values;
mod wire;
mod writers;

use std::fmt::Display;
use std::str::FromStr;
use std::time::Instant;

/// Not a test of its own but the second process of those here: does nothing unless one of them started it.
#[test]
fn child() {
    support::play(&[
        ("scribbles", scribbler::scribbles),
        ("is scribbled at", scribbler::is_scribbled_at),
        ("victim", sessions::victim),
        ("hostile", sessions::hostile),
    ]);
}

/// What the environment says, or this.
fn setting<T: FromStr>(name: &str, unless: T) -> T {
    std::env::var(name)
        .map_or(unless, |value| value.parse().ok().unwrap_or_else(|| panic!("{name}: {value:?}")))
}

/// Looks at each of so many cases, made from a seed of its own; says which one it was if it fails.
fn each(what: &str, setting_name: &str, unless: u64, mut look: impl FnMut(random::Random)) {
    struct Case<'a>(&'a str, u64);
    impl Drop for Case<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("{}: RINGBUS_TEST_SEED={} shows it at once", self.0, self.1);
            }
        }
    }
    let (seed, count) = (setting("RINGBUS_TEST_SEED", 1u64), setting(setting_name, unless));
    let start = Instant::now();
    let mut case = Case(what, seed);
    for _ in 0..count {
        look(random::Random::new(case.1));
        case.1 = case.1.wrapping_add(1);
    }
    tell(format_args!("{count} {what} from seed {seed} in {:.1?}", start.elapsed()));
}

/// Past the harness, which shows the output of failed tests only.
fn tell(line: impl Display) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{line}\n").as_bytes());
}
