//! Drivers over real sockets, all in this process, turned by the test.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::net::{card, id, numbered};
use crate::control::Gone;
use crate::control::driver::Driver;
use crate::control::hub::{Admission, Event};
use crate::control::{Directory, Location, Message, NodeId};
use crate::frame::Control;
use crate::sys::seqpacket::{Listener, Socket};
use crate::sys::testing::DEADLINE;
use crate::sys::{credentials, poll};
use crate::wake::Bell;

/// A bus of one test.
pub(super) struct Bus {
    pub(super) dir: TempDir,
}

/// A node and all that its driver has told.
pub(super) struct Node {
    pub(super) driver: Driver,
    pub(super) bell: Bell,
    pub(super) events: Vec<Event<OwnedFd>>,
}

impl Bus {
    pub(super) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    pub(super) fn directory(&self) -> Directory {
        Directory::open(&Location::new(Some(self.dir.path().to_owned()), None), "bus").expect("opens")
    }

    pub(super) fn socket(&self, node: usize) -> PathBuf {
        self.directory().path().join(format!("{}.sock", id(node)))
    }

    /// A node that has dialled all who were there.
    pub(super) fn join(&self, node: usize) -> Node {
        let mut node = Node::open(self.directory(), node);
        node.driver.dial_all().expect("lists");
        node
    }

    /// So many nodes, each of which knows all others.
    pub(super) fn joined(&self, count: usize) -> Vec<Node> {
        let mut nodes: Vec<_> = (0..count).map(|node| self.join(node)).collect();
        turn_until(&mut nodes, |nodes| nodes.iter().all(|node| node.ups() == count - 1));
        nodes
    }

    /// A connection to a node that is up to the test.
    pub(super) fn call(&self, node: usize) -> Socket {
        Socket::connect(&self.socket(node)).expect("connects")
    }
}

impl Node {
    pub(super) fn open(directory: Directory, node: usize) -> Self {
        let bell = Bell::new().expect("a bell");
        let only_us = Admission { uid: credentials::euid(), group: None };
        let driver = Driver::open(directory, card(node), only_us, bell.clone()).expect("opens");
        Self { driver, bell, events: Vec::new() }
    }

    pub(super) fn turn(&mut self, wait: Duration) {
        self.driver.turn(Some(Instant::now() + wait)).expect("turns");
        while let Some(event) = self.driver.poll_event() {
            self.events.push(event);
        }
    }

    pub(super) fn ups(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Up { .. })).count()
    }

    pub(super) fn downs(&self) -> Vec<(NodeId, Gone)> {
        let down = |event: &Event<OwnedFd>| match event {
            Event::Down { peer, why } => Some((*peer, why.clone())),
            _ => None,
        };
        self.events.iter().filter_map(down).collect()
    }

    /// Numbers of the messages that [`Node::send`] has sent.
    pub(super) fn received(&self) -> Vec<u64> {
        let number = |event: &Event<OwnedFd>| match event {
            Event::Message { message, fds, .. } => {
                let (n, count) = match message {
                    Message::Stats { request } => (*request, 0),
                    Message::Attached { log, .. } => (*log, 1),
                    Message::Attach(attach) => (attach.log, 2),
                    other => panic!("{other:?} is none of ours"),
                };
                assert_eq!(fds.len(), count, "fds of message {n}");
                Some(n)
            }
            _ => None,
        };
        self.events.iter().filter_map(number).collect()
    }

    /// Queues the message number `n` (see [`numbered`]); its fds are bells.
    pub(super) fn send(&mut self, to: usize, n: u64) {
        let (control, fds) = numbered(n);
        let fds: Vec<_> = fds.iter().map(|_| self.bell.shared_fd()).collect();
        self.driver.send(id(to), &control, &fds);
    }
}

/// Turns all nodes until `done`.
#[track_caller]
pub(super) fn turn_until(nodes: &mut [Node], done: impl Fn(&[Node]) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done(nodes) {
        if Instant::now() > deadline {
            let events: Vec<_> = nodes.iter().map(|node| &node.events).collect();
            panic!("not within {DEADLINE:?}: {events:?}");
        }
        for node in &mut *nodes {
            node.turn(Duration::from_millis(1));
        }
    }
}

/// How often the node wakes up within this time, nobody asking.
pub(super) fn turns_within(node: &mut Node, time: Duration) -> usize {
    let end = Instant::now() + time;
    let mut turns = 0;
    while Instant::now() < end {
        node.driver.turn(Some(end)).expect("turns");
        turns += 1;
    }
    turns
}

#[test]
fn nodes_that_join_learn_of_each_other() {
    let bus = Bus::new();
    let mut nodes = vec![bus.join(0)];
    nodes.push(bus.join(1));
    assert!(nodes[1].driver.is_dialling(id(0)));
    turn_until(&mut nodes, |nodes| nodes.iter().all(|node| node.ups() == 1));
    for (node, peer) in [(0, 1), (1, 0)] {
        let [Event::Up { card: found, credentials: from, capabilities: 0 }] = &nodes[node].events[..] else {
            panic!("{:?}", nodes[node].events)
        };
        assert_eq!(*found, card(peer));
        assert_eq!((from.pid, from.uid), (std::process::id() as i32, credentials::euid()));
    }
}

#[test]
fn three_nodes_that_dial_each_other_at_once_are_all_joined() {
    let bus = Bus::new();
    let mut nodes: Vec<_> = (0..3).map(|node| Node::open(bus.directory(), node)).collect();
    for node in &mut nodes {
        assert_eq!(node.driver.dial_all().expect("lists").len(), 2);
    }
    turn_until(&mut nodes, |nodes| nodes.iter().all(|node| node.ups() >= 2));
    for node in &mut nodes {
        node.turn(Duration::ZERO);
        assert_eq!((node.ups(), node.downs()), (2, vec![]));
        assert!(node.driver.dial_all().expect("lists").is_empty(), "all are known");
    }
}

#[test]
fn twenty_nodes_are_all_joined() {
    let bus = Bus::new();
    let mut nodes = bus.joined(20);
    for (from, node) in nodes.iter_mut().enumerate() {
        (0..20).filter(|to| *to != from).for_each(|to| node.send(to, 2));
    }
    turn_until(&mut nodes, |nodes| nodes.iter().all(|node| node.received().len() == 19));
    assert!(nodes.iter().all(|node| node.ups() == 19 && node.downs().is_empty()));
}

#[test]
fn messages_arrive_in_order_with_their_fds() {
    let bus = Bus::new();
    let mut nodes = bus.joined(2);
    for n in 0..200 {
        nodes[0].send(1, n);
        nodes[1].send(0, n);
    }
    turn_until(&mut nodes, |nodes| nodes.iter().all(|node| node.received().len() == 200));
    for node in &nodes {
        assert_eq!(node.received(), (0..200).collect::<Vec<_>>());
    }
    let fds = nodes[1].events.iter().find_map(|event| match event {
        Event::Message { fds, .. } if !fds.is_empty() => Some(fds),
        _ => None,
    });
    let bell = fds.expect("some have fds")[0].try_clone().expect("an fd");
    Bell::from_peer(std::sync::Arc::new(bell)).expect("a bell").ring();
    assert!(nodes[0].bell.wait(Some(DEADLINE)).expect("polls"), "the very bell that was sent");
}

#[test]
fn what_is_queued_leaves_with_the_next_turn() {
    let bus = Bus::new();
    let mut nodes = bus.joined(2);
    let [one, other] = &mut nodes[..] else { unreachable!() };
    let bell = one.bell.clone();
    one.send(1, 3);
    std::thread::scope(|scope| {
        // Asleep for long: it rings when the other is done.
        scope.spawn(|| one.driver.turn(Some(Instant::now() + DEADLINE)).expect("turns"));
        let start = Instant::now();
        other.turn(DEADLINE);
        assert!(start.elapsed() < Duration::from_millis(500), "did not wait for something else");
        bell.ring();
    });
    assert_eq!(nodes[1].received(), [3]);
}

#[test]
fn more_than_a_socket_holds_arrives_once_the_peer_reads() {
    let bus = Bus::new();
    let mut nodes = bus.joined(2);
    for n in 0..5000 {
        nodes[0].driver.send(id(1), &Control::Stats { request: n }, &[]);
    }
    let mut marks = nodes[0].driver.marks();
    nodes[0].turn(Duration::ZERO);
    assert!(!nodes[0].driver.all_sent(&mut marks));
    assert!(turns_within(&mut nodes[0], Duration::from_millis(100)) <= 3, "waits for room without spinning");
    turn_until(&mut nodes, |nodes| nodes[1].received().len() == 5000);
    assert_eq!(nodes[1].received(), (0..5000).collect::<Vec<_>>());
    assert!(nodes[0].driver.all_sent(&mut marks) && marks.is_empty());
    assert!(turns_within(&mut nodes[0], Duration::from_millis(100)) <= 3, "room is of no interest any more");
}

#[test]
fn a_sweep_handles_all_that_has_arrived_callers_too() {
    let bus = Bus::new();
    let mut nodes = bus.joined(2);
    for n in 0..100 {
        nodes[0].send(1, 4 * n);
    }
    nodes[0].driver.flush();
    let mut late = bus.join(2);
    late.driver.flush();
    nodes[1].driver.sweep();
    while let Some(event) = nodes[1].driver.poll_event() {
        nodes[1].events.push(event);
    }
    assert_eq!((nodes[1].received().len(), nodes[1].ups()), (100, 2));
}

#[test]
fn leaving_says_goodbye_after_all_else_and_takes_the_socket_away() {
    let bus = Bus::new();
    let mut nodes = bus.joined(3);
    let mut leaver = nodes.remove(0);
    for n in [1, 2, 3] {
        leaver.send(1, n);
    }
    drop(leaver);
    assert!(!bus.socket(0).exists());
    turn_until(&mut nodes, |nodes| nodes.iter().all(|node| node.downs().len() == 1));
    assert_eq!(nodes[0].received(), [1, 2, 3]);
    for node in &nodes {
        assert_eq!(node.downs(), [(id(0), Gone::Goodbye)]);
        assert!(matches!(node.events.last(), Some(Event::Down { .. })));
    }
}

#[test]
fn a_removed_socket_is_placed_again() {
    let bus = Bus::new();
    let mut nodes = bus.joined(2);
    std::fs::remove_file(bus.socket(0)).expect("there");
    let start = Instant::now();
    turn_until(&mut nodes, |_| bus.socket(0).exists());
    assert!(start.elapsed() < Duration::from_secs(3));
    nodes.push(bus.join(2));
    turn_until(&mut nodes, |nodes| nodes[2].ups() == 2);
    assert_eq!((nodes[0].downs(), nodes[1].downs()), (vec![], vec![]), "sessions are not touched");
}

#[test]
fn a_node_that_was_overlooked_is_found_within_a_second_or_two() {
    let bus = Bus::new();
    let mut nodes: Vec<_> = (0..2).map(|node| Node::open(bus.directory(), node)).collect();
    turn_until(&mut nodes, |nodes| nodes.iter().all(|node| node.ups() == 1));
}

#[test]
fn a_stale_socket_is_removed_by_whoever_dials_it() {
    let bus = Bus::new();
    drop(Listener::bind(&bus.socket(7), 1).expect("binds"));
    let mut node = Node::open(bus.directory(), 0);
    // A child of a concurrent test may hold the listener for a moment.
    let deadline = Instant::now() + DEADLINE;
    while bus.socket(7).exists() {
        assert!(Instant::now() < deadline, "removed");
        node.driver.dial_all().expect("lists");
        node.turn(Duration::from_millis(1));
    }
    assert!(!node.driver.is_dialling(id(7)));
    assert!(node.events.is_empty(), "{:?}", node.events);
}

#[test]
fn a_full_backlog_is_dialled_again_until_there_is_room() {
    let bus = Bus::new();
    let listener = Listener::bind(&bus.socket(7), 1).expect("binds");
    let waiting: Vec<_> = std::iter::from_fn(|| Socket::connect(&bus.socket(7)).ok()).collect();
    let mut node = bus.join(0);
    node.turn(Duration::from_millis(20));
    assert!(node.driver.is_dialling(id(7)) && bus.socket(7).exists());
    for _ in &waiting {
        listener.accept().expect("accepts").expect("waits");
    }
    let mut nodes = [node];
    turn_until(&mut nodes, |_| poll::readable(listener.as_fd(), Some(Duration::ZERO)).expect("polls"));
    let socket = listener.accept().expect("accepts").expect("the node");
    assert!(poll::readable(socket.as_fd(), Some(DEADLINE)).expect("polls"));
    let mut buffer = [0; 1024];
    let len = socket.recv(&mut buffer).expect("receives").len;
    assert!(matches!(Control::decode(&buffer[..len]), Ok(Control::Hello(hello)) if hello.id == id(0).0));
}

#[test]
fn a_node_that_has_come_by_itself_is_not_dialled_again() {
    let bus = Bus::new();
    let listener = Listener::bind(&bus.socket(7), 1).expect("binds");
    let waiting: Vec<_> = std::iter::from_fn(|| Socket::connect(&bus.socket(7)).ok()).collect();
    let mut nodes = [bus.join(0)];
    let caller = bus.call(0);
    caller.send(&super::encode(&Control::Hello(super::handshake::hello(7))), &[]).expect("sends");
    turn_until(&mut nodes, |nodes| nodes[0].ups() == 1);
    for _ in &waiting {
        listener.accept().expect("accepts").expect("waits");
    }
    let start = Instant::now();
    turn_until(&mut nodes, |_| start.elapsed() > Duration::from_millis(50));
    assert!(listener.accept().expect("accepts").is_none());
}

#[test]
fn a_socket_of_another_kind_is_left_alone() {
    let bus = Bus::new();
    let _stream = std::os::unix::net::UnixListener::bind(bus.socket(7)).expect("binds");
    let mut node = bus.join(0);
    assert!(!node.driver.is_dialling(id(7)), "no use in trying again");
    assert!(turns_within(&mut node, Duration::from_millis(200)) <= 2);
    assert!(bus.socket(7).exists());
}

#[test]
fn a_peer_cut_off_is_told_at_once_and_refused_for_good() {
    let bus = Bus::new();
    let mut nodes = bus.joined(2);
    nodes[0].driver.cut(id(1), "enough".into());
    let start = Instant::now();
    nodes[0].turn(DEADLINE);
    assert!(start.elapsed() < Duration::from_millis(500), "without waiting for anything else");
    assert_eq!(nodes[0].downs(), [(id(1), Gone::Cut("enough".into()))]);
    assert!(!nodes[0].driver.is_dialling(id(1)));
    turn_until(&mut nodes, |nodes| nodes[1].downs() == [(id(0), Gone::HungUp)]);
    // It looks again after a second; nothing comes of it.
    let start = Instant::now();
    turn_until(&mut nodes, |_| start.elapsed() > Duration::from_millis(1200));
    assert_eq!((nodes[0].ups(), nodes[1].ups()), (1, 1));
    assert!(bus.socket(1).exists(), "alive");
}

#[test]
fn a_bell_ends_a_turn() {
    let bus = Bus::new();
    let mut node = bus.join(0);
    node.bell.ring();
    let start = Instant::now();
    node.driver.turn(None).expect("turns");
    assert!(start.elapsed() < Duration::from_millis(500));
    assert!(!node.bell.wait(Some(Duration::ZERO)).expect("polls"), "drained");
}

#[test]
fn an_idle_node_sleeps() {
    let bus = Bus::new();
    let mut nodes = bus.joined(2);
    nodes[0].turn(Duration::ZERO);
    // Once a second it looks at the directory.
    assert!(turns_within(&mut nodes[0], Duration::from_millis(1500)) <= 5);
}
