//! What a subscriber is told, message by message.

use super::*;

/// The bytes of a message, which tell its number and their place in it.
pub fn content(sequence: u64, len: usize) -> Vec<u8> {
    let words = (0..).map(|word: u64| sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word << 40);
    let mut bytes: Vec<u8> = words.take(len / 8 + 1).flat_map(u64::to_le_bytes).collect();
    bytes.truncate(len);
    bytes
}

/// Each number once, in order.
#[derive(Debug, Default)]
pub struct Account {
    pub received: u64,
    pub missed: u64,
    /// Where messages were missed: the first, and how many.
    pub gaps: Vec<(u64, u64)>,
}

impl Account {
    pub fn told(&self) -> u64 {
        self.received + self.missed
    }

    /// Takes what is there; false if nothing is.
    #[track_caller]
    pub fn take(&mut self, subscriber: &mut RawSubscriber, timeout: Duration) -> bool {
        match subscriber.recv_timeout(timeout) {
            Ok(Some(sample)) => {
                assert_eq!(sample.sequence(), self.told(), "{:?}", self.gaps);
                assert_eq!(sample[..], content(sample.sequence(), sample.len()), "overwritten");
                self.received += 1;
                true
            }
            Ok(None) => false,
            Err(RecvError::Lagged { missed, source_node, .. }) => {
                assert_eq!(source_node.name(), "writer");
                self.gaps.push((self.told(), missed));
                self.missed += missed;
                true
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Takes all that is there.
    #[track_caller]
    pub fn take_all(&mut self, subscriber: &mut RawSubscriber) {
        while self.take(subscriber, Duration::ZERO) {}
    }
}
