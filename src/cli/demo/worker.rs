//! The demo's publishing process.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::super::{Failure, Outcome};
use super::protocol::{Order, Progress, Report, tell};
use super::{CAST, START, is_worker};
use crate::{Node, PublishError, Publisher};

/// Messages in one go, and how often: 60 000 a second, with the processor free in between.
const BURST: u32 = 120;
const PAUSE: Duration = Duration::from_millis(2);
/// How often the count is reported.
const REPORT: Duration = Duration::from_millis(100);
/// How long a subscriber may stand in the way.
const STUCK: Duration = Duration::from_secs(15);
/// Steps of a task; then the next one begins.
const TOTAL: u32 = 1000;

pub(super) fn run(node: &Node, orders: &Receiver<Order>, task: u32) -> Outcome {
    let mut progress = node.publisher::<Progress>(&format!("task/{task}/progress"))?;
    let subscribers = CAST.iter().filter(|part| !is_worker(part)).count();
    progress.wait_for_subscribers(subscribers, START)?;
    tell(&Report::Ready)?;
    if orders.recv() != Ok(Order::Start) {
        return Ok(());
    }

    let mut update = Progress { task, step: "read".into(), done: 0, total: TOTAL, counter: 0 };
    let mut next = Instant::now();
    let mut report = next + REPORT;
    loop {
        for _ in 0..BURST {
            publish(&mut progress, &update)?;
            update.counter += 1;
            update.done = (update.counter % u64::from(TOTAL)) as u32;
        }
        let now = Instant::now();
        if now >= report {
            tell(&Report::Count { messages: update.counter, peers: node.peers().len() })?;
            report = now + REPORT;
        }
        // A late burst is not made up for.
        next = (next + PAUSE).max(now);
        match orders.recv_timeout(next - now) {
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Ok(_) => break,
        }
    }
    tell(&Report::Sent { messages: update.counter })?;
    // The node stays until it is dismissed, like everybody's.
    let _ = orders.recv();
    Ok(())
}

/// Publishes, with more patience than the port has.
fn publish(progress: &mut Publisher<Progress>, update: &Progress) -> Outcome {
    let start = Instant::now();
    loop {
        match progress.publish(update) {
            Err(PublishError::Full { .. }) if start.elapsed() < STUCK => {}
            done => return done.map_err(Failure::from),
        }
    }
}
