//! A reader-writer lock in shared memory that survives the death of whoever holds it.
//!
//! # State
//!
//! ```text
//! word     bits 0..16   the writer's slot + 1, or 0
//!          bit  16      HURRY: somebody has waited long; who has not, waits behind
//!          bit  17      POISON: a writer died, or panicked, with a change half made
//!          bit  18      SLEEPERS: somebody may sleep in the queue
//!          bit  19      WATCHED: the same for a queue of the layer above; the lock only keeps it
//!          bits 20..24  READERS: a bit for each 64 slots, of which some may hold read locks
//! slots[k].readers      read locks that participant k's threads hold
//! occupied              a bit per slot that is in use
//! ```
//!
//! Taking the lock and naming the holder is one atomic operation: a writer exchanges its slot into the word, a reader adds
//! to its own slot's count. So there is no instant in which a dead holder is nameless.
//!
//! A reader counts itself first and then looks at the word. If a writer is there it takes the count back; else it is inside
//! once its bit of READERS stands in the word, which it mostly finds there. A writer that enters a word without any such bit
//! is alone, since a reader can set none any more. A writer that finds some keeps new readers out by being in the word, and
//! waits until the counts behind those bits are zero; reader and writer each look at the other's mark after setting their
//! own, sequentially consistent, so one of the two sees the other (Dekker). Who has the lock takes the bits away with itself.
//! So the usual way in and out is two operations for a reader and one for a writer, and a reader that nobody
//! disturbs writes to a line of its own.
//!
//! # Fairness
//!
//! Writers cannot be starved by readers, since they enter the word while readers are inside. All others could lose every
//! race against a peer that unlocks and locks in a loop. So who has waited for a millisecond sets HURRY, which only
//! those who waited that long may pass, and whoever gets in takes it away. If its setter dies, the others pass it
//! when their own wait has become long.
//!
//! # Death
//!
//! Who waits longer than a millisecond asks whether the holders live, and clears the slot of one that does not
//! ([`Lock::scrub`], under that slot's token). All of it can be done again, so a reaper may die as well.
//!
//! # Forged holders
//!
//! A peer can store the slot of a living handle in the word, or a count of readers in its slot. A
//! handle that waits, and finds there what none of its threads holds, takes it out
//! ([`Lock::disown`]). A handle that makes no call takes out nothing: to its peers it is a holder
//! that does not let go.

mod patience;
mod raw;
mod readers;
mod stale;
pub(crate) mod threads;

use patience::Wait;
pub(crate) use patience::{Reap, Refused, Until};
pub use raw::{LockWord, LockWords, RawLock};
pub(crate) use raw::{NAME_MAX, OwnLock, WordPlaces};
pub(crate) use readers::{Readers, Seat};

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::mapping::{Cell, Mapping};
use crate::sys::Bells;
use crate::sys::guard::Fault;
use crate::wait::{Flag, Queue};

const WRITER: u64 = 0xffff;
const HURRY: u64 = 1 << 16;
const POISON: u64 = 1 << 17;
const SLEEPERS: u64 = 1 << 18;
/// For the layer above: whoever changes what the lock protects has somebody to wake.
pub(crate) const WATCHED: u64 = 1 << 19;
const READERS: u64 = 0xf << FIRST_READERS;
const FIRST_READERS: usize = 20;

/// How the lock was obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) poisoned: bool,
}

impl Held {
    #[inline]
    fn of(word: u64) -> Held {
        Held { poisoned: word & POISON != 0 }
    }
}

/// For what a lock is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Read,
    Write,
}

/// Where a lock's parts are in a mapping.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    pub(crate) word: usize,
    pub(crate) queue: usize,
    pub(crate) occupied: usize,
    /// The first slot's count of readers.
    pub(crate) readers: usize,
    /// From one slot's count to the next one's.
    pub(crate) stride: usize,
}

pub(crate) struct Lock {
    word: Cell<u64>,
    queue: Queue,
    readers: Readers,
    /// Which threads use this lock.
    handle: threads::HandleState,
}

impl Lock {
    /// `mark` is what threads know the segment by.
    ///
    /// # Safety
    ///
    /// As [`Mapping::cell`].
    pub(crate) unsafe fn new(map: &Mapping, places: Places, bells: &Arc<Bells>, mark: u64) -> Result<Lock> {
        // SAFETY: the caller's promise, passed on.
        let flag = unsafe { Flag::new(map, places.word, SLEEPERS) }?;
        Ok(Lock {
            // SAFETY: the caller's promise, passed on.
            word: unsafe { map.cell(places.word) }?,
            // SAFETY: the caller's promise, passed on.
            queue: unsafe { Queue::new(map, places.queue, flag, bells) }?,
            // SAFETY: the caller's promise, passed on.
            readers: unsafe { Readers::new(map, places) }?,
            handle: threads::HandleState::new(mark),
        })
    }

    pub(crate) fn readers(&self) -> &Readers {
        &self.readers
    }

    /// Takes a read lock if nobody is in the way. Released by [`unlock_read`](Lock::unlock_read).
    #[inline]
    pub(crate) fn try_read(&self, me: &Seat) -> Result<Option<Held>, Fault> {
        self.read_passing(me, 0)
    }

    /// `passing`: [`HURRY`] if this participant has waited long enough to pass it, else 0.
    #[inline]
    fn read_passing(&self, me: &Seat, passing: u64) -> Result<Option<Held>, Fault> {
        me.readers.add(1)?;
        let held = self.look_around(me, passing);
        match held {
            Ok(Some(_)) => {}
            Ok(None) => self.unlock_read(me)?,
            // Whoever else reaches the word shall not wait for this count.
            Err(Fault) => {
                let _ = me.readers.add(u32::MAX);
                self.handle.gave_back();
            }
        }
        held
    }

    /// The same, waiting.
    pub(crate) fn read(&self, me: &Seat, until: Until, reap: Reap<'_>) -> Result<Held, Refused> {
        self.wait(Mode::Read, me, &mut Wait::new(until), reap, |passing| self.read_passing(me, passing))
    }

    /// Takes the write lock if nothing at all is in the word, and tells whether. Released by
    /// [`unlock_write`](Lock::unlock_write).
    #[inline]
    pub(crate) fn try_write(&self, me: &Seat) -> Result<bool, Fault> {
        Ok(self.word.compare_exchange(0, me.tag)? == 0)
    }

    /// The same whatever is in the word, waiting if need be.
    pub(crate) fn write(&self, me: &Seat, until: Until, reap: Reap<'_>) -> Result<Held, Refused> {
        match self.enter(me, 0)? {
            Some(word) => self.drain(me, word, until, reap),
            None => self.write_after_wait(me, until, reap),
        }
    }

    #[cold]
    #[inline(never)]
    fn write_after_wait(&self, me: &Seat, until: Until, reap: Reap<'_>) -> Result<Held, Refused> {
        let mut wait = Wait::new(until);
        let word = self.wait(Mode::Write, me, &mut wait, reap, |passing| self.enter(me, passing))?;
        self.drain(me, word, wait.until, reap)
    }

    /// A reader that has counted itself: whether it is inside.
    #[inline]
    fn look_around(&self, me: &Seat, passing: u64) -> Result<Option<Held>, Fault> {
        let mut word = self.word.load()?;
        while word & (WRITER | (HURRY & !passing)) == 0 {
            if word & (me.group | HURRY) == me.group {
                return Ok(Some(Held::of(word)));
            }
            let seen = self.word.compare_exchange(word, (word & !HURRY) | me.group)?;
            if seen == word {
                if word & HURRY != 0 {
                    // Others that were kept out may follow.
                    self.queue.wake_all()?;
                }
                return Ok(Some(Held::of(word)));
            }
            word = seen;
        }
        Ok(None)
    }

    #[inline]
    pub(crate) fn unlock_read(&self, me: &Seat) -> Result<(), Fault> {
        me.readers.add(u32::MAX)?;
        self.handle.gave_back();
        let word = self.word.load()?;
        // A writer in the word waits for this.
        if word & WRITER != 0 && word & SLEEPERS != 0 { self.queue.ring() } else { Ok(()) }
    }

    /// Enters the word as the writer, and gives it; readers may still be inside.
    fn enter(&self, me: &Seat, passing: u64) -> Result<Option<u64>, Fault> {
        let mut word = self.word.load()?;
        while word & (WRITER | (HURRY & !passing)) == 0 {
            let entered = (word & !HURRY) | me.tag;
            let seen = self.word.compare_exchange(word, entered)?;
            if seen == word {
                return Ok(Some(entered));
            }
            word = seen;
        }
        Ok(None)
    }

    /// Tells whoever comes next that a change is half made.
    pub(crate) fn poison(&self) -> Result<(), Fault> {
        self.word.change(|word| word | POISON)
    }

    /// The same if that participant is in the word, and tells whether it is.
    pub(crate) fn poison_for(&self, writer: usize) -> Result<bool, Fault> {
        let mut word = self.word.load()?;
        while word & WRITER == tag(writer) {
            let seen = self.word.compare_exchange(word, word | POISON)?;
            if seen == word {
                return Ok(true);
            }
            word = seen;
        }
        Ok(false)
    }

    /// Whether the word was [`WATCHED`].
    #[inline]
    pub(crate) fn unlock_write(&self, me: &Seat) -> Result<bool, Fault> {
        let held = me.held.load(Ordering::Relaxed);
        // No reader is inside, and those to come say so anew.
        let seen = self.word.compare_exchange(held, held & !(WRITER | READERS))?;
        let is_all = seen == held && held == me.tag && !self.handle.is_checked();
        if is_all { Ok(false) } else { self.unlock_more(me, held, seen) }
    }

    /// More than the writer is in the word, or was, or a thread checks this handle.
    #[cold]
    #[inline(never)]
    fn unlock_more(&self, me: &Seat, mut held: u64, mut seen: u64) -> Result<bool, Fault> {
        me.held.store(me.tag, Ordering::Relaxed);
        // Somebody who writes where he must not may have taken this one out.
        while seen != held && seen & WRITER == me.tag {
            held = seen;
            seen = self.word.compare_exchange(held, held & !(WRITER | READERS))?;
        }
        self.handle.gave_back();
        if seen & SLEEPERS != 0 {
            self.queue.ring()?;
        }
        Ok(seen & WATCHED != 0)
    }

    pub(crate) fn is_poisoned(&self) -> Result<bool, Fault> {
        Ok(self.word.load()? & POISON != 0)
    }

    pub(crate) fn clear_poison(&self) -> Result<(), Fault> {
        self.word.change(|word| word & !POISON)
    }

    /// Who is in the word.
    pub(crate) fn writer(&self) -> Result<Option<usize>, Fault> {
        Ok(slot_of(self.word.load()?))
    }

    /// The long way in. The caller's thread uses the lock ([`threads`]), and does so again behind
    /// this; in between only while it tries.
    #[cold]
    #[inline(never)]
    fn wait<T>(
        &self,
        mode: Mode,
        me: &Seat,
        wait: &mut Wait,
        reap: Reap<'_>,
        attempt: impl Fn(u64) -> Result<Option<T>, Fault>,
    ) -> Result<T, Refused> {
        self.pause();
        let got = self.wait_aside(mode, me, wait, reap, attempt);
        if got.is_err() {
            self.resume(mode);
        }
        got
    }

    fn wait_aside<T>(
        &self,
        mode: Mode,
        me: &Seat,
        wait: &mut Wait,
        reap: Reap<'_>,
        attempt: impl Fn(u64) -> Result<Option<T>, Fault>,
    ) -> Result<T, Refused> {
        loop {
            let ticket = wait.ticket(&self.queue, me.slot)?;
            let passing = if wait.is_long() || wait.last_try { HURRY } else { 0 };
            // A reader that counts itself and has to take that back would wake all who sleep.
            if self.word.load()? & (WRITER | (HURRY & !passing)) == 0 {
                self.resume(mode);
                let tried = attempt(passing);
                if let Ok(Some(got)) = tried {
                    return Ok(got);
                }
                self.pause();
                tried?;
            }
            let writer = self.writer()?;
            if passing != 0 && writer.is_some() {
                self.word.change(|word| word | HURRY)?;
            }
            wait.once(&self.queue, ticket, writer, reap)?;
        }
    }

    /// In the word already: waits until the readers that were inside have left.
    fn drain(&self, me: &Seat, word: u64, until: Until, reap: Reap<'_>) -> Result<Held, Refused> {
        let groups = (word & READERS) >> FIRST_READERS;
        let drained = match self.readers.inside(groups) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => self.drain_slowly(me, groups, until, reap),
            Err(Fault) => Err(Refused::Gone),
        };
        if drained.is_err() {
            // Nothing was changed; those who were kept out may go on.
            self.leave(me)?;
        } else {
            me.held.store(word, Ordering::Relaxed);
        }
        drained.map(|()| Held::of(word))
    }

    #[cold]
    #[inline(never)]
    fn drain_slowly(&self, me: &Seat, groups: u64, until: Until, reap: Reap<'_>) -> Result<(), Refused> {
        let mut wait = Wait::new(until);
        loop {
            let ticket = wait.ticket(&self.queue, me.slot)?;
            let Some(reader) = self.readers.inside(groups)? else { return Ok(()) };
            wait.once(&self.queue, ticket, Some(reader), reap)?;
        }
    }

    /// Takes `me` out of the word, if it is there.
    fn leave(&self, me: &Seat) -> Result<(), Fault> {
        self.take_out(me)?;
        self.handle.gave_back();
        self.queue.wake_all()
    }

    /// Clears what a dead participant left. The caller has its token, and has [poisoned](Lock::poison_for) before if a change
    /// is half made: nobody else comes in before this.
    pub(crate) fn scrub(&self, dead: usize) -> Result<(), Fault> {
        self.readers.clear(dead)?;
        let writer = tag(dead);
        self.word.change(|word| if word & WRITER == writer { word & !WRITER } else { word })?;
        self.queue.wake_all()
    }
}

/// A slot as it stands in shared memory: 0 is nobody.
fn tag(slot: usize) -> u64 {
    (slot as u64 + 1) & WRITER
}

fn slot_of(word: u64) -> Option<usize> {
    usize::try_from(word & WRITER).ok()?.checked_sub(1)
}
