//! Space when there is none: what may be freed is freed, and spans that are almost empty are emptied.

use super::heap::{NoBlock, State};
use super::index::{LONGEST, Place, SLOTS, block_of, count_of};
use super::plan::Plan;
use super::record::{self, BEFORE, HEAD, STAMP, SUM, VERSION};
use super::shape::{at, class, number};
use super::write::Writer;
use crate::error::Result;

/// Buckets looked through in one go.
const SWEPT: u64 = 4096;

impl Writer<'_> {
    /// Frees something, or fails with `Full`.
    #[cold]
    #[inline(never)]
    pub(super) fn make_space(&mut self) -> Result<()> {
        if self.sweep(SWEPT)? || self.heap.list_all(self.plan)? || self.empty_a_span()? {
            return Ok(());
        }
        if self.has_pending()? {
            return self.flush();
        }
        Err(self.full())
    }

    /// Frees what was cleared in the next `buckets` buckets, and tells whether there was anything left to look for.
    pub(super) fn sweep(&mut self, buckets: u64) -> Result<bool> {
        let (heap, map) = (self.heap, self.heap.map);
        let Some(first) = map.word(at::SWEEP)?.checked_sub(1) else { return Ok(false) };
        let count = count_of(map.word(at::BUCKETS)?);
        let floor = map.word(at::FLOOR)?;
        let end = first.saturating_add(buckets).min(count);
        for bucket in first..end {
            self.begin_change()?;
            let mut line = Some(heap.line(bucket)?);
            for _ in 0..LONGEST {
                let Some(at) = line else { break };
                let mut words = [0; 8];
                map.read_words(at, &mut words)?;
                self.plan.clear();
                for (nth, slot) in words[..SLOTS].iter().enumerate().filter(|(_, slot)| **slot != 0) {
                    let block = block_of(*slot);
                    let head = self.head(block)?;
                    if head.version <= floor {
                        self.plan.put(at + 8 * nth, 0);
                        self.free(block, head.in_spans, false)?;
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

    /// Moves what is in the emptiest span that others of its class have room for, so that it can be used for anything.
    fn empty_a_span(&mut self) -> Result<bool> {
        let (heap, shape) = (self.heap, self.heap.shape);
        self.plan.clear();
        let used = number(heap.map.word(at::USED)?).min(shape.spans);
        // By class: the room in all spans, and the span with the fewest blocks in use.
        let mut room = [0_u64; class::COUNT];
        let mut fewest = [(u64::MAX, 0_usize); class::COUNT];
        for span in 0..used {
            let State { class: of, live, .. } = heap.state(self.plan, span)?;
            let Some(size) = class::size(of).filter(|_| of <= class::LAST) else { continue };
            let free = ((shape.span_size() / size) as u64).saturating_sub(live);
            let of = number(of);
            room[of] = room[of].saturating_add(free);
            if live < fewest[of].0 {
                fewest[of] = (live, span);
            }
        }
        let mut best: Option<(u64, usize)> = None;
        for (of, (live, span)) in fewest.iter().enumerate() {
            let Some(size) = class::size(of as u64) else { continue };
            let own = ((shape.span_size() / size) as u64).saturating_sub(*live);
            // What moves must fit into the others, and kept as it is after a flush it frees nothing.
            let bytes = live.saturating_mul(size as u64);
            if room[of] >= own.saturating_add(*live) && best.is_none_or(|(least, _)| bytes < least) {
                best = Some((bytes, *span));
            }
        }
        let Some((_, span)) = best else { return Ok(false) };
        let moved = self.move_all(span)?;
        if moved && self.has_pending()? {
            self.flush()?;
        }
        Ok(moved)
    }

    /// Moves the records of a span into others; whether any was.
    fn move_all(&mut self, span: usize) -> Result<bool> {
        let heap = self.heap;
        let class = heap.state(&Plan::new(), span)?.class;
        let Some(size) = class::size(class) else { return Ok(false) };
        let most = (heap.shape.span_size() / size) as u64;
        let ever = heap.ever(&Plan::new(), span)?.min(most);
        let mut moved = false;
        for nth in 0..ever {
            let block = heap.shape.span(span) + number(nth) * size;
            if heap.map.word(block + STAMP)? == 0 {
                continue;
            }
            moved |= self.move_one(block, class, span, size)?;
            if heap.state(&Plan::new(), span)?.class != class {
                break;
            }
        }
        Ok(moved)
    }

    fn move_one(&mut self, block: usize, class: u64, span: usize, size: usize) -> Result<bool> {
        let heap = self.heap;
        let (head, key) = heap.key_at(block)?;
        if head.in_spans && self.is_durable() {
            // Two records would have the same spans until the next flush.
            return Ok(false);
        }
        let hash = record::hash(self.dict.seed, &key);
        self.begin_change()?;
        self.plan.clear();
        let Some(at) = self.slot_of(hash, block)? else { return Ok(false) };
        let new = match heap.take(self.plan, class, Some(span)) {
            Ok(new) => new,
            Err(NoBlock::Full) => return Ok(false),
            Err(NoBlock::Failed(error)) => return Err(error),
        };
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
