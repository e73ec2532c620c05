//! Readers that lie about how far they are and what they keep: their writer looks at a bounded number of words, drops
//! those whose cursors make no sense, and overwrites nothing that an honest one may look at.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ringbus::internals::ring::writer::ClaimError;
use ringbus::internals::ring::{
    Blob, BlobHeader, CursorSegment, Gates, HEADER, Kind, LogHeader, LogLayout, Recovery, Writer,
};
use ringbus::internals::segment::{Heap, Memory};

use crate::each;
use crate::memory::Peers;
use crate::random::Random;

const CAPACITY: u64 = 512;
const CURSOR: usize = 256;

fn harmed(random: &mut Random, at: usize, old: u64) -> u64 {
    match (at, random.below(6)) {
        (CURSOR, 0) => old.wrapping_sub(16 * random.below(40)),
        (CURSOR, 1..4) => old.wrapping_add(16 * random.below(40)),
        (_, 4) => random.word(),
        (CURSOR.., _) => random.below(4), // a hold
        _ => old ^ 1 << random.below(64),
    }
}

#[test]
fn hostile_states_of_cursors_do_no_harm() {
    let layout = LogLayout::new(CAPACITY).unwrap();
    let (log, blob_memory) = (Heap::new(layout.segment_size()), Heap::new(4096));
    let segments = [Peers::new(512), Peers::new(512)];
    let (mut lost, mut total) = (0u64, 0u64);
    each("states of cursors", "RINGBUS_STATES", 60_000, |mut random| {
        total += 1;
        layout.initialise(&log, &LogHeader { log: 1, node: [2; 16], port: 3 });
        for segment in &segments {
            segment.change(None);
            (0..512).step_by(8).for_each(|at| segment.set(at, 0));
        }
        #[allow(clippy::arc_with_non_send_sync)] // as a writer wants it
        let gates = Arc::new(Gates::new());
        let mut writer = Writer::new(log.clone(), layout, gates.clone());
        let [honest, _] = [0, 1].map(|index| {
            let segment: &Peers = &segments[index];
            let gate = gates.add_first(segment.clone(), ()).unwrap();
            assert!(gates.follow(gate.number(), segment.clone(), CURSOR));
            gate
        });
        // The first is honest, and reads what it likes; the second is not.
        if random.once_in(2) {
            segments[1].change(Some((random.clone(), harmed)));
        }
        let mut blob = Blob::new(blob_memory.clone(), &BlobHeader { log: 1, node: [2; 16], blob: 1 });
        let (mut published, mut read) = (0, 0);
        for _ in 0..random.below(12) {
            if random.once_in(3) {
                let at = random.pick(&[CURSOR, CURSOR, 128, 136, CURSOR + 8, CURSOR + 8 * 15]);
                let old = segments[1].word(at);
                segments[1].set(at, harmed(&mut random, at, old));
            }
            if random.once_in(3) {
                read = published;
                segments[0].set(CURSOR, read);
            }
            segments[1].take_loads();
            let body = random.below(CAPACITY / 4 - HEADER + 1);
            let claimed = if blob.end().is_none() && random.once_in(4) {
                writer.claim(32).map(|()| {
                    let naming = writer.name_blob(&mut blob, 4000, 64);
                    writer.publish_blob(&mut blob, &naming);
                })
            } else {
                writer.claim(body).map(|()| writer.commit(Kind::Frame, 0, 0, body as usize))
            };
            assert!(matches!(claimed, Ok(()) | Err(ClaimError::Full)));
            writer.publish();
            writer.ring(|()| true, |()| {});
            published = log.load(128, Relaxed);
            // Nothing that the honest one may look at is overwritten.
            assert!(published <= read + CAPACITY && honest.position() <= read);
            if random.once_in(3) {
                writer.look_at_cursors();
                if writer.recover(&mut blob) == Recovery::Back {
                    assert!(!blob.bytes_mut(4000, 64).is_empty());
                }
            }
            if random.once_in(4) {
                let _ = (writer.slowest(), writer.holder(), gates.lag(published), gates.behind(published));
            }
            let loads = segments[1].take_loads();
            assert!(loads <= 80, "{loads} loads");
            for (number, _) in writer.take_corrupt() {
                assert_ne!(number, honest.number());
                gates.remove(number);
                lost += 1;
            }
        }
    });
    assert!(lost > total / 20 && CursorSegment::of_size(512).slots() == 2, "{lost} of {total}");
}
