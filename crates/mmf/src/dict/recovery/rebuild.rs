//! A dict made anew from its records.
//!
//! It may be cut off at any moment, by a death or by another power cut, and is then done again: those records that count
//! keep their bytes, and so do removals until what they removed is gone from the disk. That it is done is said last.

#[cfg(all(test, not(loom)))]
mod golden;
mod reindex;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;

use crate::dict::format::layout::{Layout, at, class, number};
use crate::dict::format::marks::{CLEAN, FLUSHED_BEFORE, UNSURE};
use crate::dict::format::record::{MAX_VERSION, STAMP, VERSION, is_removal};
use crate::dict::format::slot::bucket_count;
use crate::dict::format::span::{BLOCKS_USED, NEXT_FREE, SPAN_LINKS, SPAN_STATE, SpanState, encode_span};
use crate::dict::recovery::open_after_crash::{begin_rebuild, boot_to_store};
use crate::dict::recovery::record_scan::{RecordScan, ScanResult, ScanScope};
use crate::dict::store::spans::Spans;
use crate::dict::store::storage::Storage;
use crate::dict::store::sync_mark::sync_or_mark;
use crate::dict::store::verifier::ValidRecord;
use crate::dict::{Dict, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::mapping::Mapping;

/// Bytes that are looked at in one go.
const CHUNK: usize = 64 << 10;

/// Records that something newer has taken the place of.
pub(in crate::dict) enum Superseded {
    /// Nothing that could tell is to be trusted.
    Unknown,
    /// These blocks, sorted; and the index tells which records counted.
    Known(Vec<usize>),
}

/// Records that count, and what must outlive those that do not.
#[derive(Default)]
struct SelectedRecords {
    /// The hash of its key and the block.
    entries: Vec<(u64, usize)>,
    removals: Vec<usize>,
    /// Those of the entries whose values lie in spans: stamp and block.
    large: Vec<(u64, usize)>,
    /// The largest stamp or version of all.
    newest: u64,
}

/// What the lists and the index say of records, in a dict that was not cut off.
struct PriorState<'a> {
    /// Blocks whose records something newer has taken the place of, sorted.
    retired: &'a [usize],
    /// Blocks that the index leads to, sorted.
    indexed: Vec<usize>,
}

/// A choice with the spans of its large values and the count of its buckets.
struct FittedSelection {
    selection: SelectedRecords,
    parts: Vec<Vec<usize>>,
    buckets: u64,
}

/// What a span is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpanUse {
    Free,
    Records(u64),
    Part,
    Index,
    Lines,
}

pub(in crate::dict) struct Rebuild<'a> {
    dict: &'a Dict,
    storage: Storage<'a>,
    map: &'a Mapping,
    layout: &'a Layout,
    scope: ScanScope,
    uses: Vec<SpanUse>,
    /// A sync may have failed before.
    is_suspect: bool,
}

impl<'a> Rebuild<'a> {
    /// The caller has the lock.
    pub(in crate::dict) fn new(dict: &'a Dict, scope: ScanScope) -> Result<Rebuild<'a>> {
        let storage = dict.storage();
        // Whoever had the lock before may have made it longer.
        storage.map.refresh()?;
        let uses = vec![SpanUse::Free; storage.spans().mapped_spans()];
        Ok(Rebuild { dict, storage, map: storage.map, layout: storage.layout, scope, uses, is_suspect: false })
    }

    /// Does it, and gives how many entries there are.
    pub(in crate::dict) fn run(mut self, retired: &Superseded, report: &mut Report) -> Result<u64> {
        if self.dict.is_file() {
            // Pages that an attempt before this one has changed are not changed again, and are to
            // be written all the same.
            self.is_suspect = self.map.word(at::SUSPECT)? != 0;
            if self.is_suspect {
                self.map.make_dirty()?;
            }
            self.map.put_word(at::SUSPECT, 1)?;
        }
        let ScanResult { classes, mut records, broken } = RecordScan::new(&self.storage).scan_records(self.scope)?;
        if matches!(retired, Superseded::Unknown) {
            // No check has told of them.
            for (block, key) in broken {
                report.add(
                    key.as_deref(),
                    Some(block),
                    "it is not whole; what was not flushed may be so after a power cut",
                );
            }
        }
        let floor = self.floor(&records, report)?;
        let past = match retired {
            Superseded::Unknown => None,
            Superseded::Known(retired) => Some(PriorState { retired, indexed: self.indexed_blocks(&mut records) }),
        };
        let FittedSelection { mut selection, parts, buckets } =
            self.select_fitting(&mut records, &classes, floor, past.as_ref(), report)?;
        // As large as the dict's keys are many.
        drop((records, past));
        selection.newest = selection.newest.max(floor);
        for word in [at::COMMIT, at::FLUSHED] {
            selection.newest =
                selection.newest.max(Some(self.map.word(word)?).filter(|it| *it < MAX_VERSION).unwrap_or(0));
        }
        // Readers without the lock must not take a key that the index does not lead to for one that
        // is absent.
        begin_rebuild(self.dict, self.scope)?;
        self.clear_unselected(&selection, &classes)?;
        self.sync()?;
        self.clear_removals(&selection)?;
        selection.entries.sort_unstable_by_key(|(_, block)| *block);
        self.rebuild_table(&selection, &classes, &parts)?;
        let entries = selection.entries.len() as u64;
        self.rebuild_index(&mut selection.entries, buckets)?;
        self.rebuild_lists()?;
        self.rebuild_words(entries, buckets, selection.newest, floor)?;
        Ok(entries)
    }

    /// Up to where versions were cleared. A number that passes all others is damage.
    fn floor(&self, records: &[(u64, usize)], report: &mut Report) -> Result<u64> {
        let floor = self.map.word(at::FLOOR)?;
        if self.scope == ScanScope::UsedBlocks || floor == 0 {
            return Ok(floor);
        }
        let commit = self.map.word(at::COMMIT)?;
        let mut newest = 0;
        for (_, block) in records {
            newest = newest.max(self.map.word(block + VERSION)?);
        }
        if floor <= newest || (floor <= commit && commit < MAX_VERSION) {
            return Ok(floor);
        }
        report.add(None, Some(at::FLOOR), "what was cleared cannot be told any more");
        Ok(0)
    }

    /// Finds the newest record of each key, and if there is no room for an index of them all, of those that are older: what was there
    /// when it was flushed had one, and nothing of it has been overwritten since.
    fn select_fitting(
        &mut self,
        records: &mut [(u64, usize)],
        classes: &[u64],
        floor: u64,
        past: Option<&PriorState<'_>>,
        report: &mut Report,
    ) -> Result<FittedSelection> {
        let flushed = self.map.word(at::FLUSHED)?;
        let mut newest = 0_u64;
        for eighths in [8, 7, 6, 4, 0] {
            let limit = match eighths {
                8 => u64::MAX,
                _ => flushed.saturating_add(newest.saturating_sub(flushed) / 8 * eighths),
            };
            let mut told = report.clone();
            let mut selection = self.select(records, floor, limit, past, &mut told)?;
            newest = selection.newest;
            self.uses.fill(SpanUse::Free);
            let parts = self.claim(&mut selection, classes, &mut told)?;
            if let Some(buckets) = self.buckets_for(&selection, &parts) {
                if eighths < 8 {
                    told.add(None, None, "there was no room for an index of all of it, so its last changes are gone");
                }
                *report = told;
                return Ok(FittedSelection { selection, parts, buckets });
            }
        }
        Err(self.no_room())
    }

    fn no_room(&self) -> Error {
        let error = self.map.name_error(Error::new(ErrorKind::Full, "recover"));
        error.with_help("there is no room for an index of what is in it")
    }

    /// Finds the newest record of each key that bears no larger stamp than `limit`.
    fn select(
        &self,
        records: &mut [(u64, usize)],
        floor: u64,
        limit: u64,
        past: Option<&PriorState<'_>>,
        report: &mut Report,
    ) -> Result<SelectedRecords> {
        records.sort_unstable();
        let mut selection = SelectedRecords::default();
        for same in records.chunk_by(|one, other| one.0 == other.0) {
            let mut known = Vec::with_capacity(same.len());
            for (_, block) in same {
                let whole = self.storage.verifier().read_valid(*block)?;
                selection.newest = selection.newest.max(whole.stamp).max(whole.head.version);
                if whole.stamp <= limit {
                    known.push((whole, *block));
                }
            }
            // A record that was moved has its version twice.
            known.sort_by(|(a, _), (b, _)| {
                let rank = |it: &ValidRecord| Reverse((it.head.version, it.stamp));
                a.key.cmp(&b.key).then(rank(a).cmp(&rank(b)))
            });
            for versions in known.chunk_by(|(one, _), (other, _)| one.key == other.key) {
                let Some((whole, block)) = versions.first() else { continue };
                if is_removal(&whole.head) {
                    selection.removals.push(*block);
                } else if whole.head.version > floor && is_current(whole, *block, past, report) {
                    selection.entries.push((same[0].0, *block));
                    if whole.head.in_spans {
                        selection.large.push((whole.stamp, *block));
                    }
                }
            }
        }
        selection.removals.sort_unstable();
        Ok(selection)
    }

    /// Finds the spans in which large values lie, in the order of each value. What two lay claim to has the newer.
    fn claim(
        &mut self,
        selection: &mut SelectedRecords,
        classes: &[u64],
        report: &mut Report,
    ) -> Result<Vec<Vec<usize>>> {
        let mut has_records = vec![false; classes.len()];
        for block in selection.entries.iter().map(|(_, block)| block).chain(&selection.removals) {
            if let Some(has) = self.layout.span_of(*block).and_then(|span| has_records.get_mut(span)) {
                *has = true;
            }
        }
        selection.large.sort_unstable_by_key(|(stamp, _)| Reverse(*stamp));
        let (mut parts, mut refused) = (Vec::new(), Vec::new());
        for (_, block) in &selection.large {
            let ValidRecord { head, key, .. } = self.storage.verifier().read_valid(*block)?;
            let spans = self.storage.values().span_list(*block, &head)?;
            let mut each = spans.clone();
            each.sort_unstable();
            each.dedup();
            let is_free = |span: &usize| self.uses.get(*span) == Some(&SpanUse::Free) && !has_records[*span];
            if each.len() == spans.len() && spans.iter().all(is_free) {
                for span in &spans {
                    self.uses[*span] = SpanUse::Part;
                }
                parts.push(spans);
                continue;
            }
            refused.push(*block);
            report.add(Some(&key), Some(*block), "its value lies where others are");
        }
        refused.sort_unstable();
        selection.entries.retain(|(_, block)| refused.binary_search(block).is_err());
        Ok(parts)
    }

    /// Takes the stamps of all records that do not count, and empties the spans that hold none which do: what is left
    /// there from before must not be found again once the span is used.
    fn clear_unselected(&mut self, selection: &SelectedRecords, classes: &[u64]) -> Result<()> {
        let mut kept: Vec<usize> = selection.entries.iter().map(|(_, block)| *block).collect();
        kept.extend(&selection.removals);
        kept.sort_unstable();
        let mut left = &kept[..];
        for (span, class) in classes.iter().enumerate() {
            let end = self.layout.span(span + 1);
            let (here, rest) = left.split_at(left.partition_point(|block| *block < end));
            left = rest;
            if here.is_empty() {
                if self.uses[span] == SpanUse::Free {
                    self.clear_span(span)?;
                }
                continue;
            }
            self.uses[span] = SpanUse::Records(*class);
            let size = class::size(*class).unwrap_or(end);
            for nth in 0..self.layout.span_size() / size {
                let block = self.layout.span(span) + nth * size;
                if here.binary_search(&block).is_err() && self.map.word(block + STAMP)? != 0 {
                    self.map.put_word(block + STAMP, 0)?;
                }
            }
        }
        Ok(())
    }

    /// Once what they removed is gone, removals may go. Spans that held nothing else are emptied.
    fn clear_removals(&mut self, selection: &SelectedRecords) -> Result<()> {
        let mut kept = vec![false; self.uses.len()];
        for (_, block) in &selection.entries {
            if let Some(kept) = self.layout.span_of(*block).and_then(|span| kept.get_mut(span)) {
                *kept = true;
            }
        }
        for block in &selection.removals {
            self.map.put_word(block + STAMP, 0)?;
        }
        for (span, kept) in kept.into_iter().enumerate() {
            if !kept && matches!(self.uses[span], SpanUse::Records(_)) {
                self.clear_span(span)?;
                self.uses[span] = SpanUse::Free;
            }
        }
        Ok(())
    }

    /// Fills a span with zeros where it has anything else.
    fn clear_span(&self, span: usize) -> Result<()> {
        let (mut from, end) = (self.layout.span(span), self.layout.span(span + 1));
        let mut bytes = Vec::new();
        while from < end {
            let next = end.min(from + CHUNK);
            bytes.clear();
            self.map.append_to(from, next - from, &mut bytes)?;
            if bytes.iter().any(|byte| *byte != 0) {
                self.map.fill(from..next, 0)?;
            }
            from = next;
        }
        Ok(())
    }

    fn put_entry(&self, span: usize, state: SpanState, ever: u64, links: u64) -> Result<()> {
        let entry = self.layout.entry(span);
        self.map.put_word(entry + BLOCKS_USED, ever)?;
        self.map.put_word(entry + SPAN_LINKS, links)?;
        self.map.put_word(entry + SPAN_STATE, state.word())
    }

    /// The entries of spans with records and parts. `selection` is sorted by blocks.
    fn rebuild_table(&self, selection: &SelectedRecords, classes: &[u64], parts: &[Vec<usize>]) -> Result<()> {
        for entries in selection.entries.chunk_by(|(_, a), (_, b)| self.layout.span_of(*a) == self.layout.span_of(*b)) {
            let Some(span) = entries.first().and_then(|(_, block)| self.layout.span_of(*block)) else { continue };
            let Some(size) = class::size(classes[span]) else { continue };
            let nth = |block: usize| (block - self.layout.span(span)) / size;
            let ever = entries.last().map_or(0, |(_, block)| nth(*block) + 1);
            let mut free = 0;
            for hole in (0..ever).filter(|hole| entries.binary_search_by_key(hole, |(_, it)| nth(*it)).is_err()) {
                self.map.put_word(self.layout.span(span) + hole * size + NEXT_FREE, free)?;
                free = hole as u64 + 1;
            }
            let state = SpanState { class: classes[span], live: entries.len() as u64, free, listed: false };
            self.put_entry(span, state, ever as u64, 0)?;
        }
        for spans in parts {
            for (nth, span) in spans.iter().enumerate() {
                let next = encode_span(spans.get(nth + 1).copied());
                self.put_entry(*span, SpanState { class: class::PART, live: 1, free: 0, listed: false }, 0, next)?;
            }
        }
        Ok(())
    }

    fn is_free(&self, span: usize) -> bool {
        self.uses.get(span).is_none_or(|used| *used == SpanUse::Free)
    }

    /// Has the segment grow up to a span's end.
    fn grow_to_span(&mut self, span: usize) -> Result<()> {
        if span >= self.uses.len() {
            self.map.grow(self.layout.span(span + 1))?;
            self.uses.resize(span + 1, SpanUse::Free);
        }
        Ok(())
    }

    /// The lists of free spans, and for each class of those with room.
    fn rebuild_lists(&self) -> Result<()> {
        let used = self.uses.iter().rposition(|used| *used != SpanUse::Free).map_or(0, |last| last + 1);
        let mut heads = vec![None; 256];
        let mut free = None;
        for span in (0..self.uses.len()).rev() {
            let class = match self.uses[span] {
                SpanUse::Free => {
                    let next = if span < used { encode_span(free.replace(span)) } else { 0 };
                    self.put_entry(span, SpanState { class: class::FREE, live: 0, free: 0, listed: false }, 0, next)?;
                    continue;
                }
                SpanUse::Records(class) => class,
                SpanUse::Lines => class::LINES,
                SpanUse::Part | SpanUse::Index => continue,
            };
            let entry = self.layout.entry(span);
            let mut state = SpanState::of(self.map.word(entry + SPAN_STATE)?);
            let most = class::size(class).map_or(0, |size| self.layout.span_size() / size);
            if state.free == 0 && self.map.word(entry + BLOCKS_USED)? >= most as u64 {
                continue;
            }
            state.listed = true;
            self.map.put_word(entry + SPAN_STATE, state.word())?;
            let next = heads[number(class)].replace(span);
            self.map.put_word(entry + SPAN_LINKS, encode_span(next))?;
            if let Some(next) = next {
                let links = self.layout.entry(next) + SPAN_LINKS;
                let word = self.map.word(links)?;
                self.map.put_word(links, word & 0xffff_ffff | encode_span(Some(span)) << 32)?;
            }
        }
        for (class, head) in heads.iter().enumerate() {
            self.map.put_word(Spans::class_list(class as u64), encode_span(*head))?;
        }
        self.map.put_word(at::FREE, encode_span(free))?;
        self.map.put_word(at::USED, used as u64)
    }

    fn rebuild_words(&self, entries: u64, buckets: u64, newest: u64, floor: u64) -> Result<()> {
        let map = self.map;
        for word in [at::SWEEP, at::PENDING, at::REMOVED, at::REMOVED_BEFORE, at::PENDING_BYTES] {
            map.put_word(word, 0)?;
        }
        // Farther than anybody's position, so that all who watched know that they missed something.
        let head = map.word(at::LOG_HEAD)?.max(map.word(at::LOG_CLAIMED)?);
        let head = (head & !7).wrapping_add(2 * self.layout.change_log_size as u64);
        // In this order: who looks in between is told so once.
        map.put_word(at::LOG_HEAD, head)?;
        map.put_word(at::LOG_CLAIMED, head)?;
        map.put_word(at::LEN, entries)?;
        map.put_word(at::FLOOR, floor)?;
        map.put_word(at::COMMIT, newest)?;
        let before = map.word(at::BUCKETS)?;
        map.put_word(at::BUCKETS, buckets | (before & !bucket_count(before)).wrapping_add(1 << 40))?;
        let is_file = self.dict.is_file();
        if is_file {
            map.put_word(at::FLUSHED, newest)?;
        }
        if self.is_suspect {
            // Also what the file has grown by: none of it may stay allocated and unwritten.
            map.make_dirty()?;
        }
        self.sync()?;
        if self.is_suspect {
            map.check_extents()?;
        }
        map.put_word(at::REDO_LEN, 0)?;
        map.put_word(at::SUSPECT, 0)?;
        map.put_word(at::DURABLE, if is_file { CLEAN | FLUSHED_BEFORE } else { 0 })?;
        map.put_word(at::BOOT, boot_to_store(self.dict)?)?;
        // All else is on the disk.
        if is_file { sync_or_mark(map, .., FLUSHED_BEFORE | UNSURE) } else { Ok(()) }
    }

    fn sync(&self) -> Result<()> {
        if self.dict.is_file() { sync_or_mark(self.map, .., self.map.word(at::DURABLE)?) } else { Ok(()) }
    }
}

/// Whether a key's newest record that is whole is what the key had.
fn is_current(whole: &ValidRecord, block: usize, past: Option<&PriorState<'_>>, report: &mut Report) -> bool {
    let Some(past) = past else { return true };
    if past.retired.binary_search(&block).is_ok() {
        report.add(Some(&whole.key), Some(block), "only a value from before its last change is whole");
        return false;
    }
    if past.indexed.binary_search(&block).is_err() {
        report.add_undated(&whole.key);
    }
    true
}
