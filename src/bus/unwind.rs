//! Code of users' that is run here: wherever it panics, it ends no more than what it was run for.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Runs it; if it panics, why.
pub(super) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let why = text(&*panic);
        discard(panic);
        why
    })
}

/// Drops what is not ours: its drop may panic as well.
pub(super) fn discard<T>(value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        tracing::error!(why = %text(&*panic), "dropping what was a user's panicked");
        std::mem::forget(panic); // and so on: a leak ends it
    }
}

/// Wakes a task, on a thread that others depend on.
pub(super) fn wake(waker: Waker) {
    if let Err(why) = catch(|| waker.wake()) {
        tracing::error!(%why, "a task's waker panicked");
    }
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "(no message)".to_owned())
}
