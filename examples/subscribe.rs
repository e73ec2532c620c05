//! Prints the progress of all tasks: up to ten updates, or until none has come for a few seconds.
//!
//! In two terminals, in any order:
//!
//! ```sh
//! cargo run --example subscribe        # or: cargo run --example subscribe -- 100
//! cargo run --example publish
//! ```
//!
//! Both join the bus `example`, or the one that `$RINGBUS_BUS` names.

use std::time::Duration;

use ringbus::Bus;
use serde::Deserialize;

#[derive(Deserialize)]
struct Progress {
    done: u32,
    of: u32,
}

fn main() -> Result<(), ringbus::Error> {
    let bus = std::env::var("RINGBUS_BUS").unwrap_or_else(|_| "example".into());
    let updates: usize = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(10);

    let node = Bus::open(&bus)?.join("watcher")?;
    let mut progress = node.subscriber::<Progress>("task/*/progress")?;
    for _ in 0..updates {
        let Some(update) = progress.recv_timeout(Duration::from_secs(5))? else {
            println!("nothing for five seconds");
            break;
        };
        println!("{}: {} of {}, says {}", update.topic(), update.done, update.of, update.source().name());
    }
    Ok(())
}
