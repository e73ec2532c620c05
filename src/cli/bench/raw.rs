//! The yardstick of yardsticks: a word on a cache line for each direction, bounced with plain loads and stores.

use std::sync::atomic::Ordering::{Acquire, Release};

use super::super::Outcome;
use super::bare::{fd_of, open};
use super::child::Side;
use super::line;
use super::protocol::Place;
use crate::segment::{Memory, MemoryMut, PeerSegment, Sealed, page_size};

pub(super) struct Line {
    own: Sealed,
    peer: PeerSegment,
    seen: u64,
}

/// Where the word stands in either segment: alone on its page.
const WORD: usize = 0;

impl Line {
    pub(super) fn open(side: Side<'_>) -> Outcome<Self> {
        let own = Sealed::create("ringbus-bench-line", page_size(), true)?;
        let place = Place { pid: std::process::id(), fds: vec![fd_of(&own)] };
        let peer = side.exchange(place, |place| open(place, 0))?;
        Ok(Self { own, peer, seen: 0 })
    }
}

impl line::Line for Line {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Outcome {
        self.own.store(WORD, number, Release); // pairs with the Acquire load below, of the other process
        Ok(())
    }

    #[inline(always)]
    fn receive(&mut self) -> Outcome<u64> {
        loop {
            let number = self.peer.load(WORD, Acquire); // pairs with the Release store above, of the other process
            if number != self.seen {
                self.seen = number;
                return Ok(number);
            }
        }
    }
}
