//! Second processes for the tests, and conditions with deadlines.
//!
//! A second process is this test binary once more, in a role that the environment names. Each file that
//! needs one has
//!
//! ```ignore
//! #[test]
//! fn child() {
//!     support::play(&[("writer", writer), ("reader", reader)]);
//! }
//!
//! fn writer(parent: &mut Parent, args: &[&str]) { … parent.say("open"); parent.hear("go"); … }
//! ```
//!
//! and starts it with [`Child::start`]. Parent and child talk in lines, over the child's stdin and stdout.
//! A child that panics fails the test that waits for it, with what it wrote to stderr; one that a test
//! leaves behind is killed.
#![allow(dead_code)] // each test file uses its share

pub mod stopwatch;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use ringbus::{Bus, Node};

/// How long a test waits for what has to happen before it fails. Nothing waits this long when all is well.
pub const DEADLINE: Duration = Duration::from_secs(40);

const ROLE: &str = "RINGBUS_TEST_ROLE";
const ARGS: &str = "RINGBUS_TEST_ARGS";
const ARG_END: char = '\u{1f}';
/// Begins a line that is meant for the parent; the test harness writes to stdout, too.
const MARK: &str = "::";

/// Whether this is root, who can play other users. If not, the test's output says what it cannot show here.
pub fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        // Past the harness, which shows the output of failed tests only.
        let _ = writeln!(std::io::stderr(), "{test}: not shown, or in part: only root can play other users");
    }
    root
}

/// Waits until `look` says true.
#[track_caller]
pub fn eventually(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !look() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How often a test does what it does: as the environment says, for the long form of a test; else this.
pub fn count(name: &str, short: usize) -> usize {
    std::env::var(name).map_or(short, |count| count.parse().expect("a number"))
}

/// That each of these times was within the bound. The short form of a test, which runs beside others, asks that of
/// half of them, and of the others that they were within ten times the bound.
#[track_caller]
pub fn all_within(bound: Duration, long_form: &str, times: &[Duration]) {
    let most = if std::env::var(long_form).is_ok() { bound } else { bound * 10 };
    let late = times.iter().filter(|time| **time > bound).count();
    assert!(
        times.iter().all(|time| *time <= most) && late * 2 <= times.len(),
        "not within {bound:?}: {times:?}"
    );
}

/// Times, sorted, in words.
pub fn figures(times: &mut [Duration]) -> String {
    times.sort();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    match (at(50), at(99), times.last()) {
        (Some(median), Some(p99), Some(max)) => format!("median {median:.1?}, p99 {p99:.1?}, max {max:.1?}"),
        _ => "none".to_owned(),
    }
}

/// A directory for buses, removed at the end of the test.
pub struct Dir(tempfile::TempDir);

impl Dir {
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("rb").tempdir().expect("a temporary directory"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path as an argument for a child.
    pub fn arg(&self) -> &str {
        self.0.path().to_str().expect("UTF-8")
    }

    /// Opens the bus that all tests use.
    pub fn bus(&self) -> Bus {
        bus(self.arg())
    }

    /// Joins the bus.
    pub fn join(&self, name: &str) -> Node {
        self.bus().join(name).expect("join")
    }

    /// The rendezvous sockets on the bus.
    pub fn sockets(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path().join("bus")).expect("the bus's directory");
        let names = entries.map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"));
        names.filter(|name| name.ends_with(".sock")).collect()
    }
}

/// The bus in the directory that [`Dir::arg`] names.
pub fn bus(dir: &str) -> Bus {
    Bus::builder("bus").dir(dir).open().expect("the bus")
}

/// Open fds of this process, and mappings of ringbus's segments. Only for processes that run one test.
pub fn resources() -> (usize, usize) {
    let fds = fs::read_dir("/proc/self/fd").expect("/proc").count();
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc");
    (fds, maps.lines().filter(|line| line.contains("/memfd:ringbus")).count())
}

/// The child's end of the conversation.
pub struct Parent(BufReader<std::io::Stdin>);

impl Parent {
    pub fn new() -> Self {
        Self(BufReader::new(std::io::stdin()))
    }

    /// Tells the parent a line.
    pub fn say(&self, line: &str) {
        // One write, past the harness's capturing.
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(format!("\n{MARK}{line}\n").as_bytes()).expect("the parent is there");
        stdout.flush().expect("the parent is there");
    }

    /// The parent's next line; `None` if it says no more.
    pub fn listen(&mut self) -> Option<String> {
        let mut line = String::new();
        let len = self.0.read_line(&mut line).expect("stdin");
        (len > 0).then(|| line.trim_end().to_owned())
    }

    /// Waits for the parent to say this.
    #[track_caller]
    pub fn hear(&mut self, expected: &str) {
        assert_eq!(self.listen().as_deref(), Some(expected));
    }

    /// Waits until the parent is done with this child.
    pub fn stay(&mut self) {
        while self.listen().is_some() {}
    }
}

pub type Role = fn(&mut Parent, &[&str]);

/// Plays the role that the environment names, if this is a child at all.
pub fn play(roles: &[(&str, Role)]) {
    let Ok(role) = std::env::var(ROLE) else { return };
    // Not even a killed test leaves a child behind.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).expect("prctl");
    let args = std::env::var(ARGS).expect("arguments");
    let args: Vec<&str> = args.split_terminator(ARG_END).collect();
    let (_, play) = roles.iter().find(|(name, _)| *name == role).expect("a role of this file");
    play(&mut Parent::new(), &args);
}

/// A second process, killed when dropped.
pub struct Child {
    role: String,
    process: std::process::Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    stderr: Receiver<String>,
}

impl Child {
    /// Starts this test binary in a role of the same file.
    pub fn start(role: &str, args: &[&str]) -> Self {
        Self::start_with_env(role, args, &[])
    }

    /// Starts it with these environment variables; `None` takes one away.
    pub fn start_with_env(role: &str, args: &[&str], env: &[(&str, Option<&str>)]) -> Self {
        Self::start_command(Command::new(std::env::current_exe().expect("this binary")), role, args, env)
    }

    /// Starts it through a command that runs what follows its arguments.
    pub fn start_through(through: &[&str], role: &str, args: &[&str]) -> Self {
        let mut command = Command::new(through[0]);
        command.args(&through[1..]).arg(std::env::current_exe().expect("this binary"));
        Self::start_command(command, role, args, &[])
    }

    fn start_command(mut command: Command, role: &str, args: &[&str], env: &[(&str, Option<&str>)]) -> Self {
        command.args(["child", "--exact", "--nocapture", "--test-threads=1"]);
        command
            .env(ROLE, role)
            .env(ARGS, args.iter().map(|arg| format!("{arg}{ARG_END}")).collect::<String>());
        for (name, value) in env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("a second process");
        let stdin = process.stdin.take();
        let (stdout, mut stderr) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
        let (says, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Some(line) = line.strip_prefix(MARK) else { continue };
                if says.send(line.to_owned()).is_err() {
                    return;
                }
            }
        });
        let (writes, errors) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = stderr.read(&mut bytes) {
                let _ = writes.send(String::from_utf8_lossy(&bytes[..len]).into_owned());
            }
        });
        Self { role: role.to_owned(), process, stdin, lines, stderr: errors }
    }

    pub fn pid(&self) -> i32 {
        self.process.id() as i32
    }

    /// Tells the child a line.
    #[track_caller]
    pub fn tell(&mut self, line: &str) {
        let told = writeln!(self.stdin.as_mut().expect("told before it ends"), "{line}");
        if told.is_err() {
            self.fail("does not listen");
        }
    }

    /// The child's next line.
    #[track_caller]
    pub fn line(&mut self) -> String {
        // Longer than the child itself waits for anything: it can say better what is wrong.
        self.line_within(DEADLINE + DEADLINE / 4)
    }

    /// The child's next line, which may take this long.
    #[track_caller]
    pub fn line_within(&mut self, time: Duration) -> String {
        match self.lines.recv_timeout(time) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => self.fail("says nothing"),
            Err(RecvTimeoutError::Disconnected) => self.fail("has ended without a word"),
        }
    }

    /// The child's next line, if it has said one.
    #[track_caller]
    pub fn line_if_any(&mut self) -> Option<String> {
        match self.lines.try_recv() {
            Ok(line) => Some(line),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => self.fail("has ended without a word"),
        }
    }

    /// Waits for the child to say this.
    #[track_caller]
    pub fn expect(&mut self, expected: &str) {
        let line = self.line();
        if line != expected {
            self.fail(&format!("said {line:?} instead of {expected:?}"));
        }
    }

    /// Says no more to the child, and waits until it has ended well.
    #[track_caller]
    pub fn finish(mut self) {
        let status = self.wait();
        if !status.success() {
            self.fail(&format!("ended with {status}"));
        }
    }

    /// Waits until the child has been killed by its own hand.
    #[track_caller]
    pub fn ends_by_kill(mut self) {
        let status = self.wait();
        if std::os::unix::process::ExitStatusExt::signal(&status) != Some(Signal::SIGKILL as i32) {
            self.fail(&format!("ended with {status}"));
        }
    }

    /// Kills the child.
    pub fn kill(mut self) {
        self.process.kill().expect("kill");
        self.process.wait().expect("wait");
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("kill");
    }

    #[track_caller]
    fn wait(&mut self) -> ExitStatus {
        self.stdin = None;
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.process.try_wait().expect("wait") {
                return status;
            }
            if Instant::now() >= deadline {
                self.fail("does not end");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[track_caller]
    fn fail(&mut self, how: &str) -> ! {
        let errors = self.errors();
        panic!("the {} {how}; its stderr:\n{errors}", self.role);
    }

    /// Kills the child, and returns what it wrote to stderr.
    fn errors(&mut self) -> String {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let mut all = String::new();
        // Until the pipe ends; a forked child of the child may hold it open.
        while let Ok(text) = self.stderr.recv_timeout(Duration::from_secs(1)) {
            all.push_str(&text);
        }
        all
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let failed = matches!(self.process.try_wait(), Ok(Some(status)) if status.code().is_some_and(|code| code != 0));
        let errors = self.errors();
        if failed && !std::thread::panicking() {
            panic!("the {} failed; its stderr:\n{errors}", self.role);
        } else if failed {
            eprintln!("the {} failed, too; its stderr:\n{errors}", self.role);
        }
    }
}

/// A forked child of this process, running part of a test.
pub struct Forked {
    child: Pid,
    report: std::io::PipeReader,
}

impl Forked {
    /// Runs `body` in a fork of this process. Whatever `body` is given and leaves is not dropped there.
    pub fn run(body: impl FnOnce()) -> Self {
        let (report, mut verdict) = std::io::pipe().expect("a pipe");
        // SAFETY: the child runs on, alone; glibc keeps malloc usable after a fork, and the tests take no
        // lock that another thread could have held.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Parent { child } => Self { child, report },
            ForkResult::Child => {
                let result = catch_unwind(AssertUnwindSafe(body));
                if let Err(panic) = &result {
                    let text = panic.downcast_ref::<String>().cloned();
                    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                    let _ = verdict.write_all(text.unwrap_or_default().as_bytes());
                }
                // SAFETY: ends the process at once; nothing of the parent's is dropped or flushed here.
                unsafe { nix::libc::_exit(result.is_err().into()) }
            }
        }
    }

    pub fn pid(&self) -> Pid {
        self.child
    }

    /// Waits for the child, and fails as it did.
    #[track_caller]
    pub fn passes(mut self) {
        let mut text = String::new();
        self.report.read_to_string(&mut text).expect("the report");
        let status = waitpid(self.child, None).expect("wait");
        assert_eq!(status, WaitStatus::Exited(self.child, 0), "the forked child says: {text}");
    }
}

/// Tests that are a role of a second process each, which has to say that it has passed.
#[allow(unused_macros)]
macro_rules! in_a_process_of_its_own {
    ($($test:ident: $role:literal;)*) => {$(
        #[test]
        fn $test() {
            let dir = $crate::support::Dir::new();
            let mut child = $crate::support::Child::start($role, &[dir.arg()]);
            child.expect("passed");
            child.finish();
        }
    )*};
}
#[allow(unused_imports)]
pub(crate) use in_a_process_of_its_own;
