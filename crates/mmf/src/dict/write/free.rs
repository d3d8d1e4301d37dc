//! Frees the records that a change replaces: at once, or at the next flush where a power cut must
//! still find them.

use super::Writer;
use crate::dict::heap::LINK;
use crate::dict::read::HeadAndKey;
use crate::dict::record::{Head, STAMP};
use crate::dict::shape::at;
use crate::error::Result;

impl Writer<'_> {
    /// Frees a record that no slot leads to any more; where a power cut must find it, at the next flush.
    #[inline]
    pub(in crate::dict) fn free(&mut self, block: usize, in_spans: bool, removal: bool) -> Result<()> {
        if self.is_durable() { self.keep(block, removal) } else { self.free_now(block, in_spans) }
    }

    /// As `free`, where the plan takes no block after that.
    #[inline(always)]
    pub(in crate::dict) fn free_last(&mut self, block: usize, in_spans: bool, removal: bool) -> Result<()> {
        if !in_spans && !self.is_durable() {
            if let Some(()) =
                self.heap.map.glance_mut().and_then(|map| self.heap.give_at_a_glance(map, self.plan, block))
            {
                return Ok(());
            }
        }
        self.free(block, in_spans, removal)
    }

    /// Keeps what was freed for the next flush.
    fn keep(&mut self, block: usize, removal: bool) -> Result<()> {
        let list = if removal { at::REMOVED } else { at::PENDING };
        let first = self.plan.get(self.heap.map, list)?;
        let bytes = self.plan.get(self.heap.map, at::PENDING_BYTES)?;
        let size = self.size_of(block)?;
        self.plan.put(block + LINK, first);
        self.plan.put(list, block as u64);
        self.plan.put(at::PENDING_BYTES, bytes.saturating_add(size));
        Ok(())
    }

    /// Bytes that a record takes, its spans included.
    pub(in crate::dict) fn size_of(&self, block: usize) -> Result<u64> {
        let head = self.head(block)?;
        let (_, _, size) = self.heap.block(self.plan, block)?;
        let spans = if head.in_spans {
            head.span_count(self.heap.shape).saturating_mul(self.heap.shape.span_size())
        } else {
            0
        };
        Ok(size.saturating_add(spans) as u64)
    }

    pub(in crate::dict) fn head(&self, block: usize) -> Result<Head> {
        let mut copy = HeadAndKey::new();
        match copy.copy(&self.heap, block, 0)? {
            Some((head, ..)) => Ok(head),
            None => Err(self.heap.no_record(block)),
        }
    }

    /// Frees a record at once.
    #[inline]
    pub(in crate::dict) fn free_now(&mut self, block: usize, in_spans: bool) -> Result<()> {
        self.plan.put_unasked(block + STAMP, 0);
        if in_spans {
            let head = self.head(block)?;
            let (_, _, size) = self.heap.block(self.plan, block)?;
            // A damaged one may name the spans of others; what is its own stays taken until a repair.
            if self.heap.is_whole(block, size, &head)? {
                let spans = self.heap.span_list(block, &head)?;
                if let (Some(first), Some(last)) = (spans.first(), spans.last()) {
                    self.heap.give_parts(self.plan, *first, *last)?;
                }
            }
        }
        self.heap.give(self.plan, block)
    }
}
