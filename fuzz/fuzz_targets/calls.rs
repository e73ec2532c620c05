//! Any frames in the logs of a client and its server: neither panics, hangs or mistakes one for another's
//! answer; the next call succeeds.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use ringbus::fuzzing::Calls;

fuzz_target!(|bytes: &[u8]| {
    static CALLS: OnceLock<Calls> = OnceLock::new();
    let calls = CALLS.get_or_init(Calls::new);
    match bytes.split_first() {
        Some((0..0x80, frames)) => calls.ask(frames),
        Some((_, frames)) => calls.answer(frames),
        None => {}
    }
});
