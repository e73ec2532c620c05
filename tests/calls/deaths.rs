//! Clients and servers that are killed, at each stage of a call.

use std::thread;
use std::time::{Duration, Instant};

use ringbus::{Code, Pending, Response, Status};

use crate::servant::{self, SERVICE, client_of, start, stop, works};
use crate::support::stopwatch::Stopwatch;
use crate::support::{self, Child, DEADLINE, Dir, Parent, eventually};

/// A death is told by the kernel: within this, even on a busy machine.
const SOON: Duration = Duration::from_secs(1);

fn is_unavailable(status: &Status) -> bool {
    status.code() == Code::Unavailable
}

#[test]
fn a_server_killed_in_a_handler_is_unavailable_soon() {
    let dir = Dir::new();
    let node = dir.join("client");
    let client = node.client(SERVICE).unwrap();
    let mut best = Duration::MAX;
    for round in 0..5 {
        let mut server = start(&dir, "server", &[]);
        client.wait_for_server(DEADLINE).unwrap();
        let call: Pending<Response<i64>> = client.request("hold").timeout(DEADLINE).start(&round).unwrap();
        server.expect(&format!("holds {round}"));
        let killed = Stopwatch::start();
        server.kill();
        let status = call.wait().map(|n| *n).unwrap_err();
        let took = killed.took(SOON);
        assert!(is_unavailable(&status) && status.message().contains("died"), "{status}");
        assert!(took <= SOON, "{took:?}");
        best = best.min(took);
        eventually("nobody serves", || client.servers().is_empty());
    }
    println!("killed to Unavailable: {best:?} at best");
}

#[test]
fn requests_in_a_killed_servers_log_and_queue_end_at_once() {
    let dir = Dir::new();
    let mut server = start(&dir, "server", &[]);
    let (_node, client) = client_of(&dir, 1);
    let begin = |method: &'static str| -> Pending<Response<i64>> {
        client.request(method).timeout(DEADLINE).start(&1).unwrap()
    };
    let mut calls = vec![begin("hold")];
    server.expect("holds 1");
    calls.extend((0..10).map(|_| begin("double")));
    eventually("ten are queued", || servant::counts(&mut server)[2] == 10);
    stop(&server);
    calls.extend((0..10).map(|_| begin("double"))); // these stay in the log
    server.kill();
    let killed = Stopwatch::start();
    for call in calls {
        let status = call.wait().map(|n| *n).unwrap_err();
        assert!(is_unavailable(&status), "{status}");
    }
    killed.within(SOON);
}

#[test]
fn an_answer_that_was_written_before_the_death_is_received() {
    let dir = Dir::new();
    for _ in 0..10 {
        let mut server = start(&dir, "server", &[]);
        let (_node, client) = client_of(&dir, 1);
        // Nobody reads answers while nobody waits for one.
        let calls: Vec<Pending<Response<i64>>> =
            (0..20).map(|n| client.request("double").timeout(DEADLINE).start(&n).unwrap()).collect();
        let hold: Pending<Response<i64>> = client.request("hold").timeout(DEADLINE).start(&1).unwrap();
        server.expect("holds 1"); // so the others are answered
        server.kill();
        eventually("the death is known", || client.servers().is_empty());
        for (n, call) in (0..).zip(calls) {
            assert_eq!(*call.wait().unwrap(), 2 * n);
        }
        assert!(is_unavailable(&hold.wait().map(|n| *n).unwrap_err()));
    }
}

#[test]
fn a_server_gone_between_two_calls_is_not_called() {
    let dir = Dir::new();
    let (mut goes, stays) = (start(&dir, "goes", &[]), start(&dir, "stays", &[]));
    let (_node, client) = client_of(&dir, 2);
    (0..4).for_each(|_| works(&client));
    for round in 0..20 {
        if round % 2 == 0 {
            goes.kill();
        } else {
            goes.tell("close");
            goes.expect("closed");
            goes.finish();
        }
        // Either the other answers, or the status says at once that this one has gone.
        let begun = Instant::now();
        while client.servers().len() == 2 {
            match client.call::<_, i64>("double", &2) {
                Ok(doubled) => assert_eq!(doubled, 4),
                Err(status) => assert!(is_unavailable(&status), "{status}"),
            }
            assert!(begun.elapsed() < DEADLINE / 4);
        }
        works(&client);
        goes = start(&dir, "goes", &[]);
        eventually("both serve", || client.servers().len() == 2);
    }
    drop((goes, stays));
}

#[test]
fn the_calls_of_a_killed_client_are_cancelled_and_counted() {
    let dir = Dir::new();
    let node = dir.join("server");
    let (server, said) = servant::spawn(&node, |builder| builder);
    let mut client = Child::start("calls and is killed", &[dir.arg()]);
    client.expect("called");
    said.expect("holds 1");
    eventually("nine wait", || server.queued() == 9);
    client.kill();
    said.expect("lets go of 1");
    // Its answer and the nine that were not run.
    eventually("all are dropped", || server.stats().dropped == 10);
    assert_eq!(server.queued(), 0);
    works(&node.client(SERVICE).unwrap());
    assert_eq!(said.rest(), Vec::<String>::new(), "none of the nine was run");
}

pub fn calls_and_is_killed(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("client").unwrap();
    let client = node.client(SERVICE).unwrap();
    let call = |method: &'static str| -> Pending<Response<i64>> {
        client.request(method).timeout(DEADLINE).start(&1).unwrap()
    };
    let calls: Vec<_> = std::iter::once(call("hold")).chain((0..9).map(|_| call("sleep"))).collect();
    parent.say("called");
    parent.stay();
    drop(calls);
}

#[test]
fn a_client_calls_whoever_serves_next() {
    let dir = Dir::new();
    let node = dir.join("client");
    let client = node.client(SERVICE).unwrap();
    for round in 0..30 {
        let mut server = start(&dir, "server", &[]);
        client.wait_for_server(DEADLINE).unwrap();
        works(&client);
        match round % 3 {
            0 => server.kill(),
            1 => server.finish(),
            _ => {
                // The same process again.
                server.tell("close");
                server.expect("closed");
                eventually("it is gone", || client.servers().is_empty());
                server.tell("open");
                server.expect("opened");
                client.wait_for_server(DEADLINE).unwrap();
                works(&client);
                server.kill();
            }
        }
        eventually("nobody serves", || client.servers().is_empty());
    }
    assert!(client.wait_for_server(Duration::from_millis(10)).is_err());
}

/// Calls that are under way while the server is closed and opened in one process: the end of the log of answers
/// and the word that the service was closed come by different ways.
#[test]
fn a_service_closed_and_opened_under_load_ends_every_call_at_once() {
    let dir = Dir::new();
    let mut server = Child::start("restarts", &[dir.arg()]);
    server.expect("begun");
    let (_node, client) = client_of_any(&dir);
    let deadline = Instant::now() + Duration::from_secs(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while Instant::now() < deadline {
                    let begun = Instant::now();
                    match client.request("double").timeout(DEADLINE).send::<_, i64>(&3) {
                        Ok(doubled) => assert_eq!(*doubled, 6),
                        Err(status) => {
                            assert!(matches!(status.code(), Code::Unavailable | Code::NotFound), "{status}")
                        }
                    }
                    let took = begun.elapsed();
                    assert!(took < DEADLINE / 4, "{took:?}");
                }
            });
        }
    });
    server.finish();
}

fn client_of_any(dir: &Dir) -> (ringbus::Node, ringbus::Client) {
    let node = dir.join("client");
    let client = node.client(SERVICE).unwrap();
    (node, client)
}

pub fn restarts(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("server").unwrap();
    let (stop, stopped) = std::sync::mpsc::channel();
    let restarts = thread::spawn(move || {
        while stopped.try_recv().is_err() {
            let (server, _said) = servant::spawn(&node, |builder| builder);
            thread::sleep(Duration::from_millis(3));
            drop(server);
        }
    });
    parent.say("begun");
    parent.stay();
    stop.send(()).unwrap();
    restarts.join().unwrap();
}
