//! Clients as tower services: layers around them, and calls that wait for room in their futures.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use nix::sys::signal::Signal;
use ringbus::tower::{Call, Request};
use ringbus::{Client, Code, Encoding};
use tokio::runtime::Builder;
use tower::load_shed::error::Overloaded;
use tower::timeout::error::Elapsed;
use tower::{Service, ServiceBuilder, ServiceExt};

use crate::support::{self, Child, DEADLINE, Dir, Parent};
use crate::{open, runtime, start_math, stop};

/// Calls at once: `oneshot` would only when it is polled.
fn call(client: &Client, request: Request) -> Call {
    Service::call(&mut client.clone(), request)
}

#[test]
fn a_third_call_is_shed_while_two_run_and_dropped_calls_are_cancelled() {
    let dir = Dir::new();
    let mut math = start_math(&dir);
    let node = dir.join("caller");
    runtime().block_on(async {
        let client = open(&node, "math", Duration::MAX);
        let service = ServiceBuilder::new().load_shed().concurrency_limit(2).service(client);
        let call = |service: &tower::load_shed::LoadShed<_>| {
            tokio::spawn(service.clone().oneshot(Request::new("hold", &()).unwrap()))
        };
        let running = [call(&service), call(&service)];
        math.expect("holding");
        math.expect("holding");
        let third = call(&service).await.unwrap().unwrap_err();
        assert!(third.is::<Overloaded>(), "{third}");

        running.iter().for_each(|call| call.abort());
        math.expect("cancelled");
        math.expect("cancelled");
        for call in running {
            assert!(call.await.unwrap_err().is_cancelled());
        }
        let sum = service.oneshot(Request::new("add", &(2, 3)).unwrap()).await.unwrap();
        assert_eq!(sum.decode::<i64>(), Ok(5), "their permits are free again");
    });
    math.finish();
}

#[test]
fn a_timeout_layer_cancels_the_call() {
    let dir = Dir::new();
    let mut math = start_math(&dir);
    let node = dir.join("caller");
    runtime().block_on(async {
        let client = open(&node, "math", Duration::MAX);
        let service = ServiceBuilder::new().timeout(Duration::from_secs(2)).service(client);
        let late = service.oneshot(Request::new("hold", &()).unwrap()).await.unwrap_err();
        assert!(late.is::<Elapsed>(), "{late}");
    });
    math.expect("holding");
    math.expect("cancelled");
    math.finish();
}

#[test]
fn requests_carry_what_they_were_given_and_failures_are_statuses() {
    let dir = Dir::new();
    let math = start_math(&dir);
    let node = dir.join("caller");
    let client = open(&node, "math", DEADLINE);
    runtime().block_on(async {
        let request = Request::new("add", &(2, 3))
            .unwrap()
            .with_header("in", "1")
            .with_correlation("task")
            .to(&client.servers()[0]);
        let sum = call(&client, request.clone()).await.unwrap();
        assert_eq!((sum.decode(), sum.encoding()), (Ok(5i64), Encoding::MessagePack));
        assert_eq!(sum.headers().get("seen"), Some(r#"Some("1") Some("task")"#));
        assert_eq!(sum.source().map(|node| node.name()), Some("math"));
        assert_eq!(sum.destination(), Some(node.info()));
        assert_eq!((sum.correlation(), sum.priority(), sum.timestamp()), (Some("task"), Some(128), None));
        let next = call(&client, request.clone()).await.unwrap();
        assert!(sum.id().is_some() && next.id().is_some() && next.id() != sum.id());
        assert_eq!(sum.decode::<String>().unwrap_err().code(), Code::Internal);

        let reversed = call(&client, Request::raw("reverse", *b"abc")).await.unwrap();
        assert_eq!((reversed.payload(), reversed.encoding()), (&b"cba"[..], Encoding::Raw));
        assert!(reversed.decode::<i64>().unwrap_err().message().contains("Raw, not MessagePack"));

        let failed = async |request| call(&client, request).await.unwrap_err();
        let refused = failed(Request::new("refuse", &()).unwrap()).await;
        assert_eq!((refused.code(), refused.details()), (Code::Aborted, Some(("reason".to_owned(), 7))));
        let wrong = failed(Request::new("add", "x").unwrap()).await;
        assert_eq!(wrong.code(), Code::InvalidArgument);
        let bad = failed(request.clone().with_header("@time", "1")).await;
        assert_eq!(bad.code(), Code::InvalidArgument);
        assert!(bad.message().contains("reserved"), "{bad}");
        let huge = failed(Request::raw("reverse", vec![0; (64 << 20) + 1])).await;
        assert_eq!(huge.code(), Code::ResourceExhausted);
        let late = failed(request.clone().with_timeout(Duration::ZERO)).await;
        assert_eq!(late.code(), Code::DeadlineExceeded);
        let peers = dir.join("other").peers();
        let caller = peers.iter().find(|peer| peer.name() == "caller").expect("this node");
        let nobody = failed(request.to(caller)).await;
        assert_eq!(nobody.code(), Code::NotFound);
    });
    math.finish();
}

/// A future that was over says so, instead of panicking or waiting for ever.
#[test]
fn a_call_polled_after_its_end_fails() {
    let dir = Dir::new();
    let math = start_math(&dir);
    let client = open(&dir.join("caller"), "math", DEADLINE);
    runtime().block_on(async {
        let mut call = call(&client, Request::new("add", &(2, 3)).unwrap());
        assert!((&mut call).await.is_ok());
        assert_eq!(call.await.unwrap_err().code(), Code::FailedPrecondition);
    });
    math.finish();
}

/// Serves one method that says what it gets, once it is told to.
pub fn sink(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("sink").expect("join");
    let _server = node.service("sink").method("take", |_, n: (u32, String)| Ok(n.0)).spawn().expect("server");
    parent.say("up");
    parent.stay();
}

/// A stopped server's log fills up. Calls wait for room without their thread, which goes on with others.
#[test]
fn calls_wait_for_room_in_their_futures() {
    const CALLS: u32 = 200;
    let dir = Dir::new();
    let mut sink = Child::start("sink", &[dir.arg()]);
    sink.expect("up");
    let node = dir.join("caller");
    let client = node.client_builder("sink").capacity(4096).timeout(Duration::MAX).open().unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    let take = |n: u32| Request::new("take", &(n, "x".repeat(200))).unwrap();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        assert!(call(&client, take(0)).await.is_ok(), "attached");
        stop(&sink);
        let calls: Vec<_> = (0..CALLS).map(|n| tokio::spawn(call(&client, take(n)))).collect();
        let late = call(&client, take(0).with_timeout(Duration::from_millis(50))).await.unwrap_err();
        assert_eq!(late.code(), Code::DeadlineExceeded);
        assert!(late.message().contains("no room"), "the log is full: {late}");
        drop(tokio::spawn(call(&client, take(0)))); // waits for room, too
        sink.signal(Signal::SIGCONT);
        for (n, call) in calls.into_iter().enumerate() {
            let answer = tokio::time::timeout(DEADLINE, call).await.expect("answered").unwrap();
            assert_eq!(answer.unwrap().decode(), Ok(n as u32));
        }
    });
    sink.finish();
}

/// Room that comes without an answer: requests that are late when the server reads them are answered by nothing.
#[test]
fn a_call_is_told_of_room_where_nothing_is_answered() {
    let dir = Dir::new();
    let mut sink = Child::start("sink", &[dir.arg()]);
    sink.expect("up");
    let node = dir.join("caller");
    let client = node.client_builder("sink").capacity(4096).timeout(Duration::MAX).open().unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    let take = |n: u32| Request::new("take", &(n, "x".repeat(200))).unwrap();
    Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
        assert!(call(&client, take(0)).await.is_ok(), "attached");
        stop(&sink);
        let late = |n| take(n).with_timeout(Duration::from_millis(50));
        let calls: Vec<_> = (0..50).map(|n| tokio::spawn(call(&client, late(n)))).collect();
        for call in calls {
            let ended = tokio::time::timeout(DEADLINE, call).await.expect("ends").unwrap();
            assert_eq!(ended.unwrap_err().code(), Code::DeadlineExceeded);
        }
        let last = tokio::spawn(call(&client, take(7)));
        tokio::task::yield_now().await; // it is polled, finds no room, and waits
        sink.signal(Signal::SIGCONT);
        let answer = tokio::time::timeout(DEADLINE, last).await.expect("answered").unwrap();
        assert_eq!(answer.unwrap().decode(), Ok(7));
    });
    sink.finish();
}

/// Another thread fills a request in place for as long as it likes: the executor's goes on.
#[test]
fn a_call_waits_for_another_requests_loan_in_its_future() {
    let dir = Dir::new();
    let math = start_math(&dir);
    let client = open(&dir.join("caller"), "math", DEADLINE);
    Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
        let loan = client.request("reverse").loan(3).unwrap();
        let mut waits = call(&client, Request::raw("reverse", *b"abc"));
        assert!(is_pending_once_polled(&mut waits).await);
        drop(loan);
        let answer = tokio::time::timeout(DEADLINE, waits).await.expect("sent when the loan is over");
        assert_eq!(answer.unwrap().payload(), b"cba");
    });
    math.finish();
}

/// The first call to a server opens the log; one that begins meanwhile is sent even if that one is never answered.
#[test]
fn a_call_that_begins_while_another_is_written_is_not_left_behind() {
    let dir = Dir::new();
    let mut math = start_math(&dir);
    let node = dir.join("caller");
    let runtime = Builder::new_multi_thread().worker_threads(3).enable_time().build().unwrap();
    for _ in 0..50 {
        let client = open(&node, "math", Duration::MAX);
        runtime.block_on(async {
            let begin = |method, arguments: (i64, i64)| {
                let client = client.clone();
                let request = match method {
                    "hold" => Request::new("hold", &()),
                    other => Request::new(other, &arguments),
                };
                tokio::spawn(async move { call(&client, request.unwrap()).await })
            };
            let hold = begin("hold", (0, 0));
            let add = begin("add", (2, 3));
            let sum = tokio::time::timeout(DEADLINE, add).await.expect("sent").unwrap();
            assert_eq!(sum.unwrap().decode(), Ok(5i64));
            math.expect("holding");
            hold.abort();
            math.expect("cancelled");
        });
    }
    math.finish();
}

/// Whether a call is not over when it is polled once.
async fn is_pending_once_polled(call: &mut Call) -> bool {
    std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *call).poll(context).is_pending())).await
}

/// Tasks that wait for room, threads that do, and threads that wait for answers, all at one client.
#[test]
fn no_call_is_forgotten_among_tasks_and_threads() {
    let dir = Dir::new();
    let mut sink = Child::start("sink", &[dir.arg()]);
    sink.expect("up");
    let node = dir.join("caller");
    let client = node.client_builder("sink").capacity(4096).timeout(DEADLINE).open().unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    let text = "x".repeat(300);
    let runtime = runtime();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for n in 0..500 {
                    assert_eq!(client.call::<_, u32>("take", &(n, &text)), Ok(n));
                }
            });
        }
        runtime.block_on(async {
            for _ in 0..20 {
                let take = |n: u32| Request::new("take", &(n, &text)).unwrap();
                let calls: Vec<_> = (0..100).map(|n| tokio::spawn(call(&client, take(n)))).collect();
                for (n, call) in calls.into_iter().enumerate() {
                    assert_eq!(call.await.unwrap().unwrap().decode(), Ok(n as u32));
                }
            }
        });
    });
    sink.finish();
}

/// A server that goes while requests wait for room in its log.
#[test]
fn calls_that_wait_for_room_end_with_their_server() {
    let dir = Dir::new();
    let mut sink = Child::start("sink", &[dir.arg()]);
    sink.expect("up");
    let client =
        dir.join("caller").client_builder("sink").capacity(4096).timeout(Duration::MAX).open().unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    runtime().block_on(async {
        let take = || call(&client, Request::new("take", &(1, "x".repeat(200))).unwrap());
        assert!(take().await.is_ok(), "attached");
        stop(&sink);
        let calls: Vec<_> = (0..50).map(|_| tokio::spawn(take())).collect();
        sink.kill();
        for call in calls {
            let ended = tokio::time::timeout(DEADLINE, call).await.expect("ends").unwrap();
            let code = ended.unwrap_err().code();
            assert!(matches!(code, Code::Unavailable | Code::NotFound), "{code:?}");
        }
    });
}
