//! What frames cost: laid by hand, through rmp-serde, and as JSON.

use std::hint::black_box;
use std::time::Instant;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::super::Outcome;
use super::event::Event;
use super::figures::{Figures, median_of};
use super::host::{Counted, Glance, Part, around, calculate};
use super::{Bench, Effort};
use crate::bus::codec::{self, Body, Value};
use crate::frame::{Encoding, Headers, begin_event, finish_payload, plain_event, plain_event_head};
use crate::segment::Via;
use crate::sys::affinity;

/// Encoding and decoding of an event's frame, beside rmp-serde and JSON
#[derive(Debug, Args)]
#[command(after_long_help = "\
On one thread, without a bus. `encode_ns` and `decode_ns` are an event of 64 bytes as ports lay and read it, payload
copied in; `rmp_serde_roundtrip_ns` is the same frame encoded and decoded by rmp-serde into memory that is there
already, strings and bytes borrowed; `ratio_encode` and `ratio_decode` hold the first two against its halves.
`typed_…` has the value that `bench latency --help` describes for a payload; `json_roundtrip_ns` is the same message
(kind, topic, headers, value) through serde_json, and `ratio_json` how much longer that takes than
`typed_encode_ns` and `typed_decode_ns` together.")]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) effort: Effort,
}

/// Times of operations between two readings of the clock.
const BATCH: u64 = 1_000;
/// What is measured in turn.
const OPERATIONS: usize = 7;

/// An event's frame, as rmp-serde sees it.
#[derive(Serialize, Deserialize)]
struct Envelope<'a>(u8, Option<&'a str>, Option<()>, #[serde(borrow)] Bin<'a>);

/// Bytes that serde takes for a bin, not for an array of numbers.
struct Bin<'a>(&'a [u8]);

impl Serialize for Bin<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Bin<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Bin)
    }
}

/// The same message in JSON.
#[derive(Serialize, Deserialize)]
struct JsonEnvelope<'a> {
    kind: u8,
    topic: Option<&'a str>,
    headers: Option<()>,
    payload: Event,
}

fn encode(out: &mut [u8], payload: &[u8]) -> Outcome<usize> {
    let head = plain_event_head(Encoding::Raw, payload.len()).ok_or("the payload is too long")?;
    let (first, rest) = out.split_first_chunk_mut().ok_or("the head has no room")?;
    *first = head;
    rest.get_mut(..payload.len()).ok_or("the payload has no room")?.copy_from_slice(payload);
    Ok(head.len() + payload.len())
}

fn typed_encode(out: &mut [u8], event: &Event) -> Outcome<usize> {
    let start = begin_event(out, None, &Headers::default(), Encoding::MessagePack)?;
    let body = Value { value: event, compact: false };
    let len = body.write(&mut out[start..], Via::Caches).map_err(|_| "the event has no room")?;
    finish_payload(out, start, len);
    Ok(start + len)
}

/// The bytes of a frame's payload, as a port finds them: by the commonest head, which these frames have.
fn decode(frame: &[u8]) -> Outcome<&[u8]> {
    let span = plain_event(frame, frame.len()).ok_or("the frame has another head")?;
    Ok(&frame[span.start..span.start + span.len])
}

pub(super) fn measure(bench: &Bench) -> Outcome<Figures> {
    // On a thread of its own: processes that are started later must not inherit its CPU.
    let placement = format!("one thread on CPU {}", bench.cpus.first().copied().unwrap_or_default());
    std::thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            if let Some(cpu) = bench.cpus.first() {
                affinity::pin(*cpu)?;
            }
            measure_here(bench, &placement)
        });
        measuring.join().map_err(|_| "measuring has panicked")?
    })
}

fn measure_here(bench: &Bench, placement: &str) -> Outcome<Figures> {
    let payload = [7; 64];
    let event = Event::of_payload(64);
    let tagged = [&[1][..], &payload].concat();
    let (mut frame, mut typed, mut serde_frame) = ([0; 512], [0; 512], [0; 512]);
    let len = encode(&mut frame, &payload)?;
    let typed_len = typed_encode(&mut typed, &event)?;
    let encode_serde = |mut room: &mut [u8]| -> Outcome<usize> {
        let free = room.len();
        let envelope = Envelope(2, None, None, Bin(&tagged));
        rmp_serde::encode::write(&mut room, black_box(&envelope))?;
        Ok(free - room.len())
    };
    let serde_len = encode_serde(&mut serde_frame)?;
    let json = JsonEnvelope { kind: 2, topic: None, headers: None, payload: event.clone() };
    let mut text = serde_json::to_vec(&json)?;

    // One CPU: there is no line, and nobody else's calculation.
    let glance = || {
        let work = calculate();
        Glance { line: 0.0, work: [work; 2] }
    };
    let mut parts = Vec::new();
    let mut before = glance();
    for _ in 0..bench.repetitions {
        bench.interrupt.check()?;
        let seconds = bench.seconds / OPERATIONS as f64;
        let measured = [
            timed(seconds, || encode(black_box(&mut frame), black_box(&payload)))?,
            timed(seconds, || Ok(black_box(decode(black_box(&frame[..len]))?).len()))?,
            timed(seconds, || typed_encode(black_box(&mut typed), black_box(&event)))?,
            timed(seconds, || {
                let payload = decode(black_box(&typed[..typed_len]))?;
                Ok(black_box(codec::decode::<Event>(payload)?).label.len())
            })?,
            timed(seconds, || encode_serde(black_box(&mut serde_frame)))?,
            timed(seconds, || {
                let bytes = black_box(&serde_frame[..serde_len]);
                Ok(black_box(rmp_serde::from_slice::<Envelope<'_>>(bytes)?).3.0.len())
            })?,
            timed(seconds, || {
                text.clear();
                serde_json::to_writer(&mut text, black_box(&json))?;
                let message: JsonEnvelope<'_> = serde_json::from_slice(black_box(&text))?;
                Ok(black_box(message).payload.label.len())
            })?,
        ];
        let after = glance();
        parts.push(Part { measured, around: [before, after] });
        before = after;
    }
    let times: Vec<[f64; OPERATIONS]> = Counted::among([around(&parts)]).of(parts);
    let operations = std::array::from_fn(|operation| median_of(&times, |times| times[operation]));
    let [encode, decode, typed_encode, typed_decode, serde_encode, serde_decode, json] = operations;
    let figures = Figures::default()
        .time("encode_ns", encode)
        .time("decode_ns", decode)
        .time("rmp_serde_roundtrip_ns", serde_encode + serde_decode)
        .time("json_roundtrip_ns", json)
        .time("rmp_serde_encode_ns", serde_encode)
        .time("rmp_serde_decode_ns", serde_decode)
        .time("typed_encode_ns", typed_encode)
        .time("typed_decode_ns", typed_decode)
        .ratio("ratio_encode", encode / serde_encode)
        .ratio("ratio_decode", decode / serde_decode)
        .ratio("ratio_json", json / (typed_encode + typed_decode));
    Ok(bench.about_counted(figures, times.len(), placement))
}

/// Nanoseconds of one operation, over so many seconds.
fn timed(seconds: f64, mut operation: impl FnMut() -> Outcome<usize>) -> Outcome<f64> {
    let start = Instant::now();
    let mut count = 0;
    loop {
        for _ in 0..BATCH {
            black_box(operation()?);
        }
        count += BATCH;
        let taken = start.elapsed();
        if taken.as_secs_f64() >= seconds {
            return Ok(taken.as_nanos() as f64 / count as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frames_that_are_compared_are_the_same() {
        let payload = [7; 64];
        let mut frame = [0; 512];
        let len = encode(&mut frame, &payload).unwrap();
        assert_eq!(decode(&frame[..len]).unwrap(), payload);

        let Envelope(kind, topic, headers, Bin(tagged)) = rmp_serde::from_slice(&frame[..len]).unwrap();
        assert_eq!((kind, topic, headers), (2, None, None));
        assert_eq!(tagged[1..], payload);

        let event = Event::of_payload(64);
        let len = typed_encode(&mut frame, &event).unwrap();
        let value: Event = rmp_serde::from_slice(decode(&frame[..len]).unwrap()).unwrap();
        assert_eq!(value, event);
    }
}
