//! Verification of records.

use std::ops::Deref;

use crate::dict::format::record;
use crate::dict::format::record::{HEADER_LEN, KEY_MAX, MAX_VERSION, RecordHeader, STAMP};
use crate::dict::store::records::HeaderAndKey;
use crate::dict::store::storage::Storage;
use crate::dict::store::work_limit::{WorkLimit, too_slow};
use crate::error::{ErrorKind, Result};
use crate::segment::Deadline;
use xxhash_rust::xxh3::Xxh3;

/// A record that is whole.
#[derive(Debug)]
pub(in crate::dict) struct ValidRecord {
    pub(in crate::dict) head: RecordHeader,
    pub(in crate::dict) stamp: u64,
    pub(in crate::dict) key: Vec<u8>,
}

/// What a block holds.
#[derive(Debug)]
pub(in crate::dict) enum Block {
    /// Its stamp is 0.
    Empty,
    /// Something with a stamp whose checksum is wrong; its key, if that may be one.
    Invalid(Option<Vec<u8>>),
    Valid(ValidRecord),
}

/// Copies that are used again, and how much was looked at.
pub(in crate::dict) struct ScanBuffer {
    value: Vec<u8>,
    /// How often each span was looked at as a part of a value.
    part_reads: Vec<u8>,
    limit: WorkLimit,
}

impl ScanBuffer {
    pub(in crate::dict) fn new(until: Deadline) -> ScanBuffer {
        ScanBuffer { value: Vec::new(), part_reads: Vec::new(), limit: WorkLimit::new(until) }
    }

    /// Accounts for bytes that are looked at.
    pub(in crate::dict) fn spend(&self, storage: &Storage<'_>, bytes: usize) -> Result<()> {
        if self.limit.spend_bytes(bytes) { Err(too_slow(storage.map, "check")) } else { Ok(()) }
    }

    /// Whether a span may be looked at once more.
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

    /// What is in a block, of which no more than `size` bytes are a record's. A page that is gone
    /// has nothing whole.
    pub(in crate::dict) fn block_at(self, block: usize, size: usize, buffer: &mut ScanBuffer) -> Result<Block> {
        match self.read_block(block, size, buffer) {
            Err(error) if matches!(error.kind(), ErrorKind::NoSpace | ErrorKind::Timeout { .. }) => Err(error),
            Err(_) => Ok(Block::Invalid(None)),
            Ok(found) => Ok(found),
        }
    }

    /// Whether a record is what was written, as far as that is in doubt.
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

    /// The checksum of a value in spans, taken a part at a time; `None` where they were looked at
    /// too often.
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

    /// A record's head, stamp and key, once it is known to be whole.
    pub(in crate::dict) fn read_valid(self, block: usize) -> Result<ValidRecord> {
        let stamp = self.map.word(block + STAMP)?;
        let (head, key) = self.records().key_at(block)?;
        Ok(ValidRecord { head, stamp, key })
    }
}

/// Values lie in spans of their own, and each is looked at once or twice, as is one that was being
/// moved. Many that share their spans were forged, to be looked at for ever.
pub(in crate::dict) const MAX_PART_READS: u8 = 8;
