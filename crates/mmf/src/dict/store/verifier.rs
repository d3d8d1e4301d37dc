//! [`Verifier`]: checks whole records against their checksums.
//!
//! The problem: after a power cut or a failed sync, any page of the file may be from any time.
//! Flush, `check`, repair and rebuild must decide for each block whether it holds a valid record.
//!
//! The algorithm for one block:
//!
//! 1. Load the stamp. 0 means an empty block.
//! 2. Copy header and key. The lengths must fit the block. The stamp must be at most 2^62, and the
//!    version neither 0 nor above the stamp.
//! 3. Compute the checksum of key and value. For a value in spans, hash one span after the other.
//! 4. The record is valid if the checksum, mixed with offset and stamp, is the stored one, and the
//!    key is UTF-8.
//!
//! Why it is correct: the checksum covers key, value, version, kind and lengths, and is mixed with
//! the block's offset and stamp. So a record of mixed age, and a copy of a record elsewhere, are
//! invalid.
//!
//! Why it ends with a hostile peer: [`ScanBuffer`] counts the bytes against a deadline, and reads
//! each span at most [`MAX_PART_READS`] times as a part of values.
//!
//! Cost: one read of each byte of the record, in buffers that are used again.

use std::ops::Deref;

use crate::dict::format::record;
use crate::dict::format::record::{HEADER_LEN, KEY_MAX, MAX_VERSION, RecordHeader, STAMP};
use crate::dict::store::records::HeaderAndKey;
use crate::dict::store::storage::Storage;
use crate::dict::store::work_limit::{WorkLimit, too_slow};
use crate::error::{ErrorKind, Result};
use crate::segment::Deadline;
use xxhash_rust::xxh3::Xxh3;

/// A record whose checksum is right.
#[derive(Debug)]
pub(in crate::dict) struct ValidRecord {
    pub(in crate::dict) head: RecordHeader,
    pub(in crate::dict) stamp: u64,
    pub(in crate::dict) key: Vec<u8>,
}

/// The content of a block.
#[derive(Debug)]
pub(in crate::dict) enum Block {
    /// The stamp is 0.
    Empty,
    /// The stamp is not 0, but the bytes are not a valid record. The field has the bytes at the
    /// key's place if the lengths are plausible.
    Invalid(Option<Vec<u8>>),
    Valid(ValidRecord),
}

/// Buffers that are used again, and the work that was done.
pub(in crate::dict) struct ScanBuffer {
    value: Vec<u8>,
    /// How often each span was read as a part of a value.
    part_reads: Vec<u8>,
    limit: WorkLimit,
}

impl ScanBuffer {
    pub(in crate::dict) fn new(until: Deadline) -> ScanBuffer {
        ScanBuffer { value: Vec::new(), part_reads: Vec::new(), limit: WorkLimit::new(until) }
    }

    /// Counts `bytes` bytes as work. Returns an error if the time is over.
    pub(in crate::dict) fn spend(&self, storage: &Storage<'_>, bytes: usize) -> Result<()> {
        if self.limit.spend_bytes(bytes) { Err(too_slow(storage.map, "check")) } else { Ok(()) }
    }

    /// Counts a read of a span. Returns whether it is within [`MAX_PART_READS`].
    fn may_read_part(&mut self, span: usize) -> bool {
        if self.part_reads.len() <= span {
            self.part_reads.resize(span + 1, 0);
        }
        self.part_reads[span] = self.part_reads[span].saturating_add(1);
        self.part_reads[span] <= MAX_PART_READS
    }
}

/// Checks records against their checksums.
#[derive(Clone, Copy)]
pub(in crate::dict) struct Verifier<'s>(&'s Storage<'s>);

impl<'s> Deref for Verifier<'s> {
    type Target = Storage<'s>;

    #[inline(always)]
    fn deref(&self) -> &Storage<'s> {
        self.0
    }
}

impl<'s> Verifier<'s> {
    #[inline(always)]
    pub(in crate::dict) fn new(storage: &'s Storage<'s>) -> Self {
        Verifier(storage)
    }

    /// Returns the content of a block of `size` bytes. A block on a page that is gone is invalid.
    pub(in crate::dict) fn block_at(self, block: usize, size: usize, buffer: &mut ScanBuffer) -> Result<Block> {
        match self.read_block(block, size, buffer) {
            Err(error) if matches!(error.kind(), ErrorKind::NoSpace | ErrorKind::Timeout { .. }) => Err(error),
            Err(_) => Ok(Block::Invalid(None)),
            Ok(found) => Ok(found),
        }
    }

    /// Returns whether a record is valid. Verifies it only if
    /// [`must_be_verified`](crate::dict::store::records::Records::must_be_verified) says so.
    pub(in crate::dict) fn is_whole(self, block: usize, size: usize, head: &RecordHeader) -> Result<bool> {
        if !self.records().must_be_verified(head.version, self.map.word(block + STAMP)?) {
            return Ok(true);
        }
        Ok(matches!(self.block_at(block, size, &mut ScanBuffer::new(Deadline::Never))?, Block::Valid(_)))
    }

    fn read_block(self, block: usize, size: usize, buffer: &mut ScanBuffer) -> Result<Block> {
        let stamp = self.map.word(block + STAMP)?;
        if stamp == 0 {
            return Ok(Block::Empty);
        }
        let mut copy = HeaderAndKey::new();
        let Some((head, _, start)) = copy.copy(&self, block, 64)? else { return Ok(Block::Invalid(None)) };
        let fits = head.key_len <= KEY_MAX
            && (head.value_len as u64) < 1 << 40
            && head.span_count(self.layout) <= self.layout.spans
            && head.block_len(self.layout) <= size;
        if !fits || stamp > MAX_VERSION || head.version > stamp || head.version == 0 {
            return Ok(Block::Invalid(None));
        }
        let key = match start.get(..head.key_len) {
            Some(key) => key.to_vec(),
            None => self.map.read_to_vec(block + HEADER_LEN, head.key_len)?,
        };
        let sum = head.checksum ^ record::location_mix(block, stamp);
        buffer.spend(&self, if head.in_spans { 0 } else { head.value_len })?;
        let whole = if head.in_spans {
            Some(sum) == self.sum_of_spans(block, &head, &key, buffer)?
        } else {
            buffer.value.clear();
            self.map.append_to(block + HEADER_LEN + head.key_len, head.value_len, &mut buffer.value)?;
            sum == head.sum(self.seed, &key, &buffer.value)
        };
        if !whole || std::str::from_utf8(&key).is_err() {
            return Ok(Block::Invalid(Some(key)));
        }
        Ok(Block::Valid(ValidRecord { head, stamp, key }))
    }

    /// Returns the checksum of a value in spans, hashed span by span. Returns `None` if a span was
    /// read more than [`MAX_PART_READS`] times.
    fn sum_of_spans(
        self,
        block: usize,
        head: &RecordHeader,
        key: &[u8],
        buffer: &mut ScanBuffer,
    ) -> Result<Option<u64>> {
        let mut hasher = Xxh3::with_seed(head.value_seed(self.seed, key));
        let mut left = head.value_len;
        for span in self.values().span_list(block, head)? {
            if !buffer.may_read_part(span) {
                return Ok(None);
            }
            let len = left.min(self.layout.span_size());
            buffer.spend(&self, len)?;
            buffer.value.clear();
            self.map.append_to(self.layout.span(span), len, &mut buffer.value)?;
            hasher.update(&buffer.value);
            left -= len;
        }
        Ok(Some(hasher.digest()))
    }

    /// Returns header, stamp and key of a record that is known to be valid.
    pub(in crate::dict) fn read_valid(self, block: usize) -> Result<ValidRecord> {
        let stamp = self.map.word(block + STAMP)?;
        let (head, key) = self.records().key_at(block)?;
        Ok(ValidRecord { head, stamp, key })
    }
}

/// How often a scan reads one span as a part of values. A valid dict needs one read, or two if a
/// record was being moved. More means forged records that share spans to make a scan endless.
pub(in crate::dict) const MAX_PART_READS: u8 = 8;
