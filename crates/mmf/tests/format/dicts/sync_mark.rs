//! The mark of a failed sync, in golden files.

use super::*;

const SUSPECT: usize = PAYLOAD + 24;

#[test]
fn a_failed_sync_is_told_by_a_mark_that_each_flush_obeys() {
    let dir = TempDir::new();
    let (path, mut bytes) =
        golden(&dir, "dict-sync-mark.mmf", include_bytes!("../../golden/dict-sync-mark.mmf"), |path| {
            let (_, mut bytes) = two_states(path);
            put_word(&mut bytes, DURABLE, 2 | 8);
            put_word(&mut bytes, SUSPECT, 1);
            // On no machine.
            bytes[1024..1056].fill(0);
            put_word(&mut bytes, BOOT, 1);
            bytes
        });
    // A build that does not know the mark leaves the file alone, or only reads it.
    assert_eq!(word(&bytes, 24), 2);
    put_word(&mut bytes, BOOT, this_boot(&dir));
    for is_damaged in [false, true] {
        if is_damaged {
            let value = bytes.windows(3).rposition(|three| three == b"one").unwrap();
            bytes[value] ^= 1;
        }
        fs::write(&path, &bytes).unwrap();
        let reader = Dict::options().access(Access::ReadOnly).open(path.as_path()).unwrap();
        let dict = Dict::open(path.as_path()).unwrap();
        if !is_damaged {
            assert_new(&reader);
            dict.flush().unwrap();
            let now = fs::read(&path).unwrap();
            assert_eq!((word(&now, DURABLE), word(&now, SUSPECT)), (3, 0));
            assert_new(&reader);
            continue;
        }
        // Two flushes, since the first may not be what makes the second fail.
        for _ in 0..2 {
            let error = dict.flush().unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Damaged { .. }), "{error}");
            assert!(error.help().is_some_and(|help| help.contains("repair")), "{error}");
        }
        let error = reader.get_bytes("key 1").unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Damaged { .. }), "{error}");
        dict.set("key 98", "changed").unwrap();
        drop(dict);
        let report = Dict::repair(path.as_path()).unwrap();
        assert!(report.problems.iter().any(|problem| problem.key.as_deref() == Some("key 1")), "{report:#?}");
        let dict = Dict::open(path.as_path()).unwrap();
        dict.flush().unwrap();
        assert_eq!(dict.get::<String>("key 98").unwrap().as_deref(), Some("changed"));
        let now = fs::read(&path).unwrap();
        assert_eq!((word(&now, DURABLE), word(&now, SUSPECT)), (3, 0));
    }
}

#[test]
fn readers_of_every_process_verify_values_while_the_mark_stands() {
    let dir = TempDir::new();
    let path = dir.join("verified");
    let dict = Dict::create_new(path.as_path(), 1 << 20).unwrap();
    let reader = Dict::options().access(Access::ReadOnly).open(path.as_path()).unwrap();
    // Newer than both handles, so that neither verifies it without the mark.
    dict.set_bytes("key", b"a value of its own").unwrap();
    let bytes = fs::read(&path).unwrap();
    let value = bytes.windows(18).position(|text| text == b"a value of its own").unwrap();
    let file = mmf::Mapping::open(path.as_path()).unwrap();
    file.write_at(value, b"A").unwrap();
    for (mark, is_verified) in [(0_u64, false), (1, true), (0, false)] {
        file.store(SUSPECT, mark, std::sync::atomic::Ordering::SeqCst).unwrap();
        for dict in [&dict, &reader] {
            assert_eq!(dict.get_bytes("key").is_err(), is_verified);
            assert_eq!(dict.entries().is_err(), is_verified);
            assert_eq!(dict.snapshot(|all| all.get_bytes("key")).is_err(), is_verified);
        }
    }
}

#[test]
fn a_process_that_died_in_a_sync_leaves_the_mark_to_the_next_writer() {
    let dir = TempDir::new();
    let path = dir.join("cut off");
    let dict = Dict::create_new(path.as_path(), 1 << 20).unwrap();
    dict.set("a", &1).unwrap();
    let file = mmf::Mapping::open(path.as_path()).unwrap();
    let ordering = std::sync::atomic::Ordering::SeqCst;
    let words = || [DURABLE, SUSPECT].map(|at| file.load::<u64>(at, ordering).unwrap());
    // As the process had set it before the sync.
    file.store(DURABLE, 8_u64, ordering).unwrap();
    dict.set("b", &2).unwrap();
    assert_eq!(words(), [8, 1]);
    dict.flush().unwrap();
    assert_eq!(words(), [3, 0]);
    // An earlier build's flush clears the one part alone. Nothing is freed then, since the disk has
    // what it says.
    file.store(SUSPECT, 1_u64, ordering).unwrap();
    dict.flush().unwrap();
    assert_eq!(words(), [3, 0]);
    dict.set("c", &3).unwrap();
    assert_eq!(words(), [2, 0]);
}
