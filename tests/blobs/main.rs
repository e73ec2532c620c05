//! Messages larger than a quarter of their log: they travel in blobs, and everything else is as for small ones.

use serde::{Deserialize, Serialize};

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod deaths;
mod events;
mod policies;

const MIB: usize = 1 << 20;

#[test]
fn child() {
    support::play(&[
        ("reader", events::reader),
        ("echo", calls::echo),
        ("holder", deaths::holder),
        ("victim", deaths::victim),
        ("large writer", events::large_writer),
    ]);
}

/// Bytes that differ from message to message and from place to place.
fn content(seed: u64, len: usize) -> Vec<u8> {
    const BLOCK: usize = 4096;
    let base: Vec<u8> = (0..2 * BLOCK as u64).map(|at| ((at * at) >> 3) as u8).collect();
    let mut bytes = Vec::with_capacity(len + BLOCK);
    while bytes.len() < len {
        let from = (seed as usize * 31 + bytes.len() / BLOCK * 7) % BLOCK;
        bytes.extend_from_slice(&base[from..from + BLOCK]);
    }
    bytes.truncate(len);
    bytes
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Cloud {
    frame: u64,
    points: Vec<(f32, f32)>,
    label: String,
}

fn cloud(frame: u64, points: usize) -> Cloud {
    let points = (0..points).map(|at| (at as f32, frame as f32)).collect();
    Cloud { frame, points, label: format!("cloud {frame}") }
}
