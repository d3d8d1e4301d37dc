//! Compares the fast paths of changes with the slow paths.

use crate::dict::Dict;
use crate::dict::format::layout::{at, class};
use crate::dict::format::record::{MAX_COMMIT, MAX_VERSION, RecordKind};
use crate::dict::store::write_batch::WriteBatch;
use crate::dict::write::apply::Applier;
use crate::dict::write::session::KeyChange;
use crate::error::ErrorKind;
use crate::segment::layout::PAYLOAD;

/// Returns a dict in which values of several lengths were set and removed, and its keys.
fn used(name: &str) -> (Dict, Vec<String>) {
    let name = crate::Name::local(format!("mmf-{name}-{}", std::process::id())).unwrap();
    let dict = Dict::create_new(&name, 4 << 20).unwrap();
    let keys: Vec<String> = (0..600_usize).map(|nth| format!("{nth:0width$}", width = 3 + nth % 50)).collect();
    for round in 1..4_usize {
        for (nth, key) in keys.iter().enumerate() {
            match (nth * round) % 7 {
                0 => dict.remove(key).map(drop).unwrap(),
                _ => dict.set_bytes(key, &vec![7; nth * round % 400]).map(drop).unwrap(),
            }
        }
    }
    (dict, keys)
}

#[test]
fn the_fast_path_takes_and_gives_blocks_as_the_slow_path() {
    let (dict, keys) = used("set-blocks");
    let storage = dict.storage();
    let map = dict.segment.map.fast_access_mut().unwrap();
    let (mut taken, mut given) = (0, 0);
    for class in 1..=class::LAST {
        let (mut batch, mut other) = (WriteBatch::new(), WriteBatch::new());
        if let Some(block) = storage.blocks().take_fast(map, &mut batch, class) {
            assert_eq!(storage.blocks().take(&mut other, class, None).unwrap(), block, "{class}");
            assert_eq!(batch.list(), other.list(), "{class}");
            taken += 1;
        }
    }
    for key in &keys {
        let hash = dict.hash(key, "read").unwrap();
        let mut found = None;
        storage.index().find(&WriteBatch::new(), hash, |block| Ok(*found.insert(block) == block)).unwrap();
        let Some(block) = found else { continue };
        let (mut batch, mut other) = (WriteBatch::new(), WriteBatch::new());
        if storage.blocks().give_in(map, &mut batch, block).is_ok() {
            storage.blocks().give(&mut other, block).unwrap();
            assert_eq!(batch.list(), other.list(), "{key}");
            given += 1;
        }
    }
    assert!(taken > 10 && given > 300, "{taken} {given}");
}

#[test]
fn the_fast_path_replaces_a_value_as_the_slow_path() {
    let (dict, keys) = used("set-whole");
    let mut batch = WriteBatch::new();
    let mut writer = dict.writer(&mut batch, "set").unwrap();
    let map = &dict.segment.map;
    let all = || map.read_to_vec(PAYLOAD, map.len() - PAYLOAD).unwrap();
    let mut enough = 0;
    for (nth, key) in keys.iter().enumerate() {
        let (key, hash) = (key.as_bytes(), dict.hash(key, "set").unwrap());
        let (kind, value) = (if nth % 2 == 0 { RecordKind::Bytes } else { RecordKind::Encoded }, vec![9; nth % 300]);
        let change = KeyChange { key, hash, value: Some((kind, &value)) };
        let before = all();
        let Some(version) = Applier::new(&mut writer).replace_fast(&change).unwrap() else { continue };
        let made = all();
        map.write_at(PAYLOAD, &before).unwrap();
        assert_eq!(Applier::new(&mut writer).try_apply(&[change], false).unwrap(), Some(version), "{nth}");
        assert!(all() == made, "{nth}");
        enough += 1;
    }
    drop(writer);
    assert!(enough > 300, "{enough}");
    assert!(dict.check().unwrap().is_whole());
}

#[test]
fn no_change_follows_a_version_that_a_check_takes_for_damage() {
    let name = crate::Name::local(format!("mmf-last-version-{}", std::process::id())).unwrap();
    let dict = Dict::create_new(&name, 1 << 20).unwrap();
    dict.set_bytes("key", b"first").unwrap();
    let map = &dict.segment.map;
    for commit in [MAX_COMMIT + 1, MAX_VERSION, u64::MAX / 2] {
        map.put_word(at::COMMIT, commit).unwrap();
        for key in ["key", "new"] {
            let error = dict.set_bytes(key, b"second").unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Damaged { .. }), "{error}");
        }
    }
    map.put_word(at::COMMIT, MAX_COMMIT).unwrap();
    assert_eq!(dict.set_bytes("key", b"second").unwrap(), MAX_COMMIT + 1);
    assert!(dict.check().unwrap().is_whole());
}
