//! Liveness tokens of participants: an exclusive open-file-description lock on a byte per slot.
//!
//! It is immune to reused process ids and to pid namespaces, and the system gives it up when the process is gone. A
//! forked child shares the description and would keep its parent's token, so a fork handler closes it there.

use std::cell::UnsafeCell;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::forks::{ForkGuard, ForkLock, Handlers};
use super::object::Object;
use super::ofd;
use super::system;
use crate::error::Result;

/// One handle's tokens: its own, and those of the dead that it takes over for a moment. All are
/// locks of one description, so none conflicts with another.
pub(crate) struct LivenessTokens {
    own: Description,
    /// The slot that this handle has; `NO_SLOT`: none. Another lock on it would be granted, and its
    /// release would give the token up.
    taken: AtomicUsize,
    /// Held by the thread that looks at the slots of others, or has one seized.
    reaping: Mutex<()>,
}

const NO_SLOT: usize = usize::MAX;

impl LivenessTokens {
    pub(crate) fn new(object: &Object, _id: &[u8; 16]) -> Result<LivenessTokens> {
        Ok(LivenessTokens { own: Description::new(object)?, taken: AtomicUsize::new(NO_SLOT), reaping: Mutex::new(()) })
    }

    /// Takes the token of a slot for this handle's life; `false` where somebody has it.
    pub(crate) fn take(&self, slot: usize) -> Result<bool> {
        let taken = granted(ofd::lock_slot(self.own.as_fd(), slot))?;
        if taken {
            self.taken.store(slot, Ordering::Relaxed);
        }
        Ok(taken)
    }

    /// Gives the token back.
    pub(crate) fn give(&self, slot: usize) {
        self.taken.store(NO_SLOT, Ordering::Relaxed);
        let _ = ofd::unlock_slot(self.own.as_fd(), slot);
    }

    /// Takes the second token of a slot until it is given back or this value is dropped; `false`
    /// where another has it.
    pub(crate) fn take_checked(&self, _object: &Object, slot: usize) -> Result<bool> {
        granted(ofd::lock_checked(self.own.as_fd(), slot))
    }

    /// Gives the second token back.
    pub(crate) fn give_checked(&self, slot: usize) {
        let _ = ofd::unlock_checked(self.own.as_fd(), slot);
    }

    /// Whether the token of this slot is held, by another handle or by this one.
    pub(crate) fn is_alive(&self, slot: usize) -> Result<bool> {
        let _reaping = self.reaping();
        Ok(self.has(slot) || ofd::slot_is_locked(self.own.as_fd(), slot).map_err(system("probe"))?)
    }

    /// Takes over the token of a dead participant until the result is dropped; `None` where it is not dead, or another does
    /// so.
    pub(crate) fn seize(&self, slot: usize) -> Result<Option<SeizedToken<'_>>> {
        let reaping = self.reaping();
        if self.has(slot) {
            return Ok(None);
        }
        // Whoever may read the object can hold the byte shared for as long as it likes, and then nobody gets it
        // exclusively. To share it keeps everybody out of the slot as well, but for others who clear it.
        let fd = self.own.as_fd();
        let seized = granted(ofd::lock_slot(fd, slot))? || granted(ofd::share_slot(fd, slot))?;
        Ok(seized.then_some(SeizedToken { tokens: self, slot, _reaping: reaping }))
    }

    fn has(&self, slot: usize) -> bool {
        self.taken.load(Ordering::Relaxed) == slot
    }

    fn reaping(&self) -> MutexGuard<'_, ()> {
        self.reaping.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether somebody has the token of a slot. Asked through the object's own description, which holds none: that takes no right
/// to write, and works in a forked child.
pub(crate) fn is_token_held(object: &Object, _id: &[u8; 16], slot: usize) -> Result<bool> {
    ofd::slot_is_locked(object.handle(), slot).map_err(system("probe"))
}

/// Whether a process has the second token of any slot. Asked as [`is_token_held`].
pub(crate) fn is_any_checked_token_held(object: &Object, _id: &[u8; 16]) -> Result<bool> {
    ofd::any_checked_is_locked(object.handle()).map_err(system("probe"))
}

/// A dead participant's token, held while its slot is cleared.
pub(crate) struct SeizedToken<'a> {
    tokens: &'a LivenessTokens,
    slot: usize,
    /// Given up last, after the drop has released the token.
    _reaping: MutexGuard<'a, ()>,
}

impl Drop for SeizedToken<'_> {
    fn drop(&mut self) {
        let _ = ofd::unlock_slot(self.tokens.own.as_fd(), self.slot);
    }
}

fn granted(result: Result<(), Errno>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(system("hold")(errno)),
    }
}

/// A file description of one's own that no forked child keeps: the number, closed on drop unless a fork handler did.
struct Description(RawFd);

impl Description {
    fn new(object: &Object) -> Result<Description> {
        arm_fork_handlers();
        // Opened and listed under one lock, so that no fork comes in between.
        let mut open = open_descriptions();
        let fd = object.second_description()?.into_raw_fd();
        open.list().push(fd);
        Ok(Description(fd))
    }
}

impl AsFd for Description {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: it was opened in `new` and is closed in `drop` or in a forked child, where every use fails before it
        // comes here, since the child's fork count differs from that of the handle.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        let mut open = open_descriptions();
        // Not there: the fork handler closed it in this process, and the number may be somebody else's by now.
        if let Some(at) = open.list().iter().position(|fd| *fd == self.0) {
            open.list().swap_remove(at);
            // SAFETY: it is open, and only this value would have closed it.
            drop(unsafe { OwnedFd::from_raw_fd(self.0) });
        }
    }
}

/// The descriptions that a forked child closes.
struct Open {
    lock: ForkLock,
    list: UnsafeCell<Vec<RawFd>>,
}

// SAFETY: the list is reached through `Locked` and by fork handlers alone, each of which has the
// lock.
unsafe impl Sync for Open {}

static OPEN: Open = Open { lock: ForkLock::new(), list: UnsafeCell::new(Vec::new()) };

/// The list, locked.
struct Locked {
    _guard: ForkGuard<'static>,
}

impl Locked {
    fn list(&mut self) -> &mut Vec<RawFd> {
        // SAFETY: this value has the lock, and lends the list for as long as it is borrowed itself.
        unsafe { &mut *OPEN.list.get() }
    }
}

fn open_descriptions() -> Locked {
    let guard = OPEN.lock.lock();
    if guard.taken_over {
        // A fork that had begun before the handlers were registered: this child has the list as
        // another thread was changing it. Its descriptions stay open here, and its parent's handles
        // are its parent's.
        // SAFETY: this thread has the lock. The old list is not looked at.
        unsafe { ptr::write(OPEN.list.get(), Vec::new()) };
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    Locked { _guard: guard }
}

static FORKS: AtomicU32 = AtomicU32::new(0);

/// How many forks this process descends from, as far as its handlers were told. A handle made before the last one
/// belongs to another process.
#[inline]
pub(crate) fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// As [`forks`], and counts from now on if nobody did.
pub(crate) fn watch_forks() -> u32 {
    arm_fork_handlers();
    forks()
}

fn arm_fork_handlers() {
    static HANDLERS: Handlers = Handlers::new();
    // In the child they do only what may be done between `fork` and `exec`: atomics and `close`.
    HANDLERS.register(Some(before), Some(after), Some(in_child));
}

/// The thread that forks and so has the list locked; 0: none. Each handler may be registered
/// several times: the first call of each does what is to be done, and the others find it done.
static FORKING: AtomicUsize = AtomicUsize::new(0);

/// Tells this thread from all others of the process, and is the same in a forked child.
fn this_thread() -> usize {
    thread_local! {
        static HERE: u8 = const { 0 };
    }
    // Without a destructor, so that it works to the thread's very end.
    HERE.with(|here| ptr::from_ref(here).addr())
}

extern "C" fn before() {
    if FORKING.load(Ordering::Relaxed) != this_thread() {
        // Given up by `end`.
        std::mem::forget(open_descriptions());
        FORKING.store(this_thread(), Ordering::Relaxed);
    }
}

extern "C" fn after() {
    if FORKING.load(Ordering::Relaxed) == this_thread() {
        end();
    }
}

/// Closes this process's copies of its parent's tokens.
extern "C" fn in_child() {
    if FORKING.load(Ordering::Relaxed) != this_thread() {
        return;
    }
    FORKS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: this thread is the copy of the one that took the lock in `before`, and no other runs.
    let list = unsafe { &mut *OPEN.list.get() };
    for fd in list.drain(..) {
        // SAFETY: listed as open, and its owner's drop will not find it.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    end();
}

/// Gives up what `before` took.
fn end() {
    FORKING.store(0, Ordering::Relaxed);
    OPEN.lock.unlock();
}
