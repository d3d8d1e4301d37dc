//! A dict that has no room left.

#![cfg(feature = "serde")]
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

use std::fs;
use std::path::Path;

use mmf::{Dict, ErrorKind};
use testkit::TempDir;

/// Where things are, as `docs/format.md` says.
const DURABLE: usize = 20480 + 256;
const BOOT: usize = 20480 + 304;

fn word(path: &Path, at: usize) -> u64 {
    u64::from_le_bytes(fs::read(path).unwrap()[at..at + 8].try_into().unwrap())
}

/// Has the file found by another boot of the machine.
fn start_again(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[BOOT] ^= 1;
    fs::write(path, &bytes).unwrap();
}

/// Sets new keys until there is no room, and gives how many there were.
fn fill(dict: &Dict, len: usize) -> usize {
    for nth in 0.. {
        if let Err(error) = dict.set_bytes(&format!("filler {nth}"), &vec![1; len]) {
            assert_eq!(*error.kind(), ErrorKind::Full, "{error}");
            return nth;
        }
    }
    unreachable!("it has no end")
}

#[test]
fn a_file_that_was_flushed_and_then_filled_can_be_emptied() {
    let dir = TempDir::new();
    let path = dir.join("filled");
    let dict = Dict::create_new(path.as_path(), 1 << 20).unwrap();
    for key in ["first", "second", "third"] {
        dict.set(key, key).unwrap();
    }
    dict.flush().unwrap();
    let filled = fill(&dict, 3000);
    assert!(dict.remove("first").unwrap());
    assert!(dict.update("second", |_: Option<String>| None).unwrap().is_none());
    dict.transaction(|tx| tx.remove("third").map(drop)).unwrap();
    for key in ["first", "second", "third"] {
        assert_eq!(dict.get_bytes(key).unwrap(), None);
    }
    for nth in 0..filled {
        assert!(dict.remove(&format!("filler {nth}")).unwrap(), "{nth}");
    }
    assert_eq!(dict.len().unwrap(), 0);
    assert!(dict.check().unwrap().is_whole());
    dict.flush().unwrap();
    dict.set_bytes("again", b"there").unwrap();
    drop(dict);

    // What was flushed as removed stays so.
    start_again(&path);
    let dict = Dict::open(path.as_path()).unwrap();
    assert!(!dict.contains_key("first").unwrap());
    assert!(dict.check().unwrap().is_whole());
}

#[test]
fn a_removal_without_a_record_is_one_for_a_repair_too() {
    let dir = TempDir::new();
    let path = dir.join("repaired");
    let dict = Dict::create_new(path.as_path(), 1 << 20).unwrap();
    dict.set_bytes("gone", b"the value").unwrap();
    dict.flush().unwrap();
    fill(&dict, 3000);
    assert!(dict.remove("gone").unwrap());
    drop(dict);
    let mut bytes = fs::read(&path).unwrap();
    let damaged = bytes.windows(8).rposition(|here| here == b"filler 1").unwrap();
    bytes[damaged + 100] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let report = Dict::repair(path.as_path()).unwrap();
    assert!(!report.is_whole());
    assert!(!Dict::open(path.as_path()).unwrap().contains_key("gone").unwrap());
}

#[test]
fn removing_what_is_not_there_changes_nothing() {
    let dir = TempDir::new();
    let path = dir.join("clean");
    let dict = Dict::create_new(path.as_path(), 1 << 20).unwrap();
    dict.set_bytes("there", b"value").unwrap();
    dict.flush().unwrap();
    assert!(!dict.remove("absent").unwrap());
    dict.transaction(|tx| {
        tx.set_bytes("absent", b"value")?;
        assert!(tx.remove("absent")?);
        Ok(())
    })
    .unwrap();
    dict.transaction(|_| Ok(())).unwrap();
    assert_eq!(word(&path, DURABLE) & 1, 1);
    assert!(dict.remove("there").unwrap());
    assert_eq!(word(&path, DURABLE) & 1, 0);
}
