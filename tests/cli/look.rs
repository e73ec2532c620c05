//! `ringbus ls` and `ringbus doctor`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::sys::signal::Signal;

use super::*;

/// The one node that `ls` lists.
#[track_caller]
fn only_node(listing: &Value) -> &Value {
    assert_eq!(listing["nodes"].as_array().map(Vec::len), Some(1), "{listing}");
    &listing["nodes"][0]
}

#[test]
fn ls_lists_nodes_and_ports_with_rates() {
    let place = Place::new();
    let node = place.join("worker");
    let mut progress = node.publisher::<u32>("task/1/progress").unwrap();
    let sub = place.start(&["--name", "viewer", "sub", "--lossy", "task/**", "other/*"]);
    progress.wait_for_subscribers(1, DEADLINE).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let until = over.clone();
    let publishing = thread::spawn(move || {
        let mut number = 0;
        while !until.load(Relaxed) {
            progress.publish(&number).unwrap();
            number += 1;
            thread::sleep(Duration::from_millis(1));
        }
        progress
    });
    let listing = json(&place.succeed(&["ls", "--json"]));
    let text = place.succeed(&["ls"]);
    over.store(true, Relaxed);
    let _open = publishing.join().unwrap();

    assert_eq!((&listing["bus"], &listing["other_buses"]), (&"default".into(), &serde_json::json!([])));
    let nodes = listing["nodes"].as_array().unwrap();
    let names: Vec<_> = nodes.iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["viewer", "worker"], "sorted, and without ls itself");
    let (viewer, worker) = (&nodes[0], &nodes[1]);
    assert_eq!(worker["id"], node.info().id().to_string());
    assert_eq!((&worker["pid"], &viewer["pid"]), (&std::process::id().into(), &sub.pid().into()));
    assert_eq!(worker["uid"], node.info().uid());
    assert!(worker["uptime_s"].as_f64().unwrap() > 0.0);
    for (node, role, name) in
        [(worker, "publisher", "task/1/progress"), (viewer, "subscriber", "task/** other/*")]
    {
        assert_eq!(node["answers"], true);
        assert_eq!(node["ports"].as_array().unwrap().len(), 1);
        let port = &node["ports"][0];
        assert_eq!((&port["role"], &port["name"]), (&role.into(), &name.into()));
        assert_eq!(port["lossy"], role == "subscriber");
        assert_eq!((&port["peers"], &port["dropped"]), (&1.into(), &0.into()));
        for counted in ["messages", "bytes", "rate"] {
            assert!(port[counted].as_f64().unwrap() > 0.0, "{counted}: {port}");
        }
        assert!(port["lag"].is_u64() && port["blocked_ms"].is_u64() && port["id"].is_u64(), "{port}");
    }
    for part in [
        "2 nodes on bus default",
        "worker  pid",
        "viewer  pid",
        "task/1/progress",
        "lossy subscriber  task/** other/*",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn ls_names_other_buses_where_nobody_is() {
    let place = Place::new();
    let _node = place.join("worker");
    let text = place.succeed(&["ls", "--bus", "typo"]);
    assert!(text.starts_with("nobody is on bus typo"), "{text}");
    assert!(text.contains("other buses there: default"), "{text}");
    let listing = json(&place.succeed(&["--bus", "typo", "ls", "--json"]));
    assert_eq!(
        (&listing["nodes"], &listing["other_buses"]),
        (&serde_json::json!([]), &serde_json::json!(["default"]))
    );
    assert!(!place.dir().join("typo").exists(), "looking for a bus does not make one");
}

#[test]
fn ls_tells_of_a_node_that_is_stopped() {
    let place = Place::new();
    let node = place.join("worker");
    let publisher = node.raw_publisher("t").unwrap();
    let sub = place.start(&["sub", "t"]);
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    let id = node.peers()[0].id().to_string();
    sub.signal(Signal::SIGSTOP);
    let listing = json(&place.succeed(&["ls", "--json"]));
    assert_eq!(only_node(&listing)["name"], "worker");
    assert_eq!(listing["silent"], serde_json::json!([id]));
    let text = place.succeed(&["ls"]);
    let line =
        format!("node {}, pid {}, ringbus does not answer: its process is stopped\n", &id[..8], sub.pid());
    assert!(text.contains(&line), "{text}");
}

#[test]
fn whoever_is_missed_because_it_is_stopped_is_named() {
    let place = Place::new();
    let node = place.join("worker");
    let publisher = node.raw_publisher("t").unwrap();
    let sub = place.start(&["sub", "t"]);
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    sub.signal(Signal::SIGSTOP);
    let named = format!(", pid {}, ringbus does not answer: its process is stopped\n", sub.pid());
    let said = place.run(&["pub", "u", "1"]);
    assert!(said.status.success());
    let said = text(&said.stderr);
    assert!(said.contains("nobody subscribed to u") && said.contains(&named), "{said}");
    for asks in [&["call", "echo", "echo", "1"][..], &["send", "crit", "1"]] {
        let output = place.run(asks);
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(said.contains(&named) && said.contains("error: "), "{said}");
    }
}

#[test]
fn an_empty_name_of_a_bus_is_a_mistake() {
    let said = Place::new().fail(&["ls", "--bus", ""], 2);
    assert!(said.contains("--bus"), "{said}");
}

#[test]
fn the_environment_names_the_default_bus() {
    let place = Place::new();
    let bus = Bus::builder("agents").dir(place.dir()).open().unwrap();
    let _node = bus.join("worker").unwrap();
    let mut command = place.command(&["ls", "--json"]);
    command.env("RINGBUS_BUS", "agents");
    let listing = json(&text(&Running::start(command).output().stdout));
    assert_eq!((&listing["bus"], &only_node(&listing)["name"]), (&"agents".into(), &"worker".into()));
}

#[test]
fn doctor_finds_a_healthy_bus_healthy() {
    let place = Place::new();
    place.succeed(&["doctor"]);
    assert!(!place.bus_dir().exists(), "it creates nothing");
    let _node = place.join("worker");
    let text = place.succeed(&["doctor"]);
    assert!(!text.contains("FAIL") && text.contains("1 node\n"), "{text}");
    let diagnosis = json(&place.succeed(&["doctor", "--json"]));
    assert_eq!(diagnosis["ok"], true);
    let checks = diagnosis["checks"].as_array().unwrap();
    for name in
        ["sealed memory", "wake-ups", "process handles", "barriers", "open files", "directory", "sockets"]
    {
        let check = checks.iter().find(|check| check["check"] == name).unwrap_or_else(|| panic!("{name}"));
        assert_ne!(check["status"], "fail", "{check}");
    }
}

#[test]
fn doctor_fails_on_a_directory_that_others_can_reach() {
    let place = Place::new();
    drop(place.join("worker"));
    fs::set_permissions(place.bus_dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let output = place.run(&["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(stdout.contains("FAIL  directory") && stdout.contains("run `chmod 0700`"), "{stdout}");
    assert!(stderr.starts_with("error: 1 of ") && stderr.lines().count() == 1, "{stderr}");
    let mode = fs::metadata(place.bus_dir()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o777, "it changes nothing");
    assert!(place.fail(&["sub", "t"], 1).contains("chmod 0700"));
}

#[test]
fn doctor_tells_of_sockets_of_the_dead_and_leaves_them() {
    let place = Place::new();
    let mut sub = place.start(&["sub", "t"]);
    eventually("its socket", || {
        fs::read_dir(place.bus_dir()).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.file_name().to_string_lossy().ends_with(".sock"))
        })
    });
    sub.signal(Signal::SIGKILL);
    sub.wait();
    for _ in 0..2 {
        let text = place.succeed(&["doctor"]);
        assert!(text.contains("0 nodes, 1 left by dead processes: "), "{text}");
        assert!(text.contains("the next node that joins removes them"), "{text}");
    }
    place.succeed(&["ls"]);
    assert!(place.succeed(&["doctor"]).contains("0 nodes\n"));
}

#[test]
fn doctor_tells_of_a_path_that_is_too_long() {
    let place = Place::new();
    let bus = "b".repeat(100);
    let output = place.run(&["doctor", "--bus", &bus]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("a socket needs a path of at most"));
}

#[test]
fn what_is_no_nodes_socket_is_told_by_doctor_alone() {
    let place = Place::new();
    let _node = place.join("worker");
    fs::write(place.bus_dir().join(format!("{}.sock", "1".repeat(32))), "").unwrap();
    let _unbound = std::os::unix::net::UnixListener::bind(place.bus_dir().join("Z.sock")).unwrap();
    let listing = json(&place.succeed(&["ls", "--json"]));
    assert_eq!(listing["silent"], serde_json::json!([]));
    assert!(place.succeed(&["doctor"]).contains("2 that are not of the bus: "));
}
