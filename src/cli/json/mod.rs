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
//! | strings that are not UTF-8 | `{"$str":"base64"}` (to JSON only, as `{"$raw":"base64"}` of payloads that are no value) |
//!
//! A map whose only key begins with `$` is written as a `$map`, so that each object means one thing.

use std::fmt;

use serde::ser::{Serialize, Serializer};

mod convert;
mod forms;
mod packed;
mod print;
mod safe;
mod survey;
mod typed;

pub(super) use convert::convert;
pub(super) use packed::{Packed, Received};
pub(super) use print::{Json, decode};
pub(super) use safe::write;
pub(super) use typed::parse_lenient;

/// What is said of a value that there is no memory for.
const TOO_LARGE: &str = "too large for this process's memory (`ulimit -v`)";

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes as text, as RFC 4648 has it, with padding.
pub(super) struct Base64<'a>(pub(super) &'a [u8]);

impl fmt::Display for Base64<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for group in self.0.chunks(3) {
            let mut bits = [0; 4];
            bits[1..=group.len()].copy_from_slice(group);
            let bits = u32::from_be_bytes(bits);
            let digit = |at: usize| match at <= group.len() {
                true => ALPHABET[(bits >> (18 - 6 * at)) as usize % 64],
                false => b'=',
            };
            let digits = [0, 1, 2, 3].map(digit);
            f.write_str(str::from_utf8(&digits).map_err(|_| fmt::Error)?)?;
        }
        Ok(())
    }
}

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

/// Decodes base64 in its place; how many bytes, if it is base64.
fn base64_decode(text: &mut [u8]) -> Option<usize> {
    let padding = text.iter().rev().take_while(|digit| **digit == b'=').count();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let (digits, mut decoded) = (text.len() - padding, 0);
    for at in (0..digits).step_by(4) {
        let mut bits = 0;
        let group = at..digits.min(at + 4);
        for digit in &text[group.clone()] {
            bits = bits << 6 | ALPHABET.iter().position(|known| known == digit)? as u32;
        }
        bits <<= 6 * (4 - group.len());
        let bytes = bits.to_be_bytes();
        let bytes = bytes.get(1..group.len())?;
        text[decoded..decoded + bytes.len()].copy_from_slice(bytes);
        decoded += bytes.len();
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rmpv::Value;

    use super::*;

    fn encode(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, value).unwrap();
        bytes
    }

    fn parse(text: &str) -> Result<Value, String> {
        let packed = parse_lenient(text)?;
        let sent = rmp_serde::to_vec(&packed).unwrap();
        let value = rmpv::decode::read_value(&mut &sent[..]).unwrap();
        assert_eq!(encode(&value), sent, "in as few bytes as can be");
        Ok(value)
    }

    fn to_json(value: &Value) -> String {
        serde_json::to_string(&decode(&encode(value)).unwrap()).unwrap()
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
        assert_eq!(parse("hello there"), Ok(Value::from("hello there")));
        assert_eq!(parse(""), Ok(Value::from("")));
        assert_eq!(parse("12 monkeys"), Ok(Value::from("12 monkeys")));
        for broken in [r#"{"done":3"#, " [1", r#""x"#] {
            assert!(parse(broken).unwrap_err().contains("begins like JSON"), "{broken}");
        }
        for broken in [r#"{"$bin":"?"}"#, r#"{"$ext":[300,""]}"#] {
            let told = parse(broken).unwrap_err();
            assert!(told.contains("does not hold what it should") && !told.contains("begins like"), "{told}");
        }
        for printed in [r#"{"$raw":"AP8="}"#, r#"[{"$str":"/w=="}]"#, r#"{"$raw":1}"#] {
            let told = parse(printed).unwrap_err();
            assert!(told.contains("bytes that are no value") && told.contains("--text"), "{told}");
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
        assert!(decode(&[0xc1]).is_err(), "a byte that MessagePack does not use");
        let nested = |levels: usize| [vec![0x91; levels], vec![0xc0]].concat();
        assert!(decode(&nested(256)).is_ok() && decode(&nested(257)).unwrap_err().contains("256 levels"));
        for cut in 0..WIDE.len() {
            assert!(decode(&WIDE[..cut]).is_err(), "cut at {cut}");
        }
    }

    /// `{"a": [1.5, "b", bin, ext], 2: {}}`, with the widest lengths.
    const WIDE: &[u8] = &[
        0xdf, 0, 0, 0, 2, 0xdb, 0, 0, 0, 1, b'a', 0xdd, 0, 0, 0, 4, 0xca, 0x3f, 0xc0, 0, 0, 0xd9, 1, b'b',
        0xc6, 0, 0, 0, 1, 7, 0xc9, 0, 0, 0, 1, 5, 8, 0xd0, 2, 0xde, 0, 0,
    ];

    #[test]
    fn payloads_that_are_not_json_are_errors_and_forms_in_json_are_only_maps() {
        for broken in [&b"[1"[..], b"\"\xff\"", b"", b"1 2"] {
            assert!(convert(broken).unwrap_err().starts_with("not JSON: "), "{broken:?}");
        }
        let converted = convert(br#"{"$bin":"?"}"#).unwrap();
        assert_eq!(
            serde_json::to_string(&decode(&converted).unwrap()).unwrap(),
            r#"{"$map":[["$bin","?"]]}"#
        );
    }

    #[test]
    fn every_width_of_a_length_is_read() {
        let shown = serde_json::to_string(&decode(WIDE).unwrap()).unwrap();
        assert_eq!(shown, r#"{"$map":[["a",[1.5,"b",{"$bin":"Bw=="},{"$ext":[5,"CA=="]}]],[2,{}]]}"#);
    }

    #[test]
    fn each_map_is_judged_by_its_own_keys() {
        let text = r#"{"$map":[["a",{"b":{"$map":[["c",{}],["c",{"d":1}]]}}],["a",{"$map":[[{"e":2},3]]}]]}"#;
        assert_eq!(to_json(&parse(text).unwrap()), text);
        let keys: Vec<(Value, Value)> = (0..100).map(|n| (format!("key {n}").into(), n.into())).collect();
        assert!(to_json(&Value::Map(keys.clone())).starts_with(r#"{"key 0":0,"#));
        let twice = [&keys[..], &keys[40..41]].concat();
        assert!(to_json(&Value::Map(twice)).starts_with(r#"{"$map":[["key 0",0],"#));
    }

    #[test]
    fn text_that_is_not_utf8_is_shown() {
        let value = decode(&[0xa1, 0xff]).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), r#"{"$str":"/w=="}"#);
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
        fn json_is_converted_to_what_is_read_from_it(value in values()) {
            let text = to_json(&value);
            let expected: Value = serde_json::from_str(&text).unwrap();
            let converted = convert(text.as_bytes()).unwrap();
            prop_assert_eq!(rmpv::decode::read_value(&mut &converted[..]).unwrap(), expected);
            prop_assert!(convert((text + "]").as_bytes()).is_err());
        }

        #[test]
        fn base64_round_trips(bytes: Vec<u8>) {
            let mut text = Base64(&bytes).to_string().into_bytes();
            prop_assert_eq!(base64_decode(&mut text), Some(bytes.len()));
            prop_assert_eq!(&text[..bytes.len()], bytes);
        }
    }
}
