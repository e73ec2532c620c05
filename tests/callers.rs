//! A process that calls a node and says nothing, with as many connections as it may have.

use std::io::ErrorKind;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringbus::internals::sys::seqpacket::Socket;

mod support;
use support::stopwatch::Stopwatch;
use support::{Child, DEADLINE, Dir, Parent, eventually};

/// Set: the joins' bound is asserted of each.
const EXACT: &str = "RINGBUS_CALLERS";
/// A join, until the ports of both have met.
const BOUND: Duration = Duration::from_millis(250);

#[test]
fn child() {
    support::play(&[("is called", is_called), ("joins", joins)]);
}

/// Connections of the process that calls and says nothing; fewer where it may not have as many descriptors.
const CALLS: usize = 1500;
/// Fewer than this show nothing: they could all wait to be let in.
const LEAST_CALLS: usize = 300;

#[test]
fn a_process_that_calls_and_says_nothing_keeps_nobody_out_and_is_shown_out() {
    let dir = Dir::new();
    let mut called = Child::start("is called", &[dir.arg()]);
    called.expect("open");
    let before: usize = called.line().parse().unwrap();
    let mut joiner = Child::start("joins", &[dir.arg()]);
    joiner.expect("ready");
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let room = usize::try_from(hard).unwrap_or(usize::MAX).saturating_sub(support::resources().0 + 128);
    let most_calls = CALLS.min(room / 5 * 5);
    if most_calls < CALLS {
        eprintln!("{most_calls} callers instead of {CALLS}: `ulimit -Hn` is {hard}");
    }
    assert!(
        most_calls >= LEAST_CALLS,
        "raise `ulimit -Hn`, which is {hard}, to at least {}",
        LEAST_CALLS + 256
    );
    let socket = dir.path().join("bus").join(&dir.sockets()[0]);
    let mut calls = Vec::new();
    let mut times = Vec::new();
    for round in 1..=5 {
        eventually("it is called", || {
            // Those for which the backlog has no room come later.
            calls.extend(std::iter::from_fn(|| Socket::connect(&socket).ok()).take(most_calls / 5));
            calls.len() >= round * most_calls / 5
        });
        joiner.tell("join");
        times.push(Duration::from_micros(joiner.line().parse().unwrap()));
        called.tell("how many?");
        let more = called.line().parse::<usize>().unwrap().saturating_sub(before);
        // A socket and a pidfd for each of 128 that may wait, and what the one that joins costs.
        assert!(more <= 2 * 128 + 16, "{more} descriptors for {} calls", calls.len());
    }
    support::all_within(BOUND, EXACT, &times);
    let mut buffer = [0; 64];
    eventually("all that said nothing are shown out", || {
        calls.retain(|call| call.recv(&mut buffer).is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
        calls.is_empty()
    });
    println!("beside {most_calls} callers that say nothing, a join took {}", support::figures(&mut times));
    called.tell("how many?");
    assert!(called.line().parse::<usize>().unwrap() <= before + 16);
    called.finish();
    joiner.finish();
}

fn is_called(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("called").unwrap();
    let _subscriber = node.raw_subscriber("t").unwrap();
    parent.say("open");
    parent.say(&support::resources().0.to_string());
    while let Some(_question) = parent.listen() {
        parent.say(&support::resources().0.to_string());
    }
}

fn joins(parent: &mut Parent, args: &[&str]) {
    let bus = support::bus(args[0]);
    parent.say("ready");
    while let Some(_word) = parent.listen() {
        let start = Stopwatch::start();
        let node = bus.join("joiner").unwrap();
        let publisher = node.publisher::<u64>("t").unwrap();
        publisher.wait_for_subscribers(1, DEADLINE).unwrap();
        parent.say(&start.took(BOUND).as_micros().to_string());
    }
}
