//! Messages to all nodes.

use std::collections::HashMap;

use ringbus::{Destination, SendError};

mod support;
use support::{Child, DEADLINE, Dir, Parent, eventually};

/// Messages of each sender.
const MESSAGES: u32 = 2000;

/// Not a test of its own but the second process of those here: does nothing unless one of them started it.
#[test]
fn child() {
    support::play(&[("listens", listens), ("broadcasts", broadcasts)]);
}

#[test]
fn every_broadcast_reaches_every_node_in_order_the_senders_own_included() {
    let dir = Dir::new();
    let node = dir.join("sender");
    let mut own = node.broadcasts::<u32>().unwrap();
    let mut listeners: Vec<_> = (0..2).map(|_| Child::start("listens", &[dir.arg()])).collect();
    listeners.iter_mut().for_each(|listener| listener.expect("open"));
    let sender = Child::start("broadcasts", &[dir.arg()]);
    std::thread::scope(|scope| {
        scope.spawn(|| receive_all(&mut own));
        (0..MESSAGES).for_each(|number| node.broadcast(&number).unwrap());
    });
    listeners.into_iter().for_each(Child::finish);
    sender.finish();
}

fn receive_all(port: &mut ringbus::Subscriber<u32>) {
    let mut due = HashMap::new();
    for _ in 0..2 * MESSAGES {
        let message = port.recv_timeout(DEADLINE).unwrap().expect("another");
        assert_eq!((message.destination(), message.topic()), (Destination::All, "@all"));
        let due: &mut u32 = due.entry(message.source().id()).or_default();
        assert_eq!(*message, *due);
        *due += 1;
    }
    assert_eq!(due.into_values().collect::<Vec<_>>(), [MESSAGES; 2]);
}

fn listens(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("listener").unwrap();
    let mut port = node.broadcasts().unwrap();
    parent.say("open");
    receive_all(&mut port);
    parent.stay();
}

fn broadcasts(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("sender").unwrap();
    (0..MESSAGES).for_each(|number| node.broadcast(&number).unwrap());
    drop(node);
    parent.stay();
}

#[test]
fn a_late_listener_gets_what_follows() {
    let dir = Dir::new();
    let (sender, late) = (dir.join("sender"), dir.join("late"));
    (0..10).for_each(|number| sender.broadcast(&number).unwrap()); // to nobody, which is no error
    let mut port = late.broadcasts::<u32>().unwrap();
    eventually("its log is read", || {
        sender.survey(DEADLINE)[0].ports.iter().any(|port| port.name == "@all" && port.stats.peers == 1)
    });
    for number in 10..20 {
        sender.broadcast(&number).unwrap();
        assert_eq!(*port.recv_timeout(DEADLINE).unwrap().expect("the message"), number);
    }
}

#[test]
fn broadcasts_are_for_those_who_ask_for_them_alone() {
    let dir = Dir::new();
    let node = dir.join("node");
    let mut wild = node.raw_subscriber("**").unwrap();
    let mut both = node.broadcasts_builder().filter("t").open_raw().unwrap();
    let mut raw = node.raw_broadcasts().unwrap();
    node.message_to_all("x").header("a", "b").timestamp().correlation("c").send().unwrap();
    node.raw_message_to_all(b"bytes").send().unwrap();
    node.raw_publisher("t").unwrap().publish(b"event").unwrap();

    let sample = raw.recv_timeout(DEADLINE).unwrap().expect("the broadcast");
    assert_eq!((sample.headers().get("a"), sample.correlation()), (Some("b"), Some("c")));
    assert!(sample.timestamp().is_some());
    drop(sample);
    assert_eq!(*raw.recv_timeout(DEADLINE).unwrap().expect("the bytes"), *b"bytes");
    assert_eq!(*wild.recv_timeout(DEADLINE).unwrap().expect("the event"), *b"event");
    let mut kinds = [0; 2];
    for _ in 0..3 {
        let sample = both.recv_timeout(DEADLINE).unwrap().expect("another");
        kinds[usize::from(sample.destination() == Destination::All)] += 1;
    }
    assert_eq!(kinds, [1, 2]);
    assert!(node.subscriber::<u32>("@all").is_err() && node.publisher::<u32>("@all").is_err());
    let huge = vec![0; (64 << 20) + 1];
    assert!(matches!(node.raw_message_to_all(&huge).send(), Err(SendError::TooLarge { .. })));
}
