//! [`RecordScan`]: finds all valid records in the spans, from the records' own bytes.
//!
//! The problem: after a power cut or damage neither the index nor the table is to be trusted. A
//! record must be found although nothing leads to it.
//!
//! The algorithm for each span:
//!
//! 1. Take the size class of the span's entry. Verify each block of that size
//!    ([`Verifier`](crate::dict::store::verifier::Verifier)). A rebuild after a power cut scans the
//!    blocks that were ever in use; a repair scans all.
//! 2. In a repair, if no valid record belongs to that class, the entry may be damaged. Look at each
//!    multiple of 8 for a plausible header whose record is valid and whose class fits its offset.
//!    Scan the span again with that class.
//!
//! Why it is correct: a valid checksum includes the block's offset and the stamp, so bytes that
//! only look like a record are not taken for one. A flush syncs the entry of each span with flushed
//! records, and the entry keeps its class until the next flush, so step 1 finds all of them.
//!
//! Cost: one read of each used block. It has no deadline, since a damaged dict must be recovered
//! however long that takes; [`ScanBuffer`] bounds the reads of shared spans.

use std::ops::{Deref, Range};

use crate::dict::format::layout::{class, number};
use crate::dict::format::record;
use crate::dict::format::record::{MAX_VERSION, RecordHeader};
use crate::dict::store::storage::Storage;
use crate::dict::store::verifier::{Block, ScanBuffer};
use crate::dict::store::write_batch::WriteBatch;
use crate::error::Result;
use crate::segment::Deadline;

/// The result of a scan.
#[derive(Debug, Default)]
pub(in crate::dict) struct ScanResult {
    /// The size class of each span's blocks.
    pub(in crate::dict) classes: Vec<u64>,
    /// The key's hash and the block of each valid record.
    pub(in crate::dict) records: Vec<(u64, usize)>,
    /// Blocks with a stamp but without a valid record, and the key if it is plausible.
    pub(in crate::dict) broken: Vec<(usize, Option<Vec<u8>>)>,
}

/// The blocks of a span that a scan verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dict) enum ScanScope {
    /// The blocks that were ever in use according to the span's entry. They include all flushed
    /// records.
    UsedBlocks,
    /// All blocks, and if none of them is valid, each place at which a record may begin.
    AllBlocks,
}

/// The number of invalid blocks that a scan keeps. There may be more.
pub(in crate::dict) const MAX_INVALID: usize = 1000;

/// Finds records in all spans.
#[derive(Clone, Copy)]
pub(in crate::dict) struct RecordScan<'s>(&'s Storage<'s>);

impl<'s> Deref for RecordScan<'s> {
    type Target = Storage<'s>;

    #[inline(always)]
    fn deref(&self) -> &Storage<'s> {
        self.0
    }
}

impl<'s> RecordScan<'s> {
    #[inline(always)]
    pub(in crate::dict) fn new(storage: &'s Storage<'s>) -> Self {
        RecordScan(storage)
    }

    /// Scans all spans.
    pub(in crate::dict) fn scan_records(self, scope: ScanScope) -> Result<ScanResult> {
        let mut scan = ScanResult::default();
        // A recovery has no deadline.
        let mut buffer = ScanBuffer::new(Deadline::Never);
        for span in 0..self.spans().mapped_spans() {
            let class = self.spans().state(&WriteBatch::new(), span).map_or(class::FREE, |state| state.class);
            let size = class::size(class).filter(|_| class <= class::LAST);
            let before = scan.records.len();
            if let Some(size) = size.filter(|size| *size <= self.layout.span_size()) {
                let most = self.layout.span_size() / size;
                let ever = match scope {
                    ScanScope::UsedBlocks => number(self.spans().blocks_used(&WriteBatch::new(), span)?).min(most),
                    ScanScope::AllBlocks => most,
                };
                self.scan_span(span, 0..ever, size, &mut scan, &mut buffer)?;
                scan.classes.push(class);
            } else {
                scan.classes.push(class::FREE);
            }
            if scope == ScanScope::AllBlocks && !self.any_belongs(&scan.records[before..], class) {
                if let Some(class) = self.class_by_records(span, &mut buffer)? {
                    // The scan with the wrong class has reported damage at places without blocks.
                    scan.broken.retain(|(block, _)| self.layout.span_of(*block) != Some(span));
                    scan.records.truncate(before);
                    scan.classes[span] = class;
                    let size = class::size(class).unwrap_or(self.layout.span_size());
                    let most = self.layout.span_size() / size;
                    self.scan_span(span, 0..most, size, &mut scan, &mut buffer)?;
                }
            }
        }
        Ok(scan)
    }

    /// Returns whether one of these records has the size of the class `to`. A record in a span's
    /// first block is found with every class that is large enough, so it proves nothing.
    fn any_belongs(self, records: &[(u64, usize)], to: u64) -> bool {
        let mut heads = records.iter().filter_map(|(_, block)| self.verifier().read_valid(*block).ok());
        heads.any(|whole| class::of(whole.head.block_len(self.layout)) == to)
    }

    /// Verifies the blocks `blocks` of a span.
    fn scan_span(
        self,
        span: usize,
        blocks: Range<usize>,
        size: usize,
        scan: &mut ScanResult,
        buffer: &mut ScanBuffer,
    ) -> Result<()> {
        for nth in blocks {
            let block = self.layout.span(span) + nth * size;
            match self.verifier().block_at(block, size, buffer)? {
                Block::Empty => {}
                Block::Invalid(key) => {
                    if scan.broken.len() < MAX_INVALID {
                        scan.broken.push((block, key));
                    }
                }
                Block::Valid(whole) => scan.records.push((record::hash(self.seed, &whole.key), block)),
            }
        }
        Ok(())
    }

    /// Returns the class of the first valid record in a span, for a span whose entry has another
    /// class or none.
    fn class_by_records(self, span: usize, buffer: &mut ScanBuffer) -> Result<Option<u64>> {
        let (from, len) = (self.layout.span(span), self.layout.span_size());
        // One copy of the span, since most offsets are rejected after two loads.
        let Ok(bytes) = self.map.read_to_vec(from, len) else { return Ok(None) };
        let word =
            |at: usize| bytes.get(at..at + 8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
        for at in (0..len).step_by(8) {
            let (Some(stamp), Some(version), Some(what)) =
                (word(at), word(at + record::VERSION), word(at + record::VERSION + 8))
            else {
                break;
            };
            if stamp == 0 || stamp > MAX_VERSION || version > stamp || version == 0 {
                continue;
            }
            let Some(head) = RecordHeader::of(version, what, 0) else { continue };
            if head.value_len > self.map.len() || head.block_len(self.layout) > self.layout.largest_block() {
                continue;
            }
            let class = class::of(head.block_len(self.layout));
            let size = class::size(class).unwrap_or(len);
            if at % size == 0 && matches!(self.verifier().block_at(from + at, size, buffer)?, Block::Valid(_)) {
                return Ok(Some(class));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dict::Dict;
    use crate::dict::format::record;
    use crate::dict::format::record::HEADER_LEN;
    use crate::dict::store::verifier::MAX_PART_READS;
    use crate::name::Name;

    #[test]
    fn spans_that_many_values_claim_are_looked_at_a_few_times() {
        let name = Name::local(format!("claims {}", std::process::id())).unwrap();
        let dict = Dict::create_new(name, 1 << 20).unwrap();
        let value = vec![7; 20_000];
        dict.set_bytes("original", &value).unwrap();
        let storage = dict.storage();
        let block = |scan: &ScanResult| scan.records.last().unwrap().1;
        let original = block(&RecordScan::new(&storage).scan_records(ScanScope::UsedBlocks).unwrap());
        let (mut head, _) = storage.records().key_at(original).unwrap();
        let numbers = storage.map.read_to_vec(original + head.spans_at(), 4 * head.span_count(storage.layout)).unwrap();
        let size = storage.blocks().block(&WriteBatch::new(), original).unwrap().2;
        // Records of the same class that claim the spans of that value.
        for nth in 0..30_u8 {
            dict.set_bytes(&format!("forged{nth:02}"), &vec![1; size - HEADER_LEN - 8]).unwrap();
        }
        let scan = RecordScan::new(&storage).scan_records(ScanScope::UsedBlocks).unwrap();
        assert_eq!(scan.records.len(), 31);
        for (_, block) in scan.records.iter().filter(|(_, block)| *block != original) {
            let key = storage.verifier().read_valid(*block).unwrap();
            head.version = key.stamp;
            let sum = head.sum(dict.seed, &key.key, &value) ^ record::location_mix(*block, key.stamp);
            storage.map.put_words(block + record::VERSION, &[head.version, head.what(), sum]).unwrap();
            storage.map.write_at(block + head.spans_at(), &numbers).unwrap();
        }
        let scan = RecordScan::new(&storage).scan_records(ScanScope::UsedBlocks).unwrap();
        assert_eq!(
            (scan.records.len(), scan.broken.len()),
            (usize::from(MAX_PART_READS), 31 - usize::from(MAX_PART_READS))
        );
    }
}
