//! No wake-up is lost, deadlines are met, and the wall clock does not matter: under delays at random moments.
//!
//! `RINGBUS_TEST_ROUNDS` makes a game as long as one likes, `RINGBUS_TEST_SECONDS` ends it earlier (pieces add up: each has
//! a seed of its own), `RINGBUS_TEST_SEED` plays one again:
//!
//! ```sh
//! RINGBUS_TEST_ROUNDS=10000000 cargo test --release --test wakeups -- games
//! ```

#[path = "../support/mod.rs"]
mod support;

mod deadlines;
mod delays;
mod games;
mod wall;

#[test]
fn child() {
    support::play(&[
        ("player", games::player),
        ("waits in vain", deadlines::waits_in_vain),
        ("wall", wall::plays),
    ]);
}

/// What the environment says, or `default`.
fn setting(name: &str, default: impl FnOnce() -> u64) -> u64 {
    std::env::var(name).map_or_else(|_| default(), |value| value.parse().expect(name))
}
