//! The yardstick: the crate's ring between two processes, without frames, codec, ports or a bus. Both spin.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use super::super::Outcome;
use super::child::Side;
use super::flow::{self, Sink, Source, Tally};
use super::line::{self, HEADER, STOP, get, put};
use super::protocol::{BareFlow, BareLine, Measured, Place, Spin};
use crate::ring::{
    Bias, CursorSegment, Gates, Kind, LogHeader, LogLayout, MIN_CAPACITY, Next, Reader, Writer,
};
use crate::segment::{Pages, PeerSegment, Sealed, page_size};

type BareWriter = Writer<Arc<Sealed>, Arc<PeerSegment>, ()>;
type BareReader = Reader<PeerSegment, Arc<Sealed>>;

/// Segments up to this size are made with all their pages, as the bus's are up to a megabyte.
const PREFAULT: usize = 64 << 20;
/// Larger segments of the other process are not what this one has asked for.
const LARGEST: usize = 8 << 30;

/// One process's half: a log it writes, and segments for its cursors in the other's log.
struct Half {
    layout: LogLayout,
    log: Arc<Sealed>,
    cursors: Vec<Arc<Sealed>>,
}

impl Half {
    fn new(capacity: u64, readers: usize) -> Outcome<Self> {
        let layout = LogLayout::new(capacity).ok_or("no capacity of a log")?;
        let size = layout.segment_size();
        let log = Sealed::create("ringbus-bench-log", size, size <= PREFAULT)?;
        layout.initialise(&log, &LogHeader { log: 1, node: [0; 16], port: 1 });
        let page = page_size();
        let cursors = (0..readers).map(|_| {
            let segment = Sealed::create("ringbus-bench-cursors", page, true)?;
            CursorSegment::of_size(page).initialise(&segment, [0; 16], 1, 0);
            Bias::default().promise(&segment); // nobody parks here
            Ok(Arc::new(segment))
        });
        Ok(Self { layout, log: Arc::new(log), cursors: cursors.collect::<Outcome<_>>()? })
    }

    fn place(&self) -> Place {
        let segments = std::iter::once(&self.log).chain(&self.cursors);
        Place { pid: std::process::id(), fds: segments.map(|segment| fd_of(segment)).collect() }
    }

    /// A writer that every cursor of the other process holds up, and a reader for each cursor of this one.
    fn connect(self, side: Side<'_>) -> Outcome<(BareWriter, Vec<BareReader>)> {
        side.exchange(self.place(), |place| self.open(place))
    }

    fn open(self, place: &Place) -> Outcome<(BareWriter, Vec<BareReader>)> {
        let gates = Arc::new(Gates::new());
        for index in 1..place.fds.len() {
            let cursors = Arc::new(open(place, index)?);
            let at = CursorSegment::check(&cursors)?.cursor(0).ok_or("no cursor")?;
            let gate = gates.add_first(cursors.clone(), ()).ok_or("too many readers")?;
            gates.follow(gate.number(), cursors, at);
        }
        let writer = Writer::new(self.log, self.layout, gates).biased();
        let at = CursorSegment::of_size(page_size()).cursor(0).ok_or("no cursor")?;
        let mut readers = Vec::new();
        for (index, cursors) in self.cursors.into_iter().enumerate() {
            let log = open(place, 0)?;
            let (layout, _) = LogLayout::check(&log)?;
            // The other process has numbered its gates in this order.
            readers.push(Reader::new(log, layout, cursors, at, index as u16 + 1, 0, Some(0))?);
        }
        Ok((writer, readers))
    }
}

/// A segment's number among the file descriptors of this process.
pub(super) fn fd_of(segment: &Sealed) -> i32 {
    segment.fd().as_raw_fd()
}

/// What the other process has made: sealed, so this gives no way to write it.
pub(super) fn open(place: &Place, index: usize) -> Outcome<PeerSegment> {
    let fd = place.fds.get(index).ok_or("the other side has not made all that is needed")?;
    let file: OwnedFd = File::open(format!("/proc/{}/fd/{fd}", place.pid))?.into();
    let is_small = std::fs::metadata(format!("/proc/{}/fd/{fd}", place.pid))?.len() <= PREFAULT as u64;
    Ok(PeerSegment::open(file, LARGEST, if is_small { Pages::Mapped } else { Pages::AsWritten })?)
}

/// Looks in vain before a reader asks for the lines of the next record ahead of time.
const AHEAD: u32 = 4;

/// Records up to this size are stored in one go, larger ones as memcpy does.
const AT_ONCE: usize = 2048;

/// Sends a record: copied in as a whole, or, lent, with its first bytes written.
#[inline(always)]
fn send_record(writer: &mut BareWriter, bytes: &[u8], loan: bool, spin: Spin) {
    let wait = || {
        if spin != Spin::Tight {
            std::hint::spin_loop();
        }
    };
    if !loan && bytes.len() <= AT_ONCE {
        while writer.publish_frame(&[], bytes).is_err() {
            wait();
        }
    } else {
        let touched = if loan { bytes.len().min(HEADER) } else { bytes.len() };
        while writer.claim(bytes.len() as u64).is_err() {
            wait();
        }
        writer.body_mut()[..touched].copy_from_slice(&bytes[..touched]);
        writer.commit(Kind::Frame, 0, 0, bytes.len());
        writer.publish();
    }
    writer.ring(|()| true, |()| {}); // nobody parks here
}

/// Waits for the next record, and has `look` look at it in place.
#[inline(always)]
fn receive_record<T>(reader: &mut BareReader, spin: Spin, look: impl FnOnce(&[u8]) -> T) -> Outcome<T> {
    let mut looks = 0_u32;
    loop {
        match reader.next()? {
            Next::Record(_) => {
                let seen = look(reader.frame());
                reader.release();
                return Ok(seen);
            }
            Next::Empty => match spin {
                Spin::Tight => {}
                Spin::Paused => std::hint::spin_loop(),
                Spin::Ahead => {
                    looks = looks.saturating_add(1);
                    if looks > AHEAD { reader.prefetch() } else { std::hint::spin_loop() }
                }
            },
            other => return Err(format!("the bare ring says {other:?}").into()),
        }
    }
}

/// To and fro over two rings.
pub(super) struct Line {
    writer: BareWriter,
    reader: BareReader,
    loan: bool,
    spin: Spin,
    bytes: Vec<u8>,
}

impl Line {
    pub(super) fn open(kind: &BareLine, side: Side<'_>) -> Outcome<Self> {
        let half = Half::new(super::capacity(kind.payload), 1)?;
        let (writer, mut readers) = half.connect(side)?;
        let reader = readers.pop().ok_or("no reader")?;
        Ok(Self { writer, reader, loan: kind.loan, spin: kind.spin, bytes: vec![7; kind.payload] })
    }
}

impl line::Line for Line {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Outcome {
        put(&mut self.bytes, number);
        send_record(&mut self.writer, &self.bytes, self.loan, self.spin);
        Ok(())
    }

    #[inline(always)]
    fn receive(&mut self) -> Outcome<u64> {
        let head = self.bytes.len().min(HEADER);
        let head = &mut self.bytes[..head];
        receive_record(&mut self.reader, self.spin, |frame| head.copy_from_slice(&frame[..head.len()]))?;
        Ok(get(head))
    }
}

pub(super) fn send(kind: &BareFlow, seconds: f64, side: Side<'_>) -> Outcome<Measured> {
    let half = Half::new(super::capacity(kind.payload), 0)?;
    let (writer, _) = half.connect(side)?;
    let (loan, spin, bytes) = (kind.loan, kind.spin, vec![7; kind.payload]);
    flow::send(&mut Sender { writer, loan, spin, bytes }, kind.payload, seconds)
}

pub(super) fn receive(kind: &BareFlow, side: Side<'_>) -> Outcome<Measured> {
    let half = Half::new(MIN_CAPACITY, kind.readers)?;
    let (_, readers) = half.connect(side)?;
    flow::receive(&mut Receiver { readers, spin: kind.spin, turn: 0 }, kind.readers)
}

struct Sender {
    writer: BareWriter,
    loan: bool,
    spin: Spin,
    bytes: Vec<u8>,
}

impl Source for Sender {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Outcome {
        put(&mut self.bytes, number);
        send_record(&mut self.writer, &self.bytes, self.loan, self.spin);
        Ok(())
    }

    fn stop(&mut self) -> Outcome {
        self.send(STOP)
    }
}

struct Receiver {
    readers: Vec<BareReader>,
    spin: Spin,
    turn: usize,
}

impl Sink for Receiver {
    #[inline(always)]
    fn receive(&mut self, tally: &mut Tally) -> Outcome {
        // All get everything, so taking one from each in turn waits for nobody in vain.
        receive_record(&mut self.readers[self.turn], self.spin, |frame| tally.read(frame))?;
        self.turn = if self.turn + 1 == self.readers.len() { 0 } else { self.turn + 1 };
        Ok(())
    }
}
