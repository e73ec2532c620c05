//! Typed payloads: serde through MessagePack, straight into and out of the log.

mod any;
mod error;
mod number;
mod ordered;
mod read;
mod room;
mod write;

use std::io::{self, Write};

use rmp_serde::config::SerializerConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::error::DecodeError;
use self::read::Reader;
use self::room::Room;
use self::write::Writer;
use crate::frame::Encoding;
use crate::segment::{self, Via};

/// Deepest nesting of a value that is decoded: the decoder recurses.
pub const MAX_DEPTH: usize = 256;

/// What a port publishes: bytes that are written into the log by whoever knows how.
pub trait Body {
    /// Writes into `out`, long pieces by this way; how many bytes.
    fn write(&self, out: &mut [u8], via: Via) -> Result<usize, BodyError>;
    /// How many bytes [`Body::write`] wants. Only asked for when a first attempt found too little room.
    fn size(&self) -> Result<usize, BodyError>;
    /// The size, where it takes no work to tell: then no attempt is made without the room.
    fn known_size(&self) -> Option<usize>;
}

/// Why a body was not written.
#[derive(Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It wants more bytes.
    Full,
    /// It cannot be encoded.
    Encode(String),
}

/// Bytes as they are.
pub(crate) struct Bytes<'a>(pub &'a [u8]);

impl Body for Bytes<'_> {
    #[inline]
    fn write(&self, out: &mut [u8], via: Via) -> Result<usize, BodyError> {
        segment::copy(out.get_mut(..self.0.len()).ok_or(BodyError::Full)?, self.0, via);
        Ok(self.0.len())
    }

    fn size(&self) -> Result<usize, BodyError> {
        Ok(self.0.len())
    }

    fn known_size(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

/// A value, as MessagePack: structs as maps with field names, or (`compact`) as arrays.
pub(crate) struct Value<'a, T: ?Sized> {
    pub value: &'a T,
    pub compact: bool,
}

impl<T: Serialize + ?Sized> Value<'_, T> {
    fn serialize(&self, out: &mut impl Write) -> Result<(), rmp_serde::encode::Error> {
        let mut serializer = rmp_serde::Serializer::new(out);
        if self.compact {
            self.value.serialize(&mut serializer)
        } else {
            self.value.serialize(&mut serializer.with_struct_map())
        }
    }
}

impl<T: Serialize + ?Sized> Body for Value<'_, T> {
    #[inline]
    fn write(&self, out: &mut [u8], via: Via) -> Result<usize, BodyError> {
        let serializer = rmp_serde::Serializer::new(Room::new(out, via));
        if self.compact {
            write(self.value, serializer, false)
        } else {
            write(self.value, serializer.with_struct_map(), true)
        }
    }

    fn size(&self) -> Result<usize, BodyError> {
        let mut count = Count(0);
        self.serialize(&mut count).map_err(|error| BodyError::Encode(error.to_string()))?;
        Ok(count.0)
    }

    fn known_size(&self) -> Option<usize> {
        None
    }
}

/// Serialises with `rmp`, which has all of its room; how many bytes.
#[inline(always)]
fn write<T: Serialize + ?Sized, C: SerializerConfig>(
    value: &T,
    mut rmp: rmp_serde::Serializer<Room<'_>, C>,
    named: bool,
) -> Result<usize, BodyError> {
    let done = value.serialize(Writer::new(&mut rmp, named));
    // First: a value may have swallowed what one of its fields said.
    if rmp.get_ref().full {
        return Err(BodyError::Full);
    }
    match done {
        Ok(()) => Ok(rmp.get_ref().len),
        Err(error) => Err(BodyError::Encode(error.to_string())),
    }
}

struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A value as MessagePack, structs as maps.
pub(super) fn encode(value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    Value { value, compact: false }.serialize(&mut out).map_err(|error| error.to_string())?;
    Ok(out)
}

/// Decodes a value from private memory. Both forms are read: maps with field names, and arrays.
#[inline(always)]
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut reader = Reader::new(bytes, MAX_DEPTH);
    let value = T::deserialize(&mut reader);
    if reader.may_be_ordered {
        return value;
    }
    drop(value); // what it takes is not taken twice
    decode_by_names(bytes)
}

#[cold]
#[inline(never)]
fn decode_by_names<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    T::deserialize(&mut Reader::by_names(bytes, MAX_DEPTH))
}

/// [`decode`], if that is how it is encoded.
#[inline(always)]
pub(super) fn decode_as<T: DeserializeOwned>(encoding: Encoding, bytes: &[u8]) -> Result<T, DecodeError> {
    if encoding == Encoding::MessagePack { decode(bytes) } else { Err(other_encoding(encoding)) }
}

#[cold]
pub(super) fn other_encoding(encoding: Encoding) -> DecodeError {
    serde::de::Error::custom(format!("its payload is {encoding:?}, not MessagePack: use a raw port"))
}

/// Decodes a value of `len` bytes that stand in memory that may change: `copy` copies them.
pub(crate) fn decode_copy<T: DeserializeOwned>(
    len: usize,
    copy: impl FnOnce(&mut [u8]),
) -> Result<T, DecodeError> {
    let mut bytes = Vec::new();
    // Its writer has said how long it is: more than this process may have is no reason to end it.
    bytes.try_reserve_exact(len).map_err(<DecodeError as serde::de::Error>::custom)?;
    bytes.resize(len, 0);
    copy(&mut bytes);
    decode(&bytes)
}

#[cfg(test)]
mod tests;
