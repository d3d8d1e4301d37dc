//! [`Cell`] for loom's models: a word of `sys::model` in place of one of the mapping.
//!
//! The orderings are the weakest that every processor's routines give. A load is an acquire. An operation that reads and
//! writes is an acquire and a release, and no later load of this thread is done before it where it wrote: what
//! sequential consistency promises to one who changes a word and then looks at another. The total order of loads among
//! themselves is not modelled, so what the models show does not depend on it.

use std::marker::PhantomData;

use loom::sync::atomic::Ordering;

use super::Mapping;
use crate::error::Result;
use crate::sys::fence;
use crate::sys::guard::{Fault, Word};
use crate::sys::model::{self, Bits, Shared};

/// A word of shared memory.
pub(crate) struct Cell<W> {
    offset: usize,
    width: PhantomData<fn() -> W>,
}

impl Mapping {
    /// The word at `offset`.
    ///
    /// # Safety
    ///
    /// None is needed: nothing of the mapping is touched.
    pub(crate) unsafe fn cell<W: Word>(&self, offset: usize) -> Result<Cell<W>> {
        self.locate(offset, size_of::<W>(), "open")?;
        Ok(Cell { offset, width: PhantomData })
    }
}

impl<W: Bits> Cell<W> {
    pub(crate) fn load(&self) -> Result<W, Fault> {
        model::look()?;
        Ok(model::with(self.offset, |word: Option<&W::Atomic>| {
            word.map_or(W::ZERO, |word| word.load(Ordering::Acquire))
        }))
    }

    pub(crate) fn store(&self, value: W) -> Result<(), Fault> {
        model::step()?;
        self.changed(|word| word.store(value, Ordering::Release));
        Ok(())
    }

    pub(crate) fn swap(&self, value: W) -> Result<W, Fault> {
        model::step()?;
        let old = self.changed(|word| word.swap(value, Ordering::AcqRel));
        fence(Ordering::SeqCst);
        Ok(old)
    }

    pub(crate) fn add(&self, value: W) -> Result<W, Fault> {
        model::step()?;
        let old = self.changed(|word| word.fetch_add(value, Ordering::AcqRel));
        fence(Ordering::SeqCst);
        Ok(old)
    }

    pub(crate) fn compare_exchange(&self, current: W, new: W) -> Result<W, Fault> {
        model::step()?;
        let outcome = self.changed(|word| word.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire));
        if outcome.is_ok() {
            fence(Ordering::SeqCst);
        }
        let (Ok(old) | Err(old)) = outcome;
        Ok(old)
    }

    /// What tells the word from others, for [`Bells`](crate::sys::Bells).
    pub(crate) fn address(&self) -> *mut W {
        std::ptr::without_provenance_mut(self.offset)
    }

    fn changed<R>(&self, change: impl FnOnce(&W::Atomic) -> R) -> R {
        model::with(self.offset, |word: Option<&W::Atomic>| {
            change(word.unwrap_or_else(|| panic!("a model has no word at {}", self.offset)))
        })
    }
}
