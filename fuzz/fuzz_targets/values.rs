//! Any bytes as values: what is read without rmp-serde reads as rmp-serde reads it.
#![no_main]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Debug, Deserialize)]
#[allow(dead_code)] // looked at as text
struct Mixed {
    number: u64,
    signed: i32,
    float: f64,
    yes: bool,
    name: String,
    #[serde(default)]
    maybe: Option<String>,
    kind: Option<Kind>,
    list: Vec<(u8, i64)>,
    map: BTreeMap<String, u32>,
    inner: Option<Box<Mixed>>,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code)]
enum Kind {
    Plain,
    Of(i16),
    Named { at: f32, id: u64 },
}

#[derive(Debug, Deserialize)]
#[allow(dead_code)]
struct Names {
    a: u8,
    #[serde(alias = "c")]
    b: u8,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code)]
struct Long {
    a: Option<Box<Long>>,
    a_name_of_more_than_thirty_one_bytes: u8,
    b: Vec<Names>,
}

fn same<T: DeserializeOwned + Debug>(bytes: &[u8]) {
    let read = ringbus::fuzzing::decode::<T>(bytes);
    let mut rmp = rmp_serde::Deserializer::from_read_ref(bytes);
    // Variants with data are levels, too, which rmp-serde does not count: each stands in another level here.
    let most = ringbus::fuzzing::MAX_DEPTH;
    rmp.set_max_depth(if read.is_some() { most } else { most / 2 });
    let expected = T::deserialize(&mut rmp).ok();
    assert_eq!(format!("{read:?}"), format!("{expected:?}")); // as text: NaN is not itself
}

fuzz_target!(|bytes: &[u8]| {
    same::<Mixed>(bytes);
    same::<Long>(bytes);
    same::<Vec<Option<i64>>>(bytes);
    same::<(u8, String, Kind)>(bytes);
    same::<(CString, String)>(bytes);
});
