//! Both sides of every limit.

use super::encode;
use super::frame::write::Writer;
use super::frame::{
    Control, DecodeError, EncodeError, Encoding, Frame, Head, HeadError, Headers, Hello, MAX_DATAGRAM,
    MAX_HEAD, MAX_HEADER_BYTES, MAX_HEADERS, MAX_STRING, Payload, PortStats, PortStatsList, decode_head,
};

fn direct(headers: Headers<'_>) -> Frame<'_> {
    Frame::Message { head: Head::Direct { headers }, payload: Payload::EMPTY }
}

fn too_long(frame: Frame<'_>) -> Option<usize> {
    match frame.encode(&mut vec![0; 1 << 20]) {
        Err(EncodeError::TooLong { limit, .. }) => Some(limit),
        other => panic!("{other:?}"),
    }
}

#[test]
fn headers_have_a_limit_of_pairs() {
    let pairs = vec![("k", "v"); MAX_HEADERS + 1];
    let most = direct(Headers::from_slice(&pairs[1..]));
    let bytes = encode(&most);
    assert_eq!(Frame::decode(&bytes), Ok(most));
    assert_eq!(too_long(direct(Headers::from_slice(&pairs))), Some(MAX_HEADERS));
    assert!(Headers::from_slice(&pairs).check().is_err());

    let mut bytes = b"\x93\x0a\xde\0\x41".to_vec();
    bytes.extend(b"\xa1k\xa1v".repeat(65));
    bytes.push(0xc0);
    assert_eq!(Frame::decode(&bytes), Err(DecodeError::Limit { what: "headers", limit: 64, at: 2 }));
}

#[test]
fn headers_have_a_limit_of_bytes() {
    let value = "v".repeat(MAX_HEADER_BYTES);
    let pairs = [("a", &value[..100]), ("b", &value[..MAX_HEADER_BYTES - 102])];
    let most = direct(Headers::from_slice(&pairs));
    let bytes = encode(&most);
    assert_eq!(Frame::decode(&bytes), Ok(most));

    let pairs = [("a", &value[..100]), ("b", &value[..MAX_HEADER_BYTES - 101])];
    assert_eq!(too_long(direct(Headers::from_slice(&pairs))), Some(MAX_HEADER_BYTES));

    // One byte more in the last value, whose format stays the same; and in a prefix that ends before
    // it, so that nobody is asked to copy it first.
    let mut bytes = bytes;
    let at = bytes.len() - 6 - (MAX_HEADER_BYTES - 102) - 3;
    let len = (MAX_HEADER_BYTES - 101) as u16;
    bytes[at + 1..at + 3].copy_from_slice(&len.to_be_bytes());
    bytes.insert(at + 3, b'v');
    let error = DecodeError::Limit { what: "headers", limit: MAX_HEADER_BYTES as u64, at };
    assert_eq!(Frame::decode(&bytes), Err(error));
    assert_eq!(decode_head(&bytes[..at + 3], bytes.len()), Err(HeadError::Invalid(error)));
}

#[test]
fn strings_have_a_limit() {
    let text = "t".repeat(MAX_STRING + 1);
    let event = |topic| Frame::Message {
        head: Head::Event { topic: Some(topic), headers: Headers::EMPTY },
        payload: Payload::EMPTY,
    };
    let bytes = encode(&event(&text[1..]));
    assert_eq!(Frame::decode(&bytes), Ok(event(&text[1..])));
    assert_eq!(too_long(event(&text)), Some(MAX_STRING));

    let mut bytes = b"\x94\x02\xda\x10\x01".to_vec();
    bytes.extend(text.bytes());
    bytes.extend(b"\xc0\xc0");
    let error = DecodeError::Limit { what: "topic", limit: MAX_STRING as u64, at: 2 };
    assert_eq!(Frame::decode(&bytes), Err(error));
}

/// The longest head in the formats that take most room.
#[test]
fn no_head_is_over_its_limit() {
    let mut bytes = vec![0; MAX_HEAD];
    let mut writer = Writer::new(&mut bytes);
    // A request: array32, then kind and id in 64 bits each.
    writer.put(b"\xdd\0\0\0\x06\xcf\0\0\0\0\0\0\0\0\xcf\0\0\0\0\0\0\0\x09");
    writer.put(b"\xdb\0\0\x10\0");
    writer.put(&[b'm'; MAX_STRING]);
    writer.uint(u64::MAX);
    writer.put(b"\xdf\0\0\0\x40");
    for _ in 0..2 * MAX_HEADERS {
        writer.put(b"\xdb\0\0\0\x80");
        writer.put(&[b'h'; 128]);
    }
    writer.put(b"\xc6\0\0\0\x01\0");
    let len = writer.finish().unwrap();
    let (head, span) = decode_head(&bytes[..len], len).unwrap();
    assert_eq!((head.headers().len(), span.start, span.len), (MAX_HEADERS, len, 0));
    assert_eq!(head.headers().check(), Ok(()));
}

#[test]
fn a_datagram_has_a_limit() {
    let name = "n".repeat(100);
    let one = PortStats {
        port: u64::MAX,
        role: 0,
        name: &name,
        messages: u64::MAX,
        bytes: u64::MAX,
        dropped: u64::MAX,
        blocked_ns: u64::MAX,
        lag: u64::MAX,
        peers: u64::MAX,
        evicted: u64::MAX,
    };
    let ports = vec![one; 400];
    let reply = |count| Control::StatsReply {
        request: 1,
        taken_ns: 2,
        uptime_ms: 3,
        more: false,
        ports: PortStatsList::from_slice(&ports[..count]),
    };
    let one = reply(2).encoded_len() - reply(1).encoded_len();
    let most = MAX_DATAGRAM / one - 1;
    let bytes = encode(&Frame::Control(reply(most)));
    assert_eq!(Control::decode(&bytes), Ok(reply(most)));
    assert_eq!(too_long(Frame::Control(reply(most + 2))), Some(MAX_DATAGRAM));

    let mut bytes = b"\x93\x05\x0d\xc6\0\x01\0\0".to_vec();
    bytes.resize(bytes.len() + 65536, 0);
    assert!(matches!(Control::decode(&bytes), Err(DecodeError::Limit { .. })));
}

#[test]
fn a_value_over_its_limit_is_named_before_the_missing_room() {
    let name = "n".repeat(MAX_STRING + 1);
    let hello = Hello { major: 1, minor: 0, id: [0; 16], name: &name, started_unix_ms: 0, capabilities: 0 };
    let error = EncodeError::TooLong { what: "node name", limit: MAX_STRING };
    assert_eq!(Control::Hello(hello).encode(&mut []), Err(error));
    let head = Head::Request { id: 1, method: &name, deadline: None, headers: Headers::EMPTY };
    let error = EncodeError::TooLong { what: "method", limit: MAX_STRING };
    assert_eq!(head.begin(&mut [], Encoding::Raw), Err(error));
}
