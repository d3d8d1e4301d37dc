//! [`Region`]: one run of bytes behind a reader-writer lock that survives the death of its holder.

pub(crate) mod change;
mod contents;
mod guards;
mod lock_error;
mod options;
mod status;

pub use guards::{Plain, ReadGuard, WriteGuard};
pub use lock_error::{LockError, LockGuard};
pub use options::RegionOptions;
pub use status::{Participant, RegionStatus};

use std::io::{self, Read};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::mapping::COPY_CHUNK;
use crate::name::Source;
use crate::segment::layout::PAYLOAD;
use crate::segment::{self, Deadline, notify};
use crate::types::Access;
use change::Segment;

/// A run of bytes that processes share behind a reader-writer lock, by name or by file.
///
/// [`read`](Region::read) and [`write`](Region::write) return guards. The region stores the length
/// of its contents, so that `"hi"` after `"hello"` reads `"hi"`. It counts its
/// [versions](Region::version), so that peers can [wait for a change](Region::wait_changed).
///
/// When a holder dies, the next process gets the lock within milliseconds after the system has
/// released the dead holder's token. If the holder died while it changed the bytes, the next
/// holders get [`LockError::Poisoned`] with the guard, as with [`std::sync::RwLock`].
///
/// A handle may be shared by threads. Taking the lock twice in one thread is an error and never a
/// deadlock.
///
/// # Examples
///
/// ```
/// use mmf::{Name, Region};
///
/// let name = Name::local(format!("region-{}", std::process::id()))?;
/// let ours = Region::create_new(&name, 1 << 20)?;
/// let theirs = Region::open(&name)?;
///
/// ours.write()?.set(b"hello")?;
/// assert_eq!(theirs.read()?.to_vec()?, b"hello");
/// # Ok::<(), mmf::Error>(())
/// ```
pub struct Region {
    segment: Segment,
    timeout: Option<Duration>,
}

impl Region {
    /// The default timeout of a wait for the lock.
    pub const DEFAULT_TIMEOUT: Duration = segment::DEFAULT_TIMEOUT;

    /// Options for everything that the functions below choose for you.
    pub fn options() -> RegionOptions {
        RegionOptions::new()
    }

    /// Creates an empty region whose contents may grow to `capacity` bytes.
    ///
    /// # Errors
    ///
    /// Those of [`RegionOptions::create_new`].
    pub fn create_new(source: impl Into<Source>, capacity: u64) -> Result<Region> {
        Region::options().capacity(capacity).create_new(source)
    }

    /// Opens a region that exists.
    ///
    /// # Errors
    ///
    /// Those of [`RegionOptions::open`].
    pub fn open(source: impl Into<Source>) -> Result<Region> {
        Region::options().open(source)
    }

    /// Opens a region that exists, or creates it with that capacity.
    ///
    /// # Errors
    ///
    /// Those of [`RegionOptions::open_or_create`].
    pub fn open_or_create(source: impl Into<Source>, capacity: u64) -> Result<Region> {
        Region::options().capacity(capacity).open_or_create(source)
    }

    #[inline]
    fn lock_deadline(&self) -> Deadline {
        self.timeout.map_or(Deadline::Never, Deadline::After)
    }

    /// Locks for reading. Other readers may be inside at the same time.
    ///
    /// # Errors
    ///
    /// [`LockError::Poisoned`] with the guard; [`LockError::Failed`] with [`ErrorKind::Timeout`]
    /// after the handle's timeout, 10 seconds unless the options said otherwise;
    /// [`ErrorKind::Deadlock`] where this thread has the lock already; [`ErrorKind::ReadOnly`] for
    /// a read-only handle, which reads without the lock ([`to_vec`](Region::to_vec));
    /// [`ErrorKind::Full`] where too many handles take part, or one thread has too many locks;
    /// [`ErrorKind::InvalidInput`] in a forked child for its parent's handle; [`ErrorKind::Fault`].
    #[inline]
    pub fn read(&self) -> Result<ReadGuard<'_>, LockError<ReadGuard<'_>>> {
        ReadGuard::lock(&self.segment, || self.lock_deadline())
    }

    /// Locks for reading without waiting.
    ///
    /// A failure does not always mean that another handle has the lock for writing. It also fails:
    ///
    /// - while a writer waits for readers to leave, or gives up such a wait;
    /// - while waiters of a millisecond or longer go first. If the last of them died or gave up,
    ///   one attempt fails;
    /// - while another handle clears the slot of a dead holder.
    ///
    /// # Errors
    ///
    /// Those of [`read`](Region::read), with [`ErrorKind::WouldBlock`] in place of the timeout.
    #[inline]
    pub fn try_read(&self) -> Result<ReadGuard<'_>, LockError<ReadGuard<'_>>> {
        ReadGuard::lock(&self.segment, || Deadline::Now)
    }

    /// Locks for reading, and waits up to `timeout`.
    ///
    /// # Errors
    ///
    /// Those of [`read`](Region::read).
    #[inline]
    pub fn read_for(&self, timeout: Duration) -> Result<ReadGuard<'_>, LockError<ReadGuard<'_>>> {
        ReadGuard::lock(&self.segment, || Deadline::After(timeout))
    }

    /// Locks for reading, and waits until `deadline`.
    ///
    /// # Errors
    ///
    /// Those of [`read`](Region::read).
    #[inline]
    pub fn read_until(&self, deadline: Instant) -> Result<ReadGuard<'_>, LockError<ReadGuard<'_>>> {
        ReadGuard::lock(&self.segment, || Deadline::At(deadline))
    }

    /// Locks for writing. No other handle has the lock meanwhile.
    ///
    /// # Errors
    ///
    /// Those of [`read`](Region::read).
    #[inline]
    pub fn write(&self) -> Result<WriteGuard<'_>, LockError<WriteGuard<'_>>> {
        WriteGuard::lock(&self.segment, || self.lock_deadline())
    }

    /// Locks for writing without waiting. Like [`try_read`](Region::try_read), it may fail although
    /// no handle has the lock. It also fails while a reader undoes a failed attempt.
    ///
    /// # Errors
    ///
    /// Those of [`read`](Region::read), with [`ErrorKind::WouldBlock`] in place of the timeout.
    #[inline]
    pub fn try_write(&self) -> Result<WriteGuard<'_>, LockError<WriteGuard<'_>>> {
        WriteGuard::lock(&self.segment, || Deadline::Now)
    }

    /// Locks for writing, and waits up to `timeout`.
    ///
    /// # Errors
    ///
    /// Those of [`read`](Region::read).
    #[inline]
    pub fn write_for(&self, timeout: Duration) -> Result<WriteGuard<'_>, LockError<WriteGuard<'_>>> {
        WriteGuard::lock(&self.segment, || Deadline::After(timeout))
    }

    /// Locks for writing, and waits until `deadline`.
    ///
    /// # Errors
    ///
    /// Those of [`read`](Region::read).
    #[inline]
    pub fn write_until(&self, deadline: Instant) -> Result<WriteGuard<'_>, LockError<WriteGuard<'_>>> {
        WriteGuard::lock(&self.segment, || Deadline::At(deadline))
    }

    /// Returns whether a writer died or panicked with a change half made, and the poison was not
    /// [cleared](Region::clear_poison) since.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Fault`].
    pub fn is_poisoned(&self) -> Result<bool> {
        self.segment.is_poisoned()
    }

    /// Clears the poison. The caller has mended or replaced the contents and still has the write
    /// guard: after its drop another writer may die, and this call would clear that report instead.
    ///
    /// # Examples
    ///
    /// ```
    /// use mmf::{LockError, Name, Region};
    ///
    /// let region = Region::create_new(Name::local(format!("mended-{}", std::process::id()))?, 4096)?;
    /// match region.write() {
    ///     Ok(mut guard) => guard.set(b"whole")?,
    ///     Err(LockError::Poisoned(mut guard)) => {
    ///         guard.set(b"mended")?;
    ///         region.clear_poison()?;
    ///     }
    ///     Err(LockError::Failed(error)) => return Err(error),
    /// }
    /// # Ok::<(), mmf::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ReadOnly`]; [`ErrorKind::Fault`].
    pub fn clear_poison(&self) -> Result<()> {
        self.segment.participant("clear the poison of")?;
        self.segment.or_fault(self.segment.lock.clear_poison(), "clear the poison of")
    }

    /// Returns a number that grows with every change. It never repeats.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Fault`].
    pub fn version(&self) -> Result<u64> {
        // Odd while a change is under way, which does not count yet.
        Ok(self.segment.or_fault(self.segment.container.version.load(), "examine")? & !1)
    }

    /// Blocks until the version differs from `since`, and returns the new one.
    ///
    /// A handle for reading and writing sleeps until a writer wakes it. A read-only handle cannot
    /// tell writers that it sleeps, and polls once per [`POLL`](Region::POLL).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`]; [`ErrorKind::Full`] where too many handles take part;
    /// [`ErrorKind::Fault`].
    pub fn wait_changed(&self, since: u64, deadline: Instant) -> Result<u64> {
        let changed = self.segment.wait_for_change(Some(deadline), "wait for", || {
            let version = self.version()?;
            Ok((version != since).then_some(version))
        })?;
        let timeout = || self.segment.name_error(Error::new(ErrorKind::Timeout { holder: None }, "wait for"));
        changed.ok_or_else(timeout)
    }

    /// The time between two polls of a read-only handle for a change.
    pub const POLL: Duration = notify::POLL;

    /// Returns the number of bytes that the contents may grow to.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.segment.header.capacity - PAYLOAD as u64
    }

    /// Returns whether this process was forked after the handle was opened. In the child every call
    /// that takes the lock fails. The child opens the region again.
    ///
    /// # Examples
    ///
    /// ```
    /// use mmf::{Region, Name};
    ///
    /// let region = Region::create_new(Name::local(format!("forked-region-{}", std::process::id()))?, 1 << 20)?;
    /// assert!(!region.is_forked());
    /// # Ok::<(), mmf::Error>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn is_forked(&self) -> bool {
        !self.segment.is_current_process()
    }

    /// Returns a copy of the contents. A read-only handle takes no lock: it repeats the copy if a
    /// writer has changed the contents meanwhile.
    ///
    /// # Errors
    ///
    /// Those of [`read`](Region::read); [`ErrorKind::Poisoned`]; [`ErrorKind::Damaged`];
    /// [`ErrorKind::NoSpace`] in this process; for a read-only handle [`ErrorKind::Contended`]
    /// where writers came between until the timeout.
    pub fn to_vec(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_into(&mut bytes)?;
        Ok(bytes)
    }

    /// Copies the contents like [`to_vec`](Region::to_vec), into a buffer whose memory is used
    /// again.
    ///
    /// # Errors
    ///
    /// Those of [`to_vec`](Region::to_vec).
    pub fn read_into(&self, bytes: &mut Vec<u8>) -> Result<()> {
        if self.segment.map.access() == Access::ReadWrite {
            let _guard = self.read()?;
            // Only a long copy reads the clock.
            let is_long = contents::len(&self.segment, "read")? > COPY_CHUNK;
            return contents::copy(
                &self.segment,
                bytes,
                if is_long { contents::copy_deadline(self.lock_deadline()) } else { None },
            );
        }
        contents::read_unlocked(&self.segment, bytes, self.lock_deadline())
    }

    /// Returns once the disk has the bytes that were written through this handle under guards that
    /// were dropped before. Processes share contents without it; it is for power cuts. For memory
    /// it does nothing.
    ///
    /// It takes no lock. A change that is under way meanwhile may reach the disk in part, at any
    /// time and in any order, also after this call. After a power cut it is poison only if the
    /// header's mark of it has reached the disk as well. So a file that must be whole after a
    /// power cut is written anew and renamed instead.
    ///
    /// # Examples
    ///
    /// ```
    /// use mmf::Region;
    ///
    /// let path = std::env::temp_dir().join(format!("mmf-sync-{}", std::process::id()));
    /// let region = Region::create_new(&path, 4096)?;
    /// region.write()?.set(b"kept")?;
    /// region.sync()?;
    /// # drop(region);
    /// # std::fs::remove_file(&path).unwrap();
    /// # Ok::<(), mmf::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ReadOnly`]; the system's errors, after which the disk may lack any of the
    /// bytes. The next sync through this handle writes all pages again. See
    /// [`Mapping::sync`](crate::Mapping::sync) for failures that the system does not report to
    /// later handles.
    pub fn sync(&self) -> Result<()> {
        if self.segment.map.access() != Access::ReadWrite {
            return Err(self.segment.name_error(Error::new(ErrorKind::ReadOnly, "sync")));
        }
        // A peer may have grown the object, and this handle may have written there since then.
        self.segment.map.refresh()?;
        self.segment.map.sync(..)
    }

    /// Writes a [copy](Region::to_vec) of the contents to a stream: a dump. The lock is free while
    /// the stream is written.
    ///
    /// # Errors
    ///
    /// Those of [`to_vec`](Region::to_vec), and those of the writer.
    pub fn snapshot(&self, mut writer: impl io::Write) -> io::Result<()> {
        writer.write_all(&self.to_vec()?)
    }

    /// Replaces the contents with all bytes of a stream. It reads the stream before it takes the
    /// lock.
    ///
    /// # Errors
    ///
    /// Those of [`write`](Region::write) and [`WriteGuard::set`], and those of the reader.
    pub fn restore(&self, mut reader: impl Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        // One byte more than fits is enough to know.
        reader.by_ref().take(self.capacity() + 1).read_to_end(&mut bytes)?;
        let mut guard = self.write().map_err(Error::from)?;
        Ok(guard.set(&bytes)?)
    }
}
