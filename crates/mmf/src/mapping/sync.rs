//! Bringing bytes to the disk, also after the disk has failed for a time.
//!
//! A failed sync is more than a delay. Linux marks a page clean although its write failed, and
//! reports that once for each open file description. The next `fsync` finds nothing to write and
//! succeeds. Later the system may drop the page and read its old bytes from the disk. Other systems
//! promise no more. So after a failed sync the next one through the same handle:
//!
//! 1. makes each page of the mapping dirty again, by an atomic addition of 0 to its first byte,
//!    which changes no byte, whatever peers store meanwhile;
//! 2. hands all of them to the system and waits for the disk.
//!
//! All of them, since the system does not tell which page it could not write: `fsync` reports
//! failures anywhere in the file. One thread of a handle syncs at a time: of two that overlap the
//! system tells one alone of a failure, and the other would confirm bytes that were lost.

use std::io;
use std::ops::{Range, RangeBounds};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::Mapping;
use crate::error::{Error, ErrorKind, Result};
use crate::mem::{self, AccessorMut};
use crate::sys;
use crate::types::{Access, FaultPolicy};

/// No system has smaller pages.
const PAGE: usize = 4096;

/// Bytes that are written anew at once, from a multiple of it on: no system keeps larger units of a
/// file in memory.
const REWRITE_CHUNK: usize = 16 << 20;

/// How long a thread sleeps between two looks at whether another thread's sync has ended.
const TURN_POLL: Duration = Duration::from_micros(200);

/// What a handle knows of its syncs.
pub(super) struct SyncState {
    /// The last sync or flush through this handle failed.
    failed: AtomicBool,
    /// 0, or the number of forks before this process plus 1 while one of its threads syncs. A
    /// thread that syncs in the parent does not exist in a forked child, which has another number.
    turn: AtomicU64,
}

/// A thread's turn to sync. Its drop ends the turn.
struct SyncTurn<'a>(&'a AtomicU64);

impl Drop for SyncTurn<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

impl SyncState {
    pub(super) fn new() -> SyncState {
        SyncState { failed: AtomicBool::new(false), turn: AtomicU64::new(0) }
    }

    /// Blocks until no other thread of this process syncs through this handle.
    fn take_turn(&self) -> SyncTurn<'_> {
        let this = u64::from(sys::watch_forks()) + 1;
        loop {
            let seen = self.turn.load(Ordering::Relaxed);
            // The turn of a thread of the parent process ends with the fork.
            let is_free = seen != this;
            if is_free && self.turn.compare_exchange(seen, this, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return SyncTurn(&self.turn);
            }
            std::thread::sleep(TURN_POLL);
        }
    }
}

impl Mapping {
    /// Hands changed bytes to the system, which writes them to the file when it sees fit. Other
    /// processes see changes without it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfBounds`]; what the system reports.
    pub fn flush(&self, range: impl RangeBounds<usize>) -> Result<()> {
        let (offset, len) = self.resolve(range, "flush")?;
        let flushed = self.flush_view(offset, len);
        if flushed.is_err() {
            self.syncs.failed.store(true, Ordering::Release);
        }
        flushed.map_err(|error| self.name_error(error))
    }

    fn flush_view(&self, offset: usize, len: usize) -> Result<()> {
        // The older ones too: pointers into them stay in use, and on Windows each view knows its
        // own changes alone.
        self.views().iter().try_for_each(|view| {
            let end = view.address_len().min(offset + len);
            if offset < end { view.flush(offset, end - offset) } else { Ok(()) }
        })
    }

    /// As [`flush`](Mapping::flush), and returns once the file is on its disk: `msync` and `fsync`,
    /// `FlushViewOfFile` and `FlushFileBuffers`. Memory has no disk and is done at once.
    ///
    /// After an error the disk may lack any byte written since the last sync that succeeded, and
    /// the system may read such bytes back as they were before. The next sync through this handle,
    /// of whichever range, writes every page of the mapping again; in the holes of a file those
    /// alone whose bytes are not all zero. It succeeds only once the disk has what the mapping
    /// holds then; compare what matters, or write it again first.
    ///
    /// The system tells each handle of a failure once. A handle that was opened after another
    /// program's sync has failed, and a forked child of a process whose sync has failed, are told
    /// of nothing: their syncs may succeed without the bytes whose write failed before.
    ///
    /// # Errors
    ///
    /// As [`flush`](Mapping::flush). After a failed sync also [`ErrorKind::Fault`], and
    /// [`ErrorKind::Unsupported`] under [`FaultPolicy::SystemCalls`], which
    /// has no way to write a page again without a change.
    pub fn sync(&self, range: impl RangeBounds<usize>) -> Result<()> {
        self.rearm();
        self.sync_armed(range)
    }

    /// As [`sync`](Mapping::sync), for a caller that syncs several times and calls
    /// [`rearm`](Mapping::rearm) once.
    pub(crate) fn sync_armed(&self, range: impl RangeBounds<usize>) -> Result<()> {
        let (offset, len) = self.resolve(range, "sync")?;
        if self.access != Access::ReadWrite {
            return Ok(());
        }
        let _turn = self.syncs.take_turn();
        let synced = self.sync_in_turn(offset, len);
        self.syncs.failed.store(synced.is_err(), Ordering::Release);
        synced.map_err(|error| self.name_error(error))
    }

    fn sync_in_turn(&self, mut offset: usize, mut len: usize) -> Result<()> {
        let has_failed = self.has_failed_sync();
        if has_failed {
            (offset, len) = (0, self.len());
            self.make_dirty()?;
        }
        mem::trace::sync(offset..offset + len, || {
            self.flush_view(offset, len)?;
            self.object.sync()?;
            if has_failed { self.check_extents() } else { Ok(()) }
        })
    }

    /// Whether the last sync or flush through this handle failed.
    pub(crate) fn has_failed_sync(&self) -> bool {
        self.syncs.failed.load(Ordering::Acquire)
    }

    /// Has the system take each page for changed, and changes none. A page in a hole of the file
    /// whose bytes are all zero stays as it is, where the system tells of holes: to write it would
    /// allocate it, and the file reads as zeros there without it.
    ///
    /// A page in a hole can have other bytes. A file system that gives a file its space only after
    /// the write (btrfs), or that could not allocate it (ext4, XFS), leaves a hole where a write
    /// failed.
    pub(crate) fn make_dirty(&self) -> Result<()> {
        let allocated = self.object.allocated(self.end_in_object()).map_err(|error| self.name_error(error))?;
        let mut end = 0;
        for range in self.of_this(allocated) {
            self.make_hole_dirty(end..range.start)?;
            end = end.max(range.end);
            self.make_range_dirty(range)?;
        }
        self.make_hole_dirty(end..self.len())
    }

    /// As [`make_dirty`](Mapping::make_dirty), for pages that the file has no space for.
    fn make_hole_dirty(&self, hole: Range<usize>) -> Result<()> {
        let mut start = hole.start;
        while start < hole.end {
            let end = hole.end.min(start.saturating_add(REWRITE_CHUNK));
            let parts = self.views().last().map(|view| view.in_memory(start, end - start)).unwrap_or_default();
            for part in parts {
                self.make_part_dirty(part)?;
            }
            start = end;
        }
        Ok(())
    }

    fn make_part_dirty(&self, part: Range<usize>) -> Result<()> {
        let before = self.locate_writable(0, 0, "sync")?.addr() % PAGE;
        let mut room = [0; PAGE];
        let mut offset = part.start;
        while offset < part.end {
            let next = part.end.min((offset + before) / PAGE * PAGE + PAGE - before);
            let bytes = &mut room[..next - offset];
            self.read_at(offset, bytes)?;
            if bytes.iter().any(|byte| *byte != 0) {
                self.make_range_dirty(offset..next)?;
            }
            offset = next;
        }
        Ok(())
    }

    /// Where this mapping ends in its object, of which it may be a part.
    fn end_in_object(&self) -> u64 {
        self.request.offset.saturating_add(self.len() as u64)
    }

    /// What lies in this mapping of some ranges of its object.
    fn of_this(&self, ranges: Vec<Range<u64>>) -> impl Iterator<Item = Range<usize>> {
        let (first, len) = (self.request.offset, self.len());
        let here = move |at: u64| usize::try_from(at.saturating_sub(first)).unwrap_or(usize::MAX).min(len);
        ranges.into_iter().map(move |range| here(range.start)..here(range.end)).filter(|range| !range.is_empty())
    }

    /// Parts that read as zeros once their pages have left memory, although a sync has succeeded.
    fn unwritten(&self) -> Result<Vec<Range<usize>>> {
        Ok(self.of_this(self.object.unwritten(self.end_in_object())?).collect())
    }

    /// As [`make_dirty`](Mapping::make_dirty), for the pages of a range.
    pub(crate) fn make_range_dirty(&self, range: Range<usize>) -> Result<()> {
        if self.policy == FaultPolicy::SystemCalls {
            let what = "a sync after a failed one, under the fault policy of system calls";
            let error = self.name_error(Error::unsupported("sync", what));
            return Err(error.with_help("open it again with another fault policy, write the bytes again and sync them"));
        }
        // Pages begin at multiples of their size in memory; a part of an object may begin anywhere
        // in its first page.
        let before = self.locate_writable(0, 0, "sync")?.addr() % PAGE;
        let mut offset = range.start;
        while offset < range.end {
            AccessorMut::make_dirty(self, offset, "sync")?;
            offset = (offset + before) / PAGE * PAGE + PAGE - before;
        }
        Ok(())
    }

    /// Fails where a sync of all pages has succeeded, and the file system would read some back as
    /// zeros all the same.
    pub(crate) fn check_extents(&self) -> Result<()> {
        let Some(first) = self.unwritten()?.into_iter().next() else { return Ok(()) };
        let reason = format!(
            "its file system keeps bytes {} to {} in memory alone, since their first write failed",
            first.start, first.end
        );
        let error = self.name_error(Error::system("sync", io::Error::other(reason)));
        Err(error.with_help("copy the file while it is open; of a dict, `mmf repair` writes them anew"))
    }

    /// Whether [`check_extents`](Mapping::check_extents) fails for the reason that it tells of.
    pub(crate) fn lacks_extents(&self) -> Result<bool> {
        Ok(!self.unwritten()?.is_empty())
    }

    /// Has the file system give data to all parts that it would read back as zeros, beginning at
    /// `from` or behind it. For a moment each of them reads as zeros: no process may use them then.
    ///
    /// # Errors
    ///
    /// What the system reports; all bytes are in memory then. `Unsupported` where a part begins
    /// before `from`.
    pub(crate) fn write_anew(&self, from: usize) -> Result<()> {
        for Range { mut start, end } in self.unwritten()? {
            if start < from {
                let error = Error::unsupported("sync", "writing anew what every process uses, on this file system");
                return Err(self.name_error(error).with_help("copy the file while it is open"));
            }
            while start < end {
                let next = end.min((start / REWRITE_CHUNK + 1) * REWRITE_CHUNK);
                self.write_part_anew(start, next - start)?;
                start = next;
            }
        }
        Ok(())
    }

    fn write_part_anew(&self, offset: usize, len: usize) -> Result<()> {
        // Such writes take whole pages from whole pages.
        let mut room = Vec::new();
        if room.try_reserve_exact(len + PAGE).is_err() {
            return Err(self.name_error(Error::new(ErrorKind::NoSpace, "copy")));
        }
        room.resize(len + PAGE, 0);
        let skipped = room.as_ptr().align_offset(PAGE).min(PAGE);
        let bytes = &mut room[skipped..skipped + len];
        self.read_at(offset, bytes)?;
        let written = self
            .object
            .write_around(self.request.offset + offset as u64, bytes)
            .map_err(|error| self.name_error(error));
        // The system drops pages in larger units than it writes.
        for (nth, page) in bytes.chunks(PAGE).enumerate() {
            let mut there = [0; PAGE];
            let there = &mut there[..page.len()];
            self.read_at(offset + nth * PAGE, there)?;
            if there != page {
                self.write_at(offset + nth * PAGE, page)?;
            }
        }
        written
    }
}
