//! How a port waits.

use std::time::{Duration, Instant};

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
    /// Look for a few microseconds, then sleep: what arrives soon is taken without a system call, and
    /// an idle port costs nothing.
    #[default]
    Adaptive,
    /// Sleep at once: nothing is burnt, and each message that finds the port asleep costs a wake-up
    /// (tens of microseconds on a virtual machine).
    Park,
}

/// `Adaptive` looks for this long. About the time a sleep and a wake-up take: waiting that long costs at
/// most twice the better choice (Karlin et al., "Competitive randomized algorithms for non-uniform
/// problems", SODA 1990).
const SPIN: Duration = Duration::from_micros(20);

/// Looks between two readings of the clock, which takes as long as one look.
const LOOKS: u32 = 32;

/// Looks in vain that are followed by a `PAUSE`, which takes as long as several looks; those after them are not: what
/// comes then is taken as soon as it is there.
const PAUSES: u32 = 2;

/// One wait: says after each look in vain whether to look again.
pub(crate) struct Patience {
    wait: Wait,
    looks: u32,
    deadline: Option<Instant>,
    until: Option<Instant>,
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
    pub(crate) fn new(wait: Wait, deadline: Option<Instant>) -> Self {
        Self { wait, looks: 0, deadline, until: None }
    }

    /// Called after a look in vain.
    pub(crate) fn next(&mut self) -> Then {
        self.looks = self.looks.wrapping_add(1);
        if self.wait != Wait::Park && !self.looks.is_multiple_of(LOOKS) {
            if self.looks <= PAUSES {
                std::hint::spin_loop();
            }
            return Then::Look;
        }
        if self.wait == Wait::Spin && self.deadline.is_none() {
            return Then::Look;
        }
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return Then::GiveUp;
        }
        match self.wait {
            Wait::Spin => Then::Look,
            Wait::Adaptive if *self.until.get_or_insert(now + SPIN) > now => Then::Look,
            _ => Then::Sleep(self.deadline.map(|deadline| deadline - now)),
        }
    }

    /// The sleep is over: something may be there.
    pub(crate) fn woke(&mut self) {
        self.looks = 0;
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spinning_never_sleeps_and_honours_its_deadline() {
        let start = Instant::now();
        let mut patience = Patience::new(Wait::Spin, Some(start + Duration::from_millis(5)));
        loop {
            match patience.next() {
                Then::Look => {}
                Then::GiveUp => break,
                Then::Sleep(_) => panic!("slept"),
            }
        }
        assert!(start.elapsed() >= Duration::from_millis(5));
    }

    #[test]
    fn parking_sleeps_at_once_for_what_is_left() {
        let mut patience = Patience::new(Wait::Park, None);
        assert_eq!(patience.next(), Then::Sleep(None));
        let mut patience = Patience::new(Wait::Park, Some(Instant::now() + Duration::from_secs(60)));
        let Then::Sleep(Some(left)) = patience.next() else { panic!("no sleep") };
        assert!(left > Duration::from_secs(50) && left <= Duration::from_secs(60));
        assert_eq!(Patience::new(Wait::Park, Some(Instant::now())).next(), Then::GiveUp);
    }

    #[test]
    fn adapting_looks_for_a_while_then_sleeps() {
        let start = Instant::now();
        let mut patience = Patience::new(Wait::Adaptive, None);
        for _ in 0..2 {
            let mut looks = 0;
            while patience.next() == Then::Look {
                looks += 1;
            }
            assert!(looks >= LOOKS - 1, "{looks} looks");
            patience.woke();
        }
        assert!(start.elapsed() >= 2 * SPIN);
    }

    #[test]
    fn adapting_gives_up_at_its_deadline_and_sleeps_no_longer_than_that() {
        let mut patience = Patience::new(Wait::Adaptive, Some(Instant::now() + Duration::from_secs(60)));
        let Some(Then::Sleep(Some(left))) =
            (0..u32::MAX).map(|_| patience.next()).find(|then| *then != Then::Look)
        else {
            panic!("no sleep")
        };
        assert!(left > Duration::from_secs(50) && left <= Duration::from_secs(60));

        let mut patience = Patience::new(Wait::Adaptive, Some(Instant::now()));
        let then = (0..u32::MAX).map(|_| patience.next()).find(|then| *then != Then::Look);
        assert_eq!(then, Some(Then::GiveUp));
    }
}
