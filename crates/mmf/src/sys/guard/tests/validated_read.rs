//! Several looks in a row, on pages that are there and that are not, beside the same one by one.

use std::ptr;

use super::region::{Region, STEP};
use crate::sys::guard::{self, Fault, Matches, validated_read as generic};

/// As [`guard::copy_validated`].
type Way = unsafe fn((*const u64, u64), *const u64, *const u64, &[u8], *mut [u8]) -> Result<Option<[u64; 4]>, Fault>;

const WAYS: [Way; 2] = [guard::copy_validated, generic::copy_validated];

/// The place of the word at so many bytes.
fn word(region: &Region, at: usize) -> *mut u64 {
    region.base().wrapping_add(at).cast()
}

fn place(bytes: &mut [u8]) -> *mut [u8] {
    ptr::from_mut(bytes)
}

#[test]
fn four_words_are_those_that_follow_each_other() {
    let region = Region::new(STEP, 0);
    region.number(3);
    let bytes = region.bytes(STEP - 64, 32);
    let expected: Vec<u64> = bytes.chunks(8).map(|bytes| u64::from_ne_bytes(bytes.try_into().unwrap())).collect();
    for way in [guard::load_four, generic::load_four] {
        // SAFETY: they lie in the region, aligned.
        assert_eq!(unsafe { way(word(&region, 64).cast()) }.unwrap().to_vec(), expected);
    }
}

#[test]
fn words_of_which_one_is_gone_are_a_fault() {
    guard::arm().unwrap();
    let region = Region::new(STEP, STEP);
    for here in 0..4 {
        for way in [guard::load_four, generic::load_four] {
            // SAFETY: they are aligned; those that are not there lie in the region too.
            assert_eq!(unsafe { way(region.border().wrapping_sub(8 * here)) }, Err(Fault));
        }
    }
    for here in 0..8 {
        let src = region.border().wrapping_sub(8 * here);
        // SAFETY: as above.
        assert_eq!(unsafe { guard::match_eight(src, 1, 1) }, Err(Fault));
        // SAFETY: as above.
        assert_eq!(unsafe { generic::match_eight(src, 1, 1) }, Err(Fault));
    }
}

#[test]
fn of_eight_words_those_match_that_have_the_bits() {
    const MASK: u32 = 0xffff_ff00;
    let region = Region::new(STEP, 0);
    let store = |words: [u64; 8]| {
        for (nth, value) in words.into_iter().enumerate() {
            // SAFETY: the word lies in the region, aligned, and no other thread has it.
            unsafe { word(&region, 8 * nth).write(value) };
        }
    };
    for wanted in [0, 0x1234_5600, 0x8000_0000, 0xffff_ff00] {
        for pattern in 0..256_u64 {
            let other = wanted ^ 0x100 << (pattern % 24);
            let words = std::array::from_fn(|nth| {
                let upper = if pattern >> nth & 1 == 1 { wanted } else { other };
                // What the mask has not is anything.
                u64::from(upper) << 32 | (0x35 * nth as u64 % 256) << 32 | 0xdead_0000 | nth as u64
            });
            store(words);
            let first = (pattern.trailing_zeros() as usize).min(7);
            let expected = Ok(Matches { bits: pattern, word: words[first] });
            // SAFETY: the eight lie in the region, aligned.
            assert_eq!(unsafe { guard::match_eight(region.base(), MASK, wanted) }, expected, "{wanted:x} {words:x?}");
            // SAFETY: as above.
            assert_eq!(unsafe { generic::match_eight(region.base(), MASK, wanted) }, expected, "{wanted:x} {words:x?}");
        }
    }
}

/// The word that stands there.
fn now(region: &Region, at: usize) -> u64 {
    // SAFETY: it lies in the region, aligned, and no other thread has it.
    unsafe { word(region, at).read() }
}

/// What of a region the looks go to: the offsets of the two words and of the three.
const FIRST: usize = 8;
const SECOND: usize = 24;
const SRC: usize = 104;

#[test]
fn what_is_behind_a_key_comes_with_the_words_around_it() {
    guard::arm().unwrap();
    let region = Region::new(STEP, 0);
    region.number(1);
    let expected = [SECOND, SRC, SRC + 8, SRC + 16].map(|at| now(&region, at));
    let (first, src) = ((word(&region, FIRST).cast_const(), now(&region, FIRST)), word(&region, SRC).cast_const());
    for len in (0..100).chain([255, 256, 257, 1000, 1024]) {
        let key = region.bytes(STEP - SRC - 24, len);
        for room in (16..200).chain([0, 255, 256, 257, 1000]) {
            for way in WAYS {
                let mut to = vec![0; room + 2];
                // SAFETY: all of it lies in the region, the words aligned; the place is this thread's.
                let found = unsafe { way(first, word(&region, SECOND), src, &key, place(&mut to[1..=room])) };
                assert_eq!(found, Ok(Some(expected)), "{len} {room}");
                assert_eq!(to[1..=room], region.bytes(STEP - SRC - 24 - len, room), "{len} {room}");
                assert_eq!([to[0], to[room + 1]], [0; 2], "{len} {room}");
            }
        }
        // Each byte counts, wherever it is.
        for at in 0..len {
            let mut other = key.clone();
            other[at] ^= 0x10;
            for way in WAYS {
                // SAFETY: as above.
                let found = unsafe { way(first, word(&region, SECOND), src, &other, place(&mut [])) };
                assert_eq!(found, Ok(None), "{at} of {len}");
            }
        }
    }
}

#[test]
fn a_word_that_changes_meanwhile_or_is_another_is_told() {
    guard::arm().unwrap();
    let region = Region::new(STEP, 0);
    for way in WAYS {
        // The copy itself is what changes them: it goes to where one of the words lies.
        for (first, second, more, same) in [
            (128, FIRST, 0, false),
            (FIRST, 128, 0, false),
            (128, 128, 0, false),
            (FIRST, 160, 0, true),
            (FIRST, 16, 1, false),
            (FIRST, 16, 0, true),
        ] {
            region.number(5);
            let first = (word(&region, first).cast_const(), now(&region, first) + more);
            let to = ptr::slice_from_raw_parts_mut(region.base().wrapping_add(120), 20);
            // SAFETY: all of it lies in the region, which no other thread has, and the words are aligned.
            let found = unsafe { way(first, word(&region, second), word(&region, 1000), &[], to) };
            assert_eq!(found.unwrap().is_some(), same, "{second}");
        }
    }
}

#[test]
fn a_page_that_is_gone_is_a_fault_wherever_it_is_missed() {
    guard::arm().unwrap();
    let region = Region::new(STEP, STEP);
    region.number(3);
    let mut room = [0_u8; 200];
    let (here, gone) = (word(&region, 0).cast_const(), region.border().cast_const().cast());
    for (nth, way) in WAYS.into_iter().enumerate() {
        for (len, room_len) in [(0, 16), (3, 0), (12, 16), (16, 40), (40, 64), (64, 100), (1000, 200)] {
            // All but the last bytes are there.
            let there: usize = (24 + len + room_len - 1) & !7;
            let mut rest = region.bytes(there.saturating_sub(24), len.min(there.saturating_sub(24)));
            rest.resize(len, 0);
            let at = |there: usize| region.border().wrapping_sub(there).cast_const().cast();
            for (first, second, src, key) in [
                (gone, here, here, region.bytes(STEP - 24, len)),
                (here, gone, here, vec![0; len]),
                (here, here, at(there), rest),
                (here, here, at(16), vec![0; len]),
                (here, here, gone, vec![0; len]),
            ] {
                let first = (first, now(&region, 0));
                // SAFETY: all of it lies in the region, there or not, and the words are aligned; the place is this thread's.
                let outcome = unsafe { way(first, second, src, &key, place(&mut room[..room_len])) };
                assert_eq!(outcome, Err(Fault), "{len} {room_len} from {src:?}, by {nth}");
            }
        }
    }
}
