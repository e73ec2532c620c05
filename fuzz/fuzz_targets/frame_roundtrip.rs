//! Any values: what can be encoded decodes to the same, whole and head first.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringbus::internals::frame::{self, EncodeError, Frame, decode_head, finish_payload, mark_compressed};

#[path = "../../src/frame/tests/parts.rs"]
mod parts;

fuzz_target!(|input: (u8, parts::Parts)| {
    let (variant, parts) = input;
    let port_stats = parts.port_stats();
    let frame = parts.frame(usize::from(variant) % parts::VARIANTS, &port_stats);
    let mut bytes = vec![0; frame.encoded_len()];
    match frame.encode(&mut bytes) {
        Ok(len) => assert_eq!(len, bytes.len()),
        Err(EncodeError::TooLong { .. }) => return,
        Err(error) => panic!("{error}"),
    }
    assert_eq!(Frame::decode(&bytes), Ok(frame));

    if let Frame::Message { head, payload } = frame {
        let start = head.prefix_len();
        let (found, span) = decode_head(&bytes[..start], bytes.len()).unwrap();
        assert_eq!((found, span.start, span.len), (head, start, payload.bytes.len()));
        assert_eq!((span.encoding, span.compressed), (payload.encoding, payload.compressed));

        let mut out = vec![0xaa; bytes.len()];
        assert_eq!(head.begin(&mut out, payload.encoding), Ok(start));
        out[start..].copy_from_slice(payload.bytes);
        finish_payload(&mut out, start, payload.bytes.len());
        if payload.compressed {
            mark_compressed(&mut out, start);
        }
        assert_eq!(out, bytes);
    }
});
