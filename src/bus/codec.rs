//! Typed payloads: serde through MessagePack, straight into and out of the log.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Deepest nesting of a value that is decoded: the decoder recurses.
const MAX_DEPTH: usize = 256;

/// What a port publishes: bytes that are written into the log by whoever knows how.
pub trait Body {
    /// Writes into `out`; how many bytes.
    fn write(&self, out: &mut [u8]) -> Result<usize, BodyError>;
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
pub(super) struct Bytes<'a>(pub &'a [u8]);

impl Body for Bytes<'_> {
    #[inline]
    fn write(&self, out: &mut [u8]) -> Result<usize, BodyError> {
        out.get_mut(..self.0.len()).ok_or(BodyError::Full)?.copy_from_slice(self.0);
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
pub(super) struct Value<'a, T: ?Sized> {
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
    fn write(&self, out: &mut [u8]) -> Result<usize, BodyError> {
        let mut room = Room { out, len: 0, full: false };
        match self.serialize(&mut room) {
            Ok(()) => Ok(room.len),
            Err(_) if room.full => Err(BodyError::Full),
            Err(error) => Err(BodyError::Encode(error.to_string())),
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

/// A slice that remembers whether it was too short.
struct Room<'a> {
    out: &'a mut [u8],
    len: usize,
    full: bool,
}

impl Write for Room<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    #[inline(always)]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.len + bytes.len();
        let Some(room) = self.out.get_mut(self.len..end) else {
            self.full = true;
            return Err(io::ErrorKind::WriteZero.into());
        };
        copy(bytes, room);
        self.len = end;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Copies between slices of one length. Names of fields, numbers and the like are short: two overlapping moves,
/// where the C library's copy is a call.
#[inline(always)]
fn copy(from: &[u8], to: &mut [u8]) {
    if let (Some(first), Some(last)) = (from.first_chunk::<8>(), from.last_chunk::<8>())
        && from.len() <= 16
        && to.len() == from.len()
    {
        to[..8].copy_from_slice(first);
        let at = to.len() - 8;
        to[at..].copy_from_slice(last);
    } else if from.len() < 8 {
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from;
        }
    } else {
        to.copy_from_slice(from);
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
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(MAX_DEPTH);
    T::deserialize(&mut deserializer).map_err(|error| error.to_string())
}

/// Decodes a value from memory that may change: each field is read into private memory, once.
pub(super) fn decode_from<T: DeserializeOwned>(source: impl Read) -> Result<T, String> {
    let mut deserializer = rmp_serde::Deserializer::new(source);
    deserializer.set_max_depth(MAX_DEPTH);
    T::deserialize(&mut deserializer).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    struct Progress {
        done: u32,
        label: String,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Newer {
        label: String,
        #[serde(default)]
        eta: Option<u32>,
        done: u32,
    }

    fn encode(compact: bool) -> Vec<u8> {
        let progress = Progress { done: 3, label: "x".into() };
        let body = Value { value: &progress, compact };
        let mut out = vec![0; body.size().unwrap()];
        assert_eq!(body.write(&mut out), Ok(out.len()));
        let shorter = out.len() - 1;
        assert_eq!(body.write(&mut out.clone()[..shorter]), Err(BodyError::Full));
        out
    }

    #[test]
    fn both_forms_decode_and_fields_may_be_added_and_reordered() {
        let expected = Progress { done: 3, label: "x".into() };
        for compact in [false, true] {
            let bytes = encode(compact);
            assert_eq!(decode::<Progress>(&bytes), Ok(Progress { done: 3, label: "x".into() }));
            assert_eq!(decode_from::<Progress>(&*bytes).as_ref(), Ok(&expected));
        }
        assert!(encode(true).len() < encode(false).len());
        let newer = decode::<Newer>(&encode(false)).unwrap();
        assert_eq!(newer, Newer { label: "x".into(), eta: None, done: 3 });
    }

    #[test]
    fn what_is_no_such_value_is_an_error_not_a_panic() {
        assert!(decode::<Progress>(&[]).is_err());
        assert!(decode::<Progress>(b"\xc1").is_err());
        assert!(decode::<Vec<u64>>(&[0xdd, 0xff, 0xff, 0xff, 0xff]).is_err(), "claims 4 G elements");
        let deep = vec![0x91; 100_000];
        assert!(decode::<serde_json::Value>(&deep).is_err(), "nested arrays");
    }

    #[test]
    fn an_unserialisable_value_says_so() {
        struct No;
        impl Serialize for No {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("never"))
            }
        }
        let body = Value { value: &No, compact: false };
        assert_eq!(body.write(&mut [0; 8]), Err(BodyError::Encode("never".into())));
    }
}
