//! Which of several logs is looked at.

use super::Inlet;
use crate::bus::reading::Source;
use crate::bus::turns::Turn;
use crate::ring::Look;

/// Looks in vain of a port with several logs, of which but one goes all the way round them; the others are at the log
/// that had the last record, and at a few of the rest ([`GLANCES`]).
const ROUND: u32 = 64;

/// Logs beside the one that had the last record that are glanced at in each look at that, but for one alone after a record:
/// if one has something, the look goes all the way round. So a port that waits for its busy log is never long away from it,
/// whatever else it reads.
const GLANCES: usize = 2;

/// Records that are taken from the log that had the last one without a glance at another, if they were seen when its
/// tail was read: what waits in an idle log waits for so many records for each log at most.
const BURST: u32 = 8;

impl Inlet {
    /// A look of a port with several logs. Whatever is found in one, be it a record or word of drops or of the log's end,
    /// it has had its turn.
    #[inline(never)]
    pub(super) fn find(&mut self, full: bool) -> Option<(usize, Look)> {
        let Self { sources, turns, left_full, .. } = self;
        if !full
            && self.burst < BURST
            && let Some(log) = turns.stays()
            && sources[log].reader.has_more()
            && let Some(found) = sources[log].look(false)
        {
            self.burst += 1;
            turns.stayed();
            return Some((log, found));
        }
        self.burst = 0;
        // Several logs are busy: the next one mostly has something.
        let next = turns.first();
        if self.idle == 0
            && !full
            && next != turns.hot()
            && let Some(log) = next
            && let Some(found) = sources[log].look(false)
        {
            turns.took(Turn::first(log));
            return Some((log, found));
        }
        // One is busy, or none: for each look at it, one or two others in turn. Not when it is the turn of a lower class.
        let few = if self.idle == 0 { 1 } else { GLANCES };
        let hot = next.and(turns.hot()).filter(|hot| {
            !full && self.idle % ROUND != ROUND - 1 && !glance(sources, &mut self.glanced, few, *hot)
        });
        let (turn, found) = match hot {
            Some(log) => (Turn::first(log), sources[log].look(false)?),
            None => {
                turns.go_on();
                turns.find(|log, below| {
                    *left_full -= usize::from(!below && *left_full > 0);
                    sources[log].look(full || below)
                })?
            }
        };
        turns.took(turn);
        Some((turn.log, found))
    }
}

/// Whether any of the next `few` logs has something, but for the `hot` one.
#[inline(always)]
fn glance(sources: &[Source], glanced: &mut usize, few: usize, hot: usize) -> bool {
    (0..few).any(|_| {
        *glanced = if *glanced + 1 < sources.len() { *glanced + 1 } else { 0 };
        *glanced != hot && sources.get(*glanced).is_some_and(|source| !source.reader.quiet())
    })
}
