//! Damaged files of dicts: what `check` reports, and what `repair` restores.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mmf::{Access, Dict, ErrorKind, Name, Report};
use testkit::{TempDir, unique_name};

/// Where things are, as `docs/format.md` says.
const BUCKETS: usize = 20480 + 16;
const DURABLE: usize = 20480 + 256;
const BOOT: usize = 20480 + 304;
const REDO_LEN: usize = 20480 + 128;

type Model = BTreeMap<String, Vec<u8>>;

fn value(nth: usize) -> Vec<u8> {
    // Some lie in spans of their own.
    let len = if nth % 20 == 0 { 9000 + nth } else { nth % 300 };
    let mut value = format!("the value of {nth} is unlike any other;").into_bytes();
    value.extend((0..len).map(|at| u8::try_from((at * 7 + nth) % 251).unwrap()));
    value
}

fn fill(path: &Path) -> Model {
    let dict = Dict::create_new(path, 2 << 20).unwrap();
    let mut model = Model::new();
    for nth in 0..300 {
        dict.set_bytes(&format!("key {nth}"), &value(nth)).unwrap();
        model.insert(format!("key {nth}"), value(nth));
    }
    for nth in (0..300).step_by(7) {
        dict.remove(&format!("key {nth}")).unwrap();
        model.remove(&format!("key {nth}"));
    }
    model
}

fn read_all(dict: &Dict) -> Model {
    dict.entries().unwrap().map(|entry| (entry.key, entry.value)).collect()
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn find(bytes: &[u8], text: &str) -> Vec<usize> {
    bytes.windows(text.len()).enumerate().filter(|(_, here)| *here == text.as_bytes()).map(|(at, _)| at).collect()
}

fn check(path: &Path) -> Report {
    Dict::options().access(Access::ReadOnly).open(path).unwrap().check().unwrap()
}

fn names(report: &Report, key: &str) -> bool {
    report.problems.iter().any(|problem| problem.key.as_deref() == Some(key))
}

#[test]
fn nothing_is_wrong_with_what_was_never_damaged() {
    let dir = TempDir::new();
    let path = dir.join("whole");
    let model = fill(&path);
    let dict = Dict::open(path.as_path()).unwrap();
    for round in 0..4 {
        let report = dict.check().unwrap();
        assert!(report.is_whole(), "{round}: {report:#?}");
        match round {
            0 => dict.flush().unwrap(),
            1 => drop(dict.set_bytes("key 1", &value(1)).unwrap()),
            2 => drop(dict.remove("key 300").unwrap()),
            _ => {}
        }
        assert!(check(&path).is_whole());
    }
    drop(dict);
    let report = Dict::repair(path.as_path()).unwrap();
    assert!(report.is_whole() && report.entries == model.len() as u64, "{report:#?}");
    assert!(read_all(&Dict::open(path.as_path()).unwrap()) == model);
}

#[test]
fn a_damaged_value_is_named_and_all_others_are_kept() {
    let dir = TempDir::new();
    let path = dir.join("value");
    let mut model = fill(&path);
    let mut bytes = fs::read(&path).unwrap();
    // One beside its key, and one in spans.
    for nth in [5, 20] {
        let places = find(&bytes, &format!("the value of {nth} is unlike any other;"));
        assert_eq!(places.len(), 1);
        bytes[places[0] + 4] ^= 1;
    }
    fs::write(&path, &bytes).unwrap();
    let report = check(&path);
    assert!(names(&report, "key 5") && names(&report, "key 20"), "{report:#?}");
    let report = Dict::repair(path.as_path()).unwrap();
    assert!(names(&report, "key 5") && names(&report, "key 20"), "{report:#?}");
    model.remove("key 5");
    model.remove("key 20");
    assert!(report.undated.is_empty() && report.entries == model.len() as u64, "{report:#?}");
    let dict = Dict::open(path.as_path()).unwrap();
    assert!(read_all(&dict) == model);
    dict.set_bytes("key 5", b"again").unwrap();
    assert!(dict.check().unwrap().is_whole());
}

#[test]
fn a_damaged_value_is_never_served() {
    let dir = TempDir::new();
    for flushed in [false, true] {
        let path = dir.join(format!("served {flushed}"));
        let mut model = fill(&path);
        if flushed {
            Dict::open(path.as_path()).unwrap().flush().unwrap();
        }
        let mut bytes = fs::read(&path).unwrap();
        // In the value, in the value's length, in the kind, in the version; one value lies in spans.
        let key = |bytes: &[u8], nth: usize| find(bytes, &format!("key {nth}the value of"))[0];
        let damaged: [(usize, usize); 5] = [
            (5, key(&bytes, 5) + 20),
            (20, find(&bytes, "the value of 20 is unlike")[0] + 4000),
            (9, key(&bytes, 9) - 40 + 27),
            (8, key(&bytes, 8) - 40 + 26),
            (11, key(&bytes, 11) - 40 + 23),
        ];
        for (_, at) in damaged {
            bytes[at] ^= 1;
        }
        fs::write(&path, &bytes).unwrap();
        let is_damaged = |result: mmf::Result<()>| {
            let error = result.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Damaged { .. }), "{error}");
        };
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let dict = Dict::options().access(access).open(path.as_path()).unwrap();
            for (nth, _) in damaged {
                is_damaged(dict.get_bytes(&format!("key {nth}")).map(drop));
                is_damaged(dict.snapshot(|all| all.get_bytes(&format!("key {nth}")).map(drop)));
                if access == Access::ReadWrite {
                    is_damaged(dict.transaction(|tx| tx.get_bytes(&format!("key {nth}")).map(drop)));
                }
            }
            is_damaged(dict.entries().map(drop));
            for (key, value) in &model {
                if damaged.iter().all(|(nth, _)| *key != format!("key {nth}")) {
                    assert_eq!(dict.get_bytes(key).unwrap().as_ref(), Some(value), "{key}");
                }
            }
        }
        // What replaces it is whole.
        let dict = Dict::open(path.as_path()).unwrap();
        for (nth, _) in damaged {
            dict.set_bytes(&format!("key {nth}"), b"new").unwrap();
            model.insert(format!("key {nth}"), b"new".to_vec());
        }
        assert!(read_all(&dict) == model);
    }
}

#[test]
fn a_record_that_was_never_committed_is_damage_and_not_the_value_before() {
    let dir = TempDir::new();
    let path = dir.join("stamp");
    let dict = Dict::create_new(path.as_path(), 1 << 20).unwrap();
    dict.set_bytes("key", b"the old value").unwrap();
    dict.flush().unwrap();
    dict.set_bytes("key", b"the new value").unwrap();
    dict.set_bytes("alone", b"the first value").unwrap();
    drop(dict);
    let mut bytes = fs::read(&path).unwrap();
    for text in ["keythe new value", "alonethe first value"] {
        let block = find(&bytes, text)[0] - 40;
        bytes[block + 3] ^= 1;
    }
    fs::write(&path, &bytes).unwrap();
    let dict = Dict::options().access(Access::ReadOnly).open(path.as_path()).unwrap();
    for key in ["key", "alone"] {
        let error = dict.get_bytes(key).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Damaged { .. }), "{error}");
    }
}

#[test]
fn what_was_replaced_or_removed_does_not_come_back() {
    let dir = TempDir::new();
    let path = dir.join("removed");
    let dict = Dict::create_new(path.as_path(), 1 << 20).unwrap();
    for key in ["changed", "removed", "kept"] {
        dict.set_bytes(key, format!("the old value of {key}").as_bytes()).unwrap();
    }
    // From here on old values are kept until the next flush, and removals are records.
    dict.flush().unwrap();
    dict.set_bytes("changed", b"the new value of changed").unwrap();
    dict.remove("removed").unwrap();
    drop(dict);
    let mut bytes = fs::read(&path).unwrap();
    assert_eq!(find(&bytes, "the old value of").len(), 3);
    let new = find(&bytes, "the new value of changed")[0];
    bytes[new + 20] ^= 4;
    // The removal's record is the one whose value is empty.
    let removal =
        find(&bytes, "removed").into_iter().find(|at| bytes[at - 14] == 2 && word(&bytes, at - 16) >> 24 == 0);
    bytes[removal.expect("the removal is a record")] ^= 4;
    fs::write(&path, &bytes).unwrap();

    assert!(names(&check(&path), "changed"));
    let report = Dict::repair(path.as_path()).unwrap();
    assert!(names(&report, "changed") && names(&report, "removed"), "{report:#?}");
    let dict = Dict::open(path.as_path()).unwrap();
    assert_eq!(dict.keys().unwrap(), ["kept"]);
    assert!(dict.check().unwrap().is_whole());
}

#[test]
fn records_are_kept_though_all_that_leads_to_them_is_damaged() {
    let dir = TempDir::new();
    let path = dir.join("lost");
    let model = fill(&path);
    let whole = fs::read(&path).unwrap();
    let dict = Dict::open(path.as_path()).unwrap();
    let stats = dict.stats().unwrap();
    drop(dict);
    let spans = usize::try_from(stats.spans).unwrap();
    // Of 2 MiB: behind the redo log and the change log, of 32 KiB each, and a word for each of 512
    // spans, free or taken by these.
    let directory = 20480 + 4096 + 2 * 32768;
    let table = directory + 8 * 512;
    for (what, from, len) in [("index", directory, 8 * spans), ("table", table, 32 * spans), ("count", BUCKETS, 8)] {
        for fill in [0, 0xff, 0x5a] {
            let mut bytes = whole.clone();
            bytes[from..from + len].fill(fill);
            fs::write(&path, &bytes).unwrap();
            assert!(!check(&path).is_whole(), "{what} {fill}");
            let report = Dict::repair(path.as_path()).unwrap();
            assert!(!report.problems.is_empty() && report.entries == model.len() as u64, "{what} {fill}: {report:#?}");
            let dict = Dict::open(path.as_path()).unwrap();
            assert!(read_all(&dict) == model, "{what} {fill}");
            let report = dict.check().unwrap();
            assert!(report.is_whole(), "{what} {fill}: {report:#?}");
        }
    }
}

#[test]
fn whatever_is_damaged_the_rest_is_right() {
    let dir = TempDir::new();
    let path = dir.join("random");
    let model = fill(&path);
    let whole = fs::read(&path).unwrap();
    let mut number = 88_172_645_463_325_252_u64;
    let mut below = |end: usize| {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        usize::try_from((number >> 11) % end as u64).unwrap()
    };
    let mut kept = 0;
    for round in 0..60 {
        let mut bytes = whole.clone();
        for _ in 0..1 + below(20) {
            // The dict's words are few, and all else hangs on them.
            let from = 20480;
            let at = if below(2) == 0 { from + below(4096) } else { from + below(bytes.len() - from) };
            let len = if below(4) == 0 { below(600) } else { 8 }.min(bytes.len() - at);
            let fill = u8::try_from(below(256)).unwrap();
            bytes[at..at + len].iter_mut().for_each(|byte| *byte ^= fill);
        }
        fs::write(&path, &bytes).unwrap();
        // Some of it makes a read-only handle refuse, or changes nothing that is in use.
        if let Ok(dict) = Dict::options().access(Access::ReadOnly).timeout(None).open(path.as_path()) {
            if word(&bytes, REDO_LEN) == 0 {
                dict.check().unwrap();
            }
        }
        Dict::repair(path.as_path()).unwrap_or_else(|error| panic!("{round}: {error}"));
        let dict = Dict::open(path.as_path()).unwrap_or_else(|error| panic!("{round}: {error}"));
        let report = dict.check().unwrap();
        assert!(report.is_whole(), "{round}: {report:#?}");
        let now = read_all(&dict);
        for (key, value) in &now {
            assert!(model.get(key) == Some(value), "{round}: {key} has what it never had");
        }
        kept += now.len();
        dict.set_bytes("new", &[1; 5000]).unwrap();
        assert_eq!(dict.get_bytes("new").unwrap().unwrap(), [1; 5000]);
    }
    assert!(kept > 60 * model.len() * 9 / 10, "{kept} of {}", 60 * model.len());
}

#[test]
fn after_a_power_cut_a_read_only_handle_says_what_to_do() {
    let dir = TempDir::new();
    let path = dir.join("boot");
    let model = fill(&path);
    let mut bytes = fs::read(&path).unwrap();
    bytes[BOOT] ^= 1;
    assert_eq!(word(&bytes, DURABLE) & 1, 0);
    fs::write(&path, &bytes).unwrap();
    let read_only = || Dict::options().access(Access::ReadOnly).open(path.as_path());
    let error = read_only().err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::Damaged { .. }), "{error}");
    assert!(error.help().unwrap().contains("for writing"), "{error}");
    assert!(read_all(&Dict::open(path.as_path()).unwrap()) == model);
    assert!(read_all(&read_only().unwrap()) == model);
    // Nothing has changed since it was made anew, so another boot has nothing to do.
    let mut bytes = fs::read(&path).unwrap();
    bytes[BOOT] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(read_all(&read_only().unwrap()) == model);
    assert!(read_all(&Dict::open(path.as_path()).unwrap()) == model);
}

#[test]
fn nobody_repairs_what_others_write() {
    let dir = TempDir::new();
    let path = dir.join("busy");
    fill(&path);
    let dict = Dict::open(path.as_path()).unwrap();
    dict.set_bytes("a", b"b").unwrap();
    let error = Dict::repair(path.as_path()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Busy, "{error}");
    drop(dict);
    Dict::repair(path.as_path()).unwrap();
}

#[test]
fn the_figures_add_up() {
    let dict = Dict::create_new(Name::local(unique_name("figures")).unwrap(), 4 << 20).unwrap();
    let empty = dict.stats().unwrap();
    assert_eq!((empty.entries, empty.used, empty.participants, empty.fragmentation), (0, 0, 0, 0.0));
    for nth in 0..1000 {
        dict.set_bytes(&format!("key {nth}"), &[0; 64]).unwrap();
    }
    dict.set_bytes("large", &[0; 500_000]).unwrap();
    let full = dict.stats().unwrap();
    assert_eq!((full.entries, full.participants, full.version), (1001, 1, 1001));
    assert!(full.used > 564_000 && full.used < 700_000, "{full:#?}");
    assert!(full.free + full.used < full.capacity && full.free > 3_000_000, "{full:#?}");
    assert!(full.fragmentation < 0.05 && full.idle < 100_000, "{full:#?}");
    dict.remove("large").unwrap();
    for nth in (0..1000).filter(|nth| nth % 10 != 0) {
        dict.remove(&format!("key {nth}")).unwrap();
    }
    let sparse = dict.stats().unwrap();
    assert!(sparse.idle > full.idle + 60_000 && sparse.fragmentation > full.fragmentation, "{sparse:#?}");
    assert!(sparse.fragmentation < 0.1 && sparse.free > full.free + 490_000, "{sparse:#?}");
}
