//! Processes that are made and killed in great numbers, and what is left of them: nothing.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, raise};
use nix::sys::wait::waitpid;

mod support;
use support::{Child, DEADLINE, Dir, Forked, Parent, eventually, resources};

/// How many processes are made and killed.
const CYCLES: &str = "RINGBUS_CYCLES";
/// How many of them are there at a time: beside a stopped node, each waits for its answer.
const AT_ONCE: usize = 25;
/// How much larger a survivor may have grown.
const GROWTH: usize = 1 << 20;
/// Shared memory that others on this host may come to use meanwhile; a log of each dead would be more.
const OTHERS: usize = 4 << 20;
/// How long a whole round may take.
const LONG: Duration = Duration::from_secs(280);
/// For what a process left that was killed as it joined: others wait a minute before they remove it.
const A_MINUTE_AND_MORE: Duration = Duration::from_secs(80);

#[test]
fn child() {
    support::play(&[("survives", survives), ("makes and kills", makes_and_kills)]);
}

#[test]
fn killed_processes_leave_nothing_behind() {
    cycles(false);
}

#[test]
fn killed_processes_leave_nothing_behind_beside_a_stopped_one() {
    cycles(true);
}

fn cycles(is_stopped: bool) {
    let count = support::count(CYCLES, 100);
    let dir = Dir::new();
    let mut survivor = Child::start("survives", &[dir.arg()]);
    survivor.expect("open");
    let mut other = Child::start("survives", &[dir.arg()]);
    other.expect("open");
    survivor.expect("met");
    other.expect("met");
    if is_stopped {
        other.signal(Signal::SIGSTOP);
    }
    let mut nursery = Child::start("makes and kills", &[dir.arg()]);
    // The first time for what processes keep for so many at once.
    for count in [4 * AT_ONCE, count] {
        nursery.tell(&count.to_string());
        assert_eq!(nursery.line_within(LONG), "all are dead");
        survivor.tell("compare");
        println!("{count} cycles: {}", survivor.line_within(2 * A_MINUTE_AND_MORE));
    }
    if is_stopped {
        other.signal(Signal::SIGCONT);
    }
    other.tell("compare");
    println!("the other: {}", other.line_within(2 * A_MINUTE_AND_MORE));
    nursery.finish();
    survivor.finish();
    other.finish();
    assert_eq!(dir.sockets().len(), 0);
}

/// Joins, attaches in both directions, and dies at one of several moments.
fn is_killed(dir: &str, number: usize) {
    if number.is_multiple_of(4) {
        let after = Duration::from_micros(number as u64 * 7919 % 10_000);
        std::thread::spawn(move || {
            std::thread::sleep(after);
            raise(Signal::SIGKILL)
        });
    }
    let node = support::bus(dir).join("crashes").unwrap();
    let _subscriber = node.raw_subscriber("survivor").unwrap();
    let mut publisher = node.raw_publisher("crash/x").unwrap();
    if number % 4 == 1 {
        publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    }
    publisher.publish(&[1; 1000]).unwrap();
    let _unsent = publisher.loan(100).unwrap();
    raise(Signal::SIGKILL).unwrap();
}

fn makes_and_kills(parent: &mut Parent, args: &[&str]) {
    while let Some(count) = parent.listen() {
        let count: usize = count.parse().unwrap();
        for round in 0..count / AT_ONCE {
            let numbers = round * AT_ONCE..(round + 1) * AT_ONCE;
            let forked: Vec<_> = numbers.map(|number| Forked::run(|| is_killed(args[0], number))).collect();
            for forked in &forked {
                let status = waitpid(forked.pid(), None).unwrap();
                assert!(format!("{status:?}").contains("SIGKILL"), "{status:?}");
            }
        }
        parent.say("all are dead");
    }
}

/// What is counted before and after.
#[derive(Clone, Copy, Debug)]
struct Counts {
    files: usize,
    fds: usize,
    maps: usize,
    /// Of the whole host, in bytes.
    shared: usize,
    /// Of this process, in bytes.
    resident: usize,
}

impl Counts {
    fn now(dir: &str) -> Self {
        let (fds, maps) = resources();
        let files = fs::read_dir(format!("{dir}/bus")).unwrap().count();
        let kib = |text: &str, name: &str| -> usize {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line of it");
            line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
        };
        let shared = kib(&fs::read_to_string("/proc/meminfo").unwrap(), "Shmem:");
        let resident = kib(&fs::read_to_string("/proc/self/status").unwrap(), "VmRSS:");
        Self { files, fds, maps, shared, resident }
    }

    fn is_back_at(&self, before: &Self) -> bool {
        (self.files, self.fds, self.maps) == (before.files, before.fds, before.maps)
            && self.shared <= before.shared + OTHERS
    }
}

fn survives(parent: &mut Parent, args: &[&str]) {
    let dir = args[0];
    let node = support::bus(dir).join("survivor").unwrap();
    let mut subscriber = node.raw_subscriber("crash/*").unwrap();
    let mut publisher = node.raw_publisher("survivor").unwrap();
    parent.say("open");
    eventually("the other is there", || node.peers().len() == 1);
    eventually("its heartbeats are read", || node.peers()[0].heartbeat().is_some());
    let before = Counts::now(dir);
    parent.say("met");
    let mut first = None;
    let (words, says) = std::sync::mpsc::channel();
    let mut said = Parent::new();
    std::thread::spawn(move || while said.listen().is_some_and(|line| words.send(line).is_ok()) {});
    loop {
        match says.recv_timeout(Duration::from_millis(1)) {
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
            Err(_) => {}
            Ok(_) => {
                let deadline = Instant::now() + A_MINUTE_AND_MORE;
                let now = loop {
                    publisher.publish(b"alive").unwrap();
                    while subscriber.try_recv().unwrap().is_some() {}
                    let now = Counts::now(dir);
                    let peers = (node.peers().len(), subscriber.stats().peers, publisher.stats().peers);
                    if peers == (1, 0, 0) && now.is_back_at(&before) {
                        break now;
                    }
                    assert!(Instant::now() < deadline, "{peers:?} {now:?}, before {before:?}");
                    std::thread::sleep(Duration::from_millis(5));
                };
                let first = *first.get_or_insert(now);
                let grown = now.resident.saturating_sub(first.resident);
                assert!(grown <= GROWTH, "{now:?}, after the first round {first:?}");
                parent.say(&format!("{now:?}, before {before:?}; grown by {} KiB", grown / 1024));
            }
        }
        // Each port lets go of the dead when it is used next.
        publisher.publish(b"alive").unwrap();
        while subscriber.try_recv().unwrap().is_some() {}
    }
}
