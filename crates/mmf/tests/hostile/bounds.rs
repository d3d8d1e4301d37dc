//! Lengths that a peer forges: what a process maps, reserves and returns is bounded by the
//! segment's capacity as it was at the opening, by the object's length and by `max_capacity`.
//!
//! The peer here is a thread that writes to the object's file: it extends the object far beyond the
//! capacity and stores lengths, span numbers and a capacity that no writer would store. Each test
//! measures the address space of a process of its own.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use mmf::{Access, Dict, ErrorKind, Mapping, Region};
use testkit::TempDir;

use crate::support::stories::stories;

stories! {
    a_value_is_no_longer_than_its_block_however_long_the_object_is,
    a_value_in_spans_names_each_span_once_and_none_that_is_not_there,
    a_refused_read_maps_nothing_of_an_object_that_a_peer_extended,
    a_mapping_maps_no_more_than_a_read_asks_for,
    a_forged_capacity_reserves_nothing_and_an_opener_may_refuse_it,
    spans_that_are_not_there_are_not_in_use,
}

/// Where things are, as `docs/format.md` says.
const PAYLOAD: usize = 20480;
const CAPACITY: usize = 72;
const CHECKSUM: usize = 1016;
const LEN: usize = 2064;
const USED: usize = PAYLOAD + 72;

/// How long a peer makes the object: sparse, so it takes no disk.
const EXTENDED: u64 = 16 << 30;
/// What a bounded call may add to this process's address space, allocators included.
const LITTLE: u64 = 512 << 20;

fn peer(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn bytes_of(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut file = peer(path);
    file.seek(SeekFrom::Start(0)).unwrap();
    file.take(64 << 20).read_to_end(&mut bytes).unwrap();
    bytes
}

fn put(path: &Path, words: &[(usize, u64)]) {
    use std::io::Write;
    for (at, word) in words {
        let mut file = peer(path);
        file.seek(SeekFrom::Start(*at as u64)).unwrap();
        file.write_all(&word.to_le_bytes()).unwrap();
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The block of a key's record.
fn block_of(bytes: &[u8], key: &str) -> usize {
    bytes.windows(key.len()).rposition(|here| here == key.as_bytes()).expect("the key is there") - 40
}

/// Bytes of address space that this process has.
#[cfg(target_os = "linux")]
fn mapped() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
}

#[cfg(not(target_os = "linux"))]
fn mapped() -> u64 {
    0
}

/// Does something that must neither map nor reserve much, nor take long.
#[track_caller]
fn bounded<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (before, began) = (mapped(), Instant::now());
    let result = work();
    let (after, took) = (mapped(), began.elapsed());
    assert!(after.saturating_sub(before) < LITTLE, "{what} mapped {} bytes", after.saturating_sub(before));
    assert!(took < Duration::from_secs(20), "{what} took {took:?}");
    result
}

#[track_caller]
fn is_damaged<T>(what: &str, result: mmf::Result<T>) {
    let error = result.err().unwrap_or_else(|| panic!("{what}: it is damaged"));
    assert!(matches!(error.kind(), ErrorKind::Damaged { .. }), "{what}: {error}");
}

fn handles(path: &Path) -> Vec<Dict> {
    let open = |access| Dict::options().access(access).timeout(Some(Duration::from_millis(500))).open(path).unwrap();
    vec![open(Access::ReadOnly), open(Access::ReadWrite)]
}

/// Every way to read a key's value.
fn reads(dict: &Dict, key: &str) {
    is_damaged("get_bytes", bounded("get_bytes", || dict.get_bytes(key)));
    is_damaged("entries", bounded("entries", || dict.entries()));
    is_damaged("snapshot", bounded("snapshot", || dict.snapshot(|all| all.get_bytes(key))));
    if dict.set_bytes("another", b"value").is_ok() {
        is_damaged("transaction", bounded("transaction", || dict.transaction(|tx| tx.get_bytes(key))));
        is_damaged("increment", bounded("increment", || dict.increment(key, 1)));
    }
}

fn a_value_is_no_longer_than_its_block_however_long_the_object_is() {
    let dir = TempDir::new();
    for (nth, claimed) in [(2_u64 << 30), (1 << 40) - 1, (1 << 20), 100_000, 3000].into_iter().enumerate() {
        let path = dir.join(format!("long {nth}").as_str());
        let dict = Dict::create_new(path.as_path(), 1 << 20).unwrap();
        dict.set_bytes("the key", &[7; 200]).unwrap();
        // Bytes behind the record that are there, too.
        dict.set_bytes("behind", &vec![7; 400_000]).unwrap();
        drop(dict);
        let handles = handles(&path);
        let what = block_of(&bytes_of(&path), "the key") + 24;
        let now = word(&bytes_of(&path), what);
        peer(&path).set_len(EXTENDED).unwrap();
        put(&path, &[(what, (now & 0xff_ffff) | claimed << 24)]);
        handles.iter().for_each(|dict| reads(dict, "the key"));
    }
}

fn a_value_in_spans_names_each_span_once_and_none_that_is_not_there() {
    let dir = TempDir::new();
    // A sparse file, most of whose capacity was never used: 6 MiB of span numbers' worth would be 3
    // GiB of value.
    let path = dir.join("spans");
    let capacity = 4_u64 << 30;
    let dict = Dict::create_new(path.as_path(), capacity).unwrap();
    let span = 1_usize << 20;
    dict.set_bytes("the key", &vec![7; 3 * span]).unwrap();
    dict.set_bytes("small", &[1; 200]).unwrap();
    drop(dict);
    let whole = bytes_of(&path);
    let block = block_of(&whole, "the key");
    let (what, numbers) = (block + 24, (block + 40 + "the key".len()).next_multiple_of(4));
    let now = word(&whole, what);
    let length = |spans: u64| (now & 0xff_ffff) | (spans * span as u64) << 24;
    let named = |of: &dyn Fn(u64) -> u64, count: u64| -> Vec<(usize, u64)> {
        let pair = |nth: u64| (numbers + 8 * usize::try_from(nth).unwrap(), of(2 * nth) | of(2 * nth + 1) << 32);
        (0..count.div_ceil(2)).map(pair).chain([(what, length(count))]).collect()
    };
    let first = word(&whole, numbers) & 0xffff_ffff;
    let cases: [(&str, Vec<(usize, u64)>); 5] = [
        ("one span 3000 times", named(&|_| first, 3000)),
        ("two spans in turn", named(&|nth| first + nth % 2, 4)),
        ("spans that were never made", named(&|nth| 100 + nth, 3000)),
        ("more spans than there can be", vec![(what, length(100_000))]),
        ("spans that hold other records", named(&|nth| nth, 3)),
    ];
    for (case, words) in cases {
        let handles = handles(&path);
        put(&path, &words);
        for dict in &handles {
            is_damaged(case, bounded(case, || dict.get_bytes("the key")));
            is_damaged(case, bounded(case, || dict.entries()));
        }
        drop(handles);
        let undone: Vec<(usize, u64)> = words.iter().map(|(at, _)| (*at, word(&whole, *at))).collect();
        put(&path, &undone);
    }
    assert_eq!(Dict::open(path.as_path()).unwrap().get_bytes("the key").unwrap().unwrap(), vec![7; 3 * span]);
}

fn a_refused_read_maps_nothing_of_an_object_that_a_peer_extended() {
    let dir = TempDir::new();
    let path = dir.join("extended");
    let dict = Dict::create_new(path.as_path(), 1 << 20).unwrap();
    dict.set_bytes("the key", &[7; 200]).unwrap();
    let (reader, writer) = (Dict::options().access(Access::ReadOnly).open(path.as_path()).unwrap(), dict);
    let bytes = bytes_of(&path);
    let block = block_of(&bytes, "the key") as u64;
    let leads_there = |at: &usize| *at > PAYLOAD && (word(&bytes, *at) & ((1 << 40) - 1)) * 8 == block;
    let slot = (0..bytes.len() / 8).map(|nth| 8 * nth).rfind(leads_there).unwrap();
    peer(&path).set_len(EXTENDED).unwrap();
    put(&path, &[(slot, (word(&bytes, slot) & !((1 << 40) - 1)) | ((EXTENDED - 4096) / 8))]);
    for dict in [&reader, &writer] {
        is_damaged("get", bounded("get", || dict.get_bytes("the key")));
        is_damaged("entries", bounded("entries", || dict.entries()));
    }
    bounded("set", || writer.set_bytes("the key", b"new").map(drop).unwrap_err());
    let _ = bounded("check", || writer.check());
    let _ = bounded("stats", || writer.stats());

    let path = dir.join("region");
    let region = Region::create_new(path.as_path(), 1 << 20).unwrap();
    region.write().unwrap().set(b"contents").unwrap();
    let reader = Region::options().access(Access::ReadOnly).open(path.as_path()).unwrap();
    peer(&path).set_len(EXTENDED).unwrap();
    put(&path, &[(LEN, EXTENDED - PAYLOAD as u64)]);
    for region in [&reader, &region] {
        is_damaged("to_vec", bounded("to_vec", || region.to_vec()));
        let _ = bounded("sync", || region.sync());
    }
    put(&path, &[(LEN, 8)]);
    assert_eq!(bounded("to_vec", || reader.to_vec()).unwrap(), b"contents");
}

fn a_mapping_maps_no_more_than_a_read_asks_for() {
    let dir = TempDir::new();
    let path = dir.join("plain");
    let map = Mapping::create_new(path.as_path(), 4096).unwrap();
    peer(&path).set_len(EXTENDED).unwrap();
    bounded("a read in what was added", || map.read_to_vec(4096, 4096)).unwrap();
    bounded("a read farther on", || map.read_to_vec(1 << 20, 10)).unwrap();
    let error = bounded("a read past the end", || map.read_to_vec(usize::MAX / 2, 10)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::OutOfBounds { .. }), "{error}");
    let mut start = vec![1; 9000];
    let mut cursor = map.cursor();
    assert_eq!(bounded("a cursor", || cursor.read(&mut start)).unwrap(), 9000);
    assert_eq!(bounded("a cursor", || cursor.seek(SeekFrom::End(-5))).unwrap(), EXTENDED - 5);
    bounded("growing", || map.grow(2 << 20)).unwrap();
    assert!(map.len() >= 2 << 20);
    // All of it, where it is asked for.
    assert_eq!(map.refresh().unwrap() as u64, EXTENDED);
    assert_eq!(map.read_to_vec(usize::try_from(EXTENDED).unwrap() - 5, 5).unwrap(), [0; 5]);
}

/// Stores a capacity in a header, and the checksum that makes it whole.
fn forge_capacity(path: &Path, capacity: u64) {
    put(path, &[(CAPACITY, capacity)]);
    let bytes = bytes_of(path);
    let sum = bytes[..CHECKSUM]
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    put(path, &[(CHECKSUM, sum)]);
}

fn a_forged_capacity_reserves_nothing_and_an_opener_may_refuse_it() {
    let dir = TempDir::new();
    let path = dir.join("region");
    Region::create_new(path.as_path(), 1 << 20).unwrap().write().unwrap().set(b"contents").unwrap();
    let claimed = 1_u64 << 43;
    forge_capacity(&path, claimed);
    peer(&path).set_len(EXTENDED).unwrap();
    let options = Region::options().max_capacity(1 << 20);
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let opened = bounded("open", || options.clone().access(access).open(path.as_path()).map(drop));
        let error = opened.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Mismatch { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("1048576") && text.contains(&(claimed - PAYLOAD as u64).to_string()), "{text}");
    }
    // As large as the object is the view, and no larger.
    peer(&path).set_len(1 << 20).unwrap();
    let region = bounded("open", || Region::open(path.as_path())).unwrap();
    bounded("write", || region.write().unwrap().set(b"more")).unwrap();
    drop(region);

    let path = dir.join("dict");
    Dict::create_new(path.as_path(), 1 << 20).unwrap().set_bytes("key", b"value").unwrap();
    forge_capacity(&path, claimed);
    let error = bounded("open", || Dict::options().max_capacity(1 << 20).open(path.as_path()).map(drop)).unwrap_err();
    assert!(error.to_string().contains("1048576"), "{error}");
    let error = Dict::options().max_capacity(1 << 20).capacity(2 << 20).create_new(dir.join("new").as_path());
    assert!(matches!(error.map(drop).unwrap_err().kind(), ErrorKind::InvalidInput { .. }));
    let dict = Dict::options().max_capacity(1 << 20).capacity(1 << 20).create_new(dir.join("new").as_path()).unwrap();
    drop(dict);
    Dict::options().max_capacity(1 << 20).open(dir.join("new").as_path()).unwrap();
    if let Ok(dict) = bounded("open", || Dict::open(path.as_path())) {
        let _ = bounded("set", || dict.set_bytes("key", b"value"));
        let _ = bounded("get", || dict.get_bytes("key"));
        let _ = bounded("check", || dict.check());
    }
}

fn spans_that_are_not_there_are_not_in_use() {
    let dir = TempDir::new();
    let path = dir.join("used");
    let dict = Dict::create_new(path.as_path(), 4 << 30).unwrap();
    dict.set_bytes("key", b"value").unwrap();
    let before = std::fs::metadata(&path).unwrap().len();
    put(&path, &[(USED, 3000)]);
    is_damaged("set", dict.set_bytes("key", &vec![7; 5 << 20]));
    is_damaged("set", dict.set_bytes("another", &[7; 3000]));
    assert!(std::fs::metadata(&path).unwrap().len() <= before, "the object grew by what a peer stored");
}
