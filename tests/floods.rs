//! A subscriber that never reads, and whose process is stopped, beside pairs that are measured.
//!
//! A flood goes to it, or to nobody, in turn: what else the flood costs, it costs in both.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use ringbus::internals::sys::seqpacket::Socket;
use ringbus::{Overflow, Wait};

mod support;
use support::{Child, DEADLINE, Dir, Parent, eventually};

/// How often each of the two is measured; the bound is asserted in this, the long form.
const WINDOWS: &str = "RINGBUS_FLOODS";
const WINDOW: Duration = Duration::from_millis(100);
/// By how much the throughput of others may fall, in percent: in the long form, and beside other tests.
const FALLS_BY: [f64; 2] = [5.0, 50.0];

#[test]
fn child() {
    support::play(&[("never reads", never_reads), ("is called", is_called), ("joins", joins)]);
}

fn never_reads(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("never-reads").unwrap();
    let _subscriber = node.raw_subscriber("flood/stalled").unwrap();
    parent.say("open");
    parent.stay();
}

#[test]
fn a_flood_to_a_stopped_subscriber_takes_little_from_other_pairs() {
    let windows = support::count(WINDOWS, 10);
    let dir = Dir::new();
    let (one, other) = (dir.join("one"), dir.join("other"));
    let mut child = Child::start("never reads", &[dir.arg()]);
    child.expect("open");
    let flood = |topic| {
        // One that drops what has no room: what its policy costs is its own.
        let builder = one.publisher_builder(topic).overflow(Overflow::DropNewest);
        builder.open_raw().unwrap()
    };
    let mut floods = [flood("flood/nobody"), flood("flood/stalled")];
    floods[1].wait_for_subscribers(1, DEADLINE).unwrap();
    child.signal(Signal::SIGSTOP);

    // The measured pair, of the same node: one message there and back.
    let mut there = one.publisher::<u64>("there").unwrap();
    let mut at_other = other.subscriber_builder("there").wait(Wait::Park).open::<u64>().unwrap();
    let mut back = other.publisher::<u64>("back").unwrap();
    let mut at_one = one.subscriber_builder("back").wait(Wait::Park).open::<u64>().unwrap();
    there.wait_for_subscribers(1, DEADLINE).unwrap();
    back.wait_for_subscribers(1, DEADLINE).unwrap();

    let (is_over, to) = (AtomicBool::new(false), AtomicUsize::new(0));
    let flooded = [AtomicU64::new(0), AtomicU64::new(0)];
    let mut rates: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    thread::scope(|scope| {
        scope.spawn(|| {
            while let Some(message) = at_other.recv_timeout(Duration::from_millis(100)).transpose() {
                let Ok(message) = message else { return };
                if back.publish(&message).is_err() {
                    return;
                }
            }
        });
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                let to = to.load(Relaxed);
                for _ in 0..100 {
                    floods[to].publish(&[7; 1000]).unwrap();
                }
                flooded[to].fetch_add(100, Relaxed);
                thread::sleep(Duration::from_micros(500));
            }
        });
        let mut value = 0;
        for window in 0..2 * windows {
            to.store(window % 2, Relaxed);
            let (start, first) = (Instant::now(), value);
            while start.elapsed() < WINDOW {
                there.publish(&value).unwrap();
                assert_eq!(*at_one.recv_timeout(DEADLINE).unwrap().expect("it comes back"), value);
                value += 1;
            }
            rates[window % 2].push((value - first) as f64 / start.elapsed().as_secs_f64());
        }
        is_over.store(true, Relaxed);
    });
    let dropped = floods[1].stats().dropped;
    let flooded = flooded.map(AtomicU64::into_inner);
    assert!(floods[0].stats().dropped == 0 && dropped > flooded[1] / 2, "{dropped} of {flooded:?}");
    child.signal(Signal::SIGCONT);
    eventually("the other goes on", || one.peers().iter().any(|peer| !peer.is_stalled()));

    let median = |rates: &mut Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    let medians = rates.each_mut().map(median);
    let falls_by = (1.0 - medians[1] / medians[0]) * 100.0;
    println!(
        "{windows} windows each: {:.0} round trips/s beside a flood to nobody, {:.0} beside one to a stopped reader: {falls_by:.1} % less; {dropped} dropped",
        medians[0], medians[1]
    );
    let most = FALLS_BY[usize::from(std::env::var_os(WINDOWS).is_none())];
    assert!(falls_by < most, "by {falls_by:.1} %: {rates:?}");
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
    // The other test of this process needs some, too.
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
    support::all_within(Duration::from_millis(250), WINDOWS, &times);
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
        let start = Instant::now();
        let node = bus.join("joiner").unwrap();
        let publisher = node.publisher::<u64>("t").unwrap();
        publisher.wait_for_subscribers(1, DEADLINE).unwrap();
        parent.say(&start.elapsed().as_micros().to_string());
    }
}
