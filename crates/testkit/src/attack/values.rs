//! Hostile keys and values of records: deep nesting, lengths that nothing backs, text that is none.

use super::attacker::Object;
use super::layout::RECORD;
use super::random::Random;

/// Kind of a record whose value is `MessagePack`.
const ENCODED: u64 = 1 << 16;
const KIND: u64 = 0x7f << 16;
/// Records, those with the longest values, that are written over at once.
const MANY: usize = 24;
/// The longest value that is written over.
const LONGEST: u64 = 1 << 16;

/// Writes over the key or the value of a record that lies whole in its block.
pub(super) fn apply(object: &mut Object, variant: u8, random: &mut Random) {
    // Those of which a victim reads the value as a type by name, and the longer ones: room for more
    // depth.
    let mut found: Vec<(usize, u64)> = object
        .records
        .iter()
        .map(|(_, block)| (*block, object.word(block + 24)))
        .filter(|(_, word)| word >> 23 & 1 == 0 && word & 0xffff <= 1024 && word >> 24 <= LONGEST)
        .collect();
    if found.is_empty() {
        return;
    }
    found.sort_by_key(|(_, word)| std::cmp::Reverse(word >> 24));
    let many = random.once_in(2);
    let count = if many { found.len().min(MANY) } else { 1 };
    for nth in 0..count {
        let at = if many { nth } else { random.index(found.len()) };
        write_over(object, variant, found[at], random);
    }
}

/// Writes over one record: its block, and its word with the lengths.
fn write_over(object: &mut Object, variant: u8, (block, word): (usize, u64), random: &mut Random) {
    let key_len = (word & 0xffff) as usize;
    let (key, value) = (block + RECORD, block + RECORD + key_len);
    let len = usize::try_from(word >> 24).unwrap_or(0);
    let bytes = match variant {
        // Arrays of one, and maps of one pair, each in the one before.
        0 => vec![0x91; len],
        1 => [0x81, 0xa0].repeat(len / 2),
        2 => [0xdc, 0x00, 0x01].repeat(len / 3),
        3 => [0xde, 0x00, 0x01, 0xc0].repeat(len / 4),
        // An array, map, text, run of bytes or extension of 4 GiB.
        4 => {
            let mut bytes = vec![random.pick(&[0xdd, 0xdf, 0xdb, 0xc6, 0xc9]), 0xff, 0xff, 0xff, 0xff];
            bytes.resize(len.max(5), 0xc0);
            bytes.truncate(len);
            bytes
        }
        5 => (0..len).map(|_| (random.next() & 0xff) as u8).collect(),
        // A key with control characters, or that is no text.
        6 => {
            let byte = random.pick(&[0, 0x1b, b'\n', 0x80, 0xff]);
            return object.put_bytes(key + random.index(key_len), &[byte]);
        }
        _ => {
            let mut bytes = vec![0x93; len / 2];
            bytes.resize(len, 0x00);
            bytes
        }
    };
    // The depth may also stand behind a whole number or a text, which is all that was asked for.
    let mut bytes = bytes;
    if let (Some(first), true) = (bytes.first_mut(), random.below(3) != 0) {
        *first = random.pick(&[0x01, 0x01, 0xa0]);
    }
    object.put(block + 24, word & !KIND | ENCODED);
    object.put_bytes(value, &bytes);
}
