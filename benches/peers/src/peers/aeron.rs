//! Aeron over IPC: exclusive publications, and the C media driver as threads of the second process.

use std::time::{Duration, Instant};

use rusteron_client::{
    AERON_IPC_STREAM, Aeron as Client, AeronExclusivePublication, AeronFragmentClosureAssembler, AeronHeader,
    AeronOfferError, AeronSubscription, Handlers,
};
use rusteron_media_driver::bindings::aeron_threading_mode_t;
use rusteron_media_driver::testing::EmbeddedDriver;

use super::Peer;
use super::ends::there_and_back;
use crate::control::{First, Second};
use crate::job::{Figure, Job, Kind, Result, Row, SUBSCRIBERS, Workload};
use crate::measure::{Flood, Reading, RoundTrips, STOP, drain_all, payload, stamp_of, write_stamp};

pub struct Aeron;

const PING: i32 = 1;
const PONG: i32 = 2;
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest that Aeron allows: longer messages go in fragments.
const MTU: usize = 65504;
const FRAGMENT_HEADER: usize = 32;
/// Fragments that one poll takes.
const BURST: usize = 64;

/// Bytes of a term, of which a log has three: a message may have an eighth of one. Small ones stay in the cache,
/// large ones need the driver less often.
fn term(payload: usize) -> usize {
    (128 * payload).clamp(1 << 20, 16 << 20)
}

impl Peer for Aeron {
    fn rows(&self) -> &'static [Row] {
        &[
            Row { name: "aeron", kind: Kind::Copied, takes: |workload, _| workload != Workload::Call },
            Row {
                name: "aeron lent",
                kind: Kind::Lent,
                takes: |workload, payload| there_and_back(workload) && is_whole(payload),
            },
        ]
    }

    fn first(&self, job: &Job, second: &mut Second) -> Result<Figure> {
        let driver = driver(job)?;
        second.tell(driver.dir())?;
        let client = Client::connect_dir(driver.dir())?;
        second.hear()?;
        let ping = Sender::new(job, &client, PING)?;
        let mut pong = Receiver::new(job, &client, PONG)?;
        second.tell("ready")?;
        ping.wait_for_subscriber()?;
        let mut message = payload(job.payload);
        let mut send = |stamp| {
            write_stamp(&mut message, stamp);
            ping.send(&message)
        };
        match job.workload {
            Workload::Rtt => {
                second.hear()?;
                let mut trips = RoundTrips::new(job);
                while let Some(stamp) = trips.next() {
                    send(stamp)?;
                    let mut came = None;
                    while came.is_none() {
                        pong.poll(1, |message| came = Some(stamp_of(message)))?;
                    }
                    trips.came(came.unwrap_or_default())?;
                }
                trips.figure()
            }
            Workload::Fanout => Flood::new(job, SUBSCRIBERS).run(second, send),
            _ => Flood::new(job, 1).run(second, send),
        }
    }

    fn second(&self, job: &Job, first: &mut First) -> Result<()> {
        let client = Client::connect_dir(&first.hear()?)?;
        let count = if job.workload == Workload::Fanout { SUBSCRIBERS } else { 1 };
        let mut pings = (0..count).map(|_| Receiver::new(job, &client, PING)).collect::<Result<Vec<_>>>()?;
        first.tell("subscribed");
        first.hear()?;
        match job.workload {
            Workload::Rtt => {
                let pong = Sender::new(job, &client, PONG)?;
                pong.wait_for_subscriber()?;
                first.tell("ready");
                echo(&mut pings[0], &pong)?;
                first.wait_for_end();
                Ok(())
            }
            Workload::Fanout => drain_all(first, |n, reading| {
                let mut outcome = Ok(());
                let fragments = pings[n].poll(BURST, |message| take(reading, message, &mut outcome))?;
                outcome.map(|()| fragments > 0)
            }),
            _ => drain(first, &mut pings[0]),
        }
    }
}

fn echo(ping: &mut Receiver, pong: &Sender) -> Result<()> {
    let mut stamp = 0;
    while stamp != STOP {
        let mut outcome = Ok(());
        ping.poll(1, |message| {
            stamp = stamp_of(message);
            outcome = pong.send(message);
        })?;
        outcome?;
    }
    Ok(())
}

/// Like [`measure::drain`](crate::measure::drain), but a poll takes many messages at once.
fn drain(first: &mut First, ping: &mut Receiver) -> Result<()> {
    let mut reading = Reading::default();
    let mut end = 0;
    while let Some(count) = first.batch()? {
        end += count;
        while reading.due() < end {
            let mut outcome = Ok(());
            ping.poll(BURST, |message| take(&mut reading, message, &mut outcome))?;
            outcome?;
        }
        first.tell(&reading.take_sum().to_string());
    }
    Ok(())
}

#[inline]
fn take(reading: &mut Reading, message: &[u8], outcome: &mut Result<()>) {
    if let Err(error) = reading.take(message) {
        *outcome = Err(error);
    }
}

/// Whether a payload goes in one fragment: then it can be written and read in place.
fn is_whole(payload: usize) -> bool {
    payload <= MTU - FRAGMENT_HEADER
}

/// One thread for all it does, as the CPUs are for the two processes. The sender of a flood yields to it when it
/// is out of room, and it yields back; beside round trips, which do not need it, it sleeps.
fn driver(job: &Job) -> Result<EmbeddedDriver> {
    let idle = if job.workload == Workload::Rtt { c"backoff" } else { c"yield" };
    let dir = std::ffi::CString::new(format!("/dev/shm/{}", job.unique("aeron")))?;
    Ok(EmbeddedDriver::launch_with(|context| {
        context.set_dir(&dir)?;
        context.set_threading_mode(aeron_threading_mode_t::AERON_THREADING_MODE_SHARED)?;
        context.set_shared_idle_strategy(idle)?;
        context.set_ipc_mtu_length(MTU)?;
        context.set_ipc_term_buffer_length(term(job.payload))?;
        context.set_term_buffer_sparse_file(false)?;
        Ok(())
    })?)
}

struct Sender {
    publication: AeronExclusivePublication,
    lent: bool,
}

impl Sender {
    fn new(job: &Job, client: &Client, stream: i32) -> Result<Self> {
        let adding = client.async_add_exclusive_publication(AERON_IPC_STREAM, stream)?;
        Ok(Self { publication: adding.poll_blocking(PATIENCE)?, lent: job.lent })
    }

    fn wait_for_subscriber(&self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !self.publication.is_connected() {
            if Instant::now() > end {
                return Err("no subscriber came".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Copies a message in; lent, only its stamp.
    #[inline]
    fn send(&self, message: &[u8]) -> Result<()> {
        if self.lent {
            let mut claim = again(|| self.publication.try_claim_owned(message.len()))?;
            write_stamp(claim.data(), stamp_of(message));
            claim.commit()?;
        } else {
            again(|| self.publication.offer(message))?;
        }
        Ok(())
    }
}

#[inline]
fn again<T>(mut offer: impl FnMut() -> Result<T, AeronOfferError>) -> Result<T> {
    loop {
        match offer() {
            Err(error) if error.is_retryable() => std::thread::yield_now(), // to the driver
            other => return Ok(other?),
        }
    }
}

struct Receiver {
    subscription: AeronSubscription,
    assembler: Option<AeronFragmentClosureAssembler>,
}

impl Receiver {
    fn new(job: &Job, client: &Client, stream: i32) -> Result<Self> {
        let adding =
            client.async_add_subscription(AERON_IPC_STREAM, stream, Handlers::NONE, Handlers::NONE)?;
        let assembler =
            if is_whole(job.payload) { None } else { Some(AeronFragmentClosureAssembler::new()?) };
        Ok(Self { subscription: adding.poll_blocking(PATIENCE)?, assembler })
    }

    /// Gives the messages of up to so many fragments; says how many fragments there were.
    #[inline]
    fn poll<F: FnMut(&[u8])>(&mut self, fragments: usize, mut message: F) -> Result<i32> {
        Ok(match &mut self.assembler {
            None => self.subscription.poll_fn(|bytes, _| message(bytes), fragments)?,
            Some(assembler) => assembler.poll(&self.subscription, &mut message, give::<F>, fragments)?,
        })
    }
}

fn give<F: FnMut(&[u8])>(message: &mut F, bytes: &[u8], _: AeronHeader) {
    message(bytes);
}
