//! [`Dict`]: keys and values that processes share, in memory or in a file.

mod allocator;
mod change_log;
mod check;
#[cfg(feature = "serde")]
mod checked_serializer;
mod compaction;
mod encoding;
mod entries;
mod fast_path;
mod flush;
mod index;
mod layout;
#[cfg(test)]
#[cfg(loom)]
mod models;
#[cfg(feature = "serde")]
mod msgpack;
mod open_after_crash;
mod options;
#[cfg(test)]
mod power_cut_tests;
mod read;
mod rebuild;
mod record;
mod record_scan;
mod redo_log;
mod report;
mod single_key;
mod stats;
mod sync_mark;
mod transaction;
mod value_copy;
mod watch;
mod work_limit;
mod write;
mod write_set;

pub use encoding::Encoding;
pub use entries::{Entries, Entry};
pub use options::DictOptions;
pub use report::{Problem, Report, Stats};
pub use transaction::{Snapshot, Transaction};
pub use watch::{Change, Changes, Watched};

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::mapping::Mapping;
use crate::name::Source;
use crate::segment::layout::{PAYLOAD, SegmentKind};
use crate::segment::{self, Container, Deadline, Segment};
use allocator::Storage;
use layout::{Layout, at};
use read::{DiscardValue, Found, Sink};
use record::KEY_MAX;
use redo_log::WriteBatch;
use work_limit::MIN_WORK_TIME;
use write::WriteSession;

/// Keys and values that processes share, by name or by file.
///
/// Keys are UTF-8 of up to [1 KiB](Dict::KEY_MAX). Values are whatever [`serde`](https://serde.rs) knows, kept as `MessagePack` so
/// that every language reads them, or bytes as they are. What one process [sets](Dict::set), every other
/// [gets](Dict::get) from then on.
///
/// Reading takes no lock and no place among the participants, works on a read-only handle, and cannot be held up by a
/// writer that is slow, stopped or dead: it gives the value before a change or the one after it, never a part of either. Writing takes
/// the segment's lock. Whatever a process that dies has half done is brought to its end by whoever writes next, so a dict
/// is never poisoned and nothing is lost.
///
/// # Examples
///
/// ```
/// use mmf::{Dict, Name};
///
/// let name = Name::local(format!("settings-{}", std::process::id()))?;
/// let ours = Dict::create_new(&name, 16 << 20)?;
/// let theirs = Dict::open(&name)?;
///
/// ours.set("greeting", "hello")?;
/// assert_eq!(theirs.get::<String>("greeting")?.as_deref(), Some("hello"));
///
/// theirs.increment("visits", 1)?;
/// assert_eq!(ours.get("visits")?, Some(1));
/// # Ok::<(), mmf::Error>(())
/// ```
pub struct Dict {
    segment: Segment<DictState>,
    layout: Layout,
    /// What keys are hashed with.
    seed: u64,
    /// Of a file: records up to this version are from before it was opened, and are verified whenever their values are read. Those
    /// that came since never left memory.
    verify_up_to: u64,
    /// The largest version that a flush of this handle has found. A smaller one tells that the
    /// words have gone back.
    seen: AtomicU64,
    timeout: Option<Duration>,
    /// Nanoseconds that a call works at least, however short the timeout is. Handles are shared
    /// between threads, so a change of it is atomic.
    work_time: AtomicU64,
}

/// What a dict keeps beside its segment: nothing, since the redo log ends what a dead writer began.
pub(crate) struct DictState;

impl Container for DictState {
    const KIND: SegmentKind = SegmentKind::DICT;

    unsafe fn new(_map: &Mapping) -> Result<DictState> {
        Ok(DictState)
    }
}

impl Dict {
    /// How long a lock is waited for unless the options say otherwise.
    pub const DEFAULT_TIMEOUT: Duration = segment::DEFAULT_TIMEOUT;

    /// The longest key, in bytes.
    pub const KEY_MAX: usize = KEY_MAX;

    /// How many arrays and maps of a value may be in each other: what is deeper is neither encoded
    /// nor decoded.
    ///
    /// Decoding takes stack for each level, up to 640 bytes with optimizations, and any process
    /// that may write the dict chooses the levels. With this many, `get` fits a stack of 64 KiB
    /// with optimizations, and one of 2 MiB without.
    pub const MAX_DEPTH: usize = 64;

    /// The least capacity; less is made this.
    pub const MIN_CAPACITY: u64 = layout::MIN_CAPACITY;

    /// Options for everything that the functions below choose for you.
    pub fn options() -> DictOptions {
        DictOptions::new()
    }

    /// Creates an empty dict that may grow to `capacity` bytes, what it needs for itself included.
    ///
    /// # Errors
    ///
    /// As [`DictOptions::create_new`].
    pub fn create_new(source: impl Into<Source>, capacity: u64) -> Result<Dict> {
        Dict::options().capacity(capacity).create_new(source)
    }

    /// Opens a dict that exists.
    ///
    /// # Errors
    ///
    /// As [`DictOptions::open`].
    pub fn open(source: impl Into<Source>) -> Result<Dict> {
        Dict::options().open(source)
    }

    /// Opens a dict that exists, or creates it with that capacity.
    ///
    /// # Errors
    ///
    /// As [`DictOptions::open_or_create`].
    pub fn open_or_create(source: impl Into<Source>, capacity: u64) -> Result<Dict> {
        Dict::options().capacity(capacity).open_or_create(source)
    }

    /// Takes up a segment of this kind.
    fn of(mut segment: Segment<DictState>, timeout: Option<Duration>, work_time: Duration) -> Result<Dict> {
        redo_log::prepare();
        segment.map.set_structured();
        segment.has_more_checks();
        let Some(layout) = Layout::of(segment.header.capacity) else {
            return Err(Error::mismatch("its capacity", "one that a dict can have", segment.header.capacity));
        };
        let mut seed = [0; 8];
        seed.copy_from_slice(&segment.header.id[..8]);
        let (seen, work_time) = (AtomicU64::new(0), AtomicU64::new(nanos(work_time)));
        Ok(Dict { segment, layout, seed: u64::from_le_bytes(seed), verify_up_to: 0, seen, timeout, work_time })
    }

    #[inline]
    fn storage(&self) -> Storage<'_> {
        Storage { map: &self.segment.map, layout: &self.layout, seed: self.seed, verify_up_to: self.verify_up_to }
    }

    #[inline]
    fn lock_deadline(&self) -> Deadline {
        self.timeout.map_or(Deadline::Never, Deadline::After)
    }

    /// Until when a call works that has its lock, or needs none.
    #[inline]
    fn work_deadline(&self) -> Deadline {
        self.timeout.map_or(Deadline::Never, |timeout| Deadline::After(timeout.max(self.work_time())))
    }

    #[inline]
    fn writer<'a>(&'a self, batch: &'a mut WriteBatch, doing: &'static str) -> Result<WriteSession<'a>> {
        WriteSession::lock(self, batch, self.lock_deadline(), doing)
    }

    /// A key's hash, if it is one.
    #[inline]
    fn hash(&self, key: &str, doing: &'static str) -> Result<u64> {
        if key.len() > KEY_MAX {
            return Err(self.key_too_long(key.len(), doing));
        }
        Ok(record::hash(self.seed, key.as_bytes()))
    }

    #[cold]
    fn key_too_long(&self, len: usize, doing: &'static str) -> Error {
        self.segment.name_error(Error::invalid(doing, format!("a key of {len} bytes; {KEY_MAX} is the most")))
    }

    #[inline]
    fn read(&self, key: &str, sink: &mut impl Sink) -> Result<Option<Found>> {
        let hash = self.hash(key, "read")?;
        self.read_until(hash, key, sink, self.lock_deadline())
    }

    #[inline]
    fn read_until(&self, hash: u64, key: &str, sink: &mut impl Sink, until: Deadline) -> Result<Option<Found>> {
        match self.storage().get_fast(hash, key.as_bytes(), sink) {
            Some(found) => Ok(found),
            None => self.storage().get(hash, key.as_bytes(), sink, until, self.work_deadline()),
        }
    }

    /// Returns how long a call of this handle may work at least, whatever its timeout is.
    #[must_use]
    #[inline]
    pub fn work_time(&self) -> Duration {
        // No memory is published through it.
        Duration::from_nanos(self.work_time.load(Relaxed))
    }

    /// Changes how long a call of this handle may work at least, as
    /// [`DictOptions::work_time`] chose it when the handle was opened. Calls that begin later keep
    /// to it; a call that runs in another thread may or may not. Less than 50 ms becomes 50 ms, and
    /// more than 584 years becomes 584 years.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use mmf::{Dict, Name};
    ///
    /// let dict = Dict::create_new(Name::local(format!("long-work-{}", std::process::id()))?, 1 <<
    /// 20)?; dict.set_work_time(Duration::from_secs(60)); assert_eq!(dict.work_time(),
    /// Duration::from_secs(60));
    /// # Ok::<(), mmf::Error>(())
    /// ```
    pub fn set_work_time(&self, time: Duration) {
        self.work_time.store(nanos(time.max(MIN_WORK_TIME)), Relaxed);
    }

    /// What it was opened by.
    #[must_use]
    pub fn source(&self) -> Option<&Source> {
        self.segment.map.source()
    }

    /// Bytes that it may grow to.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.segment.header.capacity - PAYLOAD as u64
    }

    /// Whether this process is a child that was forked since this handle was opened. The handle is its parent's then: it
    /// reads, and everything that would change the dict fails. Who goes on in the child opens the dict again.
    ///
    /// # Examples
    ///
    /// ```
    /// use mmf::{Dict, Name};
    ///
    /// let dict = Dict::create_new(Name::local(format!("forked-dict-{}", std::process::id()))?, 1 << 20)?;
    /// assert!(!dict.is_forked());
    /// # Ok::<(), mmf::Error>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn is_forked(&self) -> bool {
        !self.segment.is_current_process()
    }

    /// How many keys there are.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Fault`](crate::ErrorKind::Fault).
    pub fn len(&self) -> Result<usize> {
        // As many as anybody claims, which may be more than this process can count.
        Ok(usize::try_from(self.segment.map.word(at::LEN)?).unwrap_or(usize::MAX))
    }

    /// Whether there are no keys.
    ///
    /// # Errors
    ///
    /// As [`len`](Dict::len).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Whether there is such a key.
    ///
    /// # Errors
    ///
    /// As [`get_into`](Dict::get_into).
    pub fn contains_key(&self, key: &str) -> Result<bool> {
        Ok(self.read(key, &mut DiscardValue)?.is_some())
    }

    /// The version that a key's value came with; `None` if there is no such key. Versions are numbers that only grow, over
    /// all keys.
    ///
    /// # Errors
    ///
    /// As [`get_into`](Dict::get_into).
    pub fn version(&self, key: &str) -> Result<Option<u64>> {
        Ok(self.read(key, &mut DiscardValue)?.map(|found| found.version))
    }

    /// Copies the bytes of a key's value into a buffer, whose memory is used again, and tells how they are encoded; `None` if
    /// there is no such key, and the buffer is then whatever it is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a key that is too long;
    /// [`ErrorKind::Contended`](crate::ErrorKind::Contended) where writers came between until the timeout;
    /// [`ErrorKind::Damaged`](crate::ErrorKind::Damaged); [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace) in this process;
    /// [`ErrorKind::Fault`](crate::ErrorKind::Fault).
    ///
    /// # Examples
    ///
    /// ```
    /// use mmf::{Dict, Encoding, Name};
    ///
    /// let dict = Dict::create_new(Name::local(format!("frames-{}", std::process::id()))?, 1 << 20)?;
    /// dict.set_bytes("frame", &[1, 2, 3])?;
    ///
    /// let mut frame = Vec::new();
    /// assert_eq!(dict.get_into("frame", &mut frame)?, Some(Encoding::Bytes));
    /// assert_eq!(frame, [1, 2, 3]);
    /// # Ok::<(), mmf::Error>(())
    /// ```
    #[inline]
    pub fn get_into(&self, key: &str, bytes: &mut Vec<u8>) -> Result<Option<Encoding>> {
        let mut sink = bytes;
        Ok(self.read(key, &mut sink)?.map(|found| Encoding::of(found.kind)))
    }

    /// Brings every change to the disk. Until then a power cut may take back what was changed since the last flush, never
    /// more. A process that dies takes nothing back. A dict in memory has no disk and is done at once; so is a read-only handle, which
    /// brings nothing to the disk.
    ///
    /// # Errors
    ///
    /// As [`set_bytes`](Dict::set_bytes), and what the system reports. After an error nothing is
    /// confirmed. The next flush, of any process, writes all pages again and verifies the whole
    /// dict before it succeeds; that takes as long as [`check`](Dict::check), and other writers
    /// wait meanwhile. Until then each read verifies its value.
    ///
    /// [`ErrorKind::Damaged`](crate::ErrorKind::Damaged) where not all is there that was written
    /// since the last flush: then every flush fails until a [`repair`](Dict::repair).
    /// [`ErrorKind::Other`](crate::ErrorKind::Other) with the help to repair where the file system
    /// keeps some of it in memory alone.
    pub fn flush(&self) -> Result<()> {
        if self.segment.map.access() != crate::types::Access::ReadWrite {
            return Ok(());
        }
        self.writer(&mut WriteBatch::new(), "flush")?.flush()
    }
}

/// The nanoseconds of a time, or 584 years if it is longer.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
