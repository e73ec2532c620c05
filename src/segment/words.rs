//! The one place that turns a base address and a length into loads, stores and copies.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::join;

/// A range of memory that is accessed as atomic 64-bit words, and as bytes where the protocol says that
/// nobody writes.
///
/// It owns nothing: whoever holds it keeps the memory alive.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    base: NonNull<u8>,
    len: usize,
}

impl Words {
    /// # Safety
    /// `base` is 8-byte aligned, and `len` bytes from it (a multiple of 8) stay mapped and readable for
    /// as long as the value or a copy of it is used. Where [`store`](Self::store), [`write`](Self::write) or
    /// [`slice_mut`](Self::slice_mut) are used, they are writable too.
    pub unsafe fn new(base: NonNull<u8>, len: usize) -> Self {
        debug_assert!(base.as_ptr().addr().is_multiple_of(8) && len.is_multiple_of(8));
        Self { base, len }
    }

    /// Length in bytes.
    #[inline(always)]
    pub fn len(self) -> usize {
        self.len
    }

    /// The word at byte offset `at`.
    ///
    /// One compare checks alignment and bounds: rotating brings the offset's low bits to the top, so that
    /// an unaligned one becomes larger than any word index.
    #[inline(always)]
    fn word(&self, at: usize) -> &AtomicU64 {
        let index = at.rotate_right(3);
        assert!(index < self.len / 8, "offset is unaligned or beyond the segment");
        // SAFETY: the index is within the range that the maker of this value promised to be mapped, and
        // aligned, since `base` is. Words are accessed atomically only, by this process and by others
        // (the peer's stores are atomic, or plain ones to ranges whose copies get validated).
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().cast::<u64>().add(index)) }
    }

    /// Loads a word.
    #[inline(always)]
    pub fn load(&self, at: usize, order: Ordering) -> u64 {
        self.word(at).load(order)
    }

    /// Loads a word of memory that is mapped read-only.
    ///
    /// On such memory the standard library vouches for relaxed loads alone ("Atomic accesses to
    /// read-only memory" in `std::sync::atomic`), so the order comes from fences, which are at least as
    /// strong; on x86-64 the code for Acquire is the same.
    #[inline(always)]
    pub fn load_read_only(&self, at: usize, order: Ordering) -> u64 {
        if order == Ordering::SeqCst {
            fence(Ordering::SeqCst);
        }
        let value = self.word(at).load(Ordering::Relaxed);
        if order != Ordering::Relaxed {
            // Pairs with the Release store (or fence) of the writer that `order` was meant for.
            fence(Ordering::Acquire);
        }
        value
    }

    /// Stores a word.
    #[inline(always)]
    pub fn store(&self, at: usize, value: u64, order: Ordering) {
        self.word(at).store(value, order);
    }

    /// Asks for the cache line of the byte at `at`; a hint, and none for an offset that is not there.
    #[inline(always)]
    pub fn prefetch(&self, at: usize) {
        #[cfg(target_arch = "x86_64")]
        if at < self.len {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: within the memory; and a prefetch neither faults nor changes anything.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.base.as_ptr().add(at).cast::<i8>()) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }

    /// Asks for the cache line of the byte at `at`, to be written; a hint, and none for an offset that is not there.
    #[inline(always)]
    pub fn prefetch_write(&self, at: usize) {
        #[cfg(target_arch = "x86_64")]
        if at < self.len {
            // SAFETY: within the memory; and a prefetch neither faults nor changes anything. (The intrinsic makes this
            // instruction only where it is enabled at compile time; processors without it ignore it.)
            unsafe {
                let line = self.base.as_ptr().add(at);
                std::arch::asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }

    /// Moves the line of the byte at offset `at` to where others find it sooner than in this processor's own cache (Intel's
    /// CLDEMOTE, which does nothing on processors that have none).
    #[inline(always)]
    pub fn give_away(&self, at: usize) {
        self.check(at, 1);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: within the memory; neither faults nor changes anything.
        unsafe {
            let line = self.base.as_ptr().add(at);
            std::arch::asm!("cldemote [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
        }
    }

    /// Stores two words, then bytes word by word, in ascending order; the rest of the last word becomes zero. Behind them
    /// all, with Release, a word elsewhere. All that is to be checked is checked before the first of the stores.
    #[inline(always)]
    pub fn write<const HEAD: usize>(
        &self,
        at: usize,
        first: &[u64; 2],
        head: &[u8; HEAD],
        body: &[u8],
        last: Option<(usize, u64)>,
    ) {
        self.check(at, 16 + (HEAD + body.len()).next_multiple_of(8));
        assert!(at.is_multiple_of(8), "offset is unaligned");
        let last = last.map(|(at, word)| (self.word(at), word));
        // SAFETY: the range was checked, is writable as the maker of this value promised, and aligned as `at` is.
        unsafe { write_all(self.base.as_ptr().add(at), first, head, body, last) }
    }

    /// Copies bytes out: on x86-64 by loads of 16 bytes each where there are as many, else by relaxed loads of the
    /// aligned words that contain them. (What is decoded from the copy is read across the borders of its stores: for
    /// each such load a processor waits until the stores are in its cache. With words that is nearly each of them.)
    #[inline(always)]
    pub fn copy(&self, at: usize, into: &mut [u8]) {
        self.check(at, into.len());
        #[cfg(target_arch = "x86_64")]
        if let Some(last) = into.len().checked_sub(16) {
            for block in (0..last).step_by(16) {
                // SAFETY: both ranges are within what was checked.
                unsafe { copy_block(self.base.as_ptr().add(at + block), into.as_mut_ptr().add(block)) };
            }
            // SAFETY: the same; a part of these may be copied for the second time.
            return unsafe { copy_block(self.base.as_ptr().add(at + last), into.as_mut_ptr().add(last)) };
        }
        self.copy_words(at, into);
    }

    fn copy_words(&self, at: usize, into: &mut [u8]) {
        if into.is_empty() {
            return;
        }
        let skip = at % 8;
        let mut at = at - skip;
        let mut rest = into;
        if skip != 0 {
            let word = self.load(at, Ordering::Relaxed).to_ne_bytes();
            let (head, tail) = rest.split_at_mut(rest.len().min(8 - skip));
            head.copy_from_slice(&word[skip..skip + head.len()]);
            rest = tail;
            at += 8;
        }
        let (middle, tail) = rest.as_chunks_mut::<8>();
        for chunk in middle {
            // SAFETY: a whole word within the range that was checked above, aligned as `at` is; accessed as in
            // `word`.
            let word = unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(at).cast()) };
            *chunk = word.load(Ordering::Relaxed).to_ne_bytes();
            at += 8;
        }
        if !tail.is_empty() {
            let word = self.load(at, Ordering::Relaxed).to_ne_bytes();
            tail.copy_from_slice(&word[..tail.len()]);
        }
    }

    /// Lends bytes.
    ///
    /// # Safety
    /// `'a` does not outlive the memory, and nobody stores to the range meanwhile.
    #[inline(always)]
    pub unsafe fn slice<'a>(self, at: usize, len: usize) -> &'a [u8] {
        self.check(at, len);
        // SAFETY: in bounds of memory that is mapped for as long as the caller says; the caller keeps
        // writers away.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(at), len) }
    }

    /// Lends bytes for writing.
    ///
    /// # Safety
    /// `'a` does not outlive the memory, which is writable, and nobody else in this process touches the
    /// range meanwhile.
    #[inline(always)]
    pub unsafe fn slice_mut<'a>(self, at: usize, len: usize) -> &'a mut [u8] {
        self.check(at, len);
        // SAFETY: in bounds of memory that is mapped and writable for as long as the caller says; the
        // caller keeps other references away.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(at), len) }
    }

    #[inline(always)]
    fn check(&self, at: usize, len: usize) {
        assert!(at <= self.len && len <= self.len - at, "range leaves the segment");
    }
}

/// Copies 16 bytes which somebody else may be reading or changing: in assembly, since to the language that is a data race
/// unless each word is accessed on its own.
///
/// # Safety
/// `from` is readable, `to` writable, for 16 bytes each.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn copy_block(from: *const u8, to: *mut u8) {
    // SAFETY: the caller's promise; nothing else is read, written or clobbered.
    unsafe {
        std::arch::asm!(
            "movups {block}, [{from}]",
            "movups [{to}], {block}",
            block = out(xmm_reg) _,
            from = in(reg) from,
            to = in(reg) to,
            options(nostack, preserves_flags),
        );
    }
}

/// [`Words::write`], checked. Never inlined: these stores are to be each other's neighbours. A processor that has them wait
/// for their lines asks for those of the next stores meanwhile; but of few, and with a store elsewhere in between, such as
/// that of a register for which its caller has no room, a message of 64 bytes took another trip of a line there and back.
///
/// # Safety
/// `into` is 8-byte aligned, and the words that it takes (16 bytes, `HEAD` and those of `body`, the last one filled up) are
/// mapped and writable, and accessed atomically only, as in [`Words::word`].
#[inline(never)]
unsafe fn write_all<const HEAD: usize>(
    into: *mut u8,
    first: &[u64; 2],
    head: &[u8; HEAD],
    body: &[u8],
    last: Option<(&AtomicU64, u64)>,
) {
    join(first, head, body, |offset, word| {
        // SAFETY: `join` gives each offset of those words once, all multiples of 8: within what the caller vouches for.
        let into = unsafe { AtomicU64::from_ptr(into.add(offset).cast()) };
        into.store(word, Ordering::Relaxed);
    });
    if let Some((into, word)) = last {
        into.store(word, Ordering::Release); // pairs with the Acquire load of whoever follows this word
    }
}
