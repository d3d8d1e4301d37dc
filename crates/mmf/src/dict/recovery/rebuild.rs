//! [`Rebuild`]: builds a dict anew from its valid records, after a power cut or for a repair.
//!
//! The problem: pages of the file are from different times, and only records have checksums. A
//! death or another power cut may interrupt the rebuild anywhere. The algorithm, under the write
//! lock:
//!
//! 1. Scan all spans for valid records ([`RecordScan`]).
//! 2. Select the newest record of each key with a version above FLOOR. A removal means absent.
//! 3. Give each large value its spans. Of two values that claim one span, drop the lower stamp.
//! 4. Without room for an index, repeat steps 2 and 3 with the records up to a lower stamp, at the
//!    worst up to FLUSHED. All flushed records had an index, and none has been overwritten.
//! 5. Mark the dict as being rebuilt ([`begin_rebuild`]).
//! 6. Clear the stamps of all other records, and spans without a selected one. Sync. Then clear the
//!    stamps of removals.
//! 7. Write table, index, lists and words. Readers see the index with BUCKETS. Sync.
//! 8. Remove the marks: store REDO_LEN, SUSPECT, DURABLE and BOOT. Sync.
//!
//! Why it is correct: selected records keep their bytes, so an interrupted rebuild selects the same
//! ones again. A removal stays until the record that it removed has no stamp on the disk. The mark
//! stays until step 8, so no other process uses a half-built dict.
//!
//! Cost: reads each record once or twice; three syncs of the file and one of a word. Private memory
//! grows with the number of records.

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

/// The number of bytes that one copy compares with zeros.
const CHUNK: usize = 64 << 10;

/// Records that a newer change has replaced.
pub(in crate::dict) enum Superseded {
    /// The lists and the index are not to be trusted.
    Unknown,
    /// The sorted blocks of the replaced records. The index says which records counted.
    Known(Vec<usize>),
}

/// The records that count, and the removals that must stay until the others are cleared.
#[derive(Default)]
struct SelectedRecords {
    /// The key's hash and the block of each record that counts.
    entries: Vec<(u64, usize)>,
    removals: Vec<usize>,
    /// Stamp and block of the entries whose values lie in spans.
    large: Vec<(u64, usize)>,
    /// The largest stamp or version of all records.
    newest: u64,
}

/// The state of the lists and the index before a repair, in a dict that no power cut has left.
struct PriorState<'a> {
    /// The sorted blocks of records that a newer change has replaced.
    retired: &'a [usize],
    /// The sorted blocks that the index leads to.
    indexed: Vec<usize>,
}

/// A selection that has room, with the spans of its large values and the number of its buckets.
struct FittedSelection {
    selection: SelectedRecords,
    parts: Vec<Vec<usize>>,
    buckets: u64,
}

/// The use of a span in the rebuilt dict.
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
    /// Whether a sync may have failed before this rebuild.
    is_suspect: bool,
}

impl<'a> Rebuild<'a> {
    /// Prepares a rebuild. The caller holds the lock.
    pub(in crate::dict) fn new(dict: &'a Dict, scope: ScanScope) -> Result<Rebuild<'a>> {
        let storage = dict.storage();
        // An earlier holder of the lock may have grown the file.
        storage.map.refresh()?;
        let uses = vec![SpanUse::Free; storage.spans().mapped_spans()];
        Ok(Rebuild { dict, storage, map: storage.map, layout: storage.layout, scope, uses, is_suspect: false })
    }

    /// Performs the rebuild, and returns the number of entries.
    pub(in crate::dict) fn run(mut self, retired: &Superseded, report: &mut Report) -> Result<u64> {
        if self.dict.is_file() {
            // Pages that an interrupted rebuild has stored must reach the disk, too.
            self.is_suspect = self.map.word(at::SUSPECT)? != 0;
            if self.is_suspect {
                self.map.make_dirty()?;
            }
            self.map.put_word(at::SUSPECT, 1)?;
        }
        let ScanResult { classes, mut records, broken } = RecordScan::new(&self.storage).scan_records(self.scope)?;
        if matches!(retired, Superseded::Unknown) {
            // No check has reported these records before.
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
        drop((records, past));
        selection.newest = selection.newest.max(floor);
        for word in [at::COMMIT, at::FLUSHED] {
            selection.newest =
                selection.newest.max(Some(self.map.word(word)?).filter(|it| *it < MAX_VERSION).unwrap_or(0));
        }
        // From here on no reader may report a key as absent because the index lacks it.
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

    /// Returns FLOOR. In a repair, a FLOOR above all records and COMMIT is damage, and counts as 0.
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
        report.add(None, Some(at::FLOOR), "the mark of the last clear is damaged: cleared keys may be present again");
        Ok(0)
    }

    /// Selects the newest record of each key. If there is no room for an index of them all, selects
    /// among older records, at the worst those up to FLUSHED (step 4 of the start of this file).
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

    /// Selects the newest record of each key among those with a stamp up to `limit`.
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
            // A moved record may be there twice with one version; the higher stamp wins.
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

    /// Returns the spans of each large value. Of two that claim a span, drops the lower stamp.
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
            report.add(Some(&key), Some(*block), "its value lies in spans that another record uses");
        }
        refused.sort_unstable();
        selection.entries.retain(|(_, block)| refused.binary_search(block).is_err());
        Ok(parts)
    }

    /// Stores 0 in the stamps of all other records, and fills spans without a selected record with
    /// zeros. Otherwise a later scan could find old records in a span that was used again.
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

    /// Stores 0 in the stamps of removals, and fills spans that held nothing else with zeros.
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

    /// Fills those parts of a span with zeros that have other bytes.
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

    /// Writes the entries of spans with records or parts. `selection` is sorted by blocks.
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

    fn grow_to_span(&mut self, span: usize) -> Result<()> {
        if span >= self.uses.len() {
            self.map.grow(self.layout.span(span + 1))?;
            self.uses.resize(span + 1, SpanUse::Free);
        }
        Ok(())
    }

    /// Writes the list of free spans, and for each class the list of spans with room.
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

    /// Writes the words, and completes the rebuild.
    fn rebuild_words(&self, entries: u64, buckets: u64, newest: u64, floor: u64) -> Result<()> {
        let map = self.map;
        for word in [at::SWEEP, at::PENDING, at::REMOVED, at::REMOVED_BEFORE, at::PENDING_BYTES] {
            map.put_word(word, 0)?;
        }
        // More than the log's size beyond each watcher, so that all of them report missed changes.
        let head = map.word(at::LOG_HEAD)?.max(map.word(at::LOG_CLAIMED)?);
        let head = (head & !7).wrapping_add(2 * self.layout.change_log_size as u64);
        // In this order, a watcher that reads between the two stores reports missed changes once.
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
            // Includes the pages that the file has grown by: none may stay allocated and unwritten.
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
        if is_file { sync_or_mark(map, .., FLUSHED_BEFORE | UNSURE) } else { Ok(()) }
    }

    fn sync(&self) -> Result<()> {
        if self.dict.is_file() { sync_or_mark(self.map, .., self.map.word(at::DURABLE)?) } else { Ok(()) }
    }
}

/// Returns whether a key's newest valid record counts. Reports one that a damaged record had
/// replaced, and one that the index does not lead to.
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
