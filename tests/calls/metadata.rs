//! What goes along with requests and answers, and what others see of clients and servers.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ringbus::{Code, Pending, Response};

use crate::servant::{self, SERVICE, client_of, start, works};
use crate::support::{DEADLINE, Dir, eventually};

#[test]
fn headers_correlation_and_time_go_both_ways() {
    type Seen = (Vec<(String, String)>, Option<String>, Option<SystemTime>, String, u64, u8);
    let dir = Dir::new();
    let node = dir.join("server");
    let server = node
        .service("meta")
        .priority(9)
        .method("look", |context, ()| {
            context.header("first", "1");
            context.header("second", "");
            assert_eq!((context.service(), context.method()), ("meta", "look"));
            let headers: Vec<_> =
                context.headers().iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            let correlation = context.correlation().map(str::to_owned);
            let peer = context.peer().name().to_owned();
            let seen: Seen =
                (headers, correlation, context.timestamp(), peer, context.id(), context.priority());
            Ok(seen)
        })
        .spawn()
        .unwrap();
    let other = dir.join("client");
    let client = other.client_builder("meta").priority(7).open().unwrap();
    let before = SystemTime::now();
    let call: Pending<Response<Seen>> = client
        .request("look")
        .header("a", "1")
        .header("a", "é")
        .correlation("task/42")
        .timestamp()
        .start(&())
        .unwrap();
    let id = call.id();
    let answer = call.wait().unwrap();
    let (headers, correlation, time, peer, seen_id, priority) = &*answer;
    assert_eq!(*headers, [("a", "1"), ("a", "é")].map(|(key, value)| (key.to_owned(), value.to_owned())));
    assert_eq!(correlation.as_deref(), Some("task/42"));
    assert!(time.is_some_and(|time| time >= before && time <= SystemTime::now()));
    assert_eq!((&**peer, *seen_id, *priority), ("client", id, 7));
    assert_eq!((answer.id(), answer.source().id(), answer.priority()), (id, node.info().id(), 9));
    assert_eq!(answer.destination(), other.info());
    assert_eq!((answer.correlation(), answer.timestamp()), (Some("task/42"), None));
    assert_eq!(answer.headers().iter().collect::<Vec<_>>(), [("first", "1"), ("second", "")]);
    let plain: Response<Seen> = client.request("look").send(&()).unwrap();
    assert!(plain.0.is_empty() && plain.1.is_none() && plain.2.is_none() && plain.4 != id);
    assert_eq!(plain.correlation(), None);
    drop(server);
}

#[test]
fn answers_of_each_kind_say_what_they_belong_to_and_when_they_were_written() {
    let dir = Dir::new();
    let node = dir.join("server");
    let server = node
        .service("stamped")
        .timestamps()
        .method("typed", |context, ()| {
            context.header("own", "1");
            Ok(())
        })
        .raw_method("owned", |_, _| Ok(vec![1]))
        .raw_method("lent", |context, _| context.loan(1))
        .raw_method("full", |context, _| {
            (0..62).for_each(|n| context.header(n.to_string(), ""));
            Ok(vec![])
        })
        .raw_method("overfull", |context, _| {
            (0..63).for_each(|n| context.header(n.to_string(), ""));
            Ok(vec![])
        })
        .spawn()
        .unwrap();
    let client = dir.join("client").client("stamped").unwrap();
    let before = SystemTime::now();
    let is_stamped = |time: Option<SystemTime>| time.is_some_and(|t| t >= before && t <= SystemTime::now());
    let typed: Response<()> = client.request("typed").correlation("é").send(&()).unwrap();
    assert!(typed.correlation() == Some("é") && is_stamped(typed.timestamp()));
    assert_eq!(typed.headers().iter().collect::<Vec<_>>(), [("own", "1")]);
    for (method, headers) in [("owned", 0), ("lent", 0), ("full", 62)] {
        let answer = client.request(method).correlation("c").send_raw(&[]).unwrap();
        assert!(answer.correlation() == Some("c") && is_stamped(answer.timestamp()), "{method}");
        assert_eq!(answer.headers().len(), headers);
        let plain = client.request(method).send_raw(&[]).unwrap();
        assert!(plain.correlation().is_none() && is_stamped(plain.timestamp()), "{method}");
    }
    assert!(client.request("overfull").send_raw(&[]).is_ok());
    let status = client.request("overfull").correlation("one too many").send_raw(&[]).unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    drop(server);
}

#[test]
fn large_headers_fit_beside_large_payloads() {
    let dir = Dir::new();
    let node = dir.join("server");
    let server = node
        .service("large")
        .raw_method("mirror", |context, bytes| {
            let headers: Vec<(String, String)> =
                context.headers().iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            headers.into_iter().for_each(|(key, value)| context.header(key, value));
            Ok(bytes.to_vec())
        })
        .spawn()
        .unwrap();
    let client = node.client("large").unwrap();
    for len in [10, 250, 255, 256, 257, 1000, 4000, 15_000] {
        let value = "v".repeat(len);
        let answer = client.request("mirror").header("key", &value).send_raw(&[7; 100]).unwrap();
        assert_eq!((answer.headers().get("key"), &*answer), (Some(&*value), &[7; 100][..]));
    }
    let value = "v".repeat(16_000); // more than the log takes with the payload: in a blob, both
    let answer = client.request("mirror").header("key", &value).send_raw(&[7; 1000]).unwrap();
    assert_eq!((answer.headers().get("key"), &*answer), (Some(&*value), &[7; 1000][..]));
    works_raw(&client);
    drop(server);
}

fn works_raw(client: &ringbus::Client) {
    assert_eq!(*client.request("mirror").send_raw(b"works").unwrap(), *b"works");
}

#[test]
fn requests_of_a_higher_priority_are_taken_first() {
    for waits_in_queue in [true, false] {
        let dir = Dir::new();
        let server_node = dir.join("server");
        let order = Arc::new(Mutex::new(Vec::new()));
        let server = {
            let order = order.clone();
            server_node
                .service("priority")
                .method("block", |context, ()| servant::hold(context))
                .method("note", move |_, name: String| {
                    order.lock().unwrap().push(name);
                    Ok(())
                })
                .spawn()
                .unwrap()
        };
        let node = dir.join("client");
        let client = |priority| {
            let client = node.client_builder("priority").priority(priority).timeout(DEADLINE).open().unwrap();
            client.wait_for_server(DEADLINE).unwrap();
            client
        };
        let (low, high, blocks) = (client(10), client(200), client(128));
        let block: Pending<Response<()>> = blocks.request("block").start(&()).unwrap();
        eventually("it blocks", || server.stats().messages == 1);
        let note = |client: &ringbus::Client, name: &str| -> Pending<Response<()>> {
            client.request("note").start(&name).unwrap()
        };
        let mut calls: Vec<_> = (0..10).map(|_| note(&low, "low")).collect();
        if waits_in_queue {
            eventually("they wait", || server.queued() == 10);
        }
        calls.extend((0..10).map(|_| note(&high, "high")));
        if waits_in_queue {
            eventually("all wait", || server.queued() == 20);
        }
        drop(block);
        for call in calls {
            call.wait().unwrap();
        }
        let order = order.lock().unwrap();
        if waits_in_queue {
            assert_eq!(order[..10], vec!["high"; 10], "{order:?}");
        }
        assert_eq!(order.len(), 20);
    }
}

#[test]
fn a_backlog_of_higher_priority_leaves_the_lower_its_share() {
    let dir = Dir::new();
    let server_node = dir.join("server");
    let (server, said) = servant::spawn(&server_node, |builder| builder);
    let node = dir.join("client");
    let client = |priority| node.client_builder(SERVICE).priority(priority).timeout(DEADLINE).open().unwrap();
    let (low, high) = (client(10), client(200));
    let block: Pending<Response<i64>> = low.request("hold").start(&1).unwrap();
    said.expect("holds 1");
    let call = |client: &ringbus::Client, ms: u64| -> Pending<Response<u64>> {
        client.request("sleep").start(&ms).unwrap()
    };
    let calls: Vec<_> = (0..5).map(|_| call(&low, 1)).chain((0..100).map(|_| call(&high, 0))).collect();
    eventually("all wait", || server.queued() == 105);
    drop(block);
    said.expect("lets go of 1");
    for call in calls {
        call.wait().unwrap();
    }
    let order = said.rest();
    // One of seventeen.
    assert!(order[..17].contains(&"sleeps 1".to_owned()), "{order:?}");
    assert_eq!(order[..34].iter().filter(|line| *line == "sleeps 1").count(), 2, "{order:?}");
}

#[test]
fn peers_see_services_with_their_versions() {
    let dir = Dir::new();
    let (node, other) = (dir.join("node"), dir.join("other"));
    let server = other.service("math").version("1.2.3-é").priority(9).spawn().unwrap();
    let plain = other.service("plain").spawn().unwrap();
    let client = other.client_builder("math").priority(3).open().unwrap();
    let ports = || -> Vec<_> {
        let peers = node.peers();
        let ports = peers[0].ports().iter();
        ports.map(|port| (port.role, port.filters.join(" "), port.priority, port.version.clone())).collect()
    };
    let version = Some("1.2.3-é".to_owned());
    assert_eq!(
        ports(),
        [
            ("server", "math".to_owned(), 9, version),
            ("server", "plain".to_owned(), 128, None),
            ("client", "math".to_owned(), 3, None),
        ]
    );
    drop((server, plain, client));
    eventually("they are closed", || ports().is_empty());
}

#[test]
fn counters_tell_what_was_called() {
    let dir = Dir::new();
    let server = start(&dir, "server", &[]);
    let (node, client) = client_of(&dir, 1);
    works(&client);
    let stats = client.stats();
    assert_eq!((stats.messages, stats.dropped, stats.peers), (3, 0, 1));
    assert!(stats.bytes >= 3);
    let report = node.survey(Duration::from_secs(2));
    let of = |role: &str| {
        let ports = report.iter().flat_map(|node| &node.ports);
        ports
            .filter(|port| port.role == role && port.name == SERVICE)
            .map(|port| port.stats.messages)
            .sum::<u64>()
    };
    assert_eq!((of("server"), of("client")), (3, 3));
    server.finish();
}
