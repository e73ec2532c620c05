//! Pipes between processes: content and order, ends, deaths, names that are taken or stale, and names that
//! are no pipe's.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ringbus::pipe::Writer;

mod deaths;
mod hostile;
mod messages;
mod names;
#[path = "../support/mod.rs"]
mod support;

/// Not a test of its own but the second process of those here: does nothing unless one of them started it.
#[test]
fn child() {
    support::play(&[
        ("writes many", messages::writes_many),
        ("writes and closes", messages::writes_and_closes),
        ("writes and is killed", deaths::writes_and_is_killed),
        ("reads and is killed", deaths::reads_and_is_killed),
        ("forks and is killed", deaths::forks_and_is_killed),
        ("creates and stays", names::creates_and_stays),
        ("reads and stays", names::reads_and_stays),
        ("creates under any umask", names::creates_under_any_umask),
        ("is limited in file size", names::is_limited_in_file_size),
    ]);
}

const CAPACITY: u64 = 64 * 1024;

/// A pipe's name that no other test uses; what is left of the pipe is removed at the end.
struct Name(String);

impl Name {
    fn new(test: &str) -> Self {
        // Tests of one process run at the same time, and share helpers.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self(format!("test-{}-{test}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed)))
    }

    fn create(&self) -> Writer {
        Writer::create(&self.0, CAPACITY).expect("a pipe")
    }

    /// The file that the name stands for.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/shm/ringbus-pipe-{}:{}", nix::unistd::geteuid(), self.0))
    }

    /// All files of this pipe.
    fn files(&self) -> Vec<PathBuf> {
        let own = self.path().into_os_string().into_string().unwrap();
        let entries = std::fs::read_dir("/dev/shm").unwrap().map(|entry| entry.unwrap().path());
        let is_own = |path: &PathBuf| {
            let rest = path.to_str().and_then(|path| path.strip_prefix(&own));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        };
        entries.filter(is_own).collect()
    }
}

impl std::ops::Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        for path in self.files() {
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
        }
    }
}

/// The `number`-th message of a known sequence: of any length up to 1500 bytes, and told from any other.
fn message(number: u64) -> Vec<u8> {
    let seed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let len = (seed >> 32) as usize % 1500;
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend((0..len as u64).map(|at| (seed.rotate_left((at % 64) as u32) >> 8) as u8));
    bytes
}

/// What a forked child does that only has copies of its parent's fds: it is killed, or ends by itself.
fn stay_a_minute() {
    nix::unistd::alarm::set(60);
    loop {
        std::thread::park();
    }
}
