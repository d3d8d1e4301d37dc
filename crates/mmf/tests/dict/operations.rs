//! Operations of a dict, compared with a map in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use mmf::{Access, Change, Dict, Encoding, ErrorKind, Name, Watched};
use testkit::{TempDir, unique_name};

fn name(what: &str) -> Name {
    Name::local(unique_name(what)).unwrap()
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn assert_same(dict: &Dict, model: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(dict.len().unwrap(), model.len());
    let all: BTreeMap<String, Vec<u8>> = dict.entries().unwrap().map(|entry| (entry.key, entry.value)).collect();
    assert!(all == *model, "{} keys, not {}", all.len(), model.len());
    for (key, value) in model {
        assert_eq!(dict.get_bytes(key).unwrap().as_ref(), Some(value), "{key}");
    }
}

#[test]
fn it_holds_what_a_map_would_hold() {
    let dict = Dict::create_new(name("model"), 8 << 20).unwrap();
    let mut model = BTreeMap::new();
    let mut numbers = Numbers(88_172_645_463_325_252);
    for round in 0..60_000_u64 {
        let key = format!("key {}", numbers.below(3000));
        match numbers.below(10) {
            0..6 => {
                let salt = u8::try_from(round % 256).unwrap();
                let len = if numbers.below(100) == 0 { numbers.below(60_000) } else { numbers.below(300) };
                let value: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap() ^ salt).collect();
                dict.set_bytes(&key, &value).unwrap();
                model.insert(key, value);
            }
            6..8 => assert_eq!(dict.remove(&key).unwrap(), model.remove(&key).is_some()),
            _ => assert_eq!(dict.get_bytes(&key).unwrap().as_ref(), model.get(&key)),
        }
        if round % 10_000 == 0 {
            assert_same(&dict, &model);
        }
    }
    assert_same(&dict, &model);
    dict.clear().unwrap();
    assert_same(&dict, &BTreeMap::new());
    dict.set_bytes("again", b"there").unwrap();
    assert_eq!(dict.get_bytes("again").unwrap().unwrap(), b"there");
}

#[test]
fn a_year_of_changes_to_the_same_keys_never_fills_it() {
    let dir = TempDir::new();
    for flushes in [false, true] {
        let dict = Dict::create_new(dir.join(format!("year {flushes}")), 4 << 20).unwrap();
        let mut numbers = Numbers(12_345);
        for round in 0..15_000_u64 {
            let key = format!("{}", numbers.below(50));
            let len = match numbers.below(50) {
                0 => numbers.below(200_000),
                _ => numbers.below(4000),
            };
            let value = vec![u8::try_from(round % 256).unwrap(); usize::try_from(len).unwrap()];
            dict.set_bytes(&key, &value).unwrap_or_else(|error| panic!("{round} {flushes}: {error}"));
            if flushes && round % 5000 == 0 {
                dict.flush().unwrap();
            }
        }
    }
}

#[test]
fn one_value_takes_a_quarter_and_so_does_its_replacement() {
    for capacity in [1_u64 << 20, 5 << 20, 64 << 20] {
        let dict = Dict::create_new(name("quarter"), capacity).unwrap();
        for small in 0..100 {
            dict.set_bytes(&format!("small {small}"), &[7; 100]).unwrap();
        }
        let quarter = usize::try_from(capacity / 4).unwrap();
        let key = "k".repeat(Dict::KEY_MAX);
        for fill in 0..20_u8 {
            let value = vec![fill; quarter - usize::from(fill)];
            dict.set_bytes(&key, &value).unwrap_or_else(|error| panic!("{capacity} {fill}: {error}"));
            assert!(dict.get_bytes(&key).unwrap() == Some(value));
        }
        assert!(dict.get_bytes("small 99").unwrap().is_some());
    }
}

#[test]
fn a_full_dict_says_so_and_loses_nothing() {
    let dict = Dict::create_new(name("full"), 1 << 20).unwrap();
    let mut model = BTreeMap::new();
    let error = loop {
        let key = format!("{}", model.len());
        let value = vec![1; 500];
        match dict.set_bytes(&key, &value) {
            Ok(_) => drop(model.insert(key, value)),
            Err(error) => break error,
        }
    };
    assert_eq!(*error.kind(), ErrorKind::Full, "{error}");
    assert!(model.len() > 1200, "{} entries of 500 bytes are in it", model.len());
    assert_same(&dict, &model);
    for key in 0..100 {
        assert!(dict.remove(&key.to_string()).unwrap());
        model.remove(&key.to_string());
    }
    for key in 0..50 {
        dict.set_bytes(&format!("new {key}"), &[2; 600]).unwrap();
        model.insert(format!("new {key}"), vec![2; 600]);
    }
    assert_same(&dict, &model);
}

#[test]
fn a_transaction_is_all_or_nothing() {
    let dict = Dict::create_new(name("transaction"), 4 << 20).unwrap();
    dict.set("a", &1).unwrap();
    dict.set("b", &2).unwrap();
    let sum = dict
        .transaction(|tx| {
            tx.set("a", &10)?;
            assert_eq!(tx.get("a")?, Some(10));
            assert!(tx.remove("b")?);
            assert!(!tx.contains_key("b")?);
            for n in 0..500 {
                tx.set(&format!("n{n}"), &n)?;
            }
            assert_eq!(dict.get("a")?, Some(1), "nobody sees it yet");
            assert_eq!(*dict.set("c", &1).unwrap_err().kind(), ErrorKind::Deadlock);
            assert_eq!(*dict.transaction(|_| Ok(())).unwrap_err().kind(), ErrorKind::Deadlock);
            Ok(3)
        })
        .unwrap();
    assert_eq!(sum, 3);
    assert_eq!((dict.get("a").unwrap(), dict.get::<i32>("b").unwrap()), (Some(10), None));
    assert_eq!(dict.get("n499").unwrap(), Some(499));
    assert_eq!(dict.len().unwrap(), 501);

    let failed = dict.transaction(|tx| {
        tx.set("a", &11)?;
        tx.get::<i32>(&"k".repeat(2000))
    });
    assert!(matches!(failed.unwrap_err().kind(), ErrorKind::InvalidInput { .. }));
    dict.transaction(|tx| {
        tx.set("a", &12)?;
        tx.abort();
        Ok(())
    })
    .unwrap();
    assert_eq!(dict.get("a").unwrap(), Some(10));
}

#[test]
fn what_is_watched_is_told_in_order_and_who_falls_behind_is_told_that() {
    let dict = Dict::create_new(name("watch"), 1 << 20).unwrap();
    let reader = Dict::options().access(Access::ReadOnly).open(dict_name(&dict)).unwrap();
    for watcher in [&dict, &reader] {
        let mut changes = watcher.watch(Watched::Prefix("a.".to_owned())).unwrap();
        dict.set("a.x", &1).unwrap();
        dict.set("b.x", &1).unwrap();
        dict.remove("a.x").unwrap();
        dict.clear().unwrap();
        let wait = Duration::from_secs(10);
        assert!(matches!(changes.next_for(wait).unwrap(), Some(Change::Set { key, .. }) if key == "a.x"));
        assert!(matches!(changes.next_for(wait).unwrap(), Some(Change::Removed { key, .. }) if key == "a.x"));
        assert!(matches!(changes.next_for(wait).unwrap(), Some(Change::Cleared { .. })));
        assert_eq!(changes.next_for(Duration::from_millis(20)).unwrap(), None);
        for n in 0..3000 {
            dict.set("a.x", &n).unwrap();
        }
        assert_eq!(changes.next_for(wait).unwrap(), Some(Change::Missed));
        dict.set("a.y", &1).unwrap();
        assert!(matches!(changes.next_for(wait).unwrap(), Some(Change::Set { key, .. }) if key == "a.y"));
    }
}

#[test]
fn those_who_watch_miss_something_only_where_something_was_changed() {
    let dict = Dict::create_new(name("missed"), 1 << 20).unwrap();
    let mut changes = dict.watch(Watched::All).unwrap();
    let wait = Duration::from_secs(10);
    let mut is_told = |what: &str| {
        dict.set(what, &1).unwrap();
        let change = changes.next_for(wait).unwrap();
        assert!(matches!(&change, Some(Change::Set { key, .. }) if key == what), "{what}: {change:?}");
        assert_eq!(changes.next_for(Duration::ZERO).unwrap(), None);
    };
    // More keys than the change log has room for; once too much for the dict, once for the redo
    // log.
    let large = |count: usize, len: usize| {
        dict.transaction(|tx| {
            let key = |nth| format!("{nth:0100}");
            (0..count).try_for_each(|nth| tx.set_bytes(&key(nth), &vec![1; len]))
        })
    };
    is_told("before");
    assert_eq!(*large(90, 30_000).unwrap_err().kind(), ErrorKind::Full);
    is_told("after what was too much");
    assert!(matches!(large(500, 1).unwrap_err().kind(), ErrorKind::InvalidInput { .. }));
    is_told("after what was too long");
    assert!(!dict.remove("absent").unwrap());
    is_told("after nothing");

    large(70, 1).unwrap();
    assert_eq!(dict.len().unwrap(), 74);
    assert_eq!(changes.next_for(wait).unwrap(), Some(Change::Missed));
    for key in ["then", "and then"] {
        dict.set(key, &1).unwrap();
        let change = changes.next_for(wait).unwrap();
        assert!(matches!(&change, Some(Change::Set { key: told, .. }) if told == key), "{key}: {change:?}");
    }
    assert_eq!(changes.next_for(Duration::ZERO).unwrap(), None);
}

fn dict_name(dict: &Dict) -> mmf::Source {
    dict.source().unwrap().clone()
}

#[test]
fn values_of_every_encoding_come_back() {
    let dir = TempDir::new();
    let path = dir.join("values");
    let dict = Dict::create_new(&path, 4 << 20).unwrap();
    dict.set("text", "hello").unwrap();
    dict.set("list", &vec![1.5, 2.5]).unwrap();
    dict.set_bytes("raw", &[1, 2, 3]).unwrap();
    assert!(dict.insert_if_absent("once", &1).unwrap());
    assert!(!dict.insert_if_absent("once", &2).unwrap());
    assert!(dict.compare_and_set("once", &1, &3).unwrap());
    assert!(!dict.compare_and_set("once", &1, &4).unwrap());
    assert_eq!(dict.increment("count", 5).unwrap(), 5);
    assert_eq!(dict.increment("count", -7).unwrap(), -2);
    for behind in [&[][..], &[2], &[0xc4], &[0xc1]] {
        dict.set_encoded("two", Encoding::MessagePack, &[&[0xc0], behind].concat()).unwrap();
        match dict.get::<Option<i32>>("two") {
            Ok(value) => assert_eq!((value, behind.len()), (Some(None), 0)),
            Err(error) => assert!(matches!(error.kind(), ErrorKind::Mismatch { .. }) && !behind.is_empty(), "{error}"),
        }
    }
    dict.remove("two").unwrap();
    assert!(matches!(dict.increment("text", 1).unwrap_err().kind(), ErrorKind::Mismatch { .. }));
    dict.flush().unwrap();
    drop(dict);
    let dict = Dict::options().access(Access::ReadOnly).open(&path).unwrap();
    assert_eq!(dict.get::<String>("text").unwrap().unwrap(), "hello");
    assert_eq!(dict.get::<Vec<f64>>("list").unwrap().unwrap(), [1.5, 2.5]);
    let mut bytes = Vec::new();
    assert_eq!(dict.get_into("raw", &mut bytes).unwrap(), Some(Encoding::Bytes));
    assert_eq!(bytes, [1, 2, 3]);
    assert_eq!(dict.get("once").unwrap(), Some(3));
    assert_eq!(dict.get::<i32>("none").unwrap(), None);
    assert_eq!(dict.keys().unwrap().len(), 5);
    assert_eq!(*dict.set("text", "x").unwrap_err().kind(), ErrorKind::ReadOnly);
    dict.snapshot(|all| {
        assert_eq!(all.entries()?.len(), 5);
        Ok(())
    })
    .unwrap();
}
