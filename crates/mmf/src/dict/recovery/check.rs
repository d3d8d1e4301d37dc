//! [`Dict::check`](crate::dict::handle::Dict::check): compares records, index, spans and lists with
//! each other.
//!
//! The problem: a check must find each fault in a dict that any process may have damaged, report
//! it, and continue. A flush after a failed sync relies on it.
//!
//! The algorithm, while no process writes:
//!
//! 1. Walk all buckets. Each slot must lead to a valid record, from the bucket of its key, with a
//!    stamp up to COMMIT, and no other slot leads there.
//! 2. Of each key only one record may be in the index. Each span of a large value belongs to one
//!    value. The number of keys must be LEN.
//! 3. Compare COMMIT, FLOOR and USED with what was found.
//! 4. Walk the three lists of the next flush. Each record must be valid, in one list only, and not
//!    in the index. Their bytes must be PENDING_BYTES.
//! 5. Walk the list of free spans.
//! 6. Compare each span's entry with its blocks: counts, free blocks, stamps, and that each record
//!    is in the index or in a list.
//! 7. Walk the lists of spans with room, and compare them with the entries.
//!
//! Why it ends: the lines of all buckets, and the spans of each list, are bounded by the spans that
//! exist. Each block is verified once, and a deadline bounds the time.
//!
//! Cost: reads each record once or twice. Private memory grows with the number of records.

use std::collections::HashSet;

use crate::dict::format::layout::{at, class, number};
use crate::dict::format::record;
use crate::dict::format::record::{MAX_VERSION, RecordKind, STAMP};
use crate::dict::format::slot::{LINE_SLOTS, NEXT_LINE, block_of, bucket, bucket_count, tag};
use crate::dict::format::span::{BLOCKS_USED, NEXT_FREE, SPAN_LINKS, SpanState};
use crate::dict::store::spans::Spans;
use crate::dict::store::storage::Storage;
use crate::dict::store::verifier::{Block, ScanBuffer};
use crate::dict::store::write_batch::WriteBatch;
use crate::dict::{Dict, Report};
use crate::error::{ErrorKind, Result};
use crate::segment::Deadline;

impl Dict {
    /// Checks the dict. The caller ensures that no process writes, or compares the generation
    /// before and after.
    pub(in crate::dict) fn check_now(&self, report: &mut Report, until: Deadline) -> Result<()> {
        let storage = self.storage();
        // Peer processes may have grown the object.
        storage.map.refresh()?;
        let check = Check {
            storage,
            report,
            buffer: ScanBuffer::new(until),
            seen: HashSet::new(),
            led: Vec::new(),
            lines: 0,
            last_line: None,
        };
        match check.run() {
            // The check cannot continue after this damage, so the error becomes its last finding.
            Err(error) if matches!(error.kind(), ErrorKind::Damaged { .. }) => {
                report.add(None, None, error.kind().to_string());
                Ok(())
            }
            outcome => outcome,
        }
    }
}

/// The use of a span according to what leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Unknown,
    Free,
    Part,
}

/// A check in progress.
struct Check<'a> {
    storage: Storage<'a>,
    report: &'a mut Report,
    buffer: ScanBuffer,
    /// The blocks that slots lead to, and then those of the lists. Each is verified once.
    seen: HashSet<usize>,
    /// The key's hash and the block of each valid record that a slot leads to.
    led: Vec<(u64, usize)>,
    /// The number of visited lines, and the largest offset of one.
    lines: usize,
    last_line: Option<usize>,
}

impl Check<'_> {
    fn run(mut self) -> Result<()> {
        let map = self.storage.map;
        let there = self.storage.spans().mapped_spans();
        let used = map.word(at::USED)?;
        if number(used) > there {
            self.report.add(None, Some(at::USED), format!("{used} spans are in use, but there are {there}"));
        }
        let mut roles = vec![Role::Unknown; there];
        self.index()?;
        self.led.sort_unstable();
        let entries = self.records(&mut roles)?;
        self.report.entries = entries;
        self.words(used)?;
        let len = map.word(at::LEN)?;
        if len != entries {
            self.report.add(None, Some(at::LEN), format!("it claims {len} entries, but has {entries}"));
        }
        let kept = self.lists(&mut roles)?;
        self.free_spans(&mut roles)?;
        let mut led: Vec<usize> = self.led.iter().map(|(_, block)| *block).collect();
        led.extend(kept);
        led.sort_unstable();
        let mut listing = Vec::new();
        for (span, role) in roles.into_iter().enumerate().take(number(used)) {
            listing.extend(self.span(span, role, &led)?.map(|class| (class, span)));
        }
        listing.sort_unstable();
        self.lists_with_room(&listing)
    }

    /// Compares COMMIT with FLOOR, and USED with the last span that something leads to.
    fn words(&mut self, used: u64) -> Result<()> {
        let map = self.storage.map;
        let commit = map.word(at::COMMIT)?;
        if commit >= MAX_VERSION || map.word(at::FLOOR)? > commit {
            self.report.add(None, Some(at::COMMIT), format!("no change has version {commit}"));
        }
        let index = (0..self.storage.layout.spans).map(|nth| map.word(self.storage.layout.directory + 8 * nth));
        let mut last = index.collect::<Result<Vec<u64>>>()?.into_iter().max().unwrap_or(0);
        for block in self.led.iter().map(|(_, block)| *block).chain(self.last_line) {
            last = last.max(self.storage.layout.span_of(block).map_or(0, |span| span as u64 + 1));
        }
        if last > used {
            self.report.add(None, Some(at::USED), format!("{used} spans are in use, but so is span {}", last - 1));
        }
        Ok(())
    }

    /// Walks the lists of spans with room, and compares them with `listing`, the spans whose
    /// entries say that they are listed.
    fn lists_with_room(&mut self, listing: &[(u64, usize)]) -> Result<()> {
        let (storage, map) = (self.storage, self.storage.map);
        let mut listed = Vec::with_capacity(listing.len());
        for class in 0..256 {
            let (mut next, mut before) = (map.word(Spans::class_list(class))?, 0);
            while next != 0 {
                let Ok(Some(span)) = storage.spans().span_number(next) else { break };
                let links = map.word(storage.layout.entry(span) + SPAN_LINKS)?;
                if listed.len() >= listing.len() || links >> 32 != before {
                    break;
                }
                listed.push((class, span));
                (before, next) = (next, links & 0xffff_ffff);
            }
            if next != 0 {
                let what = format!("the list of spans with room for class {class} leads to {next}");
                self.report.add(None, Some(Spans::class_list(class)), what);
            }
        }
        listed.sort_unstable();
        if listed != listing {
            self.report.add(
                None,
                Some(at::CLASSES),
                "the lists of spans with room differ from the entries of the spans",
            );
        }
        Ok(())
    }

    /// Walks all buckets.
    fn index(&mut self) -> Result<()> {
        let (storage, map) = (self.storage, self.storage.map);
        let count = bucket_count(map.word(at::BUCKETS)?);
        let most = self.storage.spans().mapped_spans() << storage.layout.lines_shift();
        if number(count) > most {
            self.report.add(None, Some(at::BUCKETS), format!("its index claims {count} buckets"));
            return Ok(());
        }
        for nth in 0..count {
            let mut line = match storage.index().line(nth) {
                Ok(line) => Some(line),
                Err(error) => {
                    self.report.add(None, None, error.kind().to_string());
                    continue;
                }
            };
            while let Some(at) = line {
                self.lines += 1;
                self.buffer.spend(&storage, 0)?;
                self.last_line = self.last_line.max(Some(at));
                if self.lines > most {
                    self.report.add(None, Some(at), "its index has no end");
                    return Ok(());
                }
                let mut words = [0; 8];
                if map.read_words(at, &mut words).is_err() {
                    self.report.add(None, Some(at), "a part of its index is gone");
                    break;
                }
                for (slot, word) in words[..LINE_SLOTS].iter().enumerate().filter(|(_, word)| **word != 0) {
                    self.slot(at + 8 * slot, *word, nth, count)?;
                }
                line = storage.index().next_line(words[LINE_SLOTS]).unwrap_or_else(|error| {
                    self.report.add(None, Some(at + NEXT_LINE), error.kind().to_string());
                    None
                });
            }
        }
        Ok(())
    }

    /// Checks a slot of bucket `nth`, and the record that it leads to.
    fn slot(&mut self, slot: usize, word: u64, nth: u64, count: u64) -> Result<()> {
        let block = block_of(word);
        let Ok((_, _, size)) = self.storage.blocks().block(&WriteBatch::new(), block) else {
            self.report.add(None, Some(slot), format!("a slot leads to {block}, which is not a record"));
            return Ok(());
        };
        if !self.seen.insert(block) {
            self.report.add(None, Some(slot), "two slots lead to one record");
            return Ok(());
        }
        match self.storage.verifier().block_at(block, size, &mut self.buffer)? {
            Block::Empty => {
                self.report.add(None, Some(slot), format!("a slot leads to {block}, which is not a record"));
            }
            Block::Invalid(key) => self.report.add(key.as_deref(), Some(block), "its value is damaged"),
            Block::Valid(whole) => {
                let hash = record::hash(self.storage.seed, &whole.key);
                if tag(hash) != word >> 40 || bucket(hash, count) != nth {
                    self.report.add(Some(&whole.key), Some(slot), "its slot is in the wrong bucket");
                }
                if whole.stamp > self.storage.map.word(at::COMMIT)? {
                    self.report.add(Some(&whole.key), Some(block), "its version is above the last change");
                }
                self.led.push((hash, block));
            }
        }
        Ok(())
    }

    /// Checks the valid records that slots lead to against each other. Returns how many count.
    fn records(&mut self, roles: &mut [Role]) -> Result<u64> {
        let floor = self.storage.map.word(at::FLOOR)?;
        let mut entries = 0;
        for same in self.led.chunk_by(|(a, _), (b, _)| a == b) {
            let mut known = Vec::with_capacity(same.len());
            self.buffer.spend(&self.storage, 0)?;
            for (_, block) in same {
                // The record was valid when its slot was checked. A check without a lock notices a
                // writer when it compares the generation.
                known.extend(self.storage.verifier().read_valid(*block).ok().map(|whole| (whole, *block)));
            }
            known.sort_by(|(a, _), (b, _)| a.key.cmp(&b.key));
            for same in known.chunk_by(|(a, _), (b, _)| a.key == b.key) {
                for (whole, block) in &same[1..] {
                    self.report.add(Some(&whole.key), Some(*block), "the key has two records");
                }
                let (whole, block) = &same[0];
                entries += u64::from(whole.head.kind != RecordKind::Removal && whole.head.version > floor);
                if whole.head.in_spans {
                    let spans = self.storage.values().span_list(*block, &whole.head).unwrap_or_default();
                    claim(roles, &spans, &whole.key, *block, self.report);
                }
            }
        }
        Ok(entries)
    }

    /// Walks the lists of records that the next flush frees, and returns their blocks.
    fn lists(&mut self, roles: &mut [Role]) -> Result<Vec<usize>> {
        let (storage, map) = (self.storage, self.storage.map);
        let (mut blocks, mut bytes) = (Vec::new(), 0);
        let led = std::mem::take(&mut self.seen);
        for list in [at::PENDING, at::REMOVED, at::REMOVED_BEFORE] {
            let mut block = number(map.word(list)?);
            while block != 0 {
                let Ok((_, _, size)) = storage.blocks().block(&WriteBatch::new(), block) else {
                    self.report.add(None, Some(list), format!("a list leads to {block}, which is not a record"));
                    break;
                };
                if !self.seen.insert(block) {
                    self.report.add(None, Some(list), "a list has no end, or continues in another list");
                    break;
                }
                if led.contains(&block) {
                    self.report.add(None, Some(block), "a list leads to a record that a slot leads to as well");
                }
                bytes += size;
                match storage.verifier().block_at(block, size, &mut self.buffer)? {
                    Block::Empty => self.report.add(None, Some(block), "a list leads to an empty block"),
                    Block::Invalid(key) => {
                        self.report.add(key.as_deref(), Some(block), "a value from before its last change is damaged");
                    }
                    Block::Valid(whole) if whole.head.in_spans => {
                        let spans = storage.values().span_list(block, &whole.head).unwrap_or_default();
                        bytes += spans.len() * storage.layout.span_size();
                        claim(roles, &spans, &whole.key, block, self.report);
                    }
                    Block::Valid(_) => {}
                }
                blocks.push(block);
                block = number(map.word(block + NEXT_FREE)?);
            }
        }
        let claimed = map.word(at::PENDING_BYTES)?;
        if claimed != bytes as u64 {
            self.report.add(None, Some(at::PENDING_BYTES), format!("{claimed} bytes are to be freed, not {bytes}"));
        }
        Ok(blocks)
    }

    /// Walks the list of free spans.
    fn free_spans(&mut self, roles: &mut [Role]) -> Result<()> {
        let map = self.storage.map;
        let mut next = map.word(at::FREE)?;
        while next != 0 {
            let span = match self.storage.spans().span_number(next) {
                Ok(Some(span)) if span < roles.len() => span,
                _ => {
                    self.report.add(None, Some(at::FREE), "the list of free spans leads to a span that does not exist");
                    break;
                }
            };
            if roles[span] != Role::Unknown {
                let what = format!("span {span} is free, but something is in it, or it is so twice");
                self.report.add(None, Some(self.storage.layout.entry(span)), what);
                break;
            }
            roles[span] = Role::Free;
            next = map.word(self.storage.layout.entry(span) + SPAN_LINKS)? & 0xffff_ffff;
        }
        Ok(())
    }

    /// Checks a span below USED against its entry. Returns its class if the entry says that it is
    /// listed. `led` has the sorted blocks that slots and lists lead to.
    fn span(&mut self, span: usize, role: Role, led: &[usize]) -> Result<Option<u64>> {
        let (storage, map, layout) = (self.storage, self.storage.map, self.storage.layout);
        let entry = layout.entry(span);
        let SpanState { class, live, free, listed } = storage.spans().state(&WriteBatch::new(), span)?;
        let mut wrong = |what: String| self.report.add(None, Some(entry), what);
        if role == Role::Free {
            if class::size(class).is_some() || class == class::INDEX {
                wrong(format!("span {span} is free, but its entry has class {class}"));
            }
            return Ok(None);
        }
        if (role == Role::Part) != (class == class::PART) {
            wrong(format!("span {span} has class {class}, which differs from its contents"));
            return Ok(None);
        }
        let Some(size) = class::size(class).filter(|size| *size <= layout.span_size()) else {
            if class != class::PART && class != class::INDEX {
                wrong(format!("span {span} has class {class}, but is not free"));
            }
            return Ok(None);
        };
        let most = layout.span_size() / size;
        let ever = number(map.word(entry + BLOCKS_USED)?);
        if ever > most || live > ever as u64 {
            wrong(format!("span {span} claims {live} blocks in use of {ever} of {most}"));
            return Ok(None);
        }
        let (mut block, mut unused) = (free, 0);
        while block != 0 && unused <= ever as u64 {
            if block > ever as u64 {
                break;
            }
            unused += 1;
            block = map.word(layout.span(span) + (number(block) - 1) * size + NEXT_FREE)?;
        }
        if block != 0 || unused + live != ever as u64 {
            wrong(format!("span {span}: {live} blocks in use and {unused} free ones are not the {ever} that it has"));
        }
        let listed = listed.then_some(class);
        if listed.is_some() && live >= most as u64 {
            self.report.add(None, Some(entry), format!("span {span} is listed, but has no room"));
        }
        if live == 0 {
            self.report.add(None, Some(entry), format!("span {span} is in use, but empty"));
        }
        if class > class::LAST {
            return Ok(listed);
        }
        let mut stamped = 0;
        for nth in 0..ever {
            if nth % 64 == 0 {
                self.buffer.spend(&storage, 0)?;
            }
            let block = layout.span(span) + nth * size;
            let has_stamp = map.word(block + STAMP)? != 0;
            stamped += u64::from(has_stamp);
            if has_stamp && led.binary_search(&block).is_err() {
                let found = storage.verifier().block_at(block, size, &mut self.buffer)?;
                let key = match &found {
                    Block::Valid(whole) => Some(&whole.key),
                    Block::Invalid(key) => key.as_ref(),
                    Block::Empty => None,
                };
                self.report.add(key.map(Vec::as_slice), Some(block), "nothing leads to this record");
            }
        }
        // After a failed sync an old page of the table may count fewer blocks than the index leads
        // to. The allocator would take those blocks for other records.
        let before = |offset: usize| led.partition_point(|block| *block < offset);
        let led_here = before(layout.span(span + 1)) - before(layout.span(span));
        if led_here as u64 != stamped {
            let what = format!("span {span} has {stamped} records, but {led_here} are led to");
            self.report.add(None, Some(entry), what);
        }
        if stamped != live {
            let what = format!("span {span} has {stamped} records, but claims {live}");
            self.report.add(None, Some(entry), what);
        }
        Ok(listed)
    }
}

/// Marks the spans of a value as used by it. Reports a span that something else uses.
fn claim(roles: &mut [Role], spans: &[usize], key: &[u8], block: usize, report: &mut Report) {
    for span in spans {
        match roles.get_mut(*span) {
            Some(role) if *role == Role::Unknown => *role = Role::Part,
            _ => report.add(
                Some(key),
                Some(block),
                "its value lies in a span that another record uses, or that is not in use",
            ),
        }
    }
}
