//! Many nodes on one bus: how long joining takes, what a node costs, and whether all get everything.

use std::time::Instant;

use clap::Args;

use super::super::Outcome;
use super::child::Side;
use super::figures::{Figures, median};
use super::flow::Tally;
use super::idle::rss;
use super::line::{STOP, put};
use super::protocol::{Measured, MemberTask, Order, PATIENCE, Report, Task, hear, tell};
use super::{Bench, Effort, payload};
use crate::sys::clock::monotonic_ns;
use crate::{Node, Overflow, PeerChange, RawSubscriber, RecvError};

/// Many nodes on one bus, a process each: joining, memory, and one publisher to all
#[derive(Debug, Args)]
#[command(after_long_help = "\
Starts all processes first; then they join, one after the other (with --at-once all at the same time), and each
opens a subscriber. `join_p50_ms` and `join_max_ms` are what `Bus::join` takes; `all_joined_ms` is the time from
the first join until the last node knows all others. Then the first node publishes --messages to all, itself
included; `delivered` are those received, over all nodes. `process_rss_bytes` is the median of the processes'
resident memory when all is received, `bare_rss_bytes` that of a process that does nothing: the program's own
pages. `rss_per_node_bytes` is the difference: what a node adds. Processes are not pinned, and wait adaptively.
There is one repetition, and it takes as long as it takes, whatever --repetitions and --seconds say.")]
pub(super) struct Options {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=1024))]
    nodes: u32,
    /// Messages that are published to all
    #[arg(long, value_name = "M", default_value_t = 1000)]
    messages: u64,
    /// Bytes of a message, 1 to 67108864
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = payload)]
    payload: usize,
    /// Let all join at the same time
    #[arg(long)]
    pub(super) at_once: bool,
    #[command(flatten)]
    pub(super) effort: Effort,
}

impl Options {
    pub(super) fn task(&self) -> Scale {
        Scale { nodes: self.nodes as usize, messages: self.messages, payload: self.payload }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub(super) nodes: usize,
    pub(super) messages: u64,
    pub(super) payload: usize,
}

pub(super) fn measure(bench: &Bench, scale: Scale, at_once: bool) -> Outcome<Figures> {
    let Scale { nodes, messages, payload } = scale;
    let mut crew = bench.crew();
    for index in 0..nodes {
        crew.start(&format!("node-{index}"), None)?;
        let publishes = (index == 0).then_some(messages);
        crew.prepare(index, Task::Member(MemberTask { nodes, payload, publishes }))?;
    }
    let bare = crew.start("bare", None)?;
    crew.prepare(bare, Task::Rest { subscribed: false })?;
    let bare_rss = rss(crew.pid(bare))? as f64;

    let first_joins = monotonic_ns();
    let mut joins = Vec::new();
    if at_once {
        (0..nodes).try_for_each(|index| crew.order(index, &Order::Go(None)))?;
    }
    for index in 0..nodes {
        if !at_once {
            crew.order(index, &Order::Go(None))?;
        }
        match crew.hear(index, PATIENCE)? {
            Report::Joined { ns } => joins.push(ns as f64 / 1e6),
            other => return Err(crew.unexpected(index, &other)),
        }
    }
    let mut last_knows = first_joins;
    for index in 0..nodes {
        match crew.hear(index, PATIENCE)? {
            Report::Complete { at_ns } => last_knows = last_knows.max(at_ns),
            other => return Err(crew.unexpected(index, &other)),
        }
    }

    crew.order(0, &Order::Go(None))?;
    let (mut delivered, mut memory) = (0, Vec::new());
    for index in 0..nodes {
        match crew.done(index, PATIENCE)? {
            Measured::Received { count, .. } => delivered += count,
            other => return Err(format!("messages were to be counted, not {other:?}").into()),
        }
    }
    for index in 0..nodes {
        memory.push(rss(crew.pid(index))? as f64);
    }
    let due = messages * nodes as u64;
    if delivered > due {
        return Err(format!("{delivered} messages arrived where {due} were due").into());
    }
    let process_rss = median(memory);
    let longest = joins.iter().copied().fold(0.0, f64::max);
    let figures = Figures::default()
        .time("join_p50_ms", median(joins))
        .time("join_max_ms", longest)
        .time("all_joined_ms", (last_knows - first_joins) as f64 / 1e6)
        .whole("rss_per_node_bytes", process_rss - bare_rss)
        .whole("delivered", delivered as f64)
        .whole("lost", (due - delivered) as f64)
        .whole("process_rss_bytes", process_rss)
        .whole("bare_rss_bytes", bare_rss)
        .whole("nodes", nodes as f64)
        .text("joining", if at_once { "all at once" } else { "one after the other" })
        .text("placement", format!("{} processes on {} CPUs, not pinned", nodes, bench.cpus.len()));
    Ok(figures)
}

/// One of the nodes.
pub(super) fn member(task: &MemberTask, side: Side<'_>) -> Outcome<Measured> {
    side.ready(None)?;
    let start = Instant::now();
    let node = side.join()?;
    let ns = start.elapsed().as_nanos() as u64;
    let mut port = node.raw_subscriber("scale/*")?;
    tell(&Report::Joined { ns })?;
    await_others(&node, task.nodes - 1)?;
    tell(&Report::Complete { at_ns: monotonic_ns() })?;
    let count = match task.publishes {
        None => receive(&mut port)?,
        Some(messages) => {
            match hear()? {
                Some(Order::Go(_)) => {}
                other => return Err(format!("expected to go on, not {other:?}").into()),
            }
            std::thread::scope(|scope| {
                let publisher = scope.spawn(|| publish(&node, messages, task));
                let received = receive(&mut port);
                publisher.join().map_err(|_| "publishing has panicked")??;
                received
            })?
        }
    };
    // While all is still open, the first process looks at the memory that it takes.
    tell(&Report::Done(Measured::Received { count, numbers: 0, end_ns: 0 }))?;
    hear()?;
    Ok(Measured::Nothing)
}

fn await_others(node: &Node, others: usize) -> Outcome {
    let deadline = Instant::now() + PATIENCE * 2;
    let mut presence = node.presence()?;
    let mut known = 0;
    while known < others {
        match presence.recv_timeout(deadline.saturating_duration_since(Instant::now()))? {
            Some(PeerChange::Joined(_)) => known += 1,
            Some(PeerChange::Left(peer, why)) => return Err(format!("{}: {why}", peer.name()).into()),
            Some(_) => {}
            None => return Err(format!("only {known} of {others} other nodes were seen").into()),
        }
    }
    Ok(())
}

fn publish(node: &Node, messages: u64, task: &MemberTask) -> Outcome {
    let builder = node.publisher_builder("scale/active");
    let mut publisher = builder.overflow(Overflow::Block { timeout: PATIENCE }).open_raw()?;
    publisher.wait_for_subscribers(task.nodes, PATIENCE)?;
    let mut bytes = vec![7; task.payload];
    for number in (0..messages).map(|number| number & 0x7f).chain([STOP]) {
        put(&mut bytes, number);
        publisher.publish(&bytes)?;
    }
    Ok(())
}

/// How many messages came before the end.
fn receive(port: &mut RawSubscriber) -> Outcome<u64> {
    let mut tally = Tally::default();
    while tally.stops == 0 {
        match port.recv_timeout(PATIENCE * 2) {
            Ok(Some(sample)) => tally.read(&sample),
            Ok(None) => break, // what is missing is lost
            Err(RecvError::Lagged { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(tally.count)
}
