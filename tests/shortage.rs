//! A process that runs out of file descriptors while others go on: they are held up once at most, it is told what does
//! not arrive, and gets it again when there is room.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use ringbus::internals::frame::{Control, PortUp, Role, Strings};
use ringbus::internals::ring::{Blob, BlobHeader, CursorSegment, LogHeader, LogLayout};
use ringbus::internals::segment::Sealed;
use ringbus::internals::sys::timerfd;
use ringbus::{Bus, Message, Node, Overflow, Publisher, Quotas, RecvError, Subscriber, Wait};

#[path = "support/raw.rs"]
mod raw;
mod support;
use raw::Raw;
use support::{Child, DEADLINE, Dir, Parent, eventually, resources};

#[test]
fn child() {
    support::play(&[
        ("reads", reads),
        ("reads large messages", reads_large),
        ("publishes", publishes),
        ("calls", calls),
        ("reads all", reads_all),
        ("loses a segment", loses_a_segment),
        ("has no room for a blob", has_no_room_for_a_blob),
    ]);
}

/// Every descriptor that this process may have is taken, until this is dropped.
struct Shortage {
    soft: u64,
    hard: u64,
    _taken: Vec<File>,
}

impl Shortage {
    fn begin() -> Self {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, resources().0 as u64 + 8, hard).unwrap();
        let taken = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        // What another thread had open for a moment is not free after that. No lower: poll(2) takes no more than this.
        setrlimit(Resource::RLIMIT_NOFILE, 8, hard).unwrap();
        Self { soft, hard, _taken: taken }
    }
}

impl Drop for Shortage {
    fn drop(&mut self) {
        setrlimit(Resource::RLIMIT_NOFILE, self.soft, self.hard).unwrap();
    }
}

/// Publishers that a process without descriptors does not hear.
const PUBLISHERS: u64 = 40;
/// What each publishes meanwhile: more than its log holds.
const MISSED: u64 = 2000;

/// How long `open` waits for an answer that does not come.
const ANSWER: Duration = Duration::from_millis(200);

/// Opens each of these. If each waited for the one that is short to take what came before, none would be there at once;
/// a busy machine holds up some.
#[track_caller]
fn mostly_at_once<T>(which: Range<u64>, open: impl Fn(u64) -> T) -> Vec<T> {
    let (mut all, mut times) = (Vec::new(), Vec::new());
    for n in which {
        let start = Instant::now();
        all.push(open(n));
        times.push(start.elapsed());
    }
    let late = times.iter().filter(|time| **time >= ANSWER).count();
    assert!(late <= times.len() / 2, "{late} were held up: {times:?}");
    all
}

#[track_caller]
fn next(subscriber: &mut Subscriber<u64>) -> Result<Message<u64>, RecvError> {
    subscriber.recv_timeout(DEADLINE).map(|found| found.expect("something"))
}

#[test]
fn a_subscriber_without_descriptors_holds_nobody_up_is_told_and_attached_when_there_are_some() {
    let dir = Dir::new();
    let mut child = Child::start("reads", &[dir.arg()]);
    child.expect("open");
    let node = dir.join("writer");
    let mut before: Publisher<u64> = node.publisher("t/before").unwrap();
    before.wait_for_subscribers(1, DEADLINE).unwrap();
    before.publish(&0).unwrap();
    child.tell("run short");
    child.expect("short");

    let open = |n| node.publisher_builder(&format!("t/{n}")).capacity(4096).open::<u64>().unwrap();
    let mut publishers: Vec<Publisher<u64>> = mostly_at_once(0..PUBLISHERS, open);
    eventually("the publishers know that nobody reads", || {
        publishers.iter().all(|publisher| publisher.stats().peers == 0)
    });
    child.expect("told of each");
    for (n, publisher) in publishers.iter_mut().enumerate() {
        for _ in 0..MISSED {
            publisher.publish(&(n as u64)).unwrap(); // blocks for ever if a gate is left
        }
    }
    // What was attached before goes on.
    before.publish(&1).unwrap();
    child.expect("heard the other");
    assert!(node.refused().is_empty() && node.peers().len() == 1);

    child.tell("there is room");
    for publisher in &publishers {
        publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    }
    for (n, publisher) in publishers.iter_mut().enumerate() {
        publisher.publish(&(n as u64)).unwrap();
    }
    child.expect("passed");
    child.finish();
}

fn reads(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("reader").unwrap();
    let mut subscriber = node.subscriber_builder("t/*").wait(Wait::Park).open::<u64>().unwrap();
    parent.say("open");
    parent.hear("run short");
    assert_eq!(*next(&mut subscriber).unwrap(), 0, "it is attached");
    let shortage = Shortage::begin();
    parent.say("short");
    for _ in 0..PUBLISHERS {
        let error = next(&mut subscriber).unwrap_err();
        assert!(matches!(error, RecvError::Unattached { .. }), "{error}");
        assert!(error.to_string().contains("ulimit -n"), "{error}");
    }
    parent.say("told of each");
    assert_eq!(*next(&mut subscriber).unwrap(), 1);
    parent.say("heard the other");
    parent.hear("there is room");
    drop(shortage);
    let mut missed = 0;
    for _ in 0..2 * PUBLISHERS {
        match next(&mut subscriber) {
            Err(RecvError::Lagged { missed: of_one, topic: Some(_), .. }) => {
                assert_eq!(of_one, MISSED);
                missed += 1;
            }
            found => {
                let message = found.unwrap();
                assert_eq!(message.topic(), format!("t/{}", *message));
            }
        }
    }
    assert_eq!(missed, PUBLISHERS);
    parent.say("passed");
}

const LARGE: usize = 256 * 1024;

fn large(of: u8) -> String {
    char::from(of).to_string().repeat(LARGE)
}

/// The blob of a large message is asked for again, too: its writer uses it for ever.
#[test]
fn large_messages_arrive_again_when_there_are_descriptors() {
    let dir = Dir::new();
    let mut child = Child::start("reads large messages", &[dir.arg()]);
    child.expect("open");
    let node = dir.join("writer");
    let mut publisher = node.publisher_builder("large").capacity(4096).open::<String>().unwrap();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    publisher.publish(&String::new()).unwrap();
    child.tell("run short");
    child.expect("short");
    publisher.publish(&large(b'1')).unwrap();
    child.expect("missed");
    child.tell("there is room");
    let mut heard = false;
    eventually("a large message arrives", || {
        publisher.publish(&large(b'2')).unwrap();
        heard = heard || child.line_if_any().is_some_and(|line| line == "heard");
        heard
    });
    child.finish();
}

fn reads_large(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("reader").unwrap();
    let mut subscriber = node.subscriber::<String>("large").unwrap();
    parent.say("open");
    parent.hear("run short");
    assert!(subscriber.recv_timeout(DEADLINE).unwrap().expect("a message").is_empty(), "it is attached");
    let shortage = Shortage::begin();
    parent.say("short");
    let lagged = subscriber.recv_timeout(DEADLINE).map(|m| m.map(|m| m.len())).unwrap_err();
    assert!(matches!(lagged, RecvError::Lagged { missed: 1, .. }), "{lagged}");
    parent.say("missed");
    parent.hear("there is room");
    drop(shortage);
    loop {
        match subscriber.recv_timeout(DEADLINE) {
            Ok(message) => {
                assert!(*message.expect("something") == large(b'2'));
                break;
            }
            Err(RecvError::Lagged { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    parent.say("heard");
    parent.stay();
}

/// A publisher's process that cannot take a new subscriber's segment and bell takes them later.
#[test]
fn subscribers_of_a_publisher_without_descriptors_are_attached_when_there_are_some() {
    let dir = Dir::new();
    let mut child = Child::start("publishes", &[dir.arg()]);
    child.expect("open");
    let node = dir.join("reader");
    eventually("the publisher is there", || has_port(&node));
    child.tell("run short");
    child.expect("short");
    let beats = || {
        let peers = node.peers();
        assert!(peers.len() == 1 && peers[0].name() == "writer", "{peers:?}");
        peers[0].heartbeat().map_or(0, |heartbeat| heartbeat.sequence + 1)
    };
    let before = beats();
    let mut subscribers: Vec<Subscriber<u64>> = mostly_at_once(0..20, |_| node.subscriber("t").unwrap());
    eventually("its heart beats on", || beats() > before + 1);
    child.tell("there is room");
    child.expect("they are there");
    for subscriber in &mut subscribers {
        assert_eq!(*next(subscriber).unwrap(), 7);
    }
    child.finish();
}

fn has_port(node: &Node) -> bool {
    node.peers().iter().any(|peer| !peer.ports().is_empty())
}

fn publishes(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("writer").unwrap();
    let mut publisher: Publisher<u64> = node.publisher("t").unwrap();
    parent.say("open");
    parent.hear("run short");
    let shortage = Shortage::begin();
    parent.say("short");
    parent.hear("there is room");
    assert!(publisher.wait_for_subscribers(1, Duration::ZERO).is_err());
    drop(shortage);
    publisher.wait_for_subscribers(20, DEADLINE).unwrap();
    publisher.publish(&7).unwrap();
    parent.say("they are there");
    parent.stay();
}

/// A server that a process has no room for is called once there is; one without room for a client says so.
#[test]
fn calls_fail_without_descriptors_and_work_when_there_are_some() {
    let dir = Dir::new();
    let node = dir.join("here");
    let mut child = Child::start("calls", &[dir.arg()]);
    child.expect("open");
    eventually("it is there", || has_port(&node));
    child.tell("run short");
    child.expect("short");
    let server = node.service("here").method("double", |_, n: u64| Ok(n * 2)).spawn().unwrap();
    let client = node.client("there").unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    let double = || {
        client
            .request("double")
            .timeout(Duration::from_secs(2))
            .send(&21_u64)
            .map(|a: ringbus::Response<u64>| *a)
    };
    let status = double().unwrap_err();
    assert!(status.message().contains("descriptors"), "{status}");
    // One that does not fit the log waits for its blob to be shared, while the server lets go of that log.
    let start = Instant::now();
    let text = "x".repeat(1 << 20);
    let large = client.request("double").timeout(DEADLINE).send::<String, u64>(&text).unwrap_err();
    assert_eq!(large.code(), ringbus::Code::Unavailable, "{large}");
    assert!(start.elapsed() < DEADLINE / 4, "{:?}", start.elapsed());
    child.tell("there is room");
    child.expect("answered");
    eventually("it can be called", || double() == Ok(42));
    assert!(node.refused().is_empty(), "{:?}", node.refused());
    child.finish();
    drop(server);
}

fn calls(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("there").unwrap();
    let _server = node.service("there").method("double", |_, n: u64| Ok(n * 2)).spawn().unwrap();
    let client = node.client("here").unwrap();
    parent.say("open");
    parent.hear("run short");
    let shortage = Shortage::begin();
    parent.say("short");
    parent.hear("there is room");
    assert!(client.wait_for_server(Duration::ZERO).is_err());
    drop(shortage);
    client.wait_for_server(DEADLINE).unwrap();
    let answer: u64 = *client.request("double").timeout(DEADLINE).send(&21_u64).unwrap();
    assert_eq!(answer, 42);
    assert!(node.refused().is_empty(), "{:?}", node.refused());
    parent.say("answered");
    parent.stay();
}

/// A reader sends its further cursor segments once each. If one was lost with a publisher that has closed since, the next
/// in that segment is no offence, and asks for it.
#[test]
fn a_cursor_segment_that_was_lost_with_its_publisher_comes_with_the_next() {
    let dir = Dir::new();
    let mut reader = Child::start("reads all", &[dir.arg()]);
    reader.expect("open");
    let mut writer = Child::start("loses a segment", &[dir.arg()]);
    writer.expect("the first segment is full");
    reader.signal(Signal::SIGSTOP);
    writer.tell("run short");
    writer.expect("short");
    reader.signal(Signal::SIGCONT);
    writer.tell("go on");
    writer.expect("published");
    reader.expect("heard all");
    writer.finish();
    reader.finish();
}

fn reads_all(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("reader").unwrap();
    let mut subscriber = node.subscriber_builder("t/*").wait(Wait::Park).open::<u64>().unwrap();
    parent.say("open");
    for n in 0..MISSED {
        assert_eq!(*next(&mut subscriber).unwrap(), n);
    }
    parent.say("heard all");
    parent.stay();
}

fn loses_a_segment(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("writer").unwrap();
    let beats = || node.peers().first().and_then(|peer| peer.heartbeat().map(|beat| beat.sequence));
    let wait_for_beats = || {
        let before = beats();
        eventually("more beats of the reader's", || beats() > before.map(|before| before + 3));
    };
    let open = |topic: &str| node.publisher_builder(topic).capacity(4096).open::<u64>().unwrap();
    let full: Vec<_> = (0..CursorSegment::of_size(4096).slots()).map(|n| open(&format!("t/{n}"))).collect();
    for publisher in &full {
        publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    }
    wait_for_beats(); // every cursor has been named by then
    parent.say("the first segment is full");
    parent.hear("run short");
    let lost = open("t/lost");
    let shortage = Shortage::begin();
    parent.say("short");
    parent.hear("go on");
    wait_for_beats(); // the segment is done without
    drop(lost);
    wait_for_beats(); // nothing is asked for any more
    drop(shortage);
    let wait_for_it = Overflow::Block { timeout: DEADLINE }; // until it has asked, on a beat
    let mut publisher =
        node.publisher_builder("t/next").capacity(4096).overflow(wait_for_it).open::<u64>().unwrap();
    for n in 0..MISSED {
        publisher.publish(&n).unwrap(); // more than the log holds: its gate follows the reader
    }
    assert!(node.refused().is_empty() && node.peers().len() == 1, "{:?}", node.refused());
    parent.say("published");
    parent.stay();
}

/// A log and one blob, which is larger than a short process has room for.
const MAPPINGS: usize = 2;
const BLOB: usize = 64 << 20;

/// One that is sent again does not count beside itself, and is asked for as often as it is lost.
#[test]
fn a_blob_that_is_sent_again_has_the_room_that_it_was_to_have() {
    let dir = Dir::new();
    let mut child = Child::start("has no room for a blob", &[dir.arg()]);
    let socket = child.line();
    let raw = Raw::connect(Path::new(&socket));
    let reader = loop {
        if let Control::PortUp(up) = Control::decode(&raw.receive().0).unwrap() {
            break up.port;
        }
    };
    let (layout, bell) = (LogLayout::new(4096).unwrap(), timerfd::create().unwrap());
    let log = Sealed::create("ringbus-log", layout.segment_size(), true).unwrap();
    layout.initialise(&log, &LogHeader { log: 1, node: raw.id, port: 1 });
    let (filters, capacity) = (Strings::from_slice(&["t"]), Some(4096));
    let role = Role::Publisher;
    let up = PortUp { port: 1, role, filters, flags: 0, priority: 128, capacity, version: None };
    raw.send(&Control::PortUp(up), &[]);
    raw.attach(1, [1, reader], 4096, &[log.fd(), bell.as_fd()]);
    let memory = std::sync::Arc::new(Sealed::create("ringbus-blob", BLOB, true).unwrap());
    let _blob = Blob::new(memory.clone(), &BlobHeader { log: 1, node: raw.id, blob: 1 });
    let give = || {
        let blob = Control::Blob { log: 1, reader_number: 1, blob: 1, size: BLOB as u64 };
        raw.send(&blob, &[memory.fd()]);
    };
    for _ in 0..2 {
        give();
        loop {
            match Control::decode(&raw.receive().0) {
                Ok(Control::Again { what: 4, of: 1, id: 1, reader_number: 1 }) => break,
                Ok(said @ (Control::Again { .. } | Control::Exhausted { .. })) => panic!("{said:?}"),
                Ok(_) => {}
                Err(end) => panic!("it has cut the session: {end}"),
            }
        }
    }
    child.tell("there is room");
    child.expect("room");
    give();
    child.expect("mapped");
    child.finish();
}

fn has_no_room_for_a_blob(parent: &mut Parent, args: &[&str]) {
    let quotas = Quotas::default().mappings(MAPPINGS);
    let node = Bus::builder("bus").dir(args[0]).quotas(quotas).open().unwrap().join("reader").unwrap();
    let _subscriber = node.subscriber::<u64>("t").unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    setrlimit(Resource::RLIMIT_AS, pages * 4096 + BLOB as u64 / 2, hard).unwrap();
    let before = resources().1;
    parent.say(&format!("{}/bus/{}.sock", args[0], node.info().id()));
    parent.hear("there is room");
    setrlimit(Resource::RLIMIT_AS, soft, hard).unwrap();
    parent.say("room");
    eventually("its log and its blob are mapped", || resources().1 == before + MAPPINGS);
    assert!(node.refused().is_empty(), "{:?}", node.refused());
    parent.say("mapped");
    parent.stay();
}
