//! [`Reclaimer`]: frees the records that a change replaces.
//!
//! The problem: a record that is replaced has memory to free. But after a power cut the flushed
//! value of its key must still be found, so its bytes must stay until the next flush.
//!
//! The algorithm, within the plan of a change, after the store of COMMIT:
//!
//! 1. In memory, and in a file that was never flushed: store 0 as the stamp, free the block, and
//!    free the spans of the value.
//! 2. In a file that was flushed: put the record at the front of a list for the next flush.
//!    PENDING has replaced records, REMOVED has records of removals. The record's word at +8 leads
//!    to the next; PENDING_BYTES counts the bytes. [`flush`](crate::dict::write::flush) frees them.
//! 3. Before the spans of a value are freed, a record that may differ from what was written is
//!    verified. The spans of a damaged one stay taken until a repair, since its numbers may name
//!    the spans of other values.
//!
//! Why it is correct: the stores come after that of COMMIT, so no reader needs the old record any
//! more. A reader that is still in it finds the slot changed, or the stamp 0.
//!
//! Cost: three planned stores in step 1 on the fast path, three in step 2.

use std::ops::{Deref, DerefMut};

use crate::dict::format::layout::at;
use crate::dict::format::record::STAMP;
use crate::dict::format::span::NEXT_FREE;
use crate::dict::write::lookup::Lookup;
use crate::dict::write::session::WriteSession;
use crate::error::Result;

/// Frees the records that a change replaces.
pub(in crate::dict) struct Reclaimer<'w, 'a>(&'w mut WriteSession<'a>);

impl<'a> Deref for Reclaimer<'_, 'a> {
    type Target = WriteSession<'a>;

    #[inline(always)]
    fn deref(&self) -> &WriteSession<'a> {
        self.0
    }
}

impl<'a> DerefMut for Reclaimer<'_, 'a> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut WriteSession<'a> {
        self.0
    }
}

impl<'w, 'a> Reclaimer<'w, 'a> {
    #[inline(always)]
    pub(in crate::dict) fn new(writer: &'w mut WriteSession<'a>) -> Self {
        Reclaimer(writer)
    }

    /// Frees a record that no slot leads to any more: at once, or at the next flush if a power cut
    /// must still find it. `removal` says that it is the record of a removal.
    #[inline]
    pub(in crate::dict) fn free(&mut self, block: usize, in_spans: bool, removal: bool) -> Result<()> {
        if self.has_been_flushed() { self.defer_free(block, removal) } else { self.free_now(block, in_spans) }
    }

    /// Frees a record like [`free`](Reclaimer::free). The batch must not take a block afterwards.
    #[inline(always)]
    pub(in crate::dict) fn free_last(&mut self, block: usize, in_spans: bool, removal: bool) -> Result<()> {
        if in_spans || self.has_been_flushed() {
            return self.free(block, in_spans, removal);
        }
        self.batch.push_blind(block + STAMP, 0);
        let fast = self.storage.map.fast_access();
        if fast.is_some_and(|map| self.0.storage.blocks().give_in(map, self.0.batch, block).is_ok()) {
            return Ok(());
        }
        self.0.storage.blocks().give(self.0.batch, block)
    }

    /// Puts a record at the front of a list of records that the next flush frees.
    fn defer_free(&mut self, block: usize, removal: bool) -> Result<()> {
        let list = if removal { at::REMOVED } else { at::PENDING };
        let first = self.batch.get(self.storage.map, list)?;
        let bytes = self.batch.get(self.storage.map, at::PENDING_BYTES)?;
        let size = Lookup::new(self).size_of(block)?;
        self.batch.push(block + NEXT_FREE, first);
        self.batch.push(list, block as u64);
        self.batch.push(at::PENDING_BYTES, bytes.saturating_add(size));
        Ok(())
    }

    /// Frees a record at once.
    #[inline]
    pub(in crate::dict) fn free_now(&mut self, block: usize, in_spans: bool) -> Result<()> {
        self.batch.push_blind(block + STAMP, 0);
        if in_spans {
            let head = Lookup::new(self).head(block)?;
            let (_, _, size) = self.storage.blocks().block(self.batch, block)?;
            // A damaged record may name the spans of other values. Its own spans stay taken until a
            // repair.
            if self.storage.verifier().is_whole(block, size, &head)? {
                let spans = self.storage.values().span_list(block, &head)?;
                if let (Some(first), Some(last)) = (spans.first(), spans.last()) {
                    self.0.storage.spans().give_parts(self.0.batch, *first, *last)?;
                }
            }
        }
        self.0.storage.blocks().give(self.0.batch, block)
    }
}
