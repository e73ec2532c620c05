//! The processes, seen from the first one: started, ordered, signalled, listened to, and ended with it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Instant;

use clap::ValueEnum;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::Outcome;
use super::protocol::{Order, Report, write_line};
use super::{Cast, Role, Sabotage};
use crate::Bus;

/// One process. Its stdin is what keeps it: at the end of it, it leaves.
struct Member {
    name: String,
    child: Child,
    orders: Option<ChildStdin>,
    is_stopped: bool,
}

/// All that have not been reaped.
pub(super) struct Crew {
    bus: Bus,
    verbose: u8,
    members: BTreeMap<u64, Member>,
    next: u64,
    sender: Sender<(u64, Heard)>,
    heard: Receiver<(u64, Heard)>,
}

pub(super) enum Heard {
    Report(Report),
    /// The end of its stdout.
    End,
    /// A line that is not a report; a killed process's last one may be cut off.
    Noise,
}

impl Crew {
    pub(super) fn new(bus: &Bus, verbose: u8) -> Self {
        let (sender, heard) = mpsc::channel();
        Self { bus: bus.clone(), verbose, members: BTreeMap::new(), next: 0, sender, heard }
    }

    /// Starts a process; its life, and what to call it.
    pub(super) fn start(&mut self, cast: &Cast) -> Outcome<(u64, String)> {
        let life = self.next;
        self.next += 1;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--dir").arg(self.bus.dir()).args([
            "--bus",
            self.bus.name(),
            "--name",
            &cast.node_name(),
        ]);
        command.args(std::iter::repeat_n("-v", self.verbose.into()));
        command.args(["chaos-process", "--parent", &std::process::id().to_string()]);
        command.args(["--life", &life.to_string()]);
        if let Some(sabotage) = cast.sabotage {
            let name = Sabotage::to_possible_value(&sabotage);
            command.args(["--sabotage", name.as_ref().map_or("", |name| name.get_name())]);
        }
        command.arg(cast.role.name());
        if let Role::Subscriber { number } = cast.role {
            command.arg(number.to_string());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let name = format!("{} (life {life})", cast.node_name());
        let mut child = command.spawn().map_err(|error| format!("cannot start {name}: {error}"))?;
        let orders = child.stdin.take();
        if let Some(stdout) = child.stdout.take() {
            let sender = self.sender.clone();
            std::thread::Builder::new()
                .stack_size(128 * 1024)
                .spawn(move || listen(life, stdout, &sender))?;
        }
        self.members.insert(life, Member { name: name.clone(), child, orders, is_stopped: false });
        Ok((life, name))
    }

    /// What is said until then, if anything.
    pub(super) fn hear(&self, then: Instant) -> Option<(u64, Heard)> {
        self.heard.recv_timeout(then.saturating_duration_since(Instant::now())).ok()
    }

    /// Who cannot be told anything is about to be noticed as dead.
    pub(super) fn order(&mut self, life: u64, order: &Order) {
        if let Some(orders) = self.members.get_mut(&life).and_then(|member| member.orders.as_mut()) {
            let _ = write_line(orders, order);
        }
    }

    /// Tells it to leave.
    pub(super) fn dismiss(&mut self, life: u64) {
        if let Some(member) = self.members.get_mut(&life) {
            member.orders = None;
        }
    }

    pub(super) fn kill(&mut self, life: u64) -> Outcome {
        if let Some(member) = self.members.get_mut(&life) {
            member.child.kill()?; // first: at the end of its orders it leaves by itself
            member.orders = None;
        }
        Ok(())
    }

    pub(super) fn stop(&mut self, life: u64) -> Outcome {
        self.signal(life, Signal::SIGSTOP, true)
    }

    pub(super) fn go_on(&mut self, life: u64) -> Outcome {
        self.signal(life, Signal::SIGCONT, false)
    }

    fn signal(&mut self, life: u64, signal: Signal, stops: bool) -> Outcome {
        // Not reaped, so that the pid is its own.
        if let Some(member) = self.members.get_mut(&life) {
            kill(Pid::from_raw(member.child.id() as i32), signal)?;
            member.is_stopped = stops;
        }
        Ok(())
    }

    /// Reaps a process whose stdout has ended; its name, and how it ended.
    pub(super) fn reap(&mut self, life: u64) -> Outcome<Option<(String, ExitStatus)>> {
        let Some(mut member) = self.members.remove(&life) else { return Ok(None) };
        member.orders = None;
        let status = member.child.wait()?;
        Ok(Some((member.name, status)))
    }

    pub(super) fn count(&self) -> usize {
        self.members.len()
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for member in self.members.values_mut() {
            let _ = member.child.kill();
        }
        for member in self.members.values_mut() {
            let _ = member.child.wait();
        }
    }
}

fn listen(life: u64, stdout: ChildStdout, sender: &Sender<(u64, Heard)>) {
    for line in BufReader::new(stdout).lines() {
        let report = line.ok().and_then(|line| serde_json::from_str(&line).ok());
        if sender.send((life, report.map_or(Heard::Noise, Heard::Report))).is_err() {
            return;
        }
    }
    let _ = sender.send((life, Heard::End));
}
