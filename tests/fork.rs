//! A forked child has none of its parent's ports: each use says so, no drop harms the parent, and the child
//! can join anew.

use ringbus::{
    Bus, Node, OpenError, PeerChange, PublishError, Publisher, RawPublisher, RawSubscriber, RecvError,
};
use ringbus::{Subscriber, WaitError};

mod support;
use support::{DEADLINE, Forked, Parent, eventually, in_a_process_of_its_own};

/// Forks happen in processes of their own: no other test's thread holds a lock then.
/// Not a test of its own but the second process of those here: does nothing unless one of them started it.
#[test]
fn child() {
    support::play(&[
        ("uses what it inherited", uses_what_it_inherited),
        ("looks at what was lent", looks_at_what_was_lent),
        ("drops what it inherited", drops_what_it_inherited),
        ("joins anew", joins_anew),
        ("exits", exits),
        ("forks again", forks_again),
        ("shares a private bus", shares_a_private_bus),
    ]);
}

in_a_process_of_its_own! {
    every_use_after_a_fork_is_an_error: "uses what it inherited";
    what_was_lent_is_empty_after_a_fork: "looks at what was lent";
    ports_dropped_by_a_forked_child_stay_open_for_the_parent: "drops what it inherited";
    a_forked_child_can_join_anew: "joins anew";
    a_forked_child_that_exits_takes_nothing_with_it: "exits";
    a_forked_child_that_joined_can_fork_again: "forks again";
    a_private_bus_outlives_the_forked_child_that_drops_it: "shares a private bus";
}

/// A node with ports of each kind, that reach each other and a second node's.
struct Ports {
    bus: Bus,
    node: Node,
    publisher: Publisher<u32>,
    raw_publisher: RawPublisher,
    subscriber: Subscriber<u32>,
    raw_subscriber: RawSubscriber,
}

fn open(args: &[&str]) -> Ports {
    let bus = support::bus(args[0]);
    let node = bus.join("parent").unwrap();
    let subscriber = node.subscriber("typed").unwrap();
    let raw_subscriber = node.raw_subscriber("raw").unwrap();
    let (publisher, raw_publisher) = (node.publisher("typed").unwrap(), node.raw_publisher("raw").unwrap());
    let mut ports = Ports { bus, node, publisher, raw_publisher, subscriber, raw_subscriber };
    still_works(&mut ports);
    ports
}

/// The ports reach each other, and new ones can be opened.
#[track_caller]
fn still_works(ports: &mut Ports) {
    for value in 0..1000_u32 {
        ports.publisher.publish(&value).unwrap();
        assert_eq!(*ports.subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), value);
        ports.raw_publisher.publish(&value.to_le_bytes()).unwrap();
        let sample = ports.raw_subscriber.recv_timeout(DEADLINE).unwrap().expect("a sample");
        assert_eq!(*sample, value.to_le_bytes());
    }
    let mut late = ports.node.subscriber::<u32>("late").unwrap();
    ports.node.publisher("late").unwrap().publish(&1).unwrap();
    assert_eq!(*late.recv_timeout(DEADLINE).unwrap().expect("a message"), 1);
}

fn uses_what_it_inherited(parent: &mut Parent, args: &[&str]) {
    let mut ports = open(args);
    // Something to read is there when the fork happens.
    ports.publisher.publish(&7).unwrap();
    ports.raw_publisher.publish(b"seven").unwrap();
    let mut presence = ports.node.presence().unwrap();
    let _other = ports.bus.join("other").unwrap();
    let forked = Forked::run(|| {
        assert!(matches!(presence.recv(), Err(RecvError::Forked)));
        assert!(matches!(presence.try_recv(), Err(RecvError::Forked)));
        assert!(matches!(presence.recv_timeout(DEADLINE), Err(RecvError::Forked)));
        assert!(matches!(presence.arm(), Err(RecvError::Forked)));
        assert_eq!(presence.next(), None);
        assert!(matches!(ports.node.presence(), Err(OpenError::Forked)));
        let Ports { node, publisher, raw_publisher, subscriber, raw_subscriber, .. } = &mut ports;
        assert!(matches!(publisher.publish(&1), Err(PublishError::Forked)));
        assert!(matches!(publisher.message(&1).header("k", "v").send(), Err(PublishError::Forked)));
        assert!(matches!(raw_publisher.publish(b"1"), Err(PublishError::Forked)));
        assert!(matches!(raw_publisher.loan(1).map(drop), Err(PublishError::Forked)));
        assert!(matches!(publisher.wait_for_subscribers(1, DEADLINE), Err(WaitError::Forked)));
        assert!(matches!(subscriber.recv().map(drop), Err(RecvError::Forked)));
        assert!(matches!(subscriber.try_recv(), Err(RecvError::Forked)));
        assert!(matches!(subscriber.recv_timeout(DEADLINE), Err(RecvError::Forked)));
        assert!(matches!(subscriber.arm(), Err(RecvError::Forked)));
        assert_eq!(subscriber.iter().count(), 1, "the error, then the end");
        assert!(matches!(raw_subscriber.recv().map(drop), Err(RecvError::Forked)));
        assert!(matches!(raw_subscriber.try_recv().map(drop), Err(RecvError::Forked)));
        assert!(matches!(raw_subscriber.recv_timeout(DEADLINE).map(drop), Err(RecvError::Forked)));
        assert!(matches!(raw_subscriber.arm(), Err(RecvError::Forked)));
        assert!(matches!(node.publisher::<u32>("x").map(drop), Err(OpenError::Forked)));
        assert!(matches!(node.raw_subscriber("x").map(drop), Err(OpenError::Forked)));
        assert!(node.peers().is_empty() && node.refused().is_empty() && node.survey(DEADLINE).is_empty());
        assert_eq!((publisher.stats().messages, subscriber.stats().messages), (0, 0));
        assert_eq!((publisher.topic(), subscriber.filters()), ("typed", vec!["typed"]));
    });
    forked.passes();
    assert!(matches!(presence.recv_timeout(DEADLINE), Ok(Some(PeerChange::Joined(_)))));
    assert_eq!(*ports.subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), 7);
    assert_eq!(*ports.raw_subscriber.recv_timeout(DEADLINE).unwrap().expect("a sample"), *b"seven");
    still_works(&mut ports);
    parent.say("passed");
}

fn looks_at_what_was_lent(parent: &mut Parent, args: &[&str]) {
    let mut ports = open(args);
    ports.raw_publisher.publish(&[7; 1000]).unwrap();
    let sample = ports.raw_subscriber.recv_timeout(DEADLINE).unwrap().expect("a sample");
    let mut loan = ports.raw_publisher.loan(1000).unwrap();
    let mut held = Some(sample);
    // The child drops what it was lent, too.
    Forked::run(|| {
        let sample = held.take().unwrap();
        assert!(sample.is_empty() && loan.is_empty());
        loan.fill(9);
        assert_eq!((sample.topic(), sample.source().name()), ("raw", "parent"));
        drop(sample);
        assert!(matches!(loan.send(), Err(PublishError::Forked)));
    })
    .passes();
    parent.say("passed");
}

fn drops_what_it_inherited(parent: &mut Parent, args: &[&str]) {
    let mut ports = Some(open(args));
    let other = support::bus(args[0]).join("other").unwrap();
    for _ in 0..3 {
        Forked::run(|| drop(ports.take())).passes();
        let ports = ports.as_mut().expect("the child's copy was taken, not this one");
        still_works(ports);
        // Nobody was told of anything; the two of a moment ago are being closed.
        eventually("four ports are there", || other.peers()[0].ports().len() == 4);
        assert_eq!(ports.node.peers().len(), 1);
    }
    drop(other);
    drop(ports);
    parent.say("passed");
}

fn joins_anew(parent: &mut Parent, args: &[&str]) {
    let ports = open(args);
    let to_child = ports.node.publisher::<u32>("to-child/**").unwrap();
    let from_child = ports.node.subscriber::<u32>("from-child/*").unwrap();
    // All that keeps the node.
    let mut inherited = Some((ports, to_child, from_child));
    for when_dropped in ["before", "after", "never"] {
        let forked = Forked::run(|| {
            let bus = support::bus(args[0]);
            if when_dropped == "before" {
                drop(inherited.take());
            }
            let node = bus.join("forked").unwrap();
            let mut own = open_pair(&node, "own");
            if when_dropped == "after" {
                drop(inherited.take());
            }
            own();
            let mut subscriber = node.subscriber::<u32>(&format!("to-child/{when_dropped}")).unwrap();
            let mut publisher = node.publisher(&format!("from-child/{when_dropped}")).unwrap();
            publisher.wait_for_subscribers(1, DEADLINE).unwrap(); // a join waits for 200 ms and no longer
            publisher.publish(&1).unwrap();
            assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("from the parent"), 2);
            assert!(node.peers().iter().any(|peer| peer.name() == "parent"));
            // Leaves properly: its thread ends, its socket goes.
            drop((own, subscriber, publisher, node, bus));
        });
        let (ports, to_child, from_child) = inherited.as_mut().expect("this process's copy");
        // The child's subscriber was open before it published.
        let message = from_child.recv_timeout(DEADLINE).unwrap().expect("from the child");
        assert_eq!((*message, message.source().name()), (1, "forked"));
        assert_eq!(message.source().pid(), forked.pid().as_raw());
        to_child.wait_for_subscribers(1, DEADLINE).unwrap();
        to_child.publish_to(&format!("to-child/{when_dropped}"), &2).unwrap();
        forked.passes();
        eventually("the child has left", || ports.node.peers().is_empty() && to_child.stats().peers == 0);
        still_works(ports);
    }
    parent.say("passed");
}

/// Two ports of a node that reach each other, each time they are asked to.
fn open_pair(node: &Node, topic: &str) -> impl FnMut() + use<> {
    let mut subscriber = node.subscriber::<u32>(topic).unwrap();
    let mut publisher = node.publisher::<u32>(topic).unwrap();
    move || {
        for value in 0..1000 {
            publisher.publish(&value).unwrap();
            assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), value);
        }
    }
}

fn exits(parent: &mut Parent, args: &[&str]) {
    let mut ports = open(args);
    for _ in 0..10 {
        Forked::run(|| {}).passes();
        still_works(&mut ports);
    }
    parent.say("passed");
}

fn forks_again(parent: &mut Parent, args: &[&str]) {
    let mut ports = open(args);
    Forked::run(|| {
        let node = ports.bus.join("child").unwrap();
        let mut own = open_pair(&node, "child");
        Forked::run(|| {
            assert!(matches!(node.raw_publisher("x"), Err(OpenError::Forked)));
            assert!(matches!(ports.publisher.publish(&1), Err(PublishError::Forked)));
            let node = ports.bus.join("grandchild").unwrap();
            assert!(matches!(ports.publisher.publish(&1), Err(PublishError::Forked)));
            open_pair(&node, "grandchild")();
            drop(node);
        })
        .passes();
        own();
        assert!(matches!(ports.publisher.publish(&1), Err(PublishError::Forked)));
    })
    .passes();
    still_works(&mut ports);
    parent.say("passed");
}

fn shares_a_private_bus(parent: &mut Parent, _: &[&str]) {
    let mut bus = Some(Bus::private().unwrap());
    Forked::run(|| drop(bus.take())).passes();
    let bus = bus.unwrap();
    // It is not taken for abandoned, either: the next private bus cleans up.
    drop(Bus::private().unwrap());
    assert!(bus.dir().exists());
    let node = bus.join("node").unwrap();
    open_pair(&node, "own")();
    drop(node);
    let dir = bus.dir().to_owned();
    drop(bus);
    assert!(!dir.exists());
    parent.say("passed");
}
