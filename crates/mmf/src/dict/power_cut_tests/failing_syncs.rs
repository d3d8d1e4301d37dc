//! Disks that fail for a time: each sync may fail, and pages whose write failed may go back to the
//! disk's bytes.
//!
//! The tests check these properties, for any syncs that fail and any pages that go back:
//!
//! - A flush that succeeds confirms everything: the dict has each value that was set, and so has
//!   the file after a later power cut.
//! - After a flush that failed, a read returns a value that the key had since the last confirmed
//!   flush, or an error.
//! - A power cut leaves each key its last confirmed value or a newer one.
//!
//! `MMF_FAILURES` sets the number of lives, `MMF_FAILURE` selects a single one.

use std::cell::RefCell;
use std::io::{Seek, SeekFrom, Write};
use std::rc::Rc;

use super::*;
use crate::mapping::trace::RevertedPage;
use crate::segment::layout::PAYLOAD;

/// Counts of the flushes and repairs of all lives, by outcome.
#[derive(Debug, Default)]
struct Outcomes {
    /// Syncs that failed.
    failed: usize,
    /// Flushes that succeeded after one had failed.
    confirmed: usize,
    /// Flushes that found damage, and repairs after them.
    refused: usize,
    cuts: usize,
    deaths: usize,
    /// Reads while the mark stood, and those of them that gave an error.
    reads: usize,
    errors: usize,
}

/// The failures of a disk.
#[derive(Clone, Copy)]
struct Failure {
    /// One in this number of syncs fails, or none if it is 0.
    one_in: usize,
    /// One in this number of lost pages is read again, or none if it is 0.
    again: usize,
    /// The number of the only sync that fails, counted from 0.
    nth: Option<usize>,
}

fn write_at(mut file: &fs::File, offset: usize, bytes: &[u8]) {
    file.seek(SeekFrom::Start(offset as u64)).unwrap();
    file.write_all(bytes).unwrap();
}

/// Makes syncs of this thread fail, and pages of the file go back. Returns the counters of syncs
/// and of failures.
fn install(path: &Path, disk: Vec<u8>, failure: Failure, seed: u64) -> Rc<RefCell<(usize, usize)>> {
    let file = fs::File::options().write(true).open(path).unwrap();
    let counts = Rc::new(RefCell::new((0, 0)));
    let (mut numbers, mut model, told) = (Numbers::of(seed ^ 0x55), Disk::new(disk), Rc::clone(&counts));
    trace::set_disk(Some(Box::new(move |events| {
        model.apply(events);
        let mut counts = told.borrow_mut();
        let nth = counts.0;
        counts.0 += 1;
        let fails = failure.nth == Some(nth) || (failure.one_in != 0 && numbers.one_in(failure.one_in));
        if !fails {
            return None;
        }
        counts.1 += 1;
        // The header belongs to the segment.
        let lost: Vec<RevertedPage> = model.fail(PAYLOAD, failure.again, &mut numbers);
        for page in lost.iter().filter(|page| page.was_read_again) {
            write_at(&file, page.offset, &page.on_disk);
        }
        Some(lost)
    })));
    counts
}

/// All values that each key has had since the last confirmed flush.
fn assert_read(dict: &Dict, had: &AllowedValues, key: &str, seed: u64, outcomes: &mut Outcomes) {
    outcomes.reads += 1;
    match dict.get_bytes(key) {
        Ok(None) => {}
        Ok(value) => {
            let is_right = had.get(key).is_some_and(|had| had.contains(&value));
            assert!(is_right, "{seed}: {key} has a value that it never had");
        }
        Err(error) => {
            outcomes.errors += 1;
            assert!(matches!(error.kind(), ErrorKind::Damaged { .. }), "{seed}: {error}");
        }
    }
}

/// Runs a life with failing syncs. It ends early if a flush finds damage.
fn live_and_fail(
    path: &Path,
    before: AllowedValues,
    failure: Failure,
    (numbers, count, seed): (&mut Numbers, &mut u64, u64),
    outcomes: &mut Outcomes,
) -> RunLog {
    let disk = fs::read(path).unwrap();
    trace::start();
    let counts = install(path, disk.clone(), failure, seed ^ *count);
    // The recovery is tried until its syncs succeed.
    let mut tries = 0;
    let dict = loop {
        match Dict::open(path) {
            Ok(dict) => break dict,
            Err(error) => assert_eq!(*error.kind(), ErrorKind::Other, "{seed}: {error}"),
        }
        tries += 1;
        if tries > 20 {
            trace::set_disk(None);
        }
    };
    let opened = trace::len();
    let mut state = read_all(&dict);
    assert_may(&state, &before, seed);
    let first = state.clone();
    let mut had = may_of(&state);
    let keys = [20, 200][seed as usize % 2];
    let (mut changes, mut flushes) = (Vec::new(), Vec::new());
    let mut in_doubt = false;
    for _ in 0..20 + numbers.below(100) {
        let begun = trace::len();
        let failures = counts.borrow().1;
        let mut change = Vec::new();
        let mut flushed = false;
        let done = match numbers.below(20) {
            0..3 => {
                flushed = true;
                dict.flush()
            }
            3 if numbers.one_in(4) => {
                change.extend(state.keys().map(|key| (key.clone(), None)));
                dict.clear().map(drop)
            }
            4..6 => change_several(&dict, &mut change, (keys, 40), numbers, count),
            6..9 => {
                change.push((key(numbers, keys), None));
                change_one(&dict, &change)
            }
            _ => {
                change.push((key(numbers, keys), Some(value(numbers, count))));
                change_one(&dict, &change)
            }
        };
        in_doubt |= counts.borrow().1 > failures;
        // A change that failed may have been committed.
        for (key, value) in &change {
            add(&mut had, key, value.clone());
        }
        match done {
            Ok(()) => {
                let change = RecordedChange { begun, ended: trace::len(), keys: change };
                change.apply(&mut state);
                changes.push(change);
                if flushed {
                    outcomes.confirmed += usize::from(in_doubt);
                    in_doubt = false;
                    assert!(read_all(&dict) == state, "{seed}: a flush has confirmed what is not there");
                    flushes.push((trace::len(), state.clone()));
                    had = may_of(&state);
                }
            }
            Err(error) if *error.kind() == ErrorKind::Full => {}
            Err(error) => {
                assert!(in_doubt, "{seed}: {error}");
                changes.push(RecordedChange { begun, ended: usize::MAX, keys: change });
                if matches!(error.kind(), ErrorKind::Damaged { .. }) {
                    outcomes.refused += 1;
                    if numbers.one_in(2) {
                        break;
                    }
                }
            }
        }
        for _ in 0..5 {
            if in_doubt {
                assert_read(&dict, &had, &key(numbers, keys), seed, outcomes);
            } else {
                let key = key(numbers, keys);
                assert!(dict.get_bytes(&key).unwrap() == state.get(&key).cloned(), "{seed}: {key}");
            }
        }
    }
    trace::set_disk(None);
    outcomes.failed += counts.borrow().1;
    let (events, len) = (trace::stop(), dict.segment.map.len());
    drop(dict);
    // This repair is not part of the recorded run, so the file is restored after it.
    if in_doubt {
        let memory = fs::read(path).unwrap();
        let report = Dict::repair(path).unwrap_or_else(|error| panic!("{seed}: {error}"));
        let dict = Dict::open(path).unwrap();
        for (key, value) in read_all(&dict) {
            // The report names a key for which no record shows any more that it was removed.
            if !report.undated.contains(&key) {
                assert!(
                    had.get(&key).is_some_and(|had| had.contains(&Some(value))),
                    "{seed}: {key} after a repair: {report:#?}"
                );
            }
        }
        assert!(dict.check().unwrap().is_whole(), "{seed}");
        dict.flush().unwrap();
        drop(dict);
        fs::write(path, memory).unwrap();
    }
    RunLog { disk, len, events, before, opened: vec![(opened, first)], changes, flushes }
}

fn failing_lives(seed: u64, outcomes: &mut Outcomes) {
    let mut numbers = Numbers::of(seed ^ 0xdead);
    let path: PathBuf = std::env::temp_dir().join(format!("mmf failing {seed} {}", std::process::id()));
    create(&path, seed);
    let (mut may, mut count) = (AllowedValues::new(), 0);
    for _ in 0..5 {
        let failure =
            Failure { one_in: [2, 4, 10][numbers.below(3)], again: [0, 0, 1, 2, 4, 10][numbers.below(6)], nth: None };
        let mut life = live_and_fail(&path, may, failure, (&mut numbers, &mut count, seed), outcomes);
        // The process dies, also in a sync or right after it has failed. Another one continues with
        // the bytes in memory.
        while failure.again == 0 && numbers.one_in(2) {
            let moment = life.commit_state(&mut numbers);
            life = life.go_on(moment, &path, &mut numbers, &mut count, seed);
            outcomes.deaths += 1;
        }
        let mut last = (Vec::new(), AllowedValues::new());
        for _ in 0..5 {
            let moment = life.commit_state(&mut numbers);
            let mut disk = life.cut(moment, &mut numbers);
            start_again(&mut disk, &mut numbers);
            let may = life.may_have(moment);
            fs::write(&path, &disk).unwrap();
            live(&path, may.clone(), &mut numbers, &mut count, seed, 3);
            last = (disk, may);
            outcomes.cuts += 1;
        }
        fs::write(&path, &last.0).unwrap();
        may = last.1;
    }
    fs::remove_file(&path).unwrap();
}

#[test]
fn what_a_flush_confirms_after_failed_syncs_is_there() {
    let number = |name| std::env::var(name).ok().map(|number| number.parse().unwrap());
    let mut outcomes = Outcomes::default();
    if let Some(seed) = number("MMF_FAILURE") {
        failing_lives(seed, &mut outcomes);
    } else {
        (0..number("MMF_FAILURES").unwrap_or(6)).for_each(|seed| failing_lives(seed, &mut outcomes));
    }
    println!("{outcomes:?}");
}

/// A file with its path. Dropping it removes the file.
struct TempFile(PathBuf);

impl TempFile {
    fn new(what: &str) -> TempFile {
        let path = std::env::temp_dir().join(format!("mmf failing {what} {}", std::process::id()));
        drop(Dict::create_new(path.as_path(), 1 << 20).unwrap());
        TempFile(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        trace::set_disk(None);
        let _ = fs::remove_file(&self.0);
    }
}

/// Repeats an operation that a failing disk ends, until it succeeds. Returns `None` if it finds
/// damage; the error then names the repair.
#[track_caller]
fn insist<T>(mut attempt: impl FnMut() -> Result<T>) -> Option<T> {
    for _ in 0..3 {
        match attempt() {
            Ok(done) => return Some(done),
            Err(error) if matches!(error.kind(), ErrorKind::Damaged { .. }) => {
                assert!(error.to_string().contains("repair"), "{error}");
                return None;
            }
            Err(error) => assert_eq!(*error.kind(), ErrorKind::Other, "{error}"),
        }
    }
    panic!("it fails although no sync does");
}

/// Asserts that a power cut now, in several ways, leaves this state.
fn assert_cuts(disk: &[u8], events: &[TraceEvent], path: &Path, expected: &Contents, seed: u64) {
    let mut numbers = Numbers::of(seed ^ 0xcafe);
    for _ in 0..4 {
        let mut model = Disk::new(disk.to_vec());
        model.apply(events);
        let mut cut = model.cut(&mut numbers);
        start_again(&mut cut, &mut numbers);
        fs::write(path, &cut).unwrap();
        let dict = Dict::open(path).unwrap();
        assert!(read_all(&dict) == *expected, "{seed}");
        assert!(dict.check().unwrap().is_whole(), "{seed}");
    }
}

/// Makes every sync of changes and flushes fail in turn, and returns their number.
fn flushes_that_fail(nth: Option<usize>, again: usize) -> usize {
    let file = TempFile::new(&format!("flushes {nth:?} {again}"));
    let path = file.0.as_path();
    let disk = fs::read(path).unwrap();
    trace::start();
    let counts = install(path, disk.clone(), Failure { one_in: 0, again, nth }, 7);
    let dict = Dict::open(path).unwrap();
    let mut state = Contents::new();
    for round in 0..3_u8 {
        for key in 0..30_u8 {
            let (key, value) = (format!("key {key}"), vec![round ^ key; 10 * usize::from(key)]);
            if insist(|| dict.set_bytes(&key, &value)).is_none() {
                assert_eq!(again, 1);
                return counts.borrow().0;
            }
            state.insert(key, value);
        }
        if insist(|| dict.remove("key 3")).is_none() {
            return counts.borrow().0;
        }
        state.remove("key 3");
        let failed = counts.borrow().1;
        if insist(|| dict.flush()).is_none() {
            assert_eq!((again, failed <= counts.borrow().1), (1, true));
            return counts.borrow().0;
        }
        assert!(read_all(&dict) == state, "{nth:?} {again}");
        assert!(!crate::dict::store::sync_mark::stands(&dict.segment.map).unwrap(), "{nth:?}");
    }
    assert_eq!(counts.borrow().1, usize::from(nth.is_some()));
    drop(dict);
    trace::set_disk(None);
    assert_cuts(&disk, &trace::stop(), path, &state, nth.unwrap_or(0) as u64);
    counts.borrow().0
}

#[test]
fn whichever_sync_of_a_flush_fails_the_next_flush_confirms_all_or_finds_damage() {
    let syncs = flushes_that_fail(None, 0);
    // One sync for the boot and the index; then three for each flush, and one before the first
    // change after it.
    assert_eq!(syncs, 1 + 3 * 3 + 2);
    for nth in 0..syncs {
        for again in [0, 1] {
            flushes_that_fail(Some(nth), again);
        }
    }
}

/// Makes each sync of a recovery or a repair fail in turn.
fn rebuilds_that_fail(is_repair: bool, nth: Option<usize>, again: usize) -> usize {
    let file = TempFile::new(&format!("rebuilds {is_repair} {nth:?} {again}"));
    let path = file.0.as_path();
    let dict = Dict::open(path).unwrap();
    let mut state = Contents::new();
    for key in 0..60_u8 {
        dict.set_bytes(&format!("key {key}"), &vec![key; 300]).unwrap();
        state.insert(format!("key {key}"), vec![key; 300]);
        if key == 30 {
            dict.flush().unwrap();
        }
    }
    dict.remove("key 7").unwrap();
    state.remove("key 7");
    let map = &dict.segment.map;
    if is_repair {
        map.put_word(at::LEN, 7).unwrap();
    } else {
        map.put_word(at::BOOT, 7).unwrap();
    }
    drop(dict);
    let disk = fs::read(path).unwrap();
    trace::start();
    let counts = install(path, disk.clone(), Failure { one_in: 0, again, nth }, 9);
    if is_repair {
        insist(|| Dict::repair(path)).unwrap();
    }
    let dict = insist(|| Dict::open(path)).unwrap();
    assert!(read_all(&dict) == state, "{nth:?} {again}");
    let report = dict.check().unwrap();
    assert!(report.is_whole(), "{nth:?} {again}: {report:#?}");
    insist(|| dict.flush()).unwrap();
    assert_eq!(counts.borrow().1, usize::from(nth.is_some()), "{nth:?}");
    drop(dict);
    trace::set_disk(None);
    assert_cuts(&disk, &trace::stop(), path, &state, nth.unwrap_or(0) as u64);
    counts.borrow().0
}

#[test]
fn whichever_sync_of_a_recovery_or_a_repair_fails_it_is_done_again() {
    for (is_repair, expected) in [(false, 4), (true, 4)] {
        assert_eq!(rebuilds_that_fail(is_repair, None, 0), expected);
        for nth in 0..expected {
            for again in [0, 1] {
                rebuilds_that_fail(is_repair, Some(nth), again);
            }
        }
    }
}

#[test]
fn words_that_go_back_with_a_failed_sync_are_stored_again() {
    let temp = TempFile::new("words");
    let path = temp.0.as_path();
    let dict = Dict::open(path).unwrap();
    for nth in 0..100_u8 {
        dict.set_bytes(&format!("key {nth}"), &[nth; 30]).unwrap();
    }
    let map = &dict.segment.map;
    // The words are from the middle of a change. Its redo log would be replayed with the pairs of
    // another change.
    let mut past = map.read_to_vec(PAYLOAD, disk::PAGE).unwrap();
    past[..8].copy_from_slice(&50_u64.to_le_bytes());
    past[at::REDO_LEN - PAYLOAD..][..8].copy_from_slice(&5_u64.to_le_bytes());
    let file = fs::File::options().write(true).open(path).unwrap();
    let mut fails = true;
    trace::set_disk(Some(Box::new(move |_| {
        std::mem::replace(&mut fails, false).then(|| {
            write_at(&file, PAYLOAD, &past);
            vec![RevertedPage { offset: PAYLOAD, on_disk: past.clone(), was_read_again: true }]
        })
    })));
    dict.flush().unwrap_err();
    assert_eq!([at::COMMIT, at::REDO_LEN, at::SUSPECT].map(|at| map.word(at).unwrap()), [100, 0, 1]);
    dict.flush().unwrap();
    assert_eq!([at::COMMIT, at::REDO_LEN, at::SUSPECT].map(|at| map.word(at).unwrap()), [100, 0, 0]);
    assert_eq!(read_all(&dict).len(), 100);
}
