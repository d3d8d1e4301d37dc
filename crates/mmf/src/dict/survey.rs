//! Looking through all spans for records, by nothing but what the records say of themselves.

use std::ops::Range;

use xxhash_rust::xxh3::Xxh3;

use super::heap::{Heap, State};
use super::limit::{Limit, too_slow};
use super::plan::Plan;
use super::read::HeadAndKey;
use super::record::{self, HEAD, Head, KEY_MAX, Kind, STAMP};
use super::shape::{class, number};
use crate::error::{ErrorKind, Result};
use crate::segment::Until;

/// No version is larger; a number that is was not written as one.
pub(super) const VERSIONS: u64 = 1 << 62;

/// A record that is whole.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) head: Head,
    pub(super) stamp: u64,
    pub(super) key: Vec<u8>,
}

/// What a block holds.
#[derive(Debug)]
pub(super) enum Block {
    /// Its stamp is 0.
    Nothing,
    /// Something with a stamp whose checksum is wrong; its key, if that may be one.
    Broken(Option<Vec<u8>>),
    Whole(Whole),
}

/// Where records are.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The class that each span's blocks have.
    pub(super) classes: Vec<u64>,
    /// The hash of its key and the block of each whole record.
    pub(super) records: Vec<(u64, usize)>,
    /// Blocks with something else.
    pub(super) broken: Vec<(usize, Option<Vec<u8>>)>,
}

/// Copies that are used again, and how much was looked at.
pub(super) struct Room {
    value: Vec<u8>,
    /// How often each span was looked at as a part of a value.
    looks: Vec<u8>,
    limit: Limit,
}

impl Room {
    pub(super) fn new(until: Until) -> Room {
        Room { value: Vec::new(), looks: Vec::new(), limit: Limit::new(until) }
    }

    /// Accounts for bytes that are looked at.
    pub(super) fn spend(&self, heap: &Heap<'_>, bytes: usize) -> Result<()> {
        if self.limit.spend_bytes(bytes) { Err(too_slow(heap.map, "check")) } else { Ok(()) }
    }

    /// Whether a span may be looked at once more.
    fn look(&mut self, span: usize) -> bool {
        if self.looks.len() <= span {
            self.looks.resize(span + 1, 0);
        }
        self.looks[span] = self.looks[span].saturating_add(1);
        self.looks[span] <= LOOKS
    }
}

/// Values lie in spans of their own, and each is looked at once or twice, as is one that was being moved. Many that share
/// their spans were forged, to be looked at for ever.
const LOOKS: u8 = 8;

/// Which blocks of a span are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Those that the span's entry says have ever been in use: what was flushed is among them.
    Table,
    /// All of them, and where none is found any place at which a record may begin.
    Nothing,
}

/// Damage that is kept; there may be more.
pub(super) const BROKEN: usize = 1000;

impl Heap<'_> {
    /// Spans that the segment has grown to.
    pub(super) fn spans_there(&self) -> usize {
        let heap = self.map.len().saturating_sub(self.shape.heap);
        (heap >> self.shape.span_shift).min(self.shape.spans)
    }

    /// What is in a block, of which no more than `size` bytes are a record's. A page that is gone has nothing whole.
    pub(super) fn block_at(&self, block: usize, size: usize, room: &mut Room) -> Result<Block> {
        match self.look_into(block, size, room) {
            Err(error) if matches!(error.kind(), ErrorKind::NoSpace | ErrorKind::Timeout { .. }) => Err(error),
            Err(_) => Ok(Block::Broken(None)),
            Ok(found) => Ok(found),
        }
    }

    /// Whether a record is what was written, as far as that is in doubt.
    pub(super) fn is_whole(&self, block: usize, size: usize, head: &Head) -> Result<bool> {
        if !self.must_be_verified(head.version, self.map.word(block + STAMP)?) {
            return Ok(true);
        }
        Ok(matches!(self.block_at(block, size, &mut Room::new(Until::Forever))?, Block::Whole(_)))
    }

    fn look_into(&self, block: usize, size: usize, room: &mut Room) -> Result<Block> {
        let stamp = self.map.word(block + STAMP)?;
        if stamp == 0 {
            return Ok(Block::Nothing);
        }
        let mut copy = HeadAndKey::new();
        let Some((head, _, start)) = copy.copy(self, block, 64)? else { return Ok(Block::Broken(None)) };
        let fits = head.key_len <= KEY_MAX
            && (head.value_len as u64) < 1 << 40
            && head.span_count(self.shape) <= self.shape.spans
            && head.block_len(self.shape) <= size;
        if !fits || stamp > VERSIONS || head.version > stamp || head.version == 0 {
            return Ok(Block::Broken(None));
        }
        let key = match start.get(..head.key_len) {
            Some(key) => key.to_vec(),
            None => self.map.read_to_vec(block + HEAD, head.key_len)?,
        };
        let sum = head.checksum ^ record::place(block, stamp);
        room.spend(self, if head.in_spans { 0 } else { head.value_len })?;
        let whole = if head.in_spans {
            Some(sum) == self.sum_of_spans(block, &head, &key, room)?
        } else {
            room.value.clear();
            self.map.append_to(block + HEAD + head.key_len, head.value_len, &mut room.value)?;
            sum == head.sum(self.seed, &key, &room.value)
        };
        if !whole || std::str::from_utf8(&key).is_err() {
            return Ok(Block::Broken(Some(key)));
        }
        Ok(Block::Whole(Whole { head, stamp, key }))
    }

    /// The checksum of a value in spans, taken a part at a time; `None` where they were looked at too often.
    fn sum_of_spans(&self, block: usize, head: &Head, key: &[u8], room: &mut Room) -> Result<Option<u64>> {
        let mut hasher = Xxh3::with_seed(head.value_seed(self.seed, key));
        let mut left = head.value_len;
        for span in self.span_list(block, head)? {
            if !room.look(span) {
                return Ok(None);
            }
            let len = left.min(self.shape.span_size());
            room.spend(self, len)?;
            room.value.clear();
            self.map.append_to(self.shape.span(span), len, &mut room.value)?;
            hasher.update(&room.value);
            left -= len;
        }
        Ok(Some(hasher.digest()))
    }

    /// Looks through all spans.
    pub(super) fn survey(&self, trust: Trust) -> Result<Survey> {
        let mut survey = Survey::default();
        // What is damaged is made whole however long it takes.
        let mut room = Room::new(Until::Forever);
        for span in 0..self.spans_there() {
            let class = self.state(&Plan::new(), span).map_or(class::FREE, |state| state.class);
            let size = class::size(class).filter(|_| class <= class::LAST);
            let before = survey.records.len();
            if let Some(size) = size.filter(|size| *size <= self.shape.span_size()) {
                let most = self.shape.span_size() / size;
                let ever = match trust {
                    Trust::Table => number(self.ever(&Plan::new(), span)?).min(most),
                    Trust::Nothing => most,
                };
                self.survey_span(span, 0..ever, size, &mut survey, &mut room)?;
                survey.classes.push(class);
            } else {
                survey.classes.push(class::FREE);
            }
            if trust == Trust::Nothing && !self.any_belongs(&survey.records[before..], class) {
                if let Some(class) = self.class_by_records(span, &mut room)? {
                    // What was taken for damage was looked for in the wrong places.
                    survey.broken.retain(|(block, _)| self.shape.span_of(*block) != Some(span));
                    survey.records.truncate(before);
                    survey.classes[span] = class;
                    let size = class::size(class).unwrap_or(self.shape.span_size());
                    let most = self.shape.span_size() / size;
                    self.survey_span(span, 0..most, size, &mut survey, &mut room)?;
                }
            }
        }
        Ok(survey)
    }

    /// Whether one of these records has the size that belongs to a class. The first of a span is found whatever its class is
    /// taken for, if only it is large enough.
    fn any_belongs(&self, records: &[(u64, usize)], to: u64) -> bool {
        let mut heads = records.iter().filter_map(|(_, block)| self.known(*block).ok());
        heads.any(|whole| class::of(whole.head.block_len(self.shape)) == to)
    }

    fn survey_span(
        &self,
        span: usize,
        blocks: Range<usize>,
        size: usize,
        survey: &mut Survey,
        room: &mut Room,
    ) -> Result<()> {
        for nth in blocks {
            let block = self.shape.span(span) + nth * size;
            match self.block_at(block, size, room)? {
                Block::Nothing => {}
                Block::Broken(key) => {
                    if survey.broken.len() < BROKEN {
                        survey.broken.push((block, key));
                    }
                }
                Block::Whole(whole) => survey.records.push((record::hash(self.seed, &whole.key), block)),
            }
        }
        Ok(())
    }

    /// The class of a span whose entry says something else, or nothing: the one that a record in it belongs to.
    fn class_by_records(&self, span: usize, room: &mut Room) -> Result<Option<u64>> {
        let (from, len) = (self.shape.span(span), self.shape.span_size());
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
            if stamp == 0 || stamp > VERSIONS || version > stamp || version == 0 {
                continue;
            }
            let Some(head) = Head::of(version, what, 0) else { continue };
            if head.value_len > self.map.len() || head.block_len(self.shape) > self.shape.largest_block() {
                continue;
            }
            let class = class::of(head.block_len(self.shape));
            let size = class::size(class).unwrap_or(len);
            if at % size == 0 && matches!(self.block_at(from + at, size, room)?, Block::Whole(_)) {
                return Ok(Some(class));
            }
        }
        Ok(None)
    }

    /// A record's head, stamp and key, once it is known to be whole.
    pub(super) fn known(&self, block: usize) -> Result<Whole> {
        let stamp = self.map.word(block + STAMP)?;
        let (head, key) = self.key_at(block)?;
        Ok(Whole { head, stamp, key })
    }

    /// Whether a span's entry says that it holds parts of values.
    pub(super) fn is_part(&self, span: usize) -> bool {
        self.state(&Plan::new(), span).is_ok_and(|State { class, .. }| class == class::PART)
    }
}

/// Whether a record says that its key is gone.
pub(super) fn is_removal(head: &Head) -> bool {
    head.kind == Kind::Removal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dict::{Dict, record};
    use crate::name::Name;

    #[test]
    fn spans_that_many_values_claim_are_looked_at_a_few_times() {
        let name = Name::local(format!("claims {}", std::process::id())).unwrap();
        let dict = Dict::create_new(name, 1 << 20).unwrap();
        let value = vec![7; 20_000];
        dict.set_bytes("original", &value).unwrap();
        let heap = dict.heap();
        let block = |survey: &Survey| survey.records.last().unwrap().1;
        let original = block(&heap.survey(Trust::Table).unwrap());
        let (mut head, _) = heap.key_at(original).unwrap();
        let numbers = heap.map.read_to_vec(original + head.spans_at(), 4 * head.span_count(heap.shape)).unwrap();
        let size = heap.block(&Plan::new(), original).unwrap().2;
        // Records of the same class, each of which says that its value is that one.
        for nth in 0..30_u8 {
            dict.set_bytes(&format!("forged{nth:02}"), &vec![1; size - HEAD - 8]).unwrap();
        }
        let survey = heap.survey(Trust::Table).unwrap();
        assert_eq!(survey.records.len(), 31);
        for (_, block) in survey.records.iter().filter(|(_, block)| *block != original) {
            let key = heap.known(*block).unwrap();
            head.version = key.stamp;
            let sum = head.sum(dict.seed, &key.key, &value) ^ record::place(*block, key.stamp);
            heap.map.put_words(block + record::VERSION, &[head.version, head.what(), sum]).unwrap();
            heap.map.write_at(block + head.spans_at(), &numbers).unwrap();
        }
        let survey = heap.survey(Trust::Table).unwrap();
        assert_eq!((survey.records.len(), survey.broken.len()), (usize::from(LOOKS), 31 - usize::from(LOOKS)));
    }
}
