//! Mutations of what every segment has: the header, the lock's word, the slots, the version, the
//! length, and any bit.

use super::attacker::Object;
use super::layout::{self, PAYLOAD, SLOT, SLOT_COUNT, bit, header};
use super::random::Random;
use super::script::{Step, Target};

/// Returns a word that is hostile anywhere: an extreme, or one that leads just outside of
/// something.
pub(super) fn extreme(object: &Object, random: &mut Random) -> u64 {
    let total = object.total as u64;
    let len = object.len();
    match random.below(20) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => u64::MAX - 1,
        4 => i64::MAX as u64,
        5 => 1 << 63,
        6 => (1 << 40) - 1,
        7 => 1 << 40,
        8 => u64::from(u32::MAX),
        9 => 1 << 32,
        10 => 1 << 31,
        11 => total,
        12 => total - 8,
        13 => total + 8,
        14 => len,
        15 => len.saturating_sub(8),
        16 => len + 4096,
        17 => PAYLOAD as u64,
        18 => random.below(total),
        _ => random.next(),
    }
}

/// Makes a mutation, and returns whether it was one of these.
pub(super) fn apply(object: &mut Object, step: &Step, random: &mut Random) -> bool {
    match step.target {
        Target::Header => mutate_header(object, step.variant, random),
        Target::Lock => lock(object, step.variant, random),
        Target::Slots => slots(object, step.variant, random),
        Target::Version => version(object, step.variant, random),
        Target::Length => length(object, step.variant, random),
        Target::Bits => bits(object, step.variant, random),
        _ => return false,
    }
    true
}

/// Sealed mostly: a header whose checksum is wrong is refused at once.
fn mutate_header(object: &mut Object, variant: u8, random: &mut Random) {
    let word = extreme(object, random);
    match variant {
        0 => object.put(header::CAPACITY, word),
        1 => object.put(header::CAPACITY, object.total as u64 * random.pick(&[2, 3, 16, 1024])),
        2 => object.put(header::PAYLOAD, word),
        3 => {
            object.put_half(header::SLOTS, random.pick(&[0, 1, 255, 257, u32::MAX]));
            object.put_half(header::NAME_LEN, random.pick(&[0, 255, 257, u32::MAX]));
        }
        4 => object.put(random.pick(&[header::COMPATIBLE, header::READ_COMPATIBLE, header::INCOMPATIBLE]), word),
        5 => object.put_bytes(
            header::KIND,
            random.pick(&[b"region\0\0", b"dict\0\0\0\0", b"\xff\xff\xff\xff\xff\xff\xff\xff"]),
        ),
        6 => object.put(header::ID + 8 * random.index(2), random.next()),
        7 => {
            object.put_half(header::VERSION, random.pick(&[0, 2, u32::MAX]));
            object.put(header::CREATED, word);
        }
        _ => {
            let bytes: Vec<u8> = (0..64).map(|_| (random.next() & 0xff) as u8).collect();
            object.put_bytes(header::NAME + random.index(192), &bytes);
            return;
        }
    }
    if !random.once_in(4) {
        object.seal();
    }
}

/// Returns the slots that are occupied now.
fn occupied(object: &Object) -> Vec<usize> {
    let words: Vec<u64> = (0..4).map(|nth| object.word(layout::OCCUPIED + 8 * nth)).collect();
    (0..SLOT_COUNT).filter(|slot| words[slot / 64] >> (slot % 64) & 1 == 1).collect()
}

/// Returns a living slot mostly, else any.
fn living(object: &Object, random: &mut Random) -> usize {
    let all = occupied(object);
    if all.is_empty() || random.once_in(8) { random.index(SLOT_COUNT) } else { all[random.index(all.len())] }
}

fn lock(object: &mut Object, variant: u8, random: &mut Random) {
    let word = object.word(layout::LOCK);
    let tag = living(object, random) as u64 + 1;
    let readers = random.below(16) << bit::READERS;
    let new = match variant {
        // The tag of a participant that lives and holds nothing.
        0 => tag,
        1 => tag | readers | bit::STARVED,
        2 => word | random.pick(&[bit::STARVED, bit::POISON, bit::SLEEPERS, bit::WATCHED]),
        3 => word | readers,
        4 => random.pick(&[0, 257, 300, 0x7fff, 0xffff]) | (word & !0xffff),
        5 => 0,
        6 => random.next(),
        _ => word ^ (1 << random.below(64)),
    };
    object.put(layout::LOCK, new);
}

fn slots(object: &mut Object, variant: u8, random: &mut Random) {
    let slot = living(object, random);
    let at = layout::SLOTS + SLOT * slot;
    let group = 1 << (bit::READERS as usize + slot / 64);
    let lock = object.word(layout::LOCK);
    match variant {
        // A living participant that is said to read.
        0 => {
            object.put_half(at + 4, random.pick(&[1, 2, 1000]));
            object.put(layout::LOCK, lock | group);
        }
        1 => {
            object.put_half(at + 4, random.pick(&[u32::MAX, u32::MAX - 1, 1 << 31, 0]));
            object.put(layout::LOCK, lock | group);
        }
        2 => (0..4).for_each(|nth| object.put(layout::OCCUPIED + 8 * nth, u64::MAX)),
        3 => (0..4).for_each(|nth| object.put(layout::OCCUPIED + 8 * nth, 0)),
        4 => {
            for slot in 0..SLOT_COUNT {
                object.put_half(layout::SLOTS + SLOT * slot + 4, 1);
            }
            (0..4).for_each(|nth| object.put(layout::OCCUPIED + 8 * nth, u64::MAX));
            object.put(layout::LOCK, lock | 15 << bit::READERS);
        }
        _ => {
            let bytes: Vec<u8> = (0..SLOT).map(|_| (random.next() & 0xff) as u8).collect();
            object.put_bytes(at, &bytes);
            object.put(layout::OWN_WORDS + 8 * random.index(128), random.next());
        }
    }
}

fn version(object: &mut Object, variant: u8, random: &mut Random) {
    match variant {
        0 => object.put(layout::VERSION, object.word(layout::VERSION) | 1),
        1 => object.put(layout::VERSION, random.pick(&[0, 1, u64::MAX, u64::MAX - 1, 1 << 63])),
        2 => object.put(layout::VERSION, object.word(layout::VERSION).wrapping_add(random.below(4))),
        3 => object.put(layout::VERSION, object.word(layout::VERSION).wrapping_sub(2)),
        4 => {
            let queue = random.pick(&[layout::LOCK_QUEUE, layout::CHANGE_QUEUE]);
            object.put_half(queue, object.half_word(queue).wrapping_add(1));
            (0..4).for_each(|nth| object.put(queue + 8 + 8 * nth, u64::MAX));
        }
        _ => {
            let queue = random.pick(&[layout::LOCK_QUEUE, layout::CHANGE_QUEUE]);
            object.put_half(queue, random.half());
            (0..4).for_each(|nth| object.put(queue + 8 + 8 * nth, 0));
        }
    }
}

/// How far an object is extended beyond its capacity: sparse, so it takes no space.
const EXTENSIONS: [u64; 5] = [8, 100 << 20, 300 << 20, 2 << 30, 8 << 30];

fn length(object: &mut Object, variant: u8, random: &mut Random) {
    let total = object.total as u64;
    let beyond = total + random.pick(&EXTENSIONS);
    match variant {
        // The length of a region's contents, which a dict does not use.
        0 => object.put(layout::LENGTH, extreme(object, random)),
        1 => object.put(layout::LENGTH, object.len().saturating_sub(PAYLOAD as u64) + random.below(3)),
        2 => object.set_len(random.pick(&[0, 1, 1024, 4096, PAYLOAD as u64 - 1, PAYLOAD as u64])),
        3 => object.set_len(random.below(object.len().max(1))),
        4 => object.set_len(beyond),
        5 => {
            object.set_len(beyond);
            object.put(layout::LENGTH, beyond - PAYLOAD as u64 - random.below(2));
        }
        6 => {
            object.set_len(beyond);
            object.put(header::CAPACITY, beyond);
            object.put(layout::LENGTH, beyond - PAYLOAD as u64);
            object.seal();
        }
        _ => {
            let len = object.len();
            object.set_len(random.below(len.max(1)));
            object.set_len(len);
        }
    }
}

fn bits(object: &mut Object, variant: u8, random: &mut Random) {
    let end = match variant {
        0 => header::END,
        1 => PAYLOAD,
        2 if object.is_dict => object.shape.heap,
        _ => usize::try_from(object.len()).unwrap_or(PAYLOAD),
    };
    let from = if variant == 0 { 0 } else { layout::MACHINE };
    for _ in 0..1 + random.below(8) {
        let at = from + random.index(end.saturating_sub(from)) / 8 * 8;
        let word = object.word(at) ^ (1 << random.below(64));
        object.put(at, word);
    }
}
