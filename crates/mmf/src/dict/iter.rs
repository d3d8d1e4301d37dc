//! All entries of a moment.

use std::sync::atomic::{Ordering, fence};
use std::time::Instant;
use std::vec;

use super::Dict;
use super::heap::Heap;
use super::index::{LONGEST, SLOTS, block_of, bucket, count_of};
use super::record::{self, Head, Kind, STAMP};
use super::shape::at;
use super::transaction::Reader;
use super::value::Encoding;
use crate::error::{Error, ErrorKind, Result};
use crate::spec::Access;

#[cfg(feature = "serde")]
use {super::value::decode, serde::de::DeserializeOwned};

/// A key with its value, as they were at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The bytes of its value.
    pub value: Vec<u8>,
    /// How they are encoded.
    pub encoding: Encoding,
    /// The version of the change that gave the key this value.
    pub version: u64,
}

#[cfg(feature = "serde")]
impl Entry {
    /// The value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Mismatch`] for a value of another type.
    pub fn get<T: DeserializeOwned>(&self) -> Result<T> {
        decode(self.encoding, &self.value)
    }
}

/// The entries of one moment, in no particular order.
#[derive(Debug)]
pub struct Entries(vec::IntoIter<Entry>);

impl Iterator for Entries {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Entries {}

impl Dict {
    /// All keys as they are at one moment, in no particular order.
    ///
    /// # Errors
    ///
    /// As [`entries`](Dict::entries).
    pub fn keys(&self) -> Result<Vec<String>> {
        Ok(self.collect(false)?.into_iter().map(|entry| entry.key).collect())
    }

    /// All entries as they are at one moment, copied. Writers wait while a handle for reading and writing copies them; a read-only
    /// one copies again if somebody wrote meanwhile.
    ///
    /// # Errors
    ///
    /// As [`set_bytes`](Dict::set_bytes), the lock being that of readers; for a read-only handle
    /// [`ErrorKind::Contended`] where somebody wrote meanwhile until the timeout.
    ///
    /// # Examples
    ///
    /// ```
    /// use mmf::{Dict, Name};
    ///
    /// let dict = Dict::create_new(Name::local(format!("moment-{}", std::process::id()))?, 1 << 20)?;
    /// dict.set("one", &1)?;
    /// dict.set("two", &2)?;
    /// let mut sum = 0;
    /// for entry in dict.entries()? {
    ///     sum += entry.get::<i32>()?;
    /// }
    /// assert_eq!(sum, 3);
    /// # Ok::<(), mmf::Error>(())
    /// ```
    pub fn entries(&self) -> Result<Entries> {
        Ok(Entries(self.collect(true)?.into_iter()))
    }

    /// As `entries`, for those who see to it that nobody writes.
    pub(super) fn entries_now(&self) -> Result<Entries> {
        Ok(Entries(self.heap().scan(self.seed, true)?.into_iter()))
    }

    fn collect(&self, values: bool) -> Result<Vec<Entry>> {
        if self.segment.map.access() == Access::ReadWrite {
            let _reader = Reader::lock(self, self.usual())?;
            return self.heap().scan(self.seed, values);
        }
        let deadline = self.usual().deadline();
        loop {
            let before = self.moment()?;
            let entries = self.heap().scan(self.seed, values);
            fence(Ordering::Acquire);
            // Also before an error is believed.
            if self.moment()? == before {
                return entries;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(self.segment.name_it(Error::new(ErrorKind::Contended, "read")));
            }
        }
    }
}

impl Heap<'_> {
    /// All entries, if nobody writes meanwhile.
    fn scan(&self, seed: u64, values: bool) -> Result<Vec<Entry>> {
        let count = count_of(self.map.word(at::BUCKETS)?);
        let mut entries = Vec::new();
        // No more can be taken in than there is, whatever leads there twice.
        let mut room = self.shape.span(self.shape.spans);
        for nth in 0..count {
            let mut line = Some(self.line(nth)?);
            for _ in 0..LONGEST {
                let Some(at) = line else { break };
                let mut words = [0; 8];
                self.map.read_words(at, &mut words)?;
                for slot in words[..SLOTS].iter().filter(|slot| **slot != 0) {
                    let Some((block, head, key)) = self.committed(block_of(*slot))? else { continue };
                    // A split that is under way has it in two buckets.
                    if bucket(record::hash(seed, &key), count) != nth {
                        continue;
                    }
                    let Some(left) = room.checked_sub(key.len() + head.value_len) else {
                        return Err(self.damaged("its entries have more bytes than it has"));
                    };
                    room = left;
                    let Ok(key) = String::from_utf8(key) else { return Err(self.damaged("a key is not UTF-8")) };
                    let mut value = Vec::new();
                    if values {
                        self.append_value(block, &head, &mut value)?;
                    }
                    entries.push(Entry { key, value, encoding: Encoding::of(head.kind), version: head.version });
                }
                line = self.next_line(words[SLOTS])?;
            }
        }
        Ok(entries)
    }

    /// The record that counts of those in a block and before it.
    fn committed(&self, mut block: usize) -> Result<Option<(usize, Head, Vec<u8>)>> {
        for _ in 0..2 {
            let stamp = self.map.word(block + STAMP)?;
            let (head, key) = self.key_at(block)?;
            if stamp > self.map.word(at::COMMIT)? {
                match usize::try_from(self.map.word(block + record::BEFORE)?) {
                    Ok(before) if before != 0 => block = before,
                    _ => return Ok(None),
                }
                continue;
            }
            if head.kind == Kind::Removal || head.version <= self.map.word(at::FLOOR)? {
                return Ok(None);
            }
            return Ok(Some((block, head, key)));
        }
        Ok(None)
    }
}
