//! Queues and logs that are full: some wait, some are refused, and nobody else is held up.

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use ringbus::{Code, Pending, Response, Wait};

use crate::servant::{self, SERVICE, client_of, counts, start, stop, works};
use crate::support::stopwatch::Stopwatch;
use crate::support::{self, Child, DEADLINE, Dir, Parent, eventually};

#[test]
fn a_full_queue_refuses_promptly_and_answers_the_rest() {
    let dir = Dir::new();
    let mut server = start(&dir, "server", &[("workers", 1), ("queue", 8)]);
    let (_node, client) = client_of(&dir, 1);
    for round in 0..3 {
        let first: Pending<Response<i64>> = client.request("hold").timeout(DEADLINE).start(&round).unwrap();
        server.expect(&format!("holds {round}"));
        let dropped = counts(&mut server)[1];
        let begun = Stopwatch::start();
        let mut calls: Vec<Pending<Response<u64>>> =
            (0..20).map(|n: u64| client.request("sleep").timeout(DEADLINE).start(&n).unwrap()).collect();
        // The first eight wait; the others are told so while the first is still at work.
        for refused in calls.split_off(8) {
            let status = refused.wait().map(|slept| *slept).unwrap_err();
            assert_eq!(status.code(), Code::ResourceExhausted);
            assert!(status.message().contains("queue"), "{status}");
        }
        begun.within(Duration::from_millis(600));
        eventually("the refused are counted", || counts(&mut server)[1] == dropped + 12);
        drop(first);
        server.expect(&format!("lets go of {round}"));
        for (n, answered) in (0..).zip(calls) {
            assert_eq!(*answered.wait().unwrap(), n);
            server.expect(&format!("sleeps {n}"));
        }
    }
    works(&client);
}

#[test]
fn a_queue_of_none_takes_what_a_worker_is_free_for() {
    let dir = Dir::new();
    let mut server = start(&dir, "server", &[("queue", 0)]);
    let (_node, client) = client_of(&dir, 1);
    let hold: Pending<Response<i64>> = client.request("hold").timeout(DEADLINE).start(&1).unwrap();
    server.expect("holds 1");
    let status = client.request("double").timeout(DEADLINE).send::<_, i64>(&1).unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    drop(hold);
    server.expect("lets go of 1");
    eventually("it works", || client.call::<_, i64>("double", &1) == Ok(2));
}

/// The largest number of calls below leave the log of answers full at the last of them, and at each before.
#[test]
fn answers_that_were_not_read_arrive_when_they_are() {
    let dir = Dir::new();
    let server = start(&dir, "server", &[("capacity", 4096)]);
    let node = dir.join("client");
    let other = node.client(SERVICE).unwrap();
    for calls in 1..24 {
        let client = node.client(SERVICE).unwrap();
        let pending: Vec<Pending<Response<String>>> =
            (0..calls).map(|n| client.request("text").timeout(DEADLINE).start(&(700 + n)).unwrap()).collect();
        works(&other); // not held up
        if calls % 2 == 0 {
            // Long enough for the server to have fallen asleep over it.
            thread::sleep(Duration::from_millis(30));
        }
        let begun = Instant::now();
        for (n, call) in (0..).zip(pending) {
            assert_eq!(call.wait().unwrap().len(), 700 + n);
        }
        assert!(begun.elapsed() < DEADLINE / 4, "{calls} calls: {:?}", begun.elapsed());
        works(&client);
    }
    server.finish();
}

#[test]
fn a_client_that_does_not_read_holds_nobody_up() {
    let dir = Dir::new();
    let server = start(&dir, "server", &[("capacity", 4096), ("workers", 2)]);
    let (node, lazy) = client_of(&dir, 1);
    let begin =
        || -> Pending<Response<String>> { lazy.request("text").timeout(DEADLINE).start(&900).unwrap() };
    // As many as fit into the log of requests; far more than answers fit into theirs.
    let calls: Vec<_> = (0..500).map(|_| begin()).collect();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let other = node.client(SERVICE).unwrap();
                (0..200).for_each(|_| works(&other));
            });
        }
    });
    for call in calls {
        assert_eq!(call.wait().unwrap().len(), 900);
    }
    works(&lazy);
    assert_eq!(lazy.stats().dropped, 0);
    server.finish();
}

/// Or its answers would pile up in the server.
#[test]
fn requests_of_a_client_that_does_not_read_are_left_in_its_log() {
    let dir = Dir::new();
    let (server_node, node) = (dir.join("server"), dir.join("client"));
    let (server, _said) = servant::spawn(&server_node, |builder| builder.capacity(4096));
    let (lazy, other) = (node.client(SERVICE).unwrap(), node.client(SERVICE).unwrap());
    let calls: Vec<Pending<Response<String>>> =
        (0..500).map(|_| lazy.request("text").timeout(DEADLINE).start(&900).unwrap()).collect();
    (0..200).for_each(|_| works(&other));
    let taken = server.stats().messages - 600;
    assert!(taken < 20, "{taken} answers for which there is no room");
    for call in calls {
        assert_eq!(call.wait().unwrap().len(), 900);
    }
    assert_eq!((server.stats().messages, lazy.stats().messages), (1100, 500));
}

/// Begins so many calls, whose answers have this many bytes, and reads none before it is told to.
pub fn asks_and_is_stopped(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("stopped").unwrap();
    let [calls, len] = [1, 2].map(|arg| args[arg].parse::<usize>().unwrap());
    let client = node.client_builder(SERVICE).timeout(Duration::MAX).open().unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    let begin = |_| -> Pending<Response<String>> { client.request("text").start(&len).unwrap() };
    let calls: Vec<_> = (0..calls).map(begin).collect();
    parent.say("asked");
    parent.hear("read");
    let (mut answered, mut refused) = (0, 0);
    for call in calls {
        match call.wait() {
            Ok(text) if text.len() == len => answered += 1,
            Err(status) if status.code() == Code::ResourceExhausted => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    works(&client);
    parent.say(&format!("{answered} {refused}"));
    parent.stay();
}

#[test]
fn a_server_keeps_no_more_than_16_mib_for_a_stopped_client() {
    const CALLS: usize = 5000;
    const LEN: usize = 16_000;
    let dir = Dir::new();
    let mut server = start(&dir, "server", &[]);
    let (_node, other) = client_of(&dir, 1);
    let hold: Pending<Response<i64>> = other.request("hold").timeout(DEADLINE).start(&1).unwrap();
    server.expect("holds 1");
    let mut stopped = Child::start("asks and is stopped", &[dir.arg(), &CALLS.to_string(), &LEN.to_string()]);
    stopped.expect("asked");
    eventually("all are taken", || counts(&mut server)[2] == CALLS as u64);
    stop(&stopped);
    let before = peak_memory(&server);
    drop(hold);
    server.expect("lets go of 1");
    works(&other); // after those that were queued before
    let [_, dropped, queued, unsent] = counts(&mut server);
    assert_eq!((queued, dropped), (0, unsent));
    let kept = (CALLS - unsent as usize) * LEN;
    let grown = peak_memory(&server) - before;
    assert!((16 << 20..17 << 20).contains(&kept), "{kept} bytes of answers are kept");
    assert!(grown < 24 << 20, "grown by {grown} bytes for {} of answers", CALLS * LEN);
    stopped.signal(Signal::SIGCONT);
    stopped.tell("read");
    assert_eq!(stopped.line(), format!("{} {unsent}", CALLS - unsent as usize));
    assert_eq!(counts(&mut server)[3], unsent);
    stopped.finish();
    server.finish();
}

/// The most memory that a process has had, in bytes.
fn peak_memory(process: &Child) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    peak.expect("a peak").parse::<usize>().unwrap() * 1024
}

#[test]
fn tiny_logs_flooded_from_many_threads_end_every_call_once() {
    for wait in [Wait::Adaptive, Wait::Park, Wait::Spin] {
        let dir = Dir::new();
        let server = start(&dir, "server", &[("capacity", 4096), ("workers", 2)]);
        let node = dir.join("client");
        let client = node.client_builder(SERVICE).capacity(4096).wait(wait).timeout(DEADLINE).open().unwrap();
        client.wait_for_server(DEADLINE).unwrap();
        thread::scope(|scope| {
            for thread in 0..4 {
                let client = client.clone();
                scope.spawn(move || {
                    for round in 0..40_usize {
                        let lens: Vec<usize> =
                            (0..8).map(|n| (round * 37 + n * 131 + thread) % 900).collect();
                        let calls: Vec<Pending<_>> = lens
                            .iter()
                            .map(|len| client.request("mirror").start_raw(&vec![*len as u8; *len]).unwrap())
                            .collect();
                        for (len, call) in lens.into_iter().zip(calls) {
                            let answer = call.wait().unwrap_or_else(|status| panic!("{wait:?}: {status}"));
                            assert_eq!(*answer, vec![len as u8; len]);
                        }
                    }
                });
            }
        });
        assert_eq!((client.stats().messages, client.stats().dropped), (4 * 40 * 8, 0));
        server.finish();
    }
}

/// Room in the log of requests comes without an answer: the stand-by reads what the handlers cannot.
#[test]
fn requests_that_wait_for_room_go_when_there_is_some() {
    for wait in [Wait::Adaptive, Wait::Park, Wait::Spin] {
        let dir = Dir::new();
        let node = dir.join("server");
        let (server, said) = servant::spawn(&node, |builder| builder.queue(1000));
        let other = dir.join("client");
        let client = other.client_builder(SERVICE).capacity(4096).wait(wait).open().unwrap();
        let hold: Pending<Response<i64>> = client.request("hold").timeout(DEADLINE).start(&1).unwrap();
        said.expect("holds 1");
        // Large ones and small ones, which find room where the large ones do not.
        let (sent, done) = channel();
        thread::scope(|scope| {
            for thread in 0..4_usize {
                let (client, sent) = (client.clone(), sent.clone());
                scope.spawn(move || {
                    let text = "x".repeat(if thread % 2 == 0 { 900 } else { 10 });
                    let calls: Vec<Pending<Response<usize>>> = (0..60)
                        .map(|_| client.request("length").timeout(DEADLINE).start(&text).unwrap())
                        .collect();
                    sent.send(()).unwrap();
                    for call in calls {
                        assert_eq!(*call.wait().unwrap(), text.len());
                    }
                });
            }
            for _ in 0..4 {
                // Far before their deadlines, though no answer comes.
                let sent = done.recv_timeout(DEADLINE / 4);
                assert!(sent.is_ok(), "{wait:?}: {} of 240 wait", server.queued());
            }
            eventually("all are queued", || server.queued() == 240);
            drop(hold);
        });
    }
}

#[test]
fn whoever_waits_for_room_sleeps() {
    let dir = Dir::new();
    let server = start(&dir, "server", &[]);
    let node = dir.join("client");
    let client = node.client_builder(SERVICE).capacity(4096).open().unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    works(&client);
    stop(&server);
    let mut calls: Vec<Pending<Response<usize>>> = Vec::new();
    let text = "x".repeat(900);
    let (cpu, begun) = (cpu_time(), Instant::now());
    let status = loop {
        match client.request("length").timeout(Duration::from_secs(1)).start(&text) {
            Ok(call) => calls.push(call),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("no room"), "{status}");
    let (cpu, took) = (cpu_time() - cpu, begun.elapsed());
    assert!(took >= Duration::from_secs(1) && cpu < took / 10, "{cpu:?} of {took:?}");
}

/// What this thread has used of a processor.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    Duration::from_micros((micros(usage.user_time()) + micros(usage.system_time())) as u64)
}
