//! What is counted: one thread, nobody sleeps, and what a kernel needs is there before it begins.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use ringbus::internals::frame::{Code, Encoding, Head, Headers, decode_head, finish_payload};
use ringbus::internals::ring::{CursorSegment, Gates, Kind, LogHeader, LogLayout, Next, Reader, Writer};
use ringbus::internals::segment::Heap;
use ringbus::{Bus, Node, Publisher, RawPublisher, RawSubscriber, Subscriber, Wait};
use serde::{Deserialize, Serialize};

/// Messages between two looks at the other side; a few dozen KiB, less than the eighth of a log after which a
/// reader stores its cursor.
const BATCH: u32 = 256;
/// Batches counted: all in all the log goes round more than once.
const ROUNDS: u32 = 16;

/// Pairs of kernels that differ by seven readers.
pub const FANS: [(&str, &str); 2] = [
    ("ring: write 64 B, 1 reader", "ring: write 64 B, 8 readers"),
    ("bus: publish 64 B raw, 1 subscriber", "bus: publish 64 B raw, 8 subscribers"),
];

/// Runs all kernels; the name of each, and its messages.
pub fn run() -> Vec<(String, u32)> {
    let mut done = Kernels::default();
    ring(&mut done);
    frames(&mut done);
    events(&mut done);
    done.0
}

/// Callgrind counts what this calls, and looks at what else is called only while it counts.
#[inline(never)]
fn measured(times: u32, body: &mut impl FnMut()) {
    for _ in 0..times {
        body();
    }
}

/// Callgrind begins again at 0 before this.
#[inline(never)]
fn begins() {
    black_box(0);
}

/// Callgrind writes a profile after this.
#[inline(never)]
fn ends() {
    black_box(1);
}

#[derive(Default)]
struct Kernels(Vec<(String, u32)>);

impl Kernels {
    /// Counts `body`, called once a message; `state` is shared with `between`, which is called before each batch
    /// and does not count.
    fn count<S>(&mut self, name: &str, state: &mut S, between: impl Fn(&mut S), body: impl Fn(&mut S)) {
        for round in 0..=ROUNDS {
            between(state);
            if round == 1 {
                measured(1, &mut begins); // the first round took over gates, and grew what grows once
            }
            measured(BATCH, &mut || body(state));
        }
        measured(1, &mut ends);
        between(state);
        self.0.push((name.to_owned(), BATCH * ROUNDS));
    }
}

fn readers(count: usize) -> String {
    if count == 1 { "1 reader".into() } else { format!("{count} readers") }
}

// --- the bare ring ----------------------------------------------------------------------------------

const CAPACITY: u64 = 256 * 1024;
const CURSORS: usize = 4096;

struct Ring {
    writer: Writer<Heap, Heap, ()>,
    readers: Vec<Reader<Heap, Heap>>,
    frame: [u8; 64],
}

impl Ring {
    fn new(readers: usize) -> Self {
        let layout = LogLayout::new(CAPACITY).unwrap();
        let log = Heap::new(layout.segment_size());
        layout.initialise(&log, &LogHeader { log: 1, node: [0; 16], port: 1 });
        let gates = Arc::new(Gates::new());
        let at = CursorSegment::of_size(CURSORS).cursor(0).unwrap();
        let readers = (0..readers)
            .map(|_| {
                let cursors = Heap::new(CURSORS);
                let gate = gates.add_first(cursors.clone(), ()).unwrap();
                gates.follow(gate.number(), cursors.clone(), at);
                Reader::new(log.clone(), layout, cursors, at, gate.number(), 0, Some(0)).unwrap()
            })
            .collect();
        Self { writer: Writer::new(log, layout, gates), readers, frame: [7; 64] }
    }

    #[inline(always)]
    fn write(&mut self) {
        let frame = black_box(&self.frame);
        self.writer.claim(frame.len() as u64).unwrap();
        self.writer.body_mut()[..frame.len()].copy_from_slice(frame);
        self.writer.commit(Kind::Frame, 0, 0, frame.len());
        self.writer.publish();
        self.writer.ring(|()| true, |()| unreachable!("nobody sleeps"));
    }

    #[inline(always)]
    fn read(&mut self, reader: usize) {
        let reader = &mut self.readers[reader];
        let Ok(Next::Record(_)) = reader.next() else { unreachable!("there is a record") };
        black_box(reader.frame());
        reader.release();
    }

    fn drain(&mut self) {
        for reader in &mut self.readers {
            while let Ok(Next::Record(_)) = reader.next() {}
        }
    }
}

fn ring(kernels: &mut Kernels) {
    for count in [1, 2, 4, 8] {
        let name = format!("ring: write 64 B, {}", readers(count));
        kernels.count(&name, &mut Ring::new(count), Ring::drain, Ring::write);
    }
    let fill = |ring: &mut Ring| {
        ring.drain();
        (0..BATCH).for_each(|_| ring.write());
    };
    kernels.count("ring: next and release 64 B", &mut Ring::new(1), fill, |ring| ring.read(0));
    let nothing = |ring: &mut Ring| assert_eq!(ring.readers[0].next(), Ok(Next::Empty));
    kernels.count("ring: next, nothing there", &mut Ring::new(1), |_| {}, nothing);
}

// --- frames -----------------------------------------------------------------------------------------

const PAYLOAD: [u8; 64] = [7; 64];
const LARGE: usize = 64 << 10;
const HEADERS: [(&str, &str); 2] =
    [("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), ("tenant", "blue")];

fn frames(kernels: &mut Kernels) {
    let none = Headers::EMPTY;
    let two = Headers::from_slice(&HEADERS);
    let heads = [
        ("event", Head::Event { topic: None, headers: none }),
        ("event, topic, 2 headers", Head::Event { topic: Some("task/42/progress"), headers: two }),
        ("request", Head::Request { id: 7, method: "add", deadline: Some(1 << 50), headers: none }),
        ("response", Head::Response { id: 7, status: Code::Ok, message: None, headers: none }),
    ];
    for (name, head) in heads {
        let mut out = [0; 512];
        let mut len = 0;
        let encode = |(out, len): &mut (&mut [u8; 512], &mut usize)| {
            let start = black_box(&head).begin(&mut out[..], Encoding::Raw).unwrap();
            **len = start + PAYLOAD.len();
            out[start..**len].copy_from_slice(black_box(&PAYLOAD));
            finish_payload(&mut out[..], start, PAYLOAD.len());
            black_box(&out[..]);
        };
        kernels.count(&format!("frame: encode {name}"), &mut (&mut out, &mut len), |_| {}, encode);
        let decode = |frame: &mut &[u8]| {
            black_box(decode_head(black_box(frame), frame.len()).unwrap());
        };
        kernels.count(&format!("frame: decode {name}"), &mut &out[..len], |_| {}, decode);
    }
}

// --- events between two ports of one process --------------------------------------------------------

/// About 64 bytes, as named fields.
#[derive(Serialize, Deserialize)]
struct Event {
    id: u64,
    stamp: u64,
    value: f64,
    label: String,
}

struct Raw {
    publisher: RawPublisher,
    subscribers: Vec<RawSubscriber>,
    _idle: Vec<RawPublisher>,
}

impl Raw {
    fn open(node: &Node, subscribers: usize, idle: usize) -> Self {
        let open = |_| node.subscriber_builder("t").wait(Wait::Spin).open_raw().unwrap();
        let subscribers: Vec<_> = (0..subscribers).map(open).collect();
        let publish = |_| {
            let publisher = node.raw_publisher("t").unwrap();
            publisher.wait_for_subscribers(subscribers.len(), Duration::from_secs(30)).unwrap();
            publisher
        };
        let idle = (0..idle).map(publish).collect();
        Self { publisher: publish(0), subscribers, _idle: idle }
    }

    #[inline(always)]
    fn publish(&mut self) {
        self.publisher.publish(black_box(&PAYLOAD)).unwrap();
    }

    #[inline(always)]
    fn loan(&mut self) {
        let mut loan = self.publisher.loan(PAYLOAD.len()).unwrap();
        loan.copy_from_slice(black_box(&PAYLOAD));
        loan.send().unwrap();
    }

    /// In a blob, whose first bytes are looked at.
    #[inline(always)]
    fn loan_large(&mut self) {
        let mut loan = self.publisher.loan(LARGE).unwrap();
        loan[..PAYLOAD.len()].copy_from_slice(black_box(&PAYLOAD));
        loan.send().unwrap();
        let sample = self.subscribers[0].recv().unwrap(); // a fresh blob takes a moment to arrive
        black_box(&sample[..PAYLOAD.len()]);
    }

    #[inline(always)]
    fn receive(&mut self) {
        let sample = self.subscribers[0].try_recv().unwrap().expect("there is a message");
        black_box(&sample[..]);
    }

    fn drain(&mut self) {
        for subscriber in &mut self.subscribers {
            while subscriber.try_recv().unwrap().is_some() {}
        }
    }

    fn fill(&mut self) {
        self.drain();
        (0..BATCH).for_each(|_| self.publish());
    }
}

struct Typed {
    publisher: Publisher<Event>,
    subscriber: Subscriber<Event>,
    event: Event,
}

impl Typed {
    fn open(node: &Node) -> Self {
        let subscriber = node.subscriber_builder("t").wait(Wait::Spin).open().unwrap();
        let publisher: Publisher<Event> = node.publisher("t").unwrap();
        publisher.wait_for_subscribers(1, Duration::from_secs(30)).unwrap();
        let label = "0123456789abcdef".into();
        let event = Event { id: 1, stamp: 1_700_000_000_000, value: 0.5, label };
        Self { publisher, subscriber, event }
    }

    #[inline(always)]
    fn publish(&mut self) {
        self.publisher.publish(black_box(&self.event)).unwrap();
    }

    #[inline(always)]
    fn receive(&mut self) {
        let event = self.subscriber.try_recv().unwrap().expect("there is a message");
        assert_eq!((event.id, event.value, event.stamp), (1, 0.5, self.event.stamp));
        black_box(&event);
    }

    fn drain(&mut self) {
        while self.subscriber.try_recv().unwrap().is_some() {}
    }

    fn fill(&mut self) {
        self.drain();
        (0..BATCH).for_each(|_| self.publish());
    }
}

/// The control thread is another thread: what it does is not counted.
fn events(kernels: &mut Kernels) {
    let raw =
        |subscribers, idle| Raw::open(&Bus::private().unwrap().join("both").unwrap(), subscribers, idle);
    let typed = || Typed::open(&Bus::private().unwrap().join("both").unwrap());
    for count in [1, 2, 4, 8] {
        let subscribers = if count == 1 { "1 subscriber".into() } else { format!("{count} subscribers") };
        let name = format!("bus: publish 64 B raw, {subscribers}");
        kernels.count(&name, &mut raw(count, 0), Raw::drain, Raw::publish);
    }
    kernels.count("bus: loan and send 64 B", &mut raw(1, 0), Raw::drain, Raw::loan);
    let mut large = raw(1, 0);
    (0..16).for_each(|_| large.loan_large()); // all blobs are there
    kernels.count("bus: loan, send and receive 64 KiB", &mut large, Raw::drain, Raw::loan_large);
    kernels.count("bus: publish 64 B typed", &mut typed(), Typed::drain, Typed::publish);
    kernels.count("bus: receive 64 B raw", &mut raw(1, 0), Raw::fill, Raw::receive);
    kernels.count("bus: receive 64 B raw, 63 idle logs", &mut raw(1, 63), Raw::fill, Raw::receive);
    kernels.count("bus: receive 64 B typed", &mut typed(), Typed::fill, Typed::receive);
    let nothing = |raw: &mut Raw| assert!(raw.subscribers[0].try_recv().unwrap().is_none());
    kernels.count("bus: try_recv, nothing there", &mut raw(1, 0), |_| {}, nothing);
}
