//! `ringbus send`, `ringbus inbox` and `ringbus broadcast`.

use nix::sys::signal::Signal;
use ringbus::Destination;

use super::*;

/// Whether a node with this role's port is there.
fn has_port(node: &Node, name: &str, role: &str) -> bool {
    let is_it =
        |peer: &ringbus::Peer| peer.name() == name && peer.ports().iter().any(|port| port.role == role);
    node.peers().iter().any(is_it)
}

#[test]
fn send_reaches_an_inbox_of_a_program() {
    let place = Place::new();
    let node = place.join("critic");
    let mut inbox = node.inbox::<Vec<u32>>().unwrap();
    place.succeed(&["send", "critic", "[1,2]", "--header", "k=v", "--header", "e="]);
    let message = inbox.recv_timeout(DEADLINE).unwrap().expect("the message");
    assert_eq!((&**message, message.source().name()), (&[1, 2][..], "ringbus-send"));
    assert_eq!(message.headers().iter().collect::<Vec<_>>(), [("k", "v"), ("e", "")]);
    assert_eq!(message.destination(), Destination::Node("critic"));
}

#[test]
fn values_of_stdin_are_sent_each_by_itself() {
    let place = Place::new();
    let node = place.join("critic");
    let (mut inbox, mut all) = (node.inbox::<u32>().unwrap(), node.broadcasts::<u32>().unwrap());
    assert!(place.feed(&["send", "critic", "-"], "1\n\n2").status.success());
    assert!(place.feed(&["broadcast", "-"], "3\n4\n").status.success());
    for expected in [1, 2] {
        assert_eq!(*inbox.recv_timeout(DEADLINE).unwrap().expect("a message"), expected);
    }
    for expected in [3, 4] {
        assert_eq!(*all.recv_timeout(DEADLINE).unwrap().expect("a broadcast"), expected);
    }
    let wrong = place.feed(&["send", "critic", "-"], "5\n[\n6\n");
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("line 2 of stdin"), "{}", text(&wrong.stderr));
    assert_eq!(*inbox.recv_timeout(DEADLINE).unwrap().expect("the line before"), 5);
    assert!(inbox.try_recv().unwrap().is_none());
}

#[test]
fn inbox_prints_what_programs_and_send_send() {
    let place = Place::new();
    let node = place.join("writer");
    let mut plain = place.start(&["inbox", "critic"]);
    let json_lines = place.start(&["inbox", "critic", "--json", "--count", "2"]);
    eventually("both inboxes", || node.peers().iter().filter(|peer| peer.ports().len() == 1).count() == 2);
    let draft = serde_json::json!({ "text": "é" });
    node.message_to("critic", &draft).header("a", "b").correlation("c").timestamp().send().unwrap();
    place.succeed(&["--name", "shell", "send", "critic", "three mice"]);

    let lines = plain.lines();
    // Of two senders, in any order.
    let mut printed = [lines.next(), lines.next()];
    printed.sort();
    assert_eq!(printed, [r#"shell "three mice""#, r#"writer {"text":"é"}"#]);
    plain.signal(Signal::SIGINT);
    assert_eq!(plain.wait().code(), Some(0));

    let output = json_lines.output();
    assert!(output.status.success() && output.stderr.is_empty());
    let lines: Vec<Value> = text(&output.stdout).lines().map(json).collect();
    let line = lines.iter().find(|line| line["source"]["name"] == "writer").expect("the writer's");
    let expected = (Some("@to/critic"), Some("c"), Some("b"), Some("é"));
    let found = [&line["topic"], &line["correlation"], &line["headers"]["a"], &line["value"]["text"]];
    assert_eq!(found.map(Value::as_str), [expected.0, expected.1, expected.2, expected.3]);
    assert!(line["time_ns"].as_u64().is_some_and(|time| time > 1_577_836_800_000_000_000), "{line}");
    let other = lines.iter().find(|line| line["source"]["name"] == "shell").expect("the shell's");
    assert!(other.get("time_ns").is_none() && other.get("correlation").is_none(), "{other}");
}

#[test]
fn broadcast_reaches_programs_and_sub() {
    let place = Place::new();
    let node = place.join("worker");
    let mut broadcasts = node.broadcasts::<String>().unwrap();
    let mut sub = place.start(&["sub", "--broadcasts", "t"]);
    eventually("the subscriber", || has_port(&node, "ringbus-sub", "subscriber"));
    place.succeed(&["broadcast", "stop", "--header", "k=v"]);
    let message = broadcasts.recv_timeout(DEADLINE).unwrap().expect("the broadcast");
    assert_eq!((message.as_str(), message.headers().get("k")), ("stop", Some("v")));
    let lines = sub.lines();
    assert_eq!(lines.next(), r#"@all "stop""#);
    place.succeed(&["pub", "t", "1", "--wait", "1"]);
    assert_eq!(lines.next(), "t 1");
}

#[test]
fn nobody_to_send_to_is_told_in_a_line() {
    let place = Place::new();
    let error = place.fail(&["send", "critic", "1"], 1);
    assert!(error.contains("no node named \"critic\" has an inbox"), "{error}");
    assert!(error.contains("`ringbus inbox critic`") && !error.contains("Node::"), "{error}");
    let output = place.run(&["broadcast", "1"]);
    assert!(output.status.success());
    assert!(text(&output.stderr).starts_with("note: nobody listens to broadcasts"));
    let _inbox = place.join("critic").raw_inbox().unwrap();
    for (args, code, said) in [
        (&["send", "a/b", "1"][..], 1, "a name is one level"),
        (&["send"], 2, "<NODE>"),
        (&["send", "critic", "{"], 1, "begins like JSON"),
        (&["send", "critic", "1", "--header", "@time=1"], 1, "reserved"),
        (&["broadcast", "1", "--header", "x"], 2, "KEY=VALUE"),
        (&["inbox"], 2, "<NAME>"),
        (&["inbox", "a/b"], 1, "node name"),
        (&["inbox", "a", "--name", "b"], 1, "leave --name out"),
    ] {
        let output = place.run(args);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.lines().last().is_some_and(|line| line.contains(said)), "{args:?}: {stderr}");
    }
}

#[test]
fn ls_shows_inboxes() {
    let place = Place::new();
    let node = place.join("critic");
    let _inbox = node.inbox::<u32>().unwrap();
    node.send("critic", &1).unwrap();
    let listing = json(&place.succeed(&["ls", "--json"]));
    let ports = listing["nodes"][0]["ports"].as_array().expect("ports");
    let named: Vec<_> = ports.iter().map(|port| (port["role"].as_str(), port["name"].as_str())).collect();
    assert_eq!(named, [(Some("inbox"), Some("@to/critic")), (Some("publisher"), Some("@to/critic"))]);
}
