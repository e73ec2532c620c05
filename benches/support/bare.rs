//! The yardstick: two rings between two processes, without frames, codec, or bus.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use ringbus::Bus;
use ringbus::internals::ring::{Bias, CursorSegment, Gates, LogHeader, LogLayout, Next, Reader, Writer};
use ringbus::internals::segment::{Pages, PeerSegment, Sealed};

use super::{Second, hear, tell, u64_of};

/// As the bus waits: two looks with a `PAUSE`, then without, asking for the next record's lines.
const PAUSES: u32 = 2;
const AHEAD: u32 = 4;
const CAPACITY: u64 = 256 * 1024;

pub type BareWriter = Writer<Arc<Sealed>, Arc<PeerSegment>, ()>;
pub type BareReader = Reader<PeerSegment, Arc<Sealed>>;

/// One process's half: a log it writes and the segment of its cursor in the other's log.
pub struct Half {
    log: Arc<Sealed>,
    cursors: Arc<Sealed>,
}

impl Half {
    pub fn new() -> Self {
        let layout = LogLayout::new(CAPACITY).unwrap();
        let log = Sealed::create("bench-log", layout.segment_size(), true).unwrap();
        layout.initialise(&log, &LogHeader { log: 1, node: [0; 16], port: 1 });
        let cursors = Sealed::create("bench-cursors", 4096, true).unwrap();
        CursorSegment::of_size(4096).initialise(&cursors, [0; 16], 1, 0);
        Bias::default().promise(&cursors); // nobody parks here
        Self { log: Arc::new(log), cursors: Arc::new(cursors) }
    }

    /// Where the other process finds the segments.
    fn address(&self) -> String {
        let pid = std::process::id();
        format!(
            "/proc/{pid}/fd/{} /proc/{pid}/fd/{}",
            self.log.fd().as_raw_fd(),
            self.cursors.fd().as_raw_fd()
        )
    }

    fn connect(&self, address: &str) -> (BareWriter, BareReader) {
        let open = |path: &str| {
            let fd: OwnedFd = std::fs::File::open(path).unwrap().into();
            PeerSegment::open(fd, 1 << 30, Pages::Mapped).unwrap()
        };
        let (log, cursors) = address.split_once(' ').unwrap();
        let (log, cursors) = (open(log), Arc::new(open(cursors)));
        let at = CursorSegment::check(&cursors).unwrap().cursor(0).unwrap();
        let gates = Arc::new(Gates::new());
        let gate = gates.add_first(cursors.clone(), ()).unwrap();
        gates.follow(gate.number(), cursors, at);
        let layout = LogLayout::new(CAPACITY).unwrap();
        let reader = Reader::new(log, layout, self.cursors.clone(), at, 1, 0, Some(0)).unwrap();
        (Writer::new(self.log.clone(), layout, gates).biased(), reader)
    }
}

pub fn bare_send(writer: &mut BareWriter, bytes: &[u8]) {
    while writer.publish_frame(&[], bytes).is_err() {
        std::hint::spin_loop();
    }
    writer.ring(|()| true, |()| unreachable!("nobody parks here"));
}

pub fn bare_receive(reader: &mut BareReader, into: &mut [u8; 64]) {
    let mut looks = 0;
    loop {
        match reader.next().unwrap() {
            Next::Record(_) => {
                into.copy_from_slice(reader.frame());
                return reader.release();
            }
            _ => {
                looks += 1;
                if looks > AHEAD {
                    reader.prefetch();
                }
                if looks <= PAUSES {
                    std::hint::spin_loop()
                }
            }
        }
    }
}

pub fn bare_second(role: &str) {
    let half = Half::new();
    tell(&half.address());
    let (mut writer, mut reader) = half.connect(&hear());
    let mut message = [0; 64];
    if role == "bare-echo" {
        loop {
            bare_receive(&mut reader, &mut message);
            bare_send(&mut writer, &message);
        }
    }
    let mut due = 0;
    loop {
        let end = due + hear().parse::<u64>().unwrap();
        while due < end {
            bare_receive(&mut reader, &mut message);
            assert_eq!(u64_of(&message), due);
            due += 1;
        }
        tell("received");
    }
}

pub fn bare_first(role: &str, bus: &Bus) -> (Second, Half, BareWriter, BareReader) {
    let half = Half::new();
    let mut second = Second::start(role, bus);
    let address = second.hear();
    second.tell(&half.address());
    let (writer, reader) = half.connect(&address);
    (second, half, writer, reader)
}
