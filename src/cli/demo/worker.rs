//! The demo's working processes: each publishes its progress, and serves calls meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::super::{Failure, Outcome};
use super::ledger::Stream;
use super::protocol::{
    Assignment, Estimate, Finished, Kinds, Notice, Order, Progress, Report, Stopped, tell,
};
use super::{CAST, PATIENCE, REPORT, Role, SERVICE, START};
use crate::{Inbox, Node, PublishError, Publisher, RecvError, Subscriber};

/// Messages in one go, and how often: 60 000 a second, with the processor free in between.
const BURST: u32 = 120;
const PAUSE: Duration = Duration::from_millis(2);
/// How long a subscriber may stand in the way.
const STUCK: Duration = Duration::from_secs(15);
/// Steps of a task; then the next one begins.
const TOTAL: u32 = 1000;

pub(super) fn run(node: &Node, orders: &Receiver<Order>, task: u32) -> Outcome {
    let mut desk = Desk::open(node)?;
    let answered = desk.answered.clone();
    let _server = node
        .service(SERVICE)
        .method("estimate", move |_ctx, number: u64| {
            answered.fetch_add(1, Relaxed);
            Ok(Estimate { number, minutes: task * 10 })
        })
        .spawn()?;
    let mut progress = node.publisher::<Progress>(&format!("task/{task}/progress"))?;
    let subscribers = CAST.iter().filter(|(_, role)| !matches!(role, Role::Worker { .. })).count();
    progress.wait_for_subscribers(subscribers, START)?;
    tell(&Report::Ready { node: node.info().id().to_string() })?;
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
        // Told after, and so true, whenever this process is killed.
        tell(&Report::Published { events: update.counter })?;
        desk.look()?;
        let now = Instant::now();
        if now >= report {
            let (sent, received) = (desk.sent(update.counter), desk.received());
            tell(&Report::Count { sent, received, peers: node.peers().len() })?;
            report = now + REPORT;
        }
        if desk.is_over {
            break;
        }
        // A late burst is not made up for.
        next = (next + PAUSE).max(now);
        match orders.recv_timeout(next - now) {
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Ok(_) => {}
        }
    }
    let sent = desk.sent(update.counter);
    tell(&Report::Stopped(Stopped { sent, ..Stopped::default() }))?;

    let Ok(Order::Finish(all)) = orders.recv() else { return Ok(()) };
    let direct = all.direct.get(node.info().name()).copied().unwrap_or(0);
    let deadline = Instant::now() + PATIENCE;
    while (desk.direct.next < direct || desk.broadcasts.next < all.broadcasts) && Instant::now() < deadline {
        desk.look()?;
        std::thread::sleep(PAUSE);
    }
    tell(&Report::Finished(desk.finished()))?;
    // The node stays until it is dismissed, like everybody's.
    let _ = orders.recv();
    Ok(())
}

/// Where a worker gets what is meant for it.
struct Desk {
    inbox: Inbox<Assignment>,
    notices: Subscriber<Notice>,
    answered: Arc<AtomicU64>,
    direct: Stream,
    broadcasts: Stream,
    /// The planner has said so.
    is_over: bool,
}

impl Desk {
    fn open(node: &Node) -> Outcome<Self> {
        Ok(Self {
            inbox: node.inbox()?,
            notices: node.broadcasts()?,
            answered: Arc::default(),
            direct: Stream::default(),
            broadcasts: Stream::default(),
            is_over: false,
        })
    }

    /// Takes what has arrived.
    fn look(&mut self) -> Outcome {
        while let Some(assignment) = passed_over(self.inbox.try_recv())? {
            self.direct.note(assignment.number);
        }
        while let Some(notice) = passed_over(self.notices.try_recv())? {
            self.broadcasts.note(notice.number);
            self.is_over |= notice.end;
        }
        Ok(())
    }

    fn sent(&self, events: u64) -> Kinds {
        Kinds { event: events, response: self.answered.load(Relaxed), ..Kinds::default() }
    }

    fn received(&self) -> Kinds {
        Kinds {
            request: self.answered.load(Relaxed),
            direct: self.direct.received,
            broadcast: self.broadcasts.received,
            ..Kinds::default()
        }
    }

    fn finished(self) -> Finished {
        Finished {
            requests: self.answered.load(Relaxed),
            direct: Some(self.direct),
            broadcasts: Some(self.broadcasts),
            ..Finished::default()
        }
    }
}

/// What was received; dropped messages show in the counts.
pub(super) fn passed_over<T>(received: Result<Option<T>, RecvError>) -> Outcome<Option<T>> {
    match received {
        Err(RecvError::Lagged { .. }) => Ok(None),
        other => Ok(other?),
    }
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
