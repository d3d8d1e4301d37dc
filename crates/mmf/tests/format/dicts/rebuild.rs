//! A rebuild after a power cut that was interrupted itself. The library's unit tests make the file
//! (`src/dict/recovery/rebuild/golden.rs`).

use super::*;

const BUCKETS: usize = PAYLOAD + 16;
/// BOOT and REDO_LEN while a rebuild is under way.
const REBUILDING: u64 = u64::MAX;

#[test]
fn a_rebuild_that_was_cut_off_half_way_is_done_again_by_the_next_writer() {
    let dir = TempDir::new();
    let path = dir.join("dict-rebuild.mmf");
    let bytes = unpack(include_bytes!("../../golden/dict-rebuild.mmf"));
    assert_eq!((word(&bytes, BOOT), word(&bytes, REDO_LEN)), (REBUILDING, REBUILDING));
    assert_eq!(word(&bytes, BUCKETS) & ((1 << 40) - 1), 0, "the index is whole: nothing is tested");
    fs::write(&path, &bytes).unwrap();
    // A process that may only read finds that the rebuild must be done again first.
    let error = Dict::options().access(Access::ReadOnly).open(path.as_path()).err().expect("a rebuild was cut off");
    assert!(matches!(error.kind(), ErrorKind::Damaged { .. }), "{error}");
    assert!(error.help().is_some_and(|help| help.contains("for writing")), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
    let dict = Dict::open(path.as_path()).unwrap();
    assert_new(&dict);
    assert!(dict.check().unwrap().is_whole());
    dict.set("more", &1).unwrap();
    drop(dict);
    let reader = Dict::options().access(Access::ReadOnly).open(path.as_path()).unwrap();
    assert_eq!(reader.get("more").unwrap(), Some(1));
    drop(reader);
    // A repair keeps the same keys.
    fs::write(&path, &bytes).unwrap();
    assert_eq!(Dict::repair(path.as_path()).unwrap().entries, 101);
    assert_new(&Dict::open(path.as_path()).unwrap());
}
