//! What is killed: one process for each point, doing one thing.
//!
//! Whatever it publishes begins with a number, and it tells by a byte for each what has been acknowledged.

use std::io::{PipeWriter, Write};
use std::time::Duration;

use ringbus::{Bus, Node, Overflow, Publisher, RawPublisher, RawSubscriber, Subscriber, Trust};

use super::support::{self, DEADLINE};
use super::tracer::mark;

/// Of its log: what is larger than a quarter of it travels in a blob.
const CAPACITY: u64 = 4096;
/// Of a large message. (Longer ones are copied by an instruction that counts as one for each byte.)
pub const LARGE: usize = 1500;
/// What is published before the mark, so that everything was used once.
const WARM: u64 = 2;

/// What each does, by the name of its case; those of which each instruction is looked at first.
pub const PUBLISHES: [&str; 6] = ["raw", "typed", "batch", "loan", "large", "large-loan"];
pub const RECEIVES: [&str; 5] = ["recv", "recv-typed", "recv-large", "recv-large-copied", "recv-none"];
pub const CALLS: [&str; 9] = [
    "call",
    "serve",
    "join",
    "open-publisher",
    "open-subscriber",
    "close-publisher",
    "close-subscriber",
    "first-large",
    "drop",
];

pub struct Victim {
    dir: String,
    tells: PipeWriter,
}

impl Victim {
    pub fn new(dir: &str, tells: PipeWriter) -> Self {
        Self { dir: dir.to_owned(), tells }
    }

    fn join(&self) -> Node {
        support::bus(&self.dir).join("victim").expect("join")
    }

    fn acknowledge(&mut self, count: usize) {
        assert_eq!(self.tells.write(&[1; 8][..count]).expect("write"), count);
    }
}

pub fn play(case: &str, victim: &mut Victim) {
    match case {
        "raw" | "loan" | "batch" | "large" | "large-loan" | "first-large" => raw(case, victim),
        "typed" => typed(victim),
        "recv" | "recv-large" | "recv-large-copied" | "recv-none" => receives(case, victim),
        "recv-typed" => receives_typed(victim),
        "call" => calls(victim),
        "serve" => serves(victim),
        "busy" => is_busy(victim),
        "join" => {
            mark();
            let _node = victim.join();
            mark();
        }
        "drop" => {
            let node = victim.join();
            let ports =
                (publisher(&node), node.raw_subscriber("feed").unwrap(), node.client("survivor").unwrap());
            mark();
            drop((ports, node));
            mark();
        }
        "open-publisher" => {
            let node = victim.join();
            mark();
            let _port = publisher(&node);
            mark();
        }
        "open-subscriber" => {
            let node = victim.join();
            mark();
            let _port = node.raw_subscriber("feed").unwrap();
            mark();
        }
        "close-publisher" => {
            let node = victim.join();
            let port = publisher(&node);
            mark();
            drop(port);
            mark();
        }
        "close-subscriber" => {
            let node = victim.join();
            let port = fed(&node);
            mark();
            drop(port);
            mark();
        }
        other => panic!("{other}?"),
    }
}

fn publisher(node: &Node) -> RawPublisher {
    let overflow = Overflow::Block { timeout: DEADLINE };
    let publisher = node.publisher_builder("said").capacity(CAPACITY).overflow(overflow).open_raw().unwrap();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    publisher
}

/// Message number so-and-so.
pub fn content(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![number as u8; len];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn raw(case: &str, victim: &mut Victim) {
    let node = victim.join();
    let mut publisher = publisher(&node);
    let len = if case.contains("large") { LARGE } else { 16 };
    let contents: Vec<_> = (0..WARM + 4).map(|number| content(number, len)).collect();
    let mut publish = |first: u64| {
        let next = &contents[first as usize];
        match case {
            "batch" => {
                let three = contents[first as usize..][..3].iter().map(|content| &content[..]);
                assert_eq!(publisher.publish_batch(three).unwrap(), 3);
                victim.acknowledge(3);
            }
            "loan" | "large-loan" => {
                let mut loan = publisher.loan(len).unwrap();
                loan.copy_from_slice(next);
                loan.send().unwrap();
                victim.acknowledge(1);
            }
            _ => {
                publisher.publish(next).unwrap();
                victim.acknowledge(1);
            }
        }
    };
    match case {
        "first-large" => {}
        "batch" => publish(0),
        _ => (0..WARM).for_each(&mut publish),
    }
    let first = match case {
        "first-large" => 0,
        "batch" => 3,
        _ => WARM,
    };
    mark();
    publish(first);
    mark();
}

fn typed(victim: &mut Victim) {
    let node = victim.join();
    let overflow = Overflow::Block { timeout: DEADLINE };
    let builder = node.publisher_builder("typed").capacity(CAPACITY).overflow(overflow);
    let mut publisher: Publisher<(u64, String)> = builder.open().unwrap();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    let mut publish = |number: u64| {
        publisher.publish(&(number, format!("number {number}"))).unwrap();
        victim.acknowledge(1);
    };
    (0..WARM).for_each(&mut publish);
    mark();
    publish(WARM);
    mark();
}

/// A subscriber that the survivor has sent four messages.
fn fed(node: &Node) -> RawSubscriber {
    let subscriber = node.raw_subscriber("feed").unwrap();
    feed(node, "feed");
    subscriber
}

fn feed(node: &Node, method: &str) {
    let survivor = node.client("survivor").unwrap();
    survivor.wait_for_server(DEADLINE).unwrap();
    survivor.call::<_, ()>(method, &()).unwrap();
}

fn receives(case: &str, victim: &mut Victim) {
    let trust = if case == "recv-large-copied" { Trust::Copy } else { Trust::Lend };
    let bus = Bus::builder("bus").dir(&victim.dir).trust(trust).open().unwrap();
    let node = bus.join("victim").unwrap();
    let mut subscriber = node.raw_subscriber("feed").unwrap();
    feed(&node, if case.contains("large") { "feed-large" } else { "feed" });
    let before = if case == "recv-none" { 4 } else { 2 };
    for _ in 0..before {
        assert!(subscriber.recv_timeout(DEADLINE).unwrap().is_some());
    }
    mark();
    if case == "recv-none" {
        assert!(subscriber.recv_timeout(Duration::from_micros(200)).unwrap().is_none());
    } else {
        drop(subscriber.recv().unwrap());
    }
    mark();
}

fn receives_typed(victim: &mut Victim) {
    let node = victim.join();
    let mut subscriber: Subscriber<(u64, String)> = node.subscriber("feed-typed").unwrap();
    feed(&node, "feed-typed");
    (0..2).for_each(|_| _ = subscriber.recv().unwrap());
    mark();
    drop(subscriber.recv().unwrap());
    mark();
}

fn calls(victim: &mut Victim) {
    let node = victim.join();
    let survivor = node.client("survivor").unwrap();
    survivor.wait_for_server(DEADLINE).unwrap();
    survivor.call::<_, u64>("echo", &1_u64).unwrap();
    mark();
    assert_eq!(survivor.call::<_, u64>("echo", &2_u64).unwrap(), 2);
    mark();
}

fn serves(victim: &mut Victim) {
    let node = victim.join();
    let (served, serve) = std::sync::mpsc::channel();
    let service = node.service("victim").method("echo", move |_, number: u64| {
        let _ = served.send(());
        Ok(number)
    });
    let _server = service.spawn().unwrap();
    feed(&node, "call-back"); // from now on until it does not answer
    serve.recv().unwrap();
    mark();
    (0..2).for_each(|_| serve.recv().unwrap());
    mark();
}

/// Joins, and does everything at once for as long as it lives. Not traced.
fn is_busy(victim: &mut Victim) {
    let node = victim.join();
    let mut publisher = node.publisher_builder("said").capacity(1 << 20).open_raw().unwrap();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    let mut subscriber = node.raw_subscriber("feed").unwrap();
    let survivor = node.client("survivor").unwrap();
    survivor.wait_for_server(DEADLINE).unwrap();
    for number in 0.. {
        let len = if number % 8 == 7 { (1 << 18) + 1 } else { 16 };
        if publisher.publish(&content(number, len)).is_err() {
            break; // nobody reads before this process is dead
        }
        victim.acknowledge(1);
        if number % 16 == 0 {
            survivor.call::<_, ()>("feed", &()).unwrap();
            assert_eq!(survivor.call::<_, u64>("echo", &number).unwrap(), number);
        }
        while subscriber.try_recv().unwrap().is_some() {}
    }
    support::Parent::new().stay();
}
