//! A second reader, written after `docs/format.md` alone, finds the same entries in a golden dict
//! as the library.

use std::collections::BTreeMap;
use std::fs;

use mmf::{Dict, Encoding};

use testkit::TempDir;

use crate::support::packed::unpack;

const P: usize = 20480;

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// A count, a length or an offset in a file that this process can hold in memory.
fn size(word: u64) -> usize {
    usize::try_from(word).unwrap()
}

fn number(bytes: &[u8], at: usize) -> usize {
    size(word(bytes, at))
}

/// The lower 40 bits of a word.
fn low_40(word: u64) -> u64 {
    word & ((1 << 40) - 1)
}

/// Sizes and places that follow from the capacity.
struct Sizes {
    span: usize,
    directory: usize,
    heap: usize,
}

fn sizes(bytes: &[u8]) -> Sizes {
    let c = number(bytes, 72) - P;
    let span = (c / 512).next_power_of_two().clamp(4096, 1 << 20).max((c / 16384).next_power_of_two());
    let side = (c / 64).clamp(16384, 1 << 20) / 4096 * 4096;
    let directory = P + 4096 + 2 * side;
    let table = (directory + 8 * (c / span)).next_multiple_of(32);
    Sizes { span, directory, heap: (table + 32 * (c / span)).next_multiple_of(4096) }
}

/// Each key with its kind, its value's bytes and its version.
fn entries(bytes: &[u8]) -> BTreeMap<String, (u64, Vec<u8>, u64)> {
    let Sizes { span, directory, heap } = sizes(bytes);
    let place = |stored: usize| heap + (stored - 1) * span;
    let (commit, floor) = (word(bytes, P), word(bytes, P + 8));
    let mut entries = BTreeMap::new();
    for bucket in 0..size(low_40(word(bytes, P + 16))) {
        let own = number(bytes, directory + 8 * (bucket / (span / 64)));
        let mut line = place(own) + 64 * (bucket % (span / 64));
        while line != 0 {
            for slot in (0..7).map(|nth| word(bytes, line + 8 * nth)).filter(|slot| *slot != 0) {
                let block = size(low_40(slot) * 8);
                assert!(word(bytes, block) != 0 && word(bytes, block) <= commit, "no change is under way");
                let (version, what) = (word(bytes, block + 16), word(bytes, block + 24));
                let (key_len, kind, len) = (size(what & 0xffff), (what >> 16) & 0x7f, size(what >> 24));
                let behind = block + 40 + key_len;
                let key = String::from_utf8(bytes[block + 40..behind].to_vec()).unwrap();
                let value = if what >> 23 & 1 == 0 {
                    bytes[behind..behind + len].to_vec()
                } else {
                    let numbers = bytes[behind.next_multiple_of(4)..].chunks(4).take(len.div_ceil(span));
                    let parts = numbers.flat_map(|nth| {
                        let from = heap + u32::from_le_bytes(nth.try_into().unwrap()) as usize * span;
                        bytes[from..from + span].to_vec()
                    });
                    parts.take(len).collect()
                };
                if kind != 2 && version > floor {
                    assert_eq!(entries.insert(key, (kind, value, version)), None, "a key twice");
                }
            }
            line = number(bytes, line + 56);
        }
    }
    assert_eq!(entries.len(), number(bytes, P + 64));
    entries
}

/// The type of a value's first byte, as MessagePack has it, and what lies behind the value.
fn skip(bytes: &[u8]) -> (&'static str, &[u8]) {
    let (first, rest) = bytes.split_first().unwrap();
    let wide = |count: usize| {
        let (len, rest) = rest.split_at(count);
        (len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
    };
    let many = |(count, rest): (usize, _)| (0..count).fold(rest, |rest, _| skip(rest).1);
    let low = usize::from(*first);
    match first {
        0x00..=0x7f | 0xe0..=0xff => ("int", rest),
        0x80..=0x8f => ("map", many((2 * (low & 15), rest))),
        0x90..=0x9f => ("array", many((low & 15, rest))),
        0xa0..=0xbf => ("str", &rest[low & 31..]),
        0xc0 => ("nil", rest),
        0xc2 | 0xc3 => ("bool", rest),
        0xc4..=0xc6 => ("bin", {
            let (len, rest) = wide(1 << (low - 0xc4));
            &rest[len..]
        }),
        0xca => ("float 32", &rest[4..]),
        0xcb => ("float 64", &rest[8..]),
        0xcc..=0xcf => ("int", &rest[1 << (low - 0xcc)..]),
        0xd0..=0xd3 => ("int", &rest[1 << (low - 0xd0)..]),
        0xd9..=0xdb => ("str", {
            let (len, rest) = wide(1 << (low - 0xd9));
            &rest[len..]
        }),
        0xdc | 0xdd => ("array", many(wide(2 << (low - 0xdc)))),
        0xde | 0xdf => ("map", {
            let (count, rest) = wide(2 << (low - 0xde));
            many((2 * count, rest))
        }),
        other => panic!("{other:#x} is of no type that the golden dict has"),
    }
}

#[test]
fn a_golden_dict_is_read_by_the_page_alone() {
    let bytes = unpack(include_bytes!("../golden/dict-types.mmf"));
    let found = entries(&bytes);
    let mut types: Vec<&str> = Vec::new();
    for (kind, value, _) in found.values() {
        if *kind == 1 {
            let (its_type, behind) = skip(value);
            assert!(behind.is_empty(), "something behind a value");
            types.push(its_type);
        }
    }
    types.sort_unstable();
    types.dedup();
    assert_eq!(types, ["array", "bin", "bool", "float 32", "float 64", "int", "map", "nil", "str"]);

    let dir = TempDir::new();
    fs::write(dir.join("dict"), &bytes).unwrap();
    let dict = Dict::open(dir.join("dict")).unwrap();
    let theirs: BTreeMap<_, _> = (dict.entries().unwrap())
        .map(|entry| (entry.key, (u64::from(entry.encoding == Encoding::MessagePack), entry.value, entry.version)))
        .collect();
    assert_eq!(found, theirs);
}
