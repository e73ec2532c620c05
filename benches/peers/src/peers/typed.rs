//! The value of the rows that encode one: some 64 bytes as named fields.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    pub id: u64,
    pub stamp: u64,
    pub value: f64,
    pub label: String,
}

impl Event {
    pub fn new(id: u64) -> Self {
        Self { id, stamp: 1_700_000_000_000, value: 0.5, label: "0123456789abcdef".into() }
    }
}
