//! A thread sends one message at a time.

use std::cell::Cell;

thread_local! {
    static SENDING: Cell<bool> = const { Cell::new(false) };
}

/// This thread writes a log that others write, too. A value is serialised under the log's lock, by code that is
/// not ours: if that were to send, it could wait for a lock of its own thread, or for one whose holder waits for it.
pub(in crate::bus) struct Sending;

impl Sending {
    /// # Errors
    /// What the value's serialisation may not do.
    pub(in crate::bus) fn begin() -> Result<Self, &'static str> {
        if SENDING.replace(true) {
            return Err("a message is sent while another is being serialised: send it before or after");
        }
        Ok(Self)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        SENDING.set(false);
    }
}
