//! What waits in vain ends in time: never early, and at most 20 ms late.

use std::time::{Duration, Instant};

use ringbus::internals::sys::clock;
use ringbus::{Code, Overflow, PublishError, Wait};

use super::delays::Dice;
use super::setting;
use super::support::stopwatch::Stopwatch;
use super::support::{self, Child, Dir, Parent};

const LATE: Duration = Duration::from_millis(20);
const STRATEGIES: [Wait; 3] = [Wait::Spin, Wait::Adaptive, Wait::Park];

#[test]
fn deadlines_are_met_within_20_ms() {
    let rounds = setting("RINGBUS_TEST_ROUNDS", || 60);
    let dir = Dir::new();
    let mut child = Child::start("waits in vain", &[dir.arg(), &rounds.to_string()]);
    println!("{}", child.line_within(support::DEADLINE + Duration::from_millis(rounds * 100)));
    child.finish();
}

/// In a process of its own, which shares the processors with the other tests and not its threads.
pub fn waits_in_vain(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("waits").unwrap();
    let rounds: u64 = args[1].parse().unwrap();
    let mut dice = Dice::new(rounds);
    let mut subscribers =
        STRATEGIES.map(|wait| node.subscriber_builder("nothing").wait(wait).open_raw().unwrap());
    let _silent = node.raw_publisher("nothing").unwrap();
    let _deaf = node.raw_subscriber("full").unwrap();
    let timeout = Duration::from_millis(17);
    let mut publishers = STRATEGIES.map(|wait| {
        let overflow = Overflow::Block { timeout };
        let publisher = node.publisher_builder("full").capacity(4096).overflow(overflow).wait(wait);
        publisher.open_raw().unwrap()
    });
    for publisher in &mut publishers {
        while publisher.publish(&[1; 500]).is_ok() {}
    }
    let service = node.service("slow").method("sleep", |ctx, ()| {
        while !ctx.cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(3 * LATE); // too late for the caller
        Ok(())
    });
    let _server = service.spawn().unwrap();
    let client = node.client("slow").unwrap();
    client.wait_for_server(support::DEADLINE).unwrap();

    let mut worst = Duration::ZERO;
    let mut check = |what: &str, timeout: Duration, wait: &mut dyn FnMut()| {
        let (stopwatch, queued, start) = (Stopwatch::start(), clock::queued(), Instant::now());
        wait();
        let took = start.elapsed();
        // That others had the processor, here or on other machines, is nobody's fault here.
        let queued = clock::queued().saturating_sub(queued);
        let took = stopwatch.less_stolen(took.saturating_sub(queued).max(took.min(timeout)), timeout + LATE);
        assert!(took >= timeout && took <= timeout + LATE, "{what}: {took:?} instead of {timeout:?}");
        worst = worst.max(took - timeout);
    };
    for _ in 0..rounds {
        let short = Duration::from_micros(dice.below(30_000));
        for (subscriber, wait) in subscribers.iter_mut().zip(STRATEGIES) {
            check(&format!("recv_timeout, {wait:?}"), short, &mut || {
                assert!(subscriber.recv_timeout(short).unwrap().is_none());
            });
        }
        for (publisher, wait) in publishers.iter_mut().zip(STRATEGIES) {
            check(&format!("publish, {wait:?}"), timeout, &mut || {
                assert!(matches!(publisher.publish(&[1; 500]), Err(PublishError::Full { .. })));
            });
        }
        let short = short + Duration::from_millis(1);
        check("call", short, &mut || {
            // An answer comes three times as late as whoever gets it may be, but for the time that others had.
            if let Err(status) = client.request("sleep").timeout(short).send::<_, ()>(&()) {
                assert_eq!(status.code(), Code::DeadlineExceeded);
            }
        });
    }
    parent.say(&format!("{} waits in vain, at most {worst:?} late", rounds * 7));
    parent.stay();
}
