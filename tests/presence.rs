//! Who comes, goes, stalls and recovers, as nodes of other processes are told.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use ringbus::{Departure, Node, NodeId, Peer, PeerChange, Presence};

mod support;
use support::{Child, DEADLINE, Dir, Parent, eventually, resources};

/// Not a test of its own but the second process of those here: does nothing unless one of them started it.
#[test]
fn child() {
    support::play(&[
        ("echoes", echoes),
        ("watches the others", watches_the_others),
        ("opens and drops", opens_and_drops),
    ]);
}

/// Sends back what it is sent, and leaves when told.
fn echoes(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("echo").unwrap();
    let mut there = node.subscriber::<u32>("there").unwrap();
    let mut back = node.publisher::<u32>("back").unwrap();
    back.wait_for_subscribers(args[1].parse().unwrap(), DEADLINE).unwrap();
    parent.say("open");
    std::thread::spawn(move || {
        while let Ok(message) = there.recv() {
            back.publish(&message).unwrap();
        }
    });
    parent.stay();
    // Its thread has a port still, which keeps the node: it leaves by the end of the process.
    parent.say("ends");
}

#[track_caller]
fn next(presence: &mut Presence) -> PeerChange {
    presence.recv_timeout(DEADLINE).unwrap().expect("a change")
}

#[track_caller]
fn joined(presence: &mut Presence) -> Peer {
    match next(presence) {
        PeerChange::Joined(peer) => peer,
        other => panic!("{other}"),
    }
}

#[track_caller]
fn left(presence: &mut Presence) -> (Peer, Departure) {
    match next(presence) {
        PeerChange::Left(peer, why) => (peer, why),
        other => panic!("{other}"),
    }
}

#[track_caller]
fn nothing_more(presence: &mut Presence) {
    assert_eq!(presence.try_recv().unwrap(), None);
}

#[test]
fn a_killed_node_is_told_at_once_to_have_died() {
    let dir = Dir::new();
    let node = dir.join("watcher");
    let mut presence = node.presence().unwrap();
    let mut times = Vec::new();
    for _ in 0..11 {
        let mut echo = Child::start("echoes", &[dir.arg(), "0"]);
        echo.expect("open");
        let peer = joined(&mut presence);
        assert_eq!((peer.name(), peer.pid()), ("echo", echo.pid()));
        let start = Instant::now();
        echo.signal(Signal::SIGKILL);
        let (gone, why) = left(&mut presence);
        times.push(start.elapsed());
        assert_eq!((gone.id(), why), (peer.id(), Departure::Died));
        let ports: Vec<_> = gone.ports().iter().map(|port| port.filters.join(" ")).collect();
        assert_eq!(ports, ["there", "back"], "with the ports it had last");
    }
    // The median, since others run at the same time; a poll once a second would be at half of one.
    times.sort();
    assert!(times[times.len() / 2] < Duration::from_millis(100), "{times:?}");
    nothing_more(&mut presence);
}

#[test]
fn a_node_is_told_to_have_joined_with_its_ports_and_to_have_said_goodbye() {
    let dir = Dir::new();
    let (node, bus) = (dir.join("watcher"), dir.bus());
    let other = bus.join("other").unwrap();
    let _ports = (other.raw_subscriber("s/*").unwrap(), other.raw_publisher("p").unwrap());
    let late = bus.join("late").unwrap();
    // To the late one, the others have told their ports while it joined.
    let mut presence = late.presence().unwrap();
    let peers = [joined(&mut presence), joined(&mut presence)];
    assert_eq!(peers.each_ref().map(Peer::name), ["other", "watcher"]);
    let ports: Vec<_> = peers[0].ports().iter().map(|port| (port.role, port.filters.join(" "))).collect();
    assert_eq!(ports, [("subscriber", "s/*".to_owned()), ("publisher", "p".to_owned())]);
    nothing_more(&mut presence);
    let id = node.info().id();
    drop(node);
    let (gone, why) = left(&mut presence);
    assert_eq!((gone.id(), why), (id, Departure::Goodbye));
}

/// Over messages there and back.
#[track_caller]
fn reaches_the_echo(publisher: &mut ringbus::Publisher<u32>, subscriber: &mut ringbus::Subscriber<u32>) {
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    for value in 0..100 {
        publisher.publish(&value).unwrap();
        assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("the echo"), value);
    }
}

#[test]
fn a_stopped_node_stalls_and_recovers_as_the_same_node_with_its_ports() {
    let dir = Dir::new();
    let node = dir.join("watcher");
    let (mut presence, mut other) = (node.presence().unwrap(), node.presence().unwrap());
    let mut subscriber = node.subscriber::<u32>("back").unwrap();
    let mut publisher = node.publisher::<u32>("there").unwrap();
    let mut echo = Child::start("echoes", &[dir.arg(), "1"]);
    echo.expect("open");
    let peer = joined(&mut presence);
    reaches_the_echo(&mut publisher, &mut subscriber);
    assert_eq!(joined(&mut other).id(), peer.id());

    let mut before = None;
    for round in 0..2 {
        eventually("its heartbeats are read", || {
            let sequence = node.peers()[0].heartbeat().map(|heartbeat| heartbeat.sequence);
            sequence > before
        });
        let listed = node.peers().remove(0);
        assert!(!listed.is_stalled());
        let heartbeat = listed.heartbeat().unwrap();
        before = Some(heartbeat.sequence);
        let stats = |name| heartbeat.stats.get(name).copied();
        assert_eq!((stats("ports"), stats("dropped")), (Some(2), Some(0)));

        echo.signal(Signal::SIGSTOP);
        for presence in [&mut presence, &mut other] {
            let PeerChange::Stalled(stalled) = next(presence) else { panic!("not stalled") };
            assert!(stalled.is_stalled() && stalled.id() == peer.id());
        }
        assert!(node.peers()[0].is_stalled());
        // One that looks only now is told the same.
        let mut late = node.presence().unwrap();
        assert_eq!(joined(&mut late).id(), peer.id());
        assert!(matches!(next(&mut late), PeerChange::Stalled(stalled) if stalled.id() == peer.id()));
        nothing_more(&mut late);

        echo.signal(Signal::SIGCONT);
        for presence in [&mut presence, &mut other, &mut late] {
            let PeerChange::Recovered(recovered) = next(presence) else { panic!("not recovered") };
            assert!(!recovered.is_stalled() && recovered.id() == peer.id(), "round {round}");
        }
        reaches_the_echo(&mut publisher, &mut subscriber);
    }
    assert!(node.refused().is_empty());
    echo.finish();
    assert_eq!(left(&mut presence).0.id(), peer.id());
}

#[test]
fn a_node_that_was_itself_stopped_holds_nobody_for_stalled() {
    let dir = Dir::new();
    let node = dir.join("others");
    let mut watcher = Child::start("watches the others", &[dir.arg()]);
    watcher.expect("watching");
    let mut presence = node.presence().unwrap();
    joined(&mut presence);
    watcher.signal(Signal::SIGSTOP);
    assert!(matches!(next(&mut presence), PeerChange::Stalled(_)));
    watcher.signal(Signal::SIGCONT);
    assert!(matches!(next(&mut presence), PeerChange::Recovered(_)));
    watcher.tell("look");
    watcher.expect("nobody stalled");
    watcher.finish();
}

fn watches_the_others(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("watcher").unwrap();
    let mut presence = node.presence().unwrap();
    joined(&mut presence);
    let sequence = || node.peers()[0].heartbeat().map(|heartbeat| heartbeat.sequence);
    eventually("the other's heartbeat is read", || sequence().is_some());
    parent.say("watching");
    parent.hear("look");
    // Long enough to judge anybody.
    let after = sequence().unwrap() + 5;
    eventually("five more beats", || sequence().unwrap() >= after);
    nothing_more(&mut presence);
    parent.say("nobody stalled");
}

fn readable(presence: &Presence, timeout: PollTimeout) -> bool {
    poll(&mut [PollFd::new(presence.as_fd(), PollFlags::POLLIN)], timeout).unwrap() > 0
}

#[test]
fn an_armed_presence_turns_readable_with_the_next_change() {
    let dir = Dir::new();
    let node = dir.join("watcher");
    let mut presence = node.presence().unwrap();
    for _ in 0..20 {
        // The ring of a change that was taken may come after it.
        eventually("nothing is there", || presence.arm().unwrap() && !readable(&presence, PollTimeout::ZERO));
        let other = dir.join("other");
        eventually("a change is there", || {
            assert!(readable(&presence, PollTimeout::try_from(DEADLINE).unwrap()));
            !presence.arm().unwrap()
        });
        joined(&mut presence);
        drop(other);
        left(&mut presence);
    }
}

#[test]
fn a_wait_lasts_its_time_or_until_the_next_change() {
    let dir = Dir::new();
    let node = dir.join("watcher");
    let mut presence = node.presence().unwrap();
    for timeout in [0, 1, 30].map(Duration::from_millis) {
        let start = Instant::now();
        assert_eq!(presence.recv_timeout(timeout).unwrap(), None);
        assert!(start.elapsed() >= timeout);
    }
    std::thread::scope(|scope| {
        // As an iterator, until the other has come and gone.
        scope.spawn(|| {
            let changes: Vec<_> = presence.by_ref().take(2).collect();
            assert!(matches!(&changes[..], [PeerChange::Joined(_), PeerChange::Left(..)]), "{changes:?}");
        });
        drop(dir.join("other"));
    });
}

/// Who is there, and whether it is stalled.
#[derive(Default)]
struct Believed(BTreeMap<NodeId, bool>);

impl Believed {
    #[track_caller]
    fn read(&mut self, change: &PeerChange) {
        let id = change.peer().id();
        match change {
            PeerChange::Joined(_) => assert_eq!(self.0.insert(id, false), None),
            PeerChange::Left(..) => assert!(self.0.remove(&id).is_some()),
            PeerChange::Stalled(_) => assert_eq!(self.0.insert(id, true), Some(false)),
            PeerChange::Recovered(_) => assert_eq!(self.0.insert(id, false), Some(true)),
        }
    }

    fn agrees(&self, node: &Node) -> bool {
        let peers = node.peers();
        peers.len() == self.0.len()
            && peers.iter().all(|peer| self.0.get(&peer.id()) == Some(&peer.is_stalled()))
    }
}

#[test]
fn what_an_unread_presence_keeps_is_bounded_and_comes_to_what_has_happened() {
    const NODES: usize = 700;
    let dir = Dir::new();
    let node = dir.join("watcher");
    let (mut unread, mut read) = (node.presence().unwrap(), node.presence().unwrap());
    let stays = dir.join("stays");
    // Whoever reads in time is told all of it.
    assert_eq!(joined(&mut read).id(), stays.info().id());
    for _ in 0..NODES {
        let passes = dir.join("passes");
        let id = passes.info().id();
        assert_eq!(joined(&mut read).id(), id);
        drop(passes);
        let (gone, why) = left(&mut read);
        assert_eq!((gone.id(), why), (id, Departure::Goodbye));
    }
    let late = dir.join("late");
    assert_eq!(joined(&mut read).id(), late.info().id());

    let mut believed = Believed::default();
    let mut changes = 0;
    while let Some(change) = unread.try_recv().unwrap() {
        believed.read(&change);
        changes += 1;
    }
    assert!((2..=1024).contains(&changes), "{changes} changes");
    assert!(believed.agrees(&node));
    let ids = [stays.info().id(), late.info().id()];
    assert!(ids.iter().all(|id| believed.0.contains_key(id)));
}

#[test]
fn a_presence_that_is_dropped_leaves_nothing_behind() {
    let dir = Dir::new();
    let mut child = Child::start("opens and drops", &[dir.arg()]);
    child.expect("passed");
    child.finish();
}

fn opens_and_drops(parent: &mut Parent, args: &[&str]) {
    let bus = support::bus(args[0]);
    let (node, _other) = (bus.join("watcher").unwrap(), bus.join("other").unwrap());
    let before = resources();
    for _ in 0..20 {
        let mut presences = [(); 10].map(|()| node.presence().unwrap());
        presences.iter_mut().for_each(|presence| drop(joined(presence)));
    }
    // The two nodes may still be opening what they keep of each other, a handful; what leaks is one of each presence.
    let given_back = |(fds, maps)| fds < before.0 + 20 && maps < before.1 + 20;
    eventually("the file descriptors are given back", || given_back(resources()));
    parent.say("passed");
}
