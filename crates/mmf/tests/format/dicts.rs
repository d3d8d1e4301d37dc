//! Golden files of dicts in format version 1, which every later release reads.
//!
//! The files are stored without their zeros (`support/packed.rs`). `MMF_GOLDEN=write` writes them
//! anew; only a new version of the format is a reason.

mod rebuild;
mod sync_mark;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mmf::{Access, Dict, Encoding, ErrorKind};

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use testkit::TempDir;

use crate::support::packed::{self, unpack};

const PAYLOAD: usize = 20480;
const COMMIT: usize = PAYLOAD;
const REDO_LEN: usize = PAYLOAD + 128;
const DURABLE: usize = PAYLOAD + 256;
const BOOT: usize = PAYLOAD + 304;
const REDO_LOG: usize = PAYLOAD + 4096;
/// Of the least capacity.
const SIDE: usize = 16384;
const DIRECTORY: usize = REDO_LOG + 2 * SIDE;

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn at_word(bytes: &[u8], at: usize) -> usize {
    usize::try_from(word(bytes, at)).unwrap()
}

fn put_word(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// A file with the bytes that are kept, or with those of `make`, which are kept from now on.
fn golden(dir: &TempDir, name: &str, kept: &[u8], make: impl FnOnce(&Path) -> Vec<u8>) -> (PathBuf, Vec<u8>) {
    let path = dir.join(name);
    let mut bytes = unpack(kept);
    if packed::is_written() {
        bytes = make(&path);
        packed::keep(name, &bytes);
    }
    fs::write(&path, &bytes).unwrap();
    (path, bytes)
}

/// What tells this boot from others, as a dict that is changed now says it.
fn this_boot(dir: &TempDir) -> u64 {
    let path = dir.join("now");
    Dict::create_new(path.as_path(), 1 << 20).unwrap().set_bytes("a", b"b").unwrap();
    word(&fs::read(path).unwrap(), BOOT)
}

struct Bin(&'static [u8]);

impl Serialize for Bin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

const BYTES: &[u8] = &[0, 1, 254, 255];

/// Each type of `MessagePack`, and each way to write it.
fn set_all(dict: &Dict) -> mmf::Result<()> {
    dict.set("nil", &())?;
    dict.set("true", &true)?;
    dict.set("false", &false)?;
    for (nth, number) in UNSIGNED.iter().enumerate() {
        dict.set(&format!("unsigned {nth}"), number)?;
    }
    for (nth, number) in SIGNED.iter().enumerate() {
        dict.set(&format!("signed {nth}"), number)?;
    }
    dict.set("float 32", &1.5_f32)?;
    dict.set("float 64", &-0.1_f64)?;
    for len in LENGTHS {
        dict.set(&format!("text {len}"), &"ä".repeat(len / 2))?;
        dict.set(&format!("array {len}"), &vec![7_u8; len])?;
        dict.set(&format!("map {len}"), &(0..len).map(|key| (key, key % 100)).collect::<BTreeMap<_, _>>())?;
    }
    dict.set("bin", &Bin(BYTES))?;
    dict.set("nested", &BTreeMap::from([("list", vec![Some("a"), None])]))?;
    dict.set("ключ", "значение")?;
    dict.set(&"k".repeat(Dict::KEY_MAX), "the longest key")?;
    dict.set("", "the shortest key")?;
    dict.set_bytes("bytes", BYTES)?;
    dict.set_bytes("empty", &[])?;
    dict.set_bytes("in spans", &large())?;
    Ok(())
}

const UNSIGNED: [u64; 9] = [0, 127, 128, 255, 256, 65535, 65536, 1 << 32, u64::MAX];
const SIGNED: [i64; 8] = [-1, -32, -33, -128, -129, -32769, -(1 << 31) - 1, i64::MIN];
const LENGTHS: [usize; 4] = [0, 10, 60, 300];

fn large() -> Vec<u8> {
    (0..10_000_u32).map(|nth| u8::try_from(nth / 100).unwrap()).collect()
}

fn assert_all(dict: &Dict) -> mmf::Result<()> {
    assert_eq!(dict.get::<()>("nil")?, Some(()));
    assert_eq!(dict.get::<Option<u8>>("nil")?, Some(None));
    assert_eq!((dict.get("true")?, dict.get("false")?), (Some(true), Some(false)));
    for (nth, number) in UNSIGNED.iter().enumerate() {
        assert_eq!(dict.get(&format!("unsigned {nth}"))?, Some(*number));
    }
    for (nth, number) in SIGNED.iter().enumerate() {
        assert_eq!(dict.get(&format!("signed {nth}"))?, Some(*number));
    }
    assert_eq!(dict.get("float 32")?, Some(1.5_f32));
    assert_eq!(dict.get("float 64")?, Some(-0.1_f64));
    for len in LENGTHS {
        assert_eq!(dict.get(&format!("text {len}"))?, Some("ä".repeat(len / 2)));
        assert_eq!(dict.get(&format!("array {len}"))?, Some(vec![7_u8; len]));
        let map = (0..len).map(|key| (key, key % 100)).collect::<BTreeMap<usize, usize>>();
        assert_eq!(dict.get(&format!("map {len}"))?, Some(map));
    }
    assert_eq!(dict.get_bytes("bin")?, Some([&[0xc4, 4], BYTES].concat()));
    let nested = BTreeMap::from([("list".to_owned(), vec![Some("a".to_owned()), None])]);
    assert_eq!(dict.get("nested")?, Some(nested));
    assert_eq!(dict.get::<String>("ключ")?.as_deref(), Some("значение"));
    assert_eq!(dict.get::<String>(&"k".repeat(Dict::KEY_MAX))?.as_deref(), Some("the longest key"));
    assert_eq!(dict.get::<String>("")?.as_deref(), Some("the shortest key"));
    let mut bytes = Vec::new();
    assert_eq!(dict.get_into("bytes", &mut bytes)?, Some(Encoding::Bytes));
    assert_eq!(bytes, BYTES);
    assert_eq!(dict.get_bytes("empty")?, Some(Vec::new()));
    assert_eq!(dict.get_bytes("in spans")?, Some(large()));
    assert_eq!(dict.len()?, 42);
    Ok(())
}

#[test]
fn a_dict_with_every_type_is_read_and_goes_on() {
    let dir = TempDir::new();
    let (path, _) = golden(&dir, "dict-types.mmf", include_bytes!("../golden/dict-types.mmf"), |path| {
        let dict = Dict::create_new(path, 1 << 20).unwrap();
        set_all(&dict).unwrap();
        dict.flush().unwrap();
        drop(dict);
        fs::read(path).unwrap()
    });
    let dict = Dict::options().access(Access::ReadOnly).open(path.as_path()).unwrap();
    assert_all(&dict).unwrap();
    assert!(dict.check().unwrap().is_whole());
    let dict = Dict::open(path.as_path()).unwrap();
    assert_all(&dict).unwrap();
    set_all(&dict).unwrap();
    assert_all(&dict).unwrap();
    assert!(dict.check().unwrap().is_whole());
}

/// What other languages write and `dict-types.mmf` has not: times and other extension types, and the longer forms.
const ENCODED: [(&str, &[u8]); 14] = [
    ("time of 32 bits", &[0xd6, 0xff, 0x69, 0x21, 0x9c, 0x40]),
    // The upper 30 bits are nanoseconds.
    ("time of 64 bits", &[0xd7, 0xff, 0x1d, 0x6f, 0x34, 0x54, 0x69, 0x21, 0x9c, 0x40]),
    ("time of 96 bits", &[0xc7, 12, 0xff, 0x07, 0x5b, 0xcd, 0x15, 255, 255, 255, 255, 255, 255, 255, 255]),
    ("ext of 1 byte", &[0xd4, 5, 1]),
    ("ext of 2 bytes", &[0xd5, 5, 1, 2]),
    ("ext of 16 bytes", &[0xd8, 0x80, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
    ("ext of no bytes", &[0xc7, 0, 127]),
    ("ext of 3 bytes", &[0xc7, 3, 127, 1, 2, 3]),
    ("not a number", &[0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0]),
    ("infinity of 32 bits", &[0xca, 0x7f, 0x80, 0, 0]),
    ("map with other keys", &[0x83, 1, 0xc3, 0x91, 0xc0, 0xc2, 0xd4, 1, 0, 0xa0]),
    ("time in a list", &[0x92, 0xd6, 0xff, 0, 0, 0, 1, 0xc4, 1, 0xff]),
    ("wider than it need be", &[0xd2, 0, 0, 0, 7]),
    ("no UTF-8", &[0xa2, 0xc3, 0x28]),
];

/// The codes whose lengths have 16 and 32 bits, each with as many zeros behind it.
const LONG: [(&str, u8, usize); 8] = [
    ("bin 16", 0xc5, 300),
    ("bin 32", 0xc6, 70_000),
    ("ext 16", 0xc8, 300),
    ("ext 32", 0xc9, 70_000),
    ("str 16", 0xda, 300),
    ("str 32", 0xdb, 70_000),
    ("array 16", 0xdc, 300),
    ("array 32", 0xdd, 70_000),
];

/// The bytes of one of those.
fn long(code: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![code];
    match u16::try_from(len) {
        Ok(short) => bytes.extend(short.to_be_bytes()),
        Err(_) => bytes.extend(u32::try_from(len).unwrap().to_be_bytes()),
    }
    if let 0xc8 | 0xc9 = code {
        bytes.push(0xfe);
    }
    bytes.resize(bytes.len() + len, 0);
    bytes
}

/// A structure, as `derive` would have it.
struct Camera;

impl Serialize for Camera {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut camera = serializer.serialize_struct("Camera", 2)?;
        camera.serialize_field("gain", &-3)?;
        camera.serialize_field("lens", &Some(('ä', 50_u8)))?;
        camera.end()
    }
}

/// Variants of an enum, likewise.
enum Shape {
    Point,
    Circle(f64),
}

impl Serialize for Shape {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Shape::Point => serializer.serialize_unit_variant("Shape", 0, "Point"),
            Shape::Circle(radius) => serializer.serialize_newtype_variant("Shape", 1, "Circle", radius),
        }
    }
}

fn set_more(dict: &Dict) -> mmf::Result<()> {
    for (key, bytes) in ENCODED {
        dict.set_encoded(key, Encoding::MessagePack, bytes)?;
    }
    for (key, code, len) in LONG {
        dict.set_encoded(key, Encoding::MessagePack, &long(code, len))?;
    }
    dict.set("struct", &Camera)?;
    dict.set("unit variant", &Shape::Point)?;
    dict.set("variant", &Shape::Circle(0.5))?;
    dict.set("char", &'ß')?;
    dict.set("tuple", &(1, "two", [3.0]))?;
    Ok(())
}

/// An extension type and its bytes, as a type that knows them is read.
#[derive(Debug, PartialEq)]
struct Ext(i8, Vec<u8>);

impl<'de> Deserialize<'de> for Ext {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ext, D::Error> {
        deserializer.deserialize_newtype_struct("_ExtStruct", AnyExt)
    }
}

struct AnyExt;

impl<'de> Visitor<'de> for AnyExt {
    type Value = Ext;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an extension type")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Ext, D::Error> {
        deserializer.deserialize_tuple(2, self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Ext, A::Error> {
        let missing = || de::Error::missing_field("part");
        let kind = parts.next_element()?.ok_or_else(missing)?;
        let Raw(bytes) = parts.next_element()?.ok_or_else(missing)?;
        Ok(Ext(kind, bytes))
    }
}

/// Bytes, however they are written.
#[derive(Debug, PartialEq)]
struct Raw(Vec<u8>);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_bytes(AnyBytes)
    }
}

struct AnyBytes;

impl Visitor<'_> for AnyBytes {
    type Value = Raw;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Raw, E> {
        Ok(Raw(bytes.to_vec()))
    }
}

fn assert_more(dict: &Dict) -> mmf::Result<()> {
    for (key, bytes) in ENCODED {
        assert_eq!(dict.get_bytes(key)?.as_deref(), Some(bytes), "{key}");
        assert!(dict.get::<IgnoredAny>(key)?.is_some(), "{key}");
    }
    for (key, kind, from) in [
        ("time of 32 bits", -1, 2),
        ("time of 64 bits", -1, 2),
        ("time of 96 bits", -1, 3),
        ("ext of 1 byte", 5, 2),
        ("ext of 2 bytes", 5, 2),
        ("ext of 16 bytes", -128, 2),
        ("ext of no bytes", 127, 3),
        ("ext of 3 bytes", 127, 3),
    ] {
        let bytes = dict.get_bytes(key)?.unwrap_or_default();
        assert_eq!(dict.get(key)?, Some(Ext(kind, bytes[from..].to_vec())), "{key}");
        // No other type takes them, however alike it is.
        for error in [
            dict.get::<i64>(key).err(),
            dict.get::<String>(key).err(),
            dict.get::<Raw>(key).err(),
            dict.get::<(i8, Raw)>(key).err(),
        ] {
            assert!(matches!(error.unwrap().kind(), ErrorKind::Mismatch { .. }), "{key}");
        }
    }
    assert!(dict.get::<f64>("not a number")?.is_some_and(f64::is_nan));
    assert_eq!(dict.get("infinity of 32 bits")?, Some(f32::INFINITY));
    assert_eq!(dict.get("time in a list")?, Some((Ext(-1, vec![0, 0, 0, 1]), Raw(vec![255]))));
    assert_eq!(dict.get("wider than it need be")?, Some(7_u8));
    dict.get::<String>("no UTF-8").unwrap_err();
    for (key, code, len) in LONG {
        assert!(dict.get_bytes(key)? == Some(long(code, len)), "{key}");
        match code {
            0xc5 | 0xc6 => assert!(dict.get(key)? == Some(Raw(vec![0; len])), "{key}"),
            0xc8 | 0xc9 => assert!(dict.get(key)? == Some(Ext(-2, vec![0; len])), "{key}"),
            0xda | 0xdb => assert!(dict.get(key)? == Some("\0".repeat(len)), "{key}"),
            _ => assert!(dict.get(key)? == Some(vec![0_u8; len]), "{key}"),
        }
    }
    assert_eq!(dict.get_bytes("struct")?.unwrap(), b"\x82\xa4gain\xfd\xa4lens\x92\xa2\xc3\xa4\x32");
    assert_eq!(dict.get::<String>("unit variant")?.as_deref(), Some("Point"));
    assert_eq!(dict.get("variant")?, Some(BTreeMap::from([("Circle".to_owned(), 0.5)])));
    assert_eq!(dict.get("char")?, Some('ß'));
    assert_eq!(dict.get("tuple")?, Some((1, "two".to_owned(), [3.0])));
    assert_eq!(dict.len()?, ENCODED.len() + LONG.len() + 5);
    Ok(())
}

#[test]
fn a_dict_with_what_other_languages_write_is_read_and_goes_on() {
    let dir = TempDir::new();
    let (path, _) = golden(&dir, "dict-more-types.mmf", include_bytes!("../golden/dict-more-types.mmf"), |path| {
        let dict = Dict::create_new(path, 2 << 20).unwrap();
        set_more(&dict).unwrap();
        dict.flush().unwrap();
        drop(dict);
        fs::read(path).unwrap()
    });
    let dict = Dict::options().access(Access::ReadOnly).open(path.as_path()).unwrap();
    assert_more(&dict).unwrap();
    assert!(dict.check().unwrap().is_whole());
    let dict = Dict::open(path.as_path()).unwrap();
    assert_more(&dict).unwrap();
    set_more(&dict).unwrap();
    assert_more(&dict).unwrap();
    assert!(dict.check().unwrap().is_whole());
}

/// A dict that was flushed, and a transaction that comes after.
fn two_states(path: &Path) -> (Vec<u8>, Vec<u8>) {
    let dict = Dict::create_new(path, 1 << 20).unwrap();
    for nth in 0..100 {
        dict.set(&format!("key {nth}"), &nth).unwrap();
    }
    dict.flush().unwrap();
    dict.set("after", "the flush").unwrap();
    let mut before = fs::read(path).unwrap();
    before[REDO_LOG..REDO_LOG + SIDE].fill(0);
    fs::write(path, &before).unwrap();
    let change = dict.transaction(|tx| {
        tx.set("key 1", "one")?;
        tx.set_bytes("key 2", &large())?;
        tx.remove("key 3")?;
        tx.set("new", "there")
    });
    change.unwrap();
    (before, fs::read(path).unwrap())
}

fn assert_old(dict: &Dict) {
    assert_eq!((dict.get("key 1").unwrap(), dict.get("key 2").unwrap(), dict.get("key 3").unwrap()), {
        (Some(1), Some(2), Some(3))
    });
    assert_eq!((dict.contains_key("new").unwrap(), dict.len().unwrap()), (false, 101));
}

fn assert_new(dict: &Dict) {
    assert_eq!(dict.get::<String>("key 1").unwrap().as_deref(), Some("one"));
    assert_eq!(dict.get_bytes("key 2").unwrap(), Some(large()));
    assert!(!dict.contains_key("key 3").unwrap());
    assert_eq!(dict.get::<String>("new").unwrap().as_deref(), Some("there"));
    assert_eq!(dict.get::<String>("after").unwrap().as_deref(), Some("the flush"));
    assert_eq!((dict.get("key 99").unwrap(), dict.len().unwrap()), (Some(99), 101));
}

#[test]
fn what_a_dead_writer_left_half_done_is_finished() {
    let dir = TempDir::new();
    let (path, mut bytes) = golden(&dir, "dict-journal.mmf", include_bytes!("../golden/dict-journal.mmf"), |path| {
        let (before, mut bytes) = two_states(path);
        let pairs: Vec<usize> =
            (0..SIDE / 16).map(|nth| at_word(&bytes, REDO_LOG + 16 * nth)).take_while(|to| *to != 0).collect();
        // It died before the store that commits: that one and those behind it have not been made.
        let commit = pairs.iter().position(|to| *to == COMMIT).unwrap();
        for to in &pairs[commit..] {
            put_word(&mut bytes, *to, word(&before, *to));
        }
        // What is stored before and after as well has the former.
        for (nth, to) in pairs[..commit].iter().enumerate() {
            let value = word(&bytes, REDO_LOG + 16 * nth + 8);
            put_word(&mut bytes, *to, value);
        }
        put_word(&mut bytes, REDO_LEN, pairs.len() as u64);
        bytes
    });
    put_word(&mut bytes, BOOT, this_boot(&dir));
    fs::write(&path, &bytes).unwrap();
    let reader = Dict::options().access(Access::ReadOnly).open(path.as_path()).unwrap();
    let dict = Dict::open(path.as_path()).unwrap();
    assert_old(&reader);
    assert_old(&dict);
    assert!(!dict.remove("what is not there").unwrap());
    assert_new(&dict);
    assert_new(&reader);
    assert!(dict.check().unwrap().is_whole());
}

#[test]
fn after_a_power_cut_the_records_alone_count() {
    let dir = TempDir::new();
    let (path, bytes) = golden(&dir, "dict-power-cut.mmf", include_bytes!("../golden/dict-power-cut.mmf"), |path| {
        let (_, mut bytes) = two_states(path);
        // The pages of the index never got there.
        bytes[DIRECTORY..DIRECTORY + 2048].fill(0);
        put_word(&mut bytes, REDO_LEN, 3);
        // On no machine.
        put_word(&mut bytes, BOOT, 1);
        bytes
    });
    assert_eq!(word(&bytes, DURABLE) & 1, 0);
    Dict::options().access(Access::ReadOnly).open(path.as_path()).err().expect("it is to be opened for writing first");
    let dict = Dict::open(path.as_path()).unwrap();
    assert_new(&dict);
    assert!(dict.check().unwrap().is_whole());
    dict.set("more", &1).unwrap();
    assert_eq!(dict.get("more").unwrap(), Some(1));
}
