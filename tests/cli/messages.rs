//! `ringbus pub` and `ringbus sub`.

use std::io::Write;

use nix::sys::signal::Signal;
use ringbus::{Overflow, RecvError};
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Progress {
    done: u32,
    share: f64,
    #[serde(default)]
    label: Option<String>,
}

/// A `sub` that is attached, by the word of a publisher on the same topic.
fn start_sub(place: &Place, node: &Node, args: &[&str], topic: &str) -> (Running, ringbus::RawPublisher) {
    let publisher = node.raw_publisher(topic).unwrap();
    let sub = place.start(&[&["sub"], args].concat());
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    (sub, publisher)
}

#[test]
fn pub_reaches_a_typed_subscriber() {
    let place = Place::new();
    let node = place.join("planner");
    let mut updates = node.subscriber::<Progress>("task/*").unwrap();
    place.succeed(&["pub", "task/progress", r#"{"share":2.0,"done":3}"#]);
    let update = updates.recv_timeout(DEADLINE).unwrap().expect("what was published");
    assert_eq!(*update, Progress { done: 3, share: 2.0, label: None });
    assert_eq!(
        (update.topic(), update.source().name(), update.sequence()),
        ("task/progress", "ringbus-pub", 0)
    );

    place.succeed(&["--name", "shell", "pub", "task/progress", r#"{"share":1}"#]);
    match updates.recv_timeout(DEADLINE) {
        Err(RecvError::Decode { reason, source_node, .. }) => {
            assert!(reason.contains("done"), "{reason}");
            assert_eq!(source_node.name(), "shell");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_message_of_each_of_many_short_processes_arrives() {
    let place = Place::new();
    let mut numbers = place.join("planner").subscriber::<u32>("number").unwrap();
    for number in 0..10 {
        place.succeed(&["pub", "number", &number.to_string()]);
    }
    // Each process has a log of its own, and logs are read in turn.
    let mut got: Vec<u32> =
        (0..10).map(|_| *numbers.recv_timeout(DEADLINE).unwrap().expect("every message")).collect();
    got.sort();
    assert_eq!(got, (0..10).collect::<Vec<u32>>());
}

#[test]
fn sub_shows_what_the_library_publishes() {
    let place = Place::new();
    let node = place.join("worker");
    let mut progress = node.publisher::<Progress>("task/7/progress").unwrap();
    let sub = place.start(&["sub", "other", "task/*/progress", "--json", "--count", "2"]);
    progress.wait_for_subscribers(1, DEADLINE).unwrap();
    progress.publish(&Progress { done: 1, share: 0.5, label: None }).unwrap();
    let last = Progress { done: 2, share: 1.0, label: Some("é".into()) };
    progress.message(&last).header("trace", "1=2").header("a", "b").send().unwrap();

    let output = sub.output();
    assert!(output.status.success() && output.stderr.is_empty());
    let lines: Vec<Value> = text(&output.stdout).lines().map(json).collect();
    let info = node.info();
    let source = serde_json::json!({ "name": "worker", "id": info.id().to_string(), "pid": info.pid() });
    assert_eq!(
        lines[0],
        serde_json::json!({
            "topic": "task/7/progress", "source": source, "sequence": 0, "headers": {},
            "value": { "done": 1, "share": 0.5, "label": null },
        })
    );
    assert_eq!(lines[1]["headers"], serde_json::json!({ "trace": "1=2", "a": "b" }));
    assert_eq!(lines[1]["sequence"], 1);
    assert_eq!(lines[1]["value"], serde_json::json!({ "done": 2, "share": 1.0, "label": "é" }));
    assert_eq!(lines.len(), 2);
}

#[test]
fn values_from_stdin_arrive_as_they_were_with_headers() {
    let values = [
        "null",
        "true",
        "-3",
        "18446744073709551615",
        "2.0",
        r#""a \"b\"""#,
        r#"{"b":[1,2.5],"a":{}}"#,
        r#"{"$bin":"AAEC/w=="}"#,
        r#"{"$ext":[5,"AA=="]}"#,
        r#"{"$map":[[1,"one"],[[2],null]]}"#,
        r#"{"$float":"NaN"}"#,
    ];
    let place = Place::new();
    let count = values.len().to_string();
    let sub = place.start(&["sub", "**", "--json", "--count", &count]);
    let mut publish =
        place.command(&["pub", "some/topic", "-", "--wait", "1", "--header", "k=v", "--header", "e="]);
    let mut publish = publish.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = publish.stdin.take().unwrap();
    stdin
        .write_all(format!("{}\n\n{}", values[..5].join("\r\n"), values[5..].join("\n")).as_bytes())
        .unwrap();
    drop(stdin);
    let published = publish.wait_with_output().unwrap();
    assert!(published.status.success(), "{}", text(&published.stderr));

    let output = sub.output();
    assert!(output.status.success() && output.stderr.is_empty());
    let stdout = text(&output.stdout);
    for (at, (line, value)) in stdout.lines().zip(values).enumerate() {
        // As text: that would tell a float from an integer.
        assert!(
            line.ends_with(&format!(r#""sequence":{at},"headers":{{"k":"v","e":""}},"value":{value}}}"#)),
            "{line}"
        );
    }
    assert_eq!(stdout.lines().count(), values.len());
}

#[test]
fn values_of_the_command_line_are_json_or_text_or_nothing() {
    let place = Place::new();
    let node = place.join("listener");
    let (mut sub, _publisher) = start_sub(&place, &node, &["v"], "v");
    let lines = sub.lines();
    for (args, shown) in [
        (&["3"][..], "v 3"),
        (&["-3.5"], "v -3.5"),
        (&["three mice"], r#"v "three mice""#),
        (&["--text", "3"], r#"v "3""#),
        (&[r#"[1,"x"]"#], r#"v [1,"x"]"#),
        (&[], "v null"),
    ] {
        place.succeed(&[&["pub", "v"], args].concat());
        assert_eq!(lines.next(), shown);
    }
}

#[test]
fn raw_payloads_are_shown_as_text_if_they_can_be() {
    let place = Place::new();
    let node = place.join("camera");
    let (mut sub, mut publisher) = start_sub(&place, &node, &["raw"], "raw");
    publisher.publish("grüezi\n".as_bytes()).unwrap();
    publisher.publish(&[0, 255]).unwrap();
    publisher.publish(&[]).unwrap();
    let lines = sub.lines();
    assert_eq!(
        [lines.next(), lines.next(), lines.next()],
        [r#"raw "grüezi\n""#, r#"raw {"$raw":"AP8="}"#, r#"raw """#]
    );
}

#[test]
fn what_a_terminal_obeys_in_a_peers_message_is_escaped() {
    let place = Place::new();
    let node = place.join("\u{202e}live");
    let (topic, value) = ("a\u{2066}b", "\u{9b}31m\u{7f}\u{1b}\u{2028}é");
    for (args, expected) in [
        (&[topic][..], r#"a\u{2066}b "\u009b31m\u007f\u001b\u2028é""#),
        (&[topic, "--json"], r#"{"topic":"a\u2066b","source":{"name":"\u202elive","#),
    ] {
        let (mut sub, mut raw) = start_sub(&place, &node, args, topic);
        let mut typed = node.publisher::<str>(topic).unwrap();
        typed.wait_for_subscribers(1, DEADLINE).unwrap();
        let lines = sub.lines();
        raw.publish(value.as_bytes()).unwrap();
        let line = lines.next();
        assert!(line.starts_with(expected), "{line:?}");
        typed.message(value).header("k\u{9c}", "\u{200f}").send().unwrap();
        let line = lines.next();
        assert!(line.starts_with(expected), "{line:?}");
        if args.len() > 1 {
            let line = json(&line);
            assert_eq!((&line["value"], &line["topic"]), (&value.into(), &topic.into()));
            assert_eq!(line["headers"]["k\u{9c}"], "\u{200f}");
        }
    }
    let mut sub = place.start(&["inbox", "critic"]);
    eventually("the inbox", || node.peers().iter().any(|peer| !peer.ports().is_empty()));
    node.send("critic", "\u{85}").unwrap();
    assert_eq!(sub.lines().next(), r#"\u{202e}live "\u0085""#);
    assert!(place.succeed(&["ls"]).contains(r"\u{202e}live"));
}

#[test]
fn a_value_is_repeated_at_a_rate() {
    let place = Place::new();
    let sub = place.start(&["sub", "tick", "--count", "6"]);
    let start = Instant::now();
    place.succeed(&["pub", "tick", "1", "--wait", "1", "--count", "6", "--rate", "20"]);
    assert!(start.elapsed() >= Duration::from_millis(250), "five pauses of 50 ms: {:?}", start.elapsed());
    assert_eq!(text(&sub.output().stdout), "tick 1\n".repeat(6));
}

#[test]
fn a_large_value_is_published() {
    let place = Place::new();
    let mut texts = place.join("reader").subscriber::<String>("large").unwrap();
    let large = "x".repeat(100_000);
    place.succeed(&["pub", "large", &large]);
    assert_eq!(*texts.recv_timeout(DEADLINE).unwrap().expect("the message"), large);
    place.succeed(&["pub", "large", &large, "--capacity", "4K"]);
    assert_eq!(*texts.recv_timeout(DEADLINE).unwrap().expect("the message"), large);
}

#[test]
fn what_to_do_with_a_value_that_is_too_large_is_told_in_the_words_of_the_command() {
    let place = Place::new();
    let node = place.join("critic");
    let _inbox = node.raw_inbox().unwrap();
    let _server = node.service("svc").raw_method("raw", |_, _| Ok(vec![1])).spawn().unwrap();
    let line = "x".repeat(70_000_000);
    for (args, said) in [
        (&["pub", "t", "-", "--text"][..], "`ringbus pub` sends at most "),
        (&["send", "critic", "-", "--text"], "can be sent: send it in pieces"),
        (&["broadcast", "-", "--text"], "can be sent: send it in pieces"),
        (&["call", "svc", "raw", "-", "--text"], "can be sent: send it in pieces"),
    ] {
        let output = feed(place.command(args), &line);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {error}");
        assert!(error.contains(said) && !error.contains("max_message"), "{args:?}: {error}");
    }
    let error = place.fail(&["call", "svc", "raw"], 1);
    assert!(error.contains("not MessagePack: it takes a program"), "{error}");
}

#[test]
fn waiting_for_subscribers_ends_in_time() {
    let place = Place::new();
    let start = Instant::now();
    let error = place.fail(&["pub", "t", "1", "--wait", "2", "--timeout", "0.3"], 1);
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert!(error.starts_with("error: 0 of 2 subscribers after 300ms"), "{error}");
}

#[test]
fn nobody_to_publish_to_is_noted() {
    let output = Place::new().run(&["pub", "lonely", "1"]);
    assert!(output.status.success());
    assert!(text(&output.stderr).starts_with("note: nobody subscribed to lonely"));
}

#[test]
fn mistakes_are_told_in_a_line() {
    let place = Place::new();
    let file = place.dir().join("file");
    std::fs::write(&file, "").unwrap();
    let below_a_file = file.join("below").display().to_string();
    for (args, code, said) in [
        (&["pub", "a//b", "1"][..], 1, "empty level"),
        (&["pub", "task/*", "1"], 1, "wildcard"),
        (&["pub", "@all", "1"], 1, "reserved"),
        (&["pub", "t", r#"{"done":3"#], 1, "begins like JSON"),
        (&["pub", "t", "123456789012345678901234567890"], 1, "an integer is from"),
        (&["pub", "t", "1", "--header", "x"], 2, "KEY=VALUE"),
        (&["pub", "t", "1", "--rate", "0"], 2, "above 0"),
        (&["pub", "t", "1", "--count", "0"], 2, "--count"),
        (&["pub", "t", "1", "--capacity", "1000"], 2, "capacity 1000 is not a power of two from 4 KiB"),
        (&["pub", "t", "1", "--capacity", "64X"], 2, "such as 65536, 64K, 1M"),
        (&["pub", "t", "1", "--capacity", "-1K"], 2, "such as 65536, 64K, 1M"),
        (&["sub", "t", "--buffer", "1.5M"], 2, "such as 65536, 64K, 1M"),
        (&["pub", "t", "1", "--name", "a/b"], 1, "node name"),
        (&["pub"], 2, "not provided: <TOPIC> ("),
        (
            &["pub", "t", "--txt"],
            2,
            "unexpected argument '--txt' found; a similar argument exists: '--text' (",
        ),
        (&["pub", "t", "1", "--timeout", "-3"], 2, "'-3' for '--timeout <TIME>': a time is wanted"),
        (&["pub", "t", "1", "--timeout", "-3s"], 2, "'-3s' for '--timeout <TIME>': a time is wanted"),
        (&["pub", "t", "1", "--rate", "-1.5"], 2, "'-1.5' for '--rate <HZ>': a number of messages"),
        (&["pub", "t", "1", "--wait", "-1"], 2, "'-1' for '--wait <N>': a whole number"),
        (&["sub", "t", "--count", "-1"], 2, "'-1' for '--count <N>': a whole number"),
        (&["sub", "t", "--count", "--json"], 2, "a value is required for '--count <N>'"),
        (&["sub", "a/b*"], 1, "'*'"),
        (&["sub", "a", ""], 1, "is empty"),
        (&["sub"], 2, "<FILTER>"),
        (&["sub", "t", "--bus", "../other"], 1, "bus name"),
        (&["sub", "t", "--dir", &below_a_file], 1, "cannot create"),
        (&["sub", "t", "--group", "no-such-group-here"], 1, "getent group"),
        (&["sub", "t", "--allow", "publish a to everybody"], 2, "is no rule"),
        (&["sub", "t", "--allow", "publish a to uid 1"], 1, "--group"),
        (&["ls", "--allow", "publish a to uid 1"], 1, "--group"),
        (&["doctor", "--allow", "publish a to uid 1"], 1, "--group"),
        (&["sub", "t", "--access", "/nowhere/at/all"], 2, "cannot read access list"),
        (&["sub", "t", "--group", "0", "--allow", "call a to gid no-such-group-here"], 1, "getent group"),
        (&["ls", "--bus", "a b"], 1, "bus name"),
        (&["demo", "--seconds", "0"], 2, "--seconds"),
        (&["lst"], 2, "lst"),
    ] {
        let error = place.fail(args, code);
        assert!(error.contains(said), "{args:?}: {error}");
    }
}

#[test]
fn what_stdin_gets_wrong_is_told_with_its_line() {
    let place = Place::new();
    let mut command = place.command(&["pub", "t", "-"]);
    let mut publish = command.stdin(Stdio::piped()).spawn().unwrap();
    publish.stdin.take().unwrap().write_all(b"1\n{2\n").unwrap();
    let output = publish.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("error: line 2 of stdin: {2 begins like JSON"));
}

#[test]
fn an_interrupted_sub_leaves_the_bus() {
    let place = Place::new();
    let node = place.join("listener");
    for (args, code) in [(&["t"][..], 0), (&["t", "--count", "5"], 130)] {
        let (mut sub, mut publisher) = start_sub(&place, &node, args, "t");
        publisher.publish(b"one").unwrap();
        let lines = sub.lines();
        assert_eq!(lines.next(), "t \"one\"");
        sub.signal(Signal::SIGINT);
        let output = sub.output();
        assert_eq!(output.status.code(), Some(code));
        assert_eq!(text(&output.stderr), "");
        assert!(lines.rest().is_empty());
        eventually("its goodbye", || node.peers().is_empty());
        assert_eq!(std::fs::read_dir(place.bus_dir()).unwrap().count(), 1, "its socket is gone");
    }
}

#[test]
fn an_interrupted_pub_leaves_the_bus() {
    let place = Place::new();
    let node = place.join("listener");
    for args in [
        &["pub", "t", "1", "--wait", "1"][..],
        &["pub", "t", "1", "--rate", "0.001", "--count", "9"],
        &["pub", "t", "-"],
    ] {
        let mut command = place.command(args);
        command.stdin(Stdio::piped()); // and nothing comes
        let mut publish = Running::start(command);
        let _stdin = publish.child.stdin.take();
        eventually("it to join", || node.peers().iter().any(|peer| !peer.ports().is_empty()));
        publish.signal(Signal::SIGTERM);
        assert_eq!(publish.wait().code(), Some(143), "{args:?}");
        eventually("its goodbye", || node.peers().is_empty());
    }
}

#[test]
fn an_interrupted_pub_waits_a_moment_for_subscribers_that_are_behind() {
    let place = Place::new();
    let node = place.join("listener");
    for reads in [true, false] {
        let mut subscriber = node.subscriber::<u32>("t").unwrap();
        let mut command = place.command(&["pub", "t", "-"]);
        command.stdin(Stdio::piped());
        let mut publish = Running::start(command);
        let mut stdin = publish.child.stdin.take().unwrap();
        stdin.write_all(b"1\n2\n3\n").unwrap();
        eventually("all to be published", || {
            let stats = node.survey(Duration::from_millis(200));
            stats
                .iter()
                .any(|stats| stats.ports.iter().any(|port| port.name == "t" && port.stats.messages == 3))
        });
        publish.signal(Signal::SIGINT);
        if reads {
            for expected in [1, 2, 3] {
                assert!(publish.child.try_wait().unwrap().is_none(), "before {expected} is read");
                assert_eq!(*subscriber.recv().unwrap(), expected);
            }
            assert!(
                subscriber.try_recv().unwrap().is_none(),
                "it looks once more, and so tells that it has read"
            );
        }
        let output = publish.output();
        assert_eq!(output.status.code(), Some(130));
        let stderr = text(&output.stderr);
        let said = stderr.contains("something undone: listener (pid ")
            && stderr.contains("of t, or not told so yet\n");
        assert!(if reads { stderr.is_empty() } else { said }, "{stderr}");
        eventually("its goodbye", || node.peers().is_empty());
    }
}

#[test]
fn sub_ends_quietly_with_the_reader_of_its_stdout() {
    let place = Place::new();
    let node = place.join("listener");
    let (mut sub, _publisher) = start_sub(&place, &node, &["t"], "t");
    drop(sub.stdout.take()); // and no message comes
    let output = sub.output();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[test]
fn what_a_publisher_dropped_is_told_and_sub_goes_on() {
    let place = Place::new();
    let node = place.join("sensor");
    let builder = node.publisher_builder("t").capacity(4096).overflow(Overflow::DropNewest);
    let mut publisher = builder.open::<u32>().unwrap();
    let mut sub = place.start(&["sub", "t"]);
    let (lines, errors) = (sub.lines(), sub.errors());
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    sub.signal(Signal::SIGSTOP);
    for number in 0..1000 {
        publisher.publish(&number).unwrap();
    }
    let dropped = publisher.stats().dropped;
    assert!(dropped > 0);
    sub.signal(Signal::SIGCONT);
    let error = errors.next();
    assert!(error.contains(&format!("missed {dropped} messages of sensor")), "{error}");
    for number in 0..1000 - dropped {
        assert_eq!(lines.next(), format!("t {number}"));
    }
    // A reader that was stopped while it was attached may have read before its publisher knows where it says so.
    eventually("there is room again", || publisher.stats().lag == 0);
    publisher.publish(&1000).unwrap();
    assert_eq!(lines.next(), "t 1000");
}

#[test]
fn the_overflow_policy_of_pub_is_what_was_asked_for() {
    let place = Place::new();
    let _unread = place.join("sleeper").raw_subscriber("t").unwrap();
    let publish = |policy: &str| {
        place.run(&[
            "pub",
            "--wait",
            "1",
            "--count",
            "1000",
            "--capacity",
            "4096",
            "--overflow",
            policy,
            "t",
            "0",
        ])
    };

    let failed = publish("fail");
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("does not read"), "{}", text(&failed.stderr));
    let dropped = publish("drop");
    assert!(dropped.status.success());
    assert!(text(&dropped.stderr).starts_with("note: dropped "), "{}", text(&dropped.stderr));
    let evicted = publish("evict:50ms");
    assert!(evicted.status.success());
    assert!(text(&evicted.stderr).contains("note: cut off 1 subscriber"), "{}", text(&evicted.stderr));
    assert!(place.fail(&["pub", "t", "--overflow", "evict"], 2).contains("evict:500ms"));

    // Whoever looks is told of evictions, too.
    let mut command = place.command(&[
        "pub",
        "--wait",
        "1",
        "--rate",
        "2000",
        "--count",
        "1000000000",
        "--capacity",
        "4096",
    ]);
    command.args(["--overflow", "evict:50ms", "t", "0"]);
    let _publisher = Running::start(command);
    eventually("an eviction in ls", || {
        let listing = json(&place.succeed(&["ls", "--json"]));
        let ports =
            listing["nodes"].as_array().unwrap().iter().flat_map(|node| node["ports"].as_array().unwrap());
        ports.into_iter().any(|port| port["role"] == "publisher" && port["evicted"] == 1)
    });
}
