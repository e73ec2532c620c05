//! MessagePack as JSON, straight from the bytes: two passes over them, and no tree in between, which would take many
//! times their room.
//!
//! The first pass checks everything, so that no half a line is printed, and decides for each map whether it is an
//! object; the second one writes.

use std::cell::Cell;

use rmp::Marker;
use serde::ser::{Error, Serialize, SerializeMap, SerializeSeq, Serializer};

use super::Base64;
use crate::bus::codec::MAX_DEPTH;

/// One MessagePack value, checked; serialises as the JSON of the table above.
#[derive(Debug)]
pub(in super::super) struct Json<'a> {
    bytes: &'a [u8],
    objects: Bits,
}

/// Looks at one MessagePack value.
///
/// # Errors
/// It is not one, nothing but one, nested too deeply, or there is no memory to look at it.
pub(in super::super) fn decode(bytes: &[u8]) -> Result<Json<'_>, String> {
    if u32::try_from(bytes.len()).is_err() {
        return Err(format!("{} bytes are too many to print", bytes.len()));
    }
    let mut check = Check { bytes, rest: bytes, keys: Vec::new(), objects: Bits::default() };
    check.value(MAX_DEPTH)?;
    match check.rest.len() {
        0 => Ok(Json { bytes, objects: check.objects }),
        more => Err(format!("{more} bytes follow the MessagePack value")),
    }
}

/// A value without what is in it, if that is values.
pub(super) enum Token<'a> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    F32(f32),
    F64(f64),
    Str(&'a [u8]),
    Bin(&'a [u8]),
    Ext(i8, &'a [u8]),
    Array(usize),
    Map(usize),
}

impl<'a> Token<'a> {
    pub(super) fn read(rest: &mut &'a [u8]) -> Result<Self, &'static str> {
        let [marker] = fixed(rest)?;
        Ok(match Marker::from_u8(marker) {
            Marker::Null => Token::Nil,
            Marker::True => Token::Bool(true),
            Marker::False => Token::Bool(false),
            Marker::FixPos(value) => Token::Unsigned(value.into()),
            Marker::FixNeg(value) => Token::Signed(value.into()),
            Marker::U8 => Token::Unsigned(u8::from_be_bytes(fixed(rest)?).into()),
            Marker::U16 => Token::Unsigned(u16::from_be_bytes(fixed(rest)?).into()),
            Marker::U32 => Token::Unsigned(u32::from_be_bytes(fixed(rest)?).into()),
            Marker::U64 => Token::Unsigned(u64::from_be_bytes(fixed(rest)?)),
            Marker::I8 => Token::Signed(i8::from_be_bytes(fixed(rest)?).into()),
            Marker::I16 => Token::Signed(i16::from_be_bytes(fixed(rest)?).into()),
            Marker::I32 => Token::Signed(i32::from_be_bytes(fixed(rest)?).into()),
            Marker::I64 => Token::Signed(i64::from_be_bytes(fixed(rest)?)),
            Marker::F32 => Token::F32(f32::from_be_bytes(fixed(rest)?)),
            Marker::F64 => Token::F64(f64::from_be_bytes(fixed(rest)?)),
            Marker::FixStr(len) => Token::Str(part(rest, len.into())?),
            Marker::Str8 => Token::Str(sized::<1>(rest)?),
            Marker::Str16 => Token::Str(sized::<2>(rest)?),
            Marker::Str32 => Token::Str(sized::<4>(rest)?),
            Marker::Bin8 => Token::Bin(sized::<1>(rest)?),
            Marker::Bin16 => Token::Bin(sized::<2>(rest)?),
            Marker::Bin32 => Token::Bin(sized::<4>(rest)?),
            Marker::FixExt1 => extension(rest, 1)?,
            Marker::FixExt2 => extension(rest, 2)?,
            Marker::FixExt4 => extension(rest, 4)?,
            Marker::FixExt8 => extension(rest, 8)?,
            Marker::FixExt16 => extension(rest, 16)?,
            Marker::Ext8 => size::<1>(rest).and_then(|len| extension(rest, len))?,
            Marker::Ext16 => size::<2>(rest).and_then(|len| extension(rest, len))?,
            Marker::Ext32 => size::<4>(rest).and_then(|len| extension(rest, len))?,
            Marker::FixArray(len) => Token::Array(len.into()),
            Marker::Array16 => Token::Array(size::<2>(rest)?),
            Marker::Array32 => Token::Array(size::<4>(rest)?),
            Marker::FixMap(len) => Token::Map(len.into()),
            Marker::Map16 => Token::Map(size::<2>(rest)?),
            Marker::Map32 => Token::Map(size::<4>(rest)?),
            Marker::Reserved => return Err("not MessagePack: a byte 0xc1"),
        })
    }
}

fn part<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], &'static str> {
    let (part, after) = rest.split_at_checked(len).ok_or("not MessagePack: it ends too early")?;
    *rest = after;
    Ok(part)
}

fn fixed<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], &'static str> {
    let (part, after) = rest.split_first_chunk().ok_or("not MessagePack: it ends too early")?;
    *rest = after;
    Ok(*part)
}

/// A big-endian number of up to 32 bits.
fn size<const N: usize>(rest: &mut &[u8]) -> Result<usize, &'static str> {
    Ok(fixed::<N>(rest)?.iter().fold(0, |size, byte| size << 8 | usize::from(*byte)))
}

fn sized<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    let len = size::<N>(rest)?;
    part(rest, len)
}

fn extension<'a>(rest: &mut &'a [u8], len: usize) -> Result<Token<'a>, &'static str> {
    let [kind] = fixed(rest)?;
    Ok(Token::Ext(kind as i8, part(rest, len)?))
}

/// The first pass.
struct Check<'a> {
    bytes: &'a [u8],
    rest: &'a [u8],
    /// Where the keys are of maps that are being looked at, and may still be objects: four bytes each, for at least two
    /// of the message.
    keys: Vec<u32>,
    /// In the order in which the maps begin.
    objects: Bits,
}

impl<'a> Check<'a> {
    fn value(&mut self, depth: usize) -> Result<(), String> {
        match Token::read(&mut self.rest)? {
            Token::Array(_) | Token::Map(_) if depth == 0 => {
                Err(format!("more than {MAX_DEPTH} levels of arrays and maps"))
            }
            Token::Array(len) => (0..len).try_for_each(|_| self.value(depth - 1)),
            Token::Map(len) => self.map(len, depth - 1),
            _ => Ok(()),
        }
    }

    fn map(&mut self, len: usize, depth: usize) -> Result<(), String> {
        let (number, first) = (self.objects.add()?, self.keys.len());
        let mut is_object = true;
        for _ in 0..len {
            let at = self.bytes.len() - self.rest.len();
            is_object = is_object && is_key(self.rest, len == 1);
            if is_object {
                // Once a map is known to be no object, its other keys do not matter.
                self.keys.try_reserve(1).map_err(no_memory)?;
                self.keys.push(at as u32); // no message is longer, see `decode`
            }
            self.value(depth)?;
            self.value(depth)?;
        }
        let (bytes, keys) = (self.bytes, &mut self.keys[first..]);
        keys.sort_unstable_by_key(|at| key(bytes, *at));
        is_object = is_object && keys.windows(2).all(|two| key(bytes, two[0]) != key(bytes, two[1]));
        self.keys.truncate(first);
        self.objects.set(number, is_object);
        Ok(())
    }
}

/// Whether a map that has the key that stands here can be an object without losing or changing anything.
fn is_key(mut rest: &[u8], is_only: bool) -> bool {
    match Token::read(&mut rest) {
        Ok(Token::Str(text)) => str::from_utf8(text).is_ok() && !(is_only && text.starts_with(b"$")),
        _ => false,
    }
}

fn key(bytes: &[u8], at: u32) -> &[u8] {
    match Token::read(&mut &bytes[at as usize..]) {
        Ok(Token::Str(text)) => text,
        _ => &[],
    }
}

fn no_memory<E>(_: E) -> String {
    super::TOO_LARGE.to_owned()
}

#[derive(Debug, Default)]
struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    /// Its number.
    fn add(&mut self) -> Result<usize, String> {
        if self.len.is_multiple_of(64) {
            self.words.try_reserve(1).map_err(no_memory)?;
            self.words.push(0);
        }
        self.len += 1;
        Ok(self.len - 1)
    }

    fn set(&mut self, number: usize, value: bool) {
        self.words[number / 64] |= u64::from(value) << (number % 64);
    }

    fn is_set(&self, number: usize) -> bool {
        self.words.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let walk = Walk { rest: Cell::new(self.bytes), map: Cell::new(0), objects: &self.objects };
        Value(&walk).serialize(out)
    }
}

/// The second pass: how far it is.
struct Walk<'a> {
    rest: Cell<&'a [u8]>,
    map: Cell<usize>,
    objects: &'a Bits,
}

/// What comes next; each is to be serialised once.
struct Value<'w, 'a>(&'w Walk<'a>);

impl Serialize for Value<'_, '_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let walk = self.0;
        let mut rest = walk.rest.get();
        let token = Token::read(&mut rest).map_err(S::Error::custom)?;
        walk.rest.set(rest);
        match token {
            Token::Nil => out.serialize_unit(),
            Token::Bool(value) => out.serialize_bool(value),
            Token::Unsigned(number) => out.serialize_u64(number),
            Token::Signed(number) => out.serialize_i64(number),
            Token::F32(number) if number.is_finite() => out.serialize_f32(number),
            Token::F64(number) if number.is_finite() => out.serialize_f64(number),
            Token::F32(number) => form(out, "$float", &number.to_string()),
            Token::F64(number) => form(out, "$float", &number.to_string()),
            Token::Str(text) => match str::from_utf8(text) {
                Ok(text) => out.serialize_str(text),
                Err(_) => form(out, "$str", &Base64(text)),
            },
            Token::Bin(bytes) => form(out, "$bin", &Base64(bytes)),
            Token::Ext(kind, bytes) => form(out, "$ext", &(kind, Base64(bytes))),
            Token::Array(len) => {
                let mut list = out.serialize_seq(Some(len))?;
                for _ in 0..len {
                    list.serialize_element(self)?;
                }
                list.end()
            }
            Token::Map(len) => {
                let number = walk.map.replace(walk.map.get() + 1);
                if !walk.objects.is_set(number) {
                    return form(out, "$map", &Pairs { walk, len });
                }
                let mut map = out.serialize_map(Some(len))?;
                for _ in 0..len {
                    map.serialize_entry(self, self)?;
                }
                map.end()
            }
        }
    }
}

/// The entries of a map that is no object.
struct Pairs<'w, 'a> {
    walk: &'w Walk<'a>,
    len: usize,
}

impl Serialize for Pairs<'_, '_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut list = out.serialize_seq(Some(self.len))?;
        for _ in 0..self.len {
            list.serialize_element(&(Value(self.walk), Value(self.walk)))?;
        }
        list.end()
    }
}

fn form<S: Serializer>(out: S, name: &str, value: &impl Serialize) -> Result<S::Ok, S::Error> {
    let mut map = out.serialize_map(Some(1))?;
    map.serialize_entry(name, value)?;
    map.end()
}
