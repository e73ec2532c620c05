//! Clients as tower services, tower services as servers, and both at once, across processes.

use std::convert::Infallible;
use std::future::{Future, pending, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::signal::Signal;
use ringbus::tower::{Call, Request, Response};
use ringbus::{Client, Code, Encoding, Node, Server, Status};
use support::{Child, DEADLINE, Dir, Parent};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tower::load_shed::error::Overloaded;
use tower::timeout::error::Elapsed;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};

mod support;

#[test]
fn child() {
    support::play(&[("math", math), ("layered", layered), ("caller", caller), ("sink", sink)]);
}

fn say(line: &str) {
    Parent::new().say(line);
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("a runtime")
}

fn open(node: &Node, service: &str, timeout: Duration) -> Client {
    let client = node.client_builder(service).timeout(timeout).open().expect("client");
    client.wait_for_server(DEADLINE).expect("a server");
    client
}

/// Calls at once: `oneshot` would only when it is polled.
fn call(client: &Client, request: Request) -> Call {
    Service::call(&mut client.clone(), request)
}

/// Stops a child, and waits until all its threads are: a signal says nothing of when it takes effect.
fn stop(child: &Child) {
    child.signal(Signal::SIGSTOP);
    support::eventually("stopped", || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", child.pid())).expect("threads");
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
        })
    });
}

/// Says when it is dropped.
struct Tells(&'static str);

impl Drop for Tells {
    fn drop(&mut self) {
        say(self.0);
    }
}

/// Serves methods by plain handlers.
fn math(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("math").expect("join");
    let _server = node
        .service("math")
        .method("add", |ctx, (a, b): (i64, i64)| {
            let seen = format!("{:?} {:?}", ctx.headers().get("in"), ctx.correlation());
            ctx.header("seen", seen);
            Ok(a + b)
        })
        .method("refuse", |_, ()| Err::<(), _>(Status::aborted("no").with_details(&("reason", 7))))
        .method("left", |ctx, ()| Ok(ctx.remaining()))
        .raw_method("reverse", |_, bytes| Ok(bytes.iter().rev().copied().collect::<Vec<_>>()))
        .method("hold", |ctx, ()| {
            say("holding");
            support::eventually("cancelled", || ctx.cancelled());
            say("cancelled");
            Ok(())
        })
        .workers(3)
        .spawn()
        .expect("server");
    parent.say("up");
    parent.stay();
}

fn start_math(dir: &Dir) -> Child {
    let mut child = Child::start("math", &[dir.arg()]);
    child.expect("up");
    child
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
        let huge = failed(Request::raw("reverse", vec![0; 1 << 20])).await;
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
fn sink(parent: &mut Parent, args: &[&str]) {
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

fn status(error: BoxError) -> Status {
    if error.is::<Elapsed>() {
        Status::deadline_exceeded("too slow")
    } else if error.is::<Overloaded>() {
        Status::resource_exhausted("too many")
    } else {
        error.into()
    }
}

/// Serves services with layers, on a runtime.
fn layered(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("layered").expect("join");
    let (runtime, release) = (runtime(), Arc::new(Notify::new()));
    let held = release.clone();
    let hold = service_fn(move |_: Request| {
        let held = held.clone();
        async move {
            say("holding");
            held.notified().await;
            Response::new("released")
        }
    });
    let limited = ServiceBuilder::new().map_err(status).load_shed().concurrency_limit(1).service(hold);
    let never = service_fn(|_: Request| async {
        let _tells = Tells("dropped");
        pending::<Result<Response, Status>>().await
    });
    let timed = ServiceBuilder::new().map_err(status).timeout(Duration::from_millis(50)).service(never);
    // Behind a buffer: what it holds need not be cloned, and lives on the runtime.
    let mut count = 0;
    let counts = tower::service_fn(move |request: Request| {
        count += 1;
        let refused = request.method() == "refuse";
        ready(if refused { Err(Status::aborted("counted")) } else { Response::new(&count) })
    });
    struct NotClone<S>(S);
    impl<S: Service<Request>> Service<Request> for NotClone<S> {
        type Response = S::Response;
        type Error = S::Error;
        type Future = S::Future;

        fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
            self.0.poll_ready(context)
        }

        fn call(&mut self, request: Request) -> S::Future {
            self.0.call(request)
        }
    }
    let buffered = {
        let _inside = runtime.enter();
        ServiceBuilder::new().buffer(8).service(NotClone(counts))
    };
    let on = |handle: tokio::runtime::Handle| move |call: ringbus::tower::Serving<'_>| handle.block_on(call);
    let serve =
        |name, builder: ringbus::ServiceBuilder<'_>| -> Server { builder.workers(2).spawn().expect(name) };
    let _servers = [
        serve("limited", node.service("limited").serve_on(limited, on(runtime.handle().clone()))),
        serve("timed", node.service("timed").serve_on(timed, on(runtime.handle().clone()))),
        serve("buffered", node.service("buffered").serve(buffered)),
    ];
    parent.say("up");
    parent.hear("release");
    release.notify_one();
    parent.stay();
}

#[test]
fn served_services_may_have_layers() {
    let dir = Dir::new();
    let mut layered = Child::start("layered", &[dir.arg()]);
    layered.expect("up");
    let node = dir.join("caller");

    let limited = open(&node, "limited", DEADLINE);
    let first = limited.request("any").start::<_, String>(&()).unwrap();
    layered.expect("holding");
    let shed = limited.call::<_, String>("any", &()).unwrap_err();
    assert_eq!((shed.code(), shed.message()), (Code::ResourceExhausted, "too many"));
    layered.tell("release");
    assert_eq!(*first.wait().unwrap(), "released");

    let late = open(&node, "timed", DEADLINE).call::<_, ()>("any", &()).unwrap_err();
    assert_eq!((late.code(), late.message()), (Code::DeadlineExceeded, "too slow"));
    layered.expect("dropped");

    let buffered = open(&node, "buffered", DEADLINE);
    assert_eq!(buffered.call("any", &()), Ok(1));
    let refused = buffered.call::<_, i32>("refuse", &()).unwrap_err();
    assert_eq!(refused, Status::aborted("counted"), "found in the layer's error");
    assert_eq!(buffered.call("any", &()), Ok(3), "one service for all calls");
    layered.finish();
}

/// Calls as it is told, and says what comes of it.
fn caller(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("caller").expect("join");
    let client = open(&node, "never", Duration::MAX);
    let timeout: u64 = args[1].parse().expect("milliseconds");
    let request = client.request("any").timeout(Duration::from_millis(timeout));
    let call = request.start::<_, ()>(&()).expect("sent");
    parent.say("called");
    match args[2] {
        "drop" => {
            parent.hear("drop");
            drop(call);
        }
        _ => parent.say(&call.wait().expect_err("never answered").code().to_string()),
    }
    parent.stay();
}

/// A service whose futures never end: tells of each that is begun and that is dropped.
struct Never {
    server: Option<Server>,
    tells: std::sync::mpsc::Receiver<&'static str>,
}

struct Ends(std::sync::mpsc::Sender<&'static str>);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

impl Never {
    fn serve(node: &Node) -> Self {
        let (sender, tells) = std::sync::mpsc::channel();
        let never = service_fn(move |_: Request| {
            let ends = Ends(sender.clone());
            async move {
                ends.0.send("begun").unwrap();
                let () = pending().await;
                Response::new(&())
            }
        });
        Self { server: Some(node.service("never").serve(never).spawn().unwrap()), tells }
    }

    #[track_caller]
    fn expect(&self, what: &str) {
        assert_eq!(self.tells.recv_timeout(DEADLINE), Ok(what));
    }
}

impl Drop for Never {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::mem::forget(self.server.take()); // it would wait for the very future that has not ended
        }
    }
}

#[test]
fn a_served_future_is_dropped_when_its_caller_gives_up_or_dies() {
    let dir = Dir::new();
    let node = dir.join("server");
    let never = Never::serve(&node);
    let forever = u64::from(u32::MAX).to_string();

    let mut caller = Child::start("caller", &[dir.arg(), &forever, "drop"]);
    caller.expect("called");
    never.expect("begun");
    caller.tell("drop");
    never.expect("dropped");
    caller.finish();

    let mut caller = Child::start("caller", &[dir.arg(), &forever, "wait"]);
    caller.expect("called");
    never.expect("begun");
    caller.kill();
    never.expect("dropped");
}

/// A stopped caller tells nothing; its deadline passes all the same.
#[test]
fn a_served_future_is_dropped_at_its_deadline() {
    let dir = Dir::new();
    let node = dir.join("server");
    let never = Never::serve(&node);
    let mut caller = Child::start("caller", &[dir.arg(), "1000", "wait"]);
    caller.expect("called");
    stop(&caller);
    never.expect("begun");
    never.expect("dropped");
    caller.signal(Signal::SIGCONT);
    caller.expect("deadline exceeded");
    caller.finish();
}

#[test]
fn a_client_that_is_served_is_a_proxy() {
    let dir = Dir::new();
    let mut math = start_math(&dir);
    let node = dir.join("gateway");
    let _proxy = node.service("public").serve(open(&node, "math", Duration::MAX)).workers(2).spawn().unwrap();
    let client = open(&node, "public", DEADLINE);

    let request = client.request("add").header("in", "1").correlation("task").timestamp();
    let sum = request.send::<_, i64>(&(2, 3)).unwrap();
    assert_eq!((*sum, sum.source().name()), (5, "gateway"));
    assert_eq!(sum.headers().get("seen"), Some(r#"Some("1") Some("task")"#));
    assert_eq!(*client.request("reverse").send_raw(b"abc").unwrap(), *b"cba");
    let refused = client.call::<_, ()>("refuse", &()).unwrap_err();
    assert_eq!(refused, Status::aborted("no").with_details(&("reason", 7)));
    assert_eq!(client.call::<_, ()>("missing", &()).unwrap_err().code(), Code::Unimplemented);

    // The caller's deadline is the server's: less than the client's own, and of a caller without one, none.
    let left = client.call::<_, Option<Duration>>("left", &()).unwrap();
    assert!(left.is_some_and(|left| left <= DEADLINE), "{left:?}");
    let request = client.request("left").timeout(Duration::MAX);
    assert_eq!(*request.send::<_, Option<Duration>>(&()).unwrap(), None);

    let call = client.request("hold").timeout(Duration::MAX).start::<_, ()>(&()).unwrap();
    math.expect("holding");
    drop(call);
    math.expect("cancelled");
    math.finish();
}

/// Panics where its method says.
#[derive(Debug)]
struct Panics {
    before: bool,
}

impl Clone for Panics {
    fn clone(&self) -> Self {
        Self { before: self.before }
    }
}

impl Service<Request> for Panics {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        assert!(!self.before, "not ready");
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        assert!(request.method() != "call", "in call");
        Box::pin(async move {
            tokio::task::yield_now().await;
            assert!(request.method() != "future", "in the future");
            Ok(Response::raw(*b"fine"))
        })
    }
}

#[test]
fn a_panic_is_an_internal_error_and_the_server_goes_on() {
    let node = Dir::new().join("server");
    let _server = node.service("panics").serve(Panics { before: false }).spawn().unwrap();
    let _early = node.service("early").serve(Panics { before: true }).spawn().unwrap();
    let never_run = |_: ringbus::tower::Serving<'_>| {};
    let _idle = node.service("idle").serve_on(Panics { before: false }, never_run).spawn().unwrap();
    for (service, method, why) in [
        ("panics", "call", "the handler panicked: in call"),
        ("panics", "future", "the handler panicked: in the future"),
        ("early", "any", "the handler panicked: not ready"),
        ("idle", "any", "the call was not run to its end"),
    ] {
        let status = open(&node, service, DEADLINE).request(method).send_raw(b"").unwrap_err();
        assert_eq!(status, Status::internal(why));
    }
    assert_eq!(*open(&node, "panics", DEADLINE).request("any").send_raw(b"").unwrap(), *b"fine");
}

#[test]
fn handlers_come_before_the_service_and_the_service_sees_the_call() {
    let dir = Dir::new();
    let node = dir.join("server");
    let echo = service_fn(|request: Request| {
        let peer = request.peer().map(|peer| peer.name().to_owned());
        let told = request.timeout().is_some_and(|left| left <= DEADLINE);
        ready(match request.decode::<u32>() {
            Ok(n) => Response::new(&(request.method(), n, peer, told)).map(|r| r.with_header("out", "2")),
            Err(status) => Err(status),
        })
    });
    let own = |_: &mut ringbus::Context, n: u32| Ok(n + 1);
    let _server = node.service("echo").method("own", own).serve(echo).spawn().unwrap();
    let client = open(&dir.join("caller"), "echo", DEADLINE);
    assert_eq!(client.call("own", &1), Ok(2));
    let answer = client.request("other").send::<_, (String, u32, Option<String>, bool)>(&7).unwrap();
    assert_eq!(*answer, ("other".to_owned(), 7, Some("caller".to_owned()), true));
    assert_eq!(answer.headers().get("out"), Some("2"));
    let wrong = client.call::<_, ()>("other", "x").unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    assert!(wrong.message().starts_with("arguments of other: "), "{wrong}");
}
