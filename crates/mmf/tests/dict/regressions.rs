//! Tests of past defects of dicts.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mmf::{Access, Dict, ErrorKind, Mapping};
use testkit::TempDir;

/// Where things are, as `docs/format.md` says.
const PAYLOAD: usize = 20480;
const BUCKETS: usize = PAYLOAD + 16;
const LEN: usize = PAYLOAD + 64;
const REDO_LEN: usize = PAYLOAD + 128;
const BOOT: usize = PAYLOAD + 304;
const REDO_LOG: usize = PAYLOAD + 4096;

fn read_only(path: &Path) -> mmf::Result<Dict> {
    Dict::options().access(Access::ReadOnly).open(path)
}

fn put(path: &Path, words: &[(usize, u64)]) {
    let map = Mapping::open(path).unwrap();
    words.iter().for_each(|(at, word)| map.write_at(*at, &word.to_le_bytes()).unwrap());
}

#[track_caller]
fn is_damaged<T>(result: mmf::Result<T>) {
    let error = result.err().expect("it is damaged");
    assert!(matches!(error.kind(), ErrorKind::Damaged { .. }), "{error}");
}

#[test]
fn a_handle_that_has_not_seen_the_dict_grow_finds_nothing_wrong_with_it() {
    let dir = TempDir::new();
    let path = dir.join("grown");
    let ours = Dict::create_new(path.as_path(), 8 << 20).unwrap();
    let (theirs, reader) = (Dict::open(path.as_path()).unwrap(), read_only(&path).unwrap());
    let (checks, examines) = (Dict::open(path.as_path()).unwrap(), read_only(&path).unwrap());
    for nth in 0..200 {
        ours.set_bytes(&format!("key {nth}"), &[7; 8000]).unwrap();
    }
    let stats = ours.stats().unwrap();
    for dict in [theirs, reader] {
        let seen = dict.stats().unwrap();
        assert_eq!((seen.used, seen.free, seen.spans_taken), (stats.used, stats.free, stats.spans_taken));
    }
    for dict in [checks, examines] {
        let report = dict.check().unwrap();
        assert!(report.is_whole(), "{report:#?}");
    }
}

#[test]
fn what_was_cleared_is_no_failure() {
    let dir = TempDir::new();
    let path = dir.join("cleared");
    let theirs = Dict::options().capacity(4 << 20).timeout(None).create_new(path.as_path()).unwrap();
    let ours = Dict::options().timeout(Some(Duration::from_millis(1))).open(path.as_path()).unwrap();
    // So many that their space is not swept up in one go, between which others come.
    for part in 0..20 {
        let keys = (0..500).map(|nth| format!("{part} {nth}"));
        theirs.transaction(|tx| keys.into_iter().try_for_each(|key| tx.set_bytes(&key, b""))).unwrap();
    }
    let over = AtomicBool::new(false);
    let errors = std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let sleeps = |_: &mut mmf::Transaction<'_>| {
                        std::thread::sleep(Duration::from_millis(3));
                        Ok(())
                    };
                    theirs.transaction(sleeps).unwrap();
                }
            });
        }
        let began = Instant::now();
        let (mut cleared, mut errors) = (0, Vec::new());
        while cleared < 20 && began.elapsed() < Duration::from_secs(5) {
            theirs.set_bytes("key", b"value").unwrap();
            let result = ours.clear();
            if !ours.contains_key("key").unwrap() {
                cleared += 1;
                errors.extend(result.err());
            }
        }
        over.store(true, Ordering::Relaxed);
        errors
    });
    assert!(errors.is_empty(), "it was cleared, but {errors:?}");
}

#[test]
fn what_is_damaged_takes_the_space_of_no_other_along() {
    let dir = TempDir::new();
    let path = dir.join("spans");
    let dict = Dict::create_new(path.as_path(), 1 << 20).unwrap();
    for (key, byte) in [("aaaa", 1), ("bbbb", 2)] {
        dict.set_bytes(key, &[byte; 9000]).unwrap();
    }
    drop(dict);
    let mut bytes = fs::read(&path).unwrap();
    let numbers = |key: &[u8]| bytes.windows(4).rposition(|here| here == key).unwrap() + 4;
    // Records in spans of 4096 bytes: the numbers of theirs follow the keys.
    let (from, to) = (numbers(b"bbbb"), numbers(b"aaaa"));
    bytes.copy_within(from..from + 12, to);
    fs::write(&path, &bytes).unwrap();
    let dict = Dict::open(path.as_path()).unwrap();
    is_damaged(dict.get_bytes("aaaa"));
    dict.set_bytes("aaaa", b"new").unwrap();
    for nth in 0..4 {
        dict.set_bytes(&format!("more {nth}"), &[3; 9000]).unwrap();
    }
    assert!(dict.get_bytes("bbbb").unwrap().unwrap() == [2; 9000]);
}

#[test]
fn a_check_does_not_wait_for_who_died() {
    let dir = TempDir::new();
    let path = dir.join("died");
    let dict = Dict::create_new(path.as_path(), 1 << 20).unwrap();
    dict.set_bytes("key", b"value").unwrap();
    drop(dict);
    // A change whose writer is gone.
    put(&path, &[(REDO_LOG, LEN as u64), (REDO_LOG + 8, 1), (REDO_LEN, 1)]);
    let reader =
        Dict::options().access(Access::ReadOnly).timeout(Some(testkit::DEADLINE)).open(path.as_path()).unwrap();
    let began = Instant::now();
    let report = reader.check().unwrap();
    assert!(!report.is_whole() && began.elapsed() < testkit::DEADLINE / 2, "{:?}", began.elapsed());
    // Whoever writes next finishes it.
    Dict::open(path.as_path()).unwrap().set_bytes("other", b"value").unwrap();
    assert!(reader.check().unwrap().is_whole());
}

#[test]
fn of_a_repair_that_was_cut_off_nobody_takes_half() {
    let dir = TempDir::new();
    let path = dir.join("repair");
    let dict = Dict::create_new(path.as_path(), 1 << 20).unwrap();
    dict.set_bytes("key", b"value").unwrap();
    dict.flush().unwrap();
    drop(dict);
    put(&path, &[(REDO_LEN, u64::MAX), (BUCKETS, 0)]);
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let dict = Dict::options().access(access).open(path.as_path()).unwrap();
        is_damaged(dict.get_bytes("key"));
        is_damaged(dict.entries());
        is_damaged(dict.snapshot(|all| all.get_bytes("key")));
        assert!(!dict.check().unwrap().is_whole());
    }
    // Nor after a power cut, when any part of it may be on the disk.
    let whole = fs::read(&path).unwrap();
    let mut cut = whole;
    cut[BOOT] ^= 1;
    fs::write(&path, &cut).unwrap();
    is_damaged(read_only(&path));
    is_damaged(Dict::open(path.as_path()));
    let report = Dict::repair(path.as_path()).unwrap();
    assert_eq!(report.entries, 1);
    assert_eq!(Dict::open(path.as_path()).unwrap().get_bytes("key").unwrap().unwrap(), b"value");
}

#[test]
fn a_repair_after_a_power_cut_names_what_it_cannot_keep() {
    let dir = TempDir::new();
    let path = dir.join("cut");
    let dict = Dict::create_new(path.as_path(), 1 << 20).unwrap();
    for key in ["lost", "kept"] {
        dict.set_bytes(key, format!("the value of {key}").as_bytes()).unwrap();
    }
    dict.flush().unwrap();
    dict.set_bytes("new", b"value").unwrap();
    drop(dict);
    let mut bytes = fs::read(&path).unwrap();
    let lost = bytes.windows(13).rposition(|here| here == b"value of lost").unwrap();
    bytes[lost] ^= 1;
    bytes[BOOT] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let report = Dict::repair(path.as_path()).unwrap();
    assert_eq!(report.entries, 2);
    assert!(report.problems.iter().any(|problem| problem.key.as_deref() == Some("lost")), "{report:#?}");
}
