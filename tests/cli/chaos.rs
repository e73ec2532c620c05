//! `ringbus chaos`.

use super::demo::{children, has_ended};
use super::*;

fn number(summary: &Value, name: &str) -> u64 {
    summary[name].as_u64().unwrap_or_else(|| panic!("{name}: a number, in {summary}"))
}

#[test]
fn nothing_is_lost_whatever_is_done_to_the_processes() {
    let place = Place::new();
    let output = place.run(&["chaos", "--seconds", "5", "--seed", "7", "--json"]);
    let stdout = text(&output.stdout);
    assert_eq!(stdout.lines().count(), 1, "live lines go elsewhere: {stdout}");
    assert!(output.status.success(), "{stdout} {}", text(&output.stderr));
    let summary = json(&stdout);
    assert_eq!((number(&summary, "violations"), number(&summary, "seed")), (0, 7), "{summary}");
    for kind in ["kills", "published", "received", "answers", "deaths_told"] {
        assert!(number(&summary, kind) > 0, "{kind}: {summary}");
    }
    // Fewer, where this process has no processor for long.
    let done: u64 =
        ["kills", "stops", "restarts", "slowdowns"].iter().map(|kind| number(&summary, kind)).sum();
    assert!(done >= 5, "{summary}");
    let ended: u64 = ["answers", "unavailable", "not_found", "late", "exhausted"]
        .iter()
        .map(|end| number(&summary, end))
        .sum();
    assert!(number(&summary, "calls") >= ended, "{summary}");
    assert!(number(&summary, "processes") >= 10 + number(&summary, "kills"), "{summary}");
    assert!(!place.bus_dir().exists(), "it has a bus of its own");
}

#[test]
fn a_subscriber_that_tells_something_else_is_caught() {
    for (how, word) in [("drop", "lost"), ("reorder", "out of order"), ("duplicate", "twice")] {
        let output =
            Place::new().run(&["chaos", "--seconds", "2", "--seed", "7", "--json", "--sabotage", how]);
        assert_eq!(output.status.code(), Some(1), "{how}");
        let summary = json(&text(&output.stdout));
        let first = summary["first_violations"].as_array().expect("a list");
        let says = |violation: &Value| {
            let violation = violation.as_str().expect("text");
            violation.starts_with("subscriber-1 ") && violation.ends_with(word)
        };
        assert!(first.iter().any(says), "{how}: {summary}");
        assert!(number(&summary, "violations") >= first.len() as u64);
        let last = text(&output.stderr).lines().last().unwrap_or_default().to_owned();
        assert!(last.starts_with("error: ") && last.contains("violation"), "{how}: {last}");
    }
}

#[test]
fn an_interrupted_chaos_still_gives_its_account() {
    let mut chaos = Place::new().start(&["chaos", "--seconds", "600"]);
    let lines = chaos.lines();
    while !lines.next().starts_with("     2 ") {}
    let children = children(chaos.pid());
    chaos.signal(Signal::SIGINT);
    let rest = lines.rest();
    assert!(chaos.wait().success(), "{rest:?}");
    assert!(rest.last().expect("a line").starts_with("0 violations; seed "), "{rest:?}");
    assert!(!children.is_empty() && children.iter().all(|(pid, _)| has_ended(*pid)));
}

#[test]
fn a_killed_chaos_leaves_no_processes() {
    let mut chaos = Place::new().start(&["chaos", "--seconds", "600"]);
    let lines = chaos.lines();
    while !lines.next().starts_with("     1 ") {}
    let children = children(chaos.pid());
    chaos.signal(Signal::SIGKILL);
    chaos.wait();
    for (pid, line) in children {
        eventually(&format!("the end of {line}"), || has_ended(pid));
    }
}
