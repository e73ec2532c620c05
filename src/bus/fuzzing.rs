//! For `fuzz/fuzz_targets/` alone: a client and a server that say what no honest one would, and how values are read.

use std::time::Duration;

use super::client::Client;
use super::codec;
pub use super::codec::MAX_DEPTH;
use super::open::Bus;
use super::server::{Context, Server};
use super::status::Status;
use crate::frame::{Frame, Head};

/// A value from bytes, as ports read it.
pub fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    codec::decode(bytes).ok()
}

/// A service and its client on a bus of their own, for the life of the process.
pub struct Calls {
    client: Client,
    _server: Server,
}

impl Calls {
    #[allow(clippy::new_without_default)] // it does rather much for that
    pub fn new() -> Self {
        let node = Bus::private().and_then(|bus| Ok(bus.join("fuzz").expect("a node"))).expect("a bus");
        let server = node
            .service("fuzz")
            .method("add", |_, (a, b): (i64, i64)| Ok(a.wrapping_add(b)))
            .method("any", |_, value: std::collections::BTreeMap<String, Vec<u8>>| Ok(value))
            .raw_method("echo", |_, bytes| Ok(bytes.to_vec()))
            // Writes what it is sent into the log of answers as it is, before its own answer.
            .raw_method("say", |ctx: &mut Context, bytes| {
                frames(bytes).for_each(|frame| ctx.put(frame));
                Ok(Vec::new())
            })
            .spawn()
            .expect("a server");
        let client = node.client("fuzz").expect("a client");
        client.wait_for_server(Duration::from_secs(5)).expect("it is there");
        let calls = Self { client, _server: server };
        calls.check();
        calls
    }

    /// Writes these frames into the log of requests. Server and client have to go on as if nothing had been.
    pub fn ask(&self, bytes: &[u8]) {
        if let Some(route) = self.client.any_route() {
            for frame in frames(bytes).filter(|frame| !is_our_own(frame)) {
                if let Some(requests) = &mut *route.requests.lock() {
                    requests.put(frame);
                }
            }
        }
        self.check();
    }

    /// Writes these frames into the log of answers.
    pub fn answer(&self, bytes: &[u8]) {
        // May well end as one of the frames says.
        let _ = self.client.request("say").send_raw(bytes);
        self.check();
    }

    fn check(&self) {
        let sum: Result<i64, Status> = self.client.call("add", &(2, 3));
        assert_eq!(sum, Ok(5));
    }
}

/// A request whose answer could be taken for that of the call in [`Calls::check`].
fn is_our_own(frame: &[u8]) -> bool {
    let Ok(Frame::Message { head: Head::Request { id, .. }, .. }) = Frame::decode(frame) else {
        return false;
    };
    id & 0xff_ffff == 0 // the place in the table of the only call there is
}

/// Pieces of the input: each begins with its length, in one byte.
fn frames(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (len, tail) = rest.split_first()?;
        let (frame, tail) = tail.split_at(tail.len().min(usize::from(*len)));
        rest = tail;
        Some(frame)
    })
}
