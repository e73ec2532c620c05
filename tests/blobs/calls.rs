//! Large requests and answers.

use crate::support::{Child, DEADLINE, Dir, Parent};
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
        assert_eq!(status.code(), ringbus::Code::ResourceExhausted);
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
