//! Processes that connect to a node and mean harm: what they cost it, in memory, descriptors and time, and that nobody
//! else notices.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringbus::internals::frame::{Control, Hello, PortUp, Role, Strings};
use ringbus::internals::ring::CursorSegment;
use ringbus::internals::segment::Sealed;
use ringbus::internals::sys::seqpacket::{MAX_DATAGRAM, Socket};
use ringbus::internals::sys::timerfd;
use ringbus::{Bus, Quotas};

use crate::raw::Raw;
use crate::scribbler::{Numbers, SPARE, open_fds};
use crate::support::{Child, DEADLINE, Dir, Parent, eventually};
use crate::tell;

/// How long a caller has to say hello, and what a busy machine may add.
const HANDSHAKE: Duration = Duration::from_secs(2);
const SLACK: Duration = Duration::from_secs(2);
/// Words that are kept for one whose ports are many: fewer than usual, and than the descriptors that it may cost.
const FEW_UNREAD: usize = 1 << 7;
/// Words that a node receives of a peer before it looks at what they mean (src/control/driver.rs): of a reader that comes
/// and goes two, the first with two descriptors.
const IN_A_ROW: usize = 1024;
/// What is kept for a peer that does not read ([`ringbus::Quotas`]), and as much again for what the allocator keeps.
const MOST_MEMORY: u64 = 2 * (16 << 20);

/// A line of `/proc/self/status`, in bytes.
fn memory(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line)).expect("a line of memory");
    found.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// `args`: the bus's directory, and what is done to it. Says its socket; then, once it is told that the other is through,
/// what that has cost.
pub fn victim(parent: &mut Parent, args: &[&str]) {
    // What is told to one without descriptors is another test's (tests/shortage.rs).
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let quotas = Quotas::default();
    let quotas = match args[1] {
        OPEN_AND_CLOSE => quotas.unread_messages(FEW_UNREAD).descriptors(2 * FEW_UNREAD),
        _ => quotas,
    };
    let bus = Bus::builder("bus").dir(args[0]).quotas(quotas).open().unwrap();
    let (victim, other) = (bus.join("victim").unwrap(), bus.join("other").unwrap());
    let _ports = (victim.publisher::<u32>("t").unwrap(), victim.subscriber::<u32>("t").unwrap());
    let mut numbers = Numbers::open(&victim, &other);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let numbers = scope.spawn(|| numbers.flow(&over));
        let (fds, before) = (open_fds(), memory("VmRSS"));
        parent.say(&format!("{dir}/bus/{id}.sock", dir = args[0], id = victim.info().id()));
        let most_fds = {
            let (mut most, through) = (0, AtomicBool::new(false));
            thread::scope(|inner| {
                inner.spawn(|| {
                    parent.hear("measure");
                    through.store(true, Relaxed);
                });
                while !through.load(Relaxed) {
                    most = most.max(open_fds());
                    thread::sleep(Duration::from_millis(1));
                }
            });
            most.saturating_sub(fds)
        };
        // Whoever comes now is let in at once.
        let start = Instant::now();
        let late = bus.join("late").unwrap();
        eventually("the late one is in", || victim.peers().iter().any(|peer| peer.name() == "late"));
        let took = start.elapsed();
        drop(late);
        eventually("nothing of it is left", || open_fds() <= fds + SPARE && victim.peers().len() == 1);
        if args[1] == OPEN_AND_CLOSE {
            assert_eq!(victim.refused(), [], "it kept to the protocol");
        }
        over.store(true, Relaxed);
        let numbers = numbers.join().unwrap();
        let grown = memory("VmHWM").saturating_sub(before);
        parent.say(&format!("{grown} {most_fds} {numbers} {}", took.as_millis()));
    });
    parent.stay();
}

type Deed = fn(&Path);

const OPEN_AND_CLOSE: &str = "open and close without end";
const DEEDS: [(&str, Deed); 6] = [
    ("say nothing", say_nothing),
    ("spell it out", spell_it_out),
    ("send what is no word", send_what_is_no_word),
    ("spam descriptors", spam_descriptors),
    ("ask and never listen", ask_and_never_listen),
    (OPEN_AND_CLOSE, open_and_close),
];

/// `args`: a node's socket, and what to do to it.
pub fn hostile(parent: &mut Parent, args: &[&str]) {
    let (_, deed) = DEEDS.iter().find(|(name, _)| *name == args[1]).unwrap();
    deed(Path::new(args[0]));
    parent.say("cut off");
    parent.stay();
}

/// Connects, however many others wait to be let in.
fn connect(path: &Path) -> Socket {
    let mut found = None;
    eventually("a connection", || {
        found = Socket::connect(path).ok();
        found.is_some()
    });
    found.unwrap()
}

/// Waits for the end; how long that took.
fn end(socket: &Socket) -> Duration {
    let (start, mut bytes) = (Instant::now(), vec![0; MAX_DATAGRAM]);
    eventually("it is cut off", || match socket.recv(&mut bytes) {
        Ok(received) => received.is_end(),
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    });
    start.elapsed()
}

fn bytes(control: &Control<'_>) -> Vec<u8> {
    let mut bytes = vec![0; control.encoded_len()];
    control.encode(&mut bytes).unwrap();
    bytes
}

fn hello(id: u8) -> Vec<u8> {
    let hello = Hello { major: 1, minor: 0, id: [id; 16], name: "raw", started_unix_ms: 0, capabilities: 0 };
    bytes(&Control::Hello(hello))
}

fn say_nothing(path: &Path) {
    let callers: Vec<_> = (0..60).map(|_| connect(path)).collect();
    let start = Instant::now();
    for caller in &callers {
        end(caller);
    }
    assert!(start.elapsed() < HANDSHAKE + SLACK, "after {:?}", start.elapsed());
}

/// A hello of which each datagram has one byte; and one that stops in the middle.
fn spell_it_out(path: &Path) {
    for len in [1, hello(1).len() / 2] {
        let caller = connect(path);
        for part in hello(1).chunks(len) {
            let _ = caller.send(part, &[]); // it may be closed already
            thread::sleep(Duration::from_millis(20));
        }
        assert!(end(&caller) < SLACK);
    }
}

fn send_what_is_no_word(path: &Path) {
    for round in 0..200u32 {
        let caller = connect(path);
        if round % 2 == 0 {
            let _ = caller.send(&hello(round as u8), &[]);
        }
        let _ = caller.send(&vec![round as u8; 1 + 320 * round as usize], &[]);
        assert!(end(&caller) < SLACK);
    }
}

/// As many descriptors as fit, with words that have none, and with words that have some.
fn spam_descriptors(path: &Path) {
    let bell = timerfd::create().unwrap();
    let port = PortUp {
        port: 1,
        role: Role::Subscriber,
        filters: Strings::from_slice(&["t"]),
        flags: 0,
        priority: 128,
        capacity: None,
        version: None,
    };
    for round in 0..100u8 {
        let caller = connect(path);
        let fds = [bell.as_fd(); 8];
        let _ = caller.send(&hello(round), if round % 4 == 0 { &[] } else { &fds });
        for word in [
            Control::PortsDone,
            Control::PortUp(port),
            Control::Heartbeat { log: 0, capacity: 4096, interval_ms: 1 },
        ] {
            let _ = caller.send(&bytes(&word), &fds);
        }
        assert!(end(&caller) < SLACK);
    }
}

/// Asks for statistics, thousands of times, and reads no answer; then all of them.
fn ask_and_never_listen(path: &Path) {
    let raw = Raw::connect(path);
    raw.send(&Control::PortsDone, &[]);
    let start = Instant::now();
    for request in 0.. {
        raw.try_send(&Control::Stats { request }, &[]);
        if start.elapsed() > 2 * HANDSHAKE {
            break;
        }
    }
    let start = Instant::now();
    while !raw.receive().0.is_empty() {}
    assert!(start.elapsed() < HANDSHAKE + SLACK, "after {:?}", start.elapsed());
}

/// Readers that come and go as fast as they are let in, more of them than what they are given is kept for; then a look
/// at all of that.
fn open_and_close(path: &Path) {
    let raw = Raw::connect(path);
    raw.send(&Control::PortsDone, &[]);
    let start = Instant::now();
    let send = |control: &Control<'_>, fds: &[BorrowedFd<'_>]| {
        while !raw.try_send(control, fds) {
            assert!(start.elapsed() < DEADLINE, "it is neither read nor cut off");
            thread::yield_now();
        }
    };
    let bell = timerfd::create().unwrap();
    let (role, filters) = (Role::Subscriber, Strings::from_slice(&["t"]));
    for port in 1..=16 * FEW_UNREAD as u64 {
        let cursors = Sealed::create("ringbus-cursors", 4096, true).unwrap();
        CursorSegment::of_size(4096).initialise(&cursors, raw.id, port, 0);
        let up = PortUp { port, role, filters, flags: 0, priority: 128, capacity: None, version: None };
        send(&Control::PortUp(up), &[cursors.fd(), bell.as_fd()]);
        send(&Control::PortDown { port }, &[]);
    }
    // The first was the answer to its hello. Only a few words with descriptors are under way until they are counted.
    for count in 2.. {
        if raw.receive().0.is_empty() {
            break;
        }
        send(&Control::Ack { count }, &[]);
    }
}

fn costs_a_bounded_amount(deed: &str) {
    let dir = Dir::new();
    let mut victim = Child::start("victim", &[dir.arg(), deed]);
    let socket = victim.line();
    let mut hostile = Child::start("hostile", &[&socket, deed]);
    hostile.expect("cut off");
    hostile.finish();
    victim.tell("measure");
    let line = victim.line();
    let cost: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
    let [grown, fds, numbers, late] = cost[..] else { panic!("{line}") };
    victim.finish();
    tell(format_args!(
        "{deed}: {} KiB and {fds} descriptors at most; {numbers} messages of others; a join took {late} ms",
        grown >> 10
    ));
    let most_fds = match deed {
        OPEN_AND_CLOSE => 2 * FEW_UNREAD + IN_A_ROW,
        // Of callers that have not said hello, as many as may wait, and a process handle each.
        _ => 2 * 128,
    };
    assert!(grown <= MOST_MEMORY && fds <= most_fds as u64, "{line}");
    assert!(numbers > 100 && Duration::from_millis(late) < DEADLINE / 4, "{line}");
}

macro_rules! deeds {
    ($($test:ident: $deed:expr;)*) => {$(
        #[test]
        fn $test() {
            costs_a_bounded_amount($deed);
        }
    )*};
}

deeds! {
    callers_that_say_nothing_are_cut_off: "say nothing";
    a_caller_that_spells_its_hello_out_is_cut_off: "spell it out";
    callers_that_send_what_is_no_word_are_cut_off: "send what is no word";
    callers_that_spam_descriptors_are_cut_off: "spam descriptors";
    a_peer_that_asks_and_never_listens_is_parted_with: "ask and never listen";
    a_peer_that_opens_and_closes_without_end_costs_its_session: OPEN_AND_CLOSE;
}
