//! Private (in-process) synchronisation of the ring, exchanged for loom's under `--cfg loom`.

pub use std::sync::atomic::{Ordering, compiler_fence};

#[cfg(not(loom))]
mod imp {
    pub use parking_lot::{Mutex, MutexGuard};
    pub use std::sync::Arc;
    pub use std::sync::atomic::{AtomicBool, AtomicU64, fence};
}

#[cfg(loom)]
mod imp {
    pub use loom::sync::Arc;
    pub use loom::sync::MutexGuard;
    pub use loom::sync::atomic::{AtomicBool, AtomicU64, fence};

    /// loom's mutex with parking_lot's signature: no poisoning to handle.
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a model does not panic while it holds a lock")
        }
    }
}

pub use imp::*;
