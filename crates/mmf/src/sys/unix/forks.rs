//! Forks of this process, which share file descriptions and so the locks on them.
//!
//! Handlers of `pthread_atfork(3)` see the calls of `fork`, not those of `posix_spawn` and `vfork`, whose children have
//! the descriptions only until they start their program.
//!
//! A child that is forked while another thread holds a lock of the process has a copy of the lock
//! that nothing ever releases. So the library has two kinds of process-wide state:
//!
//! - values that each thread may compute and one thread publishes
//!   ([`Shared`](crate::once::ProcessOnce), plain atomics);
//! - what a [`ForkLock`] guards, which a child takes over from a thread that it does not have.
//!
//! The first use of either may run during a fork, before any handler is registered.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::native;
use crate::once::ProcessOnce;

/// Returns a number that this process keeps, and that no process has from which it descends by
/// forks of this program. Numbers of other processes mean nothing.
///
/// Linux replaces one word by 0 in each forked child, however it was forked. The process that finds
/// 0 there stores the next number. The last number is in memory that a child has a copy of, so the
/// numbers only grow from parent to child. A process that finds the word costs no system call.
///
/// Other systems have no such word: there it is the process id. A process in a namespace of process
/// ids can have the id of an ancestor in another namespace; Linux alone has these namespaces.
pub(super) fn this_process() -> u32 {
    static WORD: ProcessOnce<Option<&'static AtomicU32>> = ProcessOnce::new();
    static LAST: AtomicU32 = AtomicU32::new(0);
    let Some(word) = WORD.get_or_init(native::word_zeroed_by_forks) else {
        return rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
    };
    match word.load(Ordering::Relaxed) {
        0 => {
            // Two threads may both do it, and the first number stands. Each number is in LAST
            // before it is in the word: a child that is forked in between takes a larger one.
            let next = LAST.fetch_add(1, Ordering::SeqCst) + 1;
            word.compare_exchange(0, next, Ordering::SeqCst, Ordering::SeqCst).map_or_else(|first| first, |_| next)
        }
        known => known,
    }
}

static MADE: AtomicU32 = AtomicU32::new(0);

/// How many forks this process has made or descends from since the first call. While the number stays, no
/// process that runs this program shares a description that was opened meanwhile.
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
/// registration does it again. So the handlers bear being called several times for one fork.
pub(super) struct Handlers {
    registered: AtomicBool,
    lock: ForkLock,
}

impl Handlers {
    pub(super) const fn new() -> Handlers {
        Handlers { registered: AtomicBool::new(false), lock: ForkLock::new() }
    }

    /// Registers the handlers unless that is done. The handlers live as long as the process.
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
        // SAFETY: the handlers are functions of code that stays loaded, see above, and do only what
        // may be done between `fork` and `exec`.
        let outcome = unsafe { libc::pthread_atfork(unsafe_type(before), unsafe_type(after), unsafe_type(in_child)) };
        // Without memory for it the next call tries again.
        self.registered.store(outcome == 0, Ordering::Release);
    }
}

/// A lock that a fork cannot leave held for ever.
///
/// The word holds the number of the holder's process ([`this_process`]), or 0. A child that was
/// forked while another thread held the lock finds a number that is not its own: it takes the lock
/// over. What the lock guards may then be half changed, which the guard tells.
///
/// It is held for a few system calls at most, so a waiting thread yields and then sleeps for short
/// times.
pub(crate) struct ForkLock(AtomicU32);

/// The lock is held until this is dropped.
pub(crate) struct ForkGuard<'a> {
    lock: &'a ForkLock,
    /// Whether the last holder was a thread of another process, which this process is a copy of.
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
            // The release is in `unlock`; none where the lock is taken over, but then no other
            // thread runs that wrote.
            if self.0.compare_exchange(from, this, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return ForkGuard { lock: self, taken_over };
            }
        }
    }

    /// Gives up the lock for a guard that was forgotten.
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

    /// Forks, and returns whether the child's `run` returned `true` within 20 seconds. The child
    /// may do only what is allowed between `fork` and `exec`.
    fn child_succeeds(run: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child calls `run`, which keeps to that by this function's contract, and ends.
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
                // SAFETY: a child that was not waited for yet.
                unsafe { libc::kill(child, libc::SIGKILL) };
                // SAFETY: as above.
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

    /// Each is process 1 of its own namespace, as the first processes of nested containers are.
    #[test]
    #[ignore = "needs root: makes namespaces of process ids"]
    fn a_lock_is_taken_over_from_an_ancestor_that_has_the_same_process_id() {
        fn in_namespace(run: impl FnOnce() -> bool) -> bool {
            // SAFETY: takes a number only; children of this process are in the new namespace.
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
