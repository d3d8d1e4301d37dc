//! The records of all threads, and what a thread knows of its own.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use super::{HandleState, MARK, MODE, Refusal, bits, store};
use crate::lock::LockMode;

/// The locks that one thread can have at the same time.
const MAX_LOCKS_PER_THREAD: usize = 64;

/// One thread's uses of locks.
#[repr(C, align(64))]
struct ThreadRecord {
    /// The first is that of a lock that is taken while the thread has no other.
    words: [AtomicU64; MAX_LOCKS_PER_THREAD],
    /// Whether a thread has it.
    taken: AtomicBool,
    next: AtomicPtr<ThreadRecord>,
}

impl ThreadRecord {
    const fn new() -> ThreadRecord {
        ThreadRecord {
            words: [const { AtomicU64::new(0) }; MAX_LOCKS_PER_THREAD],
            taken: AtomicBool::new(true),
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

/// The first record; the others follow. None is ever taken out, so that a child that was forked at
/// any moment finds the list whole.
static RECORDS: AtomicPtr<ThreadRecord> = AtomicPtr::new(ptr::null_mut());

fn records() -> impl Iterator<Item = &'static ThreadRecord> {
    // Pairs with the release of `take_record`. Records and their links are set before they are in
    // the list.
    let follow = |at: &AtomicPtr<ThreadRecord>| {
        // SAFETY: what the list leads to was leaked, so it lives as long as the process and is only
        // shared.
        unsafe { at.load(Ordering::Acquire).as_ref() }
    };
    std::iter::successors(follow(&RECORDS), move |record| follow(&record.next))
}

/// The words of all records.
pub(super) fn words() -> impl Iterator<Item = &'static AtomicU64> {
    records().flat_map(|record| &record.words)
}

/// A record that no thread has, or a new one.
fn take_record() -> &'static ThreadRecord {
    // Pairs with the release of `RecordReturn`: what its last thread did comes before what this one
    // does.
    let free = |record: &&ThreadRecord| {
        record.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    };
    if let Some(record) = records().find(free) {
        return record;
    }
    let record: &'static ThreadRecord = Box::leak(Box::new(ThreadRecord::new()));
    let mut first = RECORDS.load(Ordering::Relaxed);
    loop {
        record.next.store(first, Ordering::Relaxed);
        let new = ptr::from_ref(record).cast_mut();
        match RECORDS.compare_exchange_weak(first, new, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return record,
            Err(now) => first = now,
        }
    }
}

/// What a thread knows of its own locks. Without a destructor, so that reaching it costs nothing.
pub(crate) struct Thread {
    /// One of the states below. Here, so that a lock and its release load nothing from the record:
    /// that load would follow the one of the record's address.
    state: Cell<usize>,
    /// Points to `EMPTY_RECORD` or to a record of the list. Not a reference: Rust 1.85 takes none
    /// to a static with atomics in a constant.
    record: Cell<*const ThreadRecord>,
}

/// The thread has no lock.
const FREE: usize = 0;
/// It has one lock, which is in the first word of its record.
const ONE: usize = 1;
/// It has other locks than in the first word, or no record.
const MANY: usize = 2;

static EMPTY_RECORD: ThreadRecord = ThreadRecord::new();

thread_local! {
    #[allow(clippy::missing_const_for_thread_local, reason = "it is; the lint misses that on windows-gnu")]
    static THIS: Thread = const { Thread { state: Cell::new(MANY), record: Cell::new(&raw const EMPTY_RECORD) } };
    static RECORD_RETURN: RecordReturn = const { RecordReturn };
}

/// Dropped when its thread ends, it gives the thread's record to another. A guard that was leaked
/// keeps it.
struct RecordReturn;

impl Drop for RecordReturn {
    fn drop(&mut self) {
        THIS.with(|this| {
            if this.state.get() == FREE {
                let record = this.record();
                this.state.set(MANY);
                this.record.set(&raw const EMPTY_RECORD);
                record.taken.store(false, Ordering::Release);
            }
        });
    }
}

impl Thread {
    /// Begins a use of a handle's lock, unless the thread has any lock.
    #[inline(always)]
    pub(crate) fn begin_first(handle: &HandleState, mode: LockMode) -> bool {
        THIS.with(|this| {
            let is_free = this.state.get() == FREE;
            if is_free {
                this.state.set(ONE);
                store(&this.record().words[0], handle.word | bits(mode));
            }
            is_free
        })
    }

    /// Begins a use of a handle's lock, unless the thread has that segment's lock.
    #[cold]
    #[inline(never)]
    pub(crate) fn begin(handle: &HandleState, mode: LockMode) -> Result<(), Refusal> {
        THIS.with(|this| {
            this.ensure_record();
            if this.find(|word| word & MARK == handle.word & MARK).is_some() {
                return Err(Refusal::Deadlock);
            }
            let free = this.find(|word| word == 0).ok_or(Refusal::Full)?;
            store(free, handle.word | bits(mode));
            this.update();
            Ok(())
        })
    }

    /// Ends a use: the lock is released, or was not got.
    #[inline(always)]
    pub(crate) fn end(handle: &HandleState) {
        THIS.with(|this| {
            if this.state.get() == ONE {
                store(&this.record().words[0], 0);
                this.state.set(FREE);
            } else {
                this.end_one_of_many(handle);
            }
        });
    }

    #[cold]
    #[inline(never)]
    fn end_one_of_many(&self, handle: &HandleState) {
        self.change(handle, 0);
        self.update();
    }

    /// Begins an attempt of a thread that waits.
    pub(in crate::lock) fn resume(handle: &HandleState, mode: LockMode) {
        THIS.with(|this| this.change(handle, handle.word | bits(mode)));
    }

    /// Ends an attempt: from here on the thread waits.
    pub(in crate::lock) fn pause(handle: &HandleState) {
        THIS.with(|this| this.change(handle, handle.word));
    }

    #[inline(always)]
    fn record(&self) -> &'static ThreadRecord {
        // SAFETY: `EMPTY_RECORD` is a static and the records of the list are leaked, so both live
        // as long as the process. They are only shared: what changes in them is atomic.
        unsafe { &*self.record.get() }
    }

    fn ensure_record(&self) {
        if ptr::eq(self.record.get(), &raw const EMPTY_RECORD) {
            self.record.set(ptr::from_ref(take_record()));
            // Where this thread is ending already, the record stays with it.
            let _ = RECORD_RETURN.try_with(|_| ());
        }
    }

    /// The first of its record's words for which that holds.
    fn find(&self, is_it: impl Fn(u64) -> bool) -> Option<&'static AtomicU64> {
        self.record().words.iter().find(|word| is_it(word.load(Ordering::Relaxed)))
    }

    /// Stores how the thread uses a handle's lock, if it has or awaits it.
    fn change(&self, handle: &HandleState, value: u64) {
        if let Some(word) = self.find(|word| word & !MODE == handle.word) {
            store(word, value);
        }
    }

    /// Makes the state what the record's words say.
    fn update(&self) {
        let mut words = self.record().words.iter().map(|word| word.load(Ordering::Relaxed) != 0);
        let has_first = words.next() == Some(true);
        self.state.set(if words.any(|is_lock| is_lock) {
            MANY
        } else if has_first {
            ONE
        } else {
            FREE
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed check is a failed test")]

    use super::*;

    /// Runs `test` in a thread that has no lock.
    fn in_a_new_thread(test: impl FnOnce() + Send) {
        std::thread::scope(|scope| scope.spawn(test).join()).unwrap();
    }

    fn state() -> usize {
        THIS.with(|this| this.state.get())
    }

    /// Handles of different segments.
    fn handles<const N: usize>() -> [HandleState; N] {
        std::array::from_fn(|n| HandleState::new((n as u64 + 1) << 32))
    }

    #[test]
    fn a_thread_has_each_lock_once_in_whatever_order_it_releases_them() {
        in_a_new_thread(|| {
            let handles = handles::<4>();
            let lock = |n: usize| Thread::begin(&handles[n], LockMode::Read).is_ok();
            let release = |n: usize| Thread::end(&handles[n]);
            assert!(lock(0) && lock(1) && lock(2));
            assert!(!lock(0) && !lock(1) && !lock(2));
            release(0);
            // The thread has other locks.
            assert!(!Thread::begin_first(&handles[0], LockMode::Read));
            assert!(!lock(1) && !lock(2) && lock(0) && !lock(0));
            release(1);
            release(0);
            assert!(!lock(2) && lock(3));
            release(2);
            assert!(!lock(3) && lock(2));
            release(3);
            assert_eq!(state(), MANY);
            release(2);
            assert_eq!(state(), FREE);
            assert!(Thread::begin_first(&handles[0], LockMode::Read) && !lock(0));
            release(0);
            assert_eq!(state(), FREE);
        });
    }

    #[test]
    fn a_thread_has_64_locks_at_a_time() {
        in_a_new_thread(|| {
            let handles = handles::<65>();
            let lock = |n: usize| Thread::begin(&handles[n], LockMode::Write);
            assert!((0..64).all(|n| lock(n).is_ok()));
            assert!(matches!(lock(64), Err(Refusal::Full)));
            assert!(matches!(lock(63), Err(Refusal::Deadlock)));
            handles[..64].iter().for_each(Thread::end);
            assert_eq!(state(), FREE);
        });
    }

    fn use_snapshot(handle: &HandleState) -> Option<(bool, bool)> {
        handle.check(|check| handle.use_snapshot(check)).flatten().map(|uses| (uses.reads, uses.writes))
    }

    #[test]
    fn a_check_finds_how_a_thread_uses_the_handle() {
        in_a_new_thread(|| {
            let [handle, other] = handles();
            let same_segment = HandleState::new(1 << 32);
            assert_eq!(use_snapshot(&handle), Some((false, false)));
            assert!(Thread::begin(&other, LockMode::Write).is_ok());
            assert_eq!(use_snapshot(&handle), Some((false, false)));
            assert!(Thread::begin(&handle, LockMode::Read).is_ok());
            assert_eq!(use_snapshot(&handle), Some((true, false)));
            assert_eq!(use_snapshot(&same_segment), Some((false, false)));
            assert!(matches!(Thread::begin(&same_segment, LockMode::Read), Err(Refusal::Deadlock)));
            Thread::pause(&handle);
            assert_eq!(use_snapshot(&handle), Some((false, false)));
            Thread::resume(&handle, LockMode::Write);
            assert_eq!(use_snapshot(&handle), Some((false, true)));
            [&handle, &other].into_iter().for_each(Thread::end);
            assert_eq!(use_snapshot(&handle), Some((false, false)));
        });
    }

    #[test]
    fn a_check_is_disturbed_by_a_lock_that_is_given_back() {
        let [handle, other] = handles();
        let look_after = |gave_back: &HandleState| {
            let look = handle.check(|check| {
                gave_back.gave_back();
                handle.use_snapshot(check).is_some()
            });
            look.unwrap()
        };
        assert!(look_after(&other));
        assert!(!look_after(&handle));
        handle.gave_back();
        assert!(look_after(&other));
    }

    #[test]
    fn a_leaked_lock_keeps_its_record() {
        let [handle, other] = handles();
        in_a_new_thread(|| assert!(Thread::begin(&handle, LockMode::Write).is_ok()));
        in_a_new_thread(|| {
            assert!(Thread::begin(&other, LockMode::Read).is_ok());
            Thread::end(&other);
        });
        assert_eq!(use_snapshot(&handle), Some((false, true)));
    }
}
