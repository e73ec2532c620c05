//! Processes that are killed at each instruction in turn, around each system call, and at random times: nobody else
//! is harmed, and what was acknowledged arrives once, in order.
//!
//! The tests look at some points, others each time. `RINGBUS_TEST_EVERY=1` looks at all of them, with more than 1 at every
//! so-manieth from `RINGBUS_TEST_FROM` on (so that eight pieces make a whole), `RINGBUS_TEST_CASE` at those of one case;
//! `RINGBUS_TEST_KILLS` says how many are killed at random times.
//!
//! ```sh
//! RINGBUS_TEST_EVERY=1 RINGBUS_TEST_CASE=raw cargo test --release --test steps -- instruction --nocapture
//! RINGBUS_TEST_EVERY=1 RINGBUS_TEST_CASE=join cargo test --release --test steps -- system_call --nocapture
//! RINGBUS_TEST_KILLS=10000 cargo test --release --test steps -- random --nocapture
//! ```
#![cfg(target_arch = "x86_64")] // others step as well; nobody has tried

use std::collections::HashMap;
use std::time::Instant;

#[path = "../support/mod.rs"]
mod support;

mod stepper;
mod survivors;
mod tracer;
mod victims;
mod ways;

use support::Child;
use survivors::Survivors;
use victims::{CALLS, PUBLISHES, RECEIVES};

/// Instructions before and after a system call that are looked at.
const AROUND: i64 = 50;
/// How many are sent to an instruction until one gets there.
const TRIES: u64 = 5;

#[test]
fn child() {
    support::play(&[("stepper", stepper::plays)]);
}

/// What the environment says, or `default`.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect(name))
}

/// Whether all points are looked at, and not some.
fn is_long() -> bool {
    std::env::var("RINGBUS_TEST_EVERY").is_ok()
}

fn is_asked_for(case: &str) -> bool {
    std::env::var("RINGBUS_TEST_CASE").is_ok_and(|asked| asked != case).eq(&false)
}

/// Somewhere else each time.
fn below(n: u64) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
    u64::from(now / 7) % n.max(1)
}

/// The first of every so many.
fn first(every: u64) -> u64 {
    setting("RINGBUS_TEST_FROM", below(every))
}

/// How a victim has ended: after all that it does, at the very instruction, after so many.
struct Killed {
    over: bool,
    there: bool,
    made: u64,
}

/// How many instructions before and after a system call are known, and which call it is.
struct Way {
    before: i64,
    after: i64,
    name: String,
}

/// Victims, and those that survive them.
struct Play {
    stepper: Child,
    survivors: Survivors,
    points: u64,
    missed: u64,
    /// How many of them had something acknowledged.
    heard: u64,
}

impl Play {
    fn new() -> Self {
        let survivors = Survivors::new();
        let mut stepper = Child::start("stepper", &[survivors.dir.arg()]);
        stepper.expect("ready");
        Self { stepper, survivors, points: 0, missed: 0, heard: 0 }
    }

    fn ask(&mut self, what: &str) -> String {
        self.stepper.tell(what);
        self.stepper.line()
    }

    /// A victim is killed there, and what it leaves is looked at.
    fn kill(&mut self, how: &str, case: &str, point: &str) -> Killed {
        let reply = self.ask(&format!("{how} {case} {point}"));
        let figures: Vec<u64> = reply.split(' ').map(|figure| figure.parse().unwrap()).collect();
        let [over, there, acknowledged, made] = figures[..] else { panic!("{reply}") };
        let under_way = match case {
            "batch" => 3,
            _ => 1,
        };
        self.survivors.check(case, point, acknowledged, under_way);
        self.points += 1;
        self.missed += over;
        self.heard += u64::from(acknowledged > 0);
        Killed { over: over == 1, there: there == 1, made }
    }

    /// Looks which way a thread goes through a call.
    fn way(&mut self, case: &str, call: &str) -> Option<Way> {
        let reply = self.ask(&format!("way {case} {call}"));
        self.survivors.check(case, "on the way", 0, 1);
        let [before, len, name] = reply.split(' ').collect::<Vec<_>>()[..] else { panic!("{reply}") };
        let (before, len) = (before.parse::<i64>().unwrap(), len.parse::<i64>().unwrap());
        (len > 0).then(|| Way { before, after: len - 1 - before, name: name.to_owned() })
    }

    fn end(self, what: &str, since: Instant) {
        let Self { stepper, survivors, points, missed, .. } = self;
        println!("{what}: {points} killed in {:?}, {missed} of them at the end", since.elapsed());
        stepper.finish();
        survivors.end();
    }
}

#[test]
fn publish_can_be_killed_at_any_instruction() {
    at_each_instruction(&PUBLISHES);
}

#[test]
fn recv_can_be_killed_at_any_instruction() {
    at_each_instruction(&RECEIVES);
}

fn at_each_instruction(cases: &[&str]) {
    for case in cases.iter().filter(|case| is_asked_for(case)) {
        let start = Instant::now();
        let mut play = Play::new();
        let Killed { over, made: length, .. } = play.kill("step", case, "1000000");
        assert!(over && length > 100, "{case} has {length} instructions");
        let every = setting("RINGBUS_TEST_EVERY", (length / 12).max(1));
        let (mut point, mut longest) = (first(every), length);
        while point < longest {
            let Killed { over, .. } = play.kill("step", case, &point.to_string());
            point += every;
            // Some have more to do than others: until there is none that has not come to its end.
            longest = if over { longest } else { longest.max(point + every) };
        }
        play.end(&format!("{case}, {longest} instructions, every {every}"), start);
    }
}

#[test]
fn everything_else_can_be_killed_around_its_system_calls() {
    let mut met_in_all = 0;
    for case in CALLS.iter().filter(|case| is_asked_for(case)) {
        let start = Instant::now();
        let mut play = Play::new();
        // The second one: the first has no dead to clear away.
        let reply = [(); 2].map(|()| {
            let reply = play.ask(&format!("calls {case}"));
            play.survivors.check(case, "to the end", if *case == "first-large" { 1 } else { 0 }, 0);
            reply
        });
        let threads = reply[1].split(' ').filter_map(|thread| thread.split_once(':'));
        let calls: Vec<(&str, usize)> = threads
            .flat_map(|(thread, calls)| (0..calls.parse().unwrap()).map(move |call| (thread, call)))
            .collect();
        // Of the short form: some calls, a point each.
        let all = is_long();
        let every = setting("RINGBUS_TEST_EVERY", 2 * AROUND as u64 + 1);
        let some = if all { 1 } else { (calls.len() / 2).max(1) };
        let tries = if all { TRIES } else { 1 };
        let (mut points, mut met) = (0, 0);
        let mut seen = HashMap::<String, u64>::new();
        for (thread, call) in calls.iter().skip(below(some as u64) as usize).step_by(some) {
            let Some(way) = (0..tries).find_map(|_| play.way(case, &format!("{thread} {call}"))) else {
                println!("{case}: thread {thread} has made no call {call} again");
                continue;
            };
            // Who is looked for has as many before it as there are calls of the same way before this one.
            let rank = seen.entry(way.name).and_modify(|rank| *rank += 1).or_default();
            let first = -AROUND + first(every) as i64;
            for offset in (first..=AROUND).step_by(every as usize) {
                if !(-way.before..=way.after).contains(&offset) {
                    continue; // it has begun, or ended, nearer to the call
                }
                points += 1;
                // Others may have led it another way: then it was killed elsewhere, and the next one goes.
                let mut is_there = |tried| {
                    let point = format!("{offset} {}", rank.saturating_sub(tried));
                    play.kill("near", case, &point).there
                };
                met += u64::from((0..tries).any(&mut is_there));
            }
        }
        met_in_all += met;
        println!("{case}: somebody was killed at the very instruction at {met} of {points} points");
        play.end(&format!("{case}, {} system calls, every {every}", calls.len()), start);
    }
    // One case alone may have none in its short form; all of them together show something.
    assert!(met_in_all > 0 || std::env::var("RINGBUS_TEST_CASE").is_ok(), "nobody got to where it was sent");
}

#[test]
fn processes_can_be_killed_at_random_times() {
    let start = Instant::now();
    let mut play = Play::new();
    let kills = setting("RINGBUS_TEST_KILLS", 50);
    for _ in 0..kills {
        play.kill("after", "busy", &below(20_000).to_string());
    }
    // Most of their lives they are busy.
    assert!(play.heard > kills / 4, "{} of {kills} had published", play.heard);
    println!("{} of {kills} had published", play.heard);
    play.end("at random times", start);
}
