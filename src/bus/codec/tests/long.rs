//! Long strings and bytes.

use serde::{Deserialize, Serialize};

use crate::bus::codec::{Body, Value, decode, encode};
use crate::segment::{self, Via};

/// Bytes, as bytes and not as a list of numbers.
#[derive(Debug, Clone, PartialEq)]
struct Blob(Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Blob;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
                assert!(bytes.len() < segment::LONG, "long ones come as they are to stay");
                Ok(Blob(bytes.to_vec()))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }

            fn visit_str<E>(self, string: &str) -> Result<Blob, E> {
                assert!(string.len() < segment::LONG, "long ones come as they are to stay");
                Ok(Blob(string.as_bytes().to_vec()))
            }

            fn visit_string<E>(self, string: String) -> Result<Blob, E> {
                Ok(Blob(string.into_bytes()))
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}

#[test]
fn long_pieces_are_read_by_owners_and_by_others() {
    for len in [segment::LONG - 1, segment::LONG, 70_000] {
        let (text, bytes) = ("x".repeat(len), Blob(vec![7; len]));
        let encoded = encode(&(&text, &bytes)).unwrap();
        for via in [Via::Caches, Via::Memory] {
            let mut out = vec![0; encoded.len()];
            let value = Value { value: &(&text, &bytes), compact: false };
            assert_eq!(value.write(&mut out, via), Ok(encoded.len()));
            assert!(out == encoded);
        }
        assert_eq!(decode::<(String, Blob)>(&encoded).unwrap(), (text.clone(), bytes));
        assert_eq!(decode::<(serde_json::Value, Vec<u8>)>(&encoded).unwrap().0, text.as_str());
        let crossed = (Blob(text.clone().into_bytes()), "\x07".repeat(len));
        assert_eq!(decode::<(Blob, String)>(&encoded).unwrap(), crossed);
        assert!(decode::<(serde::de::IgnoredAny, serde::de::IgnoredAny)>(&encoded).is_ok());
        assert!(decode::<(String, Blob)>(&encoded[..encoded.len() - 1]).is_err());
        let mut broken = encoded;
        broken[10] = 0xff;
        assert!(decode::<(String, Blob)>(&broken).is_err());
    }
}
