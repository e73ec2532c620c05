//! The library's advice is for programs: here is the same for whoever has the command alone.

use super::Failure;
use crate::{PublishError, SendError, Status};

/// Of a call: what the message of such a status has in it, how its advice begins, and what the advice is here.
const OF_CALLS: [(&str, &str, &str); 4] = [
    ("the request of ", ": raise `max_message` to ", ": send it in pieces"),
    ("but the client takes ", ": raise its `max_message`", ": ask for less at a time"),
    ("cannot make shared memory", " or lower `blob_memory`", " or send it in pieces"),
    ("not MessagePack", ": call it with `send_raw`", ": it takes a program to read it"),
];

pub(super) fn of_publish(error: PublishError) -> Failure {
    Failure::Error(match error {
        PublishError::TooLarge { size, limit } => format!(
            "payload of {size} bytes, but `ringbus pub` sends at most {limit}: send it in pieces, or from a program, which can raise that"
        ),
        PublishError::Memory { reason } => format!(
            "cannot make shared memory for a large message: {reason}: raise the limit (`ulimit -n`, `ulimit -v`, `ulimit -f`, the container's memory) or send it in pieces"
        ),
        error => error.to_string(),
    })
}

pub(super) fn of_send(error: SendError) -> Failure {
    Failure::Error(match error {
        SendError::NotFound { name } => format!(
            "no node named {name:?} has an inbox: is it running on this bus, and does it open one? (`ringbus inbox {name}` does)"
        ),
        SendError::TooLarge { size, limit } => {
            format!("payload of {size} bytes, but {limit} can be sent: send it in pieces")
        }
        error => error.to_string(),
    })
}

/// Of a failed call.
pub(super) fn of_call(status: Status) -> Status {
    let message = status.message();
    let here = |(what, advice, here): &(&str, &str, &'static str)| {
        let (said, _) = message.rsplit_once(advice)?;
        said.contains(what).then_some((said, *here))
    };
    match OF_CALLS.iter().find_map(here) {
        Some((what, here)) => Status::new(status.code(), format!("{what}{here}")),
        None => status,
    }
}
