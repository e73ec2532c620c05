//! Reading values. Structs, arrays, numbers and strings, which messages mostly consist of, are read here; whatever
//! else comes is left to rmp-serde, from where it stands. What is read here reads as rmp-serde reads it: the tests and
//! a fuzz target compare the two.
//!
//! Most of what rmp-serde takes for a small struct is its names: each is validated as UTF-8 before it is compared.
//! Here a name is compared with the fields of the struct, bytes with bytes, in the order in which they are mostly sent.

use rmp_serde::decode::{Error, ReadReader};
use serde::Deserializer;
use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

/// Reads one value after the other from private memory.
pub(super) struct Reader<'de> {
    /// What is not read yet.
    rest: &'de [u8],
    /// Levels that may still be entered, and one.
    depth: usize,
}

impl<'de> Reader<'de> {
    #[inline(always)]
    pub(super) fn new(bytes: &'de [u8], depth: usize) -> Self {
        Self { rest: bytes, depth }
    }

    #[inline(never)]
    fn by_rmp<T>(
        &mut self,
        read: impl FnOnce(&mut rmp_serde::Deserializer<ReadReader<&mut &'de [u8]>>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut rmp = rmp_serde::Deserializer::new(&mut self.rest);
        rmp.set_max_depth(self.depth);
        read(&mut rmp)
    }

    /// `enter` reads what is one level deeper.
    #[inline(always)]
    fn deeper<T>(&mut self, enter: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.depth -= 1;
        if self.depth == 0 {
            return Err(Error::DepthLimitExceeded);
        }
        let value = enter(self)?;
        self.depth += 1;
        Ok(value)
    }

    #[inline(always)]
    fn number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        match *self.rest {
            [value @ 0..=0x7f, ref rest @ ..] => {
                self.rest = rest;
                visitor.visit_u8(value)
            }
            [0xcc, value, ref rest @ ..] => {
                self.rest = rest;
                visitor.visit_u8(value)
            }
            [0xcd, a, b, ref rest @ ..] => {
                self.rest = rest;
                visitor.visit_u16(u16::from_be_bytes([a, b]))
            }
            [0xce, a, b, c, d, ref rest @ ..] => {
                self.rest = rest;
                visitor.visit_u32(u32::from_be_bytes([a, b, c, d]))
            }
            [0xcf, a, b, c, d, e, f, g, h, ref rest @ ..] => {
                self.rest = rest;
                visitor.visit_u64(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
            [0xcb, a, b, c, d, e, f, g, h, ref rest @ ..] => {
                self.rest = rest;
                visitor.visit_f64(f64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
            [value @ 0xe0..=0xff, ref rest @ ..] => {
                self.rest = rest;
                visitor.visit_i8(value.cast_signed())
            }
            [0xd0, value, ref rest @ ..] => {
                self.rest = rest;
                visitor.visit_i8(value.cast_signed())
            }
            [0xd1, a, b, ref rest @ ..] => {
                self.rest = rest;
                visitor.visit_i16(i16::from_be_bytes([a, b]))
            }
            [0xd2, a, b, c, d, ref rest @ ..] => {
                self.rest = rest;
                visitor.visit_i32(i32::from_be_bytes([a, b, c, d]))
            }
            [0xd3, a, b, c, d, e, f, g, h, ref rest @ ..] => {
                self.rest = rest;
                visitor.visit_i64(i64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
            [0xca, a, b, c, d, ref rest @ ..] => {
                self.rest = rest;
                visitor.visit_f32(f32::from_be_bytes([a, b, c, d]))
            }
            [bool @ (0xc2 | 0xc3), ref rest @ ..] => {
                self.rest = rest;
                visitor.visit_bool(bool == 0xc3)
            }
            _ => self.by_rmp(|rmp| rmp.deserialize_i64(visitor)), // as it reads all numbers
        }
    }

    /// A string of at most 255 bytes that is all there, and what follows it.
    #[inline(always)]
    fn short_string(&self) -> Option<(&'de [u8], &'de [u8])> {
        match *self.rest {
            [marker @ 0xa0..=0xbf, ref rest @ ..] => rest.split_at_checked(usize::from(marker & 0x1f)),
            [0xd9, len, ref rest @ ..] => rest.split_at_checked(usize::from(len)),
            _ => None,
        }
    }

    #[inline(always)]
    fn string<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        if let Some((string, rest)) = self.short_string()
            && let Ok(string) = str::from_utf8(string)
        {
            self.rest = rest;
            return visitor.visit_borrowed_str(string);
        }
        self.by_rmp(|rmp| rmp.deserialize_any(visitor))
    }

    #[inline(always)]
    fn array<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        let (len, rest) = match *self.rest {
            [marker @ 0x90..=0x9f, ref rest @ ..] => (u32::from(marker & 0x0f), rest),
            [0xdc, a, b, ref rest @ ..] => (u32::from(u16::from_be_bytes([a, b])), rest),
            _ => return self.by_rmp(|rmp| rmp.deserialize_seq(visitor)),
        };
        self.rest = rest;
        self.deeper(|reader| {
            let mut elements = Elements { reader, left: len };
            let value = visitor.visit_seq(&mut elements)?;
            all_read(value, len, elements.left)
        })
    }
}

/// As rmp-serde has it: whoever reads an array or a map reads all of it.
#[inline(always)]
fn all_read<T>(value: T, len: u32, left: u32) -> Result<T, Error> {
    if left == 0 { Ok(value) } else { Err(Error::LengthMismatch(len - left)) }
}

macro_rules! numbers {
    ($($method:ident)*) => {$(
        #[inline(always)]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.number(visitor)
        }
    )*};
}

macro_rules! strings {
    ($($method:ident)*) => {$(
        #[inline(always)]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.string(visitor)
        }
    )*};
}

macro_rules! by_rmp {
    ($($method:ident($($arg:ident: $type:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, Error> {
            self.by_rmp(|rmp| rmp.$method($($arg,)* visitor))
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    fn is_human_readable(&self) -> bool {
        false
    }

    numbers! {
        deserialize_bool deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_f32 deserialize_f64
    }

    strings! { deserialize_str deserialize_string deserialize_identifier }

    by_rmp! {
        deserialize_any() deserialize_i128() deserialize_u128() deserialize_char() deserialize_bytes()
        deserialize_byte_buf() deserialize_unit() deserialize_unit_struct(name: &'static str) deserialize_map()
        deserialize_ignored_any()
    }

    #[inline(always)]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        // A variant without data.
        if let Some((variant, rest)) = self.short_string()
            && let Ok(variant) = str::from_utf8(variant)
        {
            self.rest = rest;
            return visitor.visit_enum(BorrowedStrDeserializer::new(variant));
        }
        self.by_rmp(|rmp| rmp.deserialize_enum(name, variants, visitor))
    }

    #[inline(always)]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match *self.rest {
            [] => self.by_rmp(|rmp| rmp.deserialize_option(visitor)),
            [0xc0, ref rest @ ..] => {
                self.rest = rest;
                visitor.visit_none()
            }
            _ => visitor.visit_some(self),
        }
    }

    #[inline(always)]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if name == rmp_serde::MSGPACK_EXT_STRUCT_NAME {
            return self.by_rmp(|rmp| rmp.deserialize_newtype_struct(name, visitor));
        }
        visitor.visit_newtype_struct(self)
    }

    #[inline(always)]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.array(visitor)
    }

    #[inline(always)]
    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        self.array(visitor)
    }

    #[inline(always)]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.array(visitor)
    }

    #[inline(always)]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let (len, rest) = match *self.rest {
            [marker @ 0x80..=0x8f, ref rest @ ..] => (u32::from(marker & 0x0f), rest),
            [0xde, a, b, ref rest @ ..] => (u32::from(u16::from_be_bytes([a, b])), rest),
            _ => return self.array(visitor), // `compact`, or something else
        };
        self.rest = rest;
        self.deeper(|reader| {
            let mut map = Fields { reader, fields, next: 0, left: len };
            let value = visitor.visit_map(&mut map)?;
            all_read(value, len, map.left)
        })
    }
}

struct Elements<'a, 'de> {
    reader: &'a mut Reader<'de>,
    left: u32,
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Error;

    #[inline(always)]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        usize::try_from(self.left).ok()
    }
}

/// A struct's fields, by name.
struct Fields<'a, 'de> {
    reader: &'a mut Reader<'de>,
    fields: &'static [&'static str],
    /// The field that is expected next: the one after the last.
    next: usize,
    left: u32,
}

impl<'de> MapAccess<'de> for Fields<'_, 'de> {
    type Error = Error;

    #[inline(always)]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(Name(self)).map(Some)
    }

    #[inline(always)]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        usize::try_from(self.left).ok()
    }
}

impl<'de> Fields<'_, 'de> {
    /// The field whose name comes now, if it is one of the struct's.
    #[inline(always)]
    fn find(&self) -> Option<(usize, &'de [u8])> {
        let (name, rest) = self.reader.short_string()?;
        if self.fields.get(self.next).is_some_and(|field| is_same(field.as_bytes(), name)) {
            return Some((self.next, rest));
        }
        self.find_any(name).map(|field| (field, rest))
    }

    #[cold]
    fn find_any(&self, name: &[u8]) -> Option<usize> {
        self.fields.iter().position(|field| field.as_bytes() == name)
    }
}

/// Whether two names are equal. They are short: a few words, where the C library's comparison is a call.
#[inline(always)]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    fn ends<const N: usize>(bytes: &[u8]) -> Option<(&[u8; N], &[u8; N])> {
        Some((bytes.first_chunk()?, bytes.last_chunk()?))
    }
    a.len() == b.len()
        && match a.len() {
            0..4 => a.iter().eq(b),
            4..=8 => ends::<4>(a) == ends::<4>(b),
            9..=16 => ends::<8>(a) == ends::<8>(b),
            _ => a == b,
        }
}

/// The name of a field.
struct Name<'a, 'f, 'de>(&'a mut Fields<'f, 'de>);

macro_rules! as_any_value {
    ($($method:ident($($arg:ident: $type:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, Error> {
            self.0.reader.$method($($arg,)* visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Name<'_, '_, 'de> {
    type Error = Error;

    #[inline(always)]
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Some((field, rest)) = self.0.find() else { return self.0.reader.string(visitor) };
        self.0.reader.rest = rest;
        self.0.next = field + 1;
        visitor.visit_borrowed_str(self.0.fields[field])
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    as_any_value! {
        deserialize_any() deserialize_bool() deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64()
        deserialize_u128() deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64() deserialize_i128()
        deserialize_f32() deserialize_f64() deserialize_char() deserialize_str() deserialize_string()
        deserialize_bytes() deserialize_byte_buf() deserialize_option() deserialize_unit() deserialize_seq()
        deserialize_map() deserialize_ignored_any() deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str) deserialize_tuple(len: usize)
        deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }
}
