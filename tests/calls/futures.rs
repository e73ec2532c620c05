//! Calls as futures, without a runtime.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use ringbus::{Code, Pending, Response, Status, Wait};

use crate::servant::{self, SERVICE, client_of, start, works};
use crate::support::{DEADLINE, Dir, eventually};

/// Wakes the thread that polls.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn waker() -> Waker {
    Arc::new(Unpark(thread::current())).into()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = waker();
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        let left = deadline.checked_duration_since(Instant::now()).expect("woken before the deadline");
        thread::park_timeout(left);
    }
}

/// All results, in the order of the futures, polled from one thread whenever any of them is woken.
fn join_all<F: Future + Unpin>(mut futures: Vec<F>) -> Vec<F::Output> {
    let mut results: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    block_on(std::future::poll_fn(|context| {
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if result.is_none()
                && let Poll::Ready(value) = Pin::new(future).poll(context)
            {
                *result = Some(value);
            }
        }
        if results.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    }));
    results.into_iter().flatten().collect()
}

#[test]
fn a_call_can_be_awaited() {
    let dir = Dir::new();
    let server = start(&dir, "server", &[]);
    let (_node, client) = client_of(&dir, 1);
    let double = async |n: i64| -> Result<i64, Status> {
        let doubled: Response<i64> = client.request("double").start(&n)?.await?;
        Ok(*doubled)
    };
    for n in 0..200 {
        assert_eq!(block_on(double(n)), Ok(2 * n));
    }
    let status = block_on(async { client.request("no such").start::<_, ()>(&())?.await.map(drop) });
    assert_eq!(status.unwrap_err().code(), Code::Unimplemented);
    works(&client);
    server.finish();
}

#[test]
fn many_futures_of_one_thread_beside_threads_that_wait() {
    let dir = Dir::new();
    let server = start(&dir, "server", &[("workers", 2)]);
    for wait in [Wait::Adaptive, Wait::Park] {
        let node = dir.join("client");
        let client = node.client_builder(SERVICE).wait(wait).timeout(DEADLINE).open().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| (0..300).for_each(|_| works(&client)));
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let calls: Vec<Pending<Response<i64>>> =
                            (0..100).map(|n| client.request("double").start(&n).unwrap()).collect();
                        let results = join_all(calls);
                        assert!((0..).zip(results).all(|(n, result)| *result.unwrap() == 2 * n));
                    }
                });
            }
        });
    }
    server.finish();
}

#[test]
fn the_deadline_of_a_future_needs_nobody_else() {
    let dir = Dir::new();
    let mut server = start(&dir, "server", &[]);
    let (_node, client) = client_of(&dir, 1);
    let begun = Instant::now();
    let timeout = servant::TIME_TO_BEGIN;
    let call: Pending<Response<i64>> = client.request("overstay").timeout(timeout).start(&1).unwrap();
    let status = block_on(call).map(|n| *n).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!((timeout..DEADLINE / 4).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    server.expect("holds 1");
    server.expect("lets go of 1");
}

#[test]
fn a_deadline_before_that_of_a_future_already_waited_for_is_kept() {
    for wait in [Wait::Adaptive, Wait::Park, Wait::Spin] {
        let dir = Dir::new();
        let mut server = start(&dir, "server", &[]);
        let node = dir.join("client");
        let client = node.client_builder(SERVICE).wait(wait).open().unwrap();
        let begin = |n: i64, timeout| -> Pending<Response<i64>> {
            client.request("hold").timeout(timeout).start(&n).unwrap()
        };
        let mut long = begin(1, 2 * DEADLINE);
        let waker = waker();
        let polled = Pin::new(&mut long).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        server.expect("holds 1");
        for timeout in [400, 200, 100] {
            // The thread that waits for tasks has fallen asleep over the longer ones.
            thread::sleep(Duration::from_millis(20));
            let begun = Instant::now();
            let short = begin(2, Duration::from_millis(timeout));
            let status = block_on(short).map(|n| *n).unwrap_err();
            assert_eq!(status.code(), Code::DeadlineExceeded);
            assert!(begun.elapsed() < DEADLINE / 4, "{wait:?}: {:?}", begun.elapsed());
        }
        drop(long);
        server.expect("lets go of 1");
    }
}

#[test]
fn a_future_dropped_half_way_is_cancelled() {
    let dir = Dir::new();
    let mut server = start(&dir, "server", &[]);
    let (_node, client) = client_of(&dir, 1);
    for n in 0..10 {
        let mut call: Pending<Response<i64>> = client.request("hold").timeout(DEADLINE).start(&n).unwrap();
        let waker = waker();
        assert!(Pin::new(&mut call).poll(&mut Context::from_waker(&waker)).is_pending());
        server.expect(&format!("holds {n}"));
        drop(call);
        server.expect(&format!("lets go of {n}"));
        works(&client);
    }
}

#[test]
fn a_future_learns_of_its_servers_death() {
    let dir = Dir::new();
    let mut server = start(&dir, "server", &[]);
    let (_node, client) = client_of(&dir, 1);
    let calls: Vec<Pending<Response<i64>>> =
        (0..10).map(|n| client.request("hold").timeout(2 * DEADLINE).start(&n).unwrap()).collect();
    server.expect("holds 0");
    let killer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20)); // the futures are polled, or are not yet: both are fine
        server.kill();
    });
    for result in join_all(calls) {
        assert_eq!(result.map(|n| *n).unwrap_err().code(), Code::Unavailable);
    }
    killer.join().unwrap();
}

#[test]
fn a_future_outlives_its_client_and_wakes_whoever_polled_last() {
    let dir = Dir::new();
    let server = start(&dir, "server", &[]);
    let (node, client) = client_of(&dir, 1);
    let mut call: Pending<Response<u64>> = client.request("sleep").timeout(DEADLINE).start(&100).unwrap();
    drop((client, node));
    // Polled by another task first.
    let other = thread::spawn(move || {
        let waker = waker();
        assert!(Pin::new(&mut call).poll(&mut Context::from_waker(&waker)).is_pending());
        call
    });
    let call = other.join().unwrap();
    assert_eq!(*block_on(call).unwrap(), 100);
    drop(server);
}

/// A task whose waker panics.
struct Panics(AtomicBool);

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
        panic!("a waker");
    }
}

/// Polls once, with a waker that will panic.
fn poll_to_panic<F: Future + Unpin>(call: &mut F) -> Arc<Panics> {
    let panics = Arc::new(Panics(AtomicBool::new(false)));
    let waker = Waker::from(panics.clone());
    assert!(Pin::new(call).poll(&mut Context::from_waker(&waker)).is_pending());
    panics
}

#[test]
fn a_waker_that_panics_ends_no_other_call() {
    let dir = Dir::new();
    let server = start(&dir, "server", &[]);
    let (_node, client) = client_of(&dir, 1);
    // By an answer, by a deadline, and by a server that goes.
    let mut answered: Pending<Response<u64>> = client.request("sleep").start(&50).unwrap();
    let panicked = poll_to_panic(&mut answered);
    eventually("it was woken", || panicked.0.load(SeqCst));
    assert_eq!(
        block_on(async { client.request("double").start(&1)?.await.map(|n: Response<i64>| *n) }),
        Ok(2)
    );

    let call = client.request("hold").timeout(Duration::from_secs(1));
    let mut late: Pending<Response<i64>> = call.start(&1).unwrap();
    let panicked = poll_to_panic(&mut late);
    eventually("it was woken", || panicked.0.load(SeqCst));
    let long = DEADLINE.as_millis() as u64;
    let short: Pending<Response<u64>> =
        client.request("sleep").timeout(Duration::from_millis(100)).start(&long).unwrap();
    assert_eq!(block_on(short).map(|n| *n).unwrap_err().code(), Code::DeadlineExceeded);

    let mut lost: Pending<Response<i64>> = client.request("hold").start(&3).unwrap();
    let panicked = poll_to_panic(&mut lost);
    let other: Pending<Response<i64>> = client.request("hold").start(&4).unwrap();
    server.kill();
    assert_eq!(block_on(other).map(|n| *n).unwrap_err().code(), Code::Unavailable);
    eventually("it was woken", || panicked.0.load(SeqCst));
    // Whoever is still interested finds each call over.
    assert_eq!(block_on(answered).map(|ms| *ms), Ok(50));
    let _ = block_on(late); // or its answer, which has come meanwhile
    assert_eq!(block_on(lost).map(|n| *n).unwrap_err().code(), Code::Unavailable);
}

#[test]
fn a_call_can_be_waited_for_a_little_at_a_time() {
    let dir = Dir::new();
    let mut server = start(&dir, "server", &[("workers", 3)]);
    let (_node, client) = client_of(&dir, 1);
    // With no time at all, until it has come.
    let mut call: Pending<Response<i64>> = client.request("double").timeout(DEADLINE).start(&4).unwrap();
    let mut result = None;
    eventually("an answer", || {
        result = call.wait_timeout(Duration::ZERO);
        result.is_some()
    });
    assert_eq!(*result.unwrap().unwrap(), 8);
    let again = call.wait_timeout(Duration::ZERO).expect("over").unwrap_err();
    assert_eq!(again.code(), Code::DeadlineExceeded, "once");

    // Not over yet, and still there: for others who call, a longer wait, and to be awaited.
    let mut held: Pending<Response<i64>> = client.request("hold").timeout(DEADLINE).start(&1).unwrap();
    assert!((0..3).all(|_| held.wait_timeout(Duration::from_millis(1)).is_none()));
    works(&client);
    assert!(held.wait_timeout(Duration::ZERO).is_none());
    server.expect("holds 1");
    drop(held);
    server.expect("lets go of 1");
    let sleeps =
        || -> Pending<Response<u64>> { client.request("sleep").timeout(DEADLINE).start(&20_u64).unwrap() };
    let [mut first, mut second] = [sleeps(), sleeps()];
    assert_eq!(*first.wait_timeout(DEADLINE).expect("over").unwrap(), 20);
    let early = second.wait_timeout(Duration::ZERO);
    assert_eq!(*early.unwrap_or_else(|| block_on(second)).unwrap(), 20);
    server.expect("sleeps 20");
    server.expect("sleeps 20");

    // The call's own deadline ends it, and the server hears of that.
    let timeout = Duration::from_millis(300);
    let mut late: Pending<Response<i64>> = client.request("overstay").timeout(timeout).start(&2).unwrap();
    let status = late.wait_timeout(DEADLINE).expect("over").unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::DeadlineExceeded, "test.overstay: no answer within 300ms")
    );
    server.expect("holds 2");
    server.expect("lets go of 2");
}

/// More of them than are read in one go.
#[test]
fn one_look_finds_an_answer_behind_many_others() {
    const CALLS: usize = 200;
    let bus = ringbus::Bus::private().unwrap();
    let [server, caller, other] = ["server", "caller", "other"].map(|name| bus.join(name).unwrap());
    let (handled, counted) = std::sync::mpsc::channel();
    let service = server.service("count").workers(1).method("next", move |_, n: usize| {
        handled.send(n).unwrap();
        Ok(n)
    });
    let _server = service.spawn().unwrap();
    // One that does not look again and again.
    let open = |node: &ringbus::Node| node.client_builder("count").wait(Wait::Park).open().unwrap();
    let (client, witness) = (open(&caller), open(&other));
    client.wait_for_server(DEADLINE).unwrap();
    witness.wait_for_server(DEADLINE).unwrap();
    let mut calls: Vec<Pending<Response<usize>>> =
        (0..CALLS).map(|n| client.request("next").timeout(DEADLINE).start(&n).unwrap()).collect();
    for n in 0..CALLS {
        assert_eq!(counted.recv_timeout(DEADLINE).unwrap(), n);
    }
    // Its one worker has answered the last of them before it turns to this.
    witness.request("next").timeout(DEADLINE).send::<_, usize>(&CALLS).unwrap();
    let last = calls[CALLS - 1].wait_timeout(Duration::ZERO).expect("it is there");
    assert_eq!(*last.unwrap(), CALLS - 1);
}
