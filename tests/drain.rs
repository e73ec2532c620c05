//! Nodes that leave with nothing left undone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use ringbus::{
    Client, Code, Departure, DrainError, Node, OpenError, Overflow, PeerChange, Pending, PublishError,
    RecvError, Response, SendError, Server, Status, Unfinished,
};

mod support;

use support::{Child, DEADLINE, Dir, Forked, Parent, eventually};

#[test]
fn child() {
    support::play(&[("slow_reader", slow_reader), ("server", server)]);
}

/// Messages of each kind that a reader gets.
const MANY: u64 = 150;
const PACE: Duration = Duration::from_millis(1);

/// Reads slowly what comes on a topic, to its name, and to all.
fn slow_reader(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("reader").unwrap();
    let mut presence = node.presence().unwrap();
    let mut events = node.subscriber::<u64>("t/*").unwrap();
    let mut inbox = node.inbox::<u64>().unwrap();
    let mut broadcasts = node.broadcasts::<u64>().unwrap();
    let counts: [Arc<AtomicU64>; 3] = Default::default();
    let take = |value: Result<u64, RecvError>, count: &AtomicU64| {
        let Ok(value) = value else { return false };
        assert_eq!(value, count.load(Relaxed));
        thread::sleep(PACE);
        count.fetch_add(1, Relaxed);
        true
    };
    let [a, b, c] = counts.clone();
    thread::spawn(move || while take(events.recv().map(|message| *message), &a) {});
    thread::spawn(move || while take(inbox.recv().map(|message| *message), &b) {});
    thread::spawn(move || while take(broadcasts.recv().map(|message| *message), &c) {});
    parent.say("reads");
    while parent.listen().as_deref() == Some("count") {
        parent.say(&format!("{:?}", counts.each_ref().map(|count| count.load(Relaxed))));
    }
    let left = |change: &PeerChange| matches!(change, PeerChange::Left(_, Departure::Goodbye));
    let mut changes = Vec::new();
    while !changes.last().is_some_and(left) {
        changes.push(presence.recv_timeout(DEADLINE).unwrap().expect("the goodbye"));
    }
    parent.say("goodbye");
}

#[test]
fn what_was_published_and_sent_is_read_before_the_goodbye() {
    let dir = Dir::new();
    let mut reader = Child::start("slow_reader", &[dir.arg()]);
    reader.expect("reads");
    let node = dir.join("writer");
    let mut publisher = node.publisher::<u64>("t/**").unwrap();
    for value in 0..MANY {
        publisher.publish_to("t/1", &value).unwrap();
        node.send("reader", &value).unwrap();
        node.broadcast(&value).unwrap();
    }
    let begun = Instant::now();
    node.drain(DEADLINE).unwrap();
    assert!(begun.elapsed() < DEADLINE / 2, "{:?}", begun.elapsed());
    reader.tell("count");
    // Of each, the last one may be between its receipt and its counting.
    let counted = reader.line();
    for count in counted.trim_matches(['[', ']']).split(", ") {
        assert!(count.parse::<u64>().unwrap() >= MANY - 1, "{counted}");
    }
    reader.tell("bye");
    reader.expect("goodbye");
    assert_eq!(dir.sockets().len(), 1, "the reader's");
    reader.finish();
}

#[test]
fn a_node_that_has_drained_takes_nothing_new_and_others_go_on() {
    let dir = Dir::new();
    let (node, other) = (dir.join("node"), dir.join("other"));
    let mut events = other.subscriber::<u64>("t").unwrap();
    let _inbox = other.inbox::<u64>().unwrap();
    let server = serve(&other, "echo");
    let mut publisher = node.publisher::<u64>("t").unwrap();
    let mut bytes = node.raw_publisher("bytes").unwrap();
    let mut dropping = node.publisher_builder("u").overflow(Overflow::DropNewest).open::<u64>().unwrap();
    let mut subscriber = node.subscriber::<u64>("t").unwrap();
    let client = node.client("echo").unwrap();
    assert_eq!(client.call::<_, u64>("echo", &1), Ok(1));
    node.drain(DEADLINE).unwrap();

    assert!(matches!(publisher.publish(&1), Err(PublishError::Draining)));
    assert!(matches!(publisher.publish_batch(&[1, 2]), Err(PublishError::Draining)));
    assert!(matches!(publisher.publish_batch(&[]), Ok(0)));
    assert!(matches!(dropping.publish(&1), Err(PublishError::Draining)));
    assert!(matches!(bytes.publish(b"short"), Err(PublishError::Draining)));
    assert!(matches!(bytes.publish(&[0; 1000]), Err(PublishError::Draining)));
    assert!(matches!(bytes.publish(&[0; 1_000_000]), Err(PublishError::Draining)));
    assert!(matches!(bytes.loan(10).map(|_| ()), Err(PublishError::Draining)));
    assert!(matches!(bytes.loan(1_000_000).map(|_| ()), Err(PublishError::Draining)));
    assert!(matches!(node.send("other", &1), Err(SendError::Draining | SendError::NodeGone)));
    assert!(matches!(node.broadcast(&1), Err(SendError::Draining)));
    assert!(matches!(node.publisher::<u64>("t"), Err(OpenError::Draining)));
    assert!(matches!(node.subscriber::<u64>("t"), Err(OpenError::Draining)));
    assert!(matches!(node.client("echo"), Err(OpenError::Draining)));
    assert!(matches!(node.service("s").spawn(), Err(OpenError::Draining)));
    assert_eq!(client.call::<_, u64>("echo", &1).unwrap_err().code(), Code::Unavailable);
    assert!(matches!(subscriber.recv(), Err(RecvError::NodeGone)));
    assert!(matches!(node.drain(DEADLINE), Err(DrainError::NodeGone)));

    eventually("its goodbye", || other.peers().is_empty());
    let mut own = other.publisher::<u64>("t").unwrap();
    own.publish(&7).unwrap();
    assert_eq!(*events.recv().unwrap(), 7);
    assert_eq!(other.client("echo").unwrap().call::<_, u64>("echo", &2), Ok(2));
    drop(server);
    drop((publisher, subscriber, client, node)); // hang on nothing
}

/// It is not woken, and has no logs in which it might find an end, or idle ones.
#[test]
fn a_port_that_spins_is_told_that_its_node_has_gone() {
    for logs in [0, 1, 3] {
        let bus = ringbus::Bus::private().unwrap();
        let (node, other) = (bus.join("node").unwrap(), bus.join("other").unwrap());
        let mut subscriber = node.subscriber_builder("t").wait(ringbus::Wait::Spin).open::<u64>().unwrap();
        let _idle: Vec<_> = (0..logs).map(|_| other.publisher::<u64>("t").unwrap()).collect();
        eventually("the logs", || {
            assert!(subscriber.try_recv().unwrap().is_none());
            subscriber.stats().peers == logs
        });
        let told = thread::spawn(move || {
            let begun = Instant::now();
            // With a deadline, so that a failure ends; at it, everything is looked at once more.
            (subscriber.recv_timeout(DEADLINE).map(|_| ()), begun.elapsed())
        });
        node.drain(DEADLINE).unwrap();
        let (told, after) = told.join().unwrap();
        assert!(matches!(told, Err(RecvError::NodeGone)) && after < DEADLINE, "{logs} logs: {after:?}");
    }
}

#[test]
fn a_reader_that_does_not_read_is_named_and_a_publisher_that_waits_for_it_gives_up() {
    let dir = Dir::new();
    let (node, other) = (dir.join("node"), dir.join("stubborn"));
    let _unread = other.subscriber::<[u64; 8]>("t").unwrap();
    let wait = Overflow::Block { timeout: 4 * DEADLINE };
    let mut publisher = node.publisher_builder("t").capacity(4096).overflow(wait).open().unwrap();
    let full = Arc::new(AtomicU64::new(0));
    let count = full.clone();
    let publishing = thread::spawn(move || {
        loop {
            match publisher.publish(&[1u64; 8]) {
                Ok(()) => count.fetch_add(1, Relaxed),
                Err(error) => return error,
            };
        }
    });
    eventually("it is full", || {
        let before = full.load(Relaxed);
        thread::sleep(Duration::from_millis(20));
        before > 0 && before == full.load(Relaxed)
    });
    let begun = Instant::now();
    let Err(DrainError::Unfinished(left)) = node.drain(Duration::from_millis(200)) else { panic!("drained") };
    assert!((200..20_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    let Unfinished { serving, calling, unread, .. } = &left;
    assert_eq!((serving, calling, unread.len()), (&0, &0, 1), "{left:?}");
    assert_eq!((&*unread[0].topic, unread[0].reader.id()), ("t", other.info().id()));
    assert!((2048..=4096).contains(&unread[0].bytes), "{left:?}"); // though its publisher is closed
    assert!(left.to_string().starts_with("stubborn (pid "), "{left}");
    assert!(matches!(publishing.join().unwrap(), PublishError::Draining));
    assert!(begun.elapsed() < DEADLINE / 2, "{:?}", begun.elapsed());
    eventually("it has left all the same", || other.peers().is_empty());
}

#[test]
fn a_log_that_was_closed_is_waited_for_until_it_is_read_or_its_reader_goes() {
    let dir = Dir::new();
    let other = dir.join("reader");
    for reads in [true, false] {
        let node = dir.join("writer");
        let mut events = other.subscriber::<u64>("t").unwrap();
        let leaving = other.subscriber::<u64>("t").unwrap();
        drop(other.subscriber::<u64>("t").unwrap());
        for _ in 0..3 {
            let mut publisher = node.publisher::<u64>("t").unwrap();
            (0..10).for_each(|value| publisher.publish(&value).unwrap());
        }
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let draining = scope.spawn(|| {
                let drained = node.drain(DEADLINE);
                ended.store(true, Relaxed);
                drained
            });
            drop(leaving);
            if reads {
                for value in 0..30 {
                    assert!(!ended.load(Relaxed), "at {value}");
                    thread::sleep(PACE);
                    events.recv().unwrap();
                }
                while events.recv_timeout(PACE).is_ok() && !ended.load(Relaxed) {}
            } else {
                thread::sleep(PACE);
                drop(events);
            }
            draining.join().unwrap().unwrap();
        });
        eventually("its goodbye", || other.peers().is_empty());
    }
}

/// A service that echoes, sleeps and waits to be released.
fn serve(node: &Node, name: &str) -> Server {
    node.service(name)
        .method("echo", |_ctx, value: u64| Ok(value))
        .method("sleep", |_ctx, ms: u64| {
            thread::sleep(Duration::from_millis(ms));
            Ok(ms)
        })
        .spawn()
        .unwrap()
}

fn start(client: &Client, method: &str, value: u64) -> Pending<Response<u64>> {
    client.request(method).timeout(DEADLINE).start(&value).unwrap()
}

/// Calls that the server has when it drains.
const HELD: u64 = 4;

fn server(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("server").unwrap();
    let (release, released) = channel::<()>();
    let released = parking(released);
    let server = node
        .service("work")
        .method("echo", |_ctx, value: u64| Ok(value))
        .method("hold", move |_ctx, value: u64| {
            released().map(|()| value).map_err(|()| Status::internal("gone"))
        })
        .spawn()
        .unwrap();
    parent.say("serves");
    parent.hear("drain");
    thread::scope(|scope| {
        let drain = scope.spawn(|| node.drain(DEADLINE));
        parent.hear("release");
        (0..HELD).for_each(|_| release.send(()).unwrap());
        drain.join().unwrap().unwrap();
    });
    let done = server.stats().messages;
    parent.say(&format!("drained after {done}"));
    parent.stay();
}

#[test]
fn calls_that_a_server_has_are_finished_and_others_refused() {
    let dir = Dir::new();
    let mut child = Child::start("server", &[dir.arg()]);
    child.expect("serves");
    let node = dir.join("client");
    let mut presence = node.presence().unwrap();
    let client = node.client("work").unwrap();
    client.call::<_, u64>("echo", &0).unwrap();
    // One runs, the others wait: taken by the stand-by before the server hears of the end.
    let calls: Vec<_> = (0..HELD).map(|n| start(&client, "hold", n)).collect();
    eventually("all are taken", || {
        let stats = node.survey(DEADLINE);
        let ports = stats.iter().flat_map(|stats| &stats.ports);
        ports.filter(|port| port.role == "server").any(|port| port.stats.messages == 1 + HELD)
    });
    child.tell("drain");
    eventually("new ones are refused", || {
        // One that it takes before it hears of the end waits behind the held ones.
        let call = client.request("echo").timeout(Duration::from_millis(200)).send::<_, u64>(&1);
        call.is_err_and(|status| status.code() == Code::Unavailable)
    });
    child.tell("release");
    for (n, call) in (0..).zip(calls) {
        assert_eq!(call.wait().map(|n| *n), Ok(n));
    }
    assert!(child.line().starts_with("drained after "));
    let goodbye = |change: &PeerChange| matches!(change, PeerChange::Left(_, Departure::Goodbye));
    while !presence.recv_timeout(DEADLINE).unwrap().as_ref().is_some_and(goodbye) {}
    child.finish();
}

#[test]
fn calls_that_a_node_has_made_are_finished_whoever_waits_for_them() {
    let dir = Dir::new();
    let (node, other) = (dir.join("client"), dir.join("server"));
    let _server = serve(&other, "work");
    let client = node.client("work").unwrap();
    let begun = Instant::now();
    // The server has one worker: the first is answered first, and nobody reads any more then.
    let (first, unwatched) = (start(&client, "sleep", 100), start(&client, "sleep", 101));
    thread::scope(|scope| {
        let watched = scope.spawn(|| first.wait().map(|ms| *ms));
        node.drain(DEADLINE).unwrap();
        assert_eq!(watched.join().unwrap(), Ok(100));
    });
    assert!((200..20_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    assert_eq!(unwatched.wait().map(|ms| *ms), Ok(101));
}

#[test]
fn calls_that_are_not_over_in_time_are_counted() {
    let dir = Dir::new();
    let (node, other) = (dir.join("server"), dir.join("client"));
    let (release, released) = channel::<()>();
    let released = parking(released);
    let server = node
        .service("stuck")
        .method("wait", move |_ctx, ()| released().map_err(|_| Status::internal("gone")))
        .spawn()
        .unwrap();
    let client = other.client("stuck").unwrap();
    let stuck: Pending<Response<()>> = client.request("wait").timeout(DEADLINE).start(&()).unwrap();
    eventually("it runs", || server.stats().messages == 1);
    let unfinished = |node: &Node| match node.drain(Duration::from_millis(50)) {
        Err(DrainError::Unfinished(left)) => (left.serving, left.calling, left.unread.len()),
        other => panic!("{other:?}"),
    };
    assert_eq!(unfinished(&other), (0, 1, 0));
    assert_eq!(unfinished(&node), (1, 0, 0));
    release.send(()).unwrap();
    assert_eq!(stuck.wait().map(drop).unwrap_err().code(), Code::Unavailable);
}

/// A handler may run on any thread.
fn parking(released: std::sync::mpsc::Receiver<()>) -> impl Fn() -> Result<(), ()> + Send + Sync {
    let released = std::sync::Mutex::new(released);
    move || released.lock().unwrap().recv_timeout(DEADLINE).map_err(|_| ())
}

#[test]
fn each_message_whose_publish_succeeded_is_read_however_many_threads_publish() {
    let dir = Dir::new();
    let other = dir.join("reader");
    for round in 0..20 {
        let mut events = other.subscriber::<u64>("t").unwrap();
        let node = dir.join("writer");
        let published: Vec<_> = (0..3)
            .map(|_| {
                let mut publisher = node.publisher::<u64>("t").unwrap();
                thread::spawn(move || {
                    let mut published = 0u64;
                    while publisher.publish(&published).is_ok() {
                        published += 1;
                    }
                    published
                })
            })
            .collect();
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let reading = thread::spawn(move || {
            let mut received = 0;
            loop {
                match events.recv_timeout(Duration::from_millis(5)).unwrap() {
                    Some(_) => received += 1,
                    None if told.load(Relaxed) => return received,
                    None => {}
                }
            }
        });
        thread::sleep(Duration::from_millis(round % 4));
        node.drain(DEADLINE).unwrap();
        over.store(true, Relaxed);
        let published: u64 = published.into_iter().map(|thread| thread.join().unwrap()).sum();
        // Of one that was being published when the node left, it is not known.
        let received: u64 = reading.join().unwrap();
        assert!((published..=published + 3).contains(&received), "{received} of {published}");
    }
}

#[test]
fn a_forked_child_does_not_drain_its_parents_node() {
    let dir = Dir::new();
    let node = dir.join("node");
    let child = node.clone();
    Forked::run(move || {
        assert!(matches!(child.drain(DEADLINE), Err(DrainError::Forked)));
    })
    .passes();
    node.drain(DEADLINE).unwrap();
}
