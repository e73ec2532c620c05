//! `ringbus watch`: who comes, goes, stalls and recovers, a line each.

use std::io;
use std::os::fd::AsFd;

use clap::Args;
use nix::poll::{PollFd, PollFlags};
use serde::Serialize;

use super::interrupt::{Interrupt, wait};
use super::{Common, Failure, Outcome, end, print, print_json, printable};
use crate::{Departure, PeerChange, PortInfo, Presence};

/// Print who joins the bus, leaves it, stalls and recovers, until interrupted
#[derive(Debug, Args)]
#[command(after_long_help = "\
Begins with those that are there. A node that joins has told its ports by then; those that it opens later
are not told (see `ringbus ls`). A node is stalled when it has shown no sign of life for three seconds: its
process is stopped, or starved of processor time. One that is killed has left, at once.

JSON, an object a line:
  {\"change\":\"joined\",\"node\":{\"id\":I,\"name\":N,\"pid\":P,\"uid\":U},\"why\":null,
   \"ports\":[{\"id\":1,\"role\":\"publisher\",\"name\":TOPIC}, …]}
`change` is joined, left, stalled or recovered. `why` is null unless it left, then \"goodbye\", \"died\",
\"unread\" (it did not read for too long, and joins again) or \"cut: \" and how it broke the protocol. A
subscriber's name is all its filters.")]
pub(super) struct Options {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(common: &Common, options: &Options) -> Outcome {
    let (node, interrupt) = common.join_until_interrupted("ringbus-watch")?;
    match end(&node, watch(node.presence()?, &interrupt, options.json)) {
        // The normal end.
        Err(Failure::Interrupted(_)) => Ok(()),
        other => other,
    }
}

fn watch(mut presence: Presence, interrupt: &Interrupt, json: bool) -> Outcome {
    let stdout = io::stdout();
    loop {
        while let Some(change) = presence.try_recv()? {
            // Whoever does not read our output must not keep us from being interrupted.
            writable(interrupt, &stdout)?;
            if json { print_json(&Line::of(&change)) } else { print(text(&change)) }?;
        }
        if !presence.arm()? {
            continue;
        }
        let readable = PollFlags::POLLIN;
        let mut fds = [
            PollFd::new(presence.as_fd(), readable),
            PollFd::new(interrupt.as_fd(), readable),
            PollFd::new(stdout.as_fd(), PollFlags::empty()), // an error: its reader is gone
        ];
        wait(&mut fds, None)?;
        interrupt.check()?;
        if fds[2].any() == Some(true) {
            return Err(Failure::StdoutClosed);
        }
    }
}

/// Waits until stdout takes something, or until interrupted.
fn writable(interrupt: &Interrupt, stdout: &io::Stdout) -> Outcome {
    loop {
        interrupt.check()?;
        let mut fds = [
            PollFd::new(stdout.as_fd(), PollFlags::POLLOUT),
            PollFd::new(interrupt.as_fd(), PollFlags::POLLIN),
        ];
        wait(&mut fds, None)?;
        if fds[0].any() == Some(true) {
            return Ok(());
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    change: &'static str,
    node: Node<'a>,
    why: Option<String>,
    ports: Vec<Port>,
}

#[derive(Serialize)]
struct Node<'a> {
    id: String,
    name: &'a str,
    pid: i32,
    uid: u32,
}

#[derive(Serialize)]
struct Port {
    id: u64,
    role: &'static str,
    name: String,
}

impl<'a> Line<'a> {
    fn of(change: &'a PeerChange) -> Self {
        let peer = change.peer();
        let port = |port: &PortInfo| Port { id: port.id, role: port.role, name: port.filters.join(" ") };
        Self {
            change: name(change),
            node: Node { id: peer.id().to_string(), name: peer.name(), pid: peer.pid(), uid: peer.uid() },
            why: match change {
                PeerChange::Left(_, Departure::Goodbye) => Some("goodbye".to_owned()),
                PeerChange::Left(_, Departure::Died) => Some("died".to_owned()),
                PeerChange::Left(_, Departure::Unread) => Some("unread".to_owned()),
                PeerChange::Left(_, Departure::Cut { why }) => Some(format!("cut: {why}")),
                _ => None,
            },
            ports: peer.ports().iter().map(port).collect(),
        }
    }
}

fn name(change: &PeerChange) -> &'static str {
    match change {
        PeerChange::Joined(_) => "joined",
        PeerChange::Left(..) => "left",
        PeerChange::Stalled(_) => "stalled",
        PeerChange::Recovered(_) => "recovered",
    }
}

/// `joined     worker  pid 12, uid 1000, node …: publisher task/1/progress`
fn text(change: &PeerChange) -> String {
    let peer = change.peer();
    let ports = || {
        let port = |port: &PortInfo| format!("{} {}", port.role, port.filters.join(" "));
        peer.ports().iter().map(port).collect::<Vec<_>>().join(", ")
    };
    let more = match change {
        PeerChange::Joined(_) => ports(),
        PeerChange::Left(_, why) => why.to_string(),
        PeerChange::Stalled(_) | PeerChange::Recovered(_) => String::new(),
    };
    let colon = if more.is_empty() { "" } else { ": " };
    let line = format!(
        "{:<9}  {}  pid {}, uid {}, node {}{colon}{more}",
        name(change),
        peer.name(),
        peer.pid(),
        peer.uid(),
        peer.id().short()
    );
    printable(&line).into_owned()
}
