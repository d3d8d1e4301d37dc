//! What a tortured dict must hold: each writer's keys hold what their number of changes says, which
//! stands on a shared sheet.
//!
//! The sheet is a raw mapping. A writer notes a change before it begins it and when it is done, so
//! a reader knows the two states between which the state that it reads must lie.

use std::sync::atomic::Ordering;

use mmf::{Mapping, Name};

use super::super::content;

/// Processes that write, and keys of each that hold values.
pub(super) const WRITERS: usize = 8;
pub(super) const KEYS: usize = 48;
/// Two keys of each writer that are always changed together; they count as one on the sheet.
pub(super) const PAIR: usize = KEYS;
const LINES: usize = KEYS + 1;
/// Keys of all, whose sum stays.
pub(super) const ACCOUNTS: usize = 6;
pub(super) const SUM: i64 = 1000 * ACCOUNTS as i64;

/// Far more dicts than are in use at once.
const SHEETS: u64 = 8;

/// A word of the sheet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word(usize);

pub(super) const GENERATION: Word = Word(0);
pub(super) const STOP: Word = Word(1);
pub(super) const VIOLATIONS: Word = Word(2);
pub(super) const READS: Word = Word(3);
pub(super) const WRITES: Word = Word(4);
pub(super) const REMOVALS: Word = Word(5);
pub(super) const TRANSACTIONS: Word = Word(6);
pub(super) const SNAPSHOTS: Word = Word(7);
pub(super) const SCANS: Word = Word(8);
pub(super) const CONTENDED: Word = Word(9);
pub(super) const FULL: Word = Word(10);
pub(super) const FLUSHES: Word = Word(11);
pub(super) const CLEARS: Word = Word(12);
pub(super) const CHANGES: Word = Word(13);
pub(super) const MISSED: Word = Word(14);
pub(super) const HALF_DONE: Word = Word(15);
pub(super) const REDONE: Word = Word(16);
pub(super) const LONGEST_NS: Word = Word(17);
const BUSY: usize = 24;
const SHEET: usize = 64;
const WORDS: usize = 4;
const CLEARINGS: usize = WRITERS * LINES * WORDS;
/// Who kills clears too, in the end.
pub(super) const KILLER: usize = WRITERS;
const SHEET_WORDS: usize = CLEARINGS + 2 * (WRITERS + 1);
/// The key that who kills sets in the end.
pub(super) const LARGE: &str = "large";

pub(super) struct Sheet(Mapping);

/// A writer's key on the sheet of one dict.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) writer: usize,
    pub(super) line: usize,
    at: usize,
}

/// Between which states what is read must lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    clears: u64,
    least: u64,
}

impl Sheet {
    pub(super) fn create(name: &Name) -> Sheet {
        let words = SHEET + usize::try_from(SHEETS).unwrap_or(0) * SHEET_WORDS;
        Sheet(Mapping::create_new(name, words as u64 * 8).expect("memory for the sheet"))
    }

    pub(super) fn open(name: &str) -> Sheet {
        Sheet(Mapping::open(Name::local(name).expect("a name")).expect("the sheet"))
    }

    pub(super) fn get(&self, word: Word) -> u64 {
        self.0.load(word.0 * 8, Ordering::SeqCst).expect("a word of the sheet")
    }

    pub(super) fn set(&self, word: Word, value: u64) {
        self.0.swap(word.0 * 8, value, Ordering::SeqCst).expect("a word of the sheet");
    }

    pub(super) fn count(&self, word: Word) {
        self.0.fetch_add(word.0 * 8, 1_u64, Ordering::SeqCst).expect("a word of the sheet");
    }

    pub(super) fn raise(&self, word: Word, value: u64) {
        self.0.fetch_max(word.0 * 8, value, Ordering::SeqCst).expect("a word of the sheet");
    }

    /// Counts a violation and tells it.
    pub(super) fn complain(&self, text: &str) {
        self.count(VIOLATIONS);
        eprintln!("torture: process {}: {text}", std::process::id());
    }

    /// Whether a process is within a call of the dict.
    pub(super) fn busy(process: usize) -> Word {
        Word(BUSY + process)
    }

    fn sheet(generation: u64) -> usize {
        SHEET + usize::try_from(generation % SHEETS).unwrap_or(0) * SHEET_WORDS
    }

    pub(super) fn clear_sheet(&self, generation: u64) {
        for word in 0..SHEET_WORDS {
            self.set(Word(Sheet::sheet(generation) + word), 0);
        }
    }

    /// How many clearings a writer has begun, and how many are done.
    pub(super) fn clearings(generation: u64, writer: usize) -> [Word; 2] {
        let at = Sheet::sheet(generation) + CLEARINGS + 2 * writer;
        [Word(at), Word(at + 1)]
    }

    fn all_clearings(&self, generation: u64, which: usize) -> u64 {
        (0..=KILLER).map(|writer| self.get(Sheet::clearings(generation, writer)[which])).sum()
    }

    /// Clearings that are done and so do not touch what is set from now on.
    pub(super) fn cleared(&self, generation: u64) -> u64 {
        self.all_clearings(generation, 1)
    }

    pub(super) fn key(generation: u64, writer: usize, line: usize) -> Key {
        Key { writer, line, at: Sheet::sheet(generation) + (writer * LINES + line) * WORDS }
    }

    /// To be asked before the dict is.
    pub(super) fn before(&self, key: Key) -> Before {
        let clears = self.get(key.cleared());
        Before { clears, least: self.get(key.done()).max(self.get(key.seen())) }
    }

    /// What is wrong with what was read.
    pub(super) fn judge(&self, generation: u64, key: Key, before: Before, found: Option<u64>) -> Result<(), String> {
        let most = self.get(key.begun());
        let states = before.least..=most;
        match found {
            Some(state) if states.contains(&state) && !is_removal(state) => {
                self.raise(key.seen(), state);
                Ok(())
            }
            Some(state) => Err(format!("{key:?} is {state}, not one of {states:?}")),
            None if before.least == 0 || self.all_clearings(generation, 0) > before.clears => Ok(()),
            None if most.saturating_sub(before.least) > 4096 || states.clone().any(is_removal) => Ok(()),
            None => Err(format!("{key:?} is not there, but is one of {states:?}")),
        }
    }
}

impl Key {
    pub(super) fn begun(self) -> Word {
        Word(self.at)
    }

    pub(super) fn done(self) -> Word {
        Word(self.at + 1)
    }

    /// The newest state that any process has read.
    pub(super) fn seen(self) -> Word {
        Word(self.at + 2)
    }

    /// How many clearings were done when the state that is done began.
    pub(super) fn cleared(self) -> Word {
        Word(self.at + 3)
    }

    pub(super) fn name(self) -> String {
        match self.line {
            // One of them long, so that keys are of several sizes.
            0 => format!("w{}.{}", self.writer, "long".repeat(60)),
            line => format!("w{}.{line}", self.writer),
        }
    }

    /// The two names of a pair.
    pub(super) fn names(self) -> [String; 2] {
        [format!("a{}", self.writer), format!("b{}", self.writer)]
    }

    /// What names it, for the value to tell by itself.
    fn canary(self) -> u64 {
        0xd1c7_0000 + (self.writer * LINES + self.line) as u64
    }

    /// The value of a state, which tells by itself what it is of and whether it is whole.
    pub(super) fn value(self, state: u64) -> Vec<u8> {
        content::make(self.canary(), state, length(state, self.line))
    }

    /// The state that a value is of, or what is wrong with it.
    pub(super) fn state(self, value: &[u8]) -> Result<u64, String> {
        let state = content::check_of(self.canary(), value)?;
        match length(state, self.line) {
            len if len == value.len() => Ok(state),
            len => Err(format!("{} bytes where state {state} has {len}", value.len())),
        }
    }
}

fn mix(state: u64) -> u64 {
    let mixed = (state ^ (state >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
}

/// Whether this change of a key removes it.
pub(super) fn is_removal(state: u64) -> bool {
    state == 0 || mix(state) % 7 == 0
}

/// Bytes of a state's value: often as many as before, sometimes in spans of their own.
fn length(state: u64, line: usize) -> usize {
    let random = usize::try_from(mix(state + line as u64 * 977)).unwrap_or(0);
    // Some lie in spans of their own, so that space runs short.
    if line == 1 {
        return content::HEAD + random / 16 % 100_000;
    }
    content::HEAD
        + match random % 16 {
            0..8 => 40,
            8..13 => random / 16 % 400,
            13 | 14 => random / 16 % 3000,
            _ => random / 16 % 10_000,
        }
}

pub(super) fn account(number: usize) -> String {
    format!("account {number}")
}

/// An account's value, which tells by itself whether it is whole.
pub(super) fn balance(amount: i64, len: usize) -> Vec<u8> {
    content::make(0xacc0, u64::from_ne_bytes(amount.to_ne_bytes()), content::HEAD + len)
}

pub(super) fn amount(value: &[u8]) -> Result<i64, String> {
    content::check_of(0xacc0, value).map(|word| i64::from_ne_bytes(word.to_ne_bytes()))
}
