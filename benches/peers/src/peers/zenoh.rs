//! zenoh: two peers over a Unix socket or TCP, with shared memory for what is large or lent.

use std::sync::{Arc, Mutex, PoisonError, mpsc};

use ::zenoh::pubsub::Publisher;
use ::zenoh::qos::CongestionControl;
use ::zenoh::shm::{
    BlockOn, GarbageCollect, PosixShmProviderBackend, ShmProviderBuilder, ZShmMut,
    cleanup_orphaned_shm_segments,
};
use ::zenoh::{Config, Session, Wait};

use super::Peer;
use super::ends::there_and_back;
use crate::control::{First, Second};
use crate::job::{Figure, Job, Kind, Result, Row, Workload};
use crate::measure::{Flood, Reading, RoundTrips, STOP, payload, stamp_of, write_stamp};

pub struct Zenoh;

/// Bytes from which on messages go through shared memory by default.
const SHARED_FROM: usize = 3072;

impl Peer for Zenoh {
    fn rows(&self) -> &'static [Row] {
        &[
            Row { name: "zenoh", kind: Kind::Copied, takes: |workload, _| there_and_back(workload) },
            Row { name: "zenoh lent", kind: Kind::Lent, takes: |workload, _| there_and_back(workload) },
        ]
    }

    fn first(&self, job: &Job, second: &mut Second) -> Result<Figure> {
        let session = session(job, "connect", &second.hear()?)?;
        let (answers, pong) = mpsc::channel();
        let _pong = session
            .declare_subscriber("pong")
            .callback(move |sample| {
                let _ = answers.send(stamp_of(&sample.payload().to_bytes()));
            })
            .wait()?;
        let ping = Sender::new(job, &session, "ping")?;
        second.tell("declared")?;
        second.hear()?;
        while !ping.publisher.matching_status().wait()?.matching() {
            std::thread::yield_now();
        }
        let mut message = payload(job.payload);
        let mut send = |stamp| {
            write_stamp(&mut message, stamp);
            ping.send(&message)
        };
        if job.workload == Workload::Throughput {
            return Flood::new(job, 1).run(second, send);
        }
        let mut trips = RoundTrips::new(job);
        while let Some(stamp) = trips.next() {
            send(stamp)?;
            trips.came(pong.recv()?)?;
        }
        trips.figure()
    }

    fn second(&self, job: &Job, first: &mut First) -> Result<()> {
        let address = address(job)?;
        let session = session(job, "listen", &address)?;
        first.tell(&address);
        first.hear()?;
        if job.workload == Workload::Throughput { drain(first, &session) } else { echo(job, first, &session) }
    }

    fn clean(&self, _job: &Job) {
        cleanup_orphaned_shm_segments();
    }
}

fn echo(job: &Job, first: &mut First, session: &Session) -> Result<()> {
    let pong = Sender::new(job, session, "pong")?;
    while !pong.publisher.matching_status().wait()?.matching() {
        std::thread::yield_now();
    }
    let (ends, end) = mpsc::channel();
    let _ping = session
        .declare_subscriber("ping")
        .callback(move |sample| {
            let message = sample.payload().to_bytes();
            let stamp = stamp_of(&message);
            let sent = pong.send(&message);
            if stamp == STOP || sent.is_err() {
                let _ = ends.send(sent);
            }
        })
        .wait()?;
    first.tell("echoing");
    end.recv()??;
    first.wait_for_end();
    Ok(())
}

/// What the callback has read, and where the batch ends, if that is known yet.
#[derive(Default)]
struct Drained {
    reading: Reading,
    end: Option<u64>,
    failed: Option<String>,
}

impl Drained {
    /// The sum, once all of the batch was read.
    fn sum(&mut self) -> Option<Result<u64>> {
        if let Some(reason) = self.failed.take() {
            return Some(Err(reason.into()));
        }
        self.end.take_if(|end| *end == self.reading.due()).map(|_| Ok(self.reading.take_sum()))
    }
}

/// Reads in the callback, as its documentation advises for throughput.
fn drain(first: &mut First, session: &Session) -> Result<()> {
    let drained = Arc::new(Mutex::new(Drained::default()));
    let (sums, sum) = mpsc::channel();
    let by_callback = (drained.clone(), sums.clone());
    let _ping = session
        .declare_subscriber("ping")
        .callback(move |sample| {
            let mut drained = by_callback.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = drained.reading.take(&sample.payload().to_bytes()) {
                drained.failed = Some(error.to_string());
            }
            if let Some(outcome) = drained.sum() {
                let _ = by_callback.1.send(outcome);
            }
        })
        .wait()?;
    first.tell("draining");
    let mut end = 0;
    while let Some(count) = first.batch()? {
        end += count;
        {
            let mut drained = drained.lock().unwrap_or_else(PoisonError::into_inner);
            drained.end = Some(end);
            if let Some(outcome) = drained.sum() {
                let _ = sums.send(outcome);
            }
        }
        first.tell(&sum.recv()??.to_string());
    }
    Ok(())
}

/// Allocates room for one message, in shared memory.
type Lender = Box<dyn Fn() -> Result<ZShmMut> + Send + Sync>;

/// The layout is computed once, as its documentation advises. It borrows from the provider, which stays until the
/// process ends.
fn lender(len: usize) -> Result<Lender> {
    let backend = PosixShmProviderBackend::builder((64 * len).max(1 << 20)).wait()?;
    let provider = Box::leak(Box::new(ShmProviderBuilder::backend(backend).wait()));
    let layout = provider.alloc_layout(len)?;
    Ok(Box::new(move || Ok(layout.alloc().with_policy::<BlockOn<GarbageCollect>>().wait()?)))
}

struct Sender {
    publisher: Publisher<'static>,
    lends: Option<Lender>,
}

impl Sender {
    fn new(job: &Job, session: &Session, key: &'static str) -> Result<Self> {
        let publisher = session
            .declare_publisher(key)
            .congestion_control(CongestionControl::Block)
            .express(job.workload == Workload::Rtt) // else small messages travel in batches
            .wait()?;
        let lends = if job.lent { Some(lender(job.payload)?) } else { None };
        Ok(Self { publisher, lends })
    }

    /// Copies a message in; lent, only its stamp.
    fn send(&self, message: &[u8]) -> Result<()> {
        match &self.lends {
            Some(lend) => {
                let mut buffer = lend()?;
                write_stamp(&mut buffer, stamp_of(message));
                self.publisher.put(buffer).wait()
            }
            None => self.publisher.put(message).wait(),
        }
    }
}

/// Nothing but the one connection: no scouting.
fn session(job: &Job, how: &str, address: &str) -> Result<Session> {
    let mut config = Config::default();
    // For messages that fit a batch, as what is lent always does; it excludes QoS, and batching.
    let low_latency = job.lent || (job.workload == Workload::Rtt && job.payload < SHARED_FROM);
    for (key, value) in [
        ("mode", r#""peer""#),
        ("scouting/multicast/enabled", "false"),
        ("scouting/gossip/enabled", "false"),
        ("transport/shared_memory/enabled", "true"),
        ("transport/shared_memory/mode", r#""init""#),
        ("transport/unicast/qos/enabled", if low_latency { "false" } else { "true" }),
        ("transport/unicast/lowlatency", if low_latency { "true" } else { "false" }),
        ("listen/endpoints", "[]"),
        (&format!("{how}/endpoints"), &format!(r#"["{address}"]"#)),
    ] {
        config.insert_json5(key, value)?;
    }
    ::zenoh::open(config).wait()
}

/// Where the second process listens. Round trips are faster over a Unix socket, floods over TCP.
fn address(job: &Job) -> Result<String> {
    if job.workload == Workload::Rtt {
        return Ok(format!("unixsock-stream/{}", job.dir.join("zenoh").display()));
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    Ok(format!("tcp/127.0.0.1:{free}"))
}
