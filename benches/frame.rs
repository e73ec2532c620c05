//! What an envelope costs: hand-laid, against the same array through rmp-serde.

use criterion::{Criterion, criterion_group, criterion_main};
use ringbus::internals::frame::{Encoding, Headers, begin_event, decode_head, finish_payload};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hint::black_box;

const PAYLOAD: [u8; 64] = [7; 64];
const TOPIC: &str = "task/42/progress";
const HEADERS: [(&str, &str); 2] =
    [("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), ("tenant", "blue")];

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

#[derive(Serialize, Deserialize)]
struct Envelope<'a>(
    u8,
    Option<&'a str>,
    #[serde(borrow)] Option<BTreeMap<&'a str, &'a str>>,
    #[serde(borrow)] Bin<'a>,
);

fn encode(out: &mut [u8], topic: Option<&str>, headers: &Headers<'_>) -> usize {
    let start = begin_event(out, topic, headers, Encoding::Raw).unwrap();
    let end = start + PAYLOAD.len();
    out[start..end].copy_from_slice(black_box(&PAYLOAD));
    finish_payload(out, start, PAYLOAD.len());
    end
}

fn events(criterion: &mut Criterion) {
    let tagged = [&[1][..], &PAYLOAD].concat();
    for (name, topic, pairs) in
        [("plain", None, &HEADERS[..0]), ("topic+2 headers", Some(TOPIC), &HEADERS[..])]
    {
        let headers = Headers::from_slice(pairs);
        let mut out = [0; 512];
        let mut group = criterion.benchmark_group(format!("event 64 B, {name}"));

        group.bench_function("encode", |bencher| {
            bencher.iter(|| encode(black_box(&mut out), black_box(topic), black_box(&headers)))
        });
        let len = encode(&mut out, topic, &headers);
        group.bench_function("decode", |bencher| {
            bencher.iter(|| decode_head(black_box(&out[..len.min(256)]), black_box(len)).unwrap())
        });

        let map = (!pairs.is_empty()).then(|| pairs.iter().copied().collect());
        let envelope = Envelope(2, topic, map, Bin(&tagged));
        group.bench_function("encode, rmp-serde", |bencher| {
            bencher.iter(|| {
                let mut room = black_box(&mut out[..]);
                rmp_serde::encode::write(&mut room, black_box(&envelope)).unwrap();
                room.len()
            })
        });
        let bytes = rmp_serde::to_vec(&envelope).unwrap();
        group.bench_function("decode, rmp-serde", |bencher| {
            bencher.iter(|| rmp_serde::from_slice::<Envelope<'_>>(black_box(&bytes)).unwrap().3.0.len())
        });
        group.finish();
    }
}

criterion_group!(benches, events);
criterion_main!(benches);
