//! Frames that no honest node sends: those of every kind, some of their elements changed, cut off or drawn out.
//!
//! They are decoded in all the ways in which nodes do it, and what that allocates is bounded by what was received.

use std::hint::black_box;

use ringbus::Headers;
use ringbus::internals::control;
use ringbus::internals::frame::{self, Control, Frame, HeadError, MAX_DATAGRAM, MAX_HEAD, decode_head};

use crate::counting::most_allocated;
use crate::each;
use crate::random::Random;
use crate::wire::{harm, length};

#[path = "../../src/frame/tests/parts.rs"]
mod parts;

/// Frames that are made of one frame of each kind.
const EACH: u64 = 8 * parts::VARIANTS as u64;

fn text(random: &mut Random) -> String {
    let most = random.pick(&[4, 20, 20, 300]);
    "täsk/*/~".chars().cycle().take(random.index(most)).collect()
}

fn parts(random: &mut Random) -> parts::Parts {
    let count = |random: &mut Random| {
        let most = random.pick(&[2, 4, 4, 70]);
        random.index(most)
    };
    let maybe = random.once_in(2).then(|| random.word());
    let (pairs, words, counters) = (count(random), count(random), count(random));
    let bytes = random.pick(&[4, 64, 2000]);
    parts::Parts {
        numbers: std::array::from_fn(|_| random.word()),
        word: random.word() as u32,
        half: random.word() as u16,
        byte: random.word() as u8,
        flag: random.once_in(4),
        id: [random.word() as u8; 16],
        maybe,
        text: text(random),
        note: random.once_in(2).then(|| text(random)),
        pairs: (0..pairs).map(|_| (text(random), text(random))).collect(),
        words: (0..words).map(|_| text(random)).collect(),
        counters: (0..counters).map(|_| (text(random), random.word())).collect(),
        bytes: vec![random.word() as u8; random.index(bytes)],
    }
}

/// As nodes do it: whole, and head first; datagrams; and what they keep of either.
fn decode(bytes: &[u8]) -> bool {
    let frame = Frame::decode(bytes);
    match &frame {
        Ok(Frame::Message { head, .. }) => drop(black_box(Headers::from(head.headers()))),
        Ok(Frame::Control(control)) => drop(black_box(control::message(control))),
        Ok(Frame::End { headers, .. }) => drop(black_box(Headers::from(*headers))),
        Ok(_) => {}
        Err(error) => drop(black_box(error.to_string())),
    }
    let mut prefix = bytes.len().min(256);
    loop {
        match decode_head(&bytes[..prefix], bytes.len()) {
            Err(HeadError::Short { needed }) => {
                assert!(prefix < needed && needed <= bytes.len() && needed <= MAX_HEAD);
                prefix = needed;
            }
            Ok((head, span)) => {
                assert!(span.start + span.len <= bytes.len());
                drop(black_box(Headers::from(head.headers())));
                break;
            }
            Err(HeadError::NoPayload(_)) => break,
            Err(HeadError::Invalid(error)) => {
                assert_eq!(frame, Err(error));
                break;
            }
        }
    }
    assert_eq!(Control::decode(bytes).is_ok(), matches!(frame, Ok(Frame::Control(_))));
    frame.is_ok()
}

#[track_caller]
fn check(bytes: &[u8]) -> bool {
    let (good, most) = most_allocated(|| decode(bytes));
    assert!(
        most <= 2 * bytes.len() + (64 << 10),
        "{most} bytes for a frame of {}: {}",
        bytes.len(),
        hex(bytes)
    );
    good
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(200).map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn hostile_frames_cost_no_more_than_what_was_received() {
    let (mut total, mut good, mut bytes) = (0u64, 0u64, 0u64);
    let cases = crate::setting("RINGBUS_FRAMES", 60_000u64).div_ceil(EACH);
    let (mut whole, mut harmed) = (vec![0; 1 << 20], Vec::new());
    each(&format!("× {EACH} frames"), "", cases, |mut random| {
        let parts = parts(&mut random);
        let port_stats = parts.port_stats();
        for variant in 0..parts::VARIANTS {
            let frame = parts.frame(variant, &port_stats);
            let Ok(len) = frame.encode(&mut whole) else { continue };
            for round in 0..8 {
                harmed.clear();
                harmed.extend_from_slice(&whole[..len]);
                for _ in 0..round.min(3) {
                    harm(&mut harmed, &mut random);
                }
                let decoded = check(&harmed);
                assert!(decoded || round > 0, "as it was encoded: {}", hex(&harmed));
                (total, good, bytes) = (total + 1, good + u64::from(decoded), bytes + harmed.len() as u64);
            }
        }
    });
    crate::tell(format_args!("{total} frames of {} bytes each, {good} of them good", bytes / total.max(1)));
    assert!(good > total / 8 && good < total / 8 * 7, "{good} of {total}");
}

/// Counts and lengths that are as large as they may be, with as little behind them as there can be.
#[test]
fn the_dearest_frames_cost_no_more_than_what_was_received() {
    // [port, role, name, messages, bytes, dropped, blocked_ns, lag, peers]
    let one = [0x99, 0, 0, 0xa0, 0, 0, 0, 0, 0, 0];
    let mut most = 0;
    for count in [1, 16, 100, 500, 512, 1000, 1024, 1025, 6000] {
        // stats_reply [5, 15, request, taken, uptime, more, ports]
        let mut bytes = vec![0x97, 5, 15, 0, 0, 0, 0xc2];
        length(&mut bytes, 0xdc, count);
        (0..count).for_each(|_| bytes.extend_from_slice(&one));
        assert!(bytes.len() <= MAX_DATAGRAM);
        if check(&bytes) {
            most = count;
        }
    }
    assert!(most >= 500, "honest nodes send 128 at once");
    for (head, element) in [
        (&[0x94, 2, 0xc0][..], &b"\xa0\xa0"[..]), // an event's headers
        (&[0x94, 4, 0, 0], b"\xa0\x00"),          // a heartbeat's counters
        (&[0x99, 5, 3, 1, 1], b"\xa0"),           // a port's filters
    ] {
        for count in [1, 63, 64, 65, 5000] {
            let map = if element.len() == 2 { 0xde } else { 0xdc };
            let mut bytes = head.to_vec();
            length(&mut bytes, map, count);
            (0..count).for_each(|_| bytes.extend_from_slice(element));
            bytes.extend([0, 0xc0, 0xc0, 0xc0]);
            check(&bytes);
        }
    }
    // A text in an error is as long as it was received.
    let long = "\u{1}".repeat(frame::MAX_STRING);
    let mut bytes = vec![0x94, 5, 19, 0];
    length(&mut bytes, 0xda, long.len());
    bytes.extend(long.bytes());
    assert!(check(&bytes));
}
