//! What messages share with the log they came from, counted where a count is needed.

use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::reading::Origin;

thread_local! {
    /// Of the message that this thread dropped last.
    static KEPT: Cell<Option<Arc<Origin>>> = const { Cell::new(None) };
}

/// Says whose log a message was in. A thread that is done with each message before it takes the next, from the same
/// log, hands one count on and on: counting up and down takes two locked instructions, as long as reading the message.
/// One count a thread outlives its message.
#[derive(Clone)]
pub(super) struct Held(Option<Arc<Origin>>);

impl Held {
    #[inline(always)]
    pub(super) fn of(origin: &Arc<Origin>) -> Self {
        match KEPT.try_with(Cell::take) {
            Ok(Some(kept)) if Arc::ptr_eq(&kept, origin) => Self(Some(kept)),
            _ => Self::another(origin), // or a thread that ends
        }
    }

    /// Takes it out of what is about to be dropped.
    #[inline(always)]
    pub(super) fn take(&mut self) -> Self {
        Self(self.0.take())
    }

    #[cold]
    fn another(origin: &Arc<Origin>) -> Self {
        Self(Some(origin.clone()))
    }
}

impl Drop for Held {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(origin) = self.0.take() {
            let _ = KEPT.try_with(|kept| kept.set(Some(origin)));
        }
    }
}

impl Deref for Held {
    type Target = Origin;

    #[inline]
    fn deref(&self) -> &Origin {
        self.0.as_deref().expect("it is there until it is taken or dropped")
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
