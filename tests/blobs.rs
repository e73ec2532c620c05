//! Messages larger than a quarter of their log: they travel in blobs, and everything else is as for small ones.

use std::time::{Duration, Instant};

use ringbus::{Bus, Node, Overflow, PublishError, RawPublisher, RawSubscriber, RecvError, Trust, Wait};
use serde::{Deserialize, Serialize};

mod support;
use support::{Child, DEADLINE, Dir, Parent, eventually};

const MIB: usize = 1 << 20;

#[test]
fn child() {
    support::play(&[
        ("reader", reader),
        ("echo", echo),
        ("holder", holder),
        ("victim", victim),
        ("large writer", large_writer),
    ]);
}

/// Bytes that differ from message to message and from place to place.
fn content(seed: u64, len: usize) -> Vec<u8> {
    const BLOCK: usize = 4096;
    let base: Vec<u8> = (0..2 * BLOCK as u64).map(|at| ((at * at) >> 3) as u8).collect();
    let mut bytes = Vec::with_capacity(len + BLOCK);
    while bytes.len() < len {
        let from = (seed as usize * 31 + bytes.len() / BLOCK * 7) % BLOCK;
        bytes.extend_from_slice(&base[from..from + BLOCK]);
    }
    bytes.truncate(len);
    bytes
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Cloud {
    frame: u64,
    points: Vec<(f32, f32)>,
    label: String,
}

fn cloud(frame: u64, points: usize) -> Cloud {
    let points = (0..points).map(|at| (at as f32, frame as f32)).collect();
    Cloud { frame, points, label: format!("cloud {frame}") }
}

/// Says what it gets: the length, the alignment, and whether the bytes are those of the sequence number.
fn reader(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("reader").unwrap();
    let mut subscriber = node.raw_subscriber(args[1]).unwrap();
    parent.say("open");
    loop {
        let sample = match subscriber.recv_timeout(DEADLINE) {
            Ok(Some(sample)) => sample,
            Ok(None) => panic!("nothing came"),
            Err(error) => {
                parent.say(&format!("{error:?}"));
                continue;
            }
        };
        if sample.is_empty() {
            return;
        }
        assert!(
            sample.to_owned() == content(sample.sequence(), sample.len()),
            "message {}",
            sample.sequence()
        );
        parent.say(&format!("{} {} {}", sample.sequence(), sample.len(), sample.as_ptr().addr() % 64));
    }
}

#[test]
fn raw_messages_of_any_size_arrive_in_place_and_aligned() {
    let dir = Dir::new();
    let mut child = Child::start("reader", &[dir.arg(), "frames/*"]);
    child.expect("open");
    let node = dir.join("writer");
    let mut frames = node.raw_publisher("frames/front").unwrap();
    let sizes = [1, 65_000, 65_536, MIB, 100_000, MIB + 1, 3 * MIB, 64 * MIB, 17, 2 * MIB];
    for (sequence, size) in (0..).zip(sizes) {
        if sequence % 2 == 0 {
            frames.publish(&content(sequence, size)).unwrap();
            assert!(child.line().starts_with(&format!("{sequence} {size} ")));
        } else {
            let mut loan = frames.loan(size).unwrap();
            assert_eq!((loan.len(), loan.as_ptr().addr() % 64), (size, 0));
            loan.copy_from_slice(&content(sequence, size));
            loan.send().unwrap();
            child.expect(&format!("{sequence} {size} 0"));
        }
    }
    frames.publish(&[]).unwrap();
    child.finish();
    assert_eq!(frames.stats().messages, sizes.len() as u64 + 1);
}

#[test]
fn values_of_any_size_arrive() {
    let dir = Dir::new();
    let (writer, reader) = (dir.join("writer"), dir.join("reader"));
    let mut clouds = reader.subscriber::<Cloud>("cloud").unwrap();
    let mut publisher = writer.publisher::<Cloud>("cloud").unwrap();
    for (frame, points) in (0..).zip([0, 5_000, 10_000, 100_000, 3, 400_000]) {
        let cloud = cloud(frame, points);
        publisher.publish(&cloud).unwrap();
        let received = clouds.recv_timeout(DEADLINE).unwrap().expect("the cloud");
        assert!(*received == cloud && received.sequence() == 3 * frame, "{points}");
        let value = "v".repeat(4000);
        let message = publisher.message(&cloud).header("k", &value);
        message.timestamp().correlation("c").send().unwrap();
        let received = clouds.recv_timeout(DEADLINE).unwrap().expect("the cloud");
        assert!(*received == cloud && received.correlation() == Some("c"), "{points}");
        assert!(received.headers().get("k").is_some_and(|value| value.len() == 4000));
        // The sequence goes on for both.
        publisher.publish(&self::cloud(frame, 1)).unwrap();
        clouds.recv_timeout(DEADLINE).unwrap().expect("a small one");
    }
}

#[test]
fn a_publisher_over_a_pattern_sends_large_ones_to_whoever_wants_the_topic() {
    let dir = Dir::new();
    let (writer, one, all) = (dir.join("writer"), dir.join("one"), dir.join("all"));
    let mut one = one.raw_subscriber("camera/1").unwrap();
    let mut all = all.raw_subscriber("camera/**").unwrap();
    let mut cameras = writer.raw_publisher("camera/*").unwrap();
    for round in 0..10 {
        for camera in ["camera/1", "camera/2"] {
            let mut loan = cameras.loan_to(camera, MIB).unwrap();
            loan.fill(round);
            loan.send().unwrap();
        }
        let sample = one.recv_timeout(DEADLINE).unwrap().expect("the frame");
        assert_eq!((sample.topic(), sample.len(), sample[MIB - 1]), ("camera/1", MIB, round));
        for camera in ["camera/1", "camera/2"] {
            let sample = all.recv_timeout(DEADLINE).unwrap().expect("the frame");
            assert_eq!((sample.topic(), sample.len(), sample[0]), (camera, MIB, round));
        }
    }
}

#[test]
fn direct_messages_and_broadcasts_may_be_large() {
    let dir = Dir::new();
    let (writer, critic) = (dir.join("writer"), dir.join("critic"));
    let mut inbox = critic.raw_inbox().unwrap();
    let mut all = critic.raw_broadcasts().unwrap();
    for seed in 0..5 {
        let bytes = content(seed, MIB + seed as usize * 1000);
        writer.raw_message_to("critic", &bytes).send().unwrap();
        writer.raw_message_to_all(&bytes).send().unwrap();
        assert!(*inbox.recv_timeout(DEADLINE).unwrap().expect("the letter") == bytes);
        assert!(*all.recv_timeout(DEADLINE).unwrap().expect("the broadcast") == bytes);
    }
}

#[test]
fn what_is_not_trusted_is_copied() {
    let dir = Dir::new();
    let bus = Bus::builder("bus").dir(dir.path()).trust(Trust::Copy).open().unwrap();
    let (writer, reader) = (dir.join("writer"), bus.join("reader").unwrap());
    let mut subscriber = reader.raw_subscriber("t").unwrap();
    let mut publisher = writer.publisher_builder("t").blob_memory(4 * MIB as u64).open_raw().unwrap();
    for seed in 0..20 {
        publisher.publish(&content(seed, 3 * MIB)).unwrap();
        assert!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("the bytes") == content(seed, 3 * MIB));
    }
}

/// A subscriber of another node, whose log and cursor are known at both ends.
fn attached(publisher: &RawPublisher, from: &Node, node: &Node) -> RawSubscriber {
    let mut subscriber = node.raw_subscriber("t").unwrap();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    eventually("the log is attached", || {
        assert!(subscriber.try_recv().unwrap().is_none());
        subscriber.stats().peers == 1
    });
    // Each of them handles what has arrived before it answers: first the one sends, then the other receives.
    assert_eq!((node.peers().len(), from.peers().len()), (1, 1));
    subscriber
}

#[test]
fn too_large_is_said_with_the_limit() {
    let node = Bus::private().unwrap().join("n").unwrap();
    let limit = |publisher: &mut RawPublisher, size: usize| match publisher.publish(&vec![0; size]) {
        Err(error @ PublishError::TooLarge { size: told, limit }) => {
            assert!(told == size && error.to_string().contains("`max_message`"), "{error}");
            limit
        }
        other => panic!("{other:?}"),
    };
    let builder = || node.publisher_builder("t");
    assert_eq!(limit(&mut builder().open_raw().unwrap(), 64 * MIB + 1), 64 * MIB);
    let mut small = builder().max_message(300_000).open_raw().unwrap();
    assert_eq!(limit(&mut small, 300_001), 300_000);
    small.publish(&vec![0; 300_000]).unwrap();
    let mut tight = builder().blob_memory(3 * MIB as u64).open_raw().unwrap();
    assert_eq!(limit(&mut tight, 2 * MIB + 1), 2 * MIB);
    tight.publish(&vec![0; 2 * MIB]).unwrap();
    let mut none = builder().capacity(4096).blob_memory(1000).open_raw().unwrap();
    assert!((900..1024).contains(&limit(&mut none, 1024)));
    assert!(matches!(none.loan(1000), Err(PublishError::TooLarge { .. })));
}

#[test]
fn a_stalled_reader_is_waited_for_or_not_as_the_policy_says() {
    let dir = Dir::new();
    let (writer, slow) = (dir.join("writer"), dir.join("slow"));
    let timeout = Duration::from_millis(200);
    for overflow in [Overflow::Fail, Overflow::Block { timeout }, Overflow::DropNewest] {
        let builder = writer.publisher_builder("t").blob_memory(8 * MIB as u64).overflow(overflow);
        let mut publisher = builder.open_raw().unwrap();
        let mut subscriber = attached(&publisher, &writer, &slow);
        for seed in 0..8 {
            publisher.publish(&content(seed, MIB)).unwrap();
        }
        let start = Instant::now();
        match (overflow, publisher.publish(&content(8, MIB))) {
            (Overflow::DropNewest, Ok(())) => assert_eq!(publisher.stats().dropped, 1),
            (Overflow::DropNewest, other) => panic!("{other:?}"),
            (_, Err(error @ PublishError::Full { .. })) => {
                let PublishError::Full { reader, lag, waited } = &error else { unreachable!() };
                assert!(reader.starts_with("slow (pid ") && *lag > 8 * MIB as u64, "{error}");
                assert!(error.to_string().contains("`blob_memory`"), "{error}");
                let least = if overflow == Overflow::Fail { Duration::ZERO } else { timeout };
                assert!(*waited >= least && start.elapsed() < least + Duration::from_secs(1), "{waited:?}");
            }
            (_, other) => panic!("{other:?}"),
        }
        // Small ones go on.
        publisher.publish(b"small").unwrap();
        for seed in 0..8 {
            let sample = subscriber.recv_timeout(DEADLINE).unwrap().expect("what was published");
            assert!(*sample == content(seed, MIB), "{seed}");
        }
        if overflow == Overflow::DropNewest {
            assert!(matches!(subscriber.recv_timeout(DEADLINE), Err(RecvError::Lagged { missed: 1, .. })));
        }
        assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("the small one"), *b"small");
        publisher.publish(&content(9, MIB)).unwrap();
        assert!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("the next") == content(9, MIB));
    }
}

#[test]
fn a_writer_that_waits_goes_on_as_soon_as_a_blob_is_back() {
    let dir = Dir::new();
    let (writer, reader) = (dir.join("writer"), dir.join("reader"));
    for wait in [Wait::Spin, Wait::Adaptive, Wait::Park] {
        let builder = writer.publisher_builder("t").blob_memory(2 * MIB as u64).wait(wait);
        let mut subscriber = reader.subscriber_builder("t").wait(wait).open_raw().unwrap();
        let mut publisher = builder.overflow(Overflow::Block { timeout: DEADLINE }).open_raw().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for seed in 0..100u64 {
                    let mut loan = publisher.loan(MIB).unwrap();
                    loan[..8].copy_from_slice(&seed.to_le_bytes());
                    loan.send().unwrap();
                }
            });
            for seed in 0..100u64 {
                let sample = subscriber.recv_timeout(DEADLINE).unwrap().expect("the next");
                assert_eq!((sample.sequence(), &sample[..8]), (seed, &seed.to_le_bytes()[..]));
            }
        });
        assert!(publisher.stats().blocked < DEADLINE);
    }
}

#[test]
fn sizes_that_take_turns_share_the_memory() {
    let dir = Dir::new();
    let (writer, reader) = (dir.join("writer"), dir.join("reader"));
    let mut subscriber = reader.raw_subscriber("t").unwrap();
    let mut publisher = writer.publisher_builder("t").blob_memory(4 * MIB as u64).open_raw().unwrap();
    for (seed, size) in (0..60).zip([4 * MIB, 100_000, MIB, 65_537, 2 * MIB].into_iter().cycle()) {
        publisher.publish(&content(seed, size)).unwrap();
        assert!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("the next") == content(seed, size));
    }
}

#[test]
fn a_loan_that_is_not_sent_leaves_no_trace() {
    let node = Bus::private().unwrap().join("n").unwrap();
    let mut subscriber = node.raw_subscriber("t").unwrap();
    let mut publisher = node.publisher_builder("t").blob_memory(MIB as u64).open_raw().unwrap();
    for round in 0..10 {
        publisher.loan(MIB).unwrap().fill(0xee);
        publisher.loan(100).unwrap().fill(0xdd);
        publisher.publish(&content(2 * round, MIB)).unwrap();
        assert!(*subscriber.recv().unwrap() == content(2 * round, MIB));
        drop(publisher.loan(MIB).unwrap());
        publisher.publish(b"small").unwrap();
        let sample = subscriber.recv().unwrap();
        assert_eq!((&*sample, sample.sequence()), (&b"small"[..], 2 * round + 1));
    }
}

#[test]
fn readers_that_come_and_go_miss_nothing_from_their_beginning_on() {
    let dir = Dir::new();
    let writer = dir.join("writer");
    let mut publisher = writer.raw_publisher("t").unwrap();
    let mut steady = dir.join("steady").raw_subscriber("t").unwrap();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    std::thread::scope(|scope| {
        let late = scope.spawn(|| {
            for _ in 0..20 {
                let mut late = dir.join("late").raw_subscriber("t").unwrap();
                let mut due = None;
                for _ in 0..5 {
                    let sample = late.recv_timeout(DEADLINE).unwrap().expect("the next");
                    assert_eq!(sample.sequence(), due.unwrap_or(sample.sequence()));
                    assert!(*sample == content(sample.sequence(), sample.len()));
                    due = Some(sample.sequence() + 1);
                }
            }
        });
        let mut seed = 0;
        while !late.is_finished() {
            publisher.publish(&content(seed, 70_000 + seed as usize % 5 * 60_000)).unwrap();
            let sample = steady.recv_timeout(DEADLINE).unwrap().expect("the next");
            assert_eq!(sample.sequence(), seed);
            seed += 1;
        }
    });
}

/// Publishes, and is killed right after.
fn victim(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("victim").unwrap();
    let mut publisher = node.raw_publisher("t").unwrap();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    for seed in 0..args[1].parse().unwrap() {
        publisher.publish(&content(seed, MIB / 2 + seed as usize)).unwrap();
    }
    parent.say("published");
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
}

#[test]
fn what_was_published_arrives_though_the_writer_is_killed() {
    let dir = Dir::new();
    let reader = dir.join("reader");
    for count in [1, 2, 20] {
        let mut subscriber = reader.raw_subscriber("t").unwrap();
        let mut child = Child::start("victim", &[dir.arg(), &count.to_string()]);
        child.expect("published");
        child.ends_by_kill();
        for seed in 0..count {
            let sample = subscriber.recv_timeout(DEADLINE).unwrap().expect("what was published");
            assert!(sample.sequence() == seed && *sample == content(seed, MIB / 2 + seed as usize));
        }
        eventually("the log is over", || {
            assert!(subscriber.try_recv().unwrap().is_none());
            subscriber.stats().peers == 0
        });
    }
}

/// Takes a message, and keeps it.
fn holder(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("holder").unwrap();
    let mut subscriber = node.raw_subscriber("t").unwrap();
    parent.say("open");
    let sample = subscriber.recv_timeout(DEADLINE).unwrap().expect("a message");
    parent.say(&format!("holds {}", sample.len()));
    parent.stay();
}

#[test]
fn blobs_come_back_from_a_reader_that_is_killed() {
    let dir = Dir::new();
    let writer = dir.join("writer");
    let builder = writer.publisher_builder("t").blob_memory(4 * MIB as u64);
    let mut publisher = builder.overflow(Overflow::Block { timeout: DEADLINE }).open_raw().unwrap();
    for _ in 0..3 {
        let mut child = Child::start("holder", &[dir.arg()]);
        child.expect("open");
        publisher.wait_for_subscribers(1, DEADLINE).unwrap();
        for seed in 0..4 {
            publisher.publish(&content(seed, MIB)).unwrap();
        }
        child.expect(&format!("holds {MIB}"));
        child.kill();
        for seed in 0..10 {
            publisher.publish(&content(seed, MIB)).unwrap(); // waits until the reader is known to be dead
        }
        eventually("it has gone", || writer.peers().is_empty());
    }
}

/// Echoes large requests.
fn echo(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("echo").unwrap();
    let server = node
        .service("echo")
        .method("cloud", |_ctx, cloud: Cloud| Ok(cloud))
        .raw_method("bytes", |_ctx, bytes| Ok(bytes.to_vec()))
        .raw_method("loan", |ctx, bytes| {
            assert_eq!(bytes.as_ptr().addr() % 64, 0);
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

fn large_writer(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("writer").unwrap();
    let mut publisher = node.raw_publisher("t").unwrap();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    for seed in 0..200 {
        publisher.publish(&content(seed, 100_000)).unwrap();
    }
    parent.say("done");
    parent.stay();
}

#[test]
fn many_large_ones_from_several_processes_arrive_in_order() {
    let dir = Dir::new();
    let reader = dir.join("reader");
    let mut subscriber = reader.raw_subscriber("t").unwrap();
    let mut children: Vec<_> = (0..2).map(|_| Child::start("large writer", &[dir.arg()])).collect();
    let mut due = std::collections::HashMap::new();
    for _ in 0..400 {
        let sample = subscriber.recv_timeout(DEADLINE).unwrap().expect("the next");
        let due = due.entry(sample.source().id()).or_insert(0);
        assert!(sample.sequence() == *due && *sample == content(*due, 100_000));
        *due += 1;
    }
    children.iter_mut().for_each(|child| child.expect("done"));
    children.into_iter().for_each(Child::finish);
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

#[test]
fn a_forked_child_finds_none_of_it() {
    let dir = Dir::new();
    let node = dir.join("parent");
    let mut subscriber = node.raw_subscriber("t").unwrap();
    let mut publisher = node.raw_publisher("t").unwrap();
    publisher.publish(&content(0, MIB)).unwrap();
    publisher.publish(&content(1, MIB)).unwrap();
    let sample = subscriber.recv().unwrap();
    assert_eq!(sample.len(), MIB);
    let mut loan = publisher.loan(MIB).unwrap();
    let lent = support::Forked::run(move || {
        assert!(sample.is_empty() && loan.is_empty() && loan.first_mut().is_none());
        assert!(matches!(loan.send(), Err(PublishError::Forked)));
        drop(sample);
    });
    lent.passes();
    let ports = support::Forked::run(|| {
        assert!(matches!(publisher.publish(&[0; 100_000]), Err(PublishError::Forked)));
        assert!(matches!(publisher.loan(100_000), Err(PublishError::Forked)));
        assert!(matches!(subscriber.try_recv(), Err(RecvError::Forked)));
    });
    ports.passes();
    publisher.publish(&content(2, MIB)).unwrap();
    for seed in 1..3 {
        assert!(*subscriber.recv().unwrap() == content(seed, MIB));
    }
}
