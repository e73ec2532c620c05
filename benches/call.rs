//! Calls between two processes, beside the bare ring in the same run.
//!
//! `cargo bench --bench call`: this program runs itself a second time as the server; both are pinned, each to
//! a CPU of its own, and spin. What has a figure to be compared with is measured in turns (bare, call, bare, …)
//! and printed as medians and their ratio; Criterion reports one round trip as a whole.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use ringbus::{Bus, Client, Node, Wait};

mod support;

use support::bare::{BareReader, BareWriter, bare_first, bare_receive, bare_second, bare_send};
use support::{Event, PATIENCE, ROLE, Second, cpus, hear, is_smoke, join, pin, pin_second, tell};

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        return second_process(&role);
    }
    pin(&cpus(), 0);
    let smoke = is_smoke();
    report_round_trips(if smoke { 10 } else { 2_000 });
    report_clients(if smoke { 10 } else { 2_000 });
    report_pipelined(if smoke { 100 } else { 100_000 });
    report_in_flight(if smoke { 100 } else { 10_000 });
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    round_trips(&mut criterion);
    criterion.final_summary();
}

fn second_process(role: &str) {
    pin_second();
    if role == "bare-echo" {
        return bare_second(role);
    }
    let node = Bus::from_env().unwrap().join("second").unwrap();
    let server = node
        .service("bench")
        .method("echo", |_, event: Event| Ok(event))
        .method("add", |_, (a, b): (i64, i64)| Ok(a + b))
        .method("wait", |_, ms: u64| {
            std::thread::sleep(Duration::from_millis(ms)); // what a slow handler does
            Ok(())
        })
        .raw_method("raw", |ctx, bytes| {
            let mut answer = ctx.loan(bytes.len())?;
            answer.copy_from_slice(bytes);
            Ok(answer)
        })
        .wait(if role == "park" { Wait::Park } else { Wait::Spin })
        .spawn()
        .unwrap();
    tell("ready");
    while hear() == "rss" {
        tell(&rss().to_string());
    }
    drop(server);
}

/// A server, and clients of it that have each called it once.
fn serve(role: &str, bus: &Bus, node: &Node, clients: usize) -> (Second, Vec<Client>) {
    let mut second = Second::start(role, bus);
    assert_eq!(second.hear(), "ready");
    let wait = if role == "park" { Wait::Park } else { Wait::Spin };
    let clients: Vec<_> =
        (0..clients).map(|_| node.client_builder("bench").wait(wait).open().unwrap()).collect();
    for client in &clients {
        client.wait_for_server(PATIENCE).unwrap();
        assert_eq!(client.call::<_, i64>("add", &(2, 3)), Ok(5));
    }
    (second, clients)
}

fn echo(client: &Client, event: &Event) {
    let answer: Event = client.call("echo", event).unwrap();
    assert_eq!(black_box(answer.id), event.id);
}

/// Nanoseconds of each of `count` round trips.
fn timed(count: usize, mut round_trip: impl FnMut()) -> Vec<u64> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        round_trip();
        times.push(start.elapsed().as_nanos() as u64);
    }
    times
}

fn median(mut times: Vec<u64>) -> u64 {
    times.sort_unstable();
    times[times.len() / 2]
}

fn bare_round_trip(writer: &mut BareWriter, reader: &mut BareReader, message: &mut [u8; 64]) {
    bare_send(writer, message);
    bare_receive(reader, message);
}

fn report_round_trips(batch: usize) {
    let (bare_bus, _bare_node) = join();
    let (bus, node) = join();
    let event = Event::new(1);
    let bytes = [7; 64];
    let (mut bare, mut typed, mut add, mut raw) = (vec![], vec![], vec![], vec![]);
    // One second process at a time: both would want the same CPU.
    for _ in 0..7 {
        {
            let (_second, _half, mut writer, mut reader) = bare_first("bare-echo", &bare_bus);
            let mut message = [7; 64];
            timed(batch, || bare_round_trip(&mut writer, &mut reader, &mut message));
            bare.extend(timed(batch, || bare_round_trip(&mut writer, &mut reader, &mut message)));
        }
        let (_second, clients) = serve("spin", &bus, &node, 1);
        timed(batch, || echo(&clients[0], &event));
        typed.extend(timed(batch, || echo(&clients[0], &event)));
        add.extend(timed(batch, || assert_eq!(clients[0].call::<_, i64>("add", &(2, 3)), Ok(5))));
        raw.extend(timed(batch, || {
            black_box(clients[0].request("raw").send_raw(&bytes).unwrap().len());
        }));
    }
    let bare = median(bare);
    for (name, times) in [("typed_64B", typed), ("add", add), ("raw_64B", raw)] {
        let p50 = median(times);
        println!("rtt/{name}: p50 {p50} ns, bare ring {bare} ns, ratio {:.2}", p50 as f64 / bare as f64);
    }
}

/// What other clients of the service cost one.
fn report_clients(batch: usize) {
    const MANY: usize = 64;
    let (bus, node) = join();
    let (_second, clients) = serve("spin", &bus, &node, 1);
    drop(_second);
    drop(clients);
    let event = Event::new(1);
    let (mut alone, mut beside_idle, mut in_turn) = (vec![], vec![], vec![]);
    for _ in 0..5 {
        let (second, clients) = serve("spin", &bus, &node, 1);
        timed(batch, || echo(&clients[0], &event));
        alone.extend(timed(batch, || echo(&clients[0], &event)));
        drop((second, clients));
        let (second, clients) = serve("spin", &bus, &node, MANY);
        timed(batch, || echo(&clients[0], &event));
        beside_idle.extend(timed(batch, || echo(&clients[0], &event)));
        let mut turn = clients.iter().cycle();
        let mut next = || echo(turn.next().unwrap(), &event);
        timed(batch, &mut next);
        in_turn.extend(timed(batch, &mut next));
        drop((second, clients));
    }
    let (alone, beside_idle, in_turn) = (median(alone), median(beside_idle), median(in_turn));
    println!(
        "clients: p50 {alone} ns alone; {beside_idle} ns beside 63 idle ones, ratio {:.2}; {in_turn} ns with 64 in turn, ratio {:.2}",
        beside_idle as f64 / alone as f64,
        in_turn as f64 / alone as f64
    );
}

fn report_pipelined(calls: usize) {
    const WINDOW: usize = 128;
    for (role, threads) in [("spin", 1), ("spin", 8)] {
        let (bus, node) = join();
        let (_second, clients) = serve(role, &bus, &node, 1);
        let mut rates: Vec<u64> = (0..5)
            .map(|_| {
                let start = Instant::now();
                std::thread::scope(|scope| {
                    for _ in 0..threads {
                        let client = clients[0].clone();
                        scope.spawn(move || {
                            let mut window = VecDeque::with_capacity(WINDOW);
                            for id in 0..calls as i64 {
                                if window.len() == WINDOW {
                                    finish(window.pop_front().unwrap());
                                }
                                window.push_back((id, client.request("add").start(&(id, 1)).unwrap()));
                            }
                            window.into_iter().for_each(finish);
                        });
                    }
                });
                ((threads * calls) as f64 / start.elapsed().as_secs_f64()) as u64
            })
            .collect();
        rates.sort_unstable();
        println!("pipelined/{threads}_threads: median {} calls/s, each answer checked", rates[2]);
    }
}

fn finish((id, call): (i64, ringbus::Pending<ringbus::Response<i64>>)) {
    assert_eq!(*call.wait().unwrap(), id + 1);
}

/// Memory that calls in flight hold, in both processes.
fn report_in_flight(calls: usize) {
    let (bus, node) = join();
    let (mut second, clients) = serve("park", &bus, &node, 1);
    let mut rss_of_both = || {
        second.tell("rss");
        second.hear().parse::<u64>().unwrap() + rss()
    };
    let before = rss_of_both();
    let slow = clients[0].request("wait").start::<_, ()>(&1_500_u64).unwrap();
    let pending: Vec<_> = (0..calls as i64)
        .map(|id| (id, clients[0].request("add").timeout(PATIENCE).start::<_, i64>(&(id, 1)).unwrap()))
        .collect();
    let held = rss_of_both().saturating_sub(before);
    slow.wait().unwrap();
    pending.into_iter().for_each(finish);
    println!("in_flight: {calls} calls hold {:.1} MB in both processes together", held as f64 / 1e6);
}

/// Resident bytes of this process.
fn rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn round_trips(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("call");
    {
        let (bus, _node) = join();
        let (_second, _half, mut writer, mut reader) = bare_first("bare-echo", &bus);
        let mut message = [7; 64];
        group.bench_function("bare_64B", |bencher| {
            bencher.iter(|| bare_round_trip(&mut writer, &mut reader, &mut message));
        });
    }
    let (bus, node) = join();
    let (_second, clients) = serve("spin", &bus, &node, 1);
    let event = Event::new(1);
    group.bench_function("typed_64B", |bencher| bencher.iter(|| echo(&clients[0], &event)));
    group.finish();
}
