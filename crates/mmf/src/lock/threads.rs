//! Which threads of this process use a handle's lock: a handle compares what shared memory says of
//! it with this.
//!
//! # Problem
//!
//! The lock's word and the counts of readers lie in shared memory, so a hostile peer can store the
//! slot of a living handle there. All processes then wait for that handle. It must find out that
//! none of its threads holds the lock, and a thread may have been stopped anywhere, also directly
//! behind the exchange by which it took the lock.
//!
//! # Data
//!
//! Each thread has a record in private memory, which is never freed. A record has one word for each
//! lock that the thread can have at the same time, or 0:
//!
//! ```text
//! bits 0..2    how the thread uses the lock: 0 not at all (it waits), 1 it reads, 2 it writes
//! bits 2..18   the number of the handle, modulo 2^16
//! bits 18..64  the mark of the segment: a hash of what identifies it
//! ```
//!
//! By the mark a thread knows that it has a segment's lock already, by whichever handle. The number
//! tells apart the handles of one segment. Where two are the same by chance, a handle takes the
//! other's uses for its own and is more cautious.
//!
//! Only its thread stores to a word. A thread *uses* a lock from before its attempt until after the
//! release. While it waits it does not use it, except during each attempt.
//!
//! Each handle has in private memory the state of its check:
//!
//! ```text
//! IDLE       no thread checks the handle
//! CHECKING   a thread checks it
//! DISTURBED  a thread checks it, and a thread has given a lock back since the check began
//! ```
//!
//! # Algorithm
//!
//! A thread that locks:
//!
//! 1. stores its word (*begin*);
//! 2. tries to take the lock;
//! 3. gives back what it took, by an exchange with the lock's word or its slot's count of readers.
//!    Then it loads the state of the handle's check. If that is CHECKING, it exchanges DISTURBED
//!    for it ([`HandleState::gave_back`]);
//! 4. clears its word (*end*).
//!
//! The checking thread B:
//!
//! 1. exchanges CHECKING for IDLE; if another thread checks the handle, B gives up;
//! 2. loads the lock's word and its slot's count of readers;
//! 3. loads the words of all threads' records ([`HandleState::use_snapshot`]), and then the state
//!    of the check. If that is DISTURBED, B gives up and tries later;
//! 4. if no thread uses a write lock and the lock's word has the handle's tag, B takes the tag out;
//! 5. if no thread uses a read lock, B subtracts the count that it loaded;
//! 6. stores IDLE.
//!
//! One thread of a handle checks at a time, so that none subtracts what another has subtracted.
//!
//! # Why it is correct
//!
//! Suppose that the tag that B loads in step 2 is from thread A's exchange.
//!
//! - A's begin precedes the exchange in program order. The exchange is a release, B's load an
//!   acquire. So step 3 sees that begin or a later store of A to the same word.
//! - If it sees that begin, A uses a write lock, and B does not do step 4.
//! - If it sees a later store, A's use had ended. Before that end, A gave the lock back by an
//!   exchange with the lock's word, and B's load in step 2 found what was there before. Step 1,
//!   that load, A's exchange and A's load of the state are sequentially consistent, so they are in
//!   this order, and A did not load a state from before step 1. Each store to A's word is a release
//!   and B's load of it an acquire, so A's load of the state happened before step 6. So A found
//!   CHECKING, or DISTURBED already, and B's load in step 3 finds DISTURBED. B gives up.
//!
//! So a tag that passes is no thread's. Between steps 3 and 4 no thread of the handle can store the
//! tag, since the exchange that takes the lock needs a word without a writer. Only a peer that
//! breaks the protocol could take the tag out meanwhile, and such a peer could as well store 0 over
//! a lock that is held.
//!
//! The same holds for a count: each addition lies within a use, so all that B loads is what no
//! thread added. B subtracts exactly that, and additions that come meanwhile stay.
//!
//! A lock stays in its word of the record: if it moved, B could load its old place too late and its
//! new place too early. A thread that loaded CHECKING and was stopped may store DISTURBED in a
//! later check. That check gives up without need.
//!
//! # Cost
//!
//! A lock and its release write only private memory beside the lock itself, one word each and
//! whether the thread has any lock. What they store, and where, does not depend on what they load
//! from a record, so the next exchange does not wait for such a load.

use std::sync::atomic::AtomicU64 as Counter;
use std::sync::atomic::Ordering;
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicU32, AtomicU64, fence};

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicU32, AtomicU64, fence};

use super::LockMode;

/// The state of a handle's check.
pub(super) type Check = AtomicU32;

#[cfg(not(all(test, loom)))]
mod record;
#[cfg(not(all(test, loom)))]
pub(crate) use record::Thread;

/// The parts of a record's word.
const MODE: u64 = 3;
const NUMBER: u64 = 0xffff << 2;
const MARK: u64 = !(MODE | NUMBER);

/// The states of a check.
const IDLE: u32 = 0;
const CHECKING: u32 = 1;
const DISTURBED: u32 = 2;

#[inline(always)]
const fn bits(mode: LockMode) -> u64 {
    match mode {
        LockMode::Read => 1,
        LockMode::Write => 2,
    }
}

/// What this process keeps of a handle's lock.
pub(crate) struct HandleState {
    /// The mark and the number, as they stand in the words of records.
    word: u64,
    #[cfg(not(all(test, loom)))]
    check: Check,
}

/// What all threads' records say of a handle's lock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UseSnapshot {
    pub(super) reads: bool,
    pub(super) writes: bool,
}

impl HandleState {
    /// `mark` is a hash of what identifies the segment, of which the upper 46 bits count.
    pub(super) fn new(mark: u64) -> HandleState {
        static COUNT: Counter = Counter::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // Never 0, which is a word without a lock.
        let mark = (mark & MARK).max(MARK & MARK.wrapping_neg());
        HandleState {
            word: mark | (number << MODE.count_ones() & NUMBER),
            #[cfg(not(all(test, loom)))]
            check: Check::new(IDLE),
        }
    }

    /// Whether a thread that has given a lock back has to call [`gave_back`](Self::gave_back).
    #[inline(always)]
    pub(super) fn is_checked(&self) -> bool {
        // After the exchange, which is sequentially consistent as well.
        let is_checked = |check: &Check| check.load(Ordering::SeqCst) != IDLE;
        #[cfg(not(all(test, loom)))]
        return is_checked(&self.check);
        #[cfg(all(test, loom))]
        crate::sys::model::check_of_lock(is_checked).unwrap_or(false)
    }

    /// Disturbs a check, after a thread has given back a lock or a count of readers.
    #[inline(always)]
    pub(super) fn gave_back(&self) {
        if self.is_checked() {
            self.disturb();
        }
    }

    #[cold]
    #[inline(never)]
    fn disturb(&self) {
        // Where it fails, the state is DISTURBED already, or the check is over.
        let disturb = |check: &Check| check.compare_exchange(CHECKING, DISTURBED, Ordering::Relaxed, Ordering::Relaxed);
        #[cfg(not(all(test, loom)))]
        let _ = disturb(&self.check);
        #[cfg(all(test, loom))]
        let _ = crate::sys::model::check_of_lock(disturb);
    }

    /// Runs `work` between steps 1 and 6 above; `None` if another thread checks this handle.
    pub(super) fn check<T>(&self, work: impl FnOnce(&Check) -> T) -> Option<T> {
        let alone = |check: &Check| {
            // Pairs with the release below.
            check.compare_exchange(IDLE, CHECKING, Ordering::SeqCst, Ordering::Relaxed).ok()?;
            fence(Ordering::SeqCst);
            let done = work(check);
            // Not a store: loom puts one in no order with the exchanges of other threads.
            check.swap(IDLE, Ordering::Release);
            Some(done)
        };
        #[cfg(not(all(test, loom)))]
        return alone(&self.check);
        #[cfg(all(test, loom))]
        crate::sys::model::check_of_lock(alone)?
    }

    /// Step 3 above; `None` if a use has ended since the check began.
    pub(super) fn use_snapshot(&self, check: &Check) -> Option<UseSnapshot> {
        let mut uses = UseSnapshot::default();
        let see = |word: &AtomicU64| {
            // Pairs with the releases of `begin` and `end`.
            let word = word.load(Ordering::Acquire);
            if word & !MODE == self.word {
                uses.reads |= word & bits(LockMode::Read) != 0;
                uses.writes |= word & bits(LockMode::Write) != 0;
            }
        };
        #[cfg(not(all(test, loom)))]
        record::words().for_each(see);
        #[cfg(all(test, loom))]
        crate::sys::model::uses_of_lock(see);
        (check.load(Ordering::Relaxed) == CHECKING).then_some(uses)
    }
}

/// Stores how a thread uses a lock from now on.
#[inline(always)]
fn store(word: &AtomicU64, value: u64) {
    // A release. If B sees the end of a use, it sees what the thread did before; and it may see the
    // begin of the next use in the place of that end.
    word.store(value, Ordering::Release);
}

/// Why a thread cannot have a lock.
#[cfg_attr(all(test, loom), allow(dead_code, reason = "a model's thread has one lock at a time"))]
pub(crate) enum Refusal {
    /// It has the segment's lock.
    Deadlock,
    /// It has as many locks as it can.
    Full,
}

/// The stand-in for loom's threads, which have one word each: a thread has one lock at a time.
#[cfg(all(test, loom))]
pub(crate) enum Thread {}

#[cfg(all(test, loom))]
impl Thread {
    pub(crate) fn begin_first(handle: &HandleState, mode: LockMode) -> bool {
        Thread::resume(handle, mode);
        true
    }

    pub(crate) fn begin(handle: &HandleState, mode: LockMode) -> Result<(), Refusal> {
        Thread::resume(handle, mode);
        Ok(())
    }

    pub(crate) fn end(_handle: &HandleState) {
        crate::sys::model::use_lock(|word| store(word, 0));
    }

    pub(super) fn resume(handle: &HandleState, mode: LockMode) {
        crate::sys::model::use_lock(|word| store(word, handle.word | bits(mode)));
    }

    pub(super) fn pause(handle: &HandleState) {
        crate::sys::model::use_lock(|word| store(word, handle.word));
    }
}
