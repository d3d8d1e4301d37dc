//! Replays of power cuts: records every store and every sync of a run, and builds files as a power
//! cut at any moment may leave them. Such a file has the synced bytes, and for each page or half
//! page any later state. In some runs the process dies first, and another one continues in the same
//! boot.
//!
//! `MMF_REPLAYS` sets the number of lives, `MMF_REPLAY` selects a single one.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed check is a failed test"
)]

mod disk;
mod failing_syncs;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use disk::Disk;

use crate::dict::Dict;
use crate::dict::format::layout::at;
use crate::dict::format::marks::RECOVERING;
use crate::error::{ErrorKind, Result};
use crate::mapping::trace::{self, TraceEvent};
use crate::segment::layout::{Header, at as header};

/// A generator of pseudo-random numbers, which are equal in every run.
struct Numbers(u64);

impl Numbers {
    fn of(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end.max(1)
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }
}

type Value = Option<Vec<u8>>;
type Contents = BTreeMap<String, Vec<u8>>;
/// The values that each key may have. Other keys are absent.
type AllowedValues = BTreeMap<String, BTreeSet<Value>>;

fn may_of(state: &Contents) -> AllowedValues {
    state.iter().map(|(key, value)| (key.clone(), BTreeSet::from([Some(value.clone())]))).collect()
}

fn add(may: &mut AllowedValues, key: &str, value: Value) {
    may.entry(key.to_owned()).or_insert_with(|| BTreeSet::from([None])).insert(value);
}

/// A change of keys, and the numbers of the events between which it was made.
struct RecordedChange {
    begun: usize,
    ended: usize,
    keys: Vec<(String, Value)>,
}

impl RecordedChange {
    fn apply(&self, state: &mut Contents) {
        for (key, value) in &self.keys {
            match value {
                Some(value) => drop(state.insert(key.clone(), value.clone())),
                None => drop(state.remove(key)),
            }
        }
    }
}

/// A run from one power cut to the next.
struct RunLog {
    /// The bytes of the disk at the start of the run.
    disk: Vec<u8>,
    /// The length of the file at the end.
    len: usize,
    events: Vec<TraceEvent>,
    /// The values that the dict may have before it is open.
    before: AllowedValues,
    /// The moments at which it was open, with its contents; one more after each death of a process.
    opened: Vec<(usize, Contents)>,
    changes: Vec<RecordedChange>,
    /// The moments at which flushes were complete, with the contents.
    flushes: Vec<(usize, Contents)>,
}

/// Creates a dict's file whose hash of each key, and so the place of each record and slot, is the
/// same in every run.
fn create(path: &Path, seed: u64) {
    drop(Dict::create_new(path, 1 << 20).unwrap());
    let mut bytes = fs::read(path).unwrap();
    let mut fixed = Header::decode(&bytes, bytes.len() as u64, true).unwrap();
    fixed.id[..8].copy_from_slice(&Numbers::of(seed).0.to_le_bytes());
    let fixed = fixed.encode();
    bytes[..fixed.len()].copy_from_slice(&fixed);
    fs::write(path, bytes).unwrap();
}

fn read_all(dict: &Dict) -> Contents {
    dict.entries().unwrap().map(|entry| (entry.key, entry.value)).collect()
}

fn assert_may(state: &Contents, may: &AllowedValues, seed: u64) {
    for (key, value) in state {
        let allowed = may.get(key).is_some_and(|may| may.contains(&Some(value.clone())));
        assert!(allowed, "{seed}: {key} has a value of {} bytes that it must not have", value.len());
    }
    for (key, may) in may {
        assert!(state.contains_key(key) || may.contains(&None), "{seed}: {key} is gone");
    }
}

fn value(numbers: &mut Numbers, count: &mut u64) -> Vec<u8> {
    *count += 1;
    let len = match numbers.below(20) {
        0 => numbers.below(60_000),
        1..5 => numbers.below(3000),
        _ => numbers.below(120),
    };
    let mut value = count.to_le_bytes().to_vec();
    value.extend((0..len).map(|nth| (nth as u64 ^ *count) as u8));
    value
}

/// Chooses one of `keys` numbers, and one of three lengths for each.
fn key(numbers: &mut Numbers, keys: usize) -> String {
    format!("key {}{}", numbers.below(keys), "x".repeat(numbers.below(3) * 30))
}

/// Sets or removes the one key of a change.
fn change_one(dict: &Dict, change: &[(String, Value)]) -> Result<()> {
    let (key, value) = &change[0];
    match value {
        Some(value) => dict.set_bytes(key, value).map(drop),
        None => dict.remove(key).map(drop),
    }
}

/// Sets and removes fewer than `most` of `keys` keys in a transaction, and adds them to `change`.
fn change_several(
    dict: &Dict,
    change: &mut Vec<(String, Value)>,
    (keys, most): (usize, usize),
    numbers: &mut Numbers,
    count: &mut u64,
) -> Result<()> {
    dict.transaction(|tx| {
        for _ in 0..numbers.below(keys.min(most)) {
            let (key, value) = (key(numbers, keys), (!numbers.one_in(3)).then(|| value(numbers, count)));
            match &value {
                Some(value) => tx.set_bytes(&key, value)?,
                None => drop(tx.remove(&key)?),
            }
            change.retain(|(there, _)| *there != key);
            change.push((key, value));
        }
        Ok(())
    })
}

/// Opens the file, compares the contents with the allowed values, and changes the dict.
fn live(
    path: &Path,
    before: AllowedValues,
    numbers: &mut Numbers,
    count: &mut u64,
    seed: u64,
    rounds: usize,
) -> RunLog {
    let disk = fs::read(path).unwrap();
    trace::start();
    let dict = Dict::open(path).unwrap_or_else(|error| panic!("{seed}: {error}"));
    let opened = trace::len();
    let mut state = read_all(&dict);
    assert_may(&state, &before, seed);
    assert_eq!(dict.len().unwrap(), state.len(), "{seed}");
    let report = dict.check().unwrap();
    assert!(report.is_whole() && report.entries == state.len() as u64, "{seed}: {report:#?}");
    let first = state.clone();
    // In some lives there are enough keys to make the index grow.
    let keys = [40, 400, 2000][seed as usize % 3];
    let (mut changes, mut flushes) = (Vec::new(), Vec::new());
    // The lengths of the values that fill the dict until none fits.
    let mut fillers: &[usize] = &[];
    for _ in 0..rounds {
        let begun = trace::len();
        let mut change = Vec::new();
        let choice = numbers.below(40);
        if choice == 39 && numbers.one_in(4) {
            fillers = &[30_000, 3000, 300, 20];
        }
        let done = match choice {
            _ if !fillers.is_empty() => {
                *count += 1;
                change.push((format!("filler {count}"), Some(vec![*count as u8; fillers[0]])));
                change_one(&dict, &change)
            }
            0 => dict.flush().map(|()| flushes.push((trace::len(), state.clone()))),
            1 if numbers.one_in(3) => {
                change.extend(state.keys().map(|key| (key.clone(), None)));
                dict.clear().map(drop)
            }
            1..5 => change_several(&dict, &mut change, (keys, 60), numbers, count),
            5..14 => {
                change.push((key(numbers, keys), None));
                change_one(&dict, &change)
            }
            _ => {
                change.push((key(numbers, keys), Some(value(numbers, count))));
                change_one(&dict, &change)
            }
        };
        match done {
            Ok(()) => {
                let change = RecordedChange { begun, ended: trace::len(), keys: change };
                change.apply(&mut state);
                changes.push(change);
            }
            Err(error) => {
                assert_eq!(*error.kind(), ErrorKind::Full, "{seed}: {error}");
                assert!(change.len() != 1 || change[0].1.is_some(), "{seed}: a removal needs room");
                fillers = fillers.get(1..).unwrap_or_default();
            }
        }
    }
    assert_eq!(read_all(&dict), state, "{seed}");
    let report = dict.check().unwrap();
    assert!(report.is_whole(), "{seed}: {report:#?}");
    let (events, len) = (trace::stop(), dict.segment.map.len());
    RunLog { disk, len, events, before, opened: vec![(opened, first)], changes, flushes }
}

impl RunLog {
    fn commit_state(&self, numbers: &mut Numbers) -> usize {
        // The stores to DURABLE.
        let is_said = |event: &TraceEvent| matches!(event, TraceEvent::Stored { offset: at::DURABLE, .. });
        let said: Vec<usize> = (0..self.events.len()).filter(|nth| is_said(&self.events[*nth])).collect();
        match numbers.below(5) {
            0 => numbers.below(self.opened[0].0 + 1),
            2 if !said.is_empty() => said[numbers.below(said.len())] + 1,
            // A moment during a flush, or shortly after it.
            1 if !self.flushes.is_empty() => {
                let done = self.flushes[numbers.below(self.flushes.len())].0;
                (done + 20).saturating_sub(numbers.below(100)).min(self.events.len())
            }
            _ => numbers.below(self.events.len() + 1),
        }
    }

    /// Returns the values that each key may have after a power cut at `moment`.
    fn may_have(&self, moment: usize) -> AllowedValues {
        let Some((opened, state)) = self.opened.first().filter(|(opened, _)| *opened <= moment) else {
            return self.before.clone();
        };
        let flushed = self.flushes.iter().rev().find(|(done, _)| *done <= moment);
        let (since, state) = flushed.map_or((*opened, state), |(done, state)| (*done, state));
        let mut may = may_of(state);
        for change in self.changes.iter().filter(|change| (since..=moment).contains(&change.begun)) {
            for (key, value) in &change.keys {
                add(&mut may, key, value.clone());
            }
        }
        may
    }

    /// Lets the process die at `moment`, and another one continue with memory as it was then.
    fn go_on(mut self, moment: usize, path: &Path, numbers: &mut Numbers, count: &mut u64, seed: u64) -> RunLog {
        self.events.truncate(moment);
        let mut disk = Disk::new(self.disk.clone());
        disk.extend(self.len);
        disk.apply(&self.events);
        let mut memory = disk.memory;
        kill(&mut memory, numbers);
        fs::write(path, &memory).unwrap();
        self.changes.retain(|change| change.begun <= moment);
        for change in self.changes.iter_mut().filter(|change| change.ended > moment) {
            // The next process completes the change when it takes the lock.
            change.ended = usize::MAX;
        }
        self.flushes.retain(|(done, _)| *done <= moment);
        self.opened.retain(|(opened, _)| *opened <= moment);
        let may = match self.opened.last() {
            None => self.before.clone(),
            Some((opened, state)) => {
                let mut state = state.clone();
                let since = self.changes.iter().filter(|change| change.begun >= *opened);
                let (ended, under_way): (Vec<_>, Vec<_>) = since.partition(|change| change.ended <= moment);
                ended.iter().for_each(|change| change.apply(&mut state));
                let mut may = may_of(&state);
                let keys = under_way.iter().flat_map(|change| &change.keys);
                keys.for_each(|(key, value)| add(&mut may, key, value.clone()));
                may
            }
        };
        let rounds = 20 + numbers.below(100);
        let mut next = live(path, may, numbers, count, seed, rounds);
        for change in &mut next.changes {
            change.begun += moment;
            change.ended += moment;
        }
        next.flushes.iter_mut().for_each(|(done, _)| *done += moment);
        self.opened.extend(next.opened.into_iter().map(|(opened, state)| (moment + opened, state)));
        self.len = self.len.max(next.len);
        self.events.append(&mut next.events);
        self.changes.append(&mut next.changes);
        self.flushes.append(&mut next.flushes);
        self
    }

    /// Returns a file as a power cut at `moment` may leave it.
    fn cut(&self, moment: usize, numbers: &mut Numbers) -> Vec<u8> {
        let mut disk = Disk::new(self.disk.clone());
        disk.extend(self.len);
        disk.apply(&self.events[..moment]);
        disk.cut(numbers)
    }
}

/// Simulates a restart of the machine: stores another boot.
fn start_again(disk: &mut [u8], numbers: &mut Numbers) {
    let boot = &mut disk[at::BOOT..at::BOOT + 8];
    // An interrupted rebuild has stored its mark in place of a boot.
    if *boot != [0; 8] && *boot != RECOVERING.to_le_bytes() {
        boot.copy_from_slice(&(1 + numbers.below(1000) as u64).to_le_bytes());
    }
    kill(disk, numbers);
}

/// Makes a dead participant the holder of the lock.
fn kill(disk: &mut [u8], numbers: &mut Numbers) {
    let slot = numbers.below(256);
    disk[header::LOCK..header::LOCK + 8].copy_from_slice(&(slot as u64 + 1).to_le_bytes());
    disk[header::OCCUPIED + slot / 8] |= 1 << (slot % 8);
}

fn lives(seed: u64) -> usize {
    let mut numbers = Numbers::of(seed);
    let path: PathBuf = std::env::temp_dir().join(format!("mmf replay {seed} {}", std::process::id()));
    create(&path, seed);
    let (mut may, mut count, mut cuts) = (AllowedValues::new(), 0, 0);
    for _ in 0..6 {
        let rounds = 20 + numbers.below(150);
        let mut life = live(&path, may, &mut numbers, &mut count, seed, rounds);
        while numbers.one_in(2) {
            let moment = life.commit_state(&mut numbers);
            life = life.go_on(moment, &path, &mut numbers, &mut count, seed);
        }
        let mut last = (Vec::new(), AllowedValues::new());
        for _ in 0..6 {
            let moment = life.commit_state(&mut numbers);
            let mut disk = life.cut(moment, &mut numbers);
            start_again(&mut disk, &mut numbers);
            let may = life.may_have(moment);
            fs::write(&path, &disk).unwrap();
            live(&path, may.clone(), &mut numbers, &mut count, seed, 3);
            last = (disk, may);
            cuts += 1;
        }
        fs::write(&path, &last.0).unwrap();
        may = last.1;
    }
    fs::remove_file(&path).unwrap();
    cuts
}

#[test]
fn after_a_power_cut_a_key_has_its_flushed_value_or_a_newer_one() {
    let number = |name| std::env::var(name).ok().map(|number| number.parse().unwrap());
    if let Some(seed) = number("MMF_REPLAY") {
        lives(seed);
        return;
    }
    let cuts: usize = (0..number("MMF_REPLAYS").unwrap_or(8)).map(lives).sum();
    println!("{cuts} power cuts");
}

#[test]
fn a_power_cut_in_a_flush_before_the_first_change_leaves_an_empty_dict() {
    let path: PathBuf = std::env::temp_dir().join(format!("mmf replay empty {}", std::process::id()));
    create(&path, 0);
    let disk = fs::read(&path).unwrap();
    trace::start();
    let dict = Dict::open(path.as_path()).unwrap();
    dict.flush().unwrap();
    let flushed = trace::len();
    dict.set_bytes("key", b"value").unwrap();
    drop(dict);
    let events = trace::stop();
    let value = Contents::from([("key".to_owned(), b"value".to_vec())]);
    for moment in 0..=events.len() {
        for seed in 0..4 {
            let mut numbers = Numbers::of(seed);
            let mut model = Disk::new(disk.clone());
            model.apply(&events[..moment]);
            let mut cut = model.cut(&mut numbers);
            start_again(&mut cut, &mut numbers);
            fs::write(&path, &cut).unwrap();
            let dict = Dict::open(path.as_path()).unwrap();
            let state = read_all(&dict);
            assert!(state.is_empty() || (moment > flushed && state == value), "{moment} {seed}");
            assert!(dict.check().unwrap().is_whole(), "{moment} {seed}");
        }
    }
    fs::remove_file(path).unwrap();
}
