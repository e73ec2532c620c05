//! What went wrong once, a test each, named after it.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ringbus::{Bus, Code, PublishError, Wait};

const DEADLINE: Duration = Duration::from_secs(20);

/// The publisher rang the readers that it knew when it claimed the room.
#[test]
fn a_subscriber_that_parks_while_a_loan_is_filled_is_woken_by_it() {
    let node = Bus::private().unwrap().join("n").unwrap();
    let mut publisher = node.raw_publisher("t").unwrap();
    for round in 0..50_u8 {
        let mut loan = publisher.loan(1).unwrap();
        loan[0] = round;
        let (parked, hear) = mpsc::channel();
        let late = node.clone();
        let reader = thread::spawn(move || {
            let mut subscriber = late.subscriber_builder("t").wait(Wait::Park).open_raw().unwrap();
            // Attached and armed: what is looked at before the sleep has been looked at.
            while !subscriber.arm().unwrap() || subscriber.stats().peers == 0 {
                assert!(subscriber.try_recv().unwrap().is_none());
            }
            parked.send(()).unwrap();
            // Not looked at again before the bell rings.
            assert!(poll(&subscriber), "the bell rings");
            subscriber.recv_timeout(DEADLINE).unwrap().map(|sample| sample[0])
        });
        hear.recv_timeout(DEADLINE).unwrap();
        loan.send().unwrap();
        assert_eq!(reader.join().unwrap(), Some(round));
    }
}

/// Waits for the port's fd to turn readable.
fn poll(port: &impl std::os::fd::AsFd) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout};
    let mut fds = [PollFd::new(port.as_fd(), PollFlags::POLLIN)];
    nix::poll::poll(&mut fds, PollTimeout::try_from(DEADLINE).unwrap()).unwrap() == 1
}

/// Records on other topics were passed over without a look at the clock.
#[test]
fn a_flood_on_other_topics_does_not_keep_a_caller_beyond_its_timeout() {
    let node = Bus::private().unwrap().join("n").unwrap();
    let mut rare = node.subscriber::<u32>("rare/*").unwrap();
    let mut flood = node.publisher::<u32>("**").unwrap();
    let (stop, stopped) = mpsc::channel::<()>();
    let publisher = thread::spawn(move || {
        while matches!(stopped.try_recv(), Err(mpsc::TryRecvError::Empty)) {
            let _ = flood.publish_to("busy/x", &1);
        }
    });
    let start = Instant::now();
    for _ in 0..20 {
        assert!(rare.recv_timeout(Duration::from_millis(20)).unwrap().is_none());
        assert!(rare.try_recv().unwrap().is_none());
    }
    assert!(start.elapsed() < DEADLINE / 2, "{:?}", start.elapsed());
    drop(stop);
    publisher.join().unwrap();
}

/// `Instant::now() + Duration::MAX` panicked the control thread.
#[test]
fn a_survey_without_end_is_answered_when_all_have() {
    let bus = Bus::private().unwrap();
    let (one, _other) = (bus.join("one").unwrap(), bus.join("other").unwrap());
    assert_eq!(one.survey(Duration::MAX).len(), 2);
    assert!(one.publisher::<u8>("t").is_ok(), "the node lives");
}

/// The size of the frame overflowed.
#[test]
fn a_loan_larger_than_memory_is_too_large() {
    let node = Bus::private().unwrap().join("n").unwrap();
    let mut publisher = node.raw_publisher("t").unwrap();
    for size in [usize::MAX, usize::MAX - 64, u32::MAX as usize] {
        assert!(matches!(publisher.loan(size), Err(PublishError::TooLarge { .. })), "{size}");
    }
}

/// Gates only move when the writer runs out of room: an idle, healthy publisher looked almost full.
#[test]
fn a_publisher_whose_subscriber_has_read_everything_shows_no_lag() {
    let node = Bus::private().unwrap().join("n").unwrap();
    let mut subscriber = node.raw_subscriber("t").unwrap();
    let mut publisher = node.raw_publisher("t").unwrap();
    for _ in 0..100 {
        publisher.publish(&[0; 1000]).unwrap();
        assert_eq!(subscriber.recv().unwrap().len(), 1000);
    }
    assert!(subscriber.try_recv().unwrap().is_none());
    assert_eq!(publisher.stats().lag, 0);
}

/// Only typed publishers could send headers.
#[test]
fn raw_messages_carry_headers_too() {
    let node = Bus::private().unwrap().join("n").unwrap();
    let mut subscriber = node.raw_subscriber("t/*").unwrap();
    let mut publisher = node.raw_publisher("t/**").unwrap();
    publisher.message(&[1, 2]).topic("t/x").header("k", "v").send().unwrap();
    let sample = subscriber.recv().unwrap();
    assert_eq!((&*sample, sample.topic(), sample.headers().get("k")), (&[1, 2][..], "t/x", Some("v")));
}

/// The answer that found no room was written with the next request, and there was none.
#[test]
fn an_answer_without_room_does_not_wait_for_another_request() {
    let bus = Bus::private().unwrap();
    for wait in [Wait::Spin, Wait::Adaptive, Wait::Park] {
        let node = bus.join("both").unwrap();
        let service = node.service("large").method("make", |_, size: usize| Ok("x".repeat(size)));
        let _server = service.capacity(4096).wait(wait).spawn().unwrap();
        for calls in 1..12 {
            let client = node.client_builder("large").wait(wait).open().unwrap();
            let started: Vec<_> =
                (0..calls).map(|_| client.request("make").start::<_, String>(&900).unwrap()).collect();
            for call in started {
                assert_eq!(call.wait().unwrap().len(), 900);
            }
        }
    }
}

/// A client that never sleeps did not look again whether there was room for its request.
#[test]
fn a_spinning_client_sends_once_there_is_room() {
    let node = Bus::private().unwrap().join("both").unwrap();
    let _server = node.service("echo").method("echo", |_, text: String| Ok(text)).spawn().unwrap();
    let client = node.client_builder("echo").capacity(4096).wait(Wait::Spin).open().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let text = "x".repeat(300);
                let calls: Vec<_> =
                    (0..64).map(|_| client.request("echo").start::<_, String>(&text).unwrap()).collect();
                for call in calls {
                    assert_eq!(*call.wait().unwrap(), text);
                }
            });
        }
    });
}

/// The ring that announces an earlier deadline was drained by the thread that waits for tasks, on its way to a
/// sleep without one: a call was over only when something else rang.
#[test]
fn an_async_calls_deadline_was_missed_if_it_began_as_another_ended() {
    let node = Bus::private().unwrap().join("node").unwrap();
    let (started, is_started) = std::sync::mpsc::channel();
    // The one worker holds the first call; the others wait for it, and nothing answers them.
    let server = node.service("never").workers(1).method("hold", move |ctx, ()| {
        let _ = started.send(());
        while !ctx.cancelled() {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    });
    let _server = server.spawn().unwrap();
    let client = node.client("never").unwrap();
    let begin = |timeout| client.request("hold").timeout(timeout).start::<_, ()>(&()).unwrap();
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
        let forever = begin(Duration::MAX);
        is_started.recv_timeout(DEADLINE).unwrap();
        let others = async {
            for _ in 0..200 {
                let begun = Instant::now();
                let late = tokio::time::timeout(DEADLINE, begin(Duration::from_millis(1))).await;
                assert_eq!(late.expect("over").unwrap_err().code(), Code::DeadlineExceeded);
                assert!(begun.elapsed() < DEADLINE, "woken by the timeout around it alone");
            }
        };
        tokio::select! {
            _ = forever => panic!("it has no deadline"),
            () = others => {}
        }
    });
}

/// Arguments were decoded outside of what catches a handler's panic: the worker was gone.
#[test]
fn a_panic_while_arguments_are_decoded_ends_that_call_alone() {
    struct Bad;
    impl<'de> serde::Deserialize<'de> for Bad {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            panic!("not such a value")
        }
    }
    let node = Bus::private().unwrap().join("both").unwrap();
    let service = node.service("s").method("bad", |_, _: Bad| Ok(())).method("good", |_, n: u32| Ok(n));
    let _server = service.spawn().unwrap();
    let client = node.client("s").unwrap();
    let status = client.call::<_, ()>("bad", &1).unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("not such a value"), "{status}");
    assert_eq!(client.call::<_, u32>("good", &1), Ok(1));
}

/// Whoever has awaited a call and dropped everything had not left the bus yet: others took its exit for a death.
#[test]
fn the_last_handle_after_an_awaited_call_leaves_the_bus() {
    let bus = Bus::private().unwrap();
    let stays = bus.join("stays").unwrap();
    let _server = stays.service("s").method("echo", |_, n: u32| Ok(n)).spawn().unwrap();
    for round in 0..50_u32 {
        let node = bus.join("goes").unwrap();
        let call = node.client("s").unwrap().request("echo").start::<_, u32>(&round).unwrap();
        drop(node);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(*runtime.block_on(call).unwrap(), round);
        // It has said goodbye when the drop is over.
        assert!(stays.peers().is_empty(), "round {round}");
    }
}

/// Small loans are written in private memory; what fills a record up to a payload's alignment was copied from there, with
/// what the last one had left.
#[test]
fn a_loan_that_was_never_sent_stood_in_front_of_the_next() {
    let node = Bus::private().unwrap().join("n").unwrap();
    let mut subscriber = node.raw_subscriber("t/*").unwrap();
    let mut publisher = node.raw_publisher("t/*").unwrap();
    let secret = [0xA7; 16];
    publisher.loan_to("t/1", 400).unwrap().fill(secret[0]);
    for round in 1..=64 {
        // Another place in its cache line: the payload begins in the next but one, at times.
        let topic = format!("t/{}", "x".repeat(round));
        let mut loan = publisher.loan_to(&topic, 16).unwrap();
        loan.fill(round as u8);
        loan.send().unwrap();
        assert_eq!(*subscriber.recv().unwrap(), [round as u8; 16]);
    }
    let logs: Vec<_> = segments("ringbus-log").collect();
    let has = |bytes: &[u8]| logs.iter().any(|log| log.windows(bytes.len()).any(|window| window == bytes));
    assert!(has(&[64; 16]), "what was sent");
    assert!(!has(&secret[..8]), "what was not");
}

/// What is in the segments of this name that this process has.
fn segments(name: &str) -> impl Iterator<Item = Vec<u8>> {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let named = fds.filter(move |fd| {
        std::fs::read_link(fd.path()).is_ok_and(|target| target.to_string_lossy().contains(name))
    });
    named.filter_map(|fd| std::fs::read(fd.path()).ok())
}
