//! Frees the records that a change replaces: at once, or at the next flush where a power cut must
//! still find them.

use crate::dict::format::layout::at;
use crate::dict::format::record::{RecordHeader, STAMP};
use crate::dict::format::span::NEXT_FREE;
use crate::dict::store::records::HeaderAndKey;
use crate::dict::write::session::WriteSession;
use crate::error::Result;

impl WriteSession<'_> {
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
                .and_then(|map| self.storage.blocks().give_fast(map, self.batch, block))
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
        let size = self.size_of(block)?;
        self.batch.push(block + NEXT_FREE, first);
        self.batch.push(list, block as u64);
        self.batch.push(at::PENDING_BYTES, bytes.saturating_add(size));
        Ok(())
    }

    /// Bytes that a record takes, its spans included.
    pub(in crate::dict) fn size_of(&self, block: usize) -> Result<u64> {
        let head = self.head(block)?;
        let (_, _, size) = self.storage.blocks().block(self.batch, block)?;
        let spans = if head.in_spans {
            head.span_count(self.storage.layout).saturating_mul(self.storage.layout.span_size())
        } else {
            0
        };
        Ok(size.saturating_add(spans) as u64)
    }

    pub(in crate::dict) fn head(&self, block: usize) -> Result<RecordHeader> {
        let mut copy = HeaderAndKey::new();
        match copy.copy(&self.storage, block, 0)? {
            Some((head, ..)) => Ok(head),
            None => Err(self.storage.records().no_record_error(block)),
        }
    }

    /// Frees a record at once.
    #[inline]
    pub(in crate::dict) fn free_now(&mut self, block: usize, in_spans: bool) -> Result<()> {
        self.batch.push_blind(block + STAMP, 0);
        if in_spans {
            let head = self.head(block)?;
            let (_, _, size) = self.storage.blocks().block(self.batch, block)?;
            // A damaged one may name the spans of others; what is its own stays taken until a repair.
            if self.storage.verifier().is_whole(block, size, &head)? {
                let spans = self.storage.values().span_list(block, &head)?;
                if let (Some(first), Some(last)) = (spans.first(), spans.last()) {
                    self.storage.spans().give_parts(self.batch, *first, *last)?;
                }
            }
        }
        self.storage.blocks().give(self.batch, block)
    }
}
