//! Frees the records that a change replaces: at once, or at the next flush where a power cut must
//! still find them.

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

    /// Frees a record that no slot leads to any more; where a power cut must find it, at the next flush.
    #[inline]
    pub(in crate::dict) fn free(&mut self, block: usize, in_spans: bool, removal: bool) -> Result<()> {
        if self.has_been_flushed() { self.defer_free(block, removal) } else { self.free_now(block, in_spans) }
    }

    /// As `free`, where the batch takes no block after that.
    #[inline(always)]
    pub(in crate::dict) fn free_last(&mut self, block: usize, in_spans: bool, removal: bool) -> Result<()> {
        if !in_spans && !self.has_been_flushed() {
            if let Some(()) = self
                .storage
                .map
                .fast_access_mut()
                .and_then(|map| self.0.storage.blocks().give_fast(map, self.0.batch, block))
            {
                return Ok(());
            }
        }
        self.free(block, in_spans, removal)
    }

    /// Keeps what was freed for the next flush.
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
            // A damaged one may name the spans of others; what is its own stays taken until a repair.
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
