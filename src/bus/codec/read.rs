//! Reading values. What messages mostly consist of is read here, what else serde knows in `any.rs`; extensions and numbers
//! of 128 bits are left to rmp-serde, from where they stand. What is read here reads as rmp-serde reads it: the tests and
//! a fuzz target compare the two.
//!
//! What a value takes is bounded by its bytes: strings are lent (long ones copied for whoever asks for their own), and all
//! arrays together have no more elements made ready for than there are bytes, whatever lengths are claimed.
//!
//! Most of what rmp-serde takes for a small struct is its names: each is validated as UTF-8 before it is compared.
//! Here a name is compared with the fields of the struct, bytes with bytes, in the order in which they are mostly sent.

use rmp_serde::decode::ReadReader;
use serde::Deserializer;
use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use super::any::{Unit, Variant};
use super::error::DecodeError as Error;
use super::ordered;
use crate::segment::text;

/// Reads one value after the other from private memory.
pub(super) struct Reader<'de> {
    /// What is not read yet.
    pub(super) rest: &'de [u8],
    /// Levels that may still be entered, and one.
    depth: usize,
    /// Elements that may still be made ready for before they are read: each takes a byte at least.
    unclaimed: usize,
    /// Whether structs may be read in the order of their fields. No longer, once that went wrong: what was read is void.
    pub(super) may_be_ordered: bool,
}

impl<'de> Reader<'de> {
    #[inline(always)]
    pub(super) fn new(bytes: &'de [u8], depth: usize) -> Self {
        Self { rest: bytes, depth, unclaimed: bytes.len(), may_be_ordered: true }
    }

    /// The same, from the beginning: by names alone.
    pub(super) fn by_names(bytes: &'de [u8], depth: usize) -> Self {
        Self { may_be_ordered: false, ..Self::new(bytes, depth) }
    }

    #[inline(never)]
    fn by_rmp<T>(
        &mut self,
        read: impl FnOnce(
            &mut rmp_serde::Deserializer<ReadReader<&mut &'de [u8]>>,
        ) -> Result<T, rmp_serde::decode::Error>,
    ) -> Result<T, Error> {
        Ok(read(&mut rmp_serde::Deserializer::new(&mut self.rest))?)
    }

    /// How many of an array's elements to make ready for.
    #[inline(always)]
    pub(super) fn claim(&mut self, len: u32) -> usize {
        let claimed = self.unclaimed.min(len as usize);
        self.unclaimed -= claimed;
        claimed
    }

    /// `enter` reads what is one level deeper.
    #[inline(always)]
    pub(super) fn deeper<T>(
        &mut self,
        enter: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.depth <= 1 {
            return Err(too_deep());
        }
        self.depth -= 1;
        let value = enter(self);
        self.depth += 1; // after an error, too: a visitor may go on with something else
        value
    }

    /// A string of at most 255 bytes that is all there, and what follows it.
    #[inline(always)]
    pub(super) fn short_string(&self) -> Option<(&'de [u8], &'de [u8])> {
        match *self.rest {
            [marker @ 0xa0..=0xbf, ref rest @ ..] => rest.split_at_checked(usize::from(marker & 0x1f)),
            [0xd9, len, ref rest @ ..] => rest.split_at_checked(usize::from(len)),
            _ => None,
        }
    }

    #[inline(always)]
    fn string<V: Visitor<'de>>(&mut self, visitor: V, owns: bool) -> Result<V::Value, Error> {
        if let Some((string, rest)) = self.short_string()
            && let Ok(string) = text::from_utf8(string)
        {
            self.rest = rest;
            return visitor.visit_borrowed_str(string);
        }
        if owns { self.owned(visitor) } else { self.any(visitor, true) }
    }

    #[inline(always)]
    pub(super) fn array<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        let (len, rest) = match *self.rest {
            [marker @ 0x90..=0x9f, ref rest @ ..] => (u32::from(marker & 0x0f), rest),
            [0xdc, a, b, ref rest @ ..] => (u32::from(u16::from_be_bytes([a, b])), rest),
            _ => return self.any(visitor, false),
        };
        self.rest = rest;
        self.elements(len, visitor)
    }

    #[inline(always)]
    pub(super) fn elements<V: Visitor<'de>>(&mut self, len: u32, visitor: V) -> Result<V::Value, Error> {
        let claimed = self.claim(len);
        self.deeper(|reader| {
            let mut elements = Elements { reader, left: len, claimed };
            let value = visitor.visit_seq(&mut elements)?;
            all_read(value, elements.left)
        })
    }
}

/// As rmp-serde has it: whoever reads an array or a map reads all of it.
#[inline(always)]
pub(super) fn all_read<T>(value: T, left: u32) -> Result<T, Error> {
    if left == 0 { Ok(value) } else { Err(not_read(left)) }
}

#[cold]
fn not_read(left: u32) -> Error {
    Error::custom(format_args!("{left} elements too many"))
}

#[cold]
fn too_deep() -> Error {
    Error::custom("nested too deeply")
}

macro_rules! numbers {
    ($read:ident: $($method:ident)*) => {$(
        #[inline(always)]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.$read(visitor)
        }
    )*};
}

macro_rules! strings {
    ($($method:ident($owns:expr))*) => {$(
        #[inline(always)]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.string(visitor, $owns)
        }
    )*};
}

macro_rules! any {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.any(visitor, true)
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    fn is_human_readable(&self) -> bool {
        false
    }

    numbers! { unsigned: deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 }
    numbers! { number: deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 }
    numbers! { float: deserialize_f32 deserialize_f64 }

    strings! { deserialize_str(false) deserialize_string(true) deserialize_identifier(false) }

    any! {
        deserialize_any deserialize_char deserialize_bytes deserialize_unit deserialize_map
        deserialize_ignored_any
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.owned(visitor)
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.by_rmp(|rmp| rmp.deserialize_i128(visitor))
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.by_rmp(|rmp| rmp.deserialize_u128(visitor))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match *self.rest {
            [0xc0 | 0x90, ref rest @ ..] => {
                self.rest = rest;
                visitor.visit_unit()
            }
            _ => self.any(visitor, true),
        }
    }

    #[inline(always)]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        // A variant without data.
        if let Some((variant, rest)) = self.short_string()
            && let Ok(variant) = text::from_utf8(variant)
        {
            self.rest = rest;
            return visitor.visit_enum(BorrowedStrDeserializer::new(variant));
        }
        match self.count() {
            Some((1, rest)) => {
                self.rest = rest;
                self.deeper(|reader| visitor.visit_enum(Variant(reader)))
            }
            Some(_) => Err(Error::custom("a variant with data is a map of one")),
            None => visitor.visit_enum(Unit(self)),
        }
    }

    #[inline(always)]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match *self.rest {
            [] => Err(super::any::ended()),
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
            return self.extension(|rmp| rmp.deserialize_newtype_struct(name, visitor));
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
        if ordered::suits::<V>(self, fields, len) {
            return self.deeper(|reader| ordered::read(reader, fields, visitor));
        }
        self.deeper(|reader| {
            let mut map = Fields { reader, fields, next: 0, left: len };
            let value = visitor.visit_map(&mut map)?;
            all_read(value, map.left)
        })
    }
}

struct Elements<'a, 'de> {
    reader: &'a mut Reader<'de>,
    left: u32,
    claimed: usize,
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
        Some(self.claimed.min(self.left as usize))
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
}

impl<'de> Fields<'_, 'de> {
    /// The field whose name comes now, if it is one of the struct's.
    #[inline(always)]
    fn find(&self) -> Option<(usize, &'de [u8])> {
        if let Some(expected) = self.fields.get(self.next)
            && let Some(rest) = after_name(self.reader.rest, expected.as_bytes())
        {
            return Some((self.next, rest));
        }
        self.find_any()
    }

    #[cold]
    fn find_any(&self) -> Option<(usize, &'de [u8])> {
        let (name, rest) = self.reader.short_string()?;
        Some((self.fields.iter().position(|field| field.as_bytes() == name)?, rest))
    }
}

/// What follows this name, if it is what comes now, in the form that names mostly have.
#[inline(always)]
pub(super) fn after_name<'de>(bytes: &'de [u8], name: &[u8]) -> Option<&'de [u8]> {
    let (&marker, rest) = bytes.split_first()?;
    let (found, rest) = rest.split_at_checked(name.len())?;
    let is_so_long = name.len() < 32 && usize::from(marker ^ 0xa0) == name.len();
    (is_so_long && is_same(found, name)).then_some(rest)
}

/// Whether two names are equal. They are short: a few words, where the C library's comparison is a call.
#[inline(always)]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    fn ends<const N: usize>(bytes: &[u8]) -> Option<(&[u8; N], &[u8; N])> {
        Some((bytes.first_chunk()?, bytes.last_chunk()?))
    }
    a.len() == b.len()
        && match a.len() {
            0 | 1 => a.first() == b.first(),
            2 | 3 => ends::<2>(a) == ends::<2>(b),
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
        let Some((field, rest)) = self.0.find() else { return self.0.reader.string(visitor, false) };
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
