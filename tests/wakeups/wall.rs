//! The wall clock jumps by years, either way: nothing waits longer or shorter, nobody is taken for dead or stalled.
//!
//! It is this test's own that jumps: `clock_gettime` stands here as well as in the C library, and the program's comes
//! first. The kernel's, to which the rest of the machine looks, is left alone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use nix::libc;
use ringbus::{PeerChange, Wait};

use super::support::{self, Child, DEADLINE, Dir, Parent};

static JUMPS: AtomicBool = AtomicBool::new(false);
static LOOKS: AtomicU64 = AtomicU64::new(0);

/// Counts looks at the wall clock, and has it jump at each.
///
/// # Safety
/// As the C library's: `time` is writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    // SAFETY: what the caller promises is what the kernel needs.
    let done = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as libc::c_int;
    let is_wall = clock == libc::CLOCK_REALTIME || clock == libc::CLOCK_REALTIME_COARSE;
    if done == 0 && is_wall && JUMPS.load(Relaxed) {
        let look = LOOKS.fetch_add(1, Relaxed);
        let years = [3, -5, 0, 20, -1][look as usize % 5];
        // SAFETY: the kernel has just written it.
        unsafe { (*time).tv_sec += years * 365 * 86_400 };
    }
    done
}

/// Longer than it takes to call somebody stalled.
const GAME: Duration = Duration::from_secs(5);
const OVER: u64 = u64::MAX;

#[test]
fn jumps_of_the_wall_clock_do_nothing() {
    let dir = Dir::new();
    let mut players = ["ping", "pong"].map(|side| Child::start("wall", &[dir.arg(), side]));
    for player in &mut players {
        player.expect("here");
    }
    players.iter_mut().for_each(|player| player.tell("play"));
    players.iter_mut().for_each(|player| player.expect("played"));
    players.into_iter().for_each(Child::finish);
}

pub fn plays(parent: &mut Parent, args: &[&str]) {
    JUMPS.store(true, Relaxed);
    let (then, now) = (SystemTime::now(), SystemTime::now());
    assert!(now < then && LOOKS.load(Relaxed) == 2, "this clock jumps: {then:?}, {now:?}");

    let (own, others) = if args[1] == "ping" { ("ping", "pong") } else { ("pong", "ping") };
    let node = support::bus(args[0]).join(own).unwrap();
    let mut presence = node.presence().unwrap();
    let mut balls = node.subscriber_builder(others).wait(Wait::Park).open::<u64>().unwrap();
    let mut throws = node.publisher::<u64>(own).unwrap();
    let _server = node.service(own).method("echo", |_, value: u64| Ok(value)).spawn().unwrap();
    let client = node.client(others).unwrap();
    throws.wait_for_subscribers(1, DEADLINE).unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    let joined = presence.recv_timeout(DEADLINE).unwrap().expect("the other one");
    assert!(matches!(&joined, PeerChange::Joined(peer) if peer.name() == others), "{joined}");
    parent.say("here");
    parent.hear("play");

    let looks = LOOKS.load(Relaxed);
    let start = Instant::now();
    let mut number = 0;
    while number != OVER {
        number = if start.elapsed() < GAME { number + 1 } else { OVER };
        if own == "pong" {
            number = *balls.recv_timeout(DEADLINE).unwrap().expect("a ball");
        }
        throws.publish(&number).unwrap();
        if own == "ping" {
            assert_eq!(*balls.recv_timeout(DEADLINE).unwrap().expect("a ball"), number);
            assert_eq!(client.call::<_, u64>("echo", &number).unwrap(), number);
            let (start, timeout) = (Instant::now(), Duration::from_millis(2));
            assert!(balls.recv_timeout(timeout).unwrap().is_none());
            assert!((timeout..Duration::from_secs(1)).contains(&start.elapsed()), "{:?}", start.elapsed());
        }
    }
    let change = presence.recv_timeout(Duration::ZERO).unwrap();
    assert!(change.is_none(), "nothing has happened to the other: {change:?}");
    assert_eq!(LOOKS.load(Relaxed), looks, "nobody has asked what time it is");
    // Those may do, that say it.
    let mut timed = node.publisher_builder("timed").timestamps().open::<u64>().unwrap();
    timed.publish(&1).unwrap();
    assert!(LOOKS.load(Relaxed) > looks);
    parent.say("played");
    parent.stay();
}
