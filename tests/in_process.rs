//! Nodes, clones and ports within one process, across its threads; and what typed messages survive.

use std::time::Duration;

use ringbus::{Bus, Overflow, Trust};
use serde::{Deserialize, Serialize};

mod support;
use support::{DEADLINE, Dir};

#[test]
fn eight_publishing_threads_reach_four_subscribing_threads_exactly() {
    const PUBLISHERS: u64 = 8;
    const MESSAGES: u64 = 5000;
    let bus = Bus::private().unwrap();
    let nodes = [bus.join("one").unwrap(), bus.join("two").unwrap()];
    // Opened here, read there: ports move between threads.
    let subscribers: Vec<_> =
        (0..4).map(|number| nodes[number % 2].subscriber::<(u64, u64)>("thread/*").unwrap()).collect();
    std::thread::scope(|scope| {
        for mut subscriber in subscribers {
            scope.spawn(move || {
                let mut due = [0; PUBLISHERS as usize];
                for _ in 0..PUBLISHERS * MESSAGES {
                    let message = subscriber.recv_timeout(DEADLINE).unwrap().expect("another message");
                    let (publisher, value) = *message;
                    assert_eq!(message.topic(), format!("thread/{publisher}"));
                    assert_eq!((value, message.sequence()), (due[publisher as usize], value));
                    due[publisher as usize] += 1;
                }
                assert!(subscriber.try_recv().unwrap().is_none());
            });
        }
        for publisher in 0..PUBLISHERS {
            let node = nodes[publisher as usize % 2].clone();
            scope.spawn(move || {
                let topic = format!("thread/{publisher}");
                let overflow = Overflow::Block { timeout: DEADLINE };
                let mut port = node.publisher_builder(&topic).overflow(overflow).open().unwrap();
                drop(node); // the port keeps it
                (0..MESSAGES).for_each(|value| port.publish(&(publisher, value)).unwrap());
            });
        }
    });
}

#[test]
fn a_port_goes_on_in_another_thread_where_it_stopped_in_the_first() {
    let bus = Bus::private().unwrap();
    let node = bus.join("node").unwrap();
    let mut subscriber = node.subscriber::<u32>("t").unwrap();
    let mut publisher = node.publisher::<u32>("t").unwrap();
    for round in 0..20 {
        (publisher, subscriber) = std::thread::spawn(move || {
            for value in 0..100 {
                publisher.publish(&(round * 100 + value)).unwrap();
            }
            for value in 0..100 {
                let message = subscriber.recv_timeout(DEADLINE).unwrap().expect("a message");
                assert_eq!(*message, round * 100 + value);
            }
            (publisher, subscriber)
        })
        .join()
        .unwrap();
    }
}

#[test]
fn a_node_publishes_to_itself_and_is_no_peer_of_its_own() {
    let bus = Bus::private().unwrap();
    let node = bus.join("alone").unwrap();
    let mut subscriber = node.subscriber::<String>("**").unwrap();
    let mut publisher = node.publisher::<str>("note").unwrap();
    publisher.wait_for_subscribers(1, Duration::ZERO).unwrap();
    publisher.publish("to self").unwrap();
    let message = subscriber.recv_timeout(DEADLINE).unwrap().expect("a message");
    assert_eq!((&**message, message.source().id()), ("to self", node.info().id()));
    assert_eq!((message.source().pid(), node.info().name()), (std::process::id() as i32, "alone"));
    assert!(node.peers().is_empty());
}

#[test]
fn a_node_leaves_with_its_last_clone_and_port() {
    let bus = Bus::private().unwrap();
    let watcher = bus.join("watcher").unwrap();
    let node = bus.join("node").unwrap();
    let clone = node.clone();
    let mut port = clone.publisher::<u32>("t").unwrap();
    let peers = || watcher.peers().len();
    assert_eq!(peers(), 1);
    drop(node);
    drop(clone);
    assert_eq!(peers(), 1);
    // A port without a handle to its node works, too.
    let mut subscriber = watcher.subscriber::<u32>("t").unwrap();
    port.wait_for_subscribers(1, DEADLINE).unwrap();
    port.publish(&1).unwrap();
    assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), 1);
    drop(port);
    assert_eq!(peers(), 0, "drop returns once goodbye is said");
}

#[test]
fn what_a_port_published_before_it_was_dropped_arrives() {
    let bus = Bus::private().unwrap();
    let reader = bus.join("reader").unwrap();
    let mut subscriber = reader.subscriber::<u32>("t").unwrap();
    for round in 0..50 {
        // Port, then node; or the node's last handle is the port.
        let node = bus.join("writer").unwrap();
        let mut publisher = node.publisher::<u32>("t").unwrap();
        (0..100).for_each(|value| publisher.publish(&value).unwrap());
        if round % 2 == 0 {
            drop(publisher);
            drop(node);
        } else {
            drop(node);
            drop(publisher);
        }
        for value in 0..100 {
            assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), value);
        }
    }
}

#[test]
fn the_directory_of_a_private_bus_goes_with_its_last_handle() {
    let bus = Bus::private().unwrap();
    let dir = bus.dir().to_owned();
    let node = bus.join("node").unwrap();
    assert!(dir.join("private").is_dir());
    drop(bus);
    let other = node.bus().join("other").unwrap();
    assert_eq!(node.peers().len(), 1);
    let port = node.raw_publisher("t").unwrap();
    drop(node);
    drop(other);
    assert!(dir.exists(), "a port is open still");
    drop(port);
    assert!(!dir.exists());
}

#[test]
fn private_buses_and_buses_of_other_names_do_not_hear_each_other() {
    let dir = Dir::new();
    let open = |name| Bus::builder(name).dir(dir.path()).open().unwrap();
    let buses = [Bus::private().unwrap(), Bus::private().unwrap(), open("one"), open("two")];
    let nodes = buses.each_ref().map(|bus| bus.join("node").unwrap());
    let mut subscribers = nodes.each_ref().map(|node| node.subscriber::<usize>("t").unwrap());
    for (index, node) in nodes.iter().enumerate() {
        node.publisher("t").unwrap().publish(&index).unwrap();
    }
    for (index, subscriber) in subscribers.iter_mut().enumerate() {
        assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), index);
        assert!(subscriber.try_recv().unwrap().is_none());
    }
    assert!(nodes.iter().all(|node| node.peers().is_empty()));
}

#[test]
fn payloads_are_the_same_whether_lent_or_copied() {
    let dir = Dir::new();
    let open = |trust| Bus::builder("bus").dir(dir.path()).trust(trust).open().unwrap();
    let writer = open(Trust::Lend).join("writer").unwrap();
    let lends = open(Trust::Lend).join("lends").unwrap();
    let copies = open(Trust::Copy).join("copies").unwrap();
    let mut lent = lends.raw_subscriber("t").unwrap();
    let mut copied = copies.raw_subscriber("t").unwrap();
    let mut publisher = writer.raw_publisher("t").unwrap();
    for len in (0..700).chain([4096, 60_000]) {
        let bytes: Vec<u8> = (0..len).map(|index| (index * 7 + len) as u8).collect();
        publisher.publish(&bytes).unwrap();
        let (one, other) = (lent.recv_timeout(DEADLINE).unwrap(), copied.recv_timeout(DEADLINE).unwrap());
        let (one, other) = (one.expect("a sample"), other.expect("a sample"));
        assert!(*one == *bytes && *other == *bytes, "{len} bytes");
        assert_eq!((one.sequence(), one.topic()), (other.sequence(), other.topic()));
    }
}

#[test]
fn a_loan_is_aligned_at_all_its_readers_also_where_it_is_copied() {
    let dir = Dir::new();
    let open = |trust| Bus::builder("bus").dir(dir.path()).trust(trust).open().unwrap();
    let (writer, wary) = (open(Trust::Lend).join("writer").unwrap(), open(Trust::Copy).join("wary").unwrap());
    let reader = open(Trust::Lend).join("reader").unwrap();
    let mut readers = [
        reader.raw_subscriber("t").unwrap(),
        reader.subscriber_builder("t").lossy().open_raw().unwrap(),
        wary.raw_subscriber("t").unwrap(),
    ];
    let mut publisher = writer.raw_publisher("t").unwrap();
    for len in (1..200).chain([1000, 60_000, 70_000, 70_001, 1 << 20, 3 << 20]) {
        let mut loan = publisher.loan(len).unwrap();
        loan.iter_mut().zip(1..).for_each(|(byte, at)| *byte = (at * len) as u8);
        loan.send().unwrap();
        for (at, reader) in readers.iter_mut().enumerate() {
            let sample = reader.recv_timeout(DEADLINE).unwrap().expect("the loan");
            assert!(sample.as_ptr().addr().is_multiple_of(64), "{len} bytes at reader {at}");
            let is_same = sample.iter().zip(1..).all(|(byte, at)| *byte == (at * len) as u8);
            assert!(is_same && sample.len() == len, "{len} bytes at reader {at}");
        }
    }
}

#[derive(Debug, Serialize)]
struct ProgressV1 {
    done: u32,
    label: String,
    steps: Vec<Step>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Step {
    Waiting,
    Running { on: String },
    Done(u32),
}

/// Fields reordered, one added, one gone.
#[derive(Debug, PartialEq, Deserialize)]
struct ProgressV2 {
    #[serde(default)]
    eta: Option<u32>,
    steps: Vec<Step>,
    done: u64,
}

fn steps() -> Vec<Step> {
    vec![Step::Waiting, Step::Running { on: "gpu-0".into() }, Step::Done(3)]
}

#[test]
fn a_reader_with_added_removed_and_reordered_fields_decodes() {
    let node = Bus::private().unwrap().join("node").unwrap();
    let mut newer = node.subscriber::<ProgressV2>("t").unwrap();
    let mut publisher = node.publisher::<ProgressV1>("t").unwrap();
    publisher.publish(&ProgressV1 { done: 3, label: "parsing".into(), steps: steps() }).unwrap();
    let message = newer.recv_timeout(DEADLINE).unwrap().expect("a message");
    assert_eq!(*message, ProgressV2 { eta: None, steps: steps(), done: 3 });
}

#[test]
fn compact_messages_decode_and_are_smaller() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Reading {
        sensor: String,
        values: Vec<f32>,
        previous: Option<Box<Reading>>,
    }
    let node = Bus::private().unwrap().join("node").unwrap();
    let previous = Reading { sensor: "a".into(), values: vec![], previous: None };
    let reading = Reading { sensor: "b".into(), values: vec![0.5; 9], previous: Some(Box::new(previous)) };
    let mut subscriber = node.subscriber::<Reading>("t").unwrap();
    let mut named = node.publisher::<Reading>("t").unwrap();
    let mut compact = node.publisher_builder("t").compact().open::<Reading>().unwrap();
    for publisher in [&mut named, &mut compact] {
        publisher.publish(&reading).unwrap();
        assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), reading);
    }
    assert!(compact.stats().bytes < named.stats().bytes);
}

#[test]
fn large_typed_messages_of_every_size_class_decode() {
    let node = Bus::private().unwrap().join("node").unwrap();
    let mut subscriber = node.subscriber::<(u32, String, Vec<u64>)>("t").unwrap();
    let mut publisher = node.publisher_builder("t").capacity(4 << 20).open().unwrap();
    // Around what is copied at once, to memory that is kept, and to memory of its own.
    for len in [0, 1, 31, 250, 256, 260, 5000, 65_000, 65_536, 70_000, 400_000] {
        let value = (len as u32, "x".repeat(len), vec![u64::MAX; len / 100]);
        publisher.publish(&value).unwrap();
        assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), value);
    }
}

#[test]
fn surveys_tell_what_every_nodes_ports_have_counted() {
    let bus = Bus::private().unwrap();
    let (one, other) = (bus.join("one").unwrap(), bus.join("other").unwrap());
    let mut subscriber = other.subscriber::<u32>("t/*").unwrap();
    let mut publisher = one.publisher::<u32>("t/x").unwrap();
    for value in 0..10 {
        publisher.publish(&value).unwrap();
        subscriber.recv_timeout(DEADLINE).unwrap().expect("a message");
    }
    let nodes = one.survey(DEADLINE);
    let ports: Vec<_> = nodes
        .iter()
        .flat_map(|node| node.ports.iter().map(move |port| (node.node.name(), port)))
        .map(|(node, port)| (node, port.role, &*port.name, port.stats.messages, port.stats.peers))
        .collect();
    assert_eq!(ports, [("one", "publisher", "t/x", 10, 1), ("other", "subscriber", "t/*", 10, 1)]);
}

#[test]
fn nodes_ports_and_messages_cross_threads() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Bus>();
    shared::<ringbus::Node>();
    sent::<ringbus::Publisher<u32>>();
    sent::<ringbus::RawPublisher>();
    sent::<ringbus::Subscriber<u32>>();
    sent::<ringbus::RawSubscriber>();
    shared::<ringbus::Message<u32>>();
    shared::<ringbus::Client>();
    shared::<ringbus::Server>();
    shared::<ringbus::Request<'_>>();
    shared::<ringbus::Pending<ringbus::Response<u32>>>();
    // A port sends values of any type to other threads' ports, whether or not the type crosses threads.
    sent::<ringbus::Publisher<std::rc::Rc<u32>>>();
}

/// Many logs, of which a look sees few: "nothing" is said only after a look at all, whatever else these have.
#[test]
fn what_is_there_is_told_at_once_whatever_other_topics_have() {
    const LOGS: usize = 12;
    let node = Bus::private().unwrap().join("node").unwrap();
    let mut subscriber = node.subscriber::<usize>("t/wanted").unwrap();
    let mut publishers: Vec<_> = (0..LOGS).map(|_| node.publisher::<usize>("t/*").unwrap()).collect();
    publishers[0].publish_to("t/wanted", &0).unwrap();
    assert_eq!(*subscriber.recv().unwrap(), 0);
    for (unwanted, wanted) in (0..500).map(|turn| (turn * 7 % LOGS, (turn * 5 + turn / LOGS) % LOGS)) {
        publishers[unwanted].publish_to("t/other", &wanted).unwrap();
        publishers[wanted].publish_to("t/wanted", &wanted).unwrap();
        let message = subscriber.try_recv().unwrap().expect("what is there");
        assert_eq!(*message, wanted, "beside {unwanted}");
    }
}
