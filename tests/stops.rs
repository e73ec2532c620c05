//! Processes that are stopped, for a moment or for long: they come back as they were, and hold nobody up.
//!
//! The bounds are those of docs/reliability.md.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringbus::{Node, NodeId, PeerChange, Presence, Publisher, Subscriber, Wait};

mod support;
use support::stopwatch::Stopwatch;
use support::{Child, DEADLINE, Dir, Parent, all_within, figures};

/// How many short stops there are, how many that others are told of, and how long the longest is.
const STOPS: &str = "RINGBUS_STOPS";
const STALLS: &str = "RINGBUS_STALLS";
const SECONDS: &str = "RINGBUS_STOP_SECONDS";
/// A join and the opening of a port beside a stopped node.
const NOT_HELD_UP: Duration = Duration::from_millis(250);

#[test]
fn child() {
    support::play(&[("echoes", echoes)]);
}

/// Sends back what it is sent: all of it, and in order.
fn echoes(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("echo").unwrap();
    let mut there = node.subscriber_builder("there").wait(Wait::Park).open::<u64>().unwrap();
    let mut back = node.publisher::<u64>("back").unwrap();
    parent.say("open");
    for value in 0.. {
        let message = there.recv().unwrap();
        assert_eq!(*message, value);
        back.publish(&message).unwrap();
    }
}

/// A process that echoes, and a node that sends to it throughout.
struct Stage {
    dir: Dir,
    node: Node,
    presence: Presence,
    there: Publisher<u64>,
    back: Subscriber<u64>,
    echo: Child,
    id: NodeId,
    /// Sent, and received.
    counts: [u64; 2],
    joins: Vec<Duration>,
    opens: Vec<Duration>,
}

impl Stage {
    fn new() -> Self {
        let dir = Dir::new();
        let node = dir.join("survivor");
        let mut presence = node.presence().unwrap();
        let (there, back) = (node.publisher("there").unwrap(), node.subscriber("back").unwrap());
        let mut echo = Child::start("echoes", &[dir.arg()]);
        echo.expect("open");
        let Some(PeerChange::Joined(peer)) = presence.recv_timeout(DEADLINE).unwrap() else {
            panic!("no join")
        };
        there.wait_for_subscribers(1, DEADLINE).unwrap();
        let (id, joins, opens) = (peer.id(), Vec::new(), Vec::new());
        Self { dir, node, presence, there, back, echo, id, counts: [0; 2], joins, opens }
    }

    fn send(&mut self) {
        self.there.publish(&self.counts[0]).unwrap();
        self.counts[0] += 1;
    }

    /// All that was sent has come back, once and in order.
    #[track_caller]
    fn all_comes_back(&mut self) {
        while self.counts[1] < self.counts[0] {
            let message = self.back.recv_timeout(DEADLINE).unwrap().expect("what was sent comes back");
            assert_eq!(*message, self.counts[1]);
            self.counts[1] += 1;
        }
        assert!(self.back.try_recv().unwrap().is_none());
    }

    /// Joins, opens and sends beside the stopped process.
    fn goes_on(&mut self) {
        self.send();
        let start = Stopwatch::start();
        let joined = self.dir.join("joins");
        self.joins.push(start.took(NOT_HELD_UP));
        for node in [&self.node, &joined] {
            let start = Stopwatch::start();
            let (port, other) = (node.raw_publisher("other").unwrap(), node.raw_subscriber("there").unwrap());
            self.opens.push(start.took(2 * NOT_HELD_UP) / 2);
            drop((port, other));
        }
        self.send();
        assert!(self.node.peers().iter().any(|peer| peer.id() == self.id), "a stopped node is there");
    }

    /// Stops the process for this long.
    fn stop_for(&mut self, time: Duration, mut meanwhile: impl FnMut(&mut Self)) {
        let pid = Pid::from_raw(self.echo.pid());
        thread::scope(|scope| {
            self.echo.signal(Signal::SIGSTOP);
            scope.spawn(move || {
                thread::sleep(time);
                kill(pid, Signal::SIGCONT).unwrap();
            });
            meanwhile(self);
        });
    }

    /// What is told next of the process; others that come and go are passed over.
    fn next_change(&mut self, timeout: Duration) -> Option<PeerChange> {
        let deadline = Instant::now() + timeout;
        loop {
            let change =
                self.presence.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap()?;
            if change.peer().id() == self.id {
                return Some(change);
            }
        }
    }

    #[track_caller]
    fn stalls(&mut self) {
        let change = self.next_change(DEADLINE);
        assert!(matches!(change, Some(PeerChange::Stalled(_))), "{change:?}");
    }

    #[track_caller]
    fn recovers(&mut self) {
        self.recovers_by(None);
    }

    /// The same if that may have been told already.
    #[track_caller]
    fn recovers_by(&mut self, told: Option<PeerChange>) {
        let change = told.or_else(|| self.next_change(DEADLINE));
        assert!(matches!(change, Some(PeerChange::Recovered(_))), "{change:?}");
        self.send();
        self.all_comes_back();
    }

    #[track_caller]
    fn holds_nobody_up(mut self, count: &str, what: &str) {
        let change = self.next_change(Duration::ZERO);
        assert!(change.is_none(), "{change:?}");
        assert!(self.node.refused().is_empty());
        assert_eq!((self.there.stats().peers, self.back.stats().peers), (1, 1));
        let sent = self.counts[0];
        println!(
            "{what}: joins {}, opens {}, {sent} echoed",
            figures(&mut self.joins),
            figures(&mut self.opens)
        );
        all_within(NOT_HELD_UP, count, &self.joins);
        all_within(NOT_HELD_UP, count, &self.opens);
    }
}

#[test]
fn short_stops_are_not_even_noticed() {
    let stops = support::count(STOPS, 30);
    let mut stage = Stage::new();
    for stop in 0..stops {
        stage.stop_for(Duration::from_millis(1 + stop as u64 % 50), Stage::goes_on);
        stage.all_comes_back();
    }
    stage.holds_nobody_up(STOPS, &format!("{stops} stops of 1 to 50 ms"));
}

#[test]
fn stops_past_the_threshold_are_told_and_over_when_the_process_goes_on() {
    let stops = support::count(STALLS, 1);
    let mut stage = Stage::new();
    for _ in 0..stops {
        stage.echo.signal(Signal::SIGSTOP);
        stage.goes_on();
        stage.stalls();
        stage.goes_on();
        stage.echo.signal(Signal::SIGCONT);
        stage.recovers();
    }
    stage.holds_nobody_up(STALLS, &format!("{stops} stops past the threshold"));
}

#[test]
fn a_long_stop_is_no_death() {
    let seconds = support::count(SECONDS, 8);
    let mut stage = Stage::new();
    let until = Instant::now() + Duration::from_secs(seconds as u64);
    let mut recovered = None; // before it is asked for, on a host that stands still for long
    stage.stop_for(until - Instant::now(), |stage| {
        stage.stalls();
        while recovered.is_none() && Instant::now() + Duration::from_secs(1) < until {
            stage.goes_on();
            recovered = stage.next_change(Duration::from_millis(200));
            assert!(recovered.is_none() || Instant::now() >= until, "{recovered:?}");
        }
    });
    stage.recovers_by(recovered);
    stage.holds_nobody_up(SECONDS, &format!("a stop of {seconds} s"));
}
