//! What the control thread has told the port: logs that come and end, and their blobs.

use std::sync::atomic::Ordering::Relaxed;

use super::Inlet;
use crate::bus::error::RecvError;
use crate::bus::reading::Change;

impl Inlet {
    #[cold]
    pub(super) fn take_changes(&mut self) {
        let shared = self.shared.clone();
        let mut changes = shared.changes.lock();
        self.generation = shared.generation.load(Relaxed);
        for change in changes.drain(..) {
            match change {
                Change::Add(source) => self.admit(*source),
                Change::Abandoned { key } => self.abandon(key),
                Change::End { key, until, gated } => {
                    let all = self.sources.iter_mut().chain(self.succession.waiting_mut());
                    for source in all.filter(|source| source.key == key) {
                        source.reader.end_at(until);
                        source.ended = true;
                        if !gated {
                            source.lose_gate();
                        }
                    }
                }
                Change::Blob { key, blob, memory } => {
                    let mut all = self.sources.iter_mut().chain(self.succession.waiting_mut());
                    if let Some(source) = all.find(|source| source.key == key) {
                        source.reader.add_blob(blob, memory);
                    }
                }
                Change::BlobGone { key, blob } => {
                    let mut all = self.sources.iter_mut().chain(self.succession.waiting_mut());
                    if let Some(source) = all.find(|source| source.key == key) {
                        source.reader.remove_blob(blob);
                    }
                }
                Change::Failed { node, reason } => {
                    self.failed.push(RecvError::Unattached { source_node: node, reason });
                }
            }
        }
    }
}
