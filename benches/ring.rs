//! The bare ring: on one thread over the heap, and between two processes over sealed segments.
//!
//! The second process is this program again, told by an environment variable where to find the segments of
//! the first. Both spin, each on a CPU of its own if there are two; nobody parks.

use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::parent_id;
use std::process::{Child, Command, Stdio, id};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group};
use ringbus::internals::ring::{CursorSegment, Gates, Kind, LogHeader, LogLayout, Next, Reader, Writer};
use ringbus::internals::segment::{Heap, Memory, MemoryMut, Pages, PeerSegment, Sealed};
use ringbus::internals::sys::affinity;

const CAPACITY: u64 = 256 * 1024;
const CURSORS: usize = 4096;
const SIZES: [usize; 2] = [64, 1024];
/// Where the second process finds the first: "pid log-fd cursors-fd".
const PEER: &str = "RINGBUS_BENCH_PEER";
/// First byte of a frame that wants an answer.
const ECHO: u8 = 1;

fn layout() -> LogLayout {
    LogLayout::new(CAPACITY).unwrap()
}

fn write<M: MemoryMut, R: Memory + Clone>(writer: &mut Writer<M, R, ()>, frame: &[u8]) {
    let mut idle = Idle::default();
    while writer.claim(frame.len() as u64).is_err() {
        idle.turn();
    }
    writer.body_mut()[..frame.len()].copy_from_slice(frame);
    writer.commit(Kind::Frame, 0, 0, frame.len());
    writer.publish();
    writer.ring(|()| true, |()| unreachable!("nobody parks"));
}

/// Spins for the next frame and returns its first byte; `None` at the end of the log.
fn read<M: Memory, C: MemoryMut>(reader: &mut Reader<M, C>) -> Option<u8> {
    let mut idle = Idle::default();
    loop {
        match reader.next().unwrap() {
            Next::Record(_) => {
                let first = black_box(reader.frame())[0];
                reader.release();
                return Some(first);
            }
            Next::Empty => idle.turn(),
            Next::Lagged(count) => panic!("{count} lost"),
            Next::Closed(_) => return None,
        }
    }
}

/// Spins, and now and then lets others run and looks whether the first process is still there.
#[derive(Default)]
struct Idle(u32);

impl Idle {
    fn turn(&mut self) {
        self.0 += 1;
        std::hint::spin_loop();
        if self.0.is_multiple_of(1 << 12) {
            std::thread::yield_now();
        }
        if self.0.is_multiple_of(1 << 20) && is_orphan() {
            std::process::exit(1);
        }
    }
}

/// True in the second process once the first is gone.
fn is_orphan() -> bool {
    let parent = parent_id().to_string();
    std::env::var(PEER).is_ok_and(|place| place.split_whitespace().next() != Some(&parent))
}

fn one_thread(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring, one thread");
    for size in SIZES {
        let log = Heap::new(layout().segment_size());
        let cursors = Heap::new(CURSORS);
        layout().initialise(&log, &LogHeader { log: 1, node: [0; 16], port: 1 });
        let gates = Arc::new(Gates::new());
        let gate = gates.add_first(cursors.clone(), ()).unwrap();
        let at = CursorSegment::of_size(CURSORS).cursor(0).unwrap();
        gates.follow(gate.number(), cursors.clone(), at);
        let mut writer = Writer::new(log.clone(), layout(), gates);
        let mut reader = Reader::new(log, layout(), cursors, at, gate.number(), 0, Some(0)).unwrap();
        let frame = vec![7; size];
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("publish and receive {size} B"), |bencher| {
            bencher.iter(|| {
                write(&mut writer, black_box(&frame));
                read(&mut reader)
            })
        });
    }
    group.finish();
}

/// What one process owns, and what it sees of the other's.
struct Duplex {
    writer: Writer<Arc<Sealed>, Arc<PeerSegment>, ()>,
    reader: Reader<PeerSegment, Arc<Sealed>>,
}

/// One process's own segments.
struct Own {
    log: Arc<Sealed>,
    cursors: Arc<Sealed>,
}

impl Own {
    fn create() -> Self {
        let log = Sealed::create("ringbus-bench-log", layout().segment_size(), true).unwrap();
        let cursors = Sealed::create("ringbus-bench-cursors", CURSORS, true).unwrap();
        layout().initialise(&log, &LogHeader { log: 1, node: [0; 16], port: 1 });
        CursorSegment::of_size(CURSORS).initialise(&cursors, [0; 16], 1, 0);
        Self { log: Arc::new(log), cursors: Arc::new(cursors) }
    }

    /// Where another process finds them.
    fn place(&self) -> String {
        format!("{} {} {}", id(), self.log.fd().as_raw_fd(), self.cursors.fd().as_raw_fd())
    }

    /// Opens the other's by their place. Sealed as they are, this gives no way to write them.
    fn connect(self, place: &str) -> Duplex {
        let mut words = place.split_whitespace();
        let pid = words.next().unwrap();
        let mut open = |max| {
            let file = File::open(format!("/proc/{pid}/fd/{}", words.next().unwrap())).unwrap();
            PeerSegment::open(file, max, Pages::Mapped).unwrap()
        };
        let log = open(layout().segment_size());
        let cursors = Arc::new(open(CURSORS));
        let (layout, _) = LogLayout::check(&log).unwrap();
        let at = CursorSegment::check(&cursors).unwrap().cursor(0).unwrap();
        let gates = Arc::new(Gates::new());
        let gate = gates.add_first(cursors.clone(), ()).unwrap();
        gates.follow(gate.number(), cursors, at);
        Duplex {
            writer: Writer::new(self.log, layout, gates),
            reader: Reader::new(log, layout, self.cursors, at, 1, 0, Some(0)).unwrap(),
        }
    }
}

/// Pins to the `index`-th of the CPUs that are allowed, if there are two.
fn pin(index: usize) {
    let cpus = affinity::allowed().unwrap();
    if cpus.len() > 1 {
        affinity::pin(cpus[index % cpus.len()]).unwrap();
    }
}

/// The second process: answers what wants an answer, until the log ends.
fn answer(place: &str) {
    let own = Own::create();
    println!("{}", own.place());
    std::io::stdout().flush().unwrap();
    let mut duplex = own.connect(place);
    while let Some(first) = read(&mut duplex.reader) {
        if first == ECHO {
            write(&mut duplex.writer, &[ECHO]);
        }
    }
}

/// Starts the second process, before this one is pinned.
fn start() -> (Duplex, Child) {
    let own = Own::create();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(PEER, own.place())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut place = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut place).unwrap();
    (own.connect(&place), child)
}

/// Publishes `count` frames and waits until the last was answered.
fn send(duplex: &mut Duplex, frame: &mut [u8], count: u64) -> Duration {
    let begun = Instant::now();
    for left in (0..count).rev() {
        frame[0] = if left == 0 { ECHO } else { 0 };
        write(&mut duplex.writer, frame);
    }
    read(&mut duplex.reader).unwrap();
    begun.elapsed()
}

fn two_processes(criterion: &mut Criterion) {
    let (mut duplex, mut child) = start();
    pin(0);
    let mut group = criterion.benchmark_group("ring, two processes");
    group.sample_size(30).measurement_time(Duration::from_secs(2));
    for size in SIZES {
        let mut frame = vec![0; size];
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("one way {size} B"), |bencher| {
            bencher.iter_custom(|count| send(&mut duplex, &mut frame, count))
        });
        group.bench_function(format!("round trip {size} B"), |bencher| {
            bencher.iter(|| send(&mut duplex, &mut frame, 1))
        });
    }
    group.finish();
    duplex.writer.close();
    assert!(child.wait().unwrap().success());
}

criterion_group!(benches, one_thread, two_processes);

fn main() {
    if let Ok(place) = std::env::var(PEER) {
        pin(1);
        return answer(&place);
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
