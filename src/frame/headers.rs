//! The lists of strings: headers, a port's filters, a heartbeat's counters.

use super::list::{Element, List};
use super::read::Reader;
use super::write::Writer;
use super::{DecodeError, MAX_HEADER_BYTES, MAX_HEADERS};

/// String → string, in the order written; a trace context lives here. At most [`MAX_HEADERS`] pairs of
/// [`MAX_HEADER_BYTES`] together.
pub type Headers<'a> = List<'a, (&'a str, &'a str), (String, String)>;

/// Strings; the same limits.
pub type Strings<'a> = List<'a, &'a str, String>;

/// String → counter; the same limits.
pub type Stats<'a> = List<'a, (&'a str, u64), (String, u64)>;

impl<'a> Headers<'a> {
    /// The value under this key; the first, should the key be there twice.
    pub fn lookup(&self, key: &str) -> Option<&'a str> {
        self.iter().find_map(|(found, value)| (found == key).then_some(value))
    }
}

impl<'a> Element<'a> for (&'a str, &'a str) {
    type Owned = (String, String);
    const MAP: bool = true;
    const WHAT: &'static str = "headers";
    const MAX_COUNT: usize = MAX_HEADERS;
    const MAX_BYTES: usize = MAX_HEADER_BYTES;

    fn borrow((key, value): &'a Self::Owned) -> Self {
        (key, value)
    }

    fn weight(&self) -> usize {
        self.0.len().saturating_add(self.1.len())
    }

    fn read(reader: &mut Reader<'a>, weight: usize) -> Result<Self, DecodeError> {
        let key = reader.str(Self::WHAT, weight)?;
        Ok((key, reader.str(Self::WHAT, weight.saturating_sub(key.len()))?))
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.str(self.0, Self::WHAT, Self::MAX_BYTES);
        writer.str(self.1, Self::WHAT, Self::MAX_BYTES);
    }
}

impl<'a> Element<'a> for &'a str {
    type Owned = String;
    const MAP: bool = false;
    const WHAT: &'static str = "filters";
    const MAX_COUNT: usize = MAX_HEADERS;
    const MAX_BYTES: usize = MAX_HEADER_BYTES;

    fn borrow(owned: &'a String) -> Self {
        owned
    }

    fn weight(&self) -> usize {
        self.len()
    }

    fn read(reader: &mut Reader<'a>, weight: usize) -> Result<Self, DecodeError> {
        reader.str(Self::WHAT, weight)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.str(self, Self::WHAT, Self::MAX_BYTES);
    }
}

impl<'a> Element<'a> for (&'a str, u64) {
    type Owned = (String, u64);
    const MAP: bool = true;
    const WHAT: &'static str = "counters";
    const MAX_COUNT: usize = MAX_HEADERS;
    const MAX_BYTES: usize = MAX_HEADER_BYTES;

    fn borrow((key, value): &'a Self::Owned) -> Self {
        (key, *value)
    }

    fn weight(&self) -> usize {
        self.0.len()
    }

    fn read(reader: &mut Reader<'a>, weight: usize) -> Result<Self, DecodeError> {
        Ok((reader.str(Self::WHAT, weight)?, reader.uint()?))
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.str(self.0, Self::WHAT, Self::MAX_BYTES);
        writer.uint(self.1);
    }
}
