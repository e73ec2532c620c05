//! The demo's monitor: sees everything, and says nothing.

use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use super::super::Outcome;
use super::REPORT;
use super::protocol::{Finished, Kinds, Order, Report, tell};
use super::sight::Sight;
use super::watcher::Watcher;
use crate::Node;

pub(super) fn run(node: &Node, orders: &Receiver<Order>) -> Outcome {
    let mut watcher = Watcher::open(node)?;
    let mut sight = Sight::open(node)?;
    tell(&Report::Ready { node: node.info().id().to_string() })?;

    let mut all = None;
    let mut report = Instant::now() + REPORT;
    loop {
        watcher.look()?;
        sight.look()?;
        let now = Instant::now();
        if now >= report {
            let peers = sight.count(node);
            let received = Kinds { heartbeat: sight.seen().beats_seen, ..watcher.received() };
            tell(&Report::Count { sent: Kinds::default(), received, peers })?;
            report = now + REPORT;
        }
        match orders.try_recv() {
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(()),
            Ok(Order::Finish(sent)) => all = Some(sent),
            Ok(_) => {}
        }
        if all.as_ref().is_some_and(|all| watcher.is_done(all)) {
            break;
        }
    }
    tell(&Report::Finished(Finished { seen: Some(sight.seen()), ..watcher.finished() }))?;
    // The node stays until it is dismissed, like everybody's.
    let _ = orders.recv();
    Ok(())
}
