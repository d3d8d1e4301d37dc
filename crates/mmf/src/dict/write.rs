//! Writing: under the segment's lock, as plans that the journal has done to the end.

use std::sync::atomic::{Ordering, fence};

use super::Dict;
use super::heap::{Heap, LINK, NoBlock};
use super::index::{Vacancy, block_of, count_of, slot_for};
use super::plan::{self, Plan};
use super::read::{HeadAndKey, same};
use super::record::{BEFORE, HEAD, Head, Kind, STAMP, VERSION};
use super::ring;
use super::shape::{at, class};
use crate::error::{Error, ErrorKind, Result};
use crate::segment::{Mine, Until};

/// Keys up to this length are put together with the words before them, and copied at once.
const SHORT: usize = 64;

/// What is to be done with a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'c> {
    pub(super) key: &'c [u8],
    pub(super) hash: u64,
    /// The value with its kind; `None` removes.
    pub(super) value: Option<(Kind, &'c [u8])>,
}

/// The record that a slot leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    /// Where the slot is.
    pub(super) slot: usize,
    pub(super) block: usize,
    pub(super) head: Head,
    /// It was cleared, and has not been freed yet.
    pub(super) cleared: bool,
}

/// The lock, and what was found when it was taken. Dropped, it is released.
pub(super) struct Writer<'a> {
    pub(super) dict: &'a Dict,
    pub(super) heap: Heap<'a>,
    slot: usize,
    pub(super) plan: Plan,
    /// Somebody may wait for what was changed.
    changed: bool,
    /// See `at::DURABLE`.
    pub(super) durable: u64,
    _mine: Mine,
}

impl<'a> Writer<'a> {
    /// Takes the lock, and brings what a dead writer left half done to its end.
    #[inline]
    pub(super) fn lock(dict: &'a Dict, until: Until, doing: &'static str) -> Result<Writer<'a>> {
        let segment = &dict.segment;
        let slot = segment.participant(doing)?.slot();
        let mine = Mine::mark(segment, doing)?;
        segment.write_lock(until, doing)?;
        let heap = dict.heap();
        let mut writer = Writer { dict, heap, slot, plan: Plan::new(), changed: false, durable: 0, _mine: mine };
        if plan::finish(heap.map, heap.shape)? {
            // Who died may not have told anybody.
            writer.changed = true;
        }
        writer.durable = heap.map.word(at::DURABLE)?;
        Ok(writer)
    }

    /// The version of the last change.
    #[inline]
    pub(super) fn version(&self) -> Result<u64> {
        let version = self.heap.map.word(at::COMMIT)?;
        // No dict lives to see so many, and what is added to them must not pass the end.
        if version > u64::MAX / 2 {
            return Err(self.heap.damaged(format!("its last change has the version {version}")));
        }
        Ok(version)
    }

    /// Makes all the changes or none, and gives the version of the last; `None` if there was nothing to change.
    #[inline]
    pub(super) fn apply(&mut self, changes: &[Step<'_>]) -> Result<Option<u64>> {
        self.make_room_in_index(changes.len())?;
        loop {
            match self.try_apply(changes) {
                Ok(version) => return Ok(version),
                Err(NoBlock::Failed(error)) => return Err(error),
                Err(NoBlock::Full) => self.make_space()?,
            }
        }
    }

    /// Buckets for so many more entries.
    #[inline]
    fn make_room_in_index(&mut self, more: usize) -> Result<()> {
        let map = self.heap.map;
        // One more than are wanted in the long run; if there have been fewer for a while, or the number of entries is wrong,
        // the change need not wait for all that are missing.
        for _ in 0..more.saturating_add(2) {
            let count = count_of(map.word(at::BUCKETS)?);
            if count != 0 && !Heap::is_crowded(count, map.word(at::LEN)?.saturating_add(more as u64)) {
                return Ok(());
            }
            let made = match count {
                0 => self.heap.begin_index(&mut self.plan),
                _ => self.heap.split(&mut self.plan, self.dict.seed),
            };
            match made {
                Ok(()) => {}
                // Longer buckets do as well.
                Err(NoBlock::Full) if count != 0 => return Ok(()),
                Err(NoBlock::Full) => return Err(self.full()),
                Err(NoBlock::Failed(error)) => return Err(error),
            }
        }
        Ok(())
    }

    #[inline]
    fn try_apply(&mut self, changes: &[Step<'_>]) -> Result<Option<u64>, NoBlock> {
        self.begin_change()?;
        self.plan.clear();
        let map = self.heap.map;
        let before = self.version()?;
        let floor = map.word(at::FLOOR)?;
        let mut version = before;
        let mut len = map.word(at::LEN)?;
        // What is not needed once the change is committed: slots of removals, and blocks.
        let mut emptied = Few::new();
        let mut freed = Few::new();
        let mut events = ring::Events::new();
        for change in changes {
            let place = self.find(change.hash, change.key, floor)?;
            let old = place.ok();
            let there = old.is_some_and(|stored| !stored.cleared);
            let Some((kind, value)) = change.value else {
                if !there {
                    continue;
                }
                version += 1;
                len = len.saturating_sub(1);
                if let Some(stored) = old {
                    // One store does it; among others, or where a power cut must not bring it back, it takes a record.
                    if changes.len() > 1 || self.is_durable() {
                        let block = self.write_record(version, change.key, Kind::Removal, &[])?;
                        self.plan.put(block + BEFORE, stored.block as u64);
                        self.plan.put(block + STAMP, version);
                        self.plan.put(stored.slot, slot_for(change.hash, block));
                        freed.push((block, false, true));
                    }
                    emptied.push(stored.slot);
                    freed.push((stored.block, stored.head.in_spans, false));
                }
                events.push(version, Kind::Removal, change.key);
                continue;
            };
            version += 1;
            let block = self.write_record(version, change.key, kind, value)?;
            let counts = old.filter(|stored| !stored.cleared).map_or(0, |stored| stored.block as u64);
            self.plan.put(block + BEFORE, counts);
            self.plan.put(block + STAMP, version);
            let slot = slot_for(change.hash, block);
            match place {
                Ok(stored) => self.plan.put(stored.slot, slot),
                Err(vacancy) => self.heap.put_entry(&mut self.plan, vacancy, slot)?,
            }
            if let Some(stored) = old {
                freed.push((stored.block, stored.head.in_spans, false));
            }
            len = len.saturating_add(u64::from(!there));
            events.push(version, kind, change.key);
        }
        if version == before && freed.is_empty() {
            return Ok(None);
        }
        if changes.len() == 1 && !self.is_durable() {
            // A removal alone: the slot is what readers go by.
            emptied.drain(|slot| self.plan.put(slot, 0));
        }
        self.plan.put(at::COMMIT, version);
        let head = events.write(&self.heap)?;
        self.plan.put(at::RING_HEAD, head);
        self.plan.put(at::LEN, len);
        emptied.drain(|slot| self.plan.put(slot, 0));
        let mut outcome = Ok(());
        freed.drain(|(block, in_spans, removal)| {
            if outcome.is_ok() {
                outcome = self.free(block, in_spans, removal);
            }
        });
        outcome?;
        self.carry_out()?;
        Ok(Some(version))
    }

    /// Has the plan done, and those who watch told.
    #[inline]
    pub(super) fn carry_out(&mut self) -> Result<()> {
        self.plan.carry_out(self.heap.map, self.heap.shape)?;
        self.changed = true;
        Ok(())
    }

    /// The record of a key, or where one may go.
    #[inline]
    fn find(&self, hash: u64, key: &[u8], floor: u64) -> Result<std::result::Result<Stored, Vacancy>> {
        let mut copy = HeadAndKey::new();
        let mut head = None;
        let found = self.heap.find(&self.plan, hash, |block| {
            let Some((it, _, found_key)) = copy.copy(&self.heap, block, key.len())? else { return Ok(false) };
            if it.key_len != key.len() || !same(found_key, key) {
                return Ok(false);
            }
            head = Some(it);
            Ok(true)
        })?;
        Ok(match (found, head) {
            (Ok((slot, word)), Some(head)) => {
                Ok(Stored { slot, block: block_of(word), head, cleared: head.version <= floor })
            }
            (Ok(_), None) => return Err(self.heap.damaged("an entry without a record")),
            (Err(vacancy), _) => Err(vacancy),
        })
    }

    /// The record of a key that is there.
    pub(super) fn stored(&mut self, hash: u64, key: &[u8]) -> Result<Option<Stored>> {
        self.plan.clear();
        if self.heap.map.word(at::BUCKETS)? == 0 {
            return Ok(None);
        }
        let floor = self.heap.map.word(at::FLOOR)?;
        Ok(self.find(hash, key, floor)?.ok().filter(|stored| !stored.cleared))
    }

    /// Writes a record into a block that nobody knows of yet.
    fn write_record(&mut self, version: u64, key: &[u8], kind: Kind, value: &[u8]) -> Result<usize, NoBlock> {
        let (heap, shape) = (self.heap, self.heap.shape);
        let mut head = Head { version, key_len: key.len(), kind, value_len: value.len(), in_spans: false, checksum: 0 };
        head.in_spans = head.block_len(shape) > shape.largest_block();
        let len = head.block_len(shape);
        if len > shape.largest_block() || value.len() as u64 >= 1 << 40 {
            return Err(self.too_large(value.len()).into());
        }
        head.checksum = head.sum(self.dict.seed, key, value);
        let parts = if head.in_spans { heap.take_parts(&mut self.plan, head.span_count(shape))? } else { Vec::new() };
        for (part, bytes) in parts.iter().zip(value.chunks(shape.span_size())) {
            heap.map.write_at(shape.span(*part), bytes)?;
        }
        let block = heap.take(&mut self.plan, class::of(len), None)?;
        // What was there before in a span that had another use may look like a stamp.
        heap.map.put_word(block + STAMP, 0)?;
        // Whoever still reads what was here before sees that before it sees other bytes.
        fence(Ordering::Release);
        let words = [version, head.what(), head.checksum];
        if key.len() <= SHORT {
            let mut bytes = [0; HEAD - VERSION + SHORT];
            for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
                to.copy_from_slice(&word.to_le_bytes());
            }
            bytes[HEAD - VERSION..HEAD - VERSION + key.len()].copy_from_slice(key);
            heap.map.write_at(block + VERSION, &bytes[..HEAD - VERSION + key.len()])?;
        } else {
            heap.map.put_words(block + VERSION, &words)?;
            heap.map.write_at(block + HEAD, key)?;
        }
        if parts.is_empty() {
            heap.map.write_at(block + HEAD + key.len(), value)?;
        }
        if !parts.is_empty() {
            // Spans are counted in thousands.
            let numbers = parts.iter().flat_map(|part| u32::try_from(*part).unwrap_or(u32::MAX).to_le_bytes());
            let numbers: Vec<u8> = numbers.collect();
            heap.map.write_at(block + head.spans_at(), &numbers)?;
        }
        Ok(block)
    }

    /// Frees a record that no slot leads to any more; where a power cut must find it, at the next flush.
    #[inline]
    pub(super) fn free(&mut self, block: usize, in_spans: bool, removal: bool) -> Result<()> {
        if self.is_durable() { self.keep(block, removal) } else { self.free_now(block, in_spans) }
    }

    /// Keeps what was freed for the next flush.
    fn keep(&mut self, block: usize, removal: bool) -> Result<()> {
        let list = if removal { at::REMOVED } else { at::PENDING };
        let first = self.plan.get(self.heap.map, list)?;
        let bytes = self.plan.get(self.heap.map, at::PENDING_BYTES)?;
        let size = self.size_of(block)?;
        self.plan.put(block + LINK, first);
        self.plan.put(list, block as u64);
        self.plan.put(at::PENDING_BYTES, bytes.saturating_add(size));
        Ok(())
    }

    /// Bytes that a record takes, its spans included.
    pub(super) fn size_of(&self, block: usize) -> Result<u64> {
        let head = self.head(block)?;
        let (_, _, size) = self.heap.block(&self.plan, block)?;
        let spans = if head.in_spans {
            head.span_count(self.heap.shape).saturating_mul(self.heap.shape.span_size())
        } else {
            0
        };
        Ok(size.saturating_add(spans) as u64)
    }

    pub(super) fn head(&self, block: usize) -> Result<Head> {
        let mut copy = HeadAndKey::new();
        match copy.copy(&self.heap, block, 0)? {
            Some((head, ..)) => Ok(head),
            None => Err(self.heap.no_record(block)),
        }
    }

    /// Frees a record at once.
    #[inline]
    pub(super) fn free_now(&mut self, block: usize, in_spans: bool) -> Result<()> {
        self.plan.put(block + STAMP, 0);
        if in_spans {
            let head = self.head(block)?;
            let spans = self.heap.span_list(block, &head)?;
            if let (Some(first), Some(last)) = (spans.first(), spans.last()) {
                self.heap.give_parts(&mut self.plan, *first, *last)?;
            }
        }
        self.heap.give(&mut self.plan, block)
    }

    #[inline]
    pub(super) fn is_durable(&self) -> bool {
        self.durable & super::durable::FLUSHED_BEFORE != 0
    }

    #[cold]
    #[inline(never)]
    pub(super) fn full(&self) -> Error {
        let help = "remove something, or make it with more capacity";
        self.heap.map.name_it(Error::new(ErrorKind::Full, "change")).with_help(help)
    }

    #[cold]
    #[inline(never)]
    fn too_large(&self, len: usize) -> Error {
        let most = self.dict.capacity() / 4;
        let reason = format!("a value of {len} bytes is too large; what surely fits is {most}");
        self.heap.map.name_it(Error::invalid("change", reason)).with_help("make it with more capacity")
    }
}

impl Drop for Writer<'_> {
    #[inline]
    fn drop(&mut self) {
        let segment = &self.dict.segment;
        if !segment.is_ours() {
            return;
        }
        // Where the page is gone, so is the lock.
        let _ = segment.lock.unlock_write(self.slot);
        if self.changed {
            let _ = segment.changes.wake_all();
        }
    }
}

/// A list that mostly is short.
struct Few<T> {
    first: Option<T>,
    more: Vec<T>,
}

impl<T> Few<T> {
    #[inline]
    fn new() -> Few<T> {
        Few { first: None, more: Vec::new() }
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    #[inline]
    fn push(&mut self, item: T) {
        match self.first {
            None => self.first = Some(item),
            Some(_) => self.more.push(item),
        }
    }

    #[inline]
    fn drain(&mut self, mut each: impl FnMut(T)) {
        self.first.take().into_iter().for_each(&mut each);
        self.more.drain(..).for_each(each);
    }
}
