//! Calls with bytes: in place, lent, held for long.

use std::cell::RefCell;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use ringbus::{
    Client, Code, Encoding, Node, Pending, RawResponse, ReplyLoan, Response, Server, ServiceBuilder, Status,
    Trust,
};

use crate::servant::{self, SERVICE, client_of, start, works};
use crate::support::{DEADLINE, Dir, eventually};

/// Bytes that tell a number, and how many there are.
fn bytes(n: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + n) as u8).collect()
}

/// Whether bytes lie in a log.
fn is_in_place(bytes: &[u8]) -> bool {
    let at = bytes.as_ptr() as usize;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("/memfd:ringbus-log")).any(|line| {
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let [start, end] = [start, end].map(|at| usize::from_str_radix(at, 16).unwrap());
        (start..end).contains(&at)
    })
}

#[test]
fn bytes_go_there_and_back_in_any_size() {
    let dir = Dir::new();
    let server = start(&dir, "server", &[]);
    let (_node, client) = client_of(&dir, 1);
    for len in (0..300).chain([1000, 4096, 10_000, 16_000]) {
        let answer = client.request("mirror").send_raw(&bytes(len, len)).unwrap();
        assert_eq!(*answer, bytes(len, len));
        assert_eq!(answer.encoding(), Encoding::Raw);
    }
    server.finish();
}

#[test]
fn a_request_stays_as_it_was_while_its_client_goes_on() {
    let dir = Dir::new();
    let node = dir.join("server");
    let (tell, told) = channel();
    let (go, gone) = channel::<()>();
    let (tell, gone) = (Mutex::new(tell), Mutex::new(gone));
    let server = node
        .service("look")
        .raw_method("look", move |_, bytes| {
            let before = bytes.to_vec();
            tell.lock().unwrap().send(is_in_place(bytes)).unwrap();
            gone.lock().unwrap().recv_timeout(DEADLINE).unwrap();
            Ok(vec![u8::from(before == bytes)])
        })
        .method("fill", |_, text: String| Ok(text.len()))
        .workers(2)
        .spawn()
        .unwrap();
    let other = dir.join("client");
    let client = other.client("look").unwrap();
    for round in 0..5 {
        let call = client.request("look").timeout(DEADLINE).start_raw(&bytes(round, 3000)).unwrap();
        assert!(told.recv_timeout(DEADLINE).unwrap(), "lent where it is");
        // Less than the log has room for: what is lent is in the way.
        for len in [10_000, 10_000, 10_000, 10_000] {
            assert_eq!(client.call("fill", &"x".repeat(len)), Ok(len));
        }
        go.send(()).unwrap();
        assert_eq!(*call.wait().unwrap(), [1], "unchanged");
        // And the room is there again.
        for _ in 0..20 {
            assert_eq!(client.call("fill", &"x".repeat(10_000)), Ok(10_000));
        }
    }
    drop(server);
}

#[test]
fn an_answer_in_place_stays_as_it_was_and_outlives_its_client() {
    let dir = Dir::new();
    let server = start(&dir, "server", &[]);
    let (node, client) = client_of(&dir, 1);
    let first = client.request("mirror").send_raw(&bytes(1, 3000)).unwrap();
    assert!(is_in_place(&first));
    let mut held = Vec::new();
    for n in 0..10 {
        held.push((n, client.request("mirror").send_raw(&bytes(n, 1000)).unwrap()));
        works(&client);
    }
    assert!(held.iter().all(|(n, answer)| **answer == bytes(*n, 1000)));
    // The gaps are given back in another order.
    held.retain(|(n, _)| n % 3 == 0);
    works(&client);
    drop((client, node));
    assert!(held.iter().all(|(n, answer)| **answer == bytes(*n, 1000)));
    server.finish();
    assert_eq!(*first, bytes(1, 3000));
    drop(held);
    assert_eq!(*first, bytes(1, 3000));
}

#[test]
fn an_answer_held_for_long_stalls_its_own_pair_only() {
    let dir = Dir::new();
    let (slow, other) = (start(&dir, "slow", &[("capacity", 4096)]), start(&dir, "other", &[]));
    let (node, client) = client_of(&dir, 2);
    let id_of = |name: &str| node.peers().iter().find(|peer| peer.name() == name).expect("a peer").id();
    let (slow_id, other_id) = (id_of("slow"), id_of("other"));
    let call = |client: &Client, node, timeout| {
        client.request("text").to(node).timeout(timeout).send::<_, String>(&900)
    };
    let held = client.request("mirror").to(slow_id).send_raw(&bytes(1, 900)).unwrap();
    let stalled = (0..20).find_map(|_| call(&client, slow_id, Duration::from_millis(100)).err());
    assert_eq!(stalled.expect("no room for an answer").code(), Code::DeadlineExceeded);
    // The same client and another server; the same server and another client.
    let second = node.client(SERVICE).unwrap();
    for _ in 0..100 {
        assert_eq!(call(&client, other_id, DEADLINE).unwrap().len(), 900);
        assert_eq!(call(&second, slow_id, DEADLINE).unwrap().len(), 900);
    }
    assert_eq!(*held, bytes(1, 900));
    drop(held);
    assert_eq!(call(&client, slow_id, DEADLINE).unwrap().len(), 900);
    drop((slow, other));
}

#[test]
fn loans_of_requests_and_answers_are_aligned_and_arrive() {
    let dir = Dir::new();
    let node = dir.join("server");
    let server = node
        .service("loans")
        .raw_method("invert", |context, bytes| {
            assert!(bytes.as_ptr().addr().is_multiple_of(64) && is_in_place(bytes));
            context.header("len", bytes.len().to_string());
            let mut loan = context.loan(bytes.len())?;
            assert!(loan.as_ptr().addr().is_multiple_of(64));
            assert_eq!(is_in_place(&loan), bytes.len() >= 1000); // small ones are copied when they are sent
            loan.iter_mut().zip(bytes).for_each(|(to, from)| *to = !from);
            Ok(loan)
        })
        .raw_method("drop", |context, bytes| {
            context.loan(bytes.len())?.fill(1);
            Ok(bytes.to_vec())
        })
        .raw_method("too large", |context, _| context.loan(1 << 40))
        .spawn()
        .unwrap();
    let other = dir.join("client");
    let client = other.client("loans").unwrap();
    for len in [1, 63, 64, 65, 1000, 10_000] {
        let value = "v".repeat(len % 7); // moves the payload's place
        let mut loan = client.request("invert").header("k", &value).loan(len).unwrap();
        assert!(loan.len() == len && loan.as_ptr().addr().is_multiple_of(64));
        loan.copy_from_slice(&bytes(len, len));
        let answer = loan.send().unwrap();
        assert!(answer.iter().zip(bytes(len, len)).all(|(got, sent)| *got == !sent) && answer.len() == len);
        assert!(answer.as_ptr().addr().is_multiple_of(64));
        assert_eq!(answer.headers().get("len"), Some(&*len.to_string()));
        assert_eq!(*client.request("drop").send_raw(&bytes(len, len)).unwrap(), bytes(len, len));
        drop(client.request("invert").loan(len).unwrap()); // unsent: it leaves no trace
    }
    assert_eq!(server.stats().messages, 12);
    for _ in 0..3 {
        assert_eq!(client.request("too large").send_raw(b"").unwrap_err().code(), Code::ResourceExhausted);
    }
    assert_eq!((server.unsent(), server.stats().dropped), (3, 3));
    assert_eq!(
        client.request("invert").loan(65 << 20).map(drop).unwrap_err().code(),
        Code::ResourceExhausted
    );
    assert_eq!(client.stats().dropped, 0);
}

#[test]
fn a_loan_is_the_answer_to_its_own_call_alone() {
    thread_local! {
        static KEPT: RefCell<Option<ReplyLoan>> = const { RefCell::new(None) };
    }
    let dir = Dir::new();
    let node = dir.join("server");
    let server = node
        .service("loans")
        .raw_method("keep", |context, bytes| {
            let mut loan = context.loan(5)?;
            loan.fill(9);
            KEPT.set(Some(loan));
            Ok(bytes.to_vec())
        })
        .raw_method("return", |_, _| KEPT.take().ok_or_else(|| Status::aborted("nothing was kept")))
        .spawn()
        .unwrap();
    let (other, third) = (dir.join("client"), dir.join("third"));
    let [client, another] = [&other, &third].map(|node| node.client("loans").unwrap());
    for round in 0..3 {
        // One worker, one thread. The answer waits for the log, which the loan has until it is returned; and so
        // do further requests of this client, but not those of others.
        let kept = client.request("keep").timeout(DEADLINE).start_raw(b"own").unwrap();
        eventually("it is kept", || server.stats().messages == 2 * round + 1);
        let status = another.request("return").timeout(DEADLINE).send_raw(b"").unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(*kept.wait().unwrap(), *b"own");
    }
    assert_eq!((client.stats().dropped, another.stats().dropped), (0, 0));
}

/// A handler that asks for far too much gets a status also when there is no room in its log just now.
#[test]
fn a_loan_far_too_large_is_refused_whatever_the_state_of_the_log() {
    let dir = Dir::new();
    let node = dir.join("server");
    let server = node
        .service("loans")
        .raw_method("text", |_, _| Ok(vec![0; 900]))
        .raw_method("too large", |context, _| context.loan(1 << 46))
        .capacity(4096)
        .spawn()
        .unwrap();
    let other = dir.join("client");
    let client = other.client("loans").unwrap();
    let text = || client.request("text").timeout(DEADLINE).start_raw(b"").unwrap();
    let calls: Vec<Pending<RawResponse>> = (0..4).map(|_| text()).collect();
    let too_large = client.request("too large").timeout(DEADLINE).start_raw(b"").unwrap();
    eventually("all was handled", || server.stats().messages == 5);
    for call in calls {
        assert_eq!(call.wait().unwrap().len(), 900);
    }
    assert_eq!(too_large.wait().unwrap_err().code(), Code::ResourceExhausted);
}

#[test]
fn a_loan_that_is_held_keeps_nobody_beyond_their_time() {
    let dir = Dir::new();
    let servers = [start(&dir, "a", &[]), start(&dir, "b", &[])];
    let (node, client) = client_of(&dir, 2);
    let [a, b] =
        ["a", "b"].map(|name| node.peers().iter().find(|peer| peer.name() == name).expect("a peer").id());
    let double = |node, timeout| client.request("double").to(node).timeout(timeout).send::<_, i64>(&2);
    assert_eq!(*double(a, DEADLINE).unwrap(), 4);
    let begun = Instant::now();
    let short = Duration::from_millis(200);
    // One that is under way when the loan is taken, and is given up while it is held.
    let hold: Pending<Response<i64>> = client.request("hold").to(a).timeout(DEADLINE).start(&1).unwrap();
    let mut loan = client.request("mirror").to(a).timeout(DEADLINE).loan(10).unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| double(a, short));
        for _ in 0..100 {
            assert_eq!(*double(b, DEADLINE).unwrap(), 4, "another server's calls do not wait");
        }
        assert_eq!(waits.join().unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    });
    // By the same thread, too.
    assert_eq!(double(a, short).unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(
        client.request("mirror").to(a).timeout(short).loan(1).map(drop).unwrap_err().code(),
        Code::DeadlineExceeded
    );
    drop(hold);
    assert!(begun.elapsed() < DEADLINE / 4, "{:?}", begun.elapsed());
    // Somebody waits for the room, and gets it when the loan is sent.
    thread::scope(|scope| {
        let waits = scope.spawn(|| double(a, DEADLINE));
        thread::sleep(Duration::from_millis(50));
        loan.fill(9);
        assert_eq!(*loan.send().unwrap(), [9; 10]);
        assert_eq!(*waits.join().unwrap().unwrap(), 4);
    });
    assert!(begun.elapsed() < DEADLINE / 4, "{:?}", begun.elapsed());
    drop(servers);
}

#[test]
fn who_trusts_nobody_gets_copies() {
    let dir = Dir::new();
    let wary = |name: &str| -> Node {
        ringbus::Bus::builder("bus").dir(dir.path()).trust(Trust::Copy).open().unwrap().join(name).unwrap()
    };
    let node = wary("server");
    let server = node
        .service("wary")
        .raw_method("look", |_, bytes| {
            assert!(!is_in_place(bytes) && bytes.as_ptr().addr().is_multiple_of(64));
            Ok(bytes.to_vec())
        })
        .spawn()
        .unwrap();
    let other = wary("client");
    let client = other.client("wary").unwrap();
    for len in [0, 1, 1000, 10_000] {
        let answer = client.request("look").send_raw(&bytes(len, len)).unwrap();
        assert_eq!(*answer, bytes(len, len));
        assert!(len == 0 || !is_in_place(&answer));
        assert!(answer.as_ptr().addr().is_multiple_of(64));
    }
    drop(server);
}

#[test]
fn answers_that_are_kept_for_others_are_aligned_as_those_in_place() {
    let dir = Dir::new();
    let node = dir.join("server");
    let server = node
        .service("loans")
        .raw_method("invert", |context, bytes| {
            let mut loan = context.loan(bytes.len())?;
            loan.iter_mut().zip(bytes).for_each(|(to, from)| *to = !from);
            Ok(loan)
        })
        .spawn()
        .unwrap();
    let other = dir.join("client");
    let client = other.client("loans").unwrap();
    for len in [1, 100, 600, 5000, 100_000] {
        let flying: Vec<Pending<RawResponse>> =
            (0..6).map(|n| client.request("invert").start_raw(&bytes(n, len)).unwrap()).collect();
        // The last one first: whoever waits for it reads those of the others.
        for (n, pending) in flying.into_iter().enumerate().rev() {
            let answer = pending.wait().unwrap();
            assert!(answer.iter().zip(bytes(n, len)).all(|(got, sent)| *got == !sent), "{len}");
            assert!(answer.as_ptr().addr().is_multiple_of(64), "answer {n} of {len} bytes");
        }
    }
    drop(server);
}

/// They went to private memory, and from there to any place in the log.
#[test]
fn answers_lent_while_another_is_being_filled_are_aligned_too() {
    let dir = Dir::new();
    let node = dir.join("server");
    let (tell, told) = channel();
    let (go, gone) = channel::<()>();
    let (keeps, lends, gone) = (Mutex::new(tell.clone()), Mutex::new(tell), Mutex::new(gone));
    let server = node
        .service("loans")
        .raw_method("keep", move |context, bytes| {
            let loan = context.loan(bytes.len())?;
            keeps.lock().unwrap().send(()).unwrap();
            gone.lock().unwrap().recv_timeout(DEADLINE).unwrap();
            Ok(loan)
        })
        .raw_method("lend", move |context, bytes| {
            let mut loan = context.loan(bytes.len())?;
            assert!(loan.as_ptr().addr().is_multiple_of(64));
            loan.copy_from_slice(bytes);
            lends.lock().unwrap().send(()).unwrap();
            Ok(loan)
        })
        .workers(2)
        .spawn()
        .unwrap();
    let other = dir.join("client");
    let client = other.client("loans").unwrap();
    let lens = [64, 65, 1500, 8192, 16_000, 16_300, 16_330, 16_384, 70_000];
    for (n, len) in lens.into_iter().enumerate() {
        let start = |method, len| client.request(method).timeout(DEADLINE).start_raw(&bytes(n, len)).unwrap();
        let kept = start("keep", 1 + n);
        told.recv_timeout(DEADLINE).unwrap();
        let lent = start("lend", len);
        told.recv_timeout(DEADLINE).unwrap();
        go.send(()).unwrap();
        kept.wait().unwrap();
        let answer = lent.wait().unwrap();
        assert_eq!(*answer, bytes(n, len));
        assert!(answer.as_ptr().addr().is_multiple_of(64), "{len}");
    }
    assert_eq!(server.stats().messages, 2 * lens.len() as u64);
}

/// It waited for the log that its own thread had locked: with a call's timeout of ever, for ever.
#[test]
fn nothing_is_lent_while_a_value_is_being_serialised() {
    struct Lends<'c>(&'c Client);

    impl serde::Serialize for Lends<'_> {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let status = self.0.request("double").timeout(Duration::MAX).loan(1).map(drop).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            serializer.serialize_i64(21)
        }
    }

    let dir = Dir::new();
    let node = dir.join("server");
    let (server, _said) = servant::spawn(&node, |builder| builder);
    let other = dir.join("client");
    let client = other.client(SERVICE).unwrap();
    let answer: Response<i64> = client.request("double").send(&Lends(&client)).unwrap();
    assert_eq!(*answer, 42);
    works(&client);
    drop(server);
}

/// A service of which one method holds the log of answers, with a loan that it fills, while another answer is made.
struct Holding {
    _server: Server,
    told: Receiver<()>,
    go: Sender<()>,
}

impl Holding {
    fn spawn(service: ServiceBuilder<'_>) -> Self {
        let (tell, told) = channel();
        let (go, gone) = channel::<()>();
        let (tell, gone) = (Mutex::new(tell), Mutex::new(gone));
        let number = |bytes: &[u8]| usize::from_le_bytes(bytes.try_into().unwrap());
        let service = service
            .raw_method("fill", move |context, _| {
                let loan = context.loan(8)?;
                tell.lock().unwrap().send(()).unwrap();
                gone.lock().unwrap().recv_timeout(DEADLINE).unwrap();
                Ok(loan)
            })
            .raw_method("make", move |_, bytes| Ok(vec![7; number(bytes)]))
            .raw_method("lend", move |context, bytes| context.loan(number(bytes)))
            .raw_method("fail", move |_, bytes| {
                Err::<Vec<u8>, _>(Status::aborted("y".repeat(number(bytes))))
            });
        Self { _server: service.workers(2).spawn().unwrap(), told, go }
    }

    /// Has an answer made while the log is held: how long it is.
    fn meanwhile(&self, client: &Client, method: &str, len: usize) -> Result<usize, Status> {
        let filled = client.request("fill").start_raw(b"").unwrap();
        self.told.recv_timeout(DEADLINE).unwrap();
        let made = client.request(method).start_raw(&len.to_le_bytes()).unwrap();
        thread::sleep(Duration::from_millis(50)); // for it to be made meanwhile: later, it is no such case
        self.go.send(()).unwrap();
        assert_eq!(filled.wait().unwrap().len(), 8);
        made.wait().map(|answer| answer.len())
    }
}

#[test]
fn an_answer_may_be_as_large_as_is_said_also_while_another_is_being_filled() {
    const MOST: usize = 1 << 20;
    let dir = Dir::new();
    let (node, other) = (dir.join("server"), dir.join("client"));
    let holding = Holding::spawn(node.service("large").max_message(MOST as u64));
    let client = other.client_builder("large").max_message(MOST as u64).open().unwrap();
    for method in ["make", "lend"] {
        for len in [MOST - 8, MOST] {
            assert_eq!(holding.meanwhile(&client, method, len), Ok(len), "{method}");
        }
        let status = holding.meanwhile(&client, method, MOST + 1).unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{method}: {status}");
    }
}

/// What can never be written must not wait for room: nothing after it would be.
#[test]
fn an_answer_that_never_fits_is_refused_also_while_another_is_being_filled() {
    let dir = Dir::new();
    let (node, other) = (dir.join("server"), dir.join("client"));
    let holding = Holding::spawn(node.service("small").capacity(4096).blob_memory(0));
    let client = other.client("small").unwrap();
    for len in (900..1100).step_by(8) {
        match holding.meanwhile(&client, "make", len) {
            Ok(made) => assert_eq!(made, len),
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{len}: {status}"),
        }
    }
    let status = holding.meanwhile(&client, "fail", 3000).unwrap_err();
    assert!(status.code() == Code::Aborted && status.message().starts_with("yyy"), "{status}");
    assert_eq!(holding.meanwhile(&client, "make", 10), Ok(10));
}

#[test]
fn typed_and_raw_share_a_log_in_order() {
    let dir = Dir::new();
    let node = dir.join("server");
    let (server, _said) = servant::spawn(&node, |builder| builder);
    let other = dir.join("client");
    let client = other.client(SERVICE).unwrap();
    let mut held = Vec::new();
    for n in 0..200 {
        held.push(client.request("mirror").send_raw(&bytes(n, n)).unwrap());
        works(&client);
        if n % 17 == 0 {
            held.clear();
        }
    }
    assert_eq!(client.stats().messages, 800);
    drop(server);
}
