//! `ringbus call`: one call, from the command line.

use std::future::Future;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::interrupt::Interrupt;
use super::json::{Json, Packed, Received};
use super::publish::{duration, each_value, header};
use super::subscribe::{HeaderMap, Source};
use super::{Common, Failure, Outcome, advice, print_json, silent, status};
use crate::{Client, Code, Response, Status};

/// Call a method of a service, and print the result
#[derive(Debug, Args)]
#[command(after_long_help = "\
VALUE is taken as `ringbus pub` takes it: JSON if it can be read as JSON, else text. A method of several
arguments wants an array, in their order: ringbus call math add '[2,3]'. One of no arguments wants null, which
no VALUE is.
With `-` calls are made one after the other; the first that fails ends it.

Prints the result as JSON, in the forms that `ringbus sub --help` tells. A call that fails is told in a line on
stderr: code, message, and details if there are any. Nobody is waited for: if nobody serves, the call fails
with `not found` at once. Ctrl-C cancels the call, and its server is told.

With --json, what came of the call in one line of stdout:
  {\"status\":\"ok\",\"code\":0,\"value\":V,\"headers\":{K:V,…},\"source\":{\"name\":N,\"id\":I,\"pid\":P}}
  {\"status\":\"not_found\",\"code\":5,\"message\":TEXT,\"details\":V}      `details` only if there are any")]
pub(super) struct Options {
    /// Name of the service
    service: String,
    /// Name of the method
    method: String,
    /// JSON, else text; `-` makes a call for each line of stdin [default: null]
    #[arg(allow_negative_numbers = true)]
    value: Option<String>,
    /// Take the value as text, whatever it looks like
    #[arg(long)]
    text: bool,
    /// Longest wait for the answer: 2s, 500ms, 1.5 (seconds)
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    timeout: Duration,
    /// Add a header; may be repeated
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Print what came of the call as JSON, with headers and source, or with the status
    #[arg(long)]
    json: bool,
}

pub(super) fn run(common: &Common, options: &Options) -> Outcome {
    let (node, interrupt) = common.join_until_interrupted("ringbus-call")?;
    let value = options.value.as_deref();
    let mut opened = None;
    each_value(value, options.text, &interrupt, |argument| {
        let client = match &mut opened {
            Some(client) => client,
            none => none.insert(node.client(&options.service)?),
        };
        let answer = call(client, options, &argument, &interrupt)?.map_err(advice::of_call);
        if answer.as_ref().is_err_and(|status| status.code() == Code::NotFound) {
            silent::note_all(common, &node);
        }
        tell(&answer, options.json)
    })
}

fn tell(answer: &Result<Response<Received>, Status>, is_json: bool) -> Outcome {
    match answer {
        Ok(answer) => {
            let value = answer.value().and_then(Packed::shown);
            let value = value.map_err(|error| format!("the answer is {error}"))?;
            if is_json { print_json(&Succeeded(answer, value)) } else { print_json(&value) }
        }
        Err(failed) => {
            if is_json {
                print_json(&status::Failed(failed))?;
            }
            Err(Failure::Error(status::line(failed)))
        }
    }
}

/// The answer, or the status that the call failed with.
fn call(
    client: &Client,
    options: &Options,
    argument: &Packed,
    interrupt: &Interrupt,
) -> Outcome<Result<Response<Received>, Status>> {
    let request = client.request(&options.method).timeout(options.timeout);
    let request = options.headers.iter().fold(request, |request, (key, value)| request.header(key, value));
    match request.start(argument) {
        // Dropped when interrupted, which cancels it.
        Ok(pending) => wait(pending, interrupt),
        Err(failed) => Ok(Err(failed)),
    }
}

/// Waits for a future, unless asked to end.
fn wait<T>(future: impl Future<Output = T>, interrupt: &Interrupt) -> Outcome<T> {
    let (mut woken, wake) = UnixStream::pair()?;
    woken.set_nonblocking(true)?;
    wake.set_nonblocking(true)?;
    let waker = Waker::from(Arc::new(Pipe(wake)));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Ok(value);
        }
        interrupt.wait_readable(woken.as_fd())?;
        match woken.read(&mut [0; 64]) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
            _ => {}
        }
    }
}

/// Wakes whoever sleeps in poll(2).
struct Pipe(UnixStream);

impl Wake for Pipe {
    fn wake(self: Arc<Self>) {
        let _ = (&self.0).write(&[0]); // a full pipe has woken already
    }
}

/// A call that succeeded, as JSON.
struct Succeeded<'a>(&'a Response<Received>, Json<'a>);

impl Serialize for Succeeded<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(Some(5))?;
        map.serialize_entry("status", "ok")?;
        map.serialize_entry("code", &0)?;
        map.serialize_entry("value", &self.1)?;
        map.serialize_entry("headers", &HeaderMap(self.0.headers()))?;
        map.serialize_entry("source", &Source(self.0.source()))?;
        map.end()
    }
}
