//! Pairs whose other end is spoken for by hand: what no honest client or server does.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use ringbus::internals::frame::{
    Code, Control, Encoding, Frame, Head, Headers, Payload, PortUp, Role, Strings,
};
use ringbus::internals::ring::{CursorSegment, Gates, Kind, LogHeader, LogLayout, Writer};
use ringbus::internals::segment::{PeerSegment, Sealed};
use ringbus::internals::sys::timerfd;
use ringbus::{Client, Node, NodeInfo, Pending, RawResponse, Response, Status, Wait};

use crate::raw_peer::Raw;
use crate::servant::{self, SERVICE};
use crate::support::{DEADLINE, Dir, eventually};

const CAPACITY: u64 = 4096;
/// The hand-made peer's port.
const PORT: u64 = 1;

/// One end of a pair, with the log that it writes.
struct End {
    raw: Raw,
    bell: OwnedFd,
    /// Kept for its memory: a peer maps it.
    _cursors: Sealed,
    /// The port at the other end.
    other: u64,
}

type Log = Writer<Arc<Sealed>, Arc<PeerSegment>, ()>;

impl End {
    /// Joins, opens its port, and learns of the node's port of that role.
    fn open(dir: &Dir, node: &Node, role: Role, other: Role) -> Self {
        let raw = Raw::join(dir, node);
        let segment = CursorSegment::of_size(4096);
        let cursors = Sealed::create("ringbus-cursors", 4096, true).unwrap();
        segment.initialise(&cursors, raw.id, PORT, 0);
        let bell = timerfd::create().unwrap();
        let (filters, version) = (Strings::from_slice(&[SERVICE]), None);
        let up = PortUp { port: PORT, role, filters, flags: 0, priority: 128, capacity: None, version };
        raw.send(&Control::PortUp(up), &[cursors.fd(), bell.as_fd()]);
        raw.send(&Control::PortsDone, &[]);
        let other = loop {
            match Control::decode(&raw.receive().0) {
                Ok(Control::PortUp(up)) if up.role == other => break up.port,
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        };
        Self { raw, bell, _cursors: cursors, other }
    }

    /// Gives the other end a log to read.
    fn attach(&self, log: u64) -> Log {
        self.attach_of(CAPACITY, log)
    }

    fn attach_of(&self, capacity: u64, log: u64) -> Log {
        let layout = LogLayout::new(capacity).unwrap();
        let memory = Arc::new(Sealed::create("ringbus-log", layout.segment_size(), true).unwrap());
        layout.initialise(&memory, &LogHeader { log, node: self.raw.id, port: PORT });
        self.raw.attach(log, [PORT, self.other], capacity, &[memory.fd(), self.bell.as_fd()]);
        Writer::new(memory, layout, Arc::new(Gates::new()))
    }

    /// The next datagram that is of this op.
    fn wait_for(&self, op: u8) -> Vec<u8> {
        loop {
            let (datagram, _) = self.raw.receive();
            if datagram[2] == op {
                return datagram;
            }
        }
    }
}

fn write(log: &mut Log, frame: &[u8]) {
    log.claim(frame.len() as u64).unwrap();
    log.body_mut()[..frame.len()].copy_from_slice(frame);
    log.commit(Kind::Frame, 0, 0, frame.len());
    log.publish();
}

fn message(head: Head<'_>) -> Vec<u8> {
    framed(head, Payload::new(Encoding::Raw, b"bytes"))
}

fn framed(head: Head<'_>, payload: Payload<'_>) -> Vec<u8> {
    let frame = Frame::Message { head, payload };
    let mut bytes = vec![0; frame.encoded_len()];
    let len = frame.encode(&mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

fn answer(id: u64) -> Vec<u8> {
    message(Head::Response { id, status: Code::Ok, message: None, headers: Headers::EMPTY })
}

/// A number as the answer of a typed call.
fn typed_answer(id: u64, number: u8, compressed: bool) -> Vec<u8> {
    let head = Head::Response { id, status: Code::Ok, message: None, headers: Headers::EMPTY };
    framed(head, Payload { encoding: Encoding::MessagePack, compressed, bytes: &[number] })
}

fn request(id: u64) -> Vec<u8> {
    message(Head::Request { id, method: "mirror", deadline: None, headers: Headers::EMPTY })
}

/// Records that are nothing that belongs into a log of requests, nor into one of answers.
fn nonsense() -> [Vec<u8>; 4] {
    let headers = Headers::EMPTY;
    let event = message(Head::Event { topic: None, headers });
    let item = message(Head::Item { id: 1, seq: 2 });
    [event, item, b"\x94\x01".to_vec(), b"nonsense".to_vec()]
}

fn call(client: &Client) -> Pending<RawResponse> {
    client.request("any").timeout(DEADLINE).start_raw(b"").unwrap()
}

/// A client, a server that is spoken for, and a call to it that has opened the pair.
fn pair(dir: &Dir) -> (Node, Client, End, Pending<RawResponse>) {
    let node = dir.join("node");
    let client = node.client(SERVICE).unwrap();
    let server = End::open(dir, &node, Role::Server, Role::Client);
    client.wait_for_server(DEADLINE).unwrap();
    let pending = call(&client);
    server.wait_for(6);
    (node, client, server, pending)
}

#[test]
fn what_is_no_answer_is_counted_and_the_next_one_is_taken() {
    let dir = Dir::new();
    let (_node, client, server, pending) = pair(&dir);
    let mut log = server.attach(1);
    for record in nonsense() {
        write(&mut log, &record);
    }
    write(&mut log, &request(pending.id()));
    write(&mut log, &answer(pending.id()));
    assert_eq!(*pending.wait().unwrap(), *b"bytes");
    assert_eq!((client.stats().dropped, client.stats().messages), (5, 1));
}

#[test]
fn a_deadline_holds_however_much_a_server_writes_that_is_no_answer() {
    const RECORDS: u64 = 1_000_000; // more than anybody reads in the time that the call has
    for wait in [Wait::Adaptive, Wait::Spin, Wait::Park] {
        let dir = Dir::new();
        let node = dir.join("node");
        let client = node.client_builder(SERVICE).wait(wait).open().unwrap();
        let server = End::open(&dir, &node, Role::Server, Role::Client);
        client.wait_for_server(DEADLINE).unwrap();
        let first = call(&client);
        server.wait_for(6);
        let mut log = server.attach_of(32 << 20, 1);
        write(&mut log, &answer(first.id()));
        assert_eq!(*first.wait().unwrap(), *b"bytes");

        let pending = client.request("any").timeout(Duration::from_millis(20)).start_raw(b"").unwrap();
        for _ in 0..RECORDS {
            write(&mut log, b"nonsense");
        }
        assert_eq!(pending.wait().unwrap_err().code(), ringbus::Code::DeadlineExceeded);
        assert!(client.stats().dropped < RECORDS, "{wait:?}: it has read them all");
    }
}

/// A value whose serialisation panics the `at`th time, after others have had time to wait for who serialises it.
struct Bomb {
    at: u32,
    serialised: Cell<u32>,
    lit: Sender<()>,
}

impl serde::Serialize for Bomb {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.serialised.set(self.serialised.get() + 1);
        if self.serialised.get() == self.at {
            self.lit.send(()).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            panic!("as it is meant to");
        }
        serializer.serialize_bytes(&[0; 900])
    }
}

#[test]
fn a_panic_of_who_waits_for_room_leaves_nobody_waiting() {
    let dir = Dir::new();
    let node = dir.join("node");
    let client = node.client(SERVICE).unwrap();
    let deaf = End::open(&dir, &node, Role::Server, Role::Client);
    client.wait_for_server(DEADLINE).unwrap();
    let deaf_id = client.servers()[0].id();
    let fill = |_| -> Option<Pending<RawResponse>> {
        client.request("any").to(deaf_id).timeout(Duration::from_millis(50)).start_raw(&[0; 900]).ok()
    };
    let filled: Vec<_> = (1..1000).map_while(fill).collect();
    assert!(filled.len() < 999, "it is never full");
    let other = dir.join("server");
    let (_server, _said) = servant::spawn(&other, |builder| builder);
    let works = other.info().id();
    eventually("both are there", || client.servers().len() == 2);

    for at in 1..=8 {
        let (lit, is_lit) = channel();
        std::thread::scope(|scope| {
            let client = &client;
            let panics = scope.spawn(move || {
                let bomb = Bomb { at, serialised: Cell::new(0), lit };
                let sent = catch_unwind(AssertUnwindSafe(|| {
                    let request = client.request("any").to(deaf_id).timeout(Duration::from_millis(300));
                    request.start::<_, ()>(&bomb).map(drop)
                }));
                sent.is_err()
            });
            let is_lit = is_lit.recv_timeout(DEADLINE).is_ok();
            let begun = Instant::now();
            let slept = client.request("sleep").to(works).timeout(DEADLINE).send::<_, u64>(&300);
            assert_eq!(*slept.unwrap(), 300);
            assert!(begun.elapsed() < DEADLINE / 2, "nobody read its answer: the {at}. serialisation");
            assert_eq!(panics.join().unwrap(), is_lit);
        });
    }
    drop(deaf);
}

/// A typed call of which whoever waits reads the answer itself.
#[test]
fn a_typed_call_takes_one_answer_and_that_only_as_it_was_asked() {
    let dir = Dir::new();
    let (node, client, server, pending) = pair(&dir);
    let mut log = server.attach(1);
    write(&mut log, &answer(pending.id()));
    assert_eq!(*pending.wait().unwrap(), *b"bytes");
    let call = |to: &NodeInfo| -> Pending<Response<u8>> {
        client.request("any").to(to).timeout(DEADLINE).start(&1).unwrap()
    };
    let [first] = &client.servers()[..] else { panic!("one server") };

    let compressed = call(first);
    write(&mut log, &typed_answer(compressed.id(), 7, true));
    let status = compressed.wait().unwrap_err();
    assert_eq!(status.code(), ringbus::Code::Unimplemented, "{status}");

    let twice = call(first);
    for number in [7, 8] {
        write(&mut log, &typed_answer(twice.id(), number, false));
    }
    assert_eq!(*twice.wait().unwrap(), 7);
    let after = call(first);
    write(&mut log, &typed_answer(after.id(), 9, false));
    assert_eq!(*after.wait().unwrap(), 9);
    assert_eq!(client.stats().dropped, 1);

    // Of a call to another, which has not answered yet.
    let other = End::open(&dir, &node, Role::Server, Role::Client);
    eventually("both are there", || client.servers().len() == 2);
    let servers = client.servers();
    let second = servers.iter().find(|server| server.id() != first.id()).unwrap();
    let theirs = call(second);
    let mut their_log = other.attach(1);
    write(&mut log, &typed_answer(theirs.id(), 1, false));
    let ours = call(first);
    write(&mut log, &typed_answer(ours.id(), 2, false));
    assert_eq!(*ours.wait().unwrap(), 2);
    assert_eq!(client.stats().dropped, 2);
    write(&mut log, &typed_answer(theirs.id(), 1, false));
    std::thread::scope(|scope| {
        let theirs = (theirs.id(), scope.spawn(|| theirs.wait())); // who meets it is whom it claims to answer
        eventually("it is dropped", || client.stats().dropped == 3);
        write(&mut their_log, &typed_answer(theirs.0, 3, false));
        assert_eq!(*theirs.1.join().unwrap().unwrap(), 3);
    });
    assert_eq!(client.stats().messages, 6);
}

#[test]
fn what_is_no_request_is_counted_and_the_next_one_is_answered() {
    let dir = Dir::new();
    let node = dir.join("node");
    let (server, _said) = servant::spawn(&node, |builder| builder);
    let client = End::open(&dir, &node, Role::Client, Role::Server);
    let mut log = client.attach(1);
    for record in nonsense() {
        write(&mut log, &record);
    }
    write(&mut log, &answer(1));
    write(&mut log, &request(1));
    eventually("the request is taken", || server.stats().messages == 1);
    assert_eq!(server.stats().dropped, 5);
}

fn is_cut(node: &Node, part: &str) {
    eventually("it is cut off", || !node.refused().is_empty());
    let why = node.refused()[0].why.to_string();
    assert!(why.contains(part), "{why}");
}

#[test]
fn a_second_log_of_answers_ends_the_session() {
    let dir = Dir::new();
    let (node, client, server, pending) = pair(&dir);
    let _first = server.attach(1);
    server.wait_for(7);
    let _second = server.attach(2);
    is_cut(&node, "a second log of answers");
    assert_eq!(pending.wait().unwrap_err().code(), ringbus::Code::Unavailable);
    let gone: Status = client.request("any").send_raw(b"").unwrap_err();
    assert_eq!(gone.code(), ringbus::Code::NotFound);
}

#[test]
fn a_second_log_of_requests_ends_the_session() {
    let dir = Dir::new();
    let node = dir.join("node");
    let (_server, _said) = servant::spawn(&node, |builder| builder);
    let client = End::open(&dir, &node, Role::Client, Role::Server);
    let _first = client.attach(1);
    client.wait_for(7);
    let _second = client.attach(2);
    is_cut(&node, "attached twice");
}

#[test]
fn a_log_of_answers_may_follow_one_that_is_closed() {
    let dir = Dir::new();
    let (node, _client, server, _pending) = pair(&dir);
    let mut first = server.attach(1);
    server.wait_for(7);
    first.close();
    let _second = server.attach(2);
    server.wait_for(7);
    assert!(node.refused().is_empty());
}

/// It lets go of each log of requests before the client has put anything into it.
#[test]
fn a_server_that_lets_go_of_every_request_ends_the_call() {
    const TIMEOUT: Duration = Duration::from_secs(10);
    let dir = Dir::new();
    let (_node, client, server, pending) = pair(&dir);
    let (is_over, over) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let is_over = is_over; // also if this panics
        // It acknowledges no fds, so that what comes later is not even sent.
        scope.spawn(move || {
            while over.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout) {
                for log in 0..24 {
                    server.raw.try_send(&Control::Detach { log, reader_number: 1 }, &[]);
                }
            }
        });
        assert_eq!(pending.wait().unwrap_err().code(), ringbus::Code::Unavailable);
        for _ in 0..4 {
            let start = Instant::now();
            let status = client.request("any").timeout(TIMEOUT).send_raw(&vec![0; 1 << 20]).unwrap_err();
            assert_eq!(status.code(), ringbus::Code::Unavailable, "{status}");
            assert!(start.elapsed() < TIMEOUT / 4, "{:?}", start.elapsed());
        }
        drop(is_over);
    });
}
