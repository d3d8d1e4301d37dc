//! Where the processes of a torture count and complain: words of a raw mapping, each changed by one
//! atomic operation.

use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use mmf::{Mapping, Name};

/// Floors at once: far more than generations that are in use at once.
const FLOORS: usize = 64;
const BUCKETS: usize = 32;

/// A word's place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word(usize);

pub(super) const GENERATION: Word = Word(0);
pub(super) const STOP: Word = Word(1);
/// Deaths of processes that held or wanted the lock, and when the system had released the last.
pub(super) const DEATHS: Word = Word(2);
pub(super) const RELEASED: Word = Word(3);
pub(super) const VIOLATIONS: Word = Word(4);
pub(super) const READS: Word = Word(5);
pub(super) const WRITES: Word = Word(6);
pub(super) const UNLOCKED_READS: Word = Word(7);
pub(super) const CONTENDED: Word = Word(8);
pub(super) const POISONS: Word = Word(9);
pub(super) const RECOVERIES: Word = Word(10);
pub(super) const CHANGES: Word = Word(11);
pub(super) const REOPENED: Word = Word(12);
pub(super) const GROWN: Word = Word(13);
pub(super) const REFUSED: Word = Word(14);
const FLOOR: usize = 64;
const WAITS: usize = FLOOR + FLOORS;
const WAITS_AFTER_DEATH: usize = WAITS + BUCKETS + 1;
const STATES: usize = WAITS_AFTER_DEATH + BUCKETS + 1;

/// What a worker is about, as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum State {
    Out,
    Wants,
    Reads,
    Writes,
}

/// Which waits are counted together.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waits {
    /// All.
    All = WAITS as isize,
    /// From the release of a holder that died meanwhile.
    AfterDeath = WAITS_AFTER_DEATH as isize,
}

pub(super) struct Counters(Mapping);

impl Counters {
    pub(super) fn create(name: &Name, workers: usize) -> Counters {
        Counters(Mapping::create_new(name, ((STATES + workers) * 8) as u64).expect("memory for the counters"))
    }

    pub(super) fn open(name: &str) -> Counters {
        Counters(Mapping::open(Name::local(name).expect("a name")).expect("the counters"))
    }

    pub(super) fn get(&self, word: Word) -> u64 {
        self.0.load(word.0 * 8, Ordering::SeqCst).expect("a word of the counters")
    }

    pub(super) fn set(&self, word: Word, value: u64) {
        self.0.swap(word.0 * 8, value, Ordering::SeqCst).expect("a word of the counters");
    }

    pub(super) fn count(&self, word: Word) {
        self.0.fetch_add(word.0 * 8, 1_u64, Ordering::SeqCst).expect("a word of the counters");
    }

    fn raise(&self, word: Word, value: u64) {
        self.0.fetch_max(word.0 * 8, value, Ordering::SeqCst).expect("a word of the counters");
    }

    /// No reader that begins now may see an older value than this in that generation.
    pub(super) fn floor(&self, generation: u64) -> u64 {
        self.get(floor(generation))
    }

    pub(super) fn raise_floor(&self, generation: u64, counter: u64) {
        self.raise(floor(generation), counter);
    }

    pub(super) fn reset_floor(&self, generation: u64) {
        self.set(floor(generation), 0);
    }

    pub(super) fn say(&self, worker: usize, state: State) {
        self.set(Word(STATES + worker), state as u64);
    }

    pub(super) fn state(&self, worker: usize) -> State {
        match self.get(Word(STATES + worker)) {
            0 => State::Out,
            1 => State::Wants,
            2 => State::Reads,
            _ => State::Writes,
        }
    }

    pub(super) fn waited(&self, which: Waits, nanoseconds: u64) {
        let bucket = (64 - (nanoseconds / 1000).leading_zeros() as usize).min(BUCKETS - 1);
        self.count(Word(which as usize + bucket));
        self.raise(Word(which as usize + BUCKETS), nanoseconds);
    }

    pub(super) fn worst(&self, which: Waits) -> u64 {
        self.get(Word(which as usize + BUCKETS))
    }

    /// How many waits there were, and for each of these shares a bound in nanoseconds below which
    /// they stayed.
    pub(super) fn shares(&self, which: Waits, shares: &[f64]) -> (u64, Vec<u64>) {
        let counts: Vec<u64> = (0..BUCKETS).map(|n| self.get(Word(which as usize + n))).collect();
        let all: u64 = counts.iter().sum();
        let bound = |share: f64| {
            let mut left = all as f64 * share;
            for (n, count) in counts.iter().enumerate() {
                left -= *count as f64;
                if left <= 0.0 {
                    return (1000 << n).min(self.worst(which));
                }
            }
            self.worst(which)
        };
        (all, shares.iter().map(|share| bound(*share)).collect())
    }

    /// Counts a violation and tells it.
    pub(super) fn complain(&self, text: &str) {
        self.count(VIOLATIONS);
        eprintln!("torture: process {}: {text}", std::process::id());
    }
}

fn floor(generation: u64) -> Word {
    Word(FLOOR + usize::try_from(generation).unwrap_or(0) % FLOORS)
}

/// A clock that all processes share.
pub(super) fn nanoseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
