//! What [`Dict::check`](crate::dict::handle::Dict::check) and [`Dict::repair`](crate::dict::handle::Dict::repair) tell.

use std::fmt;

/// Problems and keys that a report names; the rest is counted.
const NAMED: usize = 1000;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// Whose value it is about, where that is known.
    pub key: Option<String>,
    /// Where it is, in bytes from the start of the file or memory.
    pub offset: Option<u64>,
    /// What is wrong.
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

/// What was found, and after a repair what was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Keys whose values are whole.
    pub entries: u64,
    /// What is damaged, or was before it was repaired: up to a thousand of them.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub more_problems: u64,
    /// Keys that a repair kept though nothing proves that they had not been removed before it was damaged: up to a
    /// thousand of them.
    pub undated: Vec<String>,
    /// How many more there are.
    pub more_undated: u64,
}

impl Report {
    /// Whether nothing is wrong.
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

/// Figures of a dict. They are read one after the other while others may write.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// How many keys there are.
    pub entries: u64,
    /// Bytes that it may grow to, what it needs for itself included.
    pub capacity: u64,
    /// Bytes of keys' records and the spans that large values lie in, those that are pending included.
    pub used: u64,
    /// Bytes that values of any size can still be put into: free spans, those not grown to yet included.
    pub free: u64,
    /// Bytes that the next [flush](crate::Dict::flush) gives back.
    pub pending: u64,
    /// Bytes in spans begun for records of one size that none of them uses yet, or any more. Records of those sizes fill them, and
    /// before it is full a dict puts what is in them together.
    pub idle: u64,
    /// The share of the space for values that is idle: 0 to 1.
    pub fragmentation: f64,
    /// Bytes of a span, the unit in which space is taken.
    pub span_size: u64,
    /// How many spans the capacity has room for, and how many are taken.
    pub spans: u64,
    /// See `spans`.
    pub spans_taken: u64,
    /// Buckets of the index.
    pub buckets: u64,
    /// The version of the last change, and of the last flush; 0 for none.
    pub version: u64,
    /// See `version`.
    pub flushed: u64,
    /// Whether anything has changed since the last flush.
    pub unflushed: bool,
    /// Handles for reading and writing, of processes that live, that have locked or watched: those that have written, or read all
    /// of one moment; this one among them if it has. Who gets alone, or holds the dict open, is none.
    pub participants: u64,
}
