//! A subscriber that never reads, and whose process is stopped, beside pairs that are measured.
//!
//! A flood goes to it, or to nobody, in turn: what else the flood costs, it costs in both.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ringbus::{Overflow, Wait};

mod support;
use support::{Child, DEADLINE, Dir, Parent, eventually};

/// How often each of the two is measured. This is the long form: others may lose less than 5 %, in the median. Else half
/// at most, in its best window.
const WINDOWS: &str = "RINGBUS_FLOODS";
const WINDOW: Duration = Duration::from_millis(100);
#[test]
fn child() {
    support::play(&[("never reads", never_reads)]);
}

fn never_reads(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("never-reads").unwrap();
    let _subscriber = node.raw_subscriber("flood/stalled").unwrap();
    parent.say("open");
    parent.stay();
}

/// Ends the other threads, however the measuring ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn a_flood_to_a_stopped_subscriber_takes_little_from_other_pairs() {
    let windows = support::count(WINDOWS, 10);
    let dir = Dir::new();
    let (one, other) = (dir.join("one"), dir.join("other"));
    let mut child = Child::start("never reads", &[dir.arg()]);
    child.expect("open");
    let flood = |topic| {
        // One that drops what has no room: what its policy costs is its own.
        let builder = one.publisher_builder(topic).overflow(Overflow::DropNewest);
        builder.open_raw().unwrap()
    };
    let mut floods = [flood("flood/nobody"), flood("flood/stalled")];
    floods[1].wait_for_subscribers(1, DEADLINE).unwrap();
    child.signal(Signal::SIGSTOP);

    // The measured pair, of the same node: one message there and back.
    let mut there = one.publisher::<u64>("there").unwrap();
    let mut at_other = other.subscriber_builder("there").wait(Wait::Park).open::<u64>().unwrap();
    let mut back = other.publisher::<u64>("back").unwrap();
    let mut at_one = one.subscriber_builder("back").wait(Wait::Park).open::<u64>().unwrap();
    there.wait_for_subscribers(1, DEADLINE).unwrap();
    back.wait_for_subscribers(1, DEADLINE).unwrap();

    let (is_over, to) = (AtomicBool::new(false), AtomicUsize::new(0));
    let flooded = [AtomicU64::new(0), AtomicU64::new(0)];
    let mut rates: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                if let Some(message) = at_other.recv_timeout(Duration::from_millis(100)).unwrap() {
                    back.publish(&message).unwrap();
                }
            }
        });
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                let to = to.load(Relaxed);
                for _ in 0..100 {
                    floods[to].publish(&[7; 1000]).unwrap();
                }
                flooded[to].fetch_add(100, Relaxed);
                thread::sleep(Duration::from_micros(500));
            }
        });
        let _over = Over(&is_over);
        let mut value = 0;
        for window in 0..2 * windows {
            to.store(window % 2, Relaxed);
            let (start, first) = (Instant::now(), value);
            while start.elapsed() < WINDOW {
                there.publish(&value).unwrap();
                assert_eq!(*at_one.recv_timeout(DEADLINE).unwrap().expect("it comes back"), value);
                value += 1;
            }
            rates[window % 2].push((value - first) as f64 / start.elapsed().as_secs_f64());
        }
    });
    let dropped = floods[1].stats().dropped;
    let flooded = flooded.map(AtomicU64::into_inner);
    assert!(floods[0].stats().dropped == 0 && dropped > flooded[1] / 2, "{dropped} of {flooded:?}");
    child.signal(Signal::SIGCONT);
    eventually("the other goes on", || one.peers().iter().any(|peer| !peer.is_stalled()));

    rates.iter_mut().for_each(|rates| rates.sort_by(f64::total_cmp));
    let falls_by = |[nobody, stalled]: [f64; 2]| (1.0 - stalled / nobody) * 100.0;
    let medians = rates.each_ref().map(|rates| rates[rates.len() / 2]);
    println!(
        "{windows} windows each: {:.0} round trips/s beside a flood to nobody, {:.0} beside one to a stopped reader: {:.1} % less; {dropped} dropped",
        medians[0],
        medians[1],
        falls_by(medians)
    );
    // On a machine that has other things to do, many windows may be slow and one may be several times as fast; what a
    // stopped reader takes from others, it takes in every window of its own.
    let (falls_by, most) = match std::env::var_os(WINDOWS) {
        Some(_) => (falls_by(medians), 5.0),
        None => (falls_by([medians[0], rates[1][windows - 1]]), 50.0),
    };
    assert!(falls_by < most, "by {falls_by:.1} %: {rates:?}");
}
