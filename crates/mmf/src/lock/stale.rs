//! What shared memory says of this handle, though none of its threads holds it: a hostile peer
//! stored it there. See [`threads`] for the proof.

use super::threads::{self, Thread};
use super::{Lock, Mode, Seat, WRITER};
use crate::sys::guard::Fault;

impl Seat {
    /// This thread begins to use the lock.
    pub(crate) fn begin(&self, mode: Mode) {
        Thread::with(|this| this.ensure_record().begin(self.place, mode));
    }

    /// It no longer does.
    pub(crate) fn end(&self, mode: Mode) {
        Thread::with(|this| this.ensure_record().end(self.place, mode));
    }
}

impl Lock {
    /// The place of this handle's lock in the records of threads.
    #[inline(always)]
    pub(crate) fn place(&self) -> usize {
        self.place
    }

    /// Takes out of shared memory what names this handle and is none of its threads'; whether there
    /// was anything. `orphaned` is called before a writer is taken out: a change may be half made.
    #[cold]
    #[inline(never)]
    pub(crate) fn disown(&self, me: &Seat, orphaned: impl FnOnce() -> Result<(), Fault>) -> Result<bool, Fault> {
        // Mostly there is nothing.
        if self.word.load()? & WRITER != me.tag && me.readers.load()? == 0 {
            return Ok(false);
        }
        self.disowning.run(self.place, || self.disown_alone(me, orphaned)).unwrap_or(Ok(false))
    }

    fn disown_alone(&self, me: &Seat, orphaned: impl FnOnce() -> Result<(), Fault>) -> Result<bool, Fault> {
        let before = threads::look(self.place);
        let (word, readers) = (self.word.load()?, me.readers.load()?);
        if threads::look(self.place) != before {
            return Ok(false);
        }
        let is_writer = word & WRITER == me.tag && !before.writes;
        let is_reader = readers != 0 && !before.reads;
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
    pub(super) fn take_out(&self, me: &Seat) -> Result<(), Fault> {
        self.word.change(|word| if word & WRITER == me.tag { word & !WRITER } else { word })
    }
}
