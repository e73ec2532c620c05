//! Sends images without a copy: filled where the reader looks at them.
//!
//! ```sh
//! cargo run --example zero_copy
//! ```
//!
//! One process with two nodes, so that it runs by itself; between two processes it is the same.

use ringbus::Bus;

const WIDTH: usize = 640;
const HEIGHT: usize = 480;

fn main() -> Result<(), ringbus::Error> {
    let bus = Bus::private()?; // between processes: Bus::open("robot")
    let mut viewer = bus.join("viewer")?.raw_subscriber("camera/**")?;

    let node = bus.join("camera")?;
    let mut camera = node.raw_publisher("camera/front")?;

    for frame in 0..10_u8 {
        let mut image = camera.loan(WIDTH * HEIGHT)?; // in shared memory, 64-byte aligned
        for (y, row) in image.chunks_exact_mut(WIDTH).enumerate() {
            row.fill(frame.wrapping_add(y as u8));
        }
        image.send()?;

        let image = viewer.recv()?; // the same bytes, in place
        let brightness: u64 = image.iter().map(|pixel| u64::from(*pixel)).sum();
        println!(
            "frame {}: {} bytes, mean {}",
            image.sequence(),
            image.len(),
            brightness / image.len() as u64
        );
    } // the sample is dropped: its room may be used again
    Ok(())
}
