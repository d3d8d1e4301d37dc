//! Model checks of readers without a lock, with loom: beside writers that die at any step, in every
//! order of events, and with every old value that a load may return, within bounds. `ci/models.sh`
//! runs them; `docs/decisions/0009-models.md` says what they cover and what they would find.
//!
//! A model has three processes:
//!
//! 1. The first writer, which may die at any step.
//! 2. The second writer, which starts when the first has ended, and completes its change.
//! 3. A reader beside both, with a read-only handle.
//!
//! The reader must see states of the dict in their order, with each key's value whole. It may miss
//! some of them. A reader between the two writers must get a result as well, before any process has
//! recovered the dict.

mod scenarios;

use std::collections::{BTreeMap, BTreeSet};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use loom::model::Builder;

use crate::dict::Dict;
use crate::dict::format::layout::{LINE, Layout, MIN_CAPACITY, at, class};
use crate::dict::format::record;
use crate::dict::format::slot::bucket;
use crate::dict::handle::DictState;
use crate::dict::read::fast_path::FastKeyReader;
use crate::dict::read::get::KeyReader;
use crate::dict::read::sink::Found;
use crate::dict::store::work_limit::MIN_WORK_TIME;
use crate::error::{Error, ErrorKind, Result};
use crate::mapping::Mapping;
use crate::segment::layout::PAYLOAD;
use crate::segment::{Deadline, Segment, models};
use crate::sys::model::dict_memory::{self as memory, DictMemory};
use crate::sys::model::{self, Loads, ModelConfig, ParkerKind};
use crate::types::Access;

static LAYOUT: LazyLock<Layout> = LazyLock::new(|| Layout::of(PAYLOAD as u64 + MIN_CAPACITY).unwrap());

/// The fixed seed of the hashes, so that a model chooses the buckets of its keys.
const SEED: u64 = 7;

/// Returns keys that belong to bucket `number` among `among` buckets.
fn keys_in(number: u64, among: u64) -> impl Iterator<Item = String> {
    let keys = (0..).map(|nth| format!("key{nth:05}"));
    keys.filter(move |key| bucket(record::hash(SEED, key.as_bytes()), among) == number)
}

/// The contents of a dict: each key's number, and the version of its change.
type State = BTreeMap<String, (u64, u64)>;

/// The value of a number from this one on has a block of another size class.
const MEDIUM: u64 = 100;
/// The value of a number from this one on lies in a span of its own.
const LARGE: u64 = 1000;

/// Returns the value of a number. One of its words differs from those of other values, or the first
/// and the last word of a large value. Each further such word would multiply the number of runs.
/// The version tells values of one number apart.
fn value(number: u64) -> Vec<u8> {
    let mut words = match number {
        LARGE.. => vec![1; 260],
        MEDIUM.. => vec![1; 20],
        _ => vec![1; 2],
    };
    words[0] = number;
    if number >= LARGE {
        words[259] = number;
    }
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

fn number(bytes: &[u8]) -> u64 {
    let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(bytes, value(number), "a torn value");
    number
}

/// An operation of a writer.
#[derive(Clone, Debug)]
enum Operation {
    Set(String, u64),
    Remove(String),
    /// Sets and removes keys in one transaction.
    All(Vec<(String, Option<u64>)>),
    Clear,
    /// Changes nothing, but completes the change of a dead writer.
    Recover,
}

impl Operation {
    fn make(&self, dict: &Dict) -> Result<()> {
        match self {
            Operation::Set(key, number) => dict.set_bytes(key, &value(*number)).map(drop),
            Operation::Remove(key) => dict.remove(key).map(|removed| assert!(removed)),
            Operation::All(changes) => dict.transaction(|tx| {
                changes.iter().try_for_each(|(key, number)| match number {
                    Some(number) => tx.set_bytes(key, &value(*number)),
                    None => tx.remove(key).map(|removed| assert!(removed)),
                })
            }),
            Operation::Clear => dict.clear().map(drop),
            Operation::Recover => dict.snapshot(|_| Ok(())),
        }
    }

    /// Applies the operation to a state and to its version.
    fn apply(&self, state: &mut State, version: &mut u64) {
        let mut put = |key: &String, number: Option<u64>| {
            *version += 1;
            match number {
                Some(number) => state.insert(key.clone(), (number, *version)),
                None => state.remove(key),
            };
        };
        match self {
            Operation::Set(key, number) => put(key, Some(*number)),
            Operation::Remove(key) => put(key, None),
            Operation::All(changes) => changes.iter().for_each(|(key, number)| put(key, *number)),
            Operation::Clear => {
                *version += 1;
                state.clear();
            }
            Operation::Recover => {}
        }
    }
}

/// A read of a reader.
#[derive(Clone, Debug)]
enum Read {
    /// Reads a key on the fast path.
    Fast(String),
    /// Reads a key on the slow path. A call of both paths would multiply the number of runs.
    Get(String),
    /// Reads two keys at one moment.
    Both(String, String),
}

/// The result of one read.
#[derive(Debug)]
struct Seen(Vec<(String, Option<(u64, u64)>)>);

impl Seen {
    fn is_of(&self, state: &State) -> bool {
        self.0.iter().all(|(key, number)| state.get(key) == number.as_ref())
    }
}

impl Read {
    /// Performs the read. Returns `None` if it has no result, for example because a writer came
    /// between. A further attempt would be another read of the model.
    fn run(&self, dict: &Dict) -> Option<Seen> {
        let storage = dict.storage();
        let hash = |key: &String| record::hash(SEED, key.as_bytes());
        let told = |key: &String, bytes: &[u8], found: Option<Found>| {
            (key.clone(), found.map(|found| (number(bytes), found.version)))
        };
        let fast = |key: &String| {
            let mut bytes = Vec::with_capacity(16);
            let found = FastKeyReader::new(&storage).get_fast(hash(key), key.as_bytes(), &mut &mut bytes)?;
            Some(told(key, &bytes, found))
        };
        let get = |key: &String| {
            let mut bytes = Vec::new();
            let found = KeyReader::new(&storage).get(
                hash(key),
                key.as_bytes(),
                &mut &mut bytes,
                Deadline::Now,
                Deadline::Now,
            )?;
            Ok(told(key, &bytes, found))
        };
        let seen: Result<Seen> = match self {
            Read::Fast(key) => Ok(Seen(vec![fast(key)?])),
            Read::Get(key) => get(key).map(|one| Seen(vec![one])),
            Read::Both(one, other) => dict.snapshot(|_| Ok(fast(one).zip(fast(other)))).and_then(|both| {
                let (one, other) = both.ok_or_else(|| Error::new(ErrorKind::Contended, "glance"))?;
                Ok(Seen(vec![one, other]))
            }),
        };
        match seen {
            Ok(seen) => Some(seen),
            Err(error) if matches!(error.kind(), ErrorKind::Contended) => None,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The operations of two writers, and the reads of a reader beside them.
struct Model {
    setup: Vec<Operation>,
    /// The operations of the first writer. It dies at each of their steps in turn, and at none.
    first: Vec<Operation>,
    /// The operations of the second writer.
    next: Vec<Operation>,
    /// The alternatives for the reader, each a list of reads.
    readers: Vec<Vec<Read>>,
}

/// The effects of the writers, learned before a reader runs beside them.
struct Footprint {
    /// The memory after the first writer has ended.
    left: Arc<[u64]>,
    /// The words that either writer changes.
    changing: BTreeSet<usize>,
}

/// The handles of the processes.
struct Handles {
    writers: [Dict; 2],
    reader: Dict,
}

const FIRST: usize = 0;
const SECOND: usize = 1;
const READER: usize = 2;

impl Handles {
    /// Opens the handles. They are never dropped, since their resources end with a run.
    fn new() -> Arc<ManuallyDrop<Handles>> {
        let (bytes, size, _) = Segment::<DictState>::initial_bytes(None, None, MIN_CAPACITY, MIN_CAPACITY).unwrap();
        let first = Mapping::anonymous(size).unwrap();
        first.write_at(0, &bytes).unwrap();
        let handle = |access, timeout| {
            let options = Mapping::options().access(access);
            let map = options.from_handle(first.handle().try_clone_to_owned().unwrap()).unwrap();
            let mut dict = Dict::of(Segment::from_mapping(map, None, None).unwrap(), timeout, MIN_WORK_TIME).unwrap();
            dict.seed = SEED;
            dict
        };
        let writers = [FIRST, SECOND].map(|_| handle(Access::ReadWrite, None));
        // A timeout of 0 means one attempt. Otherwise loom would repeat attempts without end.
        let reader = handle(Access::ReadOnly, Some(Duration::ZERO));
        Arc::new(ManuallyDrop::new(Handles { writers, reader }))
    }

    fn config(&self, memory: DictMemory) -> ModelConfig {
        let [first, second] = &self.writers;
        ModelConfig {
            bases: [first, second, &self.reader].map(|dict| dict.segment.map.as_ptr().addr()).to_vec(),
            shared_len: self.reader.segment.map.len(),
            words: models::words(),
            stored_to: Vec::new(),
            slept_on: models::queues(),
            parker: ParkerKind::Futex,
            loads: Loads::Old,
            // The protocol must not rely on fences of the lock beyond its contract.
            fences: false,
            memory: Some(memory),
            timeouts: 3,
            uses: false,
        }
    }

    fn ground(&self, start: Arc<[u64]>, changing: BTreeSet<usize>) -> DictMemory {
        DictMemory { start, lockless: vec![self.reader.segment.map.as_ptr().addr()], is_seen, changing }
    }

    /// Returns the words of an empty dict.
    fn empty(&self) -> Arc<[u64]> {
        std::iter::repeat_n(0, self.reader.segment.map.len() / 8).collect()
    }
}

/// Returns whether readers without a lock load a word: each one except for SWEEP and the words of
/// the change log. Writers and watchers load those, and a reader through the redo log's offsets.
fn is_seen(offset: usize) -> bool {
    offset != at::SWEEP && !(LAYOUT.change_log..LAYOUT.directory).contains(&offset)
}

/// Removes the offsets of records' checksums, which no process of a model reads.
fn without_sums(mut words: BTreeSet<usize>, contents: &[u64]) -> BTreeSet<usize> {
    words.retain(|offset| {
        let Some(span) = LAYOUT.span_of(*offset) else { return true };
        let size = class::size(contents[LAYOUT.entry(span) / 8] & 0xff).filter(|size| *size != LINE);
        size.is_none_or(|size| (offset - LAYOUT.span(span)) % size != record::CHECKSUM)
    });
    words
}

/// Runs `body` once, in a single thread.
fn once<R: Send + 'static>(config: ModelConfig, body: impl Fn() -> R + Send + Sync + 'static) -> R {
    let result = Arc::new(Mutex::new(None));
    let put = Arc::clone(&result);
    let mut builder = Builder::new();
    builder.max_branches = 60_000;
    builder.check(move || {
        model::begin(&config);
        *put.lock().unwrap() = Some(body());
        model::end();
    });
    result.lock().unwrap().take().unwrap()
}

/// Runs a writer, which dies at its step `dies_at`.
fn write(dict: &Dict, slot: usize, dies_at: Option<u32>, changes: &[Operation]) {
    model::become_process(slot, dies_at);
    let outcome = changes.iter().try_for_each(|change| change.make(dict));
    if model::is_dead() {
        model::end_process();
    } else {
        outcome.unwrap();
    }
}

impl Model {
    fn check(self) {
        let (handles, model) = (Handles::new(), Arc::new(self));
        let start = model.begin(&handles);
        let (mut deaths, mut runs) = (0, 0);
        let mut explore = |dies_at: Option<u32>| {
            // Readers with several reads run only beside a writer that does not die.
            for looks in model.readers.iter().filter(|looks| dies_at.is_none() || looks.len() == 1) {
                runs += model.explore(&handles, &start, dies_at, looks);
            }
        };
        explore(None);
        let mut left = None;
        models::at_each_step(FIRST, |dies_at| {
            let leaves = Some(model.learn(&handles, &start, Some(dies_at)).left);
            // A writer that dies a step later may leave the same memory.
            if leaves != left {
                (left, deaths) = (leaves, deaths + 1);
                explore(Some(dies_at));
            }
        });
        println!("{deaths} deaths, {runs} runs");
    }

    /// Returns the memory of the dict before the writers start.
    fn begin(self: &Arc<Model>, handles: &Arc<ManuallyDrop<Handles>>) -> Arc<[u64]> {
        let config = handles.config(handles.ground(handles.empty(), BTreeSet::new()));
        let (handles, model) = (Arc::clone(handles), Arc::clone(self));
        once(config, move || {
            for slot in [FIRST, SECOND] {
                model::become_process(slot, None);
                let participant = handles.writers[slot].segment.participant("model").unwrap();
                assert_eq!(participant.slot(), slot);
            }
            write(&handles.writers[SECOND], SECOND, None, &model.setup);
            memory::contents()
        })
    }

    /// Returns the effects of the writers, which do not depend on the reader.
    fn learn(
        self: &Arc<Model>,
        handles: &Arc<ManuallyDrop<Handles>>,
        start: &Arc<[u64]>,
        dies_at: Option<u32>,
    ) -> Footprint {
        let config = handles.config(handles.ground(Arc::clone(start), BTreeSet::new()));
        let (handles, model) = (Arc::clone(handles), Arc::clone(self));
        once(config, move || {
            write(&handles.writers[FIRST], FIRST, dies_at, &model.first);
            let left = memory::contents();
            write(&handles.writers[SECOND], SECOND, None, &model.next);
            Footprint { left, changing: without_sums(memory::changed(), &memory::contents()) }
        })
    }

    /// Explores all results that a reader may get, and returns the number of runs.
    ///
    /// The reader runs last, without synchronization with the writers. Its loads may still return
    /// every older value, so this covers all earlier moments. It stores nothing, so its moment does
    /// not affect the writers.
    fn explore(
        self: &Arc<Model>,
        handles: &Arc<ManuallyDrop<Handles>>,
        start: &Arc<[u64]>,
        dies_at: Option<u32>,
        looks: &[Read],
    ) -> usize {
        let changing = self.learn(handles, start, dies_at).changing;
        let config = handles.config(handles.ground(Arc::clone(start), changing));
        let mut builder = Builder::new();
        builder.preemption_bound = Some(0);
        builder.max_branches = 10_000;
        let runs = Arc::new(AtomicUsize::new(0));
        let (counted, model, handles) = (Arc::clone(&runs), Arc::clone(self), Arc::clone(handles));
        let looks = looks.to_vec();
        builder.check(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            model::begin(&config);
            model.run(&handles, dies_at, &looks);
            model::end();
        });
        runs.load(Ordering::Relaxed)
    }

    fn run(self: &Arc<Model>, handles: &Arc<ManuallyDrop<Handles>>, dies_at: Option<u32>, looks: &[Read]) {
        let reader = loom::thread::spawn({
            let (handles, looks) = (Arc::clone(handles), looks.to_vec());
            move || {
                loom::thread::yield_now();
                model::become_process(READER, None);
                looks.iter().filter_map(|look| look.run(&handles.reader)).collect::<Vec<_>>()
            }
        });
        let first = loom::thread::spawn({
            let (handles, model) = (Arc::clone(handles), Arc::clone(self));
            move || write(&handles.writers[FIRST], FIRST, dies_at, &model.first)
        });
        first.join().unwrap();
        model::become_process(READER, None);
        let then = self.everything(&handles.reader);
        write(&handles.writers[SECOND], SECOND, None, &self.next);
        let seen = reader.join().unwrap();
        model::become_process(READER, None);
        let end = self.everything(&handles.reader);

        let states = self.states(memory::latest(at::COMMIT));
        assert!(dies_at.is_some() || states.len() > self.first.len() + self.next.len(), "nobody has died");
        must_follow(&states, seen);
        must_follow(&states, then);
        must_follow(&states[states.len() - 1..], end);
        assert_eq!(memory::latest(at::LEN), states[states.len() - 1].len() as u64, "so many entries are counted");
    }

    /// Returns the states in their order, if `last` is the last version: the operations of the
    /// first writer that were committed, and those of the second.
    fn states(&self, last: u64) -> Vec<State> {
        for done in 0..=self.first.len() {
            let (mut state, mut version) = (State::new(), 0);
            self.setup.iter().for_each(|change| change.apply(&mut state, &mut version));
            let mut states = vec![state.clone()];
            for change in self.first[..done].iter().chain(&self.next) {
                change.apply(&mut state, &mut version);
                states.push(state.clone());
            }
            if version == last {
                return states;
            }
        }
        panic!("a part of a change was committed: the last version is {last}");
    }

    /// Reads each key that the model names, while no thread writes. Each read must succeed.
    fn everything(&self, dict: &Dict) -> Vec<Seen> {
        let keys: BTreeSet<&String> = self.readers.iter().flatten().flat_map(Read::keys).collect();
        keys.into_iter().map(|key| Read::Get(key.clone()).run(dict).expect("no thread writes")).collect()
    }
}

impl Read {
    fn keys(&self) -> Vec<&String> {
        match self {
            Read::Fast(key) | Read::Get(key) => vec![key],
            Read::Both(one, other) => vec![one, other],
        }
    }
}

/// Asserts that the results are of these states, in their order.
fn must_follow(states: &[State], seen: Vec<Seen>) {
    let mut from = 0;
    for one in &seen {
        match states[from..].iter().position(|state| one.is_of(state)) {
            Some(later) => from += later,
            None => panic!("{one:?} is of none of the states from the {from}th on; all that was seen: {seen:?}"),
        }
    }
}
