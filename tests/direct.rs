//! Messages to nodes by name: to every inbox of it, in order, or a word at once that there is none.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use ringbus::{Destination, Encoding, Node, SendError, Wait};

mod support;
use support::stopwatch::Stopwatch;
use support::{Child, DEADLINE, Dir, Forked, Parent, eventually};

/// Messages of each sender.
const MESSAGES: u32 = 2000;

/// Not a test of its own but the second process of those here: does nothing unless one of them started it.
#[test]
fn child() {
    support::play(&[
        ("sends", sends),
        ("receives", receives),
        ("opens an inbox", opens_an_inbox),
        ("sends in a fork", sends_in_a_fork),
    ]);
}

fn not_found(sent: Result<(), SendError>) -> bool {
    match sent {
        Ok(()) => false,
        Err(SendError::NotFound { .. }) => true,
        Err(error) => panic!("{error}"),
    }
}

/// The topics that the node has a log for.
fn logs(node: &Node) -> Vec<String> {
    let ports = node.survey(DEADLINE).swap_remove(0).ports;
    ports.into_iter().filter(|port| port.role == "publisher").map(|port| port.name).collect()
}

#[test]
fn what_each_sender_sends_arrives_in_order_at_every_inbox_of_the_name() {
    let dir = Dir::new();
    // Two in this node, and one in each of two others of the same name.
    let node = dir.join("critic");
    let mut inboxes = [node.inbox::<u32>().unwrap(), node.inbox_builder().wait(Wait::Park).open().unwrap()];
    let mut others: Vec<_> = (0..2).map(|_| Child::start("receives", &[dir.arg()])).collect();
    others.iter_mut().for_each(|other| other.expect("open"));
    let senders: Vec<_> = (0..2).map(|_| Child::start("sends", &[dir.arg()])).collect();
    std::thread::scope(|scope| {
        for inbox in &mut inboxes {
            scope.spawn(|| receive_all(|| inbox.recv_timeout(DEADLINE).unwrap().expect("another")));
        }
    });
    senders.into_iter().chain(others).for_each(Child::finish);
    assert_eq!(inboxes[0].stats().messages, u64::from(2 * MESSAGES));
}

fn receive_all(mut next: impl FnMut() -> ringbus::Message<u32>) {
    let mut due = HashMap::new();
    for _ in 0..2 * MESSAGES {
        let message = next();
        assert_eq!(message.destination(), Destination::Node("critic"));
        assert_eq!((message.topic(), message.source().name()), ("@to/critic", "writer"));
        let due: &mut u32 = due.entry(message.source().id()).or_default();
        assert_eq!((*message, message.sequence()), (*due, u64::from(*due)));
        *due += 1;
    }
    assert_eq!(due.into_values().collect::<Vec<_>>(), [MESSAGES; 2]);
}

fn sends(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("writer").unwrap();
    (0..MESSAGES).for_each(|number| node.send("critic", &number).unwrap());
    drop(node); // what was sent is there all the same
    parent.stay();
}

fn receives(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("critic").unwrap();
    let mut inbox = node.inbox().unwrap();
    parent.say("open");
    receive_all(|| inbox.recv_timeout(DEADLINE).unwrap().expect("another"));
    parent.stay();
}

#[test]
fn whom_nobody_answers_for_is_not_found_at_once() {
    let dir = Dir::new();
    let (writer, critic) = (dir.join("writer"), dir.join("critic"));
    let _not_an_inbox = critic.raw_subscriber("**").unwrap();
    for name in ["critic", "nobody", "writer"] {
        let start = Stopwatch::start();
        assert!(not_found(writer.send(name, &1)), "{name}");
        start.within(Duration::from_millis(500));
    }
    let error = writer.send("nobody", &1).unwrap_err().to_string();
    assert!(error.contains("no node named \"nobody\" has an inbox"), "{error}");
    for name in ["", "a/b", "*", "@all", &"x".repeat(252)] {
        assert!(matches!(writer.send(name, &1), Err(SendError::Name(_))), "{name:?}");
    }
    assert!(logs(&writer).is_empty(), "nothing is left open");
}

#[test]
fn an_inbox_that_was_opened_before_in_any_process_is_found() {
    let dir = Dir::new();
    for _ in 0..20 {
        let writer = dir.join("writer");
        let mut critic = Child::start("opens an inbox", &[dir.arg()]);
        critic.expect("open");
        writer.send("critic", &1).unwrap();
        critic.expect("1");
        critic.finish();
    }
}

#[test]
fn an_inbox_is_found_as_soon_as_it_is_open_each_time() {
    let dir = Dir::new();
    let (writer, critic) = (dir.join("writer"), dir.join("critic"));
    for round in 0..500 {
        let mut inbox = critic.inbox::<u32>().unwrap();
        writer.send("critic", &round).unwrap();
        assert_eq!(*inbox.recv_timeout(DEADLINE).unwrap().expect("the message"), round);
        drop(inbox);
        eventually("it is gone", || not_found(writer.send("critic", &round)));
    }
}

fn opens_an_inbox(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("critic").unwrap();
    let mut inbox = node.inbox::<u32>().unwrap();
    parent.say("open");
    if let Some(message) = inbox.recv_timeout(DEADLINE).unwrap() {
        parent.say(&message.to_string());
    }
    parent.stay();
}

#[test]
fn a_log_goes_with_its_last_inbox_and_comes_back_with_the_next() {
    let dir = Dir::new();
    let (writer, critic) = (dir.join("writer"), dir.join("critic"));
    let mut own = writer.inbox::<u32>().unwrap();
    for round in 0..3 {
        let mut inboxes = [critic.inbox::<u32>().unwrap(), critic.inbox::<u32>().unwrap()];
        writer.send("critic", &round).unwrap();
        writer.send("writer", &round).unwrap();
        assert_eq!(logs(&writer).len(), 2);
        for inbox in &mut inboxes {
            assert_eq!(*inbox.recv_timeout(DEADLINE).unwrap().expect("the message"), round);
        }
        let [one, mut other] = inboxes;
        drop(one);
        writer.send("critic", &100).unwrap();
        assert_eq!(*other.recv_timeout(DEADLINE).unwrap().expect("the message"), 100);
        drop(other);
        if round == 0 {
            eventually("nobody is there", || not_found(writer.send("critic", &round)));
        } else {
            // Noticed by sending to somebody else, too.
            eventually("the log is closed", || {
                writer.send("writer", &round).unwrap();
                logs(&writer) == ["@to/writer"]
            });
        }
        while own.try_recv().unwrap().is_some() {}
    }
    assert_eq!((own.name(), format!("{own:?}").as_str()), ("writer", "Inbox(\"writer\")"));
}

#[test]
fn a_killed_receiver_is_not_found_any_more() {
    let dir = Dir::new();
    let writer = dir.join("writer");
    let mut critic = Child::start("opens an inbox", &[dir.arg()]);
    critic.expect("open");
    writer.send("critic", &1).unwrap();
    critic.expect("1");
    critic.kill();
    eventually("it is gone", || not_found(writer.send("critic", &2)));
    assert!(not_found(writer.send("critic", &2)) && logs(&writer).is_empty());
}

#[test]
fn wildcards_get_no_direct_messages_and_nobody_opens_their_topics_by_hand() {
    let dir = Dir::new();
    let node = dir.join("node");
    let (mut all, mut inbox) = (node.raw_subscriber("**").unwrap(), node.raw_inbox().unwrap());
    node.message_to("node", &1).header("a", "b").correlation("c").timestamp().send().unwrap();
    let sample = inbox.recv_timeout(DEADLINE).unwrap().expect("the message");
    assert_eq!((sample.headers().get("a"), sample.correlation()), (Some("b"), Some("c")));
    assert!(sample.timestamp().is_some() && sample.priority() == 128);
    assert_eq!((&*sample, sample.encoding()), (&[1][..], Encoding::MessagePack));
    drop(sample);
    node.raw_message_to("node", b"bytes").send().unwrap();
    assert_eq!(*inbox.recv_timeout(DEADLINE).unwrap().expect("the message"), *b"bytes");
    let mut publisher = node.publisher::<u32>("t").unwrap();
    publisher.publish(&2).unwrap();
    let first = all.recv_timeout(DEADLINE).unwrap().expect("the event");
    assert_eq!(first.destination(), Destination::Topic("t"));
    assert!(node.subscriber::<u32>("@to/node").is_err() && node.publisher::<u32>("@to/node").is_err());
    assert!(matches!(node.message_to("node", &1).header("@a", "").send(), Err(SendError::Headers { .. })));
}

#[test]
fn threads_send_at_the_same_time_and_keep_their_order() {
    let dir = Dir::new();
    let (writer, critic) = (dir.join("writer"), dir.join("critic"));
    let mut inbox = critic.inbox::<(u32, u32)>().unwrap();
    let mut own = writer.inbox::<u32>().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let writer = writer.clone();
            scope.spawn(move || (0..MESSAGES).for_each(|n| writer.send("critic", &(thread, n)).unwrap()));
        }
        scope.spawn(|| (0..MESSAGES).for_each(|n| writer.send("writer", &n).unwrap()));
        scope.spawn(|| {
            for number in 0..MESSAGES {
                assert_eq!(*own.recv_timeout(DEADLINE).unwrap().expect("another"), number);
            }
        });
        let mut due = [0; 4];
        for _ in 0..4 * MESSAGES {
            let (thread, number) = *inbox.recv_timeout(DEADLINE).unwrap().expect("another");
            assert_eq!(number, due[thread as usize]);
            due[thread as usize] += 1;
        }
    });
}

#[test]
fn a_full_inbox_holds_up_nobody_but_those_who_send_to_it() {
    let dir = Dir::new();
    let (writer, slow, fast) = (dir.join("writer"), dir.join("slow"), dir.join("fast"));
    let (_unread, mut inbox) = (slow.raw_inbox().unwrap(), fast.inbox::<u32>().unwrap());
    let full = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let error = loop {
                if let Err(error) = writer.raw_message_to("slow", &[0; 10_000]).send() {
                    break error;
                }
            };
            full.store(true, Relaxed);
            let SendError::Full { lag, waited, .. } = &error else { panic!("{error}") };
            assert!(*lag > 40_000 && *waited >= Duration::from_secs(1), "{error}");
            assert!(error.to_string().starts_with("slow (pid "), "{error}");
        });
        while !full.load(Relaxed) {
            let start = Stopwatch::start();
            writer.send("fast", &1).unwrap();
            inbox.recv_timeout(DEADLINE).unwrap().expect("the message");
            start.within(Duration::from_millis(800));
        }
    });
    let size = (64 << 20) + 1;
    let error = writer.raw_message_to("fast", &vec![0; size]).send().unwrap_err();
    assert!(matches!(error, SendError::TooLarge { size: told, .. } if told == size), "{error}");
}

#[test]
fn a_node_that_has_sent_leaves_with_its_last_handle_and_what_it_sent_arrives() {
    let dir = Dir::new();
    let critic = dir.join("critic");
    let mut inbox = critic.inbox::<u32>().unwrap();
    for round in 0..10 {
        let writer = dir.join("writer");
        let (port, clone) = (writer.raw_publisher("t").unwrap(), writer.clone());
        writer.send("critic", &round).unwrap();
        writer.broadcast(&round).unwrap();
        drop((writer, clone));
        assert_eq!(critic.peers().len(), 1, "it has a port");
        drop(port);
        eventually("it has left", || critic.peers().is_empty());
        assert_eq!(*inbox.recv_timeout(DEADLINE).unwrap().expect("the message"), round);
    }
}

#[test]
fn a_forked_child_sends_nothing_and_harms_nobody() {
    let dir = Dir::new();
    Child::start("sends in a fork", &[dir.arg()]).finish();
}

fn sends_in_a_fork(_: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("node").unwrap();
    let mut inbox = node.inbox::<u32>().unwrap();
    node.send("node", &1).unwrap();
    node.broadcast(&1).unwrap();
    let clone = node.clone();
    Forked::run(move || {
        assert!(matches!(clone.send("node", &2), Err(SendError::Forked)));
        assert!(matches!(clone.send("other", &2), Err(SendError::Forked)));
        assert!(matches!(clone.broadcast(&2), Err(SendError::Forked)));
        drop(clone);
    })
    .passes();
    node.send("node", &3).unwrap();
    for expected in [1, 3] {
        assert_eq!(*inbox.recv_timeout(DEADLINE).unwrap().expect("the message"), expected);
    }
}
