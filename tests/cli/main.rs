//! The `ringbus` command, run as users run it.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringbus::{Bus, Node};
use serde_json::Value;
use tempfile::TempDir;

mod bench;
mod calls;
mod chaos;
mod demo;
mod doctor;
mod look;
mod mail;
mod memory;
mod messages;
mod shared;
mod stalls;
mod watch;

/// Within this everything happens, or a test fails.
const DEADLINE: Duration = Duration::from_secs(60);

/// A directory for buses.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Place(tempfile::tempdir().expect("a temporary directory"))
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    /// The directory of the bus that commands use unless told otherwise.
    fn bus_dir(&self) -> std::path::PathBuf {
        self.dir().join("default")
    }

    fn join(&self, name: &str) -> Node {
        let bus = Bus::builder("default").dir(self.dir()).open().expect("a bus");
        bus.join(name).expect("to join")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringbus"));
        command.env_remove("RUST_LOG").env_remove("RINGBUS_BUS").env("RINGBUS_DIR", self.dir());
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, args: &[&str]) -> Running {
        Running::start(self.command(args))
    }

    /// Runs a command that gets this on stdin.
    fn feed(&self, args: &[&str], stdin: &str) -> Output {
        feed(self.command(args), stdin)
    }

    /// Runs a command to its end.
    fn run(&self, args: &[&str]) -> Output {
        self.start(args).output()
    }

    /// Runs a command that has to succeed, and say nothing on stderr; its stdout.
    #[track_caller]
    fn succeed(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = text(&output.stderr);
        assert!(output.status.success() && stderr.is_empty(), "{args:?}: {} {stderr}", output.status);
        text(&output.stdout)
    }

    /// Runs a command that has to fail with one line on stderr; that line.
    #[track_caller]
    fn fail(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: "), "{args:?}: {stderr}");
        stderr
    }
}

/// Runs a command that gets this on stdin.
fn feed(mut command: Command, stdin: &str) -> Output {
    command.stdin(Stdio::piped());
    let mut running = Running::start(command);
    let mut pipe = running.child.stdin.take().expect("a pipe");
    match pipe.write_all(stdin.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {} // it had enough
        written => written.expect("stdin"),
    }
    drop(pipe);
    running.output()
}

/// A command under way; killed when dropped.
struct Running {
    child: Child,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("to start the command");
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        Self { child, stdout, stderr }
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("to send a signal");
    }

    /// Reads stdout from now on, line by line.
    fn lines(&mut self) -> Lines {
        Lines::of(self.stdout.take().expect("stdout, once"))
    }

    fn errors(&mut self) -> Lines {
        Lines::of(self.stderr.take().expect("stderr, once"))
    }

    #[track_caller]
    fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        let pid = self.pid();
        eventually(&format!("the end of process {pid}"), || {
            ended = self.child.try_wait().expect("to wait for the command");
            ended.is_some()
        });
        ended.expect("a status")
    }

    /// Reads all that it prints, and waits for its end.
    #[track_caller]
    fn output(mut self) -> Output {
        let stdout = self.stdout.take().map(read_all);
        let stderr = self.stderr.take().map(read_all);
        let status = self.wait();
        let join = |bytes: Option<thread::JoinHandle<Vec<u8>>>| {
            bytes.map(|bytes| bytes.join().expect("what was read")).unwrap_or_default()
        };
        Output { status, stdout: join(stdout), stderr: join(stderr) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("to read a pipe");
        bytes
    })
}

/// Lines as they come.
struct Lines(Receiver<String>);

impl Lines {
    fn of(from: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(from).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self(lines)
    }

    #[track_caller]
    fn next(&self) -> String {
        self.0.recv_timeout(DEADLINE).expect("a line")
    }

    /// What comes until the end.
    fn rest(self) -> Vec<String> {
        let mut rest = Vec::new();
        while let Ok(line) = self.0.recv_timeout(DEADLINE) {
            rest.push(line);
        }
        rest
    }
}

#[test]
fn every_command_tells_its_exit_codes_and_hidden_ones_stay_hidden() {
    let place = Place::new();
    for name in [
        "demo",
        "ls",
        "pub",
        "sub",
        "send",
        "inbox",
        "broadcast",
        "call",
        "serve-echo",
        "watch",
        "doctor",
        "bench",
        "chaos",
    ] {
        let help = place.succeed(&[name, "--help"]);
        assert_eq!(help.matches("Exit codes: 0 ").count(), 1, "{name}: {help}");
    }
    let mut bare = place.command(&[]);
    let bare = bare.env("RINGBUS_BUS", "any").output().expect("to run");
    let said = text(&bare.stdout) + &text(&bare.stderr);
    assert!(
        bare.status.code() == Some(2)
            && !said.contains("demo-process")
            && !said.contains("bench-child")
            && !said.contains("chaos-process"),
        "{said}"
    );
}

#[test]
fn help_that_cannot_be_written_is_an_error() {
    for args in [&["--help"][..], &["--version"], &["pub", "--help"]] {
        let full = std::fs::File::create("/dev/full").unwrap();
        let output = Place::new().command(args).stdout(full).output().expect("to run");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(
            text(&output.stderr).starts_with("error: cannot write to stdout: "),
            "{}",
            text(&output.stderr)
        );
    }
}

#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[track_caller]
fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}
