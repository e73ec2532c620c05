//! Any bytes: decoding ends in a value or in an error, whichever way they are decoded; a value becomes
//! bytes that decode to the same value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringbus::internals::frame::{Control, DecodeError, Frame, HeadError, MAX_HEAD, decode_head};

fuzz_target!(|bytes: &[u8]| {
    let frame = Frame::decode(bytes);
    if let Ok(frame) = frame {
        let mut again = vec![0; frame.encoded_len()];
        // A control frame may be written a few bytes longer than it was read, over the datagram's limit.
        if frame.encode(&mut again).is_ok() {
            assert_eq!(Frame::decode(&again), Ok(frame));
        }
    }
    match Control::decode(bytes) {
        Ok(control) => assert_eq!(frame, Ok(Frame::Control(control))),
        Err(_) => assert!(!matches!(frame, Ok(Frame::Control(_)))),
    }

    // As a reader of a log does: a short prefix first, more of it as long as it asks for more.
    let mut prefix = bytes.len().min(16);
    loop {
        match decode_head(&bytes[..prefix], bytes.len()) {
            Err(HeadError::Short { needed }) => {
                assert!(prefix < needed && needed <= bytes.len() && needed <= MAX_HEAD);
                prefix = needed;
            }
            Ok((head, span)) => {
                let found = &bytes[span.start..span.start + span.len];
                match frame {
                    Ok(Frame::Message { head: same, payload }) => {
                        assert_eq!((head, found), (same, payload.bytes))
                    }
                    Ok(other) => panic!("{head:?} and {other:?}"),
                    // Only in what follows the payload, which `decode_head` does not look at.
                    Err(error) => assert!(matches!(
                        error,
                        DecodeError::Truncated { .. }
                            | DecodeError::Expected { .. }
                            | DecodeError::TooDeep { .. }
                            | DecodeError::Trailing { .. }
                    )),
                }
                break;
            }
            Err(HeadError::NoPayload(kind)) => {
                assert!(frame.is_err() || frame.is_ok_and(|frame| frame.kind() == kind));
                break;
            }
            Err(HeadError::Invalid(error)) => {
                assert_eq!(frame, Err(error));
                break;
            }
        }
    }
});
