//! Callers that are no nodes, or want no good, over real sockets: nobody else notices.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::bus::{Bus, Node, turn_until, turns_within};
use super::handshake::hello;
use super::net::id;
use crate::control::Gone;
use crate::control::hub::{Event, Refusal};
use crate::frame::Control;
use crate::sys::poll::readable;
use crate::sys::seqpacket::{MAX_DATAGRAM, Socket};
use crate::sys::testing::{DEADLINE, passes_in_child};
use crate::sys::timerfd;

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("lists").count()
}

fn is_closed(socket: &Socket) -> bool {
    let mut buffer = [0; 1024];
    readable(socket.as_fd(), Some(Duration::ZERO)).expect("polls")
        && socket.recv(&mut buffer).is_ok_and(|received| received.is_end())
}

/// Says hello as node `node`, and nothing else.
fn say_hello(socket: &Socket, node: usize) {
    socket.send(&super::encode(&Control::Hello(hello(node))), &[]).expect("sends");
}

fn assert_unharmed(nodes: &mut [Node]) {
    let before: Vec<_> = nodes.iter().map(|node| node.received().len()).collect();
    for n in 0..10 {
        nodes[0].send(1, n);
        nodes[1].send(0, n);
    }
    turn_until(nodes, |nodes| (0..2).all(|node| nodes[node].received().len() == before[node] + 10));
    assert!(nodes.iter().all(|node| node.downs().is_empty()));
}

#[test]
fn garbage_closes_its_own_connection_and_nothing_else() {
    let bus = Bus::new();
    let mut nodes = bus.joined(2);
    let bell: OwnedFd = timerfd::create().expect("a bell");
    let datagrams: [(&[u8], usize); 5] = [
        (b"GET / HTTP/1.1\r\n\r\n", 0),
        (&[0xff; MAX_DATAGRAM], 0),
        (b"x", 8),
        (&[0x92, 5, 4], 0),
        (&[0x93, 5, 0x70, 7], 0),
    ];
    for (bytes, fds) in datagrams {
        let caller = bus.call(0);
        caller.send(bytes, &vec![bell.as_fd(); fds]).expect("sends");
        turn_until(&mut nodes, |_| is_closed(&caller));
        let refused = nodes[0].events.pop();
        assert!(
            matches!(refused, Some(Event::Refused { peer: None, why: Refusal::Protocol { .. } })),
            "{refused:?}"
        );
    }
    assert_unharmed(&mut nodes);
}

#[test]
fn a_caller_that_is_closed_at_once_or_half_way_is_forgotten() {
    let bus = Bus::new();
    let mut nodes = bus.joined(2);
    for _ in 0..50 {
        drop(bus.call(0));
    }
    assert_unharmed(&mut nodes);
    assert!(turns_within(&mut nodes[0], Duration::from_millis(200)) <= 3, "nothing is left to be told of");
    assert_eq!(nodes[0].events.len(), 11, "{:?}", nodes[0].events);
}

#[test]
fn a_caller_that_says_nothing_is_closed_after_two_seconds() {
    let bus = Bus::new();
    let mut nodes = bus.joined(2);
    let caller = bus.call(0);
    nodes[0].turn(Duration::ZERO);
    let start = Instant::now();
    assert_unharmed(&mut nodes);
    turn_until(&mut nodes, |_| is_closed(&caller));
    assert!(start.elapsed() > Duration::from_millis(1900));
}

/// As of a node that was stopped while others tried to reach it, again and again.
#[test]
fn callers_that_gave_up_before_they_were_heard_never_came() {
    let bus = Bus::new();
    let mut nodes = [Node::open(bus.directory(), 0)];
    for _ in 0..10 {
        let caller = bus.call(0);
        say_hello(&caller, 1);
    }
    turn_until(&mut nodes, |nodes| !nodes[0].driver.is_dialling(id(1)));
    for _ in 0..5 {
        nodes[0].turn(Duration::from_millis(1));
    }
    assert!(nodes[0].events.is_empty(), "{:?}", nodes[0].events);
}

#[test]
fn a_peer_that_sends_nonsense_later_is_cut_off_alone() {
    let bus = Bus::new();
    let mut nodes = bus.joined(2);
    let caller = bus.call(0);
    say_hello(&caller, 7);
    turn_until(&mut nodes, |nodes| nodes[0].ups() == 2);
    caller.send(b"nonsense", &[]).expect("sends");
    turn_until(&mut nodes, |nodes| !nodes[0].downs().is_empty());
    assert_eq!(nodes[0].downs()[0].0, id(7));
    let mut buffer = [0; 1024];
    assert!(caller.recv(&mut buffer).is_ok_and(|received| !received.is_end()), "the answer to the hello");
    assert!(is_closed(&caller));
    nodes[0].events.pop();
    assert_unharmed(&mut nodes);
}

#[test]
fn a_peer_that_no_longer_listens_or_sends_makes_no_node_spin() {
    use nix::sys::socket::{Shutdown, shutdown};
    for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
        let bus = Bus::new();
        let mut nodes = bus.joined(2);
        let caller = bus.call(0);
        say_hello(&caller, 7);
        turn_until(&mut nodes, |nodes| nodes[0].ups() == 2);
        shutdown(caller.as_fd().as_raw_fd(), how).expect("shuts down");
        nodes[0].send(7, 3);
        nodes[0].turn(Duration::from_millis(10));
        assert!(turns_within(&mut nodes[0], Duration::from_millis(200)) <= 3, "{how:?}");
        let is_gone = nodes[0].downs() == [(id(7), Gone::HungUp)];
        assert_eq!(is_gone, how != Shutdown::Read, "{how:?}");
    }
}

#[test]
fn callers_that_say_nothing_keep_nobody_out() {
    passes_in_child(|| {
        let bus = Bus::new();
        let mut nodes = bus.joined(2);
        let start = Instant::now();
        let mut silent: Vec<_> = (0..100).map(|_| bus.call(0)).collect();
        nodes[0].turn(Duration::ZERO);
        silent.extend((0..100).map(|_| bus.call(0)));
        nodes[0].turn(Duration::ZERO);
        let caller = bus.call(0);
        say_hello(&caller, 7);
        turn_until(&mut nodes, |nodes| nodes[0].ups() == 2);
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
        let closed = silent.iter().filter(|caller| is_closed(caller)).count();
        assert!((72..=silent.len() - 100).contains(&closed), "{closed}");
        assert_unharmed(&mut nodes);
    });
}

#[test]
fn a_flood_of_callers_takes_a_bounded_number_of_fds() {
    passes_in_child(|| {
        let bus = Bus::new();
        let mut nodes = bus.joined(2);
        let before = open_fds();
        let mut callers = Vec::new();
        for _ in 0..3 {
            callers.extend(std::iter::from_fn(|| Socket::connect(&bus.socket(0)).ok()).take(150));
            for _ in 0..5 {
                nodes[0].turn(Duration::ZERO);
            }
        }
        let taken = open_fds() - before - callers.len();
        assert!(taken <= 2 * 128, "{taken} fds for {} callers", callers.len());
        assert!(turns_within(&mut nodes[0], Duration::from_millis(200)) <= LOOKING);
        assert_unharmed(&mut nodes);
        drop(callers);
        let mut late = bus.join(2);
        let deadline = Instant::now() + DEADLINE;
        while late.ups() < 2 {
            assert!(Instant::now() < deadline, "the late one gets in");
            late.turn(Duration::from_millis(1));
            nodes[0].turn(Duration::from_millis(1));
            nodes[1].turn(Duration::from_millis(1));
        }
    });
}

/// Sets how many more fds this process may open. Only in a child.
fn leave_fds(count: u64) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("setrlimit");
    let next = timerfd::create().expect("an fd");
    setrlimit(Resource::RLIMIT_NOFILE, next.as_raw_fd() as u64 + count, hard).expect("setrlimit");
}

/// Most turns within 200 ms of a node that looks again every 10 ms.
const LOOKING: usize = 60;

#[test]
fn a_node_without_fds_lets_callers_wait_and_does_not_spin() {
    passes_in_child(|| {
        let bus = Bus::new();
        let mut nodes = vec![bus.join(0)];
        let callers = [(); 5].map(|()| bus.call(0));
        callers.iter().enumerate().for_each(|(index, caller)| say_hello(caller, index + 10));
        leave_fds(0);
        assert!(turns_within(&mut nodes[0], Duration::from_millis(200)) <= LOOKING);
        assert_eq!(nodes[0].ups(), 0);
        leave_fds(100);
        turn_until(&mut nodes, |nodes| nodes[0].ups() == 5);
    });
}

#[test]
fn fds_that_find_no_room_arrive_once_there_is_some() {
    passes_in_child(|| {
        let bus = Bus::new();
        let mut nodes = bus.joined(2);
        for n in [1, 2, 3, 5] {
            nodes[0].send(1, n);
        }
        nodes[0].driver.flush();
        leave_fds(1);
        // Too few for it to have asked as often as it does, however long they take.
        for _ in 0..5 {
            nodes[1].turn(Duration::from_millis(25));
            nodes[0].turn(Duration::from_millis(1));
        }
        let received = nodes[1].received();
        assert!(received.is_empty() || received == [1], "no more than one finds room: {received:?}");
        leave_fds(100);
        turn_until(&mut nodes, |nodes| nodes[1].received() == [1, 2, 3, 5]);
        assert!(nodes.iter().all(|node| node.downs().is_empty()));
    });
}

/// Root may have any number of fds under way; others wait until some have arrived.
#[test]
fn too_many_fds_under_way_delay_and_lose_nothing() {
    passes_in_child(|| {
        let bus = Bus::new();
        std::fs::set_permissions(bus.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o1777))
            .expect("chmod");
        if crate::sys::credentials::euid() == 0 {
            nix::unistd::setresuid(NOBODY, NOBODY, NOBODY).expect("setresuid");
        }
        let mut nodes = bus.joined(2);
        let (mine, other) = Socket::pair().expect("a pair");
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
        let bell = timerfd::create().expect("a bell");
        setrlimit(Resource::RLIMIT_NOFILE, open_fds() as u64 + 20, hard).expect("setrlimit");
        while mine.send(b"x", &[bell.as_fd(); 8]).is_ok() {}
        for n in [3, 2, 1, 7] {
            nodes[0].send(1, n);
        }
        for _ in 0..20 {
            nodes[0].turn(Duration::from_millis(1));
            nodes[1].turn(Duration::from_millis(1));
        }
        assert_eq!(nodes[1].received(), [3]);
        assert!(turns_within(&mut nodes[0], Duration::from_millis(200)) <= LOOKING);
        let mut buffer = [0; 8];
        while other.recv(&mut buffer).is_ok() {}
        turn_until(&mut nodes, |nodes| nodes[1].received() == [3, 2, 1, 7]);
    });
}

const NOBODY: nix::unistd::Uid = nix::unistd::Uid::from_raw(65534);
