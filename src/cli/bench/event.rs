//! The typed message of all measurements.

use serde::{Deserialize, Serialize};

/// Bytes of the message without its label, about: small numbers take less.
const FRAME: usize = 48;
/// The shortest payload of a typed message: a label of 16 characters.
pub(super) const LEAST: usize = 64;

/// About 64 bytes of MessagePack, as named fields; more with a longer label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Event {
    pub(super) id: u64,
    pub(super) stamp: u64,
    pub(super) value: f64,
    pub(super) label: String,
}

impl Event {
    pub(super) fn of_payload(bytes: usize) -> Self {
        let label = "0123456789abcdef".chars().cycle().take(bytes.max(LEAST) - FRAME).collect();
        Self { id: 1, stamp: 1_700_000_000_000, value: 0.5, label }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_about_as_large_as_asked_for() {
        for bytes in [64, 1024, 64 * 1024] {
            let size = rmp_serde::to_vec_named(&Event::of_payload(bytes)).unwrap().len();
            assert!(size.abs_diff(bytes) <= 10, "{size} for {bytes}");
        }
        assert_eq!(Event::of_payload(1).label, "0123456789abcdef");
    }
}
