//! Processes that have no memory for what a peer sends: they are told so, and go on.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringbus::{Bus, Code, Node, RecvError, Status, Trust};

mod support;
use support::{Child, DEADLINE, Dir, Parent};

/// Bytes of what is too much: the process may map it, and has no room for a copy.
const LARGE: usize = (64 << 20) - 64;
/// What a process may have beyond what it has.
const MORE: u64 = 100 << 20;
/// The same where there is room for a copy, too, and none for the value.
const MORE_FOR_A_COPY: u64 = 160 << 20;

#[test]
fn child() {
    support::play(&[
        ("serves", serves),
        ("calls", calls),
        ("is lossy", is_lossy),
        ("is wary", is_wary),
        ("is typed", is_typed),
    ]);
}

/// From here on this process may have little more memory than it has.
fn run_short() {
    run_short_of(MORE);
}

fn run_short_of(more: u64) {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
    let mapped = pages * ringbus::internals::segment::page_size() as u64;
    setrlimit(Resource::RLIMIT_AS, mapped + more, hard).unwrap();
}

fn service(node: &Node) -> ringbus::Server {
    let service = node.service("s").workers(1);
    let service = service.method("length", |_, text: String| Ok(text.len()));
    service.method("text", |_, len: usize| Ok("x".repeat(len))).spawn().unwrap()
}

#[track_caller]
fn is_told(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("ulimit -v"), "{status}");
}

#[test]
fn a_request_that_is_too_much_for_its_server_is_refused() {
    let dir = Dir::new();
    let mut server = Child::start("serves", &[dir.arg()]);
    server.expect("open");
    let node = dir.join("client");
    let client = node.client("s").unwrap();
    let length = |len| client.request("length").timeout(DEADLINE).send::<_, usize>(&"x".repeat(len));
    assert_eq!(*length(10).unwrap(), 10); // whoever works has an arena of malloc's then
    server.tell("on");
    server.expect("short");
    for _ in 0..2 {
        is_told(&length(LARGE).map(|_| ()).unwrap_err());
        assert_eq!(*length(10).unwrap(), 10);
    }
    server.finish();
}

fn serves(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("server").unwrap();
    let _server = service(&node);
    parent.say("open");
    parent.hear("on");
    run_short();
    parent.say("short");
    parent.stay();
}

#[test]
fn an_answer_that_is_too_much_for_its_caller_is_an_error() {
    let dir = Dir::new();
    let node = dir.join("server");
    let _server = service(&node);
    let mut client = Child::start("calls", &[dir.arg()]);
    client.expect("went on");
    client.finish();
}

fn calls(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("client").unwrap();
    let client = node.client("s").unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    let text = |len: usize| client.request("text").timeout(DEADLINE).send::<_, String>(&len);
    assert_eq!(*text(3).unwrap(), "xxx");
    run_short();
    for _ in 0..2 {
        is_told(&text(LARGE).map(|_| ()).unwrap_err());
        assert_eq!(*text(3).unwrap(), "xxx");
    }
    parent.say("went on");
}

/// Has a process receive something small, what is too much, and something small again.
fn publish_to(role: &str) {
    let dir = Dir::new();
    let node = dir.join("writer");
    let mut publisher = node.raw_publisher("t").unwrap();
    let mut reader = Child::start(role, &[dir.arg()]);
    reader.expect("short");
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    for bytes in [vec![1; 10], vec![2; LARGE], vec![3; 10]] {
        publisher.publish(&bytes).unwrap();
        reader.expect("next");
    }
    reader.finish();
}

#[test]
fn a_lossy_subscriber_misses_what_it_has_no_memory_for() {
    publish_to("is lossy");
}

fn is_lossy(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("reader").unwrap();
    let mut subscriber = node.subscriber_builder("t").lossy().open_raw().unwrap();
    run_short();
    parent.say("short");
    assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("the first"), [1; 10]);
    parent.say("next");
    let missed = subscriber.recv_timeout(DEADLINE).map(drop);
    assert!(matches!(missed, Err(RecvError::Lagged { missed: 1, .. })), "{missed:?}");
    parent.say("next");
    assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("the last"), [3; 10]);
    parent.say("next");
}

#[test]
fn a_subscriber_that_trusts_nobody_is_told_of_what_it_has_no_memory_for() {
    publish_to("is wary");
}

fn is_wary(parent: &mut Parent, args: &[&str]) {
    let bus = Bus::builder("bus").dir(args[0]).trust(Trust::Copy).open().unwrap();
    let node = bus.join("reader").unwrap();
    let mut subscriber = node.raw_subscriber("t").unwrap();
    run_short();
    parent.say("short");
    assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("the first"), [1; 10]);
    parent.say("next");
    let refused = subscriber.recv_timeout(DEADLINE).map(drop);
    assert!(matches!(refused, Err(RecvError::Decode { sequence: 1, .. })), "{refused:?}");
    parent.say("next");
    assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("the last"), [3; 10]);
    parent.say("next");
}

/// Its `String` ended the process: the decoder had no memory for it, and let serde try once more.
#[test]
fn a_typed_subscriber_is_told_of_what_it_has_no_memory_to_decode() {
    let dir = Dir::new();
    let node = dir.join("writer");
    let mut publisher = node.publisher::<String>("t").unwrap();
    let mut reader = Child::start("is typed", &[dir.arg()]);
    reader.expect("short");
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    for len in [10, LARGE - 64, 11] {
        publisher.publish(&"x".repeat(len)).unwrap();
        reader.expect("next");
    }
    reader.finish();
}

fn is_typed(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("reader").unwrap();
    let mut subscriber = node.subscriber::<String>("t").unwrap();
    run_short_of(MORE_FOR_A_COPY);
    parent.say("short");
    assert_eq!(subscriber.recv_timeout(DEADLINE).unwrap().expect("the first").len(), 10);
    parent.say("next");
    let refused = subscriber.recv_timeout(DEADLINE).map(drop);
    let Err(RecvError::Decode { sequence: 1, reason, .. }) = &refused else { panic!("{refused:?}") };
    assert!(reason.contains("ulimit -v"), "{reason}");
    parent.say("next");
    assert_eq!(subscriber.recv_timeout(DEADLINE).unwrap().expect("the last").len(), 11);
    parent.say("next");
}
