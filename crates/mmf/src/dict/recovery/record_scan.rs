//! Looking through all spans for records, by nothing but what the records say of themselves.

use std::ops::Range;

use xxhash_rust::xxh3::Xxh3;

use crate::dict::format::layout::{class, number};
use crate::dict::format::record;
use crate::dict::format::record::{HEADER_LEN, KEY_MAX, RecordHeader, RecordKind, STAMP};
use crate::dict::format::span::SpanState;
use crate::dict::read::get::HeaderAndKey;
use crate::dict::store::allocator::Storage;
use crate::dict::store::work_limit::{WorkLimit, too_slow};
use crate::dict::store::write_batch::WriteBatch;
use crate::error::{ErrorKind, Result};
use crate::segment::Deadline;

/// No version is larger; a number that is was not written as one.
pub(in crate::dict) const MAX_VERSION: u64 = 1 << 62;

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

/// Where records are.
#[derive(Debug, Default)]
pub(in crate::dict) struct ScanResult {
    /// The class that each span's blocks have.
    pub(in crate::dict) classes: Vec<u64>,
    /// The hash of its key and the block of each whole record.
    pub(in crate::dict) records: Vec<(u64, usize)>,
    /// Blocks with something else.
    pub(in crate::dict) broken: Vec<(usize, Option<Vec<u8>>)>,
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

/// Values lie in spans of their own, and each is looked at once or twice, as is one that was being
/// moved. Many that share their spans were forged, to be looked at for ever.
const MAX_PART_READS: u8 = 8;

/// Which blocks of a span are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dict) enum ScanScope {
    /// Those that the span's entry says have ever been in use: what was flushed is among them.
    UsedBlocks,
    /// All of them, and where none is found any place at which a record may begin.
    AllBlocks,
}

/// Damage that is kept; there may be more.
pub(in crate::dict) const MAX_INVALID: usize = 1000;

impl Storage<'_> {
    /// Spans that the segment has grown to.
    pub(in crate::dict) fn mapped_spans(&self) -> usize {
        let storage = self.map.len().saturating_sub(self.layout.first_span);
        (storage >> self.layout.span_shift).min(self.layout.spans)
    }

    /// What is in a block, of which no more than `size` bytes are a record's. A page that is gone
    /// has nothing whole.
    pub(in crate::dict) fn block_at(&self, block: usize, size: usize, buffer: &mut ScanBuffer) -> Result<Block> {
        match self.read_block(block, size, buffer) {
            Err(error) if matches!(error.kind(), ErrorKind::NoSpace | ErrorKind::Timeout { .. }) => Err(error),
            Err(_) => Ok(Block::Invalid(None)),
            Ok(found) => Ok(found),
        }
    }

    /// Whether a record is what was written, as far as that is in doubt.
    pub(in crate::dict) fn is_whole(&self, block: usize, size: usize, head: &RecordHeader) -> Result<bool> {
        if !self.must_be_verified(head.version, self.map.word(block + STAMP)?) {
            return Ok(true);
        }
        Ok(matches!(self.block_at(block, size, &mut ScanBuffer::new(Deadline::Never))?, Block::Valid(_)))
    }

    fn read_block(&self, block: usize, size: usize, buffer: &mut ScanBuffer) -> Result<Block> {
        let stamp = self.map.word(block + STAMP)?;
        if stamp == 0 {
            return Ok(Block::Empty);
        }
        let mut copy = HeaderAndKey::new();
        let Some((head, _, start)) = copy.copy(self, block, 64)? else { return Ok(Block::Invalid(None)) };
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
        buffer.spend(self, if head.in_spans { 0 } else { head.value_len })?;
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
        &self,
        block: usize,
        head: &RecordHeader,
        key: &[u8],
        buffer: &mut ScanBuffer,
    ) -> Result<Option<u64>> {
        let mut hasher = Xxh3::with_seed(head.value_seed(self.seed, key));
        let mut left = head.value_len;
        for span in self.span_list(block, head)? {
            if !buffer.may_read_part(span) {
                return Ok(None);
            }
            let len = left.min(self.layout.span_size());
            buffer.spend(self, len)?;
            buffer.value.clear();
            self.map.append_to(self.layout.span(span), len, &mut buffer.value)?;
            hasher.update(&buffer.value);
            left -= len;
        }
        Ok(Some(hasher.digest()))
    }

    /// Looks through all spans.
    pub(in crate::dict) fn scan_records(&self, scope: ScanScope) -> Result<ScanResult> {
        let mut scan = ScanResult::default();
        // What is damaged is made whole however long it takes.
        let mut buffer = ScanBuffer::new(Deadline::Never);
        for span in 0..self.mapped_spans() {
            let class = self.state(&WriteBatch::new(), span).map_or(class::FREE, |state| state.class);
            let size = class::size(class).filter(|_| class <= class::LAST);
            let before = scan.records.len();
            if let Some(size) = size.filter(|size| *size <= self.layout.span_size()) {
                let most = self.layout.span_size() / size;
                let ever = match scope {
                    ScanScope::UsedBlocks => number(self.blocks_used(&WriteBatch::new(), span)?).min(most),
                    ScanScope::AllBlocks => most,
                };
                self.scan_span(span, 0..ever, size, &mut scan, &mut buffer)?;
                scan.classes.push(class);
            } else {
                scan.classes.push(class::FREE);
            }
            if scope == ScanScope::AllBlocks && !self.any_belongs(&scan.records[before..], class) {
                if let Some(class) = self.class_by_records(span, &mut buffer)? {
                    // What was taken for damage was looked for in the wrong places.
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

    /// Whether one of these records has the size that belongs to a class. The first of a span is
    /// found whatever its class is taken for, if only it is large enough.
    fn any_belongs(&self, records: &[(u64, usize)], to: u64) -> bool {
        let mut heads = records.iter().filter_map(|(_, block)| self.read_valid(*block).ok());
        heads.any(|whole| class::of(whole.head.block_len(self.layout)) == to)
    }

    fn scan_span(
        &self,
        span: usize,
        blocks: Range<usize>,
        size: usize,
        scan: &mut ScanResult,
        buffer: &mut ScanBuffer,
    ) -> Result<()> {
        for nth in blocks {
            let block = self.layout.span(span) + nth * size;
            match self.block_at(block, size, buffer)? {
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

    /// The class of a span whose entry says something else, or nothing: the one that a record in it
    /// belongs to.
    fn class_by_records(&self, span: usize, buffer: &mut ScanBuffer) -> Result<Option<u64>> {
        let (from, len) = (self.layout.span(span), self.layout.span_size());
        // All at once, since most of it is looked at to no avail.
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
            if at % size == 0 && matches!(self.block_at(from + at, size, buffer)?, Block::Valid(_)) {
                return Ok(Some(class));
            }
        }
        Ok(None)
    }

    /// A record's head, stamp and key, once it is known to be whole.
    pub(in crate::dict) fn read_valid(&self, block: usize) -> Result<ValidRecord> {
        let stamp = self.map.word(block + STAMP)?;
        let (head, key) = self.key_at(block)?;
        Ok(ValidRecord { head, stamp, key })
    }

    /// Whether a span's entry says that it holds parts of values.
    pub(in crate::dict) fn is_part(&self, span: usize) -> bool {
        self.state(&WriteBatch::new(), span).is_ok_and(|SpanState { class, .. }| class == class::PART)
    }
}

/// Whether a record says that its key is gone.
pub(in crate::dict) fn is_removal(head: &RecordHeader) -> bool {
    head.kind == RecordKind::Removal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dict::Dict;
    use crate::dict::format::record;
    use crate::name::Name;

    #[test]
    fn spans_that_many_values_claim_are_looked_at_a_few_times() {
        let name = Name::local(format!("claims {}", std::process::id())).unwrap();
        let dict = Dict::create_new(name, 1 << 20).unwrap();
        let value = vec![7; 20_000];
        dict.set_bytes("original", &value).unwrap();
        let storage = dict.storage();
        let block = |scan: &ScanResult| scan.records.last().unwrap().1;
        let original = block(&storage.scan_records(ScanScope::UsedBlocks).unwrap());
        let (mut head, _) = storage.key_at(original).unwrap();
        let numbers = storage.map.read_to_vec(original + head.spans_at(), 4 * head.span_count(storage.layout)).unwrap();
        let size = storage.block(&WriteBatch::new(), original).unwrap().2;
        // Records of the same class, each of which says that its value is that one.
        for nth in 0..30_u8 {
            dict.set_bytes(&format!("forged{nth:02}"), &vec![1; size - HEADER_LEN - 8]).unwrap();
        }
        let scan = storage.scan_records(ScanScope::UsedBlocks).unwrap();
        assert_eq!(scan.records.len(), 31);
        for (_, block) in scan.records.iter().filter(|(_, block)| *block != original) {
            let key = storage.read_valid(*block).unwrap();
            head.version = key.stamp;
            let sum = head.sum(dict.seed, &key.key, &value) ^ record::location_mix(*block, key.stamp);
            storage.map.put_words(block + record::VERSION, &[head.version, head.what(), sum]).unwrap();
            storage.map.write_at(block + head.spans_at(), &numbers).unwrap();
        }
        let scan = storage.scan_records(ScanScope::UsedBlocks).unwrap();
        assert_eq!(
            (scan.records.len(), scan.broken.len()),
            (usize::from(MAX_PART_READS), 31 - usize::from(MAX_PART_READS))
        );
    }
}
