//! Writing values. Structs, arrays, numbers and strings, which messages mostly consist of, are laid here; whatever else
//! comes is left to rmp-serde. What is written here is what rmp-serde writes, byte for byte: the tests compare the two.

use std::io::{self, Write};

use rmp_serde::config::SerializerConfig;
use rmp_serde::encode::Error;
use serde::ser::{
    Error as _, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// What is left of a slice. Remembers whether it was too short.
pub(super) struct Room<'a> {
    pub(super) rest: &'a mut [u8],
    pub(super) full: bool,
}

impl Room<'_> {
    #[inline(always)]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) -> Result<(), Error> {
        let Some((room, rest)) = std::mem::take(&mut self.rest).split_first_chunk_mut() else {
            return Err(self.too_short());
        };
        *room = bytes;
        self.rest = rest;
        Ok(())
    }

    #[inline(always)]
    fn put_slice(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some((room, rest)) = std::mem::take(&mut self.rest).split_at_mut_checked(bytes.len()) else {
            return Err(self.too_short());
        };
        copy(bytes, room);
        self.rest = rest;
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
    fn unsigned(&mut self, value: u64) -> Result<(), Error> {
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
    fn signed(&mut self, value: i64) -> Result<(), Error> {
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
    fn short_string(&mut self, string: &str) -> Result<bool, Error> {
        if string.len() > 31 {
            return Ok(false);
        }
        self.put([0xa0 | string.len() as u8])?;
        self.put_slice(string.as_bytes())?;
        Ok(true)
    }

    /// The beginning of an array or a map of at most 15; false, and nothing, if it is longer.
    #[inline(always)]
    fn short_list(&mut self, marker: u8, len: usize) -> Result<bool, Error> {
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

const ARRAY: u8 = 0x90;
const MAP: u8 = 0x80;

type Rmp<'r, C> = rmp_serde::Serializer<Room<'r>, C>;

/// Writes one value.
pub(super) struct Writer<'a, 'r, C> {
    pub(super) rmp: &'a mut Rmp<'r, C>,
    /// Structs as maps with the names of their fields; as `rmp` has it.
    named: bool,
    /// The field of this struct that was left out last. Without names, those after it would be taken for others.
    left_out: Option<&'static str>,
}

impl<'a, 'r, C> Writer<'a, 'r, C> {
    #[inline(always)]
    pub(super) fn new(rmp: &'a mut Rmp<'r, C>, named: bool) -> Self {
        Self { rmp, named, left_out: None }
    }

    #[inline(always)]
    fn room(&mut self) -> &mut Room<'r> {
        self.rmp.get_mut()
    }

    /// For another value.
    #[inline(always)]
    fn again(&mut self) -> Writer<'_, 'r, C> {
        Writer::new(self.rmp, self.named)
    }

    #[cold]
    fn misplaced(name: &str, left_out: &str) -> Error {
        Error::custom(format!(
            "field `{name}` comes after `{left_out}`, which is left out: fields that are written without their names \
             (`compact`) are known by their places"
        ))
    }
}

impl<C: SerializerConfig> Writer<'_, '_, C> {
    #[inline(always)]
    fn name(&mut self, name: &str) -> Result<(), Error> {
        if self.room().short_string(name)? { Ok(()) } else { self.rmp.serialize_str(name) }
    }

    /// An enum's value is a map of one.
    #[inline(always)]
    fn variant(&mut self, name: &str) -> Result<(), Error> {
        self.room().short_list(MAP, 1)?;
        self.name(name)
    }
}

macro_rules! numbers {
    ($($method:ident($type:ty): $put:ident as $wide:ty;)*) => {$(
        #[inline(always)]
        fn $method(mut self, value: $type) -> Result<(), Error> {
            self.room().$put(<$wide>::from(value))
        }
    )*};
}

macro_rules! by_rmp {
    ($($method:ident($($arg:ident: $type:ty),*) -> $ok:ty;)*) => {$(
        fn $method(self, $($arg: $type),*) -> Result<$ok, Error> {
            self.rmp.$method($($arg),*)
        }
    )*};
}

impl<'a, 'r, C: SerializerConfig> Serializer for Writer<'a, 'r, C> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = List<'a, 'r, C>;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = List<'a, 'r, C>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    fn is_human_readable(&self) -> bool {
        false
    }

    numbers! {
        serialize_u8(u8): unsigned as u64;
        serialize_u16(u16): unsigned as u64;
        serialize_u32(u32): unsigned as u64;
        serialize_u64(u64): unsigned as u64;
        serialize_i8(i8): signed as i64;
        serialize_i16(i16): signed as i64;
        serialize_i32(i32): signed as i64;
        serialize_i64(i64): signed as i64;
    }

    by_rmp! {
        serialize_i128(value: i128) -> ();
        serialize_u128(value: u128) -> ();
        serialize_char(value: char) -> ();
        serialize_bytes(value: &[u8]) -> ();
        serialize_unit_struct(name: &'static str) -> ();
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str) -> ();
    }

    #[inline(always)]
    fn serialize_bool(mut self, value: bool) -> Result<(), Error> {
        self.room().put([0xc2 | u8::from(value)])
    }

    #[inline(always)]
    fn serialize_f32(mut self, value: f32) -> Result<(), Error> {
        let [a, b, c, d] = value.to_be_bytes();
        self.room().put([0xca, a, b, c, d])
    }

    #[inline(always)]
    fn serialize_f64(mut self, value: f64) -> Result<(), Error> {
        let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
        self.room().put([0xcb, a, b, c, d, e, f, g, h])
    }

    #[inline(always)]
    fn serialize_str(mut self, value: &str) -> Result<(), Error> {
        self.name(value)
    }

    #[inline(always)]
    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    #[inline(always)]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    #[inline(always)]
    fn serialize_unit(mut self) -> Result<(), Error> {
        self.room().put([0xc0])
    }

    #[inline(always)]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        if name == rmp_serde::MSGPACK_EXT_STRUCT_NAME {
            return self.rmp.serialize_newtype_struct(name, value);
        }
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.variant(variant)?;
        value.serialize(self)
    }

    fn serialize_tuple_variant(
        mut self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self, Error> {
        self.variant(variant)?;
        self.serialize_tuple(len)
    }

    fn serialize_struct_variant(
        mut self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self, Error> {
        self.variant(variant)?;
        self.serialize_struct(name, len)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<List<'a, 'r, C>, Error> {
        let Some(len) = len else { return Ok(List::Unknown(self.rmp.serialize_seq(None)?)) };
        self.serialize_tuple(len).map(List::Known)
    }

    fn serialize_map(mut self, len: Option<usize>) -> Result<List<'a, 'r, C>, Error> {
        let Some(len) = len else { return Ok(List::Unknown(self.rmp.serialize_map(None)?)) };
        if !self.room().short_list(MAP, len)? {
            self.rmp.serialize_map(Some(len))?; // writes no more than the beginning
        }
        Ok(List::Known(self))
    }

    #[inline(always)]
    fn serialize_tuple(mut self, len: usize) -> Result<Self, Error> {
        if !self.room().short_list(ARRAY, len)? {
            self.rmp.serialize_tuple(len)?; // writes no more than the beginning
        }
        Ok(self)
    }

    #[inline(always)]
    fn serialize_tuple_struct(self, _name: &'static str, len: usize) -> Result<Self, Error> {
        self.serialize_tuple(len)
    }

    #[inline(always)]
    fn serialize_struct(mut self, name: &'static str, len: usize) -> Result<Self, Error> {
        let marker = if self.named { MAP } else { ARRAY };
        if !self.room().short_list(marker, len)? {
            self.rmp.serialize_struct(name, len)?; // writes no more than the beginning
        }
        Ok(self)
    }

    fn collect_seq<I>(mut self, items: I) -> Result<(), Error>
    where
        I: IntoIterator<Item: Serialize>,
    {
        let items = items.into_iter();
        match items.size_hint() {
            (len, Some(most)) if len == most && len <= u32::MAX as usize => {
                if !self.room().short_list(ARRAY, len)? {
                    SerializeSeq::end(self.rmp.serialize_seq(Some(len))?)?; // no more than the beginning
                }
                let mut items = items;
                items.try_for_each(|item| item.serialize(self.again()))
            }
            _ => self.rmp.collect_seq(items),
        }
    }
}

macro_rules! elements {
    ($($of:ident: $method:ident;)*) => {$(
        impl<C: SerializerConfig> $of for Writer<'_, '_, C> {
            type Ok = ();
            type Error = Error;

            #[inline(always)]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                value.serialize(self.again())
            }

            #[inline(always)]
            fn end(self) -> Result<(), Error> {
                Ok(())
            }
        }
    )*};
}

elements! {
    SerializeTuple: serialize_element;
    SerializeTupleStruct: serialize_field;
    SerializeTupleVariant: serialize_field;
}

macro_rules! fields {
    ($($of:ident)*) => {$(
        impl<C: SerializerConfig> $of for Writer<'_, '_, C> {
            type Ok = ();
            type Error = Error;

            #[inline(always)]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Error> {
                if self.named {
                    self.name(name)?;
                } else if let Some(left_out) = self.left_out {
                    return Err(Self::misplaced(name, left_out));
                }
                value.serialize(self.again())
            }

            #[inline(always)]
            fn skip_field(&mut self, name: &'static str) -> Result<(), Error> {
                self.left_out = Some(name);
                Ok(())
            }

            #[inline(always)]
            fn end(self) -> Result<(), Error> {
                Ok(())
            }
        }
    )*};
}

fields! { SerializeStruct SerializeStructVariant }

/// A sequence, or a map.
pub(super) enum List<'a, 'r, C: SerializerConfig> {
    /// Its beginning is written.
    Known(Writer<'a, 'r, C>),
    /// How long it is turns out at its end; rmp-serde keeps it until then.
    Unknown(<&'a mut Rmp<'r, C> as Serializer>::SerializeSeq),
}

macro_rules! items {
    ($($of:ident: $($method:ident)*;)*) => {$(
        impl<C: SerializerConfig> $of for List<'_, '_, C> {
            type Ok = ();
            type Error = Error;

            $(fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                match self {
                    Self::Known(writer) => value.serialize(writer.again()),
                    Self::Unknown(list) => $of::$method(list, value),
                }
            })*

            fn end(self) -> Result<(), Error> {
                match self {
                    Self::Known(_) => Ok(()),
                    Self::Unknown(list) => $of::end(list),
                }
            }
        }
    )*};
}

items! {
    SerializeSeq: serialize_element;
    SerializeMap: serialize_key serialize_value;
}
