//! `ringbus ls`: who is on the bus, with which ports, and how fast they are.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::interrupt::Interrupt;
use super::silent::{self, Silent, short};
use super::{Common, Outcome, grouped, print, print_json, printable, table};
use crate::control::Location;
use crate::{Node, NodeId, NodeInfo, NodeStats, Peer, PortInfo, RefusedNode, ReportedPort};

/// How long nodes have to answer.
const ANSWER: Duration = Duration::from_millis(300);
/// Time between two questions: what the rates are taken over.
const INTERVAL: Duration = Duration::from_millis(300);

/// List the nodes of the bus, their ports, and how fast these are
#[derive(Debug, Args)]
#[command(after_long_help = "\
Asks every node twice, 300 ms apart, for what its ports have counted. LAG is what the slowest subscriber
of a publisher has not read yet, or what a subscriber has not read yet, in bytes of the log (what it has taken
counts until it looks for more, up to an eighth of its log; a message too large for the log counts as 48 bytes
there); DROPPED counts messages that a publisher has dropped or a subscriber has missed; EVICTED how often a
publisher has cut a subscriber off; BLOCKED is time spent waiting for slow readers.

JSON:
  {\"bus\":B,\"nodes\":[{\"name\":N,\"id\":I,\"pid\":P,\"uid\":U,\"uptime_s\":S,\"answers\":true,\"ports\":[
     {\"id\":1,\"role\":\"publisher\",\"lossy\":false,\"name\":TOPIC,\"messages\":N,\"bytes\":N,\"dropped\":N,
      \"evicted\":N,\"blocked_ms\":N,\"lag\":N,\"peers\":N,\"rate\":MESSAGES_A_SECOND}, …]}, …],
   \"other_buses\":[NAME,…],\"refused\":[{\"id\":I,\"why\":TEXT}, …],\"silent\":[I,…]}
A node that stopped answering has \"answers\":false, and null in place of what its ports count; `silent`
are nodes that never answered (stopped processes, say; the text names their processes). `refused` are nodes
that cannot be talked to, such as those of another version. A subscriber's name is all its filters.")]
pub(super) struct Options {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Listing {
    bus: String,
    #[serde(skip)]
    dir: String,
    /// Whether the directory is there.
    #[serde(skip)]
    is_there: bool,
    nodes: Vec<ListedNode>,
    other_buses: Vec<String>,
    refused: Vec<ListedRefusal>,
    silent: Vec<Silent>,
}

#[derive(Debug, Serialize)]
struct ListedNode {
    name: String,
    id: String,
    pid: i32,
    uid: u32,
    uptime_s: f64,
    answers: bool,
    ports: Vec<ListedPort>,
}

#[derive(Debug, Serialize)]
struct ListedPort {
    id: u64,
    role: &'static str,
    lossy: bool,
    name: String,
    messages: Option<u64>,
    bytes: Option<u64>,
    dropped: Option<u64>,
    evicted: Option<u64>,
    blocked_ms: Option<u64>,
    lag: Option<u64>,
    peers: Option<usize>,
    rate: Option<f64>,
}

#[derive(Debug, Serialize)]
struct ListedRefusal {
    id: Option<String>,
    why: String,
}

pub(super) fn run(common: &Common, options: &Options) -> Outcome {
    let bus = common.bus_name();
    let location = Location::new(common.dir.clone(), None);
    let mut listing = Listing {
        dir: location.base().display().to_string(),
        is_there: location.base().exists(),
        other_buses: location.buses().into_iter().filter(|name| *name != bus).collect(),
        nodes: Vec::new(),
        refused: Vec::new(),
        silent: Vec::new(),
        bus,
    };
    // To look for a bus must not make one.
    if let Some(path) = common.builder().examine()? {
        let (node, interrupt) = common.join_until_interrupted("ringbus-ls")?;
        listing.nodes = survey(&node, &interrupt)?;
        listing.refused = node.refused().into_iter().map(listed_refusal).collect();
        let listed = |id: &String| listing.nodes.iter().any(|node| node.id == *id);
        listing.silent = silent::of(&node, &path)?.into_iter().filter(|silent| !listed(&silent.id)).collect();
    }
    if options.json { print_json(&listing) } else { print(listing.text().trim_end()) }
}

fn listed_refusal(node: RefusedNode) -> ListedRefusal {
    ListedRefusal { id: node.id.map(|id| id.to_string()), why: node.why.to_string() }
}

/// Everybody but this node, with rates.
fn survey(node: &Node, interrupt: &Interrupt) -> Outcome<Vec<ListedNode>> {
    let start = Instant::now();
    let first = node.survey(ANSWER);
    interrupt.sleep_until(start + INTERVAL)?;
    let second = node.survey(ANSWER);

    let before: HashMap<NodeId, &NodeStats> = first.iter().map(|stats| (stats.node.id(), stats)).collect();
    let after: HashMap<NodeId, &NodeStats> = second.iter().map(|stats| (stats.node.id(), stats)).collect();
    let list = |peer: &Peer| match after.get(&peer.id()) {
        Some(stats) => {
            let before = before.get(&peer.id()).copied();
            let port = |port: &ReportedPort| listed(port, peer, rate(port, stats, before));
            let ports = stats.ports.iter().map(port).collect();
            listed_node(&stats.node, stats.uptime, true, ports)
        }
        None => {
            let port = |port: &PortInfo| unanswered(port.id, port.role, port.lossy, port.filters.join(" "));
            let ports = peer.ports().iter().map(port).collect();
            listed_node(peer.node(), peer.node().uptime(), false, ports)
        }
    };
    Ok(node.peers().iter().map(list).collect())
}

/// Messages a second between the two answers.
fn rate(port: &ReportedPort, after: &NodeStats, before: Option<&NodeStats>) -> Option<f64> {
    let before = before?;
    // A port that was opened in between has counted from 0.
    let counted = before.ports.iter().find(|earlier| earlier.id == port.id);
    let earlier = counted.map_or(0, |port| port.stats.messages);
    let seconds = after.taken.checked_sub(before.taken)?.as_secs_f64();
    let messages = port.stats.messages.saturating_sub(earlier);
    (seconds > 0.0).then(|| (messages as f64 / seconds * 10.0).round() / 10.0)
}

fn listed_node(node: &NodeInfo, uptime: Duration, answers: bool, ports: Vec<ListedPort>) -> ListedNode {
    let uptime_s = (uptime.as_secs_f64() * 1000.0).round() / 1000.0;
    let (name, id) = (node.name().to_owned(), node.id().to_string());
    ListedNode { name, id, pid: node.pid(), uid: node.uid(), uptime_s, answers, ports }
}

fn listed(port: &ReportedPort, peer: &Peer, rate: Option<f64>) -> ListedPort {
    let stats = &port.stats;
    // A report names the first filter only.
    let known = peer.ports().iter().find(|known| known.id == port.id);
    let name = known.map_or_else(|| port.name.clone(), |known| known.filters.join(" "));
    let lossy = known.is_some_and(|known| known.lossy);
    ListedPort {
        messages: Some(stats.messages),
        bytes: Some(stats.bytes),
        dropped: Some(stats.dropped),
        evicted: Some(stats.evicted),
        blocked_ms: Some(stats.blocked.as_millis() as u64),
        lag: Some(stats.lag),
        peers: Some(stats.peers),
        rate,
        ..unanswered(port.id, port.role, lossy, name)
    }
}

fn unanswered(id: u64, role: &'static str, lossy: bool, name: String) -> ListedPort {
    ListedPort {
        id,
        role,
        lossy,
        name,
        messages: None,
        bytes: None,
        dropped: None,
        evicted: None,
        blocked_ms: None,
        lag: None,
        peers: None,
        rate: None,
    }
}

impl Listing {
    fn text(&self) -> String {
        let Self { bus, dir, is_there, nodes, other_buses, refused, silent } = self;
        let mut text = match nodes.len() {
            0 if !silent.is_empty() => format!("nobody answers on bus {bus} in {dir}\n"),
            0 if !is_there => format!("nobody is on bus {bus}: there is no directory {dir}\n"),
            0 => format!("nobody is on bus {bus} in {dir}\n"),
            1 => format!("1 node on bus {bus} in {dir}\n"),
            many => format!("{many} nodes on bus {bus} in {dir}\n"),
        };
        if nodes.is_empty() && !other_buses.is_empty() {
            text += &format!("other buses there: {}\n", other_buses.join(", "));
        }
        let heading =
            ["PORT", "NAME", "MESSAGES", "RATE", "BYTES", "LAG", "DROPPED", "EVICTED", "BLOCKED", "PEERS"];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        rows.extend(nodes.iter().flat_map(|node| &node.ports).map(ListedPort::cells));
        let ports = table(&rows, &[false, false, true, true, true, true, true, true, true, true]);
        let mut ports = ports.lines();
        let heading = ports.next().unwrap_or_default();
        if rows.len() > 1 {
            text += &format!("\n  {heading}\n");
        }
        for node in nodes {
            let ListedNode { name, id, pid, uid, uptime_s, answers, .. } = node;
            let silent = if *answers { "" } else { ", does not answer" };
            text += &format!(
                "{}  pid {pid}, uid {uid}, up {}, node {}{silent}\n",
                printable(name),
                age(*uptime_s),
                short(id)
            );
            for line in ports.by_ref().take(node.ports.len()) {
                text += &format!("  {line}\n");
            }
        }
        for ListedRefusal { id, why } in refused {
            let node = id.as_deref().map_or_else(|| "a node".to_owned(), |id| format!("node {}", short(id)));
            text += &format!("refused: {node}: {}\n", printable(why));
        }
        for silent in silent {
            text += &format!("{silent}\n");
        }
        text
    }
}

impl ListedPort {
    fn cells(&self) -> Vec<String> {
        let number = |number: Option<u64>| number.map_or("?".into(), grouped);
        let size = |bytes: Option<u64>| bytes.map_or("?".into(), size);
        vec![
            if self.lossy { format!("lossy {}", self.role) } else { self.role.to_owned() },
            printable(&self.name).into_owned(),
            number(self.messages),
            self.rate.map_or("?".into(), |rate| format!("{}/s", grouped(rate.round() as u64))),
            size(self.bytes),
            size(self.lag),
            number(self.dropped),
            number(self.evicted),
            self.blocked_ms.map_or("?".into(), |ms| format!("{} ms", grouped(ms))),
            number(self.peers.map(|peers| peers as u64)),
        ]
    }
}

/// `850 B`, `1.2 MiB`.
pub(super) fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") }
}

/// `12 s`, `3 min`, `5 h`, `2 d`.
fn age(seconds: f64) -> String {
    let seconds = seconds as u64;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_short() {
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB")] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size(1 << 50), "1048576.0 GiB");
        for (seconds, text) in
            [(0.4, "0 s"), (119.9, "119 s"), (120.0, "2 min"), (1e5, "27 h"), (1e6, "11 d")]
        {
            assert_eq!(age(seconds), text);
        }
    }
}
