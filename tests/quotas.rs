//! Nodes that want more than their share, and their neighbours, who do not notice.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ringbus::internals::frame::{Control, PortUp, Role, Strings};
use ringbus::internals::ring::{CursorSegment, LogHeader, LogLayout};
use ringbus::internals::segment::Sealed;
use ringbus::internals::sys::timerfd;
use ringbus::{Bus, Client, Code, Node, Quotas, Resource, Server, Status};

#[path = "support/raw.rs"]
mod raw;
mod support;

use raw::Raw;
use support::{Child, DEADLINE, Dir, Parent, eventually};

const PORTS: u64 = 8;
const ATTACHMENTS: u64 = 4;
const MAPPINGS: u64 = 6;
const DESCRIPTORS: u64 = 5;
const CAPACITY: u64 = 4096;

/// Not a test of its own but the second process of those here: does nothing unless one of them started it.
#[test]
fn child() {
    support::play(&[("wants it all", wants_it_all), ("deaf", deaf)]);
}

/// The tests count the process's descriptors: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn join(dir: &Dir, name: &str, quotas: Quotas) -> Node {
    Bus::builder("bus").dir(dir.path()).quotas(quotas).open().unwrap().join(name).unwrap()
}

fn start(dir: &Dir, node: &Node, role: &str) -> Child {
    let socket = dir.path().join(format!("bus/{}.sock", node.info().id()));
    Child::start(role, &[socket.to_str().unwrap()])
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_peer_that_wants_it_all_gets_its_share_and_nobody_else_less() {
    let _alone = alone();
    let dir = Dir::new();
    let most = |most: u64| usize::try_from(most).unwrap();
    let quotas = Quotas::default()
        .ports(most(PORTS))
        .attachments(most(ATTACHMENTS))
        .mappings(most(MAPPINGS))
        .descriptors(most(DESCRIPTORS));
    let node = join(&dir, "node", quotas);
    let other = dir.join("other");
    let mut subscriber = node.subscriber::<u32>("t").unwrap();
    let mut publisher = other.publisher::<u32>("t").unwrap();
    publisher.publish(&1).unwrap();
    assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), 1);
    let before = open_fds();

    let mut greedy = start(&dir, &node, "wants it all");
    greedy.expect("got enough");
    // Its session and process handle, the pipes to the child, and what the quota says.
    assert!(open_fds() <= before + 8 + most(DESCRIPTORS), "{} of {before}", open_fds());
    let exhaustions = node.exhaustions();
    let mut resources: Vec<_> = exhaustions.latest.iter().map(|one| (one.resource, one.limit)).collect();
    resources.sort_unstable();
    let all = [
        (Resource::Ports, PORTS),
        (Resource::Attachments, ATTACHMENTS),
        (Resource::Mappings, MAPPINGS),
        (Resource::Descriptors, DESCRIPTORS),
    ];
    assert_eq!(resources, all);
    assert!(exhaustions.latest.iter().all(|one| one.by_this_node && one.node.name() == "raw"));
    assert!(exhaustions.by_this_node >= 190, "{exhaustions:?}");

    // It is still a peer, and others got what they always get.
    assert_eq!(node.refused(), []);
    assert!(node.peers().iter().any(|peer| peer.name() == "raw"));
    for number in 2..100 {
        publisher.publish(&number).unwrap();
        assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), number);
    }
    let mut second = other.publisher::<u32>("t").unwrap();
    second.publish(&100).unwrap();
    assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), 100);
    assert_eq!(other.exhaustions(), ringbus::Exhaustions::default());
    greedy.finish();
}

fn wants_it_all(parent: &mut Parent, args: &[&str]) {
    let raw = Raw::connect(args[0].as_ref());
    raw.send(&Control::PortsDone, &[]);
    let reader = loop {
        match Control::decode(&raw.receive().0) {
            Ok(Control::PortUp(up)) if up.role == Role::Subscriber => break up.port,
            _ => {}
        }
    };
    let bell = timerfd::create().unwrap();
    for port in 1..=100 {
        raw.send(&port_up(port, Role::Publisher), &[]);
        if port > PORTS {
            assert_eq!(refusal(&raw), (Resource::Ports, PORTS));
        }
    }
    // It was refused that port, and is not held to account for not knowing.
    let _unknown = attach(&raw, &bell, reader, 50, 1);
    assert_eq!(refusal(&raw), (Resource::Ports, PORTS));
    let mut logs = Vec::new();
    for log in 1..=100 {
        logs.push(attach(&raw, &bell, reader, 1, log));
        if log > ATTACHMENTS {
            assert_eq!(refusal(&raw), (Resource::Attachments, ATTACHMENTS));
        }
    }
    for port in 1..=PORTS {
        raw.send(&Control::PortDown { port }, &[]);
    }
    let [first, second] = [201, 202].map(|port| {
        let cursors = cursors(&raw, port, 0);
        raw.send(&port_up(port, Role::Subscriber), &[cursors.fd(), bell.as_fd()]);
        cursors
    });
    assert_eq!(refusal(&raw), (Resource::Descriptors, DESCRIPTORS));
    let further = [1, 2].map(|segment| {
        let cursors = cursors(&raw, 201, segment);
        raw.send(&Control::Attached { log: 999, reader_port: 201, segment, slot: 0 }, &[cursors.fd()]);
        cursors
    });
    assert_eq!(refusal(&raw), (Resource::Mappings, MAPPINGS));
    drop((first, second, further));
    parent.say("got enough");
    parent.stay();
}

/// What the node says is used up, next.
fn refusal(raw: &Raw) -> (Resource, u64) {
    loop {
        if let Ok(Control::Exhausted { resource, limit }) = Control::decode(&raw.receive().0) {
            let all = [Resource::Ports, Resource::Attachments, Resource::Mappings, Resource::Descriptors];
            return (all[usize::from(resource)], limit);
        }
    }
}

fn port_up(port: u64, role: Role) -> Control<'static> {
    let filters = Strings::from_slice(&["t"]);
    let capacity = (role == Role::Publisher).then_some(CAPACITY);
    Control::PortUp(PortUp { port, role, filters, flags: 0, priority: 128, capacity, version: None })
}

fn cursors(raw: &Raw, port: u64, segment: u32) -> Sealed {
    let cursors = Sealed::create("ringbus-cursors", 4096, true).unwrap();
    CursorSegment::of_size(4096).initialise(&cursors, raw.id, port, segment);
    cursors
}

/// Gives a reader a log; what has to be kept.
fn attach(raw: &Raw, bell: &OwnedFd, reader: u64, port: u64, log: u64) -> Sealed {
    let layout = LogLayout::new(CAPACITY).unwrap();
    let memory = Sealed::create("ringbus-log", layout.segment_size(), true).unwrap();
    layout.initialise(&memory, &LogHeader { log, node: raw.id, port });
    raw.attach(log, [port, reader], CAPACITY, &[memory.fd(), bell.as_fd()]);
    memory
}

#[test]
fn calls_beyond_the_quota_end_with_resource_exhausted() {
    let _alone = alone();
    let dir = Dir::new();
    let server = join(&dir, "server", Quotas::default().attachments(1));
    let _service = server.service("s").raw_method("m", |_, bytes| Ok(bytes.to_vec())).spawn().unwrap();
    let [node, other] = ["node", "other"].map(|name| dir.join(name));
    let [first, second] = [&node, &node].map(|node| node.client("s").unwrap());
    let others = other.client("s").unwrap();
    let call = |client: &ringbus::Client| {
        client.request("m").timeout(DEADLINE).send_raw(b"bytes").map(|answer| answer.to_vec())
    };
    assert_eq!(call(&first).unwrap(), b"bytes");
    for _ in 0..3 {
        let status = call(&second).unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("1 attachments"), "{status}");
        assert_eq!(call(&first).unwrap(), b"bytes");
        assert_eq!(call(&others).unwrap(), b"bytes");
    }
    let (told, counted) = (node.exhaustions(), server.exhaustions());
    assert_eq!((told.by_others, told.by_this_node, counted.by_this_node), (3, 0, 3));
    assert_eq!((told.latest[0].resource, told.latest[0].limit), (Resource::Attachments, 1));
    drop(first);
    eventually("there is room for the second", || call(&second).is_ok());
}

/// A server that answers with what it gets, or with much, at one node, and a client at another; each with its quotas.
fn calls_between(quotas: [Quotas; 2]) -> (Dir, Server, Client) {
    let dir = Dir::new();
    let [server, client] = quotas.map(|quotas| join(&dir, "node", quotas));
    let builder = server.service("s").raw_method("echo", |_, bytes| Ok(bytes.to_vec()));
    let service = builder.raw_method("much", |_, _| Ok(vec![7; LARGE])).spawn().unwrap();
    let client = client.client("s").unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    (dir, service, client)
}

/// Bytes of a payload that has memory of its own.
const LARGE: usize = 100_000;

fn call(client: &Client, method: &str, bytes: &[u8]) -> Result<usize, Status> {
    client.request(method).timeout(DEADLINE).send_raw(bytes).map(|answer| answer.len())
}

#[test]
fn a_request_that_the_server_has_no_mapping_for_ends_its_call() {
    let _alone = alone();
    // The client's cursors, and its log of requests.
    let (_dir, _server, client) = calls_between([Quotas::default().mappings(2), Quotas::default()]);
    for _ in 0..3 {
        let status = call(&client, "echo", &vec![7; LARGE]).unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("a request could not be taken"), "{status}");
        assert_eq!(call(&client, "echo", b"small").unwrap(), 5);
        assert_eq!(call(&client, "much", b"").unwrap(), LARGE);
    }
}

#[test]
fn an_answer_that_the_client_has_no_mapping_for_ends_its_call() {
    let _alone = alone();
    // The server's cursors, and its log of answers.
    let (_dir, _server, client) = calls_between([Quotas::default(), Quotas::default().mappings(2)]);
    for _ in 0..3 {
        let status = call(&client, "much", b"").unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("an answer could not be taken here"), "{status}");
        assert_eq!(call(&client, "echo", &vec![7; LARGE / 10]).unwrap(), LARGE / 10);
    }
}

#[test]
fn calls_of_a_client_that_may_not_read_the_answers_end() {
    let _alone = alone();
    let (_dir, _server, client) = calls_between([Quotas::default(), Quotas::default().mappings(1)]);
    for _ in 0..3 {
        let status = call(&client, "echo", b"small").unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains("its answers cannot be read"), "{status}");
        assert!(status.message().contains("mappings"), "{status}");
    }
}

#[test]
fn shares_without_bounds_are_no_bounds() {
    let dir = Dir::new();
    let all = Quotas::default().unread_messages(usize::MAX).unread_bytes(usize::MAX);
    let all = all.ports(usize::MAX).attachments(usize::MAX).mappings(usize::MAX).descriptors(usize::MAX);
    let [one, other] = ["one", "other"].map(|name| join(&dir, name, all));
    let mut subscriber = one.subscriber::<u32>("t").unwrap();
    let mut publisher = other.publisher::<u32>("t").unwrap();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    publisher.publish(&7).unwrap();
    assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("the message"), 7);
}

/// A peer that reads nothing is parted with when its share of unread messages is full.
#[test]
fn a_deaf_peer_costs_its_share_of_unread_messages() {
    let _alone = alone();
    let dir = Dir::new();
    let node = join(&dir, "node", Quotas::default().unread_messages(12));
    let other = dir.join("other");
    let mut deaf = start(&dir, &node, "deaf");
    deaf.expect("deaf");
    let is_there = || node.peers().iter().any(|peer| peer.name() == "raw");
    assert!(is_there());
    // Each is two datagrams, the first with two descriptors, of which eight are under way at most.
    for _ in 0..12 {
        drop(node.subscriber::<u32>("t").unwrap());
    }
    deaf.tell("listen");
    eventually("it is parted with", || !is_there());
    assert_eq!(node.refused(), []);
    assert!(node.peers().iter().any(|peer| peer.id() == other.info().id()));
    deaf.finish();
}

fn deaf(parent: &mut Parent, args: &[&str]) {
    let raw = Raw::connect(args[0].as_ref());
    raw.send(&Control::PortsDone, &[]);
    parent.say("deaf");
    parent.hear("listen");
    for count in 2.. {
        if raw.receive().0.is_empty() {
            break;
        }
        raw.try_send(&Control::Ack { count }, &[]);
    }
    parent.stay();
}
