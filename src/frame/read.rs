//! A cursor over borrowed MessagePack bytes.

use super::{DecodeError, MAX_DEPTH};
use rmp::Marker;

/// Reads one value after another, checking every length before it is used.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the first of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// Offset of the next byte.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The bytes read since offset `from`.
    pub fn since(&self, from: usize) -> &'a [u8] {
        self.bytes.get(from..self.at).unwrap_or_default()
    }

    /// Checks that nothing follows.
    pub fn end(&self) -> Result<(), DecodeError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(DecodeError::Trailing { at: self.at }) }
    }

    /// Takes the next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let needed = self.at.saturating_add(len);
        let taken = self.bytes.get(self.at..needed).ok_or(DecodeError::Truncated { needed })?;
        self.at = needed;
        Ok(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let needed = self.at.saturating_add(N);
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let chunk = *rest.first_chunk::<N>().ok_or(DecodeError::Truncated { needed })?;
        self.at = needed;
        Ok(chunk)
    }

    fn marker(&mut self) -> Result<Marker, DecodeError> {
        self.chunk().map(|[byte]| Marker::from_u8(byte))
    }

    fn u8(&mut self) -> Result<u64, DecodeError> {
        self.chunk().map(|[byte]| u64::from(byte))
    }

    fn u16(&mut self) -> Result<u64, DecodeError> {
        self.chunk().map(|bytes| u64::from(u16::from_be_bytes(bytes)))
    }

    fn u32(&mut self) -> Result<u64, DecodeError> {
        self.chunk().map(|bytes| u64::from(u32::from_be_bytes(bytes)))
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.chunk().map(u64::from_be_bytes)
    }

    /// Takes a nil if the next value is one.
    pub fn nil(&mut self) -> bool {
        let nil = self.bytes.get(self.at) == Some(&Marker::Null.to_u8());
        self.at += usize::from(nil);
        nil
    }

    /// nil as `None`, else what `read` reads.
    pub fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.nil() { Ok(None) } else { read(self).map(Some) }
    }

    /// An array's header: how many elements follow.
    pub fn array(&mut self) -> Result<u32, DecodeError> {
        let at = self.at;
        Ok(match self.marker()? {
            Marker::FixArray(len) => u32::from(len),
            Marker::Array16 => self.u16()? as u32,
            Marker::Array32 => self.u32()? as u32,
            _ => return Err(DecodeError::Expected { what: "an array", at }),
        })
    }

    /// A map's header: how many pairs follow.
    pub fn map(&mut self) -> Result<u32, DecodeError> {
        let at = self.at;
        Ok(match self.marker()? {
            Marker::FixMap(len) => u32::from(len),
            Marker::Map16 => self.u16()? as u32,
            Marker::Map32 => self.u32()? as u32,
            _ => return Err(DecodeError::Expected { what: "a map", at }),
        })
    }

    /// An unsigned integer, in whichever integer format it was written.
    pub fn uint(&mut self) -> Result<u64, DecodeError> {
        let at = self.at;
        let expected = DecodeError::Expected { what: "an unsigned integer", at };
        // A signed format is no error: encoders of languages without unsigned integers use them.
        let signed = |value: i64| u64::try_from(value).map_err(|_| expected);
        match self.marker()? {
            Marker::FixPos(value) => Ok(u64::from(value)),
            Marker::U8 => self.u8(),
            Marker::U16 => self.u16(),
            Marker::U32 => self.u32(),
            Marker::U64 => self.u64(),
            Marker::I8 => self.chunk().and_then(|bytes| signed(i64::from(i8::from_be_bytes(bytes)))),
            Marker::I16 => self.chunk().and_then(|bytes| signed(i64::from(i16::from_be_bytes(bytes)))),
            Marker::I32 => self.chunk().and_then(|bytes| signed(i64::from(i32::from_be_bytes(bytes)))),
            Marker::I64 => self.chunk().and_then(|bytes| signed(i64::from_be_bytes(bytes))),
            _ => Err(expected),
        }
    }

    fn uint_within(&mut self, what: &'static str, limit: u64) -> Result<u64, DecodeError> {
        let at = self.at;
        let value = self.uint()?;
        if value <= limit { Ok(value) } else { Err(DecodeError::Limit { what, limit, at }) }
    }

    /// An unsigned integer that fits 8 bits.
    pub fn uint8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.uint_within(what, u64::from(u8::MAX)).map(|value| value as u8)
    }

    /// An unsigned integer that fits 16 bits.
    pub fn uint16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        self.uint_within(what, u64::from(u16::MAX)).map(|value| value as u16)
    }

    /// An unsigned integer that fits 32 bits.
    pub fn uint32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.uint_within(what, u64::from(u32::MAX)).map(|value| value as u32)
    }

    /// A boolean.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        let at = self.at;
        match self.marker()? {
            Marker::True => Ok(true),
            Marker::False => Ok(false),
            _ => Err(DecodeError::Expected { what: "a boolean", at }),
        }
    }

    /// A string of at most `limit` bytes.
    pub fn str(&mut self, what: &'static str, limit: usize) -> Result<&'a str, DecodeError> {
        let at = self.at;
        let len = match self.marker()? {
            Marker::FixStr(len) => u64::from(len),
            Marker::Str8 => self.u8()?,
            Marker::Str16 => self.u16()?,
            Marker::Str32 => self.u32()?,
            _ => return Err(DecodeError::Expected { what: "a string", at }),
        };
        // Before the bytes are asked for, so that nobody copies megabytes to learn that it is too long.
        let limit = limit as u64;
        if len > limit {
            return Err(DecodeError::Limit { what, limit, at });
        }
        let at = self.at;
        std::str::from_utf8(self.take(len as usize)?).map_err(|_| DecodeError::NotUtf8 { at })
    }

    /// A bin's header: how many bytes follow.
    pub fn bin_len(&mut self) -> Result<usize, DecodeError> {
        let at = self.at;
        let len = match self.marker()? {
            Marker::Bin8 => self.u8()?,
            Marker::Bin16 => self.u16()?,
            Marker::Bin32 => self.u32()?,
            _ => return Err(DecodeError::Expected { what: "a bin", at }),
        };
        // Lossless: a 32-bit length, and Linux targets have pointers of 32 bits at least.
        Ok(len as usize)
    }

    /// A node's id: a bin of 16 bytes.
    pub fn id(&mut self) -> Result<[u8; 16], DecodeError> {
        let at = self.at;
        if self.bin_len()? != 16 {
            return Err(DecodeError::Expected { what: "a bin of 16 bytes", at });
        }
        self.chunk()
    }

    /// Skips `count` values of any type, nested at most [`MAX_DEPTH`] deep.
    pub fn skip(&mut self, count: u32) -> Result<(), DecodeError> {
        // Values still to skip, one count per open array or map. A loop, not a recursion: the bytes
        // decide how deep it goes. A huge count costs nothing, each value takes a byte that must exist.
        let mut open = [0u64; MAX_DEPTH];
        let mut depth = 0;
        open[0] = u64::from(count);
        loop {
            if open[depth] == 0 {
                match depth {
                    0 => return Ok(()),
                    _ => depth -= 1,
                }
                continue;
            }
            open[depth] -= 1;
            let at = self.at;
            let inner = self.skip_one()?;
            if inner > 0 {
                depth += 1;
                *open.get_mut(depth).ok_or(DecodeError::TooDeep { at })? = inner;
            }
        }
    }

    /// Skips a scalar, or an array's or map's header; returns how many values that one holds.
    fn skip_one(&mut self) -> Result<u64, DecodeError> {
        let at = self.at;
        let len = match self.marker()? {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => 0,
            Marker::FixArray(count) => return Ok(u64::from(count)),
            Marker::Array16 => return self.u16(),
            Marker::Array32 => return self.u32(),
            Marker::FixMap(count) => return Ok(2 * u64::from(count)),
            Marker::Map16 => return self.u16().map(|count| 2 * count),
            Marker::Map32 => return self.u32().map(|count| 2 * count),
            Marker::U8 | Marker::I8 => 1,
            Marker::U16 | Marker::I16 | Marker::FixExt1 => 2,
            Marker::FixExt2 => 3,
            Marker::U32 | Marker::I32 | Marker::F32 => 4,
            Marker::FixExt4 => 5,
            Marker::U64 | Marker::I64 | Marker::F64 => 8,
            Marker::FixExt8 => 9,
            Marker::FixExt16 => 17,
            Marker::FixStr(len) => u64::from(len),
            Marker::Str8 | Marker::Bin8 => self.u8()?,
            Marker::Str16 | Marker::Bin16 => self.u16()?,
            Marker::Str32 | Marker::Bin32 => self.u32()?,
            Marker::Ext8 => self.u8()? + 1,
            Marker::Ext16 => self.u16()? + 1,
            Marker::Ext32 => self.u32()? + 1,
            Marker::Reserved => return Err(DecodeError::Expected { what: "a MessagePack value", at }),
        };
        // u32::MAX + 1 does not fit a 32-bit usize, and no slice is that long there.
        self.take(usize::try_from(len).unwrap_or(usize::MAX))?;
        Ok(0)
    }
}
