//! Forged bytes in a dict: every call ends in bounded time, with an error that names the damage.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mmf::{Access, Change, Dict, ErrorKind, Mapping, Watched};
use testkit::{Peer, TempDir, Watchdog, peer};

testkit::peers! { restorer }

/// Where things are, as `docs/format.md` says.
const PAYLOAD: usize = 20480;
const COMMIT: usize = PAYLOAD;
const BUCKETS: usize = PAYLOAD + 16;
const REDO_LEN: usize = PAYLOAD + 128;
const PENDING: usize = PAYLOAD + 272;
const REDO_LOG: usize = PAYLOAD + 4096;

/// Ten times as long as any of it takes on a machine that has little else to do.
const SOON: Duration = Duration::from_secs(40);

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn put_word(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Places that follow from a capacity, as `docs/format.md` says.
struct Shape {
    span: usize,
    directory: usize,
    heap: usize,
}

impl Shape {
    fn of(capacity: usize) -> Shape {
        let span = (capacity / 512).next_power_of_two().clamp(4096, 1 << 20);
        let side = (capacity / 64).clamp(16 << 10, 1 << 20) & !4095;
        let directory = REDO_LOG + 2 * side;
        let table = (directory + 8 * (capacity / span)).next_multiple_of(32);
        let heap = (table + 32 * (capacity / span)).next_multiple_of(4096);
        Shape { span, directory, heap }
    }

    /// Where the lines of all buckets begin, those that continue one included.
    fn lines(&self, bytes: &[u8]) -> Vec<usize> {
        let count = usize::try_from(word(bytes, BUCKETS) & ((1 << 40) - 1)).unwrap();
        let line = |nth: usize| {
            let span = usize::try_from(word(bytes, self.directory + 8 * (nth / (self.span / 64)))).unwrap() - 1;
            self.heap + span * self.span + nth % (self.span / 64) * 64
        };
        let next = |line: &usize| Some(usize::try_from(word(bytes, line + 56)).unwrap()).filter(|next| *next != 0);
        (0..count).flat_map(|nth| std::iter::successors(Some(line(nth)), next)).collect()
    }

    /// The slot of the record at a block.
    fn slot_of(&self, bytes: &[u8], block: usize) -> usize {
        let mut slots = self.lines(bytes).into_iter().flat_map(|line| (0..7).map(move |nth| line + 8 * nth));
        slots.find(|slot| (word(bytes, *slot) & ((1 << 40) - 1)) * 8 == block as u64).expect("a slot leads there")
    }
}

/// The block of a key's record.
fn block_of(bytes: &[u8], key: &str) -> usize {
    let at = bytes.windows(key.len()).rposition(|here| here == key.as_bytes());
    at.expect("the key is there") - 40
}

fn soon<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = work();
    assert!(began.elapsed() < SOON, "{what} took {:?}", began.elapsed());
    result
}

#[track_caller]
fn is_damaged<T>(result: mmf::Result<T>) {
    let error = result.err().expect("it is damaged");
    assert!(matches!(error.kind(), ErrorKind::Damaged { .. }), "{error}");
}

/// All that there is to be done with a dict ends soon.
fn use_it(path: &Path) {
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let options = Dict::options().access(access).timeout(Some(Duration::from_millis(100)));
        let Ok(dict) = options.open(path) else { continue };
        let _ = soon("entries", || dict.entries());
        let _ = soon("keys", || dict.keys());
        let report = soon("check", || dict.check());
        assert!(report.is_err() || !report.unwrap().is_whole());
    }
    let report = soon("repair", || Dict::repair(path)).unwrap();
    assert!(!report.is_whole());
    assert!(Dict::open(path).unwrap().check().unwrap().is_whole());
}

#[test]
fn one_large_value_in_every_slot_is_looked_at_once() {
    let capacity = 64 << 20;
    let dir = TempDir::new();
    let path = dir.join("slots");
    let dict = Dict::create_new(path.as_path(), capacity as u64).unwrap();
    for nth in 0..20_000 {
        dict.set_bytes(&format!("key {nth}"), &[1; 8]).unwrap();
    }
    dict.set_bytes("the large one", &vec![7; capacity / 4]).unwrap();
    drop(dict);
    let mut bytes = fs::read(&path).unwrap();
    let shape = Shape::of(capacity);
    let slot = word(&bytes, shape.slot_of(&bytes, block_of(&bytes, "the large one")));
    for line in shape.lines(&bytes) {
        (0..7).for_each(|nth| put_word(&mut bytes, line + 8 * nth, slot));
    }
    fs::write(&path, &bytes).unwrap();
    use_it(&path);
}

#[test]
fn a_list_that_has_no_end_is_gone_through_once() {
    let capacity = 64 << 20;
    let dir = TempDir::new();
    let path = dir.join("lists");
    let dict = Dict::create_new(path.as_path(), capacity as u64).unwrap();
    // The largest that does not lie in spans of its own.
    let value = vec![7; Shape::of(capacity).span / 2 - 100];
    dict.set_bytes("key", &value).unwrap();
    dict.flush().unwrap();
    dict.set_bytes("key", &value).unwrap();
    drop(dict);
    let mut bytes = fs::read(&path).unwrap();
    let pending = usize::try_from(word(&bytes, PENDING)).unwrap();
    put_word(&mut bytes, pending + 8, pending as u64);
    fs::write(&path, &bytes).unwrap();
    use_it(&path);
}

#[test]
fn what_leads_nowhere_is_damage() {
    let capacity = 1 << 20;
    let dir = TempDir::new();
    let path = dir.join("nowhere");
    let dict = Dict::create_new(path.as_path(), capacity as u64).unwrap();
    for key in ["first", "second"] {
        dict.set_bytes(key, &[1; 100]).unwrap();
    }
    drop(dict);
    let whole = fs::read(&path).unwrap();
    let block = block_of(&whole, "first");
    let slot = Shape::of(capacity).slot_of(&whole, block);
    let open = |access, places: &[(usize, u64)]| {
        let mut bytes = whole.clone();
        places.iter().for_each(|(at, value)| put_word(&mut bytes, *at, *value));
        fs::write(&path, &bytes).unwrap();
        Dict::options().access(access).timeout(Some(Duration::from_millis(100))).open(path.as_path()).unwrap()
    };
    let tag = word(&whole, slot) & !((1 << 40) - 1);
    for place in [(capacity as u64 + 8) / 8, (1 << 40) - 1] {
        let places = [(slot, tag | place)];
        is_damaged(open(Access::ReadOnly, &places).get_bytes("first"));
        is_damaged(open(Access::ReadOnly, &places).entries());
        is_damaged(open(Access::ReadWrite, &places).set_bytes("first", b"new"));
        is_damaged(open(Access::ReadWrite, &places).remove("first"));
    }
    // The record is not there yet, and the one before it is nowhere.
    for before in [capacity as u64 * 2, 20_001, u64::MAX] {
        let places = [(block, 1000), (block + 8, before)];
        is_damaged(open(Access::ReadOnly, &places).get_bytes("first"));
        is_damaged(open(Access::ReadOnly, &places).entries());
    }
    // A redo log leads behind the end: none of it is carried out.
    for end in [whole.len() as u64, !7] {
        let places =
            [(REDO_LEN, 2), (REDO_LOG, COMMIT as u64), (REDO_LOG + 8, 77), (REDO_LOG + 16, end), (REDO_LOG + 24, 1)];
        is_damaged(open(Access::ReadWrite, &places).set_bytes("first", b"new"));
        assert_eq!(word(&fs::read(&path).unwrap(), COMMIT), 2);
    }
}

#[test]
fn buckets_that_all_go_on_in_the_same_lines_keep_nobody_who_writes() {
    let capacity = 32 << 20;
    let dir = TempDir::new();
    let path = dir.join("shared");
    let dict = Dict::create_new(path.as_path(), capacity as u64).unwrap();
    dict.set_bytes("key", &[1; 8]).unwrap();
    drop(dict);
    let whole = fs::read(&path).unwrap();
    let shape = Shape::of(capacity);
    let slot = word(&whole, shape.slot_of(&whole, block_of(&whole, "key")));
    let (spans, lines) = (capacity / shape.span, shape.span / 64);
    let table = (shape.directory + 8 * spans).next_multiple_of(32);
    let index = usize::try_from(word(&whole, shape.directory)).unwrap() - 1;
    for sweeps in [false, true] {
        let mut bytes = whole.clone();
        // As many buckets as there can be, all of them in one span of full lines, each of which leads to the next.
        put_word(&mut bytes, BUCKETS, (spans * lines / 2) as u64);
        (0..spans).for_each(|nth| put_word(&mut bytes, shape.directory + 8 * nth, index as u64 + 1));
        for line in 0..lines {
            let at = shape.heap + index * shape.span + 64 * line;
            (0..7).for_each(|nth| put_word(&mut bytes, at + 8 * nth, slot));
            put_word(&mut bytes, at + 56, if line + 1 < lines { at as u64 + 64 } else { 0 });
        }
        // No room, but lines that continue buckets.
        let used = (bytes.len() - shape.heap) / shape.span;
        put_word(&mut bytes, PAYLOAD + 72, used as u64);
        for span in (0..used).filter(|span| *span != index) {
            put_word(&mut bytes, table + 32 * span, 251 | 1 << 20);
        }
        (0..256).for_each(|class| put_word(&mut bytes, PAYLOAD + 1024 + 8 * class, 0));
        put_word(&mut bytes, PAYLOAD + 88, u64::from(sweeps));
        fs::write(&path, &bytes).unwrap();
        let dict = Dict::open(path.as_path()).unwrap();
        // More than there is room for.
        let result = soon("set", || dict.set_bytes("large", &vec![1; capacity]));
        assert!(result.is_err());
        let _ = soon("clear", || dict.clear());
    }
}

/// Begins a change as fast as others finish it.
fn restorer(args: &[&str]) {
    let raw = Mapping::open(Path::new(args[0])).unwrap();
    raw.store(REDO_LOG, LEN as u64, Ordering::SeqCst).unwrap();
    raw.store(REDO_LOG + 8, 1_u64, Ordering::SeqCst).unwrap();
    peer::say("begins");
    loop {
        raw.store(REDO_LEN, 1_u64, Ordering::SeqCst).unwrap();
    }
}

const LEN: usize = PAYLOAD + 64;
const USED: usize = PAYLOAD + 72;
const SWEEP: usize = PAYLOAD + 88;
const RING_CLAIMED: usize = PAYLOAD + 192;
const RING_HEAD: usize = PAYLOAD + 200;

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_millis(300);

/// Twice its timeout and 100 ms, and as much again for a machine that has other things to do.
#[track_caller]
fn in_time<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = work();
    assert!(began.elapsed() < 4 * TIMEOUT + Duration::from_millis(200), "{what} took {:?}", began.elapsed());
    result
}

/// A large dict, most of it a hole, whose directory leads to one full span of lines again and
/// again.
fn forged_directory(dir: &TempDir, name: &str) -> PathBuf {
    // A process with 32 bits has fewer addresses.
    let capacity = if cfg!(target_pointer_width = "64") { 2 << 30 } else { 512 << 20 };
    let path = dir.join(name);
    let dict = Dict::create_new(path.as_path(), capacity as u64).unwrap();
    dict.set_bytes("key", &[1; 8]).unwrap();
    drop(dict);
    let mut bytes = fs::read(&path).unwrap();
    let shape = Shape::of(capacity);
    let slot = word(&bytes, shape.slot_of(&bytes, block_of(&bytes, "key")));
    // The last spans are the tables'.
    let (spans, lines) = ((PAYLOAD + capacity - shape.heap) / shape.span, shape.span / 64);
    let index = usize::try_from(word(&bytes, shape.directory)).unwrap() - 1;
    put_word(&mut bytes, BUCKETS, (spans * lines) as u64);
    put_word(&mut bytes, USED, spans as u64);
    put_word(&mut bytes, LEN, u64::MAX / 2);
    (0..spans).for_each(|nth| put_word(&mut bytes, shape.directory + 8 * nth, index as u64 + 1));
    for line in 0..lines {
        let at = shape.heap + index * shape.span + 64 * line;
        (0..7).for_each(|nth| put_word(&mut bytes, at + 8 * nth, slot));
        put_word(&mut bytes, at + 56, 0);
    }
    // Nothing can be taken without a search for space.
    (0..256).for_each(|class| put_word(&mut bytes, PAYLOAD + 1024 + 8 * class, 0));
    let table = (shape.directory + 8 * (capacity / shape.span)).next_multiple_of(32);
    (0..spans).filter(|span| *span != index).for_each(|span| put_word(&mut bytes, table + 32 * span, 251 | 1 << 20));
    put_word(&mut bytes, SWEEP, 1);
    fs::write(&path, &bytes).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len((shape.heap + spans * shape.span) as u64).unwrap();
    path
}

#[test]
fn a_forged_directory_keeps_no_reader_longer_than_its_timeout() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 4);
    let dir = TempDir::new();
    let path = forged_directory(&dir, "readers");
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let dict = Dict::options().access(access).timeout(Some(TIMEOUT)).open(path.as_path()).unwrap();
        for round in 0..2 {
            let _ = round;
            assert!(in_time("keys", || dict.keys()).is_err());
            assert!(in_time("entries", || dict.entries()).is_err());
            assert!(in_time("snapshot", || dict.snapshot(|all| all.entries())).is_err());
            let _ = in_time("check", || dict.check());
            in_time("stats", || dict.stats()).unwrap();
            in_time("len", || dict.len()).unwrap();
            let _ = in_time("get", || dict.get_bytes("key"));
            let _ = in_time("get another", || dict.get_bytes("another"));
        }
    }
}

#[test]
fn a_forged_directory_keeps_no_writer_longer_than_its_timeout() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 6);
    let dir = TempDir::new();
    let path = forged_directory(&dir, "writers");
    let dict = Dict::options().timeout(Some(TIMEOUT)).open(path.as_path()).unwrap();
    let other = Dict::options().timeout(Some(TIMEOUT)).open(path.as_path()).unwrap();
    let _ = in_time("set", || dict.set_bytes("large", &vec![1; 1 << 20]));
    let _ = in_time("set", || dict.set_bytes("small", &[1; 10]));
    let _ = in_time("insert", || dict.insert_bytes_if_absent("new", &[1; 10]));
    let _ = in_time("transaction", || {
        dict.transaction(|tx| (0..3000).try_for_each(|nth| tx.set_bytes(&format!("{nth}"), b"1")))
    });
    let _ = in_time("remove", || dict.remove("key"));
    #[cfg(feature = "serde")]
    {
        let _ = in_time("increment", || dict.increment("number", 1));
        let _ = in_time("update", || dict.update("number", |old: Option<i32>| old.map(|old| old + 1).or(Some(1))));
        let _ = in_time("compare_and_set", || dict.compare_and_set("number", &1, &2));
    }
    let _ = in_time("clear", || dict.clear());
    // What takes the lock next finds it free.
    let _ = in_time("set", || other.set_bytes("key", b"1"));
}

#[test]
fn clear_is_over_in_time_and_what_it_left_is_swept_later() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 4);
    let dir = TempDir::new();
    let path = dir.join("clear");
    let fill =
        |dict: &Dict| (0..120_000).map(|nth| dict.set_bytes(&format!("key {nth}"), &[1; 16])).find(Result::is_err);
    let dict =
        Dict::options().capacity(16 << 20).timeout(Some(Duration::from_millis(1))).create_new(path.as_path()).unwrap();
    fill(&dict);
    let began = Instant::now();
    let version = dict.clear().unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!((dict.len().unwrap(), dict.version("key 1").unwrap()), (0, None));
    drop(dict);
    // There is room for as much again.
    let dict = Dict::open(path.as_path()).unwrap();
    assert!(dict.stats().unwrap().version >= version && dict.check().unwrap().is_whole());
    fill(&dict);
    assert_eq!(dict.get_bytes("key 119999").unwrap().unwrap(), [1; 16]);
    assert!(dict.check().unwrap().is_whole());
}

#[test]
fn a_peer_that_begins_changes_again_and_again_keeps_no_reader_longer_than_its_timeout() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let dir = TempDir::new();
    let path = dir.join("journal");
    let dict = Dict::options().capacity(1 << 20).timeout(Some(TIMEOUT)).create_new(path.as_path()).unwrap();
    dict.set_bytes("key", b"value").unwrap();
    let mut peer = Peer::spawn("restorer", &[path.to_str().unwrap()]);
    peer.expect("begins");
    for _ in 0..3 {
        let _ = in_time("keys", || dict.keys());
        let _ = in_time("snapshot", || dict.snapshot(|all| all.get_bytes("key")));
        let _ = in_time("check", || dict.check());
        let _ = in_time("set", || dict.set_bytes("key", b"value"));
    }
    peer.kill();
    peer.wait();
    assert_eq!(dict.keys().unwrap(), ["key"]);
}

#[test]
fn changes_that_are_not_watched_keep_nobody_who_waits_for_others() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let dir = TempDir::new();
    let path = dir.join("ring");
    let capacity = 64 << 20;
    let dict = Dict::create_new(path.as_path(), capacity as u64).unwrap();
    let mut changes = dict.watch(Watched::Key("key".to_owned())).unwrap();
    let raw = Mapping::open(path.as_path()).unwrap();
    // A change log full of changes of the empty key; then one that is watched, in their place.
    let ring = 1_u64 << 20;
    for word in [RING_CLAIMED, RING_HEAD] {
        raw.store(word, ring, Ordering::SeqCst).unwrap();
    }
    assert_eq!(in_time("next_for", || changes.next_for(Duration::from_millis(1))).unwrap(), None);
    let version = dict.set_bytes("key", b"value").unwrap();
    let deadline = Instant::now() + testkit::DEADLINE;
    let change = loop {
        assert!(Instant::now() < deadline);
        if let Some(change) = in_time("next_for", || changes.next_for(Duration::from_millis(1))).unwrap() {
            break change;
        }
    };
    // Where it was not that fast, it missed what was written over.
    assert!([Change::Missed, Change::Set { key: "key".to_owned(), version }].contains(&change), "{change:?}");
}
