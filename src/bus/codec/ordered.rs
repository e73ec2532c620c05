//! Structs whose fields come all and in the order in which they are declared, as their writer mostly sends them.
//!
//! Fields by name cost a visitor a loop that finds out which each one is, and whether it came before. A sequence it reads
//! straight on. So a struct with as many fields as are expected, of which the first is the first, is shown to the visitor
//! as a sequence, before each element of which its name is looked at. Where one is another, or anything else is wrong,
//! the whole value is read once more, by names, which also says what was wrong ([`Reader::may_be_ordered`]).
//!
//! That a visitor takes for the first element what it would take for the first of the fields is known only of those that
//! serde derives: by hand one may as well take a sequence as something else, such as coordinates the other way round.
//! (Two fields of one name, of which rustc warns, are no error here.)

use std::any::type_name;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, SeqAccess, Visitor};

use super::error::DecodeError as Error;
use super::read::{Reader, after_name};

/// Whether serde's derive has written this visitor: it calls all of them so. That is looked at by the compiler; under
/// another name (or with type parameters, which follow it) structs are read by names, only slower.
#[inline(always)]
fn is_derived<V>() -> bool {
    let name = type_name::<V>();
    name.ends_with("::__Visitor<'_>") || name.ends_with("::__Visitor")
}

/// Whether the struct with so many fields that comes now is to be shown to this visitor as a sequence.
#[inline(always)]
pub(super) fn suits<V>(reader: &Reader<'_>, fields: &[&str], len: u32) -> bool {
    let is_first = |name: &&str| after_name(reader.rest, name.as_bytes()).is_some();
    is_derived::<V>()
        && reader.may_be_ordered
        && len as usize == fields.len()
        && fields.first().is_some_and(is_first)
}

/// Has the visitor read the fields of a struct in their order.
#[inline(always)]
pub(super) fn read<'de, V: Visitor<'de>>(
    reader: &mut Reader<'de>,
    mut fields: &'static [&'static str],
    visitor: V,
) -> Result<V::Value, Error> {
    let value = visitor.visit_seq(Ordered { reader: &mut *reader, fields: &mut fields });
    if value.is_err() || !fields.is_empty() {
        reader.may_be_ordered = false;
    }
    value
}

/// A struct's fields, in their order.
struct Ordered<'a, 'de> {
    reader: &'a mut Reader<'de>,
    /// Those to come.
    fields: &'a mut &'static [&'static str],
}

impl<'de> SeqAccess<'de> for Ordered<'_, 'de> {
    type Error = Error;

    #[inline(always)]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let [name, fields @ ..] = *self.fields else { return Ok(None) };
        self.reader.rest = match after_name(self.reader.rest, name.as_bytes()) {
            Some(rest) => rest,
            None => self.reader.after_long_name(name).ok_or_else(out_of_order)?,
        };
        *self.fields = fields;
        seed.deserialize(&mut *self.reader).map(Some)
    }

    /// What there is without, but inlined: the names are constants then.
    #[inline(always)]
    fn next_element<T: Deserialize<'de>>(&mut self) -> Result<Option<T>, Error> {
        self.next_element_seed(PhantomData)
    }
}

impl<'de> Reader<'de> {
    /// As [`after_name`], of names in any form.
    #[cold]
    fn after_long_name(&self, name: &str) -> Option<&'de [u8]> {
        let (found, rest) = self.short_string()?;
        (found == name.as_bytes()).then_some(rest)
    }
}

/// Nobody gets to see it.
#[cold]
fn out_of_order() -> Error {
    serde::de::Error::custom("its fields are in another order")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fmt;

    use proptest::prelude::*;
    use serde::de::{Deserializer, MapAccess, Unexpected};

    use super::*;
    use crate::bus::codec::tests::{by_rmp, same_text};
    use crate::bus::codec::{MAX_DEPTH, decode};

    thread_local!(static READ: Cell<u32> = const { Cell::new(0) });

    /// Counts how often one is read.
    #[derive(Debug, PartialEq)]
    struct Counted(u32);

    impl<'de> Deserialize<'de> for Counted {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            READ.set(READ.get() + 1);
            u32::deserialize(deserializer).map(Self)
        }
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Three {
        first: Counted,
        second: u8,
        third: u8,
    }

    fn map(pairs: &[(&str, u32)]) -> Vec<u8> {
        let mut bytes = vec![0x80 + pairs.len() as u8];
        for pair in pairs {
            bytes.extend(rmp_serde::to_vec(&pair.0).unwrap());
            bytes.extend(rmp_serde::to_vec(&pair.1).unwrap());
        }
        bytes
    }

    /// The three, and how often the first was read.
    fn three(pairs: [(&str, u32); 3]) -> (Three, u32) {
        READ.set(0);
        (decode(&map(&pairs)).unwrap(), READ.get())
    }

    #[test]
    fn what_serde_derives_is_read_in_order_and_once_more_where_the_order_is_another() {
        let expected = || Three { first: Counted(1), second: 2, third: 3 };
        assert_eq!(three([("first", 1), ("second", 2), ("third", 3)]), (expected(), 1));
        assert_eq!(three([("third", 3), ("second", 2), ("first", 1)]), (expected(), 1));
        // Only what takes it for a sequence at first reads the first twice.
        assert_eq!(three([("first", 1), ("third", 3), ("second", 2)]), (expected(), 2));
        let wrong = decode::<Three>(&map(&[("first", 1), ("second", 1 << 20), ("third", 3)])).unwrap_err();
        assert!(wrong.to_string().contains("1048576"), "{wrong}");
        let missing = decode::<Three>(&map(&[("first", 1), ("second", 2), ("fourth", 3)])).unwrap_err();
        assert!(missing.to_string().contains("missing field `third`"), "{missing}");
    }

    #[test]
    fn long_names_are_in_order_too() {
        #[derive(Debug, Deserialize, PartialEq)]
        struct Long {
            first: Counted,
            a_name_of_more_than_thirty_one_bytes: u8,
            a_name_of_exactly_thirty_2_bytes: u8,
        }
        let (long, exactly) = ("a_name_of_more_than_thirty_one_bytes", "a_name_of_exactly_thirty_2_bytes");
        let bytes = map(&[("first", 1), (long, 2), (exactly, 3)]);
        READ.set(0);
        let expected = Long {
            first: Counted(1),
            a_name_of_more_than_thirty_one_bytes: 2,
            a_name_of_exactly_thirty_2_bytes: 3,
        };
        assert_eq!((decode::<Long>(&bytes).unwrap(), READ.get()), (expected, 1));
        // No name begins with 0x80, though 0xa0 ^ 32 is that.
        assert_eq!(exactly.len(), 32);
        let at = bytes.len() - 1 - 32 - 2;
        assert_eq!(bytes[at..at + 2], [0xd9, 32]);
        let broken = [&bytes[..at], &[0x80], &bytes[at + 2..]].concat();
        assert!(by_rmp::<Long>(&broken).is_none() && decode::<Long>(&broken).is_err());
    }

    /// Takes a sequence the other way round.
    #[derive(Debug, PartialEq)]
    struct Place {
        lat: u32,
        lon: u32,
    }

    impl<'de> Deserialize<'de> for Place {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visit;
            impl<'de> Visitor<'de> for Visit {
                type Value = Place;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a place")
                }

                fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Place, A::Error> {
                    let lon = seq.next_element()?.unwrap_or_default();
                    Ok(Place { lat: seq.next_element()?.unwrap_or_default(), lon })
                }

                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Place, A::Error> {
                    let mut place = Place { lat: 0, lon: 0 };
                    while let Some((name, value)) = map.next_entry::<String, u32>()? {
                        match &*name {
                            "lat" => place.lat = value,
                            "lon" => place.lon = value,
                            name => {
                                return Err(serde::de::Error::invalid_value(Unexpected::Str(name), &self));
                            }
                        }
                    }
                    Ok(place)
                }
            }
            deserializer.deserialize_struct("Place", &["lat", "lon"], Visit)
        }
    }

    #[test]
    fn a_visitor_that_serde_does_not_derive_gets_names() {
        let place = map(&[("lat", 1), ("lon", 2)]);
        assert_eq!(decode::<Place>(&place).unwrap(), Place { lat: 1, lon: 2 });
        assert_eq!(decode::<Place>(&[0x92, 2, 1]).unwrap(), Place { lat: 1, lon: 2 });
    }

    /// What derived fields may be like.
    #[derive(Debug, Deserialize, PartialEq)]
    struct Fields {
        plain: u8,
        #[serde(alias = "second", alias = "other")]
        aliased: u8,
        #[serde(skip)]
        skipped: u8,
        #[serde(default)]
        defaulted: u8,
        maybe: Option<u8>,
        #[serde(rename = "type")]
        renamed: u8,
        inner: Option<Box<Inner>>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        plain: u8,
        maybe: Option<u8>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    enum Either {
        Named { plain: u8, maybe: Option<u8> },
        Inner(Inner),
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Unaliased {
        plain: u8,
        maybe: Option<u8>,
        either: Vec<Either>,
    }

    /// A map of some of these names, also the same twice, mostly in their order, with values of which not all fit.
    fn some_of(names: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        let value = || prop_oneof![8 => 0..9u32, 1 => Just(300), 1 => Just(u32::MAX)];
        let ordered = prop::sample::subsequence(names, names.len() - 1..=names.len());
        let ordered = ordered.prop_flat_map(move |names| {
            let values = prop::collection::vec(value(), names.len());
            values.prop_map(move |values| names.iter().copied().zip(values).collect::<Vec<_>>())
        });
        let any = prop::collection::vec((prop::sample::select(names), value()), 0..9);
        prop_oneof![ordered, any].prop_map(|pairs| map(&pairs))
    }

    /// The same with the last value, a number below 9, replaced.
    fn ending_in(outer: &[u8], inner: &[u8]) -> Vec<u8> {
        let (_, outer) = outer.split_last().unwrap();
        [outer, inner].concat()
    }

    proptest! {
        #[test]
        fn fields_in_any_order_are_read_as_rmp_serde_does(
            fields in some_of(&["plain", "aliased", "second", "other", "skipped", "defaulted", "maybe", "type", "inner"]),
            known in some_of(&["plain", "aliased", "defaulted", "maybe", "type", "inner"]),
            inner in some_of(&["plain", "maybe"]),
            unaliased in some_of(&["plain", "maybe", "either"]),
            variant in prop::sample::select(vec!["Named", "Inner"]),
        ) {
            let mut either = vec![0x92, 0x81];
            either.extend(rmp_serde::to_vec(variant).unwrap());
            either.extend(&inner);
            either.extend([0x81, 0xa5]);
            either.extend(b"Named");
            either.extend(map(&[("plain", 1), ("maybe", 2)]));
            for bytes in [&fields, &known, &ending_in(&known, &inner), &ending_in(&fields, &inner)] {
                same_text(decode::<Fields>(bytes).ok(), by_rmp::<Fields>(bytes))?;
            }
            same_text(decode::<Inner>(&inner).ok(), by_rmp::<Inner>(&inner))?;
            for bytes in [&unaliased, &ending_in(&unaliased, &either)] {
                same_text(decode::<Unaliased>(bytes).ok(), by_rmp::<Unaliased>(bytes))?;
            }
        }
    }

    /// Each level has a field that is none, after the next level: what is in order is seen not to be when all was read.
    #[test]
    fn a_value_is_read_twice_at_most_however_deep_its_disorder() {
        #[derive(Debug, Deserialize)]
        struct Level {
            count: Counted,
            next: Option<Box<Level>>,
            more: Option<u8>,
        }
        let mut bytes = vec![0xc0];
        for _ in 0..MAX_DEPTH / 2 {
            let next = ending_in(&map(&[("count", 1), ("next", 0)]), &bytes);
            bytes = [&[0x83], &next[1..], &map(&[("other", 2)])[1..]].concat();
        }
        READ.set(0);
        let mut level = decode::<Level>(&bytes).ok().map(Box::new);
        let mut levels = 0;
        while let Some(next) = level {
            assert_eq!((next.count, next.more), (Counted(1), None));
            (level, levels) = (next.next, levels + 1);
        }
        assert_eq!((levels, READ.get()), (MAX_DEPTH / 2, MAX_DEPTH as u32));
    }
}
