//! Starts one victim after the other, as it is told, and kills each at the instruction that it is told.
//!
//! In a process of its own, of one thread: it forks them.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::AROUND;
use super::support::Parent;
use super::tracer::{self, Stop, Tracee};
use super::victims::{self, Victim};

/// Which instruction.
#[derive(Debug, Clone, Copy)]
pub enum At<'a> {
    /// So many instructions of the main thread after the mark.
    Step(u64),
    /// So many instructions before (or after) the system call at the end of this gap.
    Near(&'a Gap, i64),
}

/// What a thread does from one system call to the next, its so-manieth after the mark.
#[derive(Debug, Default)]
pub struct Gap {
    thread: usize,
    call: usize,
    /// Where it is in the call.
    place: u64,
    /// Where it is after each instruction, until it is before the call.
    places: Vec<u64>,
    short: Shortcut,
}

/// The way to the last instructions of a gap: run until this address is met for the so-manieth time, which is after so
/// many instructions.
#[derive(Debug, Clone, Copy, Default)]
struct Shortcut {
    address: u64,
    times: u64,
    after: usize,
}

pub fn plays(parent: &mut Parent, args: &[&str]) {
    tracer::stay_on_one_processor();
    let dir = args[0];
    let mut way = Gap::default();
    parent.say("ready");
    while let Some(line) = parent.listen() {
        let mut words = line.split(' ');
        let (how, case) = (words.next().unwrap(), words.next().unwrap());
        let mut number = || -> i64 { words.next().unwrap().parse().unwrap() };
        let reply = match how {
            "step" => killed(dir, case, At::Step(number() as u64)),
            "near" => killed(dir, case, At::Near(&way, number())),
            "after" => killed_after(dir, case, Duration::from_micros(number() as u64)),
            "calls" => calls(dir, case),
            "gap" => {
                way = gap(dir, case, number() as usize, number() as usize, number() as u64);
                way.places.len().to_string()
            }
            other => panic!("{other}?"),
        };
        parent.say(&reply);
    }
}

/// A victim at its mark, and the pipe on which it tells what was acknowledged.
fn start(dir: &str, case: &str, all_threads: bool) -> (Tracee, std::io::PipeReader) {
    let (told, tells) = std::io::pipe().expect("a pipe");
    let tracee = Tracee::start(all_threads, case == "serve", move || {
        victims::play(case, &mut Victim::new(dir, tells))
    });
    (tracee, told)
}

/// `over there acknowledged made`: whether it had come to its end before, whether it was at the very instruction, how
/// many bytes it had written, and how many instructions it made from the mark, where they are all that counts.
fn killed(dir: &str, case: &str, at: At) -> String {
    let (mut tracee, mut told) = start(dir, case, matches!(at, At::Near(..)));
    let (mut made, mut there) = (0, true);
    let over = match at {
        At::Step(count) => {
            while made < count && steps(&mut tracee, 0, 1) {
                made += 1;
            }
            made < count
        }
        At::Near(gap, offset) if offset <= 0 => {
            let before = gap.places.len().saturating_sub(offset.unsigned_abs() as usize);
            let arrived = run_to_gap(&mut tracee, gap.thread, gap.call)
                && jump(&mut tracee, gap)
                && steps(&mut tracee, gap.thread, (before - gap.short.after) as u64);
            there = before == 0 || tracee.place(gap.thread) == gap.places[before - 1];
            !arrived
        }
        At::Near(gap, offset) => {
            let arrived = run_to_exit(&mut tracee, gap.thread, gap.call);
            there = tracee.place(gap.thread) == gap.place;
            !arrived || !steps(&mut tracee, gap.thread, offset as u64)
        }
    };
    tracee.kill();
    let mut acknowledged = Vec::new();
    told.read_to_end(&mut acknowledged).expect("read");
    format!("{} {} {} {made}", u8::from(over), u8::from(there && !over), acknowledged.len())
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

/// Has a stopped thread make so many steps; false if the end came first. The main thread's mark is the end of what the
/// others do only if they do no more for a while.
fn steps(tracee: &mut Tracee, thread: usize, count: u64) -> bool {
    for _ in 0..count {
        tracee.step(thread);
        loop {
            match tracee.next() {
                None => return false,
                Some((0, Stop::Mark)) if thread == 0 => return false,
                Some((0, Stop::Mark)) => {}
                Some((stopped, Stop::Step)) if stopped == thread => break,
                Some((stopped, _)) => tracee.go_on(stopped),
            }
        }
    }
    true
}

/// Runs from the mark to the stop of the thread after which it makes its so-manieth call.
fn run_to_gap(tracee: &mut Tracee, thread: usize, call: usize) -> bool {
    run(tracee, thread, |stopped, entries, stop| {
        stopped == thread && entries == call && matches!(stop, Stop::Exit | Stop::Birth | Stop::Mark)
    })
}

fn run_to_exit(tracee: &mut Tracee, thread: usize, call: usize) -> bool {
    run(tracee, thread, |stopped, entries, stop| {
        stopped == thread && entries == call + 1 && stop == Stop::Exit
    })
}

/// Runs from the mark, all threads, until a thread that has made so many calls stops so; false at the end of what
/// `whose` thread does.
fn run(tracee: &mut Tracee, whose: usize, is_there: impl Fn(usize, usize, Stop) -> bool) -> bool {
    let mut entries = BTreeMap::<usize, usize>::new();
    if is_there(0, 0, Stop::Mark) {
        return true;
    }
    tracee.go_on(0);
    loop {
        let Some((thread, stop)) = tracee.next() else { return false };
        if (thread, stop) == (0, Stop::Mark) {
            if whose == 0 {
                return false;
            }
            continue;
        }
        let made = entries.entry(thread).or_default();
        *made += usize::from(stop == Stop::Entry);
        if is_there(thread, *made, stop) {
            return true;
        }
        tracee.go_on(thread);
    }
}

/// The system calls of each thread from mark to mark: `thread:place,place… thread:…`.
fn calls(dir: &str, case: &str) -> String {
    let (mut tracee, _told) = start(dir, case, true);
    let mut places = BTreeMap::<usize, Vec<u64>>::new();
    tracee.go_on(0);
    while let Some((thread, stop)) = tracee.next() {
        match stop {
            Stop::Mark if case == "serve" => break, // it would go on
            Stop::Mark => continue,
            Stop::Entry => places.entry(thread).or_default().push(tracee.place(thread)),
            _ => {}
        }
        tracee.go_on(thread);
    }
    tracee.kill();
    let of = |(thread, places): (&usize, &Vec<u64>)| {
        let places: Vec<_> = places.iter().map(u64::to_string).collect();
        format!("{thread}:{}", places.join(","))
    };
    places.iter().map(of).collect::<Vec<_>>().join(" ")
}

/// Brings a thread to the end of the short way; or to its next system call, should it take another. False if the end
/// came first.
fn jump(tracee: &mut Tracee, gap: &Gap) -> bool {
    let (thread, Shortcut { address, times, .. }) = (gap.thread, gap.short);
    tracee.stop_at(thread, (times > 0).then_some(address));
    for _ in 0..times {
        tracee.go_on(thread);
        loop {
            match tracee.next() {
                None => return false,
                Some((0, Stop::Mark)) if thread == 0 => return false,
                Some((0, Stop::Mark)) => {}
                Some((stopped, Stop::Entry)) if stopped == thread => return true,
                Some((stopped, Stop::Step)) if stopped == thread => break,
                Some((stopped, _)) => tracee.go_on(stopped),
            }
        }
    }
    tracee.stop_at(thread, None);
    true
}

/// The way of the thread to that call; of no length if it did not get there.
fn gap(dir: &str, case: &str, thread: usize, call: usize, place: u64) -> Gap {
    const MOST: usize = 200_000;
    let (mut tracee, _told) = start(dir, case, true);
    let mut places = Vec::new();
    if run_to_gap(&mut tracee, thread, call) {
        while places.len() < MOST && steps(&mut tracee, thread, 1) {
            let here = tracee.place(thread);
            if here == place {
                break;
            }
            places.push(here);
        }
    }
    tracee.kill();
    Gap { thread, call, place, short: shortest(&places), places }
}

/// Of the ways to the last instructions of a gap, the one with the fewest stops.
fn shortest(places: &[u64]) -> Shortcut {
    let mut best = Shortcut::default();
    let mut met = HashMap::<u64, u64>::new();
    for (address, after) in places.iter().zip(1..=places.len().saturating_sub(AROUND as usize)) {
        let times = met.entry(*address).or_default();
        *times += 1;
        if *times + (best.after as u64) < best.times + after as u64 {
            best = Shortcut { address: *address, times: *times, after };
        }
    }
    best
}
