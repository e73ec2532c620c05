//! Ping-pong between two processes that sleep for the ball, or look for it, or both in turn.
//!
//! A port that sleeps looks once a second whatever happens (`wake::BACK_STOP`), for peers that swallow its wake-ups; one
//! whose fd is in an event loop does not. So a lost wake-up lasts a second, or until the wait's own limit. That is what is
//! counted here: waits of nearly a second, the ball having been there for as long. None may be needed among friends.
//!
//! ```text
//!   asks                                    answers
//!   pause; now and then a burst: the other side promises not to sleep (more than a thousand without a sleep)
//!   publish the ball  ────────────────────▶ wait: look a little, or not; sleep (which takes the promise back)
//!   wait, likewise    ◀──────────────────── pause, now and then a burst, publish it
//! ```

use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use ringbus::{Overflow, PublishError, RawPublisher, RawSubscriber, Wait};

use super::delays::{self, Dice, Processors, RunQueue};
use super::setting;
use super::support::{self, Child, DEADLINE, Dir, Parent};

/// A wait that lasts this long has missed something, or the other side is slow.
const LIMIT: Duration = Duration::from_secs(2);
/// One that no back-stop ends: with what comes during most of it, a lost wake-up lasts long enough to be counted.
const ALONE: Duration = Duration::from_secs(10);
/// It was missed if it had been there for this long, and waited for. A little less than the back-stop.
const MISSED: Duration = Duration::from_millis(900);
/// More than the records in a row after which a port promises not to sleep (`BUSY` in src/bus/inlet.rs).
const BURST: u64 = 1030;
/// Now and then too small for a burst: who publishes it sleeps for room.
const CAPACITY: u64 = 64 * 1024;
/// A ball begins with its number, its time, and how long its thrower has waited for a processor in its life.
const HEAD: usize = 24;
/// The most that a ball has beside these: a quarter of the log is the largest record.
const LARGEST: u64 = 3 * 1024;
/// The number of a ball that belongs to a burst.
const FILLER: u64 = u64::MAX;

#[test]
fn no_wake_up_is_lost_in_random_games() {
    let rounds = setting("RINGBUS_TEST_ROUNDS", || 6_000);
    let seconds = setting("RINGBUS_TEST_SECONDS", || 60 + rounds / 500);
    let seed = setting("RINGBUS_TEST_SEED", || {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
    });
    let dir = Dir::new();
    let args = [dir.arg(), &rounds.to_string(), &seconds.to_string(), &seed.to_string()];
    let sides = ["answers", "asks"];
    let mut players = sides.map(|side| Child::start("player", &[&[side], &args[..]].concat()));
    let long = DEADLINE + Duration::from_secs(seconds);
    for (player, side) in players.iter_mut().zip(sides) {
        let account = player.line_within(long);
        println!("seed {seed}, {side}: {account}");
        let figure = |name: &str| -> u64 {
            let (_, after) = account.split_once(&format!("{name}=")).expect("a figure");
            after.split(' ').next().unwrap().parse().unwrap()
        };
        assert_eq!(figure("lost"), 0, "seed {seed}, {side}: {account}");
        assert_eq!(figure("unexplained"), 0, "seed {seed}, {side}: {account}");
        assert!(figure("rounds") > 0 && figure("held_up") > 0, "{account}");
        // Or the game would show nothing.
        assert!(figure("slept") > figure("rounds") / 4, "{account}");
        assert!(figure("withdrawn") > figure("rounds") / 200, "{account}");
    }
    players.into_iter().for_each(Child::finish);
}

#[derive(Default)]
struct Account {
    rounds: u64,
    /// Waits that announced a sleep, and were not told that something was there already.
    slept: u64,
    /// Sleeps before which a promise not to sleep was taken back.
    withdrawn: u64,
    /// Waits that nobody ended although the ball was there, or room was; again less the time for a processor.
    lost: u64,
    /// The longest wait for a ball.
    longest: Duration,
    /// Of that one, how long either side had to wait for a processor meanwhile.
    queued: [Duration; 2],
    /// Waits for a ball of nearly a second or more, less the time that the two had to wait for a processor.
    unexplained: u64,
    /// The longest that a ball was there before it was caught: what the scheduler takes, above all.
    oldest: Duration,
}

/// What took nearly a second or more, until it is known how long the other side had to wait for a processor. It may have
/// had to after it wrote that into a ball, on its way to wake this side up: it tells with the next one.
#[derive(Clone, Copy)]
struct Suspect {
    is_wait: bool,
    /// Less what this side had to wait for a processor.
    lasted: Duration,
    /// What the other had waited, as it was last told before.
    others: Duration,
}

struct Player {
    balls: RawSubscriber,
    throws: RawPublisher,
    dice: Dice,
    account: Account,
    /// Records since the port last announced a sleep, as far as is known.
    streak: u64,
    queue: RunQueue,
    /// How long either side had waited for a processor when this one last threw, and the other one.
    queued: [Duration; 2],
    suspects: Vec<Suspect>,
}

pub fn player(parent: &mut Parent, args: &[&str]) {
    let [side, dir, rounds, seconds, seed] = args else { panic!("five arguments") };
    let asks = *side == "asks";
    let (rounds, seconds, seed): (u64, u64, u64) =
        (rounds.parse().unwrap(), seconds.parse().unwrap(), seed.parse().unwrap());
    let node = support::bus(dir).join(side).unwrap();
    let (own, others) = if asks { ("ping", "pong") } else { ("pong", "ping") };
    let balls = node.subscriber_builder(others).wait(Wait::Adaptive).open_raw().unwrap();
    let overflow = Overflow::Block { timeout: LIMIT };
    let throws = node.publisher_builder(own).capacity(CAPACITY).overflow(overflow).wait(Wait::Park);
    let throws = throws.open_raw().unwrap();
    throws.wait_for_subscribers(1, DEADLINE).unwrap();
    let dice = Dice::new(seed ^ u64::from(asks));
    let mut player = Player {
        balls,
        throws,
        dice,
        account: Account::default(),
        streak: 0,
        queue: RunQueue::new(),
        queued: [Duration::ZERO; 2],
        suspects: Vec::new(),
    };

    let processors = Processors::new();
    delays::hold_up_at_random();
    let until = Instant::now() + Duration::from_secs(seconds);
    for number in 0..=rounds {
        if player.dice.one_in(64) {
            processors.change(&mut player.dice);
        }
        // The last one says that it is over.
        let over = number == rounds || Instant::now() > until;
        let ball = if over { rounds } else { number };
        if asks {
            player.throw(ball);
            assert_eq!(player.catch(), ball);
        } else {
            let ball = player.catch();
            player.throw(ball);
            if ball == rounds {
                break;
            }
        }
        player.account.rounds += 1;
        if asks && over {
            break;
        }
    }
    let Account { rounds, slept, withdrawn, lost, longest, queued, unexplained, oldest } = player.account;
    let held_up = delays::times_held_up();
    let longest =
        format!("{longest:?} (of these for a processor: {:?}, the other {:?})", queued[0], queued[1]);
    parent.say(&format!(
        "rounds={rounds} slept={slept} withdrawn={withdrawn} held_up={held_up} lost={lost} \
         unexplained={unexplained} longest={longest} oldest={oldest:?}"
    ));
    parent.stay();
}

impl Player {
    fn throw(&mut self, number: u64) {
        delays::pause(&mut self.dice);
        if self.dice.one_in(24) {
            self.publish_burst();
            delays::pause(&mut self.dice);
        }
        self.publish(number);
    }

    fn publish_burst(&mut self) {
        let filler = [FILLER, monotonic_ns(), 0].map(u64::to_ne_bytes).concat();
        if self.dice.one_in(2) {
            let count = BURST + self.dice.below(50);
            self.queued[0] = self.queue.waited();
            let start = Instant::now();
            match self.throws.publish_batch((0..count).map(|_| &filler[..])) {
                Ok(_) | Err(PublishError::Full { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            self.suspect(false, start.elapsed());
        } else {
            (0..BURST).for_each(|_| self.publish(FILLER));
        }
    }

    fn publish(&mut self, number: u64) {
        // Its bytes are on their way for as long as other processors take to give up the lines they go to; what is
        // stored after them, the tail, is seen after them.
        let len = if number == FILLER { HEAD } else { HEAD + self.dice.below(LARGEST) as usize };
        let mut ball = [0; HEAD + LARGEST as usize];
        let ball = &mut ball[..len];
        ball[..8].copy_from_slice(&number.to_ne_bytes());
        if number != FILLER {
            self.queued[0] = self.queue.waited();
            ball[16..HEAD].copy_from_slice(&(self.queued[0].as_nanos() as u64).to_ne_bytes());
        }
        loop {
            ball[8..16].copy_from_slice(&monotonic_ns().to_ne_bytes());
            let start = Instant::now();
            let published = self.throws.publish(ball);
            // The reader does nothing but read while there is something: there was room long before.
            self.suspect(false, start.elapsed());
            match published {
                Err(PublishError::Full { .. }) => {}
                other => return other.unwrap(),
            }
        }
    }

    /// Waits for the next ball, in one of several ways.
    fn catch(&mut self) -> u64 {
        let start = Instant::now();
        let suspects = std::mem::take(&mut self.suspects);
        let ball = self.catch_any(start);
        for Suspect { is_wait, lasted, others } in suspects {
            let count = if is_wait { &mut self.account.unexplained } else { &mut self.account.lost };
            *count += u64::from(lasted >= MISSED + ball.queued.saturating_sub(others));
        }
        self.explain(start.elapsed(), ball.queued);
        ball.number
    }

    /// What took long may have missed something.
    fn suspect(&mut self, is_wait: bool, lasted: Duration) {
        if lasted >= MISSED {
            let lasted = lasted.saturating_sub(self.queue.waited().saturating_sub(self.queued[0]));
            self.suspects.push(Suspect { is_wait, lasted, others: self.queued[1] });
        }
    }

    /// A long wait is explained if the processors were busy with others: the kernel counts that.
    fn explain(&mut self, wait: Duration, thrower: Duration) {
        self.suspect(true, wait);
        let before = std::mem::replace(&mut self.queued[1], thrower);
        if wait > self.account.longest {
            let queued = [self.queue.waited().saturating_sub(self.queued[0]), thrower.saturating_sub(before)];
            (self.account.longest, self.account.queued) = (wait, queued);
        }
    }

    fn catch_any(&mut self, start: Instant) -> Ball {
        loop {
            let caught = match self.dice.below(4) {
                0 => self.receive(),
                _ => self.look_and_sleep(),
            };
            match caught {
                Some(Ball { number: FILLER, .. }) => return self.catch_burst(),
                Some(ball) => {
                    self.account.oldest = self.account.oldest.max(ball.age());
                    return ball;
                }
                None => assert!(start.elapsed() < DEADLINE, "no ball"),
            }
        }
    }

    /// All that comes, without a sleep.
    fn catch_burst(&mut self) -> Ball {
        let start = Instant::now();
        for look in 1_u64.. {
            match self.take() {
                Some(Ball { number: FILLER, .. }) => {}
                Some(ball) => return ball,
                // The thrower may be on this very processor.
                None if look.is_multiple_of(64) => std::thread::yield_now(),
                None => assert!(start.elapsed() < DEADLINE, "no ball"),
            }
        }
        unreachable!()
    }

    fn take(&mut self) -> Option<Ball> {
        let ball = self.balls.try_recv().unwrap().as_deref().map(Ball::open)?;
        self.streak += 1;
        Some(ball)
    }

    /// As the port waits by itself.
    fn receive(&mut self) -> Option<Ball> {
        let start = Instant::now();
        let ball = self.balls.recv_timeout(LIMIT).unwrap().as_deref().map(Ball::open);
        self.streak = 0; // it may have slept
        self.judge(start, ball);
        ball
    }

    /// As event loops wait, with delays between the steps.
    fn look_and_sleep(&mut self) -> Option<Ball> {
        if self.dice.one_in(2) {
            let looked = Instant::now();
            let patience = Duration::from_nanos(self.dice.below(30_000));
            while looked.elapsed() < patience {
                if let Some(ball) = self.take() {
                    return Some(ball);
                }
            }
        } else {
            delays::pause(&mut self.dice);
        }
        let promised = self.streak > BURST;
        self.streak = 0;
        if !self.balls.arm().unwrap() {
            return self.take();
        }
        self.account.slept += 1;
        self.account.withdrawn += u64::from(promised);
        delays::pause(&mut self.dice);
        let start = Instant::now();
        readable(&self.balls, ALONE);
        let ball = self.take();
        self.judge(start, ball);
        ball
    }

    /// Did the wait last although the ball was there?
    fn judge(&mut self, start: Instant, ball: Option<Ball>) {
        if let Some(ball) = ball {
            self.suspect(false, ball.age().min(start.elapsed()));
        }
    }
}

#[derive(Clone, Copy)]
struct Ball {
    number: u64,
    thrown: u64,
    /// How long its thrower had waited for a processor.
    queued: Duration,
}

impl Ball {
    fn open(ball: &[u8]) -> Self {
        let word = |at: usize| u64::from_ne_bytes(ball[at..at + 8].try_into().expect("three words"));
        Self { number: word(0), thrown: word(8), queued: Duration::from_nanos(word(16)) }
    }

    fn age(self) -> Duration {
        Duration::from_nanos(monotonic_ns().saturating_sub(self.thrown))
    }
}

fn readable(port: &impl AsFd, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap();
        match poll(&mut [PollFd::new(port.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) if ready > 0 => return true,
            Ok(_) if left.is_zero() => return false,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}
