//! A forked child has none of its parent's clients, calls and servers, and does them no harm.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ringbus::{Code, OpenError, Pending, RawResponse, Response, WaitError};

use crate::servant::{self, SERVICE, works};
use crate::support::{self, Child, DEADLINE, Dir, Forked, Parent};

#[test]
fn a_forked_child_cannot_use_its_parents_client() {
    let dir = Dir::new();
    let server = servant::start(&dir, "server", &[]);
    let mut child = Child::start("forks a client", &[dir.arg()]);
    child.expect("passed");
    child.finish();
    server.finish();
}

pub fn forks_a_client(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("parent").unwrap();
    let client = node.client(SERVICE).unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    works(&client);
    let mut pending: Option<Pending<Response<u64>>> =
        Some(client.request("sleep").timeout(DEADLINE).start(&100).unwrap());
    let mut polled: Option<Pending<Response<u64>>> =
        Some(client.request("sleep").timeout(DEADLINE).start(&1).unwrap());
    let waker = Waker::noop();
    let first = Pin::new(polled.as_mut().unwrap()).poll(&mut Context::from_waker(waker));
    assert!(first.is_pending());
    let held: RawResponse = client.request("mirror").timeout(DEADLINE).send_raw(&[7; 100]).unwrap();
    let mut loan = Some(client.request("mirror").timeout(DEADLINE).loan(100).unwrap());
    loan.as_mut().unwrap().fill(3);
    let mut inherited = Some((client.clone(), node.clone()));
    for round in 0..3 {
        Forked::run(|| {
            let status = client.call::<_, i64>("double", &1).unwrap_err();
            assert_eq!(status.code(), Code::FailedPrecondition);
            assert!(status.message().contains("fork"), "{status}");
            assert!(client.request("double").start::<_, i64>(&1).is_err());
            assert!(client.request("mirror").send_raw(b"").is_err());
            assert!(client.request("mirror").loan(1).is_err());
            assert!(matches!(client.wait_for_server(DEADLINE), Err(WaitError::Forked)));
            assert!(client.servers().is_empty() && client.stats().messages == 0);
            assert!(matches!(node.client("x"), Err(OpenError::Forked)));
            assert!(matches!(node.service("x").spawn(), Err(OpenError::Forked)));
            assert!(held.is_empty());
            let call = Pin::new(polled.as_mut().unwrap()).poll(&mut Context::from_waker(waker));
            assert!(matches!(call, Poll::Ready(Err(status)) if status.code() == Code::FailedPrecondition));
            if round > 0 {
                let status = pending.take().unwrap().wait().map(|ms| *ms).unwrap_err();
                assert_eq!(status.code(), Code::FailedPrecondition);
                let loan = loan.take().unwrap();
                assert!(loan.is_empty());
                assert_eq!(loan.send().unwrap_err().code(), Code::FailedPrecondition);
            }
            if round > 1 {
                drop((inherited.take(), polled.take()));
                // It can join by itself.
                let node = support::bus(args[0]).join("forked").unwrap();
                let own = node.client(SERVICE).unwrap();
                own.wait_for_server(DEADLINE).unwrap();
                works(&own);
            }
        })
        .passes();
        assert_eq!(*held, [7; 100]);
    }
    assert_eq!(*loan.take().unwrap().send().unwrap(), [3; 100]);
    assert_eq!(*pending.take().unwrap().wait().unwrap(), 100);
    assert_eq!(*polled.take().unwrap().wait().unwrap(), 1);
    works(&client);
    parent.say("passed");
}

#[test]
fn a_forked_child_that_drops_its_parents_server_does_not_stop_it() {
    let dir = Dir::new();
    let mut child = Child::start("forks a server", &[dir.arg()]);
    child.expect("passed");
    child.finish();
}

pub fn forks_a_server(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("parent").unwrap();
    let (server, said) = servant::spawn(&node, |builder| builder.workers(2));
    let client = node.client(SERVICE).unwrap();
    works(&client);
    let mut server = Some(server);
    for _ in 0..3 {
        let runs: Pending<Response<u64>> = client.request("sleep").timeout(DEADLINE).start(&20).unwrap();
        said.expect("sleeps 20");
        Forked::run(|| drop(server.take())).passes();
        assert_eq!(*runs.wait().unwrap(), 20);
        works(&client);
    }
    drop(server);
    parent.say("passed");
}
