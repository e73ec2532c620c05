//! Slow subscribers that are evicted: they get all that was in their log, are told how much they missed, and go on; the
//! others miss nothing.

use std::time::{Duration, Instant};

use ringbus::{Node, Overflow, PublisherBuilder, RawSubscriber, RecvError};

#[path = "../support/mod.rs"]
mod support;

mod account;
mod deaths;
mod local;
mod memory;
mod stops;

use account::{Account, content};

const SMALL: u64 = 4096;
/// Long enough for a reader that reads, and for its control thread to say where, on a host that has little time for either.
const SOON: Duration = Duration::from_millis(400);

#[test]
fn child() {
    support::play(&[("reads", stops::reads), ("publishes", deaths::publishes), ("sleeps", memory::sleeps)]);
}

fn evicting<'n>(node: &'n Node, topic: &'n str, timeout: Duration) -> PublisherBuilder<'n> {
    node.publisher_builder(topic).capacity(SMALL).overflow(Overflow::Evict { timeout })
}
