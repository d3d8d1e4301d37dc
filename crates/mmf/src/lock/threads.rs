//! Which threads of this process use a handle's lock: what shared memory says of a handle is
//! checked against it.
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
//! Each thread has a [`Record`] in private memory, which is never freed: one word for each of
//! [`PLACES`] handles (handles whose numbers are equal modulo `PLACES` share a word, which makes
//! the answer more cautious, never wrong).
//!
//! ```text
//! bits 0..8    how many read locks of the handle this thread uses
//! bits 8..16   how many write locks
//! bits 16..64  changes: grows by one with each change of the word
//! ```
//!
//! Only its thread changes a word, with a load and a store. A thread *uses* a lock from before its
//! attempt until after the release. While it waits it does not use it, but for each attempt.
//!
//! # Algorithm
//!
//! The checking thread B, one of a handle at a time ([`OneAtATime`]), so that none subtracts what
//! another has subtracted already:
//!
//! 1. reads all threads' words for the handle ([`look`]);
//! 2. loads the lock's word and its slot's count of readers;
//! 3. reads all threads' words again. If any changed between 1 and 3, B gives up and tries later;
//! 4. if no thread uses a write lock and the lock's word has the handle's tag, B takes the tag out;
//! 5. if no thread uses a read lock, B subtracts the count that it loaded.
//!
//! # Why it is correct
//!
//! Suppose that the tag that B loads in step 2 is from thread A's exchange.
//!
//! - A's store that begins its use precedes the exchange in program order. The exchange is a
//!   release, B's load an acquire. So step 3 sees that store or a later one of A.
//! - If step 1 saw an earlier value, the words differ, and B gives up.
//! - If step 1 saw that store, A uses a write lock, and B does not do step 4.
//! - If step 1 saw a later one, A's use had ended. That store is a release behind A's unlocking
//!   exchange, so B's load in step 2 finds what that exchange left or something newer, and not what
//!   A's first exchange stored: a contradiction.
//!
//! So a tag that passes is no thread's. Between steps 3 and 4 no thread of the handle can store the
//! tag, since the exchange that takes the lock needs a word without a writer. Only a peer that
//! breaks the protocol could take the tag out meanwhile, and such a peer could as well store 0 over
//! a lock that is held.
//!
//! The same holds for a count: each addition lies within a use, so all that B loads is what no
//! thread added. B subtracts exactly that, and additions that come meanwhile stay.
//!
//! # Cost
//!
//! Nothing shared between processes or threads is written. A lock and its release store two private
//! words.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use super::Mode;

/// Words of a record.
pub(crate) const PLACES: usize = 64;
/// The locks that one thread can have at the same time.
pub(crate) const MOST: usize = 64;
/// In the place of a count of locks: this thread has no record yet.
pub(crate) const NO_RECORD: usize = usize::MAX;

const DEPTH: u64 = 0xff;
const CHANGE: u64 = 1 << 16;

/// By how much a word grows when a use begins.
#[inline(always)]
fn one(mode: Mode) -> u64 {
    match mode {
        Mode::Read => 1,
        Mode::Write => 1 << 8,
    }
}

/// One thread's uses of locks.
pub(crate) struct Record {
    #[cfg_attr(all(test, loom), allow(dead_code, reason = "the models have words of their own"))]
    words: [AtomicU64; PLACES],
    /// Whether a thread has it.
    taken: AtomicBool,
    next: AtomicPtr<Record>,
}

impl Record {
    const fn new(taken: bool) -> Record {
        let words = [const { AtomicU64::new(0) }; PLACES];
        Record { words, taken: AtomicBool::new(taken), next: AtomicPtr::new(ptr::null_mut()) }
    }

    /// This thread begins to use that handle's lock.
    #[inline(always)]
    pub(crate) fn begin(&self, place: usize, mode: Mode) {
        // The exchange that follows is a release.
        self.add(place, CHANGE + one(mode), Ordering::Relaxed);
    }

    /// This thread has released that handle's lock, or not got it.
    #[inline(always)]
    pub(crate) fn end(&self, place: usize, mode: Mode) {
        // Pairs with the acquire of `look`: a thread that sees the use end finds the lock
        // released.
        self.add(place, CHANGE - one(mode), Ordering::Release);
    }

    #[cfg(not(all(test, loom)))]
    #[inline(always)]
    fn add(&self, place: usize, more: u64, order: Ordering) {
        let word = &self.words[place % PLACES];
        word.store(word.load(Ordering::Relaxed).wrapping_add(more), order);
    }

    #[cfg(all(test, loom))]
    #[allow(clippy::unused_self, reason = "the model knows the thread")]
    fn add(&self, place: usize, more: u64, order: Ordering) {
        crate::sys::model::use_lock(place % PLACES, more, order);
    }

    fn is_idle(&self) -> bool {
        self.words.iter().all(|word| word.load(Ordering::Relaxed) & (CHANGE - 1) == 0)
    }
}

/// Lets one thread of a handle check at a time. What it did is seen by the next one.
pub(super) struct OneAtATime {
    #[cfg_attr(all(test, loom), allow(dead_code, reason = "the models have one of their own"))]
    taken: AtomicBool,
}

impl OneAtATime {
    pub(super) fn new() -> OneAtATime {
        OneAtATime { taken: AtomicBool::new(false) }
    }

    /// Does `work`, unless another thread is at it.
    pub(super) fn run<T>(&self, _place: usize, work: impl FnOnce() -> T) -> Option<T> {
        #[cfg(not(all(test, loom)))]
        let taken = &self.taken;
        #[cfg(all(test, loom))]
        let taken = &*crate::sys::model::one_at_a_time(_place)?;
        // Pairs with the release below.
        if taken.swap(true, Ordering::Acquire) {
            return None;
        }
        let done = work();
        // Not a store: loom puts one in no order with the exchanges of others.
        taken.swap(false, Ordering::Release);
        Some(done)
    }
}

/// What all threads' words say of a handle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    changes: u64,
    pub(super) reads: bool,
    pub(super) writes: bool,
}

impl Look {
    fn add(&mut self, word: u64) {
        // Each of them only grows, so equal sums have equal parts.
        self.changes = self.changes.wrapping_add(word >> 16);
        self.reads |= word & DEPTH != 0;
        self.writes |= word >> 8 & DEPTH != 0;
    }
}

/// Steps 1 and 3 above.
#[cfg(not(all(test, loom)))]
pub(super) fn look(place: usize) -> Look {
    let mut look = Look::default();
    for record in records() {
        // Pairs with the release of `end`.
        look.add(record.words[place % PLACES].load(Ordering::Acquire));
    }
    look
}

#[cfg(all(test, loom))]
pub(super) fn look(place: usize) -> Look {
    let mut look = Look::default();
    crate::sys::model::uses_of_lock(place % PLACES, |word| look.add(word));
    look
}

/// The first record; the others follow. None is ever taken out, so that a child that was forked at
/// any moment finds the list whole.
static FIRST: AtomicPtr<Record> = AtomicPtr::new(ptr::null_mut());

fn records() -> impl Iterator<Item = &'static Record> {
    // Pairs with the release of `take_record`. Records and their links are set before they are in
    // the list.
    let follow = |at: &AtomicPtr<Record>| {
        // SAFETY: what the list leads to was leaked, so it lives as long as the process and is only
        // shared.
        unsafe { at.load(Ordering::Acquire).as_ref() }
    };
    std::iter::successors(follow(&FIRST), move |record| follow(&record.next))
}

/// A record that no thread has, or a new one.
#[cold]
fn take_record() -> &'static Record {
    // Pairs with the release of `Retire`: what its last thread did comes before what this one does.
    let free =
        |record: &&Record| record.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
    if let Some(record) = records().find(free) {
        return record;
    }
    let record: &'static Record = Box::leak(Box::new(Record::new(true)));
    let mut first = FIRST.load(Ordering::Relaxed);
    loop {
        record.next.store(first, Ordering::Relaxed);
        let new = ptr::from_ref(record).cast_mut();
        match FIRST.compare_exchange_weak(first, new, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return record,
            Err(now) => first = now,
        }
    }
}

/// What a thread knows of its own locks. Without a destructor, so that reaching it costs nothing.
pub(crate) struct Thread {
    /// The marks of the segments that it has locked.
    pub(crate) marks: [Cell<u64>; MOST],
    pub(crate) count: Cell<usize>,
    /// Points to `NONE` or to a record of the list. Not a reference: Rust 1.85 takes none to a
    /// static with atomics in a constant.
    record: Cell<*const Record>,
}

static NONE: Record = Record::new(true);

thread_local! {
    #[allow(clippy::missing_const_for_thread_local, reason = "it is; the lint misses that on windows-gnu")]
    static THIS: Thread = const {
        Thread { marks: [const { Cell::new(0) }; MOST], count: Cell::new(NO_RECORD), record: Cell::new(&raw const NONE) }
    };
    static RETIRE: Retire = const { Retire };
}

/// Dropped when its thread ends, it gives the thread's record to another. A guard that was leaked
/// keeps it.
struct Retire;

impl Drop for Retire {
    fn drop(&mut self) {
        Thread::with(|this| {
            let record = this.record();
            if this.count.get() == 0 && record.is_idle() {
                this.count.set(NO_RECORD);
                this.record.set(&raw const NONE);
                record.taken.store(false, Ordering::Release);
            }
        });
    }
}

impl Thread {
    #[inline(always)]
    pub(crate) fn with<R>(ask: impl FnOnce(&Thread) -> R) -> R {
        THIS.with(ask)
    }

    /// Its record, if it has one.
    #[inline(always)]
    pub(crate) fn record(&self) -> &'static Record {
        // SAFETY: `NONE` is a static and the records of the list are leaked, so both live as long
        // as the process. They are only shared: what changes in them is atomic.
        unsafe { &*self.record.get() }
    }

    /// Has a record from here on.
    #[cold]
    #[inline(never)]
    pub(crate) fn ensure_record(&self) -> &'static Record {
        if self.count.get() == NO_RECORD {
            self.record.set(ptr::from_ref(take_record()));
            self.count.set(0);
            // Where this thread is ending already, the record stays with it.
            let _ = RETIRE.try_with(|_| ());
        }
        self.record()
    }
}

/// A place for a handle's lock in each record: one that no thread uses now, if there is any. A
/// leaked guard uses its place for ever; so does, in a forked child, what a thread of the parent
/// held at the fork.
pub(super) fn next_place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let mut places = (0..PLACES).map(|_| NEXT.fetch_add(1, Ordering::Relaxed) % PLACES);
    let is_free = |place: &usize| {
        // The models number their handles.
        let Look { reads, writes, .. } = if cfg!(loom) { Look::default() } else { look(*place) };
        !reads && !writes
    };
    places.find(is_free).unwrap_or(0)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::{Name, Region};

    #[test]
    fn no_new_handle_shares_the_place_of_a_leaked_guard() {
        let region = |nth: usize| {
            let name = Name::local(format!("place {nth} {}", std::process::id())).unwrap();
            Region::create_new(name, 100).unwrap()
        };
        let leaky = region(0);
        // In a thread of its own, whose record it keeps.
        std::thread::scope(|scope| {
            scope.spawn(|| std::mem::forget(leaky.write().unwrap()));
        });
        let others: Vec<_> = (1..=2 * super::PLACES).map(region).collect();
        assert!(others.iter().all(|other| other.place() != leaky.place()));
    }
}
