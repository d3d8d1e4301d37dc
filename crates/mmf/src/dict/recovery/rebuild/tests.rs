//! Repairs beside other processes, and repairs that are interrupted.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed check is a failed test")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::*;
use crate::dict::{Dict, DictOptions};
use crate::mapping::trace::{self, TraceEvent};
use crate::name::Source;
use crate::types::Access;

/// The path of a file that is removed when it is dropped.
pub(super) struct File(pub(super) PathBuf);

impl File {
    pub(super) fn new(what: &str) -> File {
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

/// Replaces the contents of a file in place, since Windows refuses to truncate a mapped file.
fn replace(path: &Path, bytes: &[u8]) {
    let mut file = fs::File::options().write(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
    if file.metadata().unwrap().len() != bytes.len() as u64 {
        file.set_len(bytes.len() as u64).unwrap();
    }
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
        assert_eq!(repairs.repair_in_place().unwrap().entries, entries.len() as u64);
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
            if let TraceEvent::Stored { offset, bytes: stored } = event {
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

/// Returns a file of another boot, with these entries and with changes that were not flushed.
fn left(file: &File) -> BTreeMap<String, Vec<u8>> {
    let dict = Dict::create_new(file.0.as_path(), 1 << 20).unwrap();
    let entries = fill(&dict, 0..100);
    dict.flush().unwrap();
    dict.set_bytes("key 7", &entries["key 7"]).unwrap();
    let map = &dict.segment.map;
    map.put_word(at::BOOT, map.word(at::BOOT).unwrap() ^ 2).unwrap();
    entries
}

#[test]
fn wherever_a_rebuild_ends_no_reader_misses_a_key_and_the_next_writer_does_it_again() {
    let file = File::new("half rebuilt");
    let path = file.0.as_path();
    let entries = left(&file);
    let before = fs::read(path).unwrap();
    trace::start();
    drop(Dict::open(path).unwrap());
    let events = trace::stop();
    let after = fs::read(path).unwrap();
    let all = |dict: &Dict| assert!(read_all(dict).unwrap() == entries);
    let mut cut_off = 0;
    for moment in (0..events.len()).step_by(events.len() / 100 + 1).chain(events.len() - 8..events.len()) {
        let put = || {
            let mut bytes = before.clone();
            bytes.resize(after.len(), 0);
            for event in &events[..moment] {
                if let TraceEvent::Stored { offset, bytes: stored } = event {
                    bytes[*offset..*offset + stored.len()].copy_from_slice(stored);
                }
            }
            replace(path, &bytes);
        };
        put();
        // These handles stand for handles that were opened before the rebuild.
        let options = DictOptions::new();
        let writable = options.open_as_it_is(&Source::from(path)).unwrap();
        let reader = options.access(Access::ReadOnly).open_as_it_is(&Source::from(path)).unwrap();
        for dict in [&reader, &writable] {
            for (key, value) in &entries {
                assert_right_or_damaged(dict.get_bytes(key), &Some(value.clone()), moment);
            }
        }
        assert_right_or_damaged(read_all(&reader), &entries, moment);
        if crate::dict::store::redo_log::was_cut_off(&reader.segment.map).unwrap() {
            cut_off += 1;
            let error = Dict::options().access(Access::ReadOnly).open(path).err().unwrap();
            assert!(error.help().unwrap().contains("for writing"), "{error}");
            // Such a handle completes the rebuild when it locks.
            all(&writable);
            writable.set_bytes("key 7", &entries["key 7"]).unwrap();
            assert!(writable.check().unwrap().is_whole());
        }
        drop(writable);
        put();
        let opened = Dict::open(path).unwrap();
        all(&opened);
        all(&reader);
        assert!(opened.check().unwrap().is_whole(), "at {moment}");
        drop(opened);
        put();
        assert_eq!(Dict::repair(path).unwrap().entries, entries.len() as u64, "at {moment}");
        all(&Dict::open(path).unwrap());
    }
    assert!(cut_off > 30, "{cut_off}");
}

#[test]
fn a_participant_counts_once_it_has_checked_the_file() {
    let file = File::new("unchecked");
    let path = file.0.as_path();
    let entries = left(&file);
    let word = |at| {
        let bytes = fs::read(path).unwrap();
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    };
    let boot = word(at::BOOT);
    // The handle is attached, like a process that waits for the lock to rebuild or repair.
    let unchecked = DictOptions::new().open_as_it_is(&Source::from(path)).unwrap();
    unchecked.segment.participant("test").unwrap();
    let first = Dict::open(path).unwrap();
    assert!(word(at::DURABLE) & CLEAN != 0, "it was rebuilt");
    assert_ne!(word(at::BOOT), boot);
    first.set_bytes("key 7", &entries["key 7"]).unwrap();
    first.segment.map.put_word(at::BOOT, boot).unwrap();
    // This handle has checked the file, and so has each handle that is opened while a checked
    // participant lives.
    let second = Dict::open(path).unwrap();
    drop(first);
    let third = Dict::open(path).unwrap();
    assert_eq!((word(at::DURABLE) & CLEAN, word(at::BOOT)), (0, boot));
    drop((second, third));
    // The remaining handle has not checked it.
    let last = Dict::open(path).unwrap();
    assert!(word(at::DURABLE) & CLEAN != 0, "it was rebuilt");
    assert!(read_all(&last).unwrap() == entries);
}

/// A page of the table may go back to an older state after a failed sync. Then the next change
/// would write into blocks that are in use.
#[test]
fn a_table_that_ends_before_records_in_use_is_damage() {
    let file = File::new("short table");
    let dict = Dict::create_new(file.0.as_path(), 1 << 20).unwrap();
    for nth in 0..10 {
        dict.set_bytes(&format!("key {nth}"), &[1; 30]).unwrap();
    }
    assert!(dict.check().unwrap().is_whole());
    let map = &dict.segment.map;
    let state = |span| SpanState::of(map.word(dict.layout.entry(span) + SPAN_STATE).unwrap());
    let span = (0..20).find(|span| state(*span).live == 10).unwrap();
    let entry = dict.layout.entry(span);
    map.put_word(entry + BLOCKS_USED, 5).unwrap();
    map.put_word(entry + SPAN_STATE, SpanState { live: 5, ..state(span) }.word()).unwrap();
    let report = dict.check().unwrap();
    assert!(report.problems.iter().any(|problem| problem.what.contains("led to")), "{report:#?}");
}
