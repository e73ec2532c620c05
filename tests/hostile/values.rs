//! Payloads that no honest publisher encodes, decoded as values. A value takes what its type takes: so many bytes for
//! each that was received; a lying length or a long text of the wrong type takes no more.

use std::collections::HashMap;
use std::fmt;
use std::hint::black_box;

use ringbus::internals::values;
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::counting::most_allocated;
use crate::random::Random;
use crate::wire::harm;

#[derive(Serialize, Deserialize, Debug, Clone, Default)]
struct Mixed {
    number: u64,
    yes: bool,
    name: String,
    #[serde(default)]
    maybe: Option<String>,
    kind: Option<Kind>,
    list: Vec<(u8, i64)>,
    map: HashMap<String, String>,
    inner: Option<Box<Mixed>>,
}

#[derive(Serialize, Deserialize, Debug, Clone)]
enum Kind {
    Plain,
    Of(Vec<String>),
    Named { at: f32, names: Vec<String> },
}

/// As deep as one likes.
#[derive(Serialize, Deserialize, Debug, Clone)]
struct Tree(Vec<Tree>);

/// The same without an array.
#[derive(Deserialize)]
#[allow(dead_code)]
enum Chain {
    End,
    Next(Box<Chain>),
}

#[derive(Serialize, Deserialize, Debug, Clone)]
enum Branch {
    Leaf,
    Node(Vec<Branch>),
    Names(HashMap<String, Branch>),
}

/// Bytes that are not a sequence of numbers.
struct Bytes(#[allow(dead_code)] Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Wanted;
        impl Visitor<'_> for Wanted {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Wanted)
    }
}

/// Decodes in both ways, and says why not as ports do; whether it could be. `each` bytes of memory are the most that a
/// byte becomes in a value of this type.
fn check<T: DeserializeOwned>(bytes: &[u8], each: usize) -> bool {
    let (good, most) = most_allocated(|| values::decode::<T>(bytes).map(black_box).is_ok());
    let limit = each * bytes.len() + (64 << 10);
    let what = std::any::type_name::<T>();
    assert!(most <= limit, "{most} bytes for {what} of {}: {}", bytes.len(), hex(bytes));
    let (same, most) = most_allocated(|| values::decode_copy::<T>(bytes).map(black_box).is_ok());
    assert!(most <= limit, "{most} bytes for {what} of {}, in a log: {}", bytes.len(), hex(bytes));
    assert_eq!(good, same, "{what}: {}", hex(bytes));
    good
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(200).map(|byte| format!("{byte:02x}")).collect()
}

/// A vector grows by doubling, from four elements on; a map's table is as large as twice its entries, and one more byte
/// for each of those.
const GROWS: usize = 4;

fn check_all(bytes: &[u8]) -> u64 {
    let of = |good: bool| u64::from(good);
    of(check::<u64>(bytes, 2))
        + of(check::<String>(bytes, 2))
        + of(check::<Bytes>(bytes, 2))
        + of(check::<Vec<u64>>(bytes, GROWS * 8))
        + of(check::<Vec<String>>(bytes, GROWS * 24))
        + of(check::<HashMap<String, String>>(bytes, GROWS * 49))
        + of(check::<Tree>(bytes, GROWS * 24))
        + of(check::<Branch>(bytes, GROWS * 80))
        + of(check::<Mixed>(bytes, GROWS * size_of::<Mixed>()))
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.serialize(&mut rmp_serde::Serializer::new(&mut bytes).with_struct_map()).unwrap();
    bytes
}

fn tree(depth: u64, random: &mut Random) -> Tree {
    let children = if depth == 0 { 0 } else { random.below(4) };
    Tree((0..children).map(|_| tree(depth - 1, random)).collect())
}

fn branch(depth: u64, random: &mut Random) -> Branch {
    if depth == 0 {
        return Branch::Leaf;
    }
    let children = random.below(3);
    match random.below(3) {
        0 => Branch::Leaf,
        1 => Branch::Node((0..children).map(|_| branch(depth - 1, random)).collect()),
        _ => Branch::Names((0..children).map(|n| (n.to_string(), branch(depth - 1, random))).collect()),
    }
}

fn mixed(random: &mut Random) -> Mixed {
    let names = || vec!["one".to_owned(), "two".to_owned()];
    Mixed {
        number: random.word(),
        yes: random.once_in(2),
        name: "n".repeat(random.index(300)),
        maybe: random.once_in(2).then(|| "maybe".to_owned()),
        kind: match random.below(4) {
            0 => None,
            1 => Some(Kind::Plain),
            2 => Some(Kind::Of(names())),
            _ => Some(Kind::Named { at: 1.5, names: names() }),
        },
        list: vec![(1, -5); random.index(5)],
        map: (0..random.below(4)).map(|n| (n.to_string(), "value".to_owned())).collect(),
        inner: random.once_in(3).then(|| Box::new(mixed(random))),
    }
}

#[test]
fn hostile_values_cost_no_more_than_what_was_received() {
    let (mut total, mut good) = (0u64, 0u64);
    let cases = crate::setting("RINGBUS_FRAMES", 20_000u64).div_ceil(8);
    let mut harmed = Vec::new();
    crate::each("× 8 values", "", cases, |mut random| {
        let bytes = match random.below(5) {
            0 => encode(&tree(4, &mut random)),
            1 => encode(&branch(4, &mut random)),
            2 => encode(&vec![random.word(); random.index(20)]),
            _ => encode(&mixed(&mut random)),
        };
        for round in 0..8 {
            harmed.clear();
            harmed.extend_from_slice(&bytes);
            for _ in 0..round.min(3) {
                harm(&mut harmed, &mut random);
            }
            let found = check_all(&harmed);
            assert!(found > 0 || round > 0, "{}", hex(&harmed));
            (total, good) = (total + 1, good + u64::from(found > 0));
        }
    });
    crate::tell(format_args!("{total} values, {good} of them good, each as nine types and in two ways"));
    assert!(good > total / 8 && good < total / 8 * 7, "{good} of {total}");
}

/// Claims to be an array (or map) of as many elements as can be said, in another, and so on.
#[test]
fn lengths_that_are_not_there_cost_nothing() {
    for marker in [&b"\xdd\xff\xff\xff\xff"[..], b"\xdf\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xde\xff\xff"] {
        for depth in [1, 2, 100, 254, 300] {
            check_all(&marker.repeat(depth));
            // { "Node": [ … ] }, { "Names": { "": … } }
            check_all(&[b"\x81\xa4Node", marker].concat().repeat(depth));
            check_all(&[b"\x81\xa5Names", marker, b"\xa0"].concat().repeat(depth));
            check_all(&[b"\x81\xa4list", marker].concat().repeat(depth));
        }
    }
    for marker in
        [&b"\xdb\xff\xff\xff\xff"[..], b"\xc6\xff\xff\xff\xff", b"\xda\xff\xff", b"\xc9\xff\xff\xff\xff\x01"]
    {
        check_all(marker);
        check_all(&[&b"\x81\xa4name"[..], marker].concat());
    }
}

/// Variants in variants, as deep as bytes can say.
#[test]
fn nesting_that_has_no_end_is_an_error() {
    for (start, end) in [(&b"\x81\xa4Next"[..], &b"\xa3End"[..]), (b"\x81\xa4Next", b"")] {
        for depth in [1, 100, 250, 260, 10_000, 1_000_000] {
            let bytes = [&start.repeat(depth), end].concat();
            let good = check::<Chain>(&bytes, GROWS * 8);
            assert_eq!(good, depth <= 250 && !end.is_empty(), "{depth} deep");
        }
    }
    check_all(&b"\x81\xa4Node\x91".repeat(1_000_000));
    check_all(&b"\x81\xa5inner".repeat(1_000_000));
}

/// Long texts: where they belong, and where something else does.
#[test]
fn long_texts_cost_no_more_than_twice_their_length() {
    for len in [1000, 30_000, 100_000, 1 << 20, 3_000_000] {
        for text in ["n", "\u{1}", "ä"] {
            let text = text.repeat(len / text.len());
            let bytes = encode(&text);
            assert!(check_all(&bytes) > 0);
            // As a name of a field, a variant, a key.
            let name = [&b"\x81"[..], &bytes, b"\xc0"].concat();
            check_all(&name);
            check_all(&encode(&Mixed { name: text.clone(), ..Mixed::default() }));
            check_all(&encode(&HashMap::from([("kind", &text)])));
            check_all(&encode(&HashMap::from([("number", &text)])));
        }
        let mut bin = vec![0xc6];
        bin.extend(u32::try_from(len).unwrap().to_be_bytes());
        bin.resize(bin.len() + len, 1);
        assert!(check_all(&bin) > 0);
    }
}
