//! An encoder into a borrowed buffer, in the shortest MessagePack formats.

use super::EncodeError;
use rmp::Marker;

/// Writes one value after another; counts on past the buffer's end, so that a failure can say how many
/// bytes are needed, and so that a writer over an empty buffer measures.
#[derive(Debug)]
pub struct Writer<'o> {
    out: &'o mut [u8],
    at: usize,
    too_long: Option<EncodeError>,
}

impl<'o> Writer<'o> {
    /// A writer at the start of `out`.
    pub fn new(out: &'o mut [u8]) -> Self {
        Writer { out, at: 0, too_long: None }
    }

    /// How many bytes `write` writes.
    pub fn measure(write: impl FnOnce(&mut Writer<'_>)) -> usize {
        let mut writer = Writer::new(&mut []);
        write(&mut writer);
        writer.at
    }

    /// How many bytes the values written so far take.
    pub fn written(&self) -> usize {
        self.at
    }

    /// How many bytes were written, or the first reason why they could not be.
    pub fn finish(self) -> Result<usize, EncodeError> {
        match self.too_long {
            Some(error) => Err(error),
            None if self.at > self.out.len() => Err(EncodeError::NoSpace { needed: self.at }),
            None => Ok(self.at),
        }
    }

    /// Makes the encoding fail unless `len` is within `limit`.
    pub fn limit(&mut self, what: &'static str, len: usize, limit: usize) {
        if len > limit && self.too_long.is_none() {
            self.too_long = Some(EncodeError::TooLong { what, limit });
        }
    }

    /// Bytes as they are.
    pub fn put(&mut self, bytes: &[u8]) {
        let end = self.at.saturating_add(bytes.len());
        if let Some(room) = self.out.get_mut(self.at..end) {
            room.copy_from_slice(bytes);
        }
        self.at = end;
    }

    fn marker(&mut self, marker: Marker) {
        self.put(&[marker.to_u8()]);
    }

    /// nil.
    pub fn nil(&mut self) {
        self.marker(Marker::Null);
    }

    /// nil for `None`, else what `write` writes.
    pub fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            Some(value) => write(self, value),
            None => self.nil(),
        }
    }

    /// An array's header.
    pub fn array(&mut self, len: u32) {
        match len {
            0..=15 => self.marker(Marker::FixArray(len as u8)),
            16..=0xffff => self.wide(Marker::Array16, (len as u16).to_be_bytes()),
            _ => self.wide(Marker::Array32, len.to_be_bytes()),
        }
    }

    /// A map's header.
    pub fn map(&mut self, len: u32) {
        match len {
            0..=15 => self.marker(Marker::FixMap(len as u8)),
            16..=0xffff => self.wide(Marker::Map16, (len as u16).to_be_bytes()),
            _ => self.wide(Marker::Map32, len.to_be_bytes()),
        }
    }

    /// An unsigned integer.
    pub fn uint(&mut self, value: u64) {
        match value {
            0..=0x7f => self.put(&[value as u8]),
            0x80..=0xff => self.wide(Marker::U8, [value as u8]),
            0x100..=0xffff => self.wide(Marker::U16, (value as u16).to_be_bytes()),
            0x1_0000..=0xffff_ffff => self.wide(Marker::U32, (value as u32).to_be_bytes()),
            _ => self.wide(Marker::U64, value.to_be_bytes()),
        }
    }

    /// A boolean.
    pub fn bool(&mut self, value: bool) {
        self.marker(if value { Marker::True } else { Marker::False });
    }

    /// A string of at most `limit` bytes.
    pub fn str(&mut self, value: &str, what: &'static str, limit: usize) {
        self.limit(what, value.len(), limit);
        match value.len() {
            len @ 0..=31 => self.marker(Marker::FixStr(len as u8)),
            len @ 32..=0xff => self.wide(Marker::Str8, [len as u8]),
            len @ 0x100..=0xffff => self.wide(Marker::Str16, (len as u16).to_be_bytes()),
            len => self.wide(Marker::Str32, (len as u32).to_be_bytes()),
        }
        self.put(value.as_bytes());
    }

    /// A bin.
    pub fn bin(&mut self, value: &[u8], what: &'static str) {
        self.limit(what, value.len(), u32::MAX as usize);
        match value.len() {
            len @ 0..=0xff => self.wide(Marker::Bin8, [len as u8]),
            len @ 0x100..=0xffff => self.wide(Marker::Bin16, (len as u16).to_be_bytes()),
            len => self.bin32(len as u32),
        }
        self.put(value);
    }

    /// A bin's header in its longest form, which leaves room for any length.
    pub fn bin32(&mut self, len: u32) {
        self.wide(Marker::Bin32, len.to_be_bytes());
    }

    fn wide<const N: usize>(&mut self, marker: Marker, bytes: [u8; N]) {
        self.marker(marker);
        self.put(&bytes);
    }
}
