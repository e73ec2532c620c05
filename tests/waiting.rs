//! How ports wait: in time, without a lost wake-up, by `poll` as well, and at no cost while idle.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use ringbus::{RawPublisher, RawSubscriber, Wait};

mod support;
use support::{Child, DEADLINE, Dir, Parent, eventually};

const STRATEGIES: [Wait; 3] = [Wait::Spin, Wait::Adaptive, Wait::Park];

/// For a thread that looks all the time, beside others that do. How late a wait is that has a processor: `wakeups`.
const LATE: Duration = Duration::from_secs(10);

/// Not a test of its own but the second process of those here: does nothing unless one of them started it.
#[test]
fn child() {
    support::play(&[("echoes", echoes), ("polls and echoes", polls_and_echoes), ("idles", idles)]);
}

#[test]
fn recv_timeout_returns_none_never_early_and_not_much_late() {
    let dir = Dir::new();
    let node = dir.join("node");
    for wait in STRATEGIES {
        // Once with nothing attached, once with a publisher that is silent.
        let mut subscriber = node.subscriber_builder("t").wait(wait).open::<u32>().unwrap();
        for _ in 0..2 {
            for timeout in [0, 1, 30, 200].map(Duration::from_millis) {
                let start = Instant::now();
                assert!(subscriber.recv_timeout(timeout).unwrap().is_none());
                let took = start.elapsed();
                let late = timeout + LATE;
                assert!((timeout..late).contains(&took), "{took:?} with {wait:?}");
            }
            if subscriber.stats().peers == 0 {
                let mut publisher = node.publisher::<u32>("t").unwrap();
                publisher.publish(&1).unwrap();
                assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), 1);
                std::mem::forget(publisher); // it stays open to the end
            }
        }
    }
}

#[test]
fn a_wait_that_is_far_from_its_end_is_ended_by_a_message() {
    let dir = Dir::new();
    let node = dir.join("node");
    for wait in STRATEGIES {
        let mut subscriber = node.subscriber_builder("t").wait(wait).open::<u32>().unwrap();
        let mut publisher = node.publisher::<u32>("t").unwrap();
        std::thread::scope(|scope| {
            // Longer than any clock can tell: no deadline at all.
            scope.spawn(move || {
                for value in 0..100 {
                    let message = subscriber.recv_timeout(Duration::MAX).unwrap();
                    assert_eq!(*message.expect("a message"), value);
                }
            });
            (0..100).for_each(|value| publisher.publish(&value).unwrap());
        });
    }
}

/// Whether the port's fd is readable, now or before the timeout.
fn readable(port: &impl AsFd, timeout: PollTimeout) -> bool {
    poll(&mut [PollFd::new(port.as_fd(), PollFlags::POLLIN)], timeout).unwrap() > 0
}

fn deadline() -> PollTimeout {
    PollTimeout::try_from(DEADLINE).unwrap()
}

/// Arms a port that has nothing; tries again after wake-ups for nothing.
#[track_caller]
fn arm_empty(port: &mut RawSubscriber) {
    eventually("the port has nothing", || {
        assert!(port.try_recv().unwrap().is_none());
        port.arm().unwrap()
    });
}

#[test]
fn an_armed_port_turns_readable_with_the_next_message() {
    let dir = Dir::new();
    let (one, other) = (dir.join("publisher"), dir.join("subscriber"));
    let mut subscriber = other.raw_subscriber("t").unwrap();
    let mut publisher = one.raw_publisher("t").unwrap();
    for round in 0..100_u8 {
        arm_empty(&mut subscriber);
        publisher.publish(&[round]).unwrap();
        // It may be readable for nothing in between, so: until the message is there.
        loop {
            assert!(readable(&subscriber, deadline()), "round {round}");
            if let Some(sample) = subscriber.try_recv().unwrap() {
                break assert_eq!(*sample, [round]);
            }
            subscriber.arm().unwrap();
        }
    }
}

#[test]
fn a_port_that_has_something_does_not_arm() {
    let dir = Dir::new();
    let node = dir.join("node");
    let mut subscriber = node.raw_subscriber("t").unwrap();
    let mut publisher = node.raw_publisher("t").unwrap();
    publisher.publish(b"1").unwrap();
    publisher.publish(b"2").unwrap();
    eventually("the first message is there", || subscriber.try_recv().unwrap().is_some());
    for _ in 0..3 {
        assert!(!subscriber.arm().unwrap(), "the second message is there");
    }
    assert_eq!(*subscriber.try_recv().unwrap().expect("the second message"), *b"2");
    assert!(subscriber.try_recv().unwrap().is_none());
    arm_empty(&mut subscriber);
}

#[test]
fn a_burst_rings_a_sleeper_once() {
    let dir = Dir::new();
    let (one, other) = (dir.join("publisher"), dir.join("subscriber"));
    let mut subscriber = other.raw_subscriber("t").unwrap();
    let mut publisher = one.raw_publisher("t").unwrap();
    publisher.publish(b"first").unwrap();
    assert!(subscriber.recv_timeout(DEADLINE).unwrap().is_some());
    for _ in 0..20 {
        arm_empty(&mut subscriber);
        (0..50).for_each(|_| publisher.publish(b"burst").unwrap());
        let mut rings = [0; 8];
        nix::unistd::read(subscriber.as_fd(), &mut rings).unwrap();
        assert_eq!(u64::from_ne_bytes(rings), 1, "writes to the bell");
        (0..50).for_each(|_| assert!(subscriber.try_recv().unwrap().is_some()));
        // Awake, it is not rung at all.
        (0..50).for_each(|_| publisher.publish(b"more").unwrap());
        assert!(!readable(&subscriber, PollTimeout::ZERO));
        (0..50).for_each(|_| assert!(subscriber.try_recv().unwrap().is_some()));
    }
}

#[test]
fn a_quiet_armed_port_settles_to_unreadable() {
    let dir = Dir::new();
    let node = dir.join("node");
    let mut subscriber = node.raw_subscriber("t").unwrap();
    let _publisher = node.raw_publisher("t").unwrap();
    eventually("armed, and unreadable for a while", || {
        arm_empty(&mut subscriber);
        !readable(&subscriber, PollTimeout::from(20_u8))
    });
}

#[test]
fn one_poll_waits_for_several_ports() {
    let dir = Dir::new();
    let node = dir.join("node");
    let mut ports: Vec<_> =
        (0..8).map(|number| node.raw_subscriber(&format!("port/{number}")).unwrap()).collect();
    let mut publisher = node.raw_publisher("port/*").unwrap();
    for round in 0..40 {
        ports.iter_mut().for_each(arm_empty);
        let chosen = round * 3 % ports.len();
        publisher.publish_to(&format!("port/{chosen}"), b"x").unwrap();
        let received = loop {
            let mut fds: Vec<_> =
                ports.iter().map(|port| PollFd::new(port.as_fd(), PollFlags::POLLIN)).collect();
            assert!(poll(&mut fds, deadline()).unwrap() > 0, "round {round}");
            let ready: Vec<_> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
            let ready = (0..ports.len()).filter(|index| ready[*index]).collect::<Vec<_>>();
            let found = ready.iter().find(|index| ports[**index].try_recv().unwrap().is_some());
            if let Some(found) = found {
                break *found;
            }
            for port in &mut ports {
                port.arm().unwrap();
            }
        };
        assert_eq!(received, chosen);
    }
}

const ROUND_TRIPS: u32 = 20_000;

#[test]
fn no_wake_up_is_lost_in_parked_round_trips() {
    round_trips("echoes", Wait::Park);
}

#[test]
fn no_wake_up_is_lost_in_adaptive_round_trips() {
    round_trips("echoes", Wait::Adaptive);
}

#[test]
fn no_wake_up_is_lost_in_polled_round_trips() {
    round_trips("polls and echoes", Wait::Park);
}

fn round_trips(role: &str, wait: Wait) {
    let dir = Dir::new();
    let node = dir.join("asks");
    let mut answers = node.subscriber_builder("answer").wait(wait).open_raw().unwrap();
    let mut other = Child::start(role, &[dir.arg(), &format!("{wait:?}")]);
    other.expect("open");
    let mut questions = node.raw_publisher("question").unwrap();
    for number in 0..ROUND_TRIPS {
        questions.publish(&number.to_le_bytes()).unwrap();
        let answer = answers.recv_timeout(DEADLINE).unwrap();
        let answer = answer.unwrap_or_else(|| panic!("no answer to {number}"));
        assert_eq!(*answer, number.to_le_bytes());
    }
    other.finish();
}

fn open_echo(args: &[&str]) -> (RawSubscriber, RawPublisher) {
    let node = support::bus(args[0]).join("answers").unwrap();
    let wait = STRATEGIES.into_iter().find(|wait| format!("{wait:?}") == args[1]).unwrap();
    let questions = node.subscriber_builder("question").wait(wait).open_raw().unwrap();
    (questions, node.raw_publisher("answer").unwrap())
}

fn echoes(parent: &mut Parent, args: &[&str]) {
    let (mut questions, mut answers) = open_echo(args);
    parent.say("open");
    for number in 0..ROUND_TRIPS {
        let question = questions.recv_timeout(DEADLINE).unwrap();
        answers.publish(&question.unwrap_or_else(|| panic!("no question {number}"))).unwrap();
    }
}

fn polls_and_echoes(parent: &mut Parent, args: &[&str]) {
    let (mut questions, mut answers) = open_echo(args);
    parent.say("open");
    let mut number = 0;
    while number < ROUND_TRIPS {
        if let Some(question) = questions.try_recv().unwrap() {
            answers.publish(&question).unwrap();
            number += 1;
        } else if questions.arm().unwrap() {
            assert!(readable(&questions, deadline()), "no question {number}");
        }
    }
}

#[test]
fn an_idle_parked_subscriber_uses_no_cpu() {
    let dir = Dir::new();
    let mut child = Child::start("idles", &[dir.arg()]);
    child.expect("idle");
    child.finish();
}

/// Alone in its process, so that nothing else is counted.
fn idles(parent: &mut Parent, args: &[&str]) {
    let bus = support::bus(args[0]);
    let (one, other) = (bus.join("publisher").unwrap(), bus.join("subscriber").unwrap());
    for wait in [Wait::Park, Wait::Adaptive] {
        let mut subscriber = other.subscriber_builder("t").wait(wait).open::<u32>().unwrap();
        let mut publisher = one.publisher::<u32>("t").unwrap();
        publisher.publish(&1).unwrap();
        assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), 1);
        let before = cpu();
        assert!(subscriber.recv_timeout(Duration::from_secs(1)).unwrap().is_none());
        let used = cpu() - before;
        assert!(used < Duration::from_millis(50), "{used:?} of a second with {wait:?}");
    }
    parent.say("idle");
}

/// Processor time of this process, all threads.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    Duration::from_micros((usage.user_time() + usage.system_time()).num_microseconds() as u64)
}
