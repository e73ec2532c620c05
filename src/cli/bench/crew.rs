//! The measured processes, seen from the first one: started and pinned, ordered, heard, and ended with it.

use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};

use super::super::interrupt::{Interrupt, wait};
use super::super::{Failure, Outcome};
use super::protocol::{Measured, Order, PATIENCE, Place, Report, Task, parse, write_line};
use crate::Bus;

/// Processes that measure together. They are killed when it is dropped, and by the kernel if this one dies.
pub(super) struct Crew<'a> {
    interrupt: &'a Interrupt,
    bus: &'a Bus,
    verbose: u8,
    members: Vec<Member>,
}

struct Member {
    /// Its node's name, too.
    name: String,
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    /// What it has said and nobody has heard yet.
    said: Vec<u8>,
}

impl<'a> Crew<'a> {
    pub(super) fn new(interrupt: &'a Interrupt, bus: &'a Bus, verbose: u8) -> Self {
        Self { interrupt, bus, verbose, members: Vec::new() }
    }

    /// Starts one more process, on one CPU if that is said; its number.
    pub(super) fn start(&mut self, name: &str, cpu: Option<usize>) -> Outcome<usize> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--dir").arg(self.bus.dir()).args(["--bus", self.bus.name(), "--name", name]);
        command.args(std::iter::repeat_n("-v", self.verbose.into()));
        command.args(["bench-child", "--parent", &std::process::id().to_string()]);
        if let Some(cpu) = cpu {
            command.args(["--cpu", &cpu.to_string()]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("cannot start process {name}: {error}"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(format!("process {name} has no stdin or stdout").into());
        };
        self.members.push(Member { name: name.into(), child, stdin, stdout, said: Vec::new() });
        Ok(self.members.len() - 1)
    }

    pub(super) fn pid(&self, at: usize) -> u32 {
        self.members[at].child.id()
    }

    pub(super) fn order(&mut self, at: usize, order: &Order) -> Outcome {
        match write_line(&mut self.members[at].stdin, order) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.died(at)),
        }
    }

    /// Gives a process its task, and waits until it is prepared.
    pub(super) fn prepare(&mut self, at: usize, task: Task) -> Outcome<Option<Place>> {
        self.order(at, &Order::Prepare(task))?;
        self.ready(at)
    }

    /// Waits until a process is ready to go on.
    pub(super) fn ready(&mut self, at: usize) -> Outcome<Option<Place>> {
        match self.hear(at, Duration::ZERO)? {
            Report::Ready(place) => Ok(place),
            other => Err(self.unexpected(at, &other)),
        }
    }

    /// What a process has measured, in the time that it takes.
    pub(super) fn done(&mut self, at: usize, time: Duration) -> Outcome<Measured> {
        match self.hear(at, time)? {
            Report::Done(measured) => Ok(measured),
            other => Err(self.unexpected(at, &other)),
        }
    }

    /// The next report of a process, within `time` and some patience. The death of any other one ends the wait:
    /// this one may be waiting for it.
    pub(super) fn hear(&mut self, at: usize, time: Duration) -> Outcome<Report> {
        let deadline = Instant::now() + time + PATIENCE;
        loop {
            let member = &mut self.members[at];
            if let Some(end) = member.said.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = member.said.drain(..=end).collect();
                return match parse(&String::from_utf8_lossy(&line))? {
                    Report::Failed { reason } => {
                        Err(format!("process {} failed: {reason}", member.name).into())
                    }
                    report => Ok(report),
                };
            }
            self.interrupt.check()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let name = &member.name;
                return Err(format!("process {name} does not answer in time: is the host overloaded?").into());
            }
            let told = self.poll(at, left)?;
            if let Some(dead) = (0..told.len()).find(|index| told[*index] && *index != at) {
                return Err(self.died(dead));
            }
            if told[at] && !self.members[at].listen()? {
                return Err(self.died(at));
            }
        }
    }

    /// Sleeps until this process says something, any other one ends, or for so long; who it was.
    fn poll(&self, at: usize, timeout: Duration) -> Outcome<Vec<bool>> {
        let mut fds = vec![PollFd::new(self.interrupt.as_fd(), PollFlags::POLLIN)];
        for (index, member) in self.members.iter().enumerate() {
            // With no event asked for, only the end is told.
            let wanted = if index == at { PollFlags::POLLIN } else { PollFlags::empty() };
            fds.push(PollFd::new(member.stdout.as_fd(), wanted));
        }
        wait(&mut fds, Some(timeout))?;
        Ok(fds[1..].iter().map(|fd| fd.any() == Some(true)).collect())
    }

    /// Whose stdout has ended is dead, or about to be; it may have said why.
    fn died(&mut self, at: usize) -> Failure {
        let Member { name, child, stdout, said, .. } = &mut self.members[at];
        let pid = child.id();
        let _ = child.kill();
        let status = child.wait();
        let _ = stdout.read_to_end(said);
        let last = String::from_utf8_lossy(said);
        if let Some(Ok(Report::Failed { reason })) = last.lines().last().map(parse) {
            return format!("process {name} failed: {reason}").into();
        }
        match status {
            Ok(status) => format!("process {name} (pid {pid}) died unexpectedly: {status}").into(),
            Err(error) => format!("process {name} (pid {pid}) died unexpectedly: {error}").into(),
        }
    }

    pub(super) fn unexpected(&self, at: usize, report: &Report) -> Failure {
        format!("process {} says what nobody asked for: {report:?}", self.members[at].name).into()
    }
}

impl Member {
    /// Reads what is there; false at the end.
    fn listen(&mut self) -> Outcome<bool> {
        let mut room = [0; 4096];
        let len = self.stdout.read(&mut room)?;
        self.said.extend_from_slice(&room[..len]);
        Ok(len > 0)
    }
}

impl Drop for Crew<'_> {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.child.kill();
        }
        for member in &mut self.members {
            let _ = member.child.wait();
        }
    }
}
