//! How calls fail, and that nothing else fails with them.

use std::time::{Duration, Instant};

use ringbus::{Code, Error, Response, Status};

use crate::servant::{self, SERVICE, client_of, start, works};
use crate::support::{DEADLINE, Dir, eventually};

/// What comes at once comes well before the client's own timeout, which is 5 s.
const AT_ONCE: Duration = Duration::from_secs(2);

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
fn a_panic_is_internal_and_the_server_lives_on() {
    let dir = Dir::new();
    let server = start(&dir, "server", &[]);
    let (_node, client) = client_of(&dir, 1);
    for why in ["on purpose", "again"] {
        let status = client.call::<_, ()>("panic", &why).unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert!(status.message().contains(why), "{status}");
        works(&client);
    }
    server.finish();
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
        let start = Instant::now();
        let status = client.call::<_, i64>("double", &1).unwrap_err();
        assert!(codes.contains(&status.code()) && start.elapsed() < AT_ONCE, "{status}");
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
    assert!(own.message().contains(&node.info().id().to_string()), "{own}");
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
