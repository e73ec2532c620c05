//! Nodes in processes of their own that are killed or stopped.
//!
//! The second process is this test binary, run again for [`second_process`] alone: it shares nothing with
//! this one but the bus.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use super::bus::{Bus, Node, turn_until, turns_within};
use super::handshake::hello;
use super::net::id;
use crate::control::Gone;
use crate::control::hub::Event;
use crate::control::{Directory, Location};
use crate::frame::Control;
use crate::sys::testing::{self, DEADLINE};

const ROLE: &str = "RINGBUS_TEST_ROLE";
const BASE: &str = "RINGBUS_TEST_BASE";

/// Messages that the second process sends before it is killed: some with fds, as many as may be under way.
fn last_words() -> Vec<u64> {
    [1, 2, 5, 6, 9].into_iter().chain((0..100).map(|n| 4 * n)).collect()
}

/// The number of the second process's node, which dials node 0.
const OTHER: usize = 1;

/// Not a test of its own but the other process of those here: does nothing unless one of them started it.
#[test]
fn second_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let base = std::env::var_os(BASE).expect("a bus");
    let directory = Directory::open(&Location::new(Some(base.into()), None), "bus").expect("opens");
    if role == "a caller without end" {
        return call_without_end(&directory);
    }
    let mut node = Node::open(directory, OTHER);
    node.driver.dial_all().expect("lists");
    while node.ups() == 0 {
        node.turn(DEADLINE);
    }
    match role.as_str() {
        "says last words" => {
            ready(0);
            while node.received().is_empty() {
                node.turn(DEADLINE);
            }
            last_words().into_iter().for_each(|n| node.send(0, n));
            let mut marks = node.driver.marks();
            node.driver.flush();
            assert!(node.driver.all_sent(&mut marks));
            ready(0);
            testing::stay();
        }
        "leaves an heir" => {
            let heir = testing::Child::spawn(testing::stay);
            ready(heir.pid());
            testing::stay();
        }
        "echoes" => {
            ready(0);
            let mut echoed = 0;
            loop {
                node.turn(DEADLINE);
                let received = node.received();
                for n in &received[echoed..] {
                    node.driver.send(id(0), &Control::Stats { request: *n }, &[]);
                }
                echoed = received.len();
            }
        }
        other => panic!("no role {other:?}"),
    }
}

/// Sends more than a node takes in one turn, out of a socket that was made larger; then leaves an heir.
fn call_without_end(directory: &Directory) {
    let socket = directory.dial(id(0)).expect("connects");
    setsockopt(&socket.as_fd(), sockopt::SndBufForce, &(64 << 20)).expect("this is root");
    socket.send(&super::encode(&Control::Hello(hello(OTHER))), &[]).expect("sends");
    for n in 0..MANY {
        socket.send(&super::encode(&Control::Stats { request: n }), &[]).expect("sends");
    }
    let heir = testing::Child::spawn(testing::stay);
    ready(heir.pid());
    testing::stay();
}

const MANY: u64 = 5000;

fn ready(pid: i32) {
    eprintln!("ready {pid}");
}

/// The second process; killed when the test is over, if it lives then.
struct Second {
    process: Child,
    hear: Receiver<i32>,
    /// What it said it has left behind.
    heir: Option<i32>,
}

impl Second {
    /// Starts it, and turns this process's nodes until it is ready.
    fn start(bus: &Bus, role: &str, nodes: &mut [Node]) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this binary"))
            .args(["control::tests::deaths::second_process", "--exact", "--nocapture"])
            .env(ROLE, role)
            .env(BASE, bus.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let output = BufReader::new(process.stderr.take().expect("piped"));
        let (told, hear) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                match line.strip_prefix("ready ") {
                    Some(pid) => _ = told.send(pid.parse().expect("a number")),
                    None => eprintln!("second process: {line}"),
                }
            }
        });
        let mut second = Self { process, hear, heir: None };
        second.await_ready(nodes);
        second
    }

    /// Turns the nodes until the second process says that it is ready.
    fn await_ready(&mut self, nodes: &mut [Node]) {
        let deadline = Instant::now() + DEADLINE;
        let heir = loop {
            assert!(Instant::now() < deadline, "the second process is ready");
            nodes.iter_mut().for_each(|node| node.turn(Duration::ZERO));
            match self.hear.recv_timeout(Duration::from_millis(1)) {
                Ok(heir) => break heir,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("the second process has failed"),
            }
        };
        self.heir = (heir != 0).then_some(heir);
    }

    fn kill(&mut self) {
        self.process.kill().expect("kills");
        self.process.wait().expect("reaps");
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("runs").success());
    }

    /// Stops the process, and returns when each of its threads has stopped.
    fn stop(&self) {
        self.signal("-STOP");
        let deadline = Instant::now() + DEADLINE;
        while !self.is_stopped() {
            assert!(Instant::now() < deadline, "the second process stops");
        }
    }

    fn is_stopped(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("lists");
        tasks.flatten().all(|task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).expect("reads");
            stat.rsplit(") ").next().is_some_and(|state| state.starts_with('T'))
        })
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(heir) = self.heir {
            testing::kill(heir);
        }
    }
}

#[test]
fn a_killed_peers_last_messages_arrive_then_its_death_and_its_socket_is_removed() {
    let bus = Bus::new();
    let mut nodes = [Node::open(bus.directory(), 0)];
    let mut second = Second::start(&bus, "says last words", &mut nodes);
    nodes[0].send(OTHER, 0);
    nodes[0].driver.flush();
    second.await_ready(&mut []);
    second.kill();
    assert!(nodes[0].received().is_empty(), "nothing was handled before the death");
    turn_until(&mut nodes, |nodes| !nodes[0].downs().is_empty());
    assert_eq!(nodes[0].received(), last_words());
    assert_eq!(nodes[0].downs(), [(id(OTHER), Gone::Died)]);
    assert!(matches!(nodes[0].events.last(), Some(Event::Down { .. })), "nothing follows");
    turn_until(&mut nodes, |_| !bus.socket(OTHER).exists());
}

/// The peer dies with input of this node unread: the kernel tells of a reset first.
#[test]
fn a_killed_peer_that_had_not_read_loses_nothing_of_what_it_sent() {
    let bus = Bus::new();
    let mut nodes = [Node::open(bus.directory(), 0)];
    let mut second = Second::start(&bus, "says last words", &mut nodes);
    nodes[0].send(OTHER, 0);
    nodes[0].driver.flush();
    second.await_ready(&mut []);
    nodes[0].send(OTHER, 4);
    nodes[0].driver.flush();
    second.kill();
    turn_until(&mut nodes, |nodes| !nodes[0].downs().is_empty());
    assert_eq!(nodes[0].received(), last_words());
}

#[test]
fn a_death_is_noticed_although_a_forked_child_holds_the_sockets() {
    let bus = Bus::new();
    let mut nodes = [Node::open(bus.directory(), 0)];
    let mut second = Second::start(&bus, "leaves an heir", &mut nodes);
    assert!(second.heir.is_some() && nodes[0].ups() == 1);
    second.kill();
    let start = Instant::now();
    turn_until(&mut nodes, |nodes| !nodes[0].downs().is_empty());
    assert!(start.elapsed() < Duration::from_millis(900), "told, not looked for");
    assert_eq!(nodes[0].downs(), [(id(OTHER), Gone::Died)]);
    assert!(!bus.socket(OTHER).exists(), "although the heir would take calls");
}

/// The dead node's listener would take calls for as long as its forked child lives.
#[test]
fn a_socket_that_only_a_dead_nodes_heir_holds_is_removed_by_whoever_dials_it() {
    let bus = Bus::new();
    let mut nodes = vec![Node::open(bus.directory(), 0)];
    let mut second = Second::start(&bus, "leaves an heir", &mut nodes);
    nodes.clear();
    second.kill();
    assert!(bus.socket(OTHER).exists());
    let mut late = bus.join(2);
    assert!(!bus.socket(OTHER).exists() && !late.driver.is_dialling(id(OTHER)));
    late.turn(Duration::ZERO);
    assert!(late.events.is_empty(), "{:?}", late.events);
}

#[test]
fn more_than_one_turn_takes_is_delivered_after_a_death() {
    if !testing::is_root("more_than_one_turn_takes_is_delivered_after_a_death") {
        return; // a socket's buffer is for root to enlarge
    }
    let bus = Bus::new();
    let mut node = Node::open(bus.directory(), 0);
    let mut second = Second::start(&bus, "a caller without end", &mut []);
    second.kill();
    // Hello may only be heard of callers that live.
    node.turn(Duration::ZERO);
    assert!(node.events.is_empty());
    drop(second);

    let mut nodes = [node];
    let mut second = Second::start(&bus, "a caller without end", &mut nodes[..0]);
    // One turn accepts the caller, the next handles what one turn handles.
    nodes[0].turn(Duration::ZERO);
    nodes[0].turn(Duration::ZERO);
    assert!(nodes[0].ups() == 1 && nodes[0].received().len() < MANY as usize);
    second.kill();
    turn_until(&mut nodes, |nodes| !nodes[0].downs().is_empty());
    assert_eq!(nodes[0].received(), (0..MANY).collect::<Vec<_>>());
}

#[test]
fn a_stopped_peer_is_not_taken_for_dead_and_misses_nothing() {
    let bus = Bus::new();
    let mut nodes = [Node::open(bus.directory(), 0)];
    let second = Second::start(&bus, "echoes", &mut nodes);
    second.stop();
    for n in 0..2000 {
        nodes[0].driver.send(id(OTHER), &Control::Stats { request: 4 * n }, &[]);
    }
    // Longer than a handshake may take, and than the directory is left alone.
    let start = Instant::now();
    turn_until(&mut nodes, |_| start.elapsed() > Duration::from_millis(2500));
    assert_eq!((nodes[0].ups(), nodes[0].downs()), (1, vec![]));
    assert!(bus.socket(OTHER).exists());
    second.signal("-CONT");
    turn_until(&mut nodes, |nodes| nodes[0].received().len() == 2000);
    assert!(nodes[0].downs().is_empty());
}

/// A node that was stopped while others looked for it finds their calls when it goes on.
#[test]
fn a_node_stopped_while_it_was_dialled_comes_up_once() {
    let bus = Bus::new();
    let mut nodes = vec![Node::open(bus.directory(), 0)];
    let second = Second::start(&bus, "echoes", &mut nodes);
    second.stop();
    let mut late = vec![bus.join(2)];
    let start = Instant::now();
    turn_until(&mut late, |_| start.elapsed() > Duration::from_millis(2500));
    assert_eq!((late[0].ups(), late[0].events.len()), (0, 0), "not an answer, not an end");
    second.signal("-CONT");
    turn_until(&mut late, |late| late[0].ups() == 1);
    late[0].driver.send(id(OTHER), &Control::Stats { request: 4 }, &[]);
    let start = Instant::now();
    turn_until(&mut late, |_| start.elapsed() > Duration::from_millis(1200));
    assert_eq!((late[0].ups(), late[0].downs()), (1, vec![]));
}

/// Its child holds what this node has closed; were it not taken out of the set, it would be told for ever.
#[test]
fn a_node_that_has_forked_does_not_spin_after_a_peers_death() {
    let bus = Bus::new();
    let mut nodes = [Node::open(bus.directory(), 0)];
    let mut second = Second::start(&bus, "echoes", &mut nodes);
    let child = testing::Child::spawn(testing::stay);
    second.kill();
    turn_until(&mut nodes, |nodes| !nodes[0].downs().is_empty());
    let turns = turns_within(&mut nodes[0], Duration::from_millis(200));
    child.kill();
    child.wait();
    assert!(turns <= 3, "{turns} turns");
}
