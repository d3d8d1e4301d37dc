//! Opening a [`Dict`], reading single keys, and making changes durable.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::dict::format::layout::at;
use crate::dict::format::record::KEY_MAX;
use crate::dict::handle::nanos;
use crate::dict::read::sink::DiscardValue;
use crate::dict::store::work_limit::MIN_WORK_TIME;
use crate::dict::store::write_batch::WriteBatch;
use crate::dict::write::flush::Flush;
use crate::dict::{Dict, DictOptions, Encoding};
use crate::error::Result;
use crate::name::Source;
use crate::segment;
use crate::segment::layout::PAYLOAD;

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
    pub const MAX_DEPTH: usize = crate::dict::format::encoding::MAX_DEPTH;

    /// The least capacity; less is made this.
    pub const MIN_CAPACITY: u64 = crate::dict::format::layout::MIN_CAPACITY;

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
        let mut batch = WriteBatch::new();
        Flush::new(&mut self.writer(&mut batch, "flush")?).flush()
    }
}
