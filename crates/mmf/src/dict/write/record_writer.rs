//! [`RecordWriter`]: writes a new record into a free block.
//!
//! The problem: a record must be complete in memory before any word leads to it, and a value may be
//! longer than any block.
//!
//! The algorithm, within the plan of a change:
//!
//! 1. Compute the record's length. If it is more than half a span, the value goes to spans of its
//!    own, and the record has their numbers.
//! 2. Take the spans, and copy the value into them after a release fence.
//! 3. Take a block of the smallest size class that fits.
//! 4. Fill the block ([`Records::fill`](crate::dict::store::records::Records::fill)): stamp 0, then
//!    header, key, and value or numbers. The batch stores the stamp later.
//!
//! Blocks and spans are taken in the batch, so they stay free if the change is not committed.
//!
//! Why it is correct: the memory is free until the commit point, and no slot leads to it. A reader
//! that still reads an older record there finds its stamp or its slot changed.
//!
//! The fast path handles a value in its block, and a block that was freed before. It is not taken
//! while the sync mark stands: a list of free blocks may then be old, and the slow path checks each
//! block's stamp.
//!
//! Cost: one copy and one hash of the value.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering;

use crate::dict::format::layout::class;
use crate::dict::format::marks::SYNCING;
use crate::dict::format::record::{HEADER_LEN, RecordHeader, RecordKind};
use crate::dict::store::spans::AllocError;
use crate::dict::write::session::WriteSession;
use crate::error::{Error, Result};
use crate::mem::{FastAccessMut, Miss};
use crate::sys::fence;

/// Writes records to free blocks.
pub(in crate::dict) struct RecordWriter<'w, 'a>(&'w mut WriteSession<'a>);

impl<'a> Deref for RecordWriter<'_, 'a> {
    type Target = WriteSession<'a>;

    #[inline(always)]
    fn deref(&self) -> &WriteSession<'a> {
        self.0
    }
}

impl<'a> DerefMut for RecordWriter<'_, 'a> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut WriteSession<'a> {
        self.0
    }
}

impl<'w, 'a> RecordWriter<'w, 'a> {
    #[inline(always)]
    pub(in crate::dict) fn new(writer: &'w mut WriteSession<'a>) -> Self {
        RecordWriter(writer)
    }

    /// Writes a record into a block from
    /// [`take_fast`](crate::dict::store::blocks::Blocks::take_fast). Returns `None` if there is no
    /// such block. Fast path of [`write_record_slow`](RecordWriter::write_record_slow).
    #[inline(always)]
    pub(in crate::dict) fn write_record_fast(
        &mut self,
        version: u64,
        key: &[u8],
        kind: RecordKind,
        value: &[u8],
    ) -> Result<Option<usize>> {
        let storage = self.storage;
        let Some(map) = storage.map.fast_access_mut() else { return Ok(None) };
        let Some(block) = self.take_for(map, key, value) else { return Ok(None) };
        // `take_fast` has checked that the block is within the mapping, so a miss is a fault.
        match storage.records().fill_inline(map, block, version, key, kind, value) {
            Ok(()) => Ok(Some(block)),
            Err(Miss) => Err(storage.map.fault("write", block, 0)),
        }
    }

    /// Takes a block for a record whose value fits its block, on the fast path.
    #[inline(always)]
    pub(in crate::dict) fn take_for(&mut self, map: FastAccessMut<'_>, key: &[u8], value: &[u8]) -> Option<usize> {
        let len = HEADER_LEN + key.len() + value.len();
        if len > self.storage.layout.largest_block() {
            return None;
        }
        self.0.storage.blocks().take_fast(map, self.0.batch, class::of(len))
    }

    /// Writes a record into a free block, and returns the block. No word leads to it yet.
    #[inline(always)]
    pub(in crate::dict) fn write_record(
        &mut self,
        version: u64,
        key: &[u8],
        kind: RecordKind,
        value: &[u8],
    ) -> Result<usize, AllocError> {
        // After a failed sync a list of free blocks may be old. The slow path checks the stamp of
        // the block that it leads to.
        if self.flush_state & SYNCING == 0 {
            if let Some(block) = self.write_record_fast(version, key, kind, value)? {
                return Ok(block);
            }
        }
        self.write_record_slow(version, key, kind, value)
    }

    /// Writes a record whose value may need spans of its own.
    #[inline(never)]
    fn write_record_slow(
        &mut self,
        version: u64,
        key: &[u8],
        kind: RecordKind,
        value: &[u8],
    ) -> Result<usize, AllocError> {
        let (storage, layout) = (self.storage, self.storage.layout);
        let mut head =
            RecordHeader { version, key_len: key.len(), kind, value_len: value.len(), in_spans: false, checksum: 0 };
        head.in_spans = head.block_len(layout) > layout.largest_block();
        let len = head.block_len(layout);
        if len > layout.largest_block() || value.len() as u64 >= 1 << 40 {
            return Err(self.too_large(value.len()).into());
        }
        let sum = head.sum(self.storage.seed, key, value);
        let mut parts = Vec::new();
        if head.in_spans {
            parts = storage.spans().take_parts(self.batch, head.span_count(layout))?;
            // A reader of a value that was freed there before sees that its record's stamp or slot
            // has changed before it sees the new bytes.
            fence(Ordering::Release);
            for (part, bytes) in parts.iter().zip(value.chunks(layout.span_size())) {
                storage.map.write_at(layout.span(*part), bytes)?;
            }
        }
        let block = storage.blocks().take(self.batch, class::of(len), None)?;
        storage.records().fill(storage.map, block, &head, sum, key, if parts.is_empty() { value } else { &[] })?;
        if !parts.is_empty() {
            // A dict has at most 16384 spans, so each number fits 32 bits.
            let numbers = parts.iter().flat_map(|part| u32::try_from(*part).unwrap_or(u32::MAX).to_le_bytes());
            let numbers: Vec<u8> = numbers.collect();
            storage.map.write_at(block + head.spans_at(), &numbers)?;
        }
        Ok(block)
    }

    #[cold]
    #[inline(never)]
    fn too_large(&self, len: usize) -> Error {
        let most = self.dict.capacity() / 4;
        let reason = format!("a value of {len} bytes is too large; {most} bytes always fit an empty dict");
        self.storage.map.name_error(Error::invalid("change", reason)).with_help("make it with more capacity")
    }
}
