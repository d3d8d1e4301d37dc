//! The changes of a dict in which a process dies, and what must be there before and after.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use mmf::{Access, Dict, Mapping};

use super::traced::mark;

pub(super) type Contents = BTreeMap<String, Vec<u8>>;

/// The least there is.
pub(super) const CAPACITY: u64 = 1 << 20;
/// More entries than this, and the first bucket is split.
const CROWD: usize = 219;
/// Where in a dict of that capacity things are, as the format says.
pub(super) mod at {
    pub(in super::super) const PAYLOAD: usize = super::super::at::PAYLOAD;
    pub(in super::super) const REDO_LEN: usize = PAYLOAD + 128;
    const SIDE: usize = 16 << 10;
    pub(super) const DIRECTORY: usize = PAYLOAD + 4096 + 2 * SIDE;
    const MOST: usize = 256;
    const TABLE: usize = DIRECTORY + 8 * MOST;
    pub(super) const COMMIT: usize = PAYLOAD;
    pub(super) const BUCKETS: usize = PAYLOAD + 16;
    pub(super) const FLUSHED: usize = PAYLOAD + 264;
    pub(super) const BOOT: usize = PAYLOAD + 304;
    pub(super) const FIRST_SPAN: usize = (TABLE + 32 * MOST).next_multiple_of(4096);
    pub(super) const SPAN: usize = 4096;
    pub(super) const NEXT: usize = 56;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    First,
    New,
    Same,
    Larger,
    Smaller,
    IntoSpans,
    OutOfSpans,
    InSpans,
    Remove,
    Transaction,
    Split,
    Shorten,
    Grow,
    Move,
    Clear,
    Flush,
    FlushAgain,
    SameKept,
    RemoveKept,
    TransactionKept,
    MoveKept,
    /// Of a file in which a value and a part of the index are damaged.
    Repair,
    /// Opens a file that another boot of the machine left without a flush.
    Rebuild,
    /// Carries out what a transaction's process has left in the redo log, and then makes a change
    /// of its own.
    Finish,
}

pub(super) const OPERATIONS: [Operation; 24] = [
    Operation::First,
    Operation::New,
    Operation::Same,
    Operation::Larger,
    Operation::Smaller,
    Operation::IntoSpans,
    Operation::OutOfSpans,
    Operation::InSpans,
    Operation::Remove,
    Operation::Transaction,
    Operation::Split,
    Operation::Shorten,
    Operation::Grow,
    Operation::Move,
    Operation::Clear,
    Operation::Flush,
    Operation::FlushAgain,
    Operation::SameKept,
    Operation::RemoveKept,
    Operation::TransactionKept,
    Operation::MoveKept,
    Operation::Repair,
    Operation::Rebuild,
    Operation::Finish,
];

fn value(fill: u8, len: usize) -> Vec<u8> {
    (0..len).map(|n| fill ^ u8::try_from(n % 251).unwrap_or_default()).collect()
}

fn open(path: &Path) -> Dict {
    // One instruction at a time, a change takes minutes on a busy machine.
    let options = Dict::options().timeout(Some(Duration::from_secs(2))).work_time(Duration::from_secs(3600));
    options.open(path).expect("the dict")
}

impl Operation {
    pub(super) fn is_short(self) -> bool {
        matches!(
            self,
            Operation::First
                | Operation::New
                | Operation::Same
                | Operation::Remove
                | Operation::SameKept
                | Operation::RemoveKept
                | Operation::Flush
        )
    }

    /// Whether it begins after a flush, so that what is freed is kept for a power cut.
    fn is_kept(self) -> bool {
        matches!(
            self,
            Operation::FlushAgain
                | Operation::SameKept
                | Operation::RemoveKept
                | Operation::TransactionKept
                | Operation::MoveKept
                | Operation::Rebuild
        )
    }

    /// What is there before.
    pub(super) fn old(self) -> Contents {
        let mut old = Contents::new();
        match self {
            Operation::First => return old,
            Operation::Split | Operation::Shorten => {
                for n in 0..CROWD {
                    old.insert(format!("{n}"), value(3, 8));
                }
                return old;
            }
            Operation::Move | Operation::MoveKept => {
                // What is left of many, in every span of theirs a few.
                for n in (0..1026).filter(|n| n % 8 == 0) {
                    old.insert(format!("{n:04}"), value(4, 400));
                }
                // And what leaves them fewer spans to be gone through.
                for filler in ["filler", "filler too"] {
                    old.insert(filler.to_owned(), value(6, 64 * at::SPAN));
                }
                return old;
            }
            _ => {}
        }
        old.insert("a".to_owned(), value(1, 100));
        old.insert("b".to_owned(), value(2, 300));
        // Every place in a value's spans is looked at by a repair, so there its second is almost
        // empty.
        old.insert("c".to_owned(), value(3, if self == Operation::Repair { at::SPAN + 10 } else { 9000 }));
        for n in 0..8 {
            old.insert(format!("other {n}"), value(5, 20 * n));
        }
        if self == Operation::Grow {
            // Almost all that the file was grown by at first.
            old.insert("filler".to_owned(), value(6, 47 * at::SPAN));
        }
        old
    }

    /// What is changed, all at once.
    fn changes(self) -> Vec<(&'static str, Option<Vec<u8>>)> {
        match self {
            Operation::First | Operation::New | Operation::Split | Operation::Shorten => {
                vec![("new", Some(value(6, 60)))]
            }
            Operation::Same | Operation::SameKept => vec![("a", Some(value(7, 100)))],
            Operation::Larger => vec![("a", Some(value(7, 1500)))],
            Operation::Smaller => vec![("b", Some(value(7, 10)))],
            Operation::IntoSpans => vec![("a", Some(value(7, 10_000)))],
            Operation::OutOfSpans => vec![("c", Some(value(7, 50)))],
            Operation::InSpans => vec![("c", Some(value(7, 5000)))],
            Operation::Remove | Operation::RemoveKept => vec![("b", None)],
            Operation::Transaction | Operation::TransactionKept | Operation::Finish => vec![
                ("a", Some(value(8, 101))),
                ("b", None),
                ("c", Some(value(8, 6000))),
                ("new", Some(value(8, 30))),
                ("new too", Some(value(8, 700))),
            ],
            Operation::Grow => vec![("a", Some(value(7, 16_000)))],
            Operation::Move | Operation::MoveKept => vec![("large", Some(value(9, 10_000)))],
            Operation::Clear | Operation::Flush | Operation::FlushAgain | Operation::Rebuild => vec![],
            // Its value is the damaged one.
            Operation::Repair => vec![("b", None)],
        }
    }

    /// What may be there afterwards, from the first to the last.
    pub(super) fn allowed(self) -> Vec<Contents> {
        let old = self.old();
        if self == Operation::Clear {
            return vec![old, Contents::new()];
        }
        let mut new = old.clone();
        for (key, value) in self.changes() {
            match value {
                Some(value) => new.insert(key.to_owned(), value),
                None => new.remove(key),
            };
        }
        if self == Operation::Repair {
            // No process uses it before the repair is done.
            return vec![new];
        }
        let mut allowed = vec![old, new];
        if self == Operation::Finish {
            let mut more = allowed[1].clone();
            more.insert("more".to_owned(), value(1, 40));
            allowed.push(more);
        }
        allowed
    }

    /// Whether it has done what it is there for.
    pub(super) fn has_happened(self, before: &[u8], after: &[u8]) -> bool {
        let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let is_moved = |at: usize, by: u64| word(after, at) >= word(before, at) + by;
        match self {
            Operation::Split => is_moved(at::BUCKETS, 1),
            Operation::Shorten | Operation::Repair | Operation::Rebuild => is_moved(at::BUCKETS, 1 << 40),
            Operation::Grow => after.len() > before.len(),
            // Each record that is moved has a commit of its own.
            Operation::Move | Operation::MoveKept => is_moved(at::COMMIT, 3),
            Operation::Flush | Operation::FlushAgain => is_moved(at::FLUSHED, 1),
            _ => is_moved(at::COMMIT, 1),
        }
    }

    /// Makes the dict. `half`: what a transaction's process has left.
    pub(super) fn prepare(self, path: &Path, half: &[u8]) {
        match self {
            Operation::Finish => std::fs::write(path, half).expect("room for a copy"),
            // Only some buckets have more than a line; which ones is decided by chance.
            Operation::Shorten => loop {
                self.fill(path);
                if first_bucket_is_long(path) {
                    return;
                }
                std::fs::remove_file(path).expect("the file");
            },
            _ => self.fill(path),
        }
    }

    fn fill(self, path: &Path) {
        let dict = Dict::create_new(path, CAPACITY).expect("a new dict");
        if matches!(self, Operation::Move | Operation::MoveKept) {
            let old = self.old();
            for filler in ["filler", "filler too"] {
                dict.set_bytes(filler, &old[filler]).expect("room");
            }
            // Until there is no span left.
            let mut keys = (0..).map(|n| format!("{n:04}"));
            while keys.next().is_some_and(|key| dict.set_bytes(&key, &value(4, 400)).is_ok()) {}
            for key in dict.keys().expect("the keys") {
                if !old.contains_key(&key) {
                    dict.remove(&key).expect("the lock");
                }
            }
        }
        for (key, value) in self.old() {
            // What is there stays where it is.
            dict.insert_bytes_if_absent(&key, &value).expect("room");
        }
        if matches!(self, Operation::IntoSpans | Operation::InSpans) {
            // Spans that were used before are taken first.
            dict.set_bytes("gone", &value(1, 5000)).expect("room");
            dict.remove("gone").expect("the lock");
        }
        if self.is_kept() {
            dict.flush().expect("a flush");
        }
        if self == Operation::Repair {
            drop(dict);
            damage(path);
            return;
        }
        if self == Operation::Rebuild {
            dict.set_bytes("a", &value(1, 100)).expect("room");
            drop(dict);
            let mut bytes = std::fs::read(path).expect("the file");
            bytes[at::BOOT] ^= 2;
            std::fs::write(path, bytes).expect("room for the file");
            return;
        }
        if self == Operation::FlushAgain {
            for fill in [1, 1] {
                dict.remove("a").expect("the lock");
                dict.set_bytes("a", &value(fill, 100)).expect("room");
                dict.remove("other 3").expect("the lock");
                dict.set_bytes("other 3", &value(5, 60)).expect("room");
            }
        }
    }

    /// What the traced process does, between two marks.
    pub(super) fn act(self, path: &Path) {
        if self == Operation::Repair {
            mark();
            let report = Dict::repair(path).expect("a repair");
            mark();
            assert!(!report.is_whole());
            return;
        }
        if self == Operation::Rebuild {
            mark();
            std::mem::forget(open(path));
            return mark();
        }
        let dict = open(path);
        if self != Operation::Finish {
            // To take part.
            dict.snapshot(|_| Ok(())).expect("the lock");
        }
        let (changes, more) = (self.changes(), value(1, 40));
        mark();
        match (self, &changes[..]) {
            (Operation::Finish, _) => drop(dict.set_bytes("more", &more).expect("room")),
            (Operation::Clear, _) => drop(dict.clear().expect("the lock")),
            (Operation::Flush | Operation::FlushAgain, _) => dict.flush().expect("a flush"),
            (_, [(key, Some(value))]) => drop(dict.set_bytes(key, value).expect("room")),
            (_, [(key, None)]) => assert!(dict.remove(key).expect("the lock")),
            (_, changes) => dict
                .transaction(|tx| {
                    for (key, value) in changes {
                        match value {
                            Some(value) => tx.set_bytes(key, value)?,
                            None => assert!(tx.remove(key)?),
                        }
                    }
                    Ok(())
                })
                .expect("room"),
        }
        mark();
        std::mem::forget(dict);
    }
}

/// Damages a value, and the slots of every other bucket.
fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).expect("the file");
    let value = value(2, 300);
    let at = bytes.windows(value.len()).position(|here| here == value).expect("the value of b");
    bytes[at + 100] ^= 1;
    let span = usize::from(bytes[at::DIRECTORY]) - 1;
    for bucket in (0..64).step_by(2) {
        bytes[at::FIRST_SPAN + span * at::SPAN + bucket * 64..][..at::NEXT].fill(0);
    }
    std::fs::write(path, bytes).expect("room for the file");
}

/// Whether the bucket that is split next goes on in another line.
fn first_bucket_is_long(path: &Path) -> bool {
    let map = Mapping::options().access(Access::ReadOnly).open(path).expect("the file");
    let word = |at| map.load::<u64>(at, std::sync::atomic::Ordering::SeqCst).expect("a word");
    let span = usize::try_from(word(at::DIRECTORY) - 1).expect("a small number");
    word(at::FIRST_SPAN + span * at::SPAN + at::NEXT) != 0
}
