//! The bus between two processes, as the two loops of `line` and `flow` drive it.

use super::super::Outcome;
use super::child::Side;
use super::event::Event;
use super::flow::{self, Sink, Source, Tally, sum};
use super::line::{self, HEADER, Part, STOP, get, put};
use super::protocol::{BusFlow, BusLine, Measured, PATIENCE, Waiting};
use crate::{
    Node, OpenError, Overflow, Publisher, PublisherBuilder, RawPublisher, RawSubscriber, RecvError,
    Subscriber,
};

/// Topics of what flows one way; those that nobody publishes on are among them.
const FLOW: &str = "flow/*";

/// A publisher as it is by default, but for how it waits.
fn publisher<'n>(node: &'n Node, topic: &'n str, wait: Waiting) -> PublisherBuilder<'n> {
    // A reader that gets no time for a second is slow, not gone.
    node.publisher_builder(topic).wait(wait.into()).overflow(Overflow::Block { timeout: PATIENCE })
}

/// Logs beside the one in use, on which nothing is ever published.
fn idle_logs(node: &Node, prefix: &str, count: usize) -> Outcome<Vec<RawPublisher>> {
    let open = |index| node.publisher_builder(&format!("{prefix}/idle-{index}")).capacity(4096).open_raw();
    Ok((0..count).map(open).collect::<Result<_, OpenError>>()?)
}

fn attached(publisher: &RawPublisher) -> Outcome {
    Ok(publisher.wait_for_subscribers(1, PATIENCE)?)
}

/// What this side publishes on, and what it subscribes to.
fn directions(part: Part) -> (&'static str, &'static str) {
    match part {
        Part::Ping { .. } => ("ping", "pong"),
        Part::Echo => ("pong", "ping"),
    }
}

/// Bytes to and fro, copied in or lent; read in place.
pub(super) struct RawLine {
    publisher: RawPublisher,
    subscriber: RawSubscriber,
    _idle: Vec<RawPublisher>,
    loan: bool,
    bytes: Vec<u8>,
}

impl RawLine {
    pub(super) fn open(kind: &BusLine, part: Part, side: Side<'_>) -> Outcome<Self> {
        let node = side.join()?;
        let (out, back) = directions(part);
        let subscriber = node.subscriber_builder(&format!("{back}/*")).wait(kind.wait.into()).open_raw()?;
        let publisher = publisher(&node, &format!("{out}/active"), kind.wait).open_raw()?;
        let idle = idle_logs(&node, out, kind.idle_logs)?;
        side.ready(None)?;
        idle.iter().chain([&publisher]).try_for_each(attached)?;
        Ok(Self { publisher, subscriber, _idle: idle, loan: kind.loan, bytes: vec![7; kind.payload] })
    }
}

impl line::Line for RawLine {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Outcome {
        put(&mut self.bytes, number);
        if !self.loan {
            return Ok(self.publisher.publish(&self.bytes)?);
        }
        let mut lent = self.publisher.loan(self.bytes.len())?;
        let head = lent.len().min(HEADER);
        lent[..head].copy_from_slice(&self.bytes[..head]);
        Ok(lent.send()?)
    }

    #[inline(always)]
    fn receive(&mut self) -> Outcome<u64> {
        let sample = self.subscriber.recv()?;
        let head = self.bytes.len().min(HEADER);
        self.bytes[..head].copy_from_slice(sample.get(..head).ok_or("a message came back shortened")?);
        Ok(get(&self.bytes[..head]))
    }
}

/// Values to and fro.
pub(super) struct TypedLine {
    publisher: Publisher<Event>,
    subscriber: Subscriber<Event>,
    _idle: Vec<RawPublisher>,
    event: Event,
}

impl TypedLine {
    pub(super) fn open(kind: &BusLine, part: Part, side: Side<'_>) -> Outcome<Self> {
        let node = side.join()?;
        let (out, back) = directions(part);
        let subscriber = node.subscriber_builder(&format!("{back}/*")).wait(kind.wait.into()).open()?;
        let publisher = publisher(&node, &format!("{out}/active"), kind.wait).open()?;
        let idle = idle_logs(&node, out, kind.idle_logs)?;
        side.ready(None)?;
        idle.iter().try_for_each(attached)?;
        publisher.wait_for_subscribers(1, PATIENCE)?;
        Ok(Self { publisher, subscriber, _idle: idle, event: Event::of_payload(kind.payload) })
    }
}

impl line::Line for TypedLine {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Outcome {
        self.event.id = number;
        Ok(self.publisher.publish(&self.event)?)
    }

    #[inline(always)]
    fn receive(&mut self) -> Outcome<u64> {
        let event = self.subscriber.recv()?.into_inner();
        let id = event.id;
        self.event = event;
        Ok(id)
    }
}

pub(super) fn send(kind: &BusFlow, seconds: f64, side: Side<'_>) -> Outcome<Measured> {
    let node = side.join()?;
    let topics: Vec<String> = (0..kind.publishers).map(|index| format!("flow/{index}")).collect();
    let builders = topics.iter().map(|topic| publisher(&node, topic, kind.wait));
    let idle = idle_logs(&node, "flow", kind.idle_logs)?;
    if kind.typed {
        let publishers = builders.map(PublisherBuilder::open).collect::<Result<Vec<_>, _>>()?;
        side.ready(None)?;
        for publisher in &publishers {
            publisher.wait_for_subscribers(kind.subscribers, PATIENCE)?;
        }
        idle.iter().try_for_each(attached)?;
        let event = Event::of_payload(kind.payload);
        return flow::send(&mut TypedSource { publishers, turn: 0, event }, kind.payload, seconds);
    }
    let publishers = builders.map(PublisherBuilder::open_raw).collect::<Result<Vec<_>, _>>()?;
    side.ready(None)?;
    for publisher in &publishers {
        publisher.wait_for_subscribers(kind.subscribers, PATIENCE)?;
    }
    idle.iter().try_for_each(attached)?;
    let bytes = vec![7; kind.payload];
    flow::send(&mut RawSource { publishers, turn: 0, loan: kind.loan, bytes }, kind.payload, seconds)
}

#[inline(always)]
fn next(turn: usize, of: usize) -> usize {
    if turn + 1 == of { 0 } else { turn + 1 }
}

struct RawSource {
    publishers: Vec<RawPublisher>,
    turn: usize,
    loan: bool,
    bytes: Vec<u8>,
}

impl Source for RawSource {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Outcome {
        put(&mut self.bytes, number);
        let publisher = &mut self.publishers[self.turn];
        if self.loan {
            let mut lent = publisher.loan(self.bytes.len())?;
            let head = lent.len().min(HEADER);
            lent[..head].copy_from_slice(&self.bytes[..head]);
            lent.send()?;
        } else {
            publisher.publish(&self.bytes)?;
        }
        self.turn = next(self.turn, self.publishers.len());
        Ok(())
    }

    fn stop(&mut self) -> Outcome {
        (0..self.publishers.len()).try_for_each(|_| self.send(STOP))
    }
}

struct TypedSource {
    publishers: Vec<Publisher<Event>>,
    turn: usize,
    event: Event,
}

impl Source for TypedSource {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Outcome {
        self.event.id = number;
        self.publishers[self.turn].publish(&self.event)?;
        self.turn = next(self.turn, self.publishers.len());
        Ok(())
    }

    fn stop(&mut self) -> Outcome {
        (0..self.publishers.len()).try_for_each(|_| self.send(STOP))
    }
}

pub(super) fn receive(kind: &BusFlow, side: Side<'_>) -> Outcome<Measured> {
    let node = side.join()?;
    let builders = (0..kind.subscribers).map(|_| node.subscriber_builder(FLOW).wait(kind.wait.into()));
    let logs = kind.publishers * kind.subscribers;
    if kind.typed {
        let ports = builders.map(|builder| builder.open()).collect::<Result<_, _>>()?;
        side.ready(None)?;
        return flow::receive(&mut TypedSink { ports, turn: 0 }, logs);
    }
    let ports = builders.map(|builder| builder.open_raw()).collect::<Result<_, _>>()?;
    side.ready(None)?;
    flow::receive(&mut RawSink { ports, turn: 0 }, logs)
}

/// All ports get everything, so taking one message from each in turn waits for nobody in vain.
struct RawSink {
    ports: Vec<RawSubscriber>,
    turn: usize,
}

impl Sink for RawSink {
    #[inline(always)]
    fn receive(&mut self, tally: &mut Tally) -> Outcome {
        match self.ports[self.turn].recv() {
            Ok(sample) => tally.read(&sample),
            Err(RecvError::Lagged { .. }) => return Ok(()), // missing in the tally
            Err(error) => return Err(error.into()),
        }
        self.turn = next(self.turn, self.ports.len());
        Ok(())
    }
}

struct TypedSink {
    ports: Vec<Subscriber<Event>>,
    turn: usize,
}

impl Sink for TypedSink {
    #[inline(always)]
    fn receive(&mut self, tally: &mut Tally) -> Outcome {
        match self.ports[self.turn].recv() {
            Ok(event) => {
                let words = event.stamp.wrapping_add(event.value.to_bits());
                tally.add(event.id, words.wrapping_add(sum(event.label.as_bytes())));
            }
            Err(RecvError::Lagged { .. }) => return Ok(()), // missing in the tally
            Err(error) => return Err(error.into()),
        }
        self.turn = next(self.turn, self.ports.len());
        Ok(())
    }
}
