//! What evictions leave behind.

use support::{Child, Dir, Parent};

use super::*;

fn logs() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc");
    maps.lines().filter(|line| line.contains("/memfd:ringbus-log")).count()
}

/// One subscriber never reads, and one, now and then, all that it has: that one is evicted time and again.
pub fn sleeps(parent: &mut Parent, args: &[&str]) {
    let bus = support::bus(args[0]);
    let (node, reader) = (bus.join("writer").unwrap(), bus.join("reader").unwrap());
    let mut never = reader.raw_subscriber("t").unwrap();
    let mut lossy = reader.subscriber_builder("t").lossy().open_raw().unwrap();
    let mut rarely = reader.raw_subscriber("t").unwrap();
    let mut healthy = reader.raw_subscriber("t").unwrap();
    let mut publisher = evicting(&node, "t", SOON).open_raw().unwrap();
    let (before, _) = support::resources();
    let (mut all, mut some, mut evictions) = (Account::default(), Account::default(), 0);
    for _ in 0..12 {
        for _ in 0..60 {
            publisher.publish(&content(all.told(), 200)).unwrap();
            assert!(all.take(&mut healthy, support::DEADLINE));
        }
        // The publisher's and the healthy one's; two of each that has not read. Those read are let go of soon.
        support::eventually("the others are gone", || logs() <= 1 + 1 + 3 * 2);
        support::eventually("it has caught up", || {
            some.take_all(&mut rarely);
            some.told() == all.told()
        });
        evictions = some.gaps.len();
    }
    assert!(evictions >= 6, "{evictions}");
    let (fds, _) = support::resources();
    assert!(fds <= before + 8, "{before} file descriptors, now {fds}");
    // Those that have never read get what was in their logs, and the number.
    for subscriber in [&mut never, &mut lossy] {
        let mut account = Account::default();
        support::eventually("told of all", || {
            account.take_all(subscriber);
            account.told() == all.told()
        });
        assert!(account.missed > 0);
    }
    support::eventually("nothing is left", || logs() == 1 + 4);
    drop(publisher);
    support::eventually("nothing at all", || {
        let mut take = |subscriber: &mut RawSubscriber| {
            assert!(subscriber.try_recv().unwrap().is_none());
        };
        [&mut never, &mut lossy, &mut rarely, &mut healthy].into_iter().for_each(&mut take);
        logs() == 0
    });
    parent.say("done");
}

#[test]
fn no_reader_keeps_more_than_two_logs_that_it_has_not_read() {
    let dir = Dir::new();
    let mut child = Child::start("sleeps", &[dir.arg()]);
    child.expect("done");
    child.finish();
}
