//! Calls that nobody waits for any more, and deadlines.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ringbus::{Code, Pending, Response};

use crate::servant::{self, client_of, counts, start, stop, works};
use crate::support::{DEADLINE, Dir, eventually};

#[test]
fn a_zero_timeout_is_over_before_anything_is_sent() {
    let dir = Dir::new();
    let mut server = start(&dir, "server", &[]);
    let (_node, client) = client_of(&dir, 1);
    let status = client.request("double").timeout(Duration::ZERO).send::<_, i64>(&1).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let started = client.request("double").timeout(Duration::ZERO).start::<_, i64>(&1);
    assert_eq!(started.map(drop).unwrap_err().code(), Code::DeadlineExceeded);
    works(&client);
    assert_eq!(counts(&mut server)[0], 3);
    server.finish();
}

#[test]
fn a_timeout_without_end_is_one() {
    let dir = Dir::new();
    let server = start(&dir, "server", &[]);
    let (_node, client) = client_of(&dir, 1);
    let slept: Response<u64> = client.request("sleep").timeout(Duration::MAX).send(&20).unwrap();
    assert_eq!(*slept, 20);
    drop(server);
}

#[test]
fn a_deadline_ends_the_call_on_both_sides() {
    let dir = Dir::new();
    let mut server = start(&dir, "server", &[]);
    let (_node, client) = client_of(&dir, 1);
    let begun = Instant::now();
    let timeout = servant::TIME_TO_BEGIN;
    let status = client.request("overstay").timeout(timeout).send::<_, i64>(&1).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("test.overstay") && status.message().contains("900ms"), "{status}");
    assert!((timeout..DEADLINE / 2).contains(&begun.elapsed()));
    server.expect("holds 1");
    server.expect("lets go of 1");
    works(&client);
    // The answer that came too late is counted, not taken for another call's.
    eventually("the late answer is dropped", || {
        works(&client);
        client.stats().dropped + counts(&mut server)[1] == 1
    });
}

#[test]
fn a_dropped_call_is_cancelled_while_it_runs() {
    let dir = Dir::new();
    let mut server = start(&dir, "server", &[("workers", 2)]);
    let (_node, client) = client_of(&dir, 1);
    for n in 0..20 {
        // With every handler at work, and with one to spare.
        let other = (n % 2 == 0).then(|| client.request("hold").timeout(DEADLINE).start::<_, i64>(&-1));
        if let Some(other) = &other {
            assert!(other.is_ok());
            server.expect("holds -1");
        }
        let call: Pending<Response<i64>> = client.request("hold").timeout(DEADLINE).start(&n).unwrap();
        server.expect(&format!("holds {n}"));
        drop(call);
        server.expect(&format!("lets go of {n}"));
        if other.is_some() {
            drop(other);
            server.expect("lets go of -1");
        }
    }
    works(&client);
}

#[test]
fn queued_requests_that_nobody_waits_for_are_not_run() {
    let dir = Dir::new();
    let mut server = start(&dir, "server", &[]);
    let (_node, client) = client_of(&dir, 1);
    let hold: Pending<Response<i64>> = client.request("hold").timeout(DEADLINE).start(&1).unwrap();
    server.expect("holds 1");
    // Cancelled ones, and such as are too late when their turn comes.
    let cancelled: Vec<Pending<Response<u64>>> =
        (0..5).map(|_| client.request("sleep").timeout(DEADLINE).start(&0).unwrap()).collect();
    let short = Duration::from_millis(100);
    let late: Vec<Pending<Response<u64>>> =
        (0..5).map(|_| client.request("sleep").timeout(short).start(&0).unwrap()).collect();
    eventually("they wait", || counts(&mut server)[2] == 10);
    drop(cancelled);
    eventually("those that were cancelled are gone", || counts(&mut server)[2] <= 5);
    for call in late {
        assert_eq!(call.wait().map(|slept| *slept).unwrap_err().code(), Code::DeadlineExceeded);
    }
    eventually("all are gone", || counts(&mut server)[2] == 0);
    drop(hold);
    server.expect("lets go of 1"); // and no "sleeps"
    works(&client);
    assert_eq!(counts(&mut server)[1], 10, "ten were dropped");
}

#[test]
fn requests_that_are_too_late_are_not_run_though_their_client_cannot_say_so() {
    let dir = Dir::new();
    let mut server = start(&dir, "server", &[]);
    let (_node, client) = client_of(&dir, 1);
    works(&client);
    stop(&server);
    let short = Duration::from_millis(100);
    let status = client.request("sleep").timeout(short).send::<_, u64>(&1).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    server.signal(Signal::SIGCONT);
    works(&client); // read after the late one
    let [taken, dropped, ..] = counts(&mut server);
    assert_eq!((taken, dropped), (7, 1), "the late one came, and was not run");
}

#[test]
fn a_stopped_server_is_no_dead_one() {
    let dir = Dir::new();
    let mut server = start(&dir, "server", &[]);
    let (_node, client) = client_of(&dir, 1);
    for first in [true, false] {
        stop(&server);
        let begun = Instant::now();
        let timeout = Duration::from_millis(300);
        let status = client.request("double").timeout(timeout).send::<_, i64>(&1).unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "first call: {first}");
        assert!(begun.elapsed() < DEADLINE / 4);
        // One that has time enough.
        thread::scope(|scope| {
            let call = scope.spawn(|| client.request("double").timeout(DEADLINE).send::<_, i64>(&4));
            server.signal(Signal::SIGCONT);
            assert_eq!(*call.join().unwrap().unwrap(), 8);
        });
        works(&client);
    }
    assert_eq!(client.servers().len(), 1);
    counts(&mut server);
}

#[test]
fn the_deadline_travels() {
    let dir = Dir::new();
    let node = dir.join("server");
    let server = node
        .service("time")
        .method("left", |context, ()| {
            assert_eq!(context.remaining().is_some(), context.deadline().is_some());
            Ok(context.remaining())
        })
        .method("late", |context, ()| {
            servant::hold(context)?;
            thread::sleep(servant::LONG_AFTER); // as in `overstay`
            Ok(())
        })
        .spawn()
        .unwrap();
    let (_other, client) = {
        let other = dir.join("client");
        let client = other.client("time").unwrap();
        (other, client)
    };
    let left = |timeout| {
        let left: Response<Option<Duration>> = client.request("left").timeout(timeout).send(&()).unwrap();
        *left
    };
    assert_eq!(left(Duration::MAX), None);
    let half = Duration::from_secs(1800);
    let found = left(half).expect("a deadline");
    assert!(found <= half && found > half - DEADLINE, "{found:?}");
    // Over without a word from the client: it has the time alone to go by.
    let timeout = Duration::from_millis(20);
    let status = client.request("late").timeout(timeout).send::<_, ()>(&()).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    drop(server);
}
