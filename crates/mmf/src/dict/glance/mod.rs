//! The usual cases of getting and finding, in as few guarded calls as they take. What is not as usual is `None`: then those who ask go
//! the long way, which says what there is, or what is wrong.
//!
//! Why what is read at a glance is right: the slot is loaded, then the record's stamp, then head, key and value are copied, then
//! the slot is loaded again and the stamp last, each after what comes before it
//! ([`copy_between`](crate::sys::guard::copy_between)). A stamp that is the same both times was there throughout, since none comes twice
//! and a block has none while it changes hands; so all that was copied is of that one record. COMMIT was loaded before,
//! so a stamp up to it is one of a committed change. And when the slot was loaded first, it led to this record, which nothing
//! had replaced: who replaces it stores the slot before COMMIT.
//!
//! What looks like a stamp may be other bytes, where the block's span had another use meanwhile. Then the slot has changed; or it
//! leads here again, since the key is set again, and then the new record's stamp is there: so the stamp is looked at behind the
//! slot.

mod set;

use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;

use super::heap::Heap;
use super::index::{block_of, bucket, count_of, tag_in_upper_half};
use super::limit::Limit;
use super::read::{Found, Sink, has_its_sum};
use super::record::{HEAD, Head, STAMP, VERSION};
use super::shape::{LINE, at, number};
use super::write::{Old, Step, Writer};
use crate::mapping::{Glance, PIECE};
use crate::sys::fence;
use crate::sys::guard::Matches;

/// Lines of a bucket that are looked at. Nearly all have fewer.
const NEAR: usize = 3;

impl Heap<'_> {
    /// The usual case, in as few steps as it takes: the bucket leads to the key's record, or to nothing; the record
    /// is committed and whole in its block; the value is no longer than what was asked for before; and nobody changes any
    /// of it meanwhile. `None` is everything else, damage included.
    ///
    /// COMMIT and FLOOR are loaded first. A record up to that COMMIT is committed; one above it is looked at again. A record
    /// that is cleared later was there when this began, or came while it ran.
    #[inline(always)]
    #[allow(clippy::option_option, reason = "the inner one is the answer")]
    pub(super) fn glance(&self, hash: u64, key: &[u8], sink: &mut impl Sink) -> Option<Option<Found>> {
        let map = self.map.glance()?;
        let [commit, floor, buckets, suspect] = map.four_words(at::COMMIT)?;
        let mut line = self.line_at_a_glance(map, hash, buckets)?;
        for _ in 0..NEAR {
            let slots = map.match_eight(line, !0xff, tag_in_upper_half(hash))?;
            if slots.bits != 0 {
                let room = sink.room();
                let len = room.len();
                let (slot, words) = self.record_in_line(map, line, slots, key, room)?;
                let [stamp, version, what, sum] = words;
                // The first change has the version 1. After a failed sync each value is verified.
                if stamp.wrapping_sub(1) >= commit || version <= floor || suspect != 0 {
                    return None;
                }
                let (kind, value_len) = Head::usual(what, key.len())?;
                let found = Some(Found { version, kind });
                let block = block_of(slots.word);
                let is_sound = |value| {
                    let head = || Head::of(version, what, sum);
                    !self.is_old(version, stamp)
                        || head().is_some_and(|head| has_its_sum(self.seed, block, stamp, &head, key, value))
                };
                // SAFETY: the room was filled.
                if unsafe { sink.filled(len, value_len) } {
                    return sink.value().is_none_or(is_sound).then_some(found);
                }
                // Its length is known now. A long copy has to end with the call's timeout.
                if value_len > PIECE {
                    return None;
                }
                sink.take(self, block, &Head::of(version, what, sum)?, &Limit::unset()).ok()?;
                fence(Ordering::Acquire);
                let is_same = map.word(slot)? == slots.word && map.word(block + STAMP)? == stamp;
                return (is_same && sink.value().is_none_or(is_sound)).then_some(found);
            }
            // None of them matches, so this is the last.
            if slots.word == 0 {
                fence(Ordering::Acquire);
                return (map.word(at::BUCKETS)? == buckets).then_some(None);
            }
            line = self.next_line(slots.word).ok()??;
        }
        None
    }

    /// The first line of a hash's bucket.
    #[inline(always)]
    pub(super) fn line_at_a_glance(&self, map: Glance<'_>, hash: u64, buckets: u64) -> Option<usize> {
        let count = count_of(buckets);
        if count == 0 {
            return None;
        }
        let bucket = bucket(hash, count);
        let shift = self.shape.lines_shift();
        let span = number(map.word(self.shape.directory + 8 * number(bucket >> shift))?).wrapping_sub(1);
        let line = number(bucket & ((1 << shift) - 1)) * LINE;
        (span < self.shape.spans).then(|| self.shape.span(span) + line)
    }

    /// The slot that is the first of a line's matches, and of the record that it leads to the stamp and the other words of its head, if
    /// the key is there, and all is the same after `value` is filled with what is behind it.
    #[inline(always)]
    fn record_in_line(
        &self,
        map: Glance<'_>,
        line: usize,
        slots: Matches,
        key: &[u8],
        value: &mut [MaybeUninit<u8>],
    ) -> Option<(usize, [u64; 4])> {
        const { assert!(HEAD == VERSION + 24 && at::SUSPECT == at::COMMIT + 24) };
        let slot = line + 8 * slots.bits.trailing_zeros() as usize;
        // Where nothing is, the sums may pass the end of memory, and its stamp's place is refused.
        let block = block_of(slots.word);
        let (stamp, head) = (block.wrapping_add(STAMP), block.wrapping_add(VERSION));
        Some((slot, map.read_between((slot, slots.word), stamp, head, key, value)?))
    }
}

impl Writer<'_> {
    /// Has what changes will look at fetched into the caches: all their buckets at once, and then all their records.
    pub(super) fn fetch(&self, changes: &[Step<'_>], buckets: u64) {
        let heap = self.heap;
        let Some(map) = heap.map.glance() else { return };
        let lines =
            || changes.iter().filter_map(|change| Some((change, heap.line_at_a_glance(map, change.hash, buckets)?)));
        lines().for_each(|(_, line)| map.prefetch(line));
        for (change, line) in lines() {
            let slots = map.match_eight(line, !0xff, tag_in_upper_half(change.hash));
            if let Some(slots) = slots.filter(|slots| slots.bits != 0) {
                map.prefetch(block_of(slots.word));
                map.prefetch(block_of(slots.word).wrapping_add(LINE));
            }
        }
    }

    /// The same where the first line of the bucket leads to it; `None` is everything else.
    #[inline(always)]
    pub(super) fn find_at_a_glance(
        &self,
        map: Glance<'_>,
        hash: u64,
        key: &[u8],
        floor: u64,
        buckets: u64,
    ) -> Option<(usize, Old)> {
        self.find_in_line(map, self.heap.line_at_a_glance(map, hash, buckets)?, hash, key, floor)
    }

    /// The same, in the first line of the key's bucket.
    #[inline(always)]
    fn find_in_line(&self, map: Glance<'_>, line: usize, hash: u64, key: &[u8], floor: u64) -> Option<(usize, Old)> {
        if self.plan.may_have_of_line(line) {
            return None;
        }
        let slots = map.match_eight(line, !0xff, tag_in_upper_half(hash))?;
        // Empty slots match the one tag of 0, and what they lead to may look like the empty key's record.
        if slots.bits == 0 || slots.word == 0 {
            return None;
        }
        let (slot, [stamp, version, what, sum]) = self.heap.record_in_line(map, line, slots, key, &mut [])?;
        let head = Head::of(version, what, sum).filter(|head| stamp != 0 && head.key_len == key.len())?;
        Some((slot, Old { block: block_of(slots.word), in_spans: head.in_spans, cleared: version <= floor }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Dict;
    use super::super::plan::Plan;
    use super::super::record;
    use super::super::value::Encoding;
    use super::*;
    use crate::segment::Until;

    /// What a glance tells, and the value with it.
    fn at_a_glance(dict: &Dict, key: &str) -> Option<Option<(Found, Vec<u8>)>> {
        let hash = dict.hash(key, "read").unwrap();
        let mut bytes = Vec::with_capacity(if hash % 2 == 0 { 0 } else { 100 });
        let found = dict.heap().glance(hash, key.as_bytes(), &mut &mut bytes)?;
        Some(found.map(|found| (found, bytes)))
    }

    /// The same by a closer look.
    fn for_sure(dict: &Dict, key: &str) -> Option<(Found, Vec<u8>)> {
        let mut bytes = Vec::new();
        let hash = dict.hash(key, "read").unwrap();
        let found = dict.heap().get(hash, key.as_bytes(), &mut &mut bytes, Until::Forever, Until::Forever).unwrap();
        found.map(|found| (found, bytes))
    }

    /// Compares both, and gives how many of the keys a glance is enough for.
    fn compare<'k>(dict: &Dict, keys: impl Iterator<Item = &'k String>) -> usize {
        let mut enough = 0;
        for key in keys {
            if let Some(found) = at_a_glance(dict, key) {
                assert_eq!(found, for_sure(dict, key), "{key}");
                enough += 1;
            }
        }
        enough
    }

    #[test]
    fn what_a_glance_tells_is_what_a_closer_look_finds() {
        let name = crate::Name::local(format!("mmf-glance-{}", std::process::id())).unwrap();
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
        assert!(at_a_glance(&dict, &keys[0]).is_none(), "a value in spans");
        let enough = compare(&dict, keys.iter());
        assert!(enough > keys.len() * 9 / 10, "{enough}");
        dict.clear().unwrap();
        assert_eq!(compare(&dict, keys.iter()), keys.len());
    }

    #[test]
    fn an_empty_slot_is_no_record_whatever_a_keys_hash_is() {
        let name = crate::Name::local(format!("mmf-glance-empty-{}", std::process::id())).unwrap();
        let mut dict = Dict::create_new(&name, 1 << 20).unwrap();
        // With it the empty key has the tag that empty slots have.
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
    fn what_is_not_committed_or_was_cleared_is_not_told_at_a_glance() {
        let name = crate::Name::local(format!("mmf-glance-not-{}", std::process::id())).unwrap();
        let dict = Dict::create_new(&name, 1 << 20).unwrap();
        dict.set_bytes("key", b"value").unwrap();
        assert!(at_a_glance(&dict, "key").is_some());
        let map = &dict.segment.map;
        let commit = map.word(at::COMMIT).unwrap();
        map.put_word(at::COMMIT, commit - 1).unwrap();
        assert!(at_a_glance(&dict, "key").is_none());
        map.put_word(at::COMMIT, commit).unwrap();
        map.put_word(at::FLOOR, commit).unwrap();
        assert!(at_a_glance(&dict, "key").is_none());
        map.put_word(at::FLOOR, 0).unwrap();
        // Nor what another plan has changed already.
        let hash = dict.hash("key", "find").unwrap();
        let mut plan = Plan::new();
        let writer = dict.writer(&mut plan, "find").unwrap();
        let buckets = map.word(at::BUCKETS).unwrap();
        let (slot, _) = writer.find_at_a_glance(map.glance().unwrap(), hash, b"key", 0, buckets).unwrap();
        writer.plan.put(slot ^ 8, 0);
        assert!(writer.find_at_a_glance(map.glance().unwrap(), hash, b"key", 0, buckets).is_none());
    }
}
