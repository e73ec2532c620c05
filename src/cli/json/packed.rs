//! Values of any type, sent and received as the MessagePack that they are: a tree of one would take many times its room,
//! and whoever sends it says how large it is.

use std::cell::Cell;

use serde::de::{Deserialize, DeserializeSeed, Deserializer};
use serde::ser::{Error, Serialize, SerializeMap, SerializeSeq, Serializer};

use super::convert::{Bytes, Next};
use super::print::{Json, Token, decode};

/// One MessagePack value.
#[derive(Debug)]
pub(in super::super) struct Packed(pub(super) Vec<u8>);

impl Packed {
    pub(in super::super) fn nil() -> Self {
        Self(vec![rmp::Marker::Null.to_u8()])
    }

    /// A string.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(in super::super) fn text(text: &str) -> Result<Self, String> {
        let mut bytes = Bytes::default();
        rmp::encode::write_str(&mut bytes, text).map_err(|error| error.to_string())?;
        let bytes = bytes.finish();
        bytes.map(Self).map_err(|error| format!("a text of {} bytes is {error}", text.len()))
    }

    pub(in super::super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As JSON.
    ///
    /// # Errors
    /// There is no memory to look at it.
    pub(in super::super) fn shown(&self) -> Result<Json<'_>, String> {
        decode(&self.0)
    }
}

/// A peer's value, if there was memory for it.
#[derive(Debug)]
pub(in super::super) struct Received(Result<Packed, String>);

impl Received {
    /// The value.
    ///
    /// # Errors
    /// That there was no memory for it.
    pub(in super::super) fn value(&self) -> Result<&Packed, String> {
        self.0.as_ref().map_err(Clone::clone)
    }

    pub(in super::super) fn into_value(self) -> Result<Packed, String> {
        self.0
    }
}

impl<'de> Deserialize<'de> for Received {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut bytes = Bytes::default();
        Next(&mut bytes).deserialize(from)?;
        Ok(Self(bytes.finish().map(Packed)))
    }
}

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        Value(&Cell::new(&self.0)).serialize(out)
    }
}

/// What comes next; each is to be serialised once.
struct Value<'w, 'a>(&'w Cell<&'a [u8]>);

impl Serialize for Value<'_, '_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut rest = self.0.get();
        let token = Token::read(&mut rest).map_err(S::Error::custom)?;
        self.0.set(rest);
        match token {
            Token::Nil => out.serialize_unit(),
            Token::Bool(value) => out.serialize_bool(value),
            Token::Unsigned(number) => out.serialize_u64(number),
            Token::Signed(number) => out.serialize_i64(number),
            Token::F32(number) => out.serialize_f32(number),
            Token::F64(number) => out.serialize_f64(number),
            Token::Str(text) => out.serialize_str(str::from_utf8(text).map_err(S::Error::custom)?),
            Token::Bin(bytes) => out.serialize_bytes(bytes),
            Token::Ext(kind, bytes) => {
                out.serialize_newtype_struct(rmp_serde::MSGPACK_EXT_STRUCT_NAME, &(kind, Binary(bytes)))
            }
            Token::Array(len) => {
                let mut list = out.serialize_seq(Some(len))?;
                for _ in 0..len {
                    list.serialize_element(self)?;
                }
                list.end()
            }
            Token::Map(len) => {
                let mut map = out.serialize_map(Some(len))?;
                for _ in 0..len {
                    map.serialize_entry(self, self)?;
                }
                map.end()
            }
        }
    }
}

struct Binary<'a>(&'a [u8]);

impl Serialize for Binary<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_bytes(self.0)
    }
}
