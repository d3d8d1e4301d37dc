//! Space when there is none: what may be freed is freed, and spans that are almost empty are emptied.

use super::heap::{NoBlock, State};
use super::index::{LONGEST, Place, SLOTS, block_of};
use super::plan::Plan;
use super::record::{self, BEFORE, HEAD, STAMP, SUM, VERSION};
use super::shape::{at, class, number};
use super::write::Writer;
use crate::error::Result;

/// Buckets looked through in one go.
const SWEPT: u64 = 4096;

impl Writer<'_> {
    /// Frees something; whether there was anything.
    #[cold]
    #[inline(never)]
    pub(super) fn make_space(&mut self) -> Result<bool> {
        if self.sweep(SWEPT)? || self.heap.list_all(self.plan)? || self.shorten_buckets()? || self.empty_a_span()? {
            return Ok(true);
        }
        if self.has_pending()? {
            self.flush()?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Frees what was cleared in the next `buckets` buckets, and tells whether there was anything left to look for.
    pub(super) fn sweep(&mut self, buckets: u64) -> Result<bool> {
        let (heap, map) = (self.heap, self.heap.map);
        let Some(first) = map.word(at::SWEEP)?.checked_sub(1) else { return Ok(false) };
        let (count, mut left) = heap.count_and_most_lines()?;
        let floor = map.word(at::FLOOR)?;
        let end = first.saturating_add(buckets).min(count);
        for bucket in first..end {
            self.begin_change()?;
            let mut line = Some(heap.line(bucket)?);
            for _ in 0..LONGEST {
                let Some(at) = line else { break };
                heap.one_line_less(&mut left)?;
                if self.limit.spend() {
                    // The next sweep begins with this bucket.
                    return Ok(true);
                }
                let mut words = [0; 8];
                map.read_words(at, &mut words)?;
                self.plan.clear();
                for (nth, slot) in words[..SLOTS].iter().enumerate().filter(|(_, slot)| **slot != 0) {
                    let block = block_of(*slot);
                    let head = self.head(block)?;
                    if head.version <= floor {
                        self.plan.put(at + 8 * nth, 0);
                        self.free(block, head.in_spans, false)?;
                        // Freed from a file, a value may be looked at.
                        self.limit.spend_bytes(if head.in_spans { head.value_len } else { 0 });
                    }
                }
                if !self.plan.is_empty() {
                    self.plan.carry_out(map, heap.shape)?;
                }
                line = heap.next_line(words[SLOTS])?;
            }
            let left = bucket + 1;
            map.put_word(at::SWEEP, if left < count { left + 1 } else { 0 })?;
        }
        if end >= count {
            map.put_word(at::SWEEP, 0)?;
        }
        Ok(true)
    }

    /// Gives back lines that continue buckets where there are more than the entries need, however they are spread: else that is a
    /// split's affair, and there may be none for long.
    fn shorten_buckets(&mut self) -> Result<bool> {
        // What a power cut brings back needs its places again.
        if self.has_pending()? {
            return Ok(false);
        }
        let (heap, map) = (self.heap, self.heap.map);
        let mut lines = 0_u64;
        for span in 0..heap.spans_used()? {
            let State { class, live, .. } = heap.state(&Plan::new(), span)?;
            lines = lines.saturating_add(if class == class::LINES { live } else { 0 });
        }
        if lines <= map.word(at::LEN)? / SLOTS as u64 {
            return Ok(false);
        }
        let (count, mut left) = heap.count_and_most_lines()?;
        let mut any = false;
        for bucket in 0..count {
            if self.limit.spend() {
                break;
            }
            self.begin_change()?;
            any |= heap.shorten(self.plan, bucket, &mut left, &self.limit)?;
        }
        Ok(any)
    }

    /// Moves what is in a span to others of its class, so that it can be used for anything: of those whose blocks the others have
    /// room for, the first that can be emptied, beginning with the one that has least in it.
    fn empty_a_span(&mut self) -> Result<bool> {
        let (heap, shape) = (self.heap, self.heap.shape);
        let mut room = [0_u64; class::COUNT];
        let mut spans = Vec::new();
        for span in 0..heap.spans_used()? {
            let State { class: of, live, .. } = heap.state(&Plan::new(), span)?;
            let Some(size) = class::size(of).filter(|_| of <= class::LAST) else { continue };
            let free = ((shape.span_size() / size) as u64).saturating_sub(live);
            let of = number(of);
            room[of] = room[of].saturating_add(free);
            spans.push((live.saturating_mul(size as u64), span, of, live.saturating_add(free)));
        }
        spans.retain(|(.., of, blocks)| room[*of] >= *blocks);
        spans.sort_unstable();
        let had_pending = self.has_pending()?;
        for (_, span, of, _) in spans {
            if self.limit.is_over() {
                return Ok(false);
            }
            if !self.can_be_emptied(span, of as u64)? || !self.move_all(span, of as u64)? {
                continue;
            }
            // Kept as it is after a flush, what was moved frees nothing.
            let flushes = self.has_pending()?;
            if flushes {
                self.flush()?;
            }
            // Only what is gained is worth another try, or records would go to and fro.
            if (flushes && had_pending) || heap.state(&Plan::new(), span)?.class != of as u64 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The blocks of a span that have records.
    fn records_in(&self, span: usize, class: u64) -> Result<Vec<usize>> {
        let heap = self.heap;
        let size = class::size(class).unwrap_or(heap.shape.span_size());
        let most = (heap.shape.span_size() / size) as u64;
        let blocks =
            (0..number(heap.ever(&Plan::new(), span)?.min(most))).map(|nth| heap.shape.span(span) + nth * size);
        let mut records = Vec::new();
        for block in blocks {
            if heap.map.word(block + STAMP)? != 0 {
                records.push(block);
            }
        }
        Ok(records)
    }

    /// Whether all that is in a span may be moved. After a flush large values may not: two records would have the same spans until
    /// the next.
    fn can_be_emptied(&mut self, span: usize, class: u64) -> Result<bool> {
        if !self.is_durable() {
            return Ok(true);
        }
        self.plan.clear();
        for block in self.records_in(span, class)? {
            if self.limit.spend() {
                return Ok(false);
            }
            let (head, key) = self.heap.key_at(block)?;
            if head.in_spans && self.slot_of(record::hash(self.heap.seed, &key), block)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Moves the records of a span into others; whether any was.
    fn move_all(&mut self, span: usize, class: u64) -> Result<bool> {
        let mut moved = false;
        for block in self.records_in(span, class)? {
            if self.limit.spend_bytes(class::size(class).unwrap_or(0)) {
                break;
            }
            moved |= self.move_one(block, class, span)?;
        }
        Ok(moved)
    }

    fn move_one(&mut self, block: usize, class: u64, span: usize) -> Result<bool> {
        let heap = self.heap;
        let Some(size) = class::size(class) else { return Ok(false) };
        let (head, key) = heap.key_at(block)?;
        // What is damaged stays where its checksum and its stamp tell so.
        if !heap.is_whole(block, size, &head)? {
            return Ok(false);
        }
        let hash = record::hash(self.heap.seed, &key);
        self.begin_change()?;
        self.plan.clear();
        let Some(at) = self.slot_of(hash, block)? else { return Ok(false) };
        let new = match heap.take(self.plan, class, Some(span)) {
            Ok(new) => new,
            Err(NoBlock::Full(_)) => return Ok(false),
            Err(NoBlock::Failed(error)) => return Err(error),
        };
        // In place of the span that is to be emptied another would be taken.
        if [at::FREE, at::USED].iter().any(|word| self.plan.planned(*word).is_some()) {
            return Ok(false);
        }
        heap.map.put_word(new + STAMP, 0)?;
        crate::sys::fence(std::sync::atomic::Ordering::Release);
        let mut bytes = heap.map.read_to_vec(block + VERSION, head.block_len(heap.shape).min(size) - VERSION)?;
        let stamp = self.version()? + 1;
        let sum = head.checksum ^ record::place(block, heap.map.word(block + STAMP)?) ^ record::place(new, stamp);
        bytes[SUM - VERSION..HEAD - VERSION].copy_from_slice(&sum.to_le_bytes());
        heap.map.write_at(new + VERSION, &bytes)?;
        self.plan.put(new + BEFORE, block as u64);
        self.plan.put(new + STAMP, stamp);
        self.plan.put(at, super::index::slot_for(hash, new));
        self.plan.put(at::COMMIT, stamp);
        if self.is_durable() {
            self.free(block, false, false)?;
        } else {
            // The spans of its value are the new one's.
            self.plan.put(block + STAMP, 0);
            heap.give(self.plan, block)?;
        }
        self.plan.carry_out(heap.map, heap.shape)?;
        Ok(true)
    }

    /// The slot that leads to a block.
    fn slot_of(&self, hash: u64, block: usize) -> Result<Option<usize>> {
        match self.heap.find(self.plan, hash, |candidate| Ok(candidate == block))? {
            Place::Entry(at) => Ok(Some(at)),
            Place::Empty(_) | Place::Behind(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dict::{Dict, Plan};
    use crate::error::ErrorKind;

    #[test]
    fn what_is_damaged_is_not_moved_to_where_nobody_looks() {
        let path = std::env::temp_dir().join(format!("mmf moved {}", std::process::id()));
        let dict = Dict::create_new(path.as_path(), 1 << 20).unwrap();
        // Blocks of 64 bytes, as many as a span has and some more; then the first span has room for those.
        for nth in 0..84 {
            dict.set_bytes(&format!("{nth:04}"), &[1; 20]).unwrap();
        }
        for nth in 0..40 {
            dict.remove(&format!("{nth:04}")).unwrap();
        }
        drop(dict);
        let dict = Dict::open(path.as_path()).unwrap();
        let heap = dict.heap();
        let hash = dict.hash("0080", "read").unwrap();
        let is_it = |block| Ok(heap.key_at(block)?.1 == b"0080");
        let Place::Entry(slot) = heap.find(&Plan::new(), hash, is_it).unwrap() else { panic!() };
        let block = block_of(heap.map.word(slot).unwrap());
        heap.map.put_word(block + VERSION, 1 << 60).unwrap();
        let mut plan = Plan::new();
        let mut writer = dict.writer(&mut plan, "move").unwrap();
        writer.begin_change().unwrap();
        writer.empty_a_span().unwrap();
        drop(writer);
        let error = dict.get_bytes("0080").unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Damaged { .. }), "{error}");
        assert_eq!(dict.get_bytes("0083").unwrap().unwrap(), [1; 20]);
        drop(dict);
        std::fs::remove_file(&path).unwrap();
    }
}
