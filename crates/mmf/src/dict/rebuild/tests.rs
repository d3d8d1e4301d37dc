//! Repairs beside others, and repairs that end too early.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed check is a failed test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::super::{Dict, DictOptions};
use super::*;
use crate::mapping::trace::{self, Event};
use crate::name::Source;
use crate::spec::Access;

/// A file that is removed in the end.
struct File(PathBuf);

impl File {
    fn new(what: &str) -> File {
        File(std::env::temp_dir().join(format!("mmf {what} {}", std::process::id())))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn fill(dict: &Dict, keys: std::ops::Range<u8>) -> BTreeMap<String, Vec<u8>> {
    let entries: BTreeMap<_, _> = keys.map(|nth| (format!("key {nth}"), vec![nth; 30 * usize::from(nth)])).collect();
    for (key, value) in &entries {
        dict.set_bytes(key, value).unwrap();
    }
    entries
}

fn read_all(dict: &Dict) -> Result<BTreeMap<String, Vec<u8>>> {
    Ok(dict.entries()?.map(|entry| (entry.key, entry.value)).collect())
}

#[track_caller]
fn assert_right_or_damaged<T: PartialEq>(result: Result<T>, right: &T, moment: usize) {
    match result {
        Ok(found) => assert!(found == *right, "at {moment}"),
        Err(error) => assert!(matches!(error.kind(), ErrorKind::Damaged { .. }), "at {moment}: {error}"),
    }
}

#[test]
fn a_repair_keeps_what_came_while_it_waited() {
    for boot in [0, 1] {
        let file = File::new(&format!("waited {boot}"));
        let ours = Dict::create_new(file.0.as_path(), 4 << 20).unwrap();
        let mut entries = fill(&ours, 0..10);
        let repairs = DictOptions::new().open_as_it_is(&Source::from(file.0.as_path())).unwrap();
        entries.append(&mut fill(&ours, 10..250));
        let map = &ours.segment.map;
        map.put_word(at::LEN, 7).unwrap();
        map.put_word(at::BOOT, map.word(at::BOOT).unwrap() ^ boot).unwrap();
        drop(ours);
        assert_eq!(repairs.repair_it().unwrap().entries, entries.len() as u64);
        assert!(read_all(&repairs).unwrap() == entries);
    }
}

#[test]
fn wherever_a_repair_ends_nobody_reads_the_half_of_it() {
    let file = File::new("half repaired");
    let path = file.0.as_path();
    let dict = Dict::create_new(path, 1 << 20).unwrap();
    let entries = fill(&dict, 0..100);
    dict.segment.map.put_word(at::LEN, 7).unwrap();
    drop(dict);
    let before = fs::read(path).unwrap();
    trace::start();
    Dict::repair(path).unwrap();
    let events = trace::stop();
    let after = fs::read(path).unwrap();
    for moment in (0..events.len()).step_by(events.len() / 100 + 1) {
        let mut bytes = before.clone();
        bytes.resize(after.len(), 0);
        for event in &events[..moment] {
            if let Event::Stored { offset, bytes: stored } = event {
                bytes[*offset..*offset + stored.len()].copy_from_slice(stored);
            }
        }
        fs::write(path, &bytes).unwrap();
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let dict = Dict::options().access(access).open(path).unwrap();
            for (key, value) in &entries {
                assert_right_or_damaged(dict.get_bytes(key), &Some(value.clone()), moment);
            }
            assert_right_or_damaged(read_all(&dict), &entries, moment);
        }
        assert_eq!(Dict::repair(path).unwrap().entries, entries.len() as u64, "at {moment}");
        assert!(read_all(&Dict::open(path).unwrap()).unwrap() == entries, "at {moment}");
    }
}
