//! Four processes that work together: a planner, a worker, a critic and a monitor. Every kind of message is used
//! once, where it fits.
//!
//! ```sh
//! cargo run --example agents
//! ```
//!
//! ```text
//!   planner ── call: write a draft ──────────▶ worker ── events: progress ──▶ planner, monitor
//!   planner ── direct message: the draft ────▶ critic ── direct message: the verdict ──▶ planner
//!   planner ── broadcast: the work is over ──▶ all
//!   monitor ◀─ presence: who came and went
//! ```
//!
//! Runs by itself: the first process is the planner, and starts the others. It ends in a second or so, and fails
//! if anything is not as it should be.

use std::error::Error;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::Duration;

use ringbus::{Bus, Departure, PeerChange, Status};
use serde::{Deserialize, Serialize};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

// What goes over the bus: any serde types, written with the names of their fields.

/// An event of the worker's.
#[derive(Debug, Serialize, Deserialize)]
struct Progress {
    task: u32,
    percent: u8,
}

/// A direct message to the critic.
#[derive(Debug, Serialize, Deserialize)]
struct Draft {
    task: u32,
    text: String,
}

/// A direct message to the planner.
#[derive(Debug, Serialize, Deserialize)]
enum Note {
    /// The sender's ports are open.
    Ready,
    /// What the critic says of a draft.
    Verdict { task: u32, good: bool },
}

/// A broadcast: all tasks are done, and this many events were published.
#[derive(Debug, Serialize, Deserialize)]
struct Over {
    events: usize,
}

const TASKS: u32 = 3;
const STEPS: [u8; 4] = [25, 50, 75, 100];
/// Nothing here takes this long: who waits for it in vain gives up, rather than wait for ever.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [role, dir, name] = &arguments[..] else {
        // The first process. A private bus goes when this process ends; others would open one by a name that
        // all know: Bus::open("agents").
        return planner(&Bus::private()?);
    };
    // The other three are told where that bus is.
    let bus = Bus::builder(name).dir(dir).open()?;
    match role.as_str() {
        "worker" => worker(&bus),
        "critic" => critic(&bus),
        "monitor" => monitor(&bus),
        _ => Err(format!("there is no role {role:?}").into()),
    }
}

fn planner(bus: &Bus) -> Outcome {
    // Joining takes well under a millisecond; there is nothing to start before.
    let node = bus.join("planner")?;
    // Whatever is sent to the name "planner" arrives here. Opened first, so that nobody writes in vain.
    let mut inbox = node.inbox::<Note>()?;
    // All tasks' progress: `*` stands for one level of a topic.
    let mut progress = node.subscriber::<Progress>("task/*/progress")?;

    let agents = ["worker", "critic", "monitor"];
    let mut processes = agents.iter().map(|role| Agent::start(role, bus)).collect::<Outcome<Vec<_>>>()?;
    for _ in agents {
        let note = inbox.recv_timeout(PATIENCE)?.ok_or("an agent does not get ready")?;
        assert!(matches!(*note, Note::Ready));
        // Who sent it comes with every message, by the kernel's word as far as the pid goes.
        println!("planner: {} is ready", note.source());
    }

    // A client finds whoever serves: one worker here; of several, each would get its turn.
    let writers = node.client("writer")?;
    for task in 1..=TASKS {
        // A call: one argument, one result, or the status that it failed with.
        let text: String = writers.call("write", &task)?;
        // A direct message, to a name; that nobody of that name is there would be an error at once.
        node.send("critic", &Draft { task, text })?;
        // The answer is a message of its own: between the two, the planner could have done something else.
        let verdict = inbox.recv_timeout(PATIENCE)?.ok_or("the critic says nothing")?;
        println!("planner: {} says {:?}", verdict.source().name(), *verdict);
        assert!(matches!(*verdict, Note::Verdict { task: of, good } if of == task && good == (task != 2)));
    }
    // A task without a topic is refused by the worker: the status comes back as it was made there.
    let refused = writers.call::<_, String>("write", &0_u32).unwrap_err();
    assert_eq!(refused, Status::invalid_argument("task 0 is no task"));

    // What the worker published while it answered has long been in shared memory.
    let events = std::iter::from_fn(|| progress.try_recv().transpose()).collect::<Result<Vec<_>, _>>()?;
    assert_eq!(events.len(), TASKS as usize * STEPS.len());
    // Events of one publisher arrive in the order in which they were published, and once.
    assert!(events.iter().enumerate().all(|(at, event)| event.percent == STEPS[at % STEPS.len()]));

    // To all that listen to broadcasts, however many they are.
    node.broadcast(&Over { events: events.len() })?;
    for process in &mut processes {
        process.end()?;
    }
    println!("planner: {} tasks, {} events, and everybody has left", TASKS, events.len());
    Ok(())
}

fn worker(bus: &Bus) -> Outcome {
    let node = bus.join("worker")?;
    let mut over = node.broadcasts::<Over>()?;
    // A publisher over a pattern: one log, many topics.
    let progress = node.publisher::<Progress>("task/*/progress")?;
    // Events are for whoever is there: what is published before has nobody to reach.
    progress.wait_for_subscribers(2, PATIENCE)?;
    // A port has one user at a time, and handlers may run on several threads.
    let progress = Mutex::new(progress);
    let _server =
        node.service("writer").method("write", move |_ctx, task: u32| write(task, &progress)).spawn()?; // serves on a thread of its own until it is dropped
    node.send("planner", &Note::Ready)?;
    // The worker has nothing more to do here until the work is over.
    over.recv_timeout(PATIENCE)?.ok_or("nobody says that the work is over")?;
    Ok(()) // dropping the node says goodbye to all
}

/// Handles one call: what it returns goes to the caller, a value or a status.
fn write(task: u32, progress: &Mutex<ringbus::Publisher<Progress>>) -> Result<String, Status> {
    if task == 0 {
        return Err(Status::invalid_argument("task 0 is no task"));
    }
    let mut progress = progress.lock().map_err(|_| Status::internal("a handler has panicked"))?;
    for percent in STEPS {
        let topic = format!("task/{task}/progress");
        progress
            .publish_to(&topic, &Progress { task, percent })
            .map_err(|error| Status::unavailable(error.to_string()))?;
    }
    Ok(if task == 2 { "short".to_owned() } else { format!("a long draft for task {task}") })
}

fn critic(bus: &Bus) -> Outcome {
    let node = bus.join("critic")?;
    let mut drafts = node.inbox::<Draft>()?;
    let mut over = node.broadcasts::<Over>()?;
    node.send("planner", &Note::Ready)?;
    for _ in 1..=TASKS {
        let draft = drafts.recv_timeout(PATIENCE)?.ok_or("no draft comes")?;
        let verdict = Note::Verdict { task: draft.task, good: draft.text.len() > 10 };
        // Whoever sent the draft gets the verdict.
        node.send(draft.source().name(), &verdict)?;
    }
    over.recv_timeout(PATIENCE)?.ok_or("nobody says that the work is over")?;
    Ok(())
}

fn monitor(bus: &Bus) -> Outcome {
    let node = bus.join("monitor")?;
    // Begins with those who are there already, and goes on with whoever comes and goes.
    let mut presence = node.presence()?;
    let mut progress = node.subscriber::<Progress>("task/**")?;
    let mut over = node.broadcasts::<Over>()?;
    node.send("planner", &Note::Ready)?;

    // Events wait in the worker's log until they are read: the monitor may be late.
    let over = over.recv_timeout(PATIENCE)?.ok_or("nobody says that the work is over")?;
    let mut events = 0;
    while let Some(event) = progress.try_recv()? {
        println!("monitor: {} is at {} %", event.topic(), event.percent);
        events += 1;
    }
    assert_eq!(events, over.events, "every subscriber gets every event");

    // The worker and the critic leave now; the planner stays until this process has ended.
    let mut left = Vec::new();
    while left.len() < 2 {
        let change = presence.recv_timeout(PATIENCE)?.ok_or("the others do not leave")?;
        println!("monitor: {change}");
        if let PeerChange::Left(peer, why) = change {
            // A process that was killed would have `Died`.
            assert_eq!(why, Departure::Goodbye);
            left.push(peer.name().to_owned());
        }
    }
    left.sort();
    assert_eq!(left, ["critic", "worker"]);
    Ok(())
}

/// Another process of this program; killed, should this one end early.
struct Agent {
    role: String,
    process: Child,
}

impl Agent {
    fn start(role: &str, bus: &Bus) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let process = command.arg(role).arg(bus.dir()).arg(bus.name()).spawn()?;
        Ok(Self { role: role.to_owned(), process })
    }

    /// Waits for its end, which has to be a good one.
    fn end(&mut self) -> Outcome {
        let status = self.process.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the {} failed: {status}", self.role).into()) }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
