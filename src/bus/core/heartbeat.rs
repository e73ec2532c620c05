//! Heartbeats: this node's own, and those of its peers.
//!
//! The kernel tells of deaths; heartbeats only tell a node that runs from one that is stopped. Each node writes
//! its own into a log of its own and looks at those of its peers, on an occasion that it is awake for anyway
//! (`Driver::take_beat`): nobody is woken for a heartbeat.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::super::peer::Heartbeat;
use super::super::presence::PeerChange;
use super::super::reading::Purpose;
use super::again::{BARE, What};
use super::segments::open_log;
use super::{Core, Trouble};
use crate::control::{BEAT, NodeId};
use crate::frame::{Control, Frame, Stats};
use crate::ring::lossy::{LossyNext, LossyReader};
use crate::ring::{self, FrameCopy, Kind, LogHeader, LogLayout, MIN_CAPACITY};
use crate::segment::{PeerSegment, Sealed, SegmentError};

/// Bytes of this node's own log.
const CAPACITY: u64 = MIN_CAPACITY;
/// Largest log of a peer's: its largest record takes all the counters that a heartbeat may have.
const MOST_CAPACITY: u64 = 1 << 17;
/// The log's and its port's number: ports that are opened, and their logs, count from 1.
const NUMBER: u64 = 0;
/// Records that are taken from one log in one look; an honest one has one.
const MOST_RECORDS: usize = 32;
/// Beats of this node without one of a peer that beats as often, after which that one is stalled.
const PATIENCE: u64 = 3;

/// Milliseconds between two heartbeats of this node.
const INTERVAL_MS: u64 = BEAT.as_millis() as u64;

/// This node's own heartbeat.
pub(in crate::bus) struct Pulse {
    writer: ring::Writer<Arc<Sealed>, Arc<PeerSegment>, ()>,
    log: Arc<Sealed>,
    sequence: u64,
}

impl Pulse {
    pub(in crate::bus) fn new(node: NodeId) -> Result<Self, SegmentError> {
        // The capacity is a constant that has a layout.
        let layout = LogLayout::new(CAPACITY).ok_or(SegmentError::NotMemory)?;
        let log = Arc::new(Sealed::create("ringbus-heartbeat", layout.segment_size(), true)?);
        layout.initialise(&log, &LogHeader { log: NUMBER, node: *node.as_bytes(), port: NUMBER });
        // Without gates nobody holds it up: who reads too late has missed something.
        let writer = ring::Writer::new(log.clone(), layout, Arc::new(ring::Gates::new()));
        Ok(Self { writer, log, sequence: 0 })
    }

    /// Writes the next heartbeat, and wakes nobody for it.
    fn beat(&mut self, uptime_ms: u64, stats: &[(&str, u64)]) {
        let frame = Frame::Heartbeat { seq: self.sequence, uptime_ms, stats: Stats::from_slice(stats) };
        let len = frame.encoded_len();
        let written =
            self.writer.claim(len as u64).is_ok() && frame.encode(&mut self.writer.body_mut()[..len]).is_ok();
        debug_assert!(written, "a few counters fit into a record");
        if written {
            self.writer.commit(Kind::Frame, 0, 0, len);
            self.writer.publish();
            self.sequence += 1;
        }
    }
}

/// A peer's heartbeat.
pub(super) struct Heart {
    reader: LossyReader<Arc<PeerSegment>>,
    judge: Judge,
    latest: Option<Arc<Heartbeat>>,
}

impl Heart {
    pub(super) fn is_stalled(&self) -> bool {
        self.judge.is_stalled()
    }

    pub(super) fn latest(&self) -> Option<Arc<Heartbeat>> {
        self.latest.clone()
    }

    /// Takes what is new, whether anything was; `room` is for whatever a record holds.
    ///
    /// # Errors
    /// What is wrong with the log.
    fn look(&mut self, room: &mut FrameCopy) -> Result<bool, String> {
        let before = self.reader.position();
        for _ in 0..MOST_RECORDS {
            match self.reader.next(room).map_err(|why| format!("its heartbeat log: {why}"))? {
                LossyNext::Frame(_) => self.take(room)?,
                LossyNext::Lagged(_) => {}
                LossyNext::Empty | LossyNext::Closed(_) => break,
            }
        }
        // What was overwritten before it was read is a sign of life, too.
        Ok(self.reader.position() != before)
    }

    fn take(&mut self, frame: &[u8]) -> Result<(), String> {
        match Frame::decode(frame) {
            Ok(Frame::Heartbeat { seq, uptime_ms, stats }) => {
                self.latest = Some(Arc::new(Heartbeat::new(seq, uptime_ms, stats)));
                Ok(())
            }
            Ok(other) => Err(format!("a frame of kind {:?} in its heartbeat log", other.kind())),
            Err(error) if error.is_unknown() => Ok(()), // a newer node's
            Err(error) => Err(format!("a heartbeat: {error}")),
        }
    }
}

/// Whether a peer is stalled. It counts in beats of this node's own, not in time: a node that was itself
/// stopped has beaten as seldom as it has looked, and holds its own absence against nobody.
#[derive(Debug)]
struct Judge {
    /// Beats since something was new.
    silent: u64,
    patience: u64,
}

impl Judge {
    /// Of a peer that says to beat this often.
    fn new(interval_ms: u64) -> Self {
        let patience = PATIENCE.saturating_mul(interval_ms.div_ceil(INTERVAL_MS).max(1));
        Self { silent: 0, patience }
    }

    fn is_stalled(&self) -> bool {
        self.silent >= self.patience
    }

    /// This node has beaten and looked; whether that changes the verdict.
    fn beat(&mut self, news: bool) -> bool {
        let before = self.is_stalled();
        self.silent = if news { 0 } else { self.silent.saturating_add(1) };
        self.is_stalled() != before
    }
}

impl Core {
    /// Tells a new peer where this node's heartbeats are.
    pub(super) fn send_pulse(&mut self, peer: NodeId) {
        let control = Control::Heartbeat { log: NUMBER, capacity: CAPACITY, interval_ms: INTERVAL_MS };
        let log = self.pulse.log.shared_fd();
        self.send(peer, &control, &[log]);
    }

    /// A peer tells where its heartbeats are.
    pub(super) fn heartbeat_log(
        &mut self,
        from: NodeId,
        log: u64,
        capacity: u64,
        interval_ms: u64,
        fds: Vec<Arc<OwnedFd>>,
    ) -> Result<(), Trouble> {
        let Some(peer) = self.peers.get_mut(&from) else { return Ok(()) };
        if peer.heart.is_some() {
            return Err("a second heartbeat log".into());
        }
        if capacity > MOST_CAPACITY {
            return Err(format!("a heartbeat log of {capacity} bytes").into());
        }
        let header = LogHeader { log, node: *from.as_bytes(), port: NUMBER };
        let opened = match fds.first() {
            Some(fd) => open_log(fd, capacity, header),
            None => Err(Trouble::Shortage(BARE.to_owned())),
        };
        let (log, layout) = match opened {
            Err(Trouble::Shortage(why)) => return self.miss(from, What::Heart, why),
            opened => opened?,
        };
        let reader = LossyReader::at_tail(log, layout);
        peer.heart = Some(Heart { reader, judge: Judge::new(interval_ms), latest: None });
        Ok(())
    }

    /// Writes a heartbeat, and looks at everybody else's.
    pub(super) fn beat(&mut self) {
        let stats = self.totals();
        self.pulse.beat(self.started.elapsed().as_millis() as u64, &stats);
        let (mut corrupt, mut changed, mut room) = (Vec::new(), Vec::new(), FrameCopy::default());
        for (node, peer) in &mut self.peers {
            let Some(heart) = &mut peer.heart else { continue };
            match heart.look(&mut room) {
                Ok(news) if heart.judge.beat(news) => changed.push(*node),
                Ok(_) => {}
                Err(why) => corrupt.push((*node, why)),
            }
        }
        for node in changed {
            self.tell_pulse(node);
        }
        for (node, why) in corrupt {
            self.cut(node, &why);
        }
    }

    /// Tells that a peer has stalled, or goes on: whoever looks, and clients, which call others meanwhile.
    fn tell_pulse(&self, node: NodeId) {
        let Some(peer) = self.peers.get(&node) else { return };
        let stalled = peer.is_stalled();
        tracing::info!(node = %peer.node, stalled, "heartbeat");
        for inlet in self.inlets.values() {
            if let Purpose::Client(routes) = &inlet.shared.purpose {
                routes.note_pulse(node, stalled);
            }
        }
        // One whose ports are not known has not been told to be there.
        if peer.ports_done {
            let change = if stalled { PeerChange::Stalled } else { PeerChange::Recovered };
            self.tell(&change(peer.describe()));
        }
    }

    /// What this node's open ports have counted, together.
    fn totals(&self) -> [(&'static str, u64); 4] {
        let (mut published, mut received, mut dropped) = (0_u64, 0_u64, 0_u64);
        for outlet in self.outlets.values() {
            let stats = outlet.shared.counters.stats(0, 0);
            published = published.wrapping_add(stats.messages);
            dropped = dropped.wrapping_add(stats.dropped);
        }
        for inlet in self.inlets.values() {
            let stats = inlet.shared.counters.stats(0, 0);
            received = received.wrapping_add(stats.messages);
            dropped = dropped.wrapping_add(stats.dropped);
        }
        let ports = (self.publishers().count() + self.inlets.len()) as u64;
        [("ports", ports), ("published", published), ("received", received), ("dropped", dropped)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_beats_without_news_are_a_stall_and_the_next_news_ends_it() {
        let mut judge = Judge::new(1000);
        for _ in 0..2 {
            let verdicts = [false, false, true, false, false, false, false, false, true, true];
            let verdicts = verdicts.map(|news| (judge.beat(news), judge.is_stalled()));
            let quiet = (false, false);
            assert_eq!(verdicts[..5], [quiet; 5], "news in between counts anew");
            assert_eq!(verdicts[5..8], [(true, true), (false, true), (false, true)]);
            assert_eq!(verdicts[8..], [(true, false), quiet]);
        }
    }

    #[test]
    fn one_that_beats_less_often_is_waited_for_longer() {
        for (interval_ms, patience) in [(0, 3), (1, 3), (1000, 3), (1001, 6), (5000, 15)] {
            let mut judge = Judge::new(interval_ms);
            let beats = (1..).find(|_| judge.beat(false));
            assert_eq!(beats, Some(patience), "{interval_ms} ms");
        }
        let mut judge = Judge::new(u64::MAX);
        assert!((0..1000).all(|_| !judge.beat(false)));
    }

    /// A peer's log as this node reads it.
    fn heart(pulse: &Pulse) -> Heart {
        let layout = LogLayout::new(CAPACITY).unwrap();
        let log = Arc::new(
            PeerSegment::open(pulse.log.fd(), layout.segment_size(), crate::segment::Pages::Mapped).unwrap(),
        );
        Heart { reader: LossyReader::at_tail(log, layout), judge: Judge::new(1000), latest: None }
    }

    #[test]
    fn the_latest_heartbeat_is_read_and_what_was_overwritten_counts_as_news() {
        let mut pulse = Pulse::new(NodeId([1; 16])).unwrap();
        pulse.beat(0, &[]);
        let (mut heart, mut room) = (heart(&pulse), FrameCopy::default());
        assert_eq!(heart.look(&mut room), Ok(false), "only what follows");
        for (beats, last) in [(1, 1), (3, 4)] {
            for _ in 0..beats {
                pulse.beat(77, &[("ports", 5)]);
            }
            assert_eq!(heart.look(&mut room), Ok(true));
            let found = heart.latest().unwrap();
            assert_eq!((found.sequence, found.uptime.as_millis()), (last, 77));
            assert_eq!(found.stats.iter().collect::<Vec<_>>(), [(&"ports".to_owned(), &5)]);
            assert_eq!(heart.look(&mut room), Ok(false));
        }
        for _ in 0..1000 {
            pulse.beat(78, &[]);
        }
        assert_eq!(heart.look(&mut room), Ok(true));
        assert_eq!(heart.look(&mut room), Ok(false));
        pulse.beat(79, &[]);
        assert_eq!(heart.look(&mut room), Ok(true));
        assert_eq!(heart.latest().unwrap().sequence, 1004 + 1);
    }

    #[test]
    fn one_look_takes_a_bounded_number_of_records() {
        let mut pulse = Pulse::new(NodeId([1; 16])).unwrap();
        let (mut heart, mut room) = (heart(&pulse), FrameCopy::default());
        for _ in 0..MOST_RECORDS + 1 {
            pulse.beat(0, &[]);
        }
        assert_eq!(heart.look(&mut room), Ok(true));
        assert_eq!(heart.latest().unwrap().sequence, MOST_RECORDS as u64 - 1);
        assert_eq!(heart.look(&mut room), Ok(true));
        assert_eq!(heart.latest().unwrap().sequence, MOST_RECORDS as u64);
    }

    #[test]
    fn what_is_no_heartbeat_is_an_offence_unless_it_is_of_a_newer_kind() {
        for (frame, offence) in [
            (&b"\x94\x04\x01\x02\xc0"[..], None),
            (b"\x92\x0c\x00", None),
            (b"\x94\x04\x01\x02", Some("a heartbeat: ")),
            (b"\x92\x08\x07", Some("a frame of kind Cancel in its heartbeat log")),
            (b"", Some("a heartbeat: ")),
        ] {
            let mut pulse = Pulse::new(NodeId([1; 16])).unwrap();
            let (mut heart, mut room) = (heart(&pulse), FrameCopy::default());
            pulse.writer.claim(frame.len() as u64).unwrap();
            pulse.writer.body_mut()[..frame.len()].copy_from_slice(frame);
            pulse.writer.commit(Kind::Frame, 0, 0, frame.len());
            pulse.writer.publish();
            match (heart.look(&mut room), offence) {
                (Ok(news), None) => assert!(news),
                (Err(why), Some(part)) => assert!(why.starts_with(part), "{why}"),
                other => panic!("{frame:?}: {other:?}"),
            }
        }
    }
}
