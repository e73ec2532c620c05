//! The bus between two processes, beside its bare ring in the same run.
//!
//! `cargo bench --bench bus`: this program runs itself a second time as the other process; both are pinned,
//! each to a CPU of its own. Criterion reports the time of one round trip (`rtt/*`) or of one message
//! (`throughput/*`, everything received and checked); `join` and `idle` are measured before and printed
//! as they are. Compare ratios within one run: absolute times of a virtual machine move.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use ringbus::{Bus, Publisher, RawPublisher, RawSubscriber, Subscriber, Wait};

mod support;

use support::bare::{bare_first, bare_receive, bare_second, bare_send};
use support::{
    Event, PATIENCE, ROLE, Second, cpu_time, cpus, hear, is_smoke, join, pin, pin_second, tell, u64_of,
};

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        return second_process(&role);
    }
    pin(&cpus(), 0);
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let smoke = is_smoke();
    report_joins(smoke);
    report_idle(smoke);
    round_trips(&mut criterion);
    throughputs(&mut criterion, if smoke { 1_000 } else { 100_000 });
    criterion.final_summary();
}

// --- the second process -----------------------------------------------------------------------------

fn second_process(role: &str) {
    pin_second();
    if role == "bare-echo" || role == "bare-sink" {
        return bare_second(role);
    }
    let node = Bus::from_env().unwrap().join("second").unwrap();
    let spin = Wait::Spin;
    match role {
        "typed-echo" => {
            let mut ping: Subscriber<Event> = node.subscriber_builder("ping").wait(spin).open().unwrap();
            let mut pong: Publisher<Event> = node.publisher_builder("pong").wait(spin).open().unwrap();
            tell("ready");
            loop {
                let event = ping.recv().unwrap();
                pong.publish(&event).unwrap();
            }
        }
        "raw-echo" => {
            let mut ping: RawSubscriber = node.subscriber_builder("ping").wait(spin).open_raw().unwrap();
            let mut pong: RawPublisher = node.publisher_builder("pong").wait(spin).open_raw().unwrap();
            tell("ready");
            loop {
                let sample = ping.recv().unwrap();
                pong.publish(&sample).unwrap();
            }
        }
        "typed-sink" => {
            let mut flood: Subscriber<Event> = node.subscriber_builder("flood").wait(spin).open().unwrap();
            tell("ready");
            let mut due = 0;
            loop {
                let end = due + hear().parse::<u64>().unwrap();
                while due < end {
                    let event = flood.recv().expect("nothing is lost");
                    assert_eq!((event.id, event.sequence()), (due, due), "in order");
                    due += 1;
                }
                tell("received");
            }
        }
        "raw-sink" => {
            let mut flood: RawSubscriber = node.subscriber_builder("flood").wait(spin).open_raw().unwrap();
            tell("ready");
            let mut due = 0;
            loop {
                let end = due + hear().parse::<u64>().unwrap();
                while due < end {
                    let sample = flood.recv().expect("nothing is lost");
                    assert_eq!((u64_of(&sample), sample.sequence()), (due, due), "in order");
                    due += 1;
                }
                tell("received");
            }
        }
        "idle" => {
            let mut quiet: Subscriber<Event> = node.subscriber_builder("quiet").open().unwrap();
            tell("ready");
            let _ = quiet.recv();
        }
        "member" => {
            tell("ready");
            hear(); // until the first process is gone
        }
        other => panic!("no role {other}"),
    }
}

// --- round trips ------------------------------------------------------------------------------------

fn round_trips(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rtt");
    {
        let (bus, _node) = join();
        let (_second, _half, mut writer, mut reader) = bare_first("bare-echo", &bus);
        let mut message = [7; 64];
        group.bench_function("bare_64B", |bencher| {
            bencher.iter(|| {
                bare_send(&mut writer, &message);
                bare_receive(&mut reader, &mut message);
            });
        });
    }
    {
        let (bus, node) = join();
        let mut pong: RawSubscriber = node.subscriber_builder("pong").wait(Wait::Spin).open_raw().unwrap();
        let mut second = Second::start("raw-echo", &bus);
        assert_eq!(second.hear(), "ready");
        let mut ping = node.raw_publisher("ping").unwrap();
        ping.wait_for_subscribers(1, PATIENCE).unwrap();
        let message = [7; 64];
        group.bench_function("raw_64B", |bencher| {
            bencher.iter(|| {
                ping.publish(&message).unwrap();
                black_box(pong.recv().unwrap().len());
            });
        });
    }
    {
        let (bus, node) = join();
        let mut pong: Subscriber<Event> = node.subscriber_builder("pong").wait(Wait::Spin).open().unwrap();
        let mut second = Second::start("typed-echo", &bus);
        assert_eq!(second.hear(), "ready");
        let mut ping = node.publisher::<Event>("ping").unwrap();
        ping.wait_for_subscribers(1, PATIENCE).unwrap();
        let event = Event::new(1);
        group.bench_function("typed_64B", |bencher| {
            bencher.iter(|| {
                ping.publish(&event).unwrap();
                black_box(pong.recv().unwrap().id);
            });
        });
    }
    group.finish();
}

// --- throughput -------------------------------------------------------------------------------------

/// Times `batch` messages until the other process has received them all, per iteration of one message.
fn flood(second: &mut Second, iterations: u64, batch: u64, mut send: impl FnMut()) -> Duration {
    let batches = iterations.div_ceil(batch);
    let mut taken = Duration::ZERO;
    for _ in 0..batches {
        second.tell(&batch.to_string());
        let start = Instant::now();
        for _ in 0..batch {
            send();
        }
        assert_eq!(second.hear(), "received");
        taken += start.elapsed();
    }
    taken.mul_f64(iterations as f64 / (batches * batch) as f64)
}

fn throughputs(criterion: &mut Criterion, batch: u64) {
    let mut group = criterion.benchmark_group("throughput");
    group.throughput(Throughput::Elements(1));
    {
        let (bus, _node) = join();
        let (mut second, _half, mut writer, _reader) = bare_first("bare-sink", &bus);
        let mut id = 0_u64;
        group.bench_function("bare_64B", |bencher| {
            bencher.iter_custom(|iterations| {
                flood(&mut second, iterations, batch, || {
                    let mut message = [0; 64];
                    message[..8].copy_from_slice(&id.to_le_bytes());
                    bare_send(&mut writer, &message);
                    id += 1;
                })
            });
        });
    }
    {
        let (bus, node) = join();
        let mut second = Second::start("raw-sink", &bus);
        assert_eq!(second.hear(), "ready");
        let mut publisher: RawPublisher =
            node.publisher_builder("flood").wait(Wait::Spin).open_raw().unwrap();
        publisher.wait_for_subscribers(1, PATIENCE).unwrap();
        let mut id = 0_u64;
        group.bench_function("raw_64B", |bencher| {
            bencher.iter_custom(|iterations| {
                flood(&mut second, iterations, batch, || {
                    let mut message = [0; 64];
                    message[..8].copy_from_slice(&id.to_le_bytes());
                    publisher.publish(&message).unwrap();
                    id += 1;
                })
            });
        });
    }
    {
        let (bus, node) = join();
        let mut second = Second::start("typed-sink", &bus);
        assert_eq!(second.hear(), "ready");
        let mut publisher: Publisher<Event> =
            node.publisher_builder("flood").wait(Wait::Spin).open().unwrap();
        publisher.wait_for_subscribers(1, PATIENCE).unwrap();
        let mut event = Event::new(0);
        group.bench_function("typed_64B", |bencher| {
            bencher.iter_custom(|iterations| {
                flood(&mut second, iterations, batch, || {
                    publisher.publish(&event).unwrap();
                    event.id += 1;
                })
            });
        });
    }
    group.finish();
}

// --- what is not repeated fast enough for criterion -------------------------------------------------

fn report_joins(smoke: bool) {
    let repetitions = if smoke { 1 } else { 15 };
    for others in [0, 20] {
        let bus = Bus::private().unwrap();
        let mut members: Vec<Second> = (0..others).map(|_| Second::start("member", &bus)).collect();
        for member in &mut members {
            assert_eq!(member.hear(), "ready");
        }
        let mut times: Vec<Duration> = (0..repetitions)
            .map(|_| {
                let start = Instant::now();
                let node = bus.join("first").unwrap();
                let taken = start.elapsed();
                assert_eq!(node.peers().len(), others);
                taken
            })
            .collect();
        times.sort();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        println!("join/{others}_others: median {median:?}, worst {worst:?} of {repetitions}");
    }
}

/// CPU time of a process that has joined and sleeps in `recv`.
fn report_idle(smoke: bool) {
    let span = Duration::from_secs(if smoke { 1 } else { 10 });
    let (bus, node) = join();
    let mut second = Second::start("idle", &bus);
    assert_eq!(second.hear(), "ready");
    let quiet = node.publisher::<Event>("quiet").unwrap();
    quiet.wait_for_subscribers(1, PATIENCE).unwrap();
    let before = cpu_time(second.child.id());
    std::thread::sleep(span); // the very thing measured
    let used = cpu_time(second.child.id()) - before;
    println!(
        "idle/parked_subscriber: {:.3} % CPU over {span:?}",
        100.0 * used.as_secs_f64() / span.as_secs_f64()
    );
}
