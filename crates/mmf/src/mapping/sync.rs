//! Flush and sync of a mapping, also after the disk has failed for a time.
//!
//! The problem: Linux marks a page clean although its write failed, and reports that once for each
//! open file description. The next `fsync` finds nothing to write and succeeds. Later the system
//! may drop the page and read its old bytes from the disk. Other systems promise no more.
//!
//! The algorithm of a sync after a failed one through the same handle:
//!
//! 1. Make each page of the mapping dirty again, by an atomic addition of 0 to its first byte. It
//!    changes no byte, whatever peers store meanwhile.
//! 2. Hand all of them to the system, and wait for the disk.
//!
//! It writes all pages, since `fsync` does not say which page failed. One thread of a handle syncs
//! at a time: if two syncs overlap, the system reports a failure to one of them only, and the other
//! would confirm lost bytes.

use std::io;
use std::ops::{Range, RangeBounds};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::Mapping;
use crate::error::{Error, ErrorKind, Result};
use crate::mem::{self, AccessorMut};
use crate::sys;
use crate::types::{Access, FaultPolicy};

/// The smallest page size of any supported system.
const PAGE: usize = 4096;

/// The unit in which bytes are written anew, aligned to its size. No system keeps larger units of a
/// file in memory.
const REWRITE_CHUNK: usize = 16 << 20;

/// The time between two polls for the end of another thread's sync.
const TURN_POLL: Duration = Duration::from_micros(200);

/// The state of a handle's syncs.
pub(super) struct SyncState {
    /// Whether the last sync or flush through this handle failed.
    failed: AtomicBool,
    /// 0, or, while a thread syncs, 1 plus the number of forks before this process. A forked child
    /// has another number, so it does not wait for a thread of the parent.
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
    /// Hands changed bytes to the system, which writes them to the file at a time of its choice.
    /// Other processes see changes without it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfBounds`]; the system's errors.
    pub fn flush(&self, range: impl RangeBounds<usize>) -> Result<()> {
        let (offset, len) = self.resolve(range, "flush")?;
        let flushed = self.flush_view(offset, len);
        if flushed.is_err() {
            self.syncs.failed.store(true, Ordering::Release);
        }
        flushed.map_err(|error| self.name_error(error))
    }

    fn flush_view(&self, offset: usize, len: usize) -> Result<()> {
        // This includes older views: pointers into them stay in use, and on Windows a flush of a
        // view covers only changes through that view.
        self.views().iter().try_for_each(|view| {
            let end = view.address_len().min(offset + len);
            if offset < end { view.flush(offset, end - offset) } else { Ok(()) }
        })
    }

    /// Hands changed bytes to the system, and returns once the file is on its disk: `msync` and
    /// `fsync`, `FlushViewOfFile` and `FlushFileBuffers`. For memory it does nothing.
    ///
    /// After an error the disk may lack any byte written since the last sync that succeeded, and
    /// the system may read such bytes back as they were before. The next sync through this handle,
    /// of any range, writes every page of the mapping again. In the holes of a file it writes only
    /// pages whose bytes are not all zero. It succeeds only once the disk has the mapping's bytes
    /// of that moment. So compare the bytes that matter, or write them again first.
    ///
    /// The system reports a failure to each handle once. It does not report it to a handle that was
    /// opened after another program's sync has failed, or to a forked child of a process whose sync
    /// has failed. Their syncs may succeed without the bytes whose write failed before.
    ///
    /// # Errors
    ///
    /// Those of [`flush`](Mapping::flush). After a failed sync also [`ErrorKind::Fault`], and
    /// [`ErrorKind::Unsupported`] under [`FaultPolicy::SystemCalls`], which cannot write a page
    /// again without a change.
    pub fn sync(&self, range: impl RangeBounds<usize>) -> Result<()> {
        self.rearm();
        self.sync_armed(range)
    }

    /// Syncs like [`sync`](Mapping::sync), for a caller that syncs several times and calls
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

    /// Returns whether the last sync or flush through this handle failed.
    pub(crate) fn has_failed_sync(&self) -> bool {
        self.syncs.failed.load(Ordering::Acquire)
    }

    /// Makes each page dirty without changing its bytes. If the system reports holes, a page in a
    /// hole of the file whose bytes are all zero stays clean: to write it would allocate it, and
    /// the file reads as zeros there without it.
    ///
    /// A page in a hole can have other bytes. A file system that allocates space only after the
    /// write (btrfs), or that could not allocate it (ext4, XFS), leaves a hole where a write
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

    /// Makes pages in holes of the file dirty, if their bytes are not all zero.
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

    /// Returns the end of this mapping in its object, of which it may be a part.
    fn end_in_object(&self) -> u64 {
        self.request.offset.saturating_add(self.len() as u64)
    }

    /// Returns the parts of some ranges of the object that lie in this mapping.
    fn of_this(&self, ranges: Vec<Range<u64>>) -> impl Iterator<Item = Range<usize>> {
        let (first, len) = (self.request.offset, self.len());
        let here = move |at: u64| usize::try_from(at.saturating_sub(first)).unwrap_or(usize::MAX).min(len);
        ranges.into_iter().map(move |range| here(range.start)..here(range.end)).filter(|range| !range.is_empty())
    }

    /// Returns the parts that will read as zeros once their pages have left memory, although a sync
    /// has succeeded.
    fn unwritten(&self) -> Result<Vec<Range<usize>>> {
        Ok(self.of_this(self.object.unwritten(self.end_in_object())?).collect())
    }

    /// Makes the pages of a range dirty without changing their bytes.
    pub(crate) fn make_range_dirty(&self, range: Range<usize>) -> Result<()> {
        if self.policy == FaultPolicy::SystemCalls {
            let what = "a sync after a failed one, under the fault policy of system calls";
            let error = self.name_error(Error::unsupported("sync", what));
            return Err(error.with_help("open it again with another fault policy, write the bytes again and sync them"));
        }
        // A page begins at a multiple of its size in memory. A part of an object may begin anywhere
        // in its first page.
        let before = self.locate_writable(0, 0, "sync")?.addr() % PAGE;
        let mut offset = range.start;
        while offset < range.end {
            AccessorMut::make_dirty(self, offset, "sync")?;
            offset = (offset + before) / PAGE * PAGE + PAGE - before;
        }
        Ok(())
    }

    /// Returns an error if the file system would read some pages back as zeros, although a sync of
    /// all pages has succeeded.
    pub(crate) fn check_extents(&self) -> Result<()> {
        let Some(first) = self.unwritten()?.into_iter().next() else { return Ok(()) };
        let reason = format!(
            "its file system keeps bytes {} to {} in memory alone, since their first write failed",
            first.start, first.end
        );
        let error = self.name_error(Error::system("sync", io::Error::other(reason)));
        Err(error.with_help("copy the file while it is open; of a dict, `mmf repair` writes them anew"))
    }

    /// Returns whether [`check_extents`](Mapping::check_extents) would find such pages.
    pub(crate) fn lacks_extents(&self) -> Result<bool> {
        Ok(!self.unwritten()?.is_empty())
    }

    /// Makes the file system store data for all parts from `from` on that it would read back as
    /// zeros. Each of them reads as zeros for a moment, so no process may use them meanwhile.
    ///
    /// # Errors
    ///
    /// The system's errors; all bytes are in memory then. `Unsupported` if such a part begins
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
        // Such a write takes whole pages of memory, at multiples of the page size.
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
        // The system may drop pages in larger units than it writes.
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
