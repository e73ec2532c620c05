//! Starts one victim after the other, as it is told, and kills each at the instruction that it is told.
//!
//! In a process of its own, of one thread: it forks them.

use std::collections::BTreeMap;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::support::Parent;
use super::tracer::{self, Sees, Stop, Tracee};
use super::victims::{self, Victim};
use super::ways::{Arrival, Way, follow, step};

/// Which instruction.
#[derive(Debug, Clone, Copy)]
pub enum At<'a> {
    /// So many instructions of the main thread after the mark.
    Step(u64),
    /// So many instructions before (or after) the system call in the middle of this way, when some thread has gone there
    /// so many times before.
    Near(&'a Way, i64, u64),
}

pub fn plays(parent: &mut Parent, args: &[&str]) {
    tracer::stay_on_one_processor();
    let dir = args[0];
    let mut way = Way::default();
    parent.say("ready");
    while let Some(line) = parent.listen() {
        let mut words = line.split(' ');
        let (how, case) = (words.next().unwrap(), words.next().unwrap());
        let mut number = || -> i64 { words.next().unwrap().parse().unwrap() };
        let reply = match how {
            "step" => killed(dir, case, At::Step(number() as u64)),
            "near" => killed(dir, case, At::Near(&way, number(), number() as u64)),
            "after" => killed_after(dir, case, Duration::from_micros(number() as u64)),
            "calls" => calls(dir, case),
            "way" => {
                way = find(dir, case, number() as usize, number() as usize);
                way.name()
            }
            other => panic!("{other}?"),
        };
        parent.say(&reply);
    }
}

/// A victim at its mark, and the pipe on which it tells what was acknowledged.
fn start(dir: &str, case: &str, sees: Sees, place: Option<u64>) -> (Tracee, std::io::PipeReader) {
    let (told, tells) = std::io::pipe().expect("a pipe");
    let tracee = Tracee::start(sees, place, case == "serve", move || {
        victims::play(case, &mut Victim::new(dir, tells))
    });
    (tracee, told)
}

/// `over there acknowledged made`: whether it had come to its end before, whether it was at the very instruction, how
/// many bytes it had written, and how many instructions it made from the mark, where they are all that counts.
fn killed(dir: &str, case: &str, at: At) -> String {
    let (tracee, mut told, end, made) = match at {
        At::Step(count) => {
            let (mut tracee, told) = start(dir, case, Sees::MainThread, None);
            let made = (0..count).take_while(|_| step(&mut tracee, 0)).count() as u64;
            (tracee, told, if made < count { Arrival::Over } else { Arrival::There }, made)
        }
        At::Near(way, offset, before) => {
            let trail = way.to(offset);
            let (mut tracee, told) = start(dir, case, Sees::AllThreads, trail.first().copied());
            let end = follow(&mut tracee, trail, before);
            (tracee, told, end, 0)
        }
    };
    tracee.kill();
    let mut acknowledged = Vec::new();
    told.read_to_end(&mut acknowledged).expect("read");
    let (over, there) = (u8::from(end == Arrival::Over), u8::from(end == Arrival::There));
    format!("{over} {there} {} {made}", acknowledged.len())
}

/// A victim that is killed this long after its start, untraced.
fn killed_after(dir: &str, case: &str, time: Duration) -> String {
    let (mut told, tells) = std::io::pipe().expect("a pipe");
    let start = Instant::now();
    // SAFETY: this process has one thread, so its child may do whatever it likes.
    let victim = match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => {
            drop(tells);
            child
        }
        ForkResult::Child => {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).expect("prctl");
            let _ = catch_unwind(AssertUnwindSafe(move || victims::play(case, &mut Victim::new(dir, tells))));
            // SAFETY: ends the process, of which nothing else is left to do.
            unsafe { nix::libc::_exit(101) }
        }
    };
    std::thread::sleep(time.saturating_sub(start.elapsed()));
    kill(victim, Signal::SIGKILL).expect("kill");
    let status = waitpid(victim, None).expect("wait");
    assert_eq!(status, WaitStatus::Signaled(victim, Signal::SIGKILL, false), "it has failed before");
    let mut acknowledged = Vec::new();
    told.read_to_end(&mut acknowledged).expect("read");
    format!("0 1 {} 0", acknowledged.len())
}

/// How many system calls each thread makes from mark to mark: `thread:calls thread:calls …`.
fn calls(dir: &str, case: &str) -> String {
    let (mut tracee, _told) = start(dir, case, Sees::SystemCalls, None);
    let mut calls = BTreeMap::<usize, usize>::new();
    tracee.go_on(0);
    while let Some((thread, stop)) = tracee.next() {
        match stop {
            Stop::Mark if case == "serve" => break, // it would go on
            Stop::Mark => continue,
            Stop::Entry => *calls.entry(thread).or_default() += 1,
            _ => {}
        }
        tracee.go_on(thread);
    }
    tracee.kill();
    calls.iter().map(|(thread, calls)| format!("{thread}:{calls}")).collect::<Vec<_>>().join(" ")
}

/// The way of the thread through that call; of no length if it did not get there.
fn find(dir: &str, case: &str, thread: usize, call: usize) -> Way {
    let (mut tracee, _told) = start(dir, case, Sees::SystemCalls, None);
    let way = Way::record(&mut tracee, thread, call);
    tracee.kill();
    way
}
