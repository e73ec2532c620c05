//! `tests/golden/*.hex`: bytes of one frame each, laid apart from the encoder; no version may
//! encode them differently.

use super::encode;
use super::frame::{
    Attach, Code, Control, Encoding, Frame, Head, Headers, Hello, Payload, PortStats, PortStatsList, PortUp,
    Role, Stats, Strings, decode_head,
};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const ID: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The bytes of a fixture: hex digits, spaces, and comments from `#` to the line's end.
fn fixture(name: &str) -> Vec<u8> {
    let path = directory().join(name).with_extension("hex");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let bytes = text.lines().flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace());
    bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn message<'a>(head: Head<'a>, encoding: Encoding, bytes: &'a [u8]) -> Frame<'a> {
    Frame::Message { head, payload: Payload::new(encoding, bytes) }
}

/// Frames that are encoded as their fixtures say.
fn messages() -> Vec<(&'static str, Frame<'static>)> {
    use Encoding::{Json, MessagePack, Raw};
    let none = Headers::EMPTY;
    let plain = Head::Event { topic: None, headers: none };
    let ping = Head::Request { id: 300, method: "ping", deadline: None, headers: none };
    let compressed = Payload { encoding: MessagePack, compressed: true, bytes: &[1, 2, 3] };
    let add = Head::Request {
        id: 7,
        method: "add",
        deadline: Some(1_700_000_000_123_456_789),
        headers: Headers::from_slice(&[("trace", "4bf9")]),
    };
    let progress = Head::Event {
        topic: Some("task/42/progress"),
        headers: Headers::from_slice(&[
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("k", "ü"),
        ]),
    };
    let ok = Head::Response { id: 7, status: Code::Ok, message: None, headers: none };
    let failed =
        Head::Response { id: 7, status: Code::NotFound, message: Some("no such method"), headers: none };
    let end = Frame::End {
        id: 7,
        status: Code::Cancelled,
        message: Some("enough"),
        headers: Headers::from_slice(&[("k", "v")]),
    };
    let beat = Frame::Heartbeat {
        seq: 9,
        uptime_ms: 90_000,
        stats: Stats::from_slice(&[("sent", 1000), ("dropped", 0)]),
    };
    vec![
        ("request", message(add, MessagePack, &[0x92, 2, 3])),
        ("request_no_deadline", message(ping, Raw, b"")),
        ("response", message(ok, MessagePack, &[5])),
        ("response_error", Frame::Message { head: failed, payload: Payload::EMPTY }),
        ("event", message(plain, MessagePack, b"\x81\xa4done\x03")),
        ("event_topic_headers", message(progress, Json, b"{\"done\":3}")),
        ("event_compressed", Frame::Message { head: plain, payload: compressed }),
        ("broadcast", message(Head::Broadcast { topic: Some("@all"), headers: none }, Raw, b"bye")),
        ("heartbeat", beat),
        ("heartbeat_no_stats", Frame::Heartbeat { seq: 0, uptime_ms: 1 << 32, stats: Stats::EMPTY }),
        ("item", message(Head::Item { id: 7, seq: 200 }, Raw, b"abc")),
        ("end", end),
        ("cancel", Frame::Cancel { id: u64::MAX }),
        ("credit", Frame::Credit { id: 7, n: 65536 }),
        ("direct", message(Head::Direct { headers: none }, MessagePack, &[0xc0])),
        ("link", Frame::Link { source: ID, sequence: 128, ttl: 3, flags: 0, frame: &[0x92, 8, 7] }),
    ]
}

/// A port's counts, in those that tell of them.
const PORT: PortStats<'static> = PortStats {
    port: 4,
    role: Role::Subscriber as u8,
    name: "task/*",
    messages: 1000,
    bytes: 64_000,
    dropped: 2,
    blocked_ns: 0,
    lag: 128,
    peers: 3,
    evicted: 0,
};

/// The same for control ops.
fn controls() -> Vec<(&'static str, Frame<'static>)> {
    let hello = Hello {
        major: 1,
        minor: 2,
        id: ID,
        name: "planner",
        started_unix_ms: 1_700_000_000_000,
        capabilities: 3,
    };
    let subscriber = PortUp {
        port: 4,
        role: Role::Subscriber,
        filters: Strings::from_slice(&["task/*", "camera/**"]),
        flags: 0,
        priority: PortUp::DEFAULT_PRIORITY,
        capacity: None,
        version: None,
    };
    let lossy = PortUp { flags: PortUp::LOSSY, filters: Strings::from_slice(&["task/*"]), ..subscriber };
    let publisher = PortUp {
        port: 5,
        role: Role::Publisher,
        filters: Strings::from_slice(&["task/**"]),
        flags: PortUp::PATTERN,
        priority: PortUp::DEFAULT_PRIORITY,
        capacity: Some(262_144),
        version: None,
    };
    let attach = Attach {
        log: 11,
        writer_port: 5,
        reader_port: 4,
        reader_number: 2,
        position: 4096,
        sequence: Some(64),
        capacity: 262_144,
        predecessor: Some(10),
    };
    let plain = Attach { reader_number: 1, position: 0, sequence: None, predecessor: None, ..attach };
    const PORTS: [PortStats<'static>; 2] = [
        PORT,
        PortStats {
            port: 9,
            role: 200,
            name: "x",
            messages: 0,
            bytes: 0,
            dropped: 0,
            blocked_ns: 0,
            lag: 0,
            peers: 0,
            evicted: 1,
        },
    ];
    let reply = Control::StatsReply {
        request: 1,
        taken_ns: 123_456_789,
        uptime_ms: 90_000,
        more: true,
        ports: PortStatsList::from_slice(&PORTS),
    };
    [
        ("control_00_hello", Control::Hello(hello)),
        ("control_01_hello_ack", Control::HelloAck(hello)),
        ("control_02_incompatible", Control::Incompatible { major: 2, minor: 256 }),
        ("control_03_port_up", Control::PortUp(subscriber)),
        ("control_03_port_up_lossy", Control::PortUp(lossy)),
        ("control_03_port_up_pattern", Control::PortUp(publisher)),
        ("control_04_ports_done", Control::PortsDone),
        ("control_05_port_down", Control::PortDown { port: 4 }),
        ("control_06_attach", Control::Attach(attach)),
        ("control_06_attach_plain", Control::Attach(plain)),
        ("control_07_attached", Control::Attached { log: 11, reader_port: 4, segment: 0, slot: 17 }),
        ("control_08_detach", Control::Detach { log: 11, reader_number: 2 }),
        ("control_09_detached", Control::Detached { log: 11, reader_number: 65535 }),
        ("control_10_ack", Control::Ack { count: 255 }),
        ("control_11_resend", Control::Resend { from: 256 }),
        ("control_12_resending", Control::Resending { from: 256 }),
        ("control_13_goodbye", Control::Goodbye),
        ("control_14_stats", Control::Stats { request: 1 }),
        ("control_15_stats_reply", reply),
        ("control_16_heartbeat", Control::Heartbeat { log: 0, capacity: 4096, interval_ms: 1000 }),
        ("control_17_blob", Control::Blob { log: 11, reader_number: 2, blob: 200, size: 1_052_672 }),
        ("control_18_blob_gone", Control::BlobGone { log: 11, reader_number: 2, blob: 200 }),
        ("control_19_denied", Control::Denied { action: 0, topic: "task/progress" }),
        ("control_20_exhausted", Control::Exhausted { resource: 1, limit: 4096 }),
        ("control_21_again", Control::Again { what: 4, of: 11, id: 200, reader_number: 2 }),
    ]
    .map(|(name, control)| (name, Frame::Control(control)))
    .into()
}

/// Frames that another implementation may write so, and this one reads.
fn read_only() -> Vec<(&'static str, Frame<'static>)> {
    let headers = Headers::EMPTY;
    let response = Head::Response { id: 7, status: Code::Unknown, message: None, headers };
    let server = PortUp {
        port: 6,
        role: Role::Server,
        filters: Strings::from_slice(&["math"]),
        flags: 0x14,
        priority: PortUp::DEFAULT_PRIORITY,
        capacity: None,
        version: Some("1.2"),
    };
    let reply = Control::StatsReply {
        request: 1,
        taken_ns: 123_456_789,
        uptime_ms: 90_000,
        more: true,
        ports: PortStatsList::from_slice(&[PORT]),
    };
    vec![
        ("read_event_bin8", message(Head::Event { topic: None, headers }, Encoding::Raw, b"abc")),
        ("read_response_nil", Frame::Message { head: response, payload: Payload::EMPTY }),
        ("read_cancel_newer", Frame::Cancel { id: 7 }),
        ("read_port_up_newer", Frame::Control(Control::PortUp(server))),
        ("read_stats_reply_older", Frame::Control(reply)),
    ]
}

#[test]
fn frames_are_encoded_and_decoded_as_the_fixtures_say() {
    for (name, frame) in messages().into_iter().chain(controls()) {
        let bytes = fixture(name);
        assert_eq!(encode(&frame), bytes, "{name}: encode");
        assert_eq!(Frame::decode(&bytes), Ok(frame), "{name}: decode");
    }
}

#[test]
fn frames_of_other_implementations_are_decoded() {
    for (name, frame) in read_only() {
        let bytes = fixture(name);
        assert_eq!(Frame::decode(&bytes), Ok(frame), "{name}");
        assert_ne!(encode(&frame), bytes, "{name}: belongs to the others if it is canonical");
        if let Frame::Message { head, payload } = frame {
            let (found, span) = decode_head(&bytes, bytes.len()).unwrap();
            assert_eq!((found, &bytes[span.start..][..span.len]), (head, payload.bytes), "{name}");
        }
    }
}

#[test]
fn every_fixture_is_checked() {
    let tables = messages().into_iter().chain(controls()).chain(read_only());
    let checked: BTreeSet<String> = tables.map(|(name, _)| format!("{name}.hex")).collect();
    let files = std::fs::read_dir(directory()).unwrap();
    let found = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(checked, found);
}
