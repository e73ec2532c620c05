//! `ringbus serve-echo`: a service to try clients on.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Args;
use nix::poll::{PollFd, PollFlags};
use rmpv::Value;

use super::interrupt::wait;
use super::json::{Packed, Received};
use super::{Common, Outcome, end, print, status};
use crate::{Code, Context, Status};

/// How often a sleeping method looks whether anybody still waits for it, and whether the server ends.
const SLICE: Duration = Duration::from_millis(5);
/// Bytes of an argument of `fail`.
const LARGEST: usize = 64 << 10;

/// Serve three methods to try clients on: echo, fail, sleep
#[derive(Debug, Args)]
#[command(after_long_help = "\
Methods:
  echo    returns its argument, whatever it is, up to 64 MiB, and the request's headers
  fail    fails with a status: its number (5), its name (\"not_found\"), or
          {\"code\":5,\"message\":TEXT,\"details\":V}, of which message and details may be left out;
          0 or \"ok\" succeeds, with null; up to 64 KiB
  sleep   sleeps for so many milliseconds and returns how many it slept; ends early if the caller gives up

For instance: ringbus call echo fail '{\"code\":\"aborted\",\"message\":\"try again\"}'
Prints a line when it serves, and serves until Ctrl-C; then it refuses calls, and has 2 s to finish those it has.")]
pub(super) struct Options {
    /// Name of the service
    #[arg(long, value_name = "NAME", default_value = "echo")]
    service: String,
    /// Calls that are handled at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
}

pub(super) fn run(common: &Common, options: &Options) -> Outcome {
    let (node, interrupt) = common.join_until_interrupted("ringbus-serve-echo")?;
    let stopped = Arc::new(AtomicBool::new(false));
    let is_stopped = stopped.clone();
    let server = node
        .service(&options.service)
        .method("echo", echo)
        .method("fail", |_ctx, wanted: Received| fail(&small(&wanted)?))
        .method("sleep", move |ctx, ms: u64| sleep(ctx, ms, &is_stopped))
        .workers(options.workers.into())
        .spawn()?;
    print(format!("{} serves {} on bus {}", node.info().name(), server.name(), node.bus().name()))?;
    while interrupt.check().is_ok() {
        wait(&mut [PollFd::new(interrupt.as_fd(), PollFlags::POLLIN)], None)?;
    }
    let _ = end(&node, interrupt.check());
    stopped.store(true, Relaxed); // what still sleeps
    Ok(())
}

fn echo(ctx: &mut Context, value: Received) -> Result<Packed, Status> {
    let value = value.into_value().map_err(too_large)?;
    let headers: Vec<_> =
        ctx.headers().iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    for (key, value) in headers {
        ctx.header(key, value);
    }
    Ok(value)
}

fn too_large(error: String) -> Status {
    Status::resource_exhausted(format!("the argument is {error}"))
}

/// A value to look into, as a tree: many times as large, and so a small one.
fn small(value: &Received) -> Result<Value, Status> {
    let mut bytes = value.value().map_err(too_large)?.bytes();
    if bytes.len() > LARGEST {
        return Err(Status::invalid_argument(format!("an argument of fail has at most {LARGEST} bytes")));
    }
    rmpv::decode::read_value(&mut bytes).map_err(|error| Status::internal(error.to_string()))
}

/// The status that was asked for.
fn fail(wanted: &Value) -> Result<(), Status> {
    let field = |name: &str| {
        let fields = wanted.as_map()?;
        fields.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value)
    };
    let code = if wanted.is_map() { field("code") } else { Some(wanted) };
    let code = code.and_then(|code| match code.as_str() {
        Some(name) => status::code_of(name),
        None => status::code_at(code.as_u64()?),
    });
    let wrong = |what| Err(Status::invalid_argument(what));
    let Some(code) = code else {
        return wrong(
            "a code is wanted: a number from 0 to 16, a name such as \"not_found\", or {\"code\":…}",
        );
    };
    let message = match field("message") {
        None => "",
        Some(message) => match message.as_str() {
            Some(message) => message,
            None => return wrong("the message is not a text"),
        },
    };
    match (code, field("details")) {
        (Code::Ok, _) => Ok(()),
        (code, None) => Err(Status::new(code, message)),
        (code, Some(details)) => Err(Status::new(code, message).with_details(details)),
    }
}

/// Sleeps, for as long as somebody waits for the end of it; how many milliseconds.
fn sleep(ctx: &Context, ms: u64, stopped: &AtomicBool) -> Result<u64, Status> {
    let start = Instant::now();
    let long = Duration::from_millis(ms);
    while let Some(left) = long.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        if ctx.cancelled() {
            // Of a caller that is late itself, this is the first that it hears.
            return Err(match ctx.remaining() {
                Some(left) if left.is_zero() => {
                    let call = format!("{}.{}", ctx.service(), ctx.method());
                    Status::deadline_exceeded(format!("{call}: the deadline passed while it slept"))
                }
                _ => Status::cancelled("the caller gave up"),
            });
        }
        if stopped.load(Relaxed) {
            return Err(Status::unavailable("the server was stopped"));
        }
        std::thread::sleep(left.min(SLICE));
    }
    Ok(start.elapsed().as_millis() as u64)
}
