//! A display that must not slow down what it shows: it is lossy, and told what it has missed.
//!
//! ```sh
//! cargo run --example lossy
//! ```

use std::thread;
use std::time::Duration;

use ringbus::{Bus, RecvError};

const POSITIONS: u64 = 100_000;

fn main() -> Result<(), ringbus::Error> {
    let bus = Bus::private()?; // between processes: Bus::open("robot")
    let mut display = bus.join("display")?.subscriber_builder("arm/position").lossy().open::<u64>()?;

    let arm = bus.join("arm")?;
    let mut positions = arm.publisher::<u64>("arm/position")?;
    let moving = thread::spawn(move || {
        for position in 0..POSITIONS {
            positions.publish(&position)?; // never waits for the display
        }
        Ok::<_, ringbus::PublishError>(())
    });

    let (mut shown, mut lost) = (0, 0);
    while shown + lost < POSITIONS {
        match display.recv() {
            Ok(position) => {
                shown += 1;
                if shown % 1000 == 0 {
                    println!("position {}", *position);
                    thread::sleep(Duration::from_millis(5)); // displays are slow
                }
            }
            Err(RecvError::Lagged { missed, .. }) => lost += missed, // exactly so many
            Err(error) => return Err(error.into()),
        }
    }
    moving.join().expect("no panic")?;
    println!("{shown} of {POSITIONS} positions shown, {lost} lost");
    Ok(())
}
