//! Large requests and answers.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Barrier, Mutex};

use ringbus::{Client, Code, Context, Node, Pending, RawResponse, Server};

use crate::support::{Child, DEADLINE, Dir, Parent, eventually};
use crate::{Cloud, MIB, cloud, content};

/// Echoes large requests.
pub fn echo(parent: &mut Parent, args: &[&str]) {
    let node = crate::support::bus(args[0]).join("echo").unwrap();
    let server = node
        .service("echo")
        .method("cloud", |_ctx, cloud: Cloud| Ok(cloud))
        .raw_method("bytes", |_ctx, bytes| Ok(bytes.to_vec()))
        .raw_method("loan", |ctx, bytes| {
            // What is small is copied if it has to wait for the worker.
            assert!(bytes.as_ptr().addr().is_multiple_of(64) || bytes.len() < 16 << 10);
            let mut loan = ctx.loan(bytes.len())?;
            loan.copy_from_slice(bytes);
            Ok(loan)
        })
        .spawn()
        .unwrap();
    parent.say("serves");
    parent.stay();
    drop(server);
}

#[test]
fn requests_and_answers_may_be_large() {
    let dir = Dir::new();
    let mut child = Child::start("echo", &[dir.arg()]);
    child.expect("serves");
    let client = dir.join("client").client("echo").unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    let timeout = DEADLINE;
    for (frame, points) in (0..).zip([1, 2_000, 50_000, 400_000]) {
        let cloud = cloud(frame, points);
        let answer = client.request("cloud").timeout(timeout).send::<_, Cloud>(&cloud).unwrap();
        assert!(*answer == cloud, "{points}");
    }
    for (seed, size) in (0..).zip([1, 20_000, 65_536, MIB, 3 * MIB, 64 * MIB, 100]) {
        let bytes = content(seed, size);
        let answer = client.request("bytes").timeout(timeout).send_raw(&bytes).unwrap();
        assert!(*answer == bytes, "{size}");
        let mut loan = client.request("loan").timeout(timeout).loan(size).unwrap();
        loan.copy_from_slice(&bytes);
        let answer = loan.send().unwrap();
        assert!(*answer == bytes && answer.as_ptr().addr() % 64 == 0, "{size}");
    }
    let started: Vec<_> = (0..8)
        .map(|seed| {
            let mut loan = client.request("loan").timeout(timeout).loan(MIB).unwrap();
            loan.copy_from_slice(&content(seed, MIB));
            loan.start().unwrap()
        })
        .collect();
    for (seed, call) in (0..).zip(started) {
        assert!(*call.wait().unwrap() == content(seed, MIB), "{seed}");
    }
    child.finish();
}

#[test]
fn what_is_kept_for_long_leaves_the_other_blobs_to_the_rest() {
    let dir = Dir::new();
    let mut child = Child::start("echo", &[dir.arg()]);
    child.expect("serves");
    let node = dir.join("client");
    let client = node.client_builder("echo").blob_memory(2 * MIB as u64).timeout(DEADLINE).open().unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    // More than the table of what is kept holds: those after are copied.
    let ask = |seed| client.request("bytes").send_raw(&content(seed, MIB)).unwrap();
    let mut kept: Vec<_> = (0..20).map(|seed| (seed, ask(seed))).collect();
    for seed in 100..200 {
        assert!(*ask(seed) == content(seed, MIB));
    }
    kept.remove(3);
    assert!(kept.iter().all(|(seed, answer)| **answer == content(*seed, MIB)));
    drop(kept);
    assert!(*ask(1) == content(1, MIB));
    child.finish();
}

#[test]
fn calls_that_are_too_large_either_way_are_refused() {
    let dir = Dir::new();
    let (node, other) = (dir.join("server"), dir.join("client"));
    let service = node.service("s").max_message(MIB as u64).raw_method("fill", |ctx, bytes| {
        let len = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        ctx.loan(len as usize)
    });
    let service = service.method("long", |_, len: usize| Ok("x".repeat(len)));
    let _server = service.spawn().unwrap();
    let client = other.client_builder("s").max_message(MIB as u64).open().unwrap();
    let generous = other.client("s").unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    let fill = |client: &ringbus::Client, sent: usize, wanted: usize| {
        let mut bytes = vec![0; sent];
        bytes[..8].copy_from_slice(&(wanted as u64).to_le_bytes());
        client.request("fill").send_raw(&bytes).map(|answer| answer.len())
    };
    assert_eq!(fill(&client, MIB, MIB), Ok(MIB));
    for (client, sent, wanted, said) in [
        (&client, MIB + 1, 1, "the request of 1048577 bytes is too large, 1048576 can be sent"),
        (&generous, MIB + 1, 1, "a request of 1048577 bytes, but the server takes 1048576"),
        (&generous, 8, MIB + 1, "the answer of 1048577 bytes is too large, 1048576 can be sent"),
    ] {
        let status = fill(client, sent, wanted).unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().contains(said), "{status}");
        assert_eq!(fill(client, 100, 100), Ok(100));
    }
    let modest = other.client_builder("s").max_message(100_000).open().unwrap();
    let status = fill(&modest, 8, MIB).unwrap_err();
    assert!(status.message().contains("an answer of 1048576 bytes, but the client takes 100000"), "{status}");
    assert_eq!(fill(&modest, 100, 100_000), Ok(100_000));
    let status = modest.call::<_, String>("long", &200_000).unwrap_err();
    assert!(status.message().contains("bytes, but the client takes 100000"), "{status}");
    assert_eq!(modest.call::<_, String>("long", &90_000).unwrap().len(), 90_000);
}

#[test]
fn answers_that_wait_for_room_may_be_large() {
    let dir = Dir::new();
    let (node, other) = (dir.join("server"), dir.join("client"));
    let service = node.service("s").capacity(4096).blob_memory(MIB as u64);
    let service = service.raw_method("echo", |_ctx, bytes| Ok(bytes.to_vec())).workers(2);
    let _server = service.spawn().unwrap();
    let client = other.client_builder("s").timeout(DEADLINE).open().unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    let size = |seed: u64| [100, 900_000, 3000, 70_000][seed as usize % 4];
    let calls: Vec<_> =
        (0..24).map(|seed| client.request("echo").start_raw(&content(seed, size(seed))).unwrap()).collect();
    for (seed, call) in (0..).zip(calls) {
        assert!(*call.wait().unwrap() == content(seed, size(seed)), "{seed}");
    }
}

/// A server of so many workers, whose method "keep" keeps a loan until it is told to go, and whose "large" answers once
/// as many run as there are workers left.
struct Keeper {
    server: Server,
    client: Client,
    go: Sender<()>,
    /// The call of "keep".
    kept: Pending<RawResponse>,
    /// Those of "large".
    calls: Vec<Pending<RawResponse>>,
    _nodes: [Node; 2],
}

const LARGE: usize = 8 * MIB;

impl Keeper {
    fn start(dir: &Dir, workers: usize) -> Self {
        let nodes = ["server", "client"].map(|name| dir.join(name));
        let ((keeps, kept), (go, goes)) = (channel(), channel());
        let (goes, all) = (Mutex::new(goes), Barrier::new(workers - 1));
        let keep = move |ctx: &mut Context, _: &[u8]| {
            let mut loan = ctx.loan(LARGE)?;
            keeps.send(()).unwrap();
            goes.lock().unwrap().recv_timeout(DEADLINE).unwrap();
            loan.fill(1);
            Ok(loan)
        };
        let large = move |_: &mut Context, bytes: &[u8]| {
            all.wait();
            Ok(vec![bytes[0]; LARGE])
        };
        let service = nodes[0].service("s").workers(workers);
        let server = service.raw_method("keep", keep).raw_method("large", large).spawn().unwrap();
        let client = nodes[1].client_builder("s").timeout(DEADLINE).open().unwrap();
        client.wait_for_server(DEADLINE).unwrap();
        let keep = client.request("keep").start_raw(&[]).unwrap();
        kept.recv_timeout(DEADLINE).unwrap();
        let calls =
            (1..workers).map(|index| client.request("large").start_raw(&[index as u8]).unwrap()).collect();
        Self { server, client, go, kept: keep, calls, _nodes: nodes }
    }

    /// Has the loan sent; how many of the others were answered, and why the rest were not.
    fn finish(self) -> (usize, Vec<String>) {
        self.go.send(()).unwrap();
        assert!(self.kept.wait().unwrap().iter().all(|byte| *byte == 1));
        let (mut answered, mut refused) = (0, Vec::new());
        for (index, call) in (1..).zip(self.calls) {
            match call.wait() {
                Ok(answer) => {
                    assert!(answer.len() == LARGE && answer.iter().all(|byte| *byte == index));
                    answered += 1;
                }
                Err(status) => {
                    assert_eq!(status.code(), Code::ResourceExhausted);
                    refused.push(status.message().to_owned());
                }
            }
        }
        assert_eq!(self.server.unsent(), refused.len() as u64);
        drop(self.client);
        (answered, refused)
    }
}

#[test]
fn large_answers_of_several_workers_arrive_beside_a_loan() {
    let dir = Dir::new();
    assert_eq!(Keeper::start(&dir, 6).finish(), (5, Vec::new()));
}

#[test]
fn a_loan_that_is_kept_for_long_costs_the_answers_that_have_no_room_meanwhile() {
    let dir = Dir::new();
    let keeper = Keeper::start(&dir, 3);
    eventually("the second is refused", || keeper.server.unsent() == 1);
    let (answered, refused) = keeper.finish();
    assert_eq!((answered, refused.len()), (1, 1));
    assert!(refused[0].contains("another handler keeps the log for long"), "{}", refused[0]);
}
