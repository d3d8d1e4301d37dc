//! A dict without free space: an operation that needs space fails and changes nothing.

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

#[test]
fn where_one_span_cannot_be_emptied_another_is() {
    let dir = TempDir::new();
    let dict = Dict::create_new(dir.join("spans"), 1 << 20).unwrap();
    // Blocks of 64 bytes: a span of them, and in the next the record of a value that lies in spans.
    for nth in 0..64 {
        dict.set_bytes(&format!("s{nth:03}"), &[1; 20]).unwrap();
    }
    dict.set_bytes("large", &[2; 9000]).unwrap();
    // Two spans of 512 bytes each.
    for nth in 0..16 {
        dict.set_bytes(&format!("m{nth:02}"), &[3; 460]).unwrap();
    }
    fill(&dict, 1980);
    for nth in 0..20 {
        assert!(dict.remove(&format!("s{nth:03}")).unwrap());
    }
    for nth in (0..4).chain(8..12) {
        assert!(dict.remove(&format!("m{nth:02}")).unwrap());
    }
    // From here on large values stay where they are, and their span is the one that has least in it.
    dict.flush().unwrap();
    dict.set_bytes("new", &[4; 900]).unwrap();
    assert!(dict.check().unwrap().is_whole());
    assert_eq!(dict.get_bytes("large").unwrap().unwrap(), [2; 9000]);
    assert_eq!(dict.get_bytes("m15").unwrap().unwrap(), [3; 460]);
}

#[test]
fn an_index_gives_back_what_its_long_buckets_took() {
    let dir = TempDir::new();
    let path = dir.join("buckets");
    let dict = Dict::create_new(path.as_path(), 1 << 20).unwrap();
    // Spans of the class of lines that continue buckets, by the table of a dict of that capacity.
    let lines = || {
        let bytes = fs::read(&path).unwrap();
        (0..256).filter(|span| bytes[20480 + 4096 + 2 * 16384 + 8 * 256 + 32 * span] == 251).count()
    };
    // In so small a dict buckets get long once there is no room for more of them.
    let filled = fill(&dict, 0);
    assert!(lines() > 0, "{filled} keys");
    for nth in 0..filled {
        assert!(dict.remove(&format!("filler {nth}")).unwrap());
    }
    let filled = fill(&dict, 30_000);
    assert_eq!(lines(), 0);
    assert!(dict.check().unwrap().is_whole());
    for nth in 0..filled {
        assert_eq!(dict.get_bytes(&format!("filler {nth}")).unwrap().unwrap(), [1; 30_000]);
    }
}
