use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use super::*;

#[derive(Default)]
struct Count(AtomicU32);

impl std::task::Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Release); // pairs with the Acquire in `times`
    }
}

impl Count {
    fn times(&self) -> u32 {
        self.0.load(Acquire) // pairs with the Release in `wake`
    }
}

fn message(outcome: Option<Outcome>) -> String {
    match outcome {
        Some(Err(status)) => status.message().to_owned(),
        Some(Ok(_)) => "an answer".to_owned(),
        None => "nothing".to_owned(),
    }
}

/// By itself: of two locks in one statement the second waits for the first.
fn begin(calls: &Calls, route: u32, raw: bool) -> u64 {
    calls.lock().begin(route, raw).unwrap()
}

#[test]
fn ids_are_not_used_twice_though_their_places_are() {
    let calls = Calls::default();
    let first = begin(&calls, 1, false);
    assert!(calls.lock().forget(first).is_none());
    let second = begin(&calls, 1, true);
    assert_eq!(Table::index(first), Table::index(second));
    assert_ne!(first, second);
    let mut table = calls.lock();
    assert_eq!((table.wants(first, 1), table.settle(first, 1), table.route(first)), (None, false, None));
    assert_eq!((table.wants(second, 2), table.settle(second, 2)), (None, false), "it went another way");
    assert_eq!(table.wants(second, 1), Some(false), "in place only for whoever waits");
    assert!(table.follow(Some(second)));
    assert_eq!(table.wants(second, 1), Some(true));
    table.unfollow(Some(second));
    assert_eq!((table.wants(second, 1), table.next_leader().is_some()), (Some(false), false));
    assert_eq!((table.settle(second, 1), table.settle(second, 1), table.len()), (true, false, 0));
}

#[test]
fn the_end_of_a_route_ends_its_calls_whoever_hears_of_it_first() {
    for reader_first in [false, true] {
        let calls = Calls::default();
        let (early, other) = (begin(&calls, 1, false), begin(&calls, 2, false));
        let died = || Status::unavailable("died");
        let late;
        if reader_first {
            calls.ended(1);
            assert_eq!(message(calls.lock().take(early)), "the server closed the service");
            late = begin(&calls, 1, false);
            calls.will_end(1, died());
        } else {
            calls.will_end(1, died());
            assert_eq!(message(calls.lock().take(early)), "nothing", "answers are still being read");
            late = begin(&calls, 1, false);
            calls.ended(1);
            assert_eq!(message(calls.lock().take(early)), "died");
        }
        let mut table = calls.lock();
        assert_eq!(message(table.take(late)), "died");
        assert_eq!(message(table.take(other)), "nothing");
        assert!(table.ended.is_empty() && table.ending.is_empty());
    }
}

#[test]
fn a_failure_is_counted_and_keeps_outcomes_that_there_are() {
    let calls = Calls::default();
    let (first, second) = (begin(&calls, 1, false), begin(&calls, 1, false));
    assert!(calls.lock().end(first, Err(Status::aborted("answered"))).is_some());
    let before = calls.failures();
    calls.fail_all(&Status::unavailable("gone"));
    assert_ne!(calls.failures(), before);
    let mut table = calls.lock();
    assert_eq!(message(table.forget(first)), "answered");
    assert_eq!(message(table.forget(second)), "gone");
    assert!(!table.follow(Some(first)) && table.len() == 0);
    assert!(table.end(first, Err(Status::aborted(""))).is_none());
}

#[test]
fn what_befalls_a_vacant_place_is_not_the_next_call_s() {
    let calls = Calls::default();
    let (answered, forgotten) = (begin(&calls, 1, false), begin(&calls, 1, false));
    assert!(calls.lock().settle(answered, 1) && calls.lock().forget(forgotten).is_none());
    calls.fail_all(&Status::unavailable("gone"));
    calls.fail(1, &Status::unavailable("gone"));
    let mut table = calls.lock();
    for id in [answered, forgotten, VACANT] {
        assert_eq!((table.wants(id, 1), table.settle(id, 1), table.route(id)), (None, false, None));
        assert!(table.end(id, Err(Status::aborted("late"))).is_none() && table.forget(id).is_none());
    }
    assert_eq!((table.len(), table.unfinished()), (0, 0));
    let next = [0, 1].map(|_| table.begin(1, false).unwrap());
    assert_eq!((table.len(), table.unfinished(), table.calls.len()), (2, 2, 2), "in those places");
    assert!(next.iter().all(|id| table.take(*id).is_none()));
}

#[test]
fn tasks_are_counted_woken_once_and_their_deadlines_kept() {
    let calls = Calls::default();
    let ids: Vec<u64> = (0..4).map(|_| begin(&calls, 1, false)).collect();
    let woken: Vec<Arc<Count>> = ids.iter().map(|_| Arc::default()).collect();
    let wakers: Vec<Waker> = woken.iter().map(|count| Waker::from(count.clone())).collect();
    let times = || woken.iter().map(|count| count.times()).collect::<Vec<_>>();
    let now = Instant::now();
    let at = |ms| Some(now + Duration::from_millis(ms));
    let mut table = calls.lock();
    assert!(!table.has_tasks(None));
    assert_eq!(table.watch(ids[0], &wakers[0], None), Watched::First);
    assert!(table.has_tasks(None));
    assert_eq!(table.watch(ids[1], &wakers[1], at(20)), Watched::Earliest);
    assert!(!table.has_tasks(None), "whoever sleeps without end sleeps too long");
    assert_eq!(table.watch(ids[2], &wakers[2], at(30)), Watched::First);
    assert_eq!(table.watch(ids[3], &wakers[3], at(10)), Watched::Earliest);
    assert_eq!(table.watch(ids[3], &wakers[3], at(10)), Watched::Again);
    assert!(table.has_tasks(at(10)) && !table.has_tasks(at(20)));
    assert_eq!(table.next_deadline(now), (at(10), None));

    // One is late, one is answered, one is given up, one fails.
    assert_eq!(table.next_deadline(now + Duration::from_millis(15)), (None, Some(ids[3])));
    let late = table.wake(ids[3]);
    let answered = table.end(ids[1], Err(Status::aborted("")));
    assert!(table.forget(ids[2]).is_none());
    assert_eq!(table.tasks, 1);
    drop(table);
    late.into_iter().chain(answered).for_each(Wake::wake);
    assert_eq!(times(), [0, 1, 0, 1]);
    calls.fail(1, &Status::unavailable(""));
    assert_eq!(times(), [0, 1, 0, 1], "whoever fails a call runs nobody's code");
    let failed = calls.lock().take_failed();
    failed.into_iter().for_each(Waker::wake);
    assert_eq!(times(), [1, 1, 0, 1]);
    let mut table = calls.lock();
    assert_eq!(table.tasks, 0);
    assert_eq!(table.next_deadline(now + Duration::from_secs(1)), (None, None), "all are over");
}
