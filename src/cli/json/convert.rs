//! JSON as MessagePack, without a tree in between: a payload that is JSON is printed as any other, and what a user has
//! typed is sent as any other.

use std::fmt;
use std::io::{self, Write};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::forms;
use super::survey::Survey;

/// Reads one JSON value.
///
/// # Errors
/// It is not one, nothing but one, nested too deeply, or there is no memory to convert it.
pub(in super::super) fn convert(json: &[u8]) -> Result<Vec<u8>, String> {
    let json = str::from_utf8(json).map_err(|error| format!("not JSON: {error}"))?;
    let mut bytes = Survey::of(json).bytes(false).ok_or(super::TOO_LARGE)?;
    read(json, &mut bytes).map_err(|error| format!("not JSON: {error}"))?;
    bytes.finish()
}

/// The same; `bytes` tell at the end whether there was memory for it.
pub(super) fn read(json: &str, bytes: &mut Bytes) -> Result<(), serde_json::Error> {
    let mut from = serde_json::Deserializer::from_str(json);
    Next(bytes).deserialize(&mut from).and_then(|()| from.end())
}

/// What is written so far. Once there is no memory for it, all of it is let go, and what follows is passed over: whoever
/// reads is to get to the end of what is there.
#[derive(Default)]
pub(super) struct Bytes {
    out: Vec<u8>,
    is_short: bool,
    /// Whether the `$…` forms are what they stand for, and the first that is not.
    has_forms: bool,
    broken: Option<String>,
}

impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.is_short = self.is_short || self.out.try_reserve(bytes.len()).is_err();
        if self.is_short {
            self.out = Vec::new();
        } else {
            self.out.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Bytes {
    /// With room for so many bytes; `None`: there is no memory for them.
    pub(super) fn new(room: usize, has_forms: bool) -> Option<Self> {
        let mut out = Vec::new();
        out.try_reserve_exact(room).ok()?;
        Some(Self { out, has_forms, ..Self::default() })
    }

    /// What is wrong with a form.
    pub(super) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// All of it.
    pub(super) fn finish(self) -> Result<Vec<u8>, String> {
        if self.is_short { Err(super::TOO_LARGE.to_owned()) } else { Ok(self.out) }
    }

    /// Writes an array or a map, whose length is known at its end only.
    fn counted(
        &mut self,
        marker: u8,
        write: impl FnOnce(&mut Self) -> Result<u32, String>,
    ) -> Result<u32, String> {
        let at = self.out.len();
        self.write_all(&[marker, 0, 0, 0, 0]).map_err(text)?;
        let count = write(self)?;
        if !self.is_short {
            self.out[at + 1..at + 5].copy_from_slice(&count.to_be_bytes());
        }
        Ok(count)
    }
}

/// Where the next value goes.
pub(super) struct Next<'o>(pub(super) &'o mut Bytes);

impl<'de> DeserializeSeed<'de> for Next<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Next<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        rmp::encode::write_nil(self.0).map_err(E::custom)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        rmp::encode::write_bool(self.0, value).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        rmp::encode::write_uint(self.0, value).map(drop).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        rmp::encode::write_sint(self.0, value).map(drop).map_err(E::custom)
    }

    fn visit_f32<E: Error>(self, value: f32) -> Result<(), E> {
        rmp::encode::write_f32(self.0, value).map_err(E::custom)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        rmp::encode::write_f64(self.0, value).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        rmp::encode::write_str(self.0, value).map_err(E::custom)
    }

    fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<(), E> {
        rmp::encode::write_bin(self.0, value).map_err(E::custom)
    }

    /// An extension: its type and its bytes.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_tuple(2, Extension(self.0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let items = |bytes: &mut Bytes| {
            let mut count: u32 = 0;
            while items.next_element_seed(Next(bytes)).map_err(text)?.is_some() {
                count = count.checked_add(1).ok_or("too many items")?;
            }
            Ok(count)
        };
        self.0.counted(rmp::Marker::Array32.to_u8(), items).map(drop).map_err(A::Error::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let start = self.0.out.len();
        let entries = |bytes: &mut Bytes| {
            let mut count: u32 = 0;
            while entries.next_key_seed(Next(bytes)).map_err(text)?.is_some() {
                entries.next_value_seed(Next(bytes)).map_err(text)?;
                count = count.checked_add(1).ok_or("too many entries")?;
            }
            Ok(count)
        };
        let count = self.0.counted(rmp::Marker::Map32.to_u8(), entries).map_err(A::Error::custom)?;
        if count == 1 && self.0.has_forms && !self.0.is_short && self.0.broken.is_none() {
            self.0.broken = forms::resolve(&mut self.0.out, start).err();
        }
        Ok(())
    }
}

struct Extension<'o>(&'o mut Bytes);

impl<'de> Visitor<'de> for Extension<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an extension")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<(), A::Error> {
        let none = || A::Error::custom("an extension without a type or bytes");
        let kind = parts.next_element()?.ok_or_else(none)?;
        parts.next_element_seed(ExtensionBytes(self.0, kind))?.ok_or_else(none)
    }
}

struct ExtensionBytes<'o>(&'o mut Bytes, i8);

impl<'de> DeserializeSeed<'de> for ExtensionBytes<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for ExtensionBytes<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<(), E> {
        let len = u32::try_from(bytes.len()).map_err(E::custom)?;
        rmp::encode::write_ext_meta(self.0, len, self.1).map_err(E::custom)?;
        self.0.write_all(bytes).map_err(E::custom)
    }
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}
