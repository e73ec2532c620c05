//! A peer that hangs up and lives: what it writes from then on waits for nobody here. What is still there is read, what it has
//! overwritten is told of, and it is not blamed for that.

#[path = "support/raw.rs"]
mod raw_peer;
mod support;

use std::os::fd::AsFd;
use std::sync::Arc;

use ringbus::internals::frame::{Control, Encoding, PortUp, Role, Strings, plain_event_head};
use ringbus::internals::ring::{Gates, LogHeader, LogLayout, Writer};
use ringbus::internals::segment::Sealed;
use ringbus::internals::sys::timerfd;
use ringbus::{Node, RawSubscriber, RecvError};

use raw_peer::Raw;
use support::{DEADLINE, Dir, eventually};

const PORT: u64 = 1;
const CAPACITY: u64 = 4096;
/// Messages that go round the log several times.
const MANY: u8 = 200;

type Log = Arc<Sealed>;

/// A node with a subscriber, and a peer that has published three messages, of which one is read.
struct Scene {
    node: Node,
    subscriber: RawSubscriber,
    raw: Option<Raw>,
    writer: Writer<Log, Log, ()>,
    _dir: Dir,
}

fn payload(number: u8) -> [u8; 100] {
    [number; 100]
}

impl Scene {
    fn new() -> Self {
        let dir = Dir::new();
        let node = dir.join("reader");
        let subscriber = node.raw_subscriber("t").unwrap();
        let raw = Raw::join(&dir, &node);
        let up = PortUp {
            port: PORT,
            role: Role::Publisher,
            filters: Strings::from_slice(&["t"]),
            flags: 0,
            priority: 128,
            capacity: Some(CAPACITY),
            version: None,
        };
        raw.send(&Control::PortUp(up), &[]);
        raw.send(&Control::PortsDone, &[]);
        let reader_port = loop {
            match Control::decode(&raw.receive().0) {
                Ok(Control::PortUp(up)) if up.role == Role::Subscriber => break up.port,
                _ => {}
            }
        };
        let layout = LogLayout::new(CAPACITY).unwrap();
        let log = Arc::new(Sealed::create("ringbus-log", layout.segment_size(), true).unwrap());
        layout.initialise(&*log, &LogHeader { log: 1, node: raw.id, port: PORT });
        let bell = timerfd::create().unwrap();
        raw.attach(1, [PORT, reader_port], CAPACITY, &[log.fd(), bell.as_fd()]);
        // It waits for no reader: its node has forgotten all of them.
        let writer = Writer::new(log, layout, Arc::new(Gates::new()));
        let mut scene = Self { node, subscriber, raw: Some(raw), writer, _dir: dir };
        (0..3).for_each(|number| scene.publish(number));
        assert_eq!(scene.receive().unwrap(), Some(payload(0).to_vec()));
        scene
    }

    fn publish(&mut self, number: u8) {
        let payload = payload(number);
        let head = plain_event_head(Encoding::Raw, payload.len()).unwrap();
        self.writer.publish_frame(&head, &payload).unwrap();
    }

    fn receive(&mut self) -> Result<Option<Vec<u8>>, RecvError> {
        Ok(self.subscriber.recv_timeout(DEADLINE)?.map(|sample| sample.to_vec()))
    }

    /// What is read is over.
    #[track_caller]
    fn ends(mut self) {
        eventually("it is gone", || self.node.peers().is_empty());
        assert!(matches!(self.subscriber.try_recv(), Ok(None)));
        assert_eq!(self.node.refused(), [], "it has done nothing wrong");
    }

    fn hang_up(&mut self) {
        self.raw = None;
    }

    fn hang_up_and_be_missed(&mut self) {
        self.hang_up();
        eventually("it is gone", || self.node.peers().is_empty());
    }
}

#[test]
fn what_it_has_published_is_read() {
    let mut scene = Scene::new();
    scene.hang_up_and_be_missed();
    for number in [1, 2] {
        assert_eq!(scene.receive().unwrap(), Some(payload(number).to_vec()));
    }
    scene.ends();
}

#[test]
fn what_it_publishes_later_is_not_read() {
    let mut scene = Scene::new();
    scene.hang_up_and_be_missed();
    scene.publish(3);
    for number in [1, 2] {
        assert_eq!(scene.receive().unwrap(), Some(payload(number).to_vec()));
    }
    scene.ends();
}

#[test]
fn what_it_overwrites_is_told_of() {
    let mut scene = Scene::new();
    scene.hang_up_and_be_missed();
    (3..MANY).for_each(|number| scene.publish(number));
    let missed = scene.receive().unwrap_err();
    assert!(matches!(&missed, RecvError::Lagged { topic: Some(topic), .. } if topic == "t"), "{missed}");
    scene.ends();
}

/// Until its end is seen it is read as before, and anything may be found.
#[test]
fn it_is_not_blamed_for_what_it_overwrites_at_once() {
    let mut scene = Scene::new();
    scene.hang_up();
    (3..MANY).for_each(|number| scene.publish(number));
    let mut errors = Vec::new();
    eventually("all is read", || match scene.subscriber.try_recv() {
        Ok(message) => message.is_none(),
        Err(error) => {
            errors.push(error);
            false
        }
    });
    let is_told =
        |error: &RecvError| matches!(error, RecvError::Lagged { .. } | RecvError::PeerCorrupt { .. });
    assert!(!errors.is_empty() && errors.iter().all(is_told), "{errors:?}");
    scene.ends();
}
