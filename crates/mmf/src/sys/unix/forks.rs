//! Forks of this process, which share file descriptions and so the locks on them.
//!
//! # Problem
//!
//! A forked child has copies of its parent's descriptions and of its locks. A child that is forked
//! while another thread holds a lock has a copy of the lock that no thread releases.
//!
//! # Algorithm
//!
//! The library has two kinds of process-wide state:
//!
//! - values that each thread may compute and one thread publishes
//!   ([`ProcessOnce`], plain atomics);
//! - state that a [`ForkLock`] guards. A child takes the lock over from a thread that it does not
//!   have.
//!
//! A process identifies itself by a number ([`this_process`]):
//!
//! 1. Linux maps a word that each forked child reads as 0.
//! 2. A process that reads 0 increments a counter, which children inherit, and stores the result in
//!    the word.
//! 3. Other systems use the process id.
//!
//! # Correctness
//!
//! Handlers of `pthread_atfork(3)` run for calls of `fork`, but not for `posix_spawn` and `vfork`.
//! The children of those have the descriptions only until they start their program. The first use
//! of either kind of state may run during a fork, before any handler is registered.
//!
//! # Cost
//!
//! Reading the number costs one atomic load on Linux, and one system call elsewhere.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::native;
use crate::once::ProcessOnce;

/// Returns a number that this process keeps, and that differs from the number of every process from
/// which it descends by forks of this program. Numbers of unrelated processes have no meaning.
///
/// Linux sets one word to 0 in each forked child, whatever call forked it. The process that finds 0
/// stores the next number. The last number is in memory that a child has a copy of, so the numbers
/// grow from parent to child. A process that finds a number makes no system call.
///
/// Other systems have no such word, so the number is the process id. A process in a pid namespace
/// can have the id of an ancestor in another namespace, but only Linux has these namespaces.
pub(super) fn this_process() -> u32 {
    static WORD: ProcessOnce<Option<&'static AtomicU32>> = ProcessOnce::new();
    static LAST: AtomicU32 = AtomicU32::new(0);
    let Some(word) = WORD.get_or_init(native::word_zeroed_by_forks) else {
        return rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
    };
    match word.load(Ordering::Relaxed) {
        0 => {
            // Two threads may both do this, and the first number stays. Each number is in LAST
            // before it is in the word: a child that is forked between takes a larger number.
            let next = LAST.fetch_add(1, Ordering::SeqCst) + 1;
            word.compare_exchange(0, next, Ordering::SeqCst, Ordering::SeqCst).map_or_else(|first| first, |_| next)
        }
        known => known,
    }
}

static MADE: AtomicU32 = AtomicU32::new(0);

/// Returns how many forks this process has made or descends from since the first call. While the
/// number stays, no process that runs this program shares a description that was opened meanwhile.
pub(super) fn made() -> u32 {
    static HANDLERS: Handlers = Handlers::new();
    HANDLERS.register(None, Some(count), Some(count));
    MADE.load(Ordering::SeqCst)
}

extern "C" fn count() {
    MADE.fetch_add(1, Ordering::SeqCst);
}

/// A function that the system calls at a fork.
pub(super) type Handler = extern "C" fn();

/// Fork handlers that are registered once, or a few times: a child that was forked during the
/// registration repeats it. So the handlers tolerate several calls for one fork.
pub(super) struct Handlers {
    registered: AtomicBool,
    lock: ForkLock,
}

impl Handlers {
    pub(super) const fn new() -> Handlers {
        Handlers { registered: AtomicBool::new(false), lock: ForkLock::new() }
    }

    /// Registers the handlers unless that is done. They stay registered until the process ends.
    #[inline]
    pub(super) fn register(&self, before: Option<Handler>, after: Option<Handler>, in_child: Option<Handler>) {
        if !self.registered.load(Ordering::Acquire) {
            self.register_now(before, after, in_child);
        }
    }

    #[cold]
    fn register_now(&self, before: Option<Handler>, after: Option<Handler>, in_child: Option<Handler>) {
        super::code::keep_loaded();
        let _guard = self.lock.lock();
        if self.registered.load(Ordering::Relaxed) {
            return;
        }
        let unsafe_type = |handler: Option<Handler>| handler.map(|handler| handler as unsafe extern "C" fn());
        // SAFETY: the handlers are functions of code that stays loaded (`keep_loaded`), and do only
        // what is permitted between `fork` and `exec`.
        let outcome = unsafe { libc::pthread_atfork(unsafe_type(before), unsafe_type(after), unsafe_type(in_child)) };
        // If there is no memory for the registration, the next call tries again.
        self.registered.store(outcome == 0, Ordering::Release);
    }
}

/// A lock that a fork cannot leave held without end.
///
/// The word holds the number of the holder's process ([`this_process`]), or 0. A child that was
/// forked while another thread held the lock finds a number that is not its own, and takes the lock
/// over. The guarded state may then be half changed, which the guard reports.
///
/// The lock is held for a few system calls at most. A waiting thread first yields and then sleeps
/// for short times.
pub(crate) struct ForkLock(AtomicU32);

/// Holds the lock until it is dropped.
pub(crate) struct ForkGuard<'a> {
    lock: &'a ForkLock,
    /// Whether the last holder was a thread of an ancestor process, of which this process is a
    /// copy.
    #[allow(dead_code, reason = "systems without tokens guard nothing that can be half changed")]
    pub(crate) taken_over: bool,
}

impl ForkLock {
    pub(crate) const fn new() -> ForkLock {
        ForkLock(AtomicU32::new(0))
    }

    pub(crate) fn lock(&self) -> ForkGuard<'_> {
        let this = this_process();
        let mut rounds = 0_u32;
        loop {
            let (from, taken_over) = match self.0.load(Ordering::Relaxed) {
                0 => (0, false),
                holder if holder != this => (holder, true),
                _ => {
                    rounds += 1;
                    match rounds {
                        0..100 => std::thread::yield_now(),
                        _ => std::thread::sleep(Duration::from_micros(50)),
                    }
                    continue;
                }
            };
            // Synchronises with the release in `unlock`. A lock that is taken over has no release,
            // but then no other thread runs that wrote.
            if self.0.compare_exchange(from, this, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return ForkGuard { lock: self, taken_over };
            }
        }
    }

    /// Releases the lock of a guard that was forgotten.
    pub(super) fn unlock(&self) {
        self.0.store(0, Ordering::Release);
    }
}

impl Drop for ForkGuard<'_> {
    fn drop(&mut self) {
        self.lock.unlock();
    }
}

#[cfg(all(test, linux_like))]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Forks, and returns whether the child's `run` returned `true` within 20 seconds. `run` does
    /// only what is permitted between `fork` and `exec`.
    fn child_succeeds(run: impl FnOnce() -> bool) -> bool {
        // SAFETY: by this function's contract, `run` does only what is permitted in the child, and
        // then the child ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let code = i32::from(!run());
            // SAFETY: ends the process, without destructors.
            unsafe { libc::_exit(code) };
        }
        let (since, mut status) = (Instant::now(), -1);
        loop {
            // SAFETY: the child is this process's, and there is room for its status.
            let ended = unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) };
            if ended != 0 {
                return ended == child && status == 0;
            }
            if since.elapsed() > Duration::from_secs(20) {
                // SAFETY: this process has not waited for the child yet.
                unsafe { libc::kill(child, libc::SIGKILL) };
                // SAFETY: the child is this process's, and there is room for its status.
                unsafe { libc::waitpid(child, &raw mut status, 0) };
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_process_keeps_its_number_and_a_child_has_another() {
        let lock = ForkLock::new();
        std::mem::forget(lock.lock());
        let this = this_process();
        assert!(child_succeeds(|| {
            let child = this_process();
            child != this && child == this_process() && child_succeeds(|| ![this, child].contains(&this_process()))
        }));
        assert!(child_succeeds(|| lock.lock().taken_over && !lock.lock().taken_over));
        assert_eq!(this_process(), this);
    }

    /// Each process is process 1 of its own namespace, like the first processes of nested
    /// containers.
    #[test]
    #[ignore = "needs root: makes namespaces of process ids"]
    fn a_lock_is_taken_over_from_an_ancestor_that_has_the_same_process_id() {
        fn in_namespace(run: impl FnOnce() -> bool) -> bool {
            // SAFETY: takes a number only. Children of this process are in the new namespace.
            let made = unsafe { libc::unshare(libc::CLONE_NEWPID) } == 0;
            made && child_succeeds(|| rustix::process::getpid().is_init() && run())
        }
        assert!(child_succeeds(|| in_namespace(|| {
            static LOCK: ForkLock = ForkLock::new();
            std::mem::forget(LOCK.lock());
            in_namespace(|| LOCK.lock().taken_over)
        })));
    }
}
