//! Heartbeats on the wire: what a node tells, and what it makes of peers that tell nothing, too little or
//! nonsense. The peers here are spoken for by hand.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use ringbus::internals::frame::{Control, Frame, Stats};
use ringbus::internals::ring::lossy::{LossyNext, LossyReader};
use ringbus::internals::ring::{FrameCopy, Gates, Kind, LogHeader, LogLayout, Writer, layout};
use ringbus::internals::segment::{MemoryMut, Pages, PeerSegment, Sealed};
use ringbus::internals::sys::{memfd, timerfd};
use ringbus::{Departure, Node, PeerChange, Presence};

#[path = "support/raw.rs"]
mod raw;
mod support;
use raw::Raw;
use support::{DEADLINE, Dir, eventually};

const CAPACITY: u64 = 4096;

impl Raw {
    fn heartbeat(&self, log: &Sealed) {
        self.send(&Control::Heartbeat { log: 0, capacity: CAPACITY, interval_ms: 1000 }, &[log.fd()]);
    }

    fn header(&self) -> LogHeader {
        LogHeader { log: 0, node: self.id, port: 0 }
    }
}

/// A log with this header.
fn log(header: &LogHeader) -> Arc<Sealed> {
    let layout = LogLayout::new(CAPACITY).unwrap();
    let log = Sealed::create("ringbus-heartbeat", layout.segment_size(), true).unwrap();
    layout.initialise(&log, header);
    Arc::new(log)
}

fn writer(log: &Arc<Sealed>) -> Writer<Arc<Sealed>, Arc<PeerSegment>, ()> {
    Writer::new(log.clone(), LogLayout::new(CAPACITY).unwrap(), Arc::new(Gates::new()))
}

fn publish(writer: &mut Writer<Arc<Sealed>, Arc<PeerSegment>, ()>, frame: &[u8]) {
    writer.claim(frame.len() as u64).unwrap();
    writer.body_mut()[..frame.len()].copy_from_slice(frame);
    writer.commit(Kind::Frame, 0, 0, frame.len());
    writer.publish();
}

fn beat(seq: u64) -> Vec<u8> {
    let frame =
        Frame::Heartbeat { seq, uptime_ms: 7, stats: Stats::from_slice(&[("ports", 3), ("ports", 4)]) };
    let mut bytes = vec![0; frame.encoded_len()];
    frame.encode(&mut bytes).unwrap();
    bytes
}

/// A node's own heartbeats, as a peer sees them.
struct Beats {
    reader: LossyReader<PeerSegment>,
    count: u64,
}

impl Beats {
    fn of(raw: &Raw) -> Self {
        let (bytes, fds) = raw.receive();
        let Ok(Control::Heartbeat { log, capacity, interval_ms }) = Control::decode(&bytes) else {
            panic!("the first word is about heartbeats: {bytes:x?}")
        };
        assert_eq!((capacity, interval_ms, fds.len()), (4096, 1000, 1));
        let layout = LogLayout::new(capacity).unwrap();
        let segment = PeerSegment::open(&fds[0], layout.segment_size(), Pages::Mapped).unwrap();
        let (found, header) = LogLayout::check(&segment).unwrap();
        assert_eq!((found, header.log, header.port), (layout, log, 0));
        Self { reader: LossyReader::at_tail(segment, layout), count: 0 }
    }

    /// How many there were so far; each has to be a heartbeat, and the next one.
    fn count(&mut self) -> u64 {
        let mut bytes = FrameCopy::default();
        while let LossyNext::Frame(number) = self.reader.next(&mut bytes).unwrap() {
            let Ok(Frame::Heartbeat { seq, stats, .. }) = Frame::decode(&bytes) else { panic!("{bytes:x?}") };
            assert_eq!(seq, number);
            let names: Vec<_> = stats.iter().map(|(name, _)| name).collect();
            assert_eq!(names, ["ports", "published", "received", "dropped"]);
            self.count += 1;
        }
        self.count
    }

    fn wait_for(&mut self, more: u64) {
        let until = self.count() + more;
        eventually("further beats", || self.count() >= until);
    }
}

#[track_caller]
fn next(presence: &mut Presence) -> PeerChange {
    presence.recv_timeout(DEADLINE).unwrap().expect("a change")
}

/// The node cuts the peer off for this reason, and goes on.
#[track_caller]
fn is_cut(node: &Node, presence: &mut Presence, raw: &Raw, part: &str) {
    let PeerChange::Left(peer, Departure::Cut { why, .. }) = next(presence) else {
        panic!("not cut: {part}")
    };
    assert_eq!(*peer.id().as_bytes(), raw.id);
    assert!(why.contains(part), "{why}");
    assert!(node.refused().pop().unwrap().why.to_string().contains(part));
}

#[test]
fn what_is_no_heartbeat_log_gets_its_sender_cut_off() {
    let dir = Dir::new();
    let node = dir.join("node");
    let mut presence = node.presence().unwrap();
    let unsealed: OwnedFd = memfd::create("ringbus-heartbeat", 8192).unwrap();
    let bell = timerfd::create().unwrap();
    type Fd<'a> = Box<dyn Fn(&LogHeader) -> Arc<dyn AsFd> + 'a>;
    let changed = |change: fn(&mut LogHeader)| -> Fd<'_> {
        Box::new(move |header| {
            let mut header = *header;
            change(&mut header);
            Arc::new(log(&header).shared_fd())
        })
    };
    let other = |fd: &OwnedFd| -> Fd<'_> {
        let fd = Arc::new(fd.try_clone().unwrap());
        Box::new(move |_| Arc::new(fd.clone()))
    };
    let good = || changed(|_| {});
    for (capacity, fd, part) in [
        (CAPACITY, other(&bell), "not a memory file"),
        (CAPACITY, other(&unsealed), "seals"),
        (CAPACITY, changed(|header| header.log = 7), "another's"),
        (CAPACITY, changed(|header| header.port = 7), "another's"),
        (CAPACITY, changed(|header| header.node[15] ^= 1), "another's"),
        (2 * CAPACITY, good(), "another's"),
        (CAPACITY / 2, good(), "exceeds the 6144"),
        (0, good(), "impossible capacity"),
        (3000, good(), "impossible capacity"),
        (u64::MAX, good(), "heartbeat log of 18446744073709551615 bytes"),
        (1 << 18, good(), "heartbeat log of 262144 bytes"),
    ] {
        let raw = Raw::join(&dir, &node);
        raw.send(&Control::PortsDone, &[]);
        assert!(matches!(next(&mut presence), PeerChange::Joined(_)));
        let fd = fd(&raw.header());
        raw.send(&Control::Heartbeat { log: 0, capacity, interval_ms: 1000 }, &[fd.as_fd()]);
        is_cut(&node, &mut presence, &raw, part);
    }

    let raw = Raw::join(&dir, &node);
    raw.send(&Control::PortsDone, &[]);
    assert!(matches!(next(&mut presence), PeerChange::Joined(_)));
    let log = log(&raw.header());
    raw.heartbeat(&log);
    raw.heartbeat(&log);
    is_cut(&node, &mut presence, &raw, "a second heartbeat log");
    assert!(node.peers().is_empty());
}

#[test]
fn nonsense_in_a_heartbeat_log_gets_its_writer_cut_off() {
    let dir = Dir::new();
    let node = dir.join("node");
    let good = Raw::join(&dir, &node);
    let mut beats = Beats::of(&good);
    type Harm = fn(&Sealed, &mut Writer<Arc<Sealed>, Arc<PeerSegment>, ()>);
    let harms: [(Harm, &str); 6] = [
        (|log, _| log.store(layout::TAIL, 17, Relaxed), "tail 17"),
        (|log, _| log.store(layout::TAIL, u64::MAX - 15, Relaxed), "tail"),
        (|log, _| log.store(layout::CLOSED, 64, Relaxed), "closed at 64"),
        (
            |log, _| {
                log.store(layout::DATA + 48, u64::MAX, Relaxed); // behind the one that is read
                log.store(layout::TAIL, 64, Relaxed);
            },
            "impossible header",
        ),
        (|_, writer| publish(writer, b"\x94\x04\x01"), "a heartbeat: "),
        (|_, writer| publish(writer, b"\x92\x08\x07"), "a frame of kind Cancel"),
    ];
    for (harm, part) in harms {
        let mut presence = node.presence().unwrap();
        let raw = Raw::join(&dir, &node);
        let log = log(&raw.header());
        raw.heartbeat(&log);
        raw.send(&Control::PortsDone, &[]);
        // From here on whatever is published is read.
        assert!(matches!(next(&mut presence), PeerChange::Joined(_)));
        let mut writer = writer(&log);
        publish(&mut writer, &beat(0));
        let heartbeat = || {
            let peers = node.peers();
            let peer = peers.iter().find(|peer| *peer.id().as_bytes() == raw.id)?;
            peer.heartbeat().cloned()
        };
        eventually("its heartbeat is read", || heartbeat().is_some());
        assert_eq!(heartbeat().unwrap().stats.into_iter().collect::<Vec<_>>(), [("ports".to_owned(), 3)]);
        harm(&log, &mut writer);
        is_cut(&node, &mut presence, &raw, part);
    }
    beats.wait_for(1);
    assert_eq!(node.peers().len(), 1, "the others are not harmed");
}

#[test]
fn a_peer_is_told_of_once_its_ports_are_known_and_judged_only_if_it_has_a_heartbeat() {
    let dir = Dir::new();
    let node = dir.join("node");
    let mut presence = node.presence().unwrap();

    // It never tells its ports, nor does anybody hear of it.
    let raw = Raw::join(&dir, &node);
    eventually("it is there", || node.peers().len() == 1);
    drop(raw);
    eventually("it is gone", || node.peers().is_empty());
    assert_eq!(presence.try_recv().unwrap(), None);

    // Without heartbeats it is never stalled; another, with an empty log, soon is.
    let mute = Raw::join(&dir, &node);
    mute.send(&Control::PortsDone, &[]);
    let PeerChange::Joined(peer) = next(&mut presence) else { panic!("not joined") };
    assert_eq!(*peer.id().as_bytes(), mute.id);
    // Told once, however often it says so.
    mute.send(&Control::PortsDone, &[]);

    let silent = Raw::join(&dir, &node);
    let mut beats = Beats::of(&silent);
    let log = log(&silent.header());
    let before = beats.count();
    silent.heartbeat(&log);
    eventually("it is stalled", || node.peers().iter().any(|peer| peer.is_stalled()));
    let took = beats.count() - before;
    assert!(took >= 3, "stalled after {took} beats");
    assert_eq!(presence.try_recv().unwrap(), None, "its ports are not known");
    silent.send(&Control::PortsDone, &[]);
    assert!(matches!(next(&mut presence), PeerChange::Joined(peer) if peer.is_stalled()));
    let PeerChange::Stalled(peer) = next(&mut presence) else { panic!("not stalled") };
    assert_eq!(*peer.id().as_bytes(), silent.id);
    let mut writer = writer(&log);
    publish(&mut writer, &beat(0));
    assert!(matches!(next(&mut presence), PeerChange::Recovered(_)));

    drop(mute);
    assert!(matches!(next(&mut presence), PeerChange::Left(_, Departure::Died)));
    assert!(node.refused().is_empty());
}

#[test]
fn a_flood_of_heartbeats_holds_nobody_up() {
    let dir = Dir::new();
    let node = dir.join("node");
    let raw = Raw::join(&dir, &node);
    let mut beats = Beats::of(&raw);
    let log = log(&raw.header());
    raw.heartbeat(&log);
    let mut presence = node.presence().unwrap();
    raw.send(&Control::PortsDone, &[]);
    assert!(matches!(next(&mut presence), PeerChange::Joined(_)));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = writer(&log);
            for seq in 0.. {
                publish(&mut writer, &beat(seq));
                if over.load(Relaxed) {
                    return;
                }
            }
        });
        beats.wait_for(5);
        over.store(true, Relaxed);
    });
    assert_eq!(presence.try_recv().unwrap(), None, "neither stalled nor cut off");
    assert_eq!(node.peers().len(), 1);
}
