//! ringbus itself: bytes copied in, bytes lent, values; events and calls.

use std::time::Duration;

use ::ringbus::{Bus, Node, Overflow, Publisher, RawPublisher, RawSubscriber, Subscriber, Wait};

use super::Peer;
use super::typed::Event;
use crate::control::{First, Second};
use crate::job::{Figure, Job, Kind, Result, Row, SUBSCRIBERS, Workload};
use crate::measure::{Flood, RoundTrips, STOP, drain, drain_all, payload, stamp_of, write_stamp};

pub struct Ringbus;

const PATIENCE: Duration = Duration::from_secs(10);

impl Peer for Ringbus {
    fn rows(&self) -> &'static [Row] {
        &[
            Row { name: "ringbus", kind: Kind::Copied, takes: |_, _| true },
            Row {
                name: "ringbus lent",
                kind: Kind::Lent,
                takes: |workload, _| matches!(workload, Workload::Rtt | Workload::Throughput),
            },
            Row { name: "ringbus typed", kind: Kind::Typed, takes: |_, payload| payload == 64 },
        ]
    }

    fn first(&self, job: &Job, second: &mut Second) -> Result<Figure> {
        let node = join(job, "first")?;
        if job.workload == Workload::Call {
            return call(job, second, &node);
        }
        if job.typed {
            return first_typed(job, second, &node);
        }
        let mut pong = subscriber(&node, "pong")?;
        second.hear()?;
        let mut ping = publisher(job, &node, "ping")?;
        let mut message = payload(job.payload);
        let mut send = |stamp| {
            if job.lent {
                let mut loan = ping.loan(job.payload)?;
                write_stamp(&mut loan, stamp);
                loan.send()?;
            } else {
                write_stamp(&mut message, stamp);
                ping.publish(&message)?;
            }
            Ok(())
        };
        match job.workload {
            Workload::Rtt => {
                let mut trips = RoundTrips::new(job);
                while let Some(stamp) = trips.next() {
                    send(stamp)?;
                    trips.came(stamp_of(&pong.recv()?))?;
                }
                trips.figure()
            }
            _ => Flood::new(job, subscribers(job)).run(second, send),
        }
    }

    fn second(&self, job: &Job, first: &mut First) -> Result<()> {
        let node = join(job, "second")?;
        match job.workload {
            Workload::Call => serve(&node, first),
            Workload::Fanout if job.typed => {
                let mut pings: Vec<Subscriber<Event>> =
                    (0..SUBSCRIBERS).map(|_| typed_subscriber(&node, "ping")).collect::<Result<_>>()?;
                first.tell("ready");
                drain_all(first, |n, reading| match pings[n].try_recv()? {
                    Some(event) => reading.take_stamp(event.id).map(|()| true),
                    None => Ok(false),
                })
            }
            Workload::Fanout => {
                let mut pings: Vec<RawSubscriber> =
                    (0..SUBSCRIBERS).map(|_| subscriber(&node, "ping")).collect::<Result<_>>()?;
                first.tell("ready");
                drain_all(first, |n, reading| match pings[n].try_recv()? {
                    Some(sample) => reading.take(&sample).map(|()| true),
                    None => Ok(false),
                })
            }
            Workload::Throughput if job.typed => {
                let mut ping = typed_subscriber(&node, "ping")?;
                first.tell("ready");
                drain(first, |reading| reading.take_stamp(ping.recv()?.id))
            }
            Workload::Throughput => {
                let mut ping = subscriber(&node, "ping")?;
                first.tell("ready");
                drain(first, |reading| reading.take(&ping.recv()?))
            }
            Workload::Rtt if job.typed => {
                let mut ping = typed_subscriber(&node, "ping")?;
                first.tell("ready");
                let mut pong = typed_publisher(job, &node, "pong")?;
                loop {
                    let event = ping.recv()?;
                    pong.publish(&event)?;
                    if event.id == STOP {
                        break;
                    }
                }
                first.wait_for_end();
                Ok(())
            }
            Workload::Rtt => {
                let mut ping = subscriber(&node, "ping")?;
                first.tell("ready");
                let mut pong = publisher(job, &node, "pong")?;
                loop {
                    let sample = ping.recv()?;
                    let stamp = stamp_of(&sample);
                    if job.lent {
                        let mut loan = pong.loan(job.payload)?;
                        write_stamp(&mut loan, stamp);
                        loan.send()?;
                    } else {
                        pong.publish(&sample)?;
                    }
                    if stamp == STOP {
                        break;
                    }
                }
                first.wait_for_end();
                Ok(())
            }
        }
    }
}

fn first_typed(job: &Job, second: &mut Second, node: &Node) -> Result<Figure> {
    let mut pong = typed_subscriber(node, "pong")?;
    second.hear()?;
    let mut ping = typed_publisher(job, node, "ping")?;
    let mut event = Event::new(0);
    let mut send = |stamp| {
        event.id = stamp;
        Ok(ping.publish(&event)?)
    };
    match job.workload {
        Workload::Rtt => {
            let mut trips = RoundTrips::new(job);
            while let Some(stamp) = trips.next() {
                send(stamp)?;
                trips.came(pong.recv()?.id)?;
            }
            trips.figure()
        }
        _ => Flood::new(job, subscribers(job)).run(second, send),
    }
}

fn call(job: &Job, second: &mut Second, node: &Node) -> Result<Figure> {
    second.hear()?;
    let client = node.client_builder("echo").wait(Wait::Spin).open()?;
    client.wait_for_server(PATIENCE)?;
    let mut trips = RoundTrips::new(job);
    if job.typed {
        let mut event = Event::new(0);
        while let Some(stamp) = trips.next() {
            event.id = stamp;
            let answer: Event = client.call("typed", &event)?;
            trips.came(answer.id)?;
        }
    } else {
        let mut message = payload(job.payload);
        while let Some(stamp) = trips.next() {
            write_stamp(&mut message, stamp);
            trips.came(stamp_of(&client.request("raw").send_raw(&message)?))?;
        }
    }
    trips.figure()
}

fn serve(node: &Node, first: &mut First) -> Result<()> {
    let _server = node
        .service("echo")
        .method("typed", |_, event: Event| Ok(event))
        .raw_method("raw", |ctx, bytes| {
            let mut answer = ctx.loan(bytes.len())?;
            answer.copy_from_slice(bytes);
            Ok(answer)
        })
        .wait(Wait::Spin)
        .spawn()?;
    first.tell("ready");
    first.wait_for_end();
    Ok(())
}

fn join(job: &Job, name: &str) -> Result<Node> {
    Ok(Bus::builder("peers").dir(&job.dir).open()?.join(name)?)
}

fn subscriber(node: &Node, topic: &str) -> Result<RawSubscriber> {
    Ok(node.subscriber_builder(topic).wait(Wait::Spin).open_raw()?)
}

fn typed_subscriber(node: &Node, topic: &str) -> Result<Subscriber<Event>> {
    Ok(node.subscriber_builder(topic).wait(Wait::Spin).open()?)
}

fn subscribers(job: &Job) -> usize {
    if job.workload == Workload::Fanout { SUBSCRIBERS } else { 1 }
}

fn publisher(job: &Job, node: &Node, topic: &str) -> Result<RawPublisher> {
    let publisher = node
        .publisher_builder(topic)
        .overflow(Overflow::Block { timeout: PATIENCE })
        .wait(Wait::Spin)
        .open_raw()?;
    publisher.wait_for_subscribers(subscribers(job), PATIENCE)?;
    Ok(publisher)
}

fn typed_publisher(job: &Job, node: &Node, topic: &str) -> Result<Publisher<Event>> {
    let publisher = node
        .publisher_builder(topic)
        .overflow(Overflow::Block { timeout: PATIENCE })
        .wait(Wait::Spin)
        .open()?;
    publisher.wait_for_subscribers(subscribers(job), PATIENCE)?;
    Ok(publisher)
}
