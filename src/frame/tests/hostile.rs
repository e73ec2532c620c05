//! Bytes from a peer that means no good end in a value or in an error.

use super::encode;
use super::frame::{Control, DecodeError, Frame, Head, HeadError, MAX_DEPTH, MAX_HEAD, decode_head};
use super::parts::VARIANTS;
use super::roundtrip::parts;
use proptest::prelude::*;
use proptest::sample::Index;

/// Decodes these bytes in every way, and checks that the ways agree.
fn decode_all(bytes: &[u8]) {
    let frame = Frame::decode(bytes);
    if let Ok(frame) = frame {
        let again = encode(&frame);
        assert_eq!(Frame::decode(&again), Ok(frame));
        assert_eq!(frame.encoded_len(), again.len());
    }
    match (decode_head(bytes, bytes.len()), frame) {
        (Ok((head, span)), frame) => {
            let payload = &bytes[span.start..span.start + span.len];
            match frame {
                Ok(frame) => assert!(
                    matches!(frame, Frame::Message { head: same, payload: p } if same == head && p.bytes == payload)
                ),
                // Only in what follows the payload, which `decode_head` does not look at.
                Err(error) => assert!(matches!(
                    error,
                    DecodeError::Truncated { .. }
                        | DecodeError::Expected { .. }
                        | DecodeError::TooDeep { .. }
                        | DecodeError::Trailing { .. }
                )),
            }
        }
        (Err(HeadError::Short { .. }), _) => panic!("nothing is missing"),
        (Err(HeadError::NoPayload(kind)), frame) => assert!(frame.is_err() || frame.unwrap().kind() == kind),
        (Err(HeadError::Invalid(error)), frame) => assert_eq!(frame, Err(error)),
    }
    for len in 0..bytes.len() {
        if let Err(HeadError::Short { needed }) = decode_head(&bytes[..len], bytes.len()) {
            assert!(len < needed && needed <= bytes.len() && needed <= MAX_HEAD);
        }
    }
    match (Control::decode(bytes), frame) {
        (Ok(control), frame) => assert_eq!(frame, Ok(Frame::Control(control))),
        (Err(_), frame) => assert!(!matches!(frame, Ok(Frame::Control(_)))),
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        decode_all(&bytes);
    }

    #[test]
    fn any_bytes_after_any_kind(elements in 0u8..16, start in prop::array::uniform2(0u8..18), rest: [u8; 24]) {
        let mut bytes = vec![0x90 | elements];
        bytes.extend(start);
        // Few of all bytes are markers that mean anything here.
        bytes.extend(rest.map(|byte| if byte < 128 { byte % 4 } else { byte }));
        decode_all(&bytes);
    }
}

proptest! {
    // Each case decodes every prefix of every frame: few cases are many decodes.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn mutated_frames(parts in parts(), edits in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4)) {
        let port_stats = parts.port_stats();
        for variant in 0..VARIANTS {
            let mut bytes = encode(&parts.frame(variant, &port_stats));
            for (at, byte) in &edits {
                // Near the front, where the markers are.
                let at = at.index(bytes.len()).min(at.index(40));
                bytes[at] = *byte;
            }
            decode_all(&bytes);
        }
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| {
        let mut bytes = vec![0x93, 8, 1];
        bytes.extend(vec![0x91; depth]);
        bytes.push(0xc0);
        bytes
    };
    assert_eq!(Frame::decode(&nested(MAX_DEPTH - 1)), Ok(Frame::Cancel { id: 1 }));
    assert_eq!(Frame::decode(&nested(MAX_DEPTH)), Err(DecodeError::TooDeep { at: 2 + MAX_DEPTH }));
    assert!(matches!(Frame::decode(&nested(1 << 20)), Err(DecodeError::TooDeep { .. })));
}

#[test]
fn huge_counts_cost_nothing() {
    for header in [
        &b"\xdd\xff\xff\xff\xff"[..],
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
    ] {
        let mut bytes = vec![0x93, 8, 1];
        bytes.extend(header);
        assert!(matches!(Frame::decode(&bytes), Err(DecodeError::Truncated { .. })));
    }
    let bytes = b"\xdd\xff\xff\xff\xff\x08\x01\xc0\xc0";
    assert_eq!(Frame::decode(bytes), Err(DecodeError::Truncated { needed: bytes.len() + 1 }));
    // Ext of u32::MAX bytes: the length and its type byte do not fit 32 bits.
    assert!(Frame::decode(b"\x93\x08\x01\xc9\xff\xff\xff\xff\x01").is_err());
}

#[test]
fn a_payload_never_leaves_its_frame() {
    let frame = b"\x94\x02\xc0\xc0\xc6\0\0\0\x05\0abc";
    assert_eq!(Frame::decode(frame), Err(DecodeError::Truncated { needed: 14 }));
    assert_eq!(decode_head(&frame[..10], 13), Err(DecodeError::Truncated { needed: 14 }.into()));
    let longest = b"\x94\x02\xc0\xc0\xc6\xff\xff\xff\xff\0";
    assert_eq!(
        decode_head(longest, 10),
        Err(DecodeError::Truncated { needed: 9 + u32::MAX as usize }.into())
    );
}

#[test]
fn a_head_does_not_vouch_for_the_elements_after_the_payload() {
    let four_are_missing = b"\x98\x06\xcd\x08\0\0\xc0";
    assert_eq!(Frame::decode(four_are_missing), Err(DecodeError::Truncated { needed: 8 }));
    let (head, span) = decode_head(four_are_missing, 7).unwrap();
    assert_eq!((head, span.start, span.len), (Head::Item { id: 2048, seq: 0 }, 7, 0));
}

#[test]
fn a_payload_needs_a_known_tag() {
    for tag in (3..=0x7f).chain(0x83..=0xff) {
        let error = DecodeError::UnknownTag { tag, at: 9 };
        let bytes = [0x94, 2, 0xc0, 0xc0, 0xc6, 0, 0, 0, 1, tag];
        assert_eq!(Frame::decode(&bytes), Err(error));
        assert_eq!(decode_head(&bytes, 10), Err(error.into()));
    }
    let none = DecodeError::Expected { what: "a payload tag", at: 4 };
    assert_eq!(Frame::decode(b"\x94\x02\xc0\xc0\xc4\0"), Err(none));
    assert_eq!(Frame::decode(b"\x94\x02\xc0\xc0\xc6\0\0\0\0\0"), Err(none));
}

#[test]
fn the_unknown_is_told_from_the_malformed() {
    let unknown = |bytes: &[u8]| Control::decode(bytes).unwrap_err();
    assert_eq!(unknown(b"\x93\x05\x16\xa1x"), DecodeError::UnknownOp { op: 22 });
    assert_eq!(unknown(b"\x92\x05\xcd\x01\0"), DecodeError::UnknownOp { op: 256 });
    assert_eq!(unknown(b"\x99\x05\x03\x01\x09\xc0\0\0\xc0\xc0"), DecodeError::UnknownRole { role: 9 });
    assert_eq!(unknown(b"\x92\x0c\0"), DecodeError::UnknownKind { kind: 12 });
    for bytes in [&b"\x93\x05\x16\xa1x"[..], b"\x99\x05\x03\x01\x09\xc0\0\0\xc0\xc0", b"\x92\x0c\0"] {
        assert!(unknown(bytes).is_unknown());
    }
    for bytes in [&b""[..], b"\x90", b"\x92\x05\x05", b"\x93\x05\x05\xa1x", b"\x92\x08\x01", b"\x91\x05"] {
        assert!(!unknown(bytes).is_unknown());
    }
    assert_eq!(unknown(b"\x92\x05\x05"), DecodeError::Fields { needed: 3, found: 2 });
}
