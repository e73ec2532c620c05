//! The demo's processes, seen from the first one: started, ordered, listened to, and ended with it.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Instant;

use super::super::{Failure, Outcome};
use super::Role;
use super::protocol::{Order, Report, write_line};
use crate::Bus;

/// One process. Its stdin is what keeps it: at the end of it, it leaves.
struct Member {
    name: &'static str,
    role: Role,
    child: Child,
    orders: Option<ChildStdin>,
    /// The last report that was not a count.
    report: Option<Report>,
    peers: usize,
}

/// All of them.
pub(super) struct Crew {
    members: Vec<Member>,
    counts: Vec<u64>,
    heard: Receiver<(usize, Heard)>,
}

enum Heard {
    Report(Report),
    /// The end of its stdout, or something that is not a report.
    End,
}

impl Crew {
    pub(super) fn start(bus: &Bus, cast: &[(&'static str, Role)], verbose: u8) -> Outcome<Self> {
        let (sender, heard) = mpsc::channel();
        let mut crew = Self { members: Vec::new(), counts: vec![0; cast.len()], heard };
        for (at, (name, role)) in cast.iter().enumerate() {
            let mut child = command(bus, name, *role, verbose)?
                .spawn()
                .map_err(|error| format!("cannot start {name}: {error}"))?;
            let orders = child.stdin.take();
            if let Some(stdout) = child.stdout.take() {
                let sender = sender.clone();
                std::thread::spawn(move || listen(at, stdout, &sender));
            }
            crew.members.push(Member { name, role: *role, child, orders, report: None, peers: 0 });
        }
        Ok(crew)
    }

    pub(super) fn pid(&self, at: usize) -> u32 {
        self.members[at].child.id()
    }

    /// The last thing it said that was not a count.
    pub(super) fn report(&self, at: usize) -> Option<&Report> {
        self.members[at].report.as_ref()
    }

    pub(super) fn all(&self, is: impl Fn(Option<&Report>) -> bool) -> bool {
        self.members.iter().all(|member| is(member.report.as_ref()))
    }

    /// How many messages each has published or received, as far as is known.
    pub(super) fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// How many others are seen by the one that sees the fewest.
    pub(super) fn fewest_peers(&self) -> usize {
        self.members.iter().map(|member| member.peers).min().unwrap_or(0)
    }

    pub(super) fn order(&mut self, whom: impl Fn(&(&str, Role)) -> bool, order: &Order) -> Outcome {
        for at in 0..self.members.len() {
            let Member { name, role, orders, .. } = &mut self.members[at];
            if whom(&(name, *role))
                && let Some(orders) = orders
                && write_line(orders, order).is_err()
            {
                return Err(self.died(at));
            }
        }
        Ok(())
    }

    /// Waits for the next report until the deadline, when it is too late for `what`.
    pub(super) fn listen(&mut self, deadline: Instant, what: &str) -> Outcome {
        if Instant::now() >= deadline {
            return Err(
                format!("the demo's processes did not {what} in time: is the host overloaded?").into()
            );
        }
        let look = Instant::now() + super::LOOK;
        self.listen_until(deadline.min(look))
    }

    /// Waits for the next report until then.
    pub(super) fn listen_until(&mut self, then: Instant) -> Outcome {
        let (at, heard) = match self.heard.recv_timeout(then.saturating_duration_since(Instant::now())) {
            Ok(heard) => heard,
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => return Err(self.died(0)),
        };
        let member = &mut self.members[at];
        match heard {
            Heard::Report(Report::Count { messages, peers }) => {
                self.counts[at] = messages;
                member.peers = peers;
            }
            Heard::Report(Report::Failed { reason }) => {
                return Err(format!("{} failed: {reason}", member.name).into());
            }
            Heard::Report(report) => {
                match &report {
                    Report::Sent { messages } => self.counts[at] = *messages,
                    Report::Received { by_task, .. } => self.counts[at] = by_task.values().sum(),
                    _ => {}
                }
                member.report = Some(report);
            }
            Heard::End => return Err(self.died(at)),
        }
        Ok(())
    }

    /// Lets everybody leave, and waits for that.
    pub(super) fn dismiss(mut self, deadline: Instant) -> Outcome {
        for member in &mut self.members {
            member.orders = None;
        }
        for at in 0..self.members.len() {
            let status = loop {
                match self.members[at].child.try_wait()? {
                    Some(status) => break status,
                    None if Instant::now() >= deadline => {
                        return Err(format!("{} does not leave", self.members[at].name).into());
                    }
                    // Nobody else speaks now: an end is what is heard.
                    None => drop(self.heard.recv_timeout(super::LOOK)),
                }
            };
            if !status.success() {
                return Err(self.died(at));
            }
        }
        Ok(())
    }

    fn died(&mut self, at: usize) -> Failure {
        let Member { name, child, .. } = &mut self.members[at];
        let pid = child.id();
        // Its stdout has ended, so it is dead or about to be.
        let _ = child.kill();
        match child.wait() {
            Ok(status) => format!("{name} (pid {pid}) died unexpectedly: {status}").into(),
            Err(error) => format!("{name} (pid {pid}) died unexpectedly: {error}").into(),
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for Member { child, .. } in &mut self.members {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// This program again, as one of the demo's processes.
fn command(bus: &Bus, name: &str, role: Role, verbose: u8) -> Outcome<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--dir").arg(bus.dir()).args(["--bus", bus.name(), "--name", name]);
    command.args(std::iter::repeat_n("-v", verbose.into()));
    command.arg("demo-process");
    match role {
        Role::Worker { task } => command.arg("worker").arg(task.to_string()),
        Role::Watcher => command.arg("watcher"),
    };
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok(command)
}

fn listen(at: usize, stdout: ChildStdout, sender: &Sender<(usize, Heard)>) {
    for line in BufReader::new(stdout).lines() {
        let Some(report) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { break };
        if sender.send((at, Heard::Report(report))).is_err() {
            return;
        }
    }
    let _ = sender.send((at, Heard::End));
}
