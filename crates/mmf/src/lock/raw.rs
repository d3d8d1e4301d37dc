//! [`RawLock`]: a lock that the user implements, called a custom lock.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::{Backoff, Deadline, FIRST_READERS, Lock, LockFailure, READERS, ReapFn, SlotHandle, WRITER};
use crate::error::{Error, Result};
use crate::mapping::{Mapping, SharedWord};
use crate::sys::guard::Fault;
use crate::wait::PARTICIPANT_SLOTS;

/// The longest name of a lock.
pub(crate) const NAME_MAX: usize = 32;

/// A reader-writer lock of one's own, for [`RegionOptions::lock`](crate::RegionOptions::lock):
/// one that grants the lock in another order, or that programs without mmf take too.
///
/// It only grants or refuses the lock. mmf does the rest as for its own lock: it waits and wakes,
/// keeps deadlines, names the holder, refuses a thread that has the lock already, marks a change
/// while it is under way, finds dead holders and reports poison. All methods must return at once.
///
/// A participant is a number below [`LockWords::PARTICIPANTS`]: a handle of some process, whose
/// threads may all have the lock for reading. The shared state is in [`LockWords`], all zeros in a
/// new region; a process may die between any two operations on them. What a dead participant holds
/// stays taken until [`recover`](Self::recover) releases it, unless the system released it before,
/// as it does with the lock of a file. In both cases the next holder is told of poison.
///
/// # Safety
///
/// - While a holder has the lock for writing, until it releases the lock or dies, no other thread
///   of any process gets it.
/// - While a holder has it for reading, no thread gets it for writing.
/// - A new holder sees what earlier holders have written. The operations of the words ensure that.
///
/// # Examples
///
/// One at a time, readers too:
///
/// ```
/// use mmf::{LockWords, Name, RawLock, Region};
/// use std::io;
///
/// struct OneAtATime;
///
/// // SAFETY: a participant that exchanges 0 for its number is alone until it stores 0, or is dead.
/// unsafe impl RawLock for OneAtATime {
///     fn name(&self) -> &str {
///         "example.org/one-at-a-time"
///     }
///     fn try_read(&self, words: LockWords<'_>, me: usize) -> io::Result<bool> {
///         self.try_write(words, me)
///     }
///     fn try_write(&self, words: LockWords<'_>, me: usize) -> io::Result<bool> {
///         Ok(words.shared(0)?.compare_exchange(0, me as u64 + 1)? == 0)
///     }
///     fn unlock_read(&self, words: LockWords<'_>, me: usize) -> io::Result<()> {
///         self.unlock_write(words, me)
///     }
///     fn unlock_write(&self, words: LockWords<'_>, _me: usize) -> io::Result<()> {
///         Ok(words.shared(0)?.store(0)?)
///     }
///     fn recover(&self, words: LockWords<'_>, dead: usize) -> io::Result<()> {
///         words.shared(0)?.compare_exchange(dead as u64 + 1, 0)?;
///         Ok(())
///     }
/// }
///
/// let name = Name::local(format!("own-lock-{}", std::process::id()))?;
/// let ours = Region::options().capacity(4096).lock(OneAtATime).create_new(&name)?;
/// let theirs = Region::options().lock(OneAtATime).open(&name)?;
/// ours.write()?.set(b"hello")?;
/// assert_eq!(theirs.read()?.to_vec()?, b"hello");
/// // A program without this lock cannot open the region for writing.
/// assert!(Region::open(&name).is_err());
/// # Ok::<(), mmf::Error>(())
/// ```
pub unsafe trait RawLock: Send + Sync + 'static {
    /// Returns the name of the lock, 1 to 32 printable characters of ASCII. It is in the region's
    /// header, and opening the region with another lock fails. A new meaning of the words needs a
    /// new name.
    fn name(&self) -> &str;

    /// Takes the lock for reading, and returns whether it did.
    ///
    /// # Errors
    ///
    /// Those of the words, and the implementation's own; then it was not taken.
    fn try_read(&self, words: LockWords<'_>, me: usize) -> io::Result<bool>;

    /// Takes the lock for writing, and returns whether it did.
    ///
    /// # Errors
    ///
    /// As [`try_read`](Self::try_read).
    fn try_write(&self, words: LockWords<'_>, me: usize) -> io::Result<bool>;

    /// Releases one lock for reading.
    ///
    /// # Errors
    ///
    /// Those of the words.
    fn unlock_read(&self, words: LockWords<'_>, me: usize) -> io::Result<()>;

    /// Releases the lock for writing.
    ///
    /// # Errors
    ///
    /// Those of the words.
    fn unlock_write(&self, words: LockWords<'_>, me: usize) -> io::Result<()>;

    /// Releases all that a participant holds, if anything: it is dead, or was dropped with a leaked
    /// guard. The calling process may die half-way, and another one then calls it again. Two may
    /// call it at once. No handle has that participant's number meanwhile.
    ///
    /// # Errors
    ///
    /// Those of the words.
    fn recover(&self, words: LockWords<'_>, dead: usize) -> io::Result<()>;
}

/// Where the words of a custom lock are in a mapping.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockWordOffsets {
    /// The first of the words that all participants share.
    pub(crate) shared: usize,
    /// The first participant's.
    pub(crate) own: usize,
    /// From one participant's to the next one's.
    pub(crate) stride: usize,
}

/// The words of shared memory that a [`RawLock`] has.
#[derive(Clone, Copy, Debug)]
pub struct LockWords<'a> {
    map: &'a Mapping,
    offsets: LockWordOffsets,
}

impl<'a> LockWords<'a> {
    /// How many words all participants share.
    pub const SHARED: usize = 128;
    /// How many participants there can be, each with a word of its own.
    pub const PARTICIPANTS: usize = PARTICIPANT_SLOTS;

    /// # Safety
    ///
    /// The mapping may be written.
    pub(crate) unsafe fn new(map: &'a Mapping, offsets: LockWordOffsets) -> LockWords<'a> {
        LockWords { map, offsets }
    }

    /// Returns a word that all participants share.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) past [`SHARED`](Self::SHARED).
    pub fn shared(self, n: usize) -> Result<LockWord<'a>> {
        self.word(n, LockWords::SHARED, self.offsets.shared, 8)
    }

    /// Returns the word of a participant, on a cache line of its own.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) past
    /// [`PARTICIPANTS`](Self::PARTICIPANTS).
    pub fn of(self, participant: usize) -> Result<LockWord<'a>> {
        self.word(participant, LockWords::PARTICIPANTS, self.offsets.own, self.offsets.stride)
    }

    fn word(self, n: usize, most: usize, first: usize, stride: usize) -> Result<LockWord<'a>> {
        if n >= most {
            return Err(Error::invalid("lock", format!("there is no word {n}, but only {most}")));
        }
        let offset = first + n * stride;
        // SAFETY: the mapping outlives the word, which borrows it, and may be written as `new` was
        // promised.
        let cell = unsafe { self.map.shared_word(offset) }?;
        Ok(LockWord { cell, map: self.map, offset })
    }
}

/// A word of shared memory, from [`LockWords`]. All operations are atomic and sequentially
/// consistent; one that cannot reach the word is
/// [`ErrorKind::Fault`](crate::ErrorKind::Fault).
pub struct LockWord<'a> {
    cell: SharedWord<u64>,
    map: &'a Mapping,
    offset: usize,
}

impl LockWord<'_> {
    fn or_fault<T>(&self, result: Result<T, Fault>) -> Result<T> {
        result.map_err(|Fault| self.map.fault("lock", self.offset, 0))
    }

    /// Returns the value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Fault`](crate::ErrorKind::Fault).
    pub fn load(&self) -> Result<u64> {
        self.or_fault(self.cell.load())
    }

    /// Stores `value`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Fault`](crate::ErrorKind::Fault).
    pub fn store(&self, value: u64) -> Result<()> {
        self.swap(value).map(drop)
    }

    /// Stores `value`, and returns the old value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Fault`](crate::ErrorKind::Fault).
    pub fn swap(&self, value: u64) -> Result<u64> {
        self.or_fault(self.cell.swap(value))
    }

    /// Adds to the value, wrapping, and returns the old value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Fault`](crate::ErrorKind::Fault).
    pub fn fetch_add(&self, value: u64) -> Result<u64> {
        self.or_fault(self.cell.add(value))
    }

    /// Stores `new` if the value is `current`, and returns the old value: `current` if it stored.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Fault`](crate::ErrorKind::Fault).
    pub fn compare_exchange(&self, current: u64, new: u64) -> Result<u64> {
        self.or_fault(self.cell.compare_exchange(current, new))
    }
}

impl fmt::Debug for LockWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LockWord").field(&self.load().ok()).finish()
    }
}

/// A custom lock, as options and segments keep it.
#[derive(Clone)]
pub(crate) struct CustomLock(pub(crate) Arc<dyn RawLock>);

impl fmt::Debug for CustomLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CustomLock").field(&self.0.name()).finish()
    }
}

impl CustomLock {
    /// Returns its name, if a header can hold it.
    pub(crate) fn checked_name(&self) -> Result<String> {
        let name = self.0.name();
        if (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(name.to_owned());
        }
        let reason = format!("{name:?} names no lock: that takes 1 to {NAME_MAX} printable characters of ASCII");
        Err(Error::invalid("lock", reason))
    }

    /// Takes the lock, and returns whether it did.
    pub(crate) fn try_lock(&self, words: LockWords<'_>, me: usize, writes: bool) -> Result<bool> {
        let tried = if writes { self.0.try_write(words, me) } else { self.0.try_read(words, me) };
        tried.map_err(error)
    }

    pub(crate) fn unlock(&self, words: LockWords<'_>, me: usize, writes: bool) -> Result<()> {
        let unlocked = if writes { self.0.unlock_write(words, me) } else { self.0.unlock_read(words, me) };
        unlocked.map_err(error)
    }

    pub(crate) fn recover(&self, words: LockWords<'_>, dead: usize) -> Result<()> {
        self.0.recover(words, dead).map_err(error)
    }
}

/// Returns the error of an implementation, without a second wrapping of this crate's own errors.
fn error(error: io::Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(|error| Error::system("lock", error))
}

/// Beside a custom lock, this lock keeps no participant out. Its word and its counts name the
/// holders, and waiters sleep in its queue.
impl Lock {
    /// Waits until an attempt succeeds, after one that did not.
    pub(crate) fn wait_for(
        &self,
        me: &SlotHandle,
        until: Deadline,
        attempt: &dyn Fn() -> Result<bool>,
        reap: ReapFn<'_>,
    ) -> Result<(), LockFailure> {
        let mut backoff = Backoff::new(until);
        loop {
            let ticket = backoff.ticket(&self.queue, me.slot)?;
            if attempt().map_err(LockFailure::Failed)? {
                return Ok(());
            }
            let blocker = match self.writer()? {
                Some(writer) => Some(writer),
                None => self.readers.find_reader(READERS >> FIRST_READERS)?,
            };
            // A holder has no name between taking the custom lock and `record_holder`, and between
            // `clear_holder` and the release. It may have died there.
            if blocker.is_none()
                && backoff.has_slept()
                && self.reap_all(reap)?
                && attempt().map_err(LockFailure::Failed)?
            {
                return Ok(());
            }
            backoff.pause(&self.queue, ticket, blocker, reap)?;
        }
    }

    fn reap_all(&self, reap: ReapFn<'_>) -> Result<bool, LockFailure> {
        let mut any = false;
        for slot in self.readers.occupied()? {
            any |= reap(slot).map_err(LockFailure::Failed)?;
        }
        Ok(any)
    }

    /// Names this participant as a holder.
    pub(crate) fn record_holder(&self, me: &SlotHandle, writes: bool) -> Result<(), Fault> {
        if writes { self.word.change(|word| (word & !WRITER) | me.slot_tag) } else { me.readers.add(1).map(drop) }
    }

    /// Takes the name of this holder back.
    pub(crate) fn clear_holder(&self, me: &SlotHandle, writes: bool) -> Result<(), Fault> {
        if writes {
            self.take_out(me)?;
        } else {
            me.readers.add(u32::MAX)?;
        }
        self.handle.gave_back();
        Ok(())
    }

    /// Wakes the waiters, which try again.
    pub(crate) fn wake(&self) -> Result<(), Fault> {
        self.queue.wake_all()
    }
}
