//! What the tests of these layers share: a forked child that checks something where a lowered limit or a
//! crash harms no other test.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

/// Runs `check` in a forked child and returns how the child ended.
///
/// The test binary has threads, so the child must keep to async-signal-safe calls and what glibc makes
/// safe after fork (malloc); it leaves through `_exit`, running no destructor of the parent's.
pub fn in_child(check: impl FnOnce()) -> WaitStatus {
    // SAFETY: see above; the callers are tests that make plain system calls and comparisons.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => waitpid(child, None).expect("waitpid"),
        ForkResult::Child => {
            let passed = catch_unwind(AssertUnwindSafe(check)).is_ok();
            let _ = std::io::stderr().flush();
            // SAFETY: ends this process at once.
            unsafe { nix::libc::_exit(if passed { 0 } else { 101 }) }
        }
    }
}

/// Runs `check` in a forked child and fails if it panicked or was killed.
#[track_caller]
pub fn passes_in_child(check: impl FnOnce()) {
    let status = in_child(check);
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "the child ended with {status:?}");
}
