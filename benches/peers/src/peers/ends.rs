//! Both sides of round trips and throughput, for peers whose two directions are alike.

use crate::control::{First, Second};
use crate::job::{Figure, Job, Result, Workload};
use crate::measure::{Flood, RoundTrips, STOP, drain, payload, stamp_of, write_stamp};

/// Where messages go in.
pub trait To {
    /// Copies a message in; waits for room.
    fn send(&mut self, message: &[u8]) -> Result<()>;
}

/// Where messages come out.
pub trait From {
    /// Waits for the next message; it is there until the next call.
    fn receive(&mut self) -> Result<&[u8]>;
}

pub fn first(job: &Job, second: &mut Second, mut to: impl To, mut from: impl From) -> Result<Figure> {
    let mut message = payload(job.payload);
    let mut send = |stamp| {
        write_stamp(&mut message, stamp);
        to.send(&message)
    };
    if job.workload == Workload::Throughput {
        return Flood::new(job, 1).run(second, send);
    }
    let mut trips = RoundTrips::new(job);
    while let Some(stamp) = trips.next() {
        send(stamp)?;
        trips.came(stamp_of(from.receive()?))?;
    }
    trips.figure()
}

pub fn second(job: &Job, first: &mut First, mut to: impl To, mut from: impl From) -> Result<()> {
    if job.workload == Workload::Throughput {
        return drain(first, |reading| reading.take(from.receive()?));
    }
    loop {
        let message = from.receive()?;
        to.send(message)?;
        if stamp_of(message) == STOP {
            first.wait_for_end();
            return Ok(());
        }
    }
}

/// What such peers take part in.
pub fn there_and_back(workload: Workload) -> bool {
    matches!(workload, Workload::Rtt | Workload::Throughput)
}
