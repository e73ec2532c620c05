//! ZeroMQ (libzmq) over its `ipc` transport: pairs, a pipeline, and publish-subscribe.

use ::zmq::{Context, DONTWAIT, Message, PAIR, PULL, PUSH, SUB, Socket, SocketType, XPUB};

use super::Peer;
use super::ends::{self, From, To};
use crate::control::{First, Second};
use crate::job::{Figure, Job, Kind, Result, Row, SUBSCRIBERS, Workload};
use crate::measure::{Flood, drain_all, payload, write_stamp};

pub struct Zmq;

/// Messages that either side of a pipeline queues: enough for its threads to work in batches.
const QUEUE: i32 = 10_000;

impl Peer for Zmq {
    fn rows(&self) -> &'static [Row] {
        &[Row { name: "zmq", kind: Kind::Copied, takes: |workload, _| workload != Workload::Call }]
    }

    fn first(&self, job: &Job, second: &mut Second) -> Result<Figure> {
        let context = Context::new();
        match job.workload {
            Workload::Fanout => publish(job, second, &context),
            workload => {
                let kind = if workload == Workload::Rtt { PAIR } else { PUSH };
                let socket = bind(job, &context, kind)?;
                second.tell("bound")?;
                ends::first(job, second, In(&socket), Out(&socket, Message::new()))
            }
        }
    }

    fn second(&self, job: &Job, first: &mut First) -> Result<()> {
        let context = Context::new();
        first.hear()?;
        match job.workload {
            Workload::Fanout => subscribe(job, first, &context),
            workload => {
                let kind = if workload == Workload::Rtt { PAIR } else { PULL };
                let socket = connect(job, &context, kind)?;
                ends::second(job, first, In(&socket), Out(&socket, Message::new()))
            }
        }
    }
}

fn address(job: &Job) -> String {
    format!("ipc://{}", job.dir.join("zmq").display())
}

fn socket(job: &Job, context: &Context, kind: SocketType) -> Result<Socket> {
    let socket = context.socket(kind)?;
    // A publisher drops what it has no room for; without a bound nothing is lost.
    let most = if job.workload == Workload::Fanout { 0 } else { QUEUE };
    socket.set_sndhwm(most)?;
    socket.set_rcvhwm(most)?;
    socket.set_linger(0)?;
    Ok(socket)
}

fn bind(job: &Job, context: &Context, kind: SocketType) -> Result<Socket> {
    let socket = socket(job, context, kind)?;
    socket.bind(&address(job))?;
    Ok(socket)
}

fn connect(job: &Job, context: &Context, kind: SocketType) -> Result<Socket> {
    let socket = socket(job, context, kind)?;
    if kind == SUB {
        socket.set_subscribe(b"")?;
    }
    socket.connect(&address(job))?;
    Ok(socket)
}

struct In<'a>(&'a Socket);

impl To for In<'_> {
    fn send(&mut self, message: &[u8]) -> Result<()> {
        Ok(self.0.send(message, 0)?)
    }
}

/// Blocks, as its I/O thread needs the same CPU.
struct Out<'a>(&'a Socket, Message);

impl From for Out<'_> {
    fn receive(&mut self) -> Result<&[u8]> {
        self.0.recv(&mut self.1, 0)?;
        Ok(&self.1)
    }
}

fn publish(job: &Job, second: &mut Second, context: &Context) -> Result<Figure> {
    let publisher = socket(job, context, XPUB)?;
    publisher.set_xpub_verbose(true)?; // so that it hears of each subscriber
    publisher.bind(&address(job))?;
    second.tell("bound")?;
    for _ in 0..SUBSCRIBERS {
        publisher.recv_msg(0)?;
    }
    let mut message = payload(job.payload);
    Flood::new(job, SUBSCRIBERS).run(second, |stamp| {
        write_stamp(&mut message, stamp);
        Ok(publisher.send(&message, 0)?)
    })
}

fn subscribe(job: &Job, first: &mut First, context: &Context) -> Result<()> {
    let subscribers = (0..SUBSCRIBERS).map(|_| connect(job, context, SUB)).collect::<Result<Vec<_>>>()?;
    let mut message = Message::new();
    drain_all(first, |n, reading| match subscribers[n].recv(&mut message, DONTWAIT) {
        Ok(()) => reading.take(&message).map(|()| true),
        Err(::zmq::Error::EAGAIN) => {
            std::thread::yield_now(); // to its I/O thread
            Ok(false)
        }
        Err(error) => Err(error.into()),
    })
}
