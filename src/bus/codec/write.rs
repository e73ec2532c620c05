//! Writing values. What messages consist of is laid here, but for long strings, bytes and a few kinds of numbers, which are
//! left to rmp-serde. What is written here is what rmp-serde writes, byte for byte: the tests compare the two.

use rmp_serde::config::SerializerConfig;
use rmp_serde::encode::Error;
use serde::ser::{
    Error as _, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::room::{ARRAY, MAP, Room};

type Rmp<'r, C> = rmp_serde::Serializer<Room<'r>, C>;

/// Writes one value.
pub(super) struct Writer<'a, 'r, C> {
    rmp: &'a mut Rmp<'r, C>,
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
        let Some(len) = len else { return List::open(self, ARRAY) };
        Ok(List { writer: self.serialize_tuple(len)?, open: None })
    }

    fn serialize_map(mut self, len: Option<usize>) -> Result<List<'a, 'r, C>, Error> {
        let Some(len) = len else { return List::open(self, MAP) };
        if !self.room().short_list(MAP, len)? {
            self.rmp.serialize_map(Some(len))?; // writes no more than the beginning
        }
        Ok(List { writer: self, open: None })
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
        let mut items = items.into_iter();
        match items.size_hint() {
            (len, Some(most)) if len == most && len <= u32::MAX as usize => {
                if !self.room().short_list(ARRAY, len)? {
                    SerializeSeq::end(self.rmp.serialize_seq(Some(len))?)?; // no more than the beginning
                }
                items.try_for_each(|item| item.serialize(self.again()))
            }
            _ => {
                let mut list = self.serialize_seq(None)?;
                items.try_for_each(|item| list.serialize_element(&item))?;
                SerializeSeq::end(list)
            }
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
pub(super) struct List<'a, 'r, C> {
    writer: Writer<'a, 'r, C>,
    /// Its beginning is written at its end, which tells how long it is.
    open: Option<Open>,
}

/// A list whose length is not known yet.
struct Open {
    marker: u8,
    /// Where it begins.
    start: usize,
    /// Items that are written: of a map, keys and values.
    count: usize,
}

impl<'a, 'r, C: SerializerConfig> List<'a, 'r, C> {
    fn open(mut writer: Writer<'a, 'r, C>, marker: u8) -> Result<Self, Error> {
        let start = writer.room().len;
        writer.room().put([marker])?;
        Ok(Self { writer, open: Some(Open { marker, start, count: 0 }) })
    }

    fn item<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Error> {
        item.serialize(self.writer.again())?;
        if let Some(open) = &mut self.open {
            open.count += 1;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), Error> {
        let Some(Open { marker, start, count }) = self.open.take() else { return Ok(()) };
        let len = if marker == MAP { count / 2 } else { count };
        self.writer.room().finish_list(marker, start, len)
    }
}

/// Without its end it has not been: a value may swallow what one of its fields said, and go on.
impl<C> Drop for List<'_, '_, C> {
    fn drop(&mut self) {
        if let Some(Open { start, .. }) = self.open {
            self.writer.room().len = start;
        }
    }
}

impl<C: SerializerConfig> SerializeSeq for List<'_, '_, C> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.item(value)
    }

    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

impl<C: SerializerConfig> SerializeMap for List<'_, '_, C> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.item(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.item(value)
    }

    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}
