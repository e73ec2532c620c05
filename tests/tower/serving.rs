//! Tower services as servers: layers around them, their ends, and clients that are served.

use std::convert::Infallible;
use std::future::{Future, pending, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use ringbus::tower::{Request, Response};
use ringbus::{Code, Node, Server, Status};
use tokio::sync::Notify;
use tower::load_shed::error::Overloaded;
use tower::timeout::error::Elapsed;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::support::{self, Child, DEADLINE, Dir, Parent};
use crate::{open, runtime, say, start_math, stop};

/// Says when it is dropped.
struct Tells(&'static str);

impl Drop for Tells {
    fn drop(&mut self) {
        say(self.0);
    }
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
pub fn layered(parent: &mut Parent, args: &[&str]) {
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
pub fn caller(parent: &mut Parent, args: &[&str]) {
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
        let told = request.timeout().is_some_and(|left| left <= DEADLINE)
            && request.id().is_some()
            && request.priority() == Some(7)
            && request.timestamp().is_some_and(|time| time <= SystemTime::now());
        ready(match request.decode::<u32>() {
            Ok(n) => Response::new(&(request.method(), n, peer, told)).map(|r| r.with_header("out", "2")),
            Err(status) => Err(status),
        })
    });
    let own = |_: &mut ringbus::Context, n: u32| Ok(n + 1);
    let _server = node.service("echo").timestamps().method("own", own).serve(echo).spawn().unwrap();
    let caller = dir.join("caller");
    let client = caller.client_builder("echo").priority(7).timeout(DEADLINE).open().unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    assert_eq!(client.call("own", &1), Ok(2));
    let answer =
        client.request("other").timestamp().send::<_, (String, u32, Option<String>, bool)>(&7).unwrap();
    assert!(answer.timestamp().is_some());
    assert_eq!(*answer, ("other".to_owned(), 7, Some("caller".to_owned()), true));
    assert_eq!(answer.headers().get("out"), Some("2"));
    let request = || Request::new("other", &7).unwrap();
    let answer = runtime().block_on(client.clone().oneshot(request().with_timestamp())).unwrap();
    assert!(
        answer.decode::<(String, u32, Option<String>, bool)>().unwrap().3 && answer.timestamp().is_some()
    );
    let answer = runtime().block_on(client.clone().oneshot(request())).unwrap();
    assert!(!answer.decode::<(String, u32, Option<String>, bool)>().unwrap().3, "no time");
    let wrong = client.call::<_, ()>("other", "x").unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    assert!(wrong.message().starts_with("arguments of other: "), "{wrong}");
}
