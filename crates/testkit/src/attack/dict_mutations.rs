//! Mutations of a dict's structures: the redo log, the index, records and their values, spans, the
//! change log and the words.
//!
//! Each derives its values from what is there, so that they pass the first checks: an offset that
//! leads into another structure, a list that leads to itself, a length just above its block.

use super::attacker::Object;
use super::layout::{self, LINE, PAYLOAD, RECORD, dict};
use super::mutations::extreme;
use super::random::Random;
use super::script::{Step, Target};

/// Lines of the index that are looked at: enough for what the victims put there.
const MOST_LINES: usize = 512;
/// Bits of a slot that hold an eighth of an offset; and of BUCKETS that hold the count.
const PLACE: u64 = (1 << 40) - 1;

/// Returns the place of each slot that leads to a record, with the record's block.
pub(super) fn records(object: &Object) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for line in lines(object) {
        let bytes = object.bytes(line, LINE);
        for (nth, slot) in bytes.chunks_exact(8).take(7).enumerate() {
            let word = u64::from_le_bytes(slot.try_into().expect("8 bytes"));
            let block = usize::try_from((word & PLACE) * 8).unwrap_or(0);
            if word != 0 && block >= object.shape.heap && block < object.total {
                found.push((line + 8 * nth, block));
            }
        }
    }
    found
}

/// Returns where the first lines of the index's buckets are.
fn lines(object: &Object) -> Vec<usize> {
    let shape = &object.shape;
    let count = usize::try_from(object.word(dict::BUCKETS) & PLACE).unwrap_or(0).min(MOST_LINES);
    let mut found = Vec::new();
    let mut span = (usize::MAX, 0);
    for bucket in 0..count {
        let which = bucket / shape.lines();
        if span.0 != which {
            let word = object.word(shape.directory + 8 * which);
            span = (which, usize::try_from(word).unwrap_or(0));
        }
        if span.1 == 0 || span.1 > shape.spans {
            continue;
        }
        found.push(shape.start(span.1 - 1) + LINE * (bucket % shape.lines()));
    }
    found
}

/// Returns a record: its slot in the index, and its block.
fn record(object: &Object, random: &mut Random) -> Option<(usize, usize)> {
    (!object.records.is_empty()).then(|| object.records[random.index(object.records.len())])
}

fn line(object: &Object, random: &mut Random) -> Option<usize> {
    let all = lines(object);
    (!all.is_empty()).then(|| all[random.index(all.len())])
}

/// Returns an offset in some structure of the dict.
fn place(object: &Object, random: &mut Random) -> usize {
    let shape = &object.shape;
    match random.below(12) {
        0 => layout::LOCK,
        1 => PAYLOAD,
        2 => dict::REDO_LEN,
        3 => dict::REDO_LOG,
        4 => shape.ring,
        5 => shape.directory,
        6 => shape.entry(random.index(shape.spans)),
        7 => shape.start(random.index(shape.spans)),
        8 => object.total - 8,
        9 => dict::BUCKETS,
        _ => record(object, random).map_or(shape.heap, |(slot, block)| random.pick(&[slot, block, block + 8])),
    }
}

/// Returns a number of a span that exists, or that just does not.
fn span(object: &Object, random: &mut Random) -> u64 {
    let used = object.word(dict::USED);
    match random.below(6) {
        0 => object.shape.spans as u64,
        1 => object.shape.spans as u64 + 1,
        2 => used,
        3 => u64::from(u32::MAX),
        _ => random.below(used.max(1)),
    }
}

/// Makes a mutation.
pub(super) fn apply(object: &mut Object, step: &Step, random: &mut Random) {
    match step.target {
        Target::RedoLog => redo_log(object, step.variant, random),
        Target::Directory => directory(object, step.variant, random),
        Target::Buckets => buckets(object, step.variant, random),
        Target::Records => records_of(object, step.variant, random),
        Target::Values => super::values::apply(object, step.variant, random),
        Target::Spans => spans(object, step.variant, random),
        Target::Ring => ring(object, step.variant, random),
        Target::Words => words(object, step.variant, random),
        Target::Pending => pending(object, step.variant, random),
        _ => boot(object, step.variant, random),
    }
}

fn redo_log(object: &mut Object, variant: u8, random: &mut Random) {
    let most = object.shape.pairs as u64;
    let count = match variant {
        0 => random.pick(&[1, 2, 7, most, most + 1]),
        1 => return object.put(dict::REDO_LEN, u64::MAX),
        2 => return object.put(dict::REDO_LEN, extreme(object, random)),
        3 => most,
        _ => 1 + random.below(16),
    };
    for pair in 0..count.min(most).min(512) {
        let at = dict::REDO_LOG + 16 * usize::try_from(pair).unwrap_or(0);
        let (to, word) = match variant {
            4 => (dict::REDO_LEN, count),
            5 => (dict::REDO_LOG + 16 * random.index(512), extreme(object, random)),
            _ => (place(object, random), extreme(object, random)),
        };
        object.put(at, if random.once_in(8) { extreme(object, random) } else { to as u64 });
        object.put(at + 8, word);
    }
    object.put(dict::REDO_LEN, count);
}

fn directory(object: &mut Object, variant: u8, random: &mut Random) {
    let shape = object.shape;
    let most = (shape.spans * shape.lines()) as u64;
    let first = object.word(shape.directory);
    let upper = object.word(dict::BUCKETS) & !PLACE;
    match variant {
        0 => object.put(dict::BUCKETS, upper | random.pick(&[0, 1, 63, 65, PLACE, most, most + 1])),
        1 => object.put(dict::BUCKETS, extreme(object, random)),
        2 => object.put(shape.directory + 8 * random.index(shape.spans), span(object, random).wrapping_add(1)),
        3 => object.put(shape.directory + 8 * random.index(shape.spans.min(4)), random.pick(&[0, u64::MAX, PLACE])),
        // All buckets lie in one span, as many as there can be.
        4 => {
            let words = first.to_le_bytes().repeat(shape.spans);
            object.put_bytes(shape.directory, &words);
            object.put(dict::BUCKETS, upper | most);
        }
        // The same, and all slots of that span lead to one record; the lines may continue one
        // another.
        5 => {
            let index = usize::try_from(first).unwrap_or(0).saturating_sub(1).min(shape.spans - 1);
            let begin = shape.start(index);
            let slot = record(object, random).map_or(0, |(slot, _)| object.word(slot));
            let chained = random.once_in(2);
            let mut bytes = Vec::with_capacity(shape.span);
            for nth in 0..shape.lines() {
                (0..7).for_each(|_| bytes.extend_from_slice(&slot.to_le_bytes()));
                let next = if chained && nth + 1 < shape.lines() { begin + LINE * (nth + 1) } else { 0 };
                bytes.extend_from_slice(&(next as u64).to_le_bytes());
            }
            object.put_bytes(begin, &bytes);
            let words = first.to_le_bytes().repeat(shape.spans);
            object.put_bytes(shape.directory, &words);
            object.put(dict::BUCKETS, upper | random.pick(&[most, most / 2, most / 16]));
            object.put(dict::SWEEP, random.below(2));
        }
        _ => object.put(dict::BUCKETS, object.word(dict::BUCKETS).wrapping_add(1 << 40)),
    }
}

fn buckets(object: &mut Object, variant: u8, random: &mut Random) {
    let Some(line) = line(object, random) else { return };
    let next = line + 56;
    let Some((slot, block)) = record(object, random) else { return };
    let word = object.word(slot);
    match variant {
        0 => object.put(next, line as u64),
        1 => {
            let other = self::line(object, random).unwrap_or(line);
            object.put(next, other as u64);
            object.put(other + 56, line as u64);
        }
        2 => object.put(next, extreme(object, random)),
        3 => {
            let to = place(object, random);
            object.put(next, to as u64 | random.below(2));
        }
        4 => (0..7).for_each(|nth| object.put(line + 8 * nth, word)),
        // One record in every slot.
        5 => {
            for line in lines(object) {
                object.put_bytes(line, &word.to_le_bytes().repeat(7));
            }
        }
        6 => object.put(slot, word & !PLACE | random.pick(&[PLACE, object.total as u64 / 8, block as u64 / 8 + 1])),
        _ => {
            let to = place(object, random);
            object.put(slot, (word & !PLACE) | (to as u64 / 8));
        }
    }
}

/// Bits 24 to 63 of a record's word at 24: the length of its value.
fn with_length(word: u64, len: u64) -> u64 {
    word & ((1 << 24) - 1) | len << 24
}

const IN_SPANS: u64 = 1 << 23;

/// Makes a record in spans of this length, which names the spans from some span on.
fn in_spans(object: &mut Object, block: usize, len: u64, same: bool, random: &mut Random) {
    let word = object.word(block + 24);
    let list = block + RECORD + ((word & 0xffff) as usize).next_multiple_of(4);
    let first = u32::try_from(random.index(object.shape.spans)).unwrap_or(0);
    let count = usize::try_from(len).unwrap_or(0).div_ceil(object.shape.span).min(1 << 17);
    let numbers = (0..u32::try_from(count).unwrap_or(0)).map(|nth| if same { first } else { first.wrapping_add(nth) });
    let bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
    object.put_bytes(list, &bytes);
    object.put(block + 24, with_length(word | IN_SPANS, len));
}

/// Records that a mutation of many is made to.
const MANY: usize = 48;

/// Returns this block, or those of many records. The lists of their spans lie in one another: the
/// last ones are whole.
fn many(object: &Object, block: usize, random: &mut Random) -> Vec<usize> {
    if random.once_in(2) {
        return vec![block];
    }
    (0..MANY).filter_map(|_| record(object, random)).map(|(_, block)| block).collect()
}

fn records_of(object: &mut Object, variant: u8, random: &mut Random) {
    let Some((_, block)) = record(object, random) else { return };
    let word = object.word(block + 24);
    let commit = object.word(dict::COMMIT);
    let total = object.total as u64;
    match variant {
        // Not there yet, and before it is itself, or what is nowhere.
        0 => {
            let before = random.pick(&[block as u64, 0, u64::MAX, total]);
            object.put(block + 8, before);
            object.put(block, commit.wrapping_add(random.pick(&[1, 2, 1000])));
        }
        1 => object.put(block, extreme(object, random)),
        2 => object.put(block + 16, extreme(object, random)),
        // Lengths far above the block, which an object that was extended has bytes for.
        3 => {
            let mut len = random.pick(&[0, 1 << 20, 1 << 31, PLACE, total]);
            if random.once_in(2) {
                len = random.pick(&[128 << 20, 190 << 20]);
                object.set_len(total + (200 << 20));
            }
            for block in many(object, block, random) {
                let word = object.word(block + 24);
                object.put(block + 24, with_length(word & !IN_SPANS, len));
            }
        }
        // Just above what its block has room for.
        4 => {
            let len = word >> 24;
            object.put(block + 24, with_length(word, len + random.pick(&[1, 8, 16, 64, 512])));
        }
        5 => object.put(block + 24, word & !0xffff | random.pick(&[0, 1, 1024, 1025, 0xffff])),
        6 => object.put(block + 24, word ^ random.pick(&[IN_SPANS, 1 << 16, 1 << 17, 2 << 16, 0x7f << 16])),
        // Values of the extended object, under many keys, so that one of them is read.
        7 => {
            let len = random.pick(&[200 << 20, 1 << 30, 2 << 30]);
            object.set_len(total + len + (1 << 20));
            let same = random.once_in(2);
            for block in many(object, block, random) {
                in_spans(object, block, len, same, random);
            }
        }
        8 => {
            let len = random.pick(&[total / 2, total, total * 4, 64 << 20, 1 << 30]);
            for block in many(object, block, random) {
                in_spans(object, block, len, random.below(3) != 0, random);
            }
        }
        _ => {
            object.put(block + 32, random.next());
            let bytes: Vec<u8> = (0..8).map(|_| (random.next() & 0xff) as u8).collect();
            object.put_bytes(block + RECORD, &bytes);
        }
    }
}

fn spans(object: &mut Object, variant: u8, random: &mut Random) {
    let shape = object.shape;
    let used = usize::try_from(object.word(dict::USED)).unwrap_or(0).min(shape.spans);
    let nth = random.index(used.max(1));
    let entry = shape.entry(nth);
    let own = nth as u64 + 1;
    match variant {
        0 => object.put(dict::USED, random.pick(&[0, shape.spans as u64, shape.spans as u64 + 1, u64::MAX])),
        // A list of free spans that leads to itself.
        1 => {
            object.put(entry, 253);
            object.put(entry + 16, own | own << 32);
            object.put(dict::FREE, own);
        }
        2 => object.put(dict::FREE, span(object, random).wrapping_add(1)),
        // A class's list that leads to itself.
        3 => {
            let class = object.word(entry) & 0xff;
            object.put(entry + 16, own | own << 32);
            object.put(dict::CLASSES + 8 * usize::try_from(class).unwrap_or(0), own);
        }
        4 => object.put(dict::CLASSES + 8 * random.index(256), span(object, random).wrapping_add(1)),
        5 => object.put(entry, object.word(entry) & !0xff | random.pick(&[0, 1, 12, 187, 188, 251, 252, 253, 255])),
        // Blocks in use and the first free one.
        6 => {
            let word = object.word(entry);
            object.put(entry, word & 0xff | extreme(object, random) << 8);
            object.put(entry + 8, extreme(object, random));
        }
        // A free block that leads to itself.
        _ => {
            let word = object.word(entry);
            let first = random.below(8);
            object.put(entry, word & !(0x3ff_ffff << 34) | (first + 1) << 34);
            let size = match word & 0xff {
                class @ 1..=11 => (class + 5) * 8,
                _ => 64,
            };
            let at = shape.start(nth) + usize::try_from(first * size).unwrap_or(0);
            object.put(at + 8, first + 1);
        }
    }
}

fn ring(object: &mut Object, variant: u8, random: &mut Random) {
    let shape = object.shape;
    let (head, size) = (object.word(dict::HEAD), shape.ring_size as u64);
    match variant {
        0 => object.put(dict::HEAD, head.wrapping_add(random.pick(&[1, 8, size, size * 2, 1 << 40]))),
        1 => object.put(dict::HEAD, extreme(object, random)),
        2 => object.put(dict::CLAIMED, extreme(object, random)),
        // Entries that are all empty, or that a step of nothing follows.
        3 => {
            let bytes = vec![random.pick(&[0, 0xff, 1]); shape.ring_size];
            object.put_bytes(shape.ring, &bytes);
            object.put(dict::HEAD, head.wrapping_add(size / 2 / 8 * 8));
        }
        4 => {
            let mut bytes = Vec::with_capacity(shape.ring_size);
            while bytes.len() < shape.ring_size {
                bytes.extend_from_slice(&random.next().to_le_bytes());
                bytes.extend_from_slice(&(random.next() & 0xff_ffff).to_le_bytes());
            }
            object.put_bytes(shape.ring, &bytes);
            object.put(dict::HEAD, head.wrapping_add(random.below(size)));
        }
        // The shortest changes of a key that no victim watches, as fast as a reader goes through
        // them.
        5 => {
            if object.bytes(shape.ring, 16) != [0; 16] {
                object.put_bytes(shape.ring, &vec![0; shape.ring_size]);
            }
            for _ in 0..8 {
                let to = object.word(dict::HEAD).wrapping_add((size / 2).min(4096 * 16));
                object.put(dict::CLAIMED, to);
                object.put(dict::HEAD, to);
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        // Ever new changes.
        _ => {
            let entry = [1_u64.to_le_bytes(), 0_u64.to_le_bytes()].concat();
            object.put_bytes(shape.ring, &entry.repeat(shape.ring_size / 16));
            let to = head.wrapping_add(size / 16 * 16);
            object.put(dict::CLAIMED, to);
            object.put(dict::HEAD, to);
        }
    }
}

fn words(object: &mut Object, variant: u8, random: &mut Random) {
    let commit = object.word(dict::COMMIT);
    match variant {
        0 => object.put(
            dict::COMMIT,
            random.pick(&[0, 1, commit.wrapping_sub(1), commit.wrapping_add(1), u64::MAX, u64::MAX - 1]),
        ),
        1 => object.put(dict::FLOOR, random.pick(&[commit, commit.wrapping_add(1), u64::MAX, 0])),
        2 => object.put(dict::LEN, extreme(object, random)),
        3 => object.put(dict::SWEEP, random.pick(&[1, 2, u64::MAX, PLACE, object.word(dict::BUCKETS) & PLACE])),
        4 => object.put(dict::FLUSHED, extreme(object, random)),
        _ => object.put(PAYLOAD + 8 * random.index(512), extreme(object, random)),
    }
}

/// The lists of what the next flush frees, which are relinked again and again in a loop.
fn pending(object: &mut Object, variant: u8, random: &mut Random) {
    let list = random.pick(&[dict::PENDING, dict::REMOVED, dict::REMOVED_BEFORE]);
    let Some((_, block)) = record(object, random) else { return };
    let first = usize::try_from(object.word(list)).unwrap_or(0);
    let first = if object.shape.span_of(first).is_some() { first } else { block };
    match variant {
        0 => {
            object.put(first + 8, first as u64);
            object.put(list, first as u64);
        }
        1 => {
            object.put(first + 8, block as u64);
            object.put(block + 8, first as u64);
            object.put(list, first as u64);
        }
        2 => object.put(list, extreme(object, random)),
        3 => object.put(dict::PENDING_BYTES, extreme(object, random)),
        _ => {
            let to = place(object, random);
            object.put(list, to as u64);
        }
    }
}

fn boot(object: &mut Object, variant: u8, random: &mut Random) {
    match variant {
        0 => object.put(dict::BOOT, random.next()),
        1 => object.put(dict::BOOT, 0),
        2 => object.put(dict::DURABLE, random.below(8)),
        3 => {
            object.put(dict::BOOT, random.next());
            object.put(dict::DURABLE, 2);
        }
        _ => {
            object.put(layout::BOOT_ID, random.next());
            object.put(layout::BOOT_ID + 8, random.next());
            object.put(dict::DURABLE, random.next());
        }
    }
}
