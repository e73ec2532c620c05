//! shmipc (CloudWeGo): a stream over shared memory, with wake-ups by eventfd.

use std::os::unix::net::SocketAddr;

use ::shmipc::buffer::BufferReader;
use ::shmipc::config::{Config, SizePercentPair};
use ::shmipc::consts::MemMapType;
use ::shmipc::session::{SessionManager, SessionManagerConfig};
use ::shmipc::stream::Stream;
use ::shmipc::transport::{DefaultUnixConnect, DefaultUnixListen};
use ::shmipc::{Error, Listener};

use super::Peer;
use super::ends::there_and_back;
use crate::control::{First, Second};
use crate::job::{Figure, Job, Kind, Result, Row, Workload};
use crate::measure::{Flood, Reading, RoundTrips, STOP, payload, stamp_of, write_stamp};

pub struct Shmipc;

/// What its own benchmark takes.
const MEMORY: u32 = 256 << 20;

impl Peer for Shmipc {
    fn rows(&self) -> &'static [Row] {
        &[
            Row { name: "shmipc", kind: Kind::Copied, takes: |workload, _| there_and_back(workload) },
            Row { name: "shmipc lent", kind: Kind::Lent, takes: |workload, _| there_and_back(workload) },
        ]
    }

    fn first(&self, job: &Job, second: &mut Second) -> Result<Figure> {
        second.hear()?;
        runtime()?.block_on(async {
            let sessions = SessionManagerConfig::new().with_config(config(job)).with_session_num(1);
            let manager = SessionManager::new(sessions, DefaultUnixConnect, socket(job)?).await?;
            let mut stream = manager.get_stream()?;
            match job.workload {
                Workload::Rtt => round_trips(job, &mut stream).await,
                _ => flood(job, second, &mut stream).await,
            }
        })
    }

    fn second(&self, job: &Job, first: &mut First) -> Result<()> {
        runtime()?.block_on(async {
            let mut listener = Listener::new(DefaultUnixListen, socket(job)?, config(job)).await?;
            first.tell("listening");
            let mut stream = listener.accept().await?;
            match job.workload {
                Workload::Rtt => echo(job, &mut stream).await?,
                _ => drain(job, first, &mut stream).await?,
            }
            while first.batch_async().await?.is_some() {}
            Ok(())
        })
    }
}

/// Each process has one CPU, so one thread.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn socket(job: &Job) -> Result<SocketAddr> {
    Ok(SocketAddr::from_pathname(job.dir.join("shmipc"))?)
}

/// Bytes of a slice: it holds a message.
fn slice(job: &Job) -> u32 {
    job.payload as u32 + 256
}

/// Messages of which the sender is at most two such lots ahead, half of all slices: its receiver empties the queue before
/// anybody reads, so nothing else holds a sender up before it has used up all, and goes on through the socket.
fn window(job: &Job) -> u64 {
    u64::from(MEMORY / slice(job) / 4)
}

/// As its benchmark has it: slices that hold a message each, and room for many. The queue is no longer than
/// there are slices, or messages would go through the socket once they are used up.
fn config(job: &Job) -> Config {
    let slice = slice(job);
    let mut config = Config::default().with_v4_eventfd();
    config.mem_map_type = MemMapType::MemMapTypeMemFd;
    config.share_memory_buffer_cap = MEMORY;
    config.share_memory_path_prefix = job.dir.join("memory").to_string_lossy().into_owned();
    config.queue_path = job.dir.join("queue").to_string_lossy().into_owned();
    config.buffer_slice_sizes = vec![SizePercentPair { size: slice, percent: 100 }];
    config.queue_cap = (MEMORY / slice / 8).next_power_of_two().min(65536);
    config
}

/// Sends a message, copied in or written in place, and waits while the queue is full.
async fn send(job: &Job, stream: &mut Stream, message: &mut [u8], stamp: u64) -> Result<()> {
    if job.lent {
        write_stamp(stream.reserve(job.payload)?, stamp);
    } else {
        write_stamp(message, stamp);
        stream.write_bytes(message)?;
    }
    loop {
        match stream.flush(false).await {
            Ok(()) => return Ok(()),
            Err(Error::QueueFull) => tokio::task::yield_now().await,
            Err(error) => return Err(error.into()),
        }
    }
}

async fn round_trips(job: &Job, stream: &mut Stream) -> Result<Figure> {
    let mut message = payload(job.payload);
    let mut trips = RoundTrips::new(job);
    while let Some(stamp) = trips.next() {
        send(job, stream, &mut message, stamp).await?;
        let answer = stream.read_exact_bytes(job.payload).await?;
        trips.came(stamp_of(&answer))?;
        drop(answer);
        stream.release_read_and_reuse();
    }
    trips.figure()
}

async fn echo(job: &Job, stream: &mut Stream) -> Result<()> {
    let mut message = payload(job.payload);
    loop {
        let request = stream.read_exact_bytes(job.payload).await?;
        let stamp = stamp_of(&request);
        if !job.lent {
            message.copy_from_slice(&request);
        }
        drop(request);
        stream.recv_buf().release_previous_read();
        send(job, stream, &mut message, stamp).await?;
        if stamp == STOP {
            return Ok(());
        }
    }
}

async fn flood(job: &Job, second: &mut Second, stream: &mut Stream) -> Result<Figure> {
    let mut message = payload(job.payload);
    let mut flood = Flood::new(job, 1);
    while let Some(batch) = flood.batch(second)? {
        let (window, all, mut read) = (window(job), batch.end - batch.start, 0);
        for (sent, stamp) in (0..).zip(batch) {
            if sent / window > read + 1 {
                second.hear_async().await?;
                read += 1;
            }
            send(job, stream, &mut message, stamp).await?;
        }
        for _ in read..all / window {
            second.hear_async().await?;
        }
        flood.done(&second.hear_async().await?)?;
        if stream.fallback_state() {
            return Err("ran out of shared memory, and went on through the socket".into());
        }
    }
    flood.figure()
}

async fn drain(job: &Job, first: &mut First, stream: &mut Stream) -> Result<()> {
    let mut reading = Reading::default();
    while let Some(count) = first.batch_async().await? {
        for read in 1..=count {
            reading.take(&stream.read_exact_bytes(job.payload).await?)?;
            stream.recv_buf().release_previous_read();
            if read % window(job) == 0 {
                first.tell("a window");
            }
        }
        first.tell(&reading.take_sum().to_string());
    }
    Ok(())
}
