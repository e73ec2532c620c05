//! Killed processes.

use nix::sys::signal::Signal;
use support::{Child, Dir, Parent};

use super::*;

/// Longer than the node of a reader that keeps up has no processor, whatever else runs.
const LATER: Duration = Duration::from_millis(400);

/// Publishes as fast as it can, and says how many messages it has published.
pub fn publishes(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("writer").unwrap();
    let mut publisher = evicting(&node, "t", LATER).open_raw().unwrap();
    // A join goes on without nodes that have not answered after 200 ms.
    publisher.wait_for_subscribers(2, support::DEADLINE).unwrap();
    for sequence in 0.. {
        publisher.publish(&content(sequence, 40 + sequence as usize % 200)).unwrap();
        if sequence % 8 == 0 {
            parent.say(&(sequence + 1).to_string());
        }
    }
}

#[test]
fn a_writer_killed_while_it_evicts_owes_the_healthy_nothing() {
    let mut evicted = 0;
    for round in 0..8 {
        let dir = Dir::new();
        let node = dir.join("reader");
        let mut healthy = node.raw_subscriber("t").unwrap();
        let mut slow = node.raw_subscriber("t").unwrap();
        let mut child = Child::start("publishes", &[dir.arg()]);
        let (mut all, mut some) = (Account::default(), Account::default());
        let mut acknowledged = 0;
        // Lines are eight messages: the first eviction comes after some 25 messages.
        for line in 0..3 + round * 5 {
            acknowledged = loop {
                all.take_all(&mut healthy);
                if let Some(line) = child.line_if_any() {
                    break line.parse().unwrap();
                }
            };
            if line % 8 == 7 {
                some.take_all(&mut slow);
            }
        }
        child.kill();
        support::eventually("its end", || {
            all.take_all(&mut healthy);
            some.take_all(&mut slow);
            // Not only not yet attached.
            let any = all.received >= acknowledged || !all.gaps.is_empty();
            any && healthy.stats().peers == 0 && slow.stats().peers == 0
        });
        // What was told between the last look and the end.
        all.take_all(&mut healthy);
        some.take_all(&mut slow);
        assert!(all.is_whole(LATER), "{all:?} of {acknowledged}");
        // Told of a loss whose size nobody is left to tell, at most at the end.
        let unknown = some.gaps.iter().position(|(_, missed)| *missed == 0);
        assert!(unknown.is_none_or(|at| at + 1 == some.gaps.len()), "{some:?}");
        let is_known = unknown.is_none() && all.gaps.is_empty();
        assert!(!is_known || some.told() == all.told(), "{some:?}, {all:?}");
        evicted += some.gaps.len();
    }
    assert!(evicted > 0);
}

#[test]
fn killed_readers_evicted_or_not_hold_up_nobody() {
    let dir = Dir::new();
    let mut children = ["healthy", "slow"].map(|which| Child::start("reads", &[dir.arg(), which]));
    children.iter_mut().for_each(|child| child.expect("open"));
    let [mut healthy, evicted] = children;
    let mut own = dir.join("own").raw_subscriber("t").unwrap();
    let node = dir.join("writer");
    let mut publisher = evicting(&node, "t", SOON).open_raw().unwrap();
    let mut account = Account::default();
    let mut publish = |account: &mut Account, times: u64| {
        for _ in 0..times {
            publisher.publish(&content(account.told(), 300)).unwrap();
            assert!(account.take(&mut own, support::DEADLINE));
        }
        publisher.stats().peers
    };
    healthy.tell("100");
    evicted.signal(Signal::SIGSTOP);
    assert_eq!(publish(&mut account, 100), 2);
    assert_eq!(healthy.line(), "100 0 0");
    // The one is killed before it has let go of its log, the other before it has read what follows in the next one.
    evicted.kill();
    assert_eq!(publish(&mut account, 5), 2);
    healthy.kill();
    support::eventually("its end", || publish(&mut account, 1) == 1);
    assert_eq!(publish(&mut account, 100), 1);
    assert_eq!(account.missed, 0);
    let mut again = Child::start("reads", &[dir.arg(), "healthy"]);
    again.expect("open");
    support::eventually("a new one", || publish(&mut account, 1) == 2);
    again.kill();
}
