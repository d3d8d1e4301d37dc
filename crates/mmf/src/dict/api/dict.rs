//! Methods of [`Dict`] that open it, read single keys, and make changes durable.

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
    /// The default timeout of a wait for the lock.
    pub const DEFAULT_TIMEOUT: Duration = segment::DEFAULT_TIMEOUT;

    /// The longest key, in bytes.
    pub const KEY_MAX: usize = KEY_MAX;

    /// The greatest nesting depth of arrays and maps in a value. A deeper value is neither encoded
    /// nor decoded.
    ///
    /// The decoder takes up to 640 bytes of stack for each level with optimizations, and any
    /// process with write access chooses the depth. Up to this depth, `get` fits a stack of 64 KiB
    /// with optimizations, and one of 2 MiB without.
    pub const MAX_DEPTH: usize = crate::dict::format::encoding::MAX_DEPTH;

    /// The least capacity. A smaller one is raised to this.
    pub const MIN_CAPACITY: u64 = crate::dict::format::layout::MIN_CAPACITY;

    /// Returns options for creating or opening a dict, with their defaults.
    pub fn options() -> DictOptions {
        DictOptions::new()
    }

    /// Creates an empty dict that may grow to `capacity` bytes, its own structures included.
    ///
    /// # Errors
    ///
    /// Those of [`DictOptions::create_new`].
    pub fn create_new(source: impl Into<Source>, capacity: u64) -> Result<Dict> {
        Dict::options().capacity(capacity).create_new(source)
    }

    /// Opens a dict that exists.
    ///
    /// # Errors
    ///
    /// Those of [`DictOptions::open`].
    pub fn open(source: impl Into<Source>) -> Result<Dict> {
        Dict::options().open(source)
    }

    /// Opens a dict that exists, or creates it with `capacity`.
    ///
    /// # Errors
    ///
    /// Those of [`DictOptions::open_or_create`].
    pub fn open_or_create(source: impl Into<Source>, capacity: u64) -> Result<Dict> {
        Dict::options().capacity(capacity).open_or_create(source)
    }

    /// Returns the least time that a call of this handle may work, whatever its timeout is.
    #[must_use]
    #[inline]
    pub fn work_time(&self) -> Duration {
        // Relaxed: no other memory is published through this word.
        Duration::from_nanos(self.work_time.load(Relaxed))
    }

    /// Changes the least time that a call of this handle may work, which [`DictOptions::work_time`]
    /// chose when the handle was opened. Calls that begin later use it; a call that runs in another
    /// thread may or may not. Less than 50 ms becomes 50 ms, and more than 584 years becomes 584
    /// years.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use mmf::{Dict, Name};
    ///
    /// let name = Name::local(format!("long-work-{}", std::process::id()))?;
    /// let dict = Dict::create_new(name, 1 << 20)?;
    /// dict.set_work_time(Duration::from_secs(60));
    /// assert_eq!(dict.work_time(), Duration::from_secs(60));
    /// # Ok::<(), mmf::Error>(())
    /// ```
    pub fn set_work_time(&self, time: Duration) {
        self.work_time.store(nanos(time.max(MIN_WORK_TIME)), Relaxed);
    }

    /// Returns the name or the path by which the dict was opened.
    #[must_use]
    pub fn source(&self) -> Option<&Source> {
        self.segment.map.source()
    }

    /// Returns the number of bytes that the dict may grow to.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.segment.header.capacity - PAYLOAD as u64
    }

    /// Returns whether this process was forked after the handle was opened. In the child the handle
    /// only reads, and calls that would change the dict fail. A child that needs to write opens the
    /// dict again.
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

    /// Returns the number of keys.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Fault`](crate::ErrorKind::Fault).
    pub fn len(&self) -> Result<usize> {
        // A peer process may have stored a number that does not fit `usize`.
        Ok(usize::try_from(self.segment.map.word(at::LEN)?).unwrap_or(usize::MAX))
    }

    /// Returns whether there are no keys.
    ///
    /// # Errors
    ///
    /// Those of [`len`](Dict::len).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Returns whether `key` is present.
    ///
    /// # Errors
    ///
    /// Those of [`get_into`](Dict::get_into).
    pub fn contains_key(&self, key: &str) -> Result<bool> {
        Ok(self.read(key, &mut DiscardValue)?.is_some())
    }

    /// Returns the version of the change that gave a key its value, or `None` if the key is absent.
    /// Versions only grow, over all keys of the dict.
    ///
    /// # Errors
    ///
    /// Those of [`get_into`](Dict::get_into).
    pub fn version(&self, key: &str) -> Result<Option<u64>> {
        Ok(self.read(key, &mut DiscardValue)?.map(|found| found.version))
    }

    /// Replaces the contents of a buffer with the bytes of a key's value, and returns their
    /// encoding. Returns `None` if the key is absent; the contents of the buffer are then
    /// unspecified. The buffer's memory is used again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a key that is too long;
    /// [`ErrorKind::Contended`](crate::ErrorKind::Contended) if writers interrupted each attempt
    /// until the timeout; [`ErrorKind::Damaged`](crate::ErrorKind::Damaged);
    /// [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace) in this process;
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

    /// Writes every change to the disk. A power cut may undo changes since the last flush, never
    /// older ones. The death of a process undoes none. For a dict in memory, and for a read-only
    /// handle, this does nothing.
    ///
    /// # Errors
    ///
    /// Those of [`set_bytes`](Dict::set_bytes), and the system's. After an error no change since
    /// the last flush is confirmed. The next flush, of any process, writes all pages again and
    /// verifies the whole dict before it succeeds. That takes as long as [`check`](Dict::check),
    /// and other writers wait meanwhile. Until then each read verifies its value.
    ///
    /// [`ErrorKind::Damaged`](crate::ErrorKind::Damaged) if data written since the last flush is
    /// lost: then every flush fails until a [`repair`](Dict::repair).
    /// [`ErrorKind::Other`](crate::ErrorKind::Other), with the advice to repair, if the file system
    /// keeps some of the data only in memory.
    pub fn flush(&self) -> Result<()> {
        if self.segment.map.access() != crate::types::Access::ReadWrite {
            return Ok(());
        }
        let mut batch = WriteBatch::new();
        Flush::new(&mut self.writer(&mut batch, "flush")?).flush()
    }
}
