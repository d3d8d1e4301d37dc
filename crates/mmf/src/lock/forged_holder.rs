//! What shared memory says of this handle, though none of its threads holds it: a hostile peer
//! stored it there. See [`threads`](super::threads) for the proof.

use super::threads::{Check, HandleState, Thread};
use super::{Lock, LockMode, SlotHandle, WRITER};
use crate::sys::guard::Fault;

impl Lock {
    /// Which threads use this lock.
    #[inline(always)]
    pub(crate) fn handle(&self) -> &HandleState {
        &self.handle
    }

    /// Begins an attempt of this thread, which waits: it uses the lock.
    pub(crate) fn resume(&self, mode: LockMode) {
        Thread::resume(&self.handle, mode);
    }

    /// Ends an attempt of this thread: while it waits, it does not use the lock.
    pub(crate) fn pause(&self) {
        Thread::pause(&self.handle);
    }

    /// Takes out of shared memory what names this handle and is none of its threads'; whether there
    /// was anything. `orphaned` is called before a writer is taken out: a change may be half made.
    #[cold]
    #[inline(never)]
    pub(crate) fn disown(&self, me: &SlotHandle, orphaned: impl FnOnce() -> Result<(), Fault>) -> Result<bool, Fault> {
        // Fast path: neither names this handle.
        if self.word.load()? & WRITER != me.slot_tag && me.readers.load()? == 0 {
            return Ok(false);
        }
        self.handle.check(|check| self.disown_alone(me, check, orphaned)).unwrap_or(Ok(false))
    }

    fn disown_alone(
        &self,
        me: &SlotHandle,
        check: &Check,
        orphaned: impl FnOnce() -> Result<(), Fault>,
    ) -> Result<bool, Fault> {
        let (word, readers) = (self.word.load()?, me.readers.load()?);
        let Some(uses) = self.handle.use_snapshot(check) else { return Ok(false) };
        let is_writer = word & WRITER == me.slot_tag && !uses.writes;
        let is_reader = readers != 0 && !uses.reads;
        if is_writer {
            orphaned()?;
            self.take_out(me)?;
        }
        if is_reader {
            me.readers.add(readers.wrapping_neg())?;
        }
        if is_writer || is_reader {
            self.queue.wake_all()?;
        }
        Ok(is_writer || is_reader)
    }

    /// Takes `me` out of the word, if it is there.
    pub(super) fn take_out(&self, me: &SlotHandle) -> Result<(), Fault> {
        self.word.change(|word| if word & WRITER == me.slot_tag { word & !WRITER } else { word })
    }
}
