//! Values that are deep: what a peer wrote takes no more stack than `Dict::MAX_DEPTH` levels do,
//! and nothing deeper is written.
//!
//! Each story runs on a thread with a small stack: 64 KiB with optimizations, 2 MiB without. A
//! stack that overflows ends the test's process.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::thread;

use mmf::{Access, Dict, Encoding, Entry, ErrorKind, Name};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use testkit::unique_name;

const STACK: usize = if cfg!(debug_assertions) { 2 << 20 } else { 64 << 10 };
const DEEPEST: usize = Dict::MAX_DEPTH;

fn on_a_small_stack(story: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(STACK).spawn(story).unwrap().join().unwrap();
}

fn dict() -> (Dict, Dict) {
    let name = Name::local(unique_name("depth")).unwrap();
    let dict = Dict::create_new(&name, 4 << 20).unwrap();
    let reader = Dict::options().access(Access::ReadOnly).open(&name).unwrap();
    (dict, reader)
}

/// So many arrays, or maps, in each other.
fn deep(open: &[u8], levels: usize) -> Vec<u8> {
    [&open.repeat(levels)[..], &[0xc0]].concat()
}

const OPENINGS: [&[u8]; 5] =
    [&[0x91], &[0x81, 0xa1, b'k'], &[0xdc, 0, 1], &[0xdd, 0, 0, 0, 1], &[0xdf, 0, 0, 0, 1, 0xa1, b'k']];

#[track_caller]
fn is_refused<T>(result: mmf::Result<T>) {
    let error = result.err().expect("it is refused");
    assert!(matches!(error.kind(), ErrorKind::Mismatch { .. }), "{error}");
}

/// A type of the user's that recurses.
#[derive(Serialize, Deserialize, Debug, PartialEq)]
enum Tree {
    Leaf,
    Node(Box<Tree>),
    Named { of: Box<Tree> },
    Both(Box<Tree>, Box<Tree>),
}

fn entry(dict: &Dict) -> Entry {
    dict.entries().unwrap().find(|entry| entry.key == "deep").unwrap()
}

fn is_read<T: DeserializeOwned + Debug>(dict: &Dict, reader: &Dict) {
    drop(reader.get::<T>("deep").unwrap().unwrap());
    drop(entry(dict).get::<T>().unwrap());
    dict.transaction(|tx| tx.get::<T>("deep").map(drop)).unwrap();
    dict.snapshot(|all| all.get::<T>("deep").map(drop)).unwrap();
}

fn is_not_read<T: DeserializeOwned + Serialize + Debug>(dict: &Dict, reader: &Dict) {
    is_refused(reader.get::<T>("deep"));
    is_refused(entry(dict).get::<T>());
    is_refused(dict.transaction(|tx| tx.get::<T>("deep").map(drop)));
    is_refused(dict.snapshot(|all| all.get::<T>("deep").map(drop)));
    is_refused(dict.update::<T>("deep", |old| old));
}

#[test]
fn a_deep_value_is_refused_whatever_it_is_read_as() {
    on_a_small_stack(|| {
        let (dict, reader) = dict();
        for open in OPENINGS {
            for levels in [DEEPEST + 1, 1000, 1023, 1024, 5000, 100_000] {
                dict.set_encoded("deep", Encoding::MessagePack, &deep(open, levels)).unwrap();
                is_not_read::<i64>(&dict, &reader);
                is_not_read::<f64>(&dict, &reader);
                is_not_read::<String>(&dict, &reader);
                is_not_read::<Option<u8>>(&dict, &reader);
                is_not_read::<Vec<u8>>(&dict, &reader);
                is_not_read::<rmpv::Value>(&dict, &reader);
                is_not_read::<serde_json::Value>(&dict, &reader);
                is_not_read::<Tree>(&dict, &reader);
                is_refused(reader.get::<IgnoredAny>("deep"));
                is_refused(reader.get::<()>("deep"));
                is_refused(dict.increment("deep", 1));
            }
        }
    });
}

#[test]
fn a_value_as_deep_as_the_limit_is_read_and_written_on_a_small_stack() {
    on_a_small_stack(|| {
        let (dict, reader) = dict();
        for open in OPENINGS {
            dict.set_encoded("deep", Encoding::MessagePack, &deep(open, DEEPEST)).unwrap();
            is_read::<IgnoredAny>(&dict, &reader);
            is_read::<rmpv::Value>(&dict, &reader);
            is_read::<serde_json::Value>(&dict, &reader);
            is_not_read::<i64>(&dict, &reader);
            is_refused(dict.increment("deep", 1));
            let value: rmpv::Value = dict.get("deep").unwrap().unwrap();
            dict.set("again", &value).unwrap();
            assert_eq!(dict.get::<rmpv::Value>("again").unwrap(), Some(value));
            let value: serde_json::Value = dict.get("deep").unwrap().unwrap();
            dict.set("again", &value).unwrap();
            dict.update::<serde_json::Value>("again", |old| old).unwrap();
            assert_eq!(dict.get::<serde_json::Value>("again").unwrap(), Some(value));
        }
    });
}

#[test]
fn nothing_is_written_that_would_not_be_read() {
    on_a_small_stack(|| {
        let (dict, reader) = dict();
        let kinds: [fn(Tree) -> Tree; 3] = [
            |tree| Tree::Node(Box::new(tree)),
            |tree| Tree::Named { of: Box::new(tree) },
            |tree| Tree::Both(Box::new(tree), Box::new(Tree::Leaf)),
        ];
        for (kind, levels) in kinds.into_iter().zip([1, 2, 2]) {
            let mut tree = Tree::Leaf;
            for nth in 1..=DEEPEST / levels + 3 {
                tree = kind(tree);
                let set = dict.set("tree", &tree);
                let encoded = rmp_serde::to_vec_named(&tree).unwrap();
                dict.set_encoded("deep", Encoding::MessagePack, &encoded).unwrap();
                if nth * levels <= DEEPEST {
                    set.unwrap();
                    assert_eq!(reader.get::<Tree>("tree").unwrap().as_ref(), Some(&tree), "{nth}");
                    is_read::<Tree>(&dict, &reader);
                } else {
                    assert!(matches!(set.unwrap_err().kind(), ErrorKind::InvalidInput { .. }), "{nth}");
                    assert!(dict.insert_if_absent("absent", &tree).is_err());
                    assert!(dict.compare_and_set("tree", &tree, &tree).is_err());
                    assert!(dict.transaction(|tx| tx.set("tree", &tree)).is_err());
                    is_not_read::<Tree>(&dict, &reader);
                }
            }
        }
        let mut json = serde_json::Value::Null;
        for nth in 0..DEEPEST + 4 {
            json = if nth % 2 == 0 {
                serde_json::Value::Array(vec![json])
            } else {
                serde_json::Value::Object([("key".to_owned(), json)].into_iter().collect())
            };
            assert_eq!(dict.set("json", &json).is_ok(), nth < DEEPEST, "{nth}");
        }
        // An empty array is one more level.
        let empty = |levels| [&[0x91].repeat(levels)[..], &[0x90]].concat();
        for (levels, is_read) in [(DEEPEST - 1, true), (DEEPEST, false)] {
            dict.set_encoded("deep", Encoding::MessagePack, &empty(levels)).unwrap();
            let value = dict.get::<rmpv::Value>("deep");
            assert_eq!(value.is_ok(), is_read);
            let value = rmpv::decode::read_value(&mut &empty(levels)[..]).unwrap();
            assert_eq!(dict.set("again", &value).is_ok(), is_read);
        }
        dict.set("map", &BTreeMap::from([("a", vec![(1, "b")])])).unwrap();
    });
}

#[test]
fn what_is_no_value_or_more_than_one_is_refused() {
    let (dict, reader) = dict();
    for bytes in [
        &[][..],
        &[0xc1],
        &[1, 2],
        &[0xc0, 0xc1],
        &[0xa1, b'a', 0xc0],
        &[0x91, 1, 0x91],
        &[0x92, 1],
        &[0x81, 0xa1, b'k'],
        &[0xdd, 0xff, 0xff, 0xff, 0xff, 0],
        &[0xdf, 0xff, 0xff, 0xff, 0xff, 0],
        &[0xdb, 0xff, 0xff, 0xff, 0xff, 0],
        &[0xc9, 0xff, 0xff, 0xff, 0xff, 0],
    ] {
        dict.set_encoded("deep", Encoding::MessagePack, bytes).unwrap();
        is_not_read::<rmpv::Value>(&dict, &reader);
        is_not_read::<serde_json::Value>(&dict, &reader);
        is_not_read::<Vec<Vec<u64>>>(&dict, &reader);
        is_refused(reader.get::<IgnoredAny>("deep"));
        is_refused(dict.increment("deep", 1));
    }
}
