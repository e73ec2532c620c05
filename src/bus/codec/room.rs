//! Where values are written: the forms of MessagePack, as short as they may be, one after the other.

use std::io::{self, Write};

use rmp_serde::encode::Error;

use crate::segment::{self, Via};

/// First bytes of short arrays and maps, to which their lengths are added.
pub(super) const ARRAY: u8 = 0x90;
pub(super) const MAP: u8 = 0x80;

/// A slice, and how much of it is written. Remembers whether it was too short.
pub(super) struct Room<'a> {
    out: &'a mut [u8],
    via: Via,
    pub(super) len: usize,
    pub(super) full: bool,
}

impl<'a> Room<'a> {
    #[inline(always)]
    pub(super) fn new(out: &'a mut [u8], via: Via) -> Self {
        Self { out, via, len: 0, full: false }
    }

    #[inline(always)]
    pub(super) fn put<const N: usize>(&mut self, bytes: [u8; N]) -> Result<(), Error> {
        let Some(room) = self.out.get_mut(self.len..).and_then(|rest| rest.first_chunk_mut()) else {
            return Err(self.too_short());
        };
        *room = bytes;
        self.len += N;
        Ok(())
    }

    #[inline(always)]
    fn put_slice(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(room) = self.out.get_mut(self.len..).and_then(|rest| rest.get_mut(..bytes.len())) else {
            return Err(self.too_short());
        };
        if bytes.len() >= segment::LONG {
            segment::copy(room, bytes, self.via);
        } else {
            copy(bytes, room);
        }
        self.len += bytes.len();
        Ok(())
    }

    /// The beginning of an array or a map, now that its items are written behind one byte at `start`.
    pub(super) fn finish_list(&mut self, marker: u8, start: usize, count: usize) -> Result<(), Error> {
        let (wide, [a, b, c, d]) = (if marker == ARRAY { 0xdc } else { 0xde }, (count as u32).to_be_bytes());
        let (short, middle, long) = ([marker | d], [wide, c, d], [wide + 1, a, b, c, d]);
        let head: &[u8] = match count {
            ..16 => &short,
            16..0x1_0000 => &middle,
            _ => &long,
        };
        let more = head.len() - 1;
        if self.out.len() - self.len < more {
            return Err(self.too_short());
        }
        self.out.copy_within(start + 1..self.len, start + head.len());
        self.out[start..start + head.len()].copy_from_slice(head);
        self.len += more;
        Ok(())
    }

    #[cold]
    fn too_short(&mut self) -> Error {
        self.full = true;
        Error::InvalidValueWrite(rmp::encode::ValueWriteError::InvalidDataWrite(
            io::ErrorKind::WriteZero.into(),
        ))
    }

    #[inline(always)]
    pub(super) fn unsigned(&mut self, value: u64) -> Result<(), Error> {
        if let Ok(value @ 0..=0x7f) = u8::try_from(value) {
            self.put([value])
        } else if let Ok(value) = u8::try_from(value) {
            self.put([0xcc, value])
        } else if let Ok(value) = u16::try_from(value) {
            let [a, b] = value.to_be_bytes();
            self.put([0xcd, a, b])
        } else if let Ok(value) = u32::try_from(value) {
            let [a, b, c, d] = value.to_be_bytes();
            self.put([0xce, a, b, c, d])
        } else {
            let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
            self.put([0xcf, a, b, c, d, e, f, g, h])
        }
    }

    #[inline(always)]
    pub(super) fn signed(&mut self, value: i64) -> Result<(), Error> {
        if let Ok(value) = u64::try_from(value) {
            self.unsigned(value)
        } else if let Ok(value @ -32..) = i8::try_from(value) {
            self.put(value.to_be_bytes())
        } else if let Ok(value) = i8::try_from(value) {
            self.put([0xd0, value.cast_unsigned()])
        } else if let Ok(value) = i16::try_from(value) {
            let [a, b] = value.to_be_bytes();
            self.put([0xd1, a, b])
        } else if let Ok(value) = i32::try_from(value) {
            let [a, b, c, d] = value.to_be_bytes();
            self.put([0xd2, a, b, c, d])
        } else {
            let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
            self.put([0xd3, a, b, c, d, e, f, g, h])
        }
    }

    /// A string of at most 31 bytes; false, and nothing, if it is longer.
    #[inline(always)]
    pub(super) fn short_string(&mut self, string: &str) -> Result<bool, Error> {
        if string.len() > 31 {
            return Ok(false);
        }
        let rest = self.out.get_mut(self.len..).and_then(|rest| rest.get_mut(..=string.len()));
        let Some((marker, room)) = rest.and_then(|rest| rest.split_first_mut()) else {
            return Err(self.too_short());
        };
        *marker = 0xa0 | string.len() as u8;
        copy(string.as_bytes(), room);
        self.len += 1 + string.len();
        Ok(true)
    }

    /// The beginning of an array or a map of at most 15; false, and nothing, if it is longer.
    #[inline(always)]
    pub(super) fn short_list(&mut self, marker: u8, len: usize) -> Result<bool, Error> {
        if len > 15 {
            return Ok(false);
        }
        self.put([marker | len as u8])?;
        Ok(true)
    }
}

impl Write for Room<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put_slice(bytes).map_err(|_| io::ErrorKind::WriteZero.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Copies between slices of one length. Names of fields, numbers and the like are short: two overlapping moves,
/// where the C library's copy is a call. (Not for longer ones: many narrow stores, of which the log's words are read
/// right afterwards, make the processor wait.)
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
