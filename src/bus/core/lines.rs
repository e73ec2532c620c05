//! Lines in the log that other nodes may cause as often as they like: a few of each second are written, the rest counted.

/// Lines from one beat to the next.
const MOST: u32 = 16;

#[derive(Debug, Default)]
pub(super) struct Lines {
    written: u32,
    left_out: u64,
}

impl Lines {
    /// Whether one more may be written.
    pub(super) fn has_room(&mut self) -> bool {
        let has_room = self.written < MOST;
        match has_room {
            true => self.written += 1,
            false => self.left_out += 1,
        }
        has_room
    }

    /// Tells how many of these were left out since the last beat.
    pub(super) fn beat(&mut self, what: &str) {
        let Self { left_out, .. } = std::mem::take(self);
        if left_out > 0 {
            tracing::warn!("{left_out} more {what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_sixteen_a_beat() {
        let mut lines = Lines::default();
        for _ in 0..3 {
            assert_eq!((0..1000).filter(|_| lines.has_room()).count(), 16);
            assert_eq!(lines.left_out, 984);
            lines.beat("lines");
        }
        assert!(lines.has_room());
    }
}
