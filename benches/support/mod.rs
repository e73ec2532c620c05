//! What the benchmarks share: the second process, and where both run.
#![allow(dead_code)] // each benchmark uses its share

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use ringbus::internals::sys::affinity;
use ringbus::{Bus, Node};
use serde::{Deserialize, Serialize};

pub mod bare;

/// Selects what the second process does.
pub const ROLE: &str = "RINGBUS_BENCH_ROLE";
/// The CPUs that the first process found.
pub const CPUS: &str = "RINGBUS_BENCH_CPUS";
pub const PATIENCE: Duration = Duration::from_secs(30);

/// About 64 bytes, as named fields.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    pub id: u64,
    pub stamp: u64,
    pub value: f64,
    pub label: String,
}

impl Event {
    pub fn new(id: u64) -> Self {
        Self { id, stamp: 1_700_000_000_000 + id, value: 0.5, label: "0123456789abcdef".into() }
    }
}

/// Under `cargo test --benches` (and `cargo bench -- --test`) everything runs once, for correctness.
pub fn is_smoke() -> bool {
    std::env::args().any(|arg| arg == "--test") || !std::env::args().any(|arg| arg == "--bench")
}

/// The CPUs to choose from: read before this process is pinned, since a child inherits that.
pub fn cpus() -> Vec<usize> {
    static ALLOWED: OnceLock<Vec<usize>> = OnceLock::new();
    ALLOWED.get_or_init(|| affinity::allowed().unwrap_or_default()).clone()
}

pub fn pin(cpus: &[usize], index: usize) {
    match cpus.get(index) {
        Some(cpu) => affinity::pin(*cpu).unwrap(),
        None => eprintln!("too few CPUs to pin both processes: what is measured is the scheduler"),
    }
}

/// The other process; killed with the value.
pub struct Second {
    pub child: Child,
    stdin: ChildStdin,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Second {
    pub fn start(role: &str, bus: &Bus) -> Self {
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

    pub fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    pub fn hear(&mut self) -> String {
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

pub fn hear() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim().to_owned()
}

pub fn tell(line: &str) {
    println!("{line}");
}

/// Pins this process, the second, beside the first.
pub fn pin_second() {
    let cpus = std::env::var(CPUS).unwrap();
    pin(&cpus.split(',').flat_map(str::parse).collect::<Vec<_>>(), 1);
}

pub fn u64_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().unwrap())
}

pub fn join() -> (Bus, Node) {
    let bus = Bus::private().unwrap();
    let node = bus.join("first").unwrap();
    (bus, node)
}

/// Nanoseconds on a CPU of all threads (`/proc/<pid>/task/*/schedstat`).
pub fn cpu_time(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_task = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("schedstat")).unwrap();
        stat.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    Duration::from_nanos(tasks.map(|task| of_task(task.unwrap())).sum())
}
