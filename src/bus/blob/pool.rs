//! The blobs of one log: which are free, which are out, and how much memory they take.

use std::collections::VecDeque;

use super::{MOST, SMALLEST, Shared};
use crate::ring::{Blob, Naming, Recovery, Writer};
use crate::segment::{Memory, MemoryMut};

/// Blobs that are out before another one is made, if that can wait; and bytes of them: some, and within a cache.
const AMPLE: usize = 2;
const AMPLE_BYTES: u64 = 512 << 10;

/// The same where payloads are copied in, or as many bytes. That takes as long as reading them, now longer and now less
/// long: with two blobs, both sides would wait for each other at each message.
const AMPLE_COPIED: usize = 6;
const AMPLE_COPIED_BYTES: u64 = 8 << 20;

/// Blobs of one size, and bytes of them, that are made before one is used again: looking which came back then costs
/// little a message.
const SEVERAL: u64 = 4;
const SEVERAL_BYTES: u64 = 256 << 10;

/// The same where readers without gates copy what they may no longer look at: they have the time until all of these
/// were written once more.
const LOSSY_BYTES: u64 = 16 << 20;
const LOSSY_LEAST: u64 = 2;

/// What to do for a blob.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::bus) enum Take {
    /// It is there, see [`Pool::lent`].
    Ready,
    /// Make one, after telling of those that are gone.
    Make { gone: Vec<u64> },
    /// Wait for one to come back, or to be shared.
    Wait,
}

/// One blob. Boxed in all the lists: moved as a whole it would be written and read by different lengths, and waited for.
struct Pooled<M> {
    blob: Blob<M>,
    /// Its bytes, as [`Limits::class`](super::Limits::class) counts them.
    class: u64,
    shared: Shared,
}

/// All blobs of a log are in one of the lists, or lent to whoever fills it.
pub(in crate::bus) struct Pool<M> {
    /// Bytes that all may take.
    limit: u64,
    /// Free: those that came back last, whose memory may still be in the cache, are last; of those that came back
    /// together, the one that was sent first.
    free: Vec<Box<Pooled<M>>>,
    /// Named by records that somebody may not have read: in the order of the log.
    out: VecDeque<Box<Pooled<M>>>,
    /// All have read on, and somebody keeps it.
    held: Vec<Box<Pooled<M>>>,
    lent: Option<Box<Pooled<M>>>,
    next_id: u64,
    /// Whether there are readers without gates, when last looked.
    has_ungated: bool,
    /// As of [`Pool::expect`].
    copies: bool,
}

impl<M: MemoryMut> Pool<M> {
    pub(in crate::bus) fn new(limit: u64) -> Self {
        let (free, out, held) = (Vec::new(), VecDeque::new(), Vec::new());
        Self { limit, free, out, held, lent: None, next_id: 1, has_ungated: false, copies: false }
    }

    /// Bytes that are with readers.
    pub(in crate::bus) fn in_use(&self) -> u64 {
        self.out.iter().chain(&self.held).map(|pooled| pooled.class).sum()
    }

    /// Whether those that are out are to come back before others are used, which are no longer in anybody's cache: there
    /// are enough of them for a reader that keeps up. Looks at the cursors.
    pub(in crate::bus) fn is_ahead<R: Memory + Clone, T>(&mut self, writer: &mut Writer<M, R, T>) -> bool {
        if self.lent.is_some() || !self.is_due() {
            return false;
        }
        self.recover(writer);
        self.is_ample()
    }

    /// Whether so much is out that a reader which keeps up has had its chance to be done with some of it.
    fn is_ample(&self) -> bool {
        let (out, bytes) = (self.out.len(), self.in_use());
        let is_ample = out >= AMPLE && bytes >= AMPLE_BYTES;
        is_ample && (!self.copies || out >= AMPLE_COPIED || bytes >= AMPLE_COPIED_BYTES)
    }

    /// Whether what comes next is copied in, or lent to be written in place.
    pub(in crate::bus) fn expect(&mut self, copies: bool) {
        self.copies = copies;
    }

    /// Where the record ends that names the blob which has been out longest.
    pub(in crate::bus) fn oldest_unread(&self) -> Option<u64> {
        self.out.front()?.blob.end()
    }

    /// Whether any reader keeps any, having read on.
    pub(in crate::bus) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    fn bytes(&self) -> u64 {
        self.in_use() + self.free.iter().chain(&self.lent).map(|pooled| pooled.class).sum::<u64>()
    }

    fn count(&self) -> usize {
        self.free.len() + self.out.len() + self.held.len() + usize::from(self.lent.is_some())
    }

    /// Takes back what readers are done with.
    fn recover<R: Memory + Clone, T>(&mut self, writer: &mut Writer<M, R, T>) {
        if self.out.is_empty() && self.held.is_empty() {
            return;
        }
        writer.look_at_cursors();
        for mut pooled in std::mem::take(&mut self.held) {
            let back = writer.recover(&mut pooled.blob) == Recovery::Back;
            if back { &mut self.free } else { &mut self.held }.push(pooled);
        }
        // Those that come back together are used again in the same order: measured, for large ones half as fast again.
        let first = self.free.len();
        while let Some(mut pooled) = self.out.pop_front() {
            match writer.recover(&mut pooled.blob) {
                Recovery::Back => self.free.push(pooled),
                Recovery::Held => self.held.push(pooled),
                Recovery::Unread => {
                    self.out.push_front(pooled);
                    break;
                }
            }
        }
        self.free[first..].reverse();
    }

    /// Takes a free blob of this size. Where there is none, and none may be made, a larger one does; else free ones of
    /// other sizes are let go. Unless it `must`, none is made while many are out. One that was taken before and not
    /// sent is taken again, or put back.
    pub(in crate::bus) fn take<R: Memory + Clone, T>(
        &mut self,
        class: u64,
        must: bool,
        writer: &mut Writer<M, R, T>,
    ) -> Take {
        self.has_ungated = writer.has_ungated();
        if self.lent.as_ref().is_some_and(|pooled| pooled.class == class) {
            return Take::Ready;
        }
        self.put_back();
        if !self.is_due() && self.take_free(class) {
            return Take::Ready; // no look at what readers write: their lines are far away
        }
        self.recover(writer);
        let pending = self.free.iter().any(|pooled| pooled.class == class && !pooled.shared.is_set());
        let makes_more = self.is_scarce(class) && !pending && (must || !self.is_ample());
        if !makes_more && self.take_free(class) {
            return Take::Ready;
        }
        if pending {
            return Take::Wait; // it is being shared
        }
        let fits = |pooled: &Pooled<M>| pooled.shared.is_set() && pooled.class >= class;
        if !must && self.is_ample() {
            return Take::Wait;
        }
        if self.count() < MOST && self.bytes() + class <= self.limit {
            return Take::Make { gone: Vec::new() };
        }
        let larger = self.free.iter().enumerate().filter(|(_, pooled)| fits(pooled));
        if let Some((at, _)) = larger.min_by_key(|(_, pooled)| pooled.class) {
            self.lent = Some(self.free.remove(at));
            return Take::Ready;
        }
        self.evict(class)
    }

    /// Whether enough are out for a look at what came back: those are used first, as readers' caches have them. Not where
    /// payloads are copied in: all of a blob's lines would be fetched from there.
    fn is_due(&self) -> bool {
        !self.copies && !self.has_ungated && self.in_use() >= SEVERAL_BYTES
    }

    /// Takes a free blob of this size, if there is one: the last that came back, or the first where somebody may still
    /// be copying it.
    pub(in crate::bus) fn take_free(&mut self, class: u64) -> bool {
        let ready = |pooled: &Pooled<M>| pooled.class == class && pooled.shared.is_set();
        let mut free = self.free.iter().map(|pooled| &**pooled);
        let at = if self.has_ungated { free.position(ready) } else { free.rposition(ready) };
        self.lent = at.map(|at| self.free.remove(at));
        self.lent.is_some()
    }

    /// Whether there are so few small blobs of this size that readers' cursors would have to be looked at for nearly
    /// each message, and another may be made.
    fn is_scarce(&self, class: u64) -> bool {
        let all = self.out.iter().chain(&self.held).chain(&self.free);
        let alike = all.filter(|pooled| pooled.class == class).count() as u64;
        let bytes = class.saturating_mul(alike);
        let is_scarce = if self.has_ungated {
            alike < LOSSY_LEAST || (alike < SEVERAL && bytes < LOSSY_BYTES)
        } else {
            alike < SEVERAL && bytes < SEVERAL_BYTES
        };
        is_scarce && self.count() < MOST && self.bytes() + class <= self.limit
    }

    /// Lets go of free blobs, those that came back first, if that makes room for one of this size.
    fn evict(&mut self, class: u64) -> Take {
        let (mut bytes, mut count, mut goes) = (self.bytes(), self.count(), 0);
        while bytes + class > self.limit || count >= MOST {
            let Some(next) = self.free.get(goes) else { return Take::Wait };
            (bytes, count, goes) = (bytes - next.class, count - 1, goes + 1);
        }
        Take::Make { gone: self.free.drain(..goes).map(|pooled| pooled.blob.id()).collect() }
    }

    /// The id of the next blob.
    pub(in crate::bus) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// A blob was made: it can be taken once it is shared.
    pub(in crate::bus) fn add(&mut self, blob: Blob<M>, class: u64, shared: Shared) {
        self.free.push(Box::new(Pooled { blob, class, shared }));
    }

    /// The blob that was taken.
    pub(in crate::bus) fn lent(&self) -> Option<&Blob<M>> {
        self.lent.as_ref().map(|pooled| &pooled.blob)
    }

    pub(in crate::bus) fn lent_mut(&mut self) -> Option<&mut Blob<M>> {
        self.lent.as_mut().map(|pooled| &mut pooled.blob)
    }

    /// It is not sent.
    pub(in crate::bus) fn put_back(&mut self) {
        self.free.extend(self.lent.take());
    }

    /// The claimed record of the log as the name of the blob that was taken.
    #[inline(always)]
    pub(in crate::bus) fn name<R: Memory + Clone, T>(
        &mut self,
        writer: &Writer<M, R, T>,
        at: usize,
        len: usize,
    ) -> Option<Naming> {
        self.lent.as_mut().map(|pooled| writer.name_blob(&mut pooled.blob, at, len))
    }

    /// It is sent: publishes that record.
    #[inline(always)]
    pub(in crate::bus) fn publish<R: Memory + Clone, T>(
        &mut self,
        writer: &mut Writer<M, R, T>,
        naming: &Naming,
    ) {
        debug_assert!(self.lent.is_some(), "it is lent from its naming on");
        if let Some(pooled) = &mut self.lent {
            writer.publish_blob(&mut pooled.blob, naming);
        }
        if let Some(pooled) = self.lent.take() {
            self.out.push_back(pooled);
        }
    }

    /// Takes a free blob as large as the last one that was sent, and begins to write it: whoever it was sent to is reading
    /// meanwhile. True if there is one that may be written on. Where there are readers without gates none is written: they
    /// may still be copying what was last in it, and are to have the time.
    pub(in crate::bus) fn prepare<R: Memory + Clone, T>(&mut self, writer: &mut Writer<M, R, T>) -> bool {
        let Some(class) = self.out.back().map(|last| last.class) else { return false };
        self.has_ungated = writer.has_ungated();
        if self.is_due() && !self.is_scarce(class) {
            self.recover(writer);
        }
        if self.has_ungated || !self.is_ample() {
            self.take_free(class);
        }
        let Some(next) = self.lent.as_mut().filter(|_| !self.has_ungated) else { return false };
        next.blob.touch();
        true
    }

    /// Whether the blob that was prepared is of the size for so many bytes.
    #[inline]
    pub(in crate::bus) fn has_prepared(&self, bytes: u64) -> bool {
        let fits = |class| bytes <= class && (bytes > class / 2 || class == SMALLEST);
        self.lent.as_ref().is_some_and(|pooled| fits(pooled.class))
    }
}

#[cfg(test)]
mod tests;
