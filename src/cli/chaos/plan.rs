//! What happens next, and to whom: drawn from the seed.

use std::time::Duration;

use super::dice::Dice;

/// What is done to a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// SIGKILL; another one takes its place after this time.
    Kill { absent: Duration },
    /// SIGSTOP, and after this time SIGCONT.
    Stop { time: Duration },
    /// It is told to leave; another one takes its place this long after it has.
    Restart { absent: Duration },
    /// It pauses at every message for this time.
    Slow { pause_us: u64, time: Duration },
}

/// The next disturbance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Next {
    /// Of those that can be disturbed.
    pub(super) who: usize,
    pub(super) act: Act,
    /// How long it is quiet before.
    pub(super) pause: Duration,
}

pub(super) fn draw(dice: &mut Dice, candidates: usize) -> Next {
    let pause = dice.millis(100, 300);
    let who = dice.between(0, candidates.max(1) as u64 - 1) as usize;
    let act = match dice.between(0, 99) {
        0..40 => Act::Kill { absent: dice.millis(0, 300) },
        40..65 => Act::Stop { time: stop(dice) },
        65..85 => Act::Restart { absent: dice.millis(0, 300) },
        _ => Act::Slow { pause_us: dice.between(100, 10_000), time: dice.millis(100, 1500) },
    };
    Next { who, act, pause }
}

/// Mostly short; sometimes long enough for others to see it stalled.
fn stop(dice: &mut Dice) -> Duration {
    match dice.between(0, 99) {
        0..65 => dice.millis(1, 50),
        65..95 => dice.millis(50, 800),
        _ => dice.millis(3500, 5500),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_everything_and_the_same_again() {
        let draws = |seed| -> Vec<Next> {
            let mut dice = Dice::new(seed);
            (0..300).map(|_| draw(&mut dice, 9)).collect()
        };
        assert_eq!(draws(5), draws(5));
        assert_ne!(draws(5), draws(6));
        let draws = draws(5);
        assert!((0..9).all(|who| draws.iter().any(|next| next.who == who)));
        let count = |is: fn(&Act) -> bool| draws.iter().filter(|next| is(&next.act)).count();
        assert!(count(|act| matches!(act, Act::Kill { .. })) > 60);
        assert!(count(|act| matches!(act, Act::Restart { .. })) > 20);
        assert!(count(|act| matches!(act, Act::Slow { .. })) > 20);
        assert!(count(|act| matches!(act, Act::Stop { time } if *time > Duration::from_secs(3))) > 0);
        let sum: Duration = draws.iter().map(|next| next.pause).sum();
        assert!((150..250).contains(&(sum / 300).as_millis()));
    }
}
