//! The two processes of a run: this program, started again. They talk in lines, over stdin and stdout.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::sync::mpsc;

use crate::job::{Job, Result};

/// The hidden arguments.
pub const FIRST: &str = "as-first";
pub const SECOND: &str = "as-second";

/// What a process says before a line about what went wrong.
const ERROR: &str = "error: ";

/// The CPUs that this process may use.
pub fn allowed_cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

/// Binds this thread and all that it will start to one CPU.
pub fn bind(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Binds this process and all threads it will have to one CPU, and its life to its parent's.
pub fn settle(cpu: usize) -> Result<()> {
    bind(cpu)?;
    Ok(set_pdeathsig(Signal::SIGKILL)?)
}

fn command(role: &str, job: &Job) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(role).arg(serde_json::to_string(job)?).stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok(command)
}

/// Runs a job in processes of its own: whatever it does, it ends. Gives the line that the first process says.
pub fn run(job: &Job, timeout: Duration) -> Result<String> {
    let mut child = command(FIRST, job)?.stderr(Stdio::piped()).spawn()?;
    let mut errors = child.stderr.take().ok_or("no stderr")?;
    let complaints = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = errors.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let mut stdout = child.stdout.take().ok_or("no stdout")?;
    let answer = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stdout.read_to_string(&mut text);
        text
    });
    let end = Instant::now() + timeout;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= end {
            child.kill()?; // the second process dies with it
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let complaints = complaints.join().unwrap_or_default();
    let answer = answer.join().unwrap_or_default();
    let last = |text: &str| text.lines().rfind(|line| !line.trim().is_empty()).map(str::to_owned);
    let Some(status) = status else {
        return Err(format!("nothing within {timeout:?} {}", last(&complaints).unwrap_or_default()).into());
    };
    match last(&answer) {
        Some(line) => match line.strip_prefix(ERROR) {
            Some(reason) => Err(reason.into()),
            None => Ok(line),
        },
        None => Err(format!("the first process: {status}; {}", last(&complaints).unwrap_or_default()).into()),
    }
}

/// Says how it ended, as the last line of this process.
pub fn say(outcome: Result<String>) {
    match outcome {
        Ok(line) => println!("{line}"),
        Err(error) => println!("{ERROR}{}", error.to_string().replace('\n', " ")),
    }
}

/// Lines of a pipe, read by a thread, so that an async peer can wait for them, too.
struct Lines(mpsc::UnboundedReceiver<String>);

impl Lines {
    fn of(source: impl Read + Send + 'static, mut on_line: impl FnMut(&str) + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(|line| line.ok()) {
                on_line(&line);
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self(receiver)
    }
}

/// The second process, as the first one sees it.
pub struct Second {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines,
}

impl Second {
    pub fn start(job: &Job) -> Result<Self> {
        let mut child = command(SECOND, job)?.spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let lines = Lines::of(stdout, |line| {
            // This process may be spinning for a message of a second one that has given up.
            if let Some(reason) = line.strip_prefix(ERROR) {
                say(Err(format!("the second process: {reason}").into()));
                std::process::exit(1);
            }
        });
        Ok(Self { child, stdin, lines })
    }

    pub fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().ok_or("the second process was told to end")?;
        Ok(writeln!(stdin, "{line}")?)
    }

    pub fn hear(&mut self) -> Result<String> {
        self.lines.0.blocking_recv().ok_or_else(|| "the second process is gone".into())
    }

    pub async fn hear_async(&mut self) -> Result<String> {
        self.lines.0.recv().await.ok_or_else(|| "the second process is gone".into())
    }

    /// Lets it end by itself, so that nothing of it is left behind.
    pub fn finish(mut self) {
        drop(self.stdin.take());
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first process, as the second one sees it.
pub struct First {
    lines: Lines,
}

impl First {
    pub fn new() -> Self {
        Self { lines: Lines::of(std::io::stdin(), |_| ()) }
    }

    pub fn tell(&mut self, line: &str) {
        println!("{line}");
    }

    pub fn hear(&mut self) -> Result<String> {
        self.lines.0.blocking_recv().ok_or_else(|| "the first process is gone".into())
    }

    /// The size of the next batch of [`Flood`](crate::measure::Flood); `None`: that was all.
    pub fn batch(&mut self) -> Result<Option<u64>> {
        self.lines.0.blocking_recv().map(|line| Ok(line.parse()?)).transpose()
    }

    pub async fn batch_async(&mut self) -> Result<Option<u64>> {
        self.lines.0.recv().await.map(|line| Ok(line.parse()?)).transpose()
    }

    /// Until the first process has seen all it wanted.
    pub fn wait_for_end(&mut self) {
        while self.lines.0.blocking_recv().is_some() {}
    }
}
