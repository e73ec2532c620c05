//! JSON as MessagePack, without a tree in between: a payload that is JSON is printed as any other.

use std::fmt;
use std::io::{self, Write};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Reads one JSON value.
///
/// # Errors
/// It is not one, nothing but one, nested too deeply, or there is no memory to convert it.
pub(in super::super) fn convert(json: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Bytes(Vec::new());
    let mut from = serde_json::Deserializer::from_slice(json);
    Next(&mut bytes).deserialize(&mut from).and_then(|()| from.end()).map_err(|error| error.to_string())?;
    Ok(bytes.0)
}

/// What is written so far; out of memory is an error.
struct Bytes(Vec<u8>);

impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_reserve(bytes.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Bytes {
    /// Writes an array or a map, whose length is known at its end only.
    fn counted(
        &mut self,
        marker: u8,
        write: impl FnOnce(&mut Self) -> Result<u32, String>,
    ) -> Result<(), String> {
        self.write_all(&[marker, 0, 0, 0, 0]).map_err(|error| error.to_string())?;
        let at = self.0.len() - 4;
        let count = write(self)?;
        self.0[at..at + 4].copy_from_slice(&count.to_be_bytes());
        Ok(())
    }
}

/// Where the next value goes.
struct Next<'o>(&'o mut Bytes);

impl<'de> DeserializeSeed<'de> for Next<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Next<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
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

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        rmp::encode::write_f64(self.0, value).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        rmp::encode::write_str(self.0, value).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let items = |bytes: &mut Bytes| {
            let mut count: u32 = 0;
            while items.next_element_seed(Next(bytes)).map_err(text)?.is_some() {
                count = count.checked_add(1).ok_or("too many items")?;
            }
            Ok(count)
        };
        self.0.counted(rmp::Marker::Array32.to_u8(), items).map_err(A::Error::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let entries = |bytes: &mut Bytes| {
            let mut count: u32 = 0;
            while entries.next_key_seed(Next(bytes)).map_err(text)?.is_some() {
                entries.next_value_seed(Next(bytes)).map_err(text)?;
                count = count.checked_add(1).ok_or("too many entries")?;
            }
            Ok(count)
        };
        self.0.counted(rmp::Marker::Map32.to_u8(), entries).map_err(A::Error::custom)
    }
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}
