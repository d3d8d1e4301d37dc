//! Mistakes of a first use of dicts, and the errors that explain them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mmf::{Access, Dict, Encoding, ErrorKind, Name, Watched};
use testkit::{TempDir, unique_name};

fn dict(what: &str) -> Dict {
    Dict::create_new(Name::local(unique_name(what)).unwrap(), 1 << 20).unwrap()
}

#[test]
fn integers_of_128_bits_are_refused_wherever_they_are() {
    let dict = dict("wide");
    let refused = |result: mmf::Result<u64>| {
        let error = result.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
        assert!(error.to_string().contains("128 bits"), "{error}");
    };
    refused(dict.set("number", &u128::MAX));
    refused(dict.set("number", &5_i128));
    refused(dict.set("number", &vec![Some((1, "a", 5_u128))]));
    refused(dict.set("number", &BTreeMap::from([(5_u128, 1)])));
    refused(dict.set("number", &BTreeMap::from([("a", Ok::<u128, ()>(5))])));
    dict.transaction(|tx| tx.set("number", &5_u128)).unwrap_err();
    dict.insert_if_absent("number", &5_u128).unwrap_err();
    assert!(dict.is_empty().unwrap());
    // What looks at whether people are to read it is stored as ever.
    dict.set("address", &std::net::Ipv4Addr::LOCALHOST).unwrap();
    assert_eq!(dict.get_bytes("address").unwrap().unwrap(), [0x94, 127, 0, 0, 1]);
}

#[test]
fn a_value_of_another_type_is_told_in_words() {
    let dict = dict("types");
    dict.set("text", "a").unwrap();
    dict.set("list", &[1, 2]).unwrap();
    dict.set_encoded("time", Encoding::MessagePack, &[0xd6, 0xff, 0, 0, 0, 0]).unwrap();
    for (key, is) in [("text", "a text"), ("list", "a list"), ("time", "an extension type")] {
        let error = dict.get::<i32>(key).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Mismatch { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.ends_with(&format!("the value is {is}, but i32 was asked for; it is the value of {key:?}")),
            "{text}"
        );
    }
    let error = dict.get::<u8>("missing").and_then(|_| dict.set("large", &300)).and_then(|_| dict.get::<u8>("large"));
    let text = error.unwrap_err().to_string();
    assert!(text.contains("the value is something else (") && text.contains("300"), "{text}");
}

#[test]
fn no_key_is_so_long_that_it_could_be_watched() {
    let dict = dict("watched");
    let long = "k".repeat(Dict::KEY_MAX + 1);
    for watched in [Watched::Key(long.clone()), Watched::Prefix(long)] {
        let error = dict.watch(watched).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
    }
    dict.watch(Watched::Prefix("k".repeat(Dict::KEY_MAX))).unwrap();
}

#[test]
fn a_dict_that_would_be_too_large_is_told_how_large_it_may_be() {
    let error = Dict::create_new(Name::local(unique_name("huge")).unwrap(), u64::MAX - (1 << 20)).err().unwrap();
    assert!(error.to_string().contains("is the most that it can have here"), "{error}");
}

#[test]
fn participants_that_died_are_not_counted() {
    let dir = TempDir::new();
    let (path, left) = (dir.join("dict"), dir.join("left"));
    let dict = Dict::create_new(&*path, 1 << 20).unwrap();
    dict.set("key", "value").unwrap();
    // As it is where a process that has written is killed.
    fs::copy(&path, &left).unwrap();
    assert_eq!(dict.stats().unwrap().participants, 1);
    drop(dict);
    let reader = Dict::options().access(Access::ReadOnly).open(&*left).unwrap();
    assert_eq!(reader.stats().unwrap().participants, 0);
    let writer = Dict::open(&*left).unwrap();
    writer.set("key", "other").unwrap();
    assert_eq!(reader.stats().unwrap().participants, 1);
}

type Model = BTreeMap<String, Vec<u8>>;

fn fill(path: &Path) -> Model {
    let dict = Dict::create_new(path, 2 << 20).unwrap();
    let mut model = Model::new();
    for nth in 0..400_usize {
        // Of many sizes, so that spans of many classes are there; some lie in spans of their own.
        let len = if nth % 40 == 0 { 9000 + nth } else { nth * 3 % 700 };
        let value: Vec<u8> = (0..len).map(|at| u8::try_from((at * 7 + nth) % 251).unwrap()).collect();
        dict.set_bytes(&format!("key {nth}"), &value).unwrap();
        model.insert(format!("key {nth}"), value);
    }
    model
}

/// Repairs it, and gives what is there then: some of the model, whole, and nothing else.
fn repaired(path: &Path, model: &Model) -> Model {
    let told = Dict::repair(path).unwrap();
    let dict = Dict::open(path).unwrap();
    assert!(dict.check().unwrap().is_whole());
    let all: Model = dict.entries().unwrap().map(|entry| (entry.key, entry.value)).collect();
    assert_eq!(all.len() as u64, told.entries);
    for (key, value) in &all {
        assert!(model.get(key) == Some(value), "{key}");
    }
    dict.set("new", &1).unwrap();
    all
}

/// Where the first span begins, and how long a span is, in a dict of 2 MiB.
const HEAP: usize = 20480 + 4096 + 2 * 32768 + 512 * 8 + 512 * 32;
const SPAN: usize = 4096;
/// Where the table of spans begins.
const TABLE: usize = HEAP - 512 * 32;

#[test]
fn of_a_file_that_was_cut_off_all_that_is_left_is_kept() {
    let dir = TempDir::new();
    let (path, cut) = (dir.join("whole"), dir.join("cut"));
    let model = fill(&path);
    let bytes = fs::read(&path).unwrap();
    let used = HEAP + SPAN * usize::try_from(u64::from_le_bytes(bytes[20552..20560].try_into().unwrap())).unwrap();
    let mut kept = Vec::new();
    for end in [20480, 21000, HEAP - 1000, HEAP, HEAP + 5 * SPAN + 4000, (HEAP + used) / 2, used - 4096] {
        fs::write(&cut, &bytes[..end]).unwrap();
        // Cut off in the words it cannot even be opened.
        if let Ok(dict) = Dict::options().access(Access::ReadOnly).open(&*cut) {
            let report = dict.check().unwrap();
            assert!(!report.is_whole(), "{end}");
        }
        kept.push(repaired(&cut, &model).len());
    }
    assert!(kept.is_sorted() && kept[..4] == [0; 4] && kept[4] > 0 && kept[6] > 300, "{kept:?}");
    // What is whole in the span where it ends is kept too.
    let last = bytes[HEAP + 5 * SPAN..][..4000].to_vec();
    fs::write(&cut, &bytes[..HEAP + 5 * SPAN]).unwrap();
    let without = repaired(&cut, &model).len();
    assert!(last.iter().any(|byte| *byte != 0) && kept[4] > without, "{kept:?} {without}");
}

#[test]
fn a_span_that_says_that_its_records_are_larger_loses_none() {
    let dir = TempDir::new();
    let path = dir.join("dict");
    let model = fill(&path);
    let mut bytes = fs::read(&path).unwrap();
    let used = usize::try_from(u64::from_le_bytes(bytes[20552..20560].try_into().unwrap())).unwrap();
    let mut changed = 0;
    for span in 0..used {
        let class = &mut bytes[TABLE + 32 * span];
        if (1..=40).contains(class) {
            // The first record of the span is where it would be among larger ones.
            *class += 7;
            changed += 1;
        }
    }
    assert!(changed > 10, "{changed}");
    fs::write(&path, &bytes).unwrap();
    assert!(repaired(&path, &model) == model);
}
