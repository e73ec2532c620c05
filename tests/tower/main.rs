//! Clients as tower services, tower services as servers, and both at once, across processes.

use std::time::Duration;

use nix::sys::signal::Signal;
use ringbus::{Client, Node, Status};
use support::{Child, DEADLINE, Dir, Parent};
use tokio::runtime::{Builder, Runtime};

mod calling;
mod serving;
#[path = "../support/mod.rs"]
mod support;

#[test]
fn child() {
    support::play(&[
        ("math", math),
        ("layered", serving::layered),
        ("caller", serving::caller),
        ("sink", calling::sink),
    ]);
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
