//! Many calls at once: threads, clones, servers that die.

use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ringbus::{Code, PeerChange, Pending, Response};

use crate::servant::{self, SERVICE, client_of, start, stop};
use crate::support::{DEADLINE, Dir, eventually};

#[test]
fn every_call_ends_once_while_servers_are_killed_and_started() {
    const CALLS: u64 = 100_000;
    const THREADS: u64 = 8;
    let dir = Dir::new();
    let mut servers: Vec<_> = ["a", "b", "c"].map(|name| start(&dir, name, &[("workers", 2)])).into();
    let (_node, client) = client_of(&dir, 3);
    let [answered, unavailable, refused] = [0; 3].map(AtomicU64::new);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let client = if thread % 2 == 0 { client.clone() } else { client.clone().clone() };
                let (answered, unavailable, refused) = (&answered, &unavailable, &refused);
                scope.spawn(move || {
                    for n in 0..CALLS / THREADS {
                        let n = (thread << 32 | n) as i64;
                        match client.request("double").timeout(DEADLINE).send::<_, i64>(&n) {
                            Ok(doubled) => {
                                assert_eq!(*doubled, 2 * n);
                                answered.fetch_add(1, Relaxed);
                            }
                            Err(status) => {
                                let count = match status.code() {
                                    Code::Unavailable => unavailable,
                                    Code::NotFound | Code::ResourceExhausted => refused,
                                    _ => panic!("{status}"),
                                };
                                count.fetch_add(1, Relaxed);
                            }
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut turn = 0;
            while !over.load(Relaxed) {
                let begun = Instant::now();
                let name = ["a", "b", "c"][turn % 3];
                servers.remove(0).kill();
                servers.push(start(&dir, name, &[("workers", 2)]));
                turn += 1;
                while begun.elapsed() < Duration::from_secs(1) && !over.load(Relaxed) {
                    thread::sleep(Duration::from_millis(5));
                }
            }
        });
        for thread in threads {
            let ended = thread.join();
            if let Err(panic) = ended {
                over.store(true, Relaxed);
                std::panic::resume_unwind(panic);
            }
        }
        over.store(true, Relaxed);
    });
    let counts = [&answered, &unavailable, &refused].map(|count| count.load(Relaxed));
    println!("answered, unavailable, refused: {counts:?}");
    assert_eq!(counts.iter().sum::<u64>(), CALLS);
    // A death costs those that were under way, which is no more than one a thread.
    assert!(counts[0] > CALLS * 99 / 100, "{counts:?}");
    assert_eq!(client.stats().messages, counts[0]);
}

#[test]
fn live_servers_take_turns() {
    let dir = Dir::new();
    let servers = ["a", "b", "c"].map(|name| start(&dir, name, &[]));
    let (_node, client) = client_of(&dir, 3);
    let mut calls = HashMap::new();
    for _ in 0..30 {
        let pid: u32 = client.call("pid", &()).unwrap();
        *calls.entry(pid as i32).or_insert(0) += 1;
    }
    assert_eq!(servers.each_ref().map(|server| calls[&server.pid()]), [10; 3]);
    // Also for calls from many threads, and after one has gone.
    let [first, ..] = servers;
    first.kill();
    eventually("two are left", || client.servers().len() == 2);
    let counts = std::sync::Mutex::new(HashMap::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let pid: u32 = client.call("pid", &()).unwrap();
                    *counts.lock().unwrap().entry(pid).or_insert(0) += 1;
                }
            });
        }
    });
    let counts: Vec<i32> = counts.into_inner().unwrap().into_values().collect();
    assert_eq!(counts, [50, 50]);
}

#[test]
fn a_stopped_server_loses_its_turn_to_those_that_go_on() {
    let dir = Dir::new();
    let servers = ["a", "b", "c"].map(|name| start(&dir, name, &[]));
    let (node, client) = client_of(&dir, 3);
    let mut presence = node.presence().unwrap();
    let pid = || client.request("pid").timeout(DEADLINE).send::<_, u32>(&()).map(|pid| *pid as i32);
    let mut await_change = |wanted: fn(&PeerChange) -> bool| {
        while !wanted(&presence.recv_timeout(DEADLINE).unwrap().unwrap()) {}
    };
    stop(&servers[0]);
    await_change(|change| matches!(change, PeerChange::Stalled(_)));
    let mut calls = HashMap::new();
    (0..30).for_each(|_| *calls.entry(pid().unwrap()).or_insert(0) += 1);
    let of = |calls: &HashMap<i32, i32>| {
        servers.each_ref().map(|server| calls.get(&server.pid()).copied().unwrap_or(0))
    };
    assert_eq!(of(&calls), [0, 15, 15]);
    servers[0].signal(Signal::SIGCONT);
    await_change(|change| matches!(change, PeerChange::Recovered(_)));
    calls.clear();
    (0..30).for_each(|_| *calls.entry(pid().unwrap()).or_insert(0) += 1);
    assert_eq!(of(&calls), [10; 3]);
    // Where all stand still, it is the turn of one of them.
    servers.iter().for_each(stop);
    for _ in &servers {
        await_change(|change| matches!(change, PeerChange::Stalled(_)));
    }
    thread::scope(|scope| {
        let call = scope.spawn(pid);
        servers.iter().for_each(|server| server.signal(Signal::SIGCONT));
        assert!(call.join().unwrap().is_ok());
    });
}

#[test]
fn workers_run_in_parallel() {
    static MET: AtomicU64 = AtomicU64::new(0);
    let dir = Dir::new();
    let node = dir.join("server");
    let server = node
        .service("meet")
        .method("meet", |_, ()| {
            // Waits until four are here at the same time.
            MET.fetch_add(1, Relaxed);
            let deadline = Instant::now() + DEADLINE;
            while MET.load(Relaxed) < 4 && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            Ok(MET.load(Relaxed))
        })
        .workers(4)
        .spawn()
        .unwrap();
    let other = dir.join("client");
    let client = other.client_builder("meet").timeout(2 * DEADLINE).open().unwrap();
    let calls: Vec<Pending<Response<u64>>> =
        (0..4).map(|_| client.request("meet").start(&()).unwrap()).collect();
    for call in calls {
        assert_eq!(*call.wait().unwrap(), 4);
    }
    assert_eq!(server.stats().messages, 4);
}

#[test]
fn calls_in_flight_may_be_waited_for_in_any_order_by_any_thread() {
    let dir = Dir::new();
    let server = start(&dir, "server", &[("workers", 2)]);
    let (_node, client) = client_of(&dir, 1);
    for round in 0..20_usize {
        let mut calls: Vec<(i64, Pending<Response<i64>>)> =
            (0..64).map(|n| (n, client.request("double").timeout(DEADLINE).start(&n).unwrap())).collect();
        // A different order each time.
        (0..calls.len()).for_each(|at| calls.swap(at, (at * (2 * round + 1) + round) % 64));
        let together = Barrier::new(4);
        thread::scope(|scope| {
            while !calls.is_empty() {
                let share = calls.split_off(calls.len() - 16);
                let together = &together;
                scope.spawn(move || {
                    together.wait();
                    for (n, call) in share {
                        assert_eq!(*call.wait().unwrap(), 2 * n);
                    }
                });
            }
        });
    }
    server.finish();
}

#[test]
fn one_worker_runs_a_clients_requests_in_their_order() {
    let dir = Dir::new();
    let node = dir.join("server");
    let (server, said) = servant::spawn(&node, |builder| builder);
    let other = dir.join("client");
    let client = other.client(SERVICE).unwrap();
    for round in 0..30 {
        // Long handlers among short ones: some requests are read by the stand-by, some by the worker.
        let order: Vec<u64> = (0..40).map(|n| if n % 8 == round % 8 { 6 } else { n % 2 }).collect();
        let calls: Vec<Pending<Response<u64>>> =
            order.iter().map(|ms| client.request("sleep").timeout(DEADLINE).start(ms).unwrap()).collect();
        for (ms, call) in order.iter().zip(calls) {
            assert_eq!(*call.wait().unwrap(), *ms);
            said.expect(&format!("sleeps {ms}"));
        }
    }
    drop(server);
}
