//! `ringbus bench`: that it measures and tells, not how fast anything is.

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sched::{CpuSet, sched_setaffinity};

use super::demo::{children, has_ended};
use super::*;

/// One at a time: each has two processes that spin, on the same two CPUs.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As little as can be measured.
const LITTLE: [&str; 5] = ["--repetitions", "1", "--seconds", "0.02", "--json"];

/// The figures of one measurement: stdout is one line of JSON, and all that is wanted is in it, and positive.
#[track_caller]
fn measure(args: &[&str], wanted: &[&str]) -> Value {
    let _alone = alone();
    let args = [&["bench"], args, &LITTLE].concat();
    let stdout = Place::new().succeed(&args);
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    let figures = json(&stdout);
    // The only repetition counts, wherever it was, and whoever has disturbed it.
    let left_out = (args[1] != "scale").then_some(0);
    assert_eq!(figures["repetitions_left_out"].as_u64(), left_out, "{figures}");
    for name in wanted {
        let figure = figures[name].as_f64().unwrap_or_else(|| panic!("{name} of {args:?}: {figures}"));
        match *name {
            "lost" => assert_eq!(figure, 0.0, "{args:?}: {figures}"),
            _ => assert!(figure > 0.0, "{name} of {args:?}: {figures}"),
        }
    }
    figures
}

const LATENCY: [&str; 6] =
    ["rtt_p50_ns", "rtt_p99_ns", "raw_rtt_p50_ns", "bare_rtt_p50_ns", "ratio_raw", "ratio_bare"];
const THROUGHPUT: [&str; 5] =
    ["messages_per_s", "bytes_per_s", "lost", "bare_messages_per_s", "memcpy_bytes_per_s"];

/// What is not the plain measurement itself is held against it.
#[track_caller]
fn assert_own(figures: &Value, name: &str, own: &str, plain: bool) {
    let [figure, own, ratio] = [name, own, "ratio_own"].map(|name| figures[name].as_f64());
    if plain {
        assert_eq!((own, ratio), (None, None), "{figures}");
    } else {
        let found = figure.unwrap() / own.unwrap();
        assert!((ratio.unwrap() / found - 1.0).abs() < 0.01, "{figures}");
    }
}

#[test]
fn latency() {
    for args in [
        &["latency", "--payload", "64"][..],
        &["latency", "--payload", "1"],
        &["latency", "--payload", "65536", "--loan"],
        &["latency", "--typed", "--wait", "adaptive"],
        &["latency", "--payload", "1000", "--wait", "park", "--idle-logs", "3"],
    ] {
        let figures = measure(args, &LATENCY);
        let ratio = figures["rtt_p50_ns"].as_f64().unwrap() / figures["bare_rtt_p50_ns"].as_f64().unwrap();
        assert!((figures["ratio_bare"].as_f64().unwrap() / ratio - 1.0).abs() < 0.01, "{figures}");
        assert!(figures["rtt_min_ns"].as_f64() <= figures["rtt_p50_ns"].as_f64(), "{figures}");
        let plain = args == ["latency", "--payload", "64"];
        assert_own(&figures, "rtt_p50_ns", "own_rtt_p50_ns", plain);
        assert_eq!(figures["repetitions"], 1);
        assert!(figures["placement"].as_str().unwrap().contains("CPU"), "{figures}");
    }
}

#[test]
fn throughput() {
    for args in [
        &["throughput", "--payload", "64"][..],
        &["throughput", "--payload", "3"],
        &["throughput", "--payload", "1048576"],
        &["throughput", "--payload", "65536", "--loan"],
        &["throughput", "--typed"],
        &["throughput", "--publishers", "3", "--idle-logs", "5"],
        &["throughput", "--idle-logs", "2"],
    ] {
        let figures = measure(args, &THROUGHPUT);
        let payload = if args[1] == "--payload" { args[2].parse().unwrap() } else { 64.0 };
        let bytes = figures["messages_per_s"].as_f64().unwrap() * payload;
        assert_own(
            &figures,
            "messages_per_s",
            "own_messages_per_s",
            !args.iter().any(|arg| ["--publishers", "--idle-logs"].contains(arg)),
        );
        // Both are rounded to whole numbers.
        assert!((figures["bytes_per_s"].as_f64().unwrap() - bytes).abs() <= payload, "{figures}");
    }
}

/// One that is through within a moment takes its ring with it.
#[test]
fn a_sender_is_not_through_before_its_receiver_has_opened_the_ring() {
    let _alone = alone();
    let moments = ["--repetitions", "40", "--seconds", "0.001", "--json"];
    Place::new().succeed(&[&["bench", "throughput", "--payload", "3"][..], &moments].concat());
}

#[test]
fn fanout() {
    for more in [&[][..], &["--separate"]] {
        let args = [&["fanout", "--payload", "64", "--subscribers", "3"], more].concat();
        let figures = measure(&args, &["published_per_s", "deliveries_per_s", "lost"]);
        let [published, delivered] =
            ["published_per_s", "deliveries_per_s"].map(|name| figures[name].as_f64().unwrap());
        assert!((delivered / published / 3.0 - 1.0).abs() < 0.01, "{figures}");
    }
}

#[test]
fn call() {
    let wanted =
        ["rtt_p50_ns", "rtt_p99_ns", "raw_rtt_p50_ns", "bare_rtt_p50_ns", "ratio_bare", "calls_per_s"];
    measure(&["call", "--payload", "64"], &wanted);
    measure(&["call", "--payload", "65536", "--clients", "2"], &wanted);
}

#[test]
fn wake() {
    measure(&["wake"], &["rtt_p50_ns", "eventfd_rtt_p50_ns", "ratio"]);
}

#[test]
fn idle() {
    let _alone = alone();
    // Long enough for the one wake-up a second; the later option counts.
    let figures =
        Place::new().succeed(&["bench", "idle", "--repetitions", "1", "--seconds", "2.5", "--json"]);
    let figures = json(&figures);
    for name in ["cpu_percent", "rss_bytes", "bare_rss_bytes"] {
        assert!(figures[name].as_f64().unwrap() > 0.0, "{name}: {figures}");
    }
    assert!(figures["rss_bytes"].as_f64() > figures["bare_rss_bytes"].as_f64(), "{figures}");
}

#[test]
fn scale() {
    let wanted = ["join_p50_ms", "join_max_ms", "all_joined_ms", "rss_per_node_bytes", "delivered", "lost"];
    for more in [&[][..], &["--at-once"]] {
        let args = [&["scale", "--nodes", "5", "--messages", "70"], more].concat();
        let figures = measure(&args, &wanted);
        assert_eq!(figures["delivered"], 350, "{figures}");
    }
}

#[test]
fn codec() {
    measure(&["codec"], &["encode_ns", "decode_ns", "rmp_serde_roundtrip_ns", "json_roundtrip_ns"]);
}

#[test]
fn everything_as_json_and_as_charts() {
    let _alone = alone();
    let place = Place::new();
    let svg = place.dir().join("charts.svg");
    let args = ["bench", "all", "--nodes", "3", "--svg", svg.to_str().unwrap()];
    let output = place.run(&[&args[..], &LITTLE].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    let all = json(stdout.lines().last().unwrap());
    for (name, figure) in [
        ("latency_64", "ratio_bare"),
        ("throughput_1m_loan", "messages_per_s"),
        ("fanout_64_to_4", "deliveries_per_s"),
        ("call_64", "calls_per_s"),
        ("wake", "ratio"),
        ("idle", "rss_bytes"),
        ("codec", "encode_ns"),
        ("scale", "delivered"),
    ] {
        assert!(all[name][figure].as_f64().is_some_and(|figure| figure > 0.0), "{name} {figure}: {all}");
    }
    let bars = all["bars"].as_array().unwrap();
    assert!(bars.len() > 15, "{all}");
    for bar in bars {
        let measured = bar["measured"].as_f64().unwrap_or_else(|| panic!("nothing was measured: {bar}"));
        let met = match (bar["at_most"].as_f64(), bar["at_least"].as_f64()) {
            (Some(limit), None) => measured <= limit,
            (None, Some(limit)) => measured >= limit,
            _ => panic!("one limit is wanted: {bar}"),
        };
        assert_eq!(bar["met"], met, "{bar}");
    }
    let drawn = fs::read_to_string(&svg).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.trim_end().ends_with("</svg>"), "{drawn}");
    for text in ["Round trips", "One way", "latency 64 typed", "ringbus", "bare ring"] {
        assert!(drawn.contains(text), "{text}: {drawn}");
    }
}

#[test]
fn people_get_a_table() {
    let _alone = alone();
    let args = ["bench", "latency", "--repetitions", "1", "--seconds", "0.02"];
    let stdout = Place::new().succeed(&args);
    assert!(stdout.lines().any(|line| line.starts_with("rtt_p50_ns  ")), "{stdout}");
}

#[test]
fn what_cannot_be_measured_is_told_in_a_line() {
    let place = Place::new();
    for (args, words) in [
        (&["latency", "--payload", "0"][..], "a message has 1 to 67108864 bytes"),
        (&["latency", "--payload", "67108865"], "a message has 1 to 67108864 bytes"),
        (&["throughput", "--payload=-1"], "a message has 1 to 67108864 bytes"),
        (&["fanout", "--subscribers", "0"], "1 to 64"),
        (&["call", "--clients", "x"], "1 to 64"),
        (&["latency", "--loan", "--typed"], "--typed"),
        (&["latency", "--repetitions", "0"], "--repetitions"),
        (&["latency", "--seconds", "0"], "seconds"),
        (&["latency", "--wait", "often"], "spin"),
        (&["scale", "--nodes", "1"], "--nodes"),
    ] {
        let said = place.fail(&[&["bench"], args].concat(), 2);
        assert!(said.contains(words), "{args:?}: {said}");
    }
    for args in [&["latency", "--typed", "--payload", "63"][..], &["call", "--payload", "8"]] {
        let said = place.fail(&[&["bench"], args].concat(), 1);
        assert!(said.contains("a typed message has at least 64 bytes"), "{args:?}: {said}");
    }
    let said = place.fail(&["bench", "all", "--svg", "/nowhere/charts.svg"], 1);
    assert!(said.contains("cannot write /nowhere/charts.svg"), "{said}");
}

#[test]
fn with_one_cpu_it_says_that_two_are_needed() {
    let _alone = alone();
    let place = Place::new();
    for command in ["latency", "throughput", "fanout", "call", "wake", "all"] {
        let run = || {
            let mut one = CpuSet::new();
            let cpu = ringbus::internals::sys::affinity::allowed().unwrap()[0];
            one.set(cpu).unwrap();
            sched_setaffinity(Pid::from_raw(0), &one).unwrap(); // of this thread, and inherited
            place.fail(&["bench", command], 1)
        };
        let said = thread::scope(|scope| scope.spawn(run).join().unwrap());
        assert!(said.contains("two CPUs"), "{said}");
    }
}

/// A measurement of two processes that takes long.
fn start_long(mut command: Command) -> (Running, Vec<(i32, String)>) {
    command.args(["--seconds", "600"]);
    let bench = Running::start(command);
    let mut found = Vec::new();
    eventually("the measured processes", || {
        found = children(bench.pid());
        found.len() == 2
    });
    (bench, found)
}

/// How many threads of a process there are, and for how long they have run, in clock ticks.
fn life(pid: i32) -> (usize, u64) {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, |tasks| tasks.count());
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let user_time = stat.rsplit(") ").next().and_then(|stat| stat.split(' ').nth(11)?.parse().ok());
    (threads, user_time.unwrap_or_default())
}

#[test]
fn a_killed_bench_leaves_no_processes() {
    let _alone = alone();
    let place = Place::new();
    for what in ["latency", "idle"] {
        let (mut bench, children) = start_long(place.command(&["bench", what]));
        eventually("processes that do not look at their stdin", || match what {
            "latency" => children.iter().all(|(pid, _)| life(*pid).1 > 20),
            _ => children.iter().any(|(pid, _)| life(*pid).0 > 1),
        });
        bench.signal(Signal::SIGKILL);
        bench.wait();
        for (pid, line) in children {
            eventually(&format!("the end of {line}"), || has_ended(pid));
        }
    }
}

#[test]
fn a_measured_process_that_dies_fails_the_bench_by_name() {
    let _alone = alone();
    for index in [0, 1] {
        let (bench, children) = start_long(Place::new().command(&["bench", "latency"]));
        let (victim, line) = &children[index];
        kill(Pid::from_raw(*victim), Signal::SIGKILL).unwrap();
        let output = bench.output();
        assert_eq!(output.status.code(), Some(1), "{line}");
        let stderr = text(&output.stderr);
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        let name = if line.contains("first") { "first" } else { "second" };
        let expected = format!("error: process {name} (pid {victim}) died unexpectedly");
        assert!(stderr.starts_with(&expected), "{stderr}");
        assert!(children.iter().all(|(pid, _)| has_ended(*pid)), "the other is taken along");
    }
}

#[test]
fn an_interrupted_bench_leaves_nothing_behind() {
    let _alone = alone();
    let place = Place::new();
    let mut command = place.command(&["bench", "latency"]);
    command.env("TMPDIR", place.dir());
    let (mut bench, found) = start_long(command);
    assert!(place.dir().read_dir().unwrap().next().is_some(), "its private bus");
    bench.signal(Signal::SIGINT);
    assert_eq!(bench.wait().code(), Some(130));
    assert!(found.iter().all(|(pid, _)| has_ended(*pid)), "{found:?}");
    let left: Vec<_> = place.dir().read_dir().unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}
