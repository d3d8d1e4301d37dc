//! [`Report`]: the result of [`Dict::check`](crate::dict::handle::Dict::check) and
//! [`Dict::repair`](crate::dict::handle::Dict::repair); [`Stats`]: the figures of a dict.

use std::fmt;

/// The number of problems, and of keys, that a report names; it counts the rest.
const NAMED: usize = 1000;

/// A fault that a check or a repair has found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The key whose value is affected, if it is known.
    pub key: Option<String>,
    /// The place of the fault, in bytes from the start of the file or memory.
    pub offset: Option<u64>,
    /// A description of the fault.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = &self.key {
            write!(f, "{key:?}: ")?;
        }
        f.write_str(&self.what)?;
        if let Some(offset) = self.offset {
            write!(f, " (at byte {offset})")?;
        }
        Ok(())
    }
}

/// The result of a check or a repair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The number of keys whose values are whole.
    pub entries: u64,
    /// The faults that are present, or were before the repair: up to 1000 of them.
    pub problems: Vec<Problem>,
    /// The number of further faults.
    pub more_problems: u64,
    /// Keys that a repair kept, although they may have been removed before the damage: up to 1000
    /// of them.
    pub undated: Vec<String>,
    /// The number of further such keys.
    pub more_undated: u64,
}

impl Report {
    /// Returns whether the report names neither a fault nor an undated key.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.problems.is_empty() && self.undated.is_empty()
    }

    pub(in crate::dict) fn add(&mut self, key: Option<&[u8]>, offset: Option<usize>, what: impl Into<String>) {
        if self.problems.len() >= NAMED {
            self.more_problems += 1;
            return;
        }
        let key = key.map(|key| String::from_utf8_lossy(key).into_owned());
        self.problems.push(Problem { key, offset: offset.map(|offset| offset as u64), what: what.into() });
    }

    pub(in crate::dict) fn add_undated(&mut self, key: &[u8]) {
        if self.undated.len() >= NAMED {
            self.more_undated += 1;
        } else {
            self.undated.push(String::from_utf8_lossy(key).into_owned());
        }
    }
}

/// The figures of a dict. They are read one after the other, while other processes may write.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// The number of keys.
    pub entries: u64,
    /// The number of bytes that the dict may grow to, its own structures included.
    pub capacity: u64,
    /// The bytes of all records and of the spans of large values, pending ones included.
    pub used: u64,
    /// The bytes of free spans, which values of any size can use. Includes the spans that the dict
    /// has not grown to yet.
    pub free: u64,
    /// The bytes that the next [flush](crate::Dict::flush) frees.
    pub pending: u64,
    /// The unused bytes in spans that hold records of one size class. Only records of that class
    /// use them. When the dict is full, compaction moves records together and frees whole spans.
    pub idle: u64,
    /// The share of all spans' bytes that is idle: 0 to 1.
    pub fragmentation: f64,
    /// The size of a span in bytes. A span is the unit in which a dict takes space.
    pub span_size: u64,
    /// The number of spans that the capacity has room for.
    pub spans: u64,
    /// The number of spans in use.
    pub spans_taken: u64,
    /// The number of buckets of the index.
    pub buckets: u64,
    /// The version of the last change, or 0 if there was none.
    pub version: u64,
    /// The version of the last change as of the last flush, or 0 if there was no flush.
    pub flushed: u64,
    /// Whether the dict has changed since the last flush.
    pub unflushed: bool,
    /// The number of participants: handles for reading and writing, of living processes, that have
    /// written, watched, or read all entries of one moment. A handle that has only called `get`, or
    /// was only opened, is not a participant.
    pub participants: u64,
}
