//! Barriers on other processors, in place of fences on hot paths.

use std::sync::atomic::{Ordering::SeqCst, fence};
use std::time::Duration;

use crate::sys::membarrier;

/// Registers this process with the kernel, once; whether barriers of other processes reach it, and its own all
/// its threads. Without it, publishing always fences, and no reader promises not to park.
pub(crate) fn has_barriers() -> bool {
    membarrier::register_global() && membarrier::register_private()
}

/// A full barrier on every running thread of this process, where publishing relies on it.
pub(crate) fn on_own_threads() {
    if has_barriers() {
        insist(membarrier::private_expedited);
    }
    fence(SeqCst); // where the other side fences as well
}

/// A full barrier on every running thread of every process of the host that has registered.
pub(crate) fn on_all_processes() {
    insist(membarrier::global_expedited);
    fence(SeqCst);
}

/// The kernel does not refuse what it has agreed to, unless a filter was put in between since. What is left
/// then is to wait for longer than any processor keeps a store to itself.
fn insist(barrier: fn() -> bool) {
    if !barrier() {
        tracing::error!("membarrier(2) is refused since a while ago: let it pass the filter of system calls");
        std::thread::sleep(Duration::from_millis(1));
    }
}
