//! The reference: ringbus's ring alone, without frames, codec or bus. Copied in, read in place.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use ::ringbus::internals::ring::{CursorSegment, Gates, Kind as Record, LogHeader, LogLayout, Next};
use ::ringbus::internals::ring::{Reader as RingReader, Writer as RingWriter};
use ::ringbus::internals::segment::{Pages, PeerSegment, Sealed};

use super::Peer;
use crate::control::{First, Second};
use crate::job::{Figure, Job, Kind, Result, Row, SUBSCRIBERS, Workload};
use crate::measure::{Flood, RoundTrips, STOP, drain, drain_all, payload, stamp_of, write_stamp};

pub struct Bare;

type Writer = RingWriter<Arc<Sealed>, Arc<PeerSegment>, ()>;
type Reader = RingReader<PeerSegment, Arc<Sealed>>;

impl Peer for Bare {
    fn rows(&self) -> &'static [Row] {
        &[Row { name: "bare ring", kind: Kind::Copied, takes: |workload, _| workload != Workload::Call }]
    }

    fn first(&self, job: &Job, second: &mut Second) -> Result<Figure> {
        let half = Half::new(job, 1)?;
        let address = second.hear()?;
        second.tell(&half.address())?;
        let mut writer = half.writer(&address)?;
        let mut message = payload(job.payload);
        let mut send = |stamp| {
            write_stamp(&mut message, stamp);
            send(&mut writer, &message);
            Ok(())
        };
        match job.workload {
            Workload::Rtt => {
                let mut reader = half.reader(&address, 0)?;
                let mut trips = RoundTrips::new(job);
                while let Some(stamp) = trips.next() {
                    send(stamp)?;
                    await_record(&mut reader)?;
                    trips.came(stamp_of(reader.frame()))?;
                    reader.release();
                }
                trips.figure()
            }
            Workload::Fanout => Flood::new(job, SUBSCRIBERS).run(second, send),
            _ => Flood::new(job, 1).run(second, send),
        }
    }

    fn second(&self, job: &Job, first: &mut First) -> Result<()> {
        let readers = if job.workload == Workload::Fanout { SUBSCRIBERS } else { 1 };
        let half = Half::new(job, readers)?;
        first.tell(&half.address());
        let address = first.hear()?;
        let mut readers = (0..readers).map(|n| half.reader(&address, n)).collect::<Result<Vec<_>>>()?;
        match job.workload {
            Workload::Rtt => {
                let mut writer = half.writer(&address)?;
                loop {
                    await_record(&mut readers[0])?;
                    let stamp = stamp_of(readers[0].frame());
                    send(&mut writer, readers[0].frame());
                    readers[0].release();
                    if stamp == STOP {
                        first.wait_for_end();
                        return Ok(());
                    }
                }
            }
            Workload::Fanout => drain_all(first, |n, reading| {
                if !matches!(readers[n].next()?, Next::Record(_)) {
                    return Ok(false);
                }
                reading.take(readers[n].frame())?;
                readers[n].release();
                Ok(true)
            }),
            _ => drain(first, |reading| {
                await_record(&mut readers[0])?;
                reading.take(readers[0].frame())?;
                readers[0].release();
                Ok(())
            }),
        }
    }
}

/// Records up to this size are stored in one go.
const AT_ONCE: usize = 2048;

/// Looks in vain before a reader asks for the lines of the next record ahead of time.
const AHEAD: u32 = 4;

#[inline]
fn send(writer: &mut Writer, bytes: &[u8]) {
    if bytes.len() <= AT_ONCE {
        while writer.publish_frame(&[], bytes).is_err() {
            std::hint::spin_loop();
        }
    } else {
        while writer.claim(bytes.len() as u64).is_err() {
            std::hint::spin_loop();
        }
        writer.body_mut()[..bytes.len()].copy_from_slice(bytes);
        writer.commit(Record::Frame, 0, 0, bytes.len());
        writer.publish();
    }
    writer.ring(|()| true, |()| unreachable!("nobody parks here"));
}

#[inline]
fn await_record(reader: &mut Reader) -> Result<()> {
    let mut looks = 0_u32;
    while !matches!(reader.next()?, Next::Record(_)) {
        looks = looks.saturating_add(1);
        if looks > AHEAD { reader.prefetch() } else { std::hint::spin_loop() }
    }
    Ok(())
}

/// A message takes a quarter of the log at most, and a bus has 256 KiB by default.
fn capacity(payload: usize) -> u64 {
    (8 * payload as u64).next_power_of_two().max(256 << 10)
}

/// What one process writes: a log, and for each of its readers the cursor in the other's log.
struct Half {
    layout: LogLayout,
    log: Arc<Sealed>,
    cursors: Vec<Arc<Sealed>>,
}

impl Half {
    fn new(job: &Job, readers: usize) -> Result<Self> {
        let layout = LogLayout::new(capacity(job.payload)).ok_or("no such capacity")?;
        let log = Sealed::create("peers-log", layout.segment_size(), true)?;
        layout.initialise(&log, &LogHeader { log: 1, node: [0; 16], port: 1 });
        let cursors = (0..readers).map(|_| {
            let cursors = Sealed::create("peers-cursors", 4096, true)?;
            CursorSegment::of_size(4096).initialise(&cursors, [0; 16], 1, 0);
            Ok(Arc::new(cursors))
        });
        Ok(Self { layout, log: Arc::new(log), cursors: cursors.collect::<Result<_>>()? })
    }

    /// Where the other process finds the segments: the log's, then each cursor's.
    fn address(&self) -> String {
        let path = |segment: &Sealed| format!("/proc/{}/fd/{}", std::process::id(), segment.fd().as_raw_fd());
        let segments = std::iter::once(&self.log).chain(&self.cursors);
        segments.map(|segment| path(segment)).collect::<Vec<_>>().join(" ")
    }

    /// The writer of this process's log, for all readers of the other process.
    fn writer(&self, address: &str) -> Result<Writer> {
        let gates = Arc::new(Gates::new());
        for path in address.split(' ').skip(1) {
            let cursors = Arc::new(open(path)?);
            let at = CursorSegment::check(&cursors)?.cursor(0).ok_or("no cursor")?;
            let gate = gates.add_first(cursors.clone(), ()).ok_or("no gate")?;
            gates.follow(gate.number(), cursors, at);
        }
        Ok(Writer::new(self.log.clone(), self.layout, gates).biased())
    }

    /// This process's `n`th reader of the other's log.
    fn reader(&self, address: &str, n: usize) -> Result<Reader> {
        let log = open(address.split(' ').next().unwrap_or_default())?;
        let cursors = self.cursors[n].clone();
        let at = CursorSegment::check(&cursors)?.cursor(0).ok_or("no cursor")?;
        Ok(Reader::new(log, self.layout, cursors, at, n as u16 + 1, 0, Some(0))?)
    }
}

fn open(path: &str) -> Result<PeerSegment> {
    let fd: OwnedFd = std::fs::File::options().read(true).open(path)?.into();
    Ok(PeerSegment::open(fd, 1 << 30, Pages::Mapped)?)
}
