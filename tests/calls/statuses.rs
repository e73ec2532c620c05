//! How calls fail, and that nothing else fails with them.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use ringbus::{Client, Code, Error, Response, Status};
use serde::ser::{Error as _, Serializer};

use crate::servant::{self, SERVICE, client_of, start, works};
use crate::support::stopwatch::Stopwatch;
use crate::support::{DEADLINE, Dir, eventually};

/// What comes at once comes well before the client's own timeout, which is 5 s.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A panic is printed, with a backtrace where that is asked for: beside other tests that can take seconds.
fn panics(client: &Client, why: &str) -> Status {
    client.request("panic").timeout(DEADLINE).send::<_, ()>(why).unwrap_err()
}

#[test]
fn each_code_of_a_handler_arrives_with_message_and_details() {
    let dir = Dir::new();
    let server = start(&dir, "server", &[]);
    let (_node, client) = client_of(&dir, 1);
    for number in 1..17 {
        let (code, message) = (Code::from_wire(number), format!("é {number}"));
        for details in [None, Some("42".to_owned())] {
            let status =
                client.call::<_, ()>("fail", &(number, message.clone(), details.clone())).unwrap_err();
            assert_eq!((status.code(), status.message()), (code, &*message));
            assert_eq!(status.details::<String>(), details);
        }
    }
    // An error that says that it is none.
    let status = client.call::<_, ()>("fail", &(0, "ok?", None::<String>)).unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unknown, "ok?"));
    // It is an error of the crate.
    assert!(matches!(Error::from(status), Error::Call(status) if status.code() == Code::Unknown));
    works(&client);
    server.finish();
}

#[test]
fn long_messages_and_details_are_cut_rather_than_lost() {
    let dir = Dir::new();
    // The largest answer has about 1000 bytes.
    let server = start(&dir, "small", &[("capacity", 4096)]);
    let (_node, client) = client_of(&dir, 1);
    let long = "é".repeat(2048);
    for (message, details) in [("short", Some(&long)), (&long, None), (&long, Some(&long))] {
        let status = client.call::<_, ()>("fail", &(9, message, details)).unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(message.starts_with(status.message()) && !status.message().is_empty(), "{status}");
        assert!(status.message().len() >= message.len().min(800), "{status}");
    }
    let status = panics(&client, &long);
    assert_eq!(status.code(), Code::Internal);
    // The name is quoted, each character by eight.
    let status = client.call::<_, ()>(&"\u{10ffff}".repeat(500), &()).unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    works(&client);
    assert_eq!(client.stats().dropped, 0, "one answer a call");
    server.finish();
}

#[test]
fn a_panic_is_internal_and_the_server_lives_on() {
    let dir = Dir::new();
    let server = start(&dir, "server", &[]);
    let (_node, client) = client_of(&dir, 1);
    for why in ["on purpose", "again"] {
        let status = panics(&client, why);
        assert_eq!(status.code(), Code::Internal);
        assert!(status.message().contains(why), "{status}");
        works(&client);
    }
    server.finish();
}

/// Panics when it is dropped.
#[derive(serde::Serialize)]
struct Bomb<T>(T);

impl<T> Drop for Bomb<T> {
    fn drop(&mut self) {
        panic!("dropped on purpose");
    }
}

/// A result, or what a handler had panicked with, that panicked when it was dropped took the worker with it: nobody served
/// any more, and the service stayed announced.
#[test]
fn a_panic_in_a_drop_leaves_the_worker_alive() {
    let node = ringbus::Bus::private().unwrap().join("both").unwrap();
    let service = node.service("bombs").method("result", |_, number: i64| Ok(Bomb(number)));
    let service = service
        .method("payload", |_, number: i64| -> Result<i64, Status> { std::panic::panic_any(Bomb(number)) });
    let _server = service.spawn().unwrap();
    let client = node.client("bombs").unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    for number in 0..3 {
        assert_eq!(client.call::<_, i64>("result", &number), Ok(number));
        let status = client.call::<_, i64>("payload", &number).unwrap_err();
        assert_eq!(status.code(), Code::Internal);
    }
}

/// Cannot be serialised: as it says, or with a panic.
struct Dud {
    panics: bool,
}

impl serde::Serialize for Dud {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        if self.panics {
            panic!("serialised on purpose");
        }
        Err(serde::ser::Error::custom("no such shape"))
    }
}

#[test]
fn a_result_that_panics_when_it_is_dropped_and_was_not_sent_says_why_it_was_not() {
    let node = ringbus::Bus::private().unwrap().join("both").unwrap();
    let service = node.service("duds").method("dud", |_, panics: bool| Ok(Bomb(Dud { panics })));
    let _server = service.spawn().unwrap();
    let client = node.client("duds").unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    for (panics, why) in [(false, "no such shape"), (true, "serialised on purpose"), (false, "no such shape")]
    {
        let status = client.call::<_, ()>("dud", &panics).unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert!(status.message().contains(why), "{status}");
    }
    assert_eq!(client.stats().dropped, 0, "one answer a call");
}

#[test]
fn what_the_server_does_not_understand_says_what() {
    let dir = Dir::new();
    let server = start(&dir, "server", &[]);
    let (_node, client) = client_of(&dir, 1);
    let code_of = |status: Status, names: &[&str]| {
        for name in names {
            assert!(status.message().contains(name), "{status}");
        }
        status.code()
    };
    let unknown = client.call::<_, ()>("no such", &()).unwrap_err();
    assert_eq!(code_of(unknown, &[SERVICE, "no such"]), Code::Unimplemented);
    let wrong = client.call::<_, i64>("double", &"two").unwrap_err();
    assert_eq!(code_of(wrong, &["test.double"]), Code::InvalidArgument);
    let bytes = client.request("double").send_raw(b"\x02").unwrap_err();
    assert_eq!(code_of(bytes, &["test.double", "Raw"]), Code::InvalidArgument);
    let other = client.call::<_, String>("double", &2).unwrap_err();
    assert_eq!(code_of(other, &["test.double"]), Code::Internal);
    let raw = client.request("mirror").send::<_, i64>(&2).unwrap_err();
    assert_eq!(code_of(raw, &["test.mirror", "send_raw"]), Code::Internal);
    works(&client);
    assert_eq!(client.stats().dropped, 0);
    server.finish();
}

#[test]
fn nobody_serves_is_known_at_once() {
    let dir = Dir::new();
    let (node, client) = client_of(&dir, 0);
    let fails_at_once = |codes: &[Code]| {
        let start = Stopwatch::start();
        let status = client.call::<_, i64>("double", &1).unwrap_err();
        start.within(AT_ONCE);
        assert!(codes.contains(&status.code()), "{status}");
        status.code()
    };
    fails_at_once(&[Code::NotFound]);
    // Another service is no help.
    let _other = node.service("other").spawn().unwrap();
    fails_at_once(&[Code::NotFound]);

    let mut server = start(&dir, "server", &[]);
    works(&client);
    server.tell("close");
    server.expect("closed");
    eventually("that it closed is known", || {
        fails_at_once(&[Code::NotFound, Code::Unavailable]) == Code::NotFound
    });
    server.tell("open");
    server.expect("opened");
    client.wait_for_server(DEADLINE).unwrap();
    works(&client);
    server.kill();
    eventually("that it died is known", || {
        fails_at_once(&[Code::NotFound, Code::Unavailable]) == Code::NotFound
    });
}

#[test]
fn a_server_that_was_opened_before_the_call_is_found() {
    let dir = Dir::new();
    let (node, client) = client_of(&dir, 0);
    let other = dir.join("other");
    for round in 0..20 {
        let server = if round % 2 == 0 { &node } else { &other };
        let server = servant::spawn(server, |builder| builder).0;
        works(&client);
        drop(server);
        eventually("it is gone", || client.servers().is_empty());
    }
}

#[test]
fn a_server_that_was_closed_is_not_called_by_a_new_client() {
    let dir = Dir::new();
    let (node, other) = (dir.join("server"), dir.join("client"));
    let mut server = servant::spawn(&node, |builder| builder);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Whoever is to hear of the end is seldom the first to run.
        (0..4).for_each(|_| {
            drop(scope.spawn(|| {
                while !over.load(Relaxed) {
                    std::hint::spin_loop()
                }
            }))
        });
        for _ in 0..200 {
            drop(server);
            server = servant::spawn(&node, |builder| builder);
            let doubled = other.client(SERVICE).unwrap().call::<_, i64>("double", &2);
            if doubled != Ok(4) {
                over.store(true, Relaxed);
                panic!("{doubled:?}");
            }
        }
        over.store(true, Relaxed);
    });
}

#[test]
fn a_node_of_ones_choice() {
    let dir = Dir::new();
    let mut servers = [start(&dir, "a", &[]), start(&dir, "b", &[])];
    let (node, client) = client_of(&dir, 2);
    for server in &servers {
        let peer = node.peers().into_iter().find(|peer| peer.pid() == server.pid()).expect("a peer");
        for _ in 0..3 {
            let pid: Response<u32> = client.request("pid").to(peer.id()).send(&()).unwrap();
            assert_eq!((*pid as i32, pid.source().id()), (server.pid(), peer.id()));
        }
    }
    let own = client.request("pid").to(node.info().id()).send::<_, u32>(&()).unwrap_err();
    assert_eq!(own.code(), Code::NotFound);
    assert!(own.message().contains(&node.info().id().to_string()[..8]), "{own}");
    let gone = node.peers().into_iter().find(|peer| peer.pid() == servers[0].pid()).expect("a peer").id();
    servers[0].tell("close");
    servers[0].expect("closed");
    eventually("it does not serve", || {
        let status = client.request("pid").to(gone).send::<_, u32>(&()).unwrap_err();
        status.code() == Code::NotFound
    });
    works(&client);
}

#[test]
fn too_large_either_way_is_resource_exhausted_and_the_client_goes_on() {
    let dir = Dir::new();
    let mut server = start(&dir, "server", &[("capacity", 4096), ("max_message", 0)]);
    let node = dir.join("client");
    let client = node.client_builder(SERVICE).max_message(0).open().unwrap();
    client.wait_for_server(DEADLINE).unwrap();
    for len in [900, 1100, 20_000, 200_000, 700] {
        // The log of requests takes 16 KiB, that of answers about 1000 bytes.
        let request = client.call::<_, usize>("length", &"x".repeat(len));
        if len < 16_000 {
            assert_eq!(request, Ok(len));
        } else {
            let status = request.unwrap_err();
            assert_eq!(status.code(), Code::ResourceExhausted);
            assert!(status.message().contains("the request") && status.message().contains("max_message"));
        }
        let answer = client.call::<_, String>("text", &len);
        if len <= 900 {
            assert_eq!(answer.map(|text| text.len()), Ok(len));
        } else {
            let status = answer.unwrap_err();
            assert_eq!(status.code(), Code::ResourceExhausted);
            assert!(status.message().contains("the answer") && status.message().contains("max_message"));
        }
        let raw = client.request("mirror").send_raw(&vec![7; len]);
        assert_eq!(raw.is_ok(), len <= 900, "{raw:?}");
        works(&client);
    }
    assert_eq!(client.stats().dropped, 0, "one answer a call");
    let [_, dropped, _, unsent] = servant::counts(&mut server);
    assert_eq!((dropped, unsent), (4, 4), "three texts and one mirrored");
    let ports = node.survey(DEADLINE).into_iter().flat_map(|node| node.ports);
    let told: u64 = ports.filter(|port| port.role == "server").map(|port| port.stats.dropped).sum();
    assert_eq!(told, 4, "as others see it");
    server.finish();
}

#[test]
fn bad_headers_of_a_request_are_refused_before_it_is_sent() {
    let dir = Dir::new();
    let mut server = start(&dir, "server", &[]);
    let (_node, client) = client_of(&dir, 1);
    let (many, large) = ([("k", "v"); 65], "v".repeat(16 * 1024));
    let request = || client.request("double");
    let refused = [
        request().header("@mine", "v").send::<_, i64>(&1),
        request().header("large", &large).send::<_, i64>(&1),
        many.iter().fold(request(), |request, (key, value)| request.header(key, value)).send(&1),
    ];
    for result in refused {
        let status = result.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with("headers"), "{status}");
    }
    works(&client);
    assert_eq!(servant::counts(&mut server)[0], 3, "what was refused was not sent");
    server.finish();
}

#[test]
fn an_answer_that_cannot_be_written_is_the_servers_fault() {
    /// Fails to serialise, or panics.
    struct Odd(bool);

    impl serde::Serialize for Odd {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            if self.0 {
                panic!("odd");
            }
            Err(S::Error::custom("odd"))
        }
    }

    impl<'de> serde::Deserialize<'de> for Odd {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            panic!("odd argument");
        }
    }

    let dir = Dir::new();
    let node = dir.join("both");
    let server = node
        .service("odd")
        .method("answer", |_, panics: bool| Ok(Odd(panics)))
        .method("details", |_, long: bool| {
            let message = if long { "x".repeat(4096) } else { "x".to_owned() };
            Err::<(), _>(Status::aborted(message).with_details(&Odd(false)))
        })
        .method("headers", |context, many: bool| {
            (0..if many { 65 } else { 1 }).for_each(|n| context.header(format!("k{n}"), "v"));
            if !many {
                context.header("@mine", "v");
            }
            Ok(1)
        })
        .raw_method("loan", |context, _| {
            (0..65).for_each(|n| context.header(format!("k{n}"), "v"));
            context.loan(1)
        })
        .method("argument", |_, _: Odd| Ok(1))
        .method("fine", |_, ()| Ok(1))
        .spawn()
        .unwrap();
    let client = node.client("odd").unwrap();
    let status = |method, argument| client.call::<bool, i64>(method, &argument).unwrap_err();
    for panics in [false, true] {
        let status = status("answer", panics);
        assert_eq!(status.code(), Code::Internal);
        assert!(status.message().contains("odd"), "{status}");
    }
    for long in [false, true] {
        assert_eq!(status("details", long).code(), Code::Aborted);
    }
    assert_eq!(status("headers", true).code(), Code::Internal);
    assert_eq!(status("headers", false).code(), Code::Internal);
    assert_eq!(client.request("loan").send_raw(b"").unwrap_err().code(), Code::Internal);
    assert_eq!(status("argument", true).code(), Code::Internal);
    assert_eq!(client.call("fine", &()), Ok(1));
    assert_eq!(client.stats().dropped, 0, "one answer a call");
    assert_eq!(server.stats().messages, 9);
}
