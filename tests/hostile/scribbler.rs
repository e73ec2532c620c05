//! A node that writes whatever it likes over the segments that it owns, while others read them: again and again, since
//! it joins anew each time that it is cut off.

use std::fs;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use ringbus::{Bus, Node, Overflow, Publisher, RawSubscriber, RecvError, Subscriber, Trust};

use crate::random::Random;
use crate::support::{self, Child, DEADLINE, Dir, Parent, eventually};
use crate::{setting, tell};

/// What it writes over, by the names that the kernel shows.
const KINDS: [&[&str]; 5] = [&["log"], &["blob"], &["log", "blob"], &["heartbeat"], &["cursors"]];
/// The longest that it stays at it without being cut off.
const ROUND: Duration = Duration::from_millis(500);
/// It plays at least so many rounds, and until it was cut off in so many.
const ROUNDS: u32 = 4;
const CUTS: u32 = 2;

/// Words of this process's own segments of these kinds.
fn segments(kinds: &[&str]) -> Vec<Range<usize>> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let is_ours = |line: &&str| {
        line.contains(" rw-s ") && kinds.iter().any(|kind| line.contains(&format!("/memfd:ringbus-{kind} ")))
    };
    let range = |line: &str| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
    };
    maps.lines().filter(is_ours).map(|line| range(line).expect("two addresses")).collect()
}

fn scribble(segments: &[Range<usize>], random: &mut Random) {
    for _ in 0..random.below(16) {
        let segment = &segments[random.index(segments.len())];
        let len = segment.len().min(16 << 10);
        let at = match random.below(4) {
            0 => random.pick(&[128, 136, 256, 384, 392, 264, 8]),
            1 => random.index(len),
            _ => 4096.min(len / 2) + random.index(256),
        };
        // SAFETY: a word of a mapping that this process has just been told to have, writable and shared; the rest of the
        // process looks at it through atomics alone, or does not mind.
        let word = unsafe { AtomicU64::from_ptr(((segment.start + at.min(len - 8)) & !7) as *mut u64) };
        let (old, bit, other) = (word.load(Relaxed), random.below(64), random.word());
        word.store(random.pick(&[old ^ (1 << bit), other, old.wrapping_add(16)]), Relaxed);
    }
}

/// `args`: the bus's directory, a seed. Plays a round for each line that it hears; says whether it was cut off.
pub fn scribbles(parent: &mut Parent, args: &[&str]) {
    let mut random = Random::new(args[1].parse().unwrap());
    while parent.listen().is_some() {
        let kinds = KINDS[random.index(KINDS.len())];
        parent.say(&round(&support::bus(args[0]), kinds, &mut random).to_string());
    }
}

/// Joins, publishes, and writes over these; whether it was cut off.
fn round(bus: &Bus, kinds: &[&str], random: &mut Random) -> bool {
    let node = bus.join("scribbler").unwrap();
    let mut subscriber = node.raw_subscriber("v").unwrap();
    let builder =
        node.publisher_builder("t").capacity(4096).blob_memory(1 << 18).overflow(Overflow::DropNewest);
    let mut publisher = builder.open::<Vec<String>>().unwrap();
    publisher.wait_for_subscribers(2, DEADLINE).unwrap();
    let start = Instant::now();
    while start.elapsed() < ROUND {
        for _ in 0..4 {
            // What its reader was told may not be so; that is its own fault.
            let len = if random.once_in(8) { 5000 } else { random.index(900) };
            let _ = publisher.publish(&vec!["x".repeat(len / 4); 4]);
            let _ = subscriber.try_recv();
        }
        if start.elapsed() > Duration::from_millis(random.below(20)) {
            let segments = segments(kinds);
            if !segments.is_empty() {
                scribble(&segments, random);
            }
        }
        if !node.peers().iter().any(|peer| peer.name() == "victim") {
            return true;
        }
    }
    false
}

/// What its reader was told.
#[derive(Debug, Default)]
struct Told {
    messages: u64,
    values: u64,
    corrupt: u64,
    undecodable: u64,
    lagged: u64,
}

impl Told {
    fn error(&mut self, error: RecvError) {
        match error {
            RecvError::PeerCorrupt { source_node, .. } => {
                assert_eq!(source_node.name(), "scribbler");
                self.corrupt += 1;
            }
            RecvError::Decode { .. } => self.undecodable += 1,
            RecvError::Lagged { .. } => self.lagged += 1,
            error => panic!("{error}"),
        }
    }
}

/// Numbers that one node gets from another, all the while.
pub struct Numbers {
    publisher: Publisher<u64>,
    subscriber: Subscriber<u64>,
}

impl Numbers {
    pub fn open(node: &Node, from: &Node) -> Self {
        let subscriber = node.subscriber("u").unwrap();
        let publisher = from.publisher("u").unwrap();
        publisher.wait_for_subscribers(1, DEADLINE).unwrap();
        Self { publisher, subscriber }
    }

    /// Each of them, in order; how many.
    pub fn flow(&mut self, over: &AtomicBool) -> u64 {
        let mut number = 0;
        while !over.load(Relaxed) {
            self.publisher.publish(&number).unwrap();
            assert_eq!(*self.subscriber.recv_timeout(DEADLINE).unwrap().expect("a number"), number);
            number += 1;
            if number % 16 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        number
    }
}

/// Reads what the scribbler publishes, each message a copy that stays as it is. Sets a flag when it is first told that
/// the scribbler is corrupt.
fn reads(
    raw: &mut RawSubscriber,
    typed: &mut Subscriber<Vec<String>>,
    corrupt: &AtomicBool,
    over: &AtomicBool,
) -> Told {
    let mut told = Told::default();
    while !over.load(Relaxed) {
        match raw.recv_timeout(Duration::from_millis(1)) {
            Ok(None) => {}
            Err(error) => told.error(error),
            Ok(Some(sample)) => {
                told.messages += 1;
                let copy = sample.to_vec();
                thread::yield_now();
                assert_eq!(*sample, *copy, "it changed");
            }
        }
        match typed.try_recv() {
            Ok(message) => told.values += u64::from(message.is_some()),
            Err(error) => told.error(error),
        }
        corrupt.store(told.corrupt > 0, Relaxed);
    }
    told
}

/// What nodes keep in store, or have under way among themselves: less than the rounds, or the callers, would leave behind.
pub const SPARE: usize = 8;

pub fn open_fds() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// `args`: the bus's directory. The victim: says when it was first told of it, and in the end what it was told.
pub fn is_scribbled_at(parent: &mut Parent, args: &[&str]) {
    let bus = Bus::builder("bus").dir(args[0]).trust(Trust::Copy).open().unwrap();
    let (victim, other) = (bus.join("victim").unwrap(), bus.join("other").unwrap());
    let mut to_all = victim.publisher_builder("v").overflow(Overflow::DropNewest).open::<u32>().unwrap();
    let (mut raw, mut typed) = (victim.raw_subscriber("t").unwrap(), victim.subscriber("t").unwrap());
    let mut numbers = Numbers::open(&victim, &other);
    let (corrupt, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let fds = open_fds();
    let (told, numbers) = thread::scope(|scope| {
        let reader = scope.spawn(|| reads(&mut raw, &mut typed, &corrupt, &over));
        let numbers = scope.spawn(|| numbers.flow(&over));
        let writer = scope.spawn(|| {
            while !over.load(Relaxed) {
                to_all.publish(&7).unwrap();
                thread::sleep(Duration::from_micros(500));
            }
        });
        parent.say("ready");
        eventually("it is told that the scribbler is corrupt", || corrupt.load(Relaxed));
        parent.say("told");
        parent.hear("over");
        over.store(true, Relaxed);
        writer.join().unwrap();
        (reader.join().unwrap(), numbers.join().unwrap())
    });
    eventually("the scribbler is gone", || victim.peers().len() == 1);
    let refused = victim.refused();
    assert!(!refused.is_empty() && other.peers().iter().any(|peer| peer.name() == "victim"));
    eventually("nothing of it is left", || {
        // Ports let go of what is gone when they are next used.
        let _ = (raw.try_recv().map(drop), typed.try_recv().map(drop), to_all.publish(&7));
        open_fds() <= fds + SPARE
    });
    parent.say(&format!("{told:?}, {numbers} messages of others"));
    parent.stay();
}

#[test]
fn a_node_that_scribbles_over_its_segments_harms_nobody_else() {
    let dir = Dir::new();
    let seconds: u64 = setting("RINGBUS_SCRIBBLE_SECONDS", 2);
    let seed: u64 = setting("RINGBUS_TEST_SEED", 1);
    let mut victim = Child::start("is scribbled at", &[dir.arg()]);
    victim.expect("ready");
    let mut scribbler = Child::start("scribbles", &[dir.arg(), &seed.to_string()]);
    let (start, least) = (Instant::now(), Duration::from_secs(seconds));
    let (mut rounds, mut cuts, mut is_told) = (0, 0, false);
    while start.elapsed() < least || rounds < ROUNDS || cuts < CUTS || !is_told {
        let played = format!("cut off {cuts} times of {rounds}, the reader told of it: {is_told}");
        assert!(start.elapsed() < least + DEADLINE, "{played}");
        scribbler.tell("again");
        rounds += 1;
        cuts += u32::from(scribbler.line() == "true");
        is_told |= victim.line_if_any().is_some_and(|line| line == "told");
    }
    scribbler.finish();
    victim.tell("over");
    let told = victim.line();
    victim.finish();
    tell(format_args!(
        "cut off {cuts} times of {rounds} in {:.1?}; the reader was told {told}",
        start.elapsed()
    ));
}
