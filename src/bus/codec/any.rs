//! Reading values of any type: what its bytes say decides what a visitor gets.

use rmp_serde::decode::ReadRefReader;
use serde::de::value::SeqDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, Unexpected, VariantAccess, Visitor,
};

use super::error::DecodeError as Error;
use super::read::{Reader, all_read};
use crate::segment::{self, text};

#[cold]
pub(super) fn ended() -> Error {
    Error::custom("its bytes end within a value")
}

/// A number of so many bytes, and what follows it.
fn number(bytes: &[u8], len: usize) -> Option<(u32, &[u8])> {
    let (digits, rest) = bytes.split_at_checked(len)?;
    Some((digits.iter().fold(0, |number, digit| number << 8 | u32::from(*digit)), rest))
}

impl<'de> Reader<'de> {
    /// How many elements the array or pairs the map has that begins here, and what follows that; `None` if it is neither.
    pub(super) fn count(&self) -> Option<(u32, &'de [u8])> {
        let (marker, rest) = self.rest.split_first()?;
        match marker {
            0x80..=0x9f => Some((u32::from(marker & 0x0f), rest)),
            0xdc | 0xde => number(rest, 2),
            0xdd | 0xdf => number(rest, 4),
            _ => None,
        }
    }

    /// The bytes of the string or the bytes that begin here, as many as are claimed.
    fn take_bytes(&mut self) -> Result<&'de [u8], Error> {
        let (marker, rest) = self.rest.split_first().ok_or_else(ended)?;
        let counted = match marker {
            0xa0..=0xbf => Some((u32::from(marker & 0x1f), rest)),
            0xc4 | 0xd9 => number(rest, 1),
            0xc5 | 0xda => number(rest, 2),
            _ => number(rest, 4),
        };
        let (len, rest) = counted.ok_or_else(ended)?;
        let (bytes, rest) = rest.split_at_checked(len as usize).ok_or_else(ended)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A string or bytes for a visitor that is going to own them: long ones are copied here, see [`segment::LONG`]. Where
    /// there is no memory for them, that is an error; a visitor which makes its own copy would end the process.
    #[inline(never)]
    pub(super) fn owned<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        let here = self.rest;
        if let [marker @ (0xc4..=0xc6 | 0xd9..=0xdb), ..] = *here {
            let bytes = self.take_bytes()?;
            if bytes.len() >= segment::LONG {
                let no_memory =
                    || Error::custom(format_args!("no memory for {} bytes of it (`ulimit -v`)", bytes.len()));
                if marker <= 0xc6 {
                    return visitor.visit_byte_buf(segment::to_vec(bytes).ok_or_else(no_memory)?);
                }
                if let Ok(string) = text::from_utf8(bytes) {
                    return visitor.visit_string(segment::to_string(string).ok_or_else(no_memory)?);
                }
            }
            self.rest = here;
        }
        self.any(visitor, true)
    }

    /// A value of any type; if the visitor wants no `bytes`, those are a sequence of numbers.
    #[inline(never)]
    pub(super) fn any<V: Visitor<'de>>(&mut self, visitor: V, bytes: bool) -> Result<V::Value, Error> {
        match *self.rest {
            [0xa0..=0xbf | 0xd9..=0xdb, ..] => {
                let string = self.take_bytes()?;
                match text::from_utf8(string) {
                    Ok(string) => visitor.visit_borrowed_str(string),
                    Err(error) => {
                        visitor.visit_borrowed_bytes(string).map_err(|_: Error| Error::custom(error))
                    }
                }
            }
            [0xc4..=0xc6, ..] if bytes => visitor.visit_borrowed_bytes(self.take_bytes()?),
            [0xc4..=0xc6, ..] => {
                let numbers = self.take_bytes()?;
                visitor.visit_seq(SeqDeserializer::new(numbers.iter().copied()))
            }
            [0x90..=0x9f | 0xdc | 0xdd, ..] => {
                let (len, rest) = self.count().ok_or_else(ended)?;
                self.rest = rest;
                self.elements(len, visitor)
            }
            [0x80..=0x8f | 0xde | 0xdf, ..] => {
                let (len, rest) = self.count().ok_or_else(ended)?;
                self.rest = rest;
                let claimed = self.claim(len);
                self.deeper(|reader| {
                    let mut pairs = Pairs { reader, left: len, claimed };
                    let value = visitor.visit_map(&mut pairs)?;
                    all_read(value, pairs.left)
                })
            }
            [0xc7..=0xc9 | 0xd4..=0xd8, ..] => self.extension(|rmp| rmp.deserialize_any(visitor)),
            _ => self.number(visitor),
        }
    }

    /// What is no number where one is due.
    #[cold]
    pub(super) fn no_number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        match *self.rest {
            [0xc0, ref rest @ ..] => {
                self.rest = rest;
                visitor.visit_unit()
            }
            [0xca..=0xd3, ..] | [] => Err(ended()),
            [0xc1, ..] => Err(Error::custom("no value begins with 0xc1")),
            // The visitor may take it, or says what it wants.
            [..] => self.any(visitor, true),
        }
    }

    /// Has rmp-serde read the extension that begins here, in place.
    #[cold]
    pub(super) fn extension<T>(
        &mut self,
        read: impl FnOnce(
            &mut rmp_serde::Deserializer<ReadRefReader<'de, [u8]>>,
        ) -> Result<T, rmp_serde::decode::Error>,
    ) -> Result<T, Error> {
        let (marker, rest) = self.rest.split_first().ok_or_else(ended)?;
        let counted = match marker {
            0xd4..=0xd8 => Some((1 << (marker - 0xd4), rest)),
            0xc7 => number(rest, 1),
            0xc8 => number(rest, 2),
            0xc9 => number(rest, 4),
            _ => return Err(Error::custom(format_args!("no extension begins with {marker:#04x}"))),
        };
        let (len, rest) = counted.ok_or_else(ended)?;
        let (_, rest) = rest.split_at_checked(len as usize + 1).ok_or_else(ended)?;
        let (extension, rest) = self.rest.split_at(self.rest.len() - rest.len());
        self.rest = rest;
        Ok(read(&mut rmp_serde::Deserializer::from_read_ref(extension))?)
    }
}

/// A map's pairs.
struct Pairs<'a, 'de> {
    reader: &'a mut Reader<'de>,
    left: u32,
    claimed: usize,
}

impl<'de> MapAccess<'de> for Pairs<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.claimed.min(self.left as usize))
    }
}

/// A variant with data: the pair of its name and that.
pub(super) struct Variant<'a, 'de>(pub &'a mut Reader<'de>);

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        Ok((seed.deserialize(&mut *self.0)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        let [0xc0, rest @ ..] = self.0.rest else { return Err(Error::custom("its variant has no data")) };
        self.0.rest = rest;
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        self.0.array(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_struct("", fields, visitor)
    }
}

/// A variant without data: its name, or its number.
pub(super) struct Unit<'a, 'de>(pub &'a mut Reader<'de>);

impl<'de> EnumAccess<'de> for Unit<'_, 'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        Ok((seed.deserialize(&mut *self.0)?, self))
    }
}

impl<'de> VariantAccess<'de> for Unit<'_, 'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _seed: T) -> Result<T::Value, Error> {
        Err(Error::invalid_type(Unexpected::UnitVariant, &"newtype variant"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, Error> {
        Err(Error::invalid_type(Unexpected::UnitVariant, &"tuple variant"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Error> {
        Err(Error::invalid_type(Unexpected::UnitVariant, &"struct variant"))
    }
}
