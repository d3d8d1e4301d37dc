//! Methods of [`Mapping`] that return words at places that are checked once, when a structure is
//! opened.

use super::Mapping;
use crate::error::{Error, ErrorKind, Result};
use crate::mem::{SharedWord, SharedWords, Word};
use crate::types::{Access, FaultPolicy};

impl Mapping {
    /// Returns the word at `offset`, for as long as this mapping lives.
    ///
    /// # Safety
    ///
    /// - The word and its clones are dropped before the mapping.
    /// - Nothing is written through them if the mapping is read-only.
    pub(crate) unsafe fn shared_word<W: Word>(&self, offset: usize) -> Result<SharedWord<W>> {
        // SAFETY: the caller's promise, passed on.
        Ok(unsafe { self.shared_words(offset, size_of::<W>(), 1) }?.nth(0))
    }

    /// Returns `count` words, at least one. The first is at `offset`; each next one begins `stride`
    /// bytes after the one before.
    ///
    /// # Safety
    ///
    /// The conditions of [`shared_word`](Mapping::shared_word) hold for each of them.
    pub(crate) unsafe fn shared_words<W: Word>(
        &self,
        offset: usize,
        stride: usize,
        count: usize,
    ) -> Result<SharedWords<W>> {
        let count = count.max(1);
        // A length that saturates is longer than any mapping.
        let len = stride.saturating_mul(count - 1).saturating_add(size_of::<W>());
        let at = self.locate(offset, len, "open")?;
        if at.addr() % size_of::<W>() != 0 || stride % size_of::<W>() != 0 {
            let kind = ErrorKind::Misaligned { offset, align: size_of::<W>() };
            return Err(Error::new(kind, "open"));
        }
        if self.policy == FaultPolicy::SystemCalls || self.access == Access::CopyOnWrite {
            let what = "structures under the fault policy of system calls, or in a copy-on-write mapping";
            return Err(Error::unsupported("open", what));
        }
        // SAFETY: `locate` has checked that all words lie in the view, and the alignment was
        // checked here. The caller promises that the view outlives them, and stores only with the
        // right to write. The trap was armed before the first view was made.
        Ok(unsafe { SharedWords::new(at, stride, count) })
    }
}
