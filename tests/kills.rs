//! How soon deaths are told while both processors are busy, and how soon they end calls.
//!
//! The bounds are those of docs/reliability.md.

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ringbus::{Client, Code, Departure, Node, PeerChange, Pending, Presence, Response, Status};

mod support;
use support::stopwatch::Stopwatch;
use support::{Child, DEADLINE, Dir, Forked, Parent, all_within, eventually, figures};

/// How many processes are killed.
const KILLS: &str = "RINGBUS_KILLS";
/// How soon a death is told, in 99 of 100 cases and in all.
const TOLD: Duration = Duration::from_millis(50);
const TOLD_AT_MOST: Duration = Duration::from_millis(250);
/// How soon a call to it fails.
const UNAVAILABLE: Duration = Duration::from_millis(100);
/// Processes that are there at a time.
const AT_ONCE: usize = 10;

#[test]
fn child() {
    support::play(&[("busy", busy), ("holds a call", holds_a_call)]);
}

/// Keeps one processor busy.
fn busy(parent: &mut Parent, _: &[&str]) {
    thread::spawn(|| {
        loop {
            std::hint::spin_loop();
        }
    });
    parent.say("busy");
    parent.stay();
}

/// Serves a call that it never answers; if told so, a forked child of it lives on.
fn holds_a_call(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("victim").unwrap();
    let service = node.service(args[1]).method("hold", |_, ()| -> Result<(), Status> {
        Parent::new().say("holds");
        loop {
            thread::park();
        }
    });
    let _server = service.spawn().unwrap();
    let _port = node.raw_publisher("t").unwrap();
    let _forked = (args[2] == "forks").then(|| Forked::run(|| Parent::new().stay()));
    parent.say("serves");
    loop {
        thread::park();
    }
}

#[test]
fn deaths_are_told_and_end_calls_in_time_with_every_processor_busy() {
    let kills = support::count(KILLS, 40);
    let dir = Dir::new();
    let node = dir.join("survivor");
    let mut presence = node.presence().unwrap();
    let processors = thread::available_parallelism().unwrap().get();
    let mut busy: Vec<Child> = (0..processors).map(|_| Child::start("busy", &[])).collect();
    busy.iter_mut().for_each(|busy| busy.expect("busy"));

    let (mut told, mut failed) = (Vec::new(), Vec::new());
    for round in 0..kills.div_ceil(AT_ONCE) {
        let start = |at: usize| Victim::start(&dir, &node, &format!("{round}-{at}"), at % 2 == 1);
        let victims: Vec<Victim> = (0..AT_ONCE.min(kills - round * AT_ONCE)).map(start).collect();
        let mut calls = victims.into_iter().map(Victim::call).collect::<Vec<_>>();
        for _ in 0..calls.len() {
            let change = presence.recv_timeout(DEADLINE).unwrap();
            assert!(matches!(change, Some(PeerChange::Joined(_))), "{change:?}");
        }
        for (victim, _client, pending) in calls.drain(..) {
            let (told_after, failed_after) = kill(victim, &mut presence, pending);
            told.push(told_after);
            failed.push(failed_after);
        }
    }
    busy.iter_mut().for_each(|busy| busy.tell("enough"));
    eventually("nobody is left", || node.peers().is_empty());

    println!(
        "{kills} kills, told after: {}; calls failed after: {}",
        figures(&mut told),
        figures(&mut failed)
    );
    let slowest = told.split_off(kills - kills / 100);
    all_within(TOLD, KILLS, &told);
    all_within(TOLD_AT_MOST, KILLS, &slowest);
    all_within(UNAVAILABLE, KILLS, &failed);
}

struct Victim {
    child: Child,
    client: Client,
}

impl Victim {
    fn start(dir: &Dir, node: &Node, service: &str, forks: bool) -> Self {
        let service = format!("hold-{service}");
        let client = node.client(&service).unwrap();
        let forks = if forks { "forks" } else { "" };
        Self { child: Child::start("holds a call", &[dir.arg(), &service, forks]), client }
    }

    /// Has it hold a call.
    fn call(mut self) -> (Child, Client, Pending<Response<()>>) {
        self.child.expect("serves");
        self.client.wait_for_server(DEADLINE).unwrap();
        let pending = self.client.request("hold").timeout(DEADLINE).start(&()).unwrap();
        self.child.expect("holds");
        (self.child, self.client, pending)
    }
}

/// Kills it; how long it took until that was told, and until the call failed.
fn kill(victim: Child, presence: &mut Presence, pending: Pending<Response<()>>) -> (Duration, Duration) {
    let (says, failed) = channel();
    let (ready, is_ready) = channel();
    let waits = thread::spawn(move || {
        ready.send(()).unwrap();
        let status = pending.wait().map(|answer| *answer).unwrap_err();
        says.send(Instant::now()).unwrap();
        status
    });
    is_ready.recv().unwrap();
    let (killed, stopwatch) = (Instant::now(), Stopwatch::start());
    victim.signal(Signal::SIGKILL);
    let change = presence.recv_timeout(DEADLINE).unwrap().expect("its death");
    let told = stopwatch.took(TOLD);
    let PeerChange::Left(peer, why) = &change else { panic!("{change}") };
    assert_eq!((peer.pid(), why), (victim.pid(), &Departure::Died));
    let failed = failed.recv_timeout(DEADLINE).unwrap().saturating_duration_since(killed);
    let failed = stopwatch.less_stolen(failed, UNAVAILABLE);
    let status = waits.join().unwrap();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    victim.ends_by_kill();
    (told, failed)
}
