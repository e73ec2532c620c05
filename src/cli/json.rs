//! JSON ↔ MessagePack, so that what `sub` prints can be given to `pub` again.
//!
//! | MessagePack | JSON |
//! | --- | --- |
//! | nil, booleans, strings, integers, arrays | the same |
//! | floats | numbers with a point or an exponent; `{"$float":"NaN"}`, `"inf"`, `"-inf"` |
//! | maps whose keys are different strings | objects, in the same order |
//! | other maps | `{"$map":[[key,value],…]}` |
//! | binary | `{"$bin":"base64"}` |
//! | extensions | `{"$ext":[type,"base64"]}` |
//! | strings that are not UTF-8 | `{"$str":"base64"}` (to JSON only) |
//!
//! A map whose only key begins with `$` is written as a `$map`, so that each object means one thing.

use std::collections::HashSet;

use rmpv::{Value, ValueRef};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// Deepest nesting that is read or printed; more would be a risk to the stack.
const MAX_DEPTH: usize = 128;

/// Reads what a user has typed: JSON if it can be, else text as it is.
///
/// # Errors
/// It begins as only JSON does, and is not.
pub(super) fn parse_lenient(text: &str) -> Result<Value, String> {
    match parse(text) {
        Err(error) if text.trim_start().starts_with(['{', '[', '"']) => Err(format!(
            "{} begins like JSON, but is not: {error}: correct it, or pass it as text with --text",
            shortened(text)
        )),
        Err(_) => Ok(Value::from(text)),
        parsed => parsed,
    }
}

/// Reads JSON, and the forms of the table above.
fn parse(text: &str) -> Result<Value, String> {
    let value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    special(value)
}

fn shortened(text: &str) -> String {
    let mut short: String = text.trim_start().chars().take(40).collect();
    if short.len() < text.trim_start().len() {
        short.push('…');
    }
    short
}

/// Turns the `$…` forms into what they stand for, from the outside in.
fn special(value: Value) -> Result<Value, String> {
    match value {
        Value::Array(items) => Ok(Value::Array(items.into_iter().map(special).collect::<Result<_, _>>()?)),
        Value::Map(entries) => {
            if let [(key, value)] = &entries[..]
                && let Some(form) = key.as_str().filter(|key| key.starts_with('$'))
                && let Some(meant) = special_form(form, value)
            {
                return meant;
            }
            let entry = |(key, value)| Ok((key, special(value)?));
            Ok(Value::Map(entries.into_iter().map(entry).collect::<Result<_, String>>()?))
        }
        other => Ok(other),
    }
}

/// `None`: a key of the user's own that happens to begin with `$`.
fn special_form(form: &str, value: &Value) -> Option<Result<Value, String>> {
    let broken = || format!("{form:?} does not hold what it should (see `ringbus sub --help`)");
    let bytes = |value: &Value| value.as_str().and_then(base64_decode);
    Some(match form {
        "$bin" => bytes(value).map(Value::Binary).ok_or_else(broken),
        "$float" => match value.as_str() {
            Some("NaN") => Ok(Value::F64(f64::NAN)),
            Some("inf") => Ok(Value::F64(f64::INFINITY)),
            Some("-inf") => Ok(Value::F64(f64::NEG_INFINITY)),
            _ => Err(broken()),
        },
        "$ext" => match value.as_array().map(Vec::as_slice) {
            Some([kind, data]) => {
                let kind = kind.as_i64().and_then(|kind| i8::try_from(kind).ok());
                kind.zip(bytes(data)).map(|(kind, data)| Value::Ext(kind, data)).ok_or_else(broken)
            }
            _ => Err(broken()),
        },
        "$map" => {
            let entry = |entry: &Value| match entry.as_array().map(Vec::as_slice) {
                Some([key, value]) => Ok((special(key.clone())?, special(value.clone())?)),
                _ => Err(broken()),
            };
            let entries = value.as_array().ok_or_else(broken);
            entries.and_then(|entries| entries.iter().map(entry).collect::<Result<_, _>>()).map(Value::Map)
        }
        _ => return None,
    })
}

/// Decodes one MessagePack value; the strings in it are borrowed.
///
/// # Errors
/// It is not one, nothing but one, or nested too deeply.
pub(super) fn decode(mut bytes: &[u8]) -> Result<ValueRef<'_>, String> {
    let value = rmpv::decode::read_value_ref_with_max_depth(&mut bytes, MAX_DEPTH)
        .map_err(|error| format!("not MessagePack: {error}"))?;
    match bytes.len() {
        0 => Ok(value),
        more => Err(format!("{more} bytes follow the MessagePack value")),
    }
}

/// A MessagePack value that serialises as the JSON of the table above.
pub(super) struct Json<'a>(pub(super) &'a ValueRef<'a>);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            ValueRef::Nil => out.serialize_unit(),
            ValueRef::Boolean(value) => out.serialize_bool(*value),
            ValueRef::Integer(number) => match number.as_u64() {
                Some(number) => out.serialize_u64(number),
                None => out.serialize_i64(number.as_i64().unwrap_or(i64::MIN)),
            },
            ValueRef::F32(number) if number.is_finite() => out.serialize_f32(*number),
            ValueRef::F64(number) if number.is_finite() => out.serialize_f64(*number),
            ValueRef::F32(number) => form(out, "$float", &number.to_string()),
            ValueRef::F64(number) => form(out, "$float", &number.to_string()),
            ValueRef::String(text) => match text.as_str() {
                Some(text) => out.serialize_str(text),
                None => form(out, "$str", &base64(text.as_bytes())),
            },
            ValueRef::Binary(bytes) => form(out, "$bin", &base64(bytes)),
            ValueRef::Ext(kind, bytes) => form(out, "$ext", &(kind, base64(bytes))),
            ValueRef::Array(items) => {
                let mut list = out.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(&Json(item))?;
                }
                list.end()
            }
            ValueRef::Map(entries) => match is_object(entries) {
                true => {
                    let mut map = out.serialize_map(Some(entries.len()))?;
                    for (key, value) in entries {
                        map.serialize_entry(&Json(key), &Json(value))?;
                    }
                    map.end()
                }
                false => {
                    let pairs: Vec<_> = entries.iter().map(|(key, value)| (Json(key), Json(value))).collect();
                    form(out, "$map", &pairs)
                }
            },
        }
    }
}

fn form<S: Serializer>(out: S, name: &str, value: &impl Serialize) -> Result<S::Ok, S::Error> {
    let mut map = out.serialize_map(Some(1))?;
    map.serialize_entry(name, value)?;
    map.end()
}

/// Whether a map can be an object without losing or changing anything.
fn is_object(entries: &[(ValueRef<'_>, ValueRef<'_>)]) -> bool {
    let key = |(key, _): &(ValueRef<'_>, _)| match key {
        ValueRef::String(text) => text.as_str().map(str::to_owned),
        _ => None,
    };
    match entries {
        [only] => key(only).is_some_and(|key| !key.starts_with('$')),
        _ => {
            let mut seen = HashSet::new();
            entries.iter().all(|entry| key(entry).is_some_and(|key| seen.insert(key)))
        }
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648, with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut bits = [0; 4];
        bits[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(bits);
        for at in 0..4 {
            let index = (bits >> (18 - 6 * at)) as usize % 64;
            text.push(if at <= group.len() { ALPHABET[index] as char } else { '=' });
        }
    }
    text
}

fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let digits = text.trim_end_matches('=').as_bytes();
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    for group in digits.chunks(4) {
        let mut bits = 0;
        for at in 0..4 {
            let digit = match group.get(at) {
                Some(digit) => ALPHABET.iter().position(|known| known == digit)? as u32,
                None => 0,
            };
            bits = bits << 6 | digit;
        }
        bytes.extend_from_slice(bits.to_be_bytes().get(1..group.len())?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, value).unwrap();
        bytes
    }

    fn to_json(value: &Value) -> String {
        serde_json::to_string(&Json(&decode(&encode(value)).unwrap())).unwrap()
    }

    #[test]
    fn json_stays_as_it_is() {
        for text in [
            "null",
            "true",
            "-1",
            "18446744073709551615",
            "-9223372036854775808",
            "3.0",
            "1234.5678",
            r#""a\u0000b""#,
            r#"{"b":[1,2.5,{"a":null}],"a":{}}"#,
            r#"{"$bin":"AAEC"}"#,
            r#"{"$ext":[-1,"AAAAAA=="]}"#,
            r#"{"$float":"-inf"}"#,
            r#"{"$map":[[1,"one"],["$x",{"$bin":""}]]}"#,
            r#"{"$map":[["$bin","not base64"]]}"#,
            r#"{"$a":1,"$b":2}"#,
        ] {
            assert_eq!(to_json(&parse(text).unwrap()), text);
        }
    }

    #[test]
    fn integers_and_floats_are_told_apart() {
        assert_eq!(encode(&parse("3").unwrap()), [3]);
        assert_eq!(encode(&parse("3.0").unwrap())[0], 0xcb);
        assert_eq!(to_json(&Value::F32(0.1)), "0.1");
        assert_eq!(to_json(&Value::F32(f32::NAN)), r#"{"$float":"NaN"}"#);
    }

    #[test]
    fn what_is_not_json_is_text_unless_it_was_meant_to_be() {
        assert_eq!(parse_lenient("hello there"), Ok(Value::from("hello there")));
        assert_eq!(parse_lenient(""), Ok(Value::from("")));
        assert_eq!(parse_lenient("12 monkeys"), Ok(Value::from("12 monkeys")));
        for broken in [r#"{"done":3"#, " [1", r#""x"#, r#"{"$bin":"?"}"#, r#"{"$ext":[300,""]}"#] {
            assert!(parse_lenient(broken).unwrap_err().contains("begins like JSON"), "{broken}");
        }
    }

    #[test]
    fn a_key_of_the_users_own_may_begin_with_a_dollar() {
        let value = parse(r#"{"$set":{"a":1}}"#).unwrap();
        assert_eq!(value, Value::Map(vec![("$set".into(), Value::Map(vec![("a".into(), 1.into())]))]));
        assert_eq!(to_json(&value), r#"{"$map":[["$set",{"a":1}]]}"#);
    }

    #[test]
    fn hostile_payloads_are_errors() {
        assert!(decode(&[]).is_err());
        assert!(decode(&[1, 2]).unwrap_err().contains("1 bytes follow"));
        assert!(decode(&vec![0x91; 100_000]).is_err(), "nested arrays");
        assert!(decode(&[0xdd, 0xff, 0xff, 0xff, 0xff]).is_err(), "claims 4 G elements");
    }

    #[test]
    fn text_that_is_not_utf8_is_shown() {
        let value = decode(&[0xa1, 0xff]).unwrap();
        assert_eq!(serde_json::to_string(&Json(&value)).unwrap(), r#"{"$str":"/w=="}"#);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("NaN is not itself", |x| !x.is_nan()).prop_map(Value::F64),
            "[a-z$]{0,3}".prop_map(Value::from),
            any::<Vec<u8>>().prop_map(Value::Binary),
            (any::<i8>(), any::<Vec<u8>>()).prop_map(|(kind, data)| Value::Ext(kind, data)),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let pair = (inner.clone(), inner.clone());
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(Value::Array),
                prop::collection::vec(pair, 0..4).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_can_be_published_again(value in values()) {
            prop_assert_eq!(parse(&to_json(&value)).unwrap(), value);
        }

        #[test]
        fn base64_round_trips(bytes: Vec<u8>) {
            prop_assert_eq!(base64_decode(&base64(&bytes)), Some(bytes));
        }
    }
}
