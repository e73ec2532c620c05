//! Heads laid by hand, against the general way.

use super::frame::head::decode_any_head;
use super::frame::plain::{LONGEST, begin, decode, prefix_len};
use super::frame::write::Writer;
use super::frame::{Code, Encoding, Head, Headers, finish_payload, mark_compressed};
use super::roundtrip::number;
use proptest::prelude::*;

fn heads() -> impl Strategy<Value = (u64, String, Option<u64>)> {
    (number(), "\\PC{0,33}", prop::option::of(number()))
}

/// A request and a response, and whether they are plain.
fn both<'a>(id: u64, method: &'a str, deadline: Option<u64>) -> [(Head<'a>, bool); 2] {
    let headers = Headers::EMPTY;
    [
        (Head::Request { id, method, deadline, headers }, method.len() < 32),
        (Head::Response { id, status: Code::Ok, message: None, headers }, true),
    ]
}

proptest! {
    #[test]
    fn the_bytes_are_those_of_the_general_way((id, method, deadline) in heads(), tag in 0..3u8) {
        for (head, is_plain) in both(id, &method, deadline) {
            let (mut plain, mut general) = ([0x55; LONGEST + 300], [0x55; LONGEST + 300]);
            let mut writer = Writer::new(&mut general);
            head.write(&mut writer, 0, tag);
            let len = writer.finish().unwrap();
            let begun = begin(&head, &mut plain, tag);
            prop_assert_eq!((begun, prefix_len(&head)), (is_plain.then_some(len), is_plain.then_some(len)));
            if is_plain {
                prop_assert_eq!(&plain[..len], &general[..len]);
            }
            prop_assert_eq!(begin(&head, &mut plain[..LONGEST - 1], tag), None, "too little room for any");
        }
    }

    #[test]
    fn what_is_read_is_read_the_general_way_too(
        (id, method, deadline) in heads(),
        payload in prop::collection::vec(any::<u8>(), 0..20),
        (spoilt, by, cut) in (0..80usize, any::<u8>(), 0..100usize),
    ) {
        for (head, is_plain) in both(id, &method, deadline) {
            let mut frame = vec![0; 400];
            let start = head.begin(&mut frame, Encoding::Raw).unwrap();
            frame.truncate(start);
            frame.extend(&payload);
            finish_payload(&mut frame, start, payload.len());
            let found = decode(&frame, frame.len());
            prop_assert_eq!(found.is_some(), is_plain);
            if is_plain {
                prop_assert_eq!(found, decode_any_head(&frame, frame.len()).ok());
            }
            // Compressed, it is as plain.
            mark_compressed(&mut frame, start);
            let found = decode(&frame, frame.len());
            prop_assert!(found.is_none_or(|(_, span)| span.compressed));
            prop_assert_eq!(found, decode_any_head(&frame, frame.len()).ok().filter(|_| is_plain));
            // Whatever is wrong: what is found is what the general way finds.
            let len = frame.len();
            frame[spoilt % len] ^= by;
            for prefix in [&frame[..], &frame[..cut.min(len)]] {
                if let Some(found) = decode(prefix, len) {
                    prop_assert_eq!(Some(found), decode_any_head(prefix, len).ok());
                }
            }
        }
    }
}
