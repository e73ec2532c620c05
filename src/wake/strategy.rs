//! How a port waits.

use std::time::{Duration, Instant};

use super::Habit;

/// How a port waits for a message (or, a publisher, for room).
///
/// # Examples
/// ```
/// use ringbus::{Bus, Wait};
///
/// let node = Bus::private()?.join("sensor")?;
/// let readings = node.subscriber_builder("reading/*").wait(Wait::Park).open::<f64>()?;
/// # Ok::<(), ringbus::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wait {
    /// Look again and again: the lowest latency, a whole core for as long as it waits.
    Spin,
    /// Look for up to 50 µs, then sleep: what arrives soon is taken without a system call, and an idle port
    /// costs nothing. A port learns from its last waits how long to look, and sleeps at once where looking has not
    /// paid; to find out when that changes it spends at most 1 % of the time.
    #[default]
    Adaptive,
    /// Sleep at once: nothing is burnt, and each message that finds the port asleep costs a wake-up
    /// (tens of microseconds on a virtual machine).
    Park,
}

/// Looks between two readings of the clock, which takes about as long as a look.
const LOOKS: u32 = 16;

/// Looks in vain that are followed by a `PAUSE`, which takes as long as several looks; those after them are not: what
/// comes then is taken as soon as it is there.
const PAUSES: u32 = 2;

/// One wait: says after each look in vain whether to look again.
pub(crate) struct Patience {
    wait: Wait,
    deadline: Option<Instant>,
    /// Since it began, or since the last sleep.
    looks: u32,
    /// When the clock was read for the first and for the last time since then.
    clock: Option<(Instant, Instant)>,
}

/// What to do after a look in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Look,
    Sleep(Option<Duration>),
    GiveUp,
}

impl Patience {
    /// A wait that may last until `deadline`; `None`: for ever.
    #[inline]
    pub(crate) fn new(wait: Wait, deadline: Option<Instant>) -> Self {
        Self { wait, deadline, looks: 0, clock: None }
    }

    /// Called after a look in vain.
    #[inline]
    pub(crate) fn next(&mut self, habit: &mut Habit) -> Then {
        self.next_by(habit, Instant::now)
    }

    /// [`Patience::next`] by any clock.
    #[inline]
    pub(super) fn next_by(&mut self, habit: &mut Habit, clock: impl FnOnce() -> Instant) -> Then {
        self.looks = self.looks.wrapping_add(1);
        let looks = match self.wait {
            Wait::Spin => true,
            Wait::Adaptive => self.clock.is_some() || habit.is_keen(),
            Wait::Park => false,
        };
        if looks && (!self.looks.is_multiple_of(LOOKS) || self.never_ends()) {
            if self.looks <= PAUSES {
                std::hint::spin_loop();
            }
            return Then::Look;
        }
        self.at(clock(), habit)
    }

    #[inline(always)]
    fn never_ends(&self) -> bool {
        self.wait == Wait::Spin && self.deadline.is_none()
    }

    fn at(&mut self, now: Instant, habit: &mut Habit) -> Then {
        let over = self.deadline.is_some_and(|deadline| deadline <= now);
        let sleep = Then::Sleep(self.deadline.map(|deadline| deadline.saturating_duration_since(now)));
        match self.wait {
            _ if over && self.wait != Wait::Adaptive => Then::GiveUp,
            Wait::Spin => Then::Look,
            Wait::Park => sleep,
            Wait::Adaptive => {
                let begun = self.clock.map_or(now, |(begun, _)| begun);
                let looked = now.saturating_duration_since(begun);
                if over {
                    habit.gave_up(looked);
                    return Then::GiveUp;
                }
                if looked < habit.patience(now) {
                    self.clock = Some((begun, now));
                    return Then::Look;
                }
                if self.clock.is_some() {
                    habit.missed(looked);
                }
                sleep
            }
        }
    }

    /// What was waited for is there: the next look in vain begins another wait.
    #[inline(always)]
    pub(crate) fn found(&mut self, habit: &mut Habit) {
        if self.looks != 0 && self.wait == Wait::Adaptive {
            // The clock is not read again: there is something to do now.
            habit.hit(
                self.clock.map_or(Duration::ZERO, |(begun, last)| last.saturating_duration_since(begun)),
            );
        }
        self.woke();
    }

    /// The sleep is over: something may be there.
    #[inline(always)]
    pub(crate) fn woke(&mut self) {
        self.looks = 0;
        self.clock = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first that is not to look again.
    fn outcome(patience: &mut Patience) -> Then {
        let mut habit = Habit::default();
        let mut then = (0..u32::MAX).map(|_| patience.next(&mut habit));
        then.find(|then| *then != Then::Look).expect("an end")
    }

    #[test]
    fn spinning_never_sleeps_and_honours_its_deadline() {
        let start = Instant::now();
        let mut patience = Patience::new(Wait::Spin, Some(start + Duration::from_millis(5)));
        assert_eq!(outcome(&mut patience), Then::GiveUp);
        assert!(start.elapsed() >= Duration::from_millis(5));
    }

    #[test]
    fn parking_sleeps_at_once_for_what_is_left() {
        let mut habit = Habit::default();
        let mut next = |deadline| Patience::new(Wait::Park, deadline).next(&mut habit);
        assert_eq!(next(None), Then::Sleep(None));
        let Then::Sleep(Some(left)) = next(Some(Instant::now() + Duration::from_secs(60))) else {
            panic!("no sleep")
        };
        assert!(left > Duration::from_secs(50) && left <= Duration::from_secs(60));
        assert_eq!(next(Some(Instant::now())), Then::GiveUp);
    }

    #[test]
    fn adapting_gives_up_at_its_deadline_and_sleeps_no_longer_than_that() {
        let mut patience = Patience::new(Wait::Adaptive, Some(Instant::now() + Duration::from_secs(60)));
        let Then::Sleep(Some(left)) = outcome(&mut patience) else { panic!("no sleep") };
        assert!(left > Duration::from_secs(50) && left <= Duration::from_secs(60));
        let mut patience = Patience::new(Wait::Adaptive, Some(Instant::now()));
        assert_eq!(outcome(&mut patience), Then::GiveUp);
    }
}
