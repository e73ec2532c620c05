//! However a node or its ports end (by exec, in any order, while others wait, while a panic unwinds): nobody hangs, and
//! nothing is left.

use std::fs;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use nix::sys::signal::Signal;
use ringbus::{Client, Code, Departure, Node, Overflow, PeerChange, Response};

mod support;
use support::{Child, DEADLINE, Dir, Parent, eventually, resources};

#[test]
fn child() {
    support::play(&[
        ("executes another program", executes_another_program),
        ("drops in any order", drops_in_any_order),
        ("is waited for", is_waited_for),
        ("logs over the bus", logs_over_the_bus),
    ]);
}

fn passes(role: &str) {
    let dir = Dir::new();
    let mut child = Child::start(role, &[dir.arg()]);
    child.expect("passed");
    child.finish();
}

/// Fds that ringbus has made: memory, bells, and sockets.
fn inherited() -> Vec<String> {
    let fds = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let links = fds.filter_map(|fd| fs::read_link(fd.path()).ok()?.to_str().map(str::to_owned));
    let ours = |link: &String| ["memfd", "anon_inode", "socket"].iter().any(|kind| link.contains(kind));
    links.filter(ours).collect()
}

#[test]
fn a_process_that_executes_another_program_has_left_and_can_join_again() {
    let dir = Dir::new();
    let node = dir.join("survivor");
    let mut presence = node.presence().unwrap();
    let mut publisher = node.publisher::<u64>("t").unwrap();
    let mut child = Child::start("executes another program", &[dir.arg()]);
    for round in ["first", "second"] {
        child.expect(round);
        let change = presence.recv_timeout(DEADLINE).unwrap().expect("a join");
        assert!(matches!(&change, PeerChange::Joined(peer) if peer.pid() == child.pid()), "{change}");
        publisher.wait_for_subscribers(1, DEADLINE).unwrap();
        publisher.publish(&1).unwrap();
        child.tell("go on");
        let change = presence.recv_timeout(DEADLINE).unwrap().expect("a departure");
        let PeerChange::Left(_, why) = &change else { panic!("{change}") };
        // It ends without a word by exec, and with one by its end.
        assert_eq!(why, if round == "first" { &Departure::Died } else { &Departure::Goodbye });
        eventually("its gate is gone", || publisher.stats().peers == 0);
    }
    child.finish();
    assert_eq!(dir.sockets().len(), 1);
}

fn executes_another_program(parent: &mut Parent, args: &[&str]) {
    const AGAIN: &str = "RINGBUS_TEST_AGAIN";
    let is_second = std::env::var_os(AGAIN).is_some();
    assert_eq!(inherited(), Vec::<String>::new());
    let node = support::bus(args[0]).join("executes").unwrap();
    let _ports = (node.subscriber::<u64>("t").unwrap(), node.publisher::<u64>("u").unwrap());
    assert!(!inherited().is_empty());
    parent.say(if is_second { "second" } else { "first" });
    parent.hear("go on");
    if !is_second {
        // One that is started beside it inherits nothing either.
        let listed = Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(
            listed.contains("pipe") && !listed.contains("memfd") && !listed.contains("socket"),
            "{listed}"
        );
        let mut same = Command::new(std::env::current_exe().unwrap());
        panic!("{}", same.args(std::env::args().skip(1)).env(AGAIN, "1").exec());
    }
}

#[test]
fn ports_and_nodes_can_be_dropped_in_any_order() {
    passes("drops in any order");
}

fn tasks() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

fn drops_in_any_order(parent: &mut Parent, args: &[&str]) {
    let bus = support::bus(args[0]);
    let mut before = None;
    let mut random = 1_u64;
    for _ in 0..100 {
        let (one, other) = (bus.join("one").unwrap(), bus.join("other").unwrap());
        let mut publisher = one.publisher::<u64>("t").unwrap();
        let mut subscriber = other.subscriber::<u64>("t").unwrap();
        publisher.wait_for_subscribers(1, DEADLINE).unwrap();
        publisher.publish(&1).unwrap();
        let message = subscriber.recv_timeout(DEADLINE).unwrap().expect("a message");
        let mut raw = one.raw_publisher("raw").unwrap();
        let mut lending = other.raw_subscriber("raw").unwrap();
        raw.wait_for_subscribers(1, DEADLINE).unwrap();
        raw.publish(b"lent").unwrap();
        let sample = lending.recv_timeout(DEADLINE).unwrap().expect("a sample");
        let server = one.service("s").method("double", |_, n: u64| Ok(n * 2)).spawn().unwrap();
        let client = other.client("s").unwrap();
        client.wait_for_server(DEADLINE).unwrap();
        let answer: Response<u64> = client.request("double").send(&2_u64).unwrap();
        let inbox = other.inbox::<u64>().unwrap();
        one.send("other", &3_u64).unwrap();
        let presence = other.presence().unwrap();
        drop(sample);
        let mut all: Vec<Box<dyn Send>> = vec![
            Box::new(one),
            Box::new(other),
            Box::new(publisher),
            Box::new(subscriber),
            Box::new(message),
            Box::new(raw),
            Box::new(lending),
            Box::new(server),
            Box::new(client),
            Box::new(answer),
            Box::new(inbox),
            Box::new(presence),
        ];
        while !all.is_empty() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let next = all.swap_remove((random >> 33) as usize % all.len());
            // Some of them by another thread.
            if random >> 63 == 0 { drop(next) } else { thread::spawn(move || drop(next)).join().unwrap() }
        }
        let files = || fs::read_dir(format!("{}/bus", args[0])).unwrap().count();
        let before = *before.get_or_insert_with(|| {
            eventually("the first two are gone", || tasks() == 2 && files() == 0);
            (resources(), tasks())
        });
        eventually("all is given back", || (resources(), tasks()) == before && files() == 0);
    }
    parent.say("passed");
}

#[test]
fn whoever_waits_for_a_node_goes_on_when_it_is_dropped() {
    ends_while_others_wait(|child| {
        child.tell("drop");
        child
    });
}

#[test]
fn whoever_waits_for_a_node_goes_on_when_it_is_killed() {
    ends_while_others_wait(|child| {
        child.signal(Signal::SIGKILL);
        child
    });
}

fn ends_while_others_wait(end: impl Fn(&mut Child) -> &mut Child) {
    let dir = Dir::new();
    let node = dir.join("waits");
    let mut child = Child::start("is waited for", &[dir.arg()]);
    child.expect("open");
    let mut presence = node.presence().unwrap();
    assert!(matches!(presence.recv_timeout(DEADLINE).unwrap(), Some(PeerChange::Joined(_))));
    let overflow = Overflow::Block { timeout: 10 * DEADLINE };
    let mut publisher = node.publisher_builder("t").capacity(4096).overflow(overflow).open_raw().unwrap();
    let client = node.client("s").unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    let hold = |client: &Client| -> Code {
        let answer: Result<Response<u64>, _> = client.request("hold").timeout(10 * DEADLINE).send(&1_u64);
        answer.map(|answer| *answer).unwrap_err().code()
    };
    thread::scope(|scope| {
        let blocked = scope.spawn(|| (0..100).for_each(|_| publisher.publish(&[7; 512]).unwrap()));
        let called = scope.spawn(|| hold(&client));
        let told = scope.spawn(|| presence.recv_timeout(DEADLINE).unwrap());
        child.expect("holds");
        assert!(!blocked.is_finished());
        end(&mut child);
        blocked.join().unwrap();
        assert_eq!(called.join().unwrap(), Code::Unavailable);
        assert!(matches!(told.join().unwrap(), Some(PeerChange::Left(..))));
    });
    child.kill();
}

fn is_waited_for(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("waited-for").unwrap();
    let subscriber = node.raw_subscriber("t").unwrap(); // and is never read
    let service = node.service("s").method("hold", |context, n: u64| {
        Parent::new().say("holds");
        while !context.cancelled() {
            thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(n)
    });
    let server = service.spawn().unwrap();
    parent.say("open");
    parent.hear("drop");
    // The node first: whoever has one of its ports has it.
    drop(node);
    drop(subscriber);
    // A handler that nobody cancels is waited for: the process ends.
    std::mem::forget(server);
    std::process::exit(0);
}

#[test]
fn a_panic_that_unwinds_past_ports_leaves_them_usable() {
    let dir = Dir::new();
    let (one, other): (Node, Node) = (dir.join("one"), dir.join("other"));
    let mut publisher = one.raw_publisher("t").unwrap();
    let mut subscriber = other.raw_subscriber("t").unwrap();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    for round in 0..100_u8 {
        // With a message begun, and with one lent.
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let mut loan = publisher.loan(100).unwrap();
            loan[0] = round;
            std::panic::resume_unwind(Box::new("not a word to stderr"));
        }));
        assert!(unwound.is_err());
        publisher.publish(&[round]).unwrap();
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let sample = subscriber.recv_timeout(DEADLINE).unwrap().expect("what was published");
            assert_eq!(*sample, [round]);
            std::panic::resume_unwind(Box::new("nor this"));
        }));
        assert_eq!(*unwound.unwrap_err().downcast::<&str>().unwrap(), "nor this");
    }
    assert!(subscriber.try_recv().unwrap().is_none());
}

#[test]
fn a_node_whose_own_thread_logs_over_the_bus_goes_on() {
    let dir = Dir::new();
    let server = dir.join("log");
    let _server = server.service("log").method("log", |_, n: i64| Ok(n)).spawn().unwrap();
    let mut child = Child::start("logs over the bus", &[dir.arg()]);
    child.expect("open");
    let _late = dir.join("late"); // of which the node's own thread tells
    child.expect("passed");
    child.finish();
}

/// What has become of the call that was made to log something.
static LOGGED: Mutex<Option<Result<i64, String>>> = Mutex::new(None);

/// Logs the first thing that the node's own thread tells by a call, the first of its client's.
struct OverBus {
    client: Client,
    called: AtomicBool,
}

impl tracing::Subscriber for OverBus {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        thread::current().name() == Some("ringbus")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        if !self.called.swap(true, Relaxed) {
            let called = self.client.call::<_, i64>("log", &1);
            *LOGGED.lock().unwrap() = Some(called.map_err(|status| status.to_string()));
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

fn logs_over_the_bus(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("node").unwrap();
    let client = node.client("log").unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    tracing::subscriber::set_global_default(OverBus {
        client: client.clone(),
        called: AtomicBool::new(false),
    })
    .unwrap();
    parent.say("open");
    eventually("it has logged", || LOGGED.lock().unwrap().is_some());
    let refused = LOGGED.lock().unwrap().take().unwrap().unwrap_err();
    assert!(refused.contains("own thread"), "{refused}");
    node.publisher::<i64>("t").unwrap().publish(&1).unwrap();
    assert_eq!(client.call("log", &2), Ok(2));
    parent.say("passed");
}
