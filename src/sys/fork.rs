//! Noticing that this process is a forked child, without a system call.
//!
//! One private page per process is marked `MADV_WIPEONFORK` (madvise(2), Linux 4.14): a child finds zeros
//! where its parent holds a number. This also sees children made by a bare clone(2), which
//! pthread_atfork(3) handlers do not; where the kernel lacks the advice, such a handler wipes the word
//! instead.
//!
//! The number is the *generation* of the process: a child that opens a bus of its own gets the next one,
//! while everything that it inherited stays recognisable as its parent's.

use std::io;
use std::num::NonZero;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// The watched word, at the start of a page of its own; null until [`init`].
static WORD: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());

/// The last generation given out; copied at fork, so a child continues its parent's count.
static LAST: AtomicU64 = AtomicU64::new(0);

/// The watched page has this size at least on every target.
const PAGE: NonZero<usize> = NonZero::new(4096).unwrap();

/// Whether a handler stands in for `MADV_WIPEONFORK`.
static HANDLER: AtomicBool = AtomicBool::new(false);

/// Starts watching, or starts over in a forked child. Idempotent; [`forked`] is false afterwards.
pub fn init() -> io::Result<()> {
    let Some(word) = word() else { return publish_page() };
    if word.load(Ordering::Relaxed) == 0 {
        // Threads that come here together agree on whichever number lands first.
        let _ = word.compare_exchange(0, next_generation(), Ordering::Relaxed, Ordering::Relaxed);
    }
    Ok(())
}

fn next_generation() -> u64 {
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// Whether the kernel itself wipes the page: children of a bare clone(2) are then noticed, too. Call
/// [`init`] before.
#[cfg_attr(not(feature = "cli"), allow(dead_code))] // `ringbus doctor`
pub fn wiped_by_kernel() -> bool {
    !HANDLER.load(Ordering::Relaxed)
}

/// Whether this process was forked since the last [`init`]; false if there never was one.
#[inline(always)]
pub fn forked() -> bool {
    word().is_some_and(|word| word.load(Ordering::Relaxed) == 0)
}

/// The process that something was made in: an object that holds one can tell for ever whether it is
/// being used in a child of that process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin(u64);

impl Origin {
    /// This process, calling [`init`] first.
    pub fn here() -> io::Result<Self> {
        init()?;
        Ok(Self(generation()))
    }

    /// Whether this is still the process that the object was made in. Two loads and a compare.
    #[inline(always)]
    pub fn is_here(self) -> bool {
        generation() == self.0
    }
}

#[inline(always)]
fn generation() -> u64 {
    word().map_or(0, |word| word.load(Ordering::Relaxed))
}

#[inline(always)]
fn word() -> Option<&'static AtomicU64> {
    // Acquire pairs with the Release in `publish_page`: the page's first contents are seen.
    // SAFETY: the pointer is null or the start of a page that is never unmapped, aligned, and only ever
    // accessed as this atomic (the kernel's wipe happens while the child has no thread yet).
    unsafe { WORD.load(Ordering::Acquire).as_ref() }
}

fn publish_page() -> io::Result<()> {
    // SAFETY: a fresh private mapping at an address of the kernel's choice disturbs nothing.
    let page = unsafe {
        mmap_anonymous(None, PAGE, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE)
    }?;
    // SAFETY: the advice covers exactly the page mapped above, and only changes what a child sees.
    match unsafe { madvise(page, PAGE.get(), MmapAdvise::MADV_WIPEONFORK) } {
        Ok(()) => {}
        Err(Errno::EINVAL) => watch_with_handler()?,
        Err(other) => return Err(other.into()),
    }
    let first = page.as_ptr().cast::<AtomicU64>();
    // SAFETY: the page is mapped, aligned, large enough, and not shared with any thread yet. It holds its
    // number before it is seen: a zero would look like a fork.
    unsafe { (*first).store(next_generation(), Ordering::Relaxed) };
    let published = WORD.compare_exchange(ptr::null_mut(), first, Ordering::Release, Ordering::Relaxed);
    if published.is_err() {
        // SAFETY: another thread was faster, so this page was never shared with anybody.
        unsafe { munmap(page, PAGE.get()) }?;
    }
    Ok(())
}

/// The fallback for kernels without `MADV_WIPEONFORK`: the C library wipes the word in the child.
#[cold]
fn watch_with_handler() -> io::Result<()> {
    extern "C" fn wipe() {
        if let Some(word) = word() {
            word.store(0, Ordering::Relaxed);
        }
    }
    // SAFETY: `wipe` is async-signal-safe (one load, one store) and lives as long as the program; wiping
    // twice, should two threads register it, is harmless.
    match unsafe { libc::pthread_atfork(None, None, Some(wipe)) } {
        0 => {
            HANDLER.store(true, Ordering::Relaxed);
            Ok(())
        }
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::passes_in_child;
    use super::*;

    #[test]
    fn a_child_knows_that_it_was_forked_and_the_parent_that_it_was_not() {
        init().unwrap();
        assert!(!forked());
        passes_in_child(|| assert!(forked()));
        assert!(!forked());
    }

    #[test]
    fn what_a_child_inherits_stays_its_parents() {
        let parents = Origin::here().unwrap();
        assert!(parents.is_here());
        passes_in_child(move || {
            assert!(!parents.is_here());
            let childs = Origin::here().unwrap();
            assert!(!forked() && childs.is_here() && !parents.is_here());
            passes_in_child(move || {
                assert!(forked() && !childs.is_here() && !parents.is_here());
                init().unwrap();
                assert!(!childs.is_here() && !parents.is_here());
            });
        });
        assert!(parents.is_here());
    }

    #[test]
    fn threads_that_start_together_agree_on_the_origin() {
        passes_in_child(|| {
            let origins = std::thread::scope(|scope| {
                let threads = [(); 8].map(|()| scope.spawn(|| Origin::here().unwrap()));
                threads.map(|thread| thread.join().unwrap())
            });
            assert!(origins.iter().all(|origin| origin.is_here()));
        });
    }

    #[test]
    fn the_handler_stands_in_where_the_advice_is_missing() {
        init().unwrap();
        passes_in_child(|| {
            init().unwrap();
            let page = ptr::NonNull::new(WORD.load(Ordering::Relaxed)).unwrap().cast();
            // SAFETY: undoes the advice on the page that `publish_page` mapped, in this child alone.
            unsafe { madvise(page, PAGE.get(), MmapAdvise::MADV_KEEPONFORK) }.unwrap();
            passes_in_child(|| assert!(!forked(), "nothing wipes the word now"));
            watch_with_handler().unwrap();
            passes_in_child(|| assert!(forked()));
        });
    }
}
