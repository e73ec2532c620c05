//! `ringbus watch`.

use nix::sys::signal::Signal;

use super::*;

#[test]
fn watch_tells_who_comes_and_goes_as_json_until_interrupted() {
    let place = Place::new();
    let node = place.join("worker");
    let _ports = (node.raw_publisher("task/1").unwrap(), {
        let builder = node.subscriber_builder("a/*");
        builder.filter("b").open_raw().unwrap()
    });
    let mut watch = place.start(&["watch", "--json"]);
    let lines = watch.lines();
    let line = json(&lines.next());
    let me = |pid: u32| serde_json::json!({"id": node.info().id().to_string(), "name": "worker", "pid": pid, "uid": node.info().uid()});
    let expected = serde_json::json!({
        "change": "joined",
        "node": me(std::process::id()),
        "why": null,
        "ports": [
            {"id": 1, "role": "publisher", "name": "task/1"},
            {"id": 2, "role": "subscriber", "name": "a/* b"},
        ],
    });
    assert_eq!(line, expected);

    drop(place.join("passes"));
    for (change, why) in [("joined", Value::Null), ("left", "goodbye".into())] {
        let line = json(&lines.next());
        assert_eq!(
            (&line["change"], &line["node"]["name"], &line["why"]),
            (&change.into(), &"passes".into(), &why)
        );
    }
    let sub = place.start(&["--name", "victim", "sub", "t"]);
    assert_eq!(json(&lines.next())["node"]["pid"], sub.pid());
    sub.signal(Signal::SIGSTOP);
    assert_eq!(json(&lines.next())["change"], "stalled");
    sub.signal(Signal::SIGCONT);
    assert_eq!(json(&lines.next())["change"], "recovered");
    sub.signal(Signal::SIGKILL);
    let line = json(&lines.next());
    assert_eq!((&line["change"], &line["why"]), (&"left".into(), &"died".into()));

    watch.signal(Signal::SIGINT);
    assert!(watch.wait().success());
    assert!(lines.rest().is_empty());
    eventually("its goodbye", || node.peers().is_empty());
}

#[test]
fn watch_prints_a_line_a_change() {
    let place = Place::new();
    let node = place.join("worker");
    let port = node.raw_publisher("task/1").unwrap();
    let mut watch = place.start(&["watch"]);
    let lines = watch.lines();
    let line = lines.next();
    assert!(line.starts_with("joined     worker  pid "), "{line}");
    let id = node.info().id().to_string();
    assert!(line.ends_with(&format!("node {}: publisher task/1", &id[..8])), "{line}");
    drop((port, node));
    let line = lines.next();
    assert!(line.starts_with("left       worker") && line.ends_with(": said goodbye"), "{line}");
    watch.signal(Signal::SIGTERM);
    assert!(watch.wait().success());
}

#[test]
fn watch_ends_when_its_output_is_no_longer_read() {
    let place = Place::new();
    let _node = place.join("worker");
    let mut watch = place.start(&["watch"]);
    let lines = watch.lines();
    lines.next();
    drop(lines);
    // Whether it notices by itself or at the next line.
    drop(place.join("passes"));
    assert!(watch.wait().success());
}

#[test]
fn watch_can_be_interrupted_while_its_output_is_not_read() {
    let place = Place::new();
    let node = place.join("worker");
    let mut watch = place.start(&["watch"]);
    eventually("it watches", || !node.peers().is_empty());
    // Far more than a pipe holds.
    for _ in 0..1000 {
        drop(place.join("passes"));
    }
    watch.signal(Signal::SIGINT);
    assert!(watch.wait().success());
}
