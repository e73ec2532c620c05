//! The demo's planner: calls the workers, sends to them, and subscribes to their progress.

use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use super::super::Outcome;
use super::protocol::{Kinds, Order, Report, Stopped, tell};
use super::talk::Talk;
use super::watcher::Watcher;
use super::{CAST, REPORT, Role, SERVICE, START};
use crate::{Client, Node};

/// A call takes microseconds; this is for hosts that are overloaded.
const TIMEOUT: Duration = Duration::from_secs(15);

pub(super) fn run(node: &Node, orders: &Receiver<Order>) -> Outcome {
    let mut watcher = Watcher::open(node)?;
    let client = node.client_builder(SERVICE).timeout(TIMEOUT).open()?;
    wait_for_servers(&client)?;
    tell(&Report::Ready { node: node.info().id().to_string() })?;

    let mut talk: Option<Talk> = None;
    let mut stopped: Option<Stopped> = None;
    let mut all = None;
    let mut report = Instant::now() + REPORT;
    loop {
        watcher.look()?;
        let now = Instant::now();
        if now >= report {
            let (sent, said) = match (&talk, &stopped) {
                (Some(talk), _) => talk.so_far(),
                (None, Some(stopped)) => (stopped.sent, response(stopped)),
                (None, None) => Default::default(),
            };
            let mut received = watcher.received();
            received += said;
            tell(&Report::Count { sent, received, peers: node.peers().len() })?;
            report = now + REPORT;
        }
        let order = match orders.try_recv() {
            Err(TryRecvError::Disconnected) => return Ok(()),
            Err(TryRecvError::Empty) if talk.as_ref().is_some_and(Talk::has_failed) => Some(Order::Stop),
            order => order.ok(),
        };
        match order {
            Some(Order::Start) => talk = Some(Talk::start(node, &client)?),
            Some(Order::Stop) => {
                if let Some(talk) = talk.take() {
                    let stopped = stopped.insert(talk.stop()?);
                    tell(&Report::Stopped(stopped.clone()))?;
                }
            }
            Some(Order::Finish(sent)) => all = Some(sent),
            None => {}
        }
        if all.as_ref().is_some_and(|all| watcher.is_done(all)) {
            break;
        }
    }
    tell(&Report::Finished(watcher.finished()))?;
    // The node stays until it is dismissed, like everybody's.
    let _ = orders.recv();
    Ok(())
}

fn response(stopped: &Stopped) -> Kinds {
    Kinds { response: stopped.calls.answered(), ..Kinds::default() }
}

fn wait_for_servers(client: &Client) -> Outcome {
    let workers = CAST.iter().filter(|(_, role)| matches!(role, Role::Worker { .. })).count();
    let deadline = Instant::now() + START;
    while client.servers().len() < workers {
        if Instant::now() >= deadline {
            return Err(format!("{} of {workers} workers serve calls", client.servers().len()).into());
        }
        client.wait_for_server(START)?;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
