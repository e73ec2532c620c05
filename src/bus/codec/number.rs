//! Reading numbers.

use serde::de::Visitor;

use super::error::DecodeError as Error;
use super::read::Reader;

impl<'de> Reader<'de> {
    /// As [`Reader::number`], the forms that unsigned numbers mostly have without a call.
    #[inline(always)]
    pub(super) fn unsigned<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        match *self.rest {
            [value @ 0..=0x7f, ref rest @ ..] => {
                self.rest = rest;
                visitor.visit_u8(value)
            }
            [0xce, a, b, c, d, ref rest @ ..] => {
                self.rest = rest;
                visitor.visit_u32(u32::from_be_bytes([a, b, c, d]))
            }
            [0xcf, a, b, c, d, e, f, g, h, ref rest @ ..] => {
                self.rest = rest;
                visitor.visit_u64(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
            _ => self.number(visitor),
        }
    }

    /// The same for floating-point numbers.
    #[inline(always)]
    pub(super) fn float<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        if let [0xcb, a, b, c, d, e, f, g, h, ref rest @ ..] = *self.rest {
            self.rest = rest;
            return visitor.visit_f64(f64::from_be_bytes([a, b, c, d, e, f, g, h]));
        }
        self.number(visitor)
    }

    #[inline(never)]
    pub(super) fn number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
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
            _ => self.no_number(visitor),
        }
    }
}
