//! What is urgent is received first, and the rest is not forgotten.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use ringbus::{Overflow, RecvError, Wait};

mod support;
use support::{Child, DEADLINE, Dir, Parent, eventually};

/// Messages of each publisher that wait when the reader begins.
const BACKLOG: u32 = 100;

/// Not a test of its own but the second process of those here: does nothing unless one of them started it.
#[test]
fn child() {
    support::play(&[("writes a backlog", writes_a_backlog)]);
}

#[test]
fn a_slow_reader_gets_the_highest_first_and_of_the_others_their_share() {
    let dir = Dir::new();
    let node = dir.join("reader");
    let mut subscriber = node.subscriber::<u32>("p/*").unwrap();
    let mut writer = Child::start("writes a backlog", &[dir.arg()]);
    writer.expect("written");
    eventually("all logs are there", || node.survey(DEADLINE)[0].ports[0].stats.peers == 4);

    let mut due = [0; 256];
    let mut got = Vec::new();
    for _ in 0..4 * BACKLOG {
        let message = subscriber.recv_timeout(DEADLINE).unwrap().expect("another message");
        assert!(message.topic().ends_with(&message.priority().to_string()), "{message:?}");
        // The two publishers of priority 200 write the even and the odd numbers.
        let due = &mut due[usize::from(message.priority())];
        let expected = if message.priority() == 200 { *due / 2 } else { *due };
        assert_eq!(*message, expected, "{message:?}");
        *due += 1;
        got.push(message.priority());
    }
    // 200 has twice the backlog: as long as it has something, of 17 messages in a row it has 16, and the
    // others take turns in the 17th.
    let (rows, rest) = got.split_at(12 * 17);
    for (row, low) in rows.chunks(17).zip([128, 3].into_iter().cycle()) {
        assert_eq!(row, [&[200; 16][..], &[low]].concat());
    }
    assert_eq!(rest[..8], [200; 8]);
    // Then 128 has what 200 had.
    for row in rest[8 + 8..].chunks(17).take(4) {
        assert_eq!(row, [&[3][..], &[128; 16]].concat());
    }
    writer.finish();
}

/// Whoever holds nobody up is overtaken between two turns of what is less urgent: the turn in which it is told so is not
/// all that there is.
#[test]
fn the_others_have_their_share_although_they_are_overtaken_each_time() {
    let node = ringbus::Bus::private().unwrap().join("node").unwrap();
    let mut subscriber = node.subscriber_builder("p/*").lossy().open_raw().unwrap();
    let open = |topic, capacity, priority| {
        let builder = node.publisher_builder(topic).capacity(capacity).priority(priority);
        let publisher = builder.open_raw().unwrap();
        publisher.wait_for_subscribers(1, DEADLINE).unwrap();
        publisher
    };
    let (mut urgent, mut other) = (open("p/urgent", 1 << 20, 200), open("p/other", 4096, 100));
    let (mut got, mut told, rounds) = ([0, 0], 0, 17 * 40);
    for _ in 0..rounds {
        (0..2).for_each(|_| urgent.publish(&[1; 16]).unwrap());
        (0..3).for_each(|_| other.publish(&[2; 200]).unwrap()); // more than a log of them in 17 rounds, few in one
        match subscriber.try_recv() {
            Ok(Some(sample)) => got[usize::from(sample[0]) - 1] += 1,
            Ok(None) => panic!("there is always something"),
            Err(RecvError::Lagged { topic, .. }) => {
                assert_eq!(topic.as_deref(), Some("p/other"));
                told += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(got[0] + got[1] + told, rounds);
    assert!(got[1] >= 30 && told >= 30, "{got:?}, {told} times overtaken");
    assert!(got[0] >= rounds - 100, "{got:?}: the urgent ones keep their turns");
}

/// A port with many logs looks mostly at the one that has something: not when it is another's turn.
#[test]
fn the_others_have_their_share_beside_a_busy_log_and_many_idle_ones() {
    let bus = ringbus::Bus::private().unwrap();
    let node = bus.join("node").unwrap();
    let mut subscriber = node.subscriber::<u8>("p/*").unwrap();
    let open = |priority| node.publisher_builder("p/t").priority(priority).open::<u8>().unwrap();
    let _idle: Vec<_> = (0..20).map(|_| open(200)).collect();
    let (mut busy, mut low) = (open(200), open(3));
    for _ in 0..BACKLOG {
        busy.publish(&200).unwrap();
    }
    for _ in 0..BACKLOG / 16 {
        low.publish(&3).unwrap();
    }
    for row in 0..BACKLOG / 16 {
        let got: Vec<u8> =
            (0..17).map(|_| *subscriber.recv_timeout(DEADLINE).unwrap().expect("a message")).collect();
        assert_eq!(got, [&[200; 16][..], &[3]].concat(), "row {row}");
    }
}

/// Nor for long when another log of the same priority has something.
#[test]
fn a_record_in_an_idle_log_is_soon_found_beside_a_busy_one() {
    const IDLE: usize = 20;
    const MANY: usize = 1000;
    let bus = ringbus::Bus::private().unwrap();
    let node = bus.join("node").unwrap();
    let mut subscriber = node.subscriber::<usize>("t").unwrap();
    let mut idle: Vec<_> = (0..IDLE).map(|_| node.publisher::<usize>("t").unwrap()).collect();
    let mut busy = node.publisher::<usize>("t").unwrap();
    for (log, idle) in idle.iter_mut().enumerate() {
        (0..MANY).for_each(|_| busy.publish(&IDLE).unwrap());
        (0..200).for_each(|_| assert_eq!(*subscriber.recv().unwrap(), IDLE));
        idle.publish(&log).unwrap();
        let before = (0..MANY).take_while(|_| *subscriber.recv().unwrap() == IDLE).count();
        assert!(before <= 9 * (IDLE + 1), "log {log} waited for {before} records");
        (200 + before..MANY).for_each(|_| assert_eq!(*subscriber.recv().unwrap(), IDLE));
    }
}

fn writes_a_backlog(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("writer").unwrap();
    let mut ports: Vec<_> = [3, 200, 128, 200]
        .into_iter()
        .map(|priority| {
            let topic = format!("p/{priority}");
            let builder = node.publisher_builder(&topic).priority(priority);
            builder.open::<u32>().unwrap()
        })
        .collect();
    for number in 0..BACKLOG {
        ports.iter_mut().for_each(|port| port.publish(&number).unwrap());
    }
    parent.say("written");
    parent.stay();
}

#[test]
fn the_priority_is_told_to_others() {
    let dir = Dir::new();
    let (node, other) = (dir.join("node"), dir.join("other"));
    let _urgent = other.publisher_builder("a").priority(255).open::<u32>().unwrap();
    let _usual = other.publisher::<u32>("a").unwrap();
    let peers = node.peers();
    assert_eq!(peers[0].ports().iter().map(|port| port.priority).collect::<Vec<_>>(), [255, 128]);
}

/// What is no record is looked for less often, but soon, however the port waits.
#[test]
fn drops_and_ends_are_noticed_beside_a_busy_log() {
    let dir = Dir::new();
    let node = dir.join("node");
    for wait in [Wait::Spin, Wait::Adaptive, Wait::Park] {
        let mut subscriber = node.subscriber_builder("*").wait(wait).open_raw().unwrap();
        let builder = node.publisher_builder("drops").capacity(4096).overflow(Overflow::DropNewest);
        let mut drops = builder.open_raw().unwrap();
        let mut busy = node.publisher_builder("busy").priority(200).open_raw().unwrap();
        let mut published = 0;
        while drops.stats().dropped == 0 {
            drops.publish(&[0; 100]).unwrap();
            published += 1;
        }
        let (mut lagged, mut received) = (false, 0);
        for _ in 0..100 * published {
            busy.publish(&[]).unwrap();
            match subscriber.recv_timeout(DEADLINE) {
                Ok(sample) => received += u64::from(sample.expect("a message").topic() == "drops"),
                Err(RecvError::Lagged { missed: 1, .. }) => lagged = true,
                Err(error) => panic!("{error}"),
            }
            if lagged {
                break;
            }
        }
        assert!(lagged && received == published - 1, "{wait:?}: {received} of {published}");
        drop(drops);
        let mut looks = 0;
        while subscriber.stats().peers == 2 {
            busy.publish(&[]).unwrap();
            subscriber.recv_timeout(DEADLINE).unwrap().expect("a message");
            looks += 1;
            assert!(looks < 1000, "{wait:?}: the end of a log is not noticed");
        }
    }
}

/// Also of each of several that end one after the other, whatever the priorities of the others.
#[test]
fn ends_are_noticed_beside_logs_that_always_have_something() {
    for (priorities, busy) in [
        ([7; 8], &[0, 1, 3][..]),
        ([7; 8], &[1]),
        ([7, 7, 7, 3, 3, 3, 3, 3], &[3, 4, 5, 6]),
        ([7, 7, 7, 7, 5, 5, 5, 3], &[0, 1, 6]),
    ] {
        let node = ringbus::Bus::private().unwrap().join("node").unwrap();
        let mut subscriber = node.subscriber::<usize>("t").unwrap();
        let open = |priority| node.publisher_builder("t").priority(priority).open::<usize>().unwrap();
        let mut publishers: Vec<_> = priorities.iter().map(|priority| Some(open(*priority))).collect();
        let publish = |port: &mut Option<ringbus::Publisher<usize>>, index| {
            port.as_mut().expect("a busy one").publish(&index).unwrap();
        };
        for _ in 0..20 {
            busy.iter().for_each(|index| publish(&mut publishers[*index], *index));
        }
        let mut left = priorities.len();
        for gone in (0..priorities.len()).filter(|index| !busy.contains(index)) {
            publishers[gone] = None;
            left -= 1;
            let mut looks = 0;
            loop {
                let index = *subscriber.recv_timeout(DEADLINE).unwrap().expect("a message");
                publish(&mut publishers[index], index);
                if subscriber.stats().peers == left {
                    break;
                }
                looks += 1;
                assert!(looks < 3000, "{priorities:?} {busy:?} {gone}: the end of a log is not noticed");
            }
        }
    }
}

#[test]
fn a_lone_drop_is_told_to_whoever_waits_and_to_whoever_looks() {
    let dir = Dir::new();
    let node = dir.join("node");
    for wait in [Wait::Spin, Wait::Adaptive, Wait::Park] {
        let mut subscriber = node.subscriber_builder("t").wait(wait).open_raw().unwrap();
        let builder = node.publisher_builder("t").capacity(4096).overflow(Overflow::DropNewest);
        let mut publisher = builder.open_raw().unwrap();
        for round in 0..10 {
            while publisher.stats().dropped == round {
                publisher.publish(&[0; 500]).unwrap();
            }
            // Once by waiting, once without, once without time to wait.
            let told = loop {
                let next = match round % 3 {
                    0 => subscriber.recv_timeout(DEADLINE),
                    1 => subscriber.try_recv(),
                    _ => subscriber.recv_timeout(Duration::ZERO),
                };
                match next {
                    Ok(Some(_)) => {}
                    other => break other.map(|_| ()),
                }
            };
            assert!(matches!(told, Err(RecvError::Lagged { missed: 1, .. })), "{wait:?} {round}: {told:?}");
        }
    }
}

#[test]
fn a_reader_that_spins_notices_the_end_of_a_log_while_it_waits() {
    let dir = Dir::new();
    let node = dir.join("node");
    let mut subscriber = node.subscriber_builder("t").wait(Wait::Spin).open_raw().unwrap();
    let mut stays = node.raw_publisher("t").unwrap();
    let goes = node.raw_publisher("t").unwrap();
    let logs = || node.survey(DEADLINE)[0].ports[0].stats.peers;
    let received = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(*subscriber.recv().unwrap(), *b"first");
            received.store(true, Relaxed);
            // Longer than the test waits: its end would be a look in full.
            assert_eq!(*subscriber.recv_timeout(2 * DEADLINE).unwrap().expect("a message"), *b"last");
        });
        stays.publish(b"first").unwrap();
        eventually("both logs are there", || received.load(Relaxed) && logs() == 2);
        drop(goes);
        eventually("one has ended", || logs() == 1);
        stays.publish(b"last").unwrap();
    });
}
