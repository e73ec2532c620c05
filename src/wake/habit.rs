//! What a port has learnt from its waits: whether looking before a sleep pays.
//!
//! A port has *credit*, in time that it may spend on looking. What came while it looked spared a sleep and a wake-up
//! and so earns credit; what did not come costs all the time that was spent. So a port that is answered within
//! microseconds looks for ever, one that is not sleeps at once after a few waits. Credit also grows with time,
//! slowly: so that a port which sleeps at once finds out when that changes.
//!
//! ```text
//!             came within t: + SPIN − t                  credit ≥ limit: look, for the limit
//!   credit ◀─ did not come:  − time looked   (at most    credit < limit: sleep at once
//!             as time passes: 1 / SHARE       MOST)
//!
//!   limit  =  4 × what it usually takes + SLACK, at most SPIN; SPIN after a look in vain
//! ```
//!
//! The limit sees to it that bursts, which earn much, do not pay for long looks between them. Looking in vain sets
//! it back to the longest: two ports that answer each other, and have both fallen asleep once, each find the other
//! slower than usual by a wake-up, and must have the patience for it to get back to where neither sleeps.

use std::time::{Duration, Instant};

/// The longest look. More than a wake-up takes (25 µs between processes of a virtual machine), or ports that answer
/// each other would go on sleeping; not many times more, since waiting as long as the sleep costs is at most twice as
/// dear as the better choice (Karlin et al., "Competitive randomized algorithms for non-uniform problems", SODA 1990).
pub(super) const SPIN: Duration = Duration::from_micros(50);
/// Looking in vain takes at most one part in this many of the time, in the long run.
const SHARE: i64 = 100;
/// The most credit: so many of the longest looks in vain are made when messages become rare.
const MOST: i64 = 8 * nanos(SPIN);
/// The most that credit grows by during one sleep: of rare messages at most one in sixteen is looked for.
const GROWTH: i64 = nanos(SPIN) / 16;
/// What the limit allows beyond what is usual: a sleep is dearer than the interrupts of some microseconds that the
/// other side now and then has.
const SLACK: i64 = 8_000;

/// A port's experience of its waits with [`Wait::Adaptive`](super::Wait). Times are in nanoseconds.
#[derive(Debug)]
pub(crate) struct Habit {
    credit: i64,
    /// How long what came during a look took, about the last eight.
    usual: i64,
    /// Credit has grown up to here.
    grown: Option<Instant>,
}

impl Default for Habit {
    fn default() -> Self {
        Self { credit: MOST / 2, usual: nanos(SPIN), grown: None }
    }
}

impl Habit {
    /// Whether it can be told without the clock that a look pays.
    #[inline(always)]
    pub(super) fn is_keen(&self) -> bool {
        self.credit >= self.limit()
    }

    /// How long to look before a sleep; zero: not at all.
    pub(super) fn patience(&mut self, now: Instant) -> Duration {
        let passed = self.grown.replace(now).map_or(0, |then| nanos(now.saturating_duration_since(then)));
        self.credit = (self.credit + (passed / SHARE).min(GROWTH)).min(MOST);
        if self.is_keen() { Duration::from_nanos(self.limit() as u64) } else { Duration::ZERO }
    }

    /// It came after this long a look.
    #[inline]
    pub(super) fn hit(&mut self, took: Duration) {
        let took = nanos(took);
        self.usual += (took - self.usual) / 8;
        self.earn(nanos(SPIN) - took);
    }

    /// It did not come within what [`Habit::patience`] allowed.
    pub(super) fn missed(&mut self, looked: Duration) {
        self.usual = nanos(SPIN);
        self.earn(-nanos(looked));
    }

    /// The wait ended before either was known.
    pub(super) fn gave_up(&mut self, looked: Duration) {
        self.earn(-nanos(looked));
    }

    #[inline(always)]
    fn limit(&self) -> i64 {
        (4 * self.usual + SLACK).min(nanos(SPIN))
    }

    /// Debts are short: a thread that was not let run while it looked has not used the time.
    #[inline(always)]
    fn earn(&mut self, credit: i64) {
        self.credit = (self.credit + credit.max(-2 * nanos(SPIN))).clamp(-nanos(SPIN), MOST);
    }
}

/// Up to an hour: sums of it do not overflow.
const fn nanos(duration: Duration) -> i64 {
    let nanos = duration.as_nanos();
    if nanos < 3_600_000_000_000 { nanos as i64 } else { 3_600_000_000_000 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Patience, Then, Wait};
    use super::*;

    /// Time that a look takes here, and a wake-up.
    const LOOK: Duration = Duration::from_nanos(100);
    const WAKE: Duration = Duration::from_micros(30);

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// A port in virtual time.
    struct Port {
        habit: Habit,
        now: Instant,
        looked: Duration,
        hits: u32,
    }

    impl Port {
        fn new() -> Self {
            Self { habit: Habit::default(), now: Instant::now(), looked: Duration::ZERO, hits: 0 }
        }

        /// Waits for what comes after `gap`; whether it slept.
        fn wait(&mut self, gap: Duration) -> bool {
            let mut patience = Patience::new(Wait::Adaptive, None);
            let comes = self.now + gap;
            while self.now < comes {
                match patience.next_by(&mut self.habit, || self.now) {
                    Then::Look => {
                        self.now += LOOK;
                        self.looked += LOOK;
                    }
                    Then::Sleep(_) => {
                        self.now = comes + WAKE;
                        patience.woke();
                        patience.found(&mut self.habit);
                        return true;
                    }
                    Then::GiveUp => unreachable!("there is no deadline"),
                }
            }
            patience.found(&mut self.habit);
            self.hits += 1;
            false
        }

        /// How many of so many waits sleep.
        fn sleeps(&mut self, waits: usize, gap: Duration) -> usize {
            (0..waits).filter(|_| self.wait(gap)).count()
        }
    }

    #[test]
    fn what_comes_soon_is_looked_for_and_never_slept_for() {
        for gap in [Duration::from_nanos(200), micros(3), micros(20), micros(45)] {
            assert_eq!(Port::new().sleeps(10_000, gap), 0, "{gap:?}");
        }
    }

    #[test]
    fn looking_goes_on_where_it_mostly_pays() {
        let mut port = Port::new();
        let sleeps: usize =
            (0..1_000).map(|_| port.sleeps(4, micros(10)) + port.sleeps(1, micros(200))).sum();
        assert_eq!(sleeps, 1_000, "only for what comes late");
    }

    #[test]
    fn what_comes_rarely_is_slept_for_at_once_and_looking_is_bounded() {
        for gap in [micros(60), micros(200), micros(1_000), micros(100_000)] {
            let mut port = Port::new();
            assert_eq!(port.sleeps(100, gap), 100, "{gap:?}");
            let (looked, start) = (port.looked, port.now);
            assert_eq!(port.sleeps(1_000, gap), 1_000, "{gap:?}");
            let looked = port.looked - looked;
            let share = looked.as_secs_f64() / (port.now - start).as_secs_f64();
            assert!(share < 0.0105, "{share} of the time with {gap:?}");
            assert!(looked <= SPIN * (1_000 / 16 + 1), "{looked:?} with {gap:?}");
        }
    }

    #[test]
    fn few_waits_are_looked_through_when_messages_become_rare() {
        let mut port = Port::new();
        port.sleeps(1_000, micros(1));
        let looked = |port: &mut Port| {
            let before = port.looked;
            port.wait(micros(1_000));
            port.looked > before
        };
        let first = (0..100).take_while(|_| looked(&mut port)).count();
        assert!((1..=12).contains(&first), "{first} waits");
    }

    #[test]
    fn looks_between_bursts_are_short() {
        // A burst of messages that come faster than they are read, then nothing for a millisecond.
        let mut port = Port::new();
        let burst = |port: &mut Port| {
            port.wait(micros(1_000));
            port.sleeps(99, Duration::from_nanos(300));
        };
        (0..10).for_each(|_| burst(&mut port));
        let (looked, start) = (port.looked, port.now);
        (0..100).for_each(|_| burst(&mut port));
        let of_bursts = 100 * 99 * Duration::from_nanos(300);
        let between = (port.looked - looked).saturating_sub(of_bursts);
        let share = between.as_secs_f64() / (port.now - start).as_secs_f64();
        assert!(share < 0.0105, "{share} of the time");
    }

    /// Two ports that answer each other within half a microsecond: both fell asleep, for one was stopped. Neither
    /// goes on sleeping because the other has to be woken first.
    #[test]
    fn two_that_answer_each_other_stay_awake_after_a_pause() {
        let think = Duration::from_nanos(500);
        let mut ports = [Port::new(), Port::new()];
        let mut gap = think;
        let mut slept = Vec::new();
        for message in 0..20_000 {
            let pause = if message % 5_000 == 4_000 { micros(5_000) } else { Duration::ZERO };
            let sleeps = ports[message % 2].wait(gap + pause);
            // The other has waited since it sent this.
            gap = if sleeps { WAKE + think } else { think };
            slept.extend(sleeps.then_some(message));
        }
        assert!(!slept.is_empty() && slept.len() <= 4 * 4, "{slept:?}");
    }

    fn gaps() -> impl Strategy<Value = Vec<Duration>> {
        let gap = prop_oneof![0..2_000u64, 0..80_000u64, 0..3_000_000u64].prop_map(Duration::from_nanos);
        prop::collection::vec((gap, 1..20usize), 1..100)
            .prop_map(|runs| runs.into_iter().flat_map(|(gap, times)| vec![gap; times]).collect())
    }

    proptest! {
        #[test]
        fn looking_in_vain_is_paid_for(gaps in gaps()) {
            let mut port = Port::new();
            let start = port.now;
            for gap in gaps {
                port.wait(gap);
                let allowed = (port.now - start) / SHARE as u32 + SPIN * port.hits + Duration::from_nanos(MOST as u64);
                prop_assert!(port.looked <= allowed, "{:?} of {:?}", port.looked, allowed);
            }
        }

        /// Whatever was before: credit for one look grows within twice `SHARE` of the longest looks, while each
        /// message takes a wake-up and more.
        #[test]
        fn denser_messages_are_noticed(gaps in gaps(), dense in 100..20_000u64) {
            let mut port = Port::new();
            gaps.into_iter().for_each(|gap| _ = port.wait(gap));
            let dense = Duration::from_nanos(dense);
            let most = 2 * SHARE as u128 * SPIN.as_nanos() / (WAKE + dense).as_nanos() + 2;
            port.sleeps(most as usize, dense);
            prop_assert_eq!(port.sleeps(100, dense), 0);
        }
    }
}
