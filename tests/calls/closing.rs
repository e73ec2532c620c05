//! Clients, servers and nodes that are closed, in any order.

use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use ringbus::{Code, Pending, Response, Wait};

use crate::servant::{self, SERVICE, client_of, start, works};
use crate::support::{self, Child, DEADLINE, Dir, Parent, eventually, resources};

/// Runs `close` on a thread of its own: it has to come back.
#[track_caller]
fn within_the_deadline(what: &str, close: impl FnOnce() + Send + 'static) {
    let (done, over) = channel();
    thread::spawn(move || {
        close();
        let _ = done.send(());
    });
    assert!(over.recv_timeout(DEADLINE).is_ok(), "{what} hangs");
}

#[test]
fn a_server_that_is_dropped_answers_what_runs_and_refuses_what_waits() {
    for wait in [Wait::Adaptive, Wait::Park, Wait::Spin] {
        let dir = Dir::new();
        let node = dir.join("server");
        let (server, said) = servant::spawn(&node, |builder| builder.wait(wait));
        let other = dir.join("client");
        let client = other.client(SERVICE).unwrap();
        let runs: Pending<Response<u64>> = client.request("sleep").timeout(DEADLINE).start(&1000).unwrap();
        said.expect("sleeps 1000");
        let waits: Vec<Pending<Response<i64>>> =
            (0..10).map(|n| client.request("double").timeout(DEADLINE).start(&n).unwrap()).collect();
        eventually("they wait", || server.queued() == 10);
        within_the_deadline("dropping the server", move || drop(server));
        assert_eq!(*runs.wait().unwrap(), 1000);
        for call in waits {
            assert_eq!(call.wait().map(|n| *n).unwrap_err().code(), Code::Unavailable);
        }
        eventually("nobody serves", || client.servers().is_empty());
    }
}

#[test]
fn answers_without_room_are_sent_while_the_server_is_dropped() {
    let dir = Dir::new();
    let (server_node, node) = (dir.join("server"), dir.join("client"));
    for reads in [true, false] {
        let (server, _said) = servant::spawn(&server_node, |builder| builder.capacity(4096));
        let client = node.client(SERVICE).unwrap();
        let calls: Vec<Pending<Response<String>>> =
            (0..20).map(|_| client.request("text").timeout(DEADLINE).start(&900).unwrap()).collect();
        eventually("its log is full", || server.stats().messages >= 4);
        let begun = Instant::now();
        let results = thread::scope(|scope| {
            let closing = scope.spawn(|| drop(server));
            let wait = |calls: Vec<Pending<Response<String>>>| {
                calls.into_iter().map(|call| call.wait().map(|text| text.len())).collect::<Vec<_>>()
            };
            if reads {
                return wait(calls);
            }
            closing.join().unwrap();
            wait(calls)
        });
        assert!(begun.elapsed() < DEADLINE / 4, "{:?}", begun.elapsed());
        let answered = results.iter().take_while(|result| **result == Ok(900)).count();
        assert!(answered >= 3, "what was in the log");
        for result in &results[answered..] {
            assert_eq!(result.as_ref().unwrap_err().code(), Code::Unavailable);
        }
        eventually("nobody serves", || client.servers().is_empty());
    }
}

#[test]
fn a_server_dropped_by_its_own_handler_or_while_idle_ends() {
    let dir = Dir::new();
    let node = dir.join("server");
    let other = dir.join("client");
    for workers in [1, 3] {
        let own = std::sync::Arc::new(Mutex::new(None));
        let server = {
            let own = own.clone();
            node.service("own")
                .method("stop", move |_, ()| {
                    drop(own.lock().unwrap().take());
                    Ok(1)
                })
                .workers(workers)
                .spawn()
                .unwrap()
        };
        *own.lock().unwrap() = Some(server);
        let client = other.client("own").unwrap();
        let stopped = client.request("stop").timeout(DEADLINE).send::<_, i64>(&());
        assert_eq!(*stopped.unwrap(), 1);
        eventually("nobody serves", || client.servers().is_empty());
        for wait in [Wait::Adaptive, Wait::Park, Wait::Spin] {
            let (server, _said) = servant::spawn(&node, |builder| builder.workers(workers).wait(wait));
            within_the_deadline("dropping an idle server", move || drop(server));
        }
    }
}

#[test]
fn a_call_outlives_its_client() {
    let dir = Dir::new();
    let mut server = start(&dir, "server", &[]);
    let (node, client) = client_of(&dir, 1);
    let begin =
        |ms: u64| -> Pending<Response<u64>> { client.request("sleep").timeout(DEADLINE).start(&ms).unwrap() };
    let (first, second) = (begin(50), begin(1));
    let third: Pending<Response<i64>> = client.request("hold").timeout(DEADLINE).start(&1).unwrap();
    drop((client, node));
    assert_eq!(*second.wait().unwrap(), 1);
    assert_eq!(*first.wait().unwrap(), 50);
    ["sleeps 50", "sleeps 1", "holds 1"].iter().for_each(|line| server.expect(line));
    drop(third); // the last of the node
    server.expect("lets go of 1");
    server.finish();
}

#[test]
fn whatever_is_dropped_first_nothing_hangs() {
    // All orders of a client's node, its client and a call, a server's node and the server.
    let mut orders = vec![vec![]];
    for _ in 0..5 {
        orders = orders
            .iter()
            .flat_map(|order: &Vec<usize>| {
                (0..5).filter(|n| !order.contains(n)).map(|n| [&order[..], &[n]].concat())
            })
            .collect();
    }
    let dir = Dir::new();
    for order in orders {
        let (server_node, client_node) = (dir.join("server"), dir.join("client"));
        let server = server_node
            .service(SERVICE)
            .method("wait", |context, ()| {
                // Until it is cancelled, or for a moment: the server's drop waits for it.
                let until = std::time::Instant::now() + Duration::from_millis(5);
                while !context.cancelled() && std::time::Instant::now() < until {
                    thread::sleep(Duration::from_micros(200));
                }
                Ok(())
            })
            .spawn()
            .unwrap();
        let client = client_node.client(SERVICE).unwrap();
        let call: Pending<Response<()>> = client.request("wait").timeout(DEADLINE).start(&()).unwrap();
        let mut parts: [Option<Box<dyn std::any::Any + Send>>; 5] = [
            Some(Box::new(client_node)),
            Some(Box::new(client)),
            Some(Box::new(call)),
            Some(Box::new(server_node)),
            Some(Box::new(server)),
        ];
        within_the_deadline(&format!("{order:?}"), move || order.iter().for_each(|n| parts[*n] = None));
    }
}

#[test]
fn a_server_that_runs_on_this_thread_ends_with_its_methods_refused_twice() {
    let dir = Dir::new();
    let node = dir.join("server");
    let twice = node.service("x").method("m", |_, ()| Ok(())).method("m", |_, ()| Ok(())).spawn();
    assert!(twice.unwrap_err().to_string().contains("\"m\""));
    assert!(node.service("").spawn().is_err());
    assert!(node.service("x").capacity(5000).spawn().is_err());
    assert!(node.client_builder("x").capacity(1).open().is_err());
    assert!(node.peers().is_empty());
}

#[test]
fn opening_and_closing_leaves_nothing_behind() {
    let dir = Dir::new();
    let mut stays = Child::start("opens and closes", &[dir.arg()]);
    stays.expect("done");
    stays.finish();
}

pub fn opens_and_closes(parent: &mut Parent, args: &[&str]) {
    let bus = support::bus(args[0]);
    let (node, other) = (bus.join("stays").unwrap(), bus.join("other").unwrap());
    let cycle = |kind: usize| {
        let (server, _said) = servant::spawn(&node, |builder| builder.workers(1 + kind % 2));
        let clients = [node.client(SERVICE).unwrap(), other.client(SERVICE).unwrap()];
        for client in &clients {
            works(client);
            let held = client.request("mirror").send_raw(&[1; 100]).unwrap();
            let pending: Pending<Response<i64>> = client.request("double").start(&1).unwrap();
            if kind.is_multiple_of(3) {
                drop(pending);
            } else {
                assert_eq!(*pending.wait().unwrap(), 2);
            }
            assert_eq!(*held, [1; 100]);
        }
        if kind.is_multiple_of(2) {
            drop(server);
            drop(clients);
        } else {
            drop(clients);
            drop(server);
        }
        if kind.is_multiple_of(5) {
            let third = bus.join("third").unwrap();
            let (server, _said) = servant::spawn(&third, |builder| builder);
            let client = node.client(SERVICE).unwrap();
            client.wait_for_server(DEADLINE).unwrap();
            client.request("double").to(third.info().id()).send::<_, i64>(&1).unwrap();
            drop((server, third, client));
        }
    };
    // The first ones for what the process keeps.
    (0..20).for_each(cycle);
    eventually("only the two are left", || node.peers().len() == 1);
    let before = resources();
    (0..100).for_each(cycle);
    eventually("all is given back", || {
        let now = resources();
        now.0 <= before.0 && now.1 <= before.1
    });
    parent.say("done");
}

/// The log of answers of a client whose first request could not be sent stayed until the server closed.
#[test]
fn a_client_that_never_asks_leaves_nothing_with_the_server() {
    let dir = Dir::new();
    let mut stays = Child::start("serves clients that never ask", &[dir.arg()]);
    stays.expect("done");
    stays.finish();
}

pub fn serves_clients_that_never_ask(parent: &mut Parent, args: &[&str]) {
    let bus = support::bus(args[0]);
    let (node, other) = (bus.join("stays").unwrap(), bus.join("other").unwrap());
    let (_server, _said) = servant::spawn(&node, |builder| builder);
    let cycle = |_| {
        let client = other.client_builder(SERVICE).max_message(0).open().unwrap();
        let refused = client.call::<_, i64>("double", &vec![0_u64; 100_000]).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
    };
    (0..5).for_each(cycle);
    let ours = || other.peers().iter().map(|peer| peer.ports().len()).sum::<usize>();
    eventually("the clients have gone", || node.peers()[0].ports().is_empty() && ours() == 1);
    let before = resources();
    (0..50).for_each(cycle);
    eventually("all is given back", || {
        let now = resources();
        now.0 <= before.0 && now.1 <= before.1
    });
    parent.say("done");
}

/// A task's call that was then waited for by a thread kept the thread that waits for tasks, and with it the node.
#[test]
fn a_call_that_was_polled_and_then_waited_for_lets_its_node_go() {
    let dir = Dir::new();
    let (server_node, client_node) = (dir.join("server"), dir.join("client"));
    let (_server, _said) = servant::spawn(&server_node, |builder| builder);
    let client = client_node.client(SERVICE).unwrap();
    let mut call: Pending<Response<u64>> = client.request("sleep").timeout(DEADLINE).start(&50_u64).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut call).poll(&mut context).is_pending());
    assert_eq!(*call.wait().unwrap(), 50);
    drop((client, client_node));
    eventually("it has left", || server_node.peers().is_empty());
}

#[test]
fn a_request_that_is_lent_and_leaked_hangs_nobody() {
    let dir = Dir::new();
    let server = start(&dir, "server", &[]);
    let (_node, client) = client_of(&dir, 1);
    std::mem::forget(client.request("mirror").loan(16).unwrap());
    let call = client.request("double").timeout(Duration::from_millis(100));
    let status = call.send::<i64, i64>(&1).map(|n| *n).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("is being filled"), "{status}");
    within_the_deadline("dropping the client", move || drop(client));
    let (_node, client) = client_of(&dir, 1);
    works(&client);
    server.finish();
}

#[test]
fn a_server_has_a_thousand_workers_at_most() {
    let dir = Dir::new();
    let node = dir.join("server");
    for (workers, starts) in [(100_000, false), (1025, false), (20, true)] {
        let spawned = servant::service(&node, Box::new(|_| {})).workers(workers).spawn();
        match spawned {
            Ok(_) => assert!(starts, "{workers}"),
            Err(error) => assert!(!starts && error.to_string().contains("1024"), "{workers}: {error}"),
        }
    }
}
