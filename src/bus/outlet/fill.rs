//! Writes a frame into the room that there is for it.

use crate::bus::codec::{Body, BodyError};
use crate::bus::error::PublishError;
use crate::frame::{self, EncodeError, Encoding, Head};
use crate::segment::Via;

/// Writes head and body, long pieces by this way; lengths of the frame and of the payload.
#[inline(always)]
pub(super) fn fill(
    room: &mut [u8],
    head: &Head<'_>,
    encoding: Encoding,
    body: &impl Body,
    via: Via,
) -> Result<(usize, usize), BodyError> {
    let start = head.begin(room, encoding).map_err(|error| match error {
        EncodeError::NoSpace { .. } => BodyError::Full,
        error => BodyError::Encode(error.to_string()),
    })?;
    let payload = body.write(&mut room[start..], via)?;
    frame::finish_payload(room, start, payload);
    Ok((start + payload, payload))
}

/// Bytes before the payload.
#[inline(always)]
pub(super) fn prefix_len(head: &Head<'_>) -> Result<usize, PublishError> {
    head.headers().check().map_err(refuse_head)?;
    Ok(head.prefix_len())
}

pub(super) fn refuse_head(error: EncodeError) -> PublishError {
    PublishError::Headers { reason: error.to_string() }
}

pub(super) fn refuse_body(error: BodyError, size: usize) -> PublishError {
    let reason = match error {
        BodyError::Encode(reason) => reason,
        BodyError::Full => format!("its size changed from {size} bytes between two serialisations"),
    };
    PublishError::Encode { reason }
}
