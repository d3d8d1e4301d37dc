//! Forks of this process, which share file descriptions and so the locks on them.
//!
//! Handlers of `pthread_atfork(3)` see the calls of `fork`, not those of `posix_spawn` and `vfork`, whose children have
//! the descriptions only until they start their program.
//!
//! A child that is forked while another thread holds a lock of the process has a copy of the lock
//! that nothing ever releases. So the library has two kinds of process-wide state:
//!
//! - values that each thread may compute and one thread publishes
//!   ([`Shared`](crate::shared::Shared), plain atomics);
//! - what a [`ForkLock`] guards, which a child takes over from a thread that it does not have.
//!
//! The first use of either may run during a fork, before any handler is registered.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

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
/// The word holds the process id of the holder, or 0. A child that was forked while another thread
/// held the lock finds an id that is not its own: it takes the lock over. What the lock guards may
/// then be half changed, which the guard tells.
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
        let this = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
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
