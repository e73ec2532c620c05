//! Sends a point cloud of several megabytes, and reads it as `&[f32]` where it was written.
//!
//! ```sh
//! cargo run --release --example large
//! ```
//!
//! A message that is larger than a quarter of its log travels in shared memory of its own, which is used again for the
//! next one. Its payload is 64-byte aligned: numbers can be written and read in place, without a copy.
//! One process with two nodes, so that it runs by itself; between two processes it is the same.

use ringbus::Bus;

const POINTS: usize = 500_000; // of three coordinates each: 6 MB

fn main() -> Result<(), ringbus::Error> {
    let bus = Bus::private()?; // between processes: Bus::open("robot")
    let mut mapper = bus.join("mapper")?.raw_subscriber("lidar/**")?;
    let lidar = bus.join("lidar")?;
    let builder = lidar.publisher_builder("lidar/roof");
    let mut clouds = builder.max_message(16 << 20).blob_memory(64 << 20).open_raw()?; // less than the defaults

    for scan in 0..10 {
        let mut cloud = clouds.loan(POINTS * 3 * size_of::<f32>())?;
        let coordinates: &mut [f32] = bytemuck::cast_slice_mut(&mut cloud);
        for (index, point) in coordinates.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let angle = index as f32 * 1e-3;
            *point = [angle.cos() * 10.0, angle.sin() * 10.0, scan as f32];
        }
        cloud.send()?;

        let cloud = mapper.recv()?; // the same bytes, in place
        let coordinates: &[f32] = bytemuck::cast_slice(&cloud);
        let farthest = coordinates.as_chunks::<3>().0.iter().map(|[x, y, _]| x.hypot(*y)).fold(0.0, f32::max);
        println!("scan {}: {} points, the farthest {farthest:.2} m", cloud.sequence(), coordinates.len() / 3);
    } // the sample is dropped: its memory may be used for another
    Ok(())
}
