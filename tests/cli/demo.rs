//! `ringbus demo`.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;

/// Processes whose parent this one is, with their command lines.
pub(super) fn children(parent: i32) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        if status(pid).is_some_and(|(_, ppid)| ppid == parent) {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    found
}

/// State and parent of a process, if there is one.
fn status(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

pub(super) fn has_ended(pid: i32) -> bool {
    // Whoever inherits the orphans may be slow to reap them.
    status(pid).is_none_or(|(state, _)| matches!(state, 'Z' | 'X'))
}

/// A demo whose processes are all at work.
fn start_long_demo(place: &Place) -> (Running, Lines, Vec<(i32, String)>) {
    let mut demo = place.start(&["demo", "--seconds", "600"]);
    let lines = demo.lines();
    while !lines.next().starts_with("     1 ") {}
    let children = children(demo.pid());
    assert_eq!(children.len(), 4, "{children:?}");
    (demo, lines, children)
}

#[test]
fn every_message_is_accounted_for() {
    let place = Place::new();
    let output = place.run(&["demo", "--seconds", "3", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    assert_eq!(stdout.lines().count(), 1, "live lines go elsewhere: {stdout}");
    let summary = json(&stdout);
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("a number: {value} in {summary}"));
    assert_eq!([&summary["processes"], &summary["lost"], &summary["out_of_order"]].map(number), [4, 0, 0]);
    let seconds = summary["seconds"].as_f64().unwrap();
    assert!((2.9..3.1).contains(&seconds), "{seconds}");

    let parts = summary["per_process"].as_array().unwrap();
    let names: Vec<_> = parts.iter().map(|part| part["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["worker-1", "worker-2", "planner", "monitor", "worker-2"]);
    let killed: Vec<_> = parts.iter().map(|part| part["killed"].as_bool().unwrap()).collect();
    assert_eq!(killed, [false, true, false, false, false]);
    let mut pids: Vec<_> = parts.iter().map(|part| number(&part["pid"])).collect();
    pids.sort();
    pids.dedup();
    assert_eq!(pids.len(), 5, "processes of their own");
    for part in parts {
        assert_eq!([&part["lost"], &part["out_of_order"]].map(number), [0, 0], "{part}");
    }
    let [worker, killed, planner, monitor, replacement] = &parts[..] else { panic!("{parts:?}") };

    let workers = [worker, killed, replacement];
    let events = workers.map(|worker| number(&worker["sent"]["event"]));
    assert!(events.iter().all(|events| *events > 0), "{events:?}");
    for subscriber in [planner, monitor] {
        assert_eq!(number(&subscriber["received"]["event"]), events.iter().sum::<u64>());
    }
    let calls = number(&summary["calls"]);
    let answered = number(&planner["received"]["response"]);
    assert!(calls > 0 && calls == answered + number(&summary["calls_unavailable"]), "{summary}");
    assert_eq!(number(&planner["sent"]["request"]), calls);
    assert!(summary["call_p50_us"].as_f64().unwrap() > 0.0, "{summary}");
    for worker in workers {
        let (requests, answers) =
            (number(&worker["received"]["request"]), number(&worker["sent"]["response"]));
        assert_eq!(requests, answers, "{worker}");
    }
    assert!(number(&worker["received"]["request"]) > 0, "{worker}");
    let received = |part: &Value, kind: &str| number(&part["received"][kind]);
    let broadcasts = number(&summary["broadcasts"]);
    assert!(broadcasts > 1);
    for listener in [worker, planner, monitor] {
        assert_eq!(received(listener, "broadcast"), broadcasts, "{listener}");
    }
    assert!((1..broadcasts).contains(&received(replacement, "broadcast")), "{replacement}");
    let direct = workers.map(|worker| received(worker, "direct"));
    assert!(direct.iter().all(|direct| *direct > 0), "{direct:?}");
    assert_eq!(
        direct.iter().sum::<u64>() + number(&summary["direct_unknown"]),
        number(&summary["direct"]),
        "{summary}"
    );
    assert_eq!(
        number(&summary["received"]["broadcast"]) + number(&summary["broadcasts_unknown"]),
        broadcasts * 4,
        "{summary}"
    );
    assert_eq!(number(&summary["deaths_seen"]), 1);
    let beats = received(monitor, "heartbeat");
    assert!((1..=number(&summary["sent"]["heartbeat"])).contains(&beats), "{summary}");

    for (direction, kinds) in [("sent", &summary["sent"]), ("received", &summary["received"])] {
        for kind in ["event", "request", "response", "direct", "broadcast", "heartbeat"] {
            let sum: u64 = parts.iter().map(|part| number(&part[direction][kind])).sum();
            assert_eq!(number(&kinds[kind]), sum, "{direction} {kind}");
        }
    }
    assert!(!place.bus_dir().exists(), "the demo has a bus of its own");
}

#[test]
fn an_interrupted_demo_still_gives_its_account() {
    let (mut demo, lines, children) = start_long_demo(&Place::new());
    demo.signal(Signal::SIGINT);
    let rest = lines.rest();
    assert!(demo.wait().success());
    assert!(rest.last().unwrap().ends_with("every subscriber got every message, in order"), "{rest:?}");
    for name in ["worker-1", "worker-2", "planner", "monitor"] {
        assert!(rest.iter().any(|line| line.starts_with(name)), "{name}: {rest:?}");
    }
    assert!(children.iter().all(|(pid, _)| has_ended(*pid)));
}

#[test]
fn a_process_that_dies_fails_the_demo_by_name() {
    for name in ["worker-2", "planner", "monitor"] {
        let (demo, _lines, children) = start_long_demo(&Place::new());
        let (victim, _) = children.iter().find(|(_, line)| line.contains(name)).unwrap();
        kill(Pid::from_raw(*victim), Signal::SIGKILL).unwrap();
        let output = demo.output();
        assert_eq!(output.status.code(), Some(1));
        let stderr = text(&output.stderr);
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.starts_with(&format!("error: {name} (pid {victim}) died unexpectedly")), "{stderr}");
        assert!(children.iter().all(|(pid, _)| has_ended(*pid)), "the others are taken along");
    }
}

#[test]
fn a_killed_demo_leaves_no_processes() {
    let (mut demo, _lines, children) = start_long_demo(&Place::new());
    // One that is stopped cannot see that its orders have ended.
    for (pid, _) in &children[..2] {
        kill(Pid::from_raw(*pid), Signal::SIGSTOP).unwrap();
    }
    demo.signal(Signal::SIGKILL);
    demo.wait();
    for (pid, line) in children {
        eventually(&format!("the end of {line}"), || has_ended(pid));
    }
}
