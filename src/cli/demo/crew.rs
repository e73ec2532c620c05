//! The demo's processes, seen from the first one: started, ordered, listened to, and ended with it.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Instant;

use super::super::{Failure, Outcome};
use super::Role;
use super::protocol::{Finished, Kinds, Order, Report, Stopped, write_line};
use crate::Bus;

/// One process. Its stdin is what keeps it: at the end of it, it leaves.
pub(super) struct Member {
    pub(super) name: &'static str,
    pub(super) role: Role,
    child: Child,
    orders: Option<ChildStdin>,
    pub(super) fate: Fate,
    pub(super) told: Told,
    /// Its stdout is over.
    ended: bool,
}

/// How a process takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// From the beginning to the end.
    Stays,
    /// Until it is killed.
    Killed,
    /// In the place of the one that was killed.
    Replaces,
}

/// What a process has told of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// The id of its node, once it is ready.
    pub(super) node: Option<String>,
    /// A worker's events whose `publish` has succeeded.
    pub(super) published: u64,
    pub(super) sent: Kinds,
    pub(super) received: Kinds,
    pub(super) peers: usize,
    pub(super) stopped: Option<Stopped>,
    pub(super) finished: Option<Finished>,
}

/// All of them.
pub(super) struct Crew {
    bus: Bus,
    verbose: u8,
    members: Vec<Member>,
    sender: Sender<(usize, Heard)>,
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
        let mut crew = Self { bus: bus.clone(), verbose, members: Vec::new(), sender, heard };
        for (name, role) in cast {
            crew.add(name, *role, Fate::Stays)?;
        }
        Ok(crew)
    }

    fn add(&mut self, name: &'static str, role: Role, fate: Fate) -> Outcome {
        let mut child = command(&self.bus, name, role, self.verbose)?
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        let orders = child.stdin.take();
        if let Some(stdout) = child.stdout.take() {
            let (at, sender) = (self.members.len(), self.sender.clone());
            std::thread::spawn(move || listen(at, stdout, &sender));
        }
        let told = Told::default();
        self.members.push(Member { name, role, child, orders, fate, told, ended: false });
        Ok(())
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Those that take part now.
    fn present(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.fate != Fate::Killed)
    }

    /// Whether all that take part now have got so far.
    pub(super) fn all(&self, is: impl Fn(&Member) -> bool) -> bool {
        self.present().all(is)
    }

    /// How many others are seen by the one that sees the fewest.
    pub(super) fn fewest_peers(&self) -> usize {
        self.present().map(|member| member.told.peers).min().unwrap_or(0)
    }

    pub(super) fn order(&mut self, whom: impl Fn(&Member) -> bool, order: &Order) -> Outcome {
        for at in 0..self.members.len() {
            let member = &mut self.members[at];
            if whom(member)
                && let Some(orders) = &mut member.orders
                && write_line(orders, order).is_err()
            {
                return Err(self.died(at));
            }
        }
        Ok(())
    }

    /// Kills a process, takes what it had told, and starts another one in its place.
    pub(super) fn replace(&mut self, name: &str, deadline: Instant) -> Outcome {
        let at = self.members.iter().position(|member| member.name == name).unwrap_or_default();
        let member = &mut self.members[at];
        if member.child.try_wait()?.is_some() {
            return Err(self.died(at)); // not by us
        }
        member.child.kill()?;
        member.fate = Fate::Killed;
        member.orders = None;
        member.child.wait()?;
        while !self.members[at].ended {
            self.listen(deadline, "end when killed")?;
        }
        let Member { name, role, .. } = self.members[at];
        self.add(name, role, Fate::Replaces)
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
        let told = &mut member.told;
        match heard {
            Heard::Report(Report::Ready { node }) => told.node = Some(node),
            Heard::Report(Report::Published { events }) => {
                told.published = events;
                told.sent.event = told.sent.event.max(events);
            }
            Heard::Report(Report::Count { sent, received, peers }) => {
                (told.sent, told.received, told.peers) = (sent, received, peers);
            }
            Heard::Report(Report::Stopped(stopped)) => {
                told.sent = stopped.sent;
                told.published = stopped.sent.event;
                told.stopped = Some(stopped);
            }
            Heard::Report(Report::Finished(finished)) => told.finished = Some(finished),
            Heard::Report(Report::Failed { reason }) => {
                return Err(format!("{} failed: {reason}", member.name).into());
            }
            Heard::End if member.fate == Fate::Killed => member.ended = true,
            Heard::End => return Err(self.died(at)),
        }
        Ok(())
    }

    /// Lets everybody leave, and waits for that.
    pub(super) fn dismiss(&mut self, deadline: Instant) -> Outcome {
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
            if !status.success() && self.members[at].fate != Fate::Killed {
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

impl Member {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
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
    command.args(["demo-process", "--parent", &std::process::id().to_string()]);
    match role {
        Role::Worker { task } => command.arg("worker").arg(task.to_string()),
        Role::Planner => command.arg("planner"),
        Role::Monitor => command.arg("monitor"),
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
