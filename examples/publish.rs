//! Publishes ten progress values, once somebody listens or a few seconds are over.
//!
//! In two terminals, in any order:
//!
//! ```sh
//! cargo run --example subscribe
//! cargo run --example publish
//! ```
//!
//! Both join the bus `example`, or the one that `$RINGBUS_BUS` names.

use std::time::Duration;

use ringbus::Bus;
use serde::Serialize;

#[derive(Serialize)]
struct Progress {
    done: u32,
    of: u32,
}

fn main() -> Result<(), ringbus::Error> {
    let bus = std::env::var("RINGBUS_BUS").unwrap_or_else(|_| "example".into());
    let node = Bus::open(&bus)?.join("worker")?;
    let mut progress = node.publisher("task/42/progress")?;

    // Without this the first values would have nobody to reach: a late subscriber gets what comes after it.
    if let Err(error) = progress.wait_for_subscribers(1, Duration::from_secs(3)) {
        println!("{error}");
    }
    for done in 1..=10 {
        progress.publish(&Progress { done, of: 10 })?;
        println!("published {done} of 10");
    }
    // Whatever was published is in shared memory: those who read it go on when this process has ended.
    Ok(())
}
