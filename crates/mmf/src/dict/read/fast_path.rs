//! [`FastKeyReader`]: the fast path of reading a key, in as few guarded calls as possible.
//!
//! The problem: a `get` of a short value must take about as long as its two cache misses, without a
//! lock, beside writers, and must never return a torn or uncommitted value.
//!
//! The algorithm:
//!
//! 1. Load COMMIT, FLOOR, BUCKETS and SUSPECT in one guarded operation.
//! 2. Compute the bucket, and load the directory's word for its span.
//! 3. Compare the slots of the line with the hash's high bits in one guarded operation.
//! 4. If a slot matches, perform a validated read in one guarded operation
//!    ([`copy_validated`](crate::sys::guard::copy_validated)): load the record's stamp; copy header
//!    and key, and up to 128 bytes of the value; load the slot again, and the stamp last.
//! 5. The record counts if both are unchanged, its stamp is at most COMMIT, its version is above
//!    FLOOR, its key is equal, and SUSPECT is 0. If the file may hold it from before it was opened,
//!    its checksum must be right as well.
//! 6. If no slot of the line matches, and there is no further line, load BUCKETS again. If it is
//!    unchanged, the key is absent. Otherwise go to the next line, up to three.
//!
//! In every other case the fast path returns `None`. The caller then takes the slow path
//! ([`get`](crate::dict::read::get)), which handles every case and reports errors.
//!
//! Why it is correct: the slot is loaded in step 3. In step 4 the first load of the stamp comes
//! before all other accesses, and the second loads of the slot and of the stamp come after them.
//!
//! - No stamp is used twice, and a block has stamp 0 while its use changes. So a stamp that is
//!   equal both times was there throughout, and all copied bytes are of that one record.
//! - COMMIT was loaded before, so a stamp up to it is of a committed change.
//! - When the slot was loaded in step 3, it led to this record, and no committed change had
//!   replaced it: a writer stores the slot before COMMIT.
//! - If the block's span had another use meanwhile, other bytes may look like the stamp. Then the
//!   slot has changed; or it leads here again because the key was set again, and then the new
//!   record's stamp is there. That is why the stamp is loaded after the slot.
//!
//! Cost: three guarded operations and two loads, no system call and no atomic read-modify-write.
//!
//! # Two forms of three algorithms
//!
//! Most steps of a change stand once, over an [`Accessor`](crate::mem::Accessor) or a
//! [`PathAccess`](crate::dict::store::accessor::PathAccess): to read a planned word, to take, fill
//! and give back a block, and to reserve and write events. Three pairs remain, because the fast
//! form saves more than 1 % of the instructions of a call. Instructions that a call takes if it
//! uses the slow form alone (x86-64, 1,000 and 100,000 keys):
//!
//! | fast form | slow form | instructions of the slow form alone |
//! | --- | --- | --- |
//! | `get_fast` | `get` | get of 64 B: +210 %; get of a missing key: +115 % |
//! | `find_fast` | `find_slow` | transaction of 100 sets: +15 % |
//! | `replace_fast` | `try_apply` | set of 64 B over an old value: +26 to +33 % |
//!
//! - `get_fast` and `find_fast` compare a line's slots in one guarded call, and validate and copy a
//!   record in another. The slow forms guard each load by itself, so that an error names its place;
//!   they visit all lines, read the record before an uncommitted one, and see the planned stores of
//!   the batch.
//! - `replace_fast` plans one value in place of another. `try_apply` plans any number of changes,
//!   removals and new keys, and keeps flushed records for a power cut.
//!
//! Tests here and in `write/fast_path_tests.rs` run both forms of each pair over the same dict and
//! compare the results.

use std::ops::Deref;
use std::sync::atomic::Ordering;

use crate::dict::format::layout::at;
use crate::dict::format::record::{RecordHeader, STAMP};
use crate::dict::format::slot::{block_of, tag_in_upper_half};
use crate::dict::read::sink::{Found, Sink};
use crate::dict::store::records::has_valid_checksum;
use crate::dict::store::storage::Storage;
use crate::dict::store::work_limit::WorkLimit;
use crate::mapping::COPY_CHUNK;
use crate::sys::fence;

/// The number of lines of a bucket that the fast path visits. Nearly all buckets have fewer.
const FAST_PATH_LINES: usize = 3;

/// Fast path of reading a key.
#[derive(Clone, Copy)]
pub(in crate::dict) struct FastKeyReader<'s>(&'s Storage<'s>);

impl<'s> Deref for FastKeyReader<'s> {
    type Target = Storage<'s>;

    #[inline(always)]
    fn deref(&self) -> &Storage<'s> {
        self.0
    }
}

impl<'s> FastKeyReader<'s> {
    #[inline(always)]
    pub(in crate::dict) fn new(storage: &'s Storage<'s>) -> Self {
        FastKeyReader(storage)
    }

    /// Reads a key. Returns `Some(Some(_))` for a committed record whose value is now in `sink`,
    /// `Some(None)` if the key is absent, and `None` for every other case, damage included.
    ///
    /// It handles a record in one of the bucket's first three lines, with its value in its block,
    /// if no writer changes it meanwhile. A value that is longer than the sink's room is copied
    /// again once its length is known, up to [`COPY_CHUNK`] bytes.
    ///
    /// COMMIT and FLOOR are loaded first. A record above that COMMIT is left to the slow path. A
    /// record that is cleared later was there when this call began, or was set while it ran.
    #[inline(always)]
    #[allow(clippy::option_option, reason = "the inner one is the answer")]
    pub(in crate::dict) fn get_fast(self, hash: u64, key: &[u8], sink: &mut impl Sink) -> Option<Option<Found>> {
        let map = self.map.fast_access()?;
        let [commit, floor, buckets, suspect] = map.four_words(at::COMMIT)?;
        let mut line = self.index().line_fast(map, hash, buckets)?;
        for _ in 0..FAST_PATH_LINES {
            let slots = map.match_eight(line, !0xff, tag_in_upper_half(hash))?;
            if slots.bits != 0 {
                let room = sink.room();
                let len = room.len();
                let (slot, words) = self.index().record_in_line(map, line, slots, key, room)?;
                let [stamp, version, what, sum] = words;
                // The subtraction also refuses stamp 0: the first change has version 1. After a
                // failed sync the slow path verifies each value.
                if stamp.wrapping_sub(1) >= commit || version <= floor || suspect != 0 {
                    return None;
                }
                let (kind, value_len) = RecordHeader::inline_kind_and_len(what, key.len())?;
                let found = Some(Found { version, kind });
                let block = block_of(slots.word);
                let is_valid = |value| {
                    let head = || RecordHeader::of(version, what, sum);
                    !self.records().is_from_before_open(version, stamp)
                        || head().is_some_and(|head| has_valid_checksum(self.seed, block, stamp, &head, key, value))
                };
                // SAFETY: `record_in_line` returned `Some`, so it has filled all of `room`, whose
                // length is `len`.
                if unsafe { sink.filled(len, value_len) } {
                    return sink.value().is_none_or(is_valid).then_some(found);
                }
                // The value is longer than the room. A copy above this length must end with the
                // call's timeout, which the slow path ensures.
                if value_len > COPY_CHUNK {
                    return None;
                }
                sink.take(&self, block, &RecordHeader::of(version, what, sum)?, &WorkLimit::unset()).ok()?;
                fence(Ordering::Acquire);
                let is_same = map.word(slot)? == slots.word && map.word(block + STAMP)? == stamp;
                return (is_same && sink.value().is_none_or(is_valid)).then_some(found);
            }
            // No slot matches. Without a match `word` is the line's eighth word: 0 in the last.
            if slots.word == 0 {
                fence(Ordering::Acquire);
                return (map.word(at::BUCKETS)? == buckets).then_some(None);
            }
            line = self.index().next_line(slots.word).ok()??;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dict::format::record;
    use crate::dict::read::get::KeyReader;
    use crate::dict::store::index::EntryPosition;
    use crate::dict::store::write_batch::WriteBatch;
    use crate::dict::write::lookup::Lookup;
    use crate::dict::write::session::ReplacedRecord;
    use crate::dict::{Dict, Encoding};
    use crate::segment::Deadline;

    /// Returns the result of the fast path, with the value.
    fn fast_get(dict: &Dict, key: &str) -> Option<Option<(Found, Vec<u8>)>> {
        let hash = dict.hash(key, "read").unwrap();
        let mut bytes = Vec::with_capacity(if hash % 2 == 0 { 0 } else { 100 });
        let found = FastKeyReader::new(&dict.storage()).get_fast(hash, key.as_bytes(), &mut &mut bytes)?;
        Some(found.map(|found| (found, bytes)))
    }

    /// Returns the result of the slow path, with the value.
    fn slow_get(dict: &Dict, key: &str) -> Option<(Found, Vec<u8>)> {
        let mut bytes = Vec::new();
        let hash = dict.hash(key, "read").unwrap();
        let found = KeyReader::new(&dict.storage())
            .get(hash, key.as_bytes(), &mut &mut bytes, Deadline::Never, Deadline::Never)
            .unwrap();
        found.map(|found| (found, bytes))
    }

    /// Compares the two paths, and returns for how many of the keys the fast path was enough.
    fn compare<'k>(dict: &Dict, keys: impl Iterator<Item = &'k String>) -> usize {
        let mut enough = 0;
        for key in keys {
            if let Some(found) = fast_get(dict, key) {
                assert_eq!(found, slow_get(dict, key), "{key}");
                enough += 1;
            }
        }
        enough
    }

    #[test]
    fn the_fast_path_finds_what_the_slow_path_finds() {
        let name = crate::Name::local(format!("mmf-fast-{}", std::process::id())).unwrap();
        let dict = Dict::create_new(&name, 8 << 20).unwrap();
        let keys: Vec<String> = (0..3000_usize).map(|nth| format!("{nth:0width$}", width = 1 + nth % 60)).collect();
        assert_eq!(compare(&dict, keys.iter()), 0, "there is no index yet");
        for (nth, key) in keys.iter().enumerate().filter(|(nth, _)| nth % 4 != 0) {
            dict.set_encoded(
                key,
                if nth % 3 == 0 { Encoding::MessagePack } else { Encoding::Bytes },
                &vec![7; nth % 90],
            )
            .unwrap();
        }
        let enough = compare(&dict, keys.iter());
        assert!(enough > keys.len() * 9 / 10, "{enough}");
        for (nth, key) in keys.iter().enumerate() {
            match nth % 5 {
                0 => dict.remove(key).map(drop).unwrap(),
                1 => dict.set_bytes(key, &vec![1; nth]).map(drop).unwrap(),
                _ => {}
            }
        }
        dict.set_bytes(&keys[0], &vec![2; 100_000]).unwrap();
        assert!(fast_get(&dict, &keys[0]).is_none(), "a value in spans");
        let enough = compare(&dict, keys.iter());
        assert!(enough > keys.len() * 9 / 10, "{enough}");
        dict.clear().unwrap();
        assert_eq!(compare(&dict, keys.iter()), keys.len());
    }

    #[test]
    fn the_fast_path_finds_the_slot_that_the_slow_path_finds() {
        let name = crate::Name::local(format!("mmf-fast-find-{}", std::process::id())).unwrap();
        let dict = Dict::create_new(&name, 8 << 20).unwrap();
        let keys: Vec<String> = (0..3000_usize).map(|nth| format!("{nth:0width$}", width = 1 + nth % 60)).collect();
        for (nth, key) in keys.iter().enumerate().filter(|(nth, _)| nth % 4 != 0) {
            dict.set_bytes(key, &vec![7; if nth % 100 == 1 { 20_000 } else { nth % 90 }]).unwrap();
        }
        let map = &dict.segment.map;
        let (floor, buckets) = (map.word(at::COMMIT).unwrap() / 2, map.word(at::BUCKETS).unwrap());
        let mut batch = WriteBatch::new();
        let mut writer = dict.writer(&mut batch, "find").unwrap();
        let (mut found, mut cleared, mut in_spans) = (0, 0, 0);
        for key in &keys {
            let hash = dict.hash(key, "find").unwrap();
            let fast =
                Lookup::new(&mut writer).find_fast(map.fast_access().unwrap(), hash, key.as_bytes(), floor, buckets);
            let Some((slot, fast)) = fast else { continue };
            let (place, slow) = Lookup::new(&mut writer).find_slow(hash, key.as_bytes(), floor).unwrap();
            assert!(matches!(place, EntryPosition::Entry(at) if at == slot), "{key}: {place:?}");
            let slow = slow.unwrap();
            let of = |record: ReplacedRecord| (record.block, record.in_spans, record.cleared);
            assert_eq!(of(fast), of(slow), "{key}");
            found += 1;
            cleared += usize::from(fast.cleared);
            in_spans += usize::from(fast.in_spans);
        }
        assert!(found > 2000 && cleared > 900 && in_spans > 20, "{found} {cleared} {in_spans}");
    }

    #[test]
    fn an_empty_slot_is_no_record_whatever_a_keys_hash_is() {
        let name = crate::Name::local(format!("mmf-fast-empty-{}", std::process::id())).unwrap();
        let mut dict = Dict::create_new(&name, 1 << 20).unwrap();
        // With this seed the high bits of the empty key's hash are 0, as in an empty slot.
        dict.seed = 21_071_546;
        assert_eq!(record::hash(dict.seed, b"") >> 40, 0);
        dict.set_bytes("another", b"value").unwrap();
        for value in [&b"first"[..], b"second"] {
            dict.set_bytes("", value).unwrap();
            assert_eq!(dict.get_bytes("").unwrap().unwrap(), value);
        }
        assert!(dict.remove("").unwrap() && !dict.contains_key("").unwrap());
    }

    #[test]
    fn the_fast_path_returns_nothing_that_is_uncommitted_or_cleared() {
        let name = crate::Name::local(format!("mmf-fast-not-{}", std::process::id())).unwrap();
        let dict = Dict::create_new(&name, 1 << 20).unwrap();
        dict.set_bytes("key", b"value").unwrap();
        assert!(fast_get(&dict, "key").is_some());
        let map = &dict.segment.map;
        let commit = map.word(at::COMMIT).unwrap();
        map.put_word(at::COMMIT, commit - 1).unwrap();
        assert!(fast_get(&dict, "key").is_none());
        map.put_word(at::COMMIT, commit).unwrap();
        map.put_word(at::FLOOR, commit).unwrap();
        assert!(fast_get(&dict, "key").is_none());
        map.put_word(at::FLOOR, 0).unwrap();
        // The fast path of finding ignores a line to which the batch has a store.
        let hash = dict.hash("key", "find").unwrap();
        let mut batch = WriteBatch::new();
        let mut writer = dict.writer(&mut batch, "find").unwrap();
        let buckets = map.word(at::BUCKETS).unwrap();
        let (slot, _) =
            Lookup::new(&mut writer).find_fast(map.fast_access().unwrap(), hash, b"key", 0, buckets).unwrap();
        writer.batch.push(slot ^ 8, 0);
        assert!(Lookup::new(&mut writer).find_fast(map.fast_access().unwrap(), hash, b"key", 0, buckets).is_none());
    }
}
