//! Threads that start, or are refused.
//!
//! A thread's stack is mapped by whoever starts it. What else it begins with, a stack for signal handlers above all, it maps
//! itself; where that is refused (`ulimit -v`), std ends the process. So room for both is asked for before, and given back.

use std::io;
use std::thread::{Builder, JoinHandle};

use memmap2::MmapMut;

/// The stack that std gives a thread where nothing else is asked for.
const USUAL_STACK: usize = 2 << 20;
/// Far more than a thread maps when it begins.
const SPARE: usize = 1 << 20;

/// Starts a thread with a stack of so many bytes, or of the usual size.
///
/// # Errors
/// `ENOMEM` if there is no room for what it needs to begin, `EAGAIN` if the kernel starts no more threads.
pub fn spawn<T: Send + 'static>(
    name: &str,
    stack: Option<usize>,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    drop(MmapMut::map_anon(stack.unwrap_or(USUAL_STACK) + SPARE)?);
    let builder = Builder::new().name(name.into());
    let builder = if let Some(stack) = stack { builder.stack_size(stack) } else { builder };
    builder.spawn(run)
}
