//! The bus between two processes, beside its bare ring in the same run.
//!
//! `cargo bench --bench bus`: this program runs itself a second time as the other process; both are pinned,
//! each to a CPU of its own. Criterion reports the time of one round trip (`rtt/*`) or of one message
//! (`throughput/*`, everything received and checked); `join` and `idle` are measured before and printed
//! as they are. Compare ratios within one run: absolute times of a virtual machine move.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use ringbus::internals::ring::{CursorSegment, Gates, Kind, LogHeader, LogLayout, Next, Reader, Writer};
use ringbus::internals::segment::{PeerSegment, Sealed};
use ringbus::internals::sys::affinity;
use ringbus::{Bus, Node, Publisher, RawPublisher, RawSubscriber, Subscriber, Wait};
use serde::{Deserialize, Serialize};

/// Selects what the second process does.
const ROLE: &str = "RINGBUS_BENCH_ROLE";
/// The CPUs that the first process found.
const CPUS: &str = "RINGBUS_BENCH_CPUS";
const PATIENCE: Duration = Duration::from_secs(30);
const CAPACITY: u64 = 256 * 1024;

/// About 64 bytes, as named fields.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Event {
    id: u64,
    stamp: u64,
    value: f64,
    label: String,
}

impl Event {
    fn new(id: u64) -> Self {
        Self { id, stamp: 1_700_000_000_000 + id, value: 0.5, label: "0123456789abcdef".into() }
    }
}

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        return second_process(&role);
    }
    pin(&cpus(), 0);
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    // Under `cargo test --benches` (and `cargo bench -- --test`) everything runs once, for correctness.
    let smoke = std::env::args().any(|arg| arg == "--test") || !std::env::args().any(|arg| arg == "--bench");
    report_joins(smoke);
    report_idle(smoke);
    round_trips(&mut criterion);
    throughputs(&mut criterion, if smoke { 1_000 } else { 100_000 });
    criterion.final_summary();
}

/// The CPUs to choose from: read before this process is pinned, since a child inherits that.
fn cpus() -> Vec<usize> {
    static ALLOWED: OnceLock<Vec<usize>> = OnceLock::new();
    ALLOWED.get_or_init(|| affinity::allowed().unwrap_or_default()).clone()
}

fn pin(cpus: &[usize], index: usize) {
    match cpus.get(index) {
        Some(cpu) => affinity::pin(*cpu).unwrap(),
        None => eprintln!("too few CPUs to pin both processes: what is measured is the scheduler"),
    }
}

// --- the two processes ------------------------------------------------------------------------------

/// The other process; killed with the value.
struct Second {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Second {
    fn start(role: &str, bus: &Bus) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(ROLE, role)
            .env(CPUS, cpus().iter().map(usize::to_string).collect::<Vec<_>>().join(","))
            .env("RINGBUS_DIR", bus.dir())
            .env("RINGBUS_BUS", bus.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hear() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim().to_owned()
}

fn tell(line: &str) {
    println!("{line}");
}

fn second_process(role: &str) {
    let cpus = std::env::var(CPUS).unwrap();
    pin(&cpus.split(',').flat_map(str::parse).collect::<Vec<_>>(), 1);
    if role == "bare-echo" || role == "bare-sink" {
        return bare_second(role);
    }
    let node = Bus::from_env().unwrap().join("second").unwrap();
    let spin = Wait::Spin;
    match role {
        "typed-echo" => {
            let mut ping: Subscriber<Event> = node.subscriber_builder("ping").wait(spin).open().unwrap();
            let mut pong: Publisher<Event> = node.publisher_builder("pong").wait(spin).open().unwrap();
            tell("ready");
            loop {
                let event = ping.recv().unwrap();
                pong.publish(&event).unwrap();
            }
        }
        "raw-echo" => {
            let mut ping: RawSubscriber = node.subscriber_builder("ping").wait(spin).open_raw().unwrap();
            let mut pong: RawPublisher = node.publisher_builder("pong").wait(spin).open_raw().unwrap();
            tell("ready");
            loop {
                let sample = ping.recv().unwrap();
                pong.publish(&sample).unwrap();
            }
        }
        "typed-sink" => {
            let mut flood: Subscriber<Event> = node.subscriber_builder("flood").wait(spin).open().unwrap();
            tell("ready");
            let mut due = 0;
            loop {
                let end = due + hear().parse::<u64>().unwrap();
                while due < end {
                    let event = flood.recv().expect("nothing is lost");
                    assert_eq!((event.id, event.sequence()), (due, due), "in order");
                    due += 1;
                }
                tell("received");
            }
        }
        "raw-sink" => {
            let mut flood: RawSubscriber = node.subscriber_builder("flood").wait(spin).open_raw().unwrap();
            tell("ready");
            let mut due = 0;
            loop {
                let end = due + hear().parse::<u64>().unwrap();
                while due < end {
                    let sample = flood.recv().expect("nothing is lost");
                    assert_eq!((u64_of(&sample), sample.sequence()), (due, due), "in order");
                    due += 1;
                }
                tell("received");
            }
        }
        "idle" => {
            let mut quiet: Subscriber<Event> = node.subscriber_builder("quiet").open().unwrap();
            tell("ready");
            let _ = quiet.recv();
        }
        "member" => {
            tell("ready");
            hear(); // until the first process is gone
        }
        other => panic!("no role {other}"),
    }
}

fn u64_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().unwrap())
}

fn join() -> (Bus, Node) {
    let bus = Bus::private().unwrap();
    let node = bus.join("first").unwrap();
    (bus, node)
}

// --- the bare ring ----------------------------------------------------------------------------------

type BareWriter = Writer<Arc<Sealed>, Arc<PeerSegment>, ()>;
type BareReader = Reader<PeerSegment, Arc<Sealed>>;

/// One process's half: a log it writes and the segment of its cursor in the other's log.
struct Half {
    log: Arc<Sealed>,
    cursors: Arc<Sealed>,
}

impl Half {
    fn new() -> Self {
        let layout = LogLayout::new(CAPACITY).unwrap();
        let log = Sealed::create("bench-log", layout.segment_size(), true).unwrap();
        layout.initialise(&log, &LogHeader { log: 1, node: [0; 16], port: 1 });
        let cursors = Sealed::create("bench-cursors", 4096, true).unwrap();
        CursorSegment::of_size(4096).initialise(&cursors, [0; 16], 1, 0);
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
            PeerSegment::open(fd, 1 << 30, true).unwrap()
        };
        let (log, cursors) = address.split_once(' ').unwrap();
        let (log, cursors) = (open(log), Arc::new(open(cursors)));
        let at = CursorSegment::check(&cursors).unwrap().cursor(0).unwrap();
        let gates = Arc::new(Gates::new());
        let gate = gates.add_first(cursors.clone(), ()).unwrap();
        gates.follow(gate.number(), cursors, at);
        let layout = LogLayout::new(CAPACITY).unwrap();
        let reader = Reader::new(log, layout, self.cursors.clone(), at, 1, 0, Some(0)).unwrap();
        (Writer::new(self.log.clone(), layout, gates), reader)
    }
}

fn bare_send(writer: &mut BareWriter, bytes: &[u8]) {
    while writer.claim(bytes.len() as u64).is_err() {
        std::hint::spin_loop();
    }
    writer.body_mut()[..bytes.len()].copy_from_slice(bytes);
    writer.commit(Kind::Frame, 0, 0, bytes.len());
    writer.publish();
    writer.ring(|()| true, |()| unreachable!("nobody parks here"));
}

fn bare_receive(reader: &mut BareReader, into: &mut [u8; 64]) {
    loop {
        match reader.next().unwrap() {
            Next::Record(_) => {
                into.copy_from_slice(reader.frame());
                return reader.release();
            }
            _ => std::hint::spin_loop(),
        }
    }
}

fn bare_second(role: &str) {
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

fn bare_first(role: &str, bus: &Bus) -> (Second, Half, BareWriter, BareReader) {
    let half = Half::new();
    let mut second = Second::start(role, bus);
    let address = second.hear();
    second.tell(&half.address());
    let (writer, reader) = half.connect(&address);
    (second, half, writer, reader)
}

// --- round trips ------------------------------------------------------------------------------------

fn round_trips(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rtt");
    {
        let (bus, _node) = join();
        let (_second, _half, mut writer, mut reader) = bare_first("bare-echo", &bus);
        let mut message = [7; 64];
        group.bench_function("bare_64B", |bencher| {
            bencher.iter(|| {
                bare_send(&mut writer, &message);
                bare_receive(&mut reader, &mut message);
            });
        });
    }
    {
        let (bus, node) = join();
        let mut pong: RawSubscriber = node.subscriber_builder("pong").wait(Wait::Spin).open_raw().unwrap();
        let mut second = Second::start("raw-echo", &bus);
        assert_eq!(second.hear(), "ready");
        let mut ping = node.raw_publisher("ping").unwrap();
        ping.wait_for_subscribers(1, PATIENCE).unwrap();
        let message = [7; 64];
        group.bench_function("raw_64B", |bencher| {
            bencher.iter(|| {
                ping.publish(&message).unwrap();
                black_box(pong.recv().unwrap().len());
            });
        });
    }
    {
        let (bus, node) = join();
        let mut pong: Subscriber<Event> = node.subscriber_builder("pong").wait(Wait::Spin).open().unwrap();
        let mut second = Second::start("typed-echo", &bus);
        assert_eq!(second.hear(), "ready");
        let mut ping = node.publisher::<Event>("ping").unwrap();
        ping.wait_for_subscribers(1, PATIENCE).unwrap();
        let event = Event::new(1);
        group.bench_function("typed_64B", |bencher| {
            bencher.iter(|| {
                ping.publish(&event).unwrap();
                black_box(pong.recv().unwrap().id);
            });
        });
    }
    group.finish();
}

// --- throughput -------------------------------------------------------------------------------------

/// Times `batch` messages until the other process has received them all, per iteration of one message.
fn flood(second: &mut Second, iterations: u64, batch: u64, mut send: impl FnMut()) -> Duration {
    let batches = iterations.div_ceil(batch);
    let mut taken = Duration::ZERO;
    for _ in 0..batches {
        second.tell(&batch.to_string());
        let start = Instant::now();
        for _ in 0..batch {
            send();
        }
        assert_eq!(second.hear(), "received");
        taken += start.elapsed();
    }
    taken.mul_f64(iterations as f64 / (batches * batch) as f64)
}

fn throughputs(criterion: &mut Criterion, batch: u64) {
    let mut group = criterion.benchmark_group("throughput");
    group.throughput(Throughput::Elements(1));
    {
        let (bus, _node) = join();
        let (mut second, _half, mut writer, _reader) = bare_first("bare-sink", &bus);
        let mut id = 0_u64;
        group.bench_function("bare_64B", |bencher| {
            bencher.iter_custom(|iterations| {
                flood(&mut second, iterations, batch, || {
                    let mut message = [0; 64];
                    message[..8].copy_from_slice(&id.to_le_bytes());
                    bare_send(&mut writer, &message);
                    id += 1;
                })
            });
        });
    }
    {
        let (bus, node) = join();
        let mut second = Second::start("raw-sink", &bus);
        assert_eq!(second.hear(), "ready");
        let mut publisher: RawPublisher =
            node.publisher_builder("flood").wait(Wait::Spin).open_raw().unwrap();
        publisher.wait_for_subscribers(1, PATIENCE).unwrap();
        let mut id = 0_u64;
        group.bench_function("raw_64B", |bencher| {
            bencher.iter_custom(|iterations| {
                flood(&mut second, iterations, batch, || {
                    let mut message = [0; 64];
                    message[..8].copy_from_slice(&id.to_le_bytes());
                    publisher.publish(&message).unwrap();
                    id += 1;
                })
            });
        });
    }
    {
        let (bus, node) = join();
        let mut second = Second::start("typed-sink", &bus);
        assert_eq!(second.hear(), "ready");
        let mut publisher: Publisher<Event> =
            node.publisher_builder("flood").wait(Wait::Spin).open().unwrap();
        publisher.wait_for_subscribers(1, PATIENCE).unwrap();
        let mut event = Event::new(0);
        group.bench_function("typed_64B", |bencher| {
            bencher.iter_custom(|iterations| {
                flood(&mut second, iterations, batch, || {
                    publisher.publish(&event).unwrap();
                    event.id += 1;
                })
            });
        });
    }
    group.finish();
}

// --- what is not repeated fast enough for criterion -------------------------------------------------

fn report_joins(smoke: bool) {
    let repetitions = if smoke { 1 } else { 15 };
    for others in [0, 20] {
        let bus = Bus::private().unwrap();
        let mut members: Vec<Second> = (0..others).map(|_| Second::start("member", &bus)).collect();
        for member in &mut members {
            assert_eq!(member.hear(), "ready");
        }
        let mut times: Vec<Duration> = (0..repetitions)
            .map(|_| {
                let start = Instant::now();
                let node = bus.join("first").unwrap();
                let taken = start.elapsed();
                assert_eq!(node.peers().len(), others);
                taken
            })
            .collect();
        times.sort();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        println!("join/{others}_others: median {median:?}, worst {worst:?} of {repetitions}");
    }
}

/// CPU time of a process that has joined and sleeps in `recv`.
fn report_idle(smoke: bool) {
    let span = Duration::from_secs(if smoke { 1 } else { 10 });
    let (bus, node) = join();
    let mut second = Second::start("idle", &bus);
    assert_eq!(second.hear(), "ready");
    let quiet = node.publisher::<Event>("quiet").unwrap();
    quiet.wait_for_subscribers(1, PATIENCE).unwrap();
    let before = cpu_time(second.child.id());
    std::thread::sleep(span); // the very thing measured
    let used = cpu_time(second.child.id()) - before;
    println!(
        "idle/parked_subscriber: {:.3} % CPU over {span:?}",
        100.0 * used.as_secs_f64() / span.as_secs_f64()
    );
}

/// Nanoseconds on a CPU of all threads (`/proc/<pid>/task/*/schedstat`).
fn cpu_time(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_task = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("schedstat")).unwrap();
        stat.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    Duration::from_nanos(tasks.map(|task| of_task(task.unwrap())).sum())
}
