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
    looked: Option<Instant>,
    /// The longest time from look to look.
    pub pause: Duration,
}

impl Account {
    pub fn told(&self) -> u64 {
        self.received + self.missed
    }

    /// Whether nothing was missed, as is owed to whoever reads in time: another process may have had the processor.
    pub fn is_whole(&self, timeout: Duration) -> bool {
        self.gaps.is_empty() || self.pause >= timeout
    }

    /// Takes what is there; false if nothing is.
    #[track_caller]
    pub fn take(&mut self, subscriber: &mut RawSubscriber, timeout: Duration) -> bool {
        let found = subscriber.recv_timeout(timeout);
        let now = Instant::now();
        let pause = self.looked.replace(now).map_or(Duration::ZERO, |before| now - before);
        self.pause = self.pause.max(pause);
        match found {
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
