//! Waiting without a bell: looks for some microseconds, then sleeps, at first shortly.

use std::time::{Duration, Instant};

use crate::wake::{Habit, Patience, Then, Wait};

/// The first sleep, about what the kernel makes of any shorter one.
const FIRST: Duration = Duration::from_micros(50);
/// The longest: what comes then is noticed this much later.
const LONGEST: Duration = Duration::from_millis(1);

/// One wait.
pub(super) struct Nap {
    patience: Patience,
    /// New in each wait: nobody rings, so a nap is dearer than a sleep, and looking before it always pays.
    habit: Habit,
    next: Duration,
}

impl Nap {
    /// A wait that may last until `deadline`; `None`: for ever.
    pub(super) fn new(deadline: Option<Instant>) -> Self {
        Self { patience: Patience::new(Wait::Adaptive, deadline), habit: Habit::default(), next: FIRST }
    }

    /// Called after a look in vain; what the wait has come to.
    pub(super) fn take(&mut self) -> Waited {
        match self.patience.next(&mut self.habit) {
            Then::Look => Waited::NoTime,
            Then::GiveUp => Waited::Enough,
            Then::Sleep(left) => {
                std::thread::sleep(left.map_or(self.next, |left| left.min(self.next)));
                self.next = (self.next * 2).min(LONGEST);
                Waited::Slept
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// A moment: look again.
    NoTime,
    /// Long enough to look whether the other side lives.
    Slept,
    /// The deadline is over.
    Enough,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_grow_to_a_millisecond() {
        let mut nap = Nap::new(None);
        let mut sleeps = Vec::new();
        while sleeps.len() < 7 {
            let next = nap.next;
            if nap.take() == Waited::Slept {
                sleeps.push(next.as_micros());
            }
        }
        assert_eq!(sleeps, [50, 100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn naps_end_at_the_deadline() {
        let start = Instant::now();
        let mut nap = Nap::new(Some(start + Duration::from_millis(20)));
        while nap.take() != Waited::Enough {}
        assert!(start.elapsed() >= Duration::from_millis(20));
    }
}
