//! iceoryx2: publish-subscribe and request-response over `ipc::Service`, polled.
#![allow(unsafe_code)] // its way to send a loan of which not every byte was written

use ::iceoryx2::config::Config;
use ::iceoryx2::node::{Node, NodeBuilder};
use ::iceoryx2::port::LoanError;
use ::iceoryx2::port::client::Client;
use ::iceoryx2::port::publisher::Publisher;
use ::iceoryx2::port::subscriber::Subscriber;
use ::iceoryx2::prelude::*;
use ::iceoryx2::sample::Sample;
use ::iceoryx2::sample_mut::SampleMut;
use ::iceoryx2::service::port_factory::publish_subscribe::PortFactory as Events;
use ::iceoryx2::service::port_factory::request_response::PortFactory as Calls;

use super::Peer;
use crate::control::{First, Second};
use crate::job::{Figure, Job, Kind, Result, Row, SUBSCRIBERS, Workload};
use crate::measure::{Flood, RoundTrips, STOP, drain, drain_all, payload, stamp_of, write_stamp};

pub struct Iceoryx2;

type Ipc = ipc::Service;
/// What a call carries: of a fixed size, as its documentation advises.
type Block = [u64; 8];

/// Messages that a subscriber may be behind: more gave nothing with small messages, and less with large ones.
const BUFFER: usize = 4;

impl Peer for Iceoryx2 {
    fn rows(&self) -> &'static [Row] {
        &[
            Row { name: "iceoryx2", kind: Kind::Copied, takes: |_, _| true },
            Row {
                name: "iceoryx2 lent",
                kind: Kind::Lent,
                takes: |workload, _| workload != Workload::Fanout,
            },
        ]
    }

    fn first(&self, job: &Job, second: &mut Second) -> Result<Figure> {
        let node = node(job)?;
        if job.workload == Workload::Call {
            let calls = calls(job, &node)?;
            second.hear()?;
            return call(job, &calls.client_builder().create()?);
        }
        let (ping, pong) = (events(job, &node, "ping")?, events(job, &node, "pong")?);
        second.hear()?;
        let publisher = publisher(job, &ping)?;
        let pong = pong.subscriber_builder().create()?;
        second.tell("ready")?;
        second.hear()?;
        let mut message = payload(job.payload);
        let mut send = |stamp| {
            if job.lent {
                return send_lent(lend(&publisher, job.payload)?, stamp);
            }
            write_stamp(&mut message, stamp);
            send_copied(&publisher, &message)
        };
        match job.workload {
            Workload::Rtt if job.lent => {
                let mut trips = RoundTrips::new(job);
                let mut next = lend(&publisher, job.payload)?;
                while let Some(stamp) = trips.next() {
                    send_lent(next, stamp)?;
                    next = lend(&publisher, job.payload)?; // while the answer is under way, as its own benchmark does
                    trips.came(stamp_of(receive(&pong)?.payload()))?;
                }
                trips.figure()
            }
            Workload::Rtt => {
                let mut trips = RoundTrips::new(job);
                while let Some(stamp) = trips.next() {
                    send(stamp)?;
                    trips.came(stamp_of(receive(&pong)?.payload()))?;
                }
                trips.figure()
            }
            Workload::Fanout => Flood::new(job, SUBSCRIBERS).run(second, send),
            _ => Flood::new(job, 1).run(second, send),
        }
    }

    fn second(&self, job: &Job, first: &mut First) -> Result<()> {
        let node = node(job)?;
        if job.workload == Workload::Call {
            return serve(job, &node, first);
        }
        let (ping, pong) = (events(job, &node, "ping")?, events(job, &node, "pong")?);
        let count = if job.workload == Workload::Fanout { SUBSCRIBERS } else { 1 };
        let pings = (0..count).map(|_| ping.subscriber_builder().create()).collect::<Result<Vec<_>, _>>()?;
        first.tell("ready");
        first.hear()?;
        // Connects to the publisher, which so far it has only heard of.
        for ping in &pings {
            ping.has_samples()?;
        }
        let publisher = publisher(job, &pong)?;
        first.tell("connected");
        match job.workload {
            Workload::Rtt => loop {
                let lent = job.lent.then(|| lend(&publisher, job.payload)).transpose()?;
                let sample = receive(&pings[0])?;
                let stamp = stamp_of(sample.payload());
                match lent {
                    Some(lent) => send_lent(lent, stamp)?,
                    None => send_copied(&publisher, sample.payload())?,
                }
                if stamp == STOP {
                    first.wait_for_end();
                    return Ok(());
                }
            },
            Workload::Fanout => drain_all(first, |n, reading| match pings[n].receive()? {
                Some(sample) => reading.take(sample.payload()).map(|()| true),
                None => Ok(false),
            }),
            _ => drain(first, |reading| reading.take(receive(&pings[0])?.payload())),
        }
    }

    fn clean(&self, job: &Job) {
        let left = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
        for file in left.filter(|file| file.file_name().to_string_lossy().starts_with(&job.unique(""))) {
            let _ = std::fs::remove_file(file.path());
        }
    }
}

// --- events -----------------------------------------------------------------------------------------

fn send_copied(publisher: &Publisher<Ipc, [u8], ()>, message: &[u8]) -> Result<()> {
    publisher.loan_slice_uninit(message.len())?.write_from_slice(message).send()?;
    Ok(())
}

fn lend(publisher: &Publisher<Ipc, [u8], ()>, len: usize) -> Result<SampleMut<Ipc, [u8], ()>> {
    // SAFETY: it is a mapped segment of iceoryx2's, so every byte has a value, and any value is a `u8`.
    Ok(unsafe { publisher.loan_slice_uninit(len)?.assume_init() })
}

fn send_lent(mut sample: SampleMut<Ipc, [u8], ()>, stamp: u64) -> Result<()> {
    write_stamp(sample.payload_mut(), stamp);
    sample.send()?;
    Ok(())
}

#[inline]
fn receive(subscriber: &Subscriber<Ipc, [u8], ()>) -> Result<Sample<Ipc, [u8], ()>> {
    loop {
        if let Some(sample) = subscriber.receive()? {
            return Ok(sample);
        }
    }
}

/// A root and a prefix of its own, so that no other run's nodes are looked at.
fn node(job: &Job) -> Result<Node<Ipc>> {
    set_log_level(LogLevel::Error);
    let mut config = Config::default();
    config.global.set_root_path(&job.dir.join("iceoryx2").to_string_lossy().as_ref().try_into()?);
    config.global.prefix = job.unique("").as_str().try_into()?;
    Ok(NodeBuilder::new().config(&config).create::<Ipc>()?)
}

fn events(job: &Job, node: &Node<Ipc>, topic: &str) -> Result<Events<Ipc, [u8], ()>> {
    Ok(node
        .service_builder(&job.unique(topic).as_str().try_into()?)
        .publish_subscribe::<[u8]>()
        .payload_alignment(Alignment::new(64).ok_or("no such alignment")?)
        .max_publishers(1)
        .max_subscribers(SUBSCRIBERS)
        .max_nodes(2)
        .history_size(0)
        .subscriber_max_buffer_size(BUFFER)
        .subscriber_max_borrowed_samples(1)
        .enable_safe_overflow(false)
        .open_or_create()?)
}

fn publisher(job: &Job, events: &Events<Ipc, [u8], ()>) -> Result<Publisher<Ipc, [u8], ()>> {
    Ok(events
        .publisher_builder()
        .initial_max_slice_len(job.payload)
        .max_loaned_samples(1)
        .allocation_strategy(AllocationStrategy::Static)
        .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
        .create()?)
}

// --- calls ------------------------------------------------------------------------------------------

fn calls(job: &Job, node: &Node<Ipc>) -> Result<Calls<Ipc, Block, (), Block, ()>> {
    Ok(node
        .service_builder(&job.unique("echo").as_str().try_into()?)
        .request_response::<Block, Block>()
        .max_clients(1)
        .max_servers(1)
        .max_nodes(2)
        .max_active_requests_per_client(1)
        .max_response_buffer_size(BUFFER)
        .enable_safe_overflow_for_requests(false)
        .enable_safe_overflow_for_responses(false)
        .open_or_create()?)
}

fn call(job: &Job, client: &Client<Ipc, Block, (), Block, ()>) -> Result<Figure> {
    let mut message: Block = std::array::from_fn(|n| n as u64);
    let mut trips = RoundTrips::new(job);
    // SAFETY: it is a mapped segment of iceoryx2's, so every byte has a value, and any value will do.
    let lend = || Ok::<_, LoanError>(unsafe { client.loan_uninit()?.assume_init() });
    let mut next = job.lent.then(lend).transpose()?;
    while let Some(stamp) = trips.next() {
        let pending = match next.take() {
            Some(mut request) => {
                request.payload_mut()[0] = stamp;
                let pending = request.send()?;
                next = Some(lend()?); // while the answer is under way, as above
                pending
            }
            None => {
                message[0] = stamp;
                client.send_copy(message)?
            }
        };
        let response = loop {
            if let Some(response) = pending.receive()? {
                break response;
            }
        };
        trips.came(response.payload()[0])?;
    }
    trips.figure()
}

fn serve(job: &Job, node: &Node<Ipc>, first: &mut First) -> Result<()> {
    let calls = calls(job, node)?;
    let server = calls.server_builder().create()?;
    first.tell("ready");
    let mut stamp = 0;
    while stamp != STOP {
        let Some(request) = server.receive()? else { continue };
        stamp = request.payload()[0];
        if job.lent {
            // SAFETY: it is a mapped segment of iceoryx2's, so every byte has a value, and any value will do.
            let mut response = unsafe { request.loan_uninit()?.assume_init() };
            response.payload_mut()[0] = stamp;
            response.send()?;
        } else {
            request.send_copy(*request.payload())?;
        }
    }
    first.wait_for_end();
    Ok(())
}
