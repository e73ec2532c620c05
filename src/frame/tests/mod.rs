//! Round trips, hostile bytes, limits and the golden fixtures.

use crate::frame;

mod golden;
mod hostile;
mod limits;
mod parts;
mod plain;
mod roundtrip;

/// Encodes into a buffer of exactly the length that the frame says it needs.
fn encode(frame: &frame::Frame<'_>) -> Vec<u8> {
    let mut bytes = vec![0xaa; frame.encoded_len()];
    assert_eq!(frame.encode(&mut bytes), Ok(bytes.len()), "{frame:?}");
    bytes
}
