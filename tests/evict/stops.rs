//! Stopped processes.

use nix::sys::signal::Signal;
use support::{Child, Dir, Parent};

use super::*;

/// Reads until it was told of as many messages as each line of the parent's says, and says what became of them.
pub fn reads(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("reader").unwrap();
    let mut subscriber = node.raw_subscriber("t").unwrap();
    parent.say("open");
    let mut account = Account::default();
    while let Some(line) = parent.listen() {
        while account.told() < line.parse().unwrap() {
            assert!(account.take(&mut subscriber, support::DEADLINE), "{account:?} of {line}");
        }
        assert!(args[1] == "slow" || account.is_whole(SOON), "{account:?}");
        parent.say(&format!("{} {} {}", account.received, account.missed, account.gaps.len()));
    }
}

fn numbers(line: &str) -> Vec<u64> {
    line.split(' ').map(|number| number.parse().expect("a number")).collect()
}

#[test]
fn a_stopped_one_is_cut_off_and_comes_back_while_the_other_misses_nothing() {
    for size in [500, 10_000] {
        let dir = Dir::new();
        let mut children = ["healthy", "slow"].map(|which| Child::start("reads", &[dir.arg(), which]));
        children.iter_mut().for_each(|child| child.expect("open"));
        let [mut healthy, mut slow] = children;
        let node = dir.join("writer");
        let mut publisher = evicting(&node, "t", SOON).blob_memory(1 << 20).open_raw().unwrap();
        assert_eq!(publisher.stats().peers, 2);
        let mut published = 0;
        for round in 1..=3 {
            slow.signal(Signal::SIGSTOP);
            healthy.tell(&(round * 1000).to_string());
            for _ in 0..1000 {
                publisher.publish(&content(published, size)).unwrap();
                published += 1;
            }
            let told = numbers(&healthy.line());
            assert_eq!(told[0] + told[1], published, "while the other one is stopped");
            support::eventually("it alone is there", || publisher.stats().peers == 1);
            slow.signal(Signal::SIGCONT);
            slow.tell(&published.to_string());
            let told = numbers(&slow.line());
            assert_eq!((told[0] + told[1], told[2]), (published, round));
            assert!(told[0] >= round * (SMALL / 600).min(5), "all that was in its log: {told:?}");
            support::eventually("it is attached again", || publisher.stats().peers == 2);
        }
        healthy.finish();
        slow.finish();
    }
}
