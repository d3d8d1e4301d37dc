//! A reader-writer lock in shared memory that survives the death of its holder.
//!
//! # State
//!
//! ```text
//! word     bits 0..16   the writer's slot + 1, or 0
//!          bit  16      STARVED: a waiter has waited for 1 ms; newer ones let it pass
//!          bit  17      POISON: a writer died, or panicked, with a change half made
//!          bit  18      SLEEPERS: a participant may sleep in the lock's queue
//!          bit  19      WATCHED: one may sleep in a queue of the layer above, which owns the bit
//!          bits 20..24  READERS: a bit for each 64 slots, of which some may hold read locks
//! slots[k].readers      read locks that participant k's threads hold
//! occupied              a bit per slot that is in use
//! ```
//!
//! Taking the lock and naming the holder is one atomic operation: a writer exchanges its slot into
//! the word, a reader adds to its own slot's count. So there is no instant in which a dead holder
//! is nameless.
//!
//! A reader:
//!
//! 1. adds 1 to its slot's count, and then loads the word;
//! 2. if a writer is in the word, subtracts 1 again and waits;
//! 3. otherwise has the lock once its bit of READERS is in the word. It sets the bit if the word
//!    does not have it.
//!
//! A writer:
//!
//! 1. exchanges its slot into a word without a writer, which keeps new readers out;
//! 2. waits until the counts behind the bits of READERS in that word are 0. Without any such bit it
//!    is alone, since no reader can set one any more;
//! 3. takes the bits away when it unlocks.
//!
//! Reader and writer each load the other's mark after they have set their own, sequentially
//! consistent, so at least one of the two sees the other (Dekker's algorithm). Without contention a
//! lock and its release are two operations on shared memory each for a reader, on a cache line of
//! its own, and one each for a writer.
//!
//! # Fairness
//!
//! Readers cannot starve writers, since a writer enters the word while readers have the lock. But
//! any waiter could lose every race against a peer that unlocks and locks in a loop. So a waiter of
//! 1 ms sets STARVED. Only waiters of that long pass the bit, and the one that takes the lock
//! clears it. If the setter dies, the other waiters pass it after 1 ms of their own wait.
//!
//! # Death
//!
//! After 1 ms, a waiter checks whether the holder is alive, and clears the slot of a dead one
//! ([`Lock::scrub`], under that slot's token). All of it can be done again, so a reaper may die
//! too.
//!
//! # Forged holders
//!
//! A peer can store the slot of a living handle in the word, or a count of readers in its slot. A
//! handle that waits, and finds there what none of its threads holds, takes it out
//! ([`Lock::disown`]). A handle that makes no call takes out nothing: to its peers it is a holder
//! that does not let go.

mod backoff;
mod forged_holder;
mod raw;
mod reader_counts;
pub(crate) mod threads;

use backoff::Backoff;
pub(crate) use backoff::{Deadline, LockFailure, ReapFn};
pub(crate) use raw::{CustomLock, LockWordOffsets, NAME_MAX};
pub use raw::{LockWord, LockWords, RawLock};
pub(crate) use reader_counts::{ReaderCounts, SlotHandle};

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::mapping::{Mapping, SharedWord};
use crate::sys::Parker;
use crate::sys::guard::Fault;
use crate::wait::{WaitQueue, WaiterFlag};

const WRITER: u64 = 0xffff;
const STARVED: u64 = 1 << 16;
const POISON: u64 = 1 << 17;
const SLEEPERS: u64 = 1 << 18;
/// For the layer above: a participant may wait for a change of what the lock protects.
pub(crate) const WATCHED: u64 = 1 << 19;
const READERS: u64 = 0xf << FIRST_READERS;
const FIRST_READERS: usize = 20;

/// How the lock was obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acquired {
    pub(crate) poisoned: bool,
}

impl Acquired {
    #[inline]
    fn of(word: u64) -> Acquired {
        Acquired { poisoned: word & POISON != 0 }
    }
}

/// For what a lock is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockMode {
    Read,
    Write,
}

/// Where a lock's parts are in a mapping.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockOffsets {
    pub(crate) word: usize,
    pub(crate) queue: usize,
    pub(crate) occupied: usize,
    /// The first slot's count of readers.
    pub(crate) readers: usize,
    /// From one slot's count to the next one's.
    pub(crate) stride: usize,
}

pub(crate) struct Lock {
    word: SharedWord<u64>,
    queue: WaitQueue,
    readers: ReaderCounts,
    /// Which threads use this lock.
    handle: threads::HandleState,
}

impl Lock {
    /// `mark` is what threads know the segment by.
    ///
    /// # Safety
    ///
    /// As [`Mapping::shared_word`].
    pub(crate) unsafe fn new(map: &Mapping, offsets: LockOffsets, parker: &Arc<Parker>, mark: u64) -> Result<Lock> {
        // SAFETY: the caller's promise, passed on.
        let flag = unsafe { WaiterFlag::new(map, offsets.word, SLEEPERS) }?;
        Ok(Lock {
            // SAFETY: the caller's promise, passed on.
            word: unsafe { map.shared_word(offsets.word) }?,
            // SAFETY: the caller's promise, passed on.
            queue: unsafe { WaitQueue::new(map, offsets.queue, flag, parker) }?,
            // SAFETY: the caller's promise, passed on.
            readers: unsafe { ReaderCounts::new(map, offsets) }?,
            handle: threads::HandleState::new(mark),
        })
    }

    pub(crate) fn readers(&self) -> &ReaderCounts {
        &self.readers
    }

    /// Takes a read lock if no writer and no STARVED is in the word. Released by
    /// [`unlock_read`](Lock::unlock_read).
    #[inline]
    pub(crate) fn try_read(&self, me: &SlotHandle) -> Result<Option<Acquired>, Fault> {
        self.read_ignoring(me, 0)
    }

    /// `ignored_flags`: [`STARVED`] if this participant has waited long enough to pass it, else 0.
    #[inline]
    fn read_ignoring(&self, me: &SlotHandle, ignored_flags: u64) -> Result<Option<Acquired>, Fault> {
        me.readers.add(1)?;
        let held = self.check_entry(me, ignored_flags);
        match held {
            Ok(Some(_)) => {}
            Ok(None) => self.unlock_read(me)?,
            // Undo the increment, so that writers which still reach the word do not wait for it.
            Err(Fault) => {
                let _ = me.readers.add(u32::MAX);
                self.handle.gave_back();
            }
        }
        held
    }

    /// Takes a read lock, waiting for it.
    pub(crate) fn read(&self, me: &SlotHandle, until: Deadline, reap: ReapFn<'_>) -> Result<Acquired, LockFailure> {
        self.wait(LockMode::Read, me, &mut Backoff::new(until), reap, |ignored_flags| {
            self.read_ignoring(me, ignored_flags)
        })
    }

    /// Takes the write lock if the word is 0, and returns whether it was. Released by
    /// [`unlock_write`](Lock::unlock_write).
    #[inline]
    pub(crate) fn try_write(&self, me: &SlotHandle) -> Result<bool, Fault> {
        Ok(self.word.compare_exchange(0, me.slot_tag)? == 0)
    }

    /// Takes the write lock, whatever bits the word has, waiting for it.
    pub(crate) fn write(&self, me: &SlotHandle, until: Deadline, reap: ReapFn<'_>) -> Result<Acquired, LockFailure> {
        match self.enter_as_writer(me, 0)? {
            Some(word) => self.drain(me, word, until, reap),
            None => self.write_after_wait(me, until, reap),
        }
    }

    #[cold]
    #[inline(never)]
    fn write_after_wait(&self, me: &SlotHandle, until: Deadline, reap: ReapFn<'_>) -> Result<Acquired, LockFailure> {
        let mut backoff = Backoff::new(until);
        let word = self
            .wait(LockMode::Write, me, &mut backoff, reap, |ignored_flags| self.enter_as_writer(me, ignored_flags))?;
        self.drain(me, word, backoff.until, reap)
    }

    /// Returns whether a reader that has counted itself has the lock.
    #[inline]
    fn check_entry(&self, me: &SlotHandle, ignored_flags: u64) -> Result<Option<Acquired>, Fault> {
        let mut word = self.word.load()?;
        while word & (WRITER | (STARVED & !ignored_flags)) == 0 {
            if word & (me.group | STARVED) == me.group {
                return Ok(Some(Acquired::of(word)));
            }
            let seen = self.word.compare_exchange(word, (word & !STARVED) | me.group)?;
            if seen == word {
                if word & STARVED != 0 {
                    // Waiters that STARVED kept out may follow.
                    self.queue.wake_all()?;
                }
                return Ok(Some(Acquired::of(word)));
            }
            word = seen;
        }
        Ok(None)
    }

    #[inline]
    pub(crate) fn unlock_read(&self, me: &SlotHandle) -> Result<(), Fault> {
        me.readers.add(u32::MAX)?;
        self.handle.gave_back();
        let word = self.word.load()?;
        // A writer in the word may wait for this count.
        if word & WRITER != 0 && word & SLEEPERS != 0 { self.queue.wake_flagged() } else { Ok(()) }
    }

    /// Enters the word as the writer, and returns the word. Readers may still have the lock.
    fn enter_as_writer(&self, me: &SlotHandle, ignored_flags: u64) -> Result<Option<u64>, Fault> {
        let mut word = self.word.load()?;
        while word & (WRITER | (STARVED & !ignored_flags)) == 0 {
            let entered = (word & !STARVED) | me.slot_tag;
            let seen = self.word.compare_exchange(word, entered)?;
            if seen == word {
                return Ok(Some(entered));
            }
            word = seen;
        }
        Ok(None)
    }

    /// Sets POISON: a change is half made.
    pub(crate) fn poison(&self) -> Result<(), Fault> {
        self.word.change(|word| word | POISON)
    }

    /// Sets POISON if that participant is the writer in the word. Returns whether it is.
    pub(crate) fn poison_for(&self, writer: usize) -> Result<bool, Fault> {
        let mut word = self.word.load()?;
        while word & WRITER == slot_tag(writer) {
            let seen = self.word.compare_exchange(word, word | POISON)?;
            if seen == word {
                return Ok(true);
            }
            word = seen;
        }
        Ok(false)
    }

    /// Releases the write lock. Returns whether the word was [`WATCHED`].
    #[inline]
    pub(crate) fn unlock_write(&self, me: &SlotHandle) -> Result<bool, Fault> {
        let held = me.held_word.load(Ordering::Relaxed);
        // No reader has the lock, and each new one sets its bit of READERS again.
        let seen = self.word.compare_exchange(held, held & !(WRITER | READERS))?;
        let is_all = seen == held && held == me.slot_tag && !self.handle.is_checked();
        if is_all { Ok(false) } else { self.unlock_write_slow(me, held, seen) }
    }

    /// Slow path: more bits than the writer's are or were in the word, or a thread checks this
    /// handle.
    #[cold]
    #[inline(never)]
    fn unlock_write_slow(&self, me: &SlotHandle, mut held: u64, mut seen: u64) -> Result<bool, Fault> {
        me.held_word.store(me.slot_tag, Ordering::Relaxed);
        // A peer that breaks the protocol may have taken this writer out.
        while seen != held && seen & WRITER == me.slot_tag {
            held = seen;
            seen = self.word.compare_exchange(held, held & !(WRITER | READERS))?;
        }
        self.handle.gave_back();
        if seen & SLEEPERS != 0 {
            self.queue.wake_flagged()?;
        }
        Ok(seen & WATCHED != 0)
    }

    pub(crate) fn is_poisoned(&self) -> Result<bool, Fault> {
        Ok(self.word.load()? & POISON != 0)
    }

    pub(crate) fn clear_poison(&self) -> Result<(), Fault> {
        self.word.change(|word| word & !POISON)
    }

    /// Returns the slot of the writer in the word.
    pub(crate) fn writer(&self) -> Result<Option<usize>, Fault> {
        Ok(tagged_slot(self.word.load()?))
    }

    /// The long way in. The caller's thread uses the lock ([`threads`]), and does so again behind
    /// this; in between only while it tries.
    #[cold]
    #[inline(never)]
    fn wait<T>(
        &self,
        mode: LockMode,
        me: &SlotHandle,
        backoff: &mut Backoff,
        reap: ReapFn<'_>,
        attempt: impl Fn(u64) -> Result<Option<T>, Fault>,
    ) -> Result<T, LockFailure> {
        self.pause();
        let got = self.wait_unmarked(mode, me, backoff, reap, attempt);
        if got.is_err() {
            self.resume(mode);
        }
        got
    }

    fn wait_unmarked<T>(
        &self,
        mode: LockMode,
        me: &SlotHandle,
        backoff: &mut Backoff,
        reap: ReapFn<'_>,
        attempt: impl Fn(u64) -> Result<Option<T>, Fault>,
    ) -> Result<T, LockFailure> {
        loop {
            let ticket = backoff.ticket(&self.queue, me.slot)?;
            let ignored_flags = if backoff.is_long() || backoff.last_try { STARVED } else { 0 };
            // A reader that counts itself and has to undo that would wake all sleepers.
            if self.word.load()? & (WRITER | (STARVED & !ignored_flags)) == 0 {
                self.resume(mode);
                let tried = attempt(ignored_flags);
                if let Ok(Some(got)) = tried {
                    return Ok(got);
                }
                self.pause();
                tried?;
            }
            let writer = self.writer()?;
            if ignored_flags != 0 && writer.is_some() {
                self.word.change(|word| word | STARVED)?;
            }
            backoff.pause(&self.queue, ticket, writer, reap)?;
        }
    }

    /// The caller is the writer in the word: waits until the readers have left.
    fn drain(&self, me: &SlotHandle, word: u64, until: Deadline, reap: ReapFn<'_>) -> Result<Acquired, LockFailure> {
        let groups = (word & READERS) >> FIRST_READERS;
        let drained = match self.readers.find_reader(groups) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => self.drain_slow(me, groups, until, reap),
            Err(Fault) => Err(LockFailure::Gone),
        };
        if drained.is_err() {
            // Nothing was changed. The participants that this writer kept out may go on.
            self.leave(me)?;
        } else {
            me.held_word.store(word, Ordering::Relaxed);
        }
        drained.map(|()| Acquired::of(word))
    }

    #[cold]
    #[inline(never)]
    fn drain_slow(&self, me: &SlotHandle, groups: u64, until: Deadline, reap: ReapFn<'_>) -> Result<(), LockFailure> {
        let mut backoff = Backoff::new(until);
        loop {
            let ticket = backoff.ticket(&self.queue, me.slot)?;
            let Some(reader) = self.readers.find_reader(groups)? else { return Ok(()) };
            backoff.pause(&self.queue, ticket, Some(reader), reap)?;
        }
    }

    /// Takes `me` out of the word, if it is there.
    fn leave(&self, me: &SlotHandle) -> Result<(), Fault> {
        self.take_out(me)?;
        self.handle.gave_back();
        self.queue.wake_all()
    }

    /// Clears what a dead participant left. The caller has its token, and has
    /// [poisoned](Lock::poison_for) a half-made change: no other writer gets the lock before this.
    pub(crate) fn scrub(&self, dead: usize) -> Result<(), Fault> {
        self.readers.clear(dead)?;
        let writer = slot_tag(dead);
        self.word.change(|word| if word & WRITER == writer { word & !WRITER } else { word })?;
        self.queue.wake_all()
    }
}

/// The slot as the word stores it: plus 1, so that 0 is no writer.
fn slot_tag(slot: usize) -> u64 {
    (slot as u64 + 1) & WRITER
}

fn tagged_slot(word: u64) -> Option<usize> {
    usize::try_from(word & WRITER).ok()?.checked_sub(1)
}
