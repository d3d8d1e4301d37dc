//! The usual cases of taking a block, writing a record and freeing one. Each looks whether it is one before it does anything.

use std::sync::atomic::Ordering;

use crate::dict::heap::{BITS, EVER, Heap, LINK, STATE, State};
use crate::dict::index::slot_for;
use crate::dict::plan::Plan;
use crate::dict::record::{BEFORE, HEAD, Head, Kind, STAMP, VERSION, place};
use crate::dict::ring::Ring;
use crate::dict::shape::{at, class, number};
use crate::dict::write::{Step, Writer};
use crate::error::Result;
use crate::mapping::GlanceMut;
use crate::sys::fence;

impl Heap<'_> {
    /// [`take`](Heap::take) where the first span of the class has a block that was freed before, and has room left.
    #[inline(always)]
    fn take_at_a_glance(&self, map: GlanceMut<'_>, plan: &mut Plan, class: u64) -> Option<usize> {
        let (shape, size) = (self.shape, class::size(class)?);
        let span = number(plan.word(*map, Self::head(class))?).wrapping_sub(1);
        if span >= shape.spans {
            return None;
        }
        let entry = shape.entry(span);
        let state = State::of(plan.word(*map, entry + STATE)?);
        let at = number(state.free.checked_sub(1)?).checked_mul(size)?;
        if state.class != class || at.checked_add(size)? > shape.span_size() {
            return None;
        }
        let block = shape.span(span) + at;
        if !map.has(block, size) {
            return None;
        }
        let free = plan.word(*map, block + LINK)? & BITS;
        if free == 0 && number(plan.word(*map, entry + EVER)?).checked_add(1)?.checked_mul(size)? > shape.span_size() {
            return None;
        }
        plan.put_anywhere(entry + STATE, State { free, live: state.live + 1, listed: true, ..state }.word());
        Some(block)
    }

    /// [`give`](Heap::give) where the span stays what it is. The plan takes no block after that.
    #[inline(always)]
    pub(in crate::dict) fn give_at_a_glance(&self, map: GlanceMut<'_>, plan: &mut Plan, block: usize) -> Option<()> {
        let shape = self.shape;
        let span = shape.span_of(block)?;
        let entry = shape.entry(span);
        let state = State::of(plan.word(*map, entry + STATE)?);
        let (size, at) = (class::size(state.class)?, block - shape.span(span));
        // A division of 32 bits takes less than one of 64.
        let size_in_short = u32::try_from(size).ok()?;
        let nth = u32::try_from(at).ok()? / size_in_short;
        if nth as usize * size != at || at + size > shape.span_size() || state.live < 2 {
            return None;
        }
        let live = state.live - 1;
        if !state.listed {
            let most = u64::from(u32::try_from(shape.span_size()).ok()? / size_in_short);
            if State::has_room(live, most) {
                return None;
            }
        }
        plan.put_unasked(block + STAMP, 0);
        plan.put_unasked(block + LINK, state.free);
        plan.put_anywhere(entry + STATE, State { free: u64::from(nth) + 1, live, ..state }.word());
        Some(())
    }

    /// Writes a record but for what comes with the plan.
    #[inline(always)]
    fn fill(&self, map: GlanceMut<'_>, block: usize, version: u64, key: &[u8], kind: Kind, value: &[u8]) -> Option<()> {
        let head = Head { version, key_len: key.len(), kind, value_len: value.len(), in_spans: false, checksum: 0 };
        let sum = head.sum(self.seed, key, value) ^ place(block, version);
        // As in `write_record`.
        map.put_word(block + STAMP, 0)?;
        fence(Ordering::Release);
        map.put_words(block + VERSION, &[version, head.what(), sum])?;
        map.write(block + HEAD, key)?;
        map.write(block + HEAD + key.len(), value)
    }
}

impl Writer<'_> {
    /// Gives a key that is there another value, and tells the version, in as few steps as it takes. Nothing is done where it is `None`, but
    /// for what was written to free memory. A power cut needs more than this does.
    #[inline(always)]
    pub(in crate::dict) fn replace_at_a_glance(&mut self, step: &Step<'_>) -> Result<Option<u64>> {
        if self.durable != 0 {
            return Ok(None);
        }
        let Some(version) = self.plan_replacement(step) else { return Ok(None) };
        self.carry_out()?;
        Ok(Some(version))
    }

    #[inline(always)]
    fn plan_replacement(&mut self, step: &Step<'_>) -> Option<u64> {
        let heap = self.heap;
        let map = heap.map.glance_mut()?;
        let (key, (kind, value)) = (step.key, step.value?);
        let [before, floor, buckets, _] = map.four_words(at::COMMIT)?;
        if before > u64::MAX / 2 {
            return None;
        }
        let version = before + 1;
        let line = heap.line_at_a_glance(*map, step.hash, buckets)?;
        // While the record is written, which waits for no cache.
        map.prefetch(line);
        self.plan.clear();
        let block = self.take_for(map, key, value)?;
        heap.fill(map, block, version, key, kind, value)?;
        let (slot, old) = self.find_in_line(*map, line, step.hash, key, floor)?;
        if old.cleared || old.in_spans {
            return None;
        }
        let ring = Ring::place_at_a_glance(&heap, *map, key.len())?;
        self.plan.put_unasked(block + BEFORE, old.block as u64);
        self.plan.put_unasked(block + STAMP, version);
        self.plan.put_unasked(slot, slot_for(step.hash, block));
        self.plan.put_unasked(at::COMMIT, version);
        ring.put_head(self.plan);
        self.free_last(old.block, false, false).ok()?;
        ring.write_at_a_glance(&heap, map, version, kind, key)?;
        Some(version)
    }

    /// As [`write_record`](Writer::write_record), into a block that is [taken](Heap::take_at_a_glance) at a glance.
    #[inline(always)]
    pub(in crate::dict) fn record_at_a_glance(
        &mut self,
        version: u64,
        key: &[u8],
        kind: Kind,
        value: &[u8],
    ) -> Result<Option<usize>> {
        let heap = self.heap;
        let Some(map) = heap.map.glance_mut() else { return Ok(None) };
        let Some(block) = self.take_for(map, key, value) else { return Ok(None) };
        // All of it was there before.
        match heap.fill(map, block, version, key, kind, value) {
            Some(()) => Ok(Some(block)),
            None => Err(heap.map.fault("write", block, 0)),
        }
    }

    /// Takes a block for a record that needs no more than a block.
    #[inline(always)]
    fn take_for(&mut self, map: GlanceMut<'_>, key: &[u8], value: &[u8]) -> Option<usize> {
        let len = HEAD + key.len() + value.len();
        if len > self.heap.shape.largest_block() {
            return None;
        }
        self.heap.take_at_a_glance(map, self.plan, class::of(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dict::Dict;
    use crate::segment::layout::PAYLOAD;

    /// A dict in which values of several lengths came and went.
    fn used(name: &str) -> (Dict, Vec<String>) {
        let name = crate::Name::local(format!("mmf-{name}-{}", std::process::id())).unwrap();
        let dict = Dict::create_new(&name, 4 << 20).unwrap();
        let keys: Vec<String> = (0..600_usize).map(|nth| format!("{nth:0width$}", width = 3 + nth % 50)).collect();
        for round in 1..4_usize {
            for (nth, key) in keys.iter().enumerate() {
                match (nth * round) % 7 {
                    0 => dict.remove(key).map(drop).unwrap(),
                    _ => dict.set_bytes(key, &vec![7; nth * round % 400]).map(drop).unwrap(),
                }
            }
        }
        (dict, keys)
    }

    #[test]
    fn a_block_is_taken_and_given_at_a_glance_as_by_a_closer_look() {
        let (dict, keys) = used("set-blocks");
        let heap = dict.heap();
        let map = dict.segment.map.glance_mut().unwrap();
        let (mut taken, mut given) = (0, 0);
        for class in 1..=class::LAST {
            let (mut plan, mut other) = (Plan::new(), Plan::new());
            if let Some(block) = heap.take_at_a_glance(map, &mut plan, class) {
                assert_eq!(heap.take(&mut other, class, None).unwrap(), block, "{class}");
                assert_eq!(plan.list(), other.list(), "{class}");
                taken += 1;
            }
        }
        for key in &keys {
            let hash = dict.hash(key, "read").unwrap();
            let mut found = None;
            heap.find(&Plan::new(), hash, |block| Ok(*found.insert(block) == block)).unwrap();
            let Some(block) = found else { continue };
            let (mut plan, mut other) = (Plan::new(), Plan::new());
            if heap.give_at_a_glance(map, &mut plan, block).is_some() {
                other.put(block + STAMP, 0);
                heap.give(&mut other, block).unwrap();
                assert_eq!(plan.list(), other.list(), "{key}");
                given += 1;
            }
        }
        assert!(taken > 10 && given > 300, "{taken} {given}");
    }

    #[test]
    fn a_value_is_replaced_at_a_glance_as_by_a_closer_look() {
        let (dict, keys) = used("set-whole");
        let mut plan = Plan::new();
        let mut writer = dict.writer(&mut plan, "set").unwrap();
        let map = &dict.segment.map;
        let all = || map.read_to_vec(PAYLOAD, map.len() - PAYLOAD).unwrap();
        let mut enough = 0;
        for (nth, key) in keys.iter().enumerate() {
            let (key, hash) = (key.as_bytes(), dict.hash(key, "set").unwrap());
            let (kind, value) = (if nth % 2 == 0 { Kind::Bytes } else { Kind::Encoded }, vec![9; nth % 300]);
            let step = Step { key, hash, value: Some((kind, &value)) };
            let before = all();
            let Some(version) = writer.replace_at_a_glance(&step).unwrap() else { continue };
            let made = all();
            map.write_at(PAYLOAD, &before).unwrap();
            assert_eq!(writer.try_apply(&[step], false).unwrap(), Some(version), "{nth}");
            assert!(all() == made, "{nth}");
            enough += 1;
        }
        drop(writer);
        assert!(enough > 300, "{enough}");
        assert!(dict.check().unwrap().is_whole());
    }
}
