//! Values of every kind become bytes and the same values again.

use super::encode;
use super::frame::{
    Code, DecodeError, EncodeError, Encoding, Frame, Head, HeadError, Headers, MAX_HEAD, Payload,
    PayloadSpan, begin_event, decode_head, finish_payload, mark_compressed, plain_event_head,
};
use super::parts::{Parts, VARIANTS};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use std::collections::HashSet;

pub fn number() -> impl Strategy<Value = u64> {
    // As likely short as long, so that every integer format is met.
    (any::<u64>(), 0u32..64).prop_map(|(value, shift)| value >> shift)
}

pub fn parts() -> impl Strategy<Value = Parts> {
    let text = || "\\PC{0,40}";
    let several = 0..20usize;
    (
        (
            prop::array::uniform6(number()),
            any::<(u32, u16, u8, bool, [u8; 16])>(),
            prop::option::of(number()),
        ),
        (text(), prop::option::of(text())),
        (
            prop::collection::vec((text(), text()), several.clone()),
            prop::collection::vec(text(), several.clone()),
            prop::collection::vec((text(), number()), several),
            prop::collection::vec(any::<u8>(), 0..300),
        ),
    )
        .prop_map(|(scalars, texts, lists)| {
            let (numbers, (word, half, byte, flag, id), maybe) = scalars;
            let ((text, note), (pairs, words, counters, bytes)) = (texts, lists);
            Parts { numbers, word, half, byte, flag, id, maybe, text, note, pairs, words, counters, bytes }
        })
}

proptest! {
    #[test]
    fn every_kind_round_trips(parts in parts()) {
        let port_stats = parts.port_stats();
        for variant in 0..VARIANTS {
            let frame = parts.frame(variant, &port_stats);
            let bytes = encode(&frame);
            prop_assert_eq!(Frame::decode(&bytes), Ok(frame));
            prop_assert_eq!(encode(&Frame::decode(&bytes).unwrap()), &bytes[..]);

            let mut small = vec![0; bytes.len() - 1];
            prop_assert_eq!(frame.encode(&mut small), Err(EncodeError::NoSpace { needed: bytes.len() }));
        }
    }

    #[test]
    fn unknown_trailing_elements_are_skipped(parts in parts()) {
        let port_stats = parts.port_stats();
        for variant in 0..VARIANTS {
            let frame = parts.frame(variant, &port_stats);
            let mut bytes = encode(&frame);
            prop_assert_eq!(bytes[0] & 0xf0, 0x90, "a fixarray");
            bytes[0] += 2;
            bytes.extend_from_slice(b"\x82\xa1k\x92\x01\xcb\0\0\0\0\0\0\0\0\xa1l\xc7\x03\x01abc\xff");
            prop_assert_eq!(Frame::decode(&bytes), Ok(frame));
            if let Frame::Message { head, payload } = frame {
                let (found, span) = decode_head(&bytes, bytes.len()).unwrap();
                prop_assert_eq!((found, &bytes[span.start..span.start + span.len]), (head, payload.bytes));
            }
        }
    }

    #[test]
    fn begun_and_finished_is_encoded(parts in parts()) {
        for variant in 0..VARIANTS {
            let frame = parts.frame(variant, &[]);
            let Frame::Message { head, payload } = frame else { continue };
            let bytes = encode(&frame);

            let mut out = vec![0xaa; bytes.len()];
            let start = head.begin(&mut out, payload.encoding).unwrap();
            prop_assert_eq!(start, head.prefix_len());
            prop_assert_eq!(start + payload.bytes.len(), bytes.len());
            out[start..].copy_from_slice(payload.bytes);
            prop_assert!(Frame::decode(&out).is_err(), "a frame that was begun only is none");
            finish_payload(&mut out, start, payload.bytes.len());
            if payload.compressed {
                mark_compressed(&mut out, start);
            }
            prop_assert_eq!(&out, &bytes);

            let needed = start;
            let small = &mut out[..start - 1];
            prop_assert_eq!(head.begin(small, payload.encoding), Err(EncodeError::NoSpace { needed }));
        }
    }

    #[test]
    fn lists_are_equal_however_they_are_held(pairs in prop::collection::vec(("\\PC{0,9}", "\\PC{0,9}"), 0..9)) {
        let slices: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (&key[..], &value[..])).collect();
        let (owned, borrowed) = (Headers::from_owned(&pairs), Headers::from_slice(&slices));
        let direct = |headers| encode(&Frame::Message { head: Head::Direct { headers }, payload: Payload::EMPTY });
        let bytes = direct(borrowed);
        prop_assert_eq!(&direct(owned), &bytes);
        let decoded = decode_head(&bytes, bytes.len()).unwrap().0.headers();
        prop_assert_eq!(decoded, owned);
        prop_assert_eq!(decoded, borrowed);
        prop_assert_eq!((decoded.len(), decoded.iter().len()), (pairs.len(), pairs.len()));
        for (key, _) in &pairs {
            let first = pairs.iter().find(|pair| pair.0 == *key).map(|pair| &pair.1[..]);
            prop_assert_eq!(decoded.lookup(key), first);
        }
        prop_assert_eq!(decoded.lookup("a key that is not there"), None);
    }
}

proptest! {
    // Each case decodes every prefix of every frame: few cases are many decodes.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_prefix_is_truncated_and_every_suffix_trailing(parts in parts()) {
        let port_stats = parts.port_stats();
        for variant in 0..VARIANTS {
            let mut bytes = encode(&parts.frame(variant, &port_stats));
            for len in 0..bytes.len() {
                match Frame::decode(&bytes[..len]) {
                    Err(DecodeError::Truncated { needed }) => prop_assert!(len < needed && needed <= bytes.len()),
                    other => prop_assert!(false, "{} of {} bytes: {:?}", len, bytes.len(), other),
                }
            }
            let at = bytes.len();
            bytes.push(0xc0);
            prop_assert_eq!(Frame::decode(&bytes), Err(DecodeError::Trailing { at }));
        }
    }

    #[test]
    fn a_head_is_decoded_from_any_prefix_that_holds_it(parts in parts()) {
        for variant in 0..VARIANTS {
            let frame = parts.frame(variant, &[]);
            let bytes = encode(&frame);
            let Frame::Message { head, payload: Payload { encoding, compressed, bytes: payload } } = frame else {
                prop_assert_eq!(decode_head(&bytes, bytes.len()), Err(HeadError::NoPayload(frame.kind())));
                continue;
            };
            let start = head.prefix_len();
            let span = PayloadSpan { encoding, compressed, start, len: payload.len() };
            for len in 0..=bytes.len() {
                let decoded = decode_head(&bytes[..len], bytes.len());
                if len >= start {
                    prop_assert_eq!(decoded, Ok((head, span)));
                } else if let Err(HeadError::Short { needed }) = decoded {
                    prop_assert!(len < needed && needed <= start && needed <= MAX_HEAD);
                } else {
                    prop_assert!(false, "{} of {} bytes: {:?}", len, start, decoded);
                }
            }
            prop_assert!(decode_head(&bytes, bytes.len() + 1).is_err());
            prop_assert!(decode_head(&bytes, bytes.len() - 1).is_err());
        }
    }
}

#[test]
fn the_parts_make_every_kind_and_every_op() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let parts = parts().new_tree(&mut runner).unwrap().current();
    let number = |frame: Frame<'_>| match frame {
        Frame::Control(control) => 100 + control.op(),
        frame => frame.kind() as u8,
    };
    let numbers: HashSet<u8> = (0..VARIANTS).map(|variant| number(parts.frame(variant, &[]))).collect();
    let all = (0..=11).filter(|kind| *kind != 5).chain(100..122);
    assert_eq!(numbers, all.collect());
}

#[test]
fn the_plain_event_head_is_ten_constant_bytes() {
    let mut out = [0xaa; 12];
    let start = begin_event(&mut out, None, &Headers::EMPTY, Encoding::Json).unwrap();
    out[start..].copy_from_slice(b"{}");
    finish_payload(&mut out, start, 2);
    assert_eq!(&out, b"\x94\x02\xc0\xc0\xc6\0\0\0\x03\x02{}");
    assert_eq!(plain_event_head(Encoding::Json, 2).as_ref().map(|head| &head[..]), Some(&out[..start]));
    // Four bytes of a length that are in this order only.
    let long = plain_event_head(Encoding::Json, 0x0102_0303).unwrap();
    assert_eq!(long, [0x94, 2, 0xc0, 0xc0, 0xc6, 1, 2, 3, 4, 2]);
    assert_eq!(plain_event_head(Encoding::Raw, u32::MAX as usize), None);
}

#[test]
fn an_unknown_status_is_unknown() {
    let decoded = Frame::decode(&[0x95, 7, 1, 0xcc, 200, 0xc0, 0xc0]).unwrap();
    assert_eq!(decoded, Frame::End { id: 1, status: Code::Unknown, message: None, headers: Headers::EMPTY });
    for number in 0..17 {
        assert_eq!(Code::from_wire(number) as u64, number);
    }
}
