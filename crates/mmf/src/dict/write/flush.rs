//! What a file holds after the power went: the flushed value of each key, or a newer one.
//!
//! Pages reach the disk when the system sees fit, so after a power cut any mixture of them may be there. Records are found by
//! looking through all spans then, and by their checksums. For that, once a dict has been flushed:
//!
//! - What was freed since the last flush keeps its bytes until the next. A removal is a record as well.
//! - Removals stay for one flush more, until what they removed is gone from the disk.
//! - The first change after a flush says so on the disk before anything else is changed; a dict that was not changed since
//!   needs no looking through.
//!
//! Each sync here may fail; [`sync_mark`] tells what follows from that.

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

/// Records freed in one batch.
const FREES_PER_BATCH: usize = 64;

/// The records that a batch frees.
struct FreedRecords {
    records: Vec<usize>,
    /// A bit for each hash of a record in it, so that few of them have to be searched for.
    hashes: [u64; 16],
}

impl FreedRecords {
    fn new() -> FreedRecords {
        FreedRecords { records: Vec::with_capacity(FREES_PER_BATCH), hashes: [0; 16] }
    }

    /// Adds a record; `false` where it is in it.
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

/// How long a flush frees records at the least, however short the handle's timeout is.
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

    /// Brings everything to the disk, and frees what was kept for a power cut.
    pub(in crate::dict) fn flush(&mut self) -> Result<()> {
        self.flush_until(self.dict.work_deadline())
    }

    /// As `flush`. `until`: for how long it verifies the dict after a failed sync, and for how long
    /// it frees.
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
        // All of it, also what others have made it longer by.
        map.refresh()?;
        if stands {
            self.verify(until)?;
        }
        self.sync_marked(..)?;
        if stands {
            map.check_extents()?;
            self.clear_mark()?;
            if self.is_clean() {
                // Nothing is freed while the disk says that nothing changes.
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

    /// Frees what was kept for a power cut, and syncs that. The disk has all changes up to
    /// `version`.
    fn free_pending(&mut self, version: u64, until: Deadline) -> Result<()> {
        let map = self.storage.map;
        // What was removed is gone from the disk since the flush before; what replaced it is there since this one.
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

    /// Frees the records of a list, in batches of some each. A peer may relink the list meanwhile:
    /// it ends after as many records as there is room for, at a record that was freed already, and
    /// at the deadline.
    fn free_list(&mut self, list: usize, until: Deadline) -> Result<()> {
        let deadline = until.instant().map(|deadline| deadline.max(Instant::now() + MIN_FREE_TIME));
        // No record takes less.
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
                    return Err(self.storage.damaged(format!("a list of what is to be freed leads to {at} again")));
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
                // What was freed stays freed, and the next flush goes on.
                let error = Error::new(ErrorKind::Timeout { holder: None }, "flush");
                return Err(self.storage.map.name_error(error).with_help("flush it again, or with a longer timeout"));
            }
        }
    }

    /// Whether a flush would free anything.
    pub(in crate::dict) fn has_pending(&self) -> Result<bool> {
        for list in [at::PENDING, at::REMOVED, at::REMOVED_BEFORE] {
            if self.has_been_flushed() && self.storage.map.word(list)? != 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes all pages dirty, and looks whether all of the dict is whole. Behind it a sync, and
    /// then `clear_mark`.
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
                let reason =
                    format!("a sync of it failed, and not all is there that was written since then: {problem}");
                let error = map.name_error(Error::new(ErrorKind::Damaged { reason }, "flush"));
                Err(error.with_help("close it everywhere and run `mmf repair`, which keeps what is whole"))
            }
        }
    }

    /// Takes the mark away, after a sync of all that was verified.
    pub(in crate::dict) fn clear_mark(&mut self) -> Result<()> {
        let map = self.storage.map;
        self.flush_state &= !SYNCING;
        map.put_word(at::DURABLE, self.flush_state)?;
        map.put_word(at::SUSPECT, 0)
    }

    /// Refuses words that have gone back behind a version that this handle has seen.
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

    /// A file whose next flush frees as many records, and the first of them.
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
                // The disk takes its time, too.
                assert!(since.elapsed() < Duration::from_secs(5));
            }
            ends.store(true, Ordering::Relaxed);
        });
        drop((dict, peer));
        std::fs::remove_file(path).unwrap();
    }
}
