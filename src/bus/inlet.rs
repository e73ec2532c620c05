//! The reading end of a port: the logs it reads, in turn, and its bell.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::core::Command;
use super::error::{OpenError, RecvError};
use super::node::NodeShared;
use super::reading::{InletShared, Origin, Purpose, Source, new_cursor_segment};
use super::stats::{Counters, PortStats};
use super::topic::Filter;
use crate::ring::{self, Bias, Look, Next, Waiter, layout};
use crate::wake::{Bell, Habit, Patience, Then, Wait, barrier};

mod changes;
mod search;
mod succession;

use search::Search;
use succession::Succession;

/// Records on topics that are none of the port's that are passed over between two looks at the clock: a busy
/// publisher over a pattern must not keep a caller beyond its timeout.
const UNWANTED: usize = 64;

/// Every so many looks, a log without a new record is looked at for what is no record: drops, the end. Of several, each
/// in turn.
const FULLY: u32 = 64;

/// Records in a row, without parking, after which a port promises not to park. To take that back costs a barrier
/// on other processors, some 12 µs: nothing beside so many records.
const BUSY: u32 = 1024;

/// Records one after the other, without a look in vain, that show a writer at work.
const STREAM: u32 = 8;

/// `PAUSE`s of a rest: some 400 ns.
const REST: u32 = 8;

/// Looks in vain before a port looks ahead.
const AHEAD: u32 = 4;

/// Logs of a port that looks ahead in all of them: each costs a few instructions a look.
const FEW: usize = 4;

/// The reading end of a port, on its user's thread.
pub(super) struct Inlet {
    shared: Arc<InletShared>,
    node: Arc<NodeShared>,
    wait: Wait,
    habit: Habit,
    generation: u64,
    /// In the order of `search`.
    sources: Vec<Source>,
    search: Search,
    /// Looks until a log is next looked at in full.
    until_full: u32,
    /// All logs are to be looked at in full now.
    all_full: bool,
    /// Looks in vain since the last record.
    idle: u32,
    /// Records since the last look in vain.
    run: u32,
    /// To be told to the user before anything else.
    failed: Vec<RecvError>,
    /// Of which log messages were missed last.
    lost: Option<usize>,
    /// Logs of pairs that ended: nothing more comes from them.
    ended: Vec<Source>,
    succession: Succession,
    parked: Waiter,
    bias: Bias,
    /// Records since the port last parked.
    streak: u32,
}

impl Inlet {
    pub(super) fn open(
        node: &Arc<NodeShared>,
        purpose: Purpose,
        filters: Vec<Filter>,
        priority: u8,
        wait: Wait,
    ) -> Result<Self, OpenError> {
        if !node.origin.is_here() {
            return Err(OpenError::Forked);
        }
        if node.drains.is_closing() {
            return Err(OpenError::Draining);
        }
        let memory = |reason: String| OpenError::Memory { reason };
        let port = node.next_port();
        let segment =
            new_cursor_segment(*node.info.id().as_bytes(), port, 0).map_err(|e| memory(e.to_string()))?;
        let shared = Arc::new(InletShared {
            port,
            purpose,
            filters: filters.into(),
            priority,
            bell: Bell::new().map_err(|e| memory(e.to_string()))?,
            segment: Arc::new(segment),
            counters: Counters::default(),
            changes: Mutex::new(Vec::new()),
            generation: AtomicU64::new(0),
        });
        let inlet = Self {
            shared: shared.clone(),
            node: node.clone(),
            wait,
            habit: Habit::default(),
            generation: 0,
            sources: Vec::new(),
            search: Search::default(),
            until_full: 0,
            all_full: false,
            idle: 0,
            run: 0,
            failed: Vec::new(),
            lost: None,
            ended: Vec::new(),
            succession: Succession::default(),
            parked: Waiter::new(layout::PARKED),
            bias: Bias::default(),
            streak: 0,
        };
        node.ask(|reply| Command::OpenInlet { inlet: shared, reply })?;
        Ok(inlet)
    }

    pub(super) fn filters(&self) -> &[Filter] {
        &self.shared.filters
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    pub(super) fn stats(&self) -> PortStats {
        if !self.is_here() {
            return PortStats::default();
        }
        let all = self.sources.iter().chain(self.succession.waiting());
        let lag = all.map(|source| source.reader.lag()).sum();
        self.shared.counters.stats(lag, self.sources.len() + self.succession.count_cut_off())
    }

    #[inline(always)]
    pub(super) fn source(&self, index: usize) -> &Source {
        &self.sources[index]
    }

    pub(super) fn source_mut(&mut self, index: usize) -> &mut Source {
        &mut self.sources[index]
    }

    /// Whether this is the process that opened the port: in another its memory is not there.
    #[inline(always)]
    pub(super) fn is_here(&self) -> bool {
        self.node.origin.is_here()
    }

    /// Looks for a record, each log in its turn. The record stays in hand until [`Inlet::release`].
    ///
    /// # Errors
    /// What the port's user has to be told; the port goes on after it.
    ///
    /// Returns which log's it is. (Results that fit in registers: larger ones are written in words and read in pairs
    /// of them, for which a processor has to wait each time.)
    #[inline(always)]
    pub(super) fn next(&mut self) -> Result<Option<usize>, Box<RecvError>> {
        if !self.is_here() {
            return Err(Box::new(RecvError::Forked));
        }
        self.parked.disarm(&self.shared.segment);
        if self.shared.generation.load(Acquire) != self.generation {
            self.take_changes();
        }
        if let Some(failed) = self.failed.pop() {
            return Err(Box::new(failed));
        }
        let all = std::mem::take(&mut self.all_full);
        let one = !all && self.until_full == 0;
        if !all {
            self.until_full = if one { FULLY } else { self.until_full } - 1;
        }
        loop {
            let found = match &mut self.sources[..] {
                [only] => only.look(all || one).map(|found| (0, found)),
                sources if all => self.search.find_round(sources, true),
                sources => match if one { self.search.find_rest(sources) } else { None } {
                    None => self.search.find(sources, self.idle),
                    found => found,
                },
            };
            match found {
                // Whoever never sleeps is not told by `arm`.
                None if (all || one) && self.node.is_gone() => return Err(Box::new(RecvError::NodeGone)),
                None => {
                    self.look_ahead();
                    return Ok(None);
                }
                Some((log, Look::Record)) => {
                    self.idle = 0;
                    self.run = self.run.wrapping_add(1);
                    self.streak = self.streak.wrapping_add(1);
                    if self.streak == BUSY {
                        self.promise();
                    }
                    return Ok(Some(log));
                }
                Some((log, look)) => {
                    let other = self.sources[log].reader.found(look);
                    if let Some(error) = self.exception(log, other) {
                        return Err(Box::new(error));
                    }
                    // One log less: look again.
                }
            }
        }
    }

    /// The port has had much to read and has not parked for long: its writers need no fence until it does.
    #[cold]
    fn promise(&mut self) {
        if !self.bias.is_promised() && barrier::has_barriers() {
            self.bias.promise(&self.shared.segment);
        }
    }

    /// A port that has looked in vain for a while asks for the lines of what comes next: in each of its logs, or, if
    /// there are many, in the one that had the last record.
    #[inline(always)]
    fn look_ahead(&mut self) {
        if std::mem::take(&mut self.run) >= STREAM {
            rest();
        }
        self.idle = self.idle.saturating_add(1);
        if self.idle <= AHEAD {
            return;
        }
        if self.sources.len() <= FEW {
            self.sources.iter().for_each(|source| source.reader.prefetch());
        } else if let Some(hot) = self.search.hot().and_then(|hot| self.sources.get(hot)) {
            hot.reader.prefetch();
        }
    }

    /// What is not a record: mostly the end of a log, which needs no word to the user.
    #[cold]
    fn exception(&mut self, index: usize, found: Result<Next, ring::Corrupt>) -> Option<RecvError> {
        if let Ok(Next::Lagged(missed)) = found {
            self.lost = Some(index);
            self.search.owe(index);
            return Some(self.lagged(&self.sources[index].origin, missed));
        }
        match found {
            Err(why) => Some(self.cut(index, why)),
            Ok(end) => self.remove(index, None, matches!(end, Next::Closed(1..))).1,
        }
    }

    /// Whose messages were missed, right after [`RecvError::Lagged`]; `None` if that log has ended.
    pub(super) fn take_lost(&mut self) -> Option<usize> {
        self.lost.take()
    }

    #[inline(always)]
    pub(super) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Logs of pairs that have ended since the last call.
    pub(super) fn take_ended(&mut self) -> Vec<Source> {
        std::mem::take(&mut self.ended)
    }

    /// Stops reading a log whose writer broke the protocol, and has its node cut off.
    #[cold]
    pub(super) fn cut(&mut self, index: usize, why: ring::Corrupt) -> RecvError {
        let (origin, _) = self.remove(index, Some(why), false);
        RecvError::PeerCorrupt { source_node: origin.node.clone(), why }
    }

    /// Whose log it was, and what is to be told of that.
    fn remove(
        &mut self,
        index: usize,
        corrupt: Option<ring::Corrupt>,
        closed_for: bool,
    ) -> (Arc<Origin>, Option<RecvError>) {
        let source = self.sources.remove(index);
        let origin = source.origin.clone();
        self.search.remove(index);
        let missed = self.succeed(&source, closed_for);
        self.node.tell(Command::LogDone { port: self.shared.port, key: source.key, corrupt });
        if matches!(self.shared.purpose, Purpose::Client(_) | Purpose::Server { .. }) {
            self.ended.push(source);
        }
        (origin, missed)
    }

    /// The next look is at each log in full, as before a sleep.
    pub(super) fn look_fully(&mut self) {
        self.all_full = true;
    }

    /// Done with the record in hand.
    #[inline(always)]
    pub(super) fn release(&mut self, index: usize) {
        let source = &mut self.sources[index];
        source.reader.release();
        if source.reader.take_ring_due() {
            source.writer.ring();
        }
    }

    /// Prepares a sleep on the bell: false if there is something to look at first.
    pub(super) fn arm(&mut self) -> Result<bool, RecvError> {
        if !self.is_here() {
            return Err(RecvError::Forked);
        }
        for source in &mut self.sources {
            source.reader.release();
            source.reader.flush();
            if source.reader.take_ring_due() {
                source.writer.ring();
            }
        }
        self.all_full = true; // whatever ends the sleep, or forbids it, may be no record
        self.streak = 0;
        self.bias.withdraw(&self.shared.segment, barrier::on_all_processes);
        self.shared.bell.drain();
        self.parked.arm(&self.shared.segment);
        if self.is_ready() {
            self.parked.disarm(&self.shared.segment);
            return Ok(false);
        }
        if self.node.is_gone() {
            return Err(RecvError::NodeGone);
        }
        Ok(true)
    }

    /// Sleeps until the bell rings, or for `timeout`; after [`Inlet::arm`].
    pub(super) fn sleep(&self, timeout: Option<Duration>) {
        // An error is the kernel's refusal to poll: the caller looks again.
        let _ = self.shared.bell.wait(timeout);
    }

    pub(super) fn shared(&self) -> &Arc<InletShared> {
        &self.shared
    }

    /// For those that wait by other means than [`Inlet::wait`].
    pub(super) fn habit_mut(&mut self) -> &mut Habit {
        &mut self.habit
    }

    pub(super) fn sources_mut(&mut self) -> &mut [Source] {
        &mut self.sources
    }

    fn is_ready(&self) -> bool {
        self.shared.generation.load(Acquire) != self.generation
            || !self.failed.is_empty()
            || self.sources.iter().any(|source| source.ended || (!source.rests() && source.reader.is_ready()))
    }

    /// Looks until `deadline`, sleeping as the port's strategy says; whether anything came. `wanted` is asked
    /// about each record in hand, and releases those that are not for this port.
    ///
    /// # Errors
    /// What the port's user has to be told; `wanted` may add to it.
    #[inline(always)]
    pub(super) fn wait(
        &mut self,
        deadline: Option<Instant>,
        mut wanted: impl FnMut(&mut Self, usize) -> Result<bool, Box<RecvError>>,
    ) -> Result<bool, Box<RecvError>> {
        let mut patience = Patience::new(self.wait, deadline);
        loop {
            match self.take(&mut wanted)? {
                Taken::Wanted => {
                    patience.found(&mut self.habit);
                    return Ok(true);
                }
                // To hold filters against topics takes as long as those are: no further round after the deadline.
                Taken::Unwanted if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                    return Ok(false);
                }
                Taken::Unwanted | Taken::Nothing => {}
            }
            match patience.next(&mut self.habit) {
                Then::Look => {}
                Then::GiveUp => return self.take_fully(&mut wanted),
                Then::Sleep(timeout) => {
                    if self.arm().map_err(Box::new)? {
                        self.sleep(timeout);
                    }
                    patience.woke();
                }
            }
        }
    }

    /// [`Inlet::wait`] without waiting.
    #[inline(always)]
    pub(super) fn try_take(
        &mut self,
        mut wanted: impl FnMut(&mut Self, usize) -> Result<bool, Box<RecvError>>,
    ) -> Result<bool, Box<RecvError>> {
        match self.take(&mut wanted)? {
            Taken::Wanted => Ok(true),
            Taken::Unwanted => Ok(false),
            Taken::Nothing => self.take_fully(&mut wanted),
        }
    }

    #[inline(always)]
    fn take(
        &mut self,
        wanted: &mut impl FnMut(&mut Self, usize) -> Result<bool, Box<RecvError>>,
    ) -> Result<Taken, Box<RecvError>> {
        for _ in 0..UNWANTED {
            let Some(index) = self.next()? else { return Ok(Taken::Nothing) };
            if wanted(self, index)? {
                return Ok(Taken::Wanted);
            }
        }
        Ok(Taken::Unwanted)
    }

    /// The last look before the caller is told that there is nothing: at each log in full.
    #[cold]
    fn take_fully(
        &mut self,
        wanted: &mut impl FnMut(&mut Self, usize) -> Result<bool, Box<RecvError>>,
    ) -> Result<bool, Box<RecvError>> {
        for _ in 0..UNWANTED {
            self.all_full = true; // also after a record that is not wanted
            let Some(index) = self.next()? else { break };
            if wanted(self, index)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Has caught up with a writer that is at work: each further look would take from it the very lines that it
/// writes, and make it as slow as a line travels. After a short rest there are several records to read.
#[inline(never)]
fn rest() {
    for _ in 0..REST {
        std::hint::spin_loop();
    }
}

/// What a port's looks came to.
#[derive(PartialEq, Eq)]
enum Taken {
    Wanted,
    /// Nothing is there.
    Nothing,
    /// Only what is none of the port's.
    Unwanted,
}

impl AsFd for Inlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.bell.as_fd()
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.node.tell(Command::ClosePort { port: self.shared.port });
    }
}
