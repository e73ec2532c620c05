//! A measured process: it obeys orders on stdin, and ends with the first process, whatever happens to that.

use clap::Args;

use super::super::lines::end_with;
use super::super::{Common, Failure, Outcome};
use super::protocol::{FlowKind, LineKind, Measured, Order, Place, Report, Task, hear, tell};
use super::{bare, bells, bus, calls, flow, host, idle, line, raw, scale};
use crate::Node;
use crate::sys::affinity;

/// One of the processes of `ringbus bench`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ChildOptions {
    /// The process that it ends with
    #[arg(long)]
    parent: i32,
    /// The CPU to run on
    #[arg(long)]
    cpu: Option<usize>,
}

/// What a task has of its process.
#[derive(Clone, Copy)]
pub(super) struct Side<'a>(&'a Common);

impl Side<'_> {
    pub(super) fn join(self) -> Outcome<Node> {
        self.0.join("ringbus-bench")
    }

    /// A name in the bench's own directory, for a socket.
    pub(super) fn path(self, name: &str) -> Outcome<std::path::PathBuf> {
        Ok(self.0.dir.clone().ok_or("no directory was said")?.join(name))
    }

    /// Says that this side is prepared, and waits for the other one; what that has made.
    pub(super) fn ready(self, made: Option<Place>) -> Outcome<Option<Place>> {
        tell(&Report::Ready(made))?;
        match hear()? {
            Some(Order::Go(place)) => Ok(place),
            other => Err(format!("expected to go on, not {other:?}").into()),
        }
    }

    /// The same, where each side opens what the other one has made: both have, afterwards.
    pub(super) fn exchange<T>(self, made: Place, open: impl FnOnce(&Place) -> Outcome<T>) -> Outcome<T> {
        let place = self.ready(Some(made))?.ok_or("the other side has made nothing")?;
        let opened = open(&place)?;
        self.ready(None)?;
        Ok(opened)
    }
}

pub(in crate::cli) fn run_child(common: &Common, options: &ChildOptions) -> Outcome {
    if !end_with(options.parent)? {
        return Ok(());
    }
    // Ctrl-C reaches all of a terminal's processes: this one is ended by the first one.
    signal_hook::flag::register(signal_hook::consts::SIGINT, Default::default())?;
    match obey(common, options) {
        Err(Failure::Error(reason)) => tell(&Report::Failed { reason }),
        other => other,
    }
}

fn obey(common: &Common, options: &ChildOptions) -> Outcome {
    if let Some(cpu) = options.cpu {
        affinity::pin(cpu).map_err(|error| format!("cannot run on CPU {cpu} alone: {error}"))?;
    }
    while let Some(order) = hear()? {
        if let Order::Prepare(task) = order {
            let measured = perform(task, Side(common))?;
            tell(&Report::Done(measured))?;
        }
    }
    Ok(())
}

fn perform(task: Task, side: Side<'_>) -> Outcome<Measured> {
    match task {
        Task::Ping { line, seconds } => bounce(line, line::Part::Ping { seconds }, side),
        Task::Echo { line } => bounce(line, line::Part::Echo, side),
        Task::Send { flow: FlowKind::Bus(kind), seconds } => bus::send(&kind, seconds, side),
        Task::Send { flow: FlowKind::Bare(kind), seconds } => bare::send(&kind, seconds, side),
        Task::Receive { flow: FlowKind::Bus(kind) } => bus::receive(&kind, side),
        Task::Receive { flow: FlowKind::Bare(kind) } => bare::receive(&kind, side),
        Task::Copy { payload, seconds } => flow::copy(payload, seconds, side),
        Task::Call(task) => calls::call(&task, side),
        Task::Serve => calls::serve(side),
        Task::Calculate => {
            side.ready(None)?;
            Ok(Measured::Took { ns: host::calculate() })
        }
        Task::Rest { subscribed } => idle::rest(subscribed, side),
        Task::Member(task) => scale::member(&task, side),
    }
}

fn bounce(kind: LineKind, part: line::Part, side: Side<'_>) -> Outcome<Measured> {
    match kind {
        LineKind::Bus(kind) if kind.typed => line::play(part, bus::TypedLine::open(&kind, part, side)?),
        LineKind::Bus(kind) => line::play(part, bus::RawLine::open(&kind, part, side)?),
        LineKind::Bare(kind) => line::play(part, bare::Line::open(&kind, side)?),
        LineKind::Raw => line::play(part, raw::Line::open(side)?),
        LineKind::Bells { polled } => line::play(part, bells::Line::open(polled, part, side)?),
    }
}
