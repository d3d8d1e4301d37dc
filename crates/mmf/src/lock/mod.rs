//! A reader-writer lock in shared memory that survives the death of whoever holds it.
//!
//! # State
//!
//! ```text
//! word     bits 0..16   the writer's slot + 1, or 0
//!          bit  16      HURRY: somebody has waited long; who has not, waits behind
//!          bit  17      POISON: a writer died, or panicked, with a change half made
//! dirty                 who has begun to change what the lock protects: slot + 1, or 0
//! slots[k].readers      read locks that participant k's threads hold
//! occupied              a bit per slot that may have readers
//! ```
//!
//! Taking the lock and naming the holder is one atomic operation: a writer exchanges its slot into the word, a reader adds
//! to its own slot's count. So there is no instant in which a dead holder is nameless.
//!
//! A writer enters the word first, which keeps new readers out, and then waits until the readers that were there have
//! left. A reader counts itself first and then looks at the word; if a writer is there it takes the count back. Both
//! are sequentially consistent, so one of the two sees the other (Dekker).
//!
//! # Fairness
//!
//! Writers cannot be starved by readers, since they enter the word while readers are inside. All others could lose every
//! race against a peer that unlocks and locks in a loop. So who has waited for [`HURRY_AFTER`] sets HURRY, which only
//! those who waited that long may pass, and whoever gets in takes it away. If its setter dies, the others pass it
//! when their own wait has become long.
//!
//! # Death
//!
//! Who waits longer than a millisecond asks whether the holders live, and clears the slot of one that does not
//! ([`Lock::condemn`] and [`Lock::scrub`], under that slot's token). All of it can be done again, so a reaper may die as well.

mod slots;

pub(crate) use slots::{FREE, Slots, USED};

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::mapping::{Cell, Mapping};
use crate::segment::layout::at;
use crate::sys::Bells;
use crate::sys::guard::Fault;
use crate::wait::{Queue, Ticket};

const WRITER: u64 = 0xffff;
const HURRY: u64 = 1 << 16;
const POISON: u64 = 1 << 17;

/// When a wait has become long.
const HURRY_AFTER: Duration = Duration::from_millis(1);
/// How long the first sleep is, and the longest between two looks at whether the holders live.
const FIRST_SLEEP: Duration = Duration::from_millis(1);
const LAST_SLEEP: Duration = Duration::from_millis(20);
/// Looks at the lock before the first sleep: about what a sleep and a wake-up cost.
const SPINS: u32 = 60;

/// Why a lock was not obtained.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The deadline passed.
    Timeout {
        /// The slot that was in the way, if one was seen.
        holder: Option<usize>,
        /// For how long this participant has seen it there.
        seen_for: Duration,
    },
    /// The page that the lock is in is gone.
    Gone,
    /// The system could not tell whether a holder lives.
    Failed(Error),
}

impl From<Fault> for Refused {
    fn from(Fault: Fault) -> Refused {
        Refused::Gone
    }
}

/// Until when to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// Do not wait.
    Now,
    /// For so long. The clock is asked only by those who wait.
    After(Duration),
    At(Instant),
    Forever,
}

impl Until {
    /// `None` is for ever, as is what no clock can tell.
    pub(crate) fn deadline(self) -> Option<Instant> {
        match self {
            Until::Now => Some(Instant::now()),
            Until::After(timeout) => Instant::now().checked_add(timeout),
            Until::At(deadline) => Some(deadline),
            Until::Forever => None,
        }
    }
}

/// How the lock was obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) poisoned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Read,
    Write,
}

/// Clears a slot if its participant is dead, and tells whether it was.
pub(crate) type Reap<'a> = &'a dyn Fn(usize) -> Result<bool>;

pub(crate) struct Lock {
    word: Cell<u64>,
    dirty: Cell<u32>,
    queue: Queue,
    slots: Slots,
}

impl Lock {
    /// # Safety
    ///
    /// As [`Mapping::cell`].
    pub(crate) unsafe fn new(map: &Mapping, bells: &Arc<Bells>) -> Result<Lock> {
        Ok(Lock {
            // SAFETY: the caller's promise, passed on.
            word: unsafe { map.cell(at::LOCK) }?,
            // SAFETY: the caller's promise, passed on.
            dirty: unsafe { map.cell(at::DIRTY) }?,
            // SAFETY: the caller's promise, passed on.
            queue: unsafe { Queue::new(map, at::LOCK_QUEUE, bells) }?,
            // SAFETY: the caller's promise, passed on.
            slots: unsafe { Slots::new(map) }?,
        })
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Takes a read lock for slot `me`. Released by [`unlock_read`](Lock::unlock_read).
    #[inline]
    pub(crate) fn read(&self, me: usize, until: Until, reap: Reap<'_>) -> Result<Held, Refused> {
        match self.try_read(me, 0)? {
            Some(held) => Ok(held),
            None => self.wait(Mode::Read, me, until, reap),
        }
    }

    /// Takes the write lock for slot `me`. Released by [`unlock_write`](Lock::unlock_write).
    #[inline]
    pub(crate) fn write(&self, me: usize, until: Until, reap: Reap<'_>) -> Result<Held, Refused> {
        if let Some(held) = self.enter(me, 0)? {
            if self.slots.reader()?.is_none() {
                return Ok(held);
            }
            return self.drain(me, held, until.deadline(), reap);
        }
        self.wait(Mode::Write, me, until, reap)
    }

    /// `passing`: [`HURRY`] if this participant has waited long enough to pass it, else 0.
    #[inline]
    fn try_read(&self, me: usize, passing: u64) -> Result<Option<Held>, Fault> {
        self.slots.readers(me).add(1)?;
        let word = self.word.load()?;
        if word & (WRITER | (HURRY & !passing)) == 0 {
            if word & HURRY != 0 {
                self.change(|word| word & !HURRY)?;
                // Others that were kept out may follow.
                self.queue.wake_all()?;
            }
            return Ok(Some(Held { poisoned: word & POISON != 0 }));
        }
        self.unlock_read(me)?;
        Ok(None)
    }

    #[inline]
    pub(crate) fn unlock_read(&self, me: usize) -> Result<(), Fault> {
        self.slots.readers(me).add(u32::MAX)?;
        // A writer in the word waits for this.
        if self.word.load()? & WRITER != 0 { self.queue.wake_all() } else { Ok(()) }
    }

    /// Enters the word as the writer; readers may still be inside.
    #[inline]
    fn enter(&self, me: usize, passing: u64) -> Result<Option<Held>, Fault> {
        // Mostly it is free; a wrong guess tells what is there.
        let mut word = 0;
        while word & (WRITER | (HURRY & !passing)) == 0 {
            let seen = self.word.compare_exchange(word, (word & !HURRY) | writer(me))?;
            if seen == word {
                return Ok(Some(Held { poisoned: word & POISON != 0 }));
            }
            word = seen;
        }
        Ok(None)
    }

    /// Tells that a change begins. Until [`mark_clean`](Lock::mark_clean), this participant's death poisons.
    #[inline]
    pub(crate) fn mark_dirty(&self, me: usize) -> Result<(), Fault> {
        self.dirty.store(tag(me))?;
        // What is changed next must not be seen before the mark.
        std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
        Ok(())
    }

    /// Tells that the change is complete.
    #[inline]
    pub(crate) fn mark_clean(&self) -> Result<(), Fault> {
        self.dirty.store(0)
    }

    /// Tells whoever comes next that a change is half made.
    pub(crate) fn poison(&self) -> Result<(), Fault> {
        self.change(|word| word | POISON)
    }

    #[inline]
    pub(crate) fn unlock_write(&self, me: usize) -> Result<(), Fault> {
        self.change_from(writer(me), |word| word & !WRITER)?;
        self.queue.wake_all()
    }

    pub(crate) fn is_poisoned(&self) -> Result<bool, Fault> {
        Ok(self.word.load()? & POISON != 0)
    }

    pub(crate) fn clear_poison(&self) -> Result<(), Fault> {
        self.change(|word| word & !POISON)
    }

    /// Who is in the word.
    pub(crate) fn writer(&self) -> Result<Option<usize>, Fault> {
        Ok(slot_of(self.word.load()?))
    }

    fn change(&self, new: impl Fn(u64) -> u64) -> Result<(), Fault> {
        self.change_from(self.word.load()?, new)
    }

    /// Changes the word, which is guessed to be `word`.
    #[inline]
    fn change_from(&self, mut word: u64, new: impl Fn(u64) -> u64) -> Result<(), Fault> {
        loop {
            let seen = self.word.compare_exchange(word, new(word))?;
            if seen == word {
                return Ok(());
            }
            word = seen;
        }
    }

    /// The long way in.
    #[cold]
    #[inline(never)]
    fn wait(&self, mode: Mode, me: usize, until: Until, reap: Reap<'_>) -> Result<Held, Refused> {
        let deadline = until.deadline();
        let mut wait = Wait::new(deadline);
        loop {
            let ticket = wait.ticket(&self.queue, me)?;
            let passing = if wait.is_long() || wait.last_try { HURRY } else { 0 };
            // A reader that counts itself and has to take that back would wake all who sleep.
            let open = self.word.load()? & (WRITER | (HURRY & !passing)) == 0;
            let got = match mode {
                _ if !open => None,
                Mode::Read => self.try_read(me, passing)?,
                Mode::Write => self.enter(me, passing)?,
            };
            match (got, mode) {
                (Some(held), Mode::Read) => return Ok(held),
                (Some(held), Mode::Write) => return self.drain(me, held, deadline, reap),
                (None, _) => {}
            }
            let writer = self.writer()?;
            if passing != 0 && writer.is_some() {
                self.change(|word| word | HURRY)?;
            }
            wait.once(&self.queue, ticket, writer, reap)?;
        }
    }

    /// In the word already: waits until the readers that were inside have left.
    #[cold]
    #[inline(never)]
    fn drain(&self, me: usize, held: Held, deadline: Option<Instant>, reap: Reap<'_>) -> Result<Held, Refused> {
        let mut wait = Wait::new(deadline);
        loop {
            let outcome = self.drain_once(me, &mut wait, reap);
            match outcome {
                Ok(true) => return Ok(held),
                Ok(false) => {}
                Err(refused) => {
                    // Nothing was changed; those who were kept out may go on.
                    self.leave(me)?;
                    return Err(refused);
                }
            }
        }
    }

    fn drain_once(&self, me: usize, wait: &mut Wait, reap: Reap<'_>) -> Result<bool, Refused> {
        let ticket = wait.ticket(&self.queue, me)?;
        let Some(reader) = self.slots.reader()? else { return Ok(true) };
        wait.once(&self.queue, ticket, Some(reader), reap)?;
        Ok(false)
    }

    /// Takes `me` out of the word, if it is there.
    fn leave(&self, me: usize) -> Result<(), Fault> {
        self.change(|word| if word & WRITER == writer(me) { word & !WRITER } else { word })?;
        self.queue.wake_all()
    }

    /// Poisons if this dead participant is in the word with a change half made, and tells whether it is. Nobody else comes
    /// in before [`scrub`](Lock::scrub). The caller has its token.
    pub(crate) fn condemn(&self, dead: usize) -> Result<bool, Fault> {
        let half_made = self.writer()? == Some(dead) && self.dirty.load()? == tag(dead);
        if half_made {
            self.poison()?;
        }
        Ok(half_made)
    }

    /// Clears what a dead participant left, which was [condemned](Lock::condemn) before. The caller has its token.
    pub(crate) fn scrub(&self, dead: usize) -> Result<(), Fault> {
        // The word is anybody's to write, and may name a slot that no segment has.
        if let Some(slot) = self.slots.get(dead) {
            slot.readers.swap(0)?;
        }
        self.change(|word| if word & WRITER == writer(dead) { word & !WRITER } else { word })?;
        // After the word, so that whoever does this again still knows of the change.
        self.dirty.compare_exchange(tag(dead), 0)?;
        self.queue.wake_all()
    }
}

fn writer(slot: usize) -> u64 {
    u64::from(tag(slot))
}

/// A slot as it stands in shared memory: 0 is nobody.
fn tag(slot: usize) -> u32 {
    // Slots are counted in hundreds.
    u32::try_from(slot + 1).unwrap_or(0)
}

fn slot_of(word: u64) -> Option<usize> {
    usize::try_from(word & WRITER).ok()?.checked_sub(1)
}

/// One wait for a lock: spins, then sleeps with growing bounds, and asks who in the way still lives.
struct Wait {
    deadline: Option<Instant>,
    spins: u32,
    since: Option<Instant>,
    sleep: Duration,
    /// The deadline has passed, and nobody is in the way.
    last_try: bool,
    /// When it was last asked whether who is in the way lives, or when the wait began.
    asked: Option<Instant>,
    /// Who was in the way when it was last asked was dead.
    reaped: bool,
    /// Who was in the way, and since when without a break.
    blocker: Option<(usize, Instant)>,
}

impl Wait {
    fn new(deadline: Option<Instant>) -> Wait {
        Wait {
            deadline,
            spins: 0,
            since: None,
            sleep: FIRST_SLEEP,
            last_try: false,
            asked: None,
            reaped: false,
            blocker: None,
        }
    }

    fn is_long(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= HURRY_AFTER)
    }

    /// What the sleep that comes next needs; none while there is none to come, since others would then wake one who does
    /// not sleep.
    fn ticket(&self, queue: &Queue, me: usize) -> Result<Option<Ticket>, Fault> {
        if self.spins < SPINS { Ok(None) } else { queue.ticket(me).map(Some) }
    }

    fn once(
        &mut self,
        queue: &Queue,
        ticket: Option<Ticket>,
        blocker: Option<usize>,
        reap: Reap<'_>,
    ) -> Result<(), Refused> {
        if self.spins < SPINS {
            self.spins += 1;
            for _ in 0..self.spins {
                std::hint::spin_loop();
            }
            if self.deadline.is_none() || self.spins > 1 {
                return Ok(());
            }
        }
        let now = Instant::now();
        self.since.get_or_insert(now);
        self.blocker = match (blocker, self.blocker) {
            (Some(slot), Some((known, since))) if slot == known => Some((slot, since)),
            (Some(slot), _) => Some((slot, now)),
            (None, _) => None,
        };
        let left = match self.deadline {
            Some(deadline) if deadline <= now => {
                if self.tries_again(queue, blocker, reap)? {
                    return Ok(());
                }
                let holder = self.blocker.map(|(slot, _)| slot);
                let seen_for = self.blocker.map_or(Duration::ZERO, |(_, since)| now - since);
                return Err(Refused::Timeout { holder, seen_for });
            }
            Some(deadline) => deadline - now,
            None => LAST_SLEEP,
        };
        let Some(ticket) = ticket else { return Ok(()) };
        // A program that dies takes all its handles along: who comes next in the way is asked about at once.
        if !self.reaped {
            queue.sleep(ticket, self.sleep.min(left));
        }
        // However often others wake us meanwhile, who is in the way may be dead.
        let asked = *self.asked.get_or_insert(now);
        if self.reaped || asked.elapsed() >= self.sleep {
            self.reaped = match blocker {
                Some(slot) => reap(slot).map_err(Refused::Failed)?,
                None => false,
            };
            self.asked = Some(Instant::now());
            self.sleep = (self.sleep * 2).min(LAST_SLEEP);
        }
        Ok(())
    }

    /// Whether there is a reason to look once more though the deadline has passed. Who never waits long, because it
    /// only tries, would otherwise never learn that a holder is dead, nor pass HURRY that nobody is left to take away.
    fn tries_again(&mut self, queue: &Queue, blocker: Option<usize>, reap: Reap<'_>) -> Result<bool, Refused> {
        match blocker {
            Some(slot) => reap(slot).map_err(Refused::Failed),
            None if self.last_try => Ok(false),
            // Those for whom HURRY stands are woken first: if they live, they come, or ask for their places anew.
            None if queue.is_awaited()? => {
                queue.wake_all()?;
                Ok(false)
            }
            None => {
                self.last_try = true;
                Ok(true)
            }
        }
    }
}
