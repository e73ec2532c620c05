use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use super::*;
use crate::bus::{Bus, Client, Node, Server};

const DEADLINE: Duration = Duration::from_secs(30);
/// Of two such answers, the second has to wait for the log.
const LARGE: usize = BACKLOG / 2 + 1;

/// A pair, as a handler of the server found it.
struct Found {
    pair: Arc<Pair>,
    server: Server,
    client: Client,
    _node: Node,
}

impl Found {
    fn new() -> Self {
        let node = Bus::private().unwrap().join("node").unwrap();
        let (found, pairs) = channel();
        let service = node.service("s").raw_method("find", move |ctx, _| {
            found.send(ctx.pair.clone()).unwrap();
            Ok(Vec::new())
        });
        let server = service.spawn().unwrap();
        let client = node.client("s").unwrap();
        client.wait_for_server(DEADLINE).unwrap();
        client.request("find").timeout(DEADLINE).send_raw(&[]).unwrap();
        Self { pair: pairs.recv_timeout(DEADLINE).unwrap(), server, client, _node: node }
    }

    /// The log, as a loan keeps it.
    fn keep(&self) -> ArcMutexGuard<RawMutex, Outlet> {
        eventually(|| self.pair.lock()) // whoever has answered may not have let go of it
    }
}

fn eventually<T>(found: impl Fn() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(since.elapsed() < DEADLINE);
        thread::sleep(Duration::from_millis(1));
    }
}

fn answer(pair: &Pair, id: u64, deadline_ns: Option<u64>) -> Result<(), Status> {
    pair.answer(id, deadline_ns, &[], Encoding::Raw, &Bytes(&vec![7; LARGE]))
}

/// What `run` comes to on a thread of its own: soon, or the test fails.
fn at_once<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = channel();
    thread::spawn(move || done.send(run()));
    result.recv_timeout(DEADLINE).expect("it does not wait")
}

#[test]
fn what_is_not_to_wait_for_a_loan_does_not() {
    let found = Found::new();
    let (pair, loan) = (&found.pair, found.keep());
    answer(pair, 100, None).unwrap(); // it may wait: it is the first
    let assert_kept = |ended: Result<(), Status>| {
        let message = ended.unwrap_err().message().to_owned();
        assert!(
            message.contains("of 16777216 that may: another handler keeps the log for long"),
            "{message}"
        );
    };
    let late = pair.clone();
    let over = clock::monotonic_ns() + 20_000_000;
    assert_kept(at_once(move || answer(&late, 101, Some(over))));
    assert!(!pair.is_kept.load(Relaxed), "so it says nothing of how long others would wait");

    let failing = pair.clone();
    let status = Status::internal("why").with_details(&"x".repeat(LARGE));
    at_once(move || failing.fail(102, &status, &[]));

    pair.is_kept.store(true, Relaxed);
    let next = pair.clone();
    assert_kept(at_once(move || answer(&next, 103, None)));

    assert_eq!(found.server.unsent(), 2);
    drop(loan);
    pair.flush();
    assert!(!pair.is_kept.load(Relaxed));
}

#[test]
fn an_answer_that_waits_for_a_loan_is_written_after_it_or_dropped_with_its_client() {
    for goes in [false, true] {
        let found = Found::new();
        let loan = found.keep();
        let Found { pair, server, client, _node } = found;
        answer(&pair, 100, None).unwrap();
        let waiting = pair.clone();
        let waits = thread::spawn(move || answer(&waiting, 101, None));
        if goes {
            drop(client);
            eventually(|| pair.is_gone().then_some(()));
        }
        drop(loan);
        assert_eq!(waits.join().unwrap(), Ok(()));
        if goes {
            let head = Head::Response { id: 102, status: Code::Ok, message: None, headers: Headers::EMPTY };
            let frame = pair.encode(&head, Encoding::Raw, &Bytes(&vec![7; LARGE])).unwrap();
            assert_eq!(pair.put_patiently(frame, PATIENCE), Ok(())); // as of a thread that has waited
        }
        let dropped = server.stats().dropped;
        assert_eq!((server.unsent(), dropped), (0, if goes { 3 } else { 0 }), "the client goes: {goes}");
    }
}
