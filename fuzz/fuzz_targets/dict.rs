//! A dict whose bytes somebody else changes, before it is opened and while it is used: every call ends, with a value or an
//! error, and takes no more memory than the dict could hold.

#![no_main]

mod stage;

use std::cell::OnceCell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use mmf::{Access, Dict, DictOptions, Encoding, Entries, Mapping, Watched};
use serde::de::IgnoredAny;
use stage::{Choice, Restored, Storm};

/// Where what a dict is led by begins, and how much of it there is in the least dict; behind it lie records and buckets.
const PAYLOAD: usize = 20 << 10;
const LED_BY: usize = 48 << 10;
/// How long locks are waited for: in most inputs, and in those that wait long enough to sleep and
/// to look whether the holder lives.
const SHORT: Duration = Duration::from_micros(150);
const LONG: Duration = Duration::from_millis(20);

/// How many steps an input may have, and how many of them that look at all entries. libFuzzer
/// prefers inputs with many, which take long and find what a few find.
const STEPS: usize = 40;
const SCANS: usize = 6;

#[derive(Arbitrary, Debug)]
struct Input {
    flushed: bool,
    /// What another thread writes over and over meanwhile, in the inputs chosen for it.
    storm: Vec<(u32, Word)>,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// A word of the dict's own, by its number, becomes this.
    Own(u8, Word),
    /// A word of the header: what is checked at the opening, the lock, the slots.
    Header(u16, Word),
    /// A word anywhere behind it.
    Any(u32, Word),
    Bytes(u32, Vec<u8>),
    /// The word there goes up or down.
    Shift(u16, i8),
    /// What lies there is copied elsewhere.
    Copy(u32, u8, u32),
    Truncate(u32),
    Open,
    /// Opens with at most this capacity, in KiB.
    OpenUpTo(u16),
    Set(u8, u16),
    /// Sets a value of as many arrays in each other, or maps, and decodes it.
    Nest(u8, u16, bool),
    Remove(u8),
    Get(u8),
    Transaction(u8, u8, u16),
    Abort(u8),
    Snapshot(u8, u8),
    Update(u8),
    Exchange(u8, i64),
    Increment(u8, i64),
    Clear,
    Flush,
    Entries,
    Keys,
    Watch(bool),
    Check,
    Repair,
}

impl Step {
    fn is_scan(&self) -> bool {
        matches!(self, Step::Snapshot(..) | Step::Entries | Step::Keys | Step::Check | Step::Repair)
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Word {
    Small(u8),
    Middle(u16),
    Any(u64),
    /// Where something in the dict may be.
    Place(u32),
    /// A slot's word for a place.
    Slot(u32, u64),
}

impl Word {
    fn value(self) -> u64 {
        match self {
            Word::Small(n) => n.into(),
            Word::Middle(n) => n.into(),
            Word::Any(n) => n,
            Word::Place(n) => u64::from(n % (1 << 20)) & !7,
            Word::Slot(n, tag) => u64::from(n % (1 << 17)) | tag << 40,
        }
    }
}

/// How many keys of each sort the small dict and the large one have. Most inputs use the small one,
/// since those that look at all entries take time in proportion.
const KEYS: [usize; 2] = [16, 300];

/// Makes a dict with something of everything, flushed before its last changes or not at all.
fn make(path: &Path, keys: usize, flushed: bool) -> mmf::Result<()> {
    let dict = Dict::create_new(path, 1 << 20)?;
    let (third, scale) = (keys / 3, 300 / keys);
    for n in 0..keys {
        dict.set_bytes(&key(n as u8), &vec![1; n * 3 * scale])?;
        dict.set_bytes(&format!("more {n}"), b"little")?;
    }
    if flushed {
        dict.flush()?;
    }
    for n in 0..third {
        dict.set_bytes(&key(n as u8), &vec![2; n * 40 * scale])?;
    }
    for n in third..third + keys / 10 {
        dict.remove(&key(n as u8))?;
    }
    Ok(())
}

fn key(number: u8) -> String {
    format!("key {number}")
}

/// The handles of one input, and how they are opened.
struct Open<'a> {
    file: &'a Restored,
    options: DictOptions,
    dict: Option<Dict>,
    reader: Option<Dict>,
}

impl Open<'_> {
    fn new(file: &Restored, timeout: Duration) -> Open<'_> {
        let options = Dict::options().timeout(Some(timeout));
        let mut open = Open { file, options, dict: None, reader: None };
        open.again(&open.options.clone());
        open
    }

    /// Opens both handles anew.
    fn again(&mut self, options: &DictOptions) {
        let path = self.file.path();
        self.dict = options.open(path).ok();
        self.reader = options.clone().access(Access::ReadOnly).open(path).ok();
    }

    fn each(&self) -> impl Iterator<Item = &Dict> {
        self.dict.iter().chain(&self.reader)
    }
}

fn judge(entries: Entries) {
    let bytes: usize = entries.map(|entry| entry.key.len() + entry.value.len()).sum();
    assert!(bytes <= 2 << 20, "{bytes} bytes of entries from a dict of 1 MiB");
}

type Writes = (Arc<Mapping>, Vec<(u32, Word)>);

thread_local! {
    /// The small and the large dict, not flushed and flushed.
    static FILES: [OnceCell<Restored>; 4] = const { [const { OnceCell::new() }; 4] };
    static STORM: Storm<Writes> = Storm::new(|(peer, words): &Writes| {
        for (at, word) in words {
            let _ = peer.write_at((*at as usize % peer.len()) & !7, &word.value().to_le_bytes());
        }
    });
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(bytes)) {
        let (choice, flushed) = (Choice::of(bytes), input.flushed);
        let large = choice.is_large();
        FILES.with(|files| {
            let file = &files[usize::from(large) * 2 + usize::from(flushed)];
            let make = || Restored::new(|path| make(path, KEYS[usize::from(large)], flushed));
            run(input, &choice, file.get_or_init(make));
        });
    }
});

fn run(input: Input, choice: &Choice, file: &Restored) {
    file.restore();
    let mut open = Open::new(file, if choice.waits() { LONG } else { SHORT });
    let storms = choice.storms() && !input.storm.is_empty();
    let mut scans = 0;
    let mut steps = || {
        for step in input.steps.iter().take(STEPS) {
            scans += usize::from(step.is_scan());
            if !step.is_scan() || scans <= SCANS {
                act(step, &mut open, !storms);
            }
        }
    };
    if storms {
        STORM.with(|storm| storm.during((Arc::clone(&file.peer), input.storm), steps));
    } else {
        steps();
    }
}

/// What an operation gives is not judged, but that it comes back is; and that what was repaired is whole where nobody touches
/// it meanwhile.
fn act(step: &Step, open: &mut Open<'_>, quiet: bool) {
    let enemy = &*open.file.peer;
    let place = |at: u32| PAYLOAD + at as usize % (enemy.len() - PAYLOAD - 8);
    let value = |len: u16| vec![3; usize::from(len)];
    match step {
        Step::Own(nth, word) => drop(enemy.write_at(PAYLOAD + 8 * usize::from(*nth), &word.value().to_le_bytes())),
        Step::Header(at, word) => {
            drop(enemy.write_at((usize::from(*at) % PAYLOAD) & !7, &word.value().to_le_bytes()));
        }
        Step::Any(at, word) => drop(enemy.write_at(place(*at) & !7, &word.value().to_le_bytes())),
        Step::Bytes(at, bytes) => drop(enemy.write_at(place(*at), bytes)),
        Step::Shift(at, by) => {
            let at = PAYLOAD + usize::from(*at) * 8 % LED_BY;
            let mut word = [0; 8];
            if enemy.read_at(at, &mut word).is_ok() {
                let word = u64::from_le_bytes(word).wrapping_add_signed(i64::from(*by));
                let _ = enemy.write_at(at, &word.to_le_bytes());
            }
        }
        Step::Copy(from, len, to) => {
            if let Ok(bytes) = enemy.read_to_vec(place(*from), usize::from(*len)) {
                let _ = enemy.write_at(place(*to), &bytes);
            }
        }
        Step::Truncate(len) => {
            open.file.set_len(u64::from(*len) % (1 << 20));
        }
        Step::Open => open.again(&open.options.clone()),
        Step::OpenUpTo(kib) => {
            let most = u64::from(*kib) << 10;
            open.again(&open.options.clone().max_capacity(most));
            for dict in open.each() {
                assert!(dict.capacity() <= most.max(Dict::MIN_CAPACITY), "opened with {} bytes", dict.capacity());
            }
        }
        Step::Nest(number, depth, maps) => {
            // An array of one, or a map of one with the key 1; nil is innermost.
            let outer: &[u8] = if *maps { &[0x81, 1] } else { &[0x91] };
            let value = [outer.repeat(usize::from(*depth)), vec![0xc0]].concat();
            if let Some(dict) = &open.dict {
                let _ = dict.set_encoded(&key(*number), Encoding::MessagePack, &value);
            }
            for dict in open.each() {
                let decoded = dict.get::<IgnoredAny>(&key(*number));
                let is_known = quiet && dict.get_bytes(&key(*number)).is_ok_and(|bytes| bytes == Some(value.clone()));
                if is_known && usize::from(*depth) > Dict::MAX_DEPTH {
                    assert!(decoded.is_err(), "decoded {depth} levels");
                }
            }
        }
        Step::Set(number, len) => drop(open.dict.as_ref().map(|dict| dict.set_bytes(&key(*number), &value(*len)))),
        Step::Remove(number) => drop(open.dict.as_ref().map(|dict| dict.remove(&key(*number)))),
        Step::Get(number) => {
            for dict in open.each() {
                if let Ok(Some(value)) = dict.get_bytes(&key(*number)) {
                    assert!(value.len() <= 2 << 20, "a value of {} bytes from a dict of 1 MiB", value.len());
                }
                let _ = dict.version(&key(*number));
            }
        }
        Step::Transaction(one, other, len) => {
            let _ = open.dict.as_ref().map(|dict| {
                dict.transaction(|tx| {
                    tx.remove(&key(*one))?;
                    tx.set_bytes(&key(*other), &value(*len))?;
                    tx.set_bytes("new", &value(*len / 2))
                })
            });
        }
        Step::Abort(number) => {
            let _ = open.dict.as_ref().map(|dict| {
                dict.transaction(|tx| {
                    tx.abort();
                    tx.get_bytes(&key(*number))
                })
            });
        }
        Step::Snapshot(one, other) => {
            for dict in open.each() {
                let _ = dict.snapshot(|now| {
                    now.get_bytes(&key(*one))?;
                    now.contains_key(&key(*other))?;
                    now.entries().map(judge)
                });
            }
        }
        Step::Update(number) => drop(open.dict.as_ref().map(|dict| {
            dict.update(&key(*number), |old: Option<Vec<u8>>| match old {
                Some(old) => (old.len() % 2 == 0).then_some(old),
                None => Some(vec![4]),
            })
        })),
        Step::Exchange(number, new) => {
            drop(open.dict.as_ref().map(|dict| dict.compare_and_set(&key(*number), &1, new)));
        }
        Step::Increment(number, by) => drop(open.dict.as_ref().map(|dict| dict.increment(&key(*number), *by))),
        Step::Clear => drop(open.dict.as_ref().map(Dict::clear)),
        Step::Flush => drop(open.dict.as_ref().map(Dict::flush)),
        Step::Entries => open.each().filter_map(|dict| dict.entries().ok()).for_each(judge),
        Step::Keys => {
            for dict in open.each() {
                let bytes: usize = dict.keys().map_or(0, |keys| keys.iter().map(String::len).sum());
                assert!(bytes <= 2 << 20, "{bytes} bytes of keys from a dict of 1 MiB");
                let _ = (dict.len(), dict.is_empty(), dict.stats());
            }
        }
        Step::Watch(all) => {
            for dict in open.each() {
                let watched = if *all { Watched::All } else { Watched::Prefix("key".to_owned()) };
                let Ok(mut changes) = dict.watch(watched) else { continue };
                // As if there were more.
                let _ = enemy.fetch_add(PAYLOAD + 200, 48_u64, SeqCst);
                for _ in 0..4 {
                    let _ = changes.next_for(Duration::ZERO);
                }
            }
        }
        Step::Check => open.each().for_each(|dict| drop(dict.check())),
        Step::Repair => {
            // Nobody else may have it open.
            (open.dict, open.reader) = (None, None);
            let path = open.file.path();
            // Beside a thread that writes to the lock all the time, every wait may take its
            // timeout.
            let options = if quiet { Dict::options() } else { open.options.clone() };
            let repaired = options.repair(path);
            if let (Ok(report), true) = (repaired, quiet) {
                // The sanitizer makes this slow.
                let options = Dict::options().timeout(Some(Duration::from_secs(20)));
                let dict = options
                    .open(path)
                    .unwrap_or_else(|error| panic!("repaired, and cannot be opened: {error}, {report:?}"));
                let found = dict.check().unwrap_or_else(|error| panic!("repaired, and cannot be checked: {error}"));
                assert!(found.is_whole(), "repaired, and then: {found:?}");
                assert_eq!(found.entries, report.entries);
            }
            open.again(&open.options.clone());
        }
    }
}
