//! Serves calls, and tells if it gets one twice.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use super::super::Outcome;
use super::content;
use super::pace::{Duty, Next, Pace};
use super::protocol::{Note, Order, Report, SERVICE, tell};
use crate::{Node, Status};

/// Numbers of a client's calls that are remembered.
const REMEMBERED: u64 = 100_000;

pub(super) fn run(node: &Node, orders: Receiver<Order>) -> Outcome {
    let mut duty = Duty::new(orders);
    let desk = Arc::new(Desk { pace: duty.pace(), seen: Mutex::default() });
    let (bytes, values) = (desk.clone(), desk);
    let _server = node
        .service(SERVICE)
        .method("value", move |_ctx, note: Note| {
            if !content::is_whole(&note) {
                return Err(Status::data_loss("the arguments are damaged"));
            }
            values.take(note.life, note.number)?;
            Ok(note)
        })
        .raw_method("bytes", move |_ctx, request| {
            let Some((life, number)) = content::read(request) else {
                return Err(Status::data_loss("the request is damaged"));
            };
            bytes.take(life, number)?;
            Ok(request.to_vec())
        })
        .workers(2)
        .spawn()?;
    tell(&Report::Ready { node: node.info().id().to_string() })?;
    loop {
        match duty.look() {
            Next::Leave => return Ok(()),
            Next::Stop | Next::Go | Next::Measure => {}
        }
        duty.report()?;
        std::thread::sleep(super::WORD / 10);
    }
}

struct Desk {
    pace: Pace,
    /// Calls of each client that were served.
    seen: Mutex<HashMap<u64, HashSet<u64>>>,
}

impl Desk {
    fn take(&self, life: u64, number: u64) -> Result<(), Status> {
        self.pace.pause();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = seen.entry(life).or_default();
        if !calls.insert(number) {
            let what = format!("call {number} of the life {life} came twice");
            tell(&Report::Wrong { what: what.clone() }).map_err(|_| Status::internal("nobody to tell"))?;
            return Err(Status::data_loss(what));
        }
        // What is that far behind would have been late long ago.
        if calls.len() as u64 > 2 * REMEMBERED {
            calls.retain(|old| old + REMEMBERED > number);
        }
        Ok(())
    }
}
