use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

mod long;

#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct Progress {
    done: u32,
    label: String,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Newer {
    label: String,
    #[serde(default)]
    eta: Option<u32>,
    done: u32,
}

fn encode(compact: bool) -> Vec<u8> {
    let progress = Progress { done: 3, label: "x".into() };
    let body = Value { value: &progress, compact };
    let mut out = vec![0; body.size().unwrap()];
    assert_eq!(body.write(&mut out, Via::Caches), Ok(out.len()));
    let shorter = out.len() - 1;
    assert_eq!(body.write(&mut out.clone()[..shorter], Via::Caches), Err(BodyError::Full));
    out
}

#[test]
fn both_forms_decode_and_fields_may_be_added_and_reordered() {
    let expected = Progress { done: 3, label: "x".into() };
    for compact in [false, true] {
        let bytes = encode(compact);
        assert_eq!(decode::<Progress>(&bytes).unwrap(), expected);
        let copied = decode_copy::<Progress>(bytes.len(), |copy| copy.copy_from_slice(&bytes));
        assert_eq!(copied.unwrap(), expected);
    }
    assert!(encode(true).len() < encode(false).len());
    let newer = decode::<Newer>(&encode(false)).unwrap();
    assert_eq!(newer, Newer { label: "x".into(), eta: None, done: 3 });
}

#[test]
fn what_is_no_such_value_is_an_error_not_a_panic() {
    assert!(decode::<Progress>(&[]).is_err());
    assert!(decode::<Progress>(b"\xc1").is_err());
    assert!(decode::<Vec<u64>>(&[0xdd, 0xff, 0xff, 0xff, 0xff]).is_err(), "claims 4 G elements");
    let deep = vec![0x91; 100_000];
    assert!(decode::<serde_json::Value>(&deep).is_err(), "nested arrays");
}

#[test]
fn another_type_is_named_and_so_is_the_one_that_was_wanted() {
    let told = |bytes: &[u8]| decode::<u32>(bytes).unwrap_err().to_string();
    assert_eq!(told(b"\xa3abc"), r#"invalid type: string "abc", expected u32"#);
    assert_eq!(told(&[0x91, 1]), "invalid type: sequence, expected u32");
    assert_eq!(told(&[0x80]), "invalid type: map, expected u32");
    assert_eq!(told(&[0xc4, 1, 1]), "invalid type: byte array, expected u32");
    assert_eq!(told(&[0xc1]), "no value begins with 0xc1");
    // As rmp-serde has it, a visitor that takes a number may take something else as well.
    struct Either;
    impl<'de> serde::de::Visitor<'de> for Either {
        type Value = u64;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a number, or its digits")
        }

        fn visit_u64<E>(self, number: u64) -> Result<u64, E> {
            Ok(number)
        }

        fn visit_str<E: serde::de::Error>(self, digits: &str) -> Result<u64, E> {
            digits.parse().map_err(E::custom)
        }
    }
    for bytes in [&[0xcd, 0x01, 0x02][..], b"\xa3258"] {
        let number = serde::Deserializer::deserialize_u64(&mut Reader::new(bytes, MAX_DEPTH), Either);
        assert_eq!(number.unwrap(), 258);
    }
}

#[test]
fn an_unserialisable_value_says_so() {
    struct No;
    impl Serialize for No {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("never"))
        }
    }
    let body = Value { value: &No, compact: false };
    assert_eq!(body.write(&mut [0; 8], Via::Caches), Err(BodyError::Encode("never".into())));
}

/// Its first field is left out when there is none, and so is its last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Sparse {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<u8>,
    second: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    third: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Holder {
    One(Sparse),
    Two(u8, Sparse),
    Named {
        sparse: Sparse,
    },
    Itself {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        first: Option<u8>,
        second: u8,
    },
}

/// Lists whose length is not known before their end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Loose<T> {
    #[serde(serialize_with = "one_by_one")]
    items: Vec<T>,
    #[serde(flatten)]
    map: BTreeMap<String, T>,
}

fn one_by_one<T: Serialize, S: serde::Serializer>(items: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(items.iter().filter(|_| true))
}

/// Without names it would be read as the one that is missing.
#[test]
fn a_field_after_one_that_is_left_out_is_not_written_without_names() {
    fn holds<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T, fits: bool) {
        for compact in [false, true] {
            let mut out = [0; 256];
            match (Value { value, compact }.write(&mut out, Via::Caches), fits || !compact) {
                (Ok(len), true) => assert_eq!(decode::<T>(&out[..len]).unwrap(), *value),
                (Err(BodyError::Encode(why)), false) => {
                    assert!(why.contains("`second` comes after `first`"), "{why}");
                }
                other => panic!("{value:?}, compact: {compact}: {other:?}"),
            }
        }
    }
    let whole = Sparse { first: Some(1), second: 2, third: Some(3) };
    for (sparse, fits) in [
        (whole.clone(), true),
        (Sparse { third: None, ..whole.clone() }, true),
        (Sparse { first: None, ..whole.clone() }, false),
        (Sparse { first: None, second: 2, third: None }, false),
    ] {
        holds(&sparse, fits);
        holds(&(0, Some(sparse.clone())), fits);
        holds(&vec![whole.clone(), sparse.clone()], fits);
        holds(&BTreeMap::from([(1, sparse.clone())]), fits);
        holds(&Holder::One(sparse.clone()), fits);
        holds(&Holder::Two(0, sparse.clone()), fits);
        holds(&Holder::Named { sparse: sparse.clone() }, fits);
        let key = || "key".to_owned();
        holds(&Loose { items: vec![sparse.clone()], map: BTreeMap::new() }, fits);
        holds(&Loose { items: Vec::new(), map: BTreeMap::from([(key(), sparse)]) }, fits);
    }
    holds(&Holder::Itself { first: Some(1), second: 2 }, true);
    holds(&Holder::Itself { first: None, second: 2 }, false);
}

/// Something of everything that is read or written without rmp-serde, among what is left to it.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
struct Mixed {
    unsigned: (u8, u16, u32, u64),
    signed: (i8, i16, i32, i64),
    wide: (i128, u128),
    floats: [f32; 2],
    double: f64,
    yes: bool,
    letter: char,
    name: String,
    maybe: Option<String>,
    nothing: (),
    id: Id,
    kind: Kind,
    list: Vec<Point>,
    numbers: Vec<i64>,
    map: BTreeMap<String, Option<Kind>>,
    #[serde(alias = "other", default)]
    a_name_of_more_than_thirty_one_bytes: u32,
    any: serde_json::Value,
    inner: Option<Box<Mixed>>,
}

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
struct Id(u64);

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
struct Point {
    x: f64,
    y: Option<i32>,
}

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
enum Kind {
    Plain,
    Of(i16),
    Pair(u8, String),
    Named { at: Point, id: Id },
}

fn kind() -> impl Strategy<Value = Kind> {
    let point = || (-1e9..1e9, any::<Option<i32>>()).prop_map(|(x, y)| Point { x, y });
    prop_oneof![
        Just(Kind::Plain),
        any::<i16>().prop_map(Kind::Of),
        (any::<u8>(), ".{0,40}").prop_map(|(number, text)| Kind::Pair(number, text)),
        (point(), any::<u64>()).prop_map(|(at, id)| Kind::Named { at, id: Id(id) }),
    ]
}

/// Of all sizes: a number of any width is rarely a small one.
fn number() -> impl Strategy<Value = i64> {
    (any::<i64>(), 0..64u32).prop_map(|(number, shift)| number >> shift)
}

fn mixed() -> impl Strategy<Value = Mixed> {
    let scalars = (number(), number(), any::<f32>(), -1e300..1e300, any::<bool>(), any::<char>());
    let texts = (".{0,40}", prop::option::of(".{0,300}"), kind());
    let lists = (
        prop::collection::vec((-1e9..1e9, any::<Option<i32>>()).prop_map(|(x, y)| Point { x, y }), 0..20),
        prop::collection::vec(number(), 0..20),
        prop::collection::btree_map("[a-z]{0,5}", prop::option::of(kind()), 0..20),
    );
    let flat = (scalars, texts, lists).prop_map(|(scalars, texts, (list, numbers, map))| {
        let (number, other, float, double, yes, letter) = scalars;
        let (name, maybe, kind) = texts;
        Mixed {
            unsigned: (number as u8, number as u16, number as u32, number as u64),
            signed: (other as i8, other as i16, other as i32, other),
            wide: (number.into(), other.unsigned_abs().into()),
            floats: [float, 1.0],
            double,
            yes,
            letter,
            name: name.clone(),
            maybe,
            nothing: (),
            id: Id(number as u64),
            kind,
            list,
            numbers,
            map,
            a_name_of_more_than_thirty_one_bytes: other as u32,
            any: serde_json::json!({ "name": name, "numbers": [number, null, true] }),
            inner: None,
        }
    });
    prop::collection::vec(flat, 1..4).prop_map(|flat| {
        let nest = |inner, outer| Some(Mixed { inner: Option::map(inner, Box::new), ..outer });
        flat.into_iter().fold(None, nest).expect("one at least")
    })
}

pub(super) fn by_rmp<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let mut rmp = rmp_serde::Deserializer::from_read_ref(bytes);
    rmp.set_max_depth(MAX_DEPTH);
    T::deserialize(&mut rmp).ok()
}

/// In both forms; and what is cut off is neither written nor read.
fn writes_as_rmp<T>(value: &T, cut: prop::sample::Index) -> Result<(), TestCaseError>
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    for compact in [false, true] {
        let expected = if compact { rmp_serde::to_vec(value) } else { rmp_serde::to_vec_named(value) };
        let expected = expected.unwrap();
        let body = Value { value, compact };
        let mut out = vec![0; expected.len() + 5];
        prop_assert_eq!(body.write(&mut out, Via::Caches), Ok(expected.len()));
        prop_assert_eq!(&out[..expected.len()], &*expected);
        let shorter = cut.index(expected.len());
        prop_assert_eq!(body.write(&mut out[..shorter], Via::Caches), Err(BodyError::Full));

        prop_assert_eq!(decode::<T>(&expected).ok(), by_rmp::<T>(&expected));
        prop_assert!(decode::<T>(&expected[..shorter]).is_err());
    }
    Ok(())
}

proptest! {
    #[test]
    fn values_are_written_and_read_as_rmp_serde_does(mixed in mixed(), cut in any::<prop::sample::Index>()) {
        writes_as_rmp(&mixed, cut)?;
    }

    #[test]
    fn lists_of_unknown_length_are_written_as_rmp_serde_does(
        items in prop::collection::vec(number(), 0..40),
        map in prop::collection::btree_map("[a-z]{1,3}", number(), 0..40),
        cut in any::<prop::sample::Index>(),
    ) {
        let loose = Loose { items, map };
        let nested = Loose { items: vec![loose.clone(), loose.clone()], map: BTreeMap::from([("x".into(), loose)]) };
        writes_as_rmp(&nested, cut)?;
    }

    #[test]
    fn changed_bytes_are_read_as_rmp_serde_does(
        mixed in mixed(),
        compact in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let bytes = if compact { rmp_serde::to_vec(&mixed) } else { rmp_serde::to_vec_named(&mixed) };
        let mut bytes = bytes.unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        same_text(decode::<Mixed>(&bytes).ok(), by_rmp::<Mixed>(&bytes))?;
    }

    #[test]
    fn any_bytes_are_read_as_rmp_serde_does(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        same_text(decode::<Point>(&bytes).ok(), by_rmp::<Point>(&bytes))?;
        same_text(decode::<Vec<Option<i64>>>(&bytes).ok(), by_rmp::<Vec<Option<i64>>>(&bytes))?;
        same_text(decode::<(u8, String)>(&bytes).ok(), by_rmp::<(u8, String)>(&bytes))?;
        same_text(decode::<serde_json::Value>(&bytes).ok(), by_rmp::<serde_json::Value>(&bytes))?;
    }
}

/// NaN is not itself.
pub(super) fn same_text(
    ours: impl std::fmt::Debug,
    theirs: impl std::fmt::Debug,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
    Ok(())
}

#[test]
fn fields_in_another_order_with_others_between_are_found() {
    let theirs = serde_json::json!({ "y": 3, "more": [1, { "x": 2 }], "x": -1.5 });
    let bytes = rmp_serde::to_vec_named(&theirs).unwrap();
    assert_eq!(decode::<Point>(&bytes).unwrap(), Point { x: -1.5, y: Some(3) });
    let twice = [&[0x82, 0xa1, b'x', 1][..], &[0xa1, b'x', 2]].concat();
    assert!(decode::<Point>(&twice).unwrap_err().to_string().contains("duplicate field"));
}

#[test]
fn a_depth_is_as_far_as_anyone_gets() {
    #[derive(Debug, Deserialize)]
    struct Nested(#[allow(dead_code)] Vec<Nested>);
    let deep = |levels| [vec![0x91; levels], vec![0x90]].concat();
    for levels in [0, 1, 100, MAX_DEPTH - 3, MAX_DEPTH - 2, MAX_DEPTH - 1, MAX_DEPTH, 100_000] {
        let bytes = deep(levels);
        assert_eq!(decode::<Nested>(&bytes).is_ok(), by_rmp::<Nested>(&bytes).is_some(), "{levels}");
        assert_eq!(decode::<Nested>(&bytes).is_ok(), levels < MAX_DEPTH - 1, "{levels}");
    }
}

#[test]
fn bytes_of_any_length_are_copied() {
    let from: Vec<u8> = (0..200).collect();
    for len in 0..200 {
        let mut out = [0xee; 201];
        assert_eq!(Bytes(&from[..len]).write(&mut out[..len], Via::Caches), Ok(len));
        assert_eq!((&out[..len], out[len]), (&from[..len], 0xee), "{len} bytes");
        assert_eq!(Bytes(&from[..len + 1]).write(&mut out[..len], Via::Caches), Err(BodyError::Full));
    }
}

#[test]
fn long_lists_of_unknown_length_are_written_as_rmp_serde_does() {
    for count in [15, 16, 65_535, 65_536, 70_000] {
        let map = (0..count).map(|number| (number.to_string(), number)).collect();
        let loose = Loose { items: (0..count).collect(), map };
        let expected = rmp_serde::to_vec_named(&loose).unwrap();
        let body = Value { value: &loose, compact: false };
        let mut out = vec![0; expected.len()];
        assert_eq!(body.write(&mut out, Via::Caches), Ok(out.len()));
        assert!(out == expected, "{count}");
        for shorter in [out.len() - 1, out.len() - 3] {
            assert_eq!(body.write(&mut out[..shorter], Via::Caches), Err(BodyError::Full));
        }
    }
}

/// One item cannot be written, and neither can the list in another; whoever serialises them goes on.
#[test]
fn an_item_that_failed_is_no_part_of_a_list_of_unknown_length() {
    use serde::ser::{SerializeMap, SerializeSeq};

    struct Never;
    struct Broken;
    struct Careless;

    impl Serialize for Never {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("never"))
        }
    }
    impl Serialize for Broken {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut list = serializer.serialize_seq(None)?;
            list.serialize_element("gone")?;
            list.serialize_element(&Never)?;
            list.end()
        }
    }
    impl Serialize for Careless {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(None)?;
            map.serialize_entry("before", &1)?;
            let _ = map.serialize_key(&Never);
            let _ = map.serialize_key(&Broken);
            map.serialize_entry("after", &[(); 17])?;
            map.end()
        }
    }

    let expected = rmp_serde::to_vec_named(&Careless).unwrap();
    let mut out = [0; 100];
    let len = Value { value: &Careless, compact: false }.write(&mut out, Via::Caches).unwrap();
    assert_eq!(out[..len], *expected);
}

#[test]
fn a_value_that_swallows_what_its_field_said_is_not_cut_off() {
    struct Careless;

    impl Serialize for Careless {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeTuple;
            let mut tuple = serializer.serialize_tuple(2)?;
            let _ = tuple.serialize_element("a text that is too long");
            tuple.serialize_element(&1)?;
            tuple.end()
        }
    }

    let body = Value { value: &Careless, compact: false };
    assert_eq!(body.write(&mut [0; 10], Via::Caches), Err(BodyError::Full));
    let mut out = [0; 100];
    let len = body.write(&mut out, Via::Caches).unwrap();
    assert_eq!(decode::<(String, u8)>(&out[..len]).unwrap(), ("a text that is too long".to_owned(), 1));
}
