//! Two containers that share a bus's directory, and nothing else: mount, pid and IPC namespaces of their own, no
//! `/dev/shm`, and the directory at another path.

use std::fs;

use nix::unistd::geteuid;
use ringbus::{Code, Departure, PeerChange, Pending, Response, Status};

mod support;
use support::{Child, DEADLINE, Dir, Parent, eventually};

/// Where a container finds the directory.
const HERE: &str = "/mnt";
const LARGE: usize = 1 << 20;

#[test]
fn child() {
    support::play(&[("serves", serves), ("calls", calls)]);
}

/// A process in namespaces of its own, in which `dir` is at [`HERE`] alone.
fn container(dir: &Dir, role: &str) -> Child {
    let script = format!(
        "mount --bind {dir} {HERE} && mount -t tmpfs none {dir} && mount -t tmpfs -o ro none /dev/shm && exec \"$@\"",
        dir = dir.arg()
    );
    let mut through = vec!["unshare", "--mount", "--pid", "--ipc", "--mount-proc", "--fork", "--kill-child"];
    if !geteuid().is_root() {
        through.extend(["--user", "--map-root-user"]);
    }
    through.extend(["sh", "-c", &script, "sh"]);
    Child::start_through(&through, role, &[HERE])
}

fn namespaces() -> String {
    ["mnt", "pid", "ipc"]
        .map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().to_str().unwrap().to_owned())
        .join(" ")
}

#[test]
fn containers_that_share_the_directory_alone_do_all_that_others_do() {
    let dir = Dir::new();
    let mut server = container(&dir, "serves");
    let mut client = container(&dir, "calls");
    let ours = namespaces();
    let theirs = [server.line(), client.line()];
    for (at, one) in ours.split(' ').enumerate() {
        let both = theirs.each_ref().map(|theirs| theirs.split(' ').nth(at).unwrap());
        assert!(one != both[0] && one != both[1] && both[0] != both[1], "{ours}; {theirs:?}");
    }
    server.expect("serves");
    client.tell("go");
    client.expect("all works");
    server.expect("holds");
    server.kill();
    client.expect("told of the death");

    // One that is outside is a peer like others.
    let node = dir.join("outside");
    eventually("the container is there", || node.peers().iter().any(|peer| peer.name() == "client"));
    client.finish();
    eventually("nobody is left", || node.peers().is_empty());
}

fn serves(parent: &mut Parent, args: &[&str]) {
    parent.say(&namespaces());
    assert!(fs::write("/dev/shm/x", "x").is_err(), "no shared memory but the bus's");
    let node = support::bus(args[0]).join("server").unwrap();
    let mut events = node.raw_subscriber("there").unwrap();
    let mut back = node.raw_publisher("back").unwrap();
    let mut inbox = node.inbox::<u64>().unwrap();
    let mut all = node.broadcasts::<u64>().unwrap();
    let service = node.service("s").method("double", |_, n: u64| Ok(n * 2));
    let _server = service
        .method("hold", |_, ()| -> Result<(), Status> {
            Parent::new().say("holds");
            loop {
                std::thread::park();
            }
        })
        .spawn()
        .unwrap();
    parent.say("serves");
    std::thread::scope(|scope| {
        scope.spawn(|| while events.recv().is_ok_and(|sample| back.publish(&sample).is_ok()) {});
        scope.spawn(|| {
            while let Ok(message) = inbox.recv() {
                node.send("client", &(*message + 1)).unwrap();
            }
        });
        scope.spawn(|| {
            while let Ok(message) = all.recv() {
                node.send("client", &(*message + 2)).unwrap();
            }
        });
    });
}

fn calls(parent: &mut Parent, args: &[&str]) {
    parent.say(&namespaces());
    let node = support::bus(args[0]).join("client").unwrap();
    parent.hear("go");
    let mut presence = node.presence().unwrap();
    let joined = presence.recv_timeout(DEADLINE).unwrap().expect("the server");
    assert!(matches!(&joined, PeerChange::Joined(peer) if peer.name() == "server"), "{joined}");
    let mut back = node.raw_subscriber("back").unwrap();
    let mut there = node.raw_publisher("there").unwrap();
    let mut inbox = node.inbox::<u64>().unwrap();
    there.wait_for_subscribers(1, DEADLINE).unwrap();
    for round in 0..1000_usize {
        // Large ones are in memory of their own.
        let bytes = vec![round as u8; if round % 100 == 0 { LARGE } else { round }];
        there.publish(&bytes).unwrap();
        let sample = back.recv_timeout(DEADLINE).unwrap().expect("the echo");
        assert!(*sample == *bytes, "{round}");
    }
    for round in 0..100_u64 {
        node.send("server", &round).unwrap();
        assert_eq!(*inbox.recv_timeout(DEADLINE).unwrap().expect("an answer"), round + 1);
        node.broadcast(&round).unwrap();
        assert_eq!(*inbox.recv_timeout(DEADLINE).unwrap().expect("an answer"), round + 2);
    }
    let client = node.client("s").unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    for round in 0..100_u64 {
        let answer: u64 = client.call("double", &round).unwrap();
        assert_eq!(answer, round * 2);
    }
    let pending: Pending<Response<()>> = client.request("hold").timeout(DEADLINE).start(&()).unwrap();
    parent.say("all works");
    let status = pending.wait().map(|answer| *answer).unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let left = presence.recv_timeout(DEADLINE).unwrap().expect("the death");
    assert!(matches!(&left, PeerChange::Left(_, Departure::Died)), "{left}");
    parent.say("told of the death");
    parent.stay();
}
