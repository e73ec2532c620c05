//! A publish that counts is seen by whoever halts the log.

use loom::thread;

use super::{FENCE, write};
use crate::ring::sync::Arc;
use crate::ring::{Gates, layout};

/// Preemption bound 3.
#[test]
fn a_publish_that_counts_is_seen_by_whoever_halts() {
    super::model(3, || {
        let (log, gates, mut writer) = {
            let gates: Arc<Gates<_, ()>> = Arc::new(Gates::new());
            let log = super::Shared::new(false);
            (log.clone(), gates.clone(), super::Writer::new(log, super::layout(), gates))
        };
        let publishing = thread::spawn(move || {
            let mut counted = 0;
            for value in 0..2 {
                if write(&mut writer, value).is_err() || !writer.ring(|()| true, |()| ()) {
                    break;
                }
                counted += 1;
            }
            counted
        });
        gates.halt(FENCE);
        let seen = layout::tail(&log) / 32;
        let counted: u64 = publishing.join().unwrap();
        assert!(counted <= seen, "{counted} count, {seen} are seen");
    });
}
