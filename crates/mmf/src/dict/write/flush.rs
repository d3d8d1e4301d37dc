//! [`Flush`]: makes all changes of a dict's file durable.
//!
//! The problem: the system writes pages to the disk in any order and at any time. After a power cut
//! the file may be any mixture of old and new pages. Each key must then have its flushed value or a
//! newer one, and a key whose removal was flushed must stay absent.
//!
//! The rebuild after a power cut ([`recovery`](crate::dict::recovery)) scans all spans for records,
//! and validates them by their checksums. So once a dict was flushed, writers keep these rules:
//!
//! - A replaced record keeps its bytes until the next flush (PENDING). A removal is a record as
//!   well (REMOVED).
//! - A record of a removal stays for one flush more (REMOVED_BEFORE), until the record that it
//!   removed is gone from the disk.
//! - The first change after a flush clears CLEAN on the disk before it changes anything else. A
//!   dict with CLEAN needs no rebuild.
//!
//! The algorithm, under the write lock:
//!
//! 1. If CLEAN is set and the sync mark is not, return.
//! 2. If the sync mark is set, make all pages dirty and verify the dict.
//! 3. Sync the whole file. Then clear the sync mark if it was set.
//! 4. Free the records of REMOVED_BEFORE and then those of PENDING, in batches of 64. Move REMOVED
//!    to REMOVED_BEFORE, and store COMMIT in FLUSHED.
//! 5. Sync the whole file.
//! 6. Store CLEAN and FLUSHED_BEFORE in DURABLE, and sync that word.
//!
//! Why it is correct: records are freed in step 4 only after step 3 has brought their replacements
//! to the disk. Removals are freed one flush later, after step 5 of the flush before has brought
//! the freed stamps of the removed records there. Any sync may fail;
//! [`sync_mark`] describes what follows.
//!
//! Why it ends with a hostile peer: a list has no more records than the object has room for, and a
//! record without a stamp in a list is damage. At the deadline the flush returns `Timeout`, and the
//! next one continues.
//!
//! Cost: three syncs, and a write batch for each 64 freed records.

use std::ops::{Deref, DerefMut};

use std::time::{Duration, Instant};

use crate::dict::Report;
use crate::dict::format::layout::{at, number};
use crate::dict::format::marks::{CLEAN, FLUSHED_BEFORE, SYNCING};
use crate::dict::format::record::STAMP;
use crate::dict::format::span::NEXT_FREE;
use crate::dict::store::sync_mark;
use crate::dict::write::lookup::Lookup;
use crate::dict::write::reclaim::Reclaimer;
use crate::dict::write::session::WriteSession;
use crate::error::{Error, ErrorKind, Result};
use crate::segment::Deadline;

/// The number of records that one batch frees.
const FREES_PER_BATCH: usize = 64;

/// The records that a batch frees.
struct FreedRecords {
    records: Vec<usize>,
    /// A Bloom filter of the records, so that most new ones need no search.
    hashes: [u64; 16],
}

impl FreedRecords {
    fn new() -> FreedRecords {
        FreedRecords { records: Vec::with_capacity(FREES_PER_BATCH), hashes: [0; 16] }
    }

    /// Adds a record. Returns `false` if the batch has it already.
    fn add(&mut self, at: usize) -> bool {
        // Records that follow each other are at least 48 bytes apart.
        let hash = at / 32;
        let (word, bit) = (&mut self.hashes[hash / 64 % 16], 1 << (hash % 64));
        if *word & bit != 0 && self.records.contains(&at) {
            return false;
        }
        *word |= bit;
        self.records.push(at);
        true
    }
}

/// The least time for which a flush frees records, however short the handle's timeout is.
const MIN_FREE_TIME: Duration = Duration::from_millis(100);

/// Makes all changes durable.
pub(in crate::dict) struct Flush<'w, 'a>(&'w mut WriteSession<'a>);

impl<'a> Deref for Flush<'_, 'a> {
    type Target = WriteSession<'a>;

    #[inline(always)]
    fn deref(&self) -> &WriteSession<'a> {
        self.0
    }
}

impl<'a> DerefMut for Flush<'_, 'a> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut WriteSession<'a> {
        self.0
    }
}

impl<'w, 'a> Flush<'w, 'a> {
    #[inline(always)]
    pub(in crate::dict) fn new(writer: &'w mut WriteSession<'a>) -> Self {
        Flush(writer)
    }

    /// Flushes within the handle's working time.
    pub(in crate::dict) fn flush(&mut self) -> Result<()> {
        self.flush_until(self.dict.work_deadline())
    }

    /// Flushes. `until` limits the verification after a failed sync, and the freeing of records.
    pub(in crate::dict) fn flush_until(&mut self, until: Deadline) -> Result<()> {
        let map = self.storage.map;
        if !self.dict.is_file() {
            return Ok(());
        }
        let stands = sync_mark::stands(map)?;
        if self.is_clean() && !stands {
            return Ok(());
        }
        map.rearm();
        let version = self.version()?;
        self.check_seen(version)?;
        // Peer processes may have grown the file, and the sync must reach its end.
        map.refresh()?;
        if stands {
            self.verify(until)?;
        }
        self.sync_marked(..)?;
        if stands {
            map.check_extents()?;
            self.clear_mark()?;
            if self.is_clean() {
                // Nothing is freed while the disk has CLEAN.
                return Ok(());
            }
        }
        // BOOT is 0 before the first change. After a power cut no process rebuilds such a dict or
        // looks at its redo log's pairs, which the disk may lack although it has the redo log's
        // count. So no batch is carried out, and there is nothing to free.
        if map.word(at::BOOT)? != 0 {
            self.free_pending(version, until)?;
        }
        self.sync_durable(CLEAN | FLUSHED_BEFORE, FLUSHED_BEFORE)
    }

    /// Frees the records that were kept for a power cut, and syncs the file. The disk has all
    /// changes up to `version`.
    fn free_pending(&mut self, version: u64, until: Deadline) -> Result<()> {
        let map = self.storage.map;
        // The disk has had the freed stamps of removed records since the previous flush, and has
        // the replacements of pending records since the sync of this one.
        self.free_list(at::REMOVED_BEFORE, until)?;
        self.free_list(at::PENDING, until)?;
        self.batch.clear();
        let removed = map.word(at::REMOVED)?;
        self.batch.push(at::REMOVED_BEFORE, removed);
        self.batch.push(at::REMOVED, 0);
        self.batch.push(at::FLUSHED, version);
        self.0.batch.commit(map, self.0.storage.layout)?;
        self.sync_marked(..)
    }

    /// Frees the records of a list, in batches of [`FREES_PER_BATCH`]. A hostile peer may relink
    /// the list meanwhile. So the loop ends after as many records as the object has room for, at a
    /// record that was freed already, and at the deadline.
    fn free_list(&mut self, list: usize, until: Deadline) -> Result<()> {
        let deadline = until.instant().map(|deadline| deadline.max(Instant::now() + MIN_FREE_TIME));
        // The smallest block has 48 bytes.
        let mut left = self.storage.map.len() / 48;
        loop {
            self.batch.clear();
            let mut freed = FreedRecords::new();
            let mut bytes = self.storage.map.word(at::PENDING_BYTES)?;
            let mut block = self.storage.map.word(list)?;
            while block != 0 && freed.records.len() < FREES_PER_BATCH {
                let at = number(block);
                let next = self.storage.map.word(at.saturating_add(NEXT_FREE))?;
                if left == 0 || !freed.add(at) || self.storage.map.word(at.saturating_add(STAMP))? == 0 {
                    return Err(self.storage.damaged(format!("a list of records to free leads to {at} twice")));
                }
                bytes = bytes.saturating_sub(Lookup::new(self).size_of(at)?);
                let in_spans = Lookup::new(self).head(at)?.in_spans;
                Reclaimer::new(self).free_now(at, in_spans)?;
                block = next;
                left -= 1;
            }
            if freed.records.is_empty() {
                return Ok(());
            }
            self.batch.push(list, block);
            self.batch.push(at::PENDING_BYTES, bytes);
            self.0.batch.commit(self.0.storage.map, self.0.storage.layout)?;
            if block != 0 && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                // The committed batches stay, and the next flush continues.
                let error = Error::new(ErrorKind::Timeout { holder: None }, "flush");
                return Err(self.storage.map.name_error(error).with_help("flush it again, or with a longer timeout"));
            }
        }
    }

    /// Returns whether a flush would free records.
    pub(in crate::dict) fn has_pending(&self) -> Result<bool> {
        for list in [at::PENDING, at::REMOVED, at::REMOVED_BEFORE] {
            if self.has_been_flushed() && self.storage.map.word(list)? != 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Sets the sync mark, makes all pages dirty, and verifies the whole dict. The caller then
    /// syncs the file, and calls [`clear_mark`](Flush::clear_mark).
    #[cold]
    #[inline(never)]
    pub(in crate::dict) fn verify(&mut self, until: Deadline) -> Result<()> {
        let map = self.storage.map;
        self.flush_state |= SYNCING;
        sync_mark::set(map, self.flush_state)?;
        map.make_dirty()?;
        let mut report = Report::default();
        self.dict.check_now(&mut report, until)?;
        match report.problems.first() {
            None => Ok(()),
            Some(problem) => {
                let reason = format!("a sync of it failed, and changes made since then are lost: {problem}");
                let error = map.name_error(Error::new(ErrorKind::Damaged { reason }, "flush"));
                Err(error.with_help("close it everywhere and run `mmf repair`, which keeps what is whole"))
            }
        }
    }

    /// Clears the sync mark, after a sync of everything that was verified.
    pub(in crate::dict) fn clear_mark(&mut self) -> Result<()> {
        let map = self.storage.map;
        self.flush_state &= !SYNCING;
        map.put_word(at::DURABLE, self.flush_state)?;
        map.put_word(at::SUSPECT, 0)
    }

    /// Refuses a version below one that this handle has seen: the page of the words has gone back.
    pub(in crate::dict) fn check_seen(&self, version: u64) -> Result<()> {
        let seen = self.dict.seen.fetch_max(version, std::sync::atomic::Ordering::Relaxed);
        if seen <= version {
            return Ok(());
        }
        let reason = format!("its last change has the version {version}, which was {seen} before");
        let error = self.storage.map.name_error(Error::new(ErrorKind::Damaged { reason }, "flush"));
        Err(error.with_help("its disk may have failed: close it everywhere and run `mmf repair`"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::dict::Dict;
    use crate::dict::format::span::SPAN_STATE;

    /// Returns a file whose next flush frees `records` records, and the first of them.
    fn pending(what: &str, records: usize) -> (std::path::PathBuf, Dict, usize) {
        let path = std::env::temp_dir().join(format!("mmf pending {what} {}", std::process::id()));
        let dict = Dict::create_new(path.as_path(), 4 << 20).unwrap();
        for round in 0..2 {
            for nth in 0..records {
                dict.set_bytes(&format!("{nth}"), &[round; 20]).unwrap();
            }
            if round == 0 {
                dict.flush().unwrap();
            }
        }
        let block = number(dict.segment.map.word(at::PENDING).unwrap());
        (path, dict, block)
    }

    #[test]
    fn a_repair_after_a_failed_sync_has_no_deadline() {
        let path = std::env::temp_dir().join(format!("mmf repaired late {}", std::process::id()));
        let dict = Dict::create_new(path.as_path(), 64 << 20).unwrap();
        // A check of all of them takes longer than any call with this timeout may work.
        (0..40_000).for_each(|nth| {
            dict.set_bytes(&format!("{nth}"), &[1; 500]).unwrap();
        });
        let map = &dict.segment.map;
        map.put_word(at::DURABLE, map.word(at::DURABLE).unwrap() | SYNCING).unwrap();
        drop(dict);
        let report = Dict::options().timeout(Some(Duration::ZERO)).repair(path.as_path()).unwrap();
        assert!(report.is_whole(), "{report:#?}");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_list_that_leads_to_itself_is_damage() {
        let (path, dict, block) = pending("circle", 100);
        dict.segment.map.put_word(block + NEXT_FREE, block as u64).unwrap();
        for _ in 0..2 {
            let error = dict.flush().unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Damaged { .. }), "{error}");
        }
        drop(dict);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_peer_that_relinks_what_is_freed_does_not_keep_a_flush() {
        let (path, mut dict, block) = pending("relinked", 3000);
        dict.timeout = Some(Duration::from_millis(200));
        let entry = dict.layout.entry(dict.layout.span_of(block).unwrap());
        let second = number(dict.segment.map.word(block + NEXT_FREE).unwrap());
        let (peer, ends) = (Dict::open(path.as_path()).unwrap(), AtomicBool::new(false));
        let state = peer.segment.map.word(entry + SPAN_STATE).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let map = &peer.segment.map;
                while !ends.load(Ordering::Relaxed) {
                    for (at, word) in [
                        (block + NEXT_FREE, second as u64),
                        (second + NEXT_FREE, block as u64),
                        (block + STAMP, 5),
                        (second + STAMP, 6),
                        (entry + SPAN_STATE, state),
                        (at::PENDING, block as u64),
                    ] {
                        map.put_word(at, word).unwrap();
                    }
                }
            });
            for _ in 0..3 {
                let since = Instant::now();
                let _ = dict.flush();
                // This includes the time of the disk.
                assert!(since.elapsed() < Duration::from_secs(5));
            }
            ends.store(true, Ordering::Relaxed);
        });
        drop((dict, peer));
        std::fs::remove_file(path).unwrap();
    }
}
